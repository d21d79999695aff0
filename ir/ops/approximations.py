"""Polynomials for exp, log, tanh, sigmoid, erf, sin, cos and pow, built from ops on scalars or
vectors.

Every backend shares these expansions, so all compute the same bits.  They are branch-free
(`where`), use `fma` where the error needs it, and take f32 or f64; narrower floats go through f32.
The coefficients are minimax (Remez exchange on the relative error of the result, in 160-bit
arithmetic, then rounded). Error bounds, domains and the treatment of denormals are in
docs/numerics.md. Imports: the elementwise base, the core, types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core import Builder, Value
from ..types import DType, element, f32, f64, i32, i64
from .elementwise import constant

INF = float("inf")
LOG2_E = 1.4426950408889634
TWO_OVER_PI = 0.6366197723675814


@dataclass(frozen=True)
class Format:
    """What the expansions need to know of f32 and f64: the bit layout and the coefficients.

    `ln2` and `half_pi` are split so that the product of all but the last part with a quotient is
    exact.
    """

    dtype: DType
    bits: DType
    mantissa: int
    bias: int
    ln2: tuple[float, float]
    exp_bounds: tuple[float, float]
    """Below the first exp gives 0, above the second infinity."""
    expm1_floor: float
    """Below, expm1 is -1."""
    tanh_one: float
    """From here on tanh is 1."""
    trig_reach: float
    """Beyond, sin and cos keep their value at the bound."""
    exp: tuple[float, ...]
    """(exp(r) - 1 - r) / r**2 for |r| <= log(2)/2."""
    log: tuple[float, ...]
    """f32: (log(1+f) - f + f**2/2) / f**3; f64: (log((1+s)/(1-s)) - 2s) / s**3 in s**2."""
    erf: tuple[float, ...]
    """erf(x)/x - 1 in x**2 for |x| < 1."""
    sin: tuple[float, ...]
    """(sin(r)/r - 1) / r**2 in r**2 for |r| <= pi/4."""
    cos: tuple[float, ...]
    """(cos(r) - 1 + r**2/2) / r**4 in r**2."""

    @property
    def magic(self) -> float:
        """Added to a number it leaves that number's nearest integer in the low bits."""
        return 1.5 * 2.0**self.mantissa

    @property
    def least_normal(self) -> float:
        return 2.0 ** (1 - self.bias)


F32 = Format(
    dtype=f32, bits=i32, mantissa=23, bias=127,
    ln2=(0.693145751953125, 1.428606765330187e-06),
    exp_bounds=(-87.6, 89.0), expm1_floor=-17.5, tanh_one=9.02, trig_reach=2.0**30,
    exp=(0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.00836874544620514,
         0.001381455222144723),
    log=(0.3333333134651184, -0.2500081956386566, 0.20001228153705597, -0.1662335991859436,
         0.14201746881008148, -0.1316015124320984, 0.12761633098125458, -0.07634637504816055),
    erf=(0.12837916612625122, -0.3761262595653534, 0.1128358542919159, -0.026853812858462334,
         0.005188327748328447, -0.0008010195451788604, 7.853867282392457e-05),
    sin=(-0.16666655242443085, 0.008332191035151482, -0.00019518604676704854),
    cos=(0.04166664555668831, -0.00138873013202101, 2.443068842694629e-05),
)  # fmt: skip
F64 = Format(
    dtype=f64, bits=i64, mantissa=52, bias=1023,
    ln2=(0.693147180559663, 2.8235290563031577e-13),
    exp_bounds=(-708.6, 710.0), expm1_floor=-38.0, tanh_one=19.1, trig_reach=2.0**20,
    exp=(0.5000000000000011, 0.1666666666666641, 0.04166666666652971, 0.0083333333334952,
         0.0013888888943769729, 0.00019841269505699533, 2.4801492936212067e-05,
         2.755758658694589e-06, 2.763031180245358e-07, 2.5000157041228766e-08),
    log=(0.6666666666666735, 0.3999999999941287, 0.285714287428279, 0.22222198524332348,
         0.18183567044537186, 0.15313976637752644, 0.14796731055929932),
    erf=(0.12837916709551256, -0.3761263890318352, 0.11283791670944185, -0.02686617064311153,
         0.00522397760611888, -0.000854832592932979, 0.00012055293577272878,
         -1.4924712308029719e-05, 1.6447131635680484e-06, -1.6206314196309946e-07,
         1.3710982108482451e-08, -7.779471406957415e-10),
    sin=(-0.16666666666666632, 0.008333333333322472, -0.00019841269829835718,
         2.755731369735833e-06, -2.5050758492342234e-08, 1.5896796478531988e-10),
    cos=(0.0416666666666666, -0.0013888888888874457, 2.4801587289652858e-05,
         -2.7557314393820354e-07, 2.087572809334655e-09, -1.135986339240023e-11),
)  # fmt: skip

LOG_ERFC_F32 = (
    -0.00034155428875237703,
    -1.127089023590088,
    -0.6381450891494751,
    -0.1031065434217453,
    0.021837957203388214,
    -0.0029476305935531855,
    0.00018637625908013433,
)
"""log(erfc(x)) for 1 <= x <= 4."""
ERFCX_F64 = (0.25539567631050575, -0.4271858474139583, 0.24165819424246673, -0.07897858101574949,
             0.0037328924041164576, 0.006997461740330525, -0.0008471432251898218,
             -0.0009819769791410901, 4.355466557383824e-05, 0.0001743564965729186,
             2.7532545039564635e-05, -2.748585310150767e-05, -1.3829639318190018e-05,
             9.299480826007594e-07, 2.1998787989870274e-06)  # fmt: skip
"""exp(x*x) * erfc(x) in (x - 2) / (x + 2) for 1 <= x <= 6."""
HALF_PI = (1.570796251296997, 7.549789415861596e-08, 5.390302858158119e-15)
"""In f64, parts of 23, 23 and 53 bits: for f32 arguments, exact quotients up to 2**30."""
HALF_PI_F64 = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21,
               8.4784276603689e-32)  # fmt: skip
"""Parts of 33, 33, 33 and 53 bits: exact quotients up to 2**20."""


class Expansion:
    """Emits arithmetic on values like `x`: constants take its shape, and `fmt` its element type."""

    def __init__(self, b: Builder, x: Value) -> None:
        self.b = b
        self.like = x
        self.fmt = F32 if element(x.type) is f32 else F64

    def const(self, value: float) -> Value:
        """A float constant."""
        return constant(self.b, self.like, value, self.fmt.dtype)

    def integer(self, value: int) -> Value:
        """A constant of the integer type as wide."""
        return constant(self.b, self.like, value, self.fmt.bits)

    def polynomial(
        self, x: Value, coefficients: Sequence[float], tail: Sequence[float] = ()
    ) -> Value:
        """Horner's rule from the last coefficient down; `tail` are coefficients below the first."""
        rows = [*tail, *coefficients]
        out = self.const(rows[-1])
        for c in reversed(rows[:-1]):
            out = self.b.fma(out, x, self.const(c))
        return out

    def at_most(self, x: Value, bound: float) -> Value:
        """min(x, bound) that keeps NaN: one instruction where `min` is several."""
        limit = self.const(bound)
        return self.b.where(self.b.lt(limit, x), limit, x)  # type: ignore[no-any-return]

    def at_least(self, x: Value, bound: float) -> Value:
        """max(x, bound) that keeps NaN."""
        limit = self.const(bound)
        return self.b.where(self.b.lt(x, limit), limit, x)  # type: ignore[no-any-return]

    def split_power(self, x: Value, shift: int) -> tuple[Value, Value]:
        """(2**(n + shift), r) with x = n*log(2) + r and |r| <= log(2)/2; n + shift may reach -bias,
        giving 0.
        """
        b, fmt = self.b, self.fmt
        magic = self.const(fmt.magic + fmt.bias + shift)  # the exponent field comes out biased
        shifted = b.fma(x, self.const(LOG2_E), magic)
        n = b.sub(shifted, magic)
        r = b.fma(n, self.const(-fmt.ln2[0]), x)
        r = b.fma(n, self.const(-fmt.ln2[1]), r)
        field = b.shift_left(b.bitcast(shifted, to=fmt.bits), self.integer(fmt.mantissa))
        return b.bitcast(field, to=fmt.dtype), r

    def exp(self, x: Value) -> Value:
        """exp of x within `exp_bounds`: 2 exp(r) times 2**(n-1), so that n may be as great as bias
        + 1.
        """
        scale, r = self.split_power(x, -1)
        twice = self.polynomial(r, [2 * c for c in self.fmt.exp], tail=(2.0, 2.0))
        return self.b.mul(twice, scale)  # type: ignore[no-any-return]

    def expm1(self, x: Value, shift: int) -> Value:
        """(exp(x) - 1) * 2**shift."""
        b = self.b
        scale, r = self.split_power(x, shift)
        tail = b.fma(b.mul(r, r), self.polynomial(r, self.fmt.exp), r)
        return b.fma(scale, tail, b.sub(scale, self.const(2.0**shift)))  # type: ignore[no-any-return]

    def log(self, x: Value) -> Value:
        """log of positive finite x."""
        b, fmt = self.b, self.fmt
        tiny = b.lt(x, self.const(fmt.least_normal))
        lift = fmt.mantissa + 1
        bits = b.bitcast(b.where(tiny, b.mul(x, self.const(2.0**lift)), x), to=fmt.bits)
        half_root = 0x3F3504F3 if fmt is F32 else 0x3FE6A09E667F3BCD  # bits of sqrt(1/2)
        k = b.shift_right(b.sub(bits, self.integer(half_root)), self.integer(fmt.mantissa))
        m = b.bitcast(b.sub(bits, b.shift_left(k, self.integer(fmt.mantissa))), to=fmt.dtype)
        f = b.sub(m, self.const(1.0))
        n = b.cast(k, to=fmt.dtype)
        n = b.where(tiny, b.sub(n, self.const(float(lift))), n)
        low = b.mul(n, self.const(fmt.ln2[1]))
        square = b.mul(f, f)
        if fmt is F32:
            low = b.fma(square, self.polynomial(f, fmt.log, tail=(-0.5,)), low)
        else:  # f - (f*f/2 - s*(f*f/2 + R(s*s))), s = f / (2 + f)
            s = b.div(f, b.add(f, self.const(2.0)))
            z = b.mul(s, s)
            half = b.mul(square, self.const(0.5))
            inner = b.fma(z, self.polynomial(z, fmt.log), half)
            low = b.sub(b.fma(s, inner, low), half)
        return b.fma(n, self.const(fmt.ln2[0]), b.add(f, low))  # type: ignore[no-any-return]

    def quadrant(self, x: Value) -> tuple[Value, Value]:
        """(n as integer bits, r) with x = n*pi/2 + r and |r| <= pi/4."""
        b = self.b
        reach = self.fmt.trig_reach
        x = self.at_least(self.at_most(x, reach), -reach)
        if self.fmt is F64:
            return _reduce(self, x, HALF_PI_F64)
        wide = b.cast(x, to=f64)
        n, r = _reduce(Expansion(b, wide), wide, HALF_PI)
        return b.cast(n, to=i32), b.cast(r, to=f32)

    def sine(self, x: Value, turns: int) -> Value:
        """sin(x + turns * pi/2)."""
        b, fmt = self.b, self.fmt
        n, r = self.quadrant(x)
        if turns:
            n = b.add(n, self.integer(turns))
        z = b.mul(r, r)
        sine = b.fma(b.mul(r, z), self.polynomial(z, fmt.sin), r)
        cosine = b.fma(z, self.polynomial(z, fmt.cos, tail=(-0.5,)), self.const(1.0))
        odd = b.ne(b.bitwise_and(n, self.integer(1)), self.integer(0))
        value = b.where(odd, cosine, sine)
        sign = b.shift_left(b.bitwise_and(n, self.integer(2)), self.integer(fmt.bits.bits - 2))
        out = b.bitcast(b.bitwise_xor(b.bitcast(value, to=fmt.bits), sign), to=fmt.dtype)
        return b.where(b.lt(b.abs(x), self.const(INF)), out, b.sub(x, x))  # type: ignore[no-any-return]


def _reduce(e: Expansion, x: Value, parts: Sequence[float]) -> tuple[Value, Value]:
    magic = e.const(e.fmt.magic)
    shifted = e.b.fma(x, e.const(TWO_OVER_PI), magic)
    n = e.b.sub(shifted, magic)
    for part in parts:
        x = e.b.fma(n, e.const(-part), x)
    return e.b.bitcast(shifted, to=e.fmt.bits), x


def exp(b: Builder, x: Value) -> Value:
    """14 operations for f32.  Results below the least normal number's neighbourhood are 0."""
    e = Expansion(b, x)
    low, high = e.fmt.exp_bounds
    return e.exp(e.at_least(e.at_most(x, high), low))


def expm1(b: Builder, x: Value) -> Value:
    """exp(x) - 1, halved until the end so that it overflows only where the result does."""
    e = Expansion(b, x)
    held = e.at_least(e.at_most(x, e.fmt.exp_bounds[1]), e.fmt.expm1_floor)
    return b.mul(e.expm1(held, -1), e.const(2.0))  # type: ignore[no-any-return]


def log(b: Builder, x: Value) -> Value:
    """The natural logarithm, with its special values."""
    e = Expansion(b, x)
    zero = e.const(0.0)
    out = b.where(b.lt(x, e.const(INF)), e.log(x), x)  # infinity and NaN give themselves
    pole = b.where(b.lt(x, zero), e.const(float("nan")), b.where(b.eq(x, zero), e.const(-INF), x))
    return b.where(b.gt(x, zero), out, pole)  # type: ignore[no-any-return]


def log1p(b: Builder, x: Value) -> Value:
    """log(u) with u = 1 + x rounded, corrected by what the rounding lost, (x - (u - 1)) / u."""
    e = Expansion(b, x)
    one = e.const(1.0)
    u = b.add(one, x)
    main = log(b, u)
    lost = b.div(b.sub(x, b.sub(u, one)), u)
    usable = b.lt(b.abs(lost), e.const(1.0))  # not NaN: u is neither 0 nor infinite
    return b.where(usable, b.add(main, lost), main)  # type: ignore[no-any-return]


def tanh(b: Builder, x: Value) -> Value:
    """t / (t + 2) with t = expm1(2|x|): accurate from 0 to where the result is 1."""
    e = Expansion(b, x)
    size = e.at_most(b.abs(x), e.fmt.tanh_one)
    t = e.expm1(b.add(size, size), 0)
    return b.copy_sign(b.div(t, b.add(t, e.const(2.0))), x)  # type: ignore[no-any-return]


def sigmoid(b: Builder, x: Value) -> Value:
    """1 / (1 + exp(-x))."""
    e = Expansion(b, x)
    one = e.const(1.0)
    return b.div(one, b.add(one, exp(b, b.neg(x))))  # type: ignore[no-any-return]


def erf(b: Builder, x: Value) -> Value:
    """A polynomial times x below 1, and 1 - erfc(x) by an exponential above."""
    e = Expansion(b, x)
    one = e.const(1.0)
    size = b.abs(x)
    near = b.fma(x, e.polynomial(b.mul(x, x), e.fmt.erf), x)
    if e.fmt is F32:
        held = e.at_most(size, 4.0)
        rest = e.exp(e.polynomial(held, LOG_ERFC_F32))
    else:
        held = e.at_least(e.at_most(size, 6.0), 1.0)
        t = b.div(b.sub(held, e.const(2.0)), b.add(held, e.const(2.0)))
        rest = b.mul(e.exp(b.neg(b.mul(held, held))), e.polynomial(t, ERFCX_F64))
    far = b.copy_sign(b.sub(one, rest), x)
    return b.where(b.lt(size, one), near, far)  # type: ignore[no-any-return]


def sin(b: Builder, x: Value) -> Value:
    """The sine; f32 arguments are reduced in f64."""
    return Expansion(b, x).sine(x, 0)


def cos(b: Builder, x: Value) -> Value:
    """The cosine; f32 arguments are reduced in f64."""
    return Expansion(b, x).sine(x, 1)


def pow(b: Builder, x: Value, y: Value) -> Value:
    """exp(y * log|x|), f32 through f64, with the sign and the special values of C's pow."""
    e = Expansion(b, x)
    zero, one = e.const(0.0), e.const(1.0)
    size = b.abs(x)
    if e.fmt is F32:
        power = b.mul(b.cast(y, to=f64), log(b, b.cast(size, to=f64)))
        main = b.cast(exp(b, power), to=f32)
    else:
        main = exp(b, b.mul(y, log(b, size)))
    whole = b.eq(b.trunc(y), y)
    half = b.mul(y, e.const(0.5))
    odd = b.logical_and(whole, b.ne(b.trunc(half), half))
    below = b.lt(b.copy_sign(one, x), zero)
    out = b.where(b.logical_and(below, odd), b.neg(main), main)
    real = b.logical_or(whole, b.logical_or(b.ge(x, zero), b.eq(x, e.const(-INF))))
    out = b.where(b.logical_or(real, b.ne(y, y)), out, e.const(float("nan")))
    endless = b.logical_and(b.eq(size, one), b.eq(b.abs(y), e.const(INF)))
    is_one = b.logical_or(b.logical_or(b.eq(x, one), b.eq(y, zero)), endless)
    return b.where(is_one, one, out)  # type: ignore[no-any-return]


ROOTS = frozenset({-1.0, -0.5, 0.25, 0.5, 0.75, 1.5, 3.0, 4.0})
"""Exponents whose powers are a few roots and products, within 2.5 units in the last place."""


def root_pow(b: Builder, x: Value, exponent: float) -> Value:
    """x to an exponent of ROOTS, with the special values of C's pow."""
    if exponent == -1.0:
        return b.div(constant(b, x, 1.0), x)  # type: ignore[no-any-return]
    if exponent >= 3:
        square = b.mul(x, x)
        return b.mul(square, x if exponent == 3 else square)  # type: ignore[no-any-return]
    # pow(-inf, 0.5) is inf and pow(-0, 0.5) is 0, where the root gives NaN and -0.
    endless = b.eq(x, constant(b, x, -INF))
    base = b.where(endless, constant(b, x, INF), b.add(x, constant(b, x, 0.0)))
    root = b.sqrt(base)
    if exponent == -0.5:
        return b.div(constant(b, x, 1.0), root)  # type: ignore[no-any-return]
    if exponent == 1.5:
        return b.mul(base, root)  # type: ignore[no-any-return]
    if exponent == 0.5:
        return root  # type: ignore[no-any-return]
    fourth = b.sqrt(root)
    return fourth if exponent == 0.25 else b.mul(root, fourth)  # type: ignore[no-any-return]


def rem(b: Builder, x: Value, y: Value) -> Value:
    """The remainder of x / y truncated, f32 through f64.

    Exact for all of f32: x is reduced modulo y * 2**k for falling k, with quotients below 2**26, so
    that each product and difference is exact.  f64: exact where |x / y| < 2**52.
    """
    narrow = element(x.type) is f32
    u, v = (b.cast(x, to=f64), b.cast(y, to=f64)) if narrow else (x, y)
    e = Expansion(b, u)
    rest, step = b.abs(u), b.abs(v)
    for power in range(275, -1, -25) if narrow else (0,):
        unit = b.mul(step, e.const(2.0**power))
        quotient = b.trunc(b.div(rest, unit))
        rest = b.fma(b.neg(quotient), unit, rest)
        rest = b.where(b.lt(rest, e.const(0.0)), b.add(rest, unit), rest)
        rest = b.where(b.ge(rest, unit), b.sub(rest, unit), rest)
    rest = b.where(b.eq(step, e.const(INF)), b.abs(u), rest)
    rest = b.where(b.lt(b.abs(u), e.const(INF)), rest, e.const(float("nan")))
    rest = b.where(b.eq(v, v), rest, v)
    out = b.copy_sign(rest, u)
    return b.cast(out, to=f32) if narrow else out  # type: ignore[no-any-return]


def integer_pow(b: Builder, x: Value, y: Value) -> Value:
    """Repeated squaring over the bits of y; a negative y gives the truncated inverse."""
    dtype = element(x.type)
    zero, one = constant(b, x, 0), constant(b, x, 1)
    out, square = one, x
    signed = dtype.kind == "int"
    for bit in range(dtype.bits - signed):
        taken = b.ne(b.bitwise_and(y, constant(b, y, 1 << bit)), zero)
        out = b.where(taken, b.mul(out, square), out)
        square = b.mul(square, square)
    if not signed:
        return out
    odd = b.ne(b.bitwise_and(y, one), zero)
    minus = constant(b, x, -1)
    inverse = b.where(b.eq(x, one), one, b.where(b.eq(x, minus), b.where(odd, minus, one), zero))
    return b.where(b.lt(y, zero), inverse, out)  # type: ignore[no-any-return]


__all__ = [
    "F32", "F64", "ROOTS", "Expansion", "Format", "cos", "erf", "exp", "expm1", "integer_pow",
    "log", "log1p", "pow", "rem", "root_pow", "sigmoid", "sin", "tanh",
]  # fmt: skip
