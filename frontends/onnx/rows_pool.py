"""Import rows of pooling and resizing.  Imports: node, the geometry of rows_linear, ir."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...ir.core import Value
from ...ir.types import f32, i64
from .item import Array
from .node import Node, Result, Row
from .rows_linear import Geometry, geometry


def _window(n: Node) -> Geometry:
    if n.rank(0) < 3:
        raise n.invalid("E0316", f"{n.op} takes [N, C, ...]")
    return geometry(n, n.shape(0)[2:], n.required("kernel_shape"))


def _pooled(n: Node, x: Value, op: str, win: Geometry, **more: int) -> Value:
    """One of the pools."""
    ceil = bool(n.attr("ceil_mode", 0))
    return getattr(n.b, op)(x, kernel=win.kernel, strides=win.strides, pads=win.pads,
                            dilations=win.dilations, ceil_mode=ceil, **more)  # fmt: skip


def max_pool(n: Node) -> Result:
    """The values, and where wanted their positions in x laid flat."""
    x, win = n.x(0), _window(n)
    values = _pooled(n, x, "max_pool", win)
    if len(n.proto.output) < 2 or not n.proto.output[1]:
        return values
    columns = bool(n.attr("storage_order", 0))
    return values, _pooled(n, x, "max_pool_indices", win, column_major=columns)


def average_pool(n: Node) -> Result:
    """Means of windows; pads count where asked for."""
    include = bool(n.attr("count_include_pad", 0))
    return _pooled(n, n.x(0), "avg_pool", _window(n), count_include_pad=include)


def lp_pool(n: Node) -> Result:
    """The p-norm of each window."""
    return _pooled(n, n.x(0), "lp_pool", _window(n), p=n.attr("p", 2))


def global_pool(op: str) -> Row:
    """A reduction over all spatial axes, kept as extents of 1."""
    return lambda n: getattr(n.b, op)(n.x(0), axes=tuple(range(2, n.rank(0))), keepdims=True)


def global_lp_pool(n: Node) -> Result:
    """The p-norm over all spatial axes."""
    x, p, axes = n.x(0), n.attr("p", 2), tuple(range(2, n.rank(0)))
    if p == 2:
        return n.b.reduce_l2(x, axes=axes, keepdims=True)
    powers = n.b.pow(n.b.abs(x), n.like(x, p))
    total = n.b.reduce_sum(powers, axes=axes, keepdims=True)
    return n.b.pow(total, n.like(total, 1 / p))


def max_unpool(n: Node) -> Result:
    """Elements back to where max pooling found them; a larger `output_shape` is filled up."""
    x, kernel = n.x(0), n.required("kernel_shape")
    rank = x.tensor.rank - 2
    strides, pads = n.ints("strides") or (1,) * rank, n.ints("pads") or (0,) * (2 * rank)
    if not len(kernel) == len(strides) == rank or len(pads) != 2 * rank:
        raise n.invalid("E0315", f"MaxUnpool: kernel, strides or pads do not fit {rank} axes")
    dims = x.tensor.shape
    out = [(dims[2 + k] - 1) * strides[k] - pads[k] - pads[rank + k] + kernel[k]
           for k in range(rank)]  # fmt: skip
    shape = (*dims[:2], *out)
    y: Value = n.b.max_unpool(x, n.x(1), shape=shape)
    if not n.has(2):
        return y
    want = n.dims(2, "output_shape")
    high = [w - e for w, e in zip(want, shape)]
    return n.b.pad(y, low=[0] * len(high), high=high) if any(high) else y


def roi_align(n: Node) -> Result:
    """The IR's `roi_align`; before opset 16 coordinates are not shifted by half a pixel."""
    default = "half_pixel" if n.version >= 16 else "output_half_pixel"
    half = n.attr("coordinate_transformation_mode", default) == "half_pixel"
    size = (n.attr("output_height", 1), n.attr("output_width", 1))
    return n.b.roi_align(n.x(0), n.x(1), n.x(2), size=size, scale=n.attr("spatial_scale", 1.0),
                         sampling=n.attr("sampling_ratio", 0), half_pixel=half,
                         mode=n.attr("mode", "avg"))  # fmt: skip


def max_roi_pool(n: Node) -> Result:
    """The IR's `max_roi_pool`."""
    size = tuple(n.required("pooled_shape"))
    return n.b.max_roi_pool(n.x(0), n.x(1), size=size, scale=n.attr("spatial_scale", 1.0))


# ---- resize: along one axis after another, by gathers and weights known at import


def resize(n: Node) -> Result:
    """Nearest, linear and cubic interpolation with known extents and scales."""
    x = n.x(0)
    if not x.tensor.is_static:
        raise n.unsupported(f"{n.op} needs known extents", hint="give them with shapes=")
    dims: tuple[int, ...] = x.tensor.shape  # type: ignore[assignment]
    axes = n.ints("axes") or tuple(range(len(dims)))
    axes = tuple([n.axis(a, len(dims)) for a in axes])
    scales, sizes = _targets(n, [dims[a] for a in axes], len(axes))
    mode = n.attr("mode", "nearest")
    if mode not in ("nearest", "linear", "cubic") or n.attr("antialias", 0):
        raise n.unsupported(f"{n.op}: antialias and this mode are not supported",
                            f"mode {mode}")  # fmt: skip
    for axis, scale, size in zip(axes, scales, sizes):
        if size == dims[axis] and scale == 1.0:
            continue
        at = _positions(n, dims[axis], size, scale)
        x = _nearest(n, x, axis, at) if mode == "nearest" else _interpolated(n, x, axis, at, mode)
    return x


def _targets(n: Node, dims: Sequence[int], count: int) -> tuple[list[float], list[int]]:
    """Scale and extent per resized axis, from the operands that are not empty."""
    scales_at, sizes_at = (1, 3) if n.op == "Upsample" or n.version < 11 else (2, 3)
    said = n.ints("scales") if n.version < 9 else None
    known = n.known(scales_at) if n.version >= 9 else np.array(n.required("scales"), np.float32)
    if said is None and known is None and not n.has(sizes_at):
        raise n.unsupported(f"{n.op}: its scales must be known when the model is imported")
    if known is not None and known.size:
        scales = [float(s) for s in known.reshape(-1)]
        sizes = [math.floor(d * s) for d, s in zip(dims, scales)]
    else:
        sizes = list(n.numbers(sizes_at, "sizes"))
        scales = [s / d for s, d in zip(sizes, dims)]
        policy = n.attr("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            scale = min(scales) if policy == "not_larger" else max(scales)
            scales = [scale] * count
            sizes = [math.floor(d * scale + 0.5) for d in dims]
    if len(scales) != count or any(s <= 0 for s in scales) or any(s > 1 << 20 for s in sizes):
        raise n.invalid("E0317", f"{n.op}: scales or sizes do not fit", f"{scales} {sizes}")
    return scales, sizes


def _positions(n: Node, extent: int, size: int, scale: float) -> Array:
    """Where each result element lies in the source."""
    default = "half_pixel" if n.version >= 11 and n.op == "Resize" else "asymmetric"
    mode = n.attr("coordinate_transformation_mode", default)
    at = np.arange(size, dtype=np.float64)
    if mode == "asymmetric":
        return at / scale
    if mode == "half_pixel":
        return (at + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (at + 0.5) / scale - 0.5 if size > 1 else np.zeros(1)
    if mode == "align_corners":
        wide = extent * scale  # not rounded, unlike `size`
        return at * (extent - 1) / (wide - 1) if size > 1 else np.zeros(1)
    if mode == "half_pixel_symmetric":
        adjust = size / (extent * scale)
        return extent / 2 * (1 - adjust) + (at + 0.5) / scale - 0.5
    raise n.unsupported(f"Resize: coordinate_transformation_mode {mode} is not supported")


def _nearest(n: Node, x: Value, axis: int, at: Array) -> Value:
    default = "round_prefer_floor" if n.version >= 11 and n.op == "Resize" else "floor"
    rounding = n.attr("nearest_mode", default)
    rules = {"round_prefer_floor": np.ceil(at - 0.5), "round_prefer_ceil": np.floor(at + 0.5),
             "floor": np.floor(at), "ceil": np.ceil(at)}  # fmt: skip
    if rounding not in rules:
        raise n.unsupported(f"Resize: nearest_mode {rounding} is not supported")
    index = np.clip(rules[rounding], 0, int(x.tensor.shape[axis]) - 1)
    return n.b.take(x, n.const(index, i64), axis=axis)


def _interpolated(n: Node, x: Value, axis: int, at: Array, mode: str) -> Value:
    """The sum of neighbours times their weights, the edge repeated."""
    extent = int(x.tensor.shape[axis])
    low = np.floor(at)
    places, weights = (_linear if mode == "linear" else _cubic)(n, low, at - low)
    if n.attr("exclude_outside", 0):
        weights = np.where((places >= 0) & (places < extent), weights, 0.0)
        weights = weights / weights.sum(axis=0)
    dtype = x.tensor.dtype if x.tensor.dtype.is_float else f32
    wide, total = n.cast(x, dtype), None
    for place, weight in zip(places, weights):
        part = n.b.take(wide, n.const(np.clip(place, 0, extent - 1), i64), axis=axis)
        along = weight.reshape([-1 if k == axis else 1 for k in range(x.tensor.rank)])
        part = n.b.mul(part, n.const(along, dtype))
        total = part if total is None else n.b.add(total, part)
    return n.cast(total, x.tensor.dtype)


def _linear(n: Node, low: Array, part: Array) -> tuple[Array, Array]:
    """Two neighbours."""
    return np.stack([low, low + 1]), np.stack([1 - part, part])


def _cubic(n: Node, low: Array, t: Array) -> tuple[Array, Array]:
    """Four neighbours by Keys's kernel (1981) of parameter a."""
    a = n.attr("cubic_coeff_a", -0.75)

    def near(d: Array) -> Array:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Array) -> Array:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    places = np.stack([low - 1, low, low + 1, low + 2])
    return places, np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)])


ROWS: Sequence[tuple[str, int, Row]] = (
    ("MaxPool", 1, max_pool),
    ("AveragePool", 1, average_pool),
    ("LpPool", 2, lp_pool),
    ("GlobalMaxPool", 1, global_pool("reduce_max")),
    ("GlobalAveragePool", 1, global_pool("reduce_mean")),
    ("GlobalLpPool", 2, global_lp_pool),
    ("MaxUnpool", 9, max_unpool),
    ("RoiAlign", 10, roi_align),
    ("MaxRoiPool", 1, max_roi_pool),
    ("Resize", 10, resize),
    ("Upsample", 7, resize),
)
