"""Import rows of quantization.  Imports: node, ir."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.core import Value
from ...ir.types import f32, u8
from .node import Node, Result, Row
from .rows_linear import convolution, per_channel, product
from .tensors import dtype_of


def _parameters(
    n: Node, x: int, scale: int, zero: int
) -> tuple[Value, Value | None, dict[str, int]]:
    """Scale, zero point and where they lie: one, per axis, or per block of the axis."""
    s, z = n.x(scale), n.opt(zero)
    rank = n.rank(x)
    block = n.attr("block_size", 0)
    if s.tensor.rank == 0 or (s.tensor.rank == 1 and s.tensor.shape == (1,) and not block):
        return n.reshape(s, ()), None if z is None else n.reshape(z, ()), {}
    return s, z, {"axis": n.axis(n.attr("axis", 1), rank), "group": block}


def quantize(n: Node) -> Result:
    """To the zero point's type, else `output_dtype` (from opset 21), else u8."""
    x = n.x(0)
    scale, zero, place = _parameters(n, 0, 1, 2)
    code = n.attr("output_dtype", 0)
    to = zero.tensor.dtype if zero is not None else dtype_of(code, n.place()) if code else u8
    if to.is_float:
        zero = None  # the specification wants 0 there
    wide = (
        dtype_of(n.attr("precision", 0) or 1) if x.tensor.dtype is not scale.tensor.dtype else None
    )
    if wide is not None:
        x, scale = n.cast(x, wide), n.cast(scale, wide)
    if not x.tensor.dtype.is_float:
        x, scale = n.cast(x, f32), n.cast(scale, f32)
    return n.b.quantize(x, scale, zero, to=to, **place)


def dequantize(n: Node) -> Result:
    """(x - zero point) * scale, per tensor, axis or block."""
    scale, zero, place = _parameters(n, 0, 1, 2)
    x = n.x(0)
    if x.tensor.dtype.is_float:
        zero = None
    out = n.b.dequantize(x, scale, zero, **place)
    code = n.attr("output_dtype", 0)
    return n.cast(out, dtype_of(code, n.place())) if code else out


def dynamic_quantize(n: Node) -> Result:
    """u8 with the range of x, which always holds 0."""
    x, b = n.x(0), n.b
    zero, top = n.like(x, 0.0), n.like(x, 255.0)
    low = b.min(b.reduce_min(x), zero)
    high = b.max(b.reduce_max(x), zero)
    scale = b.div(b.sub(high, low), top)
    point = b.round_even(b.div(b.neg(low), scale))
    point = b.cast(b.max(zero, b.min(top, point)), to=u8)
    return b.quantize(x, scale, point, to=u8), scale, point


def dequantized(n: Node, at: int, scale: int, zero: int, axis: int) -> Value:
    """Operand `at` dequantized, as a whole or along an axis."""
    s, z = n.x(scale), n.opt(zero)
    if s.tensor.shape == (1,) or not s.tensor.rank:
        return n.b.dequantize(n.x(at), n.reshape(s, ()),
                              None if z is None else n.reshape(z, ()))  # fmt: skip
    if z is not None and z.tensor.shape != s.tensor.shape:
        z = n.b.broadcast_to(n.reshape(z, ()), shape=s.tensor.shape)
    if s.tensor.rank > 1:
        raise n.unsupported(f"{n.op}: scales of more than one axis are not supported")
    return n.b.dequantize(n.x(at), s, z, axis=axis)


def _back(n: Node, y: Value, scale: int, zero: int) -> Value:
    s, z = n.reshape(n.x(scale), ()), n.reshape(n.x(zero), ())
    return n.b.quantize(n.cast(y, s.tensor.dtype), s, z, to=z.tensor.dtype)


def qlinear_matmul(n: Node) -> Result:
    """A product of dequantized operands, quantized."""
    x, y = dequantized(n, 0, 1, 2, n.rank(0) - 2), dequantized(n, 3, 4, 5, n.rank(3) - 1)
    return _back(n, product(n, x, y), 6, 7)


def qlinear_conv(n: Node) -> Result:
    """A convolution of dequantized operands, quantized; the bias is i32."""
    out = convolution(n, dequantized(n, 0, 1, 2, 1), dequantized(n, 3, 4, 5, 0))
    if n.has(8):
        scale = n.b.mul(n.reshape(n.x(1), ()), n.x(4))
        scale = n.reshape(scale, ()) if scale.tensor.shape == (1,) else scale
        bias = n.b.dequantize(n.x(8), scale, None, axis=0)
        out = n.b.add(out, per_channel(n, bias, out))
    return _back(n, out, 6, 7)


ROWS: Sequence[tuple[str, int, Row]] = (
    ("QuantizeLinear", 10, quantize),
    ("DequantizeLinear", 10, dequantize),
    ("DynamicQuantizeLinear", 11, dynamic_quantize),
    ("QLinearMatMul", 10, qlinear_matmul),
    ("QLinearConv", 10, qlinear_conv),
)
