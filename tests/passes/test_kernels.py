"""Fused regions to kernels: names, sharing, refused schedules."""

from collections.abc import Sequence

import numpy as np
import pytest

from irc.ir.core import Builder
from irc.ir.errors import Error
from irc.ir.interpret import run
from irc.ir.ops.core import Const, Func, Fused, Module, Return
from irc.ir.ops.plan import Launch
from irc.ir.target import Target
from irc.ir.types import TensorType, f32
from irc.passes.fuse import Fuse
from irc.passes.lower.generic import LowerGeneric
from irc.passes.lower.kernels import LowerKernels, content, kernel_name
from irc.passes.schedule.steps import Step, vector

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def generics(count: int = 1) -> Module:
    """relu(x @ I) some times over, as fused generics."""
    func = Func.make("main", [TensorType(f32, (3, 4))], ["x"])
    b = Builder(func.body)
    y = func.args[0]
    w = b.insert(Const(np.eye(4, dtype=np.float32))).result
    for _ in range(count):
        y = b.relu(b.matmul(y, w))
    b.emit(Return, y)
    return LowerGeneric().run(Fuse().run(Module.make([func])))


def test_a_refused_schedule_leaves_plain_loops() -> None:
    def schedule(kernel: Func, target: Target) -> Sequence[Step]:
        return [vector("nowhere")]

    step = LowerKernels(target=Target("t", schedule=schedule))
    module = step.run(generics())
    assert step.refused == [("k0_matmul_relu", "there is no loop nowhere")]
    np.testing.assert_array_equal(run(module, [X])[0], X)


def test_a_defect_of_a_schedule_is_not_hidden() -> None:
    def schedule(kernel: Func, target: Target) -> Sequence[Step]:
        raise Error("E0999", "broken")

    with pytest.raises(Error, match="broken"):
        LowerKernels(target=Target("t", schedule=schedule)).run(generics())


def test_the_schedule_can_be_switched_off() -> None:
    def schedule(kernel: Func, target: Target) -> Sequence[Step]:
        raise AssertionError

    LowerKernels(schedule=False, target=Target("t", schedule=schedule)).run(generics())


def test_launches_of_one_kernel() -> None:
    module = LowerKernels().run(generics(3))
    launches = [op for op in module.walk() if isinstance(op, Launch)]
    assert [op.callee for op in launches] == ["k0_matmul_relu"] * 3
    kernel = module.func("k0_matmul_relu")
    assert len(kernel.inputs) == len(kernel.args) == 3 + len(launches[0].scratch)
    np.testing.assert_array_equal(run(module, [X])[0], X)


def test_names_and_content() -> None:
    fused = [op for op in generics(2).walk() if isinstance(op, Fused)]
    assert content(fused[0]) == content(fused[1])
    assert kernel_name(fused[0], 7) == "k7_matmul_relu"
    fused[0].set_attr("label", "conv+" * 30)
    assert len(kernel_name(fused[0], 7)) <= 48 and kernel_name(fused[0], 7).startswith(
        "k7_conv_conv"
    )
    fused[0].set_attr("label", "")
    assert kernel_name(fused[0], 7) == "k7"
