"""Resizing along axes: nearest, linear and cubic interpolation, as ONNX Resize has them.

Interpolation is separable.  Along an axis result element p lies at x(p) = alpha * p + beta of the
source and is a sum of neighbouring elements times weights.  Where alpha and beta are ratios of
integers, the first neighbour is an index expression, floor((a * p + b) / c), which needs no table
(`Resample`); otherwise it is looked up.  Imports: the core, types, dims.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Grads, Op, Real, Value, attr, operand, sample, variadic
from ..dims import DimLike, equal, max_, min_, sym
from ..types import DType, Shape, TensorType, f32, f64, from_numpy, i64
from .constraints import axis_of, least, require
from .contract import as_type
from .convert import compute_dtype, convert, widen
from .core import Const, generic, indices, iterators
from .elementwise import constant
from .resize_grad import of_line, of_weights

MODES = ("nearest", "linear", "cubic")
COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
               "asymmetric", "tf_crop_and_resize")  # fmt: skip
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
MOST_TAPS = 16
"""Of more elements per result element the axes are resized one after the other."""


class Resample(Op):
    """Along each of `axes` a weighted sum of neighbours: of result position p the `taps` elements
    from floor((a * p + b) / c) on, the edge repeated; `places` holds (a, b, c) of each axis.

    `weights` has one operand [period, taps] for each axis, read at p modulo the period; without
    them the sum is plain (one tap: a copy).  The result has `sizes` along the axes.  f8, f16 and
    bf16 compute in f32.

    C1: `axes`, `sizes`, `places` and `taps` have one entry for each of distinct axes; c >= 1, taps
    >= 1.  C2: `weights` are none, or [period, taps] of each axis.
    """

    x = operand(Real)
    weights = variadic(Real)
    axes = attr(tuple)
    sizes = attr(tuple)
    places = attr(tuple)
    taps = attr(tuple)

    @staticmethod
    def infer(
        x: TensorType,
        *weights: TensorType,
        axes: tuple[int, ...],
        sizes: Shape,
        places: tuple[tuple[int, int, int], ...],
        taps: tuple[int, ...],
    ) -> TensorType:
        for axis in axes:
            axis_of(axis, x.rank, "resample", "C1")
        fits = len(set(axes)) == len(axes) == len(sizes) == len(places) == len(taps)
        fits = fits and all([len(p) == 3 and p[2] >= 1 for p in places])
        require(
            fits and min(taps, default=1) >= 1 and min(axes, default=0) >= 0,
            "E0317",
            "resample (C1): axes, sizes, places and taps do not fit",
            f"{axes}, {sizes}, {places}, {taps}",
        )
        given = not weights or len(weights) == len(axes)
        alike = [w.rank == 2 and w.shape[1] == t for w, t in zip(weights, taps)]
        require(
            given and all(alike),
            "E0317",
            "resample (C2): weights must be [period, taps] of each axis",
            f"taps {taps}, found {', '.join(map(str, weights))}",
        )
        shape = list(x.shape)
        for axis, size in zip(axes, sizes):
            shape[axis] = size
        return TensorType(x.dtype, tuple(shape))

    @staticmethod
    def evaluate(
        x: Array,
        *weights: Array,
        axes: tuple[int, ...],
        sizes: tuple[int, ...],
        places: tuple[tuple[int, int, int], ...],
        taps: tuple[int, ...],
    ) -> Array:
        dtype = from_numpy(x.dtype)
        out = widen(x)
        for k, (axis, size, (a, b, c), count) in enumerate(zip(axes, sizes, places, taps)):
            at = np.arange(size)
            first = (a * at + b) // c
            parts = []
            for tap in range(count):
                index = np.clip(first + tap, 0, x.shape[axis] - 1)
                part = np.take(out, index, axis)
                if weights:
                    along = [-1 if d == axis else 1 for d in range(x.ndim)]
                    part = part * weights[k][at % len(weights[k]), tap].reshape(along)
                parts.append(part)
            out = parts[0] if count == 1 else np.sum(parts, axis=0)
        return convert(out, dtype)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the result; x is read once for every combination of taps."""
        x, *weights = xs
        shape = x.tensor.shape
        its = iterators("i", self.result.tensor.shape)
        at = indices(its)
        maps: list[list[DimLike]] = []
        for chosen in np.ndindex(*self.taps):
            index = list(at)
            for axis, place, tap in zip(self.axes, self.places, chosen):
                index[axis] = _neighbour(at[axis], place, int(tap), shape[axis])
            maps.append(index)
        reads = len(maps)
        for weight, axis, count in zip(weights, self.axes, self.taps):
            period = weight.tensor.shape[0]
            whole = period is self.result.tensor.shape[axis] or period == 1
            for tap in range(count):
                row = 0 if period == 1 else at[axis] if whole else at[axis] % period
                maps.append([row, tap])
        repeated = [w for w, count in zip(weights, self.taps) for _ in range(count)]
        wide = repeated[0].tensor.dtype if repeated else compute_dtype(x.tensor.dtype)

        def body(b: Builder, *values: Value) -> Value:
            if reads == 1 and not weights:
                return values[0]
            parts = [as_type(b, v, wide) for v in values[:reads]]
            rest = list(values[reads:])
            for count in reversed(self.taps):
                used = rest[len(rest) - count :] if weights else []
                rest = rest[: len(rest) - count] if weights else rest
                parts = [
                    _weighted(b, parts[k : k + count], used) for k in range(0, len(parts), count)
                ]
            return as_type(b, parts[0], x.tensor.dtype)

        inputs = [*[x] * reads, *repeated]
        return generic(b, inputs, its, maps, [at], [self.result.tensor], body)  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Axis by axis, the elements to which one contributed, times their weights."""
        wide = compute_dtype(self.x.tensor.dtype)
        found, shape = as_type(b, g, wide), self.x.tensor.shape
        weights = [as_type(b, w, wide) for w in self.weights]
        for k, axis in enumerate(self.axes):
            weight = weights[k] if weights else None
            place = self.places[k]
            found = of_line(b, found, axis, shape[axis], place, self.taps[k], weight)
        given = [None if self.is_table(w) else of_weights(b, self, k, as_type(b, g, wide))
                 for k, w in enumerate(self.weights)]  # fmt: skip
        return found, *given

    @staticmethod
    def is_table(weight: Value) -> bool:
        """A constant, to which no cotangent need go."""
        return isinstance(weight.op, Const)

    samples: ClassVar[Any] = (
        sample((2, 3, 4), axes=(1, 2), sizes=(6, 8), places=((1, 0, 2), (1, 0, 2)), taps=(1, 1)),
        sample((2, 5), (4, 2), axes=(1,), sizes=(8,), places=((1, -1, 2),), taps=(2,)),
        sample((3, 5), (2, 2), (7, 3), axes=(0, 1), sizes=(6, 7), places=((1, 0, 2), (2, -3, 3)),
               taps=(2, 3)),
        sample((2, 5), axes=(1,), sizes=(3,), places=((2, 1, 1),), taps=(1,), dtypes=("i8",)),
        sample((2, 5), (1, 2), axes=(1,), sizes=(0,), places=((2, 1, 1),), taps=(2,)),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((2, 5), axes=(2,), sizes=(3,), places=((1, 0, 1),), taps=(1,))),
        ("C1", sample((2, 5), axes=(1,), sizes=(3,), places=((1, 0, 0),), taps=(1,))),
        ("C2", sample((2, 5), (4, 3), axes=(1,), sizes=(3,), places=((1, 0, 1),), taps=(2,))),
    )


def _neighbour(p: DimLike, place: tuple[int, int, int], tap: int, extent: DimLike) -> DimLike:
    a, b, c = place
    return max_(0, min_((p * a + b) // c + tap, extent - 1))


def _weighted(b: Builder, parts: Sequence[Value], weights: Sequence[Value]) -> Value:
    total: Value | None = None
    for k, part in enumerate(parts):
        term = b.mul(part, weights[k]) if weights else part
        total = term if total is None else b.add(total, term)
    assert total is not None
    return total


class Resize(Op):
    """x with the extents `sizes` along `axes`, by interpolation of `mode` (ONNX Resize).

    `scales` are result over source, per axis (none: sizes over extents); `coordinates` say where a
    result element lies in the source, `rounding` which neighbour nearest takes, `cubic` is the
    parameter of Keys's kernel (1981).  With `antialias` the kernel is widened where a scale is
    below 1; `exclude_outside` gives no weight to what lies outside.  For tf_crop_and_resize `roi`
    are the (first ..., last ...) of the axes in units of the extents, and elements outside are
    `extrapolation`.  Integers are computed in floats and truncated, a sum just below
    an integer counting as that.

    C1: distinct axes in range, one size (and scale) for each.  C2: known mode, coordinates and
    rounding.  C3: sizes are not negative, scales positive, and what grows has an element.  C4: an
    extent that is not known has a scale that is a ratio of small integers, and coordinates
    half_pixel, asymmetric or pytorch_half_pixel.
    """

    x = operand(Real)
    axes = attr(tuple)
    sizes = attr(tuple)
    scales = attr(tuple, ())
    mode = attr(str, "nearest")
    coordinates = attr(str, "half_pixel")
    rounding = attr(str, "round_prefer_floor")
    cubic = attr(float, -0.75)
    antialias = attr(bool, False)
    exclude_outside = attr(bool, False)
    roi = attr(tuple, ())
    extrapolation = attr(float, 0.0)

    @staticmethod
    def infer(
        x: TensorType,
        axes: tuple[int, ...],
        sizes: Shape,
        scales: tuple[float, ...],
        mode: str,
        coordinates: str,
        rounding: str,
        roi: tuple[float, ...],
        **attrs: Any,
    ) -> TensorType:
        placed = [axis_of(axis, x.rank, "resize", "C1") for axis in axes]
        count = len(axes)
        fits = len(set(placed)) == count == len(sizes) and len(scales) in (0, count)
        cropped = coordinates != "tf_crop_and_resize" or len(roi) == 2 * count
        require(fits and cropped, "E0317", "resize (C1): axes, sizes, scales or roi do not fit",
                f"{x}, {axes}, {sizes}, {scales}, {roi}")  # fmt: skip
        known = mode in MODES and coordinates in COORDINATES and rounding in ROUNDINGS
        require(known, "E0317", "resize (C2): unknown mode, coordinates or rounding",
                f"{mode}, {coordinates}, {rounding}")  # fmt: skip
        shape = list(x.shape)
        for k, axis in enumerate(placed):
            extent, size = x.shape[axis], sizes[k]
            grows = least(size, 1) is not True or least(extent, 1) is not False
            right = least(size, 0) is not False and grows and (not scales or scales[k] > 0)
            require(right, "E0317", "resize (C3): a size or scale is impossible",
                    f"axis {axis} of {x}: size {size}, scales {scales}")  # fmt: skip
            fixed = type(extent) is int and type(size) is int
            plain = coordinates in ("half_pixel", "asymmetric", "pytorch_half_pixel")
            periodic = bool(scales) and plain and _ratio(scales[k]) is not None
            require(fixed or periodic, "E0317",
                    f"resize (C4): axis {axis} of {x} needs a known extent")  # fmt: skip
            shape[axis] = size
        return TensorType(x.dtype, tuple(shape))

    def lines(self) -> list[_Line]:
        """The geometry of each axis."""
        return _lines(self.x.tensor.shape, self.attributes)

    @staticmethod
    def evaluate(x: Array, **attrs: Any) -> Array:
        dtype = from_numpy(x.dtype)
        copies = attrs["mode"] == "nearest"
        out = x if copies else widen(x).astype(np.float64)
        outside: Array = np.zeros((), np.bool_)
        for line in _lines(x.shape, attrs):
            first, weights = line.table(np.arange(int(line.size)))  # type: ignore[arg-type]
            along = [-1 if d == line.axis else 1 for d in range(x.ndim)]
            parts = []
            for tap in range(weights.shape[1]):
                index = np.clip(first + tap, 0, int(line.extent) - 1)  # type: ignore[arg-type]
                part = np.take(out, index, line.axis)
                parts.append(part if copies else part * weights[:, tap].reshape(along))
            out = parts[0] if len(parts) == 1 else np.sum(parts, axis=0)
            outside = outside | line.outside().reshape(along)
        if outside.any():
            out = np.where(outside, np.asarray(attrs["extrapolation"], out.dtype), out)
        return out if copies else convert(out * _nudge(dtype), dtype)

    def decompose(self, b: Builder) -> Value:
        """Index expressions for all axes that have them, tables for the others."""
        x, dtype = self.x, self.x.tensor.dtype
        copies = self.mode == "nearest"
        wide = dtype if copies or dtype.is_float else f32 if dtype.bits <= 16 else f64
        x = as_type(b, x, wide)
        lines = [line for line in self.lines() if not line.is_identity()]
        weight_type = compute_dtype(wide)
        while lines:
            together: list[_Line] = []
            taps = 1
            while lines and lines[0].place() and taps * lines[0].taps <= MOST_TAPS:
                taps *= lines[0].taps
                together.append(lines.pop(0))
            if together:
                x = _resampled(b, x, together, weight_type.np, copies)
            elif lines:
                x = _looked_up(b, x, lines.pop(0), weight_type.np, copies)
        for line in self.lines():
            if line.size != 0 and line.outside().any():
                along = [-1 if d == line.axis else 1 for d in range(x.tensor.rank)]
                mask = b.insert(Const(line.outside().reshape(along))).result
                value = np.asarray(self.extrapolation, wide.np)
                x = b.where(mask, b.insert(Const(value)).result, x)
        if wide is not dtype:
            x = b.mul(x, constant(b, x, _nudge(dtype)))
        return as_type(b, x, dtype)

    samples: ClassVar[Any] = (
        sample((1, 2, 3, 4), axes=(2, 3), sizes=(6, 8)),
        sample((1, 2, 3, 4), axes=(2, 3), sizes=(6, 8), mode="linear"),
        sample((2, 7), axes=(1,), sizes=(5,), mode="cubic", scales=(0.8,)),
        sample((2, 7), axes=(-1,), sizes=(4,), mode="linear", antialias=True),
        sample((3, 7), axes=(0, 1), sizes=(2, 3), mode="cubic", antialias=True,
               exclude_outside=True),
        sample((2, 5), axes=(1,), sizes=(9,), mode="linear", coordinates="align_corners"),
        sample((2, 5), axes=(1,), sizes=(1,), mode="linear", coordinates="align_corners"),
        sample((2, 9), axes=(1,), sizes=(4,), coordinates="asymmetric", rounding="floor",
               scales=(0.45,)),
        sample((2, 9), axes=(1,), sizes=(4,), rounding="ceil", scales=(0.471238,)),
        sample((2, 9), axes=(1,), sizes=(4,), coordinates="half_pixel_symmetric", scales=(0.51,),
               mode="linear"),
        sample((4, 6), axes=(0, 1), sizes=(3, 5), coordinates="tf_crop_and_resize", mode="linear",
               roi=(0.4, 0.1, 1.2, 0.9), extrapolation=10.0),
        sample((2, 4), axes=(1,), sizes=(6,), rounding="round_prefer_ceil",
               coordinates="pytorch_half_pixel", dtypes=("i8",), ranges=((-9, 9),)),
        sample((2, 4), axes=(1,), sizes=(6,), mode="linear", dtypes=("u8",), ranges=((0, 255),)),
        sample((2, 3, 4, 5), axes=(1, 2, 3), sizes=(5, 6, 7), mode="cubic"),
        sample((2, 4), axes=(1,), sizes=(0,)),
        sample((0, 4), axes=(1,), sizes=(8,), mode="linear"),
        sample((2, 4), axes=(1,), sizes=(8,), mode="linear", dtypes=("f16",)),
        sample((2, 4), axes=(1,), sizes=(4,), mode="linear", dtypes=("f64",)),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((2, 4), axes=(2,), sizes=(4,))),
        ("C1", sample((2, 4), axes=(1,), sizes=(4, 5))),
        ("C1", sample((2, 4), axes=(1,), sizes=(4,), coordinates="tf_crop_and_resize")),
        ("C2", sample((2, 4), axes=(1,), sizes=(4,), mode="quintic")),
        ("C3", sample((2, 0), axes=(1,), sizes=(4,))),
        ("C3", sample((2, 4), axes=(1,), sizes=(4,), scales=(-1.0,))),
        ("C4", sample((2, sym("N")), axes=(1,), sizes=(4,))),
    )


def _nudge(dtype: DType) -> float:
    """A factor that lifts a sum of rounded products over the integer that it is meant to be."""
    if dtype.is_float:
        return 1.0
    return 1 + 2.0 ** (-20 if dtype.bits <= 16 else -48)


@dataclass(frozen=True, slots=True)
class _Line:
    """One resized axis: source position alpha * p + beta of result element p."""

    axis: int
    extent: DimLike
    size: DimLike
    scale: float
    alpha: Fraction
    beta: Fraction
    exact: bool
    """alpha and beta are what was meant, not roundings of it."""
    attrs: Mapping[str, Any]

    def where(self, at: Array) -> Array:
        """Source positions of result elements."""
        return at * float(self.alpha) + float(self.beta)

    def outside(self) -> Array:
        """Which result elements are extrapolated."""
        if self.attrs["coordinates"] != "tf_crop_and_resize":
            return np.zeros(1, np.bool_)
        x = self.where(np.arange(int(self.size)))  # type: ignore[arg-type]
        return np.asarray((x < 0) | (x > int(self.extent) - 1))  # type: ignore[arg-type]

    @property
    def shrink(self) -> float:
        """The scale by which the kernel is widened."""
        return min(self.scale, 1.0) if self.attrs["antialias"] else 1.0

    @property
    def reach(self) -> int:
        """How many neighbours there are on each side."""
        radius = {"nearest": 0, "linear": 1, "cubic": 2}[self.attrs["mode"]]
        return math.ceil(radius / self.shrink)

    @property
    def taps(self) -> int:
        return max(1, 2 * self.reach)

    def table(self, at: Array) -> tuple[Array, Array]:
        """(first neighbour, weights [len(at), taps]) of result elements."""
        x = self.where(at)
        if self.attrs["mode"] == "nearest":
            rules = {"round_prefer_floor": np.ceil(x - 0.5), "round_prefer_ceil": np.floor(x + 0.5),
                     "floor": np.floor(x), "ceil": np.ceil(x)}  # fmt: skip
            return rules[self.attrs["rounding"]].astype(np.int64), np.ones((len(at), 1))
        low = np.floor(x)
        first = low.astype(np.int64) - self.reach + 1
        places = first[:, None] + np.arange(self.taps)
        distance = np.abs(places - x[:, None]) * self.shrink
        kernel = _triangle if self.attrs["mode"] == "linear" else _keys(self.attrs["cubic"])
        weights = kernel(distance)
        if self.attrs["exclude_outside"]:
            inside = (places >= 0) & (places < int(self.extent))  # type: ignore[arg-type]
            weights = np.where(inside, weights, 0.0)
        if self.attrs["exclude_outside"] or self.shrink != 1:
            weights = weights / weights.sum(axis=1, keepdims=True)
        return first, weights

    def is_identity(self) -> bool:
        """Nothing changes."""
        return self.alpha == 1 and self.beta == 0 and self.size is self.extent and (
            self.attrs["mode"] == "nearest" or self.shrink == 1)  # fmt: skip

    def place(self) -> tuple[int, int, int] | None:
        """(a, b, c) so that the first neighbour is floor((a * p + b) / c); None where there are
        none, or the table says otherwise."""
        if not self.exact:
            return None
        shift = Fraction(1 - self.reach)
        upwards = False
        if self.attrs["mode"] == "nearest":
            upwards = self.attrs["rounding"] in ("round_prefer_floor", "ceil")
            half = {"round_prefer_floor": -1, "round_prefer_ceil": 1}
            shift = Fraction(half.get(self.attrs["rounding"], 0), 2)
        beta = self.beta + shift
        c = math.lcm(self.alpha.denominator, beta.denominator)
        a, b = int(self.alpha * c), int(beta * c)
        place = (a, b + c - 1 if upwards else b, c)
        if max(map(abs, place)) >= 1 << 20:
            return None
        if type(self.size) is int:
            at = np.arange(self.size)
            if ((place[0] * at + place[1]) // c != self.table(at)[0]).any():
                return None
        return place

    def period(self) -> int:
        """After how many elements the weights repeat, where the size is not known."""
        return self.size if type(self.size) is int else self.alpha.denominator


def _triangle(distance: Array) -> Array:
    return np.clip(1 - distance, 0, 1)  # type: ignore[no-any-return]


def _keys(a: float) -> Any:
    """Keys's cubic kernel (1981) of parameter a."""

    def kernel(d: Array) -> Array:
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0.0))

    return kernel


def _ratio(scale: float) -> Fraction | None:
    """A ratio of small integers that rounds to this f32 scale."""
    found = Fraction(scale).limit_denominator(1000)
    return found if found > 0 and np.float32(found) == np.float32(scale) else None


def _lines(shape: Shape, attrs: Mapping[str, Any]) -> list[_Line]:
    out = []
    count = len(attrs["axes"])
    for k, axis in enumerate(attrs["axes"]):
        axis = axis % len(shape)
        extent, size = shape[axis], attrs["sizes"][k]
        if attrs["scales"]:
            near = _ratio(attrs["scales"][k])
            scale = Fraction(attrs["scales"][k]) if near is None else near
            exact = near is not None
        else:
            scale, exact = Fraction(size, max(extent, 1)) or Fraction(1), True
        roi = (attrs["roi"][k], attrs["roi"][count + k]) if attrs["roi"] else (0.0, 1.0)
        alpha, beta = _coordinates(attrs["coordinates"], extent, size, scale, roi)
        if attrs["coordinates"] == "tf_crop_and_resize":
            exact = False
        out.append(_Line(axis, extent, size, float(scale), alpha, beta, exact, attrs))
    return out


def _coordinates(
    mode: str, extent: Any, size: Any, scale: Fraction, roi: tuple[float, float]
) -> tuple[Fraction, Fraction]:
    """(alpha, beta): result element p lies at alpha * p + beta."""
    half = Fraction(1, 2)
    if mode == "asymmetric":
        return 1 / scale, Fraction(0)
    centred = half / scale - half
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and equal(size, 1) is not True):
        return 1 / scale, centred
    if mode == "pytorch_half_pixel":
        return Fraction(0), Fraction(0)
    wide = extent * scale  # not rounded, unlike `size`
    if mode == "half_pixel_symmetric":
        return 1 / scale, centred + Fraction(extent, 2) * (1 - size / (wide or 1))
    if mode == "align_corners":
        return (Fraction(0) if wide == 1 else Fraction(extent - 1) / (wide - 1)), Fraction(0)
    first, last = [Fraction(v) for v in roi]
    span = (last - first) * (extent - 1)
    if wide == 1:
        return Fraction(0), span / 2 + first * (extent - 1)
    return span / (wide - 1), first * (extent - 1)


def _resampled(b: Builder, x: Value, lines: Sequence[_Line], wide: Any, copies: bool) -> Value:
    """Axes whose neighbours are index expressions."""
    weights = []
    if not copies:
        for line in lines:
            table = line.table(np.arange(line.period()))[1].astype(wide)
            weights.append(b.insert(Const(table)).result)
    return b.resample(  # type: ignore[no-any-return]
        x, *weights, axes=[line.axis for line in lines], sizes=[line.size for line in lines],
        places=[line.place() for line in lines], taps=[line.taps for line in lines],
    )  # fmt: skip


def _looked_up(b: Builder, x: Value, line: _Line, wide: Any, copies: bool) -> Value:
    """An axis whose neighbours stand in a table."""
    size, axis = int(line.size), line.axis  # type: ignore[arg-type]
    first, weights = line.table(np.arange(size))
    index = np.clip(first[:, None] + np.arange(line.taps), 0, int(line.extent) - 1)  # type: ignore[arg-type]
    index = index.astype(i64.np)
    if copies:
        return b.take(x, b.insert(Const(index[:, 0])).result, axis=axis)  # type: ignore[no-any-return]
    dtype = x.tensor.dtype
    parts = as_type(b, b.take(x, b.insert(Const(index)).result, axis=axis), from_numpy(wide))
    after = [1] * (x.tensor.rank - axis - 1)
    scaled = b.mul(
        parts, b.insert(Const(weights.astype(wide).reshape(size, line.taps, *after))).result
    )
    return as_type(b, b.reduce_sum(scaled, axes=(axis + 1,)), dtype)


__all__ = ["COORDINATES", "MODES", "ROUNDINGS", "Resample", "Resize"]
