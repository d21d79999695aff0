"""Kernels of several results: one nest where the elements are the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import irc.ir.ops  # noqa: F401  # registers every op
from irc.ir.core import Builder, Value
from irc.ir.interpret_loops import run_kernel
from irc.ir.ops.core import Func, Fused, Module, Return
from irc.ir.ops.loop import Alloc, Load
from irc.ir.target import Target
from irc.ir.types import TensorType, f32
from irc.ir.verify import verify
from irc.passes.decompose import Decompose
from irc.passes.fuse import Fuse
from irc.passes.inplace import overwrites
from irc.passes.lower.finish import finish
from irc.passes.lower.generic import LowerGeneric
from irc.passes.lower.loops import lower_fused
from irc.passes.lower.scratch import hoist_scratch
from irc.passes.schedule.choose import Scheduled, choose

TARGET = Target("t", vector_bits=512, registers=32, fma=True, expand=True)
Build = Callable[..., list[Value]]


def scheduled(fill: Build, *shapes: tuple[int, ...]) -> tuple[Func, Scheduled]:
    """The only kernel of a function, before and after its schedule."""
    func = Func.make("main", [TensorType(f32, shape) for shape in shapes])
    b = Builder(func.body)
    b.emit(Return, *fill(b, *func.args))
    module = LowerGeneric().run(Fuse().run(Decompose().run(Module.make([func]))))
    (fused,) = [op for op in module.main.walk() if isinstance(op, Fused)]
    plain = lower_fused(fused, "k")
    return plain, choose(plain, TARGET)


def kept_and_activated(b: Builder, x: Value, w: Value, bias: Value) -> list[Value]:
    """A linear layer's sum, which the way back needs, and its activation."""
    y = b.add(b.matmul(x, w), bias)
    return [y, b.mul(b.sigmoid(y), b.tanh(y))]


def moments(b: Builder, p: Value, g: Value, m: Value, v: Value) -> list[Value]:
    """An optimizer's update of a parameter and its two slots."""
    m = b.sub(m, b.mul(m, g))
    v = b.add(v, b.mul(g, g))
    return [b.sub(p, b.div(m, b.sqrt(v))), m, v]


CASES: dict[str, tuple[Build, tuple[tuple[int, ...], ...]]] = {
    "layer": (kept_and_activated, ((19, 11), (11, 37), (37,))),
    "moments": (moments, ((5, 37),) * 4),
    "scalars": (moments, ((),) * 4),
    "row": (moments, ((37,),) * 4),
}


@pytest.mark.parametrize("case", CASES)
def test_joined_results_are_those_of_the_plain_loops(case: str) -> None:
    fill, shapes = CASES[case]
    plain, made = scheduled(fill, *shapes)
    kernel = made.kernel
    finish(kernel, TARGET)
    hoist_scratch(kernel)
    verify(kernel)
    rng = np.random.default_rng(0)
    given = [rng.uniform(0.5, 1, s).astype(np.float32) for s in shapes]
    found = []
    for func in (plain, kernel):
        rest = [np.full(a.buffer.shape, np.nan, np.float32) for a in func.args[len(shapes) :]]
        assert run_kernel(func, [*[x.copy() for x in given], *rest]) == 0
        found.append(rest)
    for want, got in zip(*found, strict=False):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


def test_a_sum_that_two_results_need_stays_in_registers() -> None:
    _, made = scheduled(*[kept_and_activated, *CASES["layer"][1]])
    assert {a.type.space for a in made.kernel.walk() if isinstance(a, Alloc)} <= {
        "register",
        "stack",
    }


@pytest.mark.parametrize("case", ["moments", "scalars", "row"])
def test_an_update_reads_each_operand_once_and_may_write_over_it(case: str) -> None:
    _, made = scheduled(CASES[case][0], *CASES[case][1])
    kernel = made.kernel
    reads = [op for op in kernel.walk() if isinstance(op, Load) and op.source in kernel.args[:4]]
    assert len(reads) == 4 * len({op.block for op in reads})
    finish(kernel, TARGET)
    for source, target in ((0, 4), (2, 5), (3, 6)):
        assert overwrites(kernel, source, target)


def test_nests_over_other_elements_stay_apart() -> None:
    def fill(b: Builder, x: Value) -> list[Value]:
        y = b.reduce_max(x, axes=(1,), keepdims=True)
        return [b.tanh(y), b.sub(x, y)]

    _, made = scheduled(fill, (6, 20))
    assert not any(type(step).__name__ == "Fuse" for step in made.steps[:3])
