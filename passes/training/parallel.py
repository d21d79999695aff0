"""Data parallelism: a function with gradients becomes one that averages them over processes.

Gradients are reduced in buckets, in the order in which the reverse pass makes them: a bucket's
collective starts right behind its last gradient and is waited for at the end, so that processes
exchange gradients while the rest of the way back is computed.  With sharded optimizer state
(ZeRO-1) each process asks for its parts of the gradients alone.  The order of sums is that of the
ranks.  May import: ir, its siblings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ...ir.core import Builder, Op, Value
from ...ir.ops.core import Const, Func
from ...ir.ops.dist import (
    AllReduceStart,
    AllReduceWait,
    Broadcast,
    Rank,
    ReduceScatterStart,
    ReduceScatterWait,
)
from ...ir.types import TensorType, u32

BUCKET_BYTES = 4 << 20
"""Bytes of gradients that are reduced together; what is larger alone is a bucket of its own."""


def data_parallel(
    func: Func,
    grads: Sequence[int],
    means: Sequence[int],
    *,
    shared: Sequence[int] = (),
    keys: Sequence[int] = (),
    scatter: int = 0,
    bucket_bytes: int = BUCKET_BYTES,
) -> Func:
    """A copy of `func` whose results `grads` and `means` are averages over all processes.

    `shared` results become those of process 0; `keys` are arguments u32[2] that seed random
    numbers: each process draws from a stream of its own.  With `scatter`, the number of processes,
    the results `grads` are this process's parts of the averages.
    """
    made = func.copy()
    last = made.body.last
    assert last is not None
    returned = list(made.returned)
    at = {op: k for k, op in enumerate(made.body)}
    gathered = [v for v in dict.fromkeys([returned[r] for r in means]) if v.tensor.dtype.is_float]
    scattered = list(dict.fromkeys([returned[r] for r in grads])) if scatter else []
    reduced = gathered if scatter else [*dict.fromkeys([*gathered, *[returned[r] for r in grads]])]
    pending: list[tuple[list[Value], bool]] = []
    for values, scattering in ((reduced, False), (scattered, True)):
        pending += [(bucket, scattering) for bucket in _buckets(values, at, bucket_bytes)]
    pending.sort(key=lambda item: _made_at(item[0], at))
    tickets = [_start(made, b, k, at, s) for k, (b, s) in enumerate(pending)]
    b = Builder(made.body, last, last.loc)
    averages: dict[Value, Value] = {}
    parts: dict[Value, Value] = {}
    for k, ((values, scattering), ticket) in enumerate(zip(pending, tickets)):
        if scattering:
            mine = ReduceScatterWait(*values, ticket, how="mean", bucket=k, world=scatter)
            parts.update(zip(values, b.insert(mine).results))
        else:
            sums = AllReduceWait(*values, ticket, how="mean", bucket=k)
            averages.update(zip(values, b.insert(sums).results))
    for r in shared:
        averages[returned[r]] = b.emit(Broadcast, returned[r])
    _return(made, last, [*means, *shared], averages)
    _return(made, last, grads, parts if scatter else averages)
    for k in keys:
        _own_stream(made, made.args[k])
    return made


def _return(func: Func, last: Op, results: Sequence[int], new: Mapping[Value, Value]) -> None:
    """Return other values in the places of some results."""
    returned = list(func.returned)
    for r in results:
        returned[r] = new.get(returned[r], returned[r])
    last.set_operands(returned)


def _buckets(values: Sequence[Value], at: Mapping[Op, int], most: int) -> list[list[Value]]:
    """Values in the order in which they are made, in groups of one element type of `most` bytes."""
    found: list[list[Value]] = []
    filling: dict[object, tuple[list[Value], int]] = {}
    for value in sorted(values, key=lambda v: _made_at([v], at)):
        dtype, size = value.tensor.dtype, _bytes(value.tensor)
        bucket, held = filling.get(dtype, ([], 0))
        if not bucket or held + size > most:
            bucket, held = [], 0
            found.append(bucket)
        bucket.append(value)
        filling[dtype] = (bucket, held + size)
    return found


def _made_at(values: Sequence[Value], at: Mapping[Op, int]) -> int:
    """When the last of these values is made; -1 for what is given."""
    return max([at.get(v.op, -1) if v.op is not None else -1 for v in values])


def _start(
    func: Func, values: Sequence[Value], bucket: int, at: Mapping[Op, int], scatter: bool
) -> Value:
    """Start a bucket's collective right behind the last op that makes one of its values."""
    where = _made_at(values, at)
    before = next((op for op, k in at.items() if k > where), None)
    assert before is not None  # the terminator comes last
    start = ReduceScatterStart if scatter else AllReduceStart
    op = start(*values, how="mean", bucket=bucket, loc=before.loc)
    return Builder(func.body, before, before.loc).insert(op).results[0]


def _bytes(type: TensorType) -> int:
    """Bytes of a tensor; an open extent counts as one."""
    fixed = [extent for extent in type.shape if isinstance(extent, int)]
    return math.prod(fixed) * (type.dtype.bits // 8 or 1)


def _own_stream(func: Func, key: Value) -> None:
    """Have what is drawn by a key differ between processes: its upper word plus the rank."""
    users = list(key.users)
    first = next(iter(func.body))
    b = Builder(func.body, first, first.loc)
    upper = b.insert(Const(np.asarray([0, 1], u32.np))).result
    own = b.add(key, b.mul(b.cast(b.emit(Rank), to=u32), upper))
    for user in users:
        if not user.terminator or user.block is not func.body:
            user.set_operands([own if v is key else v for v in user.operands])


__all__ = ["BUCKET_BYTES", "data_parallel"]
