"""Identities of elementwise ops that hold to the bit, signed zeros and NaN included.

x + 0 is not one of them for floats (-0 + 0 is 0), x + -0 is; x * 0 never is.  May import: ir,
values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...ir.core import Builder, Op, Value
from ...ir.types import DType
from .values import RuleTable, classes, constant, is_tensor, make_constant, repeated, table

Neutral = Callable[[Any], bool]


def _zero_to_add(c: Any) -> bool:
    return bool(
        c == 0 and (c.dtype.kind in "iu" or (c.dtype.kind in "fV" and np.signbit(np.float64(c))))
    )


def _zero_to_subtract(c: Any) -> bool:
    return bool(
        c == 0
        and (c.dtype.kind in "iu" or (c.dtype.kind in "fV" and not np.signbit(np.float64(c))))
    )


def _one(c: Any) -> bool:
    return bool(c == 1) and c.dtype.kind != "c"


def _integer_zero(c: Any) -> bool:
    return bool(c == 0) and c.dtype.kind in "iu"


def _all_bits(c: Any) -> bool:
    return c.dtype.kind in "iu" and bool(~c == 0)


_TRUE: Neutral = bool
_RIGHT: dict[str, Neutral] = {
    "add": _zero_to_add,
    "sub": _zero_to_subtract,
    "mul": _one,
    "div": _one,
    "bitwise_or": _integer_zero,
    "bitwise_xor": _integer_zero,
    "bitwise_and": _all_bits,
    "shift_left": _integer_zero,
    "shift_right": _integer_zero,
    "logical_and": _TRUE,
    "logical_or": lambda c: not c,
    "logical_xor": lambda c: not c,
    "pow": _one,
}
_COMMUTES = {
    "add",
    "mul",
    "bitwise_or",
    "bitwise_xor",
    "bitwise_and",
    "logical_and",
    "logical_or",
    "logical_xor",
}


def neutral_operand(op: Op, b: Builder) -> Value | None:
    """x op neutral is x, where the other operand does not widen the shape."""
    x, y = op.operands
    neutral = _RIGHT[op.name]
    for kept, other in ((x, y), (y, x)) if op.name in _COMMUTES else ((x, y),):
        if kept.type is op.results[0].type and (c := repeated(other)) is not None and neutral(c):
            return kept
    return None


def identity(op: Op, b: Builder) -> Value:
    """identity(x) is x."""
    return op.operands[0]


def same_cast(op: Op, b: Builder) -> Value | None:
    """A cast to the type that x has; of two casts, one, where the first loses nothing."""
    (x,) = op.operands
    if x.type is op.results[0].type:
        return x
    inner = x.op
    if inner is None or inner.name != "cast" or not is_tensor(x):
        return None
    source = inner.operands[0]
    if not _widening(source.tensor.dtype, x.tensor.dtype):
        return None
    if source.type is op.results[0].type:
        return source
    return b.cast(source, to=op.attributes["to"])  # type: ignore[no-any-return]


_MANTISSA = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8, "f8e4m3fn": 4, "f8e5m2": 3, "f4e2m1": 2}
_EXPONENT = {"f64": 11, "f32": 8, "f16": 5, "bf16": 8, "f8e4m3fn": 4, "f8e5m2": 5, "f4e2m1": 2}


def _widening(source: DType, to: DType) -> bool:
    """Every value of `source` is a value of `to`."""
    if source.is_float and to.is_float:
        if source.name not in _MANTISSA or to.name not in _MANTISSA:
            return False
        if source.name == "f8e4m3fn" or source.name == "f4e2m1":
            return to.bits >= 16
        return (
            _MANTISSA[source.name] <= _MANTISSA[to.name]
            and _EXPONENT[source.name] <= _EXPONENT[to.name]
        )
    if source.kind == "bool":
        return to.is_integer
    if source.is_integer and to.is_integer:
        if source.kind == to.kind:
            return source.bits <= to.bits
        return source.kind == "uint" and source.bits < to.bits
    return False


def chosen_where(op: Op, b: Builder) -> Value | None:
    """where of a constant condition, or of equal sides."""
    condition, x, y = op.operands
    c = repeated(condition)
    kept = x if x is y else None if c is None else x if bool(c) else y
    return kept if kept is not None and kept.type is op.results[0].type else None


_INVOLUTIONS = {"neg", "logical_not", "bitwise_not"}


def twice(op: Op, b: Builder) -> Value | None:
    """neg(neg(x)) is x, and so for both kinds of not."""
    inner = op.operands[0].op
    return inner.operands[0] if inner is not None and inner.name == op.name else None


_IDEMPOTENT = ("abs", "relu", "floor", "ceil", "round_even", "trunc", "sign")


def again(op: Op, b: Builder) -> Value | None:
    """f(f(x)) is f(x)."""
    inner = op.operands[0].op
    return op.operands[0] if inner is not None and inner.name == op.name else None


_SAME = {"eq": True, "le": True, "ge": True, "ne": False, "lt": False, "gt": False}


def compared_with_itself(op: Op, b: Builder) -> Value | None:
    """x == x and the like, for integers and bools (a NaN differs from itself)."""
    x, y = op.operands
    type_ = op.results[0].type
    if x is not y or not is_tensor(x) or x.tensor.dtype.is_float or not type_.is_static:  # type: ignore[attr-defined]
        return None
    if x.tensor.dtype.kind == "complex" or x.tensor.dtype.kind == "string":
        return None
    return make_constant(b, np.full(x.tensor.shape, _SAME[op.name]), type_)  # type: ignore[arg-type]


def both_same(op: Op, b: Builder) -> Value | None:
    """min(x, x), max(x, x), x and x, x or x are x."""
    return op.operands[0] if op.operands[0] is op.operands[1] else None


def constant_right(op: Op, b: Builder) -> Value | None:
    """Of a commutative op the constant stands on the right, so that chains of them meet."""
    x, y = op.operands
    if not is_tensor(x) or constant(x) is None or constant(y) is not None:
        return None
    return b.emit(type(op), y, x, **op.attributes)  # type: ignore[no-any-return]


def integer_chain(op: Op, b: Builder) -> Value | None:
    """(x + c) + d is x + (c + d) for integers, which wrap; so for * and the bit operations."""
    x, d = op.operands
    inner = x.op
    if inner is None or inner.name != op.name or not is_tensor(x) or not x.tensor.dtype.is_integer:
        return None
    base, c = inner.operands
    if constant(c) is None or constant(d) is None or base.type is not x.type:
        return None
    return b.emit(type(op), base, b.emit(type(op), c, d))  # type: ignore[no-any-return]


def power(op: Op, b: Builder) -> Value | None:
    """x ** 2 is x * x, x ** 0.5 stays (it differs from sqrt at -0 and minus infinity)."""
    x, y = op.operands
    c = repeated(y)
    if c is None or c != 2 or x.type is not op.results[0].type or not is_tensor(x):
        return None
    return b.mul(x, x)  # type: ignore[no-any-return]


def division_by_power_of_two(op: Op, b: Builder) -> Value | None:
    """x / c is x * (1/c) where 1/c is exact and normal."""
    x, y = op.operands
    c = repeated(y)
    if c is None or not is_tensor(y) or y.tensor.dtype.name not in ("f32", "f64"):
        return None
    mantissa, exponent = np.frexp(c)
    if abs(mantissa) != 0.5 or abs(int(exponent)) > 100:
        return None
    inverse = make_constant(b, np.full(y.tensor.shape, 1 / c), y.tensor)
    return b.mul(x, inverse)  # type: ignore[no-any-return]


def subtracted_constant(op: Op, b: Builder) -> Value | None:
    """x - c is x + (-c), to the bit, so that sums of constants meet."""
    x, y = op.operands
    if (
        not is_tensor(y)
        or constant(y) is None
        or constant(x) is not None
        or y.tensor.dtype.name not in ("f32", "f64")
    ):
        return None
    return b.add(x, b.neg(y))  # type: ignore[no-any-return]


def integer_product_with_zero(op: Op, b: Builder) -> Value | None:
    """x * 0 and x & 0 are 0 for integers."""
    x, y = op.operands
    c, type_ = repeated(y), op.results[0].type
    if c is None or not _integer_zero(c) or not is_tensor(x) or not type_.is_static:  # type: ignore[attr-defined]
        return None
    if op.results[0].tensor.size > 64:
        return None
    return make_constant(b, np.zeros(op.results[0].tensor.shape), op.results[0].tensor)


def algebra_rules() -> RuleTable:
    """The table of this file."""
    return table(
        (classes("identity"), [identity]),
        (classes(*_COMMUTES, "eq", "ne", "min", "max"), [constant_right]),
        (classes(*_RIGHT), [neutral_operand]),
        (classes("cast"), [same_cast]),
        (classes("where"), [chosen_where]),
        (classes(*_INVOLUTIONS), [twice]),
        (classes(*_IDEMPOTENT), [again]),
        (classes(*_SAME), [compared_with_itself]),
        (
            classes("min", "max", "logical_and", "logical_or", "bitwise_and", "bitwise_or"),
            [both_same],
        ),
        (classes("add", "mul", "bitwise_and", "bitwise_or", "bitwise_xor"), [integer_chain]),
        (classes("pow"), [power]),
        (classes("mul", "bitwise_and"), [integer_product_with_zero]),
        (classes("sub"), [subtracted_constant]),
        (classes("div"), [division_by_power_of_two]),
    )


__all__ = ["algebra_rules"]
