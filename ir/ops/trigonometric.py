"""The circular functions beyond sine and cosine, the hyperbolic ones, and the inverses of both.

As elementwise_math.py: `evaluate` computes in f64 and rounds once, `approximate` builds the
function from arithmetic.  Imports: the function base, its expansions, the core.
"""

from __future__ import annotations

import numpy as np

from ..core import sample
from . import approximations_trig as expansions
from .elementwise_math import _Function

UNIT = (
    sample((3, 5), ranges=((-0.85, 0.85),)),
    sample((17,), ranges=((-0.5, 0.5),)),
    sample((), ranges=((0.6, 0.9),)),
    sample((0,)),
)


class Tan(_Function):
    """The tangent of x radians; NaN of an infinity."""

    samples = (*UNIT, sample((9,), ranges=((-1.4, 1.4),)))
    of_f64 = np.tan
    expansion = expansions.tan


class Asin(_Function):
    """The angle from -pi/2 to pi/2 whose sine is x; NaN beyond 1."""

    samples = UNIT
    of_f64 = np.arcsin
    expansion = expansions.asin


class Acos(_Function):
    """The angle from 0 to pi whose cosine is x; NaN beyond 1."""

    samples = UNIT
    of_f64 = np.arccos
    expansion = expansions.acos


class Atan(_Function):
    """The angle from -pi/2 to pi/2 whose tangent is x."""

    of_f64 = np.arctan
    expansion = expansions.atan


class Sinh(_Function):
    """The hyperbolic sine."""

    of_f64 = np.sinh
    expansion = expansions.sinh


class Cosh(_Function):
    """The hyperbolic cosine."""

    of_f64 = np.cosh
    expansion = expansions.cosh


class Asinh(_Function):
    """The inverse of the hyperbolic sine."""

    of_f64 = np.arcsinh
    expansion = expansions.asinh


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


class Atanh(_Function):
    """The inverse of the hyperbolic tangent; infinite at 1 and -1, NaN beyond."""

    samples = UNIT
    of_f64 = np.arctanh
    expansion = expansions.atanh


__all__ = ["Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan"]
