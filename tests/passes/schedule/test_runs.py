"""Lanes that jump between blocks: a few masked accesses instead of one per lane."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from irc.ir.core import Builder
from irc.ir.dims import max_, min_, substitute, sym
from irc.ir.ops.core import Func
from irc.ir.ops.loop import Load, Store
from irc.ir.target import Target
from irc.ir.types import BufferType, f32
from irc.passes.lower.finish import finish
from irc.passes.schedule.choose import choose
from irc.passes.schedule.runs import bends, jumps, moves_in_lanes, runs_of

_spec = importlib.util.spec_from_file_location(
    "schedule_kernels", Path(__file__).with_name("kernels.py")
)
assert _spec is not None and _spec.loader is not None
kernels = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kernels)

TARGETS = [
    Target("t", vector_bits=bits, registers=32, fma=True, expand=True) for bits in (512, 128)
]

LANE = sym("l")
BLOCKED = (sym("c") + (LANE + 14) // 16, sym("y"), (LANE + 14) % 16)


def test_runs_across_a_block() -> None:
    first, second = runs_of(BLOCKED, "l", 16)
    assert (first.low, first.high, second.low, second.high) == (0, 2, 2, 16)
    for run in (first, second):
        for lane in range(run.low, run.high):
            at = {"l": lane, "c": 3, "y": 5}
            assert [substitute(e, at) for e in run.index] == [substitute(e, at) for e in BLOCKED]


@pytest.mark.parametrize("index", [(LANE * 2 % 16,), (LANE % 3,), (15 - LANE,)])
def test_too_many_runs_are_none(index: tuple[object, ...]) -> None:
    assert runs_of(index, "l", 16) == []  # type: ignore[arg-type]


def test_affine_and_jumping_accesses() -> None:
    func = Func.make("k", [BufferType(f32, (4, 9, 16))], kind="kernel")
    b = Builder(func.body)
    buffer = func.args[0]
    plain = b.insert(Load(buffer, index=(0, 1, LANE)))
    jumping = b.insert(Load(buffer, index=BLOCKED))
    gathered = b.insert(Load(buffer, index=(0, 1, LANE * LANE % 15)))
    assert moves_in_lanes(plain, "l", 16) and not jumps(plain, "l")
    assert moves_in_lanes(jumping, "l", 16) and jumps(jumping, "l")
    assert not moves_in_lanes(gathered, "l", 16)
    repeated = b.insert(Load(buffer, index=(0, 1, LANE // 2)))
    spread = b.insert(Load(buffer, index=(0, LANE // 2, LANE % 2)))
    drifting = b.insert(Load(buffer, index=(0, 1, LANE // 5)))
    assert moves_in_lanes(repeated, "l", 16) and not moves_in_lanes(spread, "l", 16)
    assert not moves_in_lanes(drifting, "l", 16)


def test_no_jump_is_left_in_a_norm_across_blocks() -> None:
    """Where a block is a vector; and the kernel means the same there and in shorter vectors."""
    made = kernels.kernel(
        [(1, 2, 3, 16)], lambda b, x: b.local_response_norm(x, size=5, alpha=0.5, channel_block=16)
    )
    given = kernels.inputs(made, 1)
    (wanted,) = kernels.interpret(made, given)
    for target in TARGETS:
        scheduled = choose(made, target).kernel
        finish(scheduled, target)
        vectors = [op for op in scheduled.walk() if isinstance(op, Load) and op.lane]
        if target.vector_bits == 512:
            assert len(vectors) > 5 and not any(jumps(op, op.lane) for op in vectors)
        np.testing.assert_allclose(kernels.interpret(scheduled, given)[0], wanted, rtol=1e-6)


def test_an_access_turns_where_its_steps_change() -> None:
    func = Func.make("k", [BufferType(f32, (64,))], kind="kernel")
    b = Builder(func.body)
    at = sym("i")
    reflected = min_(132 - at, max_(6 - at, at)) - 3
    for index, cuts in (
        (reflected, [3, 67]),
        (max_(at - 3, 0), [3]),
        (at // 16, []),
        (2 * at, []),
    ):
        load = b.insert(Load(func.args[0], index=(index,)))
        assert bends(load, "i", 70) == cuts


@pytest.mark.parametrize("columns", [64, 38])
def test_reflected_rows_are_cut_where_they_turn(columns: int) -> None:
    made = kernels.kernel(
        [(3, columns)], lambda b, x: b.pad(x, low=(1, 3), high=(0, 3), mode="reflect")
    )
    given = kernels.inputs(made, 1)
    (wanted,) = kernels.interpret(made, given)
    for target in TARGETS:
        scheduled = choose(made, target).kernel
        finish(scheduled, target)
        stores = [op for op in scheduled.walk() if isinstance(op, Store)]
        assert len(stores) > 2 and all(op.lane for op in stores)
        np.testing.assert_array_equal(kernels.interpret(scheduled, given)[0], wanted)


@pytest.mark.parametrize("scale", [2, 3])
def test_repeated_elements_are_lanes(scale: int) -> None:
    made = kernels.kernel(
        [(1, 1, 4, 48)],
        lambda b, x: b.resize(x, axes=(2, 3), sizes=(4 * scale, 48 * scale), mode="nearest"),
    )
    given = kernels.inputs(made, 1)
    (wanted,) = kernels.interpret(made, given)
    for target in TARGETS:
        scheduled = choose(made, target).kernel
        finish(scheduled, target)
        np.testing.assert_array_equal(kernels.interpret(scheduled, given)[0], wanted)
        if scale == 2:
            assert all(op.lane for op in scheduled.walk() if isinstance(op, Load))
