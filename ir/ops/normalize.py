"""Composites that normalise along axes: softmax, log_softmax, layer_norm.

`evaluate` computes in f64 and rounds once; `decompose` and `vjp` work in f32 for narrower floats.
What a gradient needs of the forward pass (means, roots) it computes anew, from the row that it
reads anyway: nothing is stored for it, and it is one kernel.
Imports: the reductions, the elementwise base, the core, types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Grads, Op, Value, attr, operand, optional, sample
from ..errors import Error
from ..types import TensorType, from_numpy
from .constraints import axis_of, require
from .contract import as_type
from .convert import compute_dtype, round_float, widen
from .elementwise import broadcast, constant, in_compute_type


class _AlongAxis(Op):
    """Base: one float operand, one axis.  C1: axis in range."""

    x = operand(Float)
    axis = attr(int, -1)
    samples = (
        sample((3, 5)),
        sample((2, 3, 7), axis=1),
        sample((17,), ranges=((-90, 90),), axis=0),
        sample((4, 1)),
        sample((3, 0)),
        sample((0, 3)),
    )
    rejects: ClassVar[Any] = (("C1", sample((3, 5), axis=2)),)
    of_f64: ClassVar[Callable[..., Any]]
    expand: ClassVar[Callable[..., Value]]

    def __init__(self, *operands: Value, axis: int = -1, **attrs: Any) -> None:
        if operands and isinstance(operands[0].type, TensorType):
            axis = axis_of(axis, operands[0].tensor.rank, self.name, "C1")
        super().__init__(*operands, axis=axis, **attrs)

    @classmethod
    def infer(cls, x: TensorType, axis: int) -> TensorType:
        axis_of(axis, x.rank, cls.name, "C1")
        return x

    @classmethod
    def evaluate(cls, x: Array, axis: int = -1) -> Array:
        with np.errstate(all="ignore"):
            return round_float(cls.of_f64(widen(x).astype(np.float64), axis), from_numpy(x.dtype))

    def decompose(self, b: Builder) -> Value:
        return in_compute_type(b, self.x, lambda x: self.expand(b, x))

    def shifted(self, b: Builder, x: Value) -> Value:
        """x less its greatest element along the axis; with a NaN in x, less any, and NaN there."""
        top = b.reduce_max(x, axes=(self.axis,), keepdims=True, of_numbers=True)
        return b.sub(x, top)  # type: ignore[no-any-return]

    def total(self, b: Builder, x: Value) -> Value:
        """The sum along the axis, kept as an extent of 1."""
        return b.reduce_sum(x, axes=(self.axis,), keepdims=True)  # type: ignore[no-any-return]


def _shift(x: Array, axis: int) -> Array:
    return np.asarray(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))


class Softmax(_AlongAxis):
    """exp(x) along `axis`, scaled to sum to one (Bridle 1990); shifted by the greatest element.

    NaN where the greatest element is infinite, or any is NaN.  C1: axis in range.
    """

    @staticmethod
    def of_f64(x: Array, axis: int) -> Array:
        powers = np.exp(_shift(x, axis))
        return powers / np.sum(powers, axis=axis, keepdims=True)  # type: ignore[no-any-return]

    def expand(self, b: Builder, x: Value) -> Value:
        powers = b.exp(self.shifted(b, x))
        # One division per row, not per element: another half ULP, and most of the time saved.
        return b.mul(powers, b.reciprocal(self.total(b, powers)))  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        wide = compute_dtype(self.x.tensor.dtype)
        y, g = as_type(b, self.result, wide), as_type(b, g, wide)
        return (b.mul(b.sub(g, self.total(b, b.mul(g, y))), y),)


class LogSoftmax(_AlongAxis):
    """log(softmax(x)) along `axis`, without the rounding of the quotient.  NaN as softmax.  C1:
    axis in range.
    """

    @staticmethod
    def of_f64(x: Array, axis: int) -> Array:
        moved = _shift(x, axis)
        return moved - np.log(np.sum(np.exp(moved), axis=axis, keepdims=True))  # type: ignore[no-any-return]

    def expand(self, b: Builder, x: Value) -> Value:
        moved = self.shifted(b, x)
        return b.sub(moved, b.log(self.total(b, b.exp(moved))))  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        wide = compute_dtype(self.x.tensor.dtype)
        y, g = as_type(b, self.result, wide), as_type(b, g, wide)
        return (b.sub(g, b.mul(b.exp(y), self.total(b, g))),)


class LayerNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) over the axes from `axis` on, times scale, plus bias
    (Ba 2016).

    The variance is the mean of squared differences.  C1: axis in range.  C2: scale and bias
    broadcast to x. C3: all have one element type.
    """

    x = operand(Float)
    scale = optional(Float)
    bias = optional(Float)
    axis = attr(int, -1)
    epsilon = attr(float, 1e-5)
    samples = (
        sample((3, 5), (5,), (5,)),
        sample((2, 3, 7), (3, 7), (3, 7), axis=1),
        sample((2, 17)),
        sample((4, 5), None, (5,)),
        sample((4, 5), (5,), epsilon=0.1),
        sample((0, 3), (3,)),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((3, 5), axis=2)),
        ("C2", sample((3, 5), (3,))),
        ("C2", sample((3, 1), (5,))),
        ("C3", sample((3, 5), (5,), dtypes=("f32", "f64"))),
    )

    def __init__(self, *operands: Value, axis: int = -1, **attrs: Any) -> None:
        if operands and isinstance(operands[0].type, TensorType):
            axis = axis_of(axis, operands[0].tensor.rank, self.name, "C1")
        super().__init__(*operands, axis=axis, **attrs)

    @staticmethod
    def infer(
        x: TensorType,
        scale: TensorType | None = None,
        bias: TensorType | None = None,
        *,
        axis: int,
        epsilon: float,
    ) -> TensorType:
        axis_of(axis, x.rank, "layer_norm", "C1")
        for given in (scale, bias):
            if given is not None:
                require(
                    given.dtype is x.dtype,
                    "E0303",
                    "layer_norm (C3): operands must have one element type",
                    f"found {x} and {given}",
                )
                try:
                    fits = broadcast(x.shape, given.shape) == x.shape
                except Error:
                    fits = False
                require(
                    fits,
                    "E0310",
                    "layer_norm (C2): scale and bias must broadcast to x",
                    f"found {given} for {x}",
                )
        return x

    @staticmethod
    def evaluate(x: Array, scale: Array | None = None, bias: Array | None = None, *, axis: int = -1,
                 epsilon: float = 1e-5) -> Array:  # fmt: skip
        wide = widen(x).astype(np.float64)
        axes = tuple(range(axis % x.ndim, x.ndim))
        count = np.float64(np.prod([x.shape[a] for a in axes]))
        with np.errstate(all="ignore"):
            centred = wide - np.sum(wide, axis=axes, keepdims=True) / count
            variance = np.sum(centred * centred, axis=axes, keepdims=True) / count
            out = centred / np.sqrt(variance + epsilon)
            out = out if scale is None else out * widen(scale)
            return round_float(out if bias is None else out + widen(bias), from_numpy(x.dtype))

    def decompose(self, b: Builder) -> Value:
        wide = compute_dtype(self.x.tensor.dtype)
        out, _ = self.normalised(b)
        for op, given in ((b.mul, self.scale), (b.add, self.bias)):
            out = out if given is None else op(out, as_type(b, given, wide))
        return as_type(b, out, self.x.tensor.dtype)

    def normalised(self, b: Builder) -> tuple[Value, Value]:
        """x without mean, of deviation one, and the reciprocal of its deviation."""
        x = as_type(b, self.x, compute_dtype(self.x.tensor.dtype))
        return centred_and_scaled(b, x, range(self.axis, x.tensor.rank), self.epsilon)

    def vjp(self, b: Builder, g: Value) -> Grads:
        wide = compute_dtype(self.x.tensor.dtype)
        g = as_type(b, g, wide)
        y, root = self.normalised(b)
        inner = g if self.scale is None else b.mul(g, as_type(b, self.scale, wide))
        dx = through_deviation(b, inner, y, root, range(self.axis, y.tensor.rank))
        return (dx, b.mul(g, y), g)[: len(self.operands)]


def centred_and_scaled(
    b: Builder, x: Value, axes: Sequence[int], epsilon: float
) -> tuple[Value, Value]:
    """(x - mean) / root and 1 / root, root = sqrt(variance + epsilon), over these axes."""
    centred = b.sub(x, b.reduce_mean(x, axes=tuple(axes), keepdims=True))
    variance = b.reduce_mean(b.mul(centred, centred), axes=tuple(axes), keepdims=True)
    root = b.rsqrt(b.add(variance, constant(b, variance, epsilon)))
    return b.mul(centred, root), root


def through_deviation(b: Builder, g: Value, y: Value, root: Value, axes: Sequence[int]) -> Value:
    """The cotangent of x for that of y, the first result of `centred_and_scaled`."""
    along = b.reduce_mean(b.mul(g, y), axes=tuple(axes), keepdims=True)
    moved = b.sub(g, b.reduce_mean(g, axes=tuple(axes), keepdims=True))
    return b.mul(root, b.sub(moved, b.mul(y, along)))  # type: ignore[no-any-return]


__all__ = ["LayerNorm", "LogSoftmax", "Softmax", "centred_and_scaled", "through_deviation"]
