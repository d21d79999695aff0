"""Functions of one or two floats: exp, log, tanh, erf and their kin.

`evaluate` computes in f64 and rounds once.  `approximate` builds the function from arithmetic on f32
and f64 scalars or vectors (approximations.py), so that every backend computes the same bits; its error
bounds are in docs/numerics.md.
Imports: the elementwise base, approximations, the core, types.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Real, Value, operand, sample
from .elementwise import _Binary, _Unary

Approximation = Callable[[Builder, Value], Value]


class _Function(_Unary):
    """Base of functions of one float, computed in f64."""

    x = operand(Float)
    of_f64: ClassVar[Callable[..., Any]]

    @classmethod
    def compute(cls, x: Array) -> Array:
        if x.dtype == np.float64:
            return cls.of_f64(x)  # type: ignore[no-any-return]
        return cls.of_f64(x.astype(np.float64)).astype(np.float32)  # type: ignore[no-any-return]


POSITIVE = (
    sample((3, 5), ranges=((0.05, 20),)),
    sample((17,), ranges=((0.5, 2),)),
    sample(()),
    sample((0,)),
)


class Exp(_Function):
    """e to the power x; 0 of minus infinity."""

    of_f64 = np.exp


class Expm1(_Function):
    """exp(x) - 1, accurate near 0."""

    of_f64 = np.expm1


class Log(_Function):
    """The natural logarithm; minus infinity of 0, NaN below."""

    samples = POSITIVE
    of_f64 = np.log


class Log1p(_Function):
    """log(1 + x), accurate near 0; minus infinity of -1, NaN below."""

    samples = POSITIVE
    of_f64 = np.log1p


class Tanh(_Function):
    """The hyperbolic tangent."""

    of_f64 = np.tanh


class Sigmoid(_Function):
    """1 / (1 + exp(-x))."""

    @staticmethod
    def of_f64(x: Array) -> Array:
        small = np.exp(-np.abs(x))
        return np.where(x < 0, small, 1.0) / (1.0 + small)


_erf = np.frompyfunc(math.erf, 1, 1)


class Erf(_Function):
    """The error function, 2 / sqrt(pi) times the integral of exp(-t*t) from 0 to x."""

    @staticmethod
    def of_f64(x: Array) -> Array:
        return np.asarray(_erf(x), np.float64)


class Sin(_Function):
    """The sine of x radians; NaN of an infinity."""

    of_f64 = np.sin


class Cos(_Function):
    """The cosine of x radians; NaN of an infinity."""

    of_f64 = np.cos


class Pow(_Binary):
    """x to the power y.

    Floats by C's rules: x**0 and 1**y are 1, NaN included; a negative x with a fractional y gives NaN.
    Integers wrap; a negative y gives the truncated 1 / x**-y (0 for x = 0).
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


def _integer_power(x: Array, y: Array) -> Array:
    if x.dtype.kind == "u":
        return np.power(x, y)
    positive = np.power(x, np.maximum(y, 0))
    inverse = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * (y & 1), 0)).astype(x.dtype)
    return np.where(y < 0, inverse, positive)


__all__ = ["Cos", "Erf", "Exp", "Expm1", "Log", "Log1p", "Pow", "Sigmoid", "Sin", "Tanh"]
