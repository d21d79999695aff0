"""Export rows of ops whose results data decides, of regions and points of images, of determinants.

Imports: the graph being written, ir.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...ir.dims import DimLike
from ...ir.types import bf16, f32
from .export_compute import conv_attrs, window_attrs
from .export_dims import keeps_zero, numbers, reshape_target, vector
from .export_graph import Place, Row


def compress(p: Place) -> str:
    """Compress."""
    return p.in_f32(lambda x: p.node("Compress", x, p.x(1), axis=p.attrs["axis"]))


def non_zero(p: Place) -> str:
    """NonZero."""
    return p.node("NonZero", p.x())


def unique(p: Place) -> Sequence[str]:
    """Unique with its four results."""
    how = None if p.attrs["sorted"] else 0
    narrow = p.type().dtype is bf16
    x = p.cast(p.x(), f32) if narrow else p.x()
    values, *rest = p.nodes("Unique", 4, x, axis=p.attrs["axis"], sorted=how)
    return [p.cast(values, bf16) if narrow else values, *rest]


def det(p: Place) -> str:
    """Det."""
    return p.node("Det", p.x())


def max_roi_pool(p: Place) -> str:
    """MaxRoiPool."""
    return p.node("MaxRoiPool", *p.all(), pooled_shape=list(p.attrs["size"]),
                  spatial_scale=p.attrs["scale"])  # fmt: skip


def max_unpool(p: Place) -> str:
    """The kernel of stride 1 that gives the shape."""
    told = zip(p.attrs["shape"][2:], p.type().shape[2:])
    kernel = [full - less + 1 for full, less in told]
    if not kernel or not all([isinstance(k, int) and k > 0 for k in kernel]):
        raise p.refuse("no spatial axes, or an extent less than the operand's or not known")
    return p.node("MaxUnpool", p.x(0), p.to_i64(1), kernel_shape=kernel)


def roi_align(p: Place) -> str:
    """RoiAlign; the batch indices are i64."""
    height, width = p.attrs["size"]
    lies = "half_pixel" if p.attrs["half_pixel"] else "output_half_pixel"
    return p.node("RoiAlign", p.x(0), p.x(1), p.to_i64(2), output_height=height,
                  output_width=width, sampling_ratio=p.attrs["sampling"], mode=p.attrs["mode"],
                  spatial_scale=p.attrs["scale"], coordinate_transformation_mode=lies)  # fmt: skip


def non_max_suppression(p: Place) -> str:
    """NonMaxSuppression; the most boxes are counted in i64."""
    most = p.to_i64(2) if p.x(2) else ""
    centred = 1 if p.attrs["centred"] else None
    return p.node("NonMaxSuppression", p.x(0), p.x(1), most, p.x(3), p.x(4),
                  center_point_box=centred)  # fmt: skip


def col2im(p: Place) -> str:
    """Col2Im, from opset 18 on."""
    p.need(18, "col2im")
    kernel = p.attrs["kernel"]
    attrs = window_attrs(p.op, kernel)
    attrs.pop("kernel_shape")
    size = vector(p.graph, p.attrs["size"])
    return p.node("Col2Im", p.x(), size, numbers(p.graph, kernel), **attrs)


_OLD_MODES = {"linear": "bilinear", "cubic": "bicubic"}


def grid_sample(p: Place) -> str:
    """GridSample, whose points have as many axes as the image; before opset 20 for two axes, in
    other words.
    """
    mode, rank, grid = p.attrs["mode"], p.type().rank, p.type(1).shape
    if rank != 4:
        p.need(20, f"grid_sample of {rank - 2} axes")
    if p.opset < 20:
        mode = _OLD_MODES.get(mode, mode)
    points, axes = grid[1:-1], rank - 2
    more = len(points) - axes
    laid: tuple[DimLike, ...] = (*[1] * -more, *points)
    if more > 0:
        laid = (math.prod(points[: more + 1]), *points[more + 1 :])
    told = p.x(1)
    if more:
        target = (grid[0], *laid, grid[-1])
        shape = reshape_target(p, grid, target)
        told = p.node("Reshape", told, shape, allowzero=keeps_zero(target))
    made = p.node("GridSample", p.x(0), told, mode=mode, padding_mode=p.attrs["padding"],
                  align_corners=int(p.attrs["align_corners"]))  # fmt: skip
    if not more:
        return made
    back = reshape_target(p, (*p.type().shape[:2], *laid), p.out.shape)
    return p.node("Reshape", made, back, allowzero=keeps_zero(p.out.shape))


def deform_conv(p: Place) -> str:
    """DeformConv, from opset 19 on."""
    p.need(19, "deform_conv")
    attrs = conv_attrs(p.op) | {"offset_group": p.attrs["offset_groups"]}
    return p.node("DeformConv", p.x(0), p.x(1), p.x(2), "", p.x(3), **attrs)


ROWS: Mapping[str, Row] = {
    "non_max_suppression": non_max_suppression,
    "col2im": col2im,
    "grid_sample": grid_sample,
    "deform_conv": deform_conv,
    "compress": compress,
    "non_zero": non_zero,
    "unique": unique,
    "det": det,
    "max_roi_pool": max_roi_pool,
    "max_unpool": max_unpool,
    "roi_align": roi_align,
}
