"""Executables with their state bound: in place, any batch, the same results as `run`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irc.ir.ops  # noqa: F401  # registers every op
from irc.backends.bound import Bound
from irc.backends.cpu.build import build
from irc.backends.cpu.target import cpu_target
from irc.backends.executable import Executable
from irc.ir.core import Builder
from irc.ir.dims import sym
from irc.ir.errors import Error
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.types import DType, TensorType, f32, i64
from irc.passes.pipeline import compile_module


def executable(rows: Any = 3, dtype: DType = f32) -> Executable:
    """(w, x, n) to (w + sum of x's rows, n + 1, x * w): two states around a batch."""
    types = [TensorType(dtype, (4,)), TensorType(dtype, (rows, 4)), TensorType(i64, ())]
    func = Func.make("main", types, ["w", "x", "n"], state=[(0, 0), (2, 1)])
    b = Builder(func.body)
    w, x, n = func.args
    new = b.add(w, b.reduce_sum(x, axes=(0,)))
    b.emit(Return, new, b.add(n, _one(b)), b.mul(x, w))
    planned = compile_module(Module.make([func]), cpu_target(1)).planned
    assert planned is not None
    return build(planned, cpu_target(1))


def _one(b: Builder) -> Any:
    return b.insert(Const(np.array(1, np.int64))).result


def test_state_changes_in_place_and_only_the_batch_is_passed() -> None:
    w, n = np.ones(4, np.float32), np.zeros((), np.int64)
    bound = Bound(executable(), {"w": w, "n": n})
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert bound.names == ("x",)
    (first,) = bound(x)
    (second,) = bound.run({"x": x})
    np.testing.assert_array_equal(first, x)
    np.testing.assert_array_equal(second, x * (1 + x.sum(0)))
    np.testing.assert_array_equal(w, 1 + 2 * x.sum(0))
    assert bound.state["w"] is w and n == 2


def test_batches_of_other_shapes() -> None:
    rows = sym("N")
    exe = executable(rows)
    w = np.zeros(4, np.float32)
    bound = Bound(exe, {"w": w, "n": np.zeros((), np.int64)})
    for size in (3, 5, 300, 3):
        (made,) = bound(np.ones((size, 4), np.float32))
        assert made.shape == (size, 4)
    np.testing.assert_array_equal(w, np.full(4, 311, np.float32))
    (plain,) = exe.run([np.zeros(4, np.float32), np.ones((2, 4), np.float32), np.int64(0)])[2:]
    assert plain.shape == (2, 4) and w[0] == 311


def test_what_cannot_be_written_is_copied() -> None:
    w = np.ones(4, np.float32)
    w.flags.writeable = False
    bound = Bound(executable(), {"w": w, "n": 0})
    bound(np.ones((3, 4), np.float32))
    assert w[0] == 1 and bound.state["w"][0] == 4 and bound.state["n"] == 1


def test_packed_state() -> None:
    i4 = DType("i4")
    types = [TensorType(i4, (5,)), TensorType(i4, (5,))]
    func = Func.make("main", types, ["w", "x"], state=[(0, 0)])
    b = Builder(func.body)
    wide = [b.cast(v, to=DType("i8")) for v in func.args]
    b.emit(Return, b.cast(b.add(*wide), to=i4))
    planned = compile_module(Module.make([func]), cpu_target(1)).planned
    assert planned is not None
    bound = Bound(build(planned, cpu_target(1)), {"w": np.array([1, 2, 3, -4, 0], i4.np)})
    assert bound(np.ones(5, i4.np)) == []
    assert bound.state["w"].astype(int).tolist() == [2, 3, 4, -3, 1]


@pytest.mark.parametrize(
    ("state", "batch", "code"),
    [
        ({"w": 1}, (), "E0501"),
        ({"w": 1, "n": 0, "x": 2}, (), "E0501"),
        ({"w": [0, 0, 0, 0], "n": 0}, (1, 2), "E0501"),
        ({"w": [0, 0, 0, 0], "n": 0}, (np.ones((2, 4), np.float32),), "E0502"),
        ({"w": [0, 0, 0], "n": 0}, (np.ones((3, 4), np.float32),), "E0502"),
    ],
)
def test_errors(state: Any, batch: Any, code: str) -> None:
    with pytest.raises(Error) as caught:
        Bound(executable(), state)(*batch)
    assert caught.value.code == code


def test_runs_on_the_same_state_again_see_its_arrays_and_no_others() -> None:
    exe = executable()
    x = np.ones((3, 4), np.float32)
    one, other = [np.full(4, v, np.float32) for v in (1, 2)]
    n = np.zeros((), np.int64)
    for w in (one, one, other, one):
        found = exe.run([w, x, n])
        assert found[0] is w and found[1] is n
    assert one[0] == 10 and other[0] == 5 and n == 4
    one.flags.writeable = False
    assert exe.run([one, x, n])[0] is not one and one[0] == 10
    with pytest.raises(Error) as caught:
        exe.run([other, np.ones((2, 4), np.float32), n])
    assert caught.value.code == "E0502"
    exe.run([other, x, n])
    assert other[0] == 8
