"""Gradient accumulation: one function on a large batch becomes a scan over micro-batches.

Works on a function that already gives gradients.  Losses and gradients are averaged (micro-batches
are equal, so that the mean of means is the mean), state goes through the micro-batches in order,
and what is given per sample is put together again.  May import: ir.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.core import Builder, Value
from ...ir.dims import DimLike, equal
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


def accumulate(func: Func, count: int, batch: Sequence[int], mean: Sequence[int]) -> Func:
    """`func` on batches `count` times as large, in `count` micro-batches one after the other.

    `batch` are the parameters that hold one sample per row of axis 0, `mean` the results that are
    averaged; results paired as state are carried, the rest stacked and joined along axis 0.
    Raises E0606 for a count below 1, or where a result is neither.
    """
    if count < 1:
        raise Error("E0606", "accumulation takes at least one micro-batch", details=(f"{count}",))
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
    sums = [_zeros(b, returned[r].tensor) for r in mean]
    rows = [b.reshape(made.args[k], shape=(count, *func.args[k].tensor.shape)) for k in batch]
    kept = [r for r in range(len(returned)) if r not in mean and r not in carried.values()]
    for r in kept:
        if not returned[r].tensor.shape:
            raise Error(
                "E0606",
                f"result {r} of @{func.sym} is a scalar: micro-batches cannot be joined",
                hint="average it, or give it per sample",
            )

    def body(b: Builder, *values: Value) -> list[Value]:
        state = values[: len(states)]
        totals = values[len(states) : len(states) + len(sums)]
        own = dict(zip(carried, state)) | dict(zip(batch, values[len(states) + len(sums) :]))
        found = inline(b, func, [own.get(k, a) for k, a in enumerate(made.args)])
        added = [
            b.add(
                t, b.cast(found[r], to=t.tensor.dtype) if _narrow(returned[r].tensor) else found[r]
            )
            for t, r in zip(totals, mean)
        ]
        return [*[found[r] for r in carried.values()], *added, *[found[r] for r in kept]]

    scan = b.insert(Scan.make([*states, *sums], rows, body))
    results: list[Value | None] = [None] * len(returned)
    for r, value in zip([*carried.values(), *mean, *kept], scan.results, strict=True):
        if r in mean:
            share = b.insert(Const(np.asarray(1 / count, value.tensor.dtype.np))).result
            value = b.mul(value, share)
            if value.type is not returned[r].type:
                value = b.cast(value, to=returned[r].tensor.dtype)
        elif r in kept:
            shape = value.tensor.shape
            value = b.reshape(value, shape=(shape[0] * shape[1], *shape[2:]))
        results[r] = value
    b.emit(Return, *results)  # type: ignore[arg-type]  # every result has its role
    return made


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


def micro_rows(rows: DimLike, count: int) -> DimLike:
    """The rows of one micro-batch; E0606 where a batch of `rows` does not split evenly."""
    part = rows // count
    if equal(part * count, rows) is not True:
        raise Error(
            "E0606",
            f"a batch of {rows} does not split into {count} micro-batches",
            hint="take a batch size that is a multiple, or drop the last batch",
        )
    return part


__all__ = ["accumulate", "inline", "micro_rows"]
