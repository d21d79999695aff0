"""Sliding windows: the geometry that convolution and pooling share.

A window has per spatial axis a kernel extent, a stride, a pad before and after, and a dilation;
element `tap` of window `at` reads position at*stride + tap*dilation - pad.  Imports: dims,
constraints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..dims import DimLike, ceildiv, max_, min_
from ..errors import Error
from ..types import Shape, TensorType
from .constraints import least, require, same


@dataclass(frozen=True, slots=True)
class Window:
    """One kernel extent, stride, pad before, pad after and dilation per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.kernel)

    def reach(self, axis: int) -> int:
        """How many positions the dilated kernel spans."""
        return self.dilations[axis] * (self.kernel[axis] - 1) + 1

    def extent(self, axis: int, size: DimLike, ceil: bool = False) -> DimLike:
        """How many windows there are along an axis of `size` positions.

        With `ceil` a last, partial window counts if it starts inside the input or the pad before
        it.
        """
        stride, before = self.strides[axis], self.before[axis]
        room = size + before + self.after[axis] - self.reach(axis)
        if not ceil:
            return room // stride + 1
        return min_(ceildiv(room, stride) + 1, ceildiv(size + before, stride))

    def position(self, axis: int, at: DimLike, tap: DimLike) -> DimLike:
        """The position, negative inside the pad, that tap `tap` of window `at` reads."""
        return at * self.strides[axis] + tap * self.dilations[axis] - self.before[axis]

    def slices(self, tap: Sequence[int], counts: Sequence[int]) -> tuple[slice, ...]:
        """What tap `tap` of `counts` windows reads of the padded input."""
        parts = []
        for t, d, count, stride in zip(tap, self.dilations, counts, self.strides):
            stop = t * d + (count - 1) * stride + 1 if count else t * d
            parts.append(slice(t * d, stop, stride))
        return tuple(parts)

    def taps_inside(self, axis: int, at: DimLike, low: int, high: DimLike) -> DimLike:
        """How many taps of window `at` read a position p with low <= p < high."""
        start = self.position(axis, at, 0)
        step = self.dilations[axis]
        first = max_(0, ceildiv(low - start, step))
        return max_(0, min_(self.kernel[axis], ceildiv(high - start, step)) - first)


def window(
    op: str,
    kernel: Sequence[DimLike],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> Window:
    """The window that these attributes say (empty means ones, no pads); constraint C3 of the op."""
    rank = len(kernel)
    static = all([type(k) is int and k >= 1 for k in kernel])
    require(
        static,
        "E0315",
        f"{op} (C3): kernel extents must be known and at least 1",
        f"found {tuple(kernel)}",
    )
    strides = tuple(strides) or (1,) * rank
    dilations = tuple(dilations) or (1,) * rank
    pads = tuple(pads) or (0,) * (2 * rank)
    sizes = len(strides) == rank and len(dilations) == rank and len(pads) == 2 * rank
    if not sizes or min((*strides, *dilations)) < 1 or min(pads) < 0:
        raise Error(
            "E0315",
            f"{op} (C3): {rank} strides and dilations (at least 1), {2 * rank} pads (at least 0)",
            details=(f"strides {strides}, pads {pads}, dilations {dilations}",),
            hint="pads are (before each axis ..., after each axis ...)",
        )
    fixed = tuple([k for k in kernel if type(k) is int])
    return Window(fixed, strides, pads[:rank], pads[rank:], dilations)


def windows_of(op: str, shape: Shape, win: Window, ceil: bool = False) -> Shape:
    """The number of windows per spatial axis; constraint C4: the kernel fits the padded input."""
    out = tuple([win.extent(k, size, ceil) for k, size in enumerate(shape)])
    for axis, (size, count) in enumerate(zip(shape, out)):
        require(
            least(count, 0),
            "E0315",
            f"{op} (C4): the kernel is larger than the padded input",
            f"spatial axis {axis}: extent {size}, pads {win.before[axis]} and {win.after[axis]}, "
            f"kernel spans {win.reach(axis)}",
        )
    return out


def check_windows(op: str, size: Shape, g: TensorType, win: Window) -> None:
    """Constraint C4 of a convolution's derivatives: g has one position for each window."""
    for k, count in enumerate(windows_of(op, size, win)):
        require(
            same(count, g.shape[2 + k]),
            "E0314",
            f"{op} (C4): g does not have one position for each window",
            f"spatial axis {k}: {count} windows, g : {g}",
        )


__all__ = ["Window", "check_windows", "window", "windows_of"]
