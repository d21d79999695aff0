"""Kernels as C++ for Vitis HLS: the C printer with streams, processes and pragmas.

A process becomes a function of its own, called in a DATAFLOW region; a stream is an
`hls::stream`; buffers in space `register` are partitioned, `bram` ones bound to block
memory.  There is no context argument: every loop is what its kind says.  The text also compiles
with a plain C++ compiler and the header in shim/, for simulation.
Imports: ir, backends/c.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...ir.core import Op, Value
from ...ir.errors import UnsupportedError
from ...ir.kernel_abi import dim_parameters
from ...ir.ops import loop
from ...ir.ops.core import Func
from ...ir.types import BufferType
from ..c.expressions import Expr
from ..c.prelude import prelude
from ..c.printer import ROWS, CModule, Printer, Row
from ..c.types import packed_bits

SHIM = Path(__file__).with_name("shim")
"""A folder with our own hls_stream.h, for simulation without the vendor's tools."""

_PRAGMAS = {
    "pipeline": "#pragma HLS PIPELINE II=1",
    "unroll": "#pragma HLS UNROLL",
    "vector": "#pragma HLS UNROLL",
}


class HlsPrinter(Printer):
    """One C++ function being printed."""

    module: HlsModule

    def __init__(self, module: HlsModule) -> None:
        super().__init__(module)
        self.labels: set[str] = set()
        self.outlined: list[str] = []
        """Texts of the processes, which stand before the function."""
        self.function = ""

    def outline(self) -> HlsPrinter:
        """A printer for a process: it knows the names of this one."""
        made = HlsPrinter(self.module)
        made.names, made.symbols = dict(self.names), dict(self.symbols)
        made.ranges, made.taken = dict(self.ranges), set(self.taken)
        made.written, made.labels, made.function = self.written, self.labels, self.function
        return made

    def parameter(self, buffer: Value, name: str) -> str:
        """The declaration of a buffer or stream as a function's parameter."""
        type_ = buffer.buffer
        element = self.element_type(type_.dtype)
        if type_.space == "stream":
            return f"hls::stream<{element}> &{name}"
        const = "" if buffer in self.written else "const "
        size = type_.size
        if not isinstance(size, int):
            return f"{const}{element} *{name}"
        bits = packed_bits(type_.dtype)
        if bits:
            return f"{const}{element} {name}[{-(-size * bits // 8)}]"
        if type_.space == "heap":
            return f"{const}{element} {name}[{size}]"
        return f"{const}{element} {name}{''.join([f'[{d}]' for d in type_.shape])}"


def _process(p: Printer, op: Op) -> None:
    """A function of what the process uses, and the call."""
    assert isinstance(op, loop.Process) and isinstance(p, HlsPrinter)
    p.flush(everything=True)
    inner = p.outline()
    inner.depth = 1
    inner.run(op.body)
    inner.flush_unused()
    name = p.new_name(f"{p.function}_{op.label}")
    params, args = [], []
    for value, known in p.names.items():
        if known in inner.mentions:
            if not isinstance(value.type, BufferType):
                raise UnsupportedError(
                    "E0435",
                    f"process {op.label} uses a scalar computed outside it",
                    where=Op.where(op),
                    hint="compute it inside, or send it by a stream",
                )
            params.append(p.parameter(value, known))
            args.append(known)
    for symbol in p.symbols.values():
        if symbol.text in inner.mentions:
            params.append(f"ptrdiff_t {symbol.text}")
            args.append(symbol.text)
    p.mentions |= set(args)
    p.outlined.append(
        "\n".join([f"static void {name}({', '.join(params)}) {{", *inner.lines, "}\n"])
    )
    p.line(f"{name}({', '.join(args)});")


def _push(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.Push)
    value = p.expr(op.value)
    p.flush()
    p.line(f"{p.name_of(op.stream)}.write({value.text});")


def _pop(p: Printer, op: Op) -> None:
    """Read now: the order of reads is the order of the program."""
    assert isinstance(op, loop.Pop)
    p.flush()
    p.store_value(op.result, Expr(f"{p.name_of(op.stream)}.read()"))


HLS_ROWS: dict[str, Row] = {**ROWS, "loop.process": _process, "loop.push": _push, "loop.pop": _pop}


class HlsModule(CModule):
    """What differs from C: no context, arrays instead of pointers, pragmas, streams."""

    language = "HLS C++"
    rows = HLS_ROWS
    spaces = ("register", "stack", "bram", "tile")
    printer = HlsPrinter

    def loop_opened(self, p: Printer, op: loop.For) -> None:
        pragma = _PRAGMAS.get(op.kind)
        if pragma:
            p.lines.append(pragma)

    def array_declared(self, p: Printer, op: loop.Alloc, name: str) -> None:
        if op.type.space == "register" and op.type.rank:
            p.lines.append(f"#pragma HLS ARRAY_PARTITION variable={name} complete dim=0")
        elif op.type.space == "bram":
            p.lines.append(f"#pragma HLS BIND_STORAGE variable={name} type=ram_2p impl=bram")

    def declare_stream(self, p: Printer, op: loop.Alloc) -> None:
        name = p.names[op.result] = p.new_name(op.label or "stream")
        p.line(f'hls::stream<{p.element_type(op.type.dtype)}> {name}("{name}");')
        p.lines.append(f"#pragma HLS STREAM variable={name} depth={op.type.size}")

    def function(self, func: Func) -> str:
        p = HlsPrinter(self)
        p.written = self.written_roots(func)
        p.function = func.sym
        names = self.buffer_names(p, func)
        params = [p.parameter(arg, name) for arg, name in zip(func.args, names, strict=True)]
        params += [f"ptrdiff_t {p.bind(name, (0, None))}" for name in dim_parameters(func)]
        if any(isinstance(op, loop.Process) for op in func.body):
            p.lines.append("#pragma HLS DATAFLOW")
        p.run(func.body)
        lines = [
            *p.outlined,
            f"int32_t {func.sym}({', '.join(params)}) {{",
            *p.lines,
            "    return 0;",
            "}\n",
        ]
        return "\n".join(lines)

    def text(self) -> str:
        bodies = [self.function(f) for f in self.funcs.values()]
        return "\n".join([self.head(), 'extern "C" {\n', *bodies, '} // extern "C"\n'])

    def head(self) -> str:
        return '#include "hls_stream.h"\n' + prelude(self.used, context=False)


def emit_module(funcs: Sequence[Func]) -> str:
    """One HLS C++ file with these kernels.  E0430 to E0435 name what cannot be printed."""
    return HlsModule(funcs, [f.sym for f in funcs]).text()


def emit_func(func: Func) -> str:
    """One HLS C++ file with one kernel."""
    return emit_module([func])


__all__ = ["SHIM", "HlsModule", "HlsPrinter", "emit_func", "emit_module"]
