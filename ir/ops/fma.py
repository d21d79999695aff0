"""`fma`, and the error-free arithmetic on f64 arrays that its reference takes.

Imports: the elementwise base, convert, the core.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from ..core import Array, Builder, Float, Grads, Value, operand, sample
from ..types import from_numpy
from .convert import odd_sum, round_float, widen
from .elementwise import _Binary


class Fma(_Binary):
    """x * y + z, rounded once (IEEE 754 fusedMultiplyAdd).  C1: one element type.  C2: shapes
    broadcast.
    """

    x = operand(Float)
    y = operand(Float)
    z = operand(Float)
    samples = (sample((3, 5), (3, 5), (3, 5)), sample((2, 1), (3,), ()), sample((4,), (4,), (4,)))
    rejects = (
        ("C1", sample((2,), (2,), (2,), dtypes=("f32", "f32", "f64"))),
        ("C2", sample((2,), (2,), (3,))),
    )

    @classmethod
    def evaluate(cls, *xs: Array, **attrs: Any) -> Array:
        store = from_numpy(xs[0].dtype)
        x, y, z = np.broadcast_arrays(*[np.asarray(v) for v in xs])
        with np.errstate(all="ignore"):
            if store.bits == 64:
                return _fma_f64(x, y, z)
            x, y, z = [widen(v).astype(np.float64) for v in (x, y, z)]
            return round_float(odd_sum(x * y, z), store)

    def vjp(self, b: Builder, g: Value) -> Grads:
        return b.mul(g, self.y), b.mul(g, self.x), g


_SPLIT = float(2**27 + 1)


def _split(a: Array) -> tuple[Array, Array]:
    """The upper 26 bits of a, and the rest (Dekker 1971)."""
    c = a * _SPLIT
    high = c - (c - a)
    return high, a - high


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b and its rounding error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _fma_f64(x: Array, y: Array, z: Array) -> Array:
    """Error-free product, then a sum through round-to-odd (Boldo and Melquiond 2008).

    Elements near overflow or underflow are done in rational arithmetic.
    """
    product = x * y
    (xh, xl), (yh, yl) = _split(x), _split(y)
    low = ((xh * yh - product) + xh * yl + xl * yh) + xl * yl
    high, rest = _two_sum(z, low)
    total, error = _two_sum(product, high)
    out = np.asarray(total + odd_sum(rest, error))
    plain = np.asarray(product + z)
    out = np.where(np.isfinite(plain), out, plain)
    sizes = [np.abs(v) for v in (x, y, z, product)]
    finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    odd = np.any([(s > 2.0**990) | ((s < 2.0**-960) & (s > 0)) for s in sizes], axis=0)
    odd |= (product == 0) & (x != 0) & (y != 0)
    for at in zip(*np.nonzero(np.atleast_1d(odd & finite)), strict=True):
        exact = Fraction(float(x.reshape(odd.shape or 1)[at])) * Fraction(
            float(y.reshape(odd.shape or 1)[at])
        )
        exact += Fraction(float(z.reshape(odd.shape or 1)[at]))
        out.reshape(odd.shape or 1)[at] = _to_f64(exact, float(np.atleast_1d(plain)[at]))
    return out


def _to_f64(exact: Fraction, plain: float) -> float:
    """The f64 nearest to a rational; a zero keeps the sign of the plain computation."""
    if exact == 0:
        return plain if plain == 0 else 0.0
    try:
        near = float(exact)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")
    return near if near != 0 or exact > 0 else -0.0


__all__ = ["Fma"]
