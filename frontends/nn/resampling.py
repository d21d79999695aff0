"""Images made larger, smaller, or padded: interpolate, pixel shuffle, padding layers.

May import: ir, its siblings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from ...ir.errors import Error
from ...ir.ops.resize import Resize
from .dispatch import apply, as_tensor
from .layers import Layer, padded, tupled
from .shaping import reshape, transpose
from .tensor import Tensor

_MODES = {"nearest": 0, "linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
_OURS = {"linear": "linear", "bilinear": "linear", "trilinear": "linear", "bicubic": "cubic"}

# ------------------------------------------------------------ functions


def interpolate(
    x: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool = False, recompute_scale_factor: bool = False,
) -> Tensor:  # fmt: skip
    """x [N, C, *S] with spatial extents `size`, or those times `scale_factor`, floored."""
    x = as_tensor(x)
    rank = x.ndim - 2
    if mode not in _MODES or (_MODES[mode] and _MODES[mode] != rank):
        raise Error("E0641", f"interpolate: no mode '{mode}' for {x.ndim} axes",
                    details=(f"found {x.type}",), hint=", ".join(_MODES))  # fmt: skip
    if (size is None) == (scale_factor is None):
        raise Error("E0641", "interpolate takes a size or a scale_factor, one of them")
    space = x.type.shape[2:]
    scales: tuple[float, ...] = ()
    if size is not None:
        sizes = tupled(size, rank, "size")
    else:
        factors = _factors(scale_factor, rank)
        sizes = tuple([_scaled(e, f) for e, f in zip(space, factors)])
        scales = () if recompute_scale_factor or align_corners else factors
    axes = tuple(range(2, 2 + rank))
    if mode == "nearest":
        attrs: dict[str, Any] = {"coordinates": "asymmetric", "rounding": "floor"}
    else:
        way = "align_corners" if align_corners else "half_pixel"
        attrs = {"mode": _OURS[mode], "coordinates": way}
    made: Tensor = apply(Resize, x, axes=axes, sizes=sizes, scales=scales, **attrs)
    return made


def _factors(scale: Any, rank: int) -> tuple[float, ...]:
    if isinstance(scale, (int, float)):
        return (float(scale),) * rank
    return tuple([float(s) for s in scale])


def _scaled(extent: Any, factor: float) -> Any:
    """An extent times a factor, floored; symbolic extents take whole factors."""
    if isinstance(extent, int):
        return math.floor(extent * factor)
    if factor != int(factor):
        raise Error("E0641", f"the symbolic extent {extent} is scaled by whole factors only",
                    details=(f"found {factor}",))  # fmt: skip
    return extent * int(factor)


def pixel_shuffle(x: Any, upscale_factor: int) -> Tensor:
    """x [..., C*r*r, H, W] to [..., C, H*r, W*r] (Shi 2016)."""
    x, r = as_tensor(x), upscale_factor
    *lead, c, h, w = x.type.shape
    k = len(lead)
    split = reshape(x, (*lead, c // (r * r), r, r, h, w))
    order = (*range(k), k, k + 3, k + 1, k + 4, k + 2)
    return reshape(transpose(split, order), (*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(x: Any, downscale_factor: int) -> Tensor:
    """x [..., C, H*r, W*r] to [..., C*r*r, H, W]: the inverse of `pixel_shuffle`."""
    x, r = as_tensor(x), downscale_factor
    *lead, c, h, w = x.type.shape
    k = len(lead)
    split = reshape(x, (*lead, c, h // r, r, w // r, r))
    order = (*range(k), k, k + 2, k + 4, k + 1, k + 3)
    return reshape(transpose(split, order), (*lead, c * r * r, h // r, w // r))


def channel_shuffle(x: Any, groups: int) -> Tensor:
    """x [N, C, *S] with the channels of `groups` groups dealt out in turn (Zhang 2018)."""
    x = as_tensor(x)
    n, c, *space = x.type.shape
    split = reshape(x, (n, groups, c // groups, *space))
    return reshape(split.swapaxes(1, 2), (n, c, *space))


# ------------------------------------------------------------ layers


class Upsample(Layer):
    """`interpolate` as a layer."""

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
        align_corners: bool = False, recompute_scale_factor: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.size, self.scale_factor, self.mode = size, scale_factor, mode
        self.align_corners = bool(align_corners)
        self.recompute_scale_factor = bool(recompute_scale_factor)

    def describe(self) -> str:
        return f"Upsample {self.mode} {self.size if self.size is not None else self.scale_factor}"

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(x, self.size, self.scale_factor, self.mode, self.align_corners,
                           self.recompute_scale_factor)  # fmt: skip


class PixelShuffle(Layer):
    """`pixel_shuffle` as a layer."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, x: Tensor) -> Tensor:
        self.divides(x, -3, self.upscale_factor**2)
        return pixel_shuffle(x, self.upscale_factor)

    def divides(self, x: Tensor, axis: int, count: int) -> None:
        """E0640 unless `count` divides an extent."""
        extent = x.type.shape[axis] if x.ndim >= 3 else 0
        if x.ndim < 3 or isinstance(extent, int) and extent % count:
            raise self.wrong("the factor does not divide the extent",
                             f"a multiple of {count} along axis {axis}", x.type)  # fmt: skip


class PixelUnshuffle(PixelShuffle):
    """`pixel_unshuffle` as a layer."""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__(downscale_factor)
        self.downscale_factor = downscale_factor

    def forward(self, x: Tensor) -> Tensor:
        self.divides(x, -1, self.downscale_factor)
        self.divides(x, -2, self.downscale_factor)
        return pixel_unshuffle(x, self.downscale_factor)


class ChannelShuffle(PixelShuffle):
    """`channel_shuffle` as a layer."""

    def __init__(self, groups: int) -> None:
        super().__init__(groups)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        self.divides(x, 1, self.groups)
        return channel_shuffle(x, self.groups)


class _Padding(Layer):
    """Base of the padding layers: torch's order, the last axis first, (left, right, top, ...)."""

    rank: ClassVar[int]
    mode: ClassVar[str] = "constant"
    value: float = 0.0

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        self.padding = tupled(padding, 2 * self.rank, "padding")

    def describe(self) -> str:
        return f"{type(self).__name__} {self.padding}"

    def forward(self, x: Tensor) -> Tensor:
        self.expect_rank(
            x, (self.rank + 1, self.rank + 2), f"{self.rank} axes behind [N, C] or [C]"
        )
        low, high = self.padding[-2::-2], self.padding[::-2]
        self.check_pads(x, low, high)
        return padded(x, low, high, self.mode, self.value)

    def check_pads(self, x: Tensor, low: Sequence[int], high: Sequence[int]) -> None:
        """E0640 where a pad repeats more than the image has (torch's rule)."""
        if self.mode not in ("reflect", "wrap"):
            return
        spare = 1 if self.mode == "reflect" else 0
        for extent, pad in zip(x.type.shape[-self.rank :], map(max, low, high)):
            if isinstance(extent, int) and pad > extent - spare:
                raise self.wrong("a pad is wider than the image",
                                 f"at least {pad + spare} elements", x.type)  # fmt: skip


class _ConstantPad(_Padding):
    """Base of the pads with one value."""

    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value


class ConstantPad1d(_ConstantPad):
    """One value around the last axis."""

    rank = 1


class ZeroPad1d(_Padding):
    """Zeros around the last axis."""

    rank = 1


class ReflectionPad1d(_Padding):
    """The mirror image around the last axis, without the edge."""

    rank, mode = 1, "reflect"


class ReplicationPad1d(_Padding):
    """The nearest elements around the last axis."""

    rank, mode = 1, "edge"


class CircularPad1d(_Padding):
    """The other end around the last axis."""

    rank, mode = 1, "wrap"


class ConstantPad2d(_ConstantPad):
    """One value around the last two axes."""

    rank = 2


class ZeroPad2d(_Padding):
    """Zeros around the last two axes."""

    rank = 2


class ReflectionPad2d(_Padding):
    """The mirror image around the last two axes, without the edge."""

    rank, mode = 2, "reflect"


class ReplicationPad2d(_Padding):
    """The nearest elements around the last two axes."""

    rank, mode = 2, "edge"


class CircularPad2d(_Padding):
    """The other end around the last two axes."""

    rank, mode = 2, "wrap"


class ConstantPad3d(_ConstantPad):
    """One value around the last three axes."""

    rank = 3


class ZeroPad3d(_Padding):
    """Zeros around the last three axes."""

    rank = 3


class ReflectionPad3d(_Padding):
    """The mirror image around the last three axes, without the edge."""

    rank, mode = 3, "reflect"


class ReplicationPad3d(_Padding):
    """The nearest elements around the last three axes."""

    rank, mode = 3, "edge"


class CircularPad3d(_Padding):
    """The other end around the last three axes."""

    rank, mode = 3, "wrap"


__all__ = [
    "ChannelShuffle", "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d",
    "ConstantPad2d", "ConstantPad3d", "PixelShuffle", "PixelUnshuffle", "ReflectionPad1d",
    "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d", "ReplicationPad2d",
    "ReplicationPad3d", "Upsample", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d", "channel_shuffle",
    "interpolate", "pixel_shuffle", "pixel_unshuffle",
]  # fmt: skip
