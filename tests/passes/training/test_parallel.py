"""Data parallelism as a pass: what it inserts and where, and that processes compute one program.

Processes are threads here: a group of them meets at a barrier.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from irc.frontends.train.exchange import combined, reduced
from irc.ir.core import Array, Builder
from irc.ir.interpret import run
from irc.ir.ops import dist
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.types import DType, TensorType, f32, f64, i64, u32
from irc.ir.verify import verify
from irc.passes.autodiff.grad import differentiate
from irc.passes.pipeline import compile_module
from irc.passes.training import zero
from irc.passes.training.parallel import data_parallel


class Threads:
    """What the threads of a group share."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.barrier = threading.Barrier(world, timeout=20)
        self.rows: list[Any] = [None] * world


class Member:
    """One thread of a group; also the transport below the arithmetic of collectives."""

    def __init__(self, shared: Threads, rank: int) -> None:
        self.shared, self.rank, self.world = shared, rank, shared.world

    def _rows(self, x: Any) -> list[Any]:
        self.shared.rows[self.rank] = x
        self.shared.barrier.wait()
        found = list(self.shared.rows)
        self.shared.barrier.wait()
        return found

    def all_to_all(self, send: Array, receive: Array) -> None:
        rows = [r.reshape(self.world, -1)[self.rank].copy() for r in self._rows(send.copy())]
        receive[:] = np.concatenate(rows)

    def all_gather(self, *given: Array) -> Any:
        rows = self._rows(given[0].copy())
        if len(given) == 1:
            return rows
        given[1][:] = np.concatenate(rows)
        return None

    def all_reduce(self, x: Array, how: str) -> Array:
        return reduced(self, [x], how, False)[0]

    def broadcast(self, x: Array, root: int) -> Array:
        return np.array(self._rows(x)[root])

    def start(self, bucket: int, xs: Sequence[Array], how: str, scatter: bool) -> None:
        return

    def wait(self, bucket: int, xs: Sequence[Array], how: str, scatter: bool) -> list[Array]:
        return reduced(self, xs, how, scatter)


def in_parallel(world: int, work: Callable[[Member], Any], monkeypatch: Any) -> list[Any]:
    """What each thread of a group finds."""
    shared, local = Threads(world), threading.local()
    monkeypatch.setattr(dist, "group", lambda: getattr(local, "group", dist._GROUP[0]))
    found: list[Any] = [None] * world
    failed: list[BaseException] = []

    def one(rank: int) -> None:
        local.group = Member(shared, rank)
        try:
            found[rank] = work(local.group)
        except BaseException as error:
            failed.append(error)
            shared.barrier.abort()

    threads = [threading.Thread(target=one, args=(r,)) for r in range(world)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        raise failed[0]
    return found


# --------------------------------------------------------------------- the arithmetic


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("sizes", [(1,), (7, 3), (0, 5), (20_000, 1), (3_000_000,)])
def test_reduced(world: int, sizes: tuple[int, ...], monkeypatch: Any) -> None:
    """All sums in the order of the ranks, whatever the size; parts are parts of the sums."""
    xs = [[np.random.default_rng(r).standard_normal(n) for n in sizes] for r in range(world)]
    want = []
    for k in range(len(sizes)):
        total = xs[0][k].copy()
        for r in range(1, world):
            total += xs[r][k]
        want.append(total * (1 / world))

    def work(me: Member) -> Any:
        return (reduced(me, xs[me.rank], "mean", False), reduced(me, xs[me.rank], "mean", True))

    for rank, (whole, parts) in enumerate(in_parallel(world, work, monkeypatch)):
        for k, total in enumerate(want):
            assert whole[k].tobytes() == total.tobytes()
            assert parts[k].tobytes() == dist.part_of(total, rank, world).tobytes()


def test_narrow_floats_are_summed_in_f32() -> None:
    rows = np.full((512, 3), 0.01, DType("bf16").np)
    rows[0] = 8
    found = combined(rows, "sum").astype(np.float32)
    assert np.abs(found - (8 + 511 * 0.01)).max() < 0.1  # bf16 all along stays at 8


@pytest.mark.parametrize("how", ["sum", "max", "min"])
def test_integers(how: str) -> None:
    rows = np.arange(12, dtype=np.int64).reshape(3, 4)
    want = {"sum": rows.sum(0), "max": rows.max(0), "min": rows.min(0)}[how]
    np.testing.assert_array_equal(combined(rows, how), want)


# --------------------------------------------------------------------- ops


@pytest.mark.parametrize("how", ["sum", "mean", "max", "min"])
def test_slopes_of_all_reduce(how: str, monkeypatch: Any) -> None:
    """The gradient of the sum of all processes' losses, against differences."""
    func = Func.make("main", [TensorType(f64, (3,))], ["x"])
    b = Builder(func.body)
    y = b.emit(dist.AllReduce, func.args[0], how=how)
    b.emit(Return, b.reduce_sum(b.mul(b.mul(y, y), func.args[0]), axes=(0,), keepdims=False))
    made = differentiate(func)
    xs = [np.array([0.3, -1.0, 2.0]), np.array([0.7, 0.2, -0.4])]

    def total(xs: list[Array]) -> float:
        return sum(in_parallel(2, lambda me: float(run(func, [xs[me.rank]])[0]), monkeypatch))

    grads = in_parallel(2, lambda me: run(made, [xs[me.rank]])[1], monkeypatch)
    for r in range(2):
        for k in range(3):
            there = [x.copy() for x in xs]
            back = [x.copy() for x in xs]
            there[r][k] += 1e-6
            back[r][k] -= 1e-6
            assert abs((total(there) - total(back)) / 2e-6 - grads[r][k]) < 1e-7


@pytest.mark.parametrize("op", ["gather", "scatter", "broadcast"])
def test_slopes_of_other_collectives(op: str, monkeypatch: Any) -> None:
    func = Func.make("main", [TensorType(f64, (4,))], ["x"])
    b = Builder(func.body)
    if op == "gather":
        y = b.emit(dist.AllGather, func.args[0], world=2)
    elif op == "scatter":
        y = b.emit(dist.ReduceScatter, func.args[0], world=2)
    else:
        y = b.emit(dist.Broadcast, func.args[0], root=1)
    weights = b.insert(Const(np.arange(1.0, y.tensor.shape[0] + 1))).result
    b.emit(Return, b.reduce_sum(b.mul(b.mul(y, y), weights), axes=(0,), keepdims=False))
    made = differentiate(func)
    xs = [np.array([0.3, -1.0, 2.0, 1.0]), np.array([0.7, 0.2, -0.4, 0.1])]

    def total(xs: list[Array]) -> float:
        return sum(in_parallel(2, lambda me: float(run(func, [xs[me.rank]])[0]), monkeypatch))

    grads = in_parallel(2, lambda me: run(made, [xs[me.rank]])[1], monkeypatch)
    for r in range(2):
        for k in range(4):
            there, back = [x.copy() for x in xs], [x.copy() for x in xs]
            there[r][k] += 1e-6
            back[r][k] -= 1e-6
            assert abs((total(there) - total(back)) / 2e-6 - grads[r][k]) < 1e-7


# --------------------------------------------------------------------- the pass


def chain(layers: int, width: int = 8) -> Func:
    """Loss and gradients of a chain of products, all float parameters."""
    types = [TensorType(f32, (2, width)), *[TensorType(f32, (width, width))] * layers]
    func = Func.make("main", types, ["x", *[f"w{k}" for k in range(layers)]])
    b = Builder(func.body)
    h = func.args[0]
    for w in func.args[1:]:
        h = b.tanh(b.matmul(h, w))
    b.emit(Return, b.reduce_sum(h, axes=(0, 1), keepdims=False))
    return differentiate(func, list(range(1, layers + 1)), [0])


def positions(func: Func, name: str) -> list[int]:
    return [k for k, op in enumerate(func.body) if op.name == name]


def test_buckets_start_behind_their_last_gradient() -> None:
    """The last layer's gradient comes first; waits stand at the end."""
    func = chain(6)
    made = data_parallel(func, range(1, 7), [0], bucket_bytes=2 * 8 * 8 * 4)
    verify(Module.make([made]))
    ops = list(made.body)
    starts = positions(made, "dist.all_reduce_start")
    waits = positions(made, "dist.all_reduce_wait")
    assert len(starts) == len(waits) == 4  # loss and one gradient, two, two, one
    assert starts[0] < starts[1] < starts[2] < starts[3] and waits[0] > starts[3]
    for at in starts[1:]:
        made_by = [ops.index(v.op) for v in ops[at].operands]
        assert at == max(made_by) + 1 or ops[at - 1].name == "dist.all_reduce_start"
    last = made.returned[6].op
    assert last is not None and last.name == "dist.all_reduce_wait"
    assert ops.index(last) < ops.index(made.returned[1].op)  # w5 is ready before w0


def test_a_large_gradient_is_a_bucket_of_its_own() -> None:
    made = data_parallel(chain(3), range(1, 4), [], bucket_bytes=16)
    assert len(positions(made, "dist.all_reduce_start")) == 3


def test_the_compiled_order_keeps_the_overlap() -> None:
    """In the plan the first collective starts before the last gradient's kernel."""
    from irc.backends.cpu.target import cpu_target

    func = data_parallel(chain(6), range(1, 7), [0], bucket_bytes=512)
    planned = compile_module(Module.make([func]), cpu_target(1)).planned
    assert planned is not None
    body = [op.attributes.get("callee", op.name) for op in planned.func.body]
    starts = [k for k, name in enumerate(body) if "all_reduce_start" in str(name)]
    waits = [k for k, name in enumerate(body) if "all_reduce_wait" in str(name)]
    kernels = {f.sym for f in planned.kernels}
    assert any([name in kernels for name in body[starts[0] : starts[-1]]])
    assert max(starts) < min(waits)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_average(world: int, monkeypatch: Any) -> None:
    func = chain(3)
    made = data_parallel(func, range(1, 4), [0], bucket_bytes=300)
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((8, 8)).astype(np.float32) for _ in range(3)]
    xs = [rng.standard_normal((2, 8)).astype(np.float32) for _ in range(world)]
    alone = [run(func, [x, *weights]) for x in xs]
    found = in_parallel(world, lambda me: run(made, [xs[me.rank], *weights]), monkeypatch)
    for k in range(4):
        want = np.mean([a[k] for a in alone], 0)
        for rank in range(world):
            assert found[rank][k].tobytes() == found[0][k].tobytes()
            np.testing.assert_allclose(found[rank][k], want, rtol=1e-5, atol=1e-6)


def test_parts_of_gradients_and_whole_parameters(monkeypatch: Any) -> None:
    """Scattered gradients are the parts of the averaged ones, to the bit; parts go together."""
    func, world = chain(3), 3
    whole = data_parallel(func, range(1, 4), [0])
    parts = data_parallel(func, range(1, 4), [0], scatter=world, bucket_bytes=300)
    assert len(positions(parts, "dist.reduce_scatter_start")) == 3
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((8, 8)).astype(np.float32) for _ in range(3)]
    back = Func.make("main", [parts.returned[1].type] * 3)
    b = Builder(back.body)
    like = [TensorType(f32, (8, 8))] * 3
    b.emit(Return, *zero.whole(b, list(back.args), like, world, bucket_bytes=600))
    assert len(positions(back, "dist.gather_parts")) == 2

    def work(me: Member) -> Any:
        x = np.random.default_rng(me.rank).standard_normal((2, 8)).astype(np.float32)
        one, cut = run(whole, [x, *weights]), run(parts, [x, *weights])
        return one, cut, run(back, cut[1:])

    for rank, (one, cut, again) in enumerate(in_parallel(world, work, monkeypatch)):
        assert cut[0].tobytes() == one[0].tobytes()
        for k in range(1, 4):
            assert cut[k].tobytes() == dist.part_of(one[k], rank, world).tobytes()
            assert again[k - 1].tobytes() == one[k].tobytes()


def test_streams_of_random_numbers_differ(monkeypatch: Any) -> None:
    """Each process draws by a key of its own, and gives the same key back."""
    func = Func.make("main", [TensorType(u32, (2,)), TensorType(i64, ())], ["key", "n"])
    b = Builder(func.body)
    b.emit(Return, b.add(func.args[0], func.args[0]), func.args[0], func.args[1])
    made = data_parallel(func, [], [], keys=[0], shared=[2])
    key = np.array([5, 9], np.uint32)

    def work(me: Member) -> Any:
        return run(made, [key, np.asarray(7 + me.rank)])

    for rank, (doubled, same, shared) in enumerate(in_parallel(3, work, monkeypatch)):
        assert list(doubled) == [10, 2 * (9 + rank)]
        assert list(same) == [5, 9] and shared == 7
