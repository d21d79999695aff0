"""Import rows of resizing: Resize, Upsample.  Imports: node, ir."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from ...ir.dims import DimLike, equal
from .node import Node, Result, Row

MOST = 64
"""The greatest factor that is looked for between two extents that are not known."""


class Target(NamedTuple):
    """One resized axis: the result's extent, and result over source."""

    axis: int
    size: DimLike
    scale: float


def resize(n: Node) -> Result:
    """The IR's `resize` of the axes that change."""
    dims = n.shape(0)
    newer = n.version >= 11 and n.op == "Resize"
    axes = tuple([n.axis(a, len(dims)) for a in n.ints("axes") or range(len(dims))])
    coordinates = n.attr(
        "coordinate_transformation_mode", "half_pixel" if newer else "asymmetric"
    )
    mode = n.attr("mode", "nearest")
    targets = _targets(n, dims, axes)
    roi = _region(n, axes) if coordinates == "tf_crop_and_resize" else [(0.0, 1.0)] * len(axes)
    chosen = [
        (t, r) for t, r in zip(targets, roi)
        if not (t.size is dims[t.axis] or t.size == dims[t.axis]) or t.scale != 1.0
        or r != (0.0, 1.0)
    ]  # fmt: skip
    if not chosen:
        return n.x(0)
    return n.b.resize(  # type: ignore[no-any-return]
        n.x(0),
        axes=[t.axis for t, _ in chosen],
        sizes=[t.size for t, _ in chosen],
        scales=[t.scale for t, _ in chosen],
        mode={"bilinear": "linear", "trilinear": "linear"}.get(mode, mode),
        coordinates=coordinates,
        rounding=n.attr("nearest_mode", "round_prefer_floor" if newer else "floor"),
        cubic=n.attr("cubic_coeff_a", -0.75),
        antialias=bool(n.attr("antialias", 0)),
        exclude_outside=bool(n.attr("exclude_outside", 0)),
        roi=[*[r[0] for _, r in chosen], *[r[1] for _, r in chosen]],
        extrapolation=n.attr("extrapolation_value", 0.0),
    )


def _region(n: Node, axes: Sequence[int]) -> list[tuple[float, float]]:
    """(first, last) of each axis, in units of its extent."""
    known = n.known(1)
    if known is None or known.size != 2 * len(axes):
        raise n.unsupported(f"{n.op}: its region must be known when the model is imported")
    values = [float(v) for v in known.reshape(-1)]
    return list(zip(values[: len(axes)], values[len(axes) :]))


def _targets(n: Node, dims: Sequence[DimLike], axes: Sequence[int]) -> list[Target]:
    """What becomes of each axis, from the operands that are not empty."""
    scales_at, sizes_at = (1, 3) if n.op == "Upsample" or n.version < 11 else (2, 3)
    said = n.attr("scales") if n.version < 9 else None
    known = n.known(scales_at) if n.version >= 9 else None
    scales = said if said is not None else [] if known is None else known.reshape(-1).tolist()
    if not scales and not n.has(sizes_at):
        raise n.unsupported(f"{n.op}: its scales must be known when the model is imported")
    if not scales:
        return _sized(n, dims, axes, n.dims(sizes_at, "sizes"))
    if len(scales) != len(axes) or min(scales) <= 0:
        raise n.invalid("E0317", f"{n.op}: scales do not fit", f"{scales}")
    return [Target(a, _scaled(dims[a], s), float(s)) for a, s in zip(axes, scales)]


def _scaled(extent: DimLike, scale: float) -> DimLike:
    if type(extent) is int:
        return math.floor(extent * scale)
    ratio = Fraction(scale).limit_denominator(1000)
    return extent * ratio.numerator // ratio.denominator


def _sized(
    n: Node, dims: Sequence[DimLike], axes: Sequence[int], sizes: Sequence[DimLike]
) -> list[Target]:
    """Scales that follow from sizes, which `keep_aspect_ratio_policy` may change."""
    if len(sizes) != len(axes) or any(type(s) is int and s > 1 << 20 for s in sizes):
        raise n.invalid("E0317", f"{n.op}: sizes do not fit", f"{sizes}")
    scales = [_scale(n, dims[a], size) for a, size in zip(axes, sizes)]
    policy = n.attr("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        scale = min(scales) if policy == "not_larger" else max(scales)
        scales = [scale] * len(axes)
        extents = [dims[a] for a in axes]
        if any(type(e) is not int for e in extents):
            raise n.unsupported(f"{n.op}: keep_aspect_ratio_policy needs known extents",
                                hint="give the extents with shapes=")  # fmt: skip
        sizes = [math.floor(e * scale + 0.5) for e in extents]  # type: ignore[operator]
    return [Target(*t) for t in zip(axes, sizes, scales)]


def _scale(n: Node, extent: DimLike, size: DimLike) -> float:
    if type(extent) is int and type(size) is int:
        return size / extent if extent else 1.0
    for factor in range(1, MOST + 1):
        for scale in (Fraction(factor), Fraction(1, factor)):
            if equal(size, extent * scale.numerator // scale.denominator) is True:
                return float(scale)
    raise n.unsupported(f"{n.op}: the ratio of {size} to {extent} is not known",
                        hint="give the extents with shapes=")  # fmt: skip


ROWS: Sequence[tuple[str, int, Row]] = (("Resize", 10, resize), ("Upsample", 7, resize))
