"""Elementwise ops.  Each works on tensors (with numpy broadcasting), scalars and vectors.

This file holds the base classes, the arithmetic and the conversions; compare.py the predicates and
bit operations, elementwise_math.py the functions, activations.py the composites of neural networks.

Rules of all of them: one element type (casts are explicit); integers wrap; a NaN operand gives NaN
unless the class says otherwise; floats narrower than f32 compute in f32 and round once.
Imports: the core, types, dims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..blobs import Blob
from ..core import (
    Array,
    Builder,
    Float,
    Grads,
    Kind,
    Number,
    Op,
    Real,
    Sample,
    Value,
    attr,
    operand,
    sample,
)
from ..dims import DimLike, equal
from ..errors import Error
from ..types import DType, Shape, TensorType, Type, VectorType, element, from_numpy, like
from .constraints import require
from .convert import compute_dtype, convert, round_float, widen
from .core import Const, generic, indices, iterators

Element = Kind("any element type", frozenset({"float", "int", "uint", "complex", "bool", "string"}))
Plain = Kind("number or bool", frozenset({"float", "int", "uint", "complex", "bool"}))
Ordered = Kind("float, integer or bool", frozenset({"float", "int", "uint", "bool"}))


def broadcast(*shapes: Shape) -> Shape:
    """The numpy broadcast of these shapes; E0310 where two extents differ and neither is 1.

    Extents that cannot be compared (two symbols) are taken as equal and checked at run time.
    """
    rank = max([len(s) for s in shapes], default=0)
    out: list[DimLike] = [1] * rank
    for shape in shapes:
        for k, extent in enumerate(shape, rank - len(shape)):
            have = out[k]
            if have is extent or (type(extent) is int and extent == 1):
                continue
            if type(have) is int and have == 1:
                out[k] = extent
            elif equal(have, extent) is False:
                raise Error(
                    "E0310",
                    "elementwise (C2): shapes do not broadcast",
                    details=(
                        " with ".join(f"[{', '.join(map(str, s))}]" for s in shapes),
                        f"extents {have} and {extent} differ and neither is 1",
                    ),
                )
            elif type(have) is not int:
                out[k] = extent if type(extent) is int else have
    return tuple(out)


def broadcast_type(types: Sequence[Type], dtype: DType) -> Type:
    """The result type of an elementwise op: broadcast tensors, or the scalar or vector type."""
    first = types[0]
    if isinstance(first, TensorType):
        return TensorType(dtype, broadcast(*[t.shape for t in types]))  # type: ignore[attr-defined]
    for other in types[1:]:
        if like(other, dtype) is not like(first, dtype):
            raise Error(
                "E0311",
                "elementwise (C2): scalar and vector operands must have one shape",
                details=(f"{first} and {other}",),
            )
    return like(first, dtype)


def broadcast_map(shape: Shape, out: Shape, index: Sequence[DimLike]) -> tuple[DimLike, ...]:
    """Where an operand of `shape` is read for the element `index` of a result of shape `out`."""
    skip = len(out) - len(shape)
    return tuple([0 if type(e) is int and e == 1 else index[skip + k] for k, e in enumerate(shape)])


def constant(b: Builder, x: Value, value: float | int | bool, dtype: DType | None = None) -> Value:
    """`value` as a scalar, vector or rank-0 tensor to compute with `x`, in its element type or
    `dtype`.
    """
    dtype = dtype or element(x.type)
    if dtype.is_float:
        value = float(convert(np.asarray(value, np.float64), dtype))
    if isinstance(x.type, TensorType):
        array = np.asarray(value, dtype.np)
        return b.insert(Const(Blob(array, TensorType(dtype, ())))).result
    made = b.insert(Const(value, dtype)).result
    if isinstance(x.type, VectorType):
        return b.splat(made, lanes=x.type.lanes)  # type: ignore[no-any-return]
    return made


def scalar_value(x: Value) -> float | None:
    """The number that every element of a tensor is, where it is a constant of one element."""
    held = x.op.value if isinstance(x.op, Const) else None
    single = isinstance(held, Blob) and held.type.size == 1
    return float(widen(held.array).reshape(())) if held is not None and single else None


def widened(b: Builder, *values: Value) -> list[Value]:
    """The values in their compute type: what is derived from narrow floats is rounded once."""
    found = []
    for value in values:
        wide = compute_dtype(element(value.type))
        found.append(value if wide is element(value.type) else b.cast(value, to=wide))
    return found


def passed(b: Builder, condition: Value, g: Value) -> Value:
    """The cotangent where the condition holds, else zero: selected, so that no NaN leaks."""
    return b.where(condition, g, constant(b, g, 0))  # type: ignore[no-any-return]


def stopped(b: Builder, condition: Value, g: Value) -> Value:
    """Zero where the condition holds, else the cotangent (also where a NaN was compared)."""
    return b.where(condition, constant(b, g, 0), g)  # type: ignore[no-any-return]


class _Elementwise(Op):
    """Base: all operands of one element type, which is the result's (C1); shapes broadcast (C2)."""

    result_dtype: ClassVar[DType | None] = None
    compute: ClassVar[Callable[..., Any]]
    """The function on arrays of the compute type."""

    @classmethod
    def infer(cls, *types: Type, **attrs: Any) -> Type:
        first = types[0]
        dtype = element(first)
        for other in types[1:]:
            if other is not first and element(other) is not dtype:
                raise Error(
                    "E0303",
                    f"{cls.name} (C1): operands must have one element type",
                    details=(f"found {', '.join(map(str, types))}",),
                    hint="cast one of them",
                )
        out = cls.result_dtype or dtype
        if len(types) == 1:
            return like(first, out)
        return broadcast_type(types, out)

    @classmethod
    def evaluate(cls, *xs: Array, **attrs: Any) -> Array:
        """Widen, `compute`, round once."""
        store = xs[0].dtype
        with np.errstate(all="ignore"):
            out: Array = cls.compute(*[widen(x) for x in xs], **attrs)
            if cls.result_dtype is not None or out.dtype == store:
                return out
            dtype = from_numpy(store)
            return round_float(out, dtype) if dtype.is_float else out.astype(store)

    def generic(self, b: Builder, *xs: Value) -> Any:
        """One parallel iterator per dimension of the result; the body is this op on scalars."""
        out = self.result.tensor
        its = iterators("i", out.shape)
        index = indices(its)
        maps = [broadcast_map(x.tensor.shape, out.shape, index) for x in xs]
        return generic(
            b,
            xs,
            its,
            maps,
            [index],
            [out],
            lambda b, *s: b.emit(type(self), *s, **self.attributes),
        )


FLAT = "piecewise constant"
"""Why a function of steps has no gradient."""


class _Unary(_Elementwise):
    samples: ClassVar[Sequence[Sample]] = (
        sample((3, 5)),
        sample((7,)),
        sample(()),
        sample((2, 0)),
        sample((1, 17)),
    )


class _Binary(_Elementwise):
    """C1: operands have one element type.  C2: shapes broadcast."""

    samples: ClassVar[Sequence[Sample]] = (
        sample((3, 5), (3, 5)),
        sample((4, 1, 3), (2, 1)),
        sample((), (7,)),
        sample((0, 3), (3,)),
    )
    rejects: ClassVar[Sequence[tuple[str, Sample]]] = (
        ("C1", sample((2,), (2,), dtypes=("f32", "f64"))),
        ("C2", sample((2, 3), (2,))),
    )


class _NumberBinary(_Binary):
    x = operand(Number)
    y = operand(Number)


class Add(_NumberBinary):
    """x + y; integers wrap."""

    compute = np.add

    def vjp(self, b: Builder, g: Value) -> Grads:
        return g, g


class Sub(_NumberBinary):
    """x - y; integers wrap."""

    compute = np.subtract

    def vjp(self, b: Builder, g: Value) -> Grads:
        return g, b.neg(g)


class Mul(_NumberBinary):
    """x * y; integers wrap."""

    compute = np.multiply

    def vjp(self, b: Builder, g: Value) -> Grads:
        return b.mul(g, self.y), b.mul(g, self.x)


def truncating(x: Array, y: Array) -> tuple[Array, Array]:
    """Quotient toward zero and remainder with the dividend's sign; both 0 where y is 0."""
    quotient, rest = np.floor_divide(x, y), np.remainder(x, y)
    if x.dtype.kind == "i":
        up = (rest != 0) & ((x < 0) != (y < 0))
        quotient = quotient + up.astype(x.dtype)
        rest = rest - np.where(up, y, np.zeros_like(y))
        lowest = np.iinfo(x.dtype).min
        quotient = np.where((x == lowest) & (y == -1), x.dtype.type(lowest), quotient)
        rest = np.where(y == -1, x.dtype.type(0), rest)
    return quotient, rest


class Div(_NumberBinary):
    """x / y.  Integers truncate toward zero, x / 0 is 0, and the least integer / -1 wraps to
    itself.
    """

    samples = (
        *_Binary.samples,
        sample((9,), (9,), dtypes=("i32", "i32"), ranges=((-9, 9), (-3, 3))),
    )

    @staticmethod
    def compute(x: Array, y: Array) -> Array:
        return np.true_divide(x, y) if x.dtype.kind in "fc" else truncating(x, y)[0]

    def vjp(self, b: Builder, g: Value) -> Grads:
        g, y, result = widened(b, g, self.y, self.result)
        share = b.div(g, y)
        return share, b.neg(b.mul(share, result))


class _Extremum(_Binary):
    x = operand(Ordered)
    y = operand(Ordered)
    loses: ClassVar[str]
    """The predicate of an operand and the other that says that the other is taken."""

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Equal operands take half each."""
        shared = b.where(b.eq(self.x, self.y), b.mul(g, constant(b, g, 0.5)), g)
        pairs = ((self.x, self.y), (self.y, self.x))
        return [stopped(b, getattr(b, self.loses)(one, other), shared) for one, other in pairs]


class Min(_Extremum):
    """The smaller of x and y; NaN if either is; of two zeros, either."""

    compute = np.minimum
    loses = "gt"


class Max(_Extremum):
    """The greater of x and y; NaN if either is; of two zeros, either."""

    compute = np.maximum
    loses = "lt"


class Larger(_Binary):
    """x where x > y, else y: y also where either is NaN, and of two zeros.

    One instruction where `max`, which keeps every NaN, is several.
    """

    x = operand(Ordered)
    y = operand(Ordered)

    @staticmethod
    def compute(x: Array, y: Array) -> Array:
        return np.where(x > y, x, y)

    def vjp(self, b: Builder, g: Value) -> Grads:
        first = b.gt(self.x, self.y)
        return passed(b, first, g), stopped(b, first, g)


class CopySign(_Binary):
    """The magnitude of x with the sign of y, also of a zero or NaN y."""

    x = operand(Float)
    y = operand(Float)
    compute = np.copysign

    def decompose(self, b: Builder) -> Value:
        dtype = element(self.x.type)
        bits = DType(f"u{dtype.bits}")
        x, y = b.bitcast(self.x, to=bits), b.bitcast(self.y, to=bits)
        sign = 1 << (dtype.bits - 1)
        size = b.bitwise_and(x, constant(b, x, sign - 1))
        return b.bitcast(b.bitwise_or(size, b.bitwise_and(y, constant(b, y, sign))), to=dtype)  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        """The sign of x decides; 0 at 0."""
        turned = b.where(b.eq(self.x, self.result), g, b.neg(g))
        return stopped(b, b.eq(self.x, constant(b, self.x, 0)), turned), None


class Neg(_Unary):
    """-x; integers wrap.  Of a zero or NaN only the sign changes."""

    x = operand(Number)
    compute = np.negative

    def vjp(self, b: Builder, g: Value) -> Grads:
        return (b.neg(g),)


class Abs(_Unary):
    """The magnitude of x; that of the least integer wraps to itself."""

    x = operand(Real)

    @staticmethod
    def compute(x: Array) -> Array:
        return x if x.dtype.kind == "u" else np.abs(x)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """0 at 0."""
        zero = constant(b, self.x, 0)
        turned = b.where(b.lt(self.x, zero), b.neg(g), g)
        return (stopped(b, b.eq(self.x, zero), turned),)


class Sign(_Unary):
    """-1, 0 or 1; a zero (with its sign) and NaN give themselves."""

    x = operand(Real)
    no_gradient = FLAT

    @staticmethod
    def compute(x: Array) -> Array:
        return np.where(x == 0, x, np.sign(x))

    def decompose(self, b: Builder) -> Value:
        zero = constant(b, self.x, 0)
        one = constant(b, self.x, 1)
        positive = b.where(b.gt(self.x, zero), one, self.x)
        if element(self.x.type).kind == "uint":
            return positive  # type: ignore[no-any-return]
        return b.where(b.lt(self.x, zero), b.neg(one), positive)  # type: ignore[no-any-return]


class Reciprocal(_Unary):
    """1 / x, correctly rounded; of a zero, infinity with its sign."""

    x = operand(Float)

    @staticmethod
    def compute(x: Array) -> Any:
        return np.true_divide(x.dtype.type(1), x)

    def decompose(self, b: Builder) -> Value:
        return b.div(constant(b, self.x, 1.0), self.x)  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        g, result = widened(b, g, self.result)
        return (b.neg(b.mul(g, b.mul(result, result))),)


class Floor(_Unary):
    """The greatest integer not above x."""

    x = operand(Float)
    compute = np.floor
    no_gradient = FLAT


class Ceil(_Unary):
    """The least integer not below x."""

    x = operand(Float)
    compute = np.ceil
    no_gradient = FLAT


class RoundEven(_Unary):
    """The integer nearest to x, of two the even one."""

    x = operand(Float)
    compute = np.rint
    no_gradient = FLAT


class Trunc(_Unary):
    """The integer part of x."""

    x = operand(Float)
    compute = np.trunc
    no_gradient = FLAT


NOT_NEGATIVE = (sample((2, 9), ranges=((0.1, 5),)), sample((), ranges=((1, 2),)))


class Sqrt(_Unary):
    """The square root, correctly rounded; NaN below zero, -0 of -0."""

    x = operand(Float)
    samples = (*_Unary.samples, *NOT_NEGATIVE)
    compute = np.sqrt

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Infinite at 0."""
        g, result = widened(b, g, self.result)
        return (b.div(g, b.add(result, result)),)


class Rsqrt(_Unary):
    """1 / sqrt(x), each step rounded; infinite at 0, NaN below."""

    x = operand(Float)
    samples = (*_Unary.samples, *NOT_NEGATIVE)

    @staticmethod
    def compute(x: Array) -> Any:
        return np.true_divide(x.dtype.type(1), np.sqrt(x))

    def decompose(self, b: Builder) -> Value:
        return in_compute_type(b, self.x, lambda x: b.div(constant(b, x, 1.0), b.sqrt(x)))

    def vjp(self, b: Builder, g: Value) -> Grads:
        g, result = widened(b, g, self.result)
        cube = b.mul(b.mul(result, result), result)
        return (b.mul(b.mul(g, constant(b, g, -0.5)), cube),)


def in_compute_type(b: Builder, x: Value, make: Callable[[Value], Value]) -> Value:
    """`make` of x, in f32 for narrower floats, rounded once at the end."""
    from_ = element(x.type)
    wide = compute_dtype(from_)
    if wide is from_:
        return make(x)
    return b.cast(make(b.cast(x, to=wide)), to=from_)  # type: ignore[no-any-return]


class Identity(_Unary):
    """x itself."""

    x = operand(Element)

    @classmethod
    def evaluate(cls, *xs: Array, **attrs: Any) -> Array:
        return xs[0]

    def vjp(self, b: Builder, g: Value) -> Grads:
        return (g,)


class Cast(_Elementwise):
    """x converted to the element type `to`: floats round to nearest even, float to integer
    truncates and saturates, NaN becomes 0; to bool, anything but 0 is true; integers wrap.

    A float beyond the range of `to` becomes infinite, or NaN where `to` has no infinity, or
    (f4e2m1, which has neither) its greatest value.  C1: complex and real do not mix, except real to
    complex.  C2: `to` is no string.
    """

    x = operand(Plain)
    to = attr(DType)
    samples = (
        *[
            sample((9,), dtypes=(source,), ranges=((-300, 300),), to=DType(to))
            for source in ("f64", "f32", "bf16", "f8e4m3fn", "i64", "u8", "i4", "bool")
            for to in ("f64", "f32", "f16", "bf16", "f8e5m2", "i64", "i8", "u32", "u4", "bool")
        ],
        sample((), to=DType("i32")),
        sample((2, 0), to=DType("f16")),
        sample((3,), dtypes=("c64",), to=DType("c128")),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((2,), dtypes=("c64",), to=DType("f32"))),
        ("C2", sample((2,), to=DType("string"))),
    )

    @classmethod
    def infer(cls, *types: Type, **attrs: Any) -> Type:
        (x,), to = types, attrs["to"]
        real = to.kind != "complex" and to.kind != "bool"
        require(
            not (element(x).kind == "complex" and real),
            "E0303",
            f"cast (C1): {element(x)} does not convert to {to}",
        )
        require(to.kind != "string", "E0303", "cast (C2): numbers do not convert to strings")
        return like(x, to)

    @classmethod
    def evaluate(cls, *xs: Array, **attrs: Any) -> Array:
        return convert(xs[0], attrs["to"])

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Between floats; the cast back is that of every cotangent."""
        return (g,)


class Bitcast(_Elementwise):
    """The bits of x read as the element type `to`.  C1: both are numbers of the same width, a byte
    or more.
    """

    x = operand(Real)
    to = attr(DType)
    no_gradient = "the bits of a number are no function to differentiate"
    samples = (
        sample((3, 5), dtypes=("f32",), to=DType("i32")),
        sample((7,), dtypes=("u16",), ranges=((0, 30000),), to=DType("bf16")),
        sample((), dtypes=("f64",), to=DType("u64")),
        sample((4,), dtypes=("i8",), ranges=((-100, 100),), to=DType("u8")),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((2,), to=DType("i64"))),
        ("C1", sample((2,), to=DType("bool"))),
    )

    @classmethod
    def infer(cls, *types: Type, **attrs: Any) -> Type:
        (x,), to = types, attrs["to"]
        same = element(x).bits == to.bits and to.bits >= 8 and (to.is_float or to.is_integer)
        require(same, "E0303", f"bitcast (C1): {element(x)} and {to} must be numbers of one width")
        return like(x, to)

    @classmethod
    def evaluate(cls, *xs: Array, **attrs: Any) -> Array:
        return xs[0].view(attrs["to"].np)
