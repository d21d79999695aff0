"""Import rows of com.microsoft's quantized ops: what onnxruntime's quantizer writes in the operator
format, and its optimizer for dynamic quantization.

Their definitions are those of onnxruntime's docs/ContribOperators.md.  Imports: node, the rows of
the ops they are made of, ir.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...ir.core import Value
from ...ir.types import f32, i32
from .node import Node, Result, Row
from .rows_linear import product, shifted
from .rows_pool import average_pooled
from .rows_quant import dequantized, dynamic_quantize
from .rows_sequence import lstm


def _real(n: Node, x: int, scale: int, zero: int) -> Value:
    """Operand `x` dequantized by one scale and, where given, one zero point."""
    point = n.opt(zero)
    point = None if point is None else n.reshape(point, ())
    return n.b.dequantize(n.x(x), n.reshape(n.x(scale), ()), point)  # type: ignore[no-any-return]


def _quantized(n: Node, y: Value, scale: int, zero: int, to: Any) -> Value:
    """y by one scale and, where given, one zero point, in type `to`."""
    point = n.opt(zero)
    point = None if point is None else n.reshape(point, ())
    return n.b.quantize(y, n.reshape(n.x(scale), ()), point, to=to)  # type: ignore[no-any-return]


def pair(op: str) -> Row:
    """An elementwise op of two: x, its scale and zero point, y and its own, those of the result."""

    def row(n: Node) -> Result:
        y = getattr(n.b, op)(_real(n, 0, 1, 2), _real(n, 3, 4, 5))
        return _quantized(n, y, 6, 7, n.x(0).tensor.dtype)

    return row


def single(make: Callable[[Node, Value], Value]) -> Row:
    """An op of x: x, its scale and zero point, then those of the result."""

    def row(n: Node) -> Result:
        return _quantized(n, make(n, _real(n, 0, 1, 2)), 3, 4, n.x(0).tensor.dtype)

    return row


def _sigmoid(n: Node, x: Value) -> Value:
    return n.b.sigmoid(x)  # type: ignore[no-any-return]


def _leaky_relu(n: Node, x: Value) -> Value:
    return n.b.leaky_relu(x, alpha=n.attr("alpha", 0.01))  # type: ignore[no-any-return]


def _softmax(n: Node, x: Value) -> Value:
    axis = n.axis(n.attr("axis", -1), x.tensor.rank)
    if n.attr("opset", 13) < 13 and axis != x.tensor.rank - 1:
        raise n.unsupported(f"{n.op}: one softmax over several axes is not supported")
    return n.b.softmax(x, axis=axis)  # type: ignore[no-any-return]


def _first(n: Node, x: Value, make: Callable[[Value], Value]) -> Value:
    """`make` of x with its channels first; `channels_last` says that they lie last."""
    if not n.attr("channels_last", 0):
        return make(x)
    rank = x.tensor.rank
    y = make(n.transpose(x, (0, rank - 1, *range(1, rank - 1))))
    return n.transpose(y, (0, *range(2, rank), 1))


def _average(n: Node, x: Value) -> Value:
    return _first(n, x, lambda v: average_pooled(n, v))


def _global_average(n: Node, x: Value) -> Value:
    def mean(v: Value) -> Value:
        axes = tuple(range(2, v.tensor.rank))
        return n.b.reduce_mean(v, axes=axes, keepdims=True)  # type: ignore[no-any-return]

    return _first(n, x, mean)


def concat(n: Node) -> Result:
    """Scale and zero point of the result, then (x, scale, zero point) of each part."""
    parts = [_real(n, k, k + 1, k + 2) for k in range(2, len(n.proto.input), 3)]
    axis = n.axis(n.required("axis"), parts[0].tensor.rank)
    return _quantized(n, n.b.concat(*parts, axis=axis), 0, 1, n.x(2).tensor.dtype)


def matmul_to_float(n: Node) -> Result:
    """A product in i32, times both scales, plus a bias."""
    y = product(n, shifted(n, 0, 4), shifted(n, 1, 5))
    y = n.b.mul(n.cast(y, n.x(2).tensor.dtype), n.b.mul(n.x(2), n.x(3)))
    return n.b.add(y, n.x(6)) if n.has(6) else y  # type: ignore[no-any-return]


def dynamic_matmul(n: Node) -> Result:
    """As `matmul_to_float`, with an f32 x that is quantized to the range that it has."""
    found = dynamic_quantize(n)
    assert isinstance(found, tuple)
    q, scale, point = found
    assert isinstance(q, Value) and isinstance(point, Value)
    x = n.b.sub(n.cast(q, i32), n.cast(point, i32))
    y = product(n, x, shifted(n, 1, 3))
    y = n.b.mul(n.cast(y, n.x(2).tensor.dtype), n.b.mul(scale, n.x(2)))
    return n.b.add(y, n.x(4)) if n.has(4) else y  # type: ignore[no-any-return]


def gemm(n: Node) -> Result:
    """alpha times a product, plus a bias of i32; quantized where the result has a scale."""
    turned = [bool(n.attr(f"trans{side}", 0)) for side in "AB"]
    x, y = dequantized(n, 0, 1, 2, 0), dequantized(n, 3, 4, 5, 0 if turned[1] else 1)
    x, y = [n.transpose(v, (1, 0)) if t else v for v, t in zip((x, y), turned)]
    out, alpha = product(n, x, y), n.attr("alpha", 1.0)
    if alpha != 1.0:
        out = n.b.mul(out, n.like(out, alpha))
    if n.has(6):
        unit = n.b.mul(n.b.mul(n.x(1), n.x(4)), n.like(out, alpha))
        out = n.b.add(out, n.b.mul(n.cast(n.x(6), f32), unit))
    return _quantized(n, out, 7, 8, n.x(0).tensor.dtype) if n.has(7) else out


def dynamic_lstm(n: Node) -> Result:
    """The layer with its weights dequantized: x and the states stay as exact as they are."""
    parts = []
    for at, scale in ((1, 8), (2, 10)):
        w, s, z = n.cast(n.x(at), f32), n.x(scale), n.cast(n.x(scale + 1), f32)
        s, z = [n.reshape(v, (v.tensor.shape[0], 1, *(v.tensor.shape[1:] or (1,)))) for v in (s, z)]
        parts.append(n.transpose(n.b.mul(n.b.sub(w, z), s), (0, 2, 1)))
    return lstm(n, (parts[0], parts[1]))


ROWS: Sequence[tuple[str, int, Row]] = (
    ("QLinearAdd", 1, pair("add")),
    ("QLinearMul", 1, pair("mul")),
    ("QLinearSigmoid", 1, single(_sigmoid)),
    ("QLinearLeakyRelu", 1, single(_leaky_relu)),
    ("QLinearSoftmax", 1, single(_softmax)),
    ("QLinearAveragePool", 1, single(_average)),
    ("QLinearGlobalAveragePool", 1, single(_global_average)),
    ("QLinearConcat", 1, concat),
    ("MatMulIntegerToFloat", 1, matmul_to_float),
    ("DynamicQuantizeMatMul", 1, dynamic_matmul),
    ("QGemm", 1, gemm),
    ("DynamicQuantizeLSTM", 1, dynamic_lstm),
)
