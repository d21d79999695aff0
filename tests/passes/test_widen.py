"""Narrow floats in f32: the same bits, one conversion each way per rounded value, weights once."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from irc.ir.core import Builder, Value
from irc.ir.interpret import run
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.types import DType, TensorType, bf16, f16, f32
from irc.ir.verify import verify
from irc.passes.canonicalize import Canonicalize
from irc.passes.widen import Widen

rng = np.random.default_rng(5)


def widened(
    fill: Callable[..., Value], dtype: DType, *shapes: tuple[int, ...]
) -> tuple[Module, Counter[str], list[tuple[np.ndarray, np.ndarray]]]:
    """The module after the pass, how many ops of each name it has, and (result, wanted) pairs."""
    func = Func.make("main", [TensorType(dtype, s) for s in shapes])
    b = Builder(func.body)
    b.emit(Return, fill(b, *func.args))
    module = Module.make([func])
    feeds = [rng.uniform(-2, 2, s).astype(dtype.np) for s in shapes]
    wanted = run(module, feeds)
    made = Widen().run(module.clone())
    verify(made)
    made = Canonicalize().run(made)
    assert made.main.body.last is not None
    pairs = list(zip(run(made, feeds), wanted, strict=True))
    assert all([a.dtype == c.dtype for a, c in pairs])
    return made, Counter([op.name for op in made.main.body]), pairs


@pytest.mark.parametrize("dtype", [f16, bf16])
def test_elementwise_ops_give_the_same_bits(dtype: DType) -> None:
    def fill(b: Builder, x: Value, y: Value) -> Value:
        return b.mul(b.add(b.mul(x, y), x), b.relu(b.sub(y, x)))

    made, names, pairs = widened(fill, dtype, (7, 9), (9,))
    for got, want in pairs:
        np.testing.assert_array_equal(got, want)
    arithmetic = [op for op in made.main.body if op.name in ("add", "mul", "sub", "relu")]
    assert {op.results[0].tensor.dtype for op in arithmetic} == {f32}
    # two operands widened; mul, add, sub rounded and widened again; the last mul rounded
    assert names["cast"] == 2 + 3 * 2 + 1


def test_what_is_rounded_already_is_not_rounded_again() -> None:
    def fill(b: Builder, x: Value) -> Value:
        return b.max(b.transpose(b.relu(b.neg(x)), perm=(1, 0)), b.transpose(b.abs(x), perm=(1, 0)))

    _, names, pairs = widened(fill, f16, (3, 4))
    np.testing.assert_array_equal(*pairs[0])
    assert names["cast"] == 2


def test_products_sum_in_f32_and_weights_are_converted_here() -> None:
    weights = rng.standard_normal((33, 5)).astype(np.float16)

    def fill(b: Builder, x: Value) -> Value:
        return b.matmul(x, b.insert(Const(weights)).result)

    made, names, pairs = widened(fill, f16, (4, 33))
    np.testing.assert_allclose(*pairs[0], rtol=2e-3, atol=1e-3)
    assert names["cast"] == 2
    consts = [op for op in made.main.body if isinstance(op, Const)]
    assert [op.result.tensor.dtype for op in consts] == [f32]


def test_moves_of_inputs_and_tables_stay_narrow() -> None:
    table = rng.standard_normal((50, 4)).astype(np.float16)

    def fill(b: Builder, x: Value) -> Value:
        rows = b.gather(b.insert(Const(table)).result, b.cast(x, to=DType("i64")), axis=0)
        return b.reshape(rows, shape=(12,))

    made, names, pairs = widened(fill, f16, (3,))
    np.testing.assert_array_equal(*pairs[0])
    assert names["cast"] == 1
    assert all([v.tensor.dtype is not f32 for op in made.main.body for v in op.results])
