"""Kernels and plans as C99: one function each, plain loops, expressions as a person would write
them.

A value used once is written into its use, unless memory may change in between.  Vector and
unrolled loops are printed as the plain loops they are; vectors themselves have no C.  See
ir/kernel_abi.py for the convention, here with `const irc_ctx *ctx`, typed pointers and
`ptrdiff_t` dims.
Imports: ir, the files of this folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...ir.blobs import Blob
from ...ir.core import Op, Value
from ...ir.errors import UnsupportedError
from ...ir.kernel_abi import dim_parameters
from ...ir.ops import loop
from ...ir.ops.core import Func
from ...ir.ops.instr import instr
from ...ir.types import bf16, boolean, f16
from .function import Printer, root
from .prelude import prelude
from .rows import ROWS, Row
from .types import literal, memory_type, packed_bits

# Modules -----------------------------------------------------------------------------------------


class CModule:
    """What the functions of one file share; the choices that differ between C and HLS C++."""

    language = "C"
    rows: Mapping[str, Row] = ROWS
    spaces: tuple[str, ...] = ("register", "stack", "tile")
    printer: type[Printer] = Printer

    def __init__(self, funcs: Sequence[Func], public: Sequence[str]) -> None:
        self.funcs = {f.sym: f for f in funcs}
        self.public = public
        self.used: dict[str, None] = {}
        self.prototypes: dict[str, None] = {}
        self.writes: dict[str, frozenset[int]] = {}
        self.overwriting: frozenset[str] = frozenset()
        """Kernels of which some call lets a result share the memory of an operand."""

    # What HLS overrides

    def loop_opened(self, p: Printer, op: loop.For) -> None:
        """Called after a loop's opening line."""

    def array_declared(self, p: Printer, op: loop.Alloc, name: str) -> None:
        """Called after a local array's declaration."""

    def declare_stream(self, p: Printer, op: loop.Alloc) -> None:
        """Declare a FIFO."""
        raise UnsupportedError(
            "E0433", "a C kernel has no streams", where=Op.where(op), hint="print it as HLS C++"
        )

    # Functions

    def written(self, name: str) -> frozenset[int]:
        """Which arguments of a function it may write."""
        known = self.writes.get(name)
        if known is None:
            func = self.funcs[name]
            self.writes[name] = frozenset()  # a cycle of calls is no program
            roots = self.written_roots(func)
            known = self.writes[name] = frozenset(
                k for k, arg in enumerate(func.args) if arg in roots
            )
        return known

    def written_roots(self, func: Func) -> set[Value]:
        """The buffers of a function that it or its callees may write."""
        found: set[Value] = set()
        for op in func.body.walk():
            if isinstance(op, loop.Store):
                found.add(root(op.target))
            elif isinstance(op, loop.Call):
                which = self.written(op.callee) if op.callee in self.funcs else range(len(op.args))
                found |= {root(op.args[k]) for k in which}
            elif isinstance(op, loop.CallInstr):
                body = instr(op.instr).body
                inside = self.written_roots(body)
                found |= {
                    root(v) for v, arg in zip(op.args, body.args, strict=True) if arg in inside
                }
        return found

    def parameter_types(self, p: Printer, op: loop.Call) -> list[str]:
        """Element types of the callee's buffer parameters, `const` where it only reads."""
        func = self.funcs.get(op.callee)
        types = [v.buffer.dtype for v in (func.args if func is not None else op.args)]
        written = self.written(op.callee) if func is not None else range(len(types))
        found = [
            ("" if k in written else "const ") + p.element_type(t) for k, t in enumerate(types)
        ]
        if func is None:
            params = [
                "const irc_ctx *ctx",
                *[f"{t} *" for t in found],
                *["ptrdiff_t"] * len(op.dims),
            ]
            self.prototypes[f"int32_t {op.callee}({', '.join(params)});"] = None
        return found

    def function(self, func: Func) -> str:
        """The text of one function."""
        p = self.printer(self)
        p.written = self.written_roots(func)
        params = ["const irc_ctx *ctx", *self.buffer_params(p, func)]
        for name in dim_parameters(func):
            params.append(f"ptrdiff_t {p.bind(name, (0, None))}")
        p.run(func.body)
        head = []
        if "status" in p.mentions:
            head.append("    int32_t status;")
        unused = [
            n
            for n in ("ctx", *[x.split(" ")[-1].lstrip("*") for x in params[1:]])
            if n not in p.mentions
        ]
        head += [f"    (void){n};" for n in unused]
        static = "" if func.sym in self.public else "static "
        lines = [
            f"{static}int32_t {func.sym}({', '.join(params)}) {{",
            *head,
            *p.lines,
            "    return 0;",
            "}\n",
        ]
        return "\n".join(lines)

    def buffer_names(self, p: Printer, func: Func) -> list[str]:
        """C names of the buffer arguments, after the function's inputs and outputs."""
        wishes = [*func.inputs, *func.outputs]
        names = []
        for k, arg in enumerate(func.args):
            wish = arg.name or (wishes[k] if k < len(wishes) else f"arg{k}")
            names.append(p.names.setdefault(arg, p.new_name(wish)))
        return names

    def buffer_params(self, p: Printer, func: Func) -> list[str]:
        """`const float *restrict x` for each buffer argument."""
        params = []
        for arg, name in zip(func.args, self.buffer_names(p, func), strict=True):
            alone = func.kind != "plan" and func.sym not in self.overwriting
            restrict = "restrict " if alone else ""
            const = "" if arg in p.written else "const "
            params.append(f"{const}{p.element_type(arg.buffer.dtype)} *{restrict}{name}")
        return params

    def text(self) -> str:
        """The whole file: prelude, prototypes, functions (kernels before plans)."""
        order = sorted(self.funcs.values(), key=lambda f: f.kind == "plan")
        bodies = [self.function(f) for f in order]
        heads = [
            t[: t.index(" {\n")] + ";"
            for f, t in zip(order, bodies, strict=True)
            if f.sym in self.public
        ]
        bodies += [_entry(self, f) for f in order if f.kind == "plan" and f.sym in self.public]
        return "\n".join([self.head(), *self.prototypes, *heads, "", *bodies])

    def head(self) -> str:
        """Includes and helpers."""
        return prelude(self.used)


def _entry(module: CModule, func: Func) -> str:
    """`NAME_entry(ctx, args, dims)`: the plan with its arguments in arrays."""
    p = module.printer(module)
    passed = ["ctx"]
    for k, arg in enumerate(func.args):
        const = "" if k in module.written(func.sym) else "const "
        passed.append(f"({const}{p.element_type(arg.buffer.dtype)} *)args[{k}]")
    count = len(dim_parameters(func))
    passed += [f"(ptrdiff_t)dims[{k}]" for k in range(count)]
    name = f"{func.sym}_entry"
    head = f"int32_t {name}(const irc_ctx *ctx, void *const *args, const int64_t *dims)"
    unused = "" if count else "    (void)dims;\n"
    return f"{head};\n{head} {{\n{unused}    return {func.sym}({', '.join(passed)});\n}}\n"


def emit_module(funcs: Sequence[Func], public: Sequence[str] | None = None) -> str:
    """One C99 file with these kernels and plans.

    Functions named in `public` (all, by default) have external linkage; the others are
    static.  E0430 to E0434 name what C cannot say.
    """
    return CModule(funcs, [f.sym for f in funcs] if public is None else public).text()


def emit_func(func: Func) -> str:
    """One C99 file with one function: `emit_module` of it alone."""
    return emit_module([func])


def emit_blob(name: str, blob: Blob, per_line: int = 8) -> str:
    """A constant array with the elements of a blob in memory order (packed integers as bytes)."""
    dtype = blob.type.dtype
    flat = blob.array.reshape(-1)
    bits = packed_bits(dtype)
    if bits:
        per = 8 // bits
        raw = np.zeros(-(-flat.size // per) * per, np.uint8)
        raw[: flat.size] = flat.astype(np.int8).view(np.uint8) & ((1 << bits) - 1)
        joined = (raw.reshape(-1, per) << (np.arange(per, dtype=np.uint8) * bits)).sum(1)
        values = [str(int(v)) for v in joined]
    elif dtype in (f16, bf16):
        values = [str(int(v)) for v in flat.view("u2")]
    elif dtype is boolean:
        values = [str(int(v)) for v in flat]
    else:
        values = [literal(v, dtype) for v in flat]
    rows = [", ".join(values[k : k + per_line]) for k in range(0, len(values), per_line)]
    inside = ",\n    ".join(rows)
    head = f"static const {memory_type(dtype)} {name}[{max(1, len(values))}]"
    return f"{head} = {{\n    {inside or '0'}\n}};\n"


__all__ = ["ROWS", "CModule", "Printer", "Row", "emit_blob", "emit_func", "emit_module"]
