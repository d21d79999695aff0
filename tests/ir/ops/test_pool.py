"""Pooling against plain loops and torch: pads, ceil mode, dilation, NaN, blocked layout."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from irc.ir.ops.pool import MaxPool
from irc.ir.types import parse_type

CASES = [
    {"kernel": (3, 2), "strides": (2, 1), "pads": (1, 0, 1, 1)},
    {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "ceil_mode": True},
    {"kernel": (2, 2), "strides": (3, 3), "ceil_mode": True},
    {"kernel": (2, 2), "strides": (3, 3), "pads": (0, 0, 1, 1), "ceil_mode": True},
    {"kernel": (2, 3), "dilations": (3, 2), "pads": (2, 1, 0, 1)},
]


def windows(
    x: Any,
    kernel: Any,
    strides: Any = (1, 1),
    pads: Any = (0, 0, 0, 0),
    dilations: Any = (1, 1),
    ceil_mode: bool = False,
) -> Any:
    """(result index, elements inside x, taps inside x and its pads) for each window."""
    counts = []
    for k in range(2):
        room = x.shape[2 + k] + pads[k] + pads[2 + k] - dilations[k] * (kernel[k] - 1) - 1
        count = room // strides[k] + 1
        if ceil_mode:
            count = -(-room // strides[k]) + 1
            if (count - 1) * strides[k] >= x.shape[2 + k] + pads[k]:
                count -= 1
        counts.append(count)
    for index in itertools.product(
        range(x.shape[0]), range(x.shape[1]), *[range(c) for c in counts]
    ):
        inside, padded = [], 0
        for tap in itertools.product(*[range(k) for k in kernel]):
            at = [index[2 + k] * strides[k] + tap[k] * dilations[k] - pads[k] for k in range(2)]
            padded += all(-pads[k] <= at[k] < x.shape[2 + k] + pads[2 + k] for k in range(2))
            if all(0 <= at[k] < x.shape[2 + k] for k in range(2)):
                inside.append(x[(*index[:2], *at)])
        yield index, inside, padded


@pytest.mark.parametrize("case", CASES)
def test_by_loops(apply: Any, case: dict[str, Any]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 2, 8, 7))
    greatest = apply("max_pool", x, **case)
    mean = apply("avg_pool", x, **case)
    padded_mean = apply("avg_pool", x, **case, count_include_pad=True)
    seen = 0
    for index, inside, padded in windows(x, **case):
        seen += 1
        assert greatest[index] == max(inside)
        np.testing.assert_allclose(mean[index], np.mean(inside))
        np.testing.assert_allclose(padded_mean[index], np.sum(inside) / padded)
    assert seen == greatest.size == mean.size == padded_mean.size


@pytest.mark.oracle
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_against_torch(apply: Any, ceil_mode: bool) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra `oracle`)")
    x = np.random.default_rng(1).standard_normal((1, 2, 9, 8))
    case = {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "ceil_mode": ceil_mode}
    functional = torch.nn.functional
    want = functional.max_pool2d(torch.from_numpy(x), 3, 2, 1, ceil_mode=ceil_mode).numpy()
    np.testing.assert_allclose(apply("max_pool", x, **case), want)
    for include in (False, True):
        want = functional.avg_pool2d(torch.from_numpy(x), 3, 2, 1, ceil_mode, include).numpy()
        np.testing.assert_allclose(apply("avg_pool", x, **case, count_include_pad=include), want)


def test_nan_wins_and_pads_do_not(apply: Any) -> None:
    x = np.full((1, 1, 3, 3), -5, np.float32)
    x[0, 0, 0, 0] = np.nan
    got = apply("max_pool", x, kernel=(2, 2), pads=(1, 1, 1, 1))
    assert np.isnan(got[0, 0, :2, :2]).all() and np.isnan(got).sum() == 4
    assert got[0, 0, 3, 3] == -5


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float16, ml_dtypes.float8_e4m3fn])
def test_all_windows_at_the_least_value(apply: Any, dtype: Any) -> None:
    """The padding value is the type's own least, also where there is no infinity."""
    low = -128 if dtype is np.int8 else 0 if dtype is np.uint8 else -2.0
    x = np.full((1, 1, 2, 2), low).astype(dtype)
    got = apply("max_pool", x, kernel=(2, 2), pads=(1, 1, 1, 1))
    assert (got.astype(np.float32) == low).all()


def test_f16_mean_does_not_overflow(apply: Any) -> None:
    x = np.full((1, 1, 2, 2), 60000, np.float16)
    assert apply("avg_pool", x, kernel=(2, 2))[0, 0, 0, 0] == np.float16(60000)


def test_channel_lanes_are_left_alone(apply: Any) -> None:
    x = np.random.default_rng(2).standard_normal((1, 8, 5, 5))
    blocked = np.ascontiguousarray(np.moveaxis(x.reshape(1, 2, 4, 5, 5), 2, -1))
    for name in ("max_pool", "avg_pool"):
        plain = apply(name, x, kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
        got = apply(
            name, blocked, kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), channel_block=4
        )
        np.testing.assert_array_equal(np.moveaxis(got, -1, 2).reshape(plain.shape), plain)


def test_symbolic_extents(apply: Any) -> None:
    attrs = {
        "kernel": (3, 3),
        "strides": (2, 2),
        "pads": (1, 1, 1, 1),
        "dilations": (),
        "channel_block": 0,
    }
    found = MaxPool.infer(parse_type("f32[N, C, H, 5]"), **attrs, ceil_mode=False)
    assert str(found) == "f32[N, C, (H + 1) // 2, 3]"
    x = np.random.default_rng(3).standard_normal((2, 1, 8, 6))
    types = ["f64[N, 1, H, W]"]
    del attrs["channel_block"]
    for ceil_mode in (False, True):
        for name in ("max_pool", "avg_pool"):
            got = apply(name, x, types=types, **attrs, ceil_mode=ceil_mode)
            np.testing.assert_array_equal(got, apply(name, x, **attrs, ceil_mode=ceil_mode))


@pytest.mark.parametrize("case", CASES)
def test_positions_and_norms(apply: Any, case: dict[str, Any]) -> None:
    """What lies at the found position is the greatest; the p-norm is that of what lies inside."""
    x = np.random.default_rng(0).standard_normal((2, 2, 8, 7))
    greatest = apply("max_pool", x, **case)
    at = apply("max_pool_indices", x, **case)
    np.testing.assert_array_equal(x.reshape(-1)[at], greatest)
    columns = apply("max_pool_indices", x, **case, column_major=True)
    flat = np.swapaxes(x, 2, 3).reshape(-1)
    np.testing.assert_array_equal(flat[columns], greatest)
    for p in (1, 2, 5):
        found = apply("lp_pool", x, **case, p=p)
        for index, inside, _ in windows(x, **case):
            np.testing.assert_allclose(found[index], np.linalg.norm(inside, p))


def test_the_first_of_equals_and_nan(apply: Any) -> None:
    x = np.array([[[1.0, 3, 3, np.nan, 2, np.nan, -np.inf, -np.inf]]])
    found = apply("max_pool_indices", x, kernel=(2,))
    np.testing.assert_array_equal(found, [[[1, 1, 3, 3, 5, 5, 6]]])
    low = np.full((1, 1, 3), -np.inf)
    found = apply("max_pool_indices", low, kernel=(3,), pads=(1, 1))
    np.testing.assert_array_equal(found, [[[0, 0, 1]]])


def test_unpooling_puts_elements_back(apply: Any) -> None:
    x = np.random.default_rng(0).uniform(1, 2, (2, 3, 6, 8))
    attrs: dict[str, Any] = {"kernel": (2, 2), "strides": (2, 2)}
    values = apply("max_pool", x, **attrs)
    back = apply("max_unpool", values, apply("max_pool_indices", x, **attrs), shape=x.shape)
    np.testing.assert_array_equal(apply("max_pool", back, **attrs), values)
    assert np.count_nonzero(back) == values.size
    np.testing.assert_array_equal(back[back != 0], x[back != 0])
