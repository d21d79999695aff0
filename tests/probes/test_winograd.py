"""Winograd F(2,3): a convolution as two transforms, a batched contraction and a third transform."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

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


Reads = list[tuple[Value, list[Any]]]


def contract(b: Builder, reads: Reads, out: str, extents: dict[str, Any], padded: bool) -> Value:
    """The product of the operands at their maps, summed over the symbols not in `out`."""
    kinds = [(v, extents[v], "parallel") for v in out]
    kinds += [(v, e, "reduction") for v, e in extents.items() if v not in out]
    return generic(
        b,
        [value for value, _ in reads],
        kinds,
        [at for _, at in reads],
        [[sym(v) for v in out]],
        [TensorType(f32, tuple([extents[v] for v in out]))],
        lambda b, *xs: reduce(b.mul, xs),
        init=(0.0,),
        combine=lambda b, acc, x: b.add(acc, x),
        fills=[None] * (len(reads) - 1) + [0.0 if padded else None],
    )


def winograd(c: int, k: int, h: int, w: int) -> Func:
    """x[N, C, H, W] and w[K, C, 3, 3] to y[N, K, H-2, W-2], for any N."""
    n = sym("N")
    func = Func.make("main", [TensorType(f32, (n, c, h, w)), TensorType(f32, (k, c, 3, 3))])
    b = Builder(func.body)
    x, weight = func.args
    bt, g, at = (b.insert(Const(m)).result for m in (BT, G, AT))
    tile = {"a": 4, "b": 4}
    tiles = {"n": n, "i": ceildiv(h - 2, 2), "j": ceildiv(w - 2, 2)}
    A, B, R, S, K, C, N, I, J, P, Q = (sym(v) for v in "abrskcnijpq")

    left, right = (g, [A, R]), (g, [B, S])
    sizes = {**tile, "k": k, "c": c, "r": 3, "s": 3}
    u = contract(b, [left, right, (weight, [K, C, R, S])], "abkc", sizes, False)
    left, right = (bt, [A, R]), (bt, [B, S])
    sizes = {**tile, "c": c, **tiles, "r": 4, "s": 4}
    v = contract(b, [left, right, (x, [N, C, 2 * I + R, 2 * J + S])], "abcnij", sizes, True)
    sizes = {**tile, "k": k, **tiles, "c": c}
    m = contract(b, [(u, [A, B, K, C]), (v, [A, B, C, N, I, J])], "abknij", sizes, False)
    left, right = (at, [P % 2, A]), (at, [Q % 2, B])
    sizes = {"n": n, "k": k, "p": h - 2, "q": w - 2, **tile}
    y = contract(b, [left, right, (m, [A, B, K, N, P // 2, Q // 2])], "nkpq", sizes, False)
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
