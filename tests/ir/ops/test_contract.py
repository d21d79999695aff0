"""Matmul and contract against plain loops, exact integers, accumulators, symbolic dims, error
texts.
"""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from irc.ir.errors import Error
from irc.ir.ops.contract import Contract, Matmul, accumulator
from irc.ir.types import DType, bf16, f32, i32, parse_type


def einsum_by_loops(x: Any, y: Any, equation: str) -> Any:
    terms, result = equation.split("->")
    of_x, of_y = terms.split(",")
    extent = dict(zip(of_x, x.shape)) | dict(zip(of_y, y.shape))
    out = np.zeros([extent[c] for c in result], np.float64)
    for point in itertools.product(*[range(e) for e in extent.values()]):
        at = dict(zip(extent, point))
        part = float(x[tuple(at[c] for c in of_x)]) * float(y[tuple(at[c] for c in of_y)])
        out[tuple(at[c] for c in result)] += part
    return out


@pytest.mark.parametrize(
    ("x", "y", "equation"),
    [
        ((3, 5), (5, 7), "ik,kj->ij"),
        ((2, 3, 4), (4, 2), "abc,cd->dab"),
        ((3, 2, 5), (4, 2, 5), "ibk,jbk->bij"),
        ((2, 3, 4), (3, 4, 2), "abc,bcd->ad"),
        ((2, 3), (3, 2), "ab,ba->"),
        ((2, 3, 1), (3,), "abc,b->acb"),
    ],
)
def test_contract_by_loops(apply: Any, x: Any, y: Any, equation: str) -> None:
    rng = np.random.default_rng(1)
    a, c = rng.standard_normal(x), rng.standard_normal(y)
    np.testing.assert_allclose(
        apply("contract", a, c, equation=equation), einsum_by_loops(a, c, equation)
    )


def test_matmul_broadcasts_like_numpy(apply: Any) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 1, 3, 4)), rng.standard_normal((5, 4, 2))
    np.testing.assert_allclose(apply("matmul", x, y), x @ y)


def test_narrow_integers_are_exact_and_mixed_signs_work(apply: Any) -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (4, 300)).astype(np.uint8)
    y = rng.integers(-128, 128, (300, 3)).astype(np.int8)
    x[0], y[:, 0] = 255, -128
    got = apply("matmul", x, y)
    assert got.dtype == np.int32 and got[0, 0] == 255 * -128 * 300
    np.testing.assert_array_equal(got, x.astype(np.int64) @ y.astype(np.int64))


def test_i16_sums_wrap_in_i32_and_fit_i64(apply: Any) -> None:
    x = np.full((1, 3), -32768, np.int16)
    y = x.T.copy()
    exact = 3 << 30
    assert apply("matmul", x, y)[0, 0] == exact - (1 << 32)
    assert apply("matmul", x, y, out=DType("i64"))[0, 0] == exact


def test_i32_wraps(apply: Any) -> None:
    x = np.full((1, 2), 1 << 30, np.int32)
    y = np.full((2, 1), 3, np.int32)
    assert apply("contract", x, y, equation="ik,kj->ij")[0, 0] == -(1 << 31)  # 6 * 2**30


def test_bf16_accumulates_in_f32_and_rounds_once(apply: Any) -> None:
    x = np.ones((1, 1000), ml_dtypes.bfloat16)
    y = np.full((1000, 1), 1.0, ml_dtypes.bfloat16)
    assert float(apply("matmul", x, y)[0, 0]) == 1000.0  # bf16 sums would stop at 256
    third = np.full((3, 1), 1 / 3, ml_dtypes.bfloat16)
    ones = np.ones((1, 3), ml_dtypes.bfloat16)
    assert apply("matmul", ones, third, out=f32)[0, 0] == np.float32(3 * float(third[0, 0]))


def test_accumulators() -> None:
    assert accumulator(bf16, bf16) is f32
    assert accumulator(DType("u8"), DType("i8")) is i32
    assert accumulator(DType("i4"), DType("i4"), DType("i64")) is DType("i64")
    assert accumulator(DType("u32"), DType("u32")) is DType("u32")
    assert accumulator(f32, f32, DType("f64")) is DType("f64")
    assert accumulator(DType("c64"), DType("c64")) is DType("c64")


def test_symbolic_dims(apply: Any) -> None:
    result = Matmul.infer(parse_type("f32[B, N, 8]"), parse_type("f32[8, M]"), out=None)
    assert str(result) == "f32[B, N, M]"
    assert (
        str(Matmul.infer(parse_type("f32[N, K]"), parse_type("f32[8, M]"), out=None)) == "f32[N, M]"
    )
    x, y = np.ones((3, 4), np.float32), np.ones((4, 2), np.float32)
    got = apply("matmul", x, y, types=["f32[N, 4]", "f32[4, M]"])
    assert got.shape == (3, 2) and (got == 4).all()
    got = apply("contract", x, y, types=["f32[N, K]", "f32[K, 2]"], equation="nk,km->mn")
    assert got.shape == (2, 3) and (got == 4).all()


def test_extents_that_are_surely_different_are_refused() -> None:
    with pytest.raises(Error, match=r"matmul \(C3\): inner extents differ") as caught:
        Matmul.infer(parse_type("f32[2, N]"), parse_type("f32[N + 1, 3]"), out=None)
    assert caught.value.code == "E0312" and "N (last of x) != N + 1" in caught.value.render()


def test_contract_takes_the_known_extent() -> None:
    found = Contract.infer(
        parse_type("f32[K, N]"), parse_type("f32[K, 7]"), equation="kn,kn->n", out=None
    )
    assert str(found) == "f32[7]"


def test_result_type_must_hold_sums() -> None:
    for given, out in (("i8", "i16"), ("f32", "i32"), ("i64", "i32")):
        types = [parse_type(f"{given}[2, 2]")] * 2
        with pytest.raises(Error, match=r"\(C1\)"):
            Matmul.infer(*types, out=DType(out))
