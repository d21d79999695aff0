"""Gradient accumulation: one function on a large batch becomes a scan over micro-batches.

Works on a function that already gives gradients.  Losses and gradients are averaged (micro-batches
are equal, so that the mean of means is the mean), counts are summed, state goes through the
micro-batches in order, and what is given per sample is put together again.  May import: ir.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ...ir.core import Builder, Value
from ...ir.errors import Error
from ...ir.ops.control import Scan
from ...ir.ops.core import Const, Func, Return
from ...ir.types import TensorType, f32


def inline(b: Builder, func: Func, args: Sequence[Value]) -> list[Value]:
    """The results of a function on these values, its ops copied to the builder's place."""
    env = dict(zip(func.args, args, strict=True))
    for op in func.body:
        if not op.terminator:
            b.insert(op.copy(env))
    return [env.get(v, v) for v in func.returned]


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
    sums = [_zeros(b, returned[r].tensor) for r in added]
    rows = [b.reshape(made.args[k], shape=(count, *func.args[k].tensor.shape)) for k in batch]

    def body(b: Builder, *values: Value) -> list[Value]:
        totals = values[len(states) : len(states) + len(sums)]
        own = dict(zip(carried, values)) | dict(zip(batch, values[len(states) + len(sums) :]))
        found = inline(b, func, [own.get(k, a) for k, a in enumerate(made.args)])
        next_sums = [b.add(t, _as(b, found[r], t)) for t, r in zip(totals, added)]
        return [*[found[r] for r in carried.values()], *next_sums, *[found[r] for r in kept]]

    scan = b.insert(Scan.make([*states, *sums], rows, body))
    results: dict[int, Value] = dict(zip([*carried.values(), *added, *kept], scan.results))
    for r in added:
        total = results[r]
        if r in mean:
            share = b.insert(Const(np.asarray(1 / count, total.tensor.dtype.np))).result
            total = b.mul(total, share)
        results[r] = _as(b, total, returned[r])
    for r in kept:
        shape = results[r].tensor.shape
        results[r] = b.reshape(results[r], shape=(shape[0] * shape[1], *shape[2:]))
    b.emit(Return, *[results[r] for r in range(len(returned))])
    return made


def _as(b: Builder, value: Value, like: Value) -> Value:
    """`value` in the element type of another."""
    dtype = like.tensor.dtype
    return value if value.tensor.dtype is dtype else b.cast(value, to=dtype)


def _times(type: TensorType, count: int) -> TensorType:
    """The type with `count` times as many rows."""
    return TensorType(type.dtype, (type.shape[0] * count, *type.shape[1:]))


def _narrow(type: TensorType) -> bool:
    return type.dtype.is_float and type.dtype.bits < 32


def _zeros(b: Builder, type: TensorType) -> Value:
    """Where a sum begins; sums of narrow floats are kept in f32."""
    dtype = f32 if _narrow(type) else type.dtype
    zero = b.insert(Const(np.zeros((), dtype.np))).result
    return b.broadcast_to(zero, shape=type.shape) if type.shape else zero


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


__all__ = ["accumulate", "inline", "micro_rows"]
