"""Ops whose data decides extents: numpy semantics, fresh symbols, and a run between kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc.backends.cpu.mixed import build_mixed
from irc.backends.cpu.target import cpu_target
from irc.ir.core import OPS, Builder
from irc.ir.interpret import run
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.text import check_round_trip
from irc.ir.types import parse_type
from irc.ir.verify import verify
from irc.passes.pipeline import Options, compile_module

X = (np.arange(20).reshape(4, 5) * 7 % 3).astype(np.float32)


def module_of(*types: str) -> tuple[Module, Builder, Any]:
    func = Func.make("main", [parse_type(t) for t in types], [f"x{k}" for k in range(len(types))])
    return Module.make([func]), Builder(func.body), func.args


def test_each_result_has_an_extent_of_its_own() -> None:
    _, b, (x,) = module_of("f32[4, 5]")
    first, second = b.non_zero(x), b.non_zero(x)
    assert first.type is not second.type
    assert first.tensor.shape[0] == 2 and str(first.tensor.shape[1]) != str(second.tensor.shape[1])


def test_between_kernels() -> None:
    """Host steps bind the extents, kernels run on what they give."""
    module, b, (x, keep) = module_of("f32[4, 5]", "bool[4]")
    rows = b.compress(x, keep, axis=0)
    squares = b.reduce_sum(b.exp(b.mul(rows, rows)), axes=(1,))
    one = b.insert(Const(np.ones((2, 1), np.int64))).result
    values, first, inverse, counts = b.unique(x)
    b.emit(Return, squares, b.add(b.non_zero(rows), one), values, first, inverse, counts)
    verify(module)
    check_round_trip(module)
    given = [X, np.array([True, False, True, True])]
    want = run(module, given)
    lowered = compile_module(module, cpu_target(1), Options(to_phase="loops")).module
    exe = build_mixed(lowered, cpu_target(1))
    assert exe.coverage()["kernels"] >= 2
    for got, expected in zip(exe.run(given), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_non_zero() -> None:
    evaluate = OPS["non_zero"].evaluate
    np.testing.assert_array_equal(evaluate(X), np.stack(np.nonzero(X)))
    assert evaluate(np.array(3)).shape == (0, 1) and evaluate(np.array(0)).shape == (0, 0)
    np.testing.assert_array_equal(evaluate(np.array([np.nan, 0, -0.0])), [[0]])


def test_compress() -> None:
    evaluate = OPS["compress"].evaluate
    keep = np.array([False, True])
    np.testing.assert_array_equal(evaluate(X, keep, axis=0), X[1:2])
    np.testing.assert_array_equal(evaluate(X, keep, axis=None), X.reshape(-1)[1:2])


@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_unique(axis: int | None, sort: bool) -> None:
    """The parts put the operand together again."""
    x = X[:, [1, 0, 1, 3, 0]]
    values, first, inverse, counts = OPS["unique"].evaluate(x, axis=axis, sorted=sort)
    flat = x.reshape(-1) if axis is None else x
    np.testing.assert_array_equal(np.take(values, inverse, axis or 0), flat)
    np.testing.assert_array_equal(np.take(flat, first, axis or 0), values)
    np.testing.assert_array_equal(counts, np.bincount(inverse))
    assert sort or (np.diff(first) > 0).all()


def test_axes_are_held_counted_from_the_front() -> None:
    _, b, (x,) = module_of("f32[4, 5]")
    assert b.unique(x, axis=-1)[0].op.attributes["axis"] == 1
