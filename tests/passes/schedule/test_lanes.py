"""Which loops become lanes: each nest is decided once, and only where lanes are legal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from irc.ir.core import Builder, Value
from irc.ir.dims import sym
from irc.ir.interpret_loops import run_kernel
from irc.ir.ops.core import Func, Fused, Module, Return
from irc.ir.ops.loop import Alloc, Bind, For
from irc.ir.target import Target
from irc.ir.types import TensorType, boolean, f32, i64
from irc.ir.verify import verify
from irc.passes.decompose import Decompose
from irc.passes.fuse import Fuse
from irc.passes.lower.finish import finish
from irc.passes.lower.generic import LowerGeneric
from irc.passes.lower.loops import lower_fused
from irc.passes.lower.scratch import hoist_scratch
from irc.passes.schedule import choose as choosing
from irc.passes.schedule.choose import Scheduled, choose
from irc.passes.schedule.memory import Rfactor
from irc.passes.schedule.nests import Refused
from irc.passes.schedule.scheduler import Scheduler
from irc.passes.schedule.steps import Fuse as Join
from irc.passes.schedule.steps import Mark, Partition, Tile, apply_steps, vector

TARGET = Target("t", vector_bits=512, registers=32, fma=True, expand=True)
N = sym("N")


def scheduled(fill, *types: TensorType) -> tuple[Func, Scheduled]:
    """The only kernel of a function, before and after its schedule."""
    func = Func.make("main", list(types))
    b = Builder(func.body)
    made = fill(b, *func.args)
    b.emit(Return, *(made if isinstance(made, list) else [made]))
    made = Decompose().run(Module.make([func]))
    module = LowerGeneric().run(Fuse().run(made))
    (fused,) = [op for op in module.main.walk() if isinstance(op, Fused)]
    plain = lower_fused(fused, "k")
    return plain, choose(plain, TARGET)


def test_a_nest_that_two_results_need_is_cut_once() -> None:
    def fill(b: Builder, x: Value) -> list[Value]:
        y = b.exp(x)
        return [b.sub(y, b.reduce_mean(y, axes=(2,), keepdims=True)), b.mul(y, y)]

    plain, made = scheduled(fill, TensorType(f32, (7, 2, N)))
    cut = [step.var for step in made.steps if isinstance(step, Tile)]
    vectors = [step.var for step in made.steps if isinstance(step, Mark) and step.kind == "vector"]
    assert len(cut) == len(set(cut)) and len(vectors) == len(set(vectors))
    assert not any(var.endswith((".i.i", ".i.o")) for var in cut)
    finish(made.kernel, TARGET)
    verify(made.kernel)


def test_lanes_of_two_accumulators_are_refused_before_anything_is_cut() -> None:
    plain, made = scheduled(lambda b, x: b.argmax(x, axis=1), TensorType(f32, (3, 70, 1)))
    assert not any(isinstance(step, Tile) for step in made.steps)
    assert any("cannot be combined" in reason for _, reason in made.refusals)
    (reduction,) = [op.var for op in plain.walk() if isinstance(op, For) and op.reduction]
    with pytest.raises(Refused, match="factor the reduction"):
        apply_steps(plain, [vector(reduction)])


def test_copies_of_gathers_bind_symbols_of_their_own() -> None:
    """The loops of the second copy have new names, so that only the bound symbol can clash."""
    types = TensorType(f32, (2, 33)), TensorType(i64, (17,))
    plain, _ = scheduled(lambda b, x, at: b.take(x, at, axis=1), *types)
    (loop,) = [op.parent_op for op in plain.walk() if isinstance(op, Bind)]
    assert isinstance(loop, For)
    steps = [Tile(loop.var, 4), Partition(f"{loop.var}.o", 2), Tile(f"{loop.var}.i", 2, "a", "b")]
    made = apply_steps(plain, [*steps, Partition("a", 1)])
    verify(made)
    assert len({op.symbol for op in made.walk() if isinstance(op, Bind)}) == 3
    x, at = np.arange(66, dtype=np.float32).reshape(2, 33), np.arange(17)[::-1] * 2
    out = np.zeros((2, 17), np.float32)
    assert run_kernel(made, [x, np.ascontiguousarray(at), out], check=True) == 0
    np.testing.assert_array_equal(out, x[:, at])


def test_rows_of_a_symbolic_batch_are_done_one_at_a_time() -> None:
    """No intermediate of a softmax keeps more than a row."""
    _, made = scheduled(lambda b, x: b.softmax(x, axis=1), TensorType(f32, (N, 33)))
    kept = [op.type for op in made.kernel.walk() if isinstance(op, Alloc)]
    assert kept and all(isinstance(t.size, int) and t.space != "heap" for t in kept)


@pytest.mark.parametrize("columns", [56, 24, 100, 200])
def test_tiles_of_columns_have_extents_that_are_numbers(columns: int) -> None:
    """The last tile stands apart, and a row of a few vectors is one tile."""
    plain, made = scheduled(lambda b, x: b.softmax(x, axis=1), TensorType(f32, (3, 20, columns)))
    found = [op.extent for op in made.kernel.walk() if isinstance(op, For)]
    assert found and all(isinstance(extent, int) for extent in found)
    x = np.random.default_rng(1).standard_normal((3, 20, columns)).astype(np.float32)
    kernels = [plain, made.kernel]
    finish(made.kernel, TARGET)
    hoist_scratch(plain)
    results = []
    for kernel in kernels:
        outs = [np.zeros(a.buffer.shape, a.buffer.dtype.np) for a in kernel.args[1:]]
        assert run_kernel(kernel, [x, *outs], check=True) == 0
        results.append(outs[0])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5)


def test_a_reduction_of_everything_keeps_partial_sums_beside_its_tail() -> None:
    _, made = scheduled(lambda b, x: b.reduce_sum(x, axes=(0, 1)), TensorType(f32, (3, 100)))
    assert any(isinstance(step, Rfactor) for step in made.steps) and not made.refusals
    finish(made.kernel, TARGET)
    verify(made.kernel)
    hoist_scratch(made.kernel)
    x = np.arange(300, dtype=np.float32).reshape(3, 100)
    outs = [np.zeros(a.buffer.shape, a.buffer.dtype.np) for a in made.kernel.args[1:]]
    assert run_kernel(made.kernel, [x, *outs], check=True) == 0
    assert outs[0] == x.sum()


def test_a_nest_renamed_on_the_way_is_found_again() -> None:
    """The second result's only loop is cut before sharing turns out to be too large."""

    def fill(b: Builder, x: Value, y: Value, flags: Value) -> list[Value]:
        z = b.add(b.mul(b.sigmoid(x), x), b.tanh(y))
        w = b.mul(b.sigmoid(z), b.tanh(z))
        return [b.where(flags, w, x), b.where(flags, z, y), b.where(flags, w, y)]

    types = [TensorType(f32, (N, 1)), TensorType(f32, (N, 1)), TensorType(boolean, (N, 1))]
    _, made = scheduled(fill, *types)
    assert made.steps


def two_results(b: Builder, x: Value) -> list[Value]:
    y = b.tanh(x)
    return [b.mul(y, y), b.sub(y, x)]


def results_apart(b: Builder, x: Value) -> list[Value]:
    y = b.reduce_max(x, axes=(1,), keepdims=True)
    return [b.tanh(y), b.sub(x, y)]


def test_a_recipe_that_fails_leaves_the_nest_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other results keep their schedule, and plain lanes are found for this one."""
    seen = []

    def fail(s: Scheduler, root: For) -> None:
        seen.append(root.var)
        if len(seen) == 1:
            s.do(Tile(root.var, 2))
            s.do(vector("nowhere"))

    monkeypatch.setattr(choosing, "schedule_rows", fail)
    _, made = scheduled(results_apart, TensorType(f32, (6, 20)))
    assert len(seen) == 2 and any("given up" in reason for _, reason in made.refusals)
    assert not any(isinstance(step, Tile) and step.size == 2 for step in made.steps)
    finish(made.kernel, TARGET)
    verify(made.kernel)


def test_loops_that_run_differently_are_not_fused() -> None:
    plain, _ = scheduled(two_results, TensorType(f32, (16,)))
    *_, first, second = [op.var for op in plain.walk() if isinstance(op, For)]
    apply_steps(plain, [Join(first, second)])
    with pytest.raises(Refused, match="runs as vector"):
        apply_steps(plain, [vector(first), Join(first, second)])


@pytest.mark.parametrize(("shape", "threads", "width"), [((9, 300), 1, 128), ((9, 300), 2, 128),
                         ((9, 70), 1, 64), ((9, 70), 2, 32)])  # fmt: skip
def test_sums_of_columns_take_wide_tiles_that_leave_work_for_all_threads(
    shape: tuple[int, int], threads: int, width: int
) -> None:
    func = Func.make("main", [TensorType(f32, shape)])
    b = Builder(func.body)
    total = b.reduce_sum(func.args[0], axes=(0,))
    b.emit(Return, b.mul(total, total))
    module = LowerGeneric().run(Fuse().run(Module.make([func])))
    (fused,) = [op for op in module.main.walk() if isinstance(op, Fused)]
    made = choose(lower_fused(fused, "k"), replace(TARGET, threads=threads))
    assert max(step.size for step in made.steps if isinstance(step, Tile)) == width


def test_columns_whose_rows_are_kept_take_narrow_tiles() -> None:
    _, made = scheduled(lambda b, x: b.softmax(x, axis=0), TensorType(f32, (9, 300)))
    assert max(step.size for step in made.steps if isinstance(step, Tile)) == 32
