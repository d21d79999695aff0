"""Attention against torch and plain loops; rotary embedding against complex numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(0)


def heads(*shape: int) -> Any:
    return RNG.standard_normal(shape)


def by_loops(q: Any, k: Any, v: Any, allowed: Any, added: Any, scale: float) -> Any:
    """Every query by itself; `allowed` and `added` are [B, H, S, T]."""
    out = np.zeros((*q.shape[:3], v.shape[3]))
    each = q.shape[1] // k.shape[1]
    for b, h, s in np.ndindex(*q.shape[:3]):
        seen = np.flatnonzero(allowed[b, h, s])
        if not len(seen):
            continue
        scores = scale * (k[b, h // each, seen] @ q[b, h, s]) + added[b, h, s, seen]
        shares = np.exp(scores - scores.max())
        out[b, h, s] = shares / shares.sum() @ v[b, h // each, seen]
    return out


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["none", "bool", "float"])
def test_by_loops(apply: Any, kv_heads: int, causal: bool, kind: str) -> None:
    q, k, v = heads(2, 4, 5, 3), heads(2, kv_heads, 7, 3), heads(2, kv_heads, 7, 6)
    allowed = np.ones((2, 4, 5, 7), np.bool_)
    added = np.zeros(allowed.shape)
    mask = None
    if kind == "bool":
        mask = RNG.uniform(size=(2, 1, 5, 7)) < 0.6
        mask[0, 0, 2] = False
        allowed = allowed & mask
    elif kind == "float":
        mask = heads(5, 7)
        added = added + mask
    if causal:
        allowed = allowed & (np.arange(7)[None] <= np.arange(5)[:, None] + 2)
    attrs: dict[str, Any] = {"causal": causal, "offset": 2, "scale": 0.4}
    found = apply("attention", q, k, v, mask, **attrs)
    np.testing.assert_allclose(found, by_loops(q, k, v, allowed, added, 0.4), atol=1e-12)


def test_lengths_and_windows(apply: Any) -> None:
    """Query s of sequence b stands at s + length - S."""
    q, k, v = heads(2, 2, 3, 4), heads(2, 2, 6, 4), heads(2, 2, 6, 4)
    lengths = np.array([4, 2])
    found = apply("attention", q, k, v, None, lengths, causal=True, left=1)
    at = np.arange(3)[None, :] + lengths[:, None] - 3
    key = np.arange(6)
    allowed = (key <= at[..., None]) & (key >= at[..., None] - 1) & (key < lengths[:, None, None])
    allowed = np.broadcast_to(allowed[:, None], (2, 2, 3, 6))
    want = by_loops(q, k, v, allowed, np.zeros(allowed.shape), 0.5)
    np.testing.assert_allclose(found, want, atol=1e-12)
    assert not found[1, :, 0].any()  # its position is before the first key


def test_soft_cap_bounds_the_scores(apply: Any) -> None:
    q, k = np.full((1, 1, 1, 1), 100.0), np.array([1.0, -1.0]).reshape(1, 1, 2, 1)
    v = np.array([1.0, 0.0]).reshape(1, 1, 2, 1)
    found = apply("attention", q, k, v, softcap=0.5)
    np.testing.assert_allclose(found.item(), 1 / (1 + np.exp(-1)))


def test_symbolic_lengths(apply: Any) -> None:
    q, k, v = heads(2, 4, 5, 3), heads(2, 2, 7, 3), heads(2, 2, 7, 6)
    types = ["f64[B, 4, S, 3]", "f64[B, 2, T, 3]", "f64[B, 2, T, 6]"]
    found = apply("attention", q, k, v, types=types, causal=True, offset=2)
    np.testing.assert_allclose(found, apply("attention", q, k, v, causal=True, offset=2))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_turns_complex_numbers(apply: Any, interleaved: bool) -> None:
    x, angle = heads(2, 3, 5, 9), RNG.uniform(-3, 3, (2, 5, 4))
    found = apply("rotary_embedding", x, np.cos(angle), np.sin(angle), interleaved=interleaved)
    first, second = (slice(0, 8, 2), slice(1, 8, 2)) if interleaved else (slice(4), slice(4, 8))
    turned = (x[..., first] + 1j * x[..., second]) * np.exp(1j * angle)[:, None]
    np.testing.assert_allclose(found[..., first], turned.real, atol=1e-12)
    np.testing.assert_allclose(found[..., second], turned.imag, atol=1e-12)
    np.testing.assert_array_equal(found[..., 8], x[..., 8])
