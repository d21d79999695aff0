"""Padding: `pad` with a constant, the edge, a mirror image or the other end; negative pads crop.

Imports: the core, types, dims.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Grads, Op, Plain, Value, attr, operand, sample
from ..dims import DimLike, max_, min_, nonneg
from ..types import Shape, TensorType
from .constraints import least, require
from .elementwise import constant, widened
from .index import added_along
from .shape import element_by_element

MODES = ("constant", "edge", "reflect", "wrap")


class Pad(Op):
    """x with `low` elements before and `high` behind each axis; negative counts take elements away.

    `mode` says what the new elements are: constant (`value`), edge (the nearest element), reflect
    (the mirror image without the edge, again and again) or wrap (the other end). C1: one `low` and
    `high` per axis, a known mode.  C2: no extent becomes negative. C3: modes other than constant
    need an element in every axis that grows.
    """

    x = operand(Plain)
    low = attr(tuple)
    high = attr(tuple)
    mode = attr(str, "constant")
    value = attr(object, 0)

    @staticmethod
    def infer(x: TensorType, low: Shape, high: Shape, mode: str, value: Any) -> TensorType:
        require(
            len(low) == len(high) == x.rank and mode in MODES,
            "E0319",
            f"pad (C1): one pad before and after per axis, mode one of {', '.join(MODES)}",
            f"found {x}, low {low}, high {high}, mode {mode}",
        )
        shape = tuple([e + a + c for e, a, c in zip(x.shape, low, high)])
        for axis, extent in enumerate(shape):
            found = f"axis {axis}: extent {x.shape[axis]}, pads {low[axis]} and {high[axis]}"
            require(least(extent, 0), "E0319", "pad (C2): an extent becomes negative", found)
            if mode != "constant" and least(extent, 1) is True:
                require(least(x.shape[axis], 1), "E0319", "pad (C3): nothing to repeat", found)
        return TensorType(x.dtype, shape)

    @staticmethod
    def evaluate(
        x: Array, low: tuple[int, ...], high: tuple[int, ...], mode: str, value: Any
    ) -> Array:
        if mode == "constant":
            out = np.full([e + a + c for e, a, c in zip(x.shape, low, high)], value, x.dtype)
            kept = [slice(max(0, -a), e - max(0, -c)) for e, a, c in zip(x.shape, low, high)]
            part = x[tuple(kept)]
            out[tuple([slice(max(0, a), max(0, a) + e) for e, a in zip(part.shape, low)])] = part
            return out
        for axis, (a, c) in enumerate(zip(low, high)):
            extent = x.shape[axis]
            at = np.arange(-a, extent + c)
            if mode == "edge":
                at = np.clip(at, 0, max(extent - 1, 0))
            elif mode == "wrap" or extent == 1:
                at = at % max(extent, 1)
            else:
                at = at % max(2 * (extent - 1), 1)
                at = np.minimum(at, 2 * (extent - 1) - at)
            x = np.take(x, at, axis)
        return x

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the result; x is read at i - low, which a fill or the mode's rule keeps inside."""
        shape = xs[0].tensor.shape
        fill = None
        if self.mode == "constant":
            fill = bool(self.value) if xs[0].tensor.dtype.kind == "bool" else self.value

        def index(at: list[DimLike]) -> list[DimLike]:
            return [
                i if p == q == 0 else _source(i - p, e, p, q, self.mode)
                for i, e, p, q in zip(at, shape, self.low, self.high)
            ]

        return element_by_element(b, self, xs[0], index, fill=fill)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """The part that was x; what was repeated from it is added where it came from."""
        if self.mode != "constant":
            (g,) = widened(b, g)
        for axis, (low, high) in enumerate(zip(self.low, self.high)):
            if self.mode != "constant" and not (low == high == 0):
                g = self._folded(b, g, axis, low, high)
        if self.mode == "constant":
            g = b.pad(g, low=[-a for a in self.low], high=[-c for c in self.high])
        return (g,)

    def _folded(self, b: Builder, g: Value, axis: int, low: DimLike, high: DimLike) -> Value:
        """The cotangent from before axis `axis` was padded by copies."""
        extent = self.x.tensor.shape[axis]
        rank = range(g.tensor.rank)
        crop = [[-count if k == axis else 0 for k in rank] for count in (low, high)]
        kept = b.pad(g, low=crop[0], high=crop[1])
        ends, places = [], []
        for size, start, first in ((max_(0, low), 0, -low), (max_(0, high), low + extent, extent)):
            if type(size) is int and size == 0:
                continue
            starts = [start if k == axis else 0 for k in rank]
            sizes = [size if k == axis else e for k, e in enumerate(g.tensor.shape)]
            ends.append(b.slice(g, starts=starts, sizes=sizes))
            places.append(b.add(b.iota(shape=(size,)), b.dim_value(dim=first)))
        if not ends:
            return kept  # type: ignore[no-any-return]
        border, place = b.concat(*ends, axis=axis), b.concat(*places, axis=0)
        source = _source_values(b, place, extent, self.mode)
        return b.add(kept, added_along(b, border, source, axis, extent))  # type: ignore[no-any-return]

    samples = (
        sample((3, 5), low=(1, 0), high=(0, 2)),
        sample((3, 5), low=(-1, 2), high=(1, -3), value=0.5),
        sample((2, 3), low=(0, 1), high=(2, 0), mode="edge"),
        sample((4, 3), low=(3, 1), high=(2, 2), mode="reflect"),
        sample((3, 1), low=(7, 1), high=(5, 2), mode="reflect"),
        sample((3, 2), low=(4, 0), high=(1, 3), mode="wrap"),
        sample((5, 4), low=(-2, -1), high=(2, 1), mode="edge"),
        sample((0, 2), low=(1, 0), high=(1, 0), value=2.0),
        sample((), low=(), high=()),
        sample((3,), low=(1,), high=(1,), dtypes=("i8",), value=-7),
        sample((3,), low=(1,), high=(1,), dtypes=("bool",), value=1),
        sample((3,), low=(1,), high=(1,), dtypes=("f16",), value=1.5),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((3, 5), low=(1,), high=(0, 2))),
        ("C1", sample((3,), low=(1,), high=(1,), mode="mirror")),
        ("C2", sample((3,), low=(-2,), high=(-2,))),
        ("C3", sample((0,), low=(1,), high=(1,), mode="edge")),
    )


def _source(at: DimLike, extent: DimLike, low: DimLike, high: DimLike, mode: str) -> DimLike:
    """Where x is read for position `at` (from -low to extent + high - 1) of one axis."""
    last = extent - 1
    if nonneg(-low) is True and nonneg(-high) is True:
        return at
    if mode == "constant":
        return at
    if mode == "edge":
        return max_(0, min_(at, last))
    if mode == "wrap":
        return at % extent
    if extent == 1:
        return 0
    if nonneg(last - low) is True and nonneg(last - high) is True:
        once = max_(at, -at)
        return min_(once, 2 * last - once)
    period = max_(1, 2 * last)
    round_ = at % period
    return min_(round_, period - round_) if type(extent) is int else min_(round_, 2 * last - round_)


def _source_values(b: Builder, place: Value, extent: DimLike, mode: str) -> Value:
    """As `_source`, of a tensor of places from minus the low pad on."""
    last = b.dim_value(dim=extent - 1)
    if mode == "edge":
        return b.min(b.max(place, constant(b, place, 0)), last)  # type: ignore[no-any-return]
    if mode == "wrap":
        return b.mod(place, b.dim_value(dim=extent))  # type: ignore[no-any-return]
    round_ = b.mod(place, b.dim_value(dim=max_(1, 2 * (extent - 1))))
    return b.min(round_, b.sub(b.add(last, last), round_))  # type: ignore[no-any-return]


__all__ = ["MODES", "Pad"]
