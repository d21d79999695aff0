"""Resizing against torch; what lies on the grid is kept; extents may be symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc.ir.dims import sym

X = np.random.default_rng(0).standard_normal((2, 3, 7, 5))
TORCH = [
    ("linear", (14, 10), {}, {"mode": "bilinear"}),
    ("linear", (4, 9), {}, {"mode": "bilinear"}),
    ("linear", (4, 9), {"coordinates": "align_corners"},
     {"mode": "bilinear", "align_corners": True}),
    ("linear", (3, 3), {"antialias": True, "exclude_outside": True},
     {"mode": "bilinear", "antialias": True}),
    ("cubic", (14, 8), {}, {"mode": "bicubic"}),
    ("cubic", (3, 4), {"antialias": True, "exclude_outside": True, "cubic": -0.5},
     {"mode": "bicubic", "antialias": True}),
    ("nearest", (9, 12), {"coordinates": "asymmetric", "rounding": "floor"}, {"mode": "nearest"}),
]  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize(("mode", "size", "attrs", "options"), TORCH)
def test_against_torch(apply: Any, mode: str, size: Any, attrs: Any, options: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra `oracle`)")
    found = apply("resize", X, axes=(2, 3), sizes=size, mode=mode, **attrs)
    want = torch.nn.functional.interpolate(torch.from_numpy(X), size, **options).numpy()
    np.testing.assert_allclose(found, want, atol=1e-12)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_elements_on_the_grid_are_kept(apply: Any, mode: str) -> None:
    sizes, attrs = (13, 9), {"coordinates": "align_corners", "rounding": "floor"}
    found = apply("resize", X, axes=(2, 3), sizes=sizes, mode=mode, **attrs)
    np.testing.assert_allclose(found[:, :, ::2, ::2], X, atol=1e-12)


def test_roundings(apply: Any) -> None:
    """Halves between two elements: x(p) = p / 2 with scale 2."""
    x = np.arange(4.0)
    wanted = {
        "floor": [0, 0, 1, 1, 2, 2, 3, 3], "ceil": [0, 1, 1, 2, 2, 3, 3, 3],
        "round_prefer_floor": [0, 0, 1, 1, 2, 2, 3, 3],
        "round_prefer_ceil": [0, 1, 1, 2, 2, 3, 3, 3],
    }  # fmt: skip
    for rounding, want in wanted.items():
        attrs = {"coordinates": "asymmetric", "rounding": rounding}
        np.testing.assert_array_equal(apply("resize", x, axes=(0,), sizes=(8,), **attrs), want)


def test_a_region(apply: Any) -> None:
    """From the middle to beyond the end: what is outside gets the extrapolation value."""
    x = np.arange(5.0)
    attrs = {"coordinates": "tf_crop_and_resize", "mode": "linear", "roi": (0.5, 1.25)}
    found = apply("resize", x, axes=(0,), sizes=(4,), extrapolation=9.0, **attrs)
    np.testing.assert_allclose(found, [2, 3, 4, 9])


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("scale", [2.0, 3.0, 1.5])
def test_symbolic_extents(apply: Any, mode: str, scale: float) -> None:
    sizes = (sym("H") * int(2 * scale) // 2, int(5 * scale))
    x = np.concatenate([X, X], axis=2)
    types = ["f64[2, 3, H, 5]"]
    attrs: dict[str, Any] = {"axes": (2, 3), "mode": mode, "scales": (scale, scale)}
    found = apply("resize", x, types=types, sizes=sizes, **attrs)
    fixed = apply("resize", x, sizes=(int(14 * scale), int(5 * scale)), **attrs)
    np.testing.assert_allclose(found, fixed, atol=1e-12)
