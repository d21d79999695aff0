"""Scatters with repeated, negative and wrong indices: evaluate, own loops, and compiled code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from irc.backends.c.build import CExecutable
from irc.backends.c.target import c_target
from irc.backends.cpu.build import build
from irc.backends.cpu.host import codegen_target
from irc.backends.cpu.target import cpu_target
from irc.ir.core import OPS, Array, Builder
from irc.ir.errors import Error
from irc.ir.ops.core import Func, Module, Return
from irc.ir.types import TensorType, from_numpy
from irc.passes.pipeline import compile_module


def compiled(name: str, arrays: Sequence[Array], target: str, **attrs: Any) -> Any:
    """An executable of one op on operands like these."""
    func = Func.make("main", [TensorType(from_numpy(a.dtype), a.shape) for a in arrays])
    func.set_attr("inputs", tuple([f"x{k}" for k in range(len(arrays))]))
    b = Builder(func.body)
    b.emit(Return, b.emit(OPS[name], *func.args, **attrs))
    where = c_target() if target == "c" else cpu_target(int(target))
    planned = compile_module(Module.make([func]), where).planned
    assert planned is not None and not planned.host_steps
    if target == "c":
        return CExecutable(planned)
    return build(planned, where, codegen=codegen_target(None))


@pytest.mark.parametrize("target", ["1", "2", "c"])
@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_many_updates_of_one_element(target: str, reduction: str) -> None:
    """Large enough to be dealt out to threads, if anything were; the order decides the result."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4, 40_000)).astype(np.float32)
    index = rng.integers(-9, 9, (4, 40_000))
    updates = rng.uniform(0.5, 1.5, index.shape).astype(np.float32)
    want = OPS["scatter_elements"].evaluate(x, index, updates, axis=1, reduction=reduction)
    exe = compiled("scatter_elements", [x, index, updates], target, axis=1, reduction=reduction)
    np.testing.assert_array_equal(exe.run([x, index, updates])[0], want)


def test_the_last_of_equal_indices_wins(apply: Any) -> None:
    x, updates = np.zeros(4, np.float32), np.arange(1, 6, dtype=np.float32)
    got = apply("scatter_elements", x, np.array([2, 0, 2, -2, 0]), updates)
    np.testing.assert_array_equal(got, [5, 0, 4, 0])
    rows = np.array([[1], [1], [-3]])
    got = apply("scatter_nd", np.zeros((3, 2)), rows, np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(got, [[4, 5], [2, 3], [0, 0]])


def test_an_index_of_no_axes_names_everything(apply: Any) -> None:
    x, updates = np.ones((2, 3)), np.arange(12.0).reshape(2, 2, 3)
    index = np.zeros((2, 0), np.int64)
    got = apply("scatter_nd", x, index, updates, reduction="add")
    np.testing.assert_array_equal(got, x + updates.sum(0))
    np.testing.assert_array_equal(apply("scatter_nd", x, index, updates), updates[1])


def test_narrow_floats_round_at_each_step(apply: Any) -> None:
    """In bf16 256 + 1 is 256: adding one by one stays there."""
    import ml_dtypes

    x = np.full(1, 256, ml_dtypes.bfloat16)
    ones = np.ones(9, ml_dtypes.bfloat16)
    got = apply("scatter_elements", x, np.zeros(9, np.int64), ones, reduction="add")
    assert got[0] == 256


CALLS = {
    "scatter_elements": ([np.zeros(4, np.float32), np.array([1, 9]), np.ones(2, np.float32)], {}),
    "scatter_nd": (
        [np.zeros((4, 2), np.float32), np.array([[0, 1], [3, -3]]), np.ones(2, np.float32)], {},
    ),
    "tensor_scatter": (
        [np.zeros((2, 4), np.float32), np.ones((2, 2), np.float32), np.array([0, 3])], {"axis": 1},
    ),
    "gather_nd": ([np.zeros((4, 2), np.float32), np.array([[0, 1], [3, 2]])], {}),
    "reverse_sequence": ([np.zeros((4, 2), np.float32), np.array([5, 2])], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_an_index_out_of_range_is_an_error(name: str) -> None:
    """Of the reference and of compiled code, which ends with a status."""
    arrays, attrs = CALLS[name]
    op = OPS[name]
    given = {a.name: attrs.get(a.name, a.default) for a in op.spec.attrs}
    with pytest.raises(Error, match="out of range") as caught:
        op.evaluate(*arrays, **given)
    assert caught.value.code == "E0503"
    for target in ("1", "c"):
        with pytest.raises(Error) as caught:
            compiled(name, arrays, target, **attrs).run(arrays)
        assert caught.value.code == "E0506"


def test_a_cache_that_wraps_around(apply: Any) -> None:
    x, update = np.zeros((2, 5, 1)), np.array([[[1.0], [2], [3]], [[4.0], [5], [6]]])
    got = apply("tensor_scatter", x, update, np.array([4, 0]), axis=1, circular=True)
    np.testing.assert_array_equal(got[..., 0], [[2, 3, 0, 0, 1], [4, 5, 6, 0, 0]])


def test_gather_nd_with_symbolic_extents(apply: Any) -> None:
    x = np.arange(24.0).reshape(2, 4, 3)
    index = np.array([[[-1, 2]], [[1, -3]]])
    got = apply("gather_nd", x, index, types=["f64[B, N, 3]", "i64[B, 1, 2]"], batch=1)
    np.testing.assert_array_equal(got, [[x[0, 3, 2]], [x[1, 1, 0]]])


def test_reversed_sequences(apply: Any) -> None:
    x = np.arange(12).reshape(4, 3)
    got = apply("reverse_sequence", x, np.array([4, 0, 2]))
    np.testing.assert_array_equal(got.T, [[9, 6, 3, 0], [1, 4, 7, 10], [5, 2, 8, 11]])
