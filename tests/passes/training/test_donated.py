"""States that are read after their update: put in order where that helps, refused where not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from irc.ir.core import Builder, Value
from irc.ir.errors import Error
from irc.ir.interpret import run
from irc.ir.ops.control import If
from irc.ir.ops.core import Func, Module, Return
from irc.ir.target import Target
from irc.ir.types import parse_type
from irc.ir.verify import verify
from irc.passes.pipeline import compile_module
from irc.passes.training.donated import OrderUpdates, order_updates, verify_donated

Build = Callable[..., Sequence[Value]]


def step(build: Build, states: int = 1) -> Func:
    """States w0, w1 ... and a batch x; the first results are the next states."""
    types = ["f32[4]"] * (states + 1)
    names = [*[f"w{k}" for k in range(states)], "x"]
    func = Func.make(
        "main", [parse_type(t) for t in types], names, state=[(k, k) for k in range(states)]
    )
    b = Builder(func.body)
    b.emit(Return, *build(b, *func.args))
    verify(func)
    return func


def early(b: Builder, w: Value, x: Value) -> list[Value]:
    seen = b.mul(w, x)
    return [b.add(w, x), seen]


def late(b: Builder, w: Value, x: Value) -> list[Value]:
    new = b.add(w, x)
    return [new, b.mul(b.reshape(w, shape=(2, 2)), b.reshape(x, shape=(2, 2)))]


def in_region(b: Builder, w: Value, x: Value) -> list[Value]:
    new = b.add(w, x)
    positive = b.gt(b.reduce_sum(x, axes=(0,)), b.reduce_sum(b.neg(x), axes=(0,)))
    made = If.make(positive, lambda b: [b.mul(w, x)], lambda b: [x])
    return [new, b.insert(made).result]


def both(b: Builder, w: Value, x: Value) -> list[Value]:
    new = b.add(w, x)
    return [new, b.sub(new, w)]


def crossed(b: Builder, w0: Value, w1: Value, x: Value) -> list[Value]:
    """Each state's next value needs the other's old one."""
    return [b.add(w0, w1), b.mul(w1, w0)]


def test_reading_before_the_update_is_right() -> None:
    verify_donated(step(early))


@pytest.mark.parametrize("build", [late, in_region])
def test_late_readers_are_found_and_put_in_order(build: Build) -> None:
    func = step(build)
    before = func.copy()
    with pytest.raises(Error) as caught:
        verify_donated(func)
    assert caught.value.code == "E0603" and "'w0'" in caught.value.message
    order_updates(func)
    verify(func)
    verify_donated(func)
    arrays = [np.arange(4, dtype=np.float32), np.ones(4, np.float32)]
    for got, want in zip(run(func, arrays), run(before, arrays), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("build", "states"), [(both, 1), (crossed, 2)])
def test_what_no_order_helps_is_refused(build: Build, states: int) -> None:
    with pytest.raises(Error) as caught:
        order_updates(step(build, states))
    assert caught.value.code == "E0603"
    assert "updated by op 'add'" in caught.value.details[0]


def test_states_that_stay_or_change_places_are_no_updates() -> None:
    for build in (lambda b, v, w, x: [v, w], lambda b, v, w, x: [w, v]):
        func = step(build, 2)
        order_updates(func)
        verify_donated(func)


def test_in_order_the_plan_needs_no_copy() -> None:
    def copies(module: Module) -> int:
        planned = compile_module(module, Target("plain")).planned
        assert planned is not None
        return len(planned.copies)

    assert copies(Module.make([step(both)])) == 1
    assert copies(OrderUpdates().run(Module.make([step(late)]))) == 0
