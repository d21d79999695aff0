"""Int4 weights with a scale per group of 32, unpacked in the tile: a matrix-vector product."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from irc.ir.core import Builder
from irc.ir.dims import sym
from irc.ir.kernel_builder import KernelBuilder
from irc.ir.ops.core import Func, Return, generic
from irc.ir.types import TensorType, f32, i4


def gemv() -> Func:
    """y[N] = sum over groups of scale[N, G] * (w[N, 32 G] . x), eight rows at a time."""
    k = KernelBuilder("gemv", "f32[32*G]", "i4[N, 32*G]", "f32[N, G]", "f32[N]")
    x, w, scale, y = k.args
    n = sym("N")
    with k.loop("t", (n + 7) // 8, "parallel") as t:
        acc, tile = k.alloc("f32[8]", "register"), k.alloc("f32[8, 32]", "register", "tile")
        with k.loop("z", 8) as z:
            k.store(k.const(0.0), acc, z)
        with k.loop("g", sym("G"), reduction=True) as g:
            with k.loop("a", 8) as a, k.loop("b", 32) as b:
                inside = (n - 1 - 8 * t - a,)
                k.store(
                    k.cast(k.load(w, 8 * t + a, 32 * g + b, where=inside, fill=0), to=f32),
                    tile,
                    a,
                    b,
                )
            with k.loop("r", 8) as r:
                part = k.alloc("f32[]", "register")
                k.store(k.const(0.0), part)
                with k.loop("q", 32, reduction=True) as q:
                    k.accumulate(k.mul(k.load(tile, r, q), k.load(x, 32 * g + q)), part)
                factor = k.load(scale, 8 * t + r, g, where=(n - 1 - 8 * t - r,), fill=0.0)
                k.accumulate(k.mul(k.load(part), factor), acc, r)
        with k.loop("s", 8) as s:
            k.store(k.load(acc, s), y, 8 * t + s, where=(n - 1 - 8 * t - s,))
    return k.func


def as_generic() -> Func:
    """The same product as one generic: the scale's index map divides by 32."""
    n, g = sym("N"), sym("G")
    types = [TensorType(f32, (32 * g,)), TensorType(i4, (n, 32 * g)), TensorType(f32, (n, g))]
    func = Func.make("main", types)
    b = Builder(func.body)
    i, q = sym("i"), sym("q")
    y = generic(
        b,
        func.args,
        [("i", n, "parallel"), ("q", 32 * g, "reduction")],
        [[q], [i, q], [i, q // 32]],
        [[i]],
        [TensorType(f32, (n,))],
        lambda b, x, w, s: b.mul(b.mul(x, b.cast(w, to=f32)), s),
        init=(0.0,),
        combine=lambda b, acc, e: b.add(acc, e),
    )
    b.emit(Return, y)
    return func


@pytest.mark.parametrize(("n", "groups"), [(8, 1), (13, 3), (1, 2)])
def test_gemv(
    n: int, groups: int, check: Callable[..., None], check_func: Callable[..., None]
) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(32 * groups).astype(np.float32)
    w = rng.integers(-8, 8, (n, 32 * groups)).astype(ml_dtypes.int4)
    scale = rng.uniform(0.1, 1, (n, groups)).astype(np.float32)
    want = (w.astype(np.float32) * np.repeat(scale, 32, axis=1)) @ x
    check(gemv(), [x, w, scale], [want], rtol=1e-4, atol=1e-4)
    check_func(as_generic(), [x, w, scale], [want], rtol=1e-4, atol=1e-4)
