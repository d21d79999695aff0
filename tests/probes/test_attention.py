"""Attention with online softmax in one loop nest, batch and length symbolic; and as one generic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from irc.ir.core import Builder
from irc.ir.dims import sym
from irc.ir.kernel_builder import KernelBuilder
from irc.ir.ops.core import Const, Func, Return, generic
from irc.ir.types import TensorType, f32

D = 8


def flash(causal: bool) -> Func:
    """q, k, v of [B, L, 8] to [B, L, 8]: running maximum and sum."""
    shape = "f32[B, L, 8]"
    k = KernelBuilder("flash", shape, shape, shape, shape)
    q_, k_, v_, out = k.args
    length = sym("L")
    with k.loop("b", sym("B"), "parallel") as b, k.loop("i", length, "parallel") as i:
        top, total, acc = (
            k.alloc("f32[]", "register"),
            k.alloc("f32[]", "register"),
            k.alloc("f32[8]", "register"),
        )
        k.store(k.const(-np.inf), top)
        k.store(k.const(0.0), total)
        with k.loop("z", D) as z:
            k.store(k.const(0.0), acc, z)
        with k.loop("j", i + 1 if causal else length, reduction=True) as j:
            dot = k.alloc("f32[]", "register")
            k.store(k.const(0.0), dot)
            with k.loop("d", D, reduction=True) as d:
                k.accumulate(k.mul(k.load(q_, b, i, d), k.load(k_, b, j, d)), dot)
            score = k.mul(k.load(dot), k.const(D**-0.5))
            peak = k.max(k.load(top), score)
            weight, shrink = k.exp(k.sub(score, peak)), k.exp(k.sub(k.load(top), peak))
            k.store(peak, top)
            k.store(k.add(k.mul(k.load(total), shrink), weight), total)
            with k.loop("e", D) as e:
                k.store(
                    k.add(k.mul(k.load(acc, e), shrink), k.mul(weight, k.load(v_, b, j, e))), acc, e
                )
        with k.loop("y", D) as y:
            k.store(k.div(k.load(acc, y), k.load(total)), out, b, i, y)
    return k.func


def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool) -> np.ndarray:
    s = np.einsum("bid,bjd->bij", q, k).astype(np.float64) / np.sqrt(D)
    if causal:
        s = np.where(np.tril(np.ones(s.shape[1:], bool)), s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    return (p / p.sum(-1, keepdims=True) @ v).astype(np.float32)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 7), (1, 13)])
def test_one_nest(batch: int, length: int, causal: bool, check: Callable[..., None]) -> None:
    q, k, v = np.random.default_rng(0).standard_normal((3, batch, length, D)).astype(np.float32) * 3
    check(flash(causal), [q, k, v], [reference(q, k, v, causal)])


def test_online_softmax_is_a_combiner(check_func: Callable[..., None]) -> None:
    """The same recurrence as a generic: accumulators (maximum, sum, value)."""
    n, m = sym("N"), sym("M")
    func = Func.make("main", [TensorType(f32, (n, m)), TensorType(f32, (m, D))])
    b = Builder(func.body)
    i, j, d = sym("i"), sym("j"), sym("d")

    def merge(b: Builder, *a: object) -> list[object]:
        (m1, s1, v1), (m2, s2, v2) = a[:3], a[3:]
        peak = b.max(m1, m2)
        f1, f2 = b.exp(b.sub(m1, peak)), b.exp(b.sub(m2, peak))
        return [peak, b.add(b.mul(s1, f1), b.mul(s2, f2)), b.add(b.mul(v1, f1), b.mul(v2, f2))]

    y = generic(
        b,
        func.args,
        [("i", n, "parallel"), ("d", D, "parallel"), ("j", m, "reduction")],
        [[i, j], [j, d]],
        [[i, d]],
        [TensorType(f32, (n, D))],
        lambda b, s, v: [s, b.insert(Const(1.0, f32)).result, v],
        init=(-np.inf, 0.0, 0.0),
        combine=merge,
        finish=lambda b, peak, total, value: b.div(value, total),
    )
    b.emit(Return, y)
    rng = np.random.default_rng(1)
    s, v = (
        rng.standard_normal((5, 9)).astype(np.float32),
        rng.standard_normal((9, D)).astype(np.float32),
    )
    p = np.exp(s - s.max(1, keepdims=True))
    check_func(func, [s, v], [p / p.sum(1, keepdims=True) @ v])
