"""Vector accesses that jump between lanes become a few contiguous ones.

An access across blocks of channels reads `x[(l + 2) // 16, (l + 2) % 16]`: lanes 0 to 13 from one
block, 14 and 15 from the next.  Each run of lanes is one masked access, and a load selects between
them.  Runs after unrolling, when such shifts are numbers.  May import: ir,
passes.schedule.
"""

from __future__ import annotations

from ...ir.core import OPS, Op, Value
from ...ir.dims import sym
from ...ir.ops.core import Const, Func
from ...ir.ops.loop import IndexValue, Load, Splat, Store
from ...ir.types import VectorType, boolean, i32
from ..schedule.runs import Run, jumps, runs_of


def split_lanes(kernel: Func) -> None:
    """Split the vector loads and stores of a kernel, in place."""
    for op in list(kernel.walk()):
        if isinstance(op, (Load, Store)) and op.lane and jumps(op, op.lane):
            runs = runs_of(op.index, op.lane, _lanes(op))
            if runs:
                _split_load(op, runs) if isinstance(op, Load) else _split_store(op, runs)


def _lanes(op: Load | Store) -> int:
    type_ = op.result.type if isinstance(op, Load) else op.value.type
    assert isinstance(type_, VectorType)
    return type_.lanes


def _split_load(op: Load, runs: list[Run]) -> None:
    block, type_ = op.block, op.result.type
    assert block is not None and isinstance(type_, VectorType)

    def put(made: Op) -> Value:
        block.insert_before(made, op)
        return made.results[0]

    def part(run: Run) -> Value:
        where = (*op.where, *run.guard(op.lane))
        return put(
            Load(op.source, index=run.index, where=where, fill=op.fill, lane=op.lane,
                 lanes=op.lanes, loc=op.loc)
        )  # fmt: skip

    number = put(IndexValue(value=sym(op.lane), lane=op.lane, lanes=type_.lanes, dtype=i32))
    value = part(runs[0])
    for run in runs[1:]:
        low = put(Splat(put(Const(run.low, i32)), lanes=type_.lanes))
        beyond = put(OPS["ge"].raw([number, low], (), [VectorType(boolean, type_.lanes)]))
        value = put(OPS["where"].raw([beyond, part(run), value], (), [type_], loc=op.loc))
    op.replace_by((value,))


def _split_store(op: Store, runs: list[Run]) -> None:
    block = op.block
    assert block is not None
    for run in runs:
        where = (*op.where, *run.guard(op.lane))
        block.insert_before(
            Store(op.value, op.target, index=run.index, where=where, lane=op.lane, loc=op.loc), op
        )
    op.erase()


__all__ = ["split_lanes"]
