"""Threads, barriers, asynchronous copies and streams in the loop interpreter, faults planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc.ir.core import Builder, Value
from irc.ir.dims import DimLike, sym
from irc.ir.errors import Error
from irc.ir.interpret_loops import run_kernel
from irc.ir.ops import loop
from irc.ir.ops.core import Const, Func
from irc.ir.types import BufferType, DType, f32

S = sym


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def kernel(*shapes: tuple[DimLike, ...]) -> tuple[Func, Builder]:
    types = [BufferType(f32, s) for s in shapes]
    func = Func.make("k", types, [f"a{k}" for k in range(len(shapes))], "kernel", ["y"])
    return func, Builder(func.body)


def for_(b: Builder, var: str, extent: DimLike, kind: str = "serial") -> Builder:
    return b.at(b.insert(loop.For.make(var, extent, kind)).body)


def load(b: Builder, buffer: Value, *index: DimLike) -> Value:
    return b.emit(loop.Load, buffer, index=index)


def store(b: Builder, value: Value, buffer: Value, *index: DimLike, **attrs: Any) -> None:
    b.emit(loop.Store, value, buffer, index=index, **attrs)


def alloc(
    b: Builder, shape: tuple[DimLike, ...], space: str, dtype: DType = f32, label: str = "t"
) -> Value:
    return b.insert(loop.Alloc(label=label, type=BufferType(dtype, shape, space))).result


def reverse_kernel(fault: str = "") -> Func:
    """Each block of 64 threads reverses a row through shared memory, twice over."""
    func, b = kernel((3, 64), (3, 64))
    x, y = func.args
    b = for_(b, "row", 3, "gpu.block")
    shared = alloc(b, (64,), "shared", label="shared")
    t = for_(b, "t", 64, "gpu.thread")
    store(t, load(t, x, S("row"), S("t")), shared, S("t"))
    if fault == "divergent":
        guard = t.insert(loop.If(where=(S("t") - 1,), regions=[type(t.block)()]))
        t.at(guard.body).emit(loop.Barrier)
    elif fault != "missing":
        t.emit(loop.Barrier)
    value = load(t, shared, 63 - S("t"))
    if fault != "missing second":
        t.emit(loop.Barrier)
    store(t, value, shared, S("t"))
    if fault == "warp only":
        t.emit(loop.Barrier, scope="warp")
    else:
        t.emit(loop.Barrier)
    store(t, load(t, shared, 63 - S("t")), y, S("row"), S("t"))
    return func


@pytest.mark.parametrize("seed", range(3))
def test_barriers_keep_threads_in_step(seed: int) -> None:
    x, y = floats(3, 64), np.empty((3, 64), np.float32)
    assert run_kernel(reverse_kernel(), [x, y], seed=seed) == 0
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(
    ("fault", "code"),
    [("missing", "E0513|E0512"), ("missing second", "E0513"), ("divergent", "E0513")],
)
def test_barrier_faults(fault: str, code: str) -> None:
    with pytest.raises(Error, match=code):
        run_kernel(reverse_kernel(fault), [floats(3, 64), np.empty((3, 64), np.float32)])


def test_divergent_barrier() -> None:
    func, b = kernel((64,), (64,))
    x, y = func.args
    t = for_(for_(b, "block", 1, "gpu.block"), "t", 64, "gpu.thread")
    guard = t.insert(loop.If(where=(S("t") - 1,), regions=[type(t.block)()]))
    t.at(guard.body).emit(loop.Barrier)
    store(t, load(t, x, S("t")), y, S("t"))
    with pytest.raises(Error, match=r"E0514[\s\S]*63 threads at op 'loop.barrier'"):
        run_kernel(func, [floats(64), np.empty(64, np.float32)])


def test_blocks_may_not_meet() -> None:
    func, b = kernel((4,), (4,))
    x, y = func.args
    b = for_(b, "block", 4, "gpu.block")
    t = for_(b, "t", 2, "gpu.thread")
    store(t, load(t, x, S("t")), y, S("t"))
    with pytest.raises(Error, match="E0513"):
        run_kernel(func, [floats(4), np.empty(4, np.float32)])


def fissioned(barrier: bool) -> Func:
    """Two thread loops side by side: the second reads what other threads wrote in the first."""
    func, b = kernel((32,), (32,))
    x, y = func.args
    b = for_(b, "block", 1, "gpu.block")
    shared = alloc(b, (32,), "shared")
    t = for_(b, "t", 32, "gpu.thread")
    store(t, load(t, x, S("t")), shared, S("t"))
    if barrier:
        b.emit(loop.Barrier)
    t = for_(b, "u", 32, "gpu.thread")
    store(t, load(t, shared, (S("u") + 1) % 32), y, S("u"))
    return func


def test_barrier_between_thread_loops() -> None:
    x, y = floats(32), np.empty(32, np.float32)
    run_kernel(fissioned(True), [x, y])
    np.testing.assert_array_equal(y, np.roll(x, -1))
    with pytest.raises(Error, match="E0513"):
        run_kernel(fissioned(False), [x, y])


def warps(scope: str) -> Func:
    """Lanes exchange within a warp (partner = 1) and, with scope "block", so do nested loops."""
    func, b = kernel((2, 32), (2, 32))
    x, y = func.args
    b = for_(b, "block", 1, "gpu.block")
    shared = alloc(b, (2, 32), "shared")
    w = for_(b, "w", 2, "gpu.warp")
    lane = for_(w, "l", 32, "gpu.lane")
    store(lane, load(lane, x, S("w"), S("l")), shared, S("w"), S("l"))
    lane.emit(loop.Barrier, scope="warp" if scope == "wrong" else scope)
    other = 1 - S("w") if scope != "warp" else S("w")
    store(lane, load(lane, shared, other, 31 - S("l")), y, S("w"), S("l"))
    return func


def test_warp_and_block_barriers_of_nested_loops() -> None:
    x, y = floats(2, 32), np.empty((2, 32), np.float32)
    run_kernel(warps("warp"), [x, y])
    np.testing.assert_array_equal(y, x[:, ::-1])
    run_kernel(warps("block"), [x, y])
    np.testing.assert_array_equal(y, x[::-1, ::-1])
    with pytest.raises(Error, match="E0513|E0512"):
        run_kernel(warps("wrong"), [x, y])


def copying(fault: str = "") -> Func:
    """Double-buffered copies of rows of 16 into shared memory, four elements a thread."""
    func, b = kernel((6, 16), (6, 16))
    x, y = func.args
    b = for_(b, "block", 1, "gpu.block")
    stages = alloc(b, (2, 16), "shared", label="stages")
    t = for_(b, "t", 4, "gpu.thread")

    def fetch(b: Builder, row: DimLike) -> None:
        b.emit(
            loop.AsyncCopy,
            x,
            stages,
            source_index=(row, S("t") * 4),
            target_index=(row % 2, S("t") * 4),
            count=4,
        )

    fetch(t, 0)
    t.emit(loop.Commit)
    c = for_(t, "row", 6)
    more = c.insert(loop.If(where=(4 - S("row"),), regions=[type(c.block)()]))
    fetch(c.at(more.body), S("row") + 1)
    c.emit(loop.Commit)
    if fault != "no wait":
        c.emit(loop.Wait, pending=2 if fault == "late" else 1)
    if fault != "no barrier":
        c.emit(loop.Barrier)
    e = for_(c, "e", 4)
    at = S("e") * 4 + S("t")
    store(e, load(e, stages, S("row") % 2, at), y, S("row"), at)
    if fault != "no second barrier":
        c.emit(loop.Barrier)
    return func


def test_double_buffered_copies() -> None:
    x, y = floats(6, 16), np.empty((6, 16), np.float32)
    for seed in range(3):
        run_kernel(copying(), [x, y], seed=seed)
        np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("no wait", "E0512.*asynchronous"),
        ("late", "E0512.*asynchronous"),
        ("no barrier", "E0513|E0512"),
        ("no second barrier", "E0513|E0512"),
    ],
)
def test_copy_faults(fault: str, code: str) -> None:
    with pytest.raises(Error, match=code):
        run_kernel(copying(fault), [floats(6, 16), np.empty((6, 16), np.float32)])


@pytest.mark.parametrize("what", ["source", "target"])
def test_memory_of_a_copy_under_way_stays_untouched(what: str) -> None:
    func, b = kernel((8,), (8,))
    x, y = func.args
    b.emit(loop.AsyncCopy, x, y, source_index=(0,), target_index=(0,), count=8)
    store(b, b.insert(Const(9.0, f32)).result, x if what == "source" else y, 3)
    b.emit(loop.Commit)
    b.emit(loop.Wait)
    with pytest.raises(Error, match=f"E0514.*'{'a0' if what == 'source' else 'a1'}'"):
        run_kernel(func, [floats(8), np.empty(8, np.float32)])


def dataflow(depth: int, take: int = 9, order: str = "ab") -> Func:
    """A producer sends pairs in two streams; the consumer takes all of one stream first."""
    func, b = kernel((9,), (9,))
    x, y = func.args
    left, right = (alloc(b, (depth,), "stream", label=name) for name in ("left", "right"))

    def produce() -> None:
        p = b.insert(loop.Process(label="produce", regions=[type(b.block)()]))
        c = for_(b.at(p.body), "i", 9)
        c.emit(loop.Push, load(c, x, S("i")), left)
        c.emit(loop.Push, c.mul(load(c, x, S("i")), load(c, x, S("i"))), right)

    def consume() -> None:
        p = b.insert(loop.Process(label="consume", regions=[type(b.block)()]))
        inside = b.at(p.body)
        t = alloc(inside, (9,), "stack")
        c = for_(inside, "j", 9)
        store(c, c.emit(loop.Pop, left), t, S("j"))
        c = for_(inside, "q", take)
        store(c, c.add(load(c, t, S("q")), c.emit(loop.Pop, right)), y, S("q"))

    for step in order:
        produce() if step == "a" else consume()
    return func


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_processes_meet_in_streams(order: str) -> None:
    x, y = floats(9), np.empty(9, np.float32)
    run_kernel(dataflow(9, order=order), [x, y])
    np.testing.assert_array_equal(y, x + x * x)


def test_shallow_stream_deadlocks_and_leftovers_are_errors() -> None:
    x, y = floats(9), np.empty(9, np.float32)
    with pytest.raises(
        Error, match=r"E0515[\s\S]*waits to push into 'right'[\s\S]*waits to pop from 'left'"
    ):
        run_kernel(dataflow(4), [x, y])
    with pytest.raises(Error, match="E0515.*'right' ends with 2 elements"):
        run_kernel(dataflow(9, take=7), [x, y])


def test_processes_may_not_meet_in_memory() -> None:
    func, b = kernel((4,), (4,))
    x, y = func.args
    for number, index in enumerate((0, 3)):
        p = b.insert(loop.Process(label=f"p{number}", regions=[type(b.block)()]))
        c = for_(b.at(p.body), f"i{number}", 4)
        store(c, load(c, x, index), y, S(f"i{number}"))
    with pytest.raises(Error, match="E0513"):
        run_kernel(func, [floats(4), np.empty(4, np.float32)])


def test_stream_without_a_partner() -> None:
    func, b = kernel((4,), (4,))
    stream = alloc(b, (1,), "stream", label="s")
    store(b, b.emit(loop.Pop, stream), func.args[1], 0)
    with pytest.raises(Error, match="E0515.*pop from 's'"):
        run_kernel(func, [floats(4), np.empty(4, np.float32)])
