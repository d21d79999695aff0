"""Composites that normalise: by groups of channels, root mean square, p-norm, mean and deviation.

`evaluate` computes in f64 and rounds once; `decompose` works in f32 for narrower floats.  Softmax
and layer_norm are in normalize.py.  Imports: the elementwise base, reductions, the core, types.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Grads, Op, Value, attr, operand, optional, sample
from ..dims import DimLike
from ..errors import Error
from ..types import TensorType, from_numpy
from .axis import _Axis
from .constraints import axis_of, require, same
from .contract import as_type
from .convert import compute_dtype, round_float, widen
from .elementwise import broadcast, constant, in_compute_type
from .normalize import centred_and_scaled, through_deviation
from .reduce import Axes, canonical_axes


def _wide(x: Array) -> Array:
    return widen(x).astype(np.float64)


def _same_types(op: str, constraint: str, x: TensorType, others: tuple[Any, ...]) -> None:
    for other in others:
        require(
            other is None or other.dtype is x.dtype,
            "E0303",
            f"{op} ({constraint}): operands must have one element type",
            f"found {x} and {other}",
        )


class GroupNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) over each of `groups` groups of channels and all
    spatial axes, times scale, plus bias (Wu 2018): x [N, C, *S], scale and bias [C].

    With as many groups as channels it is the instance norm (Ulyanov 2016).

    C1: x has batch and channels.  C2: the channels are a multiple of groups.  C3: scale and bias
    are [C].  C4: all have one element type.
    """

    x = operand(Float)
    scale = optional(Float)
    bias = optional(Float)
    groups = attr(object)
    epsilon = attr(float, 1e-5)

    @staticmethod
    def infer(
        x: TensorType,
        scale: TensorType | None = None,
        bias: TensorType | None = None,
        *,
        groups: DimLike,
        epsilon: float,
    ) -> TensorType:
        require(x.rank >= 2, "E0310", "group_norm (C1): x must be [N, C, ...]", f"found {x}")
        positive = type(groups) is not int or groups >= 1
        require(
            positive and (x.shape[1] is groups or same(x.shape[1] % groups, 0)),
            "E0310",
            f"group_norm (C2): {x.shape[1]} channels are not {groups} groups",
        )
        for given in (scale, bias):
            fits = given is None or (
                given.rank == 1 and same(given.shape[0], x.shape[1]) is not False
            )
            require(
                fits,
                "E0310",
                "group_norm (C3): scale and bias must have one element per channel",
                f"found {given} for {x}",
            )
        _same_types("group_norm", "C4", x, (scale, bias))
        return x

    @staticmethod
    def evaluate(
        x: Array,
        scale: Array | None = None,
        bias: Array | None = None,
        *,
        groups: int,
        epsilon: float,
    ) -> Array:
        count = x.shape[1] // groups * math.prod(x.shape[2:])
        flat = _wide(x).reshape(x.shape[0], groups, count)
        with np.errstate(all="ignore"):
            centred = flat - np.sum(flat, 2, keepdims=True) / count
            variance = np.sum(centred * centred, 2, keepdims=True) / count
            out = (centred / np.sqrt(variance + epsilon)).reshape(x.shape)
            along = (-1, *[1] * (x.ndim - 2))
            out = out if scale is None else out * _wide(scale).reshape(along)
            out = out if bias is None else out + _wide(bias).reshape(along)
            return round_float(out, from_numpy(x.dtype))

    def decompose(self, b: Builder) -> Value:
        """As [N, groups, channels of one, area]: one nest from end to end."""
        out, _ = self.normalised(b)
        for op, given in ((b.mul, self.scale), (b.add, self.bias)):
            if given is not None:
                out = op(out, self.per_channel(b, given))
        return as_type(b, b.reshape(out, shape=self.x.tensor.shape), self.x.tensor.dtype)

    def grouped(self, b: Builder, x: Value) -> Value:
        """x [N, C, *S] as [N, groups, channels of one, area], in the compute type."""
        shape = self.x.tensor.shape
        each: DimLike = 1 if self.groups is shape[1] else shape[1] // self.groups
        area: DimLike = 1
        for extent in shape[2:]:
            area = area * extent
        wide = as_type(b, x, compute_dtype(self.x.tensor.dtype))
        return b.reshape(wide, shape=(shape[0], self.groups, each, area))  # type: ignore[no-any-return]

    def per_channel(self, b: Builder, given: Value) -> Value:
        """Scale or bias, against that."""
        channels = self.x.tensor.shape[1]
        each: DimLike = 1 if self.groups is channels else channels // self.groups
        wide = as_type(b, given, compute_dtype(self.x.tensor.dtype))
        return b.reshape(wide, shape=(self.groups, each, 1))  # type: ignore[no-any-return]

    def normalised(self, b: Builder) -> tuple[Value, Value]:
        """x as groups, without mean and of deviation one, and 1 / deviation."""
        return centred_and_scaled(b, self.grouped(b, self.x), (2, 3), self.epsilon)

    def vjp(self, b: Builder, g: Value) -> Grads:
        g = self.grouped(b, g)
        y, root = self.normalised(b)
        inner = g if self.scale is None else b.mul(g, self.per_channel(b, self.scale))
        dx = through_deviation(b, inner, y, root, (2, 3))
        found: list[Value | None] = [b.reshape(dx, shape=self.x.tensor.shape)]
        for given, part in ((self.scale, b.mul(g, y)), (self.bias, g)):
            if given is None:
                found.append(None)
            else:
                found.append(b.reshape(b.reduce_sum(part, axes=(0, 3)), shape=given.tensor.shape))
        return found[: len(self.operands)]

    samples: ClassVar[Any] = (
        sample((2, 6, 3, 5), (6,), (6,), groups=3),
        sample((2, 4, 7), groups=4),
        sample((1, 6, 2, 2), (6,), None, groups=1, epsilon=0.1),
        sample((3, 4), None, (4,), groups=2),
        sample((0, 4, 3), (4,), (4,), groups=2),
        sample((2, 4, 3), (4,), (4,), groups=2, dtypes=("f16",) * 3),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((6,), groups=3)),
        ("C2", sample((2, 6, 3), groups=4)),
        ("C2", sample((2, 6, 3), groups=0)),
        ("C3", sample((2, 6, 3), (3,), groups=3)),
        ("C4", sample((2, 6, 3), (6,), groups=3, dtypes=("f32", "f64"))),
    )


class RmsNorm(_Axis):
    """x / sqrt(mean(x * x) + epsilon) over the axes from `axis` on, times scale (Zhang 2019).

    C1: axis in range.  C2: scale broadcasts to x.  C3: both have one element type.
    """

    x = operand(Float)
    scale = optional(Float)
    axis = attr(int, -1)
    epsilon = attr(float, 1e-5)

    @staticmethod
    def infer(
        x: TensorType, scale: TensorType | None = None, *, axis: int, epsilon: float
    ) -> TensorType:
        axis_of(axis, x.rank, "rms_norm", "C1")
        _same_types("rms_norm", "C3", x, (scale,))
        if scale is not None:
            try:
                fits = broadcast(x.shape, scale.shape) == x.shape
            except Error:
                fits = False
            require(fits, "E0310", "rms_norm (C2): scale must broadcast to x", f"{scale} for {x}")
        return x

    @staticmethod
    def evaluate(x: Array, scale: Array | None = None, *, axis: int, epsilon: float) -> Array:
        wide = _wide(x)
        axes = tuple(range(axis, x.ndim))
        count = np.float64(math.prod(x.shape[axis:]))
        with np.errstate(all="ignore"):
            mean = np.sum(wide * wide, axis=axes, keepdims=True) / count
            out = wide / np.sqrt(mean + epsilon)
            return round_float(out if scale is None else out * _wide(scale), from_numpy(x.dtype))

    def decompose(self, b: Builder) -> Value:
        out, _ = self.normalised(b)
        if self.scale is not None:
            out = b.mul(out, as_type(b, self.scale, compute_dtype(self.x.tensor.dtype)))
        return as_type(b, out, self.x.tensor.dtype)

    def normalised(self, b: Builder) -> tuple[Value, Value]:
        """x over its root mean square, and the reciprocal of that."""
        x = as_type(b, self.x, compute_dtype(self.x.tensor.dtype))
        axes = tuple(range(self.axis, x.tensor.rank))
        mean = b.reduce_mean(b.mul(x, x), axes=axes, keepdims=True)
        root = b.rsqrt(b.add(mean, constant(b, mean, self.epsilon)))
        return b.mul(x, root), root

    def vjp(self, b: Builder, g: Value) -> Grads:
        wide = compute_dtype(self.x.tensor.dtype)
        g = as_type(b, g, wide)
        y, root = self.normalised(b)
        inner = g if self.scale is None else b.mul(g, as_type(b, self.scale, wide))
        axes = tuple(range(self.axis, y.tensor.rank))
        along = b.reduce_mean(b.mul(inner, y), axes=axes, keepdims=True)
        dx = b.mul(root, b.sub(inner, b.mul(y, along)))
        return (dx, b.mul(g, y))[: len(self.operands)]

    samples: ClassVar[Any] = (
        sample((3, 5), (5,)),
        sample((2, 3, 7), (3, 7), axis=1),
        sample((2, 17)),
        sample((4, 5), (5,), epsilon=0.1, axis=0),
        sample((0, 3), (3,)),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((3, 5), axis=2)),
        ("C2", sample((3, 5), (3,))),
        ("C2", sample((3, 1), (5,))),
        ("C3", sample((3, 5), (5,), dtypes=("f32", "f64"))),
    )


class LpNorm(_Axis):
    """x over its p-norm along `axis`, p 1 or 2; 0 where that is 0.

    C1: axis in range.  C2: p is 1 or 2.
    """

    x = operand(Float)
    axis = attr(int, -1)
    p = attr(int, 2)

    @staticmethod
    def infer(x: TensorType, axis: int, p: int) -> TensorType:
        axis_of(axis, x.rank, "lp_norm", "C1")
        require(p in (1, 2), "E0315", f"lp_norm (C2): p is {p}, neither 1 nor 2")
        return x

    @staticmethod
    def evaluate(x: Array, axis: int, p: int) -> Array:
        wide = _wide(x)
        norm = np.sum(np.abs(wide) ** p, axis=axis, keepdims=True) ** (1 / p)
        with np.errstate(all="ignore"):
            return round_float(np.where(norm == 0, 0.0, wide / norm), from_numpy(x.dtype))

    def decompose(self, b: Builder) -> Value:
        def expand(x: Value) -> Value:
            reduce: Callable[..., Value] = b.reduce_l1 if self.p == 1 else b.reduce_l2
            norm = reduce(x, axes=(self.axis,), keepdims=True)
            zero = constant(b, norm, 0.0)
            return b.where(b.eq(norm, zero), zero, b.div(x, norm))  # type: ignore[no-any-return]

        return in_compute_type(b, self.x, expand)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """(g - s * sum(g * y)) / norm, s the derivative of the norm; 0 where the norm is."""
        wide = compute_dtype(self.x.tensor.dtype)
        x, g = as_type(b, self.x, wide), as_type(b, g, wide)
        reduce: Callable[..., Value] = b.reduce_l1 if self.p == 1 else b.reduce_l2
        norm = reduce(x, axes=(self.axis,), keepdims=True)
        zero, one = constant(b, norm, 0.0), constant(b, norm, 1.0)
        empty = b.eq(norm, zero)
        inverse = b.where(empty, zero, b.reciprocal(b.where(empty, one, norm)))
        y = b.mul(x, inverse)
        along = b.reduce_sum(b.mul(g, y), axes=(self.axis,), keepdims=True)
        slope = b.sign(x) if self.p == 1 else y
        return (b.mul(b.sub(g, b.mul(slope, along)), inverse),)

    samples: ClassVar[Any] = (
        sample((3, 5)),
        sample((2, 3, 7), axis=1, p=1),
        sample((2, 3), axis=0, ranges=((0, 0),)),
        sample((3, 0)),
    )
    rejects: ClassVar[Any] = (("C1", sample((3, 5), axis=2)), ("C2", sample((3, 5), p=3)))


class MeanVarianceNorm(Op):
    """(x - mean) / (sqrt(variance) + epsilon) over `axes`.

    C1: axes are in range.  C2: none is named twice.
    """

    x = operand(Float)
    axes = attr(object, None)
    epsilon = attr(float, 1e-9)

    def __init__(self, *operands: Value, axes: Axes | None = None, **attrs: Any) -> None:
        if operands and isinstance(operands[0].type, TensorType):
            axes = canonical_axes(self.name, axes, operands[0].tensor.rank)
        super().__init__(*operands, axes=axes, **attrs)

    @staticmethod
    def infer(x: TensorType, axes: Axes | None, epsilon: float) -> TensorType:
        canonical_axes("mean_variance_norm", axes, x.rank)
        return x

    @staticmethod
    def evaluate(x: Array, axes: Axes, epsilon: float) -> Array:
        wide = _wide(x)
        count = np.float64(math.prod([x.shape[a] for a in axes]))
        with np.errstate(all="ignore"):
            centred = wide - np.sum(wide, axis=axes, keepdims=True) / count
            variance = np.sum(centred * centred, axis=axes, keepdims=True) / count
            return round_float(centred / (np.sqrt(variance) + epsilon), from_numpy(x.dtype))

    def decompose(self, b: Builder) -> Value:
        def expand(x: Value) -> Value:
            centred = b.sub(x, b.reduce_mean(x, axes=self.axes, keepdims=True))
            variance = b.reduce_mean(b.mul(centred, centred), axes=self.axes, keepdims=True)
            root = b.sqrt(variance)
            return b.div(centred, b.add(root, constant(b, root, self.epsilon)))  # type: ignore[no-any-return]

        return in_compute_type(b, self.x, expand)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """With y = c / (root + epsilon): (g - mean(g) - c / root * mean(g * y)) / (root + epsilon);
        the deviation of equal elements has slope 0."""
        wide = compute_dtype(self.x.tensor.dtype)
        x, g = as_type(b, self.x, wide), as_type(b, g, wide)

        def mean(v: Value) -> Value:
            return b.reduce_mean(v, axes=self.axes, keepdims=True)  # type: ignore[no-any-return]

        centred = b.sub(x, mean(x))
        variance = mean(b.mul(centred, centred))
        zero, one = constant(b, variance, 0.0), constant(b, variance, 1.0)
        flat = b.eq(variance, zero)
        safe = b.sqrt(b.where(flat, one, variance))
        root = b.where(flat, zero, safe)
        inverse = b.reciprocal(b.add(root, constant(b, root, self.epsilon)))
        along = mean(b.mul(g, b.mul(centred, inverse)))
        slope = b.where(flat, zero, b.div(centred, safe))
        moved = b.sub(b.sub(g, mean(g)), b.mul(slope, along))
        return (b.mul(moved, inverse),)

    samples = (
        sample((2, 3, 4, 5), axes=(0, 2, 3)),
        sample((3, 5), axes=(-1,), epsilon=0.1),
        sample((17,)),
        sample((0, 3), axes=(1,)),
    )
    rejects = (("C1", sample((3, 5), axes=(2,))), ("C2", sample((3, 5), axes=(1, -1))))


__all__ = ["GroupNorm", "LpNorm", "MeanVarianceNorm", "RmsNorm"]
