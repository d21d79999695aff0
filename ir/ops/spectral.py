"""Fourier transforms: `dft` along an axis, `stft` of overlapping frames.

Complex numbers are pairs along the last axis.  A transform is a contraction with the matrix of its
waves; long composite lengths are split in two (Cooley and Tukey 1965).  Imports: contractions,
convolution, the core, types.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Op, Value, attr, operand, optional, sample
from ..dims import DimLike
from ..types import DType, TensorType, from_numpy
from .constraints import axis_of, require, same
from .contract import as_type
from .convert import compute_dtype, round_float, widen
from .core import Const

LONGEST = 256
"""Of a longer composite transform the matrix is not worth its multiplications."""


class Dft(Op):
    """The discrete Fourier transform of x along `axis`, which is not the last; the last axis holds
    real parts, or real and imaginary parts (ONNX DFT).

    x is cut or filled with zeros to `length` (0: its extent).  `inverse` divides by the length.
    `onesided` keeps the first length // 2 + 1 results of a real x; with `inverse` it takes them,
    for a real result of `length` (0: twice the extent, less 2).  f8, f16 and bf16 compute in f32.

    C1: axis is in range and not the last.  C2: the last extent is 1 or 2.  C3: the extent along
    axis is known, the length at least 1.  C4: a onesided transform is of real x, its inverse of
    pairs.
    """

    x = operand(Float)
    axis = attr(int, -2)
    length = attr(int, 0)
    inverse = attr(bool, False)
    onesided = attr(bool, False)

    @staticmethod
    def infer(x: TensorType, axis: int, length: int, inverse: bool, onesided: bool) -> TensorType:
        at = axis_of(axis, x.rank, "dft", "C1")
        require(at != x.rank - 1, "E0330", "dft (C1): the last axis holds the pairs", f"x : {x}")
        pairs = x.shape[-1]
        require(
            type(pairs) is int and pairs in (1, 2),
            "E0316", "dft (C2): the last extent must be 1 or 2", f"x : {x}",
        )  # fmt: skip
        extent = x.shape[at]
        require(type(extent) is int, "E0316", f"dft (C3): axis {axis} is not known", f"x : {x}")
        size = _length(int(extent), length, inverse and onesided)  # type: ignore[arg-type]
        require(size >= 1, "E0316", f"dft (C3): the length is {size}", f"x : {x}")
        real = pairs == (2 if inverse else 1)
        require(not onesided or real, "E0316", "dft (C4): a onesided transform is of real x")
        shape = list(x.shape)
        shape[at] = size // 2 + 1 if onesided and not inverse else size
        shape[-1] = 1 if onesided and inverse else 2
        return TensorType(x.dtype, tuple(shape))

    @staticmethod
    def evaluate(x: Array, axis: int, length: int, inverse: bool, onesided: bool) -> Array:
        wide = widen(x).astype(np.float64)
        axis = axis % x.ndim
        size = _length(x.shape[axis], length, inverse and onesided)
        values = wide[..., 0] + 1j * (wide[..., 1] if x.shape[-1] == 2 else 0)
        if inverse and onesided:
            out = np.fft.irfft(values, size, axis)[..., None]
        else:
            found = (np.fft.ifft if inverse else np.fft.fft)(values, size, axis)
            if onesided:
                found = np.take(found, np.arange(size // 2 + 1), axis)
            out = np.stack([found.real, found.imag], -1)
        return round_float(out, from_numpy(x.dtype))

    def decompose(self, b: Builder) -> Value:
        """Everything before and behind the axis laid flat, then the transform."""
        dtype = self.x.tensor.dtype
        wide = compute_dtype(dtype)
        axis = self.axis % self.x.tensor.rank
        shape = self.x.tensor.shape
        extent, pairs = int(shape[axis]), int(shape[-1])  # type: ignore[arg-type]
        size = _length(extent, self.length, self.inverse and self.onesided)
        before, behind = _product(shape[:axis]), _product(shape[axis + 1 : -1])
        x = b.reshape(as_type(b, self.x, wide), shape=(before, extent, behind, pairs))
        used = min(extent, size // 2 + 1 if self.inverse and self.onesided else size)
        if used != extent:
            x = b.slice(x, starts=(0,) * 4, sizes=(before, used, behind, pairs))
        if self.onesided or not _split(size):
            waves = _waves(size, used, pairs, self.inverse, self.onesided)
            out = _by_matrix(b, x, waves, wide)
        else:
            if pairs == 1 or used != size:
                x = b.pad(x, low=(0,) * 4, high=(0, size - used, 0, 2 - pairs))
            out = _transformed(b, x, -1.0 if not self.inverse else 1.0, wide)
            if self.inverse:
                out = b.mul(out, b.insert(Const(np.asarray(1 / size, wide.np))).result)
        return as_type(b, b.reshape(out, shape=self.result.tensor.shape), dtype)

    samples: ClassVar[Any] = (
        sample((2, 8, 1)),
        sample((2, 7, 3, 2), axis=1),
        sample((2, 8, 1), onesided=True, length=11),
        sample((2, 8, 2), inverse=True, length=5),
        sample((2, 6, 2), inverse=True, onesided=True),
        sample((2, 6, 2), inverse=True, onesided=True, length=7),
        sample((3, 2), axis=0),
        sample((1, 289, 1, 1), axis=1),
        sample((2, 2, 320, 2), inverse=True),
        sample((2, 3, 300, 1), length=600),
        sample((0, 4, 1)),
        sample((2, 8, 1), dtypes=("f64",)),
        sample((2, 8, 1), dtypes=("f16",)),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((2, 8, 1), axis=-1)),
        ("C1", sample((2, 8, 1), axis=3)),
        ("C2", sample((2, 8, 3))),
        ("C3", sample((2, 0, 1))),
        ("C4", sample((2, 8, 2), onesided=True)),
        ("C4", sample((2, 8, 1), onesided=True, inverse=True)),
    )


def _length(extent: int, length: int, halved: bool) -> int:
    return length or (2 * (extent - 1) if halved else extent)


def _product(shape: Any) -> DimLike:
    total: DimLike = 1
    for extent in shape:
        total = total * extent
    return total


def _split(size: int) -> int:
    """The greatest divisor up to the root of a long length; 0 where it stays whole."""
    if size <= LONGEST:
        return 0
    return max([d for d in range(2, math.isqrt(size) + 1) if size % d == 0], default=0)


def _waves(size: int, used: int, pairs: int, inverse: bool, onesided: bool) -> Array:
    """The matrix [n, pair, k, pair] of a transform of the first `used` elements."""
    count = size // 2 + 1 if onesided and not inverse else size
    turns = np.outer(np.arange(used), np.arange(count)) % size * (2 * np.pi / size)
    cos, sin = np.cos(turns), np.sin(turns) * (1 if inverse else -1)
    full = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)[:, :pairs]
    if inverse:
        full = full / size
    if inverse and onesided:  # each stands for itself and its mirror image, but for the ends
        twice = np.full(used, 2.0)
        twice[0] = 1
        if size % 2 == 0 and used == size // 2 + 1:
            twice[-1] = 1
        return np.asarray(full[..., :1] * twice[:, None, None, None])
    return full


def _by_matrix(b: Builder, x: Value, waves: Array, wide: DType) -> Value:
    """x [a, n, b, pair] times waves [n, pair, k, pair]."""
    matrix = b.insert(Const(np.ascontiguousarray(waves.astype(wide.np)))).result
    return b.contract(x, matrix, equation="anbc,ncko->akbo")  # type: ignore[no-any-return]


def _transformed(b: Builder, x: Value, sign: float, wide: DType) -> Value:
    """The unscaled transform of x [a, n, b, 2] along n: of n = q * n1 + n2 first over n1."""
    a, size, rest, _ = x.tensor.shape
    n = int(size)  # type: ignore[arg-type]
    p = _split(n)
    if not p:
        waves = _waves(n, n, 2, sign > 0, False) * (n if sign > 0 else 1)
        return _by_matrix(b, x, waves, wide)
    q = n // p
    first = _transformed(b, b.reshape(x, shape=(a, p, q * rest, 2)), sign, wide)
    first = b.reshape(first, shape=(a, p, q, rest, 2))
    turns = np.outer(np.arange(p), np.arange(q)) * (2 * np.pi / n)
    cos = np.cos(turns).reshape(1, p, q, 1, 1)
    sin = (np.sin(turns) * sign).reshape(1, p, q, 1, 1) * np.array([-1.0, 1.0])
    swapped = b.slice(
        first, starts=(0, 0, 0, 0, 1), sizes=first.tensor.shape, steps=(1, 1, 1, 1, -1)
    )
    by_cos = b.mul(first, b.insert(Const(cos.astype(wide.np))).result)
    turned = b.add(by_cos, b.mul(swapped, b.insert(Const(sin.astype(wide.np))).result))
    second = _transformed(b, b.reshape(turned, shape=(a * p, q, rest, 2)), sign, wide)
    second = b.reshape(second, shape=(a, p, q, rest, 2))
    swapped_back = b.transpose(second, perm=(0, 2, 1, 3, 4))
    return b.reshape(swapped_back, shape=(a, n, rest, 2))  # type: ignore[no-any-return]


class Stft(Op):
    """The Fourier transforms of overlapping frames of x [B, T, 1 or 2], times `window` [length]:
    [B, frames, bins, 2] (ONNX STFT).

    Frame f begins at f * step; only whole frames count.  `onesided` keeps length // 2 + 1 bins, and
    is for real x.  f8, f16 and bf16 compute in f32.

    C1: x is [B, T, 1 or 2], the window a vector of its element type.  C2: step and length are at
    least 1, the window has the length.  C3: a frame fits into x.  C4: a onesided transform is of
    real x.
    """

    x = operand(Float)
    window = optional(Float)
    step = attr(int)
    length = attr(int)
    onesided = attr(bool, True)

    @staticmethod
    def infer(
        x: TensorType, window: TensorType | None = None, *, step: int, length: int, onesided: bool
    ) -> TensorType:
        found = f"x : {x}   window : {window}"
        pairs = x.shape[-1] if x.rank == 3 else 0
        fits = type(pairs) is int and pairs in (1, 2)
        fits = fits and (window is None or (window.rank == 1 and window.dtype is x.dtype))
        require(fits, "E0316", "stft (C1): x must be [B, T, 1 or 2], the window a vector", found)
        right = step >= 1 and length >= 1
        right = right and (window is None or same(window.shape[0], length) is not False)
        require(right, "E0316", f"stft (C2): step {step}, length {length}", found)
        frames = (x.shape[1] - length) // step + 1
        known = type(frames) is not int or frames >= 1
        require(known, "E0316", f"stft (C3): no frame of {length} fits into x", found)
        require(not onesided or pairs == 1, "E0316", "stft (C4): onesided is for real x", found)
        bins = length // 2 + 1 if onesided else length
        return TensorType(x.dtype, (x.shape[0], frames, bins, 2))

    @staticmethod
    def evaluate(
        x: Array, window: Array | None = None, *, step: int, length: int, onesided: bool
    ) -> Array:
        wide = widen(x).astype(np.float64)
        values = wide[..., 0] + 1j * (wide[..., 1] if x.shape[-1] == 2 else 0)
        frames = (x.shape[1] - length) // step + 1
        at = np.arange(frames)[:, None] * step + np.arange(length)
        cut = values[:, at] * (1 if window is None else widen(window).astype(np.float64))
        found = np.fft.fft(cut, axis=2)[:, :, : length // 2 + 1 if onesided else length]
        return round_float(np.stack([found.real, found.imag], -1), from_numpy(x.dtype))

    def decompose(self, b: Builder) -> Value:
        """A strided convolution whose kernels are the waves, times the window."""
        dtype = self.x.tensor.dtype
        wide = compute_dtype(dtype)
        batch, frames, bins, _ = self.result.tensor.shape
        pairs = int(self.x.tensor.shape[2])  # type: ignore[arg-type]
        x = b.transpose(as_type(b, self.x, wide), perm=(0, 2, 1))
        waves = _waves(self.length, self.length, pairs, False, self.onesided)
        kernels = waves.transpose(2, 3, 1, 0).reshape(2 * waves.shape[2], pairs, self.length)
        w = b.insert(Const(np.ascontiguousarray(kernels.astype(wide.np)))).result
        if self.window is not None:
            w = b.mul(w, as_type(b, self.window, wide))
        out = b.conv(x, w, strides=(self.step,))
        out = b.reshape(out, shape=(batch, bins, 2, frames))
        return as_type(b, b.transpose(out, perm=(0, 3, 1, 2)), dtype)

    samples: ClassVar[Any] = (
        sample((2, 20, 1), (8,), step=3, length=8),
        sample((1, 17, 2), (5,), step=5, length=5, onesided=False),
        sample((2, 9, 1), step=1, length=9),
        sample((2, 12, 1), (4,), step=2, length=4, dtypes=("f16", "f16")),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((2, 20), (8,), step=3, length=8)),
        ("C2", sample((2, 20, 1), (7,), step=3, length=8)),
        ("C2", sample((2, 20, 1), (8,), step=0, length=8)),
        ("C3", sample((2, 6, 1), step=3, length=8)),
        ("C4", sample((2, 20, 2), (8,), step=3, length=8)),
    )


__all__ = ["Dft", "Stft"]
