"""Recurrent layers as torch exports them, against torch and, node by node, the standard's cases."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper


def exported(net: Any, x: Any) -> onnx.ModelProto:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra `oracle`)")
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), target, dynamo=False)
    return onnx.load_from_string(target.getvalue())


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize(
    ("layers", "both", "batch_first"), [(1, False, False), (1, True, True), (2, True, False)]
)
def test_exports_of_torch(
    imported: Callable[..., Any], kind: str, layers: int, both: bool, batch_first: bool
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra `oracle`)")
    torch.manual_seed(0)
    net = getattr(torch.nn, kind)(
        5, 4, num_layers=layers, bidirectional=both, batch_first=batch_first
    ).eval()
    x = torch.randn(3, 3, 5)
    y, states = net(x)
    want = [y, *(states if isinstance(states, tuple) else (states,))]
    found = imported(exported(net, x), [x.numpy()])
    for got, expected in zip(found, want, strict=True):
        np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_activations_take_their_parameters_in_order(
    make: Callable[..., Any], imported: Callable[..., Any]
) -> None:
    """Only those that have alpha or beta take one from the lists."""
    node = helper.make_node(
        "GRU", ["x", "w", "r"], ["y"], hidden_size=1, direction="bidirectional",
        activations=["HardSigmoid", "Tanh", "Sigmoid", "Affine"],
        activation_alpha=[0.3, 2.0], activation_beta=[0.4, 0.5],
    )  # fmt: skip
    x = np.full((1, 1, 1), 0.5, np.float32)
    w, r = np.ones((2, 3, 1), np.float32), np.zeros((2, 3, 1), np.float32)
    inputs = {n: (a.dtype, a.shape) for n, a in (("x", x), ("w", w), ("r", r))}
    (y,) = imported(make([node], inputs, ["y"]), [x, w, r])
    first = (1 - (0.3 * 0.5 + 0.4)) * np.tanh(0.5)
    second = (1 - 1 / (1 + np.exp(-0.5))) * (2 * 0.5 + 0.5)
    np.testing.assert_allclose(y.reshape(-1), [first, second], rtol=1e-6)
