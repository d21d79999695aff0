"""Expansions of tan, the inverse circular functions and the hyperbolic ones and their inverses.

As approximations.py, whose `Expansion` they use: branch-free arithmetic on f32 and f64, shared by
every backend.  Imports: approximations, the core.
"""

from __future__ import annotations

from ..core import Builder, Value
from .approximations import F32, INF, Expansion, log1p

NAN = float("nan")
LN_2 = 0.6931471805599453
PI_QUARTER = {"f32": (0.7853981852531433, -2.1855694143368964e-08),
              "f64": (0.7853981633974483, 3.061616997868383e-17)}  # fmt: skip
"""pi/4 rounded, and what the rounding left."""
ASIN = {
    "f32": (0.16666752099990845, 0.07495297491550446, 0.04547037184238434, 0.024179531261324883,
            0.04216628894209862),
    "f64": (0.16666666666665408, 0.07500000000337002, 0.0446428568283343, 0.030381959136853345,
            0.022371758051111107, 0.017359704771208462, 0.01388523529690736, 0.012169212998298021,
            0.006527969087122594, 0.01952828215625183, -0.016224279076366237, 0.03191228762381281),
}  # fmt: skip
"""(asin(s)/s - 1) / s**2 in s**2, for s <= 1/2."""
ATAN = {
    "f32": (-0.33333316445350647, 0.19998471438884735, -0.14243534207344055, 0.1059381514787674,
            -0.06078225374221802),
    "f64": (-0.333333333333332, 0.1999999999995325, -0.14285714280166556, 0.11111110782152485,
            -0.09090897725151556, 0.07692059715428709, -0.06663099179967845, 0.05847859097801642,
            -0.05039189637741294, 0.03806212013280378, -0.01790501827115869),
}  # fmt: skip
"""(atan(t)/t - 1) / t**2 in t**2, for t <= tan(pi/8)."""


def tan(b: Builder, x: Value) -> Value:
    """sin / cos of the reduced argument, turned over in odd quadrants."""
    e = Expansion(b, x)
    fmt = e.fmt
    n, r = e.quadrant(x)
    z = b.mul(r, r)
    sine = b.fma(b.mul(r, z), e.polynomial(z, fmt.sin), r)
    cosine = b.fma(z, e.polynomial(z, fmt.cos, tail=(-0.5,)), e.const(1.0))
    bit = b.bitwise_and(n, e.integer(1))
    odd = b.ne(bit, e.integer(0))
    ratio = b.div(b.where(odd, cosine, sine), b.where(odd, sine, cosine))
    sign = b.shift_left(bit, e.integer(fmt.bits.bits - 1))
    out = b.bitcast(b.bitwise_xor(b.bitcast(ratio, to=fmt.bits), sign), to=fmt.dtype)
    return b.where(b.lt(b.abs(x), e.const(INF)), out, b.sub(x, x))  # type: ignore[no-any-return]


def _arc_sine(e: Expansion, x: Value) -> tuple[Value, Value, Value]:
    """(|x| <= 1/2, s, rest) with asin(s) = s + rest.

    s is |x| below 1/2, else sqrt((1 - |x|) / 2), so that asin|x| = pi/2 - 2 asin(s).
    """
    b = e.b
    size, half = b.abs(x), e.const(0.5)
    near = b.le(size, half)
    z = b.where(near, b.mul(x, x), b.mul(b.sub(e.const(1.0), size), half))
    s = b.where(near, size, b.sqrt(z))
    rest = b.mul(b.mul(s, z), e.polynomial(z, ASIN[e.fmt.dtype.name]))
    return near, s, rest


def asin(b: Builder, x: Value) -> Value:
    """A polynomial below 1/2, pi/2 - 2 asin(sqrt((1 - x) / 2)) above; NaN beyond 1."""
    e = Expansion(b, x)
    high, low = PI_QUARTER[e.fmt.dtype.name]
    near, s, rest = _arc_sine(e, x)
    twice = b.sub(b.add(rest, rest), e.const(2 * low))
    far = b.sub(b.sub(e.const(2 * high), b.add(s, s)), twice)
    return b.copy_sign(b.where(near, b.add(s, rest), far), x)  # type: ignore[no-any-return]


def acos(b: Builder, x: Value) -> Value:
    """pi/2 - asin(x), or 2 asin(sqrt((1 - x) / 2)) and pi minus that; NaN beyond 1."""
    e = Expansion(b, x)
    high, low = [2 * part for part in PI_QUARTER[e.fmt.dtype.name]]
    near, s, rest = _arc_sine(e, x)
    signed = b.copy_sign(rest, x)
    middle = b.sub(e.const(high), b.sub(x, b.sub(e.const(low), signed)))
    above = b.add(s, rest)
    below = b.sub(e.const(high), b.add(s, b.sub(rest, e.const(low))))
    outer = b.where(b.lt(x, e.const(0.0)), below, above)
    return b.where(near, middle, b.add(outer, outer))  # type: ignore[no-any-return]


def atan(b: Builder, x: Value) -> Value:
    """k pi/4 + atan(t), t = a, (a - 1) / (a + 1) or -1 / a, which is at most tan(pi/8)."""
    e = Expansion(b, x)
    high, low = PI_QUARTER[e.fmt.dtype.name]
    a, one, zero = b.abs(x), e.const(1.0), e.const(0.0)
    middle, far = b.gt(a, e.const(0.4142135623730951)), b.gt(a, e.const(2.414213562373095))
    top = b.where(far, e.const(-1.0), b.where(middle, b.sub(a, one), a))
    under = b.where(far, a, b.where(middle, b.add(a, one), one))
    t = b.div(top, under)
    z = b.mul(t, t)
    rest = b.mul(b.mul(t, z), e.polynomial(z, ATAN[e.fmt.dtype.name]))
    parts = [
        b.where(far, e.const(2 * part), b.where(middle, e.const(part), zero))
        for part in (high, low)
    ]
    return b.copy_sign(b.add(parts[0], b.add(t, b.add(rest, parts[1]))), x)  # type: ignore[no-any-return]


def sinh(b: Builder, x: Value) -> Value:
    """2 (q + q / (4 q + 1)) with q = (exp|x| - 1) / 4, finite wherever the result is."""
    e = Expansion(b, x)
    size = b.abs(x)
    q = e.expm1(e.at_most(size, 89.5 if e.fmt is F32 else 710.6), -2)
    half = b.add(q, b.div(q, b.fma(q, e.const(4.0), e.const(1.0))))
    tiny = b.lt(size, e.const(2.0**-13 if e.fmt is F32 else 2.0**-27))  # x + x**3/6 rounds to x
    return b.copy_sign(b.where(tiny, size, b.add(half, half)), x)  # type: ignore[no-any-return]


def cosh(b: Builder, x: Value) -> Value:
    """2 (p + 1 / (16 p)) with p = exp|x| / 4, finite wherever the result is."""
    e = Expansion(b, x)
    scale, r = e.split_power(e.at_most(b.abs(x), 89.5 if e.fmt is F32 else 710.6), -2)
    p = b.mul(e.polynomial(r, e.fmt.exp, tail=(1.0, 1.0)), scale)
    half = b.add(p, b.div(e.const(0.0625), p))
    return b.add(half, half)  # type: ignore[no-any-return]


def _log_of_sum(e: Expansion, size: Value, small: Value) -> Value:
    """log1p(small), or where squares might overflow, log(2 size) of a great `size`."""
    b = e.b
    great = b.gt(size, e.const(2.0**30 if e.fmt is F32 else 2.0**60))
    main = log1p(b, b.where(great, size, small))
    return b.where(great, b.add(main, e.const(LN_2)), main)  # type: ignore[no-any-return]


def asinh(b: Builder, x: Value) -> Value:
    """log1p(a + a**2 / (1 + sqrt(1 + a**2))), a = |x|, with the sign of x."""
    e = Expansion(b, x)
    a, one = b.abs(x), e.const(1.0)
    square = b.mul(a, a)
    share = b.div(square, b.add(one, b.sqrt(b.add(one, square))))
    return b.copy_sign(_log_of_sum(e, a, b.add(a, share)), x)  # type: ignore[no-any-return]


def acosh(b: Builder, x: Value) -> Value:
    """log1p(t + sqrt(2 t + t**2)), t = x - 1; NaN below 1."""
    e = Expansion(b, x)
    one = e.const(1.0)
    t = b.sub(x, one)
    root = b.sqrt(b.fma(t, t, b.add(t, t)))
    out = _log_of_sum(e, x, b.add(t, root))
    return b.where(b.lt(x, one), e.const(NAN), out)  # type: ignore[no-any-return]


def atanh(b: Builder, x: Value) -> Value:
    """log1p(2 a / (1 - a)) / 2, a = |x|, with the sign of x; NaN beyond 1."""
    e = Expansion(b, x)
    a = b.abs(x)
    share = b.div(b.add(a, a), b.sub(e.const(1.0), a))
    return b.copy_sign(b.mul(log1p(b, share), e.const(0.5)), x)  # type: ignore[no-any-return]


__all__ = ["acos", "acosh", "asin", "asinh", "atan", "atanh", "cosh", "sinh", "tan"]
