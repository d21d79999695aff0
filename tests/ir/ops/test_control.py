"""If, for, while and scan through the interpreter; nesting, captures, types that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from irc.ir.core import Block, Builder, Op, Value
from irc.ir.dims import sym
from irc.ir.errors import Error
from irc.ir.interpret import run
from irc.ir.ops.control import ForLoop, If, Scan, While, block_of
from irc.ir.ops.core import Const, Func, Return, Yield
from irc.ir.text import check_round_trip
from irc.ir.types import boolean, parse_type


def function(types: Sequence[str], build: Callable[..., Sequence[Value]]) -> Func:
    """A function of these parameters that returns what `build(b, *parameters)` gives."""
    func = Func.make("main", [parse_type(t) for t in types])
    b = Builder(func.body)
    b.emit(Return, *build(b, *func.args))
    check_round_trip(func)
    return func


def one(b: Builder, op: Op) -> Sequence[Value]:
    return b.insert(op).results


def test_if_runs_one_region() -> None:
    def build(b: Builder, c: Value, x: Value) -> Sequence[Value]:
        return one(b, If.make(c, lambda b: [b.add(x, x), x], lambda b: [b.neg(x), b.mul(x, x)]))

    func = function(["bool[]", "f32[N]"], build)
    x = np.array([1, 2, 3], np.float32)
    for condition, want in ((True, [x + x, x]), (False, [-x, x * x])):
        for got, expected in zip(run(func, [np.asarray(condition), x]), want, strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("trips", [0, 1, 5])
def test_for_carries_values(trips: int) -> None:
    def body(b: Builder, index: Value, total: Value, last: Value) -> Sequence[Value]:
        return [b.add(total, index), index]

    def static(b: Builder, x: Value) -> Sequence[Value]:
        return one(b, ForLoop.make(trips, [x, x], body))

    def counted(b: Builder, x: Value, n: Value) -> Sequence[Value]:
        return one(b, ForLoop.make(n, [x, x], body))

    start = np.asarray(100)
    want = [100 + sum(range(trips)), trips - 1 if trips else 100]
    assert [int(v) for v in run(function(["i64[]"], static), [start])] == want
    found = run(function(["i64[]", "i64[]"], counted), [start, np.asarray(trips)])
    assert [int(v) for v in found] == want
    if not trips:
        found = run(function(["i64[]", "i64[]"], counted), [start, np.asarray(-3)])
        assert [int(v) for v in found] == want


def test_for_with_a_symbolic_trip_count() -> None:
    def build(b: Builder, x: Value, y: Value) -> Sequence[Value]:
        return one(b, ForLoop.make(sym("N"), [y], lambda b, i, y: [b.add(y, i)]))

    func = function(["f32[N]", "i64[]"], build)
    assert int(run(func, [np.zeros(4, np.float32), np.asarray(0)])[0]) == 6


@pytest.mark.parametrize(("bound", "want"), [(None, 128), (3, 8), (0, 1)])
def test_while_stops(bound: int | None, want: int) -> None:
    def build(b: Builder, x: Value, limit: Value) -> Sequence[Value]:
        def before(b: Builder, x: Value) -> Sequence[Value]:
            return [b.lt(x, limit)]

        return one(b, While.make([x], before, lambda b, x: [b.add(x, x)], max_trip=bound))

    func = function(["i32[]", "i32[]"], build)
    found = run(func, [np.asarray(1, np.int32), np.asarray(100, np.int32)])
    assert int(found[0]) == want


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_is_a_running_sum(reverse: bool) -> None:
    def build(b: Builder, x: Value, h: Value) -> Sequence[Value]:
        def body(b: Builder, h: Value, part: Value) -> Sequence[Value]:
            total = b.add(h, part)
            return [total, total, b.mul(part, part)]

        return one(b, Scan.make([h], [x], body, reverse=reverse))

    func = function(["f64[T, 3]", "f64[3]"], build)
    x, h = np.random.default_rng(0).standard_normal((4, 3)), np.ones(3)
    last, sums, squares = run(func, [x, h])
    steps = x[::-1] if reverse else x
    running = h + np.cumsum(steps, 0)
    np.testing.assert_allclose(last, running[-1])
    np.testing.assert_allclose(sums, running[::-1] if reverse else running)
    np.testing.assert_allclose(squares, x * x)


def test_scan_of_nothing_and_scan_by_length() -> None:
    def body(b: Builder, h: Value, *parts: Value) -> Sequence[Value]:
        return [b.add(h, h), h]

    def scanned(b: Builder, h: Value, x: Value) -> Sequence[Value]:
        return one(b, Scan.make([h], [x], body))

    def counted(b: Builder, h: Value) -> Sequence[Value]:
        return one(b, Scan.make([h], [], body, length=3))

    last, stack = run(
        function(["f32[2]", "f32[T]"], scanned), [np.ones(2, np.float32), np.ones(0, np.float32)]
    )
    assert stack.shape == (0, 2) and (last == 1).all()
    last, stack = run(function(["f32[2]"], counted), [np.ones(2, np.float32)])
    assert stack.tolist() == [[1, 1], [2, 2], [4, 4]] and (last == 8).all()


def test_loops_nest_and_capture() -> None:
    """sum over i < 3, j < i of x, by a for in a for, with an if inside."""

    def build(b: Builder, x: Value, zero: Value) -> Sequence[Value]:
        def inner(i: Value) -> Callable[..., Sequence[Value]]:
            def body(b: Builder, j: Value, total: Value) -> Sequence[Value]:
                keep = b.insert(If.make(b.lt(j, i), lambda b: [b.add(total, x)], lambda b: [total]))
                return keep.results

            return body

        def outer(b: Builder, i: Value, total: Value) -> Sequence[Value]:
            return one(b, ForLoop.make(3, [total], inner(i)))

        return one(b, ForLoop.make(3, [zero], outer))

    func = function(["f32[]", "f32[]"], build)
    assert float(run(func, [np.float32(2.5), np.float32(0)])[0]) == 7.5


def constant(b: Builder, value: Any, dtype: Any) -> Value:
    return b.insert(Const(np.asarray(value, dtype))).result


def refused(constraint: str, make: Callable[[Builder, Value], Any]) -> None:
    """`make` raises E0340 naming the constraint."""
    block = Block([parse_type("f32[3]")])
    with pytest.raises(Error) as caught:
        make(Builder(block), block.args[0])
    assert caught.value.code == "E0340" and f"({constraint})" in caught.value.message


def test_constraints() -> None:
    def flag(b: Builder) -> Value:
        return constant(b, True, np.bool_)

    def index(b: Builder, dtype: Any = np.int64) -> Value:
        return constant(b, 2, dtype)

    same = lambda b, *xs: xs  # noqa: E731
    truth = lambda b, *xs: [flag(b)]  # noqa: E731
    refused("C1", lambda b, x: If.make(b.lt(x, x), lambda b: [x], lambda b: [x]))
    refused("C2", lambda b, x: If.make(flag(b), lambda b: [x], lambda b: [x, x]))
    refused("C2", lambda b, x: If.make(flag(b), lambda b: [x], lambda b: [index(b)]))
    refused("C1", lambda b, x: ForLoop.make(index(b, np.int32), [x], lambda b, i, x: [x]))
    block = block_of((parse_type("i64[]"), parse_type("f32[3]")), lambda b, i, x: [x])
    refused("C1", lambda b, x: ForLoop(None, x, regions=[block]))
    refused("C1", lambda b, x: ForLoop(index(b), x, trip=3, regions=[block]))
    wrong = block_of((parse_type("f32[3]"),), same)
    refused("C2", lambda b, x: ForLoop(None, x, trip=3, regions=[wrong]))
    refused("C3", lambda b, x: ForLoop.make(3, [x], lambda b, i, x: [i]))
    refused("C1", lambda b, x: While(x, x, regions=[wrong, wrong]))
    refused("C2", lambda b, x: While.make([x], lambda b, x: [b.lt(x, x)], same))
    refused("C3", lambda b, x: While.make([x], truth, lambda b, x: [x, x]))
    refused("C4", lambda b, x: While.make([x], truth, same, max_trip=-1))
    refused("C1", lambda b, x: Scan.make([x], [], same))
    refused("C1", lambda b, x: Scan.make([x], [x], same, length=4))
    refused("C2", lambda b, x: Scan(x, x, carried=1, regions=[wrong]))
    refused("C3", lambda b, x: Scan.make([x], [x], lambda b, h, s: [s, h]))


def test_a_region_needs_its_yield() -> None:
    block = Block()
    condition = Builder(block).insert(Const(np.asarray(True))).result
    with pytest.raises(Error, match="region 1 does not end in a yield"):
        If(condition, regions=[block_of((), lambda b: []), Block()])
    assert isinstance(block_of((), lambda b: []).last, Yield)
    assert condition.tensor.dtype is boolean
