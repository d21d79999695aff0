"""Statements of kernels and plans as C: one row per op.

Imports: ir, the files of this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...ir.core import Op
from ...ir.dims import DimLike
from ...ir.errors import UnsupportedError
from ...ir.ops import loop
from ...ir.ops.core import Yield
from ...ir.types import element
from ..instr import meaning
from .expressions import (
    ADD,
    RULES,
    UNARY,
    Expr,
    bitcast,
    cast,
    choose,
    convert,
)
from .function import Printer, root
from .types import packed_bits

# Rows --------------------------------------------------------------------------------------------


def _for(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.For)
    if op.kind.startswith("gpu"):
        raise UnsupportedError(
            "E0432", f"loop {op.var} is of kind {op.kind}", hint="a GPU target prints it"
        )
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
        raise UnsupportedError(
            "E0433",
            f"a {p.module.language} kernel cannot allocate {type_}",
            where=Op.where(op),
            hint="plan it in the arena, or give it a static shape on the stack",
        )
    if op.result.uses is None:  # what used it were loops of no steps
        return
    name = p.new_name(op.label or type_.space)
    shape: Sequence[DimLike] = type_.shape
    bits = packed_bits(type_.dtype)
    if bits:
        shape = (-(-type_.size * bits // 8),)
    elif type_.strides is not None:
        shape = (1 + sum((d - 1) * s for d, s in zip(shape, type_.strides, strict=True)),)
    start = " = {0}" if bits else ""  # a store changes part of a byte, and keeps the rest of it
    p.line(f"{p.element_type(type_.dtype)} {name}{''.join([f'[{d}]' for d in shape])}{start};")
    p.names[op.result] = name
    p.module.array_declared(p, op, name)


def _view(p: Printer, op: Op) -> None:
    assert isinstance(op, loop.View)
    p.flush()
    name = p.new_name(op.result.name or "view")
    base = p.name_of(op.base)
    constant_ = "" if root(op.base) in p.written else "const "
    type_ = p.element_type(op.type.dtype)
    dtype = op.base.buffer.dtype
    start = Expr(base)
    if op.offset != 0:
        bytes_ = base if p.element_type(dtype) == "uint8_t" else f"({constant_}uint8_t *){base}"
        start = Expr(f"({bytes_} + {p.dim(op.offset).text})")
    same = type_ == (p.element_type(dtype) if op.offset == 0 else "uint8_t")
    through = (
        start.text
        if same
        else f"({constant_}{type_} *)({constant_}void *){start.text}"
    )
    if op.result.users:
        p.line(f"{constant_}{type_} *const {name} = {through};")
    p.names[op.result] = name


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
        raise UnsupportedError(
            "E0431", f"the {p.module.language} printer has no row for vectors", where=Op.where(op)
        )
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
        if p.element_type(value.buffer.dtype) != type_.removeprefix("const "):
            through = "const void *" if type_.startswith("const ") else "void *"
            name = f"({type_} *)({through}){name}"
        args.append(name)
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
    raise UnsupportedError(
        "E0434", f"{p.module.language} has no host to run {op.attrs[0]}", where=Op.where(op)
    )


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


def _aligned(p: Printer, op: Op) -> None:
    """C stores are plain, which no alignment is needed for."""
    p.define(op.results[0], Expr("true"))


def _arithmetic(p: Printer, op: Op) -> None:
    dtype = element(op.operands[0].type)
    xs = [p.expr(v) for v in op.operands]
    p.define(op.results[0], RULES[op.name](p, dtype, xs, op))


Row = Callable[[Printer, Op], None]
ROWS: dict[str, Row] = {
    **dict.fromkeys(RULES, _arithmetic),
    "where": _where,
    "cast": _cast,
    "bitcast": _bitcast,
    "const": _nothing,
    "loop.prefetch": _nothing,
    "loop.aligned": _aligned,
    "loop.fence": _nothing,
    "return": _nothing,
    "yield": _nothing,
    "loop.for": _for,
    "loop.if": _if,
    "loop.when": _when,
    "loop.while": _while,
    "loop.fail": _fail,
    "loop.bind": _bind,
    "loop.alloc": _alloc,
    "loop.view": _view,
    "loop.load": _load,
    "loop.store": _store,
    "loop.index": _index,
    "loop.call": _call,
    "loop.host_call": _host_call,
    "loop.call_instr": _call_instr,
}

__all__ = ["ROWS", "Row"]
