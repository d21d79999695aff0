"""The plan against the reference interpreter: straight programs, control flow, state, memory,
aliasing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irc.ir.ops.activations  # noqa: F401
import irc.ir.ops.compare  # noqa: F401
import irc.ir.ops.contract  # noqa: F401
import irc.ir.ops.conv  # noqa: F401
import irc.ir.ops.reduce  # noqa: F401
import irc.ir.ops.shape  # noqa: F401
from irc.ir.core import Block, Builder, Value
from irc.ir.dims import sym
from irc.ir.errors import Error
from irc.ir.interpret import run
from irc.ir.ops.control import ForLoop, If, Scan, While
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.ops.loop import Aligned, For, Load, Prefetch, Store, When
from irc.ir.ops.plan import Launch
from irc.ir.target import Target
from irc.ir.types import BufferType, TensorType, boolean, f32, i64
from irc.passes.alias import verify_places
from irc.passes.inplace import overwrites
from irc.passes.pipeline import compile_module
from irc.passes.plan import Planner, plan

Fill = Callable[..., Any]


def tensor(*shape: Any, dtype: Any = f32) -> TensorType:
    return TensorType(dtype, shape)


def module(types: list[TensorType], fill: Fill, state: Any = ()) -> Module:
    """`main` over parameters of these types; `fill(b, *args)` gives its result(s)."""
    func = Func.make("main", types, [f"x{k}" for k in range(len(types))], state=state)
    b = Builder(func.body)
    made = fill(b, *func.args)
    b.emit(Return, *(made if isinstance(made, (tuple, list)) else (made,)))
    return Module.make([func])


def const(b: Builder, value: Any) -> Value:
    return b.insert(Const(np.asarray(value, np.float32))).result


def integer(b: Builder, value: int) -> Value:
    return b.insert(Const(np.asarray(value, np.int64))).result


def data(types: list[TensorType], **dims: int) -> list[Any]:
    rng = np.random.default_rng(7)
    found = []
    for t in types:
        shape = [d if isinstance(d, int) else dims[str(d)] for d in t.shape]
        if t.dtype is f32:
            found.append(rng.uniform(-2, 2, shape).astype(np.float32))
        elif t.dtype is boolean:
            found.append(np.asarray(rng.integers(0, 2, shape), np.bool_))
        else:
            found.append(np.asarray(rng.integers(0, 5, shape), np.int64))
    return found


@pytest.fixture
def check(kernelized: Any, run_plan: Any) -> Callable[..., Any]:
    """Plan a program, run and compare it with the reference; give the plan."""

    def compare(
        types: list[TensorType], fill: Fill, inputs: Any = None, state: Any = (), **dims: int
    ) -> Any:
        made = module(types, fill, state)
        inputs = inputs or data(types, **dims)
        want = run(made, inputs)
        planned = plan(kernelized(made))
        for seed in (0, 1):
            got = run_plan(planned, inputs, seed)
            for g, w in zip(got, want, strict=True):
                np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6)
        return planned

    return compare


def mlp(b: Builder, x: Value) -> Value:
    w = const(b, np.ones((6, 8)) * 0.25)
    h = b.max(b.matmul(x, w), const(b, 0.0))
    return b.add(h, b.mul(h, h))


def test_matmul_and_relu(check: Any) -> None:
    planned = check([tensor(5, 6)], mlp)
    assert planned.copies == ()
    assert planned.arena_bytes == planned.lower_bound


def test_symbolic_extent(check: Any) -> None:
    planned = check([tensor(sym("N"), 6)], mlp, N=5)
    assert str(planned.func.args[0].type) == "buffer<f32[N, 6], heap>"
    assert planned.layout.lower_bound({"N": 5}) > 0


def test_pointwise_results_take_the_place_of_dying_inputs(check: Any) -> None:
    def chain(b: Builder, x: Value) -> Value:
        for _ in range(6):
            x = b.add(x, x)
        return b.reduce_sum(x, axes=(0,)) if hasattr(b, "reduce_sum") else x

    planned = check([tensor(4, 8)], chain)
    assert planned.arena_bytes <= 192
    assert planned.overwriting


def test_an_input_needed_later_is_not_overwritten(check: Any) -> None:
    def keep(b: Builder, x: Value) -> Value:
        y = b.add(x, x)
        z = b.mul(y, y)
        return b.add(b.add(z, z), y)

    check([tensor(4, 8)], keep)


def test_transposed_reading_is_not_done_in_place(check: Any) -> None:
    def twice(b: Builder, x: Value) -> Value:
        y = b.add(x, x)
        z = b.transpose(y, perm=(1, 0))
        return b.add(z, z)

    planned = check([tensor(4, 4)], twice)
    transposing = next(
        o.callee for o in planned.func.walk() if o.name == "loop.call" and o.callee == "k1"
    )
    assert transposing not in planned.overwriting


def test_reshapes_are_views(check: Any) -> None:
    def views(b: Builder, x: Value) -> Value:
        y = b.reshape(b.add(x, x), shape=(8, 3))
        return b.reshape(b.mul(y, y), shape=(24,))

    planned = check([tensor(4, 6)], views)
    assert planned.copies == ()
    assert sum(o.name == "loop.call" for o in planned.func.walk()) == 2


def test_inputs_constants_and_repeated_results_are_copied(check: Any) -> None:
    def odd(b: Builder, x: Value) -> Any:
        y = b.add(x, x)
        return x, const(b, np.arange(3.0)), y, y

    assert len(check([tensor(2, 3)], odd).copies) == 3


def test_equal_constants_are_kept_once(check: Any) -> None:
    def same(b: Builder, x: Value) -> Value:
        return b.add(b.add(x, const(b, np.ones((4, 40)))), const(b, np.ones((4, 40))))

    assert check([tensor(4, 40)], same).weight_bytes == 640


def branches(b: Builder, c: Value, x: Value) -> Any:
    y = b.add(x, x)
    op = b.insert(
        If.make(c, lambda b: [b.mul(y, y), x], lambda b: [b.add(b.add(x, y), y), b.add(x, y)])
    )
    return b.add(op.results[0], op.results[1])


@pytest.mark.parametrize("value", [True, False])
def test_if(check: Any, value: bool) -> None:
    types = [tensor(dtype=boolean), tensor(3, 4)]
    planned = check(types, branches, [np.asarray(value), data(types)[1]])
    assert len(planned.copies) == 1


def test_for_updates_its_carried_value_in_place(check: Any) -> None:
    def power(b: Builder, x: Value) -> Value:
        start = b.add(x, x)
        loop = b.insert(ForLoop.make(5, [start], lambda b, i, a: [b.add(a, b.mul(a, x))]))
        return b.add(loop.results[0], x)

    planned = check([tensor(3, 4)], power)
    assert planned.copies == ()


def test_for_uses_its_index_and_a_count_from_memory(check: Any) -> None:
    def total(b: Builder, n: Value, x: Value) -> Any:
        fill = lambda b, i, a, k: [b.add(a, x), b.add(k, b.mul(i, i))]  # noqa: E731
        return b.insert(ForLoop.make(n, [x, integer(b, 3)], fill)).results

    types = [tensor(dtype=i64), tensor(4)]
    for count in (0, 1, 4, -2):
        check(types, total, [np.asarray(count, np.int64), np.ones(4, np.float32)])


def test_carried_values_may_change_places(check: Any) -> None:
    def fibonacci(b: Builder, x: Value, y: Value) -> Any:
        swap = b.insert(ForLoop.make(3, [x, y], lambda b, i, p, q: [q, p])).results
        return b.insert(ForLoop.make(6, swap, lambda b, i, p, q: [q, b.add(p, q)])).results

    planned = check([tensor(4), tensor(4)], fibonacci)
    assert any("change places" in c for c in planned.copies)


def test_loops_nest(check: Any) -> None:
    def nested(b: Builder, x: Value) -> Value:
        def outer(b: Builder, i: Value, a: Value) -> list[Value]:
            inner = b.insert(ForLoop.make(2, [a], lambda b, j, c: [b.add(b.mul(c, x), a)]))
            return [b.sub(inner.results[0], a)]

        return b.insert(ForLoop.make(3, [x], outer)).results[0]

    check([tensor(5)], nested)


def test_a_loop_keeps_what_it_reads_in_every_round(check: Any) -> None:
    def rounds(b: Builder, x: Value) -> Value:
        y = b.add(x, x)

        def body(b: Builder, i: Value, a: Value) -> list[Value]:
            p = b.mul(a, y)  # y's last reader, but only in this round
            q = b.transpose(p, perm=(1, 0))
            return [b.add(q, p)]

        return b.insert(ForLoop.make(3, [x], body)).results[0]

    check([tensor(8, 8)], rounds)


@pytest.mark.parametrize("bound", [None, 3])
def test_while(check: Any, bound: int | None) -> None:
    def doubling(b: Builder, x: Value) -> Any:
        before = lambda b, k, a: [b.lt(k, integer(b, 6))]  # noqa: E731
        body = lambda b, k, a: [b.add(k, integer(b, 1)), b.add(a, a)]  # noqa: E731
        return b.insert(While.make([integer(b, 0), x], before, body, bound)).results

    check([tensor(3)], doubling)


@pytest.mark.parametrize("reverse", [False, True])
def test_scan(check: Any, reverse: bool) -> None:
    def cumulative(b: Builder, x: Value, a: Value) -> Any:
        def body(b: Builder, s: Value, row: Value) -> list[Value]:
            after = b.add(s, row)
            return [after, after, b.mul(row, row)]

        return b.insert(Scan.make([a], [x], body, reverse=reverse)).results

    check([tensor(sym("T"), 3), tensor(3)], cumulative, T=6)


def test_state_is_replaced_in_place(check: Any) -> None:
    def step(b: Builder, w: Value, g: Value) -> Any:
        loss = b.mul(w, w)
        return b.sub(w, b.mul(g, const(b, 0.5))), loss

    planned = check([tensor(4, 3), tensor(4, 3)], step, state=((0, 0),))
    assert planned.copies == ()
    assert len(planned.func.args) == 5


def test_state_read_after_its_change_is_copied(check: Any) -> None:
    def step(b: Builder, w: Value, g: Value) -> Any:
        after = b.sub(w, g)
        return after, b.mul(b.add(after, after), w)

    planned = check([tensor(4, 3), tensor(4, 3)], step, state=((0, 0),))
    assert len(planned.copies) == 1 and "state" in planned.copies[0]


def test_states_may_change_places(check: Any) -> None:
    check([tensor(3), tensor(3)], lambda b, x, y: (y, x), state=((0, 0), (1, 1)))


def test_an_op_without_a_kernel_is_a_host_step(check: Any) -> None:
    def odd(b: Builder, x: Value) -> Value:
        return b.add(b.identity_on_host(x), x)

    planned = check([tensor(4)], odd)
    assert list(planned.host_steps) == ["host0.identity_on_host"]


def _identity_on_host() -> None:
    from irc.ir.core import Op, operand

    class IdentityOnHost(Op):
        x = operand()

        @staticmethod
        def infer(x: TensorType) -> TensorType:
            return x

        @staticmethod
        def evaluate(x: Any) -> Any:
            return x + 1


_identity_on_host()


# In place ----------------------------------------------------------------------------------------


def kernel_of(kernelized: Any, types: list[TensorType], fill: Fill) -> Func:
    lowered = kernelized(module(types, fill))
    return lowered.func("k0")


@pytest.mark.parametrize(
    ("fill", "allowed"),
    [
        (lambda b, x: b.add(x, x), True),
        (lambda b, x: b.transpose(x, perm=(1, 0)), False),
        (lambda b, x: b.matmul(x, x), True),  # its three nests read everything before they write
    ],
)
def test_overwriting_is_proved_or_refused(kernelized: Any, fill: Fill, allowed: bool) -> None:
    kernel = kernel_of(kernelized, [tensor(8, 8)], fill)
    count = sum(1 for a in kernel.args if a.name and a.name.startswith("in"))
    assert overwrites(kernel, 0, count) is allowed


def loops(extents: list[tuple[str, int]], inside: Fill) -> Func:
    """A kernel in -> out over f32[64, 64] with nested loops; `inside(b, source, target)` fills the
    innermost.
    """
    buffer = BufferType(f32, (64, 64))
    kernel = Func.make("k", [buffer, buffer], ["in0", "out0"], kind="kernel")
    b = Builder(kernel.body)
    for name, extent in extents:
        b = Builder(b.insert(For.make(name, extent)).body)
    inside(b, *kernel.args)
    Builder(kernel.body).emit(Return)
    return kernel


def move(b: Builder, source: Value, target: Value, read: Any, write: Any) -> None:
    b.emit(Store, b.emit(Load, source, index=read), target, index=write)


i, j, k = sym("i"), sym("j"), sym("k")


@pytest.mark.parametrize(
    ("extents", "moves", "allowed"),
    [
        ([("i", 64), ("j", 64)], [((i, j), (i, j))], True),
        ([("i", 64), ("j", 64)], [((i, 63 - j), (i, j))], False),
        ([("i", 64), ("j", 63)], [((i, j + 1), (i, j))], False),
        ([("i", 64), ("j", 8), ("k", 8)], [((i, 8 * j + k), (i, 8 * j + k))], True),
        ([("i", 64), ("j", 8), ("k", 9)], [((i, 7 * j + k), (i, 7 * j + k))], False),
        ([("i", 64), ("j", 16)], [((i, 4 * j + n), (i, 4 * j + n)) for n in range(4)], True),
        ([("i", 64), ("j", 15)], [((i, 4 * j + n), (i, 4 * j + n)) for n in range(5)], False),
        ([("i", 64), ("j", 8), ("k", 4)], [((i, 8 * j + k + n),) * 2 for n in (0, 4)], True),
        ([("i", 64), ("j", 7), ("k", 5)], [((i, 8 * j + k + n),) * 2 for n in (0, 4)], False),
        ([("i", 9), ("j", 64)], [((7 * i + n, j),) * 2 for n in range(7)], True),
        ([("i", 9), ("j", 64)], [((6 * i + n, j),) * 2 for n in range(7)], False),
        ([("i", 64), ("j", 32)], [((i, 2 * j + 1), (i, 2 * j))], True),
        ([("i", 64), ("j", 31)], [((i, 2 * j + 2), (i, 2 * j))], False),
        ([("k", 2), ("i", 64), ("j", 64)], [((i, j), (i, j))], False),
        ([("i", 64), ("j", 64)], [((i, j), (i, j)), ((i, j), (i, j))], False),
    ],
)
def test_overwriting_in_scheduled_loops(extents: Any, moves: Any, allowed: bool) -> None:
    def inside(b: Builder, source: Value, target: Value) -> None:
        for read, write in moves:
            move(b, source, target, read, write)

    assert overwrites(loops(extents, inside), 0, 1) is allowed


def test_a_row_may_be_read_several_times_before_it_is_written() -> None:
    def row(b: Builder, source: Value, target: Value) -> None:
        for name in ("j", "k"):
            inner = Builder(b.insert(For.make(name, 64)).body)
            value = inner.emit(Load, source, index=(i, sym(name)))
            if name == "k":
                inner.emit(Store, value, target, index=(i, k))

    assert overwrites(loops([("i", 64)], row), 0, 1)


@pytest.mark.parametrize("after", [False, True])
def test_of_two_branches_one_runs(after: bool) -> None:
    """What one branch reads, the other does not overwrite; asking and fetching touch nothing."""

    def either(b: Builder, source: Value, target: Value) -> None:
        branches = [Block(), Block()]
        for block in branches:
            inner = Builder(block)
            for name in ("i", "j"):
                inner = Builder(inner.insert(For.make(name, 64)).body)
            inner.emit(Prefetch, source, index=(i + 1, j))
            move(inner, source, target, (i, j), (i, j))
        b.insert(When(b.emit(Aligned, target), regions=branches))
        if after:
            move(b, source, target, (0, 0), (1, 0))

    assert overwrites(loops([], either), 0, 1) is not after


# Aliasing ----------------------------------------------------------------------------------------


def planner_of(lowered: Module) -> Planner:
    planner = Planner(lowered, "plan")
    planner.run()
    planner.finished()
    return planner


def program(b: Builder, x: Value) -> Value:
    y = b.add(x, x)
    z = b.mul(x, x)
    loop = b.insert(ForLoop.make(3, [z], lambda b, i, a: [b.add(a, y)]))
    return b.add(b.add(loop.results[0], y), z)


def test_planted_overlaps_are_found(kernelized: Any) -> None:
    planner = planner_of(kernelized(module([tensor(64)], program)))
    verify_places(planner.main, planner.places, planner.proved)
    pieces = [s for s in planner.memory.storages if s.kind == "arena"]
    found = 0
    for victim in pieces:
        for other in pieces:
            if victim is other or victim.first > other.last or other.first > victim.last:
                continue
            kept, victim.offset = victim.offset, other.offset
            with pytest.raises(Error) as error:
                verify_places(planner.main, planner.places, planner.proved)
            assert error.value.code == "E0435"
            victim.offset = kept
            found += 1
    assert found >= 4


def test_an_unproved_overwriting_is_found(kernelized: Any) -> None:
    lowered = kernelized(
        module([tensor(8, 8)], lambda b, x: b.add(b.transpose(b.add(x, x), perm=(1, 0)), x))
    )
    planner = planner_of(lowered)
    first, second = [op for op in lowered.main.body if isinstance(op, Launch)][:2]
    planner.places[second.results[0]] = planner.places[first.results[0]]
    with pytest.raises(Error, match="E0435"):
        verify_places(planner.main, planner.places, planner.proved)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_extents_that_shrink_by_a_window_can_be_told_apart(stride: int) -> None:
    """No extent is negative, so `(D + 1) // 2 - 3` says that the quotient is at least 3."""
    shape = (sym("B"), 1, sym("D0"), sym("D1"))
    func = Func.make("main", [TensorType(f32, shape)], ["x"])
    b = Builder(func.body)
    w = b.insert(Const(np.ones((5, 1, 3, 2), np.float32))).result
    v = b.insert(Const(np.ones((9, 5, 1, 1), np.float32))).result
    given = {"strides": (stride, 2), "dilations": (3, 3), "pads": (0, 1, 0, 0)}
    b.emit(Return, b.conv(b.conv(func.args[0], w, **given), v))
    target = Target("t", vector_bits=128, registers=16, layout_block=4)
    assert compile_module(Module.make([func]), target).planned is not None
