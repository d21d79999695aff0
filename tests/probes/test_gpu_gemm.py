"""A GPU GEMM: shared memory filled by asynchronous copies, and an mma on fragments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from irc.ir.core import Op
from irc.ir.dims import Dim, DimLike, substitute, sym
from irc.ir.errors import Error
from irc.ir.interpret_loops import run_kernel
from irc.ir.kernel_builder import KernelBuilder
from irc.ir.ops.core import Func
from irc.ir.ops.instr import FRAGMENTS
from irc.ir.ops.loop import AsyncCopy, Barrier, Commit, Wait
from irc.passes.schedule.hardware import Pipeline


def fetch(k: KernelBuilder, shared: Any, block: Any, warp: Dim, step: DimLike) -> None:
    """Each lane copies four elements of x, and in two of the warps four of w."""
    x, w, _ = k.args
    with k.loop("cl", 32, "gpu.lane") as lane:
        thread = 32 * warp + lane
        row, column = thread // 4, 4 * (thread % 4)
        to = {"target_index": (row, column), "count": 4}
        at = (32 * block[0] + row, 16 * step + column)
        k.emit(AsyncCopy, x, shared[0], source_index=at, **to)
        with k.guard(63 - thread):
            at = (16 * step + row, 16 * block[1] + column)
            k.emit(AsyncCopy, w, shared[1], source_index=at, **to)
        k.emit(Commit)


def gemm(stages: int = 2) -> Func:
    """y[M, N] = x @ w in f16 with f32 sums; blocks of 32 x 16, four warps of 16 x 8.

    The copies run `stages - 1` steps of the sum ahead.
    """
    k = KernelBuilder("gemm", "f16[32*I, 16*T]", "f16[16*T, 16*J]", "f32[32*I, 16*J]")
    y = k.args[2]
    c_map = FRAGMENTS["m16n8k16.c"]
    with k.loop("bi", sym("I"), "gpu.block") as bi, k.loop("bj", sym("J"), "gpu.block") as bj:
        xs, ws = (
            k.alloc("f16[32, 16]", "shared", "xs"),
            k.alloc("f16[16, 16]", "shared", "ws"),
        )
        with k.loop("warp", 4, "gpu.warp") as warp:
            c = k.alloc("f32[16, 8]", "fragment.m16n8k16.c", "c")

            with k.loop("zl", 32, "gpu.lane") as lane, k.loop("s", c_map.slots, "unroll") as slot:
                at = {"l": lane, "s": slot}
                k.store(k.const(0.0), c, *place(at))
            with k.loop("t", sym("T"), reduction=True) as t:
                fetch(k, (xs, ws), (bi, bj), warp, t)
                with k.loop("wl", 32, "gpu.lane"):
                    k.emit(Wait, pending=0)
                k.emit(Barrier)
                a, b = (
                    k.alloc("f16[16, 16]", "fragment.m16n8k16.a", "a"),
                    k.alloc("f16[16, 8]", "fragment.m16n8k16.b", "b"),
                )
                k.instr("nv.ldmatrix.a.f16", (xs, (16 * (warp // 2), 0)), (a, ()))
                k.instr("nv.ldmatrix.b.f16", (ws, (0, 8 * (warp % 2))), (b, ()))
                k.instr("nv.mma.m16n8k16.f16", (c, ()), (a, ()), (b, ()))
                k.emit(Barrier)
            with k.loop("yl", 32, "gpu.lane") as lane, k.loop("u", c_map.slots, "unroll") as slot:
                row, column = place({"l": lane, "s": slot})
                value = k.load(c, row, column)
                k.store(
                    value, y, 32 * bi + 16 * (warp // 2) + row, 16 * bj + 8 * (warp % 2) + column
                )
    if stages > 1:
        Pipeline("t", stages).apply(k.func)
    return k.func


def place(at: dict) -> tuple:
    """(row, column) of a lane's slot of the accumulators."""
    c = FRAGMENTS["m16n8k16.c"]
    return substitute(c.row, at), substitute(c.column, at)


def data(i: int, j: int, t: int) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float16) for s in ((32 * i, 16 * t), (16 * t, 16 * j)))
    return [x, w], x.astype(np.float32) @ w.astype(np.float32)


@pytest.mark.parametrize(
    ("i", "j", "t", "stages"), [(1, 1, 1, 2), (2, 1, 3, 2), (1, 1, 4, 3), (1, 1, 2, 1)]
)
def test_gemm(i: int, j: int, t: int, stages: int, check: Callable[..., None]) -> None:
    inputs, want = data(i, j, t)
    check(gemm(stages), inputs, [want], targets=(), seeds=1, rtol=1e-3, atol=1e-3)


def _only(func: Func, kind: type[Op], number: int) -> Op:
    return [op for op in func.walk() if isinstance(op, kind)][number]


@pytest.mark.parametrize("fault", ["first barrier", "second barrier", "wait", "owner"])
def test_planted_faults(fault: str) -> None:
    func = gemm()
    if fault.endswith("barrier"):
        _only(func, Barrier, 0 if fault.startswith("first") else 1).erase()
    elif fault == "wait":
        _only(func, Wait, 0).set_attr("pending", 2)
    else:
        store = [op for op in func.walk() if op.name == "loop.load" and op.source.name == "c"][0]
        store.set_attr("index", (store.index[0], store.index[1] + 2 - 4 * (store.index[1] // 4)))
    inputs, want = data(1, 1, 3)
    with pytest.raises(Error, match="E051[0234]"):
        run_kernel(func, [*inputs, np.empty_like(want)])
