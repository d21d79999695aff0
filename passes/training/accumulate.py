"""Gradient accumulation: one function on a large batch becomes a scan over micro-batches.

Works on a function that already gives gradients.  Losses and gradients are averaged (micro-batches
are equal, so that the mean of means is the mean), counts are summed, state goes through the
micro-batches in order, and what is given per sample is put together again.  Narrow floats are
summed in f32.  May import: ir.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ...ir.core import Builder, Value
from ...ir.errors import Error
from ...ir.ops.contract import as_type
from ...ir.ops.control import Scan, inlined
from ...ir.ops.convert import compute_dtype
from ...ir.ops.core import Const, Func, Return, zeros
from ...ir.types import TensorType


def accumulate(
    func: Func,
    count: int,
    batch: Sequence[int],
    mean: Sequence[int],
    stacked: Collection[int] = (),
) -> Func:
    """`func` on batches `count` times as large, in `count` micro-batches one after the other.

    `batch` are the parameters that hold one sample per row of axis 0, `mean` the results that are
    averaged, `stacked` those with one row per sample, which are joined; results paired as state are
    carried, and all others summed.  Raises E0607 for a count below 1.
    """
    if count < 1:
        raise Error("E0607", "accumulation takes at least one micro-batch", details=(f"{count}",))
    if count == 1:
        return func
    carried = dict(func.state)  # parameter -> result
    returned = func.returned
    types = [_times(a.tensor, count) if k in batch else a.type for k, a in enumerate(func.args)]
    made = Func.make(
        func.sym, types, [a.name or "" for a in func.args], "func", func.outputs, func.state
    )
    b = Builder(made.body)
    states = [made.args[p] for p in carried]
    kept = [r for r in range(len(returned)) if r in stacked]
    added = [r for r in range(len(returned)) if r not in stacked and r not in carried.values()]
    wide = [compute_dtype(returned[r].tensor.dtype) for r in added]
    sums = [zeros(b, TensorType(t, returned[r].tensor.shape)) for t, r in zip(wide, added)]
    rows = [b.reshape(made.args[k], shape=(count, *func.args[k].tensor.shape)) for k in batch]

    def body(b: Builder, *values: Value) -> list[Value]:
        totals = values[len(states) : len(states) + len(sums)]
        own = dict(zip(carried, values)) | dict(zip(batch, values[len(states) + len(sums) :]))
        found = inlined(b, func.body, [own.get(k, a) for k, a in enumerate(made.args)])
        next_sums = [b.add(t, as_type(b, found[r], t.tensor.dtype)) for t, r in zip(totals, added)]
        return [*[found[r] for r in carried.values()], *next_sums, *[found[r] for r in kept]]

    scan = b.insert(Scan.make([*states, *sums], rows, body))
    results: dict[int, Value] = dict(zip([*carried.values(), *added, *kept], scan.results))
    for r in added:
        total = results[r]
        if r in mean:
            share = b.insert(Const(np.asarray(1 / count, total.tensor.dtype.np))).result
            total = b.mul(total, share)
        results[r] = as_type(b, total, returned[r].tensor.dtype)
    for r in kept:
        shape = results[r].tensor.shape
        results[r] = b.reshape(results[r], shape=(shape[0] * shape[1], *shape[2:]))
    b.emit(Return, *[results[r] for r in range(len(returned))])
    return made


def _times(type: TensorType, count: int) -> TensorType:
    """The type with `count` times as many rows."""
    return TensorType(type.dtype, (type.shape[0] * count, *type.shape[1:]))


def micro_rows(rows: int, count: int) -> int:
    """The rows of one micro-batch; E0607 where a batch of `rows` does not split evenly."""
    part, rest = divmod(rows, count)
    if rest:
        raise Error(
            "E0607",
            f"a batch of {rows} does not split into {count} micro-batches",
            hint="take a batch size that is a multiple, or drop the last batch",
        )
    return part


__all__ = ["accumulate", "micro_rows"]
