"""Single steps: what they do and refuse; random sequences of steps keep what a kernel computes."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest

from irc.ir.dims import sym
from irc.ir.ops.loop import Alloc, For, Load, Store
from irc.ir.target import Target
from irc.ir.verify import verify
from irc.passes.lower.finish import finish
from irc.passes.lower.scratch import hoist_scratch
from irc.passes.schedule.memory import ComputeAt, Inline, Pad, Place, Relayout, Rfactor, Stage
from irc.passes.schedule.nests import Refused, find_loop, perfect_chain
from irc.passes.schedule.steps import (
    Collapse,
    Fission,
    FromZero,
    Fuse,
    Mark,
    Partition,
    Reorder,
    Simplify,
    Specialize,
    Tile,
    apply_steps,
    vector,
)

_spec = importlib.util.spec_from_file_location(
    "schedule_kernels", Path(__file__).with_name("kernels.py")
)
kernels = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
_spec.loader.exec_module(kernels)  # type: ignore[union-attr]

LANES = Target("t", vector_bits=128, registers=16, fma=True, expand=True)


def program(name):
    shapes, build = kernels.PROGRAMS[name]
    return kernels.kernel(shapes, build), len(shapes)


def same(plain, count, steps, target=None):
    made = apply_steps(plain, steps)
    if target is not None:
        finish(made, target)
    hoist_scratch(made)
    verify(made)
    given = kernels.inputs(plain, count)
    want, got = kernels.interpret(plain, given)[0], kernels.interpret(made, given)[0]
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)
    return made


def loops(kernel):
    return {op.var: op.extent for op in kernel.walk() if isinstance(op, For)}


def test_tile_with_a_short_last_tile():
    plain, count = program("matmul")
    found = loops(same(plain, count, [Tile("s0.m", 4)]))
    assert found["s0.m.o"] == 4
    assert "s0.m.o" in found["s0.m.i"].symbols


def test_tile_with_masks_keeps_whole_tiles():
    plain, count = program("matmul_panels")
    made = same(plain, count, [Inline("s1.t0"), Tile("s2.i1", 8, tail="mask")])
    assert loops(made)["s2.i1.i"] == 8
    touched = [op for op in made.walk() if isinstance(op, (Load, Store))]
    assert {op.operands[-1].name for op in touched if op.where} == {"s2.t0"}


def test_tile_with_a_guard_keeps_whole_tiles():
    plain, count = program("matmul")
    found = loops(same(plain, count, [Tile("s0.m", 4, tail="guard")]))
    assert found["s0.m.i"] == 4


def test_the_rest_of_a_loop_counts_from_zero_and_becomes_tiles():
    plain, count = program("matmul")
    steps = [Partition("s0.m", 3), FromZero("s0.m.t"), Tile("s0.m.t", 5)]
    assert loops(same(plain, count, steps))["s0.m.t.i"] == 5


def test_partition_makes_full_tiles_static():
    plain, count = program("matmul")
    found = loops(same(plain, count, [Tile("s0.m", 4), Partition("s0.m.o", 3)]))
    assert (
        found["s0.m.i"] == 4 and found["s0.m.i.t"] == 1
        if "s0.m.i.t" in found
        else found["s0.m.i"] == 4
    )


def test_reorder_keeps_reductions_legal():
    plain, count = program("matmul")
    made = same(plain, count, [Reorder(("s0.k", "s0.m", "s0.n"))])
    assert [loop.var for loop in perfect_chain(find_loop(made, "s0.k"))] == ["s0.k", "s0.m", "s0.n"]


def test_compute_at_shrinks_the_buffer():
    plain, count = program("matmul")
    made = same(plain, count, [Tile("s0.fin.m", 4), ComputeAt("s0.acc0", "s0.fin.m.o", "stack")])
    (acc,) = [op for op in made.walk() if isinstance(op, Alloc)]
    assert acc.type.shape == (4, 21)


def test_stage_with_padding_frees_the_reads():
    plain, count = program("conv")
    made = same(plain, count, [Stage("in0", "", "padded", "heap")])
    guarded = [op for op in made.walk() if isinstance(op, Load) and op.where]
    assert all(op.source.name == "in0" for op in guarded)


def test_stage_packs_panels():
    plain, count = program("matmul")
    steps = [Stage("in1", "", "panel", "heap", blocks=((1, 8),), order=(1, 0, 2))]
    made = same(plain, count, steps)
    assert (3, 7, 8) in [a.buffer.shape for a in made.args]


def test_rfactor_gives_lanes_to_a_sum():
    plain, count = program("sum_rows")
    steps = [
        ComputeAt("s0.acc0", "s0.fin.i0", "stack"),
        Tile("s0.r1", 8),
        Partition("s0.r1.o", 16),
        Rfactor("s0.acc0", "s0.r1.i"),
        vector("s0.r1.i"),
        Mark("s0.r1.i.c", "vector"),
    ]
    same(plain, count, steps, LANES)


def test_small_steps():
    plain, count = program("elementwise")
    same(plain, count, [Inline("s0.t0"), Inline("s1.t0"), Collapse("s2.i0", "s2.i1", "s2.i")])
    same(plain, count, [Simplify(), Specialize("s0.i2", (2 - sym("s0.i0"),))])
    same(
        plain,
        count,
        [Relayout("s0.t0", ((2, 4),), (2, 0, 1, 3)), Pad("s1.t0", 2, 8), Place("s1.t0", "stack")],
    )


REFUSALS = {
    "unknown loop": ("matmul", Tile("nothing", 4), "there is no loop"),
    "unknown buffer": ("matmul", Place("nothing", "stack"), "there is no buffer"),
    "not a nest": ("matmul", Reorder(("s0.m", "s0.fin.m")), "not one perfect nest"),
    "gap in a nest": ("matmul", Reorder(("s0.k", "s0.m")), "must be named too"),
    "reduction in parallel": ("matmul", Mark("s0.k", "parallel"), "depend on each other"),
    "inline a reduction": ("matmul", Inline("s0.acc0"), "not written by a single store"),
    "read elsewhere": (
        "softmax",
        ComputeAt("s0.acc0", "s0.i0", "stack"),
        "computed around the loop",
    ),
    "from zero": ("matmul", FromZero("s0.m"), "starts at 0"),
    "outside the range": ("matmul", Partition("s0.m", 99), "not within the range"),
    "static reduction": ("matmul", Rfactor("s0.acc0", "s0.m"), "not one accumulator"),
    "no neighbours": ("matmul", Fuse("s0.m", "s0.fin.m.x"), "there is no loop"),
    "different extents": ("conv", Fuse("s0.init.n", "s0.n"), ""),
}


@pytest.mark.parametrize("case", [c for c in REFUSALS if REFUSALS[c][2]])
def test_refusals_say_why_and_change_nothing(case):
    name, step, reason = REFUSALS[case]
    plain, _ = program(name)
    before = str(plain)
    with pytest.raises(Refused, match=reason):
        step.apply(plain)
    assert str(plain) == before


def test_fuse_and_fission():
    plain, count = program("matmul")
    made = same(plain, count, [Fuse("s0.init.m", "s0.m")])
    assert "s0.m" not in loops(made)
    same(plain, count, [Fuse("s0.init.m", "s0.m"), Fission("s0.init.m", 1, "again")])


def random_step(rng, kernel):
    """Any step on any loop or buffer of the kernel; most are refused."""
    names = [op.var for op in kernel.walk() if isinstance(op, For)] or ["none"]
    labels = [op.label for op in kernel.walk() if isinstance(op, Alloc)] or ["none"]
    var, label = rng.choice(names), rng.choice(labels)
    chain = [op.var for op in perfect_chain(find_loop(kernel, var))] if var != "none" else []
    rng.shuffle(chain)
    return rng.choice([
        lambda: Tile(var, rng.choice([2, 3, 4, 5]), tail=rng.choice(["min", "guard", "mask"])),
        lambda: Reorder(tuple(chain)),
        lambda: Partition(var, rng.choice([1, 2, 3])),
        lambda: ComputeAt(label, var, rng.choice(["stack", "heap"])),
        lambda: Inline(label),
        lambda: Stage(
            rng.choice(["in0", label]),
            rng.choice(["", var]),
            f"copy{rng.randrange(10**6)}",
            "stack",
        ),
        lambda: Rfactor(label, var),
        lambda: Fuse(var, rng.choice(names)),
        lambda: Relayout(label, ((0, rng.choice([2, 3])),)),
        lambda: Mark(var, rng.choice(["unroll", "parallel"])),
        lambda: Collapse(var, rng.choice(names), f"flat{rng.randrange(10**6)}"),
        lambda: Simplify(),
    ])()  # fmt: skip


SMALL = [
    "matmul",
    "matmul_bias_relu",
    "conv",
    "softmax_middle",
    "sum_rows",
    "max_pool",
    "elementwise",
    "matmul_batch",
]


@pytest.mark.parametrize("seed", range(40))
def test_random_schedules_keep_the_result(seed):
    rng = random.Random(seed)
    plain, count = program(SMALL[seed % len(SMALL)])
    working, steps = plain.copy({}), []
    for _ in range(60):
        step = random_step(rng, working)
        trial = working.copy({})
        try:
            step.apply(trial)
        except Refused:
            continue
        working = trial
        steps.append(step)
        if len(steps) == 9:
            break
    assert any(isinstance(op, Store) for op in working.walk())
    same(plain, count, steps, Target("t", expand=True))
