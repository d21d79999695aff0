"""The fused ops of com.microsoft against onnxruntime itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper

F = np.float32
RNG = np.random.default_rng(0)


def f(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(F)


def ints(high: int, *shape: int) -> Any:
    return RNG.integers(0, high, shape).astype(np.int32)


B, S, T, H, D = 2, 5, 7, 2, 4
W = H * D
CASES: list[tuple[str, list[Any], int, dict[str, Any]]] = [
    ("Gelu", [f(3, 4)], 1, {}),
    ("BiasGelu", [f(3, 4), f(4)], 1, {}),
    ("FastGelu", [f(3, 4)], 1, {}),
    ("FastGelu", [f(3, 4), f(4)], 1, {}),
    ("QuickGelu", [f(3, 4)], 1, {"alpha": 1.3}),
    ("FusedMatMul", [f(2, 5, 3), f(2, 4, 5)], 1, {"transA": 1, "transB": 1, "alpha": 0.3}),
    ("FusedGemm", [f(3, 4), f(5, 4), f(5)], 1, {"transB": 1, "activation": "Relu"}),
    ("FusedGemm", [f(3, 4), f(4, 5)], 1, {"activation": "LeakyRelu", "activation_alpha": 0.3}),
    ("FusedConv", [f(1, 3, 6, 6), f(4, 3, 3, 3), f(4)], 1, {"activation": "Relu"}),
    ("FusedConv", [f(1, 3, 6, 6), f(4, 3, 3, 3), f(4), f(1, 4, 4, 4)], 1,
     {"activation": "Clip", "activation_params": [-0.5, 1.5]}),
    ("SkipLayerNormalization", [f(B, S, W), f(B, S, W), f(W), f(W), f(W)], 1, {"epsilon": 1e-5}),
    ("SkipSimplifiedLayerNormalization", [f(B, S, W), f(B, S, W), f(W)], 1, {"epsilon": 1e-5}),
    ("EmbedLayerNormalization", [ints(9, B, S), ints(2, B, S), f(9, W), f(8, W), f(2, W), f(W),
     f(W), ints(2, B, S)], 2, {"epsilon": 1e-5}),
    ("Attention", [f(B, S, 6), f(6, 3 * W), f(3 * W)], 1, {"num_heads": H}),
    ("Attention", [f(B, S, 6), f(6, 3 * W), f(3 * W), np.array([3, 5], np.int32)], 1,
     {"num_heads": H}),
    ("Attention", [f(B, S, 6), f(6, 3 * W), f(3 * W), ints(2, B, S)], 1,
     {"num_heads": H, "unidirectional": 1}),
    ("Attention", [f(B, S, 6), f(6, 3 * W), f(3 * W), None, f(2, B, H, 3, D)], 2,
     {"num_heads": H, "unidirectional": 1}),
    ("MultiHeadAttention", [f(B, S, W), f(B, T, W), f(B, T, W)], 1, {"num_heads": H}),
    ("MultiHeadAttention", [f(B, S, W), f(B, T, W), f(B, T, W), f(3 * W), ints(2, B, T)], 1,
     {"num_heads": H, "scale": 0.3}),
    ("MultiHeadAttention", [f(B, S, W), f(B, S, W), f(B, S, W), None, None, f(1, H, S, S + 3),
     f(B, H, 3, D), f(B, H, 3, D)], 3, {"num_heads": H}),
    ("RotaryEmbedding", [f(B, S, W), np.array([2], np.int64), f(9, D // 2), f(9, D // 2)], 1, {}),
    ("RotaryEmbedding", [f(B, H, S, D), ints(9, B, S).astype(np.int64), f(9, D // 2),
     f(9, D // 2)], 1, {"interleaved": 1}),
]  # fmt: skip


def model_of(make: Any, op: str, arrays: list[Any], results: int, attrs: Any) -> Any:
    names = ["" if a is None else f"x{k}" for k, a in enumerate(arrays)]
    out = [f"y{k}" for k in range(results)]
    inputs = {n: (a.dtype, a.shape) for n, a in zip(names, arrays, strict=True) if n}
    node = helper.make_node(op, names, out, domain="com.microsoft", **attrs)
    model = make([node], inputs, out)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


@pytest.mark.oracle
@pytest.mark.parametrize("case", CASES, ids=[f"{k}-{c[0]}" for k, c in enumerate(CASES)])
def test_against_onnxruntime(
    make: Callable[..., Any], imported: Callable[..., Any], case: Any
) -> None:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra `bench`)")
    op, arrays, results, attrs = case
    model = model_of(make, op, arrays, results, attrs)
    given = [a for a in arrays if a is not None]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    want = session.run(None, dict(zip([i.name for i in session.get_inputs()], given, strict=True)))
    for got, expected in zip(imported(model, given), want, strict=True):
        assert got.dtype == expected.dtype and got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5)
