"""Rows of ops whose form changed between opsets: each form against numpy.

The newest forms are covered by the official suite (tests/conformance); here are the older ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from onnx import TensorProto, helper

Array = np.ndarray[Any, Any]


class Form(NamedTuple):
    """One node: op, opset, operands (an array, or ("known", array) for an initializer), result."""

    op: str
    opset: int
    operands: Sequence[Any]
    attrs: dict[str, Any]
    expected: Callable[..., Any]


def known(*values: Any, dtype: Any = np.int64) -> tuple[str, Array]:
    return "known", np.array(values, dtype)


X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
IMAGE = np.random.default_rng(1).standard_normal((1, 2, 5, 6)).astype(np.float32)
C2 = np.array([2.0, 3.0, 4.0], np.float32)


def soft(x: Array, axis: int) -> Array:
    powers = np.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def flat_soft(x: Array) -> Array:
    return soft(x.reshape(x.shape[0], -1), 1).reshape(x.shape)


def channels(v: Array) -> Array:
    return v.reshape(-1, 1, 1)


BN = [np.array(v, np.float32) for v in ([1.5, 0.5], [0.1, -0.2], [0.3, 0.4], [0.9, 1.7])]


def batch_norm(x: Array, s: Array, b: Array, m: Array, v: Array) -> Array:
    s, b, m, v = [channels(p) for p in (s, b, m, v)]
    return (x - m) / np.sqrt(v + 1e-5) * s + b


def max_pool(x: Array) -> Array:
    return np.stack([x[..., k : k + 2] for k in (0, 2)]).max(-1).transpose(1, 2, 3, 0)


FORMS = [
    Form("Add", 1, [X, C2], {"broadcast": 1, "axis": 1}, lambda x, c: x + c[:, None]),
    Form("Add", 6, [X, X], {}, lambda x, y: x + y),
    Form("Mul", 6, [X, X[0]], {"broadcast": 1, "axis": 1}, lambda x, y: x * y),
    Form("Sub", 6, [X, X[0, 0]], {"broadcast": 1}, lambda x, y: x - y),
    Form("Div", 7, [X, C2[:, None]], {}, lambda x, c: x / c),
    Form("Greater", 1, [X, C2], {"broadcast": 1, "axis": 1}, lambda x, c: x > c[:, None]),
    Form("Pow", 13, [X, np.array(2, np.int64)], {}, lambda x, y: x**2),
    Form("Cast", 1, [X], {"to": "INT32"}, lambda x: x.astype(np.int32)),
    Form("Cast", 6, [X], {"to": TensorProto.DOUBLE}, lambda x: x.astype(np.float64)),
    Form("Clip", 6, [X], {"min": -0.5, "max": 0.25}, lambda x: np.clip(x, -0.5, 0.25)),
    Form("Clip", 6, [X], {"min": 0.0}, lambda x: np.maximum(x, 0)),
    Form("Clip", 11, [X, np.float32(-0.5), None], {}, lambda x, a, b: np.maximum(x, -0.5)),
    Form("Dropout", 1, [X], {"is_test": 1}, lambda x: x),
    Form("Dropout", 7, [X], {"ratio": 0.3}, lambda x: x),
    Form("Dropout", 12, [X, known(0.3, dtype=np.float32)], {}, lambda x, r: x),
    Form("PRelu", 6, [X, C2[:1]], {}, lambda x, s: np.where(x < 0, s * x, x)),
    Form("Selu", 1, [X], {}, lambda x: 1.0507 * np.where(x > 0, x, 1.6732 * np.expm1(x))),
    Form("Reshape", 1, [X], {"shape": [0, -1]}, lambda x: x.reshape(2, 12)),
    Form("Reshape", 5, [X, known(4, -1)], {}, lambda x, s: x.reshape(4, 6)),
    Form("Squeeze", 1, [X[:1]], {"axes": [0]}, lambda x: x[0]),
    Form("Squeeze", 11, [X[:1]], {}, lambda x: x[0]),
    Form("Squeeze", 13, [X[:1], known(-3)], {}, lambda x, a: x[0]),
    Form("Unsqueeze", 1, [X], {"axes": [0, 4]}, lambda x: x[None, ..., None]),
    Form("Unsqueeze", 13, [X, known(-1)], {}, lambda x, a: x[..., None]),
    Form("Flatten", 1, [X], {}, lambda x: x.reshape(2, 12)),
    Form("Flatten", 11, [X], {"axis": -1}, lambda x: x.reshape(6, 4)),
    Form("Concat", 1, [X, X], {}, lambda x, y: np.concatenate([x, y], 1)),
    Form("Concat", 4, [X, X], {"axis": 2}, lambda x, y: np.concatenate([x, y], 2)),
    Form("Split", 2, [X], {"axis": 2, "split": [1, 3]}, lambda x: (x[..., :1], x[..., 1:])),
    Form("Split", 2, [X], {"axis": 0}, lambda x: (x[:1], x[1:])),
    Form("Split", 13, [X, known(1, 3)], {"axis": -1}, lambda x, s: (x[..., :1], x[..., 1:])),
    Form("Split", 18, [X], {"axis": 1, "num_outputs": 2}, lambda x: (x[:, :2], x[:, 2:])),
    Form("Slice", 1, [X], {"starts": [1, 0], "ends": [3, 99], "axes": [1, 2]}, lambda x: x[:, 1:3]),
    Form("Slice", 9, [X], {"starts": [-2], "ends": [-1], "axes": [2]}, lambda x: x[..., -2:-1]),
    Form(
        "Slice",
        10,
        [X, known(-1), known(-99), known(2), known(-2)],
        {},
        lambda x, *_: x[..., ::-2],
    ),
    Form("Slice", 13, [X, known(3), known(1)], {}, lambda x, *_: x[3:1]),
    Form("Pad", 1, [X[0]], {"paddings": [1, 0, 0, 2]}, lambda x: np.pad(x, ((1, 0), (0, 2)))),
    Form(
        "Pad",
        2,
        [X[0]],
        {"pads": [1, 0, 0, 2], "value": 3.0},
        lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=3),
    ),
    Form(
        "Pad",
        2,
        [X[0]],
        {"pads": [2, 1, 1, 0], "mode": "reflect"},
        lambda x: np.pad(x, ((2, 1), (1, 0)), "reflect"),
    ),
    Form(
        "Pad",
        11,
        [X[0], known(0, 1, 1, 0), known(2.5, dtype=np.float32)],
        {},
        lambda x, *_: np.pad(x, ((0, 1), (1, 0)), constant_values=2.5),
    ),
    Form(
        "Pad",
        11,
        [X[0], known(0, 1, 1, 0), np.float32(2.5)],
        {},
        lambda x, *_: np.pad(x, ((0, 1), (1, 0)), constant_values=2.5),
    ),
    Form(
        "Pad",
        18,
        [X, known(1, 0), None, known(-1)],
        {},
        lambda x, *_: np.pad(x, ((0, 0), (0, 0), (1, 0))),
    ),
    Form("Tile", 1, [X, known(2), known(1)], {}, lambda x, *_: np.tile(x, (1, 2, 1))),
    Form("Tile", 6, [X, known(2, 1, 3)], {}, lambda x, r: np.tile(x, (2, 1, 3))),
    Form("Expand", 8, [X[:, :1], known(3, 1)], {}, lambda x, s: np.broadcast_to(x, (2, 3, 4))),
    Form(
        "Upsample",
        7,
        [IMAGE],
        {"scales": [1.0, 1.0, 2.0, 2.0]},
        lambda x: x.repeat(2, 2).repeat(2, 3),
    ),
    Form(
        "Upsample", 9, [IMAGE, known(1, 1, 2, 1, dtype=np.float32)], {}, lambda x, s: x.repeat(2, 2)
    ),
    Form(
        "Resize", 10, [IMAGE, known(1, 1, 1, 2, dtype=np.float32)], {}, lambda x, s: x.repeat(2, 3)
    ),
    Form("ReduceSum", 1, [X], {"axes": [1], "keepdims": 0}, lambda x: x.sum(1)),
    Form("ReduceSum", 11, [X], {"axes": [-1]}, lambda x: x.sum(-1, keepdims=True)),
    Form("ReduceSum", 13, [X, known(0, 2)], {}, lambda x, a: x.sum((0, 2), keepdims=True)),
    Form("ReduceSum", 13, [X], {"noop_with_empty_axes": 1}, lambda x: x),
    Form("ReduceMean", 13, [X], {"axes": [1, 2]}, lambda x: x.mean((1, 2), keepdims=True)),
    Form("ReduceMean", 18, [X, known(1)], {"keepdims": 0}, lambda x, a: x.mean(1)),
    Form("ReduceL2", 13, [X], {}, lambda x: np.sqrt((x * x).sum(keepdims=True))),
    Form("ReduceL1", 18, [X], {"noop_with_empty_axes": 1}, np.abs),
    Form("ArgMax", 1, [X], {"axis": 1}, lambda x: x.argmax(1)[:, None]),
    Form(
        "ArgMax",
        12,
        [np.ones((2, 3), np.float32)],
        {"axis": 1, "select_last_index": 1},
        lambda x: np.full((2, 1), 2),
    ),
    Form("Softmax", 1, [X], {}, flat_soft),
    Form("Softmax", 11, [X], {"axis": 2}, lambda x: soft(x, 2)),
    Form("Softmax", 13, [X], {}, lambda x: soft(x, -1)),
    Form("LogSoftmax", 1, [X], {}, lambda x: np.log(flat_soft(x))),
    Form("TopK", 1, [X], {"k": 2}, lambda x: (-np.sort(-x)[..., :2], np.argsort(-x)[..., :2])),
    Form(
        "TopK",
        10,
        [X, known(1)],
        {"axis": 1},
        lambda x, k: (x.max(1, keepdims=True), x.argmax(1)[:, None]),
    ),
    Form(
        "TopK",
        11,
        [X, known(1)],
        {"largest": 0},
        lambda x, k: (x.min(-1, keepdims=True), x.argmin(-1)[..., None]),
    ),
    Form("BatchNormalization", 1, [IMAGE, *BN], {"is_test": 1}, batch_norm),
    Form("BatchNormalization", 7, [IMAGE, *BN], {}, batch_norm),
    Form("BatchNormalization", 15, [IMAGE, *BN], {}, batch_norm),
    Form(
        "MaxPool",
        1,
        [X[:1, :, :4]],
        {"kernel_shape": [2], "strides": [2]},
        lambda x: np.maximum(x[..., ::2], x[..., 1::2]),
    ),
    Form(
        "AveragePool",
        7,
        [X],
        {"kernel_shape": [2], "pads": [1, 0], "count_include_pad": 1},
        lambda x: (np.pad(x, ((0, 0), (0, 0), (1, 0)))[..., :-1] + x) / 2,
    ),
    Form(
        "Gemm",
        6,
        [X[0], X[1].T.copy(), C2],
        {"broadcast": 1, "alpha": 0.5},
        lambda a, b, c: 0.5 * a @ b + c,
    ),
    Form("Gemm", 11, [X[0], X[1]], {"transB": 1}, lambda a, b: a @ b.T),
    Form(
        "OneHot",
        9,
        [np.array([1, -1]), known(3), known(0, 5, dtype=np.float32)],
        {},
        lambda i, *_: 5 * np.eye(3, dtype=np.float32)[i],
    ),
    Form("Scan", 9, [X[:, 0]], {}, lambda x: x.cumsum(0)),
]


def node_of(form: Form, names: Sequence[str], results: int) -> Any:
    """The form's node; Scan gets a body that adds up."""
    attrs = dict(form.attrs)
    if form.op == "Scan":
        info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in "abcd"]
        add = helper.make_node("Add", ["a", "b"], ["c"])
        copy = helper.make_node("Identity", ["c"], ["d"])
        attrs = {"body": helper.make_graph([add, copy], "b", info[:2], info[2:]),
                 "num_scan_inputs": 1}  # fmt: skip
        return helper.make_node("Scan", ["zero", *names], ["", "y0"], **attrs)
    return helper.make_node(form.op, names, [f"y{k}" for k in range(results)], form.op, **attrs)


@pytest.mark.parametrize("form", FORMS, ids=[f"{k}-{f.op}-{f.opset}" for k, f in enumerate(FORMS)])
def test_each_form(form: Form, make: Any, imported: Any) -> None:
    names, inputs, constants, arrays, plain = [], {}, {}, [], []
    for k, operand in enumerate(form.operands):
        is_known = isinstance(operand, tuple)
        array = operand[1] if is_known else operand
        names.append("" if array is None else f"x{k}")
        plain.append(array)
        if is_known:
            constants[f"x{k}"] = array
        elif array is not None:
            inputs[f"x{k}"] = (array.dtype, array.shape)
            arrays.append(array)
    expected = form.expected(*plain)
    expected = expected if isinstance(expected, tuple) else (expected,)
    if form.op == "Scan":
        constants["zero"] = np.zeros(4, np.float32)
    node = node_of(form, names, len(expected))
    outputs = [f"y{k}" for k in range(len(expected))]
    model = make([node], inputs, outputs, constants, opset=form.opset)
    found = imported(model, arrays)
    for got, want in zip(found, expected, strict=True):
        want = np.asarray(want)
        assert got.shape == want.shape
        assert got.dtype.kind == want.dtype.kind
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
