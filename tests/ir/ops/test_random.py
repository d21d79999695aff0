"""Philox against the published vectors; the stream, uniform's range, mean and words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc.ir.types import DType

# Random123, kat_vectors, philox4x32 with 10 rounds: counter, key, result.
KNOWN = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def state(counter: Any, key: Any) -> tuple[Any, Any]:
    return np.array(key, np.uint32), np.array(counter, np.uint32)


@pytest.mark.parametrize(("counter", "key", "want"), KNOWN)
def test_known_answers(apply: Any, counter: Any, key: Any, want: Any) -> None:
    got = apply("philox_bits", *state(counter, key), shape=(4,))
    assert tuple(int(v) for v in got) == want


def test_elements_are_words_of_successive_counters(apply: Any) -> None:
    key, counter = state((0xFFFFFFFE, 0xFFFFFFFF, 7, 0), (1, 2))
    bits = apply("philox_bits", key, counter, shape=(3, 5)).reshape(-1)
    for block in range(4):
        at = (7 << 64) + 0xFFFFFFFFFFFFFFFE + block
        words = np.array([at >> (32 * k) & 0xFFFFFFFF for k in range(4)], np.uint32)
        alone = apply("philox_bits", key, words, shape=(4,))
        np.testing.assert_array_equal(bits[4 * block : 4 * block + 4], alone[: 15 - 4 * block])


@pytest.mark.parametrize(("count", "blocks"), [(0, 0), (1, 1), (4, 1), (15, 4), (2**34, 2**32)])
def test_next_continues_the_stream(apply: Any, count: int, blocks: int) -> None:
    for start in (5, 2**32 - 1, 2**128 - 2):
        words = np.array([start >> (32 * k) & 0xFFFFFFFF for k in range(4)], np.uint32)
        got = apply("philox_next", words, count=count)
        assert sum(int(w) << 32 * k for k, w in enumerate(got)) == (start + blocks) % 2**128


@pytest.mark.parametrize(("name", "bits"), [("f32", 24), ("f16", 11), ("bf16", 8)])
def test_uniform_is_the_top_bits(apply: Any, name: str, bits: int) -> None:
    key, counter = state((1, 2, 3, 4), (5, 6))
    words = apply("philox_bits", key, counter, shape=(7, 9))
    got = apply("random_uniform", key, counter, shape=(7, 9), dtype=DType(name))
    np.testing.assert_array_equal(got.astype(np.float64), (words >> (32 - bits)) / 2**bits)


def test_uniform_moments_and_range(apply: Any) -> None:
    key, counter = state((9, 0, 0, 0), (5, 6))
    for name in ("f32", "f64", "f16", "bf16"):
        x = apply("random_uniform", key, counter, shape=(4000,), dtype=DType(name)).astype(
            np.float64
        )
        assert x.min() >= 0 and x.max() < 1
        assert abs(x.mean() - 0.5) < 0.02 and abs(x.var() - 1 / 12) < 0.005
    x = apply("random_uniform", key, counter, shape=(4000,), low=-3.0, high=5.0)
    assert x.min() >= -3 and x.max() <= 5 and abs(x.mean() - 1) < 0.15


def test_f64_takes_53_bits_of_two_words(apply: Any) -> None:
    key, counter = state((3, 0, 0, 0), (8, 9))
    words = apply("philox_bits", key, counter, shape=(5, 2)).astype(object)
    got = apply("random_uniform", key, counter, shape=(5,), dtype=DType("f64"))
    want = [((int(a) >> 5) * 2**26 + (int(b) >> 6)) / 2**53 for a, b in words]
    assert got.tolist() == want


def test_normal_moments_and_tails(apply: Any) -> None:
    key, counter = state((9, 0, 0, 0), (5, 6))
    x = apply("random_normal", key, counter, shape=(20000,)).astype(np.float64)
    assert abs(x.mean()) < 0.02 and abs(x.var() - 1) < 0.04
    assert abs((np.abs(x) < 1).mean() - 0.6827) < 0.01 and abs((x > 2).mean() - 0.0228) < 0.004
    moved = apply("random_normal", key, counter, shape=(20000,), mean=3.0, deviation=2.0)
    np.testing.assert_allclose(moved, x * 2 + 3, atol=1e-5)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.7, 1.0])
def test_dropout_keeps_its_share(apply: Any, ratio: float) -> None:
    """What is kept is scaled so that the mean stays; the bits say which."""
    key, counter = np.asarray([3, 4], np.uint32), np.asarray([5, 0, 0, 0], np.uint32)
    x = np.ones((40, 100), np.float32)
    found = apply("dropout", x, key, counter, ratio=ratio)
    kept = found != 0
    if ratio < 1:
        assert abs(kept.mean() - (1 - ratio)) < 0.03
        np.testing.assert_allclose(found[kept], 1 / (1 - ratio), rtol=1e-6)
        bits = apply("philox_bits", key, counter, shape=x.shape)
        np.testing.assert_array_equal(kept, bits >= ratio * 2**32)
    else:
        assert not kept.any()


def test_dropout_of_whole_channels(apply: Any) -> None:
    key, counter = np.asarray([3, 4], np.uint32), np.zeros(4, np.uint32)
    found = apply("dropout", np.ones((8, 16, 3)), key, counter, drawn=(8, 16, 1)) != 0
    assert (found.all(2) | ~found.any(2)).all()
    assert 30 < found[..., 0].sum() < 98
