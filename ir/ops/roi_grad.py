"""The gradients of region pooling: `roi_align_grad`, and the positions that a maximum came from.

Means give back to the neighbours of each sample; of maxima the positions are found again, and what
they get is a scatter like any other.  Imports: the region pools, the core, types, the loop level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Grads, Int, Value, attr, operand, sample
from ..dims import DimLike, sym
from ..types import BufferType, Shape, TensorType, i64
from .constraints import require, same
from .contract import as_type
from .convert import compute_dtype, lowest, widen
from .elementwise import constant
from .index import in_range
from .loop import Alloc, Bind, For, IndexValue, Load, Store
from .roi import _MaxRoiPool, _RoiAlign, check_images, cuts, sample_points, scalar
from .scatter import nest


def _corners(at: tuple[Any, int, int]) -> list[tuple[float, int]]:
    """(weight, position) of the two neighbours of a sample; weights 0 where it is outside."""
    part, low, high = at
    return [(1 - part, low), (part, high)] if part >= 0 else [(0.0, low), (0.0, high)]


class RoiAlignGrad(_RoiAlign):
    """The cotangent of the images x of `shape` for that of roi_align's means, g [R, C, *size]; in
    f32 for narrower g.

    C1: g and rois have one element type.  C2: g, rois and batch have the shapes of the pooling.
    """

    g = operand(Float)
    rois = operand(Float)
    batch = operand(Int)
    shape = attr(tuple)

    @staticmethod
    def infer(
        g: TensorType,
        rois: TensorType,
        batch: TensorType,
        size: tuple[int, int],
        shape: Shape,
        **attrs: Any,
    ) -> TensorType:
        found = f"g : {g}   rois : {rois}   batch : {batch}   shape {shape}"
        require(g.dtype is rois.dtype, "E0303", "roi_align_grad (C1): element types differ", found)
        fits = len(shape) == g.rank == 4 and rois.rank == 2 and batch.rank == 1
        if fits:
            want = (rois.shape[0], shape[1], *size, 4, rois.shape[0])
            have = (*g.shape, rois.shape[1], batch.shape[0])
            fits = all([same(a, e) is not False for a, e in zip(have, want)])
        require(fits, "E0316", "roi_align_grad (C2): the shapes do not fit together", found)
        return TensorType(compute_dtype(g.dtype), shape)

    @staticmethod
    def evaluate(
        g: Array,
        rois: Array,
        batch: Array,
        size: tuple[int, int],
        shape: tuple[int, ...],
        scale: float,
        sampling: int,
        half_pixel: bool,
    ) -> Array:
        images = in_range(batch, shape[0], "roi_align_grad", 0)
        wide = widen(g)
        out = np.zeros(shape, np.float64)
        for r, box in enumerate(rois):
            rows, columns = sample_points(box, shape[2:], size, scale, sampling, half_pixel)
            for p, q in np.ndindex(*size):
                share = wide[r, :, p, q] / max(len(rows[p]) * len(columns[q]), 1)
                for row in rows[p]:
                    for column in columns[q]:
                        if row[0] < 0 or column[0] < 0:
                            continue
                        for v, y in _corners(row):
                            for u, x in _corners(column):
                                out[images[r], :, y, x] += v * u * share
        return out.astype(wide.dtype)

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """Zeros; then per region, channel and bin its samples, each adding to four neighbours."""
        g, rois, batch = inputs
        (target,) = outputs
        wide = target.buffer.dtype
        inner, at = nest(b, "z", target.buffer.shape)
        inner.emit(Store, scalar(inner, wide, 0.0), target, index=at)
        b, (r,) = nest(b, "r", (g.buffer.shape[0],))
        image = as_type(b, b.emit(Load, batch, index=(r,)), i64)
        b.emit(Bind, image, symbol="image", extent=target.buffer.shape[0])
        starts, bins, counts = self.region(b, rois, r, wide)
        b, (c, p, q) = nest(b, "o", g.buffer.shape[1:])
        share = as_type(b, b.emit(Load, g, index=(r, c, p, q)), wide)
        number = b.emit(IndexValue, value=counts[0] * counts[1], dtype=i64)
        share = b.div(share, b.cast(b.max(number, constant(b, number, 1)), to=wide))
        b, weights, places = self.samples_of(b, starts, bins, counts, (p, q), self.shape[2:])
        for i in (0, 1):
            for j in (0, 1):
                index = (sym("image"), c, places[0][i], places[1][j])
                part = b.mul(b.mul(weights[0][i], weights[1][j]), share)
                b.emit(Store, b.add(b.emit(Load, target, index=index), part), target, index=index)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Linear in g; its adjoint is the pooling."""
        places = {name: getattr(self, name) for name in ("size", "scale", "sampling", "half_pixel")}
        images = as_type(b, g, self.rois.tensor.dtype)
        return b.roi_align(images, self.rois, self.batch, **places), None, None

    samples: ClassVar[Any] = (
        sample((3, 2, 2, 3), (3, 4), (3,), shape=(1, 2, 6, 7), size=(2, 3), sampling=2,
               dtypes=("f32", "f32", "i64"), ranges=((-2, 2), (0, 6), (0, 0))),
        sample((4, 3, 2, 2), (4, 4), (4,), shape=(2, 3, 5, 5), size=(2, 2), scale=0.5,
               dtypes=("f64", "f64", "i64"), ranges=((-2, 2), (-2, 11), (0, 1))),
        sample((2, 1, 2, 1), (2, 4), (2,), shape=(2, 1, 5, 4), size=(2, 1), half_pixel=False,
               dtypes=("f16", "f16", "i32"), ranges=((-2, 2), (-1, 6), (0, 1))),
        sample((0, 2, 1, 1), (0, 4), (0,), shape=(1, 2, 4, 4), size=(1, 1),
               dtypes=("f32", "f32", "i64")),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((3, 2, 2, 3), (3, 4), (3,), shape=(1, 2, 6, 7), size=(2, 3),
                      dtypes=("f32", "f64", "i64"))),
        ("C2", sample((3, 2, 2, 2), (3, 4), (3,), shape=(1, 2, 6, 7), size=(2, 3))),
    )  # fmt: skip


class RoiAlignPlaces(_RoiAlign):
    """(index, weight) of the first greatest product of weight and neighbour in each bin of
    roi_align's maxima over x: flat positions in x and factors, both [R, C, *size]; (-1, 0) where a
    bin has no sample.  Weights are f32 for narrower x.

    C1: x and rois have one element type.  C2: the ranks are those of the pooling.  C3: `size` is
    two extents of at least 1.
    """

    no_gradient: ClassVar[str] = "piecewise constant"
    x = operand(Float)
    rois = operand(Float)
    batch = operand(Int)

    @staticmethod
    def infer(
        x: TensorType, rois: TensorType, batch: TensorType, size: tuple[int, int], **attrs: Any
    ) -> tuple[TensorType, TensorType]:
        check_images("roi_align_places", x, rois, 4, size)
        shape = (rois.shape[0], x.shape[1], *size)
        return TensorType(i64, shape), TensorType(compute_dtype(x.dtype), shape)

    @staticmethod
    def evaluate(
        x: Array,
        rois: Array,
        batch: Array,
        size: tuple[int, int],
        scale: float,
        sampling: int,
        half_pixel: bool,
    ) -> tuple[Array, Array]:
        images = in_range(batch, x.shape[0], "roi_align_places", 0)
        wide = widen(x)
        shape = (len(rois), x.shape[1], *size)
        index, weight = np.full(shape, -1, np.int64), np.zeros(shape, wide.dtype)
        for r, box in enumerate(rois):
            rows, columns = sample_points(box, x.shape[2:], size, scale, sampling, half_pixel)
            for c, p, q in np.ndindex(*shape[1:]):
                best = -math.inf
                for row in rows[p]:
                    for column in columns[q]:
                        outside = row[0] < 0 or column[0] < 0
                        for v, y in _corners(row):
                            for u, z in _corners(column):
                                factor = 0.0 if outside else v * u
                                product = factor * float(wide[images[r], c, y, z])
                                if product > best:
                                    flat = (int(images[r]), c, y, z)
                                    best = product
                                    index[r, c, p, q] = np.ravel_multi_index(flat, x.shape)
                                    weight[r, c, p, q] = factor
        return index, weight

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """The maximum's loops, which remember where and how much."""
        x, rois, batch = inputs
        wide = outputs[1].buffer.dtype
        b, (r,) = nest(b, "r", (rois.buffer.shape[0],))
        image = as_type(b, b.emit(Load, batch, index=(r,)), i64)
        b.emit(Bind, image, symbol="image", extent=x.buffer.shape[0])
        starts, bins, counts = self.region(b, rois, r, wide)
        b, (c, p, q) = nest(b, "o", outputs[0].buffer.shape[1:])
        starting = (scalar(b, wide, lowest(wide)), scalar(b, i64, -1), scalar(b, wide, 0.0))
        best = _registers(b, starting)
        inner, weights, places = self.samples_of(
            b, starts, bins, counts, (p, q), x.buffer.shape[2:]
        )
        for i in (0, 1):
            for j in (0, 1):
                at = (sym("image"), c, places[0][i], places[1][j])
                factor = inner.mul(weights[0][i], weights[1][j])
                product = inner.mul(factor, as_type(inner, inner.emit(Load, x, index=at), wide))
                position = inner.emit(IndexValue, value=_flat(at, x.buffer.shape), dtype=i64)
                _keep_greater(inner, best, (product, position, factor))
        for register, target in zip(best[1:], outputs):
            b.emit(Store, b.emit(Load, register, index=(0,)), target, index=(r, c, p, q))

    samples: ClassVar[Any] = (
        sample((2, 1, 5, 4), (3, 4), (3,), size=(2, 1), sampling=2,
               dtypes=("f64", "f64", "i32"), ranges=((-2, 2), (-1, 6), (0, 1))),
        sample((2, 2, 5, 5), (4, 4), (4,), size=(2, 2), scale=0.5, half_pixel=False,
               dtypes=("f64", "f64", "i64"), ranges=((-2, 2), (-2, 11), (0, 1))),
        sample((1, 2, 4, 4), (0, 4), (0,), size=(1, 1), dtypes=("f32", "f32", "i64")),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((1, 2, 6, 7), (3, 4), (3,), size=(2, 3), dtypes=("f32", "f64", "i64"))),
        ("C2", sample((1, 2, 6, 7), (3, 5), (3,), size=(2, 3))),
        ("C3", sample((1, 2, 6, 7), (3, 4), (3,), size=(2, 0))),
    )


class MaxRoiPoolPlaces(_MaxRoiPool):
    """The flat position in x of the first greatest element of each bin of max_roi_pool, -1 where a
    bin has none: i64[R, C, *size].

    C1: x and rois have one element type.  C2: the ranks are those of the pooling.  C3: `size` is
    two extents of at least 1.
    """

    no_gradient: ClassVar[str] = "integer result"

    @staticmethod
    def infer(x: TensorType, rois: TensorType, size: tuple[int, int], scale: float) -> TensorType:
        check_images("max_roi_pool_places", x, rois, 5, size)
        return TensorType(i64, (rois.shape[0], x.shape[1], *size))

    @staticmethod
    def evaluate(x: Array, rois: Array, size: tuple[int, int], scale: float) -> Array:
        wide, channels = widen(x), np.arange(x.shape[1])
        out = np.full((len(rois), x.shape[1], *size), -1, np.int64)
        for r, p, q, image, *cut in cuts(x.shape, rois, size, scale):
            part = wide[image][(slice(None), *cut)]
            if part.shape[1] and part.shape[2]:
                row, column = np.divmod(part.reshape(len(part), -1).argmax(1), part.shape[2])
                at = (image, channels, cut[0].start + row, cut[1].start + column)
                out[r, :, p, q] = np.ravel_multi_index(np.broadcast_arrays(*at), x.shape)
        return out

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """The maximum's loops, which remember where."""
        x, rois = inputs
        b, edges, place = self.bins_of(b, x, rois, outputs[0].buffer.shape)
        dtype = x.buffer.dtype
        best = _registers(b, (scalar(b, dtype, lowest(dtype)), scalar(b, i64, -1)))
        inner, at = b, []
        for k, (low, high) in enumerate(edges):
            inner = inner.at(inner.insert(For.make(f"e{k}", high - low)).body)
            at.append(low + sym(f"e{k}"))
        index = (sym("image"), place[1], *at)
        position = inner.emit(IndexValue, value=_flat(index, x.buffer.shape), dtype=i64)
        _keep_greater(inner, best, (inner.emit(Load, x, index=index), position))
        b.emit(Store, b.emit(Load, best[1], index=(0,)), outputs[0], index=place)

    samples: ClassVar[Any] = (
        sample((1, 2, 6, 7), (3, 5), size=(2, 3), ranges=((-2, 2), (0, 0.9))),
        sample((2, 3, 5, 5), (4, 5), size=(2, 2), scale=5.0, ranges=((-2, 2), (0, 1.7))),
        sample((1, 2, 4, 4), (0, 5), size=(1, 1)),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((1, 2, 6, 7), (3, 5), size=(2, 3), dtypes=("f32", "f64"))),
        ("C2", sample((1, 2, 6, 7), (3, 4), size=(2, 3))),
        ("C3", sample((1, 2, 6, 7), (3, 5), size=(2,))),
    )


def _flat(index: Sequence[DimLike], shape: Sequence[DimLike]) -> DimLike:
    """A row-major position."""
    at: DimLike = 0
    for place, extent in zip(index, shape, strict=True):
        at = at * extent + place
    return at


def _registers(b: Builder, values: Sequence[Value]) -> list[Value]:
    """One register for each value, which holds it."""
    made = []
    for k, value in enumerate(values):
        type_ = BufferType(value.type, (1,), "register")  # type: ignore[arg-type]
        made.append(b.emit(Alloc, label=f"best{k}", type=type_))
        b.emit(Store, value, made[-1], index=(0,))
    return made


def _keep_greater(b: Builder, registers: Sequence[Value], values: Sequence[Value]) -> None:
    """Where the first of `values` is greater than the first register, all are kept."""
    have = [b.emit(Load, register, index=(0,)) for register in registers]
    greater = b.gt(values[0], have[0])
    for register, old, new in zip(registers, have, values, strict=True):
        b.emit(Store, b.where(greater, new, old), register, index=(0,))


__all__ = ["MaxRoiPoolPlaces", "RoiAlignGrad", "RoiAlignPlaces"]
