"""Random changes of batches of images [N, C, H, W], eager or in the compiled step: `nn.augment`.

The maths (`flip`, `window`, `shift`, `rotate`, `sample`, `adjust`, `normalize`, `erase`, `blend`)
is that of irc.data's augmentation and takes numbers [N]; the functions that draw these numbers
(`random_flip` ... `mixup`) take them from nn's Philox stream, so eager, compiled and C runs of one
seed change the images alike.  The layers draw while training and are the identity in evaluation.
Float images are 0 to 1, u8 ones 0 to 255; the element type stays.  H and W are known numbers, N
may be symbolic.  May import: ir, its siblings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.errors import Error
from ...ir.types import f32, f64, i64, u8
from .activation import sigmoid
from .creation import arange
from .dispatch import as_tensor, here
from .functions import cast, clip, cos, floor, greater, less, log, round, sin, where
from .indexing import one_hot, take, take_along_axis
from .layers import Layer
from .random import Generator, normal, permutation, randint, uniform
from .reductions import argmax, mean, sum
from .shaping import flip as reversed_along
from .shaping import reshape
from .tensor import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Red, green and blue in the brightness that the eye sees (ITU-R BT.601)."""


# ------------------------------------------------------------ the maths


def flip(x: Any, chosen: Any) -> Tensor:
    """Mirror left and right the images where `chosen` (bools [N])."""
    x = images(x, "flip")
    return where(_per_image(chosen), reversed_along(x, 3), x)


def shift(x: Any, down: Any, right: Any, fill: float = 0.0) -> Tensor:
    """Move each image by whole pixels, `down` and `right` ([N]); what comes in is `fill`."""
    x = images(x, "shift")
    return window(x, -as_tensor(down), -as_tensor(right), (x.shape[2], x.shape[3]), fill)


def window(x: Any, top: Any, left: Any, size: tuple[int, int], fill: float = 0.0) -> Tensor:
    """A part of `size` (h, w) of each image from pixel (`top`, `left`) ([N]); outside is `fill`."""
    x = images(x, "window")
    rows = _column(top) + arange(size[0])
    columns = _column(left) + arange(size[1])
    inside = _within(rows, x.shape[2])[:, :, None] & _within(columns, x.shape[3])[:, None]
    part = _gathered(x, clip(rows, 0, x.shape[2] - 1)[:, :, None],
                     clip(columns, 0, x.shape[3] - 1)[:, None], size)  # fmt: skip
    return where(inside[:, None], part, _filling(fill, x))


def rotate(x: Any, angles: Any, fill: float = 0.0) -> Tensor:
    """Turn each image counter-clockwise about its middle by `angles` ([N]) in radians, bilinear."""
    x = images(x, "rotate")
    height, width = x.shape[2:]
    turned = _column(angles)[:, :, None]
    c, s = cos(turned), sin(turned)
    dy = arange(height, dtype=turned.dtype)[:, None] - (height - 1) / 2
    dx = arange(width, dtype=turned.dtype)[None, :] - (width - 1) / 2
    return sample(x, (height - 1) / 2 + c * dy + s * dx, (width - 1) / 2 - s * dy + c * dx, fill)


def sample(x: Any, rows: Any, columns: Any, fill: float = 0.0) -> Tensor:
    """Bilinear values at fractional `rows`, `columns` ([N, h, w]) of each image; outside `fill`."""
    x, rows, columns = images(x, "sample"), as_tensor(rows), as_tensor(columns)
    height, width = x.shape[2:]
    size = (rows.shape[1], columns.shape[2])
    top, left = floor(rows), floor(columns)
    low, aside = cast(rows - top, f32)[:, None], cast(columns - left, f32)[:, None]
    top, left = cast(top, i64), cast(left, i64)
    made: Any = 0.0
    for dy, wy in ((0, 1 - low), (1, low)):
        for dx, wx in ((0, 1 - aside), (1, aside)):
            r, k = top + dy, left + dx
            inside = _within(r, height) & _within(k, width)
            value = _gathered(x, clip(r, 0, height - 1), clip(k, 0, width - 1), size)
            made = made + wy * wx * where(inside[:, None], _wide(value), _filling(fill, _wide(x)))
    return _like(made, x)


def adjust(x: Any, brightness: Any, contrast: Any, saturation: Any) -> Tensor:
    """Colour, by factors ([N]): all times b, then away from the mean grey by c, from grey by s."""
    x = images(x, "adjust")
    peak = 255.0 if x.type.dtype is u8 else 1.0
    wide = _wide(x)
    wide = wide * _factor(brightness, wide)
    middle = mean(_grey(wide), (1, 2, 3), keepdims=True)
    wide = middle + (wide - middle) * _factor(contrast, wide)
    grey = _grey(wide)
    return _like(clip(grey + (wide - grey) * _factor(saturation, wide), 0.0, peak), x)


def normalize(x: Any, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std, a number for each channel; u8 becomes f32."""
    x = images(x, "normalize")
    if not len(mean) == len(std) == x.shape[1] or min(std) <= 0:
        raise Error(
            "E0641", "augment.normalize: a mean and a deviation above 0 for each channel",
            where=here(), details=(f"found mean={list(mean)}, std={list(std)}", f"for {x.type}"),
        )  # fmt: skip
    wide = x if x.type.dtype.is_float else cast(x, f32)
    kind = wide.type.dtype.np
    middle, spread = [np.asarray(v, kind).reshape(-1, 1, 1) for v in (mean, std)]
    return (wide - as_tensor(middle)) / as_tensor(spread)


def erase(x: Any, row: Any, column: Any, size: int, fill: float = 0.0) -> Tensor:
    """Fill a square of `size` pixels with its middle at (`row`, `column`) ([N])."""
    x = images(x, "erase")
    rows = arange(x.shape[2]) - (_column(row) - size // 2)
    columns = arange(x.shape[3]) - (_column(column) - size // 2)
    hit = _within(rows, size)[:, :, None] & _within(columns, size)[:, None]
    return where(hit[:, None], _filling(fill, x), x)


def blend(x: Any, other: Any, share: Any) -> Tensor:
    """share * x + (1 - share) * other, `share` ([N]) along the first axis."""
    x = as_tensor(x)
    wide = _wide(x)
    part = reshape(cast(share, wide.type.dtype), (-1, *[1] * (x.ndim - 1)))
    return _like(part * wide + (1 - part) * _wide(as_tensor(other)), x)


# ------------------------------------------------------------ what is drawn


def random_flip(x: Any, p: float = 0.5, generator: Generator | None = None) -> Tensor:
    """Each image mirrored left and right with probability p."""
    x = images(x, "random_flip")
    _between("random_flip", "p", p, 0, 1)
    return flip(x, less(_uniform(x, generator), p))


def random_shift(
    x: Any, pixels: int = 2, fill: float = 0.0, generator: Generator | None = None
) -> Tensor:
    """Each image moved by up to `pixels` in each direction; what comes in is `fill`."""
    x = images(x, "random_shift")
    _between("random_shift", "pixels", pixels, 0)
    down, right = [_whole(x, -pixels, pixels + 1, generator) for _ in range(2)]
    return shift(x, down, right, fill)


def random_crop(
    x: Any,
    padding: int = 4,
    size: tuple[int, int] | None = None,
    fill: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """A random part of each image padded by `padding`; its `size` (h, w), by default as it was."""
    x = images(x, "random_crop")
    _between("random_crop", "padding", padding, 0)
    height, width = size or (x.shape[2], x.shape[3])
    _between("random_crop", "size[0]", height, 1, x.shape[2] + 2 * padding)
    _between("random_crop", "size[1]", width, 1, x.shape[3] + 2 * padding)
    room = (x.shape[2] + 2 * padding - height, x.shape[3] + 2 * padding - width)
    top, left = [_whole(x, 0, r + 1, generator) - padding for r in room]
    return window(x, top, left, (height, width), fill)


def random_rotate(
    x: Any, degrees: float = 15.0, fill: float = 0.0, generator: Generator | None = None
) -> Tensor:
    """Each image turned about its middle by up to `degrees` either way, bilinear."""
    x = images(x, "random_rotate")
    most = math.radians(degrees)
    return rotate(x, (_uniform(x, generator) * 2 - 1) * most, fill)


def colour(
    x: Any,
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    generator: Generator | None = None,
) -> Tensor:
    """Brightness, contrast and saturation times a factor from 1 - v to 1 + v each."""
    x = images(x, "colour")
    spread = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, value in spread.items():
        _between("colour", name, value, 0, 1)
    b, c, s = [1 + v * (_uniform(x, generator) * 2 - 1) for v in spread.values()]
    return adjust(x, b, c, s)


def cutout(x: Any, size: int = 8, fill: float = 0.0, generator: Generator | None = None) -> Tensor:
    """A square of `size` pixels filled, its middle anywhere; DeVries and Taylor, 2017."""
    x = images(x, "cutout")
    _between("cutout", "size", size, 1)
    row, column = [_whole(x, 0, extent, generator) for extent in x.shape[2:]]
    return erase(x, row, column, size, fill)


def mixup(
    x: Any,
    labels: Any,
    alpha: float = 0.2,
    classes: int | None = None,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Each sample mixed with another of its batch, labels alike; Zhang et al., 2017.

    The share is drawn from Beta(alpha, alpha), one for each sample.  Labels become rows of
    probabilities: class numbers [N] need `classes`, rows of floats are mixed as they are.
    """
    x = as_tensor(x)
    if alpha <= 0:
        raise _wrong("mixup", "alpha", alpha, "above 0")
    soft = probabilities(labels, classes)
    n = x.type.shape[0]
    share = beta(n, alpha, generator)
    order = permutation(n, generator)
    return blend(x, take(x, order, 0), share), blend(soft, take(soft, order, 0), share)


def probabilities(labels: Any, classes: int | None) -> Tensor:
    """Class numbers as rows of 0 and 1; rows of floats as they are."""
    given: Tensor = as_tensor(labels)
    if given.type.dtype.is_float:
        return given
    if classes is None:
        raise Error(
            "E0641", "augment.mixup of class numbers needs classes=, how many there are",
            where=here(), details=(f"found labels {given.type}",),
        )  # fmt: skip
    return one_hot(given, classes)


_TRIES = 8
"""Candidates per gamma number: one of them is accepted but for a chance below 1e-10."""


def beta(count: Any, alpha: float, generator: Generator | None = None) -> Tensor:
    """`count` numbers f32 from Beta(alpha, alpha): g / (g + h) of two gamma numbers, by logarithms,
    so that a small alpha does not end in 0 / 0.
    """
    g, h = [_log_gamma_number(count, alpha, generator) for _ in range(2)]
    return sigmoid(g - h)


def _log_gamma_number(count: Any, alpha: float, generator: Generator | None) -> Tensor:
    """The logarithms of gamma numbers: Marsaglia and Tsang (2000) at alpha + 1, then a power.

    All candidates are drawn at once and the first accepted one is taken: no loop.
    """
    d = alpha + 2 / 3
    z = normal((count, _TRIES), generator=generator)
    u = 1 - uniform((count, _TRIES), generator=generator)
    v = 1 + z / math.sqrt(9 * d)
    cubed = clip(v, 1e-3) ** 3
    fits = greater(v, 1e-3) & less(log(u), 0.5 * z * z + d * (1 - cubed + log(cubed)))
    first = argmax(cast(fits, f32), 1, keepdims=True)
    chosen = take_along_axis(cubed, first, 1)[:, 0]
    return math.log(d) + log(chosen) + log(1 - uniform((count,), generator=generator)) / alpha


# ------------------------------------------------------------ shared parts


def images(x: Any, name: str) -> Tensor:
    """A batch of images; E0640 for anything else."""
    given: Tensor = as_tensor(x)
    known = given.ndim == 4 and all(isinstance(e, int) for e in given.type.shape[1:])
    if not known or not (given.type.dtype.is_float or given.type.dtype is u8):
        raise Error(
            "E0640", f"augment.{name} works on images [N, C, H, W]", where=here(),
            details=("expected float or u8, fixed channels, height, width", f"found {given.type}"),
        )  # fmt: skip
    return given


def _between(name: str, field: str, value: float, low: float, high: float = math.inf) -> None:
    if not low <= value <= high:
        raise _wrong(
            name, field, value, f"{low} to {high}" if high < math.inf else f"{low} or more"
        )


def _wrong(name: str, field: str, value: object, expected: str) -> Error:
    details = (f"expected {expected}", f"found {value}")
    return Error("E0641", f"augment.{name}: {field} is out of range", where=here(), details=details)


def _uniform(x: Tensor, generator: Generator | None) -> Tensor:
    """A number on [0, 1) for each image."""
    return uniform((x.type.shape[0],), generator=generator)


def _whole(x: Tensor, low: int, high: int, generator: Generator | None) -> Tensor:
    """A whole number from low to high - 1 for each image."""
    return randint(low, high, (x.type.shape[0],), generator=generator)


def _per_image(given: Any) -> Tensor:
    return reshape(given, (-1, 1, 1, 1))


def _column(given: Any) -> Tensor:
    return reshape(given, (-1, 1))


def _factor(given: Any, wide: Tensor) -> Tensor:
    return _per_image(cast(given, wide.type.dtype))


def _filling(fill: float, x: Tensor) -> Tensor:
    return as_tensor(np.asarray(fill, x.type.dtype.np))


def _within(place: Tensor, length: int) -> Tensor:
    """Whether each place lies inside."""
    return (place >= 0) & (place < length)


def _gathered(x: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels at `rows`, `columns` ([N, h, w], or 1 for an axis) of each image."""
    n, channels, height, width = x.type.shape
    place = reshape(rows * width + columns, (n, 1, size[0] * size[1]))
    flat = take_along_axis(reshape(x, (n, channels, height * width)), place, 2)
    return reshape(flat, (n, channels, *size))


def _grey(x: Tensor) -> Tensor:
    """[N, 1, H, W]."""
    channels = x.shape[1]
    weights = LUMA if channels == 3 else [1 / channels] * channels
    return sum(x * as_tensor(np.asarray(weights, x.type.dtype.np)[:, None, None]), 1, keepdims=True)


def _wide(x: Tensor) -> Tensor:
    """The type that is computed in: f64 of f64, else f32."""
    return x if x.type.dtype is f64 else cast(x, f32)


def _like(value: Tensor, x: Tensor) -> Tensor:
    """`value` in the element type of `x`, rounded where that is whole numbers."""
    return cast(round(value) if x.type.dtype is u8 else value, x.type.dtype)


# ------------------------------------------------------------ layers


class _Random(Layer):
    """Base of the layers: the function of the settings while training, else the identity."""

    def describe(self) -> str:
        settings = [f"{n}={v}" for n, v in vars(self).items() if n in self._settings]
        return " ".join([type(self).__name__, *settings])

    _settings: tuple[str, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        return self.changed(x) if self.training else as_tensor(x)

    def changed(self, x: Tensor) -> Tensor:
        """What training sees."""
        return x


class RandomFlip(_Random):
    """`random_flip` while training."""

    _settings = ("p",)

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        _between("RandomFlip", "p", p, 0, 1)
        self.p = p

    def changed(self, x: Tensor) -> Tensor:
        return random_flip(x, self.p)


class RandomShift(_Random):
    """`random_shift` while training."""

    _settings = ("pixels", "fill")

    def __init__(self, pixels: int = 2, fill: float = 0.0) -> None:
        super().__init__()
        _between("RandomShift", "pixels", pixels, 0)
        self.pixels, self.fill = pixels, fill

    def changed(self, x: Tensor) -> Tensor:
        return random_shift(x, self.pixels, self.fill)


class RandomCrop(_Random):
    """`random_crop` while training, of images as large as before: what follows fits both."""

    _settings = ("padding", "fill")

    def __init__(self, padding: int = 4, fill: float = 0.0) -> None:
        super().__init__()
        _between("RandomCrop", "padding", padding, 0)
        self.padding, self.fill = padding, fill

    def changed(self, x: Tensor) -> Tensor:
        return random_crop(x, self.padding, None, self.fill)


class RandomRotate(_Random):
    """`random_rotate` while training."""

    _settings = ("degrees", "fill")

    def __init__(self, degrees: float = 15.0, fill: float = 0.0) -> None:
        super().__init__()
        self.degrees, self.fill = degrees, fill

    def changed(self, x: Tensor) -> Tensor:
        return random_rotate(x, self.degrees, self.fill)


class Colour(_Random):
    """`colour` while training."""

    _settings = ("brightness", "contrast", "saturation")

    def __init__(
        self, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2
    ) -> None:
        super().__init__()
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation
        for name in self._settings:
            _between("Colour", name, getattr(self, name), 0, 1)

    def changed(self, x: Tensor) -> Tensor:
        return colour(x, self.brightness, self.contrast, self.saturation)


class Cutout(_Random):
    """`cutout` while training."""

    _settings = ("size", "fill")

    def __init__(self, size: int = 8, fill: float = 0.0) -> None:
        super().__init__()
        _between("Cutout", "size", size, 1)
        self.size, self.fill = size, fill

    def changed(self, x: Tensor) -> Tensor:
        return cutout(x, self.size, self.fill)


class Normalize(Layer):
    """`normalize`, in training and in evaluation: there is no chance in it."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean, self.std = tuple(mean), tuple(std)

    def describe(self) -> str:
        return f"Normalize mean={self.mean} std={self.std}"

    def forward(self, x: Tensor) -> Tensor:
        return normalize(x, self.mean, self.std)


class Mixup(Layer):
    """`mixup` of images and labels while training; else the images and the labels' rows."""

    def __init__(self, alpha: float = 0.2, classes: int | None = None) -> None:
        super().__init__()
        if alpha <= 0:
            raise _wrong("Mixup", "alpha", alpha, "above 0")
        self.alpha, self.classes = alpha, classes

    def describe(self) -> str:
        return f"Mixup alpha={self.alpha} classes={self.classes}"

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            return mixup(x, labels, self.alpha, self.classes)
        return as_tensor(x), probabilities(labels, self.classes)


__all__ = [
    "Colour", "Cutout", "Mixup", "Normalize", "RandomCrop", "RandomFlip", "RandomRotate",
    "RandomShift", "adjust", "beta", "blend", "colour", "cutout", "erase", "flip", "mixup",
    "normalize", "random_crop", "random_flip", "random_rotate", "random_shift", "rotate",
    "sample", "shift", "window",
]  # fmt: skip
