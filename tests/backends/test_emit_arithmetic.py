"""Every arithmetic row of the LLVM emitter and the C printer on every element type, to the bit."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from emit_cases import (
    Array,
    buf,
    call,
    i,
    kernel,
    lane,
    load_c,
    load_llvm,
    loop_over,
    num,
    rng,
)

from irc.ir.core import OPS, Builder, Value
from irc.ir.ops import compare, convert, elementwise, loop  # noqa: F401
from irc.ir.types import (
    DType,
    boolean,
    f32,
    from_numpy,
    i64,
)

# Arithmetic --------------------------------------------------------------------------------------

UNARY = (
    "neg",
    "abs",
    "sqrt",
    "floor",
    "ceil",
    "trunc",
    "round_even",
    "bitwise_not",
    "logical_not",
    "identity",
)
BINARY = (
    "add",
    "sub",
    "mul",
    "div",
    "rem",
    "min",
    "max",
    "copy_sign",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "shift_left",
    "shift_right",
    "logical_and",
    "logical_or",
    "logical_xor",
)
FLOAT_ONLY = {"sqrt", "floor", "ceil", "trunc", "round_even", "copy_sign"}
INTEGER_ONLY = {
    "bitwise_not",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "shift_left",
    "shift_right",
}
DTYPES = ["f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u64", "u32", "u16", "u8", "bool"]


def applies(name: str, dtype: DType) -> bool:
    if dtype is boolean:
        return name.startswith("logical") or name in ("eq", "ne", "identity", "min", "max")
    if name.startswith("logical"):
        return False
    if name in FLOAT_ONLY:
        return dtype.is_float
    return not (name in INTEGER_ONLY and dtype.is_float)


def special_values(dtype: DType, size: int) -> tuple[Array, Array]:
    """Every pair of special values, then random ones."""
    if dtype is boolean:
        points = np.array([0, 1])
    elif dtype.is_float:
        points = np.array(
            [0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 7.3, 1e-7, 3e4, np.inf, -np.inf, np.nan]
        )
    else:
        info = np.iinfo(dtype.np)
        points = np.array([0, 1, 2, 3, 7, info.max, info.min, info.max - 1, info.min + 1], dtype.np)
        points = np.r_[points, points[-1:] - points[-1:] - points[1:2]]
    x, y = np.meshgrid(points, points)
    with np.errstate(all="ignore"):
        x, y = x.reshape(-1).astype(dtype.np), y.reshape(-1).astype(dtype.np)
        more = rng.uniform(-100, 100, (2, size - len(x)))
        if dtype.kind in ("uint", "bool"):
            more = abs(more)
        return np.r_[x, more[0].astype(dtype.np)], np.r_[y, more[1].astype(dtype.np)]


def run_rows(
    rows: list[Any], inputs: list[tuple[DType, Array]], target: str, lanes: int = 0
) -> None:
    """Each row (result dtype, emit, want) as one store of one kernel, compared to the bit."""
    size = len(inputs[0][1])
    types = [buf(t, size) for t, _ in inputs] + [buf(t, size) for t, _, _ in rows]
    f, b, args = kernel("rows", *types)
    at: dict[str, Any] = (
        {"index": (i * lanes + lane,), "lane": "lane"} if lanes else {"index": (i,)}
    )
    with loop_over(b, "i", size // lanes if lanes else size) as b1:
        xs = [b1.emit(loop.Load, a, lanes=lanes, **at) for a in args[: len(inputs)]]
        for out, (_, emit, _) in zip(args[len(inputs) :], rows, strict=True):
            b1.emit(loop.Store, emit(b1, *xs), out, **at)
    outs = [np.zeros(size, t.np) for t, _, _ in rows]
    address = (load_llvm if target == "llvm" else load_c)([f])("rows")
    assert call(address, [*[a for _, a in inputs], *outs]) == 0
    for got, (_, emit, want) in zip(outs, rows, strict=True):
        g, w = (
            v.astype(np.float32) if v.dtype.kind == "V" or v.dtype == ml_dtypes.bfloat16 else v
            for v in (got, want)
        )
        np.testing.assert_array_equal(g, w, err_msg=str(emit))
        if g.dtype.kind == "f":
            zeros = (g == 0) & (emit.__name__ not in ("min", "max"))
            np.testing.assert_array_equal(
                np.signbit(g[zeros]), np.signbit(w[zeros]), err_msg=str(emit)
            )


def _named(name: str, **attrs: Any) -> Any:
    def emit(b: Builder, *xs: Value) -> Any:
        return getattr(b, name)(*xs, **attrs)

    emit.__name__ = name
    return emit


@pytest.mark.parametrize("target", ["llvm", "llvm16", "c"])
@pytest.mark.parametrize("name", DTYPES)
def test_arithmetic(name: str, target: str) -> None:
    """Every row on every element type, against `evaluate`."""
    dtype = DType(name)
    x, y = special_values(dtype, 256)
    rows = []
    for op in (*UNARY, *BINARY):
        if applies(op, dtype) and not (
            op == "rem" and target == "c" and dtype.is_float and dtype.bits < 32
        ):
            count = 1 if op in UNARY else 2
            emit = _named(op) if count == 2 else (lambda b, x, y, op=op: getattr(b, op)(x))
            emit.__name__ = op
            want = OPS[op].evaluate(*(x, y)[:count])
            rows.append((from_numpy(want.dtype), emit, want))
    run_rows(
        rows, [(dtype, x), (dtype, y)], target.removesuffix("16"), 16 if target == "llvm16" else 0
    )


@pytest.mark.parametrize("target", ["llvm", "llvm16", "c"])
@pytest.mark.parametrize("name", DTYPES)
def test_casts(name: str, target: str) -> None:
    """From every element type to every other, against `evaluate`; bits too."""
    dtype = DType(name)
    x, _ = special_values(dtype, 256)
    rows = []
    for to in map(DType, DTYPES):
        want = OPS["cast"].evaluate(x, to=to)
        rows.append((to, _named("cast", to=to), want))
        if to.bits == dtype.bits and to is not boolean and dtype is not boolean:
            rows.append((to, _named("bitcast", to=to), x.view(to.np)))
    run_rows(rows, [(dtype, x)], target.removesuffix("16"), 16 if target == "llvm16" else 0)


@pytest.mark.parametrize("target", ["llvm", "c"])
def test_where_and_constants(target: str) -> None:
    """A choice, min and max with a constant, and exact literals."""
    x, y = special_values(f32, 256)
    rows: list[Any] = [
        (f32, lambda b, x, y: b.where(b.lt(x, y), x, y), np.where(x < y, x, y)),
        (f32, lambda b, x, y: b.max(x, num(b, 0.25)), np.maximum(x, np.float32(0.25))),
        (f32, lambda b, x, y: b.min(num(b, 0.25), x), np.minimum(x, np.float32(0.25))),
        (f32, lambda b, x, y: b.max(x, num(b, float("nan"))), np.full(256, np.nan, np.float32)),
    ]
    for value in (0.1, -1e-40, 3.4e38, float("inf"), float("-inf"), -0.0, 16777217.0):
        rows.append((f32, lambda b, x, y, v=value: num(b, v), np.full(256, value, np.float32)))
    for value in (-(1 << 63), (1 << 63) - 1, -5):
        rows.append((i64, lambda b, x, y, v=value: num(b, v, i64), np.full(256, value, np.int64)))
    run_rows(rows, [(f32, x), (f32, y)], target)


@pytest.mark.parametrize("target", ["llvm", "c"])
def test_casts_round_once(target: str) -> None:
    """Just above a tie: through f32 it would become the tie, and then the even neighbour."""
    wide = np.array(
        [1 + 2**-8 + 2**-40, -1 - 2**-8 - 2**-40, 1 + 2**-11 + 2**-40, 3.4e38, 1e300, np.nan]
    )
    for to in (DType("bf16"), DType("f16")):
        want = OPS["cast"].evaluate(wide, to=to)
        run_rows([(to, _named("cast", to=to), want)], [(DType("f64"), wide)], target)
    whole = np.array([(1 << 24) + (1 << 16) + 1, -(1 << 24) - (1 << 16) - 1, 5], np.int32)
    want = np.array([(1 << 24) + (1 << 17), -(1 << 24) - (1 << 17), 5]).astype(ml_dtypes.bfloat16)
    run_rows(
        [(DType("bf16"), _named("cast", to=DType("bf16")), want)], [(DType("i32"), whole)], target
    )


def test_fma_rounds_once() -> None:
    """LLVM's fma is fused: the product's error shows."""
    x = np.full(16, 1 + 2**-12, np.float32)
    want = np.full(16, np.float32((1 + 2.0**-12) ** 2 - 1), np.float32)
    run_rows([(f32, lambda b, x: b.fma(x, x, num(b, -1.0)), want)], [(f32, x)], "llvm")
    assert (want != x * x - 1).all()


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_short_fma_rounds_once(name: str) -> None:
    """No processor has it and no library either: it is computed in double."""
    dtype = DType(name)
    x, y, z = [np.random.default_rng(k).uniform(-9, 9, 256).astype(dtype.np) for k in range(3)]
    want = OPS["fma"].evaluate(x, y, z)
    run_rows([(dtype, _named("fma"), want)], [(dtype, x), (dtype, y), (dtype, z)], "llvm")
    assert (want != (x * y).astype(dtype.np) + z).any()
