"""Work of regions and loops: operations of what is inside, bytes of what crosses the border."""

from __future__ import annotations

import pytest

from irc.ir.core import Builder, Op, Value
from irc.ir.dims import sym
from irc.ir.ops.control import ForLoop, If, Scan
from irc.ir.ops.core import Func, Fused, Module, Return
from irc.ir.types import TensorType, boolean, f32
from irc.passes.cost import ASSUMED, Cost, trips, work
from irc.passes.fuse import Fuse

X = TensorType(f32, (4, 8))


def only(func: Func, kind: type) -> Op:
    """The one op of a class in a function."""
    (found,) = [op for op in func.walk() if isinstance(op, kind)]
    return found


def test_a_region_counts_each_op_and_its_border_once() -> None:
    func = Func.make("main", [X, TensorType(f32, (8, 16)), TensorType(f32, (4, 16))])
    x, w, r = func.args
    b = Builder(func.body)
    b.emit(Return, b.relu(b.add(b.matmul(x, w), r)))
    fused = only(Fuse().run(Module.make([func])).main, Fused)
    product, sums = 2 * 4 * 16 * 8, 2 * 4 * 16
    assert work(fused) == Cost(product + sums, 4 * (4 * 8 + 8 * 16 + 2 * 4 * 16))


def test_a_view_does_no_work() -> None:
    func = Func.make("main", [X])
    moved = Builder(func.body).transpose(func.args[0], perm=(1, 0))
    assert moved.op is not None
    assert work(moved.op) == Cost(0, 2 * 4 * 4 * 8)


@pytest.mark.parametrize(("trip", "times"), [(7, 7), (0, 0), (sym("N"), ASSUMED)])
def test_a_loop_counts_its_rounds(trip: int, times: int) -> None:
    func = Func.make("main", [X])
    loop = ForLoop.make(trip, [func.args[0]], lambda b, i, v: [b.relu(v)])
    func.body.append(loop)
    assert trips(loop) == times
    assert work(loop) == Cost(times * 32, 2 * 4 * 32)


def test_a_scan_counts_its_slices_and_a_branch_its_dearer_arm() -> None:
    func = Func.make("main", [X, TensorType(f32, (5, 4, 8)), TensorType(boolean, ())])
    x, slices, flag = func.args

    def add(b: Builder, carried: Value, piece: Value) -> list[Value]:
        return [b.add(carried, piece)]

    scan = Scan.make([x], [slices], add)
    func.body.append(scan)
    assert work(scan).flops == 5 * 32
    branch = If.make(flag, lambda b: [b.relu(x)], lambda b: [b.relu(b.relu(x))])
    func.body.append(branch)
    assert work(branch).flops == 2 * 32
