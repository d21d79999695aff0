"""Batch normalisation by the statistics of the batch itself, as training needs it.

With statistics that are given it is a scale and a shift per channel, which needs no op.
Imports: the norms' parts, the elementwise base, the core, types.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Grads, Op, Value, attr, operand, optional, sample
from ..dims import DimLike
from ..types import TensorType, from_numpy, i64
from .constraints import require, same
from .contract import as_type
from .convert import compute_dtype, round_float, widen
from .elementwise import constant
from .shape import DimValue


class BatchNormTrain(Op):
    """(y, mean, variance) of x [N, C, *S]: y is (x - mean) / sqrt(variance + epsilon) times scale,
    plus bias, by the mean and the (biased) variance of each channel (Ioffe 2015); those are [C].

    The statistics are f32 for narrower x, which computes in f32.

    C1: x has batch and channels.  C2: scale and bias are [C].  C3: one element type.
    """

    x = operand(Float)
    scale = optional(Float)
    bias = optional(Float)
    epsilon = attr(float, 1e-5)

    @staticmethod
    def infer(
        x: TensorType,
        scale: TensorType | None = None,
        bias: TensorType | None = None,
        *,
        epsilon: float,
    ) -> tuple[TensorType, ...]:
        found = f"x : {x}   scale : {scale}   bias : {bias}"
        require(x.rank >= 2, "E0310", "batch_norm_train (C1): x must be [N, C, ...]", found)
        for given in (scale, bias):
            fits = given is None or (
                given.rank == 1 and same(given.shape[0], x.shape[1]) is not False
            )
            require(fits, "E0310", "batch_norm_train (C2): scale and bias must be [C]", found)
            alike = given is None or given.dtype is x.dtype
            require(alike, "E0303", "batch_norm_train (C3): element types differ", found)
        statistic = TensorType(compute_dtype(x.dtype), (x.shape[1],))
        return x, statistic, statistic

    @staticmethod
    def evaluate(
        x: Array, scale: Array | None = None, bias: Array | None = None, *, epsilon: float
    ) -> tuple[Array, ...]:
        wide = widen(x).astype(np.float64)
        axes = (0, *range(2, x.ndim))
        count = np.float64(math.prod([x.shape[a] for a in axes]))
        along = (-1, *[1] * (x.ndim - 2))
        with np.errstate(all="ignore"):
            mean = np.sum(wide, axis=axes) / count
            centred = wide - mean.reshape(along)
            variance = np.sum(centred * centred, axis=axes) / count
            out = centred / np.sqrt(variance + epsilon).reshape(along)
            out = out if scale is None else out * widen(scale).reshape(along)
            out = out if bias is None else out + widen(bias).reshape(along)
        kind = compute_dtype(from_numpy(x.dtype)).np
        return round_float(out, from_numpy(x.dtype)), mean.astype(kind), variance.astype(kind)

    def decompose(self, b: Builder) -> tuple[Value, Value, Value]:
        """Two sums per channel, one after the other, then a scale and a shift."""
        x = as_type(b, self.x, compute_dtype(self.x.tensor.dtype))
        mean = b.reduce_mean(x, axes=self.axes, keepdims=True)
        centred = b.sub(x, mean)
        variance = b.reduce_mean(b.mul(centred, centred), axes=self.axes, keepdims=True)
        factor = self.root(b, variance)
        if self.scale is not None:
            factor = b.mul(factor, self.per_channel(b, self.scale))
        out = b.mul(centred, factor)
        if self.bias is not None:
            out = b.add(out, self.per_channel(b, self.bias))
        flat = self.result_shape
        return (
            as_type(b, out, self.x.tensor.dtype),
            b.reshape(mean, shape=flat),
            b.reshape(variance, shape=flat),
        )

    def vjp(self, b: Builder, g: Value | None, of_mean: Value | None = None,
            of_variance: Value | None = None) -> Grads:  # fmt: skip
        """scale * root * (g - mean(g) - y * mean(g * y)), y the plain result; from the statistics
        of the forward pass."""
        _, mean, variance = [self.per_channel(b, r) if k else r for k, r in enumerate(self.results)]
        root = self.root(b, variance)
        x = as_type(b, self.x, root.tensor.dtype)
        centred = b.sub(x, mean)
        dx, found = None, [None, None]
        if g is not None:
            g = as_type(b, g, root.tensor.dtype)
            y = b.mul(centred, root)
            plain = b.reduce_sum(g, axes=self.axes, keepdims=True)
            along = b.reduce_sum(b.mul(g, y), axes=self.axes, keepdims=True)
            moved = b.sub(g, self.share(b, plain))
            dx = b.mul(root, b.sub(moved, b.mul(y, self.share(b, along))))
            if self.scale is not None:
                dx = b.mul(dx, self.per_channel(b, self.scale))
            found = [b.reshape(v, shape=self.result_shape) for v in (along, plain)]
        if of_mean is not None:
            part = self.share(b, self.per_channel(b, of_mean))
            dx = part if dx is None else b.add(dx, part)
        if of_variance is not None:
            part = self.share(b, self.per_channel(b, of_variance))
            part = b.mul(centred, b.add(part, part))
            dx = part if dx is None else b.add(dx, part)
        return (dx, *found)[: len(self.operands)]

    @property
    def axes(self) -> tuple[int, ...]:
        """All but that of the channels."""
        return (0, *range(2, self.x.tensor.rank))

    @property
    def result_shape(self) -> tuple[DimLike, ...]:
        return (self.x.tensor.shape[1],)

    def root(self, b: Builder, variance: Value) -> Value:
        """1 / sqrt(variance + epsilon)."""
        return b.rsqrt(b.add(variance, constant(b, variance, self.epsilon)))  # type: ignore[no-any-return]

    def per_channel(self, b: Builder, given: Value) -> Value:
        """A [C] against x, in the compute type."""
        wide = as_type(b, given, compute_dtype(self.x.tensor.dtype))
        shape = (self.x.tensor.shape[1], *[1] * (self.x.tensor.rank - 2))
        return b.reshape(wide, shape=shape)  # type: ignore[no-any-return]

    def share(self, b: Builder, total: Value) -> Value:
        """A sum over a channel, divided by how many elements it has."""
        count: DimLike = 1
        for axis in self.axes:
            count = count * self.x.tensor.shape[axis]
        if type(count) is int:
            return b.mul(total, constant(b, total, 1 / max(count, 1)))  # type: ignore[no-any-return]
        extent = b.cast(b.emit(DimValue, dim=count, dtype=i64), to=total.tensor.dtype)
        return b.div(total, extent)  # type: ignore[no-any-return]

    samples: ClassVar[Any] = (
        sample((2, 3, 4, 5), (3,), (3,)),
        sample((7, 3), (3,), (3,)),
        sample((2, 3, 5)),
        sample((3, 2, 2, 3, 2), (2,), None, epsilon=0.1),
        sample((1, 3, 17), None, (3,)),
        sample((5, 1), (1,), (1,)),
        sample((2, 3, 4), (3,), (3,), dtypes=("bf16",) * 3),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((3,), (3,))),
        ("C2", sample((2, 3, 4), (4,))),
        ("C3", sample((2, 3, 4), (3,), dtypes=("f32", "f64"))),
    )


__all__ = ["BatchNormTrain"]
