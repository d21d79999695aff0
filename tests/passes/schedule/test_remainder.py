"""Products of a number of rows known at run time: every remainder is right and in registers."""

from __future__ import annotations

import numpy as np
import pytest

from irc.ir.core import Block, Builder
from irc.ir.dims import sym
from irc.ir.interpret_loops import run_kernel
from irc.ir.ops.core import Func, Fused, Yield
from irc.ir.ops.loop import Alloc
from irc.ir.target import Target
from irc.ir.types import TensorType, f32
from irc.ir.verify import verify
from irc.passes.lower.finish import finish
from irc.passes.lower.loops import lower_fused
from irc.passes.lower.scratch import hoist_scratch
from irc.passes.schedule.choose import choose
from irc.passes.schedule.memory import ComputeAt

NARROW = Target("t", vector_bits=128, registers=16, fma=True, expand=True)


@pytest.fixture(scope="module")
def kernel() -> Func:
    """x @ w + c, scheduled."""
    types = [TensorType(f32, s) for s in ((sym("M"), 5), (2, 5, 8), (2, 8))]
    block = Block(types)
    b = Builder(block)
    x, w, c = block.args
    b.emit(Yield, b.add(b.contract(x, w, equation="ak,jkn->ajn"), c))
    for op in list(block):
        if hasattr(op, "generic"):
            op.replace_by((op.generic(Builder(block, op), *op.operands),))
    plain = lower_fused(Fused(*Block(types).args, regions=[block]), "k")
    made = choose(plain, NARROW).kernel
    finish(made, NARROW)
    hoist_scratch(made)
    verify(made)
    return made


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 25])
def test_every_remainder(kernel: Func, rows: int) -> None:
    rng = np.random.default_rng(rows)
    x, w, c = [rng.standard_normal(s).astype(np.float32) for s in ((rows, 5), (2, 5, 8), (2, 8))]
    y = np.full((rows, 2, 8), np.nan, np.float32)
    assert run_kernel(kernel, [x, w, c, y]) == 0
    np.testing.assert_allclose(y, np.einsum("ak,jkn->ajn", x, w) + c, rtol=2e-5, atol=2e-6)


def test_accumulators_are_registers(kernel: Func) -> None:
    allocs = [op for op in kernel.walk() if isinstance(op, Alloc)]
    assert {a.result.buffer.space for a in allocs} == {"register"}
    assert {a.result.buffer.shape[0] for a in allocs} == {6, 4, 2, 1}


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 9), (13, 8), (7, 21)])
def test_rows_and_columns_known_at_run_time(rows: int, columns: int) -> None:
    types = [TensorType(f32, s) for s in ((sym("M"), 5), (5, sym("N")))]
    block = Block(types)
    b = Builder(block)
    b.emit(Yield, b.matmul(*block.args))
    for op in list(block):
        if hasattr(op, "generic"):
            op.replace_by((op.generic(Builder(block, op), *op.operands),))
    plain = lower_fused(Fused(*Block(types).args, regions=[block]), "k")
    chosen = choose(plain, NARROW)
    assert any([isinstance(step, ComputeAt) for step in chosen.steps])
    finish(chosen.kernel, NARROW)
    hoist_scratch(chosen.kernel)
    verify(chosen.kernel)
    rng = np.random.default_rng(rows)
    x, w = [rng.standard_normal(s).astype(np.float32) for s in ((rows, 5), (5, columns))]
    y = np.full((rows, columns), np.nan, np.float32)
    assert run_kernel(chosen.kernel, [x, w, y]) == 0
    np.testing.assert_allclose(y, x @ w, rtol=2e-5, atol=2e-6)
