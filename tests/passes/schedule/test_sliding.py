"""Pools in plain layout: vectors of results whose windows are written out, edges apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc.ir.core import Builder, Value
from irc.ir.dims import sym
from irc.ir.interpret import run
from irc.ir.interpret_loops import run_kernel
from irc.ir.ops.core import Func, Fused, Module, Return
from irc.ir.ops.loop import Alloc, For, Load
from irc.ir.target import Target
from irc.ir.types import TensorType, f32
from irc.ir.verify import verify
from irc.passes.decompose import Decompose
from irc.passes.fuse import Fuse
from irc.passes.lower.finish import finish
from irc.passes.lower.generic import LowerGeneric
from irc.passes.lower.loops import lower_fused
from irc.passes.schedule import sliding
from irc.passes.schedule.choose import Scheduled, choose
from irc.passes.schedule.steps import Partition

TARGET = Target("t", vector_bits=256, registers=32, fma=True, expand=True)


def pooled(shape: tuple[Any, ...], name: str = "max_pool", **how: Any) -> tuple[Module, Scheduled]:
    """A module of one pool, and the schedule of its kernel."""
    func = Func.make("main", [TensorType(f32, shape)])
    b = Builder(func.body)
    b.emit(Return, getattr(b, name)(func.args[0], **how))
    module = Module.make([func])
    made = LowerGeneric().run(Fuse().run(Decompose().run(module)))
    (fused,) = [op for op in made.main.walk() if isinstance(op, Fused)]
    return module, choose(lower_fused(fused, "k"), TARGET)


def in_registers(kernel: Func) -> bool:
    spaces = {op.type.space for op in kernel.walk() if isinstance(op, Alloc)}
    return spaces == {"register"} and not [op for op in kernel.walk() if _serial_tap(op)]


def _serial_tap(op: Any) -> bool:
    return isinstance(op, For) and op.reduction and op.kind != "unroll"


POOLS = [
    ((1, 3, 32, 32), {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}),
    ((2, 3, 9, 37), {"kernel": (3, 3), "strides": (1, 1), "pads": (1, 1, 1, 1)}),
    ((1, 2, 13, 13), {"kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 1, 1)}),
    ((1, 2, 11, 90), {"kernel": (2, 5), "strides": (1, 3), "pads": (0, 4, 0, 3)}),
    ((1, 2, 6, 6), {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}),
    ((1, 2, 40), {"kernel": (4,), "strides": (2,), "pads": (3, 3)}),
    ((1, 2, 9, 8, 33), {"kernel": (2, 2, 2), "strides": (2, 2, 2), "pads": (0, 1, 1, 1, 0, 1)}),
]


@pytest.mark.parametrize(("shape", "how"), POOLS)
@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
def test_accumulators_stay_in_registers(
    name: str, shape: tuple[int, ...], how: dict[str, Any]
) -> None:
    module, made = pooled(shape, name, **how)
    assert in_registers(made.kernel)
    finish(made.kernel, TARGET)
    verify(made.kernel)
    x = np.random.default_rng(5).integers(-50, 50, shape).astype(np.float32)
    (want,) = run(module, [x])
    out = np.zeros_like(want)
    assert run_kernel(made.kernel, [x, out], check=True) == 0
    np.testing.assert_allclose(out, want, rtol=1e-6)


def test_only_edges_have_guards() -> None:
    """Of 32 rows and 4 vectors, the first and last of each read beyond the image."""
    _, made = pooled((1, 1, 32, 32), kernel=(3, 3), pads=(1, 1, 1, 1))
    cuts = [(step.var, step.at) for step in made.steps if isinstance(step, Partition)]
    assert [at for _, at in cuts] == [1, 3, 1, 31]
    free = [op for op in made.kernel.walk() if isinstance(op, Load) and not op.where]
    assert any(str(op.source.buffer.space) == "heap" for op in free)


@pytest.mark.parametrize(
    "how",
    [
        {"kernel": (1, 8), "strides": (1, 8)},  # lanes too far apart
        {"kernel": (7, 7), "strides": (1, 1)},  # too many taps
        {"kernel": (3, 1)},  # nothing moves along the lanes
    ],
)
def test_other_windows_are_left_alone(how: dict[str, Any]) -> None:
    _, made = pooled((1, 2, 32, 64), **how)
    assert not in_registers(made.kernel)


def test_extents_known_only_at_run_time_are_left_alone() -> None:
    _, made = pooled((1, 2, 32, sym("W")), kernel=(3, 3))
    assert not in_registers(made.kernel)


def test_a_refusal_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Value:
        raise sliding.Refused("no edge")

    shape = (1, 1, 32, 32)
    monkeypatch.setattr(sliding, "_apart", refuse)
    module, made = pooled(shape, kernel=(3, 3), pads=(1, 1, 1, 1))
    assert not in_registers(made.kernel) and any("no edge" in why for _, why in made.refusals)
    x = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    out = np.zeros_like(x)
    assert run_kernel(made.kernel, [x, out], check=True) == 0
    np.testing.assert_array_equal(out, run(module, [x])[0])
