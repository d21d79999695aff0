"""Winograd F(2,3): a convolution as two transforms, a batched contraction and a third transform."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from irc.ir.core import Builder, Value
from irc.ir.dims import ceildiv, sym
from irc.ir.ops.core import Const, Func, Return, generic
from irc.ir.types import TensorType, f32

# Lavin and Gray 2015, section 4.1.
BT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float32)
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
AT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32)


def winograd(c: int, k: int, h: int, w: int) -> Func:
    """x[N, C, H, W] and w[K, C, 3, 3] to y[N, K, H-2, W-2], for any N."""
    n = sym("N")
    func = Func.make("main", [TensorType(f32, (n, c, h, w)), TensorType(f32, (k, c, 3, 3))])
    b = Builder(func.body)
    x, weight = func.args
    bt, g, at = (b.insert(Const(m)).result for m in (BT, G, AT))
    th, tw = ceildiv(h - 2, 2), ceildiv(w - 2, 2)
    a_, b_, r, s = (sym(name) for name in "abrs")
    its = {"a": 4, "b": 4, "r": 3, "s": 3, "c": c, "k": k, "n": n, "i": th, "j": tw}

    def three(
        x: Value,
        left: Value,
        xmap: list,
        lmap: list,
        rmap: list,
        order: str,
        reduce: str,
        shape: list,
        out: list,
        fill: float | None = None,
        **extents: int,
    ) -> Value:
        """Sum over `reduce` of left[lmap] * left[rmap] * x[xmap]."""
        kinds = [
            (v, {**its, **extents}[v], "reduction" if v in reduce else "parallel")
            for v in order + reduce
        ]
        return generic(
            b,
            [left, left, x],
            kinds,
            [lmap, rmap, xmap],
            [out],
            [TensorType(f32, tuple(shape))],
            lambda b, p, q, e: b.mul(b.mul(p, q), e),
            init=(0.0,),
            combine=lambda b, acc, e: b.add(acc, e),
            fills=(None, None, fill),
        )

    kk, cc, nn, i, j, p, q = (sym(v) for v in "kcnijpq")
    u = three(
        weight, g, [kk, cc, r, s], [a_, r], [b_, s], "abkc", "rs", [4, 4, k, c], [a_, b_, kk, cc]
    )
    v = three(
        x,
        bt,
        [nn, cc, i * 2 + r, j * 2 + s],
        [a_, r],
        [b_, s],
        "abncij",
        "rs",
        [4, 4, n, c, th, tw],
        [a_, b_, nn, cc, i, j],
        fill=0.0,
        r=4,
        s=4,
    )
    m = generic(
        b,
        [u, v],
        [(v_, its[v_], "reduction" if v_ == "c" else "parallel") for v_ in "abknijc"],
        [[a_, b_, kk, cc], [a_, b_, nn, cc, i, j]],
        [[a_, b_, kk, nn, i, j]],
        [TensorType(f32, (4, 4, k, n, th, tw))],
        lambda b, e, f: b.mul(e, f),
        init=(0.0,),
        combine=lambda b, acc, e: b.add(acc, e),
    )
    y = three(
        m,
        at,
        [a_, b_, kk, nn, p // 2, q // 2],
        [p % 2, a_],
        [q % 2, b_],
        "nkpq",
        "ab",
        [n, k, h - 2, w - 2],
        [nn, kk, p, q],
        p=h - 2,
        q=w - 2,
    )
    b.emit(Return, y)
    return func


@pytest.mark.parametrize(
    ("n", "c", "k", "h", "w"), [(1, 2, 3, 6, 8), (2, 3, 2, 7, 5), (1, 1, 1, 3, 4)]
)
def test_winograd(n: int, c: int, k: int, h: int, w: int, check_func: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, c, h, w)).astype(np.float32)
    weight = rng.standard_normal((k, c, 3, 3)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
    check_func(
        winograd(c, k, h, w),
        [x, weight],
        [np.einsum("ncijrs,kcrs->nkij", windows, weight)],
        atol=1e-4,
    )
