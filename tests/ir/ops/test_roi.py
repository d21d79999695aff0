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
