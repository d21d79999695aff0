"""Import rows of vision: sampling at computed points, columns to images, suppression of boxes.

Imports: node, the geometry of rows_linear, ir.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .node import Node, Result, Row
from .rows_linear import geometry, per_channel

MODES = {"bilinear": "linear", "bicubic": "cubic"}


def grid_sample(n: Node) -> Result:
    """The IR's `grid_sample`; before opset 20 its modes have other names."""
    mode = n.attr("mode", "bilinear")
    return n.b.grid_sample(  # type: ignore[no-any-return]
        n.x(0), n.x(1), mode=MODES.get(mode, mode), padding=n.attr("padding_mode", "zeros"),
        align_corners=bool(n.attr("align_corners", 0)),
    )  # fmt: skip


def affine_grid(n: Node) -> Result:
    """The points of an image of known extents, the last axis first, times theta [N, K, K + 1]."""
    theta, size = n.x(0), n.numbers(1, "size")
    extents = size[2:]
    rank = len(extents)
    if theta.tensor.rank != 3 or theta.tensor.shape[1:] != (rank, rank + 1):
        raise n.invalid("E0316", f"AffineGrid: theta must be [N, {rank}, {rank + 1}]")
    lines = []
    for extent in extents:
        at = np.arange(extent) * 2 + 1 - extent  # from -1 to 1, times the span
        lines.append(at / max(extent - 1 if n.attr("align_corners", 0) else extent, 1))
    points = np.meshgrid(*lines, indexing="ij")[::-1]
    table = np.stack([*points, np.ones(extents)], -1).reshape(-1, rank + 1)
    base = n.const(table, theta.tensor.dtype)
    out = n.b.contract(base, theta, equation="pk,njk->npj")
    return n.reshape(out, (theta.tensor.shape[0], *extents, rank))


def deform_conv(n: Node) -> Result:
    """The IR's `deform_conv`, plus bias."""
    x, w = n.x(0), n.x(1)
    if x.tensor.rank < 3 or w.tensor.rank != x.tensor.rank:
        raise n.invalid("E0314", "DeformConv: x and w must be [N, C, ...] and [O, C, ...]")
    kernel = w.tensor.shape[2:]
    if any(type(k) is not int for k in kernel):
        raise n.unsupported("DeformConv: the extents of the kernel must be known")
    win = geometry(n, x.tensor.shape[2:], kernel)  # type: ignore[arg-type]
    out = n.b.deform_conv(
        x, w, n.x(2), n.opt(4), strides=win.strides, pads=win.pads, dilations=win.dilations,
        groups=n.attr("group", 1), offset_groups=n.attr("offset_group", 1),
    )  # fmt: skip
    bias = n.opt(3)
    return out if bias is None else n.b.add(out, per_channel(n, bias, out))


def col2im(n: Node) -> Result:
    """The IR's `col2im`."""
    size, kernel = n.dims(1, "image shape"), n.numbers(2, "block shape")
    rank = len(size)
    return n.b.col2im(  # type: ignore[no-any-return]
        n.x(0), size=size, kernel=kernel, strides=n.ints("strides") or (1,) * rank,
        pads=n.ints("pads") or (0,) * (2 * rank), dilations=n.ints("dilations") or (1,) * rank,
    )  # fmt: skip


def non_max_suppression(n: Node) -> Result:
    """The IR's `non_max_suppression`, a step of the host."""
    given = [n.opt(k) for k in range(5)]
    return n.b.non_max_suppression(*given, centred=bool(n.attr("center_point_box", 0)))  # type: ignore[no-any-return]


ROWS: Sequence[tuple[str, int, Row]] = (
    ("GridSample", 16, grid_sample),
    ("AffineGrid", 20, affine_grid),
    ("DeformConv", 19, deform_conv),
    ("Col2Im", 18, col2im),
    ("NonMaxSuppression", 10, non_max_suppression),
)
