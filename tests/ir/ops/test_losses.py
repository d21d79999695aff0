"""Losses refuse labels that are no class, and know the easy cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc.backends.cpu.build import build
from irc.backends.cpu.host import codegen_target
from irc.backends.cpu.target import cpu_target
from irc.ir.core import Builder
from irc.ir.errors import Error
from irc.ir.ops.core import Func, Module, Return
from irc.ir.types import parse_type
from irc.passes.autodiff.grad import differentiate
from irc.passes.pipeline import compile_module


@pytest.mark.parametrize("label", [3, -1, 1 << 40])
def test_labels_out_of_range(apply: Any, label: int) -> None:
    with pytest.raises(Error, match="cross_entropy: index"):
        apply("cross_entropy", np.zeros((2, 3)), np.asarray([0, label]))


def test_labels_out_of_range_in_compiled_code() -> None:
    """An error status, by the program that gives the gradient as well."""
    func = Func.make("main", [parse_type("f32[4, 3]"), parse_type("i64[4]")])
    b = Builder(func.body)
    b.emit(Return, b.cross_entropy(*func.args, reduction="mean"))
    target = cpu_target(1)
    compiled = compile_module(Module.make([differentiate(func, [0])]), target)
    assert compiled.planned is not None
    program = build(compiled.planned, target, codegen=codegen_target(None))
    x = np.zeros((4, 3), np.float32)
    loss, grad = program.run([x, np.asarray([0, 1, -100, 2])])
    np.testing.assert_allclose(loss, np.log(3), rtol=1e-6)
    assert not grad[2].any()
    with pytest.raises(Error, match="E0506"):
        program.run([x, np.asarray([0, 1, 3, 2])])


def test_large_logits_do_not_overflow(apply: Any) -> None:
    x = np.asarray([[1e4, 0.0, -1e4]], np.float32)
    found = [apply("cross_entropy", x, np.asarray([k])).item() for k in range(3)]
    np.testing.assert_allclose(found, [0, 1e4, 2e4])


def test_one_way_to_spell(apply: Any) -> None:
    """As many steps as labels: the one alignment's probability."""
    x = np.log(np.asarray([[[0.2, 0.5, 0.3]], [[0.1, 0.1, 0.8]]]))
    two = np.asarray([2])
    found = apply("ctc_loss", x, np.asarray([[1, 2]]), two, two)
    np.testing.assert_allclose(found, -np.log([0.5 * 0.8]))
    found = apply("ctc_loss", x, np.asarray([[1, 2]]), two, np.asarray([0]))
    np.testing.assert_allclose(found, -np.log([0.2 * 0.1]))


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_no_way_to_spell(apply: Any, zero_infinity: bool) -> None:
    x, two = np.zeros((2, 1, 3)), np.asarray([2])
    found = apply("ctc_loss", x, np.asarray([[1, 1]]), two, two, zero_infinity=zero_infinity)
    assert found.item() == (0 if zero_infinity else np.inf)
