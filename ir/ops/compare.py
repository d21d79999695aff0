"""Predicates and what goes with them: comparisons, logic, bits, shifts, `where`, NaN and infinity
tests.

Comparisons give bool.  A NaN compares unequal to everything, and neither less nor greater.
Imports: the elementwise base, the core, types.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..core import Array, Bool, Builder, Float, Grads, Int, Value, operand, sample
from ..errors import Error
from ..types import Type, boolean, element
from .convert import widen
from .elementwise import (
    Element,
    Ordered,
    _Binary,
    _Elementwise,
    _Unary,
    broadcast_type,
    constant,
    passed,
    stopped,
)

PREDICATE = "a predicate"
"""Why what answers true or false has no gradient."""
INTEGER = "integers"


class _Equality(_Binary):
    x = operand(Element)
    y = operand(Element)
    result_dtype = boolean
    no_gradient = PREDICATE
    samples = (*_Binary.samples, sample((40,), (40,), dtypes=("i8", "i8")))

    @classmethod
    def evaluate(cls, *xs: Array, **attrs: Any) -> Array:
        x, y = (v if v.dtype == object else widen(v) for v in xs)
        with np.errstate(all="ignore"):
            return cls.compute(x, y).astype(np.bool_)  # type: ignore[no-any-return]


class Eq(_Equality):
    """x == y."""

    compute = np.equal


class Ne(_Equality):
    """x != y; true where either is NaN."""

    compute = np.not_equal


class _Order(_Binary):
    x = operand(Ordered)
    y = operand(Ordered)
    result_dtype = boolean
    no_gradient = PREDICATE
    samples = (*_Binary.samples, sample((40,), (40,), dtypes=("i8", "i8")))


class Lt(_Order):
    """x < y."""

    compute = np.less


class Le(_Order):
    """x <= y."""

    compute = np.less_equal


class Gt(_Order):
    """x > y."""

    compute = np.greater


class Ge(_Order):
    """x >= y."""

    compute = np.greater_equal


class _Logic(_Binary):
    x = operand(Bool)
    y = operand(Bool)
    no_gradient = PREDICATE
    rejects = (("C2", sample((2, 3), (2,), dtypes=("bool", "bool"))),)


class LogicalAnd(_Logic):
    """x and y."""

    compute = np.logical_and


class LogicalOr(_Logic):
    """x or y."""

    compute = np.logical_or


class LogicalXor(_Logic):
    """Either x or y, not both."""

    compute = np.logical_xor


class LogicalNot(_Unary):
    """not x."""

    x = operand(Bool)
    compute = np.logical_not
    no_gradient = PREDICATE


class _Bits(_Binary):
    x = operand(Int)
    y = operand(Int)
    no_gradient = INTEGER
    samples = (
        sample((3, 5), (3, 5), ranges=((-99, 99),) * 2),
        sample((2, 1), (3,)),
        sample((), ()),
    )
    rejects = (
        ("C1", sample((2,), (2,), dtypes=("i32", "i64"))),
        ("C2", sample((2, 3), (2,), dtypes=("i32", "i32"))),
    )


class BitwiseAnd(_Bits):
    """The bits set in both."""

    compute = np.bitwise_and


class BitwiseOr(_Bits):
    """The bits set in either."""

    compute = np.bitwise_or


class BitwiseXor(_Bits):
    """The bits set in one of the two."""

    compute = np.bitwise_xor


class BitwiseNot(_Unary):
    """Every bit of x turned."""

    x = operand(Int)
    compute = np.bitwise_not
    no_gradient = INTEGER


class _Shift(_Bits):
    """Base of the shifts; the count is taken modulo the width, as by x86, WebAssembly and Java."""

    samples = (
        sample((3, 5), (3, 5), ranges=((-99, 99), (0, 7))),
        sample((2, 1), (3,)),
        sample((), ()),
    )

    @classmethod
    def evaluate(cls, *xs: Array, **attrs: Any) -> Array:
        x, y = widen(xs[0]), widen(xs[1])
        bits = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2}.get(
            xs[0].dtype.name, 8 * x.dtype.itemsize
        )
        with np.errstate(all="ignore"):
            return cls.compute(x, y & x.dtype.type(bits - 1)).astype(xs[0].dtype)  # type: ignore[no-any-return]


class ShiftLeft(_Shift):
    """x * 2**y, wrapping; y is taken modulo the width of x."""

    compute = np.left_shift


class ShiftRight(_Shift):
    """x / 2**y rounded down (the sign fills a signed x); y is taken modulo the width of x."""

    compute = np.right_shift


class IsNan(_Unary):
    """Whether x is NaN."""

    x = operand(Float)
    result_dtype = boolean
    no_gradient = PREDICATE
    compute = np.isnan

    def decompose(self, b: Builder) -> Value:
        return b.ne(self.x, self.x)  # type: ignore[no-any-return]


class IsInf(_Unary):
    """Whether x is an infinity of either sign (never, for a type that has none)."""

    x = operand(Float)
    result_dtype = boolean
    no_gradient = PREDICATE
    compute = np.isinf

    def decompose(self, b: Builder) -> Value:
        size = b.abs(self.x)
        infinite = constant(b, size, float("inf"))
        return b.eq(size, infinite)  # type: ignore[no-any-return]


class Where(_Elementwise):
    """x where the condition holds, else y; nothing is computed on either.

    C1: x and y have one element type.  C2: shapes broadcast.
    """

    condition = operand(Bool)
    x = operand(Element)
    y = operand(Element)
    samples = (sample((3, 5), (3, 5), (3, 5)), sample((4, 1), (3,), ()), sample((), (2, 3), (3,)))
    rejects: ClassVar[Any] = (
        ("C1", sample((2,), (2,), (2,), dtypes=("bool", "f32", "f64"))),
        ("C2", sample((2,), (3,), (3,), dtypes=("bool", "f32", "f32"))),
    )

    @classmethod
    def infer(cls, *types: Type, **attrs: Any) -> Type:
        condition, x, y = types
        if element(x) is not element(y):
            raise Error("E0303", "where (C1): x and y must have one element type",
                        details=(f"found {x} and {y}",), hint="cast one of them")  # fmt: skip
        if isinstance(condition, type(boolean)):  # one condition may choose between whole vectors
            return broadcast_type((x, y), element(x))
        return broadcast_type(types, element(x))

    @classmethod
    def evaluate(cls, *xs: Array, **attrs: Any) -> Array:
        condition, x, y = xs
        return np.where(condition, x, y).astype(x.dtype, copy=False)

    def vjp(self, b: Builder, g: Value) -> Grads:
        return None, passed(b, self.condition, g), stopped(b, self.condition, g)


__all__ = [
    "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Eq", "Ge", "Gt", "IsInf", "IsNan", "Le",
    "LogicalAnd", "LogicalNot", "LogicalOr", "LogicalXor", "Lt", "Ne", "ShiftLeft", "ShiftRight",
    "Where",
]  # fmt: skip
