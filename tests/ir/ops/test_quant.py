"""Quantization: ties, saturation, groups, every integer type, requantize against rational
arithmetic.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from irc.ir.ops.convert import highest, lowest, widen
from irc.ir.types import DType

INTEGERS = ["i2", "u2", "i4", "u4", "i8", "u8", "i16", "u16"]


def test_quantize_rounds_half_to_even(apply: Any) -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.49, np.nan], np.float32) * 2
    got = apply("quantize", x, np.float32(2), to=DType("i8"))
    assert got.tolist() == [0, 2, 2, 0, -2, -2, 3, 0]


@pytest.mark.parametrize("name", INTEGERS)
def test_quantize_saturates_after_the_zero_point(apply: Any, name: str) -> None:
    to = DType(name)
    x = np.array([-1e9, -np.inf, 0, 1e9, np.inf], np.float32)
    zero = np.asarray(1).astype(to.np)
    got = widen(apply("quantize", x, np.float32(0.5), zero, to=to)).tolist()
    assert got == [lowest(to), lowest(to), 1, highest(to), highest(to)]
    edge = np.array([highest(to) - 1, highest(to)], np.float32)
    got = widen(apply("quantize", edge, np.float32(1), zero, to=to)).tolist()
    assert got == [highest(to), highest(to)]


@pytest.mark.parametrize("name", INTEGERS)
def test_quantize_inverts_dequantize(apply: Any, name: str) -> None:
    dtype = DType(name)
    values = np.arange(lowest(dtype), highest(dtype) + 1, 1 if dtype.bits < 16 else 97)
    q, zero = values.astype(dtype.np), np.asarray(1).astype(dtype.np)
    x = apply("dequantize", q, np.float32(0.25), zero)
    np.testing.assert_array_equal(x, (values - 1) * np.float32(0.25))
    np.testing.assert_array_equal(apply("quantize", x, np.float32(0.25), zero, to=dtype), q)


def test_dequantize_subtracts_beyond_the_byte(apply: Any) -> None:
    q, zero = np.array([0, 255], np.uint8), np.array([255, 0], np.uint8)
    assert apply("dequantize", q, np.ones(2, np.float32), zero).tolist() == [-255, 255]


def test_dequantize_of_accumulators(apply: Any) -> None:
    x = np.array([1 << 24, -(1 << 30), 7], np.int32)
    got = apply("dequantize", x, np.float32(2.0**-10))
    np.testing.assert_array_equal(got, x.astype(np.float32) / 1024)


def test_groups_along_an_axis(apply: Any) -> None:
    rng = np.random.default_rng(0)
    q = rng.integers(-8, 8, (5, 10)).astype(DType("i4").np)
    scale = rng.uniform(0.1, 1, (2, 10)).astype(np.float32)
    got = apply("dequantize", q, scale, axis=0, group=4)
    for i in range(5):
        for j in range(10):
            assert got[i, j] == np.float32(int(q[i, j])) * scale[i // 4, j]
    back = apply("quantize", got, scale, to=DType("i4"), axis=0, group=4)
    np.testing.assert_array_equal(widen(back), widen(q))
    found = apply(
        "dequantize", q, scale, types=["i4[N, M]", "f32[(N + 3) // 4, M]"], axis=-2, group=4
    )
    np.testing.assert_array_equal(found, got)


def test_f8_saturates_and_keeps_nan(apply: Any) -> None:
    x = np.array([1e6, -1e6, np.nan, 1.0], np.float32)
    got = widen(apply("quantize", x, np.float32(0.5), to=DType("f8e4m3fn")))
    assert got[:2].tolist() == [448, -448] and np.isnan(got[2]) and got[3] == 2


def rounded(value: Fraction, how: str) -> int:
    """The integer nearest to value; of two, the one `how` says."""
    below = math.floor(value)
    rest = value - below
    if rest != Fraction(1, 2):
        return below + (rest > Fraction(1, 2))
    if how == "even":
        return below + below % 2
    return below + 1 if how == "up" or value > 0 else below


@pytest.mark.parametrize("how", ["away", "even", "up"])
@pytest.mark.parametrize("name", ["i8", "u8", "i16", "u4"])
def test_requantize_by_rational_arithmetic(apply: Any, how: str, name: str) -> None:
    to = DType(name)
    rng = np.random.default_rng(1)
    few = np.arange(-40, 41)
    x = np.concatenate([few, [-(2**31), 2**31 - 1], rng.integers(-(2**31), 2**31, 60)]).astype(
        np.int32
    )
    cases = ((1, 1), (3, 2), (2**31 - 1, 31), (2**31 - 1, 40), (1 << 30, 46), (5, 62))
    zero = np.asarray(3).astype(to.np)
    for multiplier, shift in cases:
        scale = np.int32(multiplier), np.int32(shift)
        got = apply("requantize", x, *scale, zero, to=to, rounding=how)
        want = [rounded(Fraction(int(v) * multiplier, 1 << shift), how) + 3 for v in x]
        assert widen(got).tolist() == [min(max(v, lowest(to)), highest(to)) for v in want]


def test_requantize_per_channel(apply: Any) -> None:
    x = np.full((2, 3), 1000, np.int32)
    multiplier = np.array([1 << 30, 1 << 29, 3], np.int32)
    shift = np.array([35, 36, 8], np.int32)
    got = apply("requantize", x, multiplier, shift, to=DType("u8"), axis=1)
    assert got.tolist() == [[31, 8, 12]] * 2
    assert apply("requantize", x, np.int32(1 << 30), np.int32(35), to=DType("u8"))[0, 0] == 31
