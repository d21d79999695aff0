"""Tensorize, Pipeline and Bind: the same values, in the strict interpreter; refusals."""

from __future__ import annotations

import random
from contextlib import nullcontext

import numpy as np
import pytest

from irc.ir.dims import sym
from irc.ir.errors import Error
from irc.ir.interpret_loops import run_kernel
from irc.ir.kernel_builder import KernelBuilder
from irc.ir.ops.instr import define
from irc.ir.ops.loop import AsyncCopy, Barrier, CallInstr, Commit, For, Load, Store, Wait
from irc.ir.types import f32, i32, u8
from irc.ir.verify import verify
from irc.passes.schedule import tensorize
from irc.passes.schedule.hardware import Bind, Pipeline
from irc.passes.schedule.memory import Place, Stage
from irc.passes.schedule.nests import Refused
from irc.passes.schedule.steps import Collapse, Mark, Tile, apply_steps
from irc.passes.schedule.tensorize import Tensorize

# Tensorize ---------------------------------------------------------------------------------------


def dot(x="u8", w="i8", lanes=16, swapped=False, fault="", reduction=True):
    """y[M, lanes J] = x[M, 4 Q] @ w, with w packed as [J, Q, lanes, 4]; or a little beside it."""
    row = 8 if fault == "gaps" else 4
    k = KernelBuilder("dot", f"{x}[M, 4*Q]", f"{w}[J, Q, {lanes}, {row}]", f"i32[M, {lanes}*J]")
    a, b, y = k.args
    wide = lambda value: k.cast(value, to=i32)  # noqa: E731
    with k.loop("i", sym("M")) as i, k.loop("j", sym("J")) as j:
        acc = k.alloc(f"i32[{lanes}]", "register", "acc")
        old = k.alloc(f"i32[{lanes}]", "register", "old") if fault == "other" else acc
        with k.loop("z", lanes) as z:
            k.store(k.const(0, i32), acc, z)
        with k.loop("q", sym("Q"), reduction=True) as q:
            outer, inner = (("g", 4), ("l", lanes)) if swapped else (("l", lanes), ("g", 4))
            with k.loop(*outer, reduction=reduction) as u, k.loop(*inner, reduction=reduction) as v:
                l, g = (v, u) if swapped else (u, v)
                depth = 2 * g if fault == "stride" else 4 * q + g
                product = k.mul(wide(k.load(b, j, q, l, g)), wide(k.load(a, i, depth)))
                if fault == "more":
                    product = k.add(product, k.const(1, i32))
                if fault == "dead":
                    k.sub(product, product)
                k.store(k.add(product, k.load(old, l)), acc, l)
        with k.loop("s", lanes) as s:
            k.store(k.load(acc, s), y, i, lanes * j + s)
    return k.func


def data(func, m, q, j, lanes):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (m, 4 * q)).astype(func.args[0].buffer.dtype.np)
    w = rng.integers(-128, 127, (j, q, lanes, 4)).astype(np.int8)
    flat = w.transpose(1, 3, 0, 2).reshape(4 * q, j * lanes)
    return [x, w], x.astype(np.int32) @ flat.astype(np.int32)


def calls(func):
    return [op.instr for op in func.walk() if isinstance(op, CallInstr)]


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_dot_product_becomes_vnni(lanes, swapped):
    name = f"x86.dpbusd.{32 * lanes}"
    func = dot(lanes=lanes, swapped=swapped)
    made = apply_steps(func, [Tensorize("g" if swapped else "l", name)])
    verify(made)
    assert calls(made) == [name]
    (call,) = [op for op in made.walk() if isinstance(op, CallInstr)]
    assert str(call.index) == str(((0,), (sym("i"), 4 * sym("q")), (sym("j"), sym("q"), 0, 0)))
    for m, q, j in ((1, 1, 1), (3, 2, 2)):
        given, want = data(func, m, q, j, lanes)
        out = np.empty(want.shape, np.int32)
        assert run_kernel(made, [*given, out]) == 0
        np.testing.assert_array_equal(out, want)


def test_lanes_come_from_tiling():
    """A plain dot product over K, its output tiled by 16 and its depth by 4."""
    k = KernelBuilder("plain", "u8[M, K]", "i8[K // 4, 16, 4]", "i32[M, 16]")
    x, w, y = k.args
    with k.loop("i", sym("M")) as i:
        with k.loop("z", 16) as z:
            k.store(k.const(0, i32), y, i, z)
        with k.loop("q", sym("K") // 4, reduction=True) as q:
            with k.loop("n", 16) as n, k.loop("g", 4, reduction=True) as g:
                a, b = k.load(x, i, 4 * q + g), k.load(w, q, n, g)
                k.accumulate(k.mul(k.cast(a, to=i32), k.cast(b, to=i32)), y, i, n)
    made = apply_steps(k.func, [Tensorize("n", "x86.dpbusd.512")])
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 256, (2, 12), np.uint8), rng.integers(-128, 128, (3, 16, 4), np.int8)
    out = np.empty((2, 16), np.int32)
    assert run_kernel(made, [a, b, out]) == 0
    want = a.astype(np.int32) @ b.transpose(0, 2, 1).reshape(12, 16).astype(np.int32)
    np.testing.assert_array_equal(out, want)


def tiles(a="i8"):
    """y = x @ w as loops over blocks of 16 x 16 x 64; w in rows of 16 groups of 4."""
    k = KernelBuilder("tiles", f"{a}[16*I, 64*T]", "i8[J, 16*T, 64]", "i32[16*I, 16*J]")
    x, w, y = k.args
    with k.loop("it", sym("I")) as it, k.loop("jt", sym("J")) as jt:
        acc = k.alloc("i32[16, 16]", "stack", "acc")
        with k.loop("zi", 16) as i, k.loop("zj", 16) as j:
            k.store(k.const(0, i32), acc, i, j)
        with k.loop("kt", sym("T"), reduction=True) as kt:
            with (
                k.loop("i", 16) as i,
                k.loop("j", 16) as j,
                k.loop("q", 16, reduction=True) as q,
                k.loop("g", 4, reduction=True) as g,
            ):
                one = k.cast(k.load(x, 16 * it + i, 64 * kt + 4 * q + g), to=i32)
                two = k.cast(k.load(w, jt, 16 * kt + q, 4 * j + g), to=i32)
                k.accumulate(k.mul(one, two), acc, i, j)
        with k.loop("si", 16) as i, k.loop("sj", 16) as j:
            k.store(k.load(acc, i, j), y, 16 * it + i, 16 * jt + j)
    return k.func


AMX = (
    Stage("a0", "kt", "ta", "tile"),
    Stage("a1", "kt", "tb", "tile"),
    Place("acc", "tile"),
    Collapse("q", "g", "k"),
    Tensorize("zi", "x86.tilezero"),
    Tensorize("ta.c0", "x86.tileloadd.i8"),
    Tensorize("tb.c1", "x86.tileloadd.i8"),
    Tensorize("i", "x86.tdpbssd"),
    Tensorize("si", "x86.tilestored"),
)


def test_a_blocked_product_becomes_amx():
    """Stages in tiles, and every nest one instruction; the middle one after a Collapse."""
    made = apply_steps(tiles(), AMX)
    verify(made)
    names = ["tilezero", "tileloadd.i8", "tileloadd.i8", "tdpbssd", "tilestored"]
    assert calls(made) == [f"x86.{name}" for name in names]
    rng = np.random.default_rng(0)
    for i, j, t in ((1, 1, 1), (2, 1, 2)):
        x = rng.integers(-128, 128, (16 * i, 64 * t), np.int8)
        w = rng.integers(-128, 128, (64 * t, 16 * j), np.int8)
        packed = w.reshape(16 * t, 4, j, 16).transpose(2, 0, 3, 1).reshape(j, 16 * t, 64)
        out = np.empty((16 * i, 16 * j), np.int32)
        assert run_kernel(made, [x, np.ascontiguousarray(packed), out]) == 0
        np.testing.assert_array_equal(out, x.astype(np.int32) @ w.astype(np.int32))


def guarded():
    """A copy into a tile whose source has a tail."""
    k = KernelBuilder("guarded", "i8[M, 64]", "i8[16, 64]")
    tile = k.alloc("i8[16, 64]", "tile")
    with k.loop("i", 16) as i, k.loop("j", 64) as j:
        k.store(k.load(k.args[0], i, j, where=(sym("M") - 1 - i,), fill=0), tile, i, j)
    return k.func


def zeroed():
    """A tile of zeros, from a zero made before the loops."""
    k = KernelBuilder("zeroed", "i32[16, 16]")
    tile, zero = k.alloc("i32[16, 16]", "tile"), k.const(0, i32)
    with k.loop("i", 16) as i, k.loop("j", 16) as j:
        k.store(zero, tile, i, j)
    return k.func


VNNI = "x86.dpbusd.512"
NOT_TENSORS = {
    "no such loop": (dot(), "nowhere", VNNI, "there is no loop"),
    "other extents": (dot(lanes=8), "l", VNNI, "runs over 8 x 4, .* over 16 x 4"),
    "loops around": (dot(), "q", VNNI, "runs over"),
    "too few loops": (dot(), "g", VNNI, "runs over"),
    "signs swapped": (dot("i8", "i8"), "l", VNNI, "operand 'a' .* has elements u8, the nest i8"),
    "weights unsigned": (dot("u8", "u8"), "l", VNNI, "operand 'w' .* elements i8, the nest u8"),
    "something more": (dot(fault="more"), "l", VNNI, "has add where .* has mul"),
    "rows with gaps": (dot(fault="gaps"), "l", VNNI, "side by side"),
    "no tile": (tiles(), "zi", "x86.tilezero", "operand 'c' .* tile>, the nest has a .*stack>"),
    "a guard": (guarded(), "i", "x86.tileloadd.i8", "is guarded"),
    "not in a warp": (tiles(), "i", "nv.mma.m16n8k16.f16", "belongs to a whole warp"),
    "a value from outside": (zeroed(), "i", "x86.tilezero", "const is computed outside"),
    "a value unused": (dot(fault="dead"), "l", VNNI, "also computes sub"),
    "other elements": (dot(fault="stride"), "l", VNNI, "operand 'a' .* is not a0.i, 2.g."),
    "other start": (dot(fault="other"), "l", VNNI, "operand 'acc' .* would be two windows"),
    "ordered": (dot(swapped=True, reduction=False), "g", VNNI, "depend on each other"),
    "shared lanes": (
        apply_steps(dot(), [Mark("l", "parallel")]), "l", VNNI, "run on several threads"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_TENSORS)
def test_tensorize_refuses_what_the_instruction_does_not_do(case):
    func, loop, name, reason = NOT_TENSORS[case]
    refuses(func, Tensorize(loop, name), reason)


def refuses(func, step, reason):
    before = str(func)
    with pytest.raises(Refused, match=reason):
        step.apply(func)
    assert str(func) == before


def test_tensorize_keeps_what_is_written_apart(monkeypatch):
    """x = x + y on one buffer is not the instruction that wants two."""

    def body(b, x, y):
        inner = b.at(b.insert(For.make("e", 4)).body)
        e = (sym("e"),)
        both = [inner.emit(Load, buffer, index=e) for buffer in (x, y)]
        inner.emit(Store, inner.add(*both), x, index=e)

    add = define("add4", [("x", f32, (4,), "heap"), ("y", f32, (4,), "heap")], body)
    monkeypatch.setattr(tensorize, "instr", {"add4": add}.__getitem__)
    for shift, reason in ((1, "a1 is both read and written"), (None, "")):
        k = KernelBuilder("adds", "f32[8]", "f32[8]")
        with k.loop("i", 4) as i:
            other = (k.args[0], i) if shift is None else (k.args[1], i + shift)
            k.store(k.add(k.load(k.args[1], i), k.load(*other)), k.args[1], i)
        if reason:
            refuses(k.func, Tensorize("i", "add4"), reason)
        else:
            Tensorize("i", "add4").apply(k.func)
            assert calls(k.func) == ["add4"]


def test_what_an_instruction_reads_counts_as_read():
    """Iteration i writes four bytes, and multiplies those that the other one wrote."""
    k = KernelBuilder("cross", "i8[16, 4]", "u8[8]")
    w, x = k.args
    with k.loop("i", 2) as i:
        acc = k.alloc("i32[16]", "register")
        k.store(k.const(1, u8), x, 4 * i)
        k.instr(VNNI, (acc, (0,)), (x, (4 - 4 * i,)), (w, (0, 0)))
    refuses(k.func, Mark("i", "parallel"), "depend on each other")


def test_a_loop_around_an_instruction_is_not_taken_for_parallel():
    made = apply_steps(dot(), [Tensorize("l", VNNI)])
    refuses(made, Mark("q", "parallel"), "depend on each other")
    Mark("i", "parallel").apply(made)  # its accumulator is inside


# Pipeline ----------------------------------------------------------------------------------------


def copies(threads=False, **fault):
    """y[8] = the sum over t of 2 x[t, 8], row by row through a shared buffer."""
    k = KernelBuilder("copies", "f32[T, 8]", "f32[8]")
    x, y = k.args
    kind = "gpu.thread" if threads else "serial"
    with k.loop("b", 1, "gpu.block"):
        rows = k.alloc("f32[8]", "shared", "rows")
        with k.loop("z", 8, kind) as z:
            k.store(k.const(0.0), y, z)
        with k.loop("t", sym("T"), fault.get("kind", "serial")) as t:
            with k.loop("c", 4, kind) as c:
                if fault.get("early"):
                    k.store(k.load(y, c), x, 0, c)
                k.emit(AsyncCopy, x, rows, source_index=(t, 2 * c), target_index=(2 * c,), count=2)
                if threads or fault.get("often"):
                    k.emit(Commit)
            if not threads and not fault.get("often"):
                k.emit(Commit)
            with k.loop("w", 4, kind) if threads else nullcontext():
                k.emit(Wait, pending=fault.get("pending", 0))
            if threads:
                k.emit(Barrier)
            with k.loop("s", 8, kind) as s:
                k.accumulate(k.mul(k.load(rows, s), k.const(2.0)), y, s)
                if fault.get("overwrite"):
                    k.store(k.load(y, s), x, t, s)
            if fault.get("late"):
                k.emit(AsyncCopy, x, rows, source_index=(t, 0), target_index=(0,), count=1)
            if threads:
                k.emit(Barrier)
        if fault.get("after"):
            with k.loop("u", 8, kind) as u:
                k.accumulate(k.load(rows, u), y, u)
    return k.func


def twice_sum(func, t, seed=0):
    x = np.random.default_rng(t).standard_normal((t, 8)).astype(np.float32)
    out = np.empty(8, np.float32)
    assert run_kernel(func, [x, out], seed=seed) == 0
    np.testing.assert_allclose(out, 2 * x.sum(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("stages", [2, 3, 5])
def test_copies_run_ahead(threads, stages):
    made = apply_steps(copies(threads), [Pipeline("t", stages)])
    verify(made)
    (wait,) = [op for op in made.walk() if isinstance(op, Wait)]
    assert wait.pending == stages - 1
    buffers = [op.type.shape for op in made.walk() if op.name == "loop.alloc"]
    assert buffers == [(stages, 8)]
    for t in (1, 2, 3, 7):
        for seed in range(2):
            twice_sum(made, t, seed)


def test_one_slot_too_few_is_found():
    """A planted fault: the wait lets one group more be under way than there are slots."""
    made = apply_steps(copies(True), [Pipeline("t", 2)])
    (wait,) = [op for op in made.walk() if isinstance(op, Wait)]
    wait.set_attr("pending", 2)
    with pytest.raises(Error, match="E0512"):
        twice_sum(made, 4)


@pytest.mark.parametrize(
    ("fault", "stages", "reason"),
    [
        ({}, 1, "nothing to run ahead"),
        ({"kind": "unroll"}, 2, "do not run in order"),
        ({"pending": 1}, 2, "one wait for everything"),
        ({"often": True}, 2, "commit is not reached once in each iteration"),
        ({"early": True}, 2, "does not begin with copies"),
        ({"late": True}, 2, "also starts copies later"),
        ({"overwrite": True}, 2, "a0 is written in t"),
        ({"after": True}, 2, "rows is also used outside of t"),
    ],
)
def test_pipeline_refuses(fault, stages, reason):
    refuses(copies(**fault), Pipeline("t", stages), reason)


# Bind --------------------------------------------------------------------------------------------


def mirrored(rounds=None, turn=True, guard=False):
    """y = x + each block of 64 of x backwards, through a shared buffer; all loops serial."""
    k = KernelBuilder("mirrored", "f32[N, 64]", "f32[N, 64]")
    x, y = k.args
    with k.loop("b", sym("N")) as b:
        s = k.alloc("f32[64]", "shared", "s")
        with k.loop("t", rounds or 1) as t:
            with k.guard(3 - t) if guard else nullcontext():
                with k.loop("c", 64) as c:
                    k.store(k.load(x, b, c), s, c)
                with k.loop("r", 64) as r:
                    other = 63 - r if turn else r
                    k.store(k.add(k.load(x, b, r), k.load(s, other)), y, b, r)
    return k.func


def barriers(func):
    return [op for op in func.walk() if isinstance(op, Barrier)]


def backwards(func, turn=True):
    verify(func)
    x = np.random.default_rng(3).standard_normal((3, 64)).astype(np.float32)
    for seed in range(2):
        out = np.empty_like(x)
        assert run_kernel(func, [x, out], seed=seed) == 0
        np.testing.assert_array_equal(out, x + (x[:, ::-1] if turn else x))


GRID = (Bind("b", "gpu.block"), Bind("c", "gpu.thread"), Bind("r", "gpu.thread"))


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)])
@pytest.mark.parametrize(("rounds", "guard"), [(None, False), (3, False), (3, True)])
def test_threads_that_read_what_others_wrote_meet_first(order, rounds, guard):
    made = apply_steps(mirrored(rounds, guard=guard), [GRID[k] for k in order])
    backwards(made)
    found = barriers(made)
    assert len(found) == 2  # before the reads, and before the next round's writes
    for barrier in found:
        broken = made.copy({})
        at = list(made.walk()).index(barrier)
        list(broken.walk())[at].erase()
        if rounds or barrier is found[0]:
            with pytest.raises(Error, match="E051[23]"):
                backwards(broken)


def test_threads_that_read_their_own_need_no_barrier():
    made = apply_steps(mirrored(turn=False), GRID)
    assert not barriers(made)
    backwards(made, turn=False)


def test_own_elements_that_move_from_round_to_round():
    """Thread c keeps to element c + t: nobody waits within a round, all wait after it."""
    k = KernelBuilder("moving", "f32[N, 64]", "f32[N, 64]")
    x, y = k.args
    with k.loop("b", sym("N")) as b:
        s = k.alloc("f32[66]", "shared", "s")
        with k.loop("t", 3) as t:
            with k.loop("c", 64) as c:
                k.store(k.load(x, b, c), s, c + t)
            with k.loop("r", 64) as r:
                k.store(k.add(k.load(x, b, r), k.load(s, r + t)), y, b, r)
    made = apply_steps(k.func, GRID)
    assert [op.next for op in barriers(made)] == [None]
    backwards(made, turn=False)


def test_warps_and_lanes():
    steps = [Bind("b", "gpu.block")]
    for var in "cr":
        steps += [Tile(var, 32), Bind(f"{var}.o", "gpu.warp"), Bind(f"{var}.i", "gpu.lane")]
    made = apply_steps(mirrored(2), steps)
    backwards(made)
    assert len(barriers(made)) == 2


def warps(guard=False):
    """Each warp turns its own 32 elements round, in shared memory."""
    k = KernelBuilder("warps", "f32[64]", "f32[64]")
    x, y = k.args
    with k.loop("b", 1):
        s = k.alloc("f32[2, 32]", "shared", "s")
        with k.loop("u", 2) as u, k.guard(*([u] if guard else [])):
            with k.loop("c", 32) as c:
                k.store(k.load(x, 32 * u + c), s, u, c)
            with k.loop("r", 32) as r:
                k.store(k.load(s, u, 31 - r), y, 32 * u + r)
    return k.func


def symbolic():
    """A grid of rows of N threads."""
    k = KernelBuilder("rows", "f32[M, N]", "f32[M, N]")
    with k.loop("b", sym("M"), "gpu.block") as b, k.loop("i", sym("N")) as i:
        k.store(k.load(k.args[0], b, i), k.args[1], b, i)
    return k.func


def test_lanes_of_one_warp_meet_too():
    """Warps keep to their own elements, but lanes read each other's."""
    kinds = {"b": "gpu.block", "u": "gpu.warp", "c": "gpu.lane", "r": "gpu.lane"}
    made = apply_steps(warps(), [Bind(var, kind) for var, kind in kinds.items()])
    assert len(barriers(made)) == 1
    given, out = np.arange(64, dtype=np.float32), np.empty(64, np.float32)
    assert run_kernel(made, [given, out]) == 0
    np.testing.assert_array_equal(out.reshape(2, 32), given.reshape(2, 32)[:, ::-1])


@pytest.mark.parametrize("seed", range(8))
def test_random_nests_on_a_grid(seed):
    """Stages that permute a shared row in random ways: what Bind makes has no race."""
    rng = random.Random(seed)
    k = KernelBuilder("random", "f32[N, 16]", "f32[N, 16]")
    x, y = k.args
    with k.loop("b", sym("N")) as b:
        rows = [k.alloc("f32[16]", "shared", f"s{n}") for n in range(2)]
        with k.loop("z", 16) as z:
            k.store(k.load(x, b, z), rows[0], z)
        names = ["z"]
        with k.loop("t", rng.randrange(1, 4)) as t:
            for n in range(rng.randrange(1, 3) * 2):
                names.append(f"v{n}")
                with k.loop(f"v{n}", 16) as v:
                    index = rng.choice([v, 15 - v, (v + 1) % 16, (v + t) % 16])
                    k.store(k.load(rows[n % 2], index), rows[(n + 1) % 2], v)
        names.append("w")
        with k.loop("w", 16) as w:
            k.store(k.load(rows[0], rng.choice([w, 15 - w])), y, b, w)
    plain = k.func
    steps = [Bind(name, "gpu.thread") for name in names]
    rng.shuffle(steps)
    made = apply_steps(plain, [Bind("b", "gpu.block"), *steps])
    given = np.random.default_rng(seed).standard_normal((2, 16)).astype(np.float32)
    want, out = np.empty_like(given), np.empty_like(given)
    assert run_kernel(plain, [given, want]) == 0
    for order in range(2):
        assert run_kernel(made, [given, out], seed=order) == 0
        np.testing.assert_array_equal(out, want)


BLOCKED = apply_steps(mirrored(), GRID[:1])
NOT_BOUND = {
    "no such loop": (mirrored(), Bind("q", "gpu.block"), "there is no loop"),
    "no such kind": (mirrored(), Bind("b", "gpu.cluster"), "no kind of loop of a GPU"),
    "not a gpu's": (mirrored(), Bind("b", "unroll"), "no kind of loop of a GPU"),
    "no block around": (mirrored(), Bind("c", "gpu.thread"), "inside no loop of a GPU"),
    "no warp around": (BLOCKED, Bind("c", "gpu.lane"), "cannot be gpu.lane inside gpu.block"),
    "two rounds": (apply_steps(mirrored(2), GRID[:1]), Bind("t", "gpu.thread"), "depend on each"),
    "16 lanes": (
        apply_steps(mirrored(), [GRID[0], Tile("c", 16), Bind("c.o", "gpu.warp")]),
        Bind("c.i", "gpu.lane"),
        "a warp has 32 lanes, c.i 16",
    ),
    "some warps only": (
        apply_steps(warps(guard=True), [GRID[0], Bind("u", "gpu.warp"), Bind("c", "gpu.lane")]),
        Bind("r", "gpu.lane"),
        "not all threads would reach a barrier inside loop.if",
    ),
    "unknown threads": (symbolic(), Bind("i", "gpu.thread"), "counted at compile time, not N"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_BOUND)
def test_bind_refuses(case):
    refuses(*NOT_BOUND[case])
