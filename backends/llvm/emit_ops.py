"""Arithmetic on scalars and vectors as LLVM text: one row per op.

A row gets the operand type and the operand texts and gives the result's text.  bf16 is computed
in float and rounded once; no fast-math flag is ever printed.
Imports: ir, emit_memory, emit_types, emit_writer.
"""

from __future__ import annotations

from collections.abc import Callable

from ...ir.core import Op
from ...ir.dims import substitute
from ...ir.errors import UnsupportedError
from ...ir.ops import loop
from ...ir.types import DType, Type, VectorType, bf16, boolean, element, f16, f32, f64, i64, like
from .emit_guards import iota, splat
from .emit_memory import lanes_of
from .emit_types import constant, literal, scalar_text, suffix, type_text
from .emit_writer import Row, Writer

Rule = Callable[[Writer, Type, "list[str]"], str]


def _intrinsic(w: Writer, name: str, type: Type, xs: list[str]) -> str:
    """`llvm.NAME` overloaded on the operand type, all operands of that type."""
    text = type_text(type)
    full = f"@llvm.{name}.{suffix(type)}"
    w.declare(f"declare {text} {full}({', '.join([text] * len(xs))})")
    return w.emit(f"call {text} {full}({', '.join([f'{text} {x}' for x in xs])})")


def _wide(type: Type) -> Type:
    """The type in which bf16 is computed."""
    return like(type, f32)


# Casts -------------------------------------------------------------------------------------------


def bf16_to_f32(w: Writer, type: Type, x: str) -> str:
    """Upper half of a float."""
    wide = type_text(_bits(type, 32))
    shifted = w.emit(
        f"shl {wide} {w.emit(f'zext {type_text(type)} {x} to {wide}')}, "
        f"{constant(16, _bits(type, 32))}"
    )
    return w.emit(f"bitcast {wide} {shifted} to {type_text(_wide(type))}")


def _bits(type: Type, width: int) -> Type:
    """The integer type of the same shape with `width` bits."""
    return like(type, DType(f"i{width}"))


def f32_to_bf16(w: Writer, type: Type, x: str) -> str:
    """The upper half, rounded to nearest even; NaN stays NaN (its quiet bit is set)."""
    ints, floats = _bits(type, 32), type_text(like(type, f32))
    text = type_text(ints)
    raw = w.emit(f"bitcast {floats} {x} to {text}")
    high = w.emit(f"lshr {text} {raw}, {constant(16, ints)}")
    odd = w.emit(f"and {text} {high}, {constant(1, ints)}")
    bias = w.emit(f"add {text} {odd}, {constant(0x7FFF, ints)}")
    rounded = w.emit(f"lshr {text} {w.emit(f'add {text} {raw}, {bias}')}, {constant(16, ints)}")
    quiet = w.emit(f"or {text} {high}, {constant(64, ints)}")
    flag = type_text(like(type, boolean))
    nan = w.emit(f"fcmp uno {floats} {x}, {x}")
    kept = w.emit(f"select {flag} {nan}, {text} {quiet}, {text} {rounded}")
    return w.emit(f"trunc {text} {kept} to {type_text(_bits(type, 16))}")


def cast_value(w: Writer, x: str, from_: Type, to: DType) -> str:
    """`x` converted as the op `cast` defines."""
    source, target = element(from_), like(from_, to)
    if source is to:
        return x
    if source is bf16:
        return cast_value(w, bf16_to_f32(w, from_, x), _wide(from_), to)
    if to is bf16:
        return f32_to_bf16(w, from_, _to_f32_odd(w, x, from_))
    a, b = type_text(from_), type_text(target)
    if to is boolean:
        if source.is_float:
            return w.emit(f"fcmp une {a} {x}, {constant(0, from_)}")
        return w.emit(f"icmp ne {a} {x}, {constant(0, from_)}")
    if to is f16 and source is not f32:
        narrow = like(from_, f32)
        return w.emit(f"fptrunc {type_text(narrow)} {_to_f32_odd(w, x, from_)} to {b}")
    if source is f16 and not to.is_float:
        return cast_value(
            w, w.emit(f"fpext {a} {x} to {type_text(_wide(from_))}"), _wide(from_), to
        )
    if source.is_float and to.is_float:
        return w.emit(f"{'fpext' if to.bits > source.bits else 'fptrunc'} {a} {x} to {b}")
    if source.is_float:
        name = f"@llvm.fpto{'s' if to.kind == 'int' else 'u'}i.sat.{suffix(target)}.{suffix(from_)}"
        w.declare(f"declare {b} {name}({a})")
        return w.emit(f"call {b} {name}({a} {x})")
    signed = source.kind == "int"
    if to.is_float:
        return w.emit(f"{'s' if signed else 'u'}itofp {a} {x} to {b}")
    width = 1 if source is boolean else source.bits
    if to.bits == width:
        return x
    return w.emit(f"{'trunc' if to.bits < width else 'sext' if signed else 'zext'} {a} {x} to {b}")


def _to_f32_odd(w: Writer, x: str, from_: Type) -> str:
    """f32 on the way to 16 bits; wider values are rounded to odd, so that only the last rounding
    counts.
    """
    source = element(from_)
    if source is not f64 and not (source.is_integer and source.bits > 24):
        return cast_value(w, x, from_, f32)
    if source.is_integer:
        if source.bits > 53:
            return cast_value(w, x, from_, f32)
        x, from_ = cast_value(w, x, from_, f64), like(from_, f64)
    ints, wide, narrow = _bits(from_, 32), type_text(from_), type_text(like(from_, f32))
    text, flag = type_text(ints), type_text(like(from_, boolean))
    near = w.emit(f"fptrunc {wide} {x} to {narrow}")
    back = w.emit(f"fpext {narrow} {near} to {wide}")
    raw = w.emit(f"bitcast {narrow} {near} to {text}")
    # Rounded away from zero: step back one.  Inexact: set the last bit.
    size, size_back = _intrinsic(w, "fabs", from_, [x]), _intrinsic(w, "fabs", from_, [back])
    over = w.emit(f"fcmp ogt {wide} {size_back}, {size}")
    less = w.emit(
        f"select {flag} {over}, {text} {w.emit(f'sub {text} {raw}, {constant(1, ints)}')}, "
        f"{text} {raw}"
    )
    odd = w.emit(f"or {text} {less}, {constant(1, ints)}")
    inexact = w.emit(f"fcmp one {wide} {x}, {back}")
    chosen = w.emit(f"select {flag} {inexact}, {text} {odd}, {text} {raw}")
    return w.emit(f"bitcast {text} {chosen} to {narrow}")


# Arithmetic --------------------------------------------------------------------------------------


def _by_kind(float_: str, int_: str, uint: str = "", bool_: str = "") -> Rule:
    """An instruction of two operands, by the kind of the element type."""
    table = {"float": float_, "int": int_, "uint": uint or int_, "bool": bool_ or uint or int_}

    def rule(w: Writer, type: Type, xs: list[str]) -> str:
        return w.emit(f"{table[element(type).kind]} {type_text(type)} {xs[0]}, {xs[1]}")

    return rule


def _divide(quotient: bool) -> Rule:
    """Integers: 0 where the divisor is 0, wrapping for the least integer over -1; LLVM traps on
    both.
    """

    def rule(w: Writer, type: Type, xs: list[str]) -> str:
        text, dtype = type_text(type), element(type)
        if dtype.is_float:
            return w.emit(f"{'fdiv' if quotient else 'frem'} {text} {xs[0]}, {xs[1]}")
        flag, zero, one = type_text(like(type, boolean)), constant(0, type), constant(1, type)
        is_zero = w.emit(f"icmp eq {text} {xs[1]}, {zero}")
        signed = dtype.kind == "int"
        unsafe, by_minus = is_zero, ""
        if signed:
            by_minus = w.emit(f"icmp eq {text} {xs[1]}, {constant(-1, type)}")
            unsafe = w.emit(f"or {flag} {is_zero}, {by_minus}")
        safe = w.emit(f"select {flag} {unsafe}, {text} {one}, {text} {xs[1]}")
        name = ("s" if signed else "u") + ("div" if quotient else "rem")
        made = w.emit(f"{name} {text} {xs[0]}, {safe}")
        if signed and quotient:
            negated = w.emit(f"sub {text} {zero}, {xs[0]}")
            made = w.emit(f"select {flag} {by_minus}, {text} {negated}, {text} {made}")
        # A remainder by the safe divisor 1 is 0 already.
        return (
            w.emit(f"select {flag} {is_zero}, {text} {zero}, {text} {made}") if quotient else made
        )

    return rule


def _extremum(greater: bool) -> Rule:
    """Min or max: NaN if either operand is; one comparison where one is a constant number."""

    def rule(w: Writer, type: Type, xs: list[str]) -> str:
        text, kind = type_text(type), element(type).kind
        x, y = xs
        if kind in ("int", "uint"):
            name = ("s" if kind == "int" else "u") + ("max" if greater else "min")
            return _intrinsic(w, name, type, xs)
        if kind == "bool":
            return w.emit(f"{'or' if greater else 'and'} {text} {x}, {y}")
        flag = type_text(like(type, boolean))
        if x[0] != "%":
            x, y = y, x
        if y[0] != "%" and not _is_nan(y):
            # An ordered comparison is false for NaN, so that the last operand is given: x keeps it.
            first = w.emit(f"fcmp {'ogt' if greater else 'olt'} {text} {y}, {x}")
            return w.emit(f"select {flag} {first}, {text} {y}, {text} {x}")
        # Processors without such an instruction test the first operand: not the running extremum.
        name = f"@llvm.{'maximum' if greater else 'minimum'}.{suffix(type)}"
        w.declare(f"declare {text} {name}({text}, {text})")
        return w.emit(f"call nsz {text} {name}({text} {y}, {text} {x})")

    return rule


def _larger(w: Writer, type: Type, xs: list[str]) -> str:
    """x > y ? x : y, in this order, which is one instruction on x86."""
    if element(type) is boolean:
        return _extremum(True)(w, type, xs)
    text, flag = type_text(type), type_text(like(type, boolean))
    above = RULES["gt"](w, type, xs)
    return w.emit(f"select {flag} {above}, {text} {xs[0]}, {text} {xs[1]}")


def _is_nan(literal: str) -> bool:
    digits = literal.rstrip(")").split("0x")[-1]
    if digits.startswith("H"):
        return int(digits[1:], 16) & 0x7FFF > 0x7C00
    return int(digits, 16) & (1 << 63) - 1 > 0x7FF << 52


def _native(name: str) -> Rule:
    """A float intrinsic."""
    return lambda w, type, xs: _intrinsic(w, name, type, xs)


def _fma(w: Writer, type: Type, xs: list[str]) -> str:
    """One rounding.  16-bit floats go through double, in which only the last rounding counts."""
    dtype = element(type)
    if dtype.bits > 16:
        return _intrinsic(w, "fma", type, xs)
    wide = like(type, f64)
    made = _intrinsic(w, "fma", wide, [cast_value(w, x, type, f64) for x in xs])
    return cast_value(w, made, wide, dtype)


def _neg(w: Writer, type: Type, xs: list[str]) -> str:
    text = type_text(type)
    if element(type).is_float:
        return w.emit(f"fneg {text} {xs[0]}")
    return w.emit(f"sub {text} {constant(0, type)}, {xs[0]}")


def _abs(w: Writer, type: Type, xs: list[str]) -> str:
    dtype = element(type)
    if dtype.is_float:
        return _intrinsic(w, "fabs", type, xs)
    if dtype.kind == "uint":
        return xs[0]
    text, name = type_text(type), f"@llvm.abs.{suffix(type)}"
    w.declare(f"declare {text} {name}({text}, i1)")
    return w.emit(f"call {text} {name}({text} {xs[0]}, i1 false)")


def _compare(float_: str, int_: str, uint: str = "") -> Rule:
    def rule(w: Writer, type: Type, xs: list[str]) -> str:
        kind = element(type).kind
        relation = (
            f"fcmp {float_}"
            if kind == "float"
            else f"icmp {int_ if kind == 'int' else uint or int_}"
        )
        return w.emit(f"{relation} {type_text(type)} {xs[0]}, {xs[1]}")

    return rule


def _shift(signed: str, unsigned: str) -> Rule:
    """The count is taken modulo the width."""

    def rule(w: Writer, type: Type, xs: list[str]) -> str:
        text, dtype = type_text(type), element(type)
        count = w.emit(f"and {text} {xs[1]}, {constant(dtype.bits - 1, type)}")
        return w.emit(f"{signed if dtype.kind == 'int' else unsigned} {text} {xs[0]}, {count}")

    return rule


def _not(w: Writer, type: Type, xs: list[str]) -> str:
    return w.emit(
        f"xor {type_text(type)} {xs[0]}, {constant(1 if element(type) is boolean else -1, type)}"
    )


RULES: dict[str, Rule] = {
    "add": _by_kind("fadd", "add"),
    "sub": _by_kind("fsub", "sub"),
    "mul": _by_kind("fmul", "mul"),
    "div": _divide(True),
    "rem": _divide(False),
    "min": _extremum(False),
    "max": _extremum(True),
    "larger": _larger,
    "fma": _fma,
    "sqrt": _native("sqrt"),
    "floor": _native("floor"),
    "ceil": _native("ceil"),
    "trunc": _native("trunc"),
    "round_even": _native("roundeven"),
    "copy_sign": _native("copysign"),
    "neg": _neg,
    "abs": _abs,
    "identity": lambda w, type, xs: xs[0],
    "eq": _compare("oeq", "eq"),
    "ne": _compare("une", "ne"),
    "lt": _compare("olt", "slt", "ult"),
    "le": _compare("ole", "sle", "ule"),
    "gt": _compare("ogt", "sgt", "ugt"),
    "ge": _compare("oge", "sge", "uge"),
    "logical_and": _by_kind("", "and"),
    "logical_or": _by_kind("", "or"),
    "logical_xor": _by_kind("", "xor"),
    "logical_not": _not,
    "bitwise_and": _by_kind("", "and"),
    "bitwise_or": _by_kind("", "or"),
    "bitwise_xor": _by_kind("", "xor"),
    "bitwise_not": _not,
    "shift_left": _shift("shl", "shl"),
    "shift_right": _shift("ashr", "lshr"),
}


def apply(w: Writer, name: str, type: Type, xs: list[str]) -> str:
    """The row `name` on operands of one type; bf16 goes through float."""
    dtype = element(type)
    if dtype is not bf16 or name in ("identity", "fma"):
        return RULES[name](w, type, xs)
    wide = [bf16_to_f32(w, type, x) for x in xs]
    made = RULES[name](w, _wide(type), wide)
    return made if name in ("eq", "ne", "lt", "le", "gt", "ge") else f32_to_bf16(w, type, made)


def _row(name: str) -> Row:
    def row(w: Writer, op: Op) -> None:
        w.values[op.results[0]] = apply(
            w, name, op.operands[0].type, [w.text(v) for v in op.operands]
        )

    return row


# Rows with shapes of their own -------------------------------------------------------------------


def _where(w: Writer, op: Op) -> None:
    condition, x, y = op.operands
    text = type_text(x.type)
    w.values[op.results[0]] = w.emit(
        f"select {type_text(condition.type)} {w.text(condition)}, "
        f"{text} {w.text(x)}, {text} {w.text(y)}"
    )


def _cast(w: Writer, op: Op) -> None:
    (x,) = op.operands
    w.values[op.results[0]] = cast_value(w, w.text(x), x.type, element(op.results[0].type))


def _bitcast(w: Writer, op: Op) -> None:
    (x,) = op.operands
    a, b = type_text(x.type), type_text(op.results[0].type)
    text = w.text(x)
    w.values[op.results[0]] = text if a == b else w.emit(f"bitcast {a} {text} to {b}")


def _reduce_lanes(w: Writer, op: Op) -> None:
    """Lower half with upper half, until one lane is left."""
    assert isinstance(op, loop.ReduceLanes)
    type_ = op.x.type
    assert isinstance(type_, VectorType)
    if type_.lanes & (type_.lanes - 1):
        raise UnsupportedError("E0427", f"{type_} has no halves to reduce", where=Op.where(op))
    known, scalar = w.text(op.x), scalar_text(type_.dtype)
    lanes = type_.lanes
    while lanes > 1:
        vector, lanes = f"<{lanes} x {scalar}>", lanes // 2
        halves = []
        for start in (0, lanes):
            order = ", ".join([f"i32 {start + k}" for k in range(lanes)])
            halves.append(
                w.emit(
                    f"shufflevector {vector} {known}, {vector} poison, <{lanes} x i32> <{order}>"
                )
            )
        known = apply(w, op.combiner, VectorType(type_.dtype, lanes), halves)
    w.values[op.result] = w.emit(f"extractelement <1 x {scalar}> {known}, i64 0")


# Index values and lanes --------------------------------------------------------------------------


def _index(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.IndexValue)
    if not op.lane:
        w.values[op.result] = _converted(w, w.dim(op.value), op.dtype)
        return
    lanes, text = op.lanes, scalar_text(op.dtype)
    step, first = lanes_of(op.value, op.lane)
    vector = f"<{lanes} x {text}>"
    if isinstance(step, int) and not op.dtype.is_float:
        base = splat(w, text, lanes, _converted(w, w.dim(first), op.dtype))
        w.values[op.result] = w.emit(f"add {vector} {base}, {iota(lanes, step, text)}")
        return
    known = "poison"
    for k in range(lanes):
        one = _converted(w, w.dim(substitute(op.value, {op.lane: k})), op.dtype)
        known = w.emit(f"insertelement {vector} {known}, {text} {one}, i64 {k}")
    w.values[op.result] = known


def _converted(w: Writer, text: str, dtype: DType) -> str:
    """An i64 operand as a scalar of `dtype`."""
    if text[0] != "%":
        return literal(int(text), dtype)
    return cast_value(w, text, i64, dtype)


def _splat(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.Splat)
    dtype = element(op.x.type)
    w.values[op.result] = splat(w, scalar_text(dtype), op.lanes, w.text(op.x))


OP_ROWS: dict[str, Row] = {
    **{name: _row(name) for name in RULES},
    "where": _where,
    "cast": _cast,
    "bitcast": _bitcast,
    "loop.reduce_lanes": _reduce_lanes,
    "loop.index": _index,
    "loop.splat": _splat,
}

__all__ = ["OP_ROWS", "RULES", "apply", "cast_value"]
