"""Functions of one or two floats: exp, log, tanh, erf and their kin.

`evaluate` computes in f64 and rounds once.  `approximate` builds the function from arithmetic on
f32 and f64 scalars or vectors (approximations.py), so that every backend computes the same bits;
its error bounds are in docs/numerics.md. Imports: the elementwise base, approximations, the core,
types.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Grads, Real, Value, operand, sample
from ..types import element, f32
from . import approximations
from .convert import compute_dtype
from .elementwise import (
    _Binary,
    _Unary,
    constant,
    in_compute_type,
    scalar_value,
    truncating,
    widened,
)

Approximation = Callable[[Builder, Value], Value]


class _Sloped(_Unary):
    """Base of functions of one float whose cotangent is that of the result times the slope."""

    x = operand(Float)
    slope: ClassVar[Callable[..., Value]]
    """slope(self, b, x, y): the derivative at x, where the function is y; all of them at least f32.
    """

    def vjp(self, b: Builder, g: Value) -> Grads:
        g, x, y = widened(b, g, self.x, self.result)
        return (b.mul(g, self.slope(b, x, y)),)


class _Function(_Sloped):
    """Base of functions of one float, computed in f64."""

    x = operand(Float)
    of_f64: ClassVar[Callable[..., Any]]
    expansion: ClassVar[Approximation]

    @classmethod
    def compute(cls, x: Array) -> Array:
        if x.dtype == np.float64:
            return cls.of_f64(x)  # type: ignore[no-any-return]
        return cls.of_f64(x.astype(np.float64)).astype(np.float32)  # type: ignore[no-any-return]

    def approximate(self, b: Builder, x: Value) -> Value:
        """This function of a scalar or vector, from arithmetic; narrow floats go through f32."""
        return in_compute_type(b, x, lambda v: type(self).expansion(b, v))


POSITIVE = (
    sample((3, 5), ranges=((0.05, 20),)),
    sample((17,), ranges=((0.5, 2),)),
    sample(()),
    sample((0,)),
)


class Exp(_Function):
    """e to the power x; 0 of minus infinity."""

    of_f64 = np.exp
    expansion = approximations.exp

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return y


class Expm1(_Function):
    """exp(x) - 1, accurate near 0."""

    of_f64 = np.expm1
    expansion = approximations.expm1

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.add(y, constant(b, y, 1.0))  # type: ignore[no-any-return]


class Log(_Function):
    """The natural logarithm; minus infinity of 0, NaN below."""

    samples = POSITIVE
    of_f64 = np.log
    expansion = approximations.log

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.reciprocal(x)  # type: ignore[no-any-return]


class Log1p(_Function):
    """log(1 + x), accurate near 0; minus infinity of -1, NaN below."""

    samples = POSITIVE
    of_f64 = np.log1p
    expansion = approximations.log1p

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.reciprocal(b.add(x, constant(b, x, 1.0)))  # type: ignore[no-any-return]


class Tanh(_Function):
    """The hyperbolic tangent."""

    of_f64 = np.tanh
    expansion = approximations.tanh

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.sub(constant(b, y, 1.0), b.mul(y, y))  # type: ignore[no-any-return]


class Sigmoid(_Function):
    """1 / (1 + exp(-x))."""

    expansion = approximations.sigmoid

    @staticmethod
    def of_f64(x: Array) -> Array:
        small = np.exp(-np.abs(x))
        return np.where(x < 0, small, 1.0) / (1.0 + small)

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.mul(y, b.sub(constant(b, y, 1.0), y))  # type: ignore[no-any-return]


_erf = np.frompyfunc(math.erf, 1, 1)


class Erf(_Function):
    """The error function, 2 / sqrt(pi) times the integral of exp(-t*t) from 0 to x."""

    expansion = approximations.erf

    @staticmethod
    def of_f64(x: Array) -> Array:
        return np.asarray(_erf(x), np.float64)

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        bell = b.exp(b.neg(b.mul(x, x)))
        return b.mul(bell, constant(b, bell, 2 / math.sqrt(math.pi)))  # type: ignore[no-any-return]


class Sin(_Function):
    """The sine of x radians; NaN of an infinity."""

    of_f64 = np.sin
    expansion = approximations.sin

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.cos(x)  # type: ignore[no-any-return]


class Cos(_Function):
    """The cosine of x radians; NaN of an infinity."""

    of_f64 = np.cos
    expansion = approximations.cos

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.neg(b.sin(x))  # type: ignore[no-any-return]


class Pow(_Binary):
    """x to the power y.

    Floats by C's rules: x**0 and 1**y are 1, NaN included; a negative x with a fractional y gives
    NaN. Integers wrap; a negative y gives the truncated 1 / x**-y (0 for x = 0).
    """

    x = operand(Real)
    y = operand(Real)
    samples = (
        sample((3, 5), (3, 5), ranges=((0.1, 4), (-2, 2))),
        sample((4, 1, 3), (2, 1), ranges=((0.5, 2), (-2, 2))),
        sample((6,), (6,), dtypes=("i32", "i32"), ranges=((-5, 5), (-2, 9))),
        sample((), (7,)),
    )

    @staticmethod
    def compute(x: Array, y: Array) -> Array:
        if x.dtype == np.float32:
            return np.power(x.astype(np.float64), y.astype(np.float64)).astype(np.float32)
        return np.power(x, y) if x.dtype.kind == "f" else _integer_power(x, y)

    def approximate(self, b: Builder, x: Value, y: Value) -> Value:
        """Roots and products where the exponent is a constant that allows them, else through exp
        and log; integers by repeated squaring.
        """
        dtype = element(x.type)
        if not dtype.is_float:
            return approximations.integer_pow(b, x, y)
        known = y.op.attributes["value"] if y.op is not None and y.op.name == "const" else None
        if dtype.bits >= 32 and known is not None and float(known) in approximations.ROOTS:
            return approximations.root_pow(b, x, float(known))
        if dtype.bits >= 32:
            return approximations.pow(b, x, y)
        out = approximations.pow(b, b.cast(x, to=f32), b.cast(y, to=f32))
        return b.cast(out, to=dtype)  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        """y * x**(y - 1) and x**y * log(x), both 0 where x**y is constant: at y = 0, or x = 0 < y.

        There the powers and logarithms are taken elsewhere, so that no order meets 0 * infinity.
        """
        g, x, y, result = widened(b, g, self.x, self.y, self.result)
        known = scalar_value(self.y)
        if known == 0:
            return None, None
        if known is not None:
            less = x if known == 2 else b.pow(x, constant(b, x, known - 1))
            return b.mul(g, b.mul(constant(b, x, known), less)), None
        zero, one = constant(b, x, 0.0), constant(b, x, 1.0)
        at_zero = b.eq(x, zero)
        exponent = b.where(b.logical_and(at_zero, b.eq(y, zero)), one, y)
        of_x = b.mul(y, b.pow(x, b.sub(exponent, one)))
        inside = b.where(b.logical_and(at_zero, b.ge(y, zero)), one, x)
        return b.mul(g, of_x), b.mul(g, b.mul(result, b.log(inside)))


def _integer_power(x: Array, y: Array) -> Array:
    if x.dtype.kind == "u":
        return np.power(x, y)
    positive = np.power(x, np.maximum(y, 0))
    inverse = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * (y & 1), 0)).astype(x.dtype)
    return np.where(y < 0, inverse, positive)


class _Remainder(_Binary):
    """Base: x - n * y for a whole number n."""

    x = operand(Real)
    y = operand(Real)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """n is constant between its steps."""
        g, x, y, rest = widened(b, g, self.x, self.y, self.result)
        return g, b.neg(b.mul(g, b.round_even(b.div(b.sub(x, rest), y))))


class Rem(_Remainder):
    """The exact remainder of x / y truncated: it has the sign of x (C's fmod and %).

    Integers: x rem 0 is 0.  Floats: NaN where y is 0 or x infinite.
    """

    @staticmethod
    def compute(x: Array, y: Array) -> Array:
        return np.fmod(x, y) if x.dtype.kind == "f" else truncating(x, y)[1]

    def approximate(self, b: Builder, x: Value, y: Value) -> Value:
        """Of floats, by division (LLVM's frem is a call of libm)."""
        wide = compute_dtype(element(x.type))
        if wide is element(x.type):
            return approximations.rem(b, x, y)
        out = approximations.rem(b, b.cast(x, to=wide), b.cast(y, to=wide))
        return b.cast(out, to=element(x.type))  # type: ignore[no-any-return]


class Mod(_Remainder):
    """The exact remainder of x / y rounded down: it has the sign of y (Python's %).

    Integers: x mod 0 is 0.  Floats: NaN where y is 0 or x infinite; a zero has the sign of y.
    """

    compute = np.remainder

    def decompose(self, b: Builder) -> Value:
        rest = b.rem(self.x, self.y)
        zero = constant(b, self.x, 0)
        fixed = rest
        if element(self.x.type).kind != "uint":
            apart = b.ne(b.lt(rest, zero), b.lt(self.y, zero))
            fixed = b.where(b.logical_and(b.ne(rest, zero), apart), b.add(rest, self.y), rest)
        if element(self.x.type).is_float:
            fixed = b.where(b.eq(rest, zero), b.copy_sign(zero, self.y), fixed)
        return fixed  # type: ignore[no-any-return]


__all__ = [
    "Cos",
    "Erf",
    "Exp",
    "Expm1",
    "Log",
    "Log1p",
    "Mod",
    "Pow",
    "Rem",
    "Sigmoid",
    "Sin",
    "Tanh",
]
