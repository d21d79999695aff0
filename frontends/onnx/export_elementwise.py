"""Export rows of elementwise ops: what ONNX has by name, and small expressions for the rest.

Imports: the graph being written, ir.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...ir.types import DType, boolean, f32
from .export_dims import numbers, scalar
from .export_graph import Place, Row, code_of


def same(type: str, **names: str) -> Row:
    """The ONNX op `type` of the same operands; `names` maps its attributes to ours."""
    return lambda p: p.node(type, *p.all(), **{k: p.attrs[ours] for k, ours in names.items()})


def ne(p: Place) -> str:
    """x != y."""
    return p.node("Not", p.node("Equal", *p.all()))


def rsqrt(p: Place) -> str:
    """1 / sqrt(x)."""
    return p.node("Reciprocal", p.node("Sqrt", p.x()))


def larger(p: Place) -> str:
    """x where x > y, else y."""
    return p.node("Where", p.node("Greater", p.x(0), p.x(1)), p.x(0), p.x(1))


def trunc(p: Place) -> str:
    """The sign times the magnitude rounded down."""
    return p.node("Mul", p.node("Sign", p.x()), p.node("Floor", p.node("Abs", p.x())))


def fma(p: Place) -> str:
    """x * y + z, rounded twice."""
    return p.node("Add", p.node("Mul", p.x(0), p.x(1)), p.x(2))


def copy_sign(p: Place) -> str:
    """The sign of a zero is that of its reciprocal."""
    x, y, zero = p.x(0), p.x(1), p.like(0.0)
    shown = p.node("Where", p.node("Equal", y, zero), p.node("Reciprocal", y), y)
    size = p.node("Abs", x)
    return p.node("Where", p.node("Less", shown, zero), p.node("Neg", size), size)


def expm1(p: Place) -> str:
    """2 t / (1 - t) with t = tanh(x / 2) near 0, exp(x) - 1 elsewhere."""
    x, one = p.x(), p.like(1.0)
    t = p.node("Tanh", p.node("Mul", x, p.like(0.5)))
    near = p.node("Div", p.node("Add", t, t), p.node("Sub", one, t))
    small = p.node("Less", p.node("Abs", x), p.like(0.5))
    return p.node("Where", small, near, p.node("Sub", p.node("Exp", x), one))


def log1p(p: Place) -> str:
    """log(u) x / (u - 1) with u = 1 + x as rounded, x where u is 1."""
    x, one = p.x(), p.like(1.0)
    u = p.node("Add", x, one)
    quotient = p.node("Div", p.node("Mul", p.node("Log", u), x), p.node("Sub", u, one))
    top = p.node("Equal", p.node("Abs", u), p.like(math.inf))
    wide = p.node("Where", top, p.node("Log", u), quotient)
    return p.node("Where", p.node("Equal", u, one), x, wide)


def mod(p: Place) -> str:
    """For floats the remainder, moved by the divisor where their signs differ."""
    if not p.out.dtype.is_float:
        return p.node("Mod", p.x(0), p.x(1))
    y, zero = p.x(1), p.like(0.0)
    rest = p.node("Mod", p.x(0), y, fmod=1)
    differ = p.node("Xor", p.node("Less", rest, zero), p.node("Less", y, zero))
    nonzero = p.node("Not", p.node("Equal", rest, zero))
    moved = p.node("And", differ, nonzero)
    return p.node("Where", moved, p.node("Add", rest, y), rest)


def rem(p: Place) -> str:
    """Mod with the dividend's sign."""
    return p.node("Mod", p.x(0), p.x(1), fmod=1)


def _unsigned(p: Place) -> DType:
    return DType("u" + p.out.dtype.name[1:])


def _count(p: Place) -> str:
    """The count of a shift modulo the width, unsigned."""
    p.need(18, "the count of a shift modulo the width")
    count = p.node("BitwiseAnd", p.x(1), p.like(p.out.dtype.bits - 1))
    return count if p.out.dtype.kind == "uint" else p.cast(count, _unsigned(p))


def shift_left(p: Place) -> str:
    """On the bits as an unsigned number."""
    if p.out.dtype.kind == "uint":
        return p.node("BitShift", p.x(0), _count(p), direction="LEFT")
    bits = p.cast(p.x(0), _unsigned(p))
    return p.cast(p.node("BitShift", bits, _count(p), direction="LEFT"), p.out.dtype)


def shift_right(p: Place) -> str:
    """The sign fills: a negative x is turned before and after."""
    if p.out.dtype.kind == "uint":
        return p.node("BitShift", p.x(0), _count(p), direction="RIGHT")
    below = p.node("Less", p.x(0), p.like(0))
    bits = p.cast(p.node("Where", below, p.node("BitwiseNot", p.x(0)), p.x(0)), _unsigned(p))
    moved = p.cast(p.node("BitShift", bits, _count(p), direction="RIGHT"), p.out.dtype)
    return p.node("Where", below, p.node("BitwiseNot", moved), moved)


def cast(p: Place) -> str:
    """To an f8 without saturation, to an i4 with it, as our casts are."""
    to = p.attrs["to"]
    small = to.is_float and to.bits <= 8 and to.name.startswith("f8")
    if small:
        p.need(19, f"a cast to {to}")
    x = p.x()
    if to.is_integer and to.bits < 8 and p.type().dtype.is_float:  # elsewhere these wrap
        low = -(1 << (to.bits - 1)) if to.kind == "int" else 0
        ends = [p.const(v, f32) for v in (low, low + (1 << to.bits) - 1)]
        x = p.node("Clip", x if p.type().dtype is f32 else p.cast(x, f32), *ends)
    saturate = 0 if small else None
    return p.node("Cast", x, to=code_of(to, p.op.place()), saturate=saturate)


def identity(p: Place) -> str:
    """No node."""
    return p.x()


def prelu(p: Place) -> str | None:
    """The slope broadcasts to x, not x to the slope."""
    return p.node("PRelu", *p.all()) if p.out is p.type() else None


def bitcast(p: Place) -> str:
    """BitCast, from opset 26 on."""
    p.need(26, "bitcast")
    return p.node("BitCast", p.x(), to=code_of(p.attrs["to"], p.op.place()))


def silu(p: Place) -> str:
    """Runtimes know the product and fuse it."""
    return p.node("Mul", p.x(), p.node("Sigmoid", p.x()))


def gelu(p: Place) -> str:
    """Gelu itself from opset 20 on; before it the expression that runtimes fuse."""
    tanh = p.attrs["form"] == "tanh"
    if p.opset >= 20:
        return p.node("Gelu", p.x(), approximate="tanh" if tanh else None)
    x, one = p.x(), p.like(1.0)
    if tanh:
        cube = p.node("Mul", p.node("Mul", x, p.node("Mul", x, x)), p.like(0.044715))
        inner = p.node("Mul", p.node("Add", x, cube), p.like(math.sqrt(2 / math.pi)))
        share = p.node("Add", p.node("Tanh", inner), one)
    else:
        share = p.node("Add", p.node("Erf", p.node("Div", x, p.like(math.sqrt(2)))), one)
    return p.node("Mul", p.node("Mul", x, share), p.like(0.5))


def clip(p: Place) -> str:
    """Bounds that are no scalars are a Max and a Min."""
    bounds = [v for v in p.op.operands[1:] if v is not None]
    if all([v.tensor.rank == 0 for v in bounds]):
        return p.node("Clip", p.x(), p.x(1), p.x(2)) if bounds else p.x()
    held = p.node("Max", p.x(), p.x(1)) if p.x(1) else p.x()
    return p.node("Min", held, p.x(2)) if p.x(2) else held


def is_nan(p: Place) -> str:
    """IsNaN."""
    return p.node("IsNaN", p.x())


def is_inf(p: Place) -> str:
    """For f32 and f64, whatever the opset."""
    return p.node("IsInf", p.x() if p.type().dtype.bits >= 32 else p.cast(p.x(), f32))


def celu(p: Place) -> str | None:
    """For f32 alone, before opset 28."""
    return p.node("Celu", p.x(), alpha=p.attrs["alpha"]) if p.type().dtype is f32 else None


def eq(p: Place) -> str:
    """Equal."""
    return p.node("Equal", *p.all())


def dim_value(p: Place) -> str:
    """The value of a dim, in the type asked for."""
    made = scalar(p.graph, p.attrs["dim"])
    return made if p.attrs["dtype"].name == "i64" else p.cast(made, p.attrs["dtype"])


def ordered(type: str) -> Row:
    """A comparison; bools are compared as numbers."""

    def row(p: Place) -> str:
        if p.type().dtype is boolean:
            return p.node(type, *[p.cast(x, DType("i32")) for x in p.all()])
        return p.node(type, *p.all())

    return row


def lifted(p: Place, name: str, rank: int, axis: int) -> str:
    """A vector laid along one axis of `rank`."""
    if rank == 1:
        return name
    return p.node("Reshape", name, numbers(p.graph, [-1 if k == axis else 1 for k in range(rank)]))


_BY_NAME = {
    "abs": "Abs", "neg": "Neg", "sign": "Sign", "floor": "Floor", "ceil": "Ceil",
    "round_even": "Round", "sqrt": "Sqrt", "exp": "Exp", "log": "Log", "erf": "Erf", "sin": "Sin",
    "cos": "Cos", "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh",
    "cosh": "Cosh", "tanh": "Tanh", "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh",
    "sigmoid": "Sigmoid", "relu": "Relu", "reciprocal": "Reciprocal", "softplus": "Softplus",
    "softsign": "Softsign", "hard_swish": "HardSwish", "logical_not": "Not",
    "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor", "bitwise_and": "BitwiseAnd",
    "bitwise_or": "BitwiseOr", "bitwise_xor": "BitwiseXor", "bitwise_not": "BitwiseNot",
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "max": "Max",
    "min": "Min", "where": "Where",
}  # fmt: skip

ROWS: Mapping[str, Row] = {
    **{ours: same(theirs) for ours, theirs in _BY_NAME.items()},
    "eq": eq,
    "ne": ne,
    "lt": ordered("Less"),
    "le": ordered("LessOrEqual"),
    "gt": ordered("Greater"),
    "ge": ordered("GreaterOrEqual"),
    "leaky_relu": same("LeakyRelu", alpha="alpha"),
    "elu": same("Elu", alpha="alpha"),
    "hard_sigmoid": same("HardSigmoid", alpha="alpha", beta="beta"),
    "celu": celu,
    "selu": same("Selu", alpha="alpha", gamma="gamma"),
    "mish": same("Mish"),
    "thresholded_relu": same("ThresholdedRelu", alpha="alpha"),
    "prelu": prelu,
    "shrink": same("Shrink", bias="bias", lambd="lambd"),
    "rsqrt": rsqrt,
    "larger": larger,
    "trunc": trunc,
    "fma": fma,
    "copy_sign": copy_sign,
    "expm1": expm1,
    "log1p": log1p,
    "mod": mod,
    "rem": rem,
    "shift_left": shift_left,
    "shift_right": shift_right,
    "cast": cast,
    "bitcast": bitcast,
    "identity": identity,
    "silu": silu,
    "gelu": gelu,
    "clip": clip,
    "is_nan": is_nan,
    "is_inf": is_inf,
    "dim_value": dim_value,
}
