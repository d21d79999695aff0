"""Losses that are better as one op: cross entropy of logits with labels.

Imports: the normalisations' and indices' parts, the core, types.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Grads, Int, Value, attr, operand, optional, sample
from ..dims import DimLike
from ..types import DType, TensorType, from_numpy, i64
from .axis import _Axis
from .constraints import axis_of, require, same
from .contract import as_type
from .convert import compute_dtype, widen
from .core import Const
from .elementwise import constant
from .index import in_range
from .shape import DimValue

REDUCTIONS = ("none", "mean", "sum")


class CrossEntropy(_Axis):
    """-log softmax(x) along `axis` at each label: x [N, C, ...] and labels [N, ...], without the
    axis, to losses of the labels' shape, or their sum or mean.

    `weights` [C] scale each class.  With `smoothing` s the label counts 1 - s and every class s / C
    (Szegedy 2016).  A label of `ignored` has loss 0; a label out of range is a run-time error.  The
    mean is over the weights of the labels that count (NaN where none does), as in torch.  f8, f16
    and bf16 compute in f32, and their losses are f32.

    C1: axis in range.  C2: labels have x's shape without the axis.  C3: weights are [C].  C4:
    smoothing is from 0 to 1, the reduction none, mean or sum.
    """

    x = operand(Float)
    labels = operand(Int)
    weights = optional(Float)
    axis = attr(int, 1)
    smoothing = attr(float, 0.0)
    ignored = attr(int, -100)
    reduction = attr(str, "none")

    @staticmethod
    def infer(
        x: TensorType,
        labels: TensorType,
        weights: TensorType | None = None,
        *,
        axis: int,
        smoothing: float,
        ignored: int,
        reduction: str,
    ) -> TensorType:
        at = axis_of(axis, x.rank, "cross_entropy", "C1")
        found = f"x : {x}   labels : {labels}   weights : {weights}"
        rest = (*x.shape[:at], *x.shape[at + 1 :])
        fits = len(rest) == labels.rank
        fits = fits and all([same(a, e) is not False for a, e in zip(labels.shape, rest)])
        require(fits, "E0310", "cross_entropy (C2): labels have x's shape without the axis", found)
        fits = weights is None or (
            weights.rank == 1 and same(weights.shape[0], x.shape[at]) is not False
        )
        require(fits, "E0310", "cross_entropy (C3): there is one weight per class", found)
        known = 0 <= smoothing <= 1 and reduction in REDUCTIONS
        require(known, "E0316", "cross_entropy (C4): smoothing or reduction",
                f"found {smoothing}, {reduction}")  # fmt: skip
        return TensorType(compute_dtype(x.dtype), rest if reduction == "none" else ())

    @staticmethod
    def evaluate(
        x: Array,
        labels: Array,
        weights: Array | None = None,
        *,
        axis: int,
        smoothing: float,
        ignored: int,
        reduction: str,
    ) -> Array:
        wide = np.moveaxis(widen(x).astype(np.float64), axis, -1)
        classes = wide.shape[-1]
        factor = np.ones(classes) if weights is None else widen(weights).astype(np.float64)
        counts = labels.astype(np.int64) != ignored
        at = in_range(np.where(counts, labels, 0), classes, "cross_entropy", 0)
        with np.errstate(all="ignore"):
            moved = wide - np.max(wide, axis=-1, keepdims=True, initial=-np.inf)
            logs = moved - np.log(np.sum(np.exp(moved), axis=-1, keepdims=True))
            picked = np.take_along_axis(logs, at[..., None], -1)[..., 0]
            found = -picked * factor[at] * (1 - smoothing)
            if smoothing:
                found = found - np.sum(logs * factor, axis=-1) * (smoothing / classes)
            found = np.where(counts, found, 0)
            if reduction != "none":
                found = np.sum(found)
            if reduction == "mean":
                found = found / np.sum(np.where(counts, factor[at], 0))
        return np.asarray(found).astype(compute_dtype(from_numpy(x.dtype)).np)

    def decompose(self, b: Builder) -> Value:
        """Log of the sum of powers, less the element at the label."""
        axes = (self.axis,)
        x = as_type(b, self.x, compute_dtype(self.x.tensor.dtype))
        at, counts = self.places(b)
        top = b.reduce_max(x, axes=axes, keepdims=True, of_numbers=True)
        total = b.log(b.reduce_sum(b.exp(b.sub(x, top)), axes=axes, keepdims=True))
        found = b.add(b.sub(top, b.take_along(x, at, axis=self.axis)), total)
        factor = self.factor(b, at)
        if factor is not None:
            found = b.mul(found, factor)
        if self.smoothing:
            logs = b.sub(b.sub(x, top), total)
            if self.weights is not None:
                logs = b.mul(logs, self.per_class(b))
            every = self.smooth(b, b.reduce_sum(logs, axes=axes, keepdims=True))
            found = b.sub(b.mul(found, constant(b, found, 1 - self.smoothing)), every)
        found = b.where(counts, found, constant(b, found, 0.0))
        if self.reduction == "none":
            return b.reshape(found, shape=self.labels.tensor.shape)  # type: ignore[no-any-return]
        found = b.reduce_sum(found)
        return b.div(found, self.counted(b, factor, counts)) if self.reduction == "mean" else found  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        """softmax(x) less what it should be, scaled; no logarithm, no gather."""
        wide = compute_dtype(self.x.tensor.dtype)
        at, counts = self.places(b)
        factor = self.factor(b, at)
        if self.reduction == "mean":
            g = b.div(g, self.counted(b, factor, counts))
        elif self.reduction == "none":
            g = b.reshape(g, shape=at.tensor.shape)
        g = b.where(counts, g, constant(b, g, 0.0))
        shares = b.softmax(as_type(b, self.x, wide), axis=self.axis)
        along = [1] * self.x.tensor.rank
        along[self.axis] = self.x.tensor.shape[self.axis]
        hit = b.eq(b.iota(shape=along, axis=self.axis), at)
        one, none = constant(b, g, 1.0), constant(b, g, 0.0)
        label = b.where(hit, constant(b, g, 1 - self.smoothing), none)
        target, whole = label, one
        if factor is not None:
            target = b.mul(label, self.per_class(b))
            whole = b.mul(factor, constant(b, factor, 1 - self.smoothing))
        if self.smoothing:
            every = self.smooth(b, one if factor is None else self.per_class(b))
            target = b.add(target, every)
            if factor is not None:
                whole = b.add(whole, b.reduce_sum(every, axes=(0,), keepdims=True))
        scaled = shares if factor is None else b.mul(shares, whole)
        dx = b.mul(g, b.sub(scaled, target))
        if self.weights is None:
            return (dx, None, None)[: len(self.operands)]
        share = b.add(label, self.smooth(b, one)) if self.smoothing else label
        logs = b.log_softmax(as_type(b, self.x, wide), axis=self.axis)
        part = b.neg(b.mul(share, logs))
        if self.reduction == "mean":
            part = b.sub(part, b.where(hit, self.result, none))
        others = [k for k in range(self.x.tensor.rank) if k != self.axis]
        return dx, None, b.reduce_sum(b.mul(g, part), axes=tuple(others))

    def places(self, b: Builder) -> tuple[Value, Value]:
        """The labels with an axis of one class, 0 where they are ignored, and which are not."""
        shape = list(self.labels.tensor.shape)
        shape.insert(self.axis, 1)
        labels = b.reshape(as_type(b, self.labels, i64), shape=shape)
        if _holds(self.labels.tensor.dtype, self.ignored):
            counts = b.ne(labels, constant(b, labels, self.ignored))
        else:
            every = b.insert(Const(np.ones((), np.bool_))).result
            counts = b.broadcast_to(every, shape=shape)
        return b.where(counts, labels, constant(b, labels, 0)), counts

    def factor(self, b: Builder, at: Value) -> Value | None:
        """The weight of each label; None without weights."""
        if self.weights is None:
            return None
        wide = as_type(b, self.weights, compute_dtype(self.x.tensor.dtype))
        return b.take(wide, at)  # type: ignore[no-any-return]

    def per_class(self, b: Builder) -> Value:
        """The weights against x."""
        wide = as_type(b, self.weights, compute_dtype(self.x.tensor.dtype))
        behind = self.x.tensor.rank - self.axis - 1
        return b.reshape(wide, shape=(self.x.tensor.shape[self.axis], *[1] * behind))  # type: ignore[no-any-return]

    def smooth(self, b: Builder, x: Value) -> Value:
        """x times smoothing / C."""
        classes: DimLike = self.x.tensor.shape[self.axis]
        if type(classes) is int:
            return b.mul(x, constant(b, x, self.smoothing / max(classes, 1)))  # type: ignore[no-any-return]
        count = b.cast(b.emit(DimValue, dim=classes, dtype=i64), to=x.tensor.dtype)
        return b.div(b.mul(x, constant(b, x, self.smoothing)), count)  # type: ignore[no-any-return]

    def counted(self, b: Builder, factor: Value | None, counts: Value) -> Value:
        """The sum of the weights of the labels that count."""
        wide = compute_dtype(self.x.tensor.dtype)
        weight = as_type(b, counts, wide)
        if factor is not None:
            weight = b.where(counts, factor, constant(b, factor, 0.0))
        return b.reduce_sum(weight)  # type: ignore[no-any-return]

    samples: ClassVar[Any] = (
        sample((3, 5), (3,), dtypes=("f32", "i64"), ranges=((-2, 2), (0, 4))),
        sample((2, 4, 3), (2, 3), (4,), dtypes=("f32", "i32", "f32"),
               ranges=((-2, 2), (0, 3), (0.5, 2)), smoothing=0.1, reduction="mean", ignored=2),
        sample((2, 4, 3), (2, 3), dtypes=("f32", "u8"), ranges=((-80, 80), (0, 3)),
               smoothing=0.3, reduction="sum"),
        sample((6, 4), (6,), (4,), dtypes=("f64", "i64", "f64"),
               ranges=((-2, 2), (-1, 3), (0.5, 2)), ignored=-1, reduction="mean"),
        sample((2, 3, 7), (2, 3), (7,), dtypes=("f32", "i64", "f32"),
               ranges=((-2, 2), (0, 6), (0.5, 2)), axis=-1),
        sample((5,), (), dtypes=("f32", "i64"), ranges=((-2, 2), (0, 4)), axis=0),
        sample((4, 3), (4,), dtypes=("f64", "i64"), ranges=((-2, 2), (0, 2)), reduction="mean"),
        sample((3, 5), (3,), dtypes=("bf16", "i64"), ranges=((-2, 2), (0, 4)), reduction="mean"),
        sample((0, 5), (0,), dtypes=("f32", "i64")),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((3, 5), (3,), dtypes=("f32", "i64"), axis=2)),
        ("C2", sample((3, 5), (4,), dtypes=("f32", "i64"))),
        ("C2", sample((3, 5), (3, 5), dtypes=("f32", "i64"))),
        ("C3", sample((3, 5), (3,), (4,), dtypes=("f32", "i64", "f32"))),
        ("C4", sample((3, 5), (3,), dtypes=("f32", "i64"), smoothing=2.0)),
        ("C4", sample((3, 5), (3,), dtypes=("f32", "i64"), reduction="max")),
    )



def _holds(dtype: DType, value: int) -> bool:
    """Whether an integer type has this value."""
    least = -(1 << (dtype.bits - 1)) if dtype.kind == "int" else 0
    return least <= value < least + (1 << dtype.bits)


__all__ = ["REDUCTIONS", "CrossEntropy"]
