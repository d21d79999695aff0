"""Augmentation of batches of images: flip, crop, shift, rotate, colour, normalize, cutout, mixup.

Each step is a frozen description with two halves: `draw` makes the random numbers of a batch, the
function of the same name below is the maths, without chance, on whole batches (n, c, h, w).
Invariants: float images 0 to 1 (any float type) or u8 0 to 255; the element type stays; the input
is not written to.  Imports numpy and errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....ir.errors import Error

Array = np.ndarray[Any, Any]
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


# ------------------------------------------------------------------- the maths


def flip(x: Array, chosen: Array) -> Array:
    """Mirror left and right the images where `chosen` (n,)."""
    return np.where(chosen[:, None, None, None], x[..., ::-1], x)


def shift(x: Array, down: Array, right: Array, fill: float = 0.0) -> Array:
    """Move each image by whole pixels, `down` and `right` (n,); what comes in is `fill`."""
    return window(x, -down, -right, (x.shape[2], x.shape[3]), fill)


def window(x: Array, top: Array, left: Array, size: tuple[int, int], fill: float = 0.0) -> Array:
    """A part of `size` (h, w) of each image from pixel (`top`, `left`) (n,); outside is `fill`."""
    rows, columns = top[:, None] + np.arange(size[0]), left[:, None] + np.arange(size[1])
    inside = _within(rows, x.shape[2])[:, :, None] & _within(columns, x.shape[3])[:, None]
    rows, columns = rows.clip(0, x.shape[2] - 1), columns.clip(0, x.shape[3] - 1)
    part = _gather(x, rows[:, :, None], columns[:, None])
    return np.where(inside[:, None], part, np.asarray(fill, x.dtype))


def _within(place: Array, length: int) -> Array:
    """Whether each place lies inside."""
    made: Array = (place >= 0) & (place < length)
    return made


def _gather(x: Array, rows: Array, columns: Array) -> Array:
    """The pixels at `rows`, `columns` (n, h, w) of each image: one take over the flat batch."""
    n, channels, height, width = x.shape
    plane = np.arange(n * channels).reshape(n, channels, 1, 1) * (height * width)
    made: Array = x.reshape(-1).take(plane + (rows * width + columns)[:, None])
    return made


def rotate(x: Array, angles: Array, fill: float = 0.0) -> Array:
    """Turn each image counter-clockwise about its middle by `angles` (n,) in radians, bilinear."""
    height, width = x.shape[2:]
    cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    dy = np.arange(height)[:, None] - (height - 1) / 2
    dx = np.arange(width)[None, :] - (width - 1) / 2
    return sample(
        x, (height - 1) / 2 + cos * dy + sin * dx, (width - 1) / 2 - sin * dy + cos * dx, fill
    )


def sample(x: Array, rows: Array, columns: Array, fill: float = 0.0) -> Array:
    """Bilinear values at fractional `rows`, `columns` (n, h, w) of each image; outside `fill`."""
    height, width = x.shape[2:]
    top, left = np.floor(rows).astype(np.intp), np.floor(columns).astype(np.intp)
    low = (rows - top).astype(np.float32)[:, None]
    aside = (columns - left).astype(np.float32)[:, None]
    made: Any = np.float32(0.0)
    for dy, wy in ((0, 1 - low), (1, low)):
        for dx, wx in ((0, 1 - aside), (1, aside)):
            r, c = top + dy, left + dx
            inside = _within(r, height) & _within(c, width)
            value = _gather(x, r.clip(0, height - 1), c.clip(0, width - 1))
            made = made + wy * wx * np.where(inside[:, None], value, np.float32(fill))
    return like(made, x)


def adjust(x: Array, brightness: Array, contrast: Array, saturation: Array) -> Array:
    """Colour, by factors (n,): all times b, then away from the mean grey by c, from grey by s."""
    peak = 255.0 if x.dtype.kind == "u" else 1.0
    weights = np.asarray(LUMA if x.shape[1] == 3 else [1 / x.shape[1]] * x.shape[1])
    wide = x.astype(np.float32) * _per_image(brightness)
    grey = _grey(wide, weights)
    middle = grey.mean((1, 2, 3), keepdims=True)
    wide = middle + (wide - middle) * _per_image(contrast)
    grey = _grey(wide, weights)
    return like((grey + (wide - grey) * _per_image(saturation)).clip(0, peak), x)


def _per_image(factor: Array) -> Array:
    made: Array = factor.astype(np.float32)[:, None, None, None]
    return made


def _grey(x: Array, weights: Array) -> Array:
    made: Array = np.tensordot(weights.astype(np.float32), x, (0, 1))
    return made[:, None]


def normalize(x: Array, mean: Array, std: Array) -> Array:
    """(x - mean) / std by channel; u8 becomes f32."""
    wide = x.astype(np.float32) if x.dtype.kind in "iu" else x
    middle, spread = mean[:, None, None], std[:, None, None]
    made: Array = (wide - middle.astype(wide.dtype)) / spread.astype(wide.dtype)
    return made


def cutout(x: Array, row: Array, column: Array, size: int, fill: float = 0.0) -> Array:
    """Fill a square with its middle at (`row`, `column`) (n,); DeVries and Taylor, 2017."""
    height, width = x.shape[2:]
    rows = np.arange(height) - (row[:, None] - size // 2)
    columns = np.arange(width) - (column[:, None] - size // 2)
    hit = _within(rows, size)[:, :, None] & _within(columns, size)[:, None]
    return np.where(hit[:, None], np.asarray(fill, x.dtype), x)


def blend(x: Array, other: Array, share: Array) -> Array:
    """share * x + (1 - share) * other, `share` (n,) along the first dimension."""
    part = share.reshape(-1, *[1] * (x.ndim - 1)).astype(np.float32)
    return part * x + (1 - part) * other


def like(value: Array, x: Array) -> Array:
    """`value` in the element type of `x`, rounded where that is whole numbers."""
    return np.rint(value).astype(x.dtype) if x.dtype.kind in "iu" else value.astype(x.dtype)


# ------------------------------------------------------------------- the steps


class Step:
    """One random change.  Called with the arrays of a batch, images first, and `rng`."""

    def images(self, x: Array, rng: np.random.Generator) -> Array:
        """The changed images (n, c, h, w)."""
        return x

    def __call__(self, x: Array, *others: Array, rng: np.random.Generator) -> Any:
        made = self.images(_checked(x, self), rng)
        return (made, *others) if others else made


def _checked(x: Array, step: Step) -> Array:
    x = np.asarray(x)
    if x.ndim != 4 or x.dtype.kind not in "fuV":
        raise Error(
            "E0681",
            f"{type(step).__name__} works on a batch of images (n, channels, height, width)",
            details=(f"found: {x.dtype} of shape {x.shape}",),
            hint="float or uint8 images with their channels first; .batch(n) before augmentation",
        )
    return x


def _wrong(step: Step, name: str, expected: str) -> Error:
    details = (f"found: {name}={getattr(step, name)!r}", f"expected: {expected}")
    return Error("E0663", f"augment.{type(step).__name__}", details=details)


@dataclass(frozen=True)
class Flip(Step):
    """Left and right mirrored, with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise _wrong(self, "p", "0 to 1")

    def images(self, x: Array, rng: np.random.Generator) -> Array:
        """See `flip`."""
        return flip(x, rng.random(len(x)) < self.p)


@dataclass(frozen=True)
class Shift(Step):
    """Moved by up to `pixels` in each direction; what comes in is `fill`."""

    pixels: int = 2
    fill: float = 0.0

    def __post_init__(self) -> None:
        if self.pixels < 0:
            raise _wrong(self, "pixels", "0 or more")

    def images(self, x: Array, rng: np.random.Generator) -> Array:
        """See `shift`."""
        down, right = rng.integers(-self.pixels, self.pixels + 1, (2, len(x)))
        return shift(x, down, right, self.fill)


@dataclass(frozen=True)
class Crop(Step):
    """A random part of the image padded by `padding`; its `size` (h, w), default: as it was."""

    padding: int = 4
    size: tuple[int, int] | None = None
    fill: float = 0.0

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise _wrong(self, "padding", "0 or more")

    def images(self, x: Array, rng: np.random.Generator) -> Array:
        """See `window`."""
        height, width = self.size or x.shape[2:]
        room = [x.shape[2] + 2 * self.padding - height, x.shape[3] + 2 * self.padding - width]
        if min(room) < 0:
            raise _wrong(self, "size", f"no more than the padded image of {x.shape[2:]}")
        top = rng.integers(0, room[0] + 1, len(x)) - self.padding
        left = rng.integers(0, room[1] + 1, len(x)) - self.padding
        return window(x, top, left, (height, width), self.fill)


@dataclass(frozen=True)
class Rotate(Step):
    """Turned about the middle by up to `degrees` either way, bilinear."""

    degrees: float = 15.0
    fill: float = 0.0

    def images(self, x: Array, rng: np.random.Generator) -> Array:
        """See `rotate`."""
        return rotate(x, np.deg2rad(rng.uniform(-self.degrees, self.degrees, len(x))), self.fill)


@dataclass(frozen=True)
class Colour(Step):
    """Brightness, contrast and saturation times a factor from 1 - v to 1 + v each."""

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise _wrong(self, name, "0 to 1")

    def images(self, x: Array, rng: np.random.Generator) -> Array:
        """See `adjust`."""
        spread = np.array([[self.brightness], [self.contrast], [self.saturation]])
        b, c, s = 1 + spread * rng.uniform(-1, 1, (3, len(x)))
        return adjust(x, b, c, s)


@dataclass(frozen=True)
class Normalize(Step):
    """(x - mean) / std, a number for each channel; no chance in it."""

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise _wrong(self, "std", f"{len(self.mean)} numbers above 0, as many as mean has")

    def images(self, x: Array, rng: np.random.Generator) -> Array:
        """See `normalize`."""
        if len(self.mean) != x.shape[1]:
            raise _wrong(self, "mean", f"{x.shape[1]} numbers, one for each channel")
        return normalize(x, np.asarray(self.mean), np.asarray(self.std))


@dataclass(frozen=True)
class Cutout(Step):
    """A square of `size` pixels filled, its middle anywhere in the image."""

    size: int = 8
    fill: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise _wrong(self, "size", "1 or more")

    def images(self, x: Array, rng: np.random.Generator) -> Array:
        """See `cutout`."""
        row, column = rng.integers(0, x.shape[2], len(x)), rng.integers(0, x.shape[3], len(x))
        return cutout(x, row, column, self.size, self.fill)


@dataclass(frozen=True)
class Mixup(Step):
    """Each sample mixed with another of its batch, labels alike; Zhang et al., 2017.

    The share is drawn from Beta(alpha, alpha), one for each sample.  Labels become f32 rows of
    probabilities: class numbers need `classes`, rows of floats are mixed as they are.
    """

    alpha: float = 0.2
    classes: int | None = None

    def __post_init__(self) -> None:
        if self.alpha <= 0:
            raise _wrong(self, "alpha", "above 0")

    def __call__(self, x: Array, *others: Array, rng: np.random.Generator) -> Any:
        x = _checked(x, self)
        if len(others) != 1:
            raise Error("E0681", "Mixup works on batches (images, labels)")
        labels = self.probabilities(np.asarray(others[0]))
        share = rng.beta(self.alpha, self.alpha, len(x))
        order = rng.permutation(len(x))
        return like(blend(x, x[order], share), x), blend(labels, labels[order], share)

    def probabilities(self, labels: Array) -> Array:
        """Class numbers as rows of 0 and 1."""
        if labels.dtype.kind == "f":
            return labels
        if self.classes is None:
            raise Error("E0681", "Mixup of class numbers needs classes=, how many there are")
        if labels.size and not (0 <= labels.min() and labels.max() < self.classes):
            wrong = labels.max() if labels.max() >= self.classes else labels.min()
            raise Error("E0681", f"the label {wrong} is not one of {self.classes} classes")
        return np.eye(self.classes, dtype=np.float32)[labels]


@dataclass(frozen=True)
class Chain(Step):
    """Steps one after the other, with the random numbers of one generator."""

    steps: tuple[Step, ...]

    def __call__(self, x: Array, *others: Array, rng: np.random.Generator) -> Any:
        batch = (x, *others)
        for step in self.steps:
            made = step(*batch, rng=rng)
            batch = made if isinstance(made, tuple) else (made,)
        return batch if others else batch[0]
