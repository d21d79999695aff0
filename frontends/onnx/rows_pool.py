"""Import rows of pooling.  Imports: node, the geometry of rows_linear, ir."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.core import Value
from .node import Node, Result, Row
from .rows_linear import Geometry, geometry


def _window(n: Node, x: Value) -> Geometry:
    if x.tensor.rank < 3:
        raise n.invalid("E0316", f"{n.op} takes [N, C, ...]")
    return geometry(n, x.tensor.shape[2:], n.required("kernel_shape"))


def _pooled(n: Node, x: Value, op: str, win: Geometry, **more: int) -> Value:
    """One of the pools."""
    ceil = bool(n.attr("ceil_mode", 0))
    return getattr(n.b, op)(x, kernel=win.kernel, strides=win.strides, pads=win.pads,
                            dilations=win.dilations, ceil_mode=ceil, **more)  # fmt: skip


def max_pool(n: Node) -> Result:
    """The values, and where wanted their positions in x laid flat."""
    x = n.x(0)
    win = _window(n, x)
    values = _pooled(n, x, "max_pool", win)
    if len(n.proto.output) < 2 or not n.proto.output[1]:
        return values
    columns = bool(n.attr("storage_order", 0))
    return values, _pooled(n, x, "max_pool_indices", win, column_major=columns)


def average_pooled(n: Node, x: Value) -> Value:
    """Means of x's windows; pads count where asked for."""
    include = bool(n.attr("count_include_pad", 0))
    return _pooled(n, x, "avg_pool", _window(n, x), count_include_pad=include)


def average_pool(n: Node) -> Result:
    """Means of windows."""
    return average_pooled(n, n.x(0))


def lp_pool(n: Node) -> Result:
    """The p-norm of each window."""
    return _pooled(n, n.x(0), "lp_pool", _window(n, n.x(0)), p=n.attr("p", 2))


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
)
