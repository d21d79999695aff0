"""Elementwise composites of neural networks.  They keep their name until decomposed.

Each may also become one `generic` whose body holds the op on scalars, decomposed there.
Imports: the elementwise base, the core, types.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import (
    Array,
    Builder,
    Float,
    Grads,
    Op,
    Real,
    Sample,
    Value,
    attr,
    operand,
    optional,
    sample,
)
from ..errors import Error
from ..types import Type, boolean, element, from_numpy
from .constraints import require
from .convert import round_float, widen
from .elementwise import (
    _Binary,
    _Unary,
    broadcast_type,
    constant,
    in_compute_type,
    passed,
    stopped,
    widened,
)
from .elementwise_math import Erf, Sigmoid, _Sloped

WIDE = (
    sample((3, 5), ranges=((-6, 6),)),
    sample((7,), ranges=((-30, 30),)),
    sample(()),
    sample((2, 0)),
)


class _Activation(_Unary):
    """Base of composites of one float, computed in f64 by `evaluate`."""

    x = operand(Float)
    samples: ClassVar[Sequence[Sample]] = WIDE

    @classmethod
    def evaluate(cls, *xs: Array, **attrs: Any) -> Array:
        x = xs[0]
        with np.errstate(all="ignore"):
            out = np.asarray(cls.compute(widen(x).astype(np.float64), **attrs))
        return round_float(out, from_numpy(x.dtype))

    def decompose(self, b: Builder) -> Value:
        return in_compute_type(b, self.x, lambda x: self.expand(b, x))

    expand: ClassVar[Callable[..., Value]]
    """expand(self, b, x): the function of x, which is f32 or f64."""


class _SlopedActivation(_Activation, _Sloped):
    """Base of those with a slope of their own, which is less to compute, and to keep, than that of
    their decomposition.
    """


class Relu(_Unary):
    """max(x, 0); NaN of NaN."""

    x = operand(Real)
    samples = WIDE

    @staticmethod
    def compute(x: Array) -> Any:
        return np.maximum(x, x.dtype.type(0))

    def decompose(self, b: Builder) -> Value:
        if element(self.x.type).kind == "uint":
            return b.identity(self.x)  # type: ignore[no-any-return]
        return b.max(self.x, constant(b, self.x, 0))  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        """0 at 0."""
        return (stopped(b, b.le(self.result, constant(b, g, 0.0)), g),)


class LeakyRelu(_Activation):
    """x where x >= 0, else alpha * x; the slope at 0 is alpha."""

    alpha = attr(float, 0.01)
    samples = (*WIDE, sample((7,), alpha=0.5), sample((7,), alpha=2.0))

    @staticmethod
    def compute(x: Array, alpha: float) -> Array:
        return np.where(x < 0, alpha * x, x)

    def expand(self, b: Builder, x: Value) -> Value:
        scaled = b.mul(x, constant(b, x, self.alpha))
        return b.where(b.lt(x, constant(b, x, 0.0)), scaled, x)  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        above = b.gt(self.x, constant(b, self.x, 0.0))
        (g,) = widened(b, g)
        return (b.where(above, g, b.mul(g, constant(b, g, self.alpha))),)


def _exponential_slope(b: Builder, x: Value, y: Value, alpha: float, scale: float) -> Value:
    """1 above 0; below, where y = alpha * (exp(x / scale) - 1), (y + alpha) / scale.

    Where alpha > 0, as always, the sign of y tells which: x need not be kept.
    """
    one = constant(b, y, 1.0)
    above = b.gt(y if alpha > 0 else x, constant(b, y, 0.0))
    below = b.mul(b.add(y, constant(b, y, alpha)), constant(b, y, 1.0 / scale))
    return b.where(above, one, below)  # type: ignore[no-any-return]


class Elu(_SlopedActivation):
    """x where x > 0, else alpha * (exp(x) - 1) (Clevert 2015)."""

    alpha = attr(float, 1.0)

    @staticmethod
    def compute(x: Array, alpha: float) -> Array:
        return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))

    def expand(self, b: Builder, x: Value) -> Value:
        zero = constant(b, x, 0.0)
        below = b.mul(b.expm1(b.min(x, zero)), constant(b, x, self.alpha))
        return b.where(b.gt(x, zero), x, below)  # type: ignore[no-any-return]

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return _exponential_slope(b, x, y, self.alpha, 1.0)


class Softplus(_SlopedActivation):
    """log(1 + exp(x)), as max(x, 0) + log1p(exp(-|x|))."""

    @staticmethod
    def compute(x: Array) -> Array:
        return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))

    def expand(self, b: Builder, x: Value) -> Value:
        tail = b.log1p(b.exp(b.neg(b.abs(x))))
        return b.add(b.max(x, constant(b, x, 0.0)), tail)  # type: ignore[no-any-return]

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return b.sigmoid(x)  # type: ignore[no-any-return]


class Silu(_SlopedActivation):
    """x * sigmoid(x), also called swish (Elfwing 2017); NaN at minus infinity."""

    @staticmethod
    def compute(x: Array) -> Array:
        return x * Sigmoid.of_f64(x)

    def expand(self, b: Builder, x: Value) -> Value:
        return b.mul(x, b.sigmoid(x))  # type: ignore[no-any-return]

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        """s + x * s * (1 - s)."""
        one, share = constant(b, x, 1.0), b.sigmoid(x)
        return b.mul(share, b.add(one, b.mul(x, b.sub(one, share))))  # type: ignore[no-any-return]


class Celu(_SlopedActivation):
    """x where x > 0, else alpha * (exp(x / alpha) - 1), alpha > 0 (Barron 2017).  C1: alpha is not
    0.
    """

    alpha = attr(float, 1.0)
    samples = (*WIDE, sample((7,), alpha=0.5))
    rejects = (("C1", sample((2,), alpha=0.0)),)

    @classmethod
    def infer(cls, *types: Type, **attrs: Any) -> Type:
        require(attrs["alpha"] != 0, "E0304", "celu (C1): alpha must not be 0")
        return super().infer(*types)

    @staticmethod
    def compute(x: Array, alpha: float) -> Array:
        return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0) / alpha))

    def expand(self, b: Builder, x: Value) -> Value:
        zero, alpha = constant(b, x, 0.0), constant(b, x, self.alpha)
        below = b.mul(b.expm1(b.div(b.min(x, zero), alpha)), alpha)
        return b.where(b.gt(x, zero), x, below)  # type: ignore[no-any-return]

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        return _exponential_slope(b, x, y, self.alpha, self.alpha)


class Selu(_Activation):
    """gamma * (x where x > 0, else alpha * (exp(x) - 1)) (Klambauer 2017)."""

    alpha = attr(float, 1.6732632423543772)
    gamma = attr(float, 1.0507009873554805)

    @staticmethod
    def compute(x: Array, alpha: float, gamma: float) -> Array:
        return gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))

    def expand(self, b: Builder, x: Value) -> Value:
        return b.mul(b.elu(x, alpha=self.alpha), constant(b, x, self.gamma))  # type: ignore[no-any-return]


class Mish(_SlopedActivation):
    """x * tanh(softplus(x)) (Misra 2019); NaN at minus infinity.

    As x * n / (n + 2), n = e * (e + 2), e = exp(x): the share is 1 to all digits from x = 20 on.
    """

    @staticmethod
    def compute(x: Array) -> Array:
        return x * np.tanh(Softplus.compute(x))

    def expand(self, b: Builder, x: Value) -> Value:
        return b.mul(x, self.share(b, x))  # type: ignore[no-any-return]

    @staticmethod
    def share(b: Builder, x: Value) -> Value:
        """tanh(softplus(x))."""
        two = constant(b, x, 2.0)
        power = b.exp(b.min(x, constant(b, x, 20.0)))
        n = b.mul(power, b.add(power, two))
        return b.div(n, b.add(n, two))  # type: ignore[no-any-return]

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        """t + x * (1 - t * t) * sigmoid(x)."""
        share = b.tanh(b.softplus(x))
        rest = b.sub(constant(b, x, 1.0), b.mul(share, share))
        return b.add(share, b.mul(b.mul(x, b.sigmoid(x)), rest))  # type: ignore[no-any-return]


class Softsign(_SlopedActivation):
    """x / (1 + |x|); NaN at the infinities."""

    @staticmethod
    def compute(x: Array) -> Any:
        return x / (1 + np.abs(x))

    def expand(self, b: Builder, x: Value) -> Value:
        return b.div(x, b.add(b.abs(x), constant(b, x, 1.0)))  # type: ignore[no-any-return]

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        size = b.add(b.abs(x), constant(b, x, 1.0))
        return b.reciprocal(b.mul(size, size))  # type: ignore[no-any-return]


class ThresholdedRelu(_Activation):
    """x where x > alpha, else 0, also of NaN (Konda 2014)."""

    alpha = attr(float, 1.0)

    @staticmethod
    def compute(x: Array, alpha: float) -> Array:
        return np.where(x > alpha, x, 0.0)

    def expand(self, b: Builder, x: Value) -> Value:
        return b.where(b.gt(x, constant(b, x, self.alpha)), x, constant(b, x, 0.0))  # type: ignore[no-any-return]


class PRelu(_Binary):
    """x where x >= 0, else slope * x (He 2015); the derivative at 0 is the slope.  C1: one element
    type.  C2: shapes broadcast.
    """

    x = operand(Real)
    slope = operand(Real)

    @staticmethod
    def compute(x: Array, slope: Array) -> Array:
        return np.where(x < 0, slope * x, x)

    def decompose(self, b: Builder) -> Value:
        zero = constant(b, self.x, 0)  # added where nothing is below it: the shapes broadcast
        if element(self.x.type).kind == "uint":
            return b.add(self.x, b.mul(self.slope, zero))  # type: ignore[no-any-return]
        return b.where(b.lt(self.x, zero), b.mul(self.slope, self.x), self.x)  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        g, x, slope = widened(b, g, self.x, self.slope)
        above = b.gt(x, constant(b, x, 0.0))
        return b.where(above, g, b.mul(g, slope)), stopped(b, above, b.mul(g, x))


class Shrink(_Unary):
    """x - bias above `lambd`, x + bias below -lambd, else 0 (also of NaN); of integers both are
    truncated.
    """

    x = operand(Real)
    bias = attr(float, 0.0)
    lambd = attr(float, 0.5)
    samples = (*WIDE, sample((9,), bias=1.5, lambd=1.0), sample((9,), ranges=((0, 9),), lambd=2.0))

    @staticmethod
    def compute(x: Array, bias: float, lambd: float) -> Array:
        shift, edge = (np.asarray(v).astype(x.dtype) for v in (bias, lambd))
        zero = x.dtype.type(0)
        above: Array = np.where(x > edge, x - shift, zero)
        return above if x.dtype.kind == "u" else np.where(x < -edge, x + shift, above)

    def decompose(self, b: Builder) -> Value:
        dtype = element(self.x.type)
        bias, edge = [v if dtype.is_float else int(v) for v in (self.bias, self.lambd)]

        def expand(x: Value) -> Value:
            zero, shift = constant(b, x, 0), constant(b, x, bias)
            above = b.where(b.gt(x, constant(b, x, edge)), b.sub(x, shift), zero)
            if dtype.kind == "uint":
                return above  # type: ignore[no-any-return]
            below = b.lt(x, constant(b, x, -edge))
            return b.where(below, b.add(x, shift), above)  # type: ignore[no-any-return]

        return in_compute_type(b, self.x, expand) if dtype.is_float else expand(self.x)


class HardSigmoid(_SlopedActivation):
    """alpha * x + beta, held between 0 and 1."""

    alpha = attr(float, 0.2)
    beta = attr(float, 0.5)

    @staticmethod
    def compute(x: Array, alpha: float, beta: float) -> Array:
        return np.maximum(0.0, np.minimum(1.0, alpha * x + beta))

    def expand(self, b: Builder, x: Value) -> Value:
        line = b.add(b.mul(x, constant(b, x, self.alpha)), constant(b, x, self.beta))
        return b.max(constant(b, x, 0.0), b.min(constant(b, x, 1.0), line))  # type: ignore[no-any-return]

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        """alpha inside, 0 at the ends."""
        zero, one = constant(b, x, 0.0), constant(b, x, 1.0)
        line = b.add(b.mul(x, constant(b, x, self.alpha)), constant(b, x, self.beta))
        inside = b.logical_and(b.gt(line, zero), b.lt(line, one))
        return passed(b, inside, constant(b, x, self.alpha))


class HardSwish(_Activation):
    """x * hard_sigmoid(x) with slope 1/6 (Howard 2019); NaN at minus infinity."""

    @staticmethod
    def compute(x: Array) -> Array:
        return x * np.maximum(0.0, np.minimum(1.0, x / 6 + 0.5))

    def expand(self, b: Builder, x: Value) -> Value:
        return b.mul(x, b.hard_sigmoid(x, alpha=1 / 6, beta=0.5))  # type: ignore[no-any-return]


_SQRT_HALF = math.sqrt(0.5)
_TANH_SCALE = math.sqrt(2 / math.pi)


class Gelu(_SlopedActivation):
    """x times the normal distribution function of x (Hendrycks 2016); NaN at minus infinity.

    `form` is "erf" (exact) or "tanh" (x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x**3)))).  C1: it
    is one of these.
    """

    form = attr(str, "erf")
    samples = (*WIDE, *[sample(s.shapes[0], ranges=s.ranges, form="tanh") for s in WIDE])
    rejects = (("C1", sample((2,), form="quick")),)

    @classmethod
    def infer(cls, *types: Type, **attrs: Any) -> Type:
        require(
            attrs["form"] in ("erf", "tanh"),
            "E0304",
            f"gelu (C1): no form '{attrs['form']}'",
            hint="erf or tanh",
        )
        return super().infer(*types)

    @staticmethod
    def compute(x: Array, form: str) -> Any:
        if form == "erf":
            return 0.5 * x * (1 + Erf.of_f64(x * _SQRT_HALF))
        return 0.5 * x * (1 + np.tanh(_TANH_SCALE * (x + 0.044715 * x**3)))

    def expand(self, b: Builder, x: Value) -> Value:
        half, one = constant(b, x, 0.5), constant(b, x, 1.0)
        if self.form == "erf":
            share = b.erf(b.mul(x, constant(b, x, _SQRT_HALF)))
        else:  # x * (c + 0.044715 c x^2)
            inner = b.add(b.mul(b.mul(x, x), constant(b, x, 0.044715)), one)
            share = b.tanh(b.mul(b.mul(x, constant(b, x, _TANH_SCALE)), inner))
        return b.mul(b.mul(x, half), b.add(share, one))  # type: ignore[no-any-return]

    def slope(self, b: Builder, x: Value, y: Value) -> Value:
        """The distribution function plus x times its derivative."""
        half, one = constant(b, x, 0.5), constant(b, x, 1.0)
        square = b.mul(x, x)
        if self.form == "erf":
            share = b.erf(b.mul(x, constant(b, x, _SQRT_HALF)))
            bell = b.exp(b.mul(square, constant(b, x, -0.5)))
            rest = b.mul(x, b.mul(bell, constant(b, x, 1 / math.sqrt(2 * math.pi))))
            return b.add(b.mul(half, b.add(share, one)), rest)  # type: ignore[no-any-return]
        inner = b.add(b.mul(square, constant(b, x, 0.044715)), one)
        share = b.tanh(b.mul(b.mul(x, constant(b, x, _TANH_SCALE)), inner))
        growth = b.add(b.mul(square, constant(b, x, 3 * 0.044715)), one)
        bell = b.mul(b.sub(one, b.mul(share, share)), constant(b, x, _TANH_SCALE))
        rest = b.mul(x, b.mul(bell, growth))
        return b.mul(half, b.add(b.add(share, one), rest))  # type: ignore[no-any-return]


class Clip(Op):
    """min(max(x, low), high); an absent bound does not bind, and `high` wins where low > high.

    C1: the bounds have the element type of x.  C2: they broadcast to the shape of x.
    """

    x = operand(Real)
    low = optional(Real)
    high = optional(Real)
    samples = (
        sample((3, 5), (), ()),
        sample((7,), (), (), ranges=((-9, 9), (-2, -1), (1, 2))),
        sample((4,), None, ()),
        sample((4,), ()),
        sample((4,)),
        sample((2, 0), (), ()),
        sample((), (), ()),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((2,), (), dtypes=("f32", "f64"))),
        ("C2", sample((2,), (3, 1))),
    )

    @staticmethod
    def infer(x: Type, low: Type | None = None, high: Type | None = None) -> Type:
        for bound in (low, high):
            if bound is not None:
                require(
                    element(bound) is element(x),
                    "E0303",
                    "clip (C1): bounds must have the type of x",
                    f"found {bound}",
                )
                try:
                    whole = broadcast_type((x, bound), element(x))
                except Error:
                    whole = None
                require(
                    whole is x,
                    "E0310",
                    "clip (C2): bounds must broadcast to x",
                    f"found {bound} for {x}",
                )
        return x

    @staticmethod
    def evaluate(x: Array, low: Array | None = None, high: Array | None = None) -> Array:
        out = widen(x)
        with np.errstate(all="ignore"):
            out = out if low is None else np.maximum(out, widen(low))
            out = out if high is None else np.minimum(out, widen(high))
        return out.astype(x.dtype)

    def decompose(self, b: Builder) -> Value:
        out = self.x if self.low is None else b.max(self.x, self.low)
        out = out if self.high is None else b.min(out, self.high)
        return out if out is not self.x else b.identity(out)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """x passes at its bounds, NaN nowhere; else the bound that was taken has the cotangent."""
        x, low, high = self.x, self.low, self.high
        inside = [b.ge(x, low)] if low is not None else []
        inside += [b.le(x, high)] if high is not None else []
        never = constant(b, x, False, boolean)
        under = never if low is None else b.lt(x, low)
        over = never if high is None else b.gt(x, high)
        if low is not None and high is not None:
            crossed = b.gt(low, high)
            under = b.logical_and(under, b.logical_not(crossed))
            over = b.logical_or(over, crossed)
            inside = [b.logical_and(*inside)]
        of_x = passed(b, inside[0], g) if inside else g
        return (of_x, passed(b, under, g), passed(b, over, g))[: len(self.operands)]


__all__ = [
    "Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu",
    "Selu", "Shrink", "Silu", "Softplus", "Softsign", "ThresholdedRelu",
]  # fmt: skip
