"""Columns to images is the adjoint of cutting windows, and inverts it where they do not overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def columns(x: Any, kernel: Any, strides: Any, pads: Any, dilations: Any) -> Any:
    """Every window of x [N, C, H, W] as a column."""
    padded = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])])
    room = [padded.shape[2 + k] - dilations[k] * (kernel[k] - 1) - 1 for k in (0, 1)]
    counts = [r // s + 1 for r, s in zip(room, strides, strict=True)]
    out = np.zeros((*x.shape[:2], *kernel, *counts))
    for i, j in np.ndindex(*kernel):
        for a, b in np.ndindex(*counts):
            out[:, :, i, j, a, b] = padded[
                :, :, a * strides[0] + i * dilations[0], b * strides[1] + j * dilations[1]
            ]
    return out.reshape(x.shape[0], -1, counts[0] * counts[1])


@pytest.mark.parametrize(
    ("kernel", "strides", "pads", "dilations"),
    [
        ((2, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
        ((2, 3), (2, 1), (1, 0, 1, 2), (1, 2)),
        ((3, 2), (3, 4), (0, 1, 2, 0), (2, 1)),
    ],
)
def test_adjoint(apply: Any, kernel: Any, strides: Any, pads: Any, dilations: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 7, 6))
    cut = columns(x, kernel, strides, pads, dilations)
    y = rng.standard_normal(cut.shape)
    attrs = {"kernel": kernel, "strides": strides, "pads": pads, "dilations": dilations}
    back = apply("col2im", y, size=(7, 6), **attrs)
    np.testing.assert_allclose(np.vdot(cut, y), np.vdot(x, back), rtol=1e-12)


def test_tiles_are_put_back(apply: Any) -> None:
    x = np.random.default_rng(1).standard_normal((1, 2, 6, 4))
    cut = columns(x, (3, 2), (3, 2), (0, 0, 0, 0), (1, 1))
    found = apply("col2im", cut, size=(6, 4), kernel=(3, 2), strides=(3, 2))
    np.testing.assert_array_equal(found, x)
