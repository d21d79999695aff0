"""The fused ops of com.microsoft against onnxruntime itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

F = np.float32
RNG = np.random.default_rng(0)


def f(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(F)


def small(dtype: Any, *shape: int) -> Any:
    return RNG.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def scale(value: float) -> Any:
    return np.array(value, F)


def ints(high: int, *shape: int) -> Any:
    return RNG.integers(0, high, shape).astype(np.int32)


U, I = np.uint8, np.int8
X = [scale(0.05), U(120)]
"""Scale and zero point of an operand."""
Y = [scale(0.11), U(90)]
B, S, T, H, D = 2, 5, 7, 2, 4
W = H * D
CASES: list[tuple[str, list[Any], int, dict[str, Any]]] = [
    ("Gelu", [f(3, 4)], 1, {}),
    ("BiasGelu", [f(3, 4), f(4)], 1, {}),
    ("FastGelu", [f(3, 4)], 1, {}),
    ("FastGelu", [f(3, 4), f(4)], 1, {}),
    ("QuickGelu", [f(3, 4)], 1, {"alpha": 1.3}),
    ("FusedMatMul", [f(2, 5, 3), f(2, 4, 5)], 1, {"transA": 1, "transB": 1, "alpha": 0.3}),
    ("FusedMatMul", [f(5, 2, 3, 4), f(6, 2, 3, 4)], 1,
     {"transBatchA": 1, "transBatchB": 1, "transB": 1, "alpha": 0.5}),
    ("FusedMatMul", [f(5, 2, 6), f(2, 5, 3)], 1, {"transBatchA": 1, "transA": 1}),
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
QUANTIZED: list[tuple[str, list[Any], int, dict[str, Any]]] = [
    ("QLinearAdd", [small(U, 2, 3, 4), *X, small(U, 3, 1), *Y, scale(0.2), U(100)], 1, {}),
    ("QLinearMul", [small(I, 2, 3), scale(0.05), I(3), small(I, 3), scale(0.1), I(-4), scale(0.4),
     I(0)], 1, {}),
    ("QLinearSigmoid", [small(U, 2, 3), *X, scale(1 / 256), U(0)], 1, {}),
    ("QLinearLeakyRelu", [small(I, 2, 30), scale(0.05), I(9), scale(0.04), I(-7)], 1,
     {"alpha": 0.2}),
    ("QLinearSoftmax", [small(U, 2, 5), *X, scale(1 / 256), U(0)], 1, {"axis": -1, "opset": 13}),
    ("QLinearAveragePool", [small(U, 1, 2, 6, 7), *X, *Y], 1,
     {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 1]}),
    ("QLinearAveragePool", [small(U, 1, 6, 7, 2), *X, *Y], 1,
     {"kernel_shape": [3, 2], "channels_last": 1}),
    ("QLinearGlobalAveragePool", [small(U, 1, 3, 5, 5), *X, scale(0.02), U(128)], 1,
     {"channels_last": 0}),
    ("QLinearGlobalAveragePool", [small(U, 1, 5, 5, 3), *X, scale(0.02), U(128)], 1,
     {"channels_last": 1}),
    ("QLinearConcat", [*Y, small(U, 2, 3), *X, small(U, 2, 2), scale(0.09), U(128)], 1,
     {"axis": 1}),
    ("MatMulIntegerToFloat", [small(U, 3, 4), small(I, 4, 5), scale(0.1), abs(f(5)), U(7),
     small(I, 5), f(5)], 1, {}),
    ("MatMulIntegerToFloat", [small(U, 3, 4), small(U, 4, 5), scale(0.1), scale(0.2)], 1, {}),
    ("DynamicQuantizeMatMul", [f(3, 4), small(I, 4, 5), scale(0.1), I(3), f(5)], 1, {}),
    ("DynamicQuantizeMatMul", [f(3, 4), small(I, 4, 5), abs(f(5))], 1, {}),
    ("QGemm", [small(U, 3, 4), *X, small(I, 5, 4), abs(f(5)) / 9, np.zeros(5, I),
     ints(900, 5), scale(0.9), U(110)], 1, {"transB": 1}),
    ("QGemm", [small(U, 3, 4), *X, small(U, 4, 5), *Y, ints(900, 5)], 1, {}),
]  # fmt: skip
"""As onnxruntime: its integer arithmetic may round to the neighbour."""
CASES += QUANTIZED


@pytest.mark.oracle
@pytest.mark.parametrize("wide", [False, True])
def test_an_lstm_with_quantized_weights(
    make: Callable[..., Any], imported: Callable[..., Any], wide: bool
) -> None:
    """onnxruntime rounds x and the states to eight bits too, we do not: a wider tolerance."""
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra `bench`)")
    lies = (2, 16) if wide else (2,)
    scales = [(abs(RNG.standard_normal(lies)) / 400 + 0.002).astype(F) for _ in range(2)]
    points = [np.zeros(lies, I) for _ in range(2)]
    weights = [small(I, 2, 3, 16), small(I, 2, 4, 16)]
    arrays = [f(5, 2, 3), *weights, f(2, 32), None, None, None, None,
              scales[0], points[0], scales[1], points[1]]  # fmt: skip
    attrs = {"hidden_size": 4, "direction": "bidirectional"}
    model = model_of(make, "DynamicQuantizeLSTM", arrays, 3, attrs)
    for k in (1, 2, 8, 9, 10, 11):
        model.graph.initializer.append(numpy_helper.from_array(arrays[k], f"x{k}"))
    del model.graph.input[:]
    for k in (0, 3):
        type_ = helper.np_dtype_to_tensor_dtype(arrays[k].dtype)
        model.graph.input.append(helper.make_tensor_value_info(f"x{k}", type_, arrays[k].shape))
    given = [arrays[0], arrays[3]]
    want = ort.InferenceSession(model.SerializeToString()).run(
        None, {"x0": given[0], "x3": given[1]}
    )
    for got, expected in zip(imported(model, given), want, strict=True):
        np.testing.assert_allclose(got, expected, atol=0.03)


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
    given = [np.asarray(a) for a in arrays if a is not None]
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    want = session.run(None, dict(zip([i.name for i in session.get_inputs()], given, strict=True)))
    for got, expected in zip(imported(model, given), want, strict=True):
        assert got.dtype == expected.dtype and got.shape == expected.shape
        off = 1 if expected.dtype in (U, I) else 2e-5
        np.testing.assert_allclose(got.astype(F), expected.astype(F), rtol=1e-4, atol=off)
