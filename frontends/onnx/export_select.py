"""Export rows of ops whose results data decides, of regions of interest, and of determinants.

Imports: the graph being written, ir.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...ir.types import bf16, f32
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


ROWS: Mapping[str, Row] = {
    "compress": compress,
    "non_zero": non_zero,
    "unique": unique,
    "det": det,
    "max_roi_pool": max_roi_pool,
    "max_unpool": max_unpool,
    "roi_align": roi_align,
}
