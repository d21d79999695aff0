"""The transposed convolution is the adjoint of the convolution; extents may be symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

CASES = [
    ((6, 7), (3, 2), {"strides": (2, 3), "pads": (1, 0, 0, 1)}, (0, 0)),
    ((9, 8), (2, 3), {"strides": (1, 2), "dilations": (3, 1)}, (0, 1)),
    ((8, 8), (3, 3), {"strides": (2, 2), "pads": (1, 1, 1, 1)}, (1, 1)),
    ((11,), (4,), {"strides": (5,), "pads": (2, 1)}, (0,)),
]


@pytest.mark.parametrize(("size", "kernel", "attrs", "extra"), CASES)
@pytest.mark.parametrize("groups", [1, 2])
def test_adjoint(apply: Any, size: Any, kernel: Any, attrs: Any, extra: Any, groups: int) -> None:
    """The dot product of conv(x) with y is that of x with conv_transpose(y)."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, *size))
    w = rng.standard_normal((6, 4 // groups, *kernel))
    there = apply("conv", x, w, groups=groups, **attrs)
    y = rng.standard_normal(there.shape)
    back = apply("conv_transpose", y, w, groups=groups, extra=extra, **attrs)
    assert back.shape == x.shape
    np.testing.assert_allclose(np.vdot(there, y), np.vdot(x, back), rtol=1e-11)


def test_one_tap_spreads(apply: Any) -> None:
    x = np.array([[[1.0, 2.0, 3.0]]])
    found = apply("conv_transpose", x, np.ones((1, 1, 1)), strides=(2,), extra=(1,))
    np.testing.assert_array_equal(found, [[[1, 0, 2, 0, 3, 0]]])


def test_symbolic_extents(apply: Any) -> None:
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((3, 2, 3, 2))
    attrs = {"strides": (2, 2), "pads": (1, 0, 1, 0)}
    types = ["f64[N, 3, H, W]", "f64[3, 2, 3, 2]"]
    found = apply("conv_transpose", x, w, types=types, **attrs)
    np.testing.assert_array_equal(found, apply("conv_transpose", x, w, **attrs))
