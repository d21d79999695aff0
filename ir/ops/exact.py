"""Error-free arithmetic on f64 arrays: what numpy lacks for the reference of `fma`.

Imports: convert.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ..core import Array
from .convert import odd_sum

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


def fma_f64(x: Array, y: Array, z: Array) -> Array:
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


__all__ = ["fma_f64"]
