"""Structured control flow in reverse, against differences: captures, missing paths, nesting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import irc
from irc.ir.core import Builder, Value
from irc.ir.errors import Error
from irc.ir.interpret import run
from irc.ir.ops.autodiff import CustomGradient, Remat
from irc.ir.ops.control import ForLoop, If, Scan, While
from irc.ir.ops.core import Const, Func, Module
from irc.ir.types import f64
from irc.ir.verify import verify
from irc.passes.autodiff.grad import differentiate, unreached

Checked = Callable[..., Func]


def const(b: Builder, value: Any) -> Value:
    return b.insert(Const(np.asarray(value))).result


def total(b: Builder, x: Value) -> Value:
    return b.reduce_sum(x, axes=tuple(range(x.tensor.rank)))


def cube(b: Builder, x: Value) -> Value:
    return b.mul(b.mul(x, x), x)


def some(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(0.4, 1.2, shape)


def ops(func: Func, name: str) -> list[Any]:
    return [op for op in func.walk() if op.name == name]


@pytest.mark.parametrize("taken", [True, False])
def test_if_gives_outer_values_of_both_branches_cotangents(checked: Checked, taken: bool) -> None:
    def build(b: Builder, p: Value, x: Value, y: Value, z: Value) -> Value:
        made = b.insert(
            If.make(
                p,
                lambda b: [b.mul(cube(b, x), z), x, y],
                lambda b: [b.mul(b.mul(x, y), y), const(b, np.ones(3)), x],
            )
        )
        return total(b, b.mul(b.mul(made.results[0], made.results[1]), made.results[2]))

    grown = checked(
        ["bool[]", "f64[3]", "f64[3]", "f64[3]"],
        build,
        [1, 2, 3],
        [np.asarray(taken), some(3), some(3, seed=1), some(3, seed=2)],
    )
    forward, backward = ops(grown, "if")
    assert len(backward.results) == 3
    assert len(forward.results) < 3 + 4  # residuals of one type share results


def test_if_without_a_path_has_no_reverse(function: Checked) -> None:
    def build(b: Builder, p: Value, x: Value) -> Value:
        ones = const(b, np.ones(3))
        made = b.insert(If.make(p, lambda b: [b.stop_gradient(x)], lambda b: [ones]))
        return b.add(total(b, made.result), total(b, x))

    grown = differentiate(function(["bool[]", "f64[3]"], build))
    assert len(ops(grown, "if")) == 1
    np.testing.assert_array_equal(run(grown, [np.asarray(True), some(3)])[1], np.ones(3))


def step(b: Builder, w: Value, h: Value, x: Value) -> tuple[Value, Value]:
    new = b.mul(b.add(b.mul(h, w), x), h)
    return new, b.mul(new, w)


@pytest.mark.parametrize("trips", [0, 1, 4])
@pytest.mark.parametrize("reverse", [False, True])
def test_scan_runs_back(checked: Checked, trips: int, reverse: bool) -> None:
    def build(b: Builder, w: Value, h: Value, x: Value) -> Value:
        scan = b.insert(
            Scan.make([h], [x], lambda b, h, x: step(b, w, h, x), reverse=reverse)
        )
        last, stack = scan.results
        return b.add(total(b, last), total(b, b.mul(stack, stack)))

    arrays = [some(3), some(3, seed=1), some(trips, 3, seed=2)]
    checked(["f64[3]", "f64[3]", f"f64[{trips}, 3]"], build, [0, 1, 2], arrays)


def test_scan_keeps_only_what_the_reverse_reads(checked: Checked) -> None:
    def build(b: Builder, w: Value, h: Value, x: Value) -> Value:
        def body(b: Builder, h: Value, count: Value, x: Value) -> Sequence[Value]:
            turned = b.transpose(w, perm=(1, 0))  # invariant: leaves the loop
            shifted = b.add(b.add(h, x), b.broadcast_to(const(b, 1.0), shape=(2, 2)))
            return [b.mul(shifted, turned), b.add(count, const(b, 1))]

        start = const(b, 0)
        return total(b, b.insert(Scan.make([h, start], [x], body)).results[0])

    arrays = [some(2, 2), some(2, 2, seed=1), some(3, 2, 2, seed=2)]
    grown = checked(["f64[2, 2]", "f64[2, 2]", "f64[3, 2, 2]"], build, [0, 1, 2], arrays)
    forward, backward = ops(grown, "scan")
    assert len(forward.results) == 3, "one stack: the sum that the product's gradient reads"
    assert not [op for op in forward.walk() if op.name == "transpose"]
    assert backward.carried == 2  # h and the sum for what was w transposed; no integer
    assert len(backward.scanned) == 1


def test_views_and_what_no_round_changes_are_made_again(checked: Checked) -> None:
    """A gather may not leave the loop, yet is no reason for a stack; nor is a view of what is
    stacked.
    """

    def build(b: Builder, w: Value, h: Value) -> Value:
        def body(b: Builder, h: Value) -> Sequence[Value]:
            row = b.mul(b.take(w, const(b, 1), axis=0), const(b, 0.5))
            return [b.mul(b.mul(h, b.transpose(h, perm=(1, 0))), row)]

        return total(b, b.insert(Scan.make([h], [], body, length=3)).results[0])

    grown = checked(["f64[3, 2]", "f64[2, 2]"], build, [0, 1], [some(3, 2), some(2, 2, seed=1)])
    forward, backward = ops(grown, "scan")
    assert len(forward.results) == 3  # h, and the product that the gather's gradient reads
    assert len([op for op in backward.walk() if op.name == "take"]) == 1


def test_scan_of_data_alone_gives_its_slices_no_gradient(checked: Checked) -> None:
    def build(b: Builder, w: Value, h: Value, x: Value) -> Value:
        scan = b.insert(Scan.make([h], [x], lambda b, h, x: step(b, w, h, x)))
        return total(b, scan.results[0])

    grown = checked(
        ["f64[3]", "f64[3]", "f64[4, 3]"], build, [0], [some(3), some(3), some(4, 3, seed=2)]
    )
    backward = ops(grown, "scan")[1]
    assert len(backward.results) == backward.carried == 2


def test_unused_results_and_unmoved_carries(checked: Checked) -> None:
    """The first carried value matters only through the second; the stack is not used."""

    def build(b: Builder, x: Value, y: Value, z: Value) -> Value:
        def body(b: Builder, a: Value, c: Value, d: Value) -> Sequence[Value]:
            return [b.mul(a, x), b.add(c, cube(b, a)), b.mul(d, d), b.mul(a, c)]

        scan = b.insert(Scan.make([y, z, z], [], body, length=3))
        return total(b, scan.results[1])

    checked(["f64[2]"] * 3, build, [0, 1, 2], [some(2), some(2, seed=1), some(2, seed=2)])


def test_a_carried_value_that_is_replaced(checked: Checked, function: Checked) -> None:
    """What is yielded has no gradient, yet the first round reads the initial value."""

    def build(b: Builder, x: Value, y: Value) -> Value:
        def body(b: Builder, a: Value, c: Value) -> Sequence[Value]:
            return [b.stop_gradient(a), b.add(c, cube(b, a))]

        first = b.insert(Scan.make([x, y], [], body, length=1))
        return b.add(total(b, first.results[1]), total(b, first.results[0]))

    checked(["f64[2]"] * 2, build, [1], [some(2), some(2, seed=1)])
    grown = differentiate(function(["f64[2]"] * 2, build), [0])
    x = some(2)
    np.testing.assert_allclose(run(grown, [x, x])[1], 3 * x * x)


def test_symbolic_lengths(function: Checked) -> None:
    def build(b: Builder, w: Value, h: Value, x: Value) -> Value:
        scan = b.insert(Scan.make([h], [x], lambda b, h, x: step(b, w, h, x)))
        return total(b, b.mul(scan.results[1], scan.results[1]))

    symbolic = differentiate(function(["f64[N]", "f64[N]", "f64[T, N]"], build))
    static = differentiate(function(["f64[3]", "f64[3]", "f64[4, 3]"], build))
    verify(symbolic)
    arrays = [some(3), some(3, seed=1), some(4, 3, seed=2)]
    for got, want in zip(run(symbolic, arrays), run(static, arrays), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("trips", [0, 1, 3])
def test_for_of_known_length(checked: Checked, trips: int) -> None:
    def build(b: Builder, x: Value, w: Value) -> Value:
        def body(b: Builder, index: Value, h: Value) -> Sequence[Value]:
            return [b.mul(b.mul(h, w), b.add(h, b.cast(index, to=f64)))]

        return total(b, b.insert(ForLoop.make(trips, [x], body)).result)

    checked(["f64[3]", "f64[3]"], build, [0, 1], [some(3), some(3, seed=1)])


@pytest.mark.parametrize("count", [-1, 0, 2, 9])
def test_for_of_a_bounded_count(checked: Checked, count: int) -> None:
    def build(b: Builder, n: Value, x: Value, w: Value) -> Value:
        bounded = b.min(n, const(b, 4))
        loop = ForLoop.make(bounded, [x], lambda b, _, h: [b.mul(b.mul(h, w), h)])
        return total(b, b.insert(loop).result)

    arrays = [np.asarray(count), some(3), some(3, seed=1)]
    checked(["i64[]", "f64[3]", "f64[3]"], build, [1, 2], arrays)


@pytest.mark.parametrize(("bound", "rounds"), [(0, 0), (2, 2), (9, 4)])
def test_while_with_a_bound(checked: Checked, bound: int, rounds: int) -> None:
    def build(b: Builder, x: Value, w: Value) -> Value:
        def before(b: Builder, h: Value, k: Value) -> Sequence[Value]:
            return [b.lt(total(b, h), const(b, 40.0))]

        def body(b: Builder, h: Value, k: Value) -> Sequence[Value]:
            return [b.mul(b.add(h, w), h), b.add(k, const(b, 1))]

        loop = b.insert(While.make([x, const(b, 0)], before, body, max_trip=bound))
        return total(b, loop.results[0])

    arrays = [np.array([1.0, 1.3]), np.array([0.5, 0.6])]
    checked(["f64[2]", "f64[2]"], build, [0, 1], arrays)


def test_loops_without_a_bound_say_so(function: Checked) -> None:
    def counted(b: Builder, n: Value, x: Value) -> Value:
        return total(b, b.insert(ForLoop.make(n, [x], lambda b, _, h: [cube(b, h)])).result)

    def tested(b: Builder, n: Value, x: Value) -> Value:
        loop = While.make([x], lambda b, h: [b.lt(total(b, h), const(b, 9.0))],
                          lambda b, h: [b.add(h, h)])  # fmt: skip
        return total(b, b.insert(loop).result)

    for build, remedy in ((counted, "min"), (tested, "max_trip")):
        with pytest.raises(Error) as caught:
            differentiate(function(["i64[]", "f64[3]"], build))
        assert caught.value.code == "E0602"
        assert remedy in (caught.value.hint or "")


@pytest.mark.parametrize("loop", ["for", "while"])
def test_what_an_unbounded_loop_reads_may_be_stopped(function: Checked, loop: str) -> None:
    def build(b: Builder, n: Value, x: Value) -> Value:
        held = b.stop_gradient(x)
        if loop == "for":
            made = b.insert(ForLoop.make(n, [held], lambda b, _, h: [cube(b, h)])).result
        else:
            before = lambda b, h: [b.lt(total(b, h), const(b, 9.0))]  # noqa: E731
            made = b.insert(While.make([held], before, lambda b, h: [b.add(h, h)])).result
        return b.add(total(b, made), total(b, x))

    grown = differentiate(function(["i64[]", "f64[3]"], build))
    np.testing.assert_array_equal(run(grown, [np.asarray(1), some(3)])[1], np.ones(3))


def walk(limit: float) -> Callable[..., Value]:
    """An if in a scan in a for, each reading what stands outside it."""

    def inner(b: Builder, h: Value, s: Value, w: Value, v: Value) -> Sequence[Value]:
        small = b.lt(total(b, h), const(b, limit))
        made = b.insert(If.make(small, lambda b: [b.mul(h, b.add(s, w))], lambda b: [b.mul(h, v)]))
        return [made.result, b.mul(made.result, h)]

    def build(b: Builder, x: Value, w: Value, v: Value) -> Value:
        def outer(b: Builder, _: Value, h: Value) -> Sequence[Value]:
            scan = b.insert(Scan.make([h], [v], lambda b, h, s: inner(b, h, s, w, v)))
            return [b.add(scan.results[0], b.reduce_sum(scan.results[1], axes=(0,)))]

        return total(b, b.insert(ForLoop.make(2, [x], outer)).result)

    return build


@pytest.mark.parametrize("limit", [0.1, 2.0, 100.0])
def test_nested(checked: Checked, limit: float) -> None:
    arrays = [some(3), some(3, seed=1), some(3, seed=2)]
    checked(["f64[3]", "f64[3]", "f64[3]"], walk(limit), [0, 1, 2], arrays)


@pytest.mark.parametrize("target", ["cpu", "c"])
def test_nested_loops_compile(function: Checked, target: str) -> None:
    """What an inner loop carries may lie in a slice of an outer loop's stack."""
    grown = differentiate(function(["f64[3]"] * 3, walk(2.0)))
    arrays = [some(3), some(3, seed=1), some(3, seed=2)]
    found = irc.compile(Module.make([grown.copy()]), target=target).run(arrays)
    for got, want in zip(found, run(grown, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("inside", ["scan", "if", "remat"])
def test_remat_and_own_gradients_among_loops(checked: Checked, inside: str) -> None:
    def own(b: Builder, x: Value) -> Value:
        made = CustomGradient.make(
            [x], lambda b, x: [b.mul(x, x)], lambda b, x, y, g: [b.mul(g, b.add(x, x))]
        )
        return b.insert(made).result

    def block(b: Builder, h: Value, w: Value) -> Value:
        return b.insert(Remat.make([h], lambda b, h: [b.mul(cube(b, own(b, h)), w)])).result

    def build(b: Builder, p: Value, x: Value, w: Value, s: Value) -> Value:
        def rounds(b: Builder, x: Value) -> list[Value]:
            body = lambda b, h, s: [b.add(block(b, h, w), s)]  # noqa: E731
            return [b.insert(Scan.make([x], [s], body)).result]

        if inside == "scan":
            return total(b, rounds(b, x)[0])
        if inside == "remat":
            return total(b, b.insert(Remat.make([x], rounds)).result)
        made = b.insert(If.make(p, lambda b: rounds(b, x), lambda b: [block(b, x, w)]))
        return total(b, made.result)

    arrays = [np.asarray(True), some(2) * 0.7, some(2, seed=1), some(3, 2, seed=2) * 0.2]
    checked(["bool[]", "f64[2]", "f64[2]", "f64[3, 2]"], build, [1, 2, 3], arrays)


def test_integers_that_a_round_needs_are_stacked(checked: Checked) -> None:
    """A walk through the rows of a table, the next row by the step number."""

    def build(b: Builder, w: Value, h: Value, steps: Value) -> Value:
        def body(b: Builder, at: Value, h: Value, step: Value) -> Sequence[Value]:
            return [b.rem(b.add(at, step), const(b, 3)), b.mul(h, b.take(w, at, axis=0))]

        return total(b, b.insert(Scan.make([const(b, 1), h], [steps], body)).results[1])

    arrays = [some(3, 2), some(2, seed=1), np.array([1, 2, 2, 1])]
    checked(["f64[3, 2]", "f64[2]", "i64[4]"], build, [0, 1], arrays)


@pytest.mark.parametrize("narrow", ["f16", "bf16"])
def test_cotangents_of_what_a_loop_reads_are_added_in_f32(function: Checked, narrow: str) -> None:
    """2048 ones in f16 stay 2048 when one is added to them at a time; in bf16 256 do."""
    trips = 3000

    def build(b: Builder, w: Value, x: Value) -> Value:
        def body(b: Builder, x: Value) -> Sequence[Value]:
            return [b.mul(w, x)]

        stack = b.insert(Scan.make([], [x], body)).result
        return b.reduce_sum(stack, axes=(0,))

    grown = differentiate(function([f"{narrow}[]", f"{narrow}[{trips}]"], build), [0])
    dtype = grown.args[0].tensor.dtype.np
    found = run(grown, [np.ones((), dtype), np.ones(trips, dtype)])[1]
    assert found.dtype == dtype
    assert found == np.asarray(trips, dtype)


def test_second_order_through_a_scan(function: Checked, checked: Checked) -> None:
    def build(b: Builder, w: Value, h: Value, x: Value) -> Value:
        scan = b.insert(Scan.make([h], [x], lambda b, h, x: step(b, w, h, x)))
        return b.add(total(b, scan.results[0]), total(b, cube(b, scan.results[1])))

    first = differentiate(
        function(["f64[2]", "f64[2]", "f64[3, 2]"], build), [0, 1, 2], keep=False
    )

    def summed(b: Builder, *args: Value) -> Value:
        """A scalar of the gradients."""

        body = first.body.copy()
        env: dict[Value, Value] = dict(zip(body.args, args, strict=True))
        for op in body:
            if not op.terminator:
                b.insert(op.copy(env))
        assert body.last is not None
        grads = [env[v] for v in body.last.operands]
        return b.add(b.add(total(b, cube(b, grads[0])), total(b, grads[1])), total(b, grads[2]))

    arrays = [some(2), some(2, seed=1), some(3, 2, seed=2)]
    checked(["f64[2]", "f64[2]", "f64[3, 2]"], summed, [0, 1, 2], arrays)


@pytest.mark.parametrize("target", ["cpu", "c"])
def test_compiled(function: Checked, target: str) -> None:
    def build(b: Builder, p: Value, x: Value, w: Value) -> Value:
        def body(b: Builder, h: Value, s: Value) -> Sequence[Value]:
            made = b.insert(If.make(p, lambda b: [b.mul(h, w)], lambda b: [cube(b, h)]))
            return [b.add(made.result, s), made.result]

        scan = b.insert(Scan.make([w], [x], body))
        before = lambda b, h: [b.lt(total(b, h), const(b, np.float32(50)))]  # noqa: E731
        loop = While.make([scan.results[0]], before, lambda b, h: [b.mul(h, w)], max_trip=3)
        return b.add(total(b, b.insert(loop).result), total(b, cube(b, scan.results[1])))

    grown = differentiate(function(["bool[]", "f32[4, 3]", "f32[3]"], build))
    exe = irc.compile(Module.make([grown.copy()]), target=target)
    for taken in (True, False):
        arrays = [np.asarray(taken), *[a.astype(np.float32) for a in (some(4, 3), some(3) + 1)]]
        for got, want in zip(exe.run(arrays), run(grown, arrays), strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-5)


def test_unreached_inputs_are_named(function: Checked) -> None:
    def build(b: Builder, x: Value, y: Value, z: Value) -> Value:
        return total(b, b.mul(x, b.stop_gradient(y)))

    func = function(["f64[3]"] * 3, build)
    assert unreached(func) == ["x1", "x2"]
    found = run(differentiate(func), [some(3), some(3, seed=1), some(3)])
    assert [bool(g.any()) for g in found[1:]] == [True, False, False]
