"""Lanes that jump between blocks: a few masked accesses instead of one per lane."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from irc.ir.core import Builder
from irc.ir.dims import substitute, sym
from irc.ir.ops.core import Func
from irc.ir.ops.loop import Load
from irc.ir.target import Target
from irc.ir.types import BufferType, f32
from irc.passes.lower.finish import finish
from irc.passes.schedule.choose import choose
from irc.passes.schedule.runs import jumps, moves_in_lanes, runs_of

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
    gathered = b.insert(Load(buffer, index=(0, 1, LANE * LANE % 16)))
    assert moves_in_lanes(plain, "l", 16) and not jumps(plain, "l")
    assert moves_in_lanes(jumping, "l", 16) and jumps(jumping, "l")
    assert not moves_in_lanes(gathered, "l", 16)


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
