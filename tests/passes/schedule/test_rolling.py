"""Rolling: line buffers give what whole buffers give, each row is computed once, refusals."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest

from irc.ir.dims import evaluate, sym
from irc.ir.interpret_loops import run_kernel
from irc.ir.kernel_builder import KernelBuilder
from irc.ir.ops.loop import Alloc, For, Load
from irc.ir.verify import verify
from irc.passes.schedule.memory import ComputeAt, Inline, Relayout
from irc.passes.schedule.nests import Refused, find_alloc, find_loop, perfect_chain
from irc.passes.schedule.rolling import Rolling
from irc.passes.schedule.steps import Fission, Fuse, Mark, Partition, Reorder, Tile, apply_steps

_spec = importlib.util.spec_from_file_location(
    "schedule_kernels", Path(__file__).with_name("kernels.py")
)
kernels = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
_spec.loader.exec_module(kernels)  # type: ignore[union-attr]

ROW = "s2.fin.s0"
IN_ROWS = (
    Inline("s0.t0"),
    Reorder(("s2.fin.n", ROW, "s2.fin.o", "s2.fin.s1")),
    ComputeAt("s2.acc0", ROW),
)
TWO_CONVS = (*IN_ROWS, Rolling("s1.t0", ROW), ComputeAt("s0.acc0", ROW))
POOL_ROW = "s1.fin.s0"
CONV_POOL = (
    ComputeAt("s1.acc0", POOL_ROW),
    Rolling("s0.t0", POOL_ROW),
    ComputeAt("s0.acc0", POOL_ROW),
)


def two_convs(height=8, width=7, pads=0, kernel=3, strides=(1, 1)):
    shapes = [(1, 2, height, width), (3, 2, 3, 3), (2, 3, kernel, 3)]
    around = (pads,) * 4
    return kernels.kernel(
        shapes,
        lambda b, x, w, v: b.conv(
            b.relu(b.conv(x, w, pads=around)), v, pads=around, strides=strides
        ),
    )


def conv_pool(height=9, width=8, kernel=3, stride=2, pads=1):
    return kernels.kernel(
        [(1, 2, height, width), (3, 2, 3, 3)],
        lambda b, x, w: b.max_pool(
            b.conv(x, w, pads=(1, 1, 1, 1)),
            kernel=(kernel, 3),
            strides=(stride, 2),
            pads=(pads, 1, pads, 1),
        ),
    )


def same(plain, count, steps):
    """The kernel with these steps, which gives the same values to the bit."""
    made = apply_steps(plain, steps)
    verify(made)
    given = kernels.inputs(plain, count)
    want, got = kernels.interpret(plain, given)[0], kernels.interpret(made, given)[0]
    np.testing.assert_array_equal(got, want)
    return made


def rows_computed(made, row, var):
    """How many rows the loop `var` runs over, in all iterations of `row`."""
    loop, inner = find_loop(made, row), find_loop(made, var)
    at = range(loop.lo, loop.lo + loop.extent)
    return sum(evaluate(inner.extent, {row: i}) for i in at)


def test_two_convolutions_share_a_line_buffer():
    made = same(two_convs(), 3, TWO_CONVS)
    lines = find_alloc(made, "s1.t0")
    assert lines.type.shape == (1, 3, 3, 5)
    assert rows_computed(made, ROW, "s1.i2") == 6  # with ComputeAt 4 windows of 3 rows
    again = same(two_convs(), 3, (*IN_ROWS, ComputeAt("s1.t0", ROW), ComputeAt("s0.acc0", ROW)))
    assert find_loop(again, "s1.i2").extent == 3


def test_the_first_iteration_warms_up_and_can_be_split_off():
    made = same(two_convs(), 3, (*TWO_CONVS, Partition(ROW, 1)))
    loops = {op.var: op.extent for op in made.walk() if isinstance(op, For)}
    assert loops["s1.i2"] == 3
    assert loops[f"{ROW}.t"] == 3 and "s1.i2.t" not in loops  # one row needs no loop


def test_pooling_with_padding_keeps_rows_between_windows():
    made = same(conv_pool(), 2, CONV_POOL)
    assert find_alloc(made, "s0.t0").type.shape == (1, 1, 3, 8)
    assert rows_computed(made, POOL_ROW, "s0.fin.s0") == 9


def test_a_chain_of_line_buffers():
    """The rows that the second buffer wants anew are the window of the first."""
    plain = kernels.kernel(
        [(1, 1, 11, 6), (1, 1, 3, 3), (1, 1, 3, 1), (1, 1, 2, 1)],
        lambda b, x, w, v, u: b.conv(b.conv(b.conv(x, w), v), u),
    )
    row = "s2.fin.s0"
    steps = [ComputeAt("s2.acc0", row)]
    for producer in ("s1", "s0"):
        steps += [Rolling(f"{producer}.t0", row), ComputeAt(f"{producer}.acc0", row)]
    made = same(plain, 4, steps)
    assert rows_computed(made, row, "s1.fin.s0") == 7
    assert rows_computed(made, row, "s0.fin.s0") == 9


def test_a_row_read_from_another_slot_gives_other_values():
    """A planted fault: what the tests compare does depend on where the rows lie."""
    plain = two_convs()
    made = apply_steps(plain, TWO_CONVS)
    buffer = find_alloc(made, "s1.t0").result
    (load,) = [user for user in buffer.users if isinstance(user, Load)]
    index = list(load.index)
    index[2] = (index[2] + sym(ROW)) % 3
    load.set_attr("index", tuple(index))
    given = kernels.inputs(plain, 3)
    want, got = kernels.interpret(plain, given)[0], kernels.interpret(made, given)[0]
    assert not np.array_equal(got, want)


@pytest.mark.parametrize("seed", range(12))
def test_random_shapes(seed):
    rng = random.Random(seed)
    if seed % 2:
        kernel, stride = rng.choice([(2, 1), (3, 1), (3, 2), (4, 3), (5, 2)])
        pads = rng.randrange(0, (kernel + 1) // 2)
        plain = conv_pool(rng.randrange(5, 14), rng.randrange(3, 8), kernel, stride, pads)
        same(plain, 2, (*CONV_POOL, *([Partition(POOL_ROW, 1)] if seed % 3 else [])))
    else:
        kernel = rng.randrange(2, 5)
        strides = (rng.randrange(1, kernel), rng.randrange(1, 3))
        plain = two_convs(rng.randrange(8, 14), rng.randrange(5, 9), seed // 2 % 2, kernel, strides)
        same(plain, 3, (*TWO_CONVS, *([Partition(ROW, 1)] if seed % 3 else [])))


@pytest.mark.parametrize("seed", range(16))
def test_random_steps_after_a_line_buffer(seed):
    """Whatever other steps accept afterwards keeps the values."""
    rng = random.Random(seed)
    plain, first = (conv_pool(), CONV_POOL) if seed % 2 else (two_convs(), TWO_CONVS)
    working, count = apply_steps(plain, first), 0
    while count < 6:
        names = [op.var for op in working.walk() if isinstance(op, For)]
        labels = [op.label for op in working.walk() if isinstance(op, Alloc)]
        var, label = rng.choice(names), rng.choice(labels)
        chain = [op.var for op in perfect_chain(find_loop(working, var))]
        rng.shuffle(chain)
        step = rng.choice([
            Tile(var, rng.choice([2, 3]), tail=rng.choice(["min", "guard"])),
            Reorder(tuple(chain)),
            Partition(var, rng.choice([1, 2])),
            ComputeAt(label, var),
            Fuse(var, rng.choice(names)),
            Fission(var, 1, f"cut{count}"),
            Mark(var, "parallel"),
            Relayout(label, ((2, 2),)),
        ])  # fmt: skip
        trial = working.copy({})
        try:
            step.apply(trial)
        except Refused:
            count += rng.random() < 0.05
            continue
        working, count = trial, count + 1
    given = kernels.inputs(plain, len(plain.args) - 1)
    want, got = kernels.interpret(plain, given)[0], kernels.interpret(working, given)[0]
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


def test_a_symbolic_height():
    """y[i] = x'[i] + x'[i+1] + x'[i+2] of doubled rows; N rows are known at run time only."""
    made = line_sums()
    Rolling("t", "i").apply(made)
    verify(made)
    assert find_alloc(made, "t").type.shape == (3, 4)
    for n in (1, 2, 5):
        x = np.random.default_rng(n).standard_normal((n + 2, 4)).astype(np.float32)
        out = np.empty((n, 4), np.float32)
        assert run_kernel(made, [x, out]) == 0
        np.testing.assert_allclose(out, 2 * (x[:-2] + x[1:-1] + x[2:]), rtol=1e-5)


def line_sums(kind="serial", step=1, writes=False):
    k = KernelBuilder("lines", "f32[N + 2, 4]", "f32[N, 4]")
    x, y = k.args
    t = k.alloc("f32[N + 2, 4]", "heap", "t")
    with k.loop("r", sym("N") + 2) as r, k.loop("c", 4) as c:
        k.store(k.mul(k.load(x, r, c), k.const(2.0)), t, r, c)
    with k.loop("i", sym("N") if step == 1 else 2, kind) as i, k.loop("j", 4) as j:
        low = i if step == 1 else 2 + step * i
        near = k.add(k.load(t, low, j), k.load(t, low + 1, j))
        k.store(k.add(near, k.load(t, low + 2, j)), y, i, j)
        if writes:
            k.store(k.load(y, i, j), x, i, j)
    return k.func


REFUSALS = {
    "parallel": (line_sums("parallel"), Rolling("t", "i"), "do not run in order"),
    "no window": (two_convs(), Rolling("s1.t0", "s2.fin.s0"), "is not read under|also read"),
    "no loop": (line_sums(), Rolling("t", "q"), "there is no loop q"),
    "no buffer": (line_sums(), Rolling("u", "i"), "there is no buffer u"),
    "whole rows at once": (line_sums(), Rolling("t", "r"), "computed around|not read under"),
    "backwards": (line_sums(step=-2), Rolling("t", "i"), "only move forwards"),
    "source overwritten": (line_sums(writes=True), Rolling("t", "i"), "is written again"),
    "no overlap": (
        apply_steps(conv_pool(8, 8, 2, 2, 0), CONV_POOL[:1]),
        CONV_POOL[1],
        "do not overlap",
    ),
    "whole windows": (
        apply_steps(two_convs(), IN_ROWS),
        Rolling("s1.t0", "s2.fin.n"),
        "moves along 0 dimensions",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_say_why_and_change_nothing(case):
    plain, step, reason = REFUSALS[case]
    before = str(plain)
    with pytest.raises(Refused, match=reason):
        step.apply(plain)
    assert str(plain) == before


def test_a_rolled_loop_stays_in_order():
    made = apply_steps(line_sums(), [Rolling("t", "i")])
    with pytest.raises(Refused, match="depend on each other"):
        Mark("i", "parallel").apply(made)
    assert [op.label for op in made.walk() if isinstance(op, Alloc)] == ["t"]
