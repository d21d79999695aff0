"""Elementwise functions with numpy's names: arithmetic, comparisons, mathematics, `where`.

Operands may be tensors, arrays or Python numbers and broadcast as in numpy; dtypes.py says what
mixed types become.  May import: ir, its siblings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ir.core import Op
from ...ir.dims import Dim
from ...ir.ops import activations, compare, elementwise, elementwise_math, trigonometric
from ...ir.ops.autodiff import StopGradient
from ...ir.ops.fma import Fma
from ...ir.types import DType, boolean, f32, i64
from .dispatch import Base, as_array, as_tensor, dim_tensor, leaf, one
from .dtypes import as_dtype, promoted, weak

if TYPE_CHECKING:
    from .tensor import Tensor

_NUMBERS = (bool, int, float, np.generic)


def cast(x: Any, dtype: Any) -> Tensor:
    """x with its elements as `dtype`; the tensor itself where they are already."""
    x, dtype = as_tensor(x), as_dtype(dtype)
    return x if x.type.dtype is dtype else one(elementwise.Cast, x, to=dtype)


def pair(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Two operands as tensors of one element type."""
    if isinstance(x, Base) and isinstance(y, Base):
        if x.type.dtype is y.type.dtype:
            return x, y  # type: ignore[return-value]
    elif isinstance(y, _NUMBERS) and isinstance(x, Base):
        return _with_number(x, y)
    elif isinstance(x, _NUMBERS) and isinstance(y, Base):
        y, x = _with_number(y, x)
        return x, y
    elif isinstance(y, Dim):
        x = as_tensor(x)
        return x, dim_tensor(y, x.type.dtype)
    elif isinstance(x, Dim):
        y = as_tensor(y)
        return dim_tensor(x, y.type.dtype), y
    x, y = as_tensor(x), as_tensor(y)
    dtype = promoted(x.type.dtype, y.type.dtype)
    return cast(x, dtype), cast(y, dtype)


def _with_number(x: Base, number: Any) -> tuple[Any, Any]:
    """A tensor and a Python number, which is weak."""
    have = x.type.dtype
    dtype = weak(number, have)
    return x if dtype is have else cast(x, dtype), leaf(as_array(number, dtype))


def floating(x: Any) -> Tensor:
    """x as a tensor of floats: integers and bools become f32."""
    x = as_tensor(x)
    return x if x.type.dtype.kind in ("float", "complex") else cast(x, f32)


def numeric(x: Any) -> Tensor:
    """x as a tensor of numbers: bools become i64."""
    x = as_tensor(x)
    return x if x.type.dtype.kind != "bool" else cast(x, i64)


def _unary(cls: type[Op], name: str, doc: str) -> Callable[[Any], Tensor]:
    def function(x: Any) -> Tensor:
        return one(cls, floating(x))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _numeric(cls: type[Op], name: str, doc: str) -> Callable[[Any], Tensor]:
    def function(x: Any) -> Tensor:
        return one(cls, numeric(x))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _rounding(cls: type[Op], name: str, doc: str) -> Callable[[Any], Tensor]:
    def function(x: Any) -> Tensor:
        x = as_tensor(x)
        return one(cls, x) if x.type.dtype.is_float else x

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _binary(cls: type[Op], name: str, doc: str) -> Callable[[Any, Any], Tensor]:
    def function(x: Any, y: Any) -> Tensor:
        x, y = pair(x, y)
        return one(cls, x, y)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _logical(cls: type[Op], bits: type[Op], name: str, doc: str) -> Callable[[Any, Any], Tensor]:
    def function(x: Any, y: Any) -> Tensor:
        x, y = pair(x, y)
        return one(cls if x.type.dtype is boolean else bits, x, y)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


_add = _binary(elementwise.Add, "add", "x + y.")
_mul = _binary(elementwise.Mul, "multiply", "x * y.")
subtract = _binary(elementwise.Sub, "subtract", "x - y.")
maximum = _binary(elementwise.Max, "maximum", "The greater of x and y; NaN where either is.")
minimum = _binary(elementwise.Min, "minimum", "The smaller of x and y; NaN where either is.")
fmod = _binary(elementwise_math.Rem, "fmod", "The remainder with the sign of x.")
remainder = _binary(elementwise_math.Mod, "remainder", "The remainder with the sign of y.")
_pow = _binary(elementwise_math.Pow, "power", "x to the power of y.")
copysign = _binary(elementwise.CopySign, "copysign", "The magnitude of x with the sign of y.")

equal = _binary(compare.Eq, "equal", "x == y, elementwise.")
not_equal = _binary(compare.Ne, "not_equal", "x != y, elementwise.")
less = _binary(compare.Lt, "less", "x < y, elementwise.")
less_equal = _binary(compare.Le, "less_equal", "x <= y, elementwise.")
greater = _binary(compare.Gt, "greater", "x > y, elementwise.")
greater_equal = _binary(compare.Ge, "greater_equal", "x >= y, elementwise.")

bitwise_and = _logical(
    compare.LogicalAnd, compare.BitwiseAnd, "bitwise_and", "x & y of bools or integers."
)
bitwise_or = _logical(
    compare.LogicalOr, compare.BitwiseOr, "bitwise_or", "x | y of bools or integers."
)
bitwise_xor = _logical(
    compare.LogicalXor, compare.BitwiseXor, "bitwise_xor", "x ^ y of bools or integers."
)
left_shift = _binary(compare.ShiftLeft, "left_shift", "x << y of integers.")
right_shift = _binary(compare.ShiftRight, "right_shift", "x >> y of integers.")

negative = _numeric(elementwise.Neg, "negative", "-x.")
abs = _numeric(elementwise.Abs, "abs", "|x|.")
sign = _numeric(elementwise.Sign, "sign", "-1, 0 or 1 by the sign of x; NaN of NaN.")
floor = _rounding(elementwise.Floor, "floor", "The greatest integer not above x.")
ceil = _rounding(elementwise.Ceil, "ceil", "The least integer not below x.")
trunc = _rounding(elementwise.Trunc, "trunc", "x without its fraction.")
round = _rounding(elementwise.RoundEven, "round", "The nearest integer, ties to the even one.")

exp = _unary(elementwise_math.Exp, "exp", "e to the power of x.")
expm1 = _unary(elementwise_math.Expm1, "expm1", "exp(x) - 1, exact near 0.")
log = _unary(elementwise_math.Log, "log", "The natural logarithm.")
log1p = _unary(elementwise_math.Log1p, "log1p", "log(1 + x), exact near 0.")
sqrt = _unary(elementwise.Sqrt, "sqrt", "The square root.")
rsqrt = _unary(elementwise.Rsqrt, "rsqrt", "1 / sqrt(x).")
reciprocal = _unary(elementwise.Reciprocal, "reciprocal", "1 / x.")
sin = _unary(elementwise_math.Sin, "sin", "The sine.")
cos = _unary(elementwise_math.Cos, "cos", "The cosine.")
tan = _unary(trigonometric.Tan, "tan", "The tangent.")
arcsin = _unary(trigonometric.Asin, "arcsin", "The inverse sine.")
arccos = _unary(trigonometric.Acos, "arccos", "The inverse cosine.")
arctan = _unary(trigonometric.Atan, "arctan", "The inverse tangent.")
sinh = _unary(trigonometric.Sinh, "sinh", "The hyperbolic sine.")
cosh = _unary(trigonometric.Cosh, "cosh", "The hyperbolic cosine.")
tanh = _unary(elementwise_math.Tanh, "tanh", "The hyperbolic tangent.")
arcsinh = _unary(trigonometric.Asinh, "arcsinh", "The inverse hyperbolic sine.")
arccosh = _unary(trigonometric.Acosh, "arccosh", "The inverse hyperbolic cosine.")
arctanh = _unary(trigonometric.Atanh, "arctanh", "The inverse hyperbolic tangent.")
erf = _unary(elementwise_math.Erf, "erf", "The error function.")
isnan = _unary(compare.IsNan, "isnan", "Whether x is NaN.")
isinf = _unary(compare.IsInf, "isinf", "Whether x is an infinity.")


def add(x: Any, y: Any) -> Tensor:
    """x + y; of bools the count (i64), as with numpy's integers."""
    return _add(x, y)


def multiply(x: Any, y: Any) -> Tensor:
    """x * y; two bools give whether both are true."""
    x, y = pair(x, y)
    if x.type.dtype is boolean:
        return bitwise_and(x, y)
    return _mul(x, y)


def divide(x: Any, y: Any) -> Tensor:
    """x / y as floats: integers become f32."""
    x, y = pair(x, y)
    return one(elementwise.Div, floating(x), floating(y))


def floor_divide(x: Any, y: Any) -> Tensor:
    """The greatest integer not above x / y, in the operands' type."""
    x, y = pair(x, y)
    if x.type.dtype.is_float:
        return floor(one(elementwise.Div, x, y))
    quotient = one(elementwise.Div, x, y)
    inexact = bitwise_and(not_equal(multiply(quotient, y), x), not_equal(less(x, 0), less(y, 0)))
    return one(elementwise.Sub, quotient, cast(inexact, x.type.dtype))


def power(x: Any, y: Any) -> Tensor:
    """x to the power of y; the powers 0.5, 1, 2 and -1 are computed as such."""
    if isinstance(y, (int, float)) and isinstance(x, Base):
        if y == 1:
            return as_tensor(x)
        if y == 2:
            return _mul(x, x)
        if x.type.dtype.is_float and y in (0.5, -1):
            return sqrt(x) if y == 0.5 else reciprocal(x)
    return _pow(x, y)


def square(x: Any) -> Tensor:
    """x * x."""
    return _mul(x, x)


def log2(x: Any) -> Tensor:
    """The logarithm to base 2."""
    return log(x) * (1 / math.log(2))


def log10(x: Any) -> Tensor:
    """The logarithm to base 10."""
    return log(x) * (1 / math.log(10))


def exp2(x: Any) -> Tensor:
    """2 to the power of x."""
    return exp(floating(x) * math.log(2))


def isfinite(x: Any) -> Tensor:
    """Whether x is neither NaN nor an infinity."""
    return logical_not(isnan(x) | isinf(x))


def logical_not(x: Any) -> Tensor:
    """Whether x is 0 or false."""
    return one(compare.LogicalNot, truth(x))


def bitwise_not(x: Any) -> Tensor:
    """~x: the other truth value, or all bits inverted."""
    x = as_tensor(x)
    return one(compare.LogicalNot if x.type.dtype is boolean else compare.BitwiseNot, x)


def truth(x: Any) -> Tensor:
    """x as bools: whether it is not 0."""
    x = as_tensor(x)
    return x if x.type.dtype is boolean else not_equal(x, 0)


def logical_and(x: Any, y: Any) -> Tensor:
    """Whether both are true."""
    return bitwise_and(truth(x), truth(y))


def logical_or(x: Any, y: Any) -> Tensor:
    """Whether one is true."""
    return bitwise_or(truth(x), truth(y))


def logical_xor(x: Any, y: Any) -> Tensor:
    """Whether exactly one is true."""
    return bitwise_xor(truth(x), truth(y))


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """x where the condition holds, y elsewhere; the three broadcast."""
    x, y = pair(x, y)
    return one(compare.Where, truth(condition), x, y)


def clip(x: Any, low: Any = None, high: Any = None) -> Tensor:
    """x, at least `low` and at most `high` (None: no bound)."""
    x = as_tensor(x)
    if all([b is None or isinstance(b, _NUMBERS) for b in (low, high)]):
        bounds = [None if b is None else leaf(as_array(b, x.type.dtype)) for b in (low, high)]
        return one(activations.Clip, x, *bounds)
    x = x if low is None else maximum(x, low)
    return x if high is None else minimum(x, high)


def fma(x: Any, y: Any, z: Any) -> Tensor:
    """x * y + z, rounded once."""
    x, y = pair(x, y)
    x, z = pair(x, z)
    return one(Fma, x, cast(y, x.type.dtype), z)


def nan_to_num(x: Any, nan: float = 0.0) -> Tensor:
    """x with `nan` in place of NaN, and infinities as the largest numbers of the type."""
    x = floating(x)
    limit = float(np.finfo(np.float32).max) if x.type.dtype.bits < 64 else np.finfo(np.float64).max
    if x.type.dtype.name == "f16":
        limit = 65504.0
    return clip(where(isnan(x), nan, x), -limit, limit)


def identity(x: Any) -> Tensor:
    """x as another tensor."""
    return one(elementwise.Identity, as_tensor(x))


def stop_gradient(x: Any) -> Tensor:
    """x itself, through which no gradient passes."""
    x = as_tensor(x)
    return leaf(x.array, x.type) if x.value is None else one(StopGradient, x)


def astype(x: Any, dtype: DType | Any) -> Tensor:
    """x with its elements as `dtype`."""
    return cast(x, dtype)


absolute = abs
true_divide = divide
sub, mul, div, pow, neg = subtract, multiply, divide, power, negative
eq, ne, lt, le, gt, ge = equal, not_equal, less, less_equal, greater, greater_equal

__all__ = [
    "abs", "absolute", "add", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh",
    "astype", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "cast", "ceil", "clip",
    "copysign", "cos", "cosh", "div", "divide", "eq", "equal", "erf", "exp", "exp2", "expm1",
    "floor", "floor_divide", "fma", "fmod", "ge", "greater", "greater_equal", "gt", "identity",
    "isfinite", "isinf", "isnan", "le", "left_shift", "less", "less_equal", "log", "log10", "log1p",
    "log2", "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "maximum", "minimum",
    "mul", "multiply", "nan_to_num", "ne", "neg", "negative", "not_equal", "pow", "power",
    "reciprocal", "remainder", "right_shift", "round", "rsqrt", "sign", "sin", "sinh", "sqrt",
    "square", "stop_gradient", "sub", "subtract", "tan", "tanh", "true_divide", "trunc", "where",
]  # fmt: skip
