"""Sampling images at computed points: `sample_points`, `grid_sample`, deformable convolution.

Imports: the core, types, dims, contractions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import (
    Any_,
    Array,
    Builder,
    Float,
    Grads,
    Op,
    Value,
    attr,
    operand,
    optional,
    sample,
    variadic,
)
from ..dims import DimLike, sym
from ..types import DType, Shape, TensorType, from_numpy, i64
from .constraints import require, same
from .contract import as_type
from .convert import compute_dtype, round_float, widen
from .core import Const, generic, indices, iterators
from .elementwise import constant
from .index import in_range
from .points_grad import of_weights
from .shape import DimValue
from .window import Window, window, windows_of

MODES = ("linear", "nearest", "cubic")
PADDINGS = ("zeros", "border", "reflection")
CUBIC = -0.75
TAPS = {"nearest": 1, "linear": 2, "cubic": 4}


class SamplePoints(Op):
    """Weighted sums of elements of images x [N, C, *S] at points [N, *P]: [N, C, *P].

    `tables` has, for each spatial axis, `taps` i64 tensors of positions [N, *P], then, for each
    axis, `taps` tensors of weights [N, *P].  The result is the sum over all combinations of taps of
    the product of their weights and x there.  A position outside x is a run-time error.  f8, f16
    and bf16 compute in f32.

    C1: x has batch, channels and a spatial axis.  C2: there are 2 * taps tables per spatial axis,
    positions i64 and weights of x's compute type, all of one shape [N, *P].
    """

    x = operand(Float)
    tables = variadic(Any_)
    taps = attr(int)

    @staticmethod
    def infer(x: TensorType, *tables: TensorType, taps: int) -> TensorType:
        rank = x.rank - 2
        require(rank >= 1, "E0316", "sample_points (C1): x must be [N, C, ...]", f"found {x}")
        wide = compute_dtype(x.dtype)
        half = rank * taps
        fits = taps >= 1 and len(tables) == 2 * half
        fits = fits and all([t.dtype is (i64 if k < half else wide) for k, t in enumerate(tables)])
        shapes = [tables[0].shape, *[t.shape for t in tables]] if fits else []
        for shape in shapes:
            alike = [same(a, e) is not False for a, e in zip(shape, shapes[0])]
            fits = fits and len(shape) == len(shapes[0]) >= 1 and all(alike)
            fits = fits and same(shape[0], x.shape[0]) is not False
        require(
            fits,
            "E0316",
            f"sample_points (C2): {rank * taps} i64 positions and weights of {wide} are needed",
            f"x : {x}   tables {', '.join(map(str, tables))}",
        )
        return TensorType(x.dtype, (*x.shape[:2], *tables[0].shape[1:]))

    @staticmethod
    def evaluate(x: Array, *tables: Array, taps: int) -> Array:
        rank, wide = x.ndim - 2, widen(x)
        batch = np.arange(x.shape[0]).reshape(-1, *[1] * (tables[0].ndim - 1))
        for k in range(rank * taps):
            in_range(tables[k], x.shape[2 + k // taps], "sample_points", 0)
        moved = np.moveaxis(wide, 1, -1)
        total: Array = np.zeros((), wide.dtype)
        for chosen in np.ndindex(*[taps] * rank):
            at = [k * taps + t for k, t in enumerate(chosen)]
            part = moved[(batch, *[tables[a] for a in at])]
            for a in at:
                part = part * tables[rank * taps + a][..., None]
            total = total + part
        return round_float(np.ascontiguousarray(np.moveaxis(total, -1, 1)), from_numpy(x.dtype))

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the result; x is read where the positions say."""
        x, *tables = xs
        out = self.result.tensor
        rank, taps = x.tensor.rank - 2, self.taps
        half = rank * taps
        its = iterators("i", out.shape)
        at = indices(its)
        point = [at[0], *at[2:]]
        reads = list(np.ndindex(*[taps] * rank))
        maps: list[Sequence[DimLike]] = [point] * len(tables)
        for chosen in reads:
            places = [sym(f"_v{k * taps + t}") for k, t in enumerate(chosen)]
            maps.append([at[0], at[1], *places])
        wide = compute_dtype(x.tensor.dtype)

        def body(b: Builder, *values: Value) -> Value:
            weights = values[half : 2 * half]
            parts = [as_type(b, v, wide) for v in values[2 * half :]]
            for k in reversed(range(rank)):
                row = weights[k * taps : (k + 1) * taps]
                parts = [_dot(b, parts[g : g + taps], row) for g in range(0, len(parts), taps)]
            return as_type(b, parts[0], x.tensor.dtype)

        return generic(b, [*tables, *[x] * len(reads)], its, maps, [at], [out], body)  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Scattered back to the images; for each weight a sum over the channels."""
        wide = compute_dtype(self.x.tensor.dtype)
        g, x, shape = as_type(b, g, wide), as_type(b, self.x, wide), self.x.tensor.shape[2:]
        dx = b.scatter_points(g, *self.tables, taps=self.taps, shape=shape)
        return dx, *of_weights(b, x, g, self.tables, self.taps)

    samples: ClassVar[Any] = (
        sample((2, 3, 4, 5), *[(2, 6)] * 8, taps=2, dtypes=("f32", *["i64"] * 4, *["f32"] * 4),
               ranges=((-2, 2), *[(0, 3)] * 2, *[(0, 4)] * 2, *[(-1, 1)] * 4)),
        sample((1, 2, 7), (1, 3, 2), (1, 3, 2), taps=1, dtypes=("f16", "i64", "f32"),
               ranges=((-2, 2), (0, 6), (-1, 1))),
        sample((1, 2, 7), (1, 0), (1, 0), taps=1, dtypes=("f64", "i64", "f64")),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((2, 3), taps=1)),
        ("C2", sample((2, 3, 4), (2, 5), taps=1, dtypes=("f32", "i64"))),
        ("C2", sample((2, 3, 4), (2, 5), (2, 6), taps=1, dtypes=("f32", "i64", "f32"))),
        ("C2", sample((2, 3, 4), (2, 5), (2, 5), taps=1, dtypes=("f32", "i32", "f32"))),
    )


def _dot(b: Builder, parts: Sequence[Value], weights: Sequence[Value]) -> Value:
    total = b.mul(parts[0], weights[0])
    for part, weight in zip(parts[1:], weights[1:]):
        total = b.add(total, b.mul(part, weight))
    return total  # type: ignore[no-any-return]


class GridSample(Op):
    """Images x [N, C, *S] sampled at points grid [N, *P, K], K spatial axes, the last of S first
    (Jaderberg 2015): [N, C, *P].

    -1 and 1 are the outer edges of the image or, with `align_corners`, the centres of its first and
    last elements.  `mode` is linear, nearest (halves to even) or cubic (Keys 1981, a = -0.75);
    `padding` says what lies outside: zeros, the border, or a reflection at the edges.

    C1: x has batch, channels and a spatial axis.  C2: grid is [N, ..., K].  C3: both have one
    element type.  C4: known mode and padding.
    """

    x = operand(Float)
    grid = operand(Float)
    mode = attr(str, "linear")
    padding = attr(str, "zeros")
    align_corners = attr(bool, False)

    @staticmethod
    def infer(
        x: TensorType, grid: TensorType, mode: str, padding: str, align_corners: bool
    ) -> TensorType:
        found = f"x : {x}   grid : {grid}"
        require(x.rank >= 3, "E0316", "grid_sample (C1): x must be [N, C, ...]", found)
        fits = grid.rank >= 2 and same(grid.shape[-1], x.rank - 2) is not False
        fits = fits and same(grid.shape[0], x.shape[0]) is not False
        require(fits, "E0316", f"grid_sample (C2): grid must be [N, ..., {x.rank - 2}]", found)
        require(x.dtype is grid.dtype, "E0303", "grid_sample (C3): element types differ", found)
        known = mode in MODES and padding in PADDINGS
        require(known, "E0316", "grid_sample (C4): unknown mode or padding", f"{mode}, {padding}")
        return TensorType(x.dtype, (*x.shape[:2], *grid.shape[1:-1]))

    @staticmethod
    def evaluate(x: Array, grid: Array, mode: str, padding: str, align_corners: bool) -> Array:
        wide, axes = widen(grid), []
        for k, extent in enumerate(x.shape[2:]):
            at = _denormalised(wide[..., x.ndim - 3 - k], extent, align_corners)
            at = np.rint(at) if mode == "nearest" else at
            axes.append(_numpy_taps(at, extent, mode, padding, align_corners))
        places = [p for row, _ in axes for p in row]
        weights = [w.astype(widen(x).dtype) for _, row in axes for w in row]
        return SamplePoints.evaluate(x, *places, *weights, taps=TAPS[mode])

    def decompose(self, b: Builder) -> Value:
        """Positions and weights of each axis, then `sample_points`."""
        rank = self.x.tensor.rank - 2
        dtype = compute_dtype(self.x.tensor.dtype)
        grid = as_type(b, self.grid, dtype)
        dims = grid.tensor.shape
        places: list[Value] = []
        weights: list[Value] = []
        for k in range(rank):
            starts = (*[0] * (len(dims) - 1), rank - 1 - k)
            part = b.slice(grid, starts=starts, sizes=(*dims[:-1], 1))
            axis = _Place(b, self.x.tensor.shape[2 + k], dtype, self.padding, self.align_corners)
            at = axis.denormalised(b.reshape(part, shape=dims[:-1]))
            found, share = axis.taps(at, self.mode)
            places += found
            weights += share
        return b.sample_points(self.x, *places, *weights, taps=TAPS[self.mode])  # type: ignore[no-any-return]

    samples: ClassVar[Any] = (
        sample((2, 3, 4, 5), (2, 3, 6, 2)),
        sample((2, 3, 4, 5), (2, 3, 6, 2), padding="reflection", align_corners=True),
        sample((2, 3, 4, 5), (2, 3, 6, 2), padding="reflection"),
        sample((2, 3, 4, 5), (2, 3, 6, 2), mode="nearest", align_corners=True),
        sample((2, 3, 4, 5), (2, 3, 6, 2), mode="nearest", padding="reflection"),
        sample((2, 3, 4, 5), (2, 3, 6, 2), mode="cubic"),
        sample((1, 2, 4, 5), (1, 3, 6, 2), mode="cubic", padding="border", align_corners=True),
        sample((1, 2, 4, 5), (1, 6, 2), mode="cubic", padding="reflection"),
        sample((1, 2, 4, 5), (1, 6, 2), mode="cubic", padding="reflection", align_corners=True),
        sample((1, 2, 3, 4, 2), (1, 2, 3, 2, 3)),
        sample((1, 2, 7), (1, 5, 1), padding="border"),
        sample((1, 2, 1, 4), (1, 5, 2), padding="reflection", align_corners=True),
        sample((1, 2, 4, 4), (1, 0, 2)),
        sample((1, 2, 4, 4), (1, 5, 2), ranges=((-2, 2), (-1e6, 1e6))),
        sample((1, 2, 4, 4), (1, 5, 2), dtypes=("f64", "f64")),
        sample((1, 2, 4, 4), (1, 5, 2), dtypes=("f16", "f16")),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((2, 3), (2, 4, 1))),
        ("C2", sample((2, 3, 4, 5), (2, 3, 6, 3))),
        ("C3", sample((2, 3, 4, 5), (2, 3, 6, 2), dtypes=("f32", "f64"))),
        ("C4", sample((2, 3, 4, 5), (2, 3, 6, 2), mode="bilinear")),
        ("C4", sample((2, 3, 4, 5), (2, 3, 6, 2), padding="wrap")),
    )


def _denormalised(at: Array, extent: int, align: bool) -> Array:
    kind = at.dtype.type
    if align:
        return (at + kind(1)) * kind(0.5) * kind(extent - 1)  # type: ignore[no-any-return]
    return ((at + kind(1)) * kind(extent) - kind(1)) * kind(0.5)  # type: ignore[no-any-return]


def _numpy_taps(
    at: Array, extent: int, mode: str, padding: str, align: bool
) -> tuple[list[Array], list[Array]]:
    """Positions inside the extent, and weights, of the neighbours of each place."""
    low, span = (0.0, extent - 1.0) if align else (-0.5, float(extent))
    if padding == "border":
        at = np.clip(at, 0, extent - 1)
    elif padding == "reflection":
        part = np.mod(at - at.dtype.type(low), at.dtype.type(2 * span)) if span else at * 0
        at = at.dtype.type(low) + np.where(part > span, 2 * span - part, part)
    at = np.clip(at, -3, extent + 2)
    first = np.floor(at)
    part = at - first
    base = first.astype(np.int64) - (1 if mode == "cubic" else 0)
    if mode == "nearest":
        shares = [np.ones_like(at)]
    elif mode == "linear":
        shares = [1 - part, part]
    else:
        shares = [_keys(part + 1), _keys(part), _keys(1 - part), _keys(2 - part)]
    places, weights = [], []
    for tap, share in enumerate(shares):
        place = base + tap
        if padding == "reflection":
            period = 2 * (extent - 1) if align else 2 * extent
            turned = place % max(period, 1)
            place = np.minimum(turned, (period if align else period - 1) - turned)
        kept = np.clip(place, 0, extent - 1)
        places.append(kept)
        weights.append(np.where(kept == place, share, 0) if padding == "zeros" else share)
    return places, weights


def _keys(d: Array) -> Array:
    """Keys's cubic kernel at a distance from 0 to 2."""
    near = ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1
    far = ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC
    return np.where(d <= 1, near, far)


class _Place:
    """One spatial axis as IR: its extent in both kinds of numbers, and what lies outside of it."""

    def __init__(
        self, b: Builder, extent: DimLike, dtype: DType, padding: str, align: bool
    ) -> None:
        self.b, self.padding, self.align = b, padding, align
        self.known = extent if type(extent) is int else None
        self.size = b.emit(DimValue, dim=extent, dtype=i64)
        self.wide = as_type(b, self.size, dtype)

    def denormalised(self, at: Value) -> Value:
        """Positions in elements, from -1 to 1 over the axis."""
        b = self.b
        one, half = constant(b, at, 1.0), constant(b, at, 0.5)
        if self.align:
            return b.mul(b.mul(b.add(at, one), half), b.sub(self.wide, one))  # type: ignore[no-any-return]
        return b.mul(b.sub(b.mul(b.add(at, one), self.wide), one), half)  # type: ignore[no-any-return]

    def moved(self, at: Value) -> Value:
        """Positions brought inside, as the padding says; far outside, near outside."""
        b = self.b
        one = constant(b, at, 1.0)
        if self.padding == "border":
            at = b.max(b.min(at, b.sub(self.wide, one)), constant(b, at, 0.0))
        elif self.padding == "reflection":
            low = constant(b, at, 0.0 if self.align else -0.5)
            span = b.sub(self.wide, one) if self.align else self.wide
            twice = b.add(span, span)
            if self.align and self.known == 1:
                at = b.mul(at, low)
            else:
                part = b.mod(b.sub(at, low), twice)
                at = b.add(low, b.where(b.gt(part, span), b.sub(twice, part), part))
        edge = b.add(self.wide, constant(b, at, 2.0))
        return b.max(b.min(at, edge), constant(b, at, -3.0))  # type: ignore[no-any-return]

    def taps(self, at: Value, mode: str) -> tuple[list[Value], list[Value]]:
        """Positions inside the extent, and weights, of the neighbours of each place."""
        b = self.b
        if mode == "nearest":
            at = b.round_even(at)
        at = self.moved(at)
        first = b.floor(at)
        part, one = b.sub(at, first), constant(b, at, 1.0)
        base = b.cast(first, to=i64)
        if mode == "nearest":
            shares = [b.broadcast_to(one, shape=at.tensor.shape)]
        elif mode == "linear":
            shares = [b.sub(one, part), part]
        else:
            base = b.sub(base, constant(b, base, 1))
            rest = b.sub(one, part)
            shares = [
                _far(b, b.add(part, one)), _near(b, part), _near(b, rest), _far(b, b.add(rest, one))
            ]  # fmt: skip
        places, weights = [], []
        for tap, share in enumerate(shares):
            place, kept = self.inside(b.add(base, constant(b, base, tap)))
            places.append(kept)
            if self.padding == "zeros":
                share = b.where(b.eq(place, kept), share, constant(b, share, 0.0))
            weights.append(share)
        return places, weights

    def inside(self, place: Value) -> tuple[Value, Value]:
        """A position (turned back inside where it is reflected), and the nearest one inside."""
        b = self.b
        one = constant(b, place, 1)
        if self.padding == "reflection" and not (self.align and self.known == 1):
            span = b.sub(self.size, one) if self.align else self.size
            period = b.add(span, span)
            turned = b.mod(place, period)
            back = b.sub(period if self.align else b.sub(period, one), turned)
            place = b.min(turned, back)
        last = b.sub(self.size, one)
        return place, b.max(b.min(place, last), constant(b, place, 0))


def _near(b: Builder, d: Value) -> Value:
    inner = b.sub(b.mul(d, constant(b, d, CUBIC + 2)), constant(b, d, CUBIC + 3))
    return b.add(b.mul(inner, b.mul(d, d)), constant(b, d, 1.0))  # type: ignore[no-any-return]


def _far(b: Builder, d: Value) -> Value:
    inner = b.sub(b.mul(d, constant(b, d, CUBIC)), constant(b, d, 5 * CUBIC))
    inner = b.add(b.mul(inner, d), constant(b, d, 8 * CUBIC))
    return b.sub(b.mul(inner, d), constant(b, d, 4 * CUBIC))  # type: ignore[no-any-return]


class DeformConv(Op):
    """A convolution whose taps are moved by offsets (Dai 2017): x [N, C, *S], w [O, C/groups, *K],
    offset [N, g * prod(K) * R, *S'], optional mask [N, g * prod(K), *S'] to [N, O, *S'].

    R is the number of spatial axes; g is `offset_groups`, each for C/g channels of x.  Tap k of
    window s reads x, linearly interpolated, zeros outside, at s*stride + k*dilation - pad + offset,
    times the mask (Zhu 2019).

    C1: one element type.  C2: the shapes above fit together.  C3: kernel extents are known;
    strides, dilations (>= 1) and pads (>= 0) fit their number.  C4: the kernel fits the padded
    input.  C5: C and O are multiples of groups, C of offset_groups.
    """

    x = operand(Float)
    w = operand(Float)
    offset = operand(Float)
    mask = optional(Float)
    strides = attr(tuple, ())
    pads = attr(tuple, ())
    dilations = attr(tuple, ())
    groups = attr(int, 1)
    offset_groups = attr(int, 1)

    @staticmethod
    def infer(
        x: TensorType,
        w: TensorType,
        offset: TensorType,
        mask: TensorType | None = None,
        *,
        groups: int,
        offset_groups: int,
        **geometry: tuple[int, ...],
    ) -> TensorType:
        found = f"x : {x}   w : {w}   offset : {offset}   mask : {mask}"
        alike = all([t is None or t.dtype is x.dtype for t in (w, offset, mask)])
        require(alike, "E0303", "deform_conv (C1): element types differ", found)
        ranks = x.rank >= 3 and w.rank == offset.rank == x.rank
        require(ranks, "E0314", "deform_conv (C2): x, w and offset must have one rank", found)
        win = window("deform_conv", w.shape[2:], **geometry)
        out = windows_of("deform_conv", x.shape[2:], win)
        divides = groups >= 1 and offset_groups >= 1
        divides = divides and same(x.shape[1], w.shape[1] * groups) is not False
        divides = divides and same(w.shape[0] % groups, 0) is not False
        divides = divides and same(x.shape[1] % offset_groups, 0) is not False
        require(divides, "E0314", "deform_conv (C5): channels do not fit the groups", found)
        count = offset_groups * math.prod(win.kernel)
        for given, channels in ((offset, count * win.rank), (mask, count)):
            want = (x.shape[0], channels, *out)
            fits = given is None or given.rank == len(want)
            fits = fits and (
                given is None or all([same(a, e) is not False for a, e in zip(given.shape, want)])
            )
            require(fits, "E0314", "deform_conv (C2): offset or mask does not fit", found)
        return TensorType(x.dtype, (x.shape[0], w.shape[0], *out))

    @staticmethod
    def evaluate(
        x: Array,
        w: Array,
        offset: Array,
        mask: Array | None = None,
        *,
        groups: int,
        offset_groups: int,
        **geometry: tuple[int, ...],
    ) -> Array:
        win = window("deform_conv", w.shape[2:], **geometry)
        n, c, rank, taps = x.shape[0], x.shape[1], win.rank, math.prod(win.kernel)
        out = offset.shape[2:]
        wide, shifts = widen(x), widen(offset).reshape(n * offset_groups, taps, rank, *out)
        axes = []
        for k in range(rank):
            at = _grid(win, k, out).astype(shifts.dtype) + shifts[:, :, k]
            axes.append(_numpy_taps(at, x.shape[2 + k], "linear", "zeros", False))
        image = wide.reshape(n * offset_groups, c // offset_groups, *x.shape[2:])
        tables = [p for row, _ in axes for p in row] + [v for _, row in axes for v in row]
        columns = SamplePoints.evaluate(image, *tables, taps=2)
        if mask is not None:
            columns = columns * widen(mask).reshape(n * offset_groups, 1, taps, *out)
        columns = columns.reshape(n, groups, c // groups, taps, -1)
        flat = widen(w).reshape(groups, w.shape[0] // groups, c // groups, taps)
        total = np.einsum("ngcts,goct->ngos", columns, flat)
        return round_float(total.reshape(n, w.shape[0], *out), from_numpy(x.dtype))

    def decompose(self, b: Builder) -> Value:
        """Positions, `sample_points` to columns, a contraction."""
        dtype = compute_dtype(self.x.tensor.dtype)
        x, w, offset = [as_type(b, v, dtype) for v in (self.x, self.w, self.offset)]
        win = window("deform_conv", w.tensor.shape[2:], self.strides, self.pads, self.dilations)
        rank, taps, outer = win.rank, math.prod(win.kernel), self.offset_groups
        n, c = x.tensor.shape[:2]
        out = self.result.tensor.shape[2:]
        shifts = b.reshape(offset, shape=(n * outer, taps, rank, *out))
        places: list[Value] = []
        weights: list[Value] = []
        for k in range(rank):
            sizes = (n * outer, taps, 1, *out)
            part = b.slice(shifts, starts=(0, 0, k, *[0] * rank), sizes=sizes)
            part = b.reshape(part, shape=(n * outer, taps, *out))
            at = b.add(part, self.grid(b, win, k, out, dtype))
            axis = _Place(b, x.tensor.shape[2 + k], dtype, "zeros", False)
            found, share = axis.taps(at, "linear")
            places += found
            weights += share
        image = b.reshape(x, shape=(n * outer, c // outer, *x.tensor.shape[2:]))
        columns = b.sample_points(image, *places, *weights, taps=2)
        if self.mask is not None:
            mask = as_type(b, self.mask, dtype)
            columns = b.mul(columns, b.reshape(mask, shape=(n * outer, 1, taps, *out)))
        return as_type(b, self.product(b, columns, w, out), self.x.tensor.dtype)

    def grid(self, b: Builder, win: Window, axis: int, out: Shape, dtype: DType) -> Value:
        """Where each tap of each window reads without offset: [taps, *1, S', *1]."""
        taps = math.prod(win.kernel)
        at = b.iota(shape=[e if k == axis else 1 for k, e in enumerate(out)], axis=axis)
        at = b.mul(at, constant(b, at, win.strides[axis]))
        index = np.indices(win.kernel)[axis].reshape(taps, *[1] * len(out))
        moved = index * win.dilations[axis] - win.before[axis]
        from_tap = b.insert(Const(np.asarray(moved, np.int64))).result
        return b.cast(b.add(from_tap, at), to=dtype)  # type: ignore[no-any-return]

    def product(self, b: Builder, columns: Value, w: Value, out: Shape) -> Value:
        """The columns [N * g, C / g, taps, *S'] times w."""
        n, c = self.x.tensor.shape[:2]
        groups, outputs = self.groups, w.tensor.shape[0]
        taps = columns.tensor.shape[2]
        area: DimLike = 1
        for extent in out:
            area = area * extent
        columns = b.reshape(columns, shape=(n, groups, c // groups, taps, area))
        flat = b.reshape(w, shape=(groups, outputs // groups, c // groups, taps))
        total = b.contract(flat, columns, equation="goct,ngcts->ngos")
        return b.reshape(total, shape=(n, outputs, *out))  # type: ignore[no-any-return]

    samples: ClassVar[Any] = (
        sample((1, 2, 5, 6), (3, 2, 2, 3), (1, 12, 4, 4)),
        sample((2, 4, 5, 5), (4, 2, 2, 2), (2, 16, 3, 3), (2, 8, 3, 3), groups=2, offset_groups=2,
               pads=(1, 0, 1, 0), strides=(2, 1), dilations=(1, 2)),
        sample((1, 2, 7), (3, 2, 3), (1, 3, 5), (1, 3, 5)),
        sample((1, 2, 5, 6), (3, 2, 2, 2), (1, 8, 4, 5), dtypes=("f16",) * 3),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((1, 2, 5, 6), (3, 2, 2, 3), (1, 12, 4, 4), dtypes=("f32", "f32", "f64"))),
        ("C2", sample((1, 2, 5, 6), (3, 2, 2, 3), (1, 12, 4, 5))),
        ("C2", sample((1, 2, 5, 6), (3, 2, 2), (1, 12, 4, 4))),
        ("C3", sample((1, 2, 5, 6), (3, 2, 2, 3), (1, 12, 4, 4), strides=(0, 1))),
        ("C4", sample((1, 2, 1, 6), (3, 2, 2, 3), (1, 12, 0, 4), dilations=(3, 1))),
        ("C5", sample((1, 3, 5, 6), (3, 2, 2, 3), (1, 12, 4, 4))),
    )


def _grid(win: Window, axis: int, out: Sequence[int]) -> Array:
    """Where each tap of each window reads without offset: [taps, *S'] broadcast."""
    index = np.indices(win.kernel)[axis].reshape(-1, *[1] * len(out))
    along = [-1 if k == axis else 1 for k in range(len(out))]
    at = np.arange(out[axis]).reshape(along) * win.strides[axis]
    return at + index * win.dilations[axis] - win.before[axis]  # type: ignore[no-any-return]


__all__ = ["MODES", "PADDINGS", "DeformConv", "GridSample", "SamplePoints"]
