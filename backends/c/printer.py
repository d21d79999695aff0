"""Kernels and plans as C99: one function each, plain loops, expressions as a person would write them.

A value used once is written into its use, unless memory may change in between.  Vector and unrolled loops are
printed as the plain loops they are; vectors themselves have no C.  See ir/kernel_abi.py for the convention, here
with `const irc_ctx *ctx`, typed pointers and `ptrdiff_t` dims.
Imports: ir, the files of this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...ir.blobs import Blob
from ...ir.core import Block, Op, Value
from ...ir.dims import DimLike, Range
from ...ir.errors import UnsupportedError
from ...ir.kernel_abi import dim_parameters
from ...ir.ops import loop
from ...ir.ops.core import Const, Func, Yield
from ...ir.ops.instr import instr
from ...ir.types import BufferType, DType, VectorType, bf16, boolean, element, f16
from ..instr import meaning
from .expressions import (
    ADD,
    RELATION,
    RULES,
    UNARY,
    Expr,
    Expressions,
    bitcast,
    call,
    cast,
    choose,
    convert,
)
from .prelude import prelude
from .types import identifier, literal, memory_type, packed_bits, register_type


class Printer(Expressions):
    """One C function being printed.  HLS C++ overrides what differs."""

    def __init__(self, module: CModule) -> None:
        super().__init__()
        self.module = module
        self.used = module.used
        self.lines: list[str] = []
        self.depth = 1
        self.names: dict[Value, str] = {}
        self.pending: dict[Value, Expr] = {}
        self.fragile: set[Value] = set()
        """Pending values that read memory."""
        self.taken: set[str] = {"ctx", "status"}
        self.written: set[Value] = set()
        self.reading = False
        """The op being printed has taken in an expression that reads memory."""

    # Text --------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """One indented line."""
        self.lines.append("    " * self.depth + text)

    def open(self, text: str) -> None:
        """A line that begins a block."""
        self.line(text + " {")
        self.depth += 1

    def close(self, tail: str = "") -> None:
        """End a block."""
        self.depth -= 1
        self.line("}" + tail)

    def name_of(self, value: Value) -> str:
        """The C name of a buffer or of a stored scalar."""
        name = self.names[value]
        self.mentions.add(name)
        return name

    def new_name(self, wish: str) -> str:
        """A C name that nothing in this function has."""
        return identifier(wish, self.taken)

    def element_type(self, dtype: DType) -> str:
        """The type of array elements."""
        return memory_type(dtype)

    def value_type(self, dtype: DType) -> str:
        """The type of local scalars."""
        return register_type(dtype)

    # Values ------------------------------------------------------------------------------------

    def expr(self, value: Value) -> Expr:
        """The expression for an operand; a pending one moves into its use."""
        pending = self.pending.pop(value, None)
        if pending is not None:
            if value in self.fragile:
                self.fragile.discard(value)
                self.reading = True
            return pending
        op = value.op
        if isinstance(op, Const):
            return self.constant(op.value, op.type)  # type: ignore[arg-type]
        return Expr(self.name_of(value))

    def simple(self, x: Expr, dtype: DType) -> Expr:
        """x as a name or number, so that it may be written twice."""
        if x.text.replace(".", "").isalnum() or x.text.isidentifier():
            return x
        name = self.new_name("v")
        self.line(f"const {self.value_type(dtype)} {name} = {x.text};")
        return Expr(name)

    def define(self, value: Value, made: Expr) -> None:
        """Remember the value for its only use, or give it a variable now."""
        users = value.users
        once = len(users) == 1 and sum(v is value for v in users[0].operands) == 1
        if once and users[0].block is value.owner.block:
            self.pending[value] = made
            if self.reading:
                self.fragile.add(value)
        elif users:
            self.store_value(value, made)

    def store_value(self, value: Value, made: Expr) -> None:
        """A constant local variable."""
        dtype = element(value.type)
        name = self.new_name(value.name or "v")
        self.line(f"const {self.value_type(dtype)} {name} = {made.text};")
        self.names[value] = name

    def flush(self, everything: bool = False) -> None:
        """Give variables to pending values that a coming effect could change (or to all)."""
        for value in [v for v in self.pending if everything or v in self.fragile]:
            made = self.pending.pop(value)
            self.fragile.discard(value)
            self.store_value(value, made)

    def place(self, buffer: Value, index: Sequence[DimLike]) -> Expr:
        """The element of a buffer, as an lvalue."""
        type_ = buffer.buffer
        name = self.name_of(buffer)
        if type_.space != "heap" and type_.strides is None and not isinstance(buffer.op, loop.View):
            return Expr(name + "".join([f"[{self.dim(i).text}]" for i in index]))
        return Expr(f"{name}[{self.flat(index, type_.shape, type_.strides).text}]")

    def read(self, buffer: Value, index: Sequence[DimLike]) -> Expr:
        """The register value of an element."""
        dtype = element(buffer.type)
        bits = packed_bits(dtype)
        if bits:
            getter = self.need(f"irc_get_{'u' if dtype.kind == 'uint' else 'i'}{bits}")
            at = self.flat(index, buffer.buffer.shape, buffer.buffer.strides)
            return call(getter, Expr(self.name_of(buffer)), at)
        made = self.place(buffer, index)
        if dtype in (f16, bf16) and self.element_type(dtype) == "uint16_t":
            return call(self.need(f"irc_{dtype.name}_load"), made)
        return Expr(f"{made.text} != 0", RELATION - 1) if dtype is boolean else made

    def write(self, buffer: Value, index: Sequence[DimLike], value: Expr) -> None:
        """Store a register value."""
        dtype = element(buffer.type)
        bits = packed_bits(dtype)
        if bits:
            at = self.flat(index, buffer.buffer.shape, buffer.buffer.strides)
            self.line(call(self.need(f"irc_put_{bits}"), Expr(self.name_of(buffer)), at, value).text + ";")
            return
        if dtype in (f16, bf16) and self.element_type(dtype) == "uint16_t":
            value = call(self.need(f"irc_{dtype.name}_bits"), value)
        target = self.place(buffer, index)
        for operator in ("+", "-", "*"):
            head = f"{target.text} {operator} "
            if value.level in (ADD, ADD + 1) and value.text.startswith(head) and dtype.is_float:
                rest = value.text.removeprefix(head)
                if not any(c in rest for c in "+-*/?<>=&|^% "):
                    self.line(f"{target.text} {operator}= {rest};")
                    return
        self.line(f"{target.text} = {value.text};")

    # Blocks ------------------------------------------------------------------------------------

    def run(self, block: Block) -> None:
        """Print every op of a block; what is left pending at its end was for nobody."""
        rows = self.module.rows
        for op in block:
            row = rows.get(op.name)
            if row is None or any(isinstance(r.type, VectorType) for r in op.results):
                raise UnsupportedError(
                    "E0431", f"the {self.module.language} printer has no row for {op.name}", where=Op.where(op),
                    details=tuple(f"gives {r.type}" for r in op.results),
                    hint="vectors stay loops here, and functions of mathematics are expanded before printing")  # fmt: skip
            self.reading = False
            row(self, op)

    def body(self, block: Block) -> None:
        """A block of its own between braces that are already open."""
        names, taken = dict(self.names), set(self.taken)
        self.run(block)
        self.flush_unused()
        self.names, self.taken = names, taken

    def flush_unused(self) -> None:
        """Forget pending values of a finished block."""
        self.pending.clear()
        self.fragile.clear()

    def bind(self, symbol: str, range: Range) -> str:
        """A C name for a symbol."""
        name = self.new_name(symbol)
        self.symbols[symbol] = Expr(name)
        self.ranges[symbol] = range
        return name


# Rows --------------------------------------------------------------------------------------------


def _for(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.For)
    if op.kind.startswith("gpu"):
        raise UnsupportedError("E0432", f"loop {op.var} is of kind {op.kind}", hint="a GPU target prints it")
    p.flush(everything=True)
    lo, end = p.dim(op.lo).text, p.dim(op.lo + op.extent).at(ADD)
    taken = set(p.taken)
    var = p.bind(op.var, (op.lo, op.lo + op.extent - 1))
    p.open(f"for (ptrdiff_t {var} = {lo}; {var} < {end}; ++{var})")
    p.module.loop_opened(p, op)
    p.body(op.body)
    p.close()
    p.taken = taken


def _if(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.If)
    p.flush(everything=True)
    condition = p.holds(op.where)
    p.open(f"if ({condition.text})" if condition is not None else "")
    p.body(op.body)
    p.close()


def _when(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.When)
    condition = p.expr(op.condition)
    p.flush(everything=True)
    p.open(f"if ({condition.text})")
    p.body(op.then)
    if any(not inner.terminator for inner in op.otherwise):
        p.depth -= 1
        p.line("} else {")
        p.depth += 1
        p.body(op.otherwise)
    p.close()


def _while(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.While)
    p.flush(everything=True)
    taken = set(p.taken)
    var = p.bind(op.var, (0, None))
    p.open(f"for (ptrdiff_t {var} = 0;; ++{var})")
    names = dict(p.names)
    p.run(op.before)
    last = op.before.last
    assert isinstance(last, Yield)
    condition = p.expr(last.operands[0])
    p.flush(everything=True)
    p.open(f"if (!{condition.at(UNARY)})")
    p.line("break;")
    p.close()
    p.body(op.body)
    p.close()
    p.names, p.taken = names, taken


def _fail(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.Fail)
    p.flush_unused()
    p.line(f"return {op.status};")


def _bind(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.Bind)
    value = p.expr(op.value)
    name = p.bind(op.symbol, (0, op.extent - 1))
    made = cast("ptrdiff_t", value)
    p.line(f"const ptrdiff_t {name} = {made.text};")
    p.open(f"if ({name} < 0 || {name} >= {p.dim(op.extent).at(ADD)})")
    p.line(f"return {loop.STATUS_INDEX};")
    p.close()


def _alloc(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.Alloc)
    type_ = op.type
    if type_.space == "stream":
        p.module.declare_stream(p, op)
        return
    if type_.space not in p.module.spaces or not isinstance(type_.size, int):
        raise UnsupportedError("E0433", f"a {p.module.language} kernel cannot allocate {type_}", where=Op.where(op),
                               hint="plan it in the arena, or give it a static shape on the stack")  # fmt: skip
    name = p.new_name(op.label or type_.space)
    shape: Sequence[DimLike] = type_.shape
    bits = packed_bits(type_.dtype)
    if bits:
        shape = (-(-type_.size * bits // 8),)
    elif type_.strides is not None:
        shape = (1 + sum((d - 1) * s for d, s in zip(shape, type_.strides, strict=True)),)  # type: ignore[operator,misc]
    p.line(f"{p.element_type(type_.dtype)} {name}{''.join([f'[{d}]' for d in shape])};")
    p.names[op.result] = name
    p.module.array_declared(p, op, name)


def _view(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.View)
    p.flush()
    name = p.new_name(op.result.name or "view")
    base = p.name_of(op.base)
    constant_ = "" if _root(op.base) in p.written else "const "
    type_ = p.element_type(op.type.dtype)
    dtype = op.base.buffer.dtype
    start = Expr(base)
    if op.offset != 0:
        bytes_ = base if p.element_type(dtype) == "uint8_t" else f"({constant_}uint8_t *){base}"
        start = Expr(f"({bytes_} + {p.dim(op.offset).text})")
    through = start.text if type_ == "uint8_t" else f"({constant_}{type_} *)({constant_}void *){start.text}"
    if op.result.users:
        p.line(f"{constant_}{type_} *const {name} = {through};")
    p.names[op.result] = name


def _root(value: Value) -> Value:
    """The buffer that a chain of views looks at."""
    while isinstance(value.op, loop.View):
        value = value.op.base
    return value


def _load(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.Load)
    made = p.read(op.source, op.index)
    condition = p.holds(op.where)
    if condition is not None:
        fill = p.constant(op.fill or 0, element(op.source.type))
        made = choose(condition, made, fill)
    p.reading = True
    p.define(op.result, made)


def _store(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.Store)
    if op.lane:
        raise UnsupportedError("E0431", f"the {p.module.language} printer has no row for vectors", where=Op.where(op))
    value = p.expr(op.value)
    p.flush()
    condition = p.holds(op.where)
    if condition is not None:
        p.open(f"if ({condition.text})")
    p.write(op.target, op.index, value)
    if condition is not None:
        p.close()


def _index(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.IndexValue)
    p.define(op.result, cast(p.value_type(op.dtype), p.dim(op.value)))


def _call(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.Call)
    p.flush(everything=True)
    wanted = p.module.parameter_types(p, op)
    args = ["ctx"]
    for value, type_ in zip(op.args, wanted, strict=True):
        name = p.name_of(value)
        same = p.element_type(value.buffer.dtype) == type_.removeprefix("const ")
        args.append(name if same else f"({type_} *)({type_.split(' ')[0] + ' ' if type_ != type_.split(' ')[-1] else ''}void *){name}")
    args += [p.dim(e).text for e in op.dims]
    p.mentions.add("ctx")
    p.open(f"if ((status = {op.callee}({', '.join(args)})) != 0)")
    p.mentions.add("status")
    p.line("return status;")
    p.close()


def _call_instr(p: Printer, op: Op) -> None:
    """The meaning, as plain loops."""
    assert isinstance(op, loop.CallInstr)
    p.flush(everything=True)
    p.run(meaning(op))


def _host_call(p: Printer, op: Op) -> None:
    raise UnsupportedError("E0434", f"{p.module.language} has no host to run {op.attrs[0]}", where=Op.where(op))


def _where(p: Printer, op: Op) -> None:
    condition, x, y = [p.expr(v) for v in op.operands]
    p.define(op.results[0], choose(condition, x, y))


def _cast(p: Printer, op: Op) -> None:
    (x,) = op.operands
    p.define(op.results[0], convert(p, p.expr(x), element(x.type), element(op.results[0].type)))


def _bitcast(p: Printer, op: Op) -> None:
    (x,) = op.operands
    p.define(op.results[0], bitcast(p, p.expr(x), element(x.type), element(op.results[0].type)))


def _nothing(p: Printer, op: Op) -> None:
    """Constants are written where they are used; terminators by the op around them."""


def _arithmetic(p: Printer, op: Op) -> None:
    dtype = element(op.operands[0].type)
    xs = [p.expr(v) for v in op.operands]
    p.define(op.results[0], RULES[op.name](p, dtype, xs, op))


Row = Callable[[Printer, Op], None]
ROWS: dict[str, Row] = {
    **{name: _arithmetic for name in RULES},
    "where": _where, "cast": _cast, "bitcast": _bitcast, "const": _nothing, "return": _nothing, "yield": _nothing,
    "loop.for": _for, "loop.if": _if, "loop.when": _when, "loop.while": _while, "loop.fail": _fail,
    "loop.bind": _bind, "loop.alloc": _alloc, "loop.view": _view, "loop.load": _load, "loop.store": _store,
    "loop.index": _index, "loop.call": _call, "loop.host_call": _host_call, "loop.call_instr": _call_instr,
}  # fmt: skip


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
        raise UnsupportedError("E0433", "a C kernel has no streams", where=Op.where(op), hint="print it as HLS C++")

    # Functions

    def written(self, name: str) -> frozenset[int]:
        """Which arguments of a function it may write."""
        known = self.writes.get(name)
        if known is None:
            func = self.funcs[name]
            self.writes[name] = frozenset()  # a cycle of calls is no program
            roots = self.written_roots(func)
            known = self.writes[name] = frozenset(k for k, arg in enumerate(func.args) if arg in roots)
        return known

    def written_roots(self, func: Func) -> set[Value]:
        """The buffers of a function that it or its callees may write."""
        found: set[Value] = set()
        for op in func.body.walk():
            if isinstance(op, loop.Store):
                found.add(_root(op.target))
            elif isinstance(op, loop.Call):
                which = self.written(op.callee) if op.callee in self.funcs else range(len(op.args))
                found |= {_root(op.args[k]) for k in which}
            elif isinstance(op, loop.CallInstr):
                body = instr(op.instr).body
                inside = self.written_roots(body)
                found |= {_root(v) for v, arg in zip(op.args, body.args, strict=True) if arg in inside}
        return found

    def parameter_types(self, p: Printer, op: loop.Call) -> list[str]:
        """Element types of the callee's buffer parameters, `const` where it only reads."""
        func = self.funcs.get(op.callee)
        types = [v.buffer.dtype for v in (func.args if func is not None else op.args)]
        written = self.written(op.callee) if func is not None else range(len(types))
        found = [("" if k in written else "const ") + p.element_type(t) for k, t in enumerate(types)]
        if func is None:
            params = ["const irc_ctx *ctx", *[f"{t} *" for t in found], *["ptrdiff_t"] * len(op.dims)]
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
        unused = [n for n in ("ctx", *[x.split(" ")[-1].lstrip("*") for x in params[1:]]) if n not in p.mentions]
        head += [f"    (void){n};" for n in unused]
        static = "" if func.sym in self.public else "static "
        lines = [f"{static}int32_t {func.sym}({', '.join(params)}) {{", *head, *p.lines, "    return 0;", "}\n"]
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
            restrict = "" if func.kind == "plan" else "restrict "
            const = "" if arg in p.written else "const "
            params.append(f"{const}{p.element_type(arg.buffer.dtype)} *{restrict}{name}")
        return params

    def text(self) -> str:
        """The whole file: prelude, prototypes, functions (kernels before plans)."""
        order = sorted(self.funcs.values(), key=lambda f: f.kind == "plan")
        bodies = [self.function(f) for f in order]
        heads = [t[: t.index(" {\n")] + ";" for f, t in zip(order, bodies, strict=True) if f.sym in self.public]
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

    Functions named in `public` (all, by default) have external linkage; the others are static.  E0430 to E0434
    name what C cannot say.
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
    return f"static const {memory_type(dtype)} {name}[{max(1, len(values))}] = {{\n    {inside or '0'}\n}};\n"


__all__ = ["ROWS", "CModule", "Printer", "Row", "emit_blob", "emit_func", "emit_module"]
