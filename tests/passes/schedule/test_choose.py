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


def test_steps_are_data_that_repeat_the_choice():
    shapes, build = kernels.PROGRAMS["matmul_bias_relu"]
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
