"""Rematerialisation: the budget is met, no bit changes, copies stay where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irc
from irc.ir.core import Builder, Value
from irc.ir.errors import Error
from irc.ir.interpret import run
from irc.ir.ops.autodiff import Remat
from irc.ir.ops.core import Const, Func, Module
from irc.ir.target import Target
from irc.ir.verify import verify
from irc.passes.autodiff.grad import differentiate
from irc.passes.autodiff.remat import Parts, activation_memory, within
from irc.passes.fuse import Fuse
from irc.passes.pipeline import Rematerialise, compile_module, parse_pipeline

Function = Callable[..., Func]
ROWS, WIDTH, LAYERS, DEEP = 64, 16, 6, 24
KEPT = ROWS * WIDTH * 4


def number(b: Builder, value: float) -> Value:
    return b.insert(Const(np.asarray(value, np.float32))).result


def net(b: Builder, x: Value, *weights: Value) -> list[Value]:
    """Layers of exp(tanh(x w) / 2): the sum of squares, and of the elements, of the last."""
    for w in weights:
        y = b.tanh(b.matmul(x, w))
        x = b.exp(b.mul(y, number(b, 0.5)))
    return [b.reduce_sum(b.mul(x, x), axes=(0, 1)), b.reduce_sum(x, axes=(0, 1))]


@pytest.fixture
def trained(function: Function) -> Func:
    """The network with the gradients of its weights; results: loss, sum, gradients."""
    types = [f"f32[{ROWS}, {WIDTH}]", *[f"f32[{WIDTH}, {WIDTH}]"] * LAYERS]
    return differentiate(function(types, net), range(1, LAYERS + 1))


@pytest.fixture
def deep(function: Function) -> Func:
    """Many layers."""
    types = [f"f32[{ROWS}, {WIDTH}]", *[f"f32[{WIDTH}, {WIDTH}]"] * DEEP]
    return differentiate(function(types, net), range(1, DEEP + 1))


def inputs(func: Func) -> list[Any]:
    rng = np.random.default_rng(0)
    shapes = [v.tensor.shape for v in func.args]
    return [(rng.standard_normal(s) / np.sqrt(s[-1])).astype(np.float32) for s in shapes]


def test_what_is_kept(trained: Func) -> None:
    """Each layer's tanh and exp are read by the backward part; products are not."""
    assert activation_memory(trained, 2) == 2 * LAYERS * KEPT
    assert {v.op.name for v in Parts(trained, 2).read} == {"tanh", "exp"}


@pytest.mark.parametrize("share", [1.0, 0.75, 0.5, 0.25, 0.09])
def test_the_budget_is_met_and_no_bit_changes(trained: Func, share: float) -> None:
    made = within(trained, share, 2)
    verify(made)
    assert activation_memory(made, 2) <= share * activation_memory(trained, 2)
    arrays = inputs(trained)
    for got, want in zip(run(made, arrays), run(trained, arrays), strict=True):
        np.testing.assert_array_equal(got, want)


def test_bytes_or_a_share(trained: Func) -> None:
    assert activation_memory(within(trained, 3 * KEPT, 2), 2) == 3 * KEPT
    assert activation_memory(within(trained, 3.0 * KEPT, 2), 2) == 3 * KEPT
    with pytest.raises(Error) as caught:
        within(trained, -1, 2)
    assert caught.value.code == "E0606" and "lowest: 0" in str(caught.value.details)


def test_cheap_ops_are_repeated_first(trained: Func) -> None:
    """At half: every exp again from its tanh, no product."""
    made = within(trained, 0.5, 2)
    backward = Parts(made, 2).backward
    again = [op for op in backward if op.name == "exp"]
    assert len(again) == LAYERS
    products = [op for op in backward if op.name == "matmul"]
    assert len(products) == len([op for op in Parts(trained, 2).backward if op.name == "matmul"])
    lowest = within(trained, 0.25, 2)
    assert [op for op in Parts(lowest, 2).backward if op.name == "tanh"]


def test_copies_outlive_common_subexpressions(trained: Func, passed: Any) -> None:
    made = passed(Module.make([within(trained, 0.5, 2)])).main
    assert activation_memory(made, 2) <= 0.5 * activation_memory(trained, 2)
    assert len([op for op in made.body if op.name == "exp"]) == 2 * LAYERS


def test_fusion_keeps_copies_late(trained: Func) -> None:
    """After fusion nothing holds copies back any more, yet they stand behind the results."""
    module = Module.make([within(trained, 0.5, 2)])
    for step in parse_pipeline("canonicalize,cse,decompose,canonicalize,cse"):
        module = step.run(module)
    module = Fuse().run(module)
    verify(module)
    ops = list(module.main.body)
    assert not [op for op in module.walk() if op.name == "recompute"]
    holds = [[inner.name for inner in op.walk()] for op in ops]
    copies = [k for k, names in enumerate(holds) if names.count("exp") and "matmul" not in names]
    results = {v.op for v in module.main.returned[:2]}
    last = max([k for k, op in enumerate(ops) if op in results])
    assert len([k for k in copies if k > last]) == LAYERS


@pytest.mark.parametrize("target", ["cpu", "c"])
def test_compiled_results_are_the_same_to_the_bit(trained: Func, target: str) -> None:
    arrays = inputs(trained)
    found = [
        irc.compile(Module.make([within(trained, share, 2)]), target=target).run(arrays)
        for share in (1.0, 0.3)
    ]
    for got, want in zip(*found, strict=True):
        np.testing.assert_array_equal(got, want)


def test_less_memory_is_needed(trained: Func) -> None:
    def arena(share: float) -> Any:
        found = compile_module(Module.make([within(trained, share, 2)]), Target("plain"))
        assert found.planned is not None
        return found.planned.arena_bytes

    assert arena(0.5) < 0.75 * arena(1.0)
    assert arena(0.09) < 0.65 * arena(1.0)


def test_a_copy_is_not_held_for_readers_far_away(deep: Func) -> None:
    """Of many layers, all of which are computed again, few are there at a time."""
    made = within(deep, 0.05, 2)
    ops = list(made.body)
    at = {op: k for k, op in enumerate(ops)}
    backward = Parts(made, 2).backward
    copies = [op for op in backward if op.name in ("tanh", "exp")]
    assert len(copies) > 2 * DEEP, "the first layers are computed more than once"
    held = [max([at[u] for u in op.results[0].users]) - at[op] for op in copies]
    assert max(held) < len(backward) / 2


def test_the_pass(trained: Func) -> None:
    module = Module.make([trained.copy()])
    (step,) = parse_pipeline("rematerialise{budget=0.5 results=2}")
    assert step == Rematerialise(budget=0.5, results=2)
    step.run(module)
    assert activation_memory(module.main, 2) == LAYERS * KEPT


def test_remat_keeps_the_inputs_alone(function: Function, checked: Any) -> None:
    def build(b: Builder, x: Value, w: Value) -> Value:
        def body(b: Builder, x: Value) -> list[Value]:
            for _ in range(3):
                x = b.mul(b.exp(b.mul(x, w)), x)  # w is read from outside
            return [x]

        made = b.insert(Remat.make([x], body)).result
        return b.reduce_sum(b.mul(made, made), axes=(0,))

    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0.2, 0.6, 5), rng.uniform(0.2, 0.6, 5)]
    grown = checked(["f64[5]", "f64[5]"], build, [0, 1], arrays)
    assert activation_memory(grown, 1) == 5 * 8  # the region's result, read by the square
    assert [op for op in grown.body if op.name == "recompute"]


def test_nested_remat(checked: Any) -> None:
    def build(b: Builder, x: Value) -> Value:
        inner = lambda b, x: [b.mul(b.exp(x), x)]  # noqa: E731
        outer = lambda b, x: [b.exp(b.insert(Remat.make([b.neg(x)], inner)).result)]  # noqa: E731
        return b.reduce_sum(b.insert(Remat.make([x], outer)).result, axes=(0,))

    checked(["f64[4]"], build, [0], [np.linspace(-1, 1, 4)])
