"""Fusion: every refusal has its reason, regions stay acyclic, large programs take linear time."""

import time

import numpy as np
import pytest

from irc.ir.core import Builder, Value
from irc.ir.interpret import run
from irc.ir.ops.core import Const, Func, Fused, Module, Return
from irc.ir.types import TensorType, f32
from irc.ir.verify import verify
from irc.passes.fuse import Fuse

X = TensorType(f32, (6, 6))


def fused(fill: object, *types: TensorType, **options: object) -> tuple[list[str], list[str]]:
    """The labels of the regions and the reasons of the refusals; results are compared."""
    func = Func.make("main", types or (X,))
    b = Builder(func.body)
    made = fill(b, *func.args)  # type: ignore[operator]
    b.emit(Return, *(made if isinstance(made, tuple) else (made,)))
    module = Module.make([func])
    rng = np.random.default_rng(0)
    feeds = [
        rng.standard_normal([int(e) for e in t.shape]).astype(np.float32) for t in types or (X,)
    ]
    wanted = run(module, feeds)
    step = Fuse(**options)  # type: ignore[arg-type]
    module = step.run(module)
    verify(module)
    for a, c in zip(run(module, feeds), wanted, strict=True):
        np.testing.assert_array_equal(a, c)
    labels = [op.label for op in module.main.body if isinstance(op, Fused)]
    return labels, [r.why for r in step.reasons]


def test_layer_norm_is_one_region() -> None:
    def fill(b: Builder, x: Value) -> Value:
        mean = b.reduce_mean(x, axes=(1,), keepdims=True)
        apart = b.sub(x, mean)
        spread = b.reduce_mean(b.mul(apart, apart), axes=(1,), keepdims=True)
        return b.div(apart, b.sqrt(spread))

    assert fused(fill)[0] == ["reduce_mean+sub+mul+reduce_mean+sqrt+div"]


def test_reductions_over_other_axes_stay_apart() -> None:
    def fill(b: Builder, x: Value) -> Value:
        rows = b.sub(x, b.reduce_max(x, axes=(1,), keepdims=True))
        return b.reduce_max(rows, axes=(0,), keepdims=True)

    labels, reasons = fused(fill)
    assert len(labels) == 2 and "it reduces other axes" in reasons


def test_a_costly_value_is_not_computed_per_row() -> None:
    def fill(b: Builder, x: Value) -> Value:
        row = b.exp(b.slice(x, starts=(0, 0), sizes=(1, 6)))
        return b.add(x, row)

    labels, reasons = fused(fill)
    assert labels == ["exp", "add"] and any(["along the broadcast axes" in r for r in reasons])


def test_a_cheap_one_is() -> None:
    def fill(b: Builder, x: Value) -> Value:
        return b.add(x, b.neg(b.slice(x, starts=(0, 0), sizes=(1, 6))))

    assert fused(fill)[0] == ["neg+add"]


def test_one_contraction_a_region() -> None:
    def fill(b: Builder, x: Value) -> Value:
        return b.add(b.matmul(x, x), b.matmul(b.relu(x), x))

    labels, reasons = fused(fill)
    assert sorted(labels) == ["matmul", "matmul+add", "relu"]
    assert "a region has one anchor" in reasons


def test_no_cycle_through_a_third_region() -> None:
    def fill(b: Builder, x: Value) -> Value:
        e = b.relu(x)
        s = b.reduce_sum(b.matmul(e, x), axes=(0,), keepdims=True)
        return b.add(e, s)

    labels, reasons = fused(fill)
    assert "another op between them needs one and feeds the other" in reasons and len(labels) == 3


def test_a_view_is_read_through_by_each_reader() -> None:
    def fill(b: Builder, x: Value) -> tuple[Value, ...]:
        t = b.transpose(x, perm=(1, 0))
        return b.exp(t), b.matmul(t, x), b.reduce_sum(t, axes=(0,))

    assert sorted(fused(fill)[0]) == ["exp", "matmul", "reduce_sum"]


def test_a_reshape_stays_outside_between_regions() -> None:
    def fill(b: Builder, x: Value) -> Value:
        return b.matmul(
            b.reshape(b.matmul(x, x), shape=(4, 9)),
            b.insert(Const(np.ones((9, 2), np.float32))).result,
        )

    func = Func.make("main", [X])
    b = Builder(func.body)
    b.emit(Return, fill(b, func.args[0]))
    module = Fuse().run(Module.make([func]))
    names = [op.name for op in module.main.body]
    assert names.count("reshape") == 1 and names.count("fused") == 2


def test_the_end_of_a_last_panel_is_dropped_where_it_is_computed() -> None:
    def fill(b: Builder, x: Value, w: Value, y: Value) -> Value:
        packed = b.contract(x, w, equation="ak,jkn->ajn")
        return b.add(b.unpack(packed, axes=(1,), blocks=(4,), shape=(6, 7)), y)

    shapes = ((6, 6), (2, 6, 4), (6, 7))
    assert fused(fill, *[TensorType(f32, s) for s in shapes])[0] == ["contract+add"]


def test_limits() -> None:
    def fill(b: Builder, x: Value) -> Value:
        for _ in range(10):
            x = b.neg(x)
        return x

    labels, reasons = fused(fill, max=4)
    assert [label.count("neg") for label in labels] == [4, 4, 2]
    assert "the region would hold more than 4 ops" in reasons


@pytest.mark.parametrize("pool", [True, False])
def test_pools(pool: bool) -> None:
    def fill(b: Builder, x: Value) -> Value:
        w = b.insert(Const(np.ones((2, 1, 1, 1), np.float32))).result
        return b.max_pool(b.relu(b.conv(x, w)), kernel=(2, 2), strides=(2, 2))

    labels, reasons = fused(fill, TensorType(f32, (1, 1, 4, 4)), pool=pool)
    assert len(labels) == (1 if pool else 2)
    assert pool or "joining pools is switched off" in reasons


def test_time_is_linear() -> None:
    def seconds(count: int) -> float:
        func = Func.make("main", [X])
        b = Builder(func.body)
        x = func.args[0]
        for k in range(count):
            x = b.matmul(x, x) if k % 5 == 0 else b.add(b.relu(x), x)
        b.emit(Return, x)
        start = time.process_time()
        Fuse().run(Module.make([func]))
        return time.process_time() - start

    seconds(100)
    # Four times the ops: quadratic would be sixteen times the time.  The least of three, as the
    # machine may be busy.
    short, long = [min(seconds(count) for _ in range(3)) for count in (400, 1600)]
    assert long < 12 * short


@pytest.mark.parametrize(("window", "kernels"), [((2, 2), 1), ((3, 3), 2)])
def test_pools_of_large_windows_run_apart(window: tuple[int, int], kernels: int) -> None:
    func = Func.make("main", [TensorType(f32, (1, 4, 12, 12)), TensorType(f32, (4, 4, 1, 1))])
    b = Builder(func.body)
    y = b.max_pool(b.conv(*func.args), kernel=window, strides=window)
    b.emit(Return, y)
    fuse = Fuse()
    made = fuse.run(Module.make([func]))
    assert sum(op.name == "fused" for op in made.main.body) == kernels
    assert any("registers" in r.why for r in fuse.reasons) == (kernels == 2)


def test_what_reductions_read_of_a_stored_product_is_computed_by_them() -> None:
    """As a result of the product's region it would be written once and read by each."""

    def fill(b: Builder, x: Value, y: Value) -> tuple[Value, Value, Value]:
        g = b.matmul(x, y)
        scaled = b.mul(g, y)
        total = b.reduce_sum(scaled, axes=(1,), keepdims=True)
        return g, b.sub(scaled, total), b.reduce_sum(b.mul(g, x), axes=(0,))

    labels, reasons = fused(fill, X, X)
    assert sorted(labels) == ["matmul", "mul+reduce_sum", "mul+reduce_sum+sub"]
    assert "reductions compute it from what is stored anyway" in reasons


def test_what_nothing_else_needs_still_ends_the_product() -> None:
    def fill(b: Builder, x: Value, y: Value) -> Value:
        scaled = b.mul(b.matmul(x, y), y)
        return b.sub(scaled, b.reduce_sum(scaled, axes=(1,), keepdims=True))

    assert fused(fill, X, X)[0] == ["matmul+mul", "reduce_sum+sub"]
