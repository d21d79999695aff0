"""The expansions of exp, log, tanh ... against f64 (f32) and extended precision (f64), over the
whole range.

Each function is expanded as for a kernel, then evaluated op by op on arrays that stand for the
scalar.  The bounds are those of docs/numerics.md, in units of the last place of the result; results
below the normal range are compared absolutely.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from irc.ir.core import OPS, Array, Builder
from irc.ir.ops.approximations import ROOTS
from irc.ir.ops.core import Const, Func, Return
from irc.ir.ops.fma import Fma
from irc.ir.types import DType, Type, VectorType
from irc.passes.lower.math import expand_math

Reference = Callable[[Array], Array]


def expanded(name: str, type_: Type, fma: bool = True, **attrs: Any) -> Func:
    """A function of scalars (or vectors) that computes the op, expanded."""
    cls = OPS[name]
    func = Func.make("f", [type_] * len(cls.spec.operands))
    b = Builder(func.body)
    b.emit(Return, b.emit(cls, *func.args, **attrs))
    expand_math(func, fma=fma)
    return func


def compute(func: Func, *xs: Array) -> Array:
    """Run scalar code on arrays: every op by its `evaluate`."""
    env: dict[Any, Any] = dict(zip(func.args, xs, strict=True))
    for op in func.body:
        if isinstance(op, Return):
            return np.asarray(env[op.operands[0]])
        env[op.result] = op.evaluate(*[env[v] for v in op.operands], **op.attributes)
    raise AssertionError("the function does not return")


def sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


def erf(x: Array) -> Array:
    return np.asarray([math.erf(v) for v in x], x.dtype)


REFERENCES: dict[str, Reference] = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "tanh": np.tanh,
    "sigmoid": sigmoid, "erf": erf, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
}  # fmt: skip
BOUNDS = {
    "exp": 1.0,
    "expm1": 2.0,
    "log": 1.0,
    "log1p": 2.0,
    "tanh": 2.5,
    "sigmoid": 2.5,
    "erf": 1.5,
    "sin": 2.0,
    "cos": 2.0,
    "tan": 3.5,
    "asin": 2.5,
    "acos": 1.5,
    "atan": 2.0,
    "sinh": 2.5,
    "cosh": 1.5,
    "asinh": 2.5,
    "acosh": 2.5,
    "atanh": 2.5,
}
PERIODIC = {"sin", "cos", "tan"}
FLUSHES = {"exp", "sigmoid"}
"""These give 0 (or a value as close) where the result is below about 1.5 times the least normal
number.
"""
REACH = {"f32": 2.0**30, "f64": 2.0**20}
CASES = [(name, fma) for name in REFERENCES for fma in (True, False)]


def sweep_f32() -> Array:
    """Every exponent and both signs at a stride, and densely where the functions live."""
    bits = np.arange(0, 2**32, 2**12 + 1, dtype=np.uint64).astype(np.uint32)
    dense = [np.linspace(-end, end, 60_001, dtype=np.float32) for end in (100, 10, 1)]
    edges = np.asarray(
        [0.0, -0.0, np.inf, -np.inf, np.nan, 88.722, 88.7229, -87.34, -104, 1, -1], np.float32
    )
    return np.concatenate([bits.view(np.float32), *dense, edges])


def sweep_f64() -> Array:
    bits = np.arange(0, 2**64 - 2**50, 2**50 + 12_345, dtype=np.uint64)
    dense = [np.linspace(-end, end, 8_001) for end in (750, 10, 1)]
    edges = np.asarray([0.0, -0.0, np.inf, -np.inf, np.nan, 709.782, 709.783, -745])
    return np.concatenate([bits.view(np.float64), *dense, edges])


def check(name: str, func: Func, x: Array, want: Array, bound: float, *more: Array) -> None:
    """`func` on x (and `more` operands) is within `bound` ULP of `want`, infinite and NaN where it
    is.
    """
    got = compute(func, x, *more)
    assert got.dtype == x.dtype
    info = np.finfo(x.dtype)
    if name in PERIODIC:
        inside = ~(np.abs(x) > REACH["f32" if x.dtype == np.float32 else "f64"])
        assert name == "tan" or np.all(np.abs(got[~inside & np.isfinite(x)]) <= 1)
        keep = inside | np.isinf(x)
        got, want = got[keep], want[keep]
    rounded = want.astype(x.dtype)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(rounded))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(rounded))
    infinite = np.isinf(got)
    np.testing.assert_array_equal(got[infinite], rounded[infinite])
    flushed = 1.5 * info.tiny if name in FLUSHES else info.tiny
    usual = np.isfinite(got) & (np.abs(rounded) >= flushed)
    small = np.isfinite(got) & ~usual
    slack = flushed if name in FLUSHES else 2 * float(info.smallest_subnormal)
    assert np.all(np.abs(got[small] - rounded[small]) <= slack)
    exact = want[usual]
    place = np.exp2(np.floor(np.log2(np.abs(exact))) - info.nmant)
    errors = np.abs(got[usual].astype(want.dtype) - exact) / place
    assert errors.max() <= bound, f"{errors.max():.3f} ULP at {x[np.argmax(errors)]}"


@pytest.fixture(scope="module")
def points_f32() -> Array:
    return sweep_f32()


@pytest.mark.parametrize(("name", "fma"), CASES)
def test_f32(name: str, fma: bool, points_f32: Array) -> None:
    """About 1.2 million points; without fma within twice the bound."""
    with np.errstate(all="ignore"):
        want = REFERENCES[name](points_f32.astype(np.float64))
        check(
            name,
            expanded(name, DType("f32"), fma),
            points_f32,
            want,
            BOUNDS[name] * (1 if fma else 2),
        )


@pytest.mark.parametrize(("name", "fma"), CASES)
def test_f64(name: str, fma: bool) -> None:
    """Against 80-bit arithmetic; erf against libm, itself within one ULP."""
    if np.finfo(np.longdouble).nmant < 60:
        pytest.skip("numpy has no extended precision here")
    x = sweep_f64()
    with np.errstate(all="ignore"):
        want = REFERENCES[name](x.astype(np.longdouble))
        bound = BOUNDS[name] + (1 if name == "erf" else 0)
        check(name, expanded(name, DType("f64"), fma), x, want, bound * (1 if fma else 2))


def test_a_wrong_coefficient_is_seen(points_f32: Array) -> None:
    """The sweep can fail: one bit in one coefficient of exp."""
    func = expanded("exp", DType("f32"))
    const = next(op for op in func.body if isinstance(op, Const) and 0.3 < op.value < 0.4)
    const.set_attr("value", const.value * (1 + 2.0**-19))
    with np.errstate(all="ignore"), pytest.raises(AssertionError, match="ULP"):
        check("exp", func, points_f32, np.exp(points_f32.astype(np.float64)), BOUNDS["exp"])


def test_cost_of_exp() -> None:
    """At most 14 operations of a processor: compare-and-choose is one (min, max), bitcasts are
    none.
    """
    func = expanded("exp", VectorType(DType("f32"), 16))
    costly = [
        op for op in func.body if op.name not in ("const", "loop.splat", "return", "bitcast", "lt")
    ]
    assert len(costly) <= 14


@pytest.mark.parametrize(
    "name",
    [*REFERENCES, "pow", "rem", "mod", "gelu", "silu", "elu", "softplus", "sign", "mish", "selu",
     "celu", "softsign", "shrink", "prelu"],
)  # fmt: skip
def test_expansion_leaves_native_ops_only(name: str) -> None:
    """On vectors of every float type, with and without fma."""
    for dtype in ("f32", "f64", "f16", "bf16"):
        for fma in (True, False):
            func = expanded(name, VectorType(DType(dtype), 8), fma)
            assert not [
                op for op in func.body if hasattr(op, "approximate") or hasattr(op, "decompose")
            ]
            assert fma or not [op for op in func.body if isinstance(op, Fma)]
            assert func.returned[0].type is VectorType(DType(dtype), 8)


def random_bits(count: int, seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 2**32, count, np.uint32).view(np.float32)


def test_pow_f32() -> None:
    """Within half a ULP and a little: it goes through f64."""
    rng = np.random.default_rng(5)
    x = np.concatenate([random_bits(50_000, 1), rng.uniform(-9, 50, 50_000).astype(np.float32)])
    y = np.concatenate(
        [random_bits(50_000, 2), np.rint(rng.uniform(-20, 20, 50_000)).astype(np.float32)]
    )
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), y.astype(np.float64))
        check("pow", expanded("pow", DType("f32")), x, want, 0.51, y)


def test_remainders_f32_are_exact() -> None:
    x, y = random_bits(100_000, 3), random_bits(100_000, 4)
    with np.errstate(all="ignore"):
        for name, reference in (("rem", np.fmod), ("mod", np.mod)):
            for fma in (True, False):
                got = compute(expanded(name, DType("f32"), fma), x, y)
                np.testing.assert_array_equal(got, reference(x, y))


SPECIALS = (0.0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, math.inf, -math.inf, math.nan)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("exponent", sorted(ROOTS))
def test_pow_of_a_constant_that_is_a_root(exponent: float, dtype: str) -> None:
    """Within 2.5 units in the last place, with the special values of C's pow."""
    type_ = DType(dtype)
    func = Func.make("f", [type_])
    b = Builder(func.body)
    b.emit(Return, b.pow(func.args[0], b.insert(Const(exponent, type_)).result))
    expand_math(func)
    assert not {"exp", "log", "pow"} & {op.name for op in func.body}
    assert sum(op.name == "bitcast" for op in func.body) == 0
    x = np.exp(np.random.default_rng(5).uniform(-20, 20, 4001)).astype(type_.np)
    x = np.concatenate([x, np.asarray([0, -0.0, 1, np.inf, -np.inf, np.nan], type_.np)])
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.longdouble), exponent)
        check("pow", func, x, want.astype(np.float64) if dtype == "f32" else want, 2.5)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize(
    ("name", "reference"), [("pow", np.power), ("rem", np.fmod), ("mod", np.mod)]
)
def test_special_values_of_two(name: str, reference: Any, dtype: str) -> None:
    """All pairs of special values, signs of zeros included."""
    grid = np.meshgrid(np.asarray(SPECIALS, DType(dtype).np), np.asarray(SPECIALS, DType(dtype).np))
    x, y = (v.reshape(-1) for v in grid)
    with np.errstate(all="ignore"):
        got, want = compute(expanded(name, DType(dtype)), x, y), reference(x, y)
    np.testing.assert_allclose(got, want, rtol=3e-7 if dtype == "f32" else 1e-14)
    zero = want == 0
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(want[zero]))


def test_integer_power() -> None:
    for name in ("i32", "u8", "i64"):
        dtype = DType(name)
        low = 0 if dtype.kind == "uint" else -9
        x, y = (v.reshape(-1).astype(dtype.np) for v in np.meshgrid(range(low, 9), range(low, 70)))
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(
                compute(expanded("pow", dtype), x, y), OPS["pow"].evaluate(x, y)
            )


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("name", [*REFERENCES, "gelu", "silu", "softplus", "mish"])
def test_narrow_floats(name: str, dtype: str) -> None:
    """Through f32 and rounded once: at most one of their own ULP from `evaluate`, over all 65536
    values.
    """
    bits = np.arange(2**16, dtype=np.uint16).view(DType(dtype).np)
    with np.errstate(all="ignore"):
        got = compute(expanded(name, DType(dtype)), bits).astype(np.float64)
        want = (
            OPS[name]
            .evaluate(bits, **{a.name: a.default for a in OPS[name].spec.attrs})
            .astype(np.float64)
        )
        x = bits.astype(np.float64)
        keep = np.abs(x) < 2**30 if name in PERIODIC else ~np.isinf(x)
        got, want = got[keep], want[keep]
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
        finite = np.isfinite(want)
        relative = 2.0**-10 if dtype == "f16" else 2.0**-7
        absolute = 2.0**-24 if dtype == "f16" else 3e-37  # the zeros of a flushed exp, times x
        absolute = max(absolute, 2.0**-21) if name == "gelu" else absolute  # cancels for negative x
        absolute = max(absolute, 2e-36) if name == "mish" else absolute  # a flushed exp, times x
        np.testing.assert_allclose(got[finite], want[finite], rtol=relative, atol=absolute)
