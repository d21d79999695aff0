"""Import rows of elementwise ops: arithmetic, comparisons, logic, functions, activations, casts.

Imports: node, ir.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from ...ir.core import Value
from ...ir.dims import DimLike
from ...ir.types import DType, boolean, f32, f64, i32, u8
from .node import Known, Node, Result, Row
from .tensors import dtype_of


def unary(op: str) -> Row:
    """The IR op of one operand called `op`."""
    return lambda n: getattr(n.b, op)(n.x())


def unary_with(op: str, **attrs: float) -> Row:
    """As `unary`, with float attributes of these names and defaults."""
    return lambda n: getattr(n.b, op)(n.x(), **{k: n.attr(k, v) for k, v in attrs.items()})


def operands(n: Node) -> tuple[Value, Value]:
    """Both operands; before opset 7 the second is laid along `axis` of the first."""
    x, y = n.x(0), n.x(1)
    if n.version < 7 and n.attr("broadcast", 0) and y.tensor.rank:
        rank, own = x.tensor.rank, y.tensor.rank
        start = n.axis(n.attr("axis", rank - own), rank)
        shape: list[DimLike] = [*y.tensor.shape, *[1] * max(0, rank - start - own)]
        y = n.reshape(y, shape)
    return x, y


def binary(op: str) -> Row:
    """The IR op of two operands called `op`."""
    return lambda n: getattr(n.b, op)(*operands(n))


def variadic(op: str) -> Row:
    """The IR op applied to the operands from the left."""

    def row(n: Node) -> Result:
        if not len(n):
            raise n.invalid("E0110", f"{n.op} needs at least one input")
        return reduce(lambda a, b: getattr(n.b, op)(a, b), n.all())

    return row


def mean(n: Node) -> Result:
    """The sum of the operands over their number."""
    total = variadic("add")(n)
    assert isinstance(total, Value)
    return n.b.div(total, n.like(total, len(n))) if len(n) > 1 else total


def integer_or(op: str) -> Row:
    """A float op that leaves integers as they are (Floor, Ceil, Round)."""
    return lambda n: n.x() if not n.type().dtype.is_float else getattr(n.b, op)(n.x())


def power(n: Node) -> Result:
    """The exponent may have another type than the base, whose type the result has."""
    x, y = operands(n)
    base, exponent = x.tensor.dtype, y.tensor.dtype
    if base.is_integer and exponent.is_float:  # whole exponents are exact
        whole = n.b.pow(x, n.cast(y, base))
        known = n.known(1)
        if known is not None and np.array_equal(np.trunc(known.astype(np.float64)), known):
            return whole
        wide = n.b.pow(n.cast(x, f64), n.cast(y, f64))
        return n.b.where(n.b.eq(n.b.trunc(y), y), whole, n.cast(wide, base))
    return n.b.pow(x, n.cast(y, base))


def modulo(n: Node) -> Result:
    """With `fmod` the sign is the dividend's, else the divisor's."""
    return n.b.rem(n.x(0), n.x(1)) if n.attr("fmod", 0) else n.b.mod(n.x(0), n.x(1))


def shift(n: Node) -> Result:
    """A count outside 0 to width - 1 shifts everything out (the IR takes it modulo the width)."""
    x, count = n.x(0), n.x(1)
    dtype = x.tensor.dtype
    left = n.required("direction") == "LEFT"
    inside = n.b.lt(count, n.like(count, dtype.bits))
    gone = n.like(x, 0)
    if dtype.kind == "int":
        inside = n.b.logical_and(inside, n.b.ge(count, n.like(count, 0)))
        if not left:
            gone = n.b.shift_right(x, n.like(x, dtype.bits - 1))
    shifted = (n.b.shift_left if left else n.b.shift_right)(x, count)
    return n.b.where(inside, shifted, gone)


def cast(n: Node) -> Result:
    """To the type that `to` numbers (names, before opset 6)."""
    to = n.required("to")
    if isinstance(to, str):  # opsets 1 to 5 name the type
        from onnx import TensorProto

        to = dict(TensorProto.DataType.items()).get(to, -1)
    return convert(n, n.x(), dtype_of(to, n.place()))


def cast_like(n: Node) -> Result:
    """To the type of the second operand."""
    return convert(n, n.x(0), n.type(1).dtype)


def convert(n: Node, x: Value, to: DType) -> Value:
    """A cast; to f8, saturating unless the node says otherwise."""
    if "string" in (to.kind, x.tensor.dtype.kind):
        raise n.unsupported("casts of strings are not supported")
    if to.is_integer and to.bits < 8 and x.tensor.dtype.is_float:
        x = n.b.cast(x, to=i32)  # to i4 and the like a float wraps
    small = to.is_float and to.bits <= 8 and x.tensor.dtype is not to
    if small and n.attr("saturate", 1) and to.name != "f4e2m1":
        return saturating(n, x, to)
    return n.cast(x, to)


def bitcast(n: Node) -> Result:
    """The same bits as another type of the same width; a bool is a byte of 0 or 1."""
    x, to = n.x(0), dtype_of(n.required("to"), n.place())
    if x.tensor.dtype is boolean:
        x = n.b.cast(x, to=u8)
    like = u8 if to is boolean else to
    x = x if x.tensor.dtype is like else n.b.bitcast(x, to=like)
    return n.cast(x, to)


def saturating(n: Node, x: Value, to: DType) -> Value:
    """Values beyond the greatest finite number of `to` become that number; NaN stays."""
    import ml_dtypes

    top = float(ml_dtypes.finfo(to.np).max)  # type: ignore[no-untyped-call]
    wide = x if x.tensor.dtype in (f32, f64) else n.b.cast(x, to=f32)
    held = n.b.max(n.b.min(wide, n.like(wide, top)), n.like(wide, -top))
    return n.b.cast(held, to=to)


def clip(n: Node) -> Result:
    """Bounds are attributes before opset 11, operands after."""
    x = n.x(0)
    if n.version < 11:
        low, high = n.attr("min"), n.attr("max")
        bounds = [None if v is None else n.like(x, v) for v in (low, high)]
    else:
        bounds = [n.opt(1), n.opt(2)]
        bounds = [v if v is None else n.reshape(v, ()) for v in bounds]
    return x if bounds == [None, None] else n.b.clip(x, *bounds)


def identity(n: Node) -> Result:
    """The operand itself."""
    return n.x(0)


def dropout(n: Node) -> Result:
    """At inference the identity, with a mask of all true."""
    training = n.known(2) if n.version >= 12 else None
    if n.version >= 12 and n.has(2) and (training is None or bool(training.reshape(-1)[0])):
        ratio = n.known(1) if n.has(1) else np.array(0.5)
        if ratio is None or float(ratio.reshape(-1)[0]) != 0.0:
            raise n.unsupported("Dropout in training mode is not supported")
    if n.version < 7 and not n.attr("is_test", 0):
        pass  # a stored model is for inference, whatever the old attribute says
    x = n.x(0)
    if len([o for o in n.proto.output if o]) < 2:
        return x
    dtype = boolean if n.version >= 10 else x.tensor.dtype
    return x, n.b.broadcast_to(n.const(1, dtype), shape=x.tensor.shape)


def is_inf(n: Node) -> Result:
    """Infinities of the signs that are asked for."""
    x = n.x(0)
    found: Value = n.b.is_inf(x)
    zero = n.like(x, 0.0)
    if not n.attr("detect_negative", 1):
        found = n.b.logical_and(found, n.b.gt(x, zero))
    if not n.attr("detect_positive", 1):
        found = n.b.logical_and(found, n.b.lt(x, zero))
    return found


def prelu(n: Node) -> Result:
    """The slope broadcasts to x; before opset 7 one slope per channel lies along axis 1."""
    x, slope = n.x(0), n.x(1)
    if n.version < 7 and slope.tensor.rank == 1 and x.tensor.rank > 2:
        slope = n.reshape(slope, (*slope.tensor.shape, *[1] * (x.tensor.rank - 2)))
    return n.b.prelu(x, slope)


def selu(n: Node) -> Result:
    """The defaults lost digits before opset 6."""
    alpha, gamma = (1.6732, 1.0507) if n.version < 6 else (1.67326319217681884765625,
                                                          1.05070102214813232421875)  # fmt: skip
    return n.b.selu(n.x(0), alpha=n.attr("alpha", alpha), gamma=n.attr("gamma", gamma))


def swish(n: Node) -> Result:
    """x sigmoid(alpha x)."""
    x, alpha = n.x(0), n.attr("alpha", 1.0)
    if alpha == 1.0:
        return n.b.silu(x)
    return n.b.mul(x, n.b.sigmoid(n.b.mul(x, n.like(x, alpha))))


def gelu(n: Node) -> Result:
    """Exact or by tanh."""
    return n.b.gelu(n.x(0), form="tanh" if n.attr("approximate", "none") == "tanh" else "erf")


def affine(n: Node) -> Result:
    """alpha x + beta."""
    x = n.x(0)
    scaled = n.b.mul(x, n.like(x, n.attr("alpha", 1.0)))
    return n.b.add(scaled, n.like(x, n.attr("beta", 0.0)))


def constant(n: Node) -> Result:
    """The one attribute that is given."""
    for name in ("value", "sparse_value"):
        if name in n.attributes:
            array = n.attr(name)
            proto = n.attributes[name]
            code = proto.t.data_type if name == "value" else proto.sparse_tensor.values.data_type
            return Known(array, dtype_of(code, n.place()))
    for name, dtype in (("value_int", "i64"), ("value_ints", "i64"), ("value_float", "f32"),
                        ("value_floats", "f32"), ("value_string", "string"),
                        ("value_strings", "string")):  # fmt: skip
        if name in n.attributes:
            return Known(np.array(n.attr(name), DType(dtype).np), DType(dtype))
    raise n.invalid("E0111", "Constant has no value")


ROWS: Sequence[tuple[str, int, Row]] = (
    ("Add", 1, binary("add")),
    ("Sub", 1, binary("sub")),
    ("Mul", 1, binary("mul")),
    ("Div", 1, binary("div")),
    ("Pow", 1, power),
    ("Mod", 10, modulo),
    ("Max", 1, variadic("max")),
    ("Min", 1, variadic("min")),
    ("Sum", 1, variadic("add")),
    ("Mean", 1, mean),
    ("Equal", 1, binary("eq")),
    ("Greater", 1, binary("gt")),
    ("GreaterOrEqual", 12, binary("ge")),
    ("Less", 1, binary("lt")),
    ("LessOrEqual", 12, binary("le")),
    ("And", 1, binary("logical_and")),
    ("Or", 1, binary("logical_or")),
    ("Xor", 1, binary("logical_xor")),
    ("Not", 1, unary("logical_not")),
    ("Where", 9, lambda n: n.b.where(n.x(0), n.x(1), n.x(2))),
    ("BitwiseAnd", 18, binary("bitwise_and")),
    ("BitwiseOr", 18, binary("bitwise_or")),
    ("BitwiseXor", 18, binary("bitwise_xor")),
    ("BitwiseNot", 18, unary("bitwise_not")),
    ("BitShift", 11, shift),
    ("Abs", 1, unary("abs")),
    ("Neg", 1, unary("neg")),
    ("Sign", 9, unary("sign")),
    ("Reciprocal", 1, unary("reciprocal")),
    ("Floor", 1, integer_or("floor")),
    ("Ceil", 1, integer_or("ceil")),
    ("Round", 11, integer_or("round_even")),
    ("Sqrt", 1, unary("sqrt")),
    ("Exp", 1, unary("exp")),
    ("Log", 1, unary("log")),
    ("Erf", 9, unary("erf")),
    ("Sin", 7, unary("sin")),
    ("Cos", 7, unary("cos")),
    ("Tan", 7, unary("tan")),
    ("Asin", 7, unary("asin")),
    ("Acos", 7, unary("acos")),
    ("Atan", 7, unary("atan")),
    ("Sinh", 9, unary("sinh")),
    ("Cosh", 9, unary("cosh")),
    ("Tanh", 1, unary("tanh")),
    ("Asinh", 9, unary("asinh")),
    ("Acosh", 9, unary("acosh")),
    ("Atanh", 9, unary("atanh")),
    ("Sigmoid", 1, unary("sigmoid")),
    ("Relu", 1, unary("relu")),
    ("LeakyRelu", 1, unary_with("leaky_relu", alpha=0.01)),
    ("Elu", 1, unary_with("elu", alpha=1.0)),
    ("Selu", 1, selu),
    ("Celu", 12, unary_with("celu", alpha=1.0)),
    ("PRelu", 1, prelu),
    ("ThresholdedRelu", 10, unary_with("thresholded_relu", alpha=1.0)),
    ("HardSigmoid", 1, unary_with("hard_sigmoid", alpha=0.2, beta=0.5)),
    ("HardSwish", 14, unary("hard_swish")),
    ("Softplus", 1, unary("softplus")),
    ("Softsign", 1, unary("softsign")),
    ("Mish", 18, unary("mish")),
    ("Swish", 24, swish),
    ("Gelu", 20, gelu),
    ("Shrink", 9, unary_with("shrink", bias=0.0, lambd=0.5)),
    ("Affine", 1, affine),
    ("Clip", 1, clip),
    ("Cast", 1, cast),
    ("CastLike", 15, cast_like),
    ("BitCast", 26, bitcast),
    ("IsNaN", 9, unary("is_nan")),
    ("IsInf", 10, is_inf),
    ("Identity", 1, identity),
    ("Dropout", 1, dropout),
    ("Constant", 1, constant),
)
