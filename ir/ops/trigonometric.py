"""The circular functions beyond sine and cosine, the hyperbolic ones, and the inverses of both.

As elementwise_math.py: `evaluate` computes in f64 and rounds once, `approximate` builds the
function from arithmetic.  Imports: the function base, its expansions, the core.
"""

from __future__ import annotations

import numpy as np

from ..core import Builder, Value, sample
from . import approximations_trig as expansions
from .elementwise import constant
from .elementwise_math import _Function

UNIT = (
    sample((3, 5), ranges=((-0.85, 0.85),)),
    sample((17,), ranges=((-0.5, 0.5),)),
    sample((), ranges=((0.6, 0.9),)),
    sample((0,)),
)


def _one_minus_square(b: Builder, x: Value) -> Value:
    """1 - x * x by its factors, which do not cancel near 1."""
    one = constant(b, x, 1.0)
    return b.mul(b.sub(one, x), b.add(one, x))  # type: ignore[no-any-return]


class Tan(_Function):
    """The tangent of x radians; NaN of an infinity."""

    samples = (*UNIT, sample((9,), ranges=((-1.4, 1.4),)))
    of_f64 = np.tan
    expansion = expansions.tan

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.add(b.mul(y, y), constant(b, x, 1.0))  # type: ignore[no-any-return]


class Asin(_Function):
    """The angle from -pi/2 to pi/2 whose sine is x; NaN beyond 1."""

    samples = UNIT
    of_f64 = np.arcsin
    expansion = expansions.asin

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.rsqrt(_one_minus_square(b, x))  # type: ignore[no-any-return]


class Acos(_Function):
    """The angle from 0 to pi whose cosine is x; NaN beyond 1."""

    samples = UNIT
    of_f64 = np.arccos
    expansion = expansions.acos

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.neg(b.rsqrt(_one_minus_square(b, x)))  # type: ignore[no-any-return]


class Atan(_Function):
    """The angle from -pi/2 to pi/2 whose tangent is x."""

    of_f64 = np.arctan
    expansion = expansions.atan

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.reciprocal(b.add(b.mul(x, x), constant(b, x, 1.0)))  # type: ignore[no-any-return]


class Sinh(_Function):
    """The hyperbolic sine."""

    of_f64 = np.sinh
    expansion = expansions.sinh

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.cosh(x)  # type: ignore[no-any-return]


class Cosh(_Function):
    """The hyperbolic cosine."""

    of_f64 = np.cosh
    expansion = expansions.cosh

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.sinh(x)  # type: ignore[no-any-return]


class Asinh(_Function):
    """The inverse of the hyperbolic sine."""

    of_f64 = np.arcsinh
    expansion = expansions.asinh

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.rsqrt(b.add(b.mul(x, x), constant(b, x, 1.0)))  # type: ignore[no-any-return]


class Acosh(_Function):
    """The inverse of the hyperbolic cosine, from 0 on; NaN below 1."""

    samples = (
        sample((3, 5), ranges=((1.0, 20),)),
        sample((17,), ranges=((1.0, 1.5),)),
        sample((), ranges=((2, 3),)),
        sample((0,)),
    )
    of_f64 = np.arccosh
    expansion = expansions.acosh

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.rsqrt(b.neg(_one_minus_square(b, x)))  # type: ignore[no-any-return]


class Atanh(_Function):
    """The inverse of the hyperbolic tangent; infinite at 1 and -1, NaN beyond."""

    samples = UNIT
    of_f64 = np.arctanh
    expansion = expansions.atanh

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.reciprocal(_one_minus_square(b, x))  # type: ignore[no-any-return]


__all__ = ["Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan"]
