"""Rows of vision and signals where the official cases say little: symbolic extents, versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper

from irc.frontends.onnx import load
from irc.ir.errors import Error

RNG = np.random.default_rng(0)


def test_upsampling_of_unknown_extents(
    make: Callable[..., Any], imported: Callable[..., Any]
) -> None:
    """By scales, and by sizes computed from the shape, for any extent."""
    x = RNG.standard_normal((1, 2, 3, 5)).astype(np.float32)
    attrs: dict[str, Any] = {"mode": "nearest", "nearest_mode": "floor",
                             "coordinate_transformation_mode": "asymmetric"}  # fmt: skip
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["a"], **attrs),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Mul", ["shape", "twice"], ["sizes"]),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["b"], **attrs),
    ]
    constants = {
        "scales": np.array([1, 1, 2, 2], np.float32), "twice": np.array([1, 1, 2, 2], np.int64)
    }  # fmt: skip
    model = make(nodes, {"x": (np.float32, [1, 2, "H", "W"])}, ["a", "b"], constants)
    a, b = imported(model, [x])
    want = x.repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_array_equal(a, want)
    np.testing.assert_array_equal(b, want)


def test_a_ratio_that_is_not_known_is_refused(make: Callable[..., Any]) -> None:
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"])
    constants = {"sizes": np.array([1, 2, 7, 9], np.int64)}
    model = make([node], {"x": (np.float32, [1, 2, "H", "W"])}, ["y"], constants)
    with pytest.raises(Error, match="ratio"):
        load(model)


def test_transposed_convolution_of_unknown_extents(
    make: Callable[..., Any], imported: Callable[..., Any]
) -> None:
    x = RNG.standard_normal((1, 2, 4, 3)).astype(np.float32)
    w = RNG.standard_normal((2, 3, 3, 3)).astype(np.float32)
    attrs = {"strides": [2, 2], "auto_pad": "SAME_UPPER"}
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], **attrs)
    found = []
    for shape in ([1, 2, 4, 3], [1, 2, "H", "W"]):
        model = make([node], {"x": (np.float32, shape)}, ["y"], {"w": w})
        (y,) = imported(model, [x])
        assert y.shape == (1, 3, 8, 6)
        np.testing.assert_allclose(y[0, :, 0, 0], x[0, :, 0, 0] @ w[:, :, 0, 0], rtol=1e-5)
        found.append(y)
    np.testing.assert_array_equal(*found)


def test_older_region_pooling_is_not_shifted(
    make: Callable[..., Any], imported: Callable[..., Any]
) -> None:
    """Opset 10 has no half pixel: a region of a ramp has its mean at the centre of the corners."""
    x = np.arange(8, dtype=np.float32).reshape(1, 1, 1, 8).repeat(8, axis=2)
    rois, batch = np.array([[1, 1, 5, 5]], np.float32), np.array([0], np.int64)
    node = helper.make_node("RoiAlign", ["x", "rois", "batch"], ["y"], sampling_ratio=2)
    inputs = {n: (a.dtype, a.shape) for n, a in (("x", x), ("rois", rois), ("batch", batch))}
    for opset, want in ((10, 3.0), (16, 2.5)):
        (y,) = imported(make([node], inputs, ["y"], opset=opset), [x, rois, batch])
        np.testing.assert_allclose(y.item(), want)


@pytest.mark.parametrize("align", [0, 1])
def test_affine_grid_of_the_identity(
    make: Callable[..., Any], imported: Callable[..., Any], align: int
) -> None:
    """Sampling at the points of the identity gives the image."""
    x = RNG.standard_normal((1, 2, 3, 4)).astype(np.float32)
    theta = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    nodes = [
        helper.make_node("AffineGrid", ["theta", "size"], ["grid"], align_corners=align),
        helper.make_node("GridSample", ["x", "grid"], ["y"], align_corners=align),
    ]
    inputs = {"x": (x.dtype, x.shape), "theta": (theta.dtype, theta.shape)}
    model = make(nodes, inputs, ["y"], {"size": np.array(x.shape)}, opset=20)
    (y,) = imported(model, [x, theta])
    np.testing.assert_allclose(y, x, atol=1e-6)
