"""A line-buffer convolution that feeds a pooling process through a FIFO."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from irc.ir.errors import Error
from irc.ir.interpret_loops import run_kernel
from irc.ir.kernel_builder import KernelBuilder
from irc.ir.ops.core import Func
from irc.ir.ops.loop import Pop, Push
from irc.ir.types import i16, i32


def conv_pool(h: int, w: int, depth: int = 2) -> Func:
    """x i16[h, w] -> 3x3 convolution, relu -> 2x2 max pool -> i32; pixels pass one by one."""
    rows, columns = (h - 2) // 2, (w - 2) // 2
    k = KernelBuilder("conv_pool", f"i16[{h}, {w}]", "i16[3, 3]", f"i32[{rows}, {columns}]")
    x, weight, y = k.args
    pixels, sums = (
        k.alloc(f"i16[{depth}]", "stream", "pixels"),
        k.alloc(f"i32[{depth}]", "stream", "sums"),
    )
    with k.process("read"):
        with k.loop("ri", h) as i, k.loop("rj", w) as j:
            k.emit(Push, k.load(x, i, j), pixels)
    with k.process("conv"):
        lines, window = (
            k.alloc(f"i16[2, {w}]", "bram", "lines"),
            k.alloc("i16[3, 3]", "register", "window"),
        )
        with k.loop("zi", 2) as i, k.loop("zj", w) as j:
            k.store(k.const(0, i16), lines, i, j)
        with k.loop("zr", 3) as i, k.loop("zs", 3) as j:
            k.store(k.const(0, i16), window, i, j)
        with k.loop("ci", h) as i, k.loop("cj", w, "pipeline") as j:
            with k.loop("r", 3, "unroll") as r, k.loop("s", 2, "unroll") as s:
                k.store(k.load(window, r, s + 1), window, r, s)  # the window moves right
            fresh = k.emit(Pop, pixels)
            k.store(k.load(lines, 0, j), window, 0, 2)
            k.store(k.load(lines, 1, j), window, 1, 2)
            k.store(fresh, window, 2, 2)
            k.store(k.load(lines, 1, j), lines, 0, j)  # the lines move up
            k.store(fresh, lines, 1, j)
            with k.guard(i - 2, j - 2):
                acc = k.alloc("i32[]", "register", "acc")
                k.store(k.const(0, i32), acc)
                with (
                    k.loop("p", 3, "unroll", reduction=True) as p,
                    k.loop("q", 3, "unroll", reduction=True) as q,
                ):
                    product = k.mul(
                        k.cast(k.load(window, p, q), to=i32), k.cast(k.load(weight, p, q), to=i32)
                    )
                    k.accumulate(product, acc)
                k.emit(Push, k.max(k.load(acc), k.const(0, i32)), sums)
    with k.process("pool"):
        best = k.alloc(f"i32[{w - 2}]", "bram", "best")
        with k.loop("pi", h - 2) as i, k.loop("pj", w - 2, "pipeline") as j:
            value = k.emit(Pop, sums)
            zero = k.const(0, i32)
            above = k.load(best, j // 2, where=(i % 2 - 1,), fill=0)  # the even row's maximum
            left = k.load(best, j // 2, where=(j % 2 - 1,), fill=0)
            k.store(k.max(value, k.max(k.max(above, left), zero)), best, j // 2)
            with k.guard(i % 2 - 1, j % 2 - 1, 2 * rows - 1 - i, 2 * columns - 1 - j):
                k.store(k.load(best, j // 2), y, i // 2, j // 2)
    return k.func


@pytest.mark.parametrize(("h", "w"), [(4, 4), (7, 9), (8, 6), (6, 11)])
def test_conv_feeds_pool(h: int, w: int, check: Callable[..., None]) -> None:
    rng = np.random.default_rng(h * w)
    x, weight = (
        rng.integers(-90, 90, (h, w)).astype(np.int16),
        rng.integers(-9, 9, (3, 3)).astype(np.int16),
    )
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.int32), (3, 3))
    sums = np.maximum(np.einsum("ijrs,rs->ij", windows, weight.astype(np.int32)), 0)
    rows, columns = (h - 2) // 2, (w - 2) // 2
    want = sums[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).max((1, 3)).astype(np.int32)
    check(conv_pool(h, w), [x, weight], [want], targets=("hls",))


def test_a_stream_nobody_empties_is_found() -> None:
    """A planted fault: the pool takes one element too few."""
    func = conv_pool(6, 6)
    pool = [op for op in func.walk() if op.name == "loop.for" and op.var == "pi"][0]
    pool.set_attr("extent", 3)
    args = [np.ones((6, 6), np.int16), np.ones((3, 3), np.int16), np.empty((2, 2), np.int32)]
    with pytest.raises(Error, match="E0515"):
        run_kernel(func, args)
