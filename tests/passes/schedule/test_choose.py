"""The chosen schedule of every kind of kernel computes what the plain loops compute."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from irc.ir.target import Target
from irc.ir.verify import verify
from irc.passes.lower.finish import finish
from irc.passes.lower.scratch import hoist_scratch
from irc.passes.schedule.choose import choose
from irc.passes.schedule.steps import apply_steps

_spec = importlib.util.spec_from_file_location(
    "schedule_kernels", Path(__file__).with_name("kernels.py")
)
kernels = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
_spec.loader.exec_module(kernels)  # type: ignore[union-attr]

TARGETS = {
    "avx512": Target("t", vector_bits=512, registers=32, fma=True, expand=True),
    "avx2": Target("t", vector_bits=256, registers=16, fma=True, expand=True, threads=2),
    "neon": Target("t", vector_bits=128, registers=32, fma=True, expand=True),
    "loops": Target("t", vector_bits=128, registers=16),
    "scalar": Target("t"),
}

ACCESSES = ("loop.load", "loop.store")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("program", kernels.PROGRAMS)
def test_chosen_schedule_computes_the_same(program, target):
    shapes, build = kernels.PROGRAMS[program]
    plain = kernels.kernel(shapes, build)
    given = kernels.inputs(plain, len(shapes))
    chosen = choose(plain, TARGETS[target]).kernel
    finish(chosen, TARGETS[target])
    hoist_scratch(chosen)
    verify(chosen)
    want = kernels.interpret(plain, given)[0]
    got = kernels.interpret(chosen, given)[0]
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("program", kernels.PROGRAMS)
def test_steps_are_data_that_repeat_the_choice(program):
    shapes, build = kernels.PROGRAMS[program]
    plain = kernels.kernel(shapes, build)
    chosen = choose(plain, TARGETS["avx2"])
    assert str(apply_steps(plain, chosen.steps)) == str(chosen.kernel)
    assert hash(chosen.steps) == hash(choose(plain, TARGETS["avx2"]).steps)


def test_a_contraction_uses_vectors_and_registers():
    shapes, build = kernels.PROGRAMS["matmul"]
    chosen = choose(kernels.kernel(shapes, build), TARGETS["avx512"]).kernel
    kinds = {op.kind for op in chosen.walk() if op.name == "loop.for"}
    spaces = {op.type.space for op in chosen.walk() if op.name == "loop.alloc"}
    assert {"vector", "unroll"} <= kinds
    assert "register" in spaces


def test_panels_of_a_tail_do_not_write_out_the_whole_product():
    """Reductions stay loops, in the tail tile too: a kernel's size follows from its tiles."""
    shapes, build = kernels.PROGRAMS["matmul_tails"]
    target = TARGETS["avx512"]
    chosen = choose(kernels.kernel(shapes, build), target).kernel
    finish(chosen, target)
    assert sum(op.name == "fma" for op in chosen.walk()) <= 4 * 4 * 30


def test_lanes_beyond_the_last_column_are_computed_and_masked_at_the_end():
    """One loop over all panels, without a tail of its own."""
    shapes, build = kernels.PROGRAMS["matmul_panels"]
    target = TARGETS["neon"]
    chosen = choose(kernels.kernel(shapes, build), target).kernel
    panels = [op for op in chosen.body if op.name == "loop.for"]
    assert [op.extent for op in panels] == [3]
    masked = {op.operands[-1].name for op in chosen.walk() if op.name in ACCESSES and op.where}
    assert masked == {"in3", "out0"}
    assert any(op.type.space == "register" for op in chosen.walk() if op.name == "loop.alloc")


@pytest.mark.parametrize(
    ("program", "rows"),
    [("conv_grouped_padded", 4), ("conv_grouped_tall", 4), ("conv_few_outputs", 2)],
)
def test_outputs_of_a_group_share_what_they_read(program, rows):
    """A plain convolution in groups, or of few outputs, keeps a tile of outputs in registers."""
    made = choose(kernels.kernel(*kernels.PROGRAMS[program]), TARGETS["avx512"])
    assert not made.refusals
    tile = next(a for a in made.kernel.walk() if a.name == "loop.alloc" and "acc" in a.label
                and a.result.buffer.space == "register")  # fmt: skip
    assert rows in tile.result.buffer.shape
    assert any(a.name == "loop.alloc" and ".pad" in a.label for a in made.kernel.walk())


def test_few_rows_against_rows_sum_in_lanes():
    """No panel is packed: the other operand is read once, along its rows."""
    shapes, build = kernels.PROGRAMS["matmul_dots"]
    chosen = choose(kernels.kernel(shapes, build), TARGETS["avx2"]).kernel
    labels = [op.label for op in chosen.walk() if op.name == "loop.alloc"]
    assert not any("panel" in label for label in labels)
    lanes = [op for op in chosen.walk() if op.name == "loop.for" and op.kind == "vector"]
    assert any(op.reduction or "s0.k" in op.var for op in lanes)
