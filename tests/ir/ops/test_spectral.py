"""Fourier transforms: inverses, split lengths, frames, symbolic batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(0)


def pairs(values: Any) -> Any:
    return np.stack([values.real, values.imag], -1)


@pytest.mark.parametrize("size", [1, 2, 7, 12, 289, 480, 600])
def test_against_numpy(apply: Any, size: int) -> None:
    x = RNG.standard_normal((3, size)) + 1j * RNG.standard_normal((3, size))
    found = apply("dft", pairs(x))
    np.testing.assert_allclose(found, pairs(np.fft.fft(x)), atol=1e-9)
    np.testing.assert_allclose(apply("dft", found, inverse=True), pairs(x), atol=1e-9)


@pytest.mark.parametrize("size", [2, 7, 12])
def test_onesided_there_and_back(apply: Any, size: int) -> None:
    x = RNG.standard_normal((2, size, 3, 1))
    half = apply("dft", x, axis=1, onesided=True)
    np.testing.assert_allclose(half, pairs(np.fft.rfft(x[..., 0], axis=1)), atol=1e-12)
    back = apply("dft", half, axis=1, onesided=True, inverse=True, length=size)
    np.testing.assert_allclose(back, x, atol=1e-12)


def test_frames(apply: Any) -> None:
    x, window = RNG.standard_normal((2, 23, 1)), np.hanning(8)
    found = apply("stft", x, window, step=5, length=8)
    assert found.shape == (2, 4, 5, 2)
    for f in range(4):
        want = np.fft.rfft(x[:, 5 * f : 5 * f + 8, 0] * window)
        np.testing.assert_allclose(found[:, f], pairs(want), atol=1e-12)
    types = ["f64[B, T, 1]", "f64[8]"]
    symbolic = apply("stft", x, window, types=types, step=5, length=8)
    np.testing.assert_allclose(symbolic, found)
