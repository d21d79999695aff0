"""Sampling at points against torch; a deformable convolution without offsets is a convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(0)
BORDER = ("cubic", "border")
NAMES = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}


@pytest.mark.oracle
@pytest.mark.parametrize(
    # With a border ONNX moves the point inside before a cubic interpolation, torch its neighbours.
    ("mode", "padding"),
    [(m, p) for m in NAMES for p in ("zeros", "border", "reflection") if (m, p) != BORDER],
)
@pytest.mark.parametrize("align", [False, True])
def test_against_torch(apply: Any, mode: str, padding: str, align: bool) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra `oracle`)")
    x, grid = RNG.standard_normal((2, 3, 6, 5)), RNG.uniform(-3, 3, (2, 4, 7, 2))
    found = apply("grid_sample", x, grid, mode=mode, padding=padding, align_corners=align)
    want = torch.nn.functional.grid_sample(
        torch.from_numpy(x), torch.from_numpy(grid), NAMES[mode], padding, align
    ).numpy()
    np.testing.assert_allclose(found, want, atol=1e-11)


def test_corners(apply: Any) -> None:
    """(x, y) = (1, -1) is the last column of the first row."""
    x = np.arange(6.0).reshape(1, 1, 2, 3)
    grid = np.array([[[1.0, -1], [-1, 1], [0, 0]]])
    found = apply("grid_sample", x, grid, align_corners=True)
    np.testing.assert_allclose(found, [[[2, 3, 2.5]]])


def test_no_offsets(apply: Any) -> None:
    x, w = RNG.standard_normal((2, 4, 7, 6)), RNG.standard_normal((6, 2, 3, 2))
    attrs = {"groups": 2, "pads": (1, 0, 1, 1), "strides": (2, 1), "dilations": (1, 2)}
    want = apply("conv", x, w, **attrs)
    offset = np.zeros((2, 2 * 12, *want.shape[2:]))
    mask = np.ones((2, 12, *want.shape[2:]))
    found = apply("deform_conv", x, w, offset, mask, offset_groups=2, **attrs)
    np.testing.assert_allclose(found, want, atol=1e-12)
    halved = apply("deform_conv", x, w, offset, mask / 2, offset_groups=2, **attrs)
    np.testing.assert_allclose(halved, want / 2, atol=1e-12)


def test_whole_offsets_shift_the_image(apply: Any) -> None:
    x, w = RNG.standard_normal((1, 2, 8, 8)), RNG.standard_normal((3, 2, 3, 3))
    offset = np.zeros((1, 18, 4, 4))
    offset[:, 0::2], offset[:, 1::2] = 2, 1  # rows, then columns
    found = apply("deform_conv", x[:, :, :6, :6], w, offset)
    want = apply("conv", x[:, :, 2:6, 1:6], w)
    np.testing.assert_allclose(found[:, :, :2, :3], want[:, :, :2, :3], atol=1e-12)


def test_scattering_is_the_adjoint_of_sampling(apply: Any) -> None:
    rng = np.random.default_rng(4)
    x, g = rng.uniform(-1, 1, (2, 3, 4, 5)), rng.uniform(-1, 1, (2, 3, 7))
    places = [rng.integers(0, e, (2, 7)) for e in (4, 4, 5, 5)]
    weights = list(rng.uniform(-1, 1, (4, 2, 7)))
    sampled = apply("sample_points", x, *places, *weights, taps=2)
    spread = apply("scatter_points", g, *places, *weights, taps=2, shape=(4, 5))
    np.testing.assert_allclose(np.sum(spread * x), np.sum(sampled * g))
