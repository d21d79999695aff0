"""Region pooling: of a ramp the mean is the centre; of distinct elements the greatest is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

RAMP = np.arange(12.0)[:, None] * 10 + np.arange(9.0)[None, :]


@pytest.mark.parametrize("sampling", [0, 1, 3])
def test_mean_of_a_ramp(apply: Any, sampling: int) -> None:
    """The interpolation of a ramp is the ramp: each bin's mean is the value at its centre."""
    x = np.stack([RAMP, -RAMP])[None].repeat(2, 0)
    rois = np.array([[2.0, 3, 6, 9], [1.5, 2.5, 4.5, 3.5]])
    found = apply("roi_align", x, rois, np.array([0, 1]), size=(3, 2), sampling=sampling)
    for r, (x1, y1, x2, y2) in enumerate(rois - 0.5):
        for p, q in np.ndindex(3, 2):
            want = (y1 + (p + 0.5) * (y2 - y1) / 3) * 10 + x1 + (q + 0.5) * (x2 - x1) / 2
            np.testing.assert_allclose(found[r, :, p, q], [want, -want], rtol=1e-12)


def test_samples_outside_are_zeros(apply: Any) -> None:
    x = np.ones((1, 1, 4, 4))
    rois = np.array([[-20.0, -20, -10, -10], [-4, 0, 4, 4]])
    attrs = {"size": (1, 1), "half_pixel": False, "sampling": 4}
    found = apply("roi_align", x, rois, np.array([0, 0]), **attrs)
    np.testing.assert_allclose(found[:, 0, 0, 0], [0, 0.75])  # the sample at -1 counts


def test_greatest_of_regions(apply: Any) -> None:
    x = RAMP[None, None]
    rois = np.array([[0.0, 1, 2, 6, 9], [0, 3, 3, 3, 3], [0, 20, 20, 30, 30]])
    found = apply("max_roi_pool", x, rois, size=(2, 2))
    np.testing.assert_array_equal(found[0, 0], [[53, 56], [93, 96]])
    np.testing.assert_array_equal(found[1, 0], np.full((2, 2), 33))
    np.testing.assert_array_equal(found[2, 0], np.zeros((2, 2)))
    halves = apply("max_roi_pool", x, rois[1:2] * [1, 0.5, 0.5, 0.5, 0.5], size=(1, 1))
    assert halves.item() == 22  # 1.5 is rounded away from zero


@pytest.mark.parametrize("sampling", [0, 2])
def test_gradient_is_the_adjoint(apply: Any, sampling: int) -> None:
    """<g, align(x)> is <align_grad(g), x>; in images of equal numbers all of g arrives."""
    rng = np.random.default_rng(1)
    x, g = rng.uniform(-1, 1, (2, 3, 7, 6)), rng.uniform(-1, 1, (3, 3, 2, 2))
    rois, batch = np.array([[1.0, 2, 5, 6], [0.3, 0.1, 2, 3.3], [-3, 1, 9, 8]]), np.array([1, 0, 1])
    attrs = {"size": (2, 2), "sampling": sampling}
    found = apply("roi_align_grad", g, rois, batch, shape=x.shape, **attrs)
    pooled = apply("roi_align", x, rois, batch, **attrs)
    np.testing.assert_allclose(np.sum(found * x), np.sum(g * pooled))
    np.testing.assert_allclose(found[0].sum((1, 2)), g[1].sum((1, 2)))


def test_places_of_the_greatest(apply: Any) -> None:
    x = np.stack([RAMP, -RAMP])[None]
    rois = np.array([[0.0, 1, 2, 6, 9], [0, 20, 20, 30, 30]])
    index = apply("max_roi_pool_places", x, rois, size=(2, 2))
    pooled = apply("max_roi_pool", x, rois, size=(2, 2))
    np.testing.assert_array_equal(index[1], np.full((2, 2, 2), -1))
    np.testing.assert_array_equal(x.reshape(-1)[index[0]], pooled[0])
    attrs: dict[str, Any] = {"size": (2, 2), "sampling": 2}
    index, weight = apply("roi_align_places", x, rois[:, 1:], np.array([0, 0]), **attrs)
    pooled = apply("roi_align", x, rois[:, 1:], np.array([0, 0]), mode="max", **attrs)
    np.testing.assert_allclose(x.reshape(-1)[index] * weight, pooled)


def test_places_take_the_first_of_equal_ones(apply: Any) -> None:
    index = apply("max_roi_pool_places", np.ones((1, 1, 4, 4)), np.array([[0.0, 1, 1, 3, 3]]),
                  size=(1, 1))  # fmt: skip
    assert index.item() == 5
