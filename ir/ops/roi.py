"""Pooling of regions of interest, and the inverse of max pooling: loops of their own.

Their windows come from data, so their bounds are bound at run time.  Imports: the core, types,
dims, the loop level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Grads, Int, Op, Plain, Value, attr, operand, sample
from ..dims import DimLike, sym
from ..types import BufferType, DType, Shape, TensorType, f32, from_numpy, i64
from .constraints import least, require, same
from .contract import as_type
from .convert import compute_dtype, lowest, round_float, widen
from .elementwise import constant
from .index import in_range
from .loop import Alloc, Bind, For, IndexValue, Load, Store
from .scatter import nest

MOST_SAMPLES = 1 << 20
"""More samples along an axis of a bin than any image has."""


class MaxUnpool(Op):
    """The elements of x at the flat positions `index` of a result of `shape`, zeros elsewhere: the
    inverse of max_pool (Zeiler 2011).

    A position out of range is a run-time error; of equal ones the last counts.  C1: x and index
    have one shape.  C2: `shape` has no negative extent.
    """

    x = operand(Plain)
    index = operand(Int)
    shape = attr(tuple)

    @staticmethod
    def infer(x: TensorType, index: TensorType, shape: Shape) -> TensorType:
        alike = x.rank == index.rank and all(
            [same(a, c) is not False for a, c in zip(x.shape, index.shape)]
        )
        require(alike, "E0316", "max_unpool (C1): x and index differ", f"x : {x}   index : {index}")
        for extent in shape:
            require(least(extent, 0), "E0316", f"max_unpool (C2): negative extent in {shape}")
        return TensorType(x.dtype, shape)

    @staticmethod
    def evaluate(x: Array, index: Array, shape: tuple[int, ...]) -> Array:
        out = np.zeros(shape, x.dtype)
        at = in_range(index, out.size, "max_unpool", 0)
        out.reshape(-1)[at.reshape(-1)] = x.reshape(-1)
        return out

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """Zeros everywhere, then one store per element."""
        x, index = inputs
        (target,) = outputs
        shape = target.buffer.shape
        inner, at = nest(b, "z", shape)
        inner.emit(Store, _zero(inner, x.buffer.dtype), target, index=at)
        inner, at = nest(b, "i", x.buffer.shape)
        value = inner.emit(Load, x, index=at)
        place = as_type(inner, inner.emit(Load, index, index=at), i64)
        total: DimLike = 1
        for extent in shape:
            total = total * extent
        inner.emit(Bind, place, symbol="p", extent=total)
        where: list[DimLike] = []
        rest: DimLike = sym("p")
        for k, extent in reversed(list(enumerate(shape))):
            where.insert(0, rest % extent if k else rest)
            rest = rest // extent
        inner.emit(Store, value, target, index=where)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """A gather; of equal positions the last was kept, as a draw of lots by number shows."""
        count: DimLike = 1
        for extent in self.x.tensor.shape:
            count = count * extent
        area: DimLike = 1
        for extent in self.shape:
            area = area * extent
        number = b.reshape(b.iota(shape=(count,)), shape=self.x.tensor.shape)
        kept = b.reshape(b.max_unpool(number, self.index, shape=self.shape), shape=(area,))
        found = b.take(b.reshape(g, shape=(area,)), self.index)
        won = b.eq(b.take(kept, self.index), number)
        return b.where(won, found, constant(b, found, 0.0)), None

    samples: ClassVar[Any] = (
        sample((1, 1, 2, 2), (1, 1, 2, 2), shape=(1, 1, 4, 5), dtypes=("f32", "i64"),
               ranges=((-2, 2), (0, 19))),
        sample((2, 3), (2, 3), shape=(2, 9), dtypes=("i8", "i32"), ranges=((-9, 9), (0, 17))),
        sample((2, 0), (2, 0), shape=(3,), dtypes=("f64", "i64")),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((2, 2), (2, 3), shape=(9,), dtypes=("f32", "i64"))),
        ("C2", sample((2, 2), (2, 2), shape=(-9,), dtypes=("f32", "i64"))),
    )


def _zero(b: Builder, dtype: DType) -> Value:
    index = b.emit(IndexValue, value=0, dtype=i64)
    return as_type(b, index, dtype)


def check_images(
    op: str, x: TensorType, rois: TensorType, columns: int, size: tuple[int, int]
) -> None:
    """C1 to C3 of both region poolings."""
    found = f"x : {x}   rois : {rois}"
    require(rois.dtype is x.dtype, "E0303", f"{op} (C1): element types differ", found)
    fits = x.rank == 4 and rois.rank == 2 and same(rois.shape[1], columns) is not False
    require(fits, "E0316", f"{op} (C2): x must be [N, C, H, W], rois [R, {columns}]", found)
    positive = len(size) == 2 and min(size) >= 1
    require(positive, "E0316", f"{op} (C3): the size is two extents of at least 1", f"found {size}")


class _RoiAlign(Op):
    """Base: the attributes of the op, its sample points, and one cotangent fewer than operands."""

    size = attr(tuple)
    scale = attr(float, 1.0)
    sampling = attr(int, 0)
    half_pixel = attr(bool, True)

    def bin(
        self, b: Builder, rois: Value, r: DimLike, axis: int, wide: DType
    ) -> tuple[Value, Value]:
        """Where the region begins along an axis of the image, and how long each bin is."""
        ends = []
        for column in (1 - axis, 3 - axis):
            end = as_type(b, b.emit(Load, rois, index=(r, column)), wide)
            end = b.mul(end, constant(b, end, self.scale))
            ends.append(b.sub(end, constant(b, end, 0.5 if self.half_pixel else 0.0)))
        span = b.sub(ends[1], ends[0])
        if not self.half_pixel:
            span = b.max(span, constant(b, span, 1.0))
        return ends[0], b.div(span, constant(b, span, self.size[axis]))

    def region(
        self, b: Builder, rois: Value, r: DimLike, wide: DType
    ) -> tuple[list[Value], list[Value], list[DimLike]]:
        """Per axis where a region begins, how long its bins are, how many samples they have."""
        found = [self.bin(b, rois, r, k, wide) for k in (0, 1)]
        counts = [self.count(b, k, found[k][1]) for k in (0, 1)]
        return [low for low, _ in found], [bin_ for _, bin_ in found], counts

    def samples_of(
        self,
        b: Builder,
        starts: Sequence[Value],
        bins: Sequence[Value],
        counts: Sequence[DimLike],
        bin_at: Sequence[DimLike],
        extents: Sequence[DimLike],
    ) -> tuple[Builder, list[list[Value]], list[list[DimLike]]]:
        """A loop over the samples of a bin: its builder, and per axis the weights and positions of
        both neighbours."""
        inner, at = nest(b, "s", counts)
        weights, places = [], []
        for k in (0, 1):
            place = self.point(inner, starts[k], bins[k], bin_at[k], at[k], counts[k])
            pairs = neighbours(inner, k, place, extents[k])
            weights.append([w for w, _ in pairs])
            places.append([n for _, n in pairs])
        return inner, weights, places

    def count(self, b: Builder, axis: int, bin_: Value) -> DimLike:
        """How many samples a bin has along an axis: a number, or a symbol bound to it."""
        if self.sampling:
            return self.sampling  # type: ignore[no-any-return]
        count = b.cast(b.ceil(bin_), to=i64)
        count = b.max(count, constant(b, count, 0))
        symbol = f"count{axis}"
        b.emit(Bind, count, symbol=symbol, extent=MOST_SAMPLES)
        return sym(symbol)

    def point(
        self, b: Builder, start: Value, bin_: Value, at: DimLike, sample_: DimLike, count: DimLike
    ) -> Value:
        """start + bin * (at + (sample + 0.5) / count)."""

        def index(value: DimLike) -> Value:
            return as_type(b, b.emit(IndexValue, value=value, dtype=i64), start.type)  # type: ignore[arg-type]

        begin = b.add(start, b.mul(index(at), bin_))
        step = b.mul(b.add(index(sample_), constant(b, start, 0.5)), bin_)
        return b.add(begin, b.div(step, index(count)))  # type: ignore[no-any-return]


class RoiAlign(_RoiAlign):
    """The mean (or `mode` "max") over samples of each bin of each region (He 2017): x [N, C, H, W],
    rois [R, 4] as x1, y1, x2, y2, batch [R] to [R, C, *size].

    Coordinates are multiplied by `scale`; with `half_pixel` less 0.5, else regions are at least 1
    wide.  A bin has `samples`^2 sample points, or ceil(region / size) per axis where that is 0;
    each is the bilinear interpolation of its neighbours, 0 beyond -1 or the extent; for "max" the
    greatest of the four products of weight and neighbour.  The regions get no cotangent: as in
    torchvision, they are where to look, not what is seen.

    C1: x and rois have one element type.  C2: the ranks above, one batch index per region.  C3:
    `size` is two extents of at least 1, `samples` is at least 0.  C4: the mode is known.
    """

    x = operand(Float)
    rois = operand(Float)
    batch = operand(Int)
    mode = attr(str, "avg")

    @staticmethod
    def infer(
        x: TensorType,
        rois: TensorType,
        batch: TensorType,
        size: tuple[int, int],
        scale: float,
        sampling: int,
        half_pixel: bool,
        mode: str,
    ) -> TensorType:
        check_images("roi_align", x, rois, 4, size)
        fits = batch.rank == 1 and same(batch.shape[0], rois.shape[0]) is not False
        require(fits, "E0316", "roi_align (C2): one batch index per region", f"{rois} and {batch}")
        require(sampling >= 0, "E0316", f"roi_align (C3): {sampling} samples")
        require(mode in ("avg", "max"), "E0316", f"roi_align (C4): unknown mode {mode}")
        return TensorType(x.dtype, (rois.shape[0], x.shape[1], *size))

    @staticmethod
    def evaluate(
        x: Array,
        rois: Array,
        batch: Array,
        size: tuple[int, int],
        scale: float,
        sampling: int,
        half_pixel: bool,
        mode: str,
    ) -> Array:
        dtype, batch = from_numpy(x.dtype), in_range(batch, x.shape[0], "roi_align", 0)
        wide = widen(x)
        out = np.zeros((len(rois), x.shape[1], *size), np.float64)
        for r, box in enumerate(rois):
            image = wide[batch[r]].astype(np.float64)
            rows, columns = sample_points(box, x.shape[2:], size, scale, sampling, half_pixel)
            for p, q in np.ndindex(*size):
                out[r, :, p, q] = _pooled(image, rows[p], columns[q], mode)
        return round_float(out, dtype)

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """Per region, bin and channel the sample points, each with four loads."""
        x, rois, batch = inputs
        (target,) = outputs
        regions, channels, *size = target.buffer.shape
        wide = f32 if x.buffer.dtype.bits < 32 else x.buffer.dtype
        b, (r,) = nest(b, "r", (regions,))
        image = as_type(b, b.emit(Load, batch, index=(r,)), i64)
        b.emit(Bind, image, symbol="image", extent=x.buffer.shape[0])
        starts, bins, counts = self.region(b, rois, r, wide)
        b, (c, p, q) = nest(b, "o", (channels, *size))
        acc = b.emit(Alloc, label="acc", type=BufferType(wide, (1,), "register"))
        first = 0.0 if self.mode == "avg" else lowest(wide)
        b.emit(Store, constant(b, bins[0], first), acc, index=(0,))
        inner, weights, places = self.samples_of(
            b, starts, bins, counts, (p, q), x.buffer.shape[2:]
        )
        total = _corner_sum(inner, x, c, weights, places, self.mode, wide)
        have = inner.emit(Load, acc, index=(0,))
        new = inner.max(have, total) if self.mode == "max" else inner.add(have, total)
        inner.emit(Store, new, acc, index=(0,))
        found = b.emit(Load, acc, index=(0,))
        number = b.emit(IndexValue, value=counts[0] * counts[1], dtype=i64)
        if self.mode == "avg":
            least_ = b.max(number, constant(b, number, 1))
            found = b.div(found, b.cast(least_, to=wide))
        else:
            some = b.gt(number, constant(b, number, 0))
            found = b.where(some, found, constant(b, found, 0.0))
        b.emit(Store, as_type(b, found, x.buffer.dtype), target, index=(r, c, p, q))

    def vjp(self, b: Builder, g: Value) -> Grads:
        """To the neighbours of each sample by their weights, or to the greatest product's."""
        places = {name: getattr(self, name) for name in ("size", "scale", "sampling", "half_pixel")}
        shape = self.x.tensor.shape
        if self.mode == "avg":
            dx = b.roi_align_grad(g, self.rois, self.batch, shape=shape, **places)
            return dx, None, None
        index, weight = b.roi_align_places(self.x, self.rois, self.batch, **places)
        return (
            to_places(b, b.mul(as_type(b, g, weight.tensor.dtype), weight), index, shape),
            None,
            None,
        )

    samples: ClassVar[Any] = (
        sample((1, 2, 6, 7), (3, 4), (3,), size=(2, 3), sampling=2, dtypes=("f32", "f32", "i64"),
               ranges=((-2, 2), (0, 6), (0, 0))),
        sample((2, 3, 5, 5), (4, 4), (4,), size=(2, 2), scale=0.5, dtypes=("f32", "f32", "i64"),
               ranges=((-2, 2), (-2, 11), (0, 1))),
        sample((2, 1, 5, 4), (3, 4), (3,), size=(2, 1), half_pixel=False, mode="max",
               dtypes=("f64", "f64", "i32"), ranges=((-2, 2), (-1, 6), (0, 1))),
        sample((1, 2, 4, 4), (0, 4), (0,), size=(1, 1), dtypes=("f32", "f32", "i64")),
        sample((1, 2, 4, 4), (2, 4), (2,), size=(2, 2), sampling=1, dtypes=("f16", "f16", "i64"),
               ranges=((-2, 2), (0, 3), (0, 0))),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((1, 2, 6, 7), (3, 4), (3,), size=(2, 3), dtypes=("f32", "f64", "i64"))),
        ("C2", sample((1, 2, 6, 7), (3, 5), (3,), size=(2, 3))),
        ("C2", sample((1, 2, 6, 7), (3, 4), (2,), size=(2, 3))),
        ("C3", sample((1, 2, 6, 7), (3, 4), (3,), size=(2, 0))),
        ("C4", sample((1, 2, 6, 7), (3, 4), (3,), size=(2, 3), mode="sum")),
    )


def sample_points(
    box: Array,
    extents: Sequence[int],
    size: Sequence[int],
    scale: float,
    sampling: int,
    half_pixel: bool,
) -> list[list[list[tuple[Any, int, int]]]]:
    """Per axis of the image and bin, the samples of a region as `_points` gives them."""
    box = widen(box)
    box = box * box.dtype.type(scale) - box.dtype.type(0.5 if half_pixel else 0)
    axes = []
    for k, extent in enumerate(extents):
        low, high = box[1 - k], box[3 - k]
        span = high - low if half_pixel else max(high - low, box.dtype.type(1))
        bin_ = span / box.dtype.type(size[k])
        count = sampling or int(np.ceil(bin_))
        axes.append([_points(low, bin_, p, count, extent) for p in range(size[k])])
    return axes


def to_places(b: Builder, g: Value, index: Value, shape: Shape) -> Value:
    """Zeros of `shape`, and each element of g added at its flat position; none where that is
    negative."""
    total: DimLike = 1
    for extent in shape:
        total = total * extent
    zero = constant(b, g, 0.0)
    inside = b.ge(index, constant(b, index, 0))
    flat = [b.where(inside, v, constant(b, v, 0)) for v in (g, index)]
    count: DimLike = 1
    for extent in g.tensor.shape:
        count = count * extent
    g, index = [b.reshape(v, shape=(count,)) for v in flat]
    found = b.scatter_elements(b.broadcast_to(zero, shape=(total,)), index, g, reduction="add")
    return b.reshape(found, shape=shape)  # type: ignore[no-any-return]


def _points(low: Any, bin_: Any, at: int, count: int, extent: int) -> list[tuple[Any, int, int]]:
    """(part, lower, upper neighbour) of each sample of a bin along an axis; part < 0: outside."""
    out = []
    kind = low.dtype.type
    for s in range(count):
        y = low + kind(at) * bin_ + (kind(s) + kind(0.5)) * bin_ / kind(count)
        if y < -1 or y > extent:
            out.append((-1.0, 0, 0))
            continue
        y = max(y, kind(0))
        lower = min(int(y), extent - 1)
        upper = min(lower + 1, extent - 1)
        out.append((float(y - kind(lower)) if upper > lower else 0.0, lower, upper))
    return out


def _pooled(image: Array, rows: Sequence[Any], columns: Sequence[Any], mode: str) -> Array:
    """One bin of all channels of an image [C, H, W]."""
    found = []
    for v, low, high in rows:
        for u, left, right in columns:
            if v < 0 or u < 0:
                found.append(np.zeros(len(image)))
                continue
            parts = [
                (1 - v) * (1 - u) * image[:, low, left], (1 - v) * u * image[:, low, right],
                v * (1 - u) * image[:, high, left], v * u * image[:, high, right],
            ]  # fmt: skip
            found.append(np.max(parts, axis=0) if mode == "max" else np.sum(parts, axis=0))
    if not found:
        return np.zeros(len(image))
    return np.asarray(np.max(found, axis=0) if mode == "max" else np.mean(found, axis=0))


def neighbours(b: Builder, axis: int, place: Value, extent: DimLike) -> list[tuple[Value, DimLike]]:
    """(weight, bound position) of the two neighbours of a place; both weights 0 where outside."""
    size = b.emit(IndexValue, value=extent, dtype=i64)
    wide = as_type(b, size, place.type)  # type: ignore[arg-type]
    zero, one = constant(b, place, 0.0), constant(b, place, 1.0)
    outside = b.logical_or(b.lt(place, constant(b, place, -1.0)), b.gt(place, wide))
    outside = b.logical_or(outside, b.ne(place, place))
    kept = b.min(b.max(b.where(outside, zero, place), zero), wide)
    last = b.sub(size, constant(b, size, 1))
    lower = b.min(b.cast(b.floor(kept), to=i64), last)
    upper = b.min(b.add(lower, constant(b, lower, 1)), last)
    part = b.sub(kept, as_type(b, lower, place.type))  # type: ignore[arg-type]
    part = b.where(b.gt(upper, lower), part, zero)
    b.emit(Bind, lower, symbol=f"low{axis}", extent=extent)
    b.emit(Bind, upper, symbol=f"high{axis}", extent=extent)
    weights = (b.where(outside, zero, b.sub(one, part)), b.where(outside, zero, part))
    return list(zip(weights, (sym(f"low{axis}"), sym(f"high{axis}"))))


def _corner_sum(
    b: Builder,
    x: Value,
    channel: DimLike,
    weights: Sequence[Sequence[Value]],
    places: Sequence[Sequence[DimLike]],
    mode: str,
    wide: DType,
) -> Value:
    """The sum, or the greatest, of the four neighbours times their weights."""
    total: Value | None = None
    for i in (0, 1):
        for j in (0, 1):
            index = (sym("image"), channel, places[0][i], places[1][j])
            value = as_type(b, b.emit(Load, x, index=index), wide)
            part = b.mul(b.mul(weights[0][i], weights[1][j]), value)
            if total is None:
                total = part
            else:
                total = b.max(total, part) if mode == "max" else b.add(total, part)
    assert total is not None
    return total


class _MaxRoiPool(Op):
    """Base: operands, attributes, and the bins of a region."""

    x = operand(Float)
    rois = operand(Float)
    size = attr(tuple)
    scale = attr(float, 1.0)

    def bin(
        self, b: Builder, rois: Value, r: DimLike, axis: int, wide: DType
    ) -> tuple[Value, Value]:
        """Where the region begins along an axis of the image, and how long each bin is."""
        ends = []
        for column in (2 - axis, 4 - axis):
            end = as_type(b, b.emit(Load, rois, index=(r, column)), wide)
            scaled = b.mul(end, constant(b, end, self.scale))
            whole = b.floor(b.add(b.abs(scaled), constant(b, end, 0.5)))
            ends.append(b.copy_sign(whole, scaled))
        one = constant(b, ends[0], 1.0)
        span = b.max(b.add(b.sub(ends[1], ends[0]), one), one)
        return ends[0], b.div(span, constant(b, span, self.size[axis]))

    def bins_of(
        self, b: Builder, x: Value, rois: Value, shape: Sequence[DimLike]
    ) -> tuple[Builder, list[tuple[DimLike, DimLike]], tuple[DimLike, ...]]:
        """Loops over regions, bins and channels: the builder inside, the (first, last) positions
        per axis, and the index of the result; the symbol `image` is bound."""
        wide = compute_dtype(x.buffer.dtype)
        regions, channels, *size = shape
        b, (r,) = nest(b, "r", (regions,))
        image = b.cast(as_type(b, b.emit(Load, rois, index=(r, 0)), wide), to=i64)
        b.emit(Bind, image, symbol="image", extent=x.buffer.shape[0])
        bins = [self.bin(b, rois, r, k, wide) for k in (0, 1)]
        b, (p, q) = nest(b, "b", size)
        edges = [_edges(b, k, *bins[k], at, x.buffer.shape[2 + k]) for k, at in enumerate((p, q))]
        b, (c,) = nest(b, "c", (channels,))
        return b, edges, (r, c, p, q)


def cuts(
    shape: Sequence[int], rois: Array, size: Sequence[int], scale: float
) -> Iterator[tuple[Any, ...]]:
    """(region, row, column, image, slice of rows, slice of columns) of each bin of `max_roi_pool`
    over x of `shape`."""
    boxes = widen(rois)
    batch = in_range(boxes[:, 0].astype(np.int64), shape[0], "max_roi_pool", 0)
    kind = boxes.dtype.type
    scaled = boxes[:, 1:] * kind(scale)
    ends = np.copysign(np.floor(np.abs(scaled) + kind(0.5)), scaled)
    for r, p, q in np.ndindex(len(rois), *size):
        cut = []
        for k, at in enumerate((p, q)):
            low = ends[r, 1 - k]
            bin_ = max(ends[r, 3 - k] - low + kind(1), kind(1)) / kind(size[k])
            edges = np.floor(kind(at) * bin_) + low, np.ceil(kind(at + 1) * bin_) + low
            first, last = [int(np.clip(e, 0, shape[2 + k])) for e in edges]
            cut.append(slice(first, last))
        yield (r, p, q, batch[r], *cut)


class MaxRoiPool(_MaxRoiPool):
    """The greatest element of each bin of each region (Girshick 2015): x [N, C, H, W], rois [R, 5]
    as batch, x1, y1, x2, y2, to [R, C, *size].

    Coordinates times `scale` are rounded, halves away from zero, and both ends belong to the
    region, which is at least 1 wide; a bin outside the image gives 0.

    C1: x and rois have one element type.  C2: the ranks above.  C3: `size` is two extents of at
    least 1.
    """

    @staticmethod
    def infer(x: TensorType, rois: TensorType, size: tuple[int, int], scale: float) -> TensorType:
        check_images("max_roi_pool", x, rois, 5, size)
        return TensorType(x.dtype, (rois.shape[0], x.shape[1], *size))

    @staticmethod
    def evaluate(x: Array, rois: Array, size: tuple[int, int], scale: float) -> Array:
        wide = widen(x)
        out = np.zeros((len(rois), x.shape[1], *size), wide.dtype)
        for r, p, q, image, *cut in cuts(x.shape, rois, size, scale):
            part = wide[image][(slice(None), *cut)]
            if part.shape[1] and part.shape[2]:
                out[r, :, p, q] = part.max(axis=(1, 2))
        return out.astype(x.dtype)

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """Per region, bin and channel, a loop over the elements of the bin."""
        x, rois = inputs
        (target,) = outputs
        dtype = x.buffer.dtype
        b, edges, (r, c, p, q) = self.bins_of(b, x, rois, target.buffer.shape)
        acc = b.emit(Alloc, label="acc", type=BufferType(dtype, (1,), "register"))
        b.emit(Store, scalar(b, dtype, lowest(dtype)), acc, index=(0,))
        inner, at = b, []
        for k, (low, high) in enumerate(edges):
            inner = inner.at(inner.insert(For.make(f"e{k}", high - low)).body)
            at.append(low + sym(f"e{k}"))
        value = inner.emit(Load, x, index=(sym("image"), c, *at))
        inner.emit(Store, inner.max(inner.emit(Load, acc, index=(0,)), value), acc, index=(0,))
        area = (edges[0][1] - edges[0][0]) * (edges[1][1] - edges[1][0])
        number = b.emit(IndexValue, value=area, dtype=i64)
        some = b.gt(number, constant(b, number, 0))
        found = b.where(some, b.emit(Load, acc, index=(0,)), scalar(b, dtype, 0.0))
        b.emit(Store, found, target, index=(r, c, p, q))

    def vjp(self, b: Builder, g: Value) -> Grads:
        """To the first of the greatest elements of each bin; the regions get none."""
        index = b.max_roi_pool_places(self.x, self.rois, size=self.size, scale=self.scale)
        wide = as_type(b, g, compute_dtype(self.x.tensor.dtype))
        return to_places(b, wide, index, self.x.tensor.shape), None

    samples: ClassVar[Any] = (
        sample((1, 2, 6, 7), (3, 5), size=(2, 3), ranges=((-2, 2), (0, 0.9))),
        sample((2, 3, 5, 5), (4, 5), size=(2, 2), scale=5.0, ranges=((-2, 2), (0, 1.7))),
        sample((2, 1, 5, 4), (3, 5), size=(3, 1), scale=-3.0, dtypes=("f64", "f64"),
               ranges=((-2, 2), (0, 0.9))),
        sample((1, 2, 4, 4), (0, 5), size=(1, 1)),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((1, 2, 6, 7), (3, 5), size=(2, 3), dtypes=("f32", "f64"))),
        ("C2", sample((1, 2, 6, 7), (3, 4), size=(2, 3))),
        ("C3", sample((1, 2, 6, 7), (3, 5), size=(2,))),
    )


def scalar(b: Builder, dtype: DType, value: float) -> Value:
    return constant(b, _zero(b, dtype), value)


def _edges(
    b: Builder, axis: int, start: Value, bin_: Value, at: DimLike, extent: DimLike
) -> tuple[DimLike, DimLike]:
    """The first position of bin `at` and the one behind its last, within the extent, bound."""
    size = as_type(b, b.emit(IndexValue, value=extent, dtype=i64), start.type)  # type: ignore[arg-type]
    found = []
    for name, place, rounding in (("from", at, b.floor), ("to", at + 1, b.ceil)):
        index = as_type(b, b.emit(IndexValue, value=place, dtype=i64), start.type)  # type: ignore[arg-type]
        edge = b.add(rounding(b.mul(index, bin_)), start)
        kept = b.min(b.max(edge, constant(b, edge, 0.0)), size)
        b.emit(Bind, b.cast(kept, to=i64), symbol=f"{name}{axis}", extent=extent + 1)
        found.append(sym(f"{name}{axis}"))
    return found[0], found[1]


__all__ = ["MaxRoiPool", "MaxUnpool", "RoiAlign"]
