"""The adjoint of interpolation along an axis, as ops: what `resample` gives back.

Where extents are known, each source element gathers the result elements to which it contributed, by
a table made here; otherwise those are scattered.  Imports: the core, types, dims.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import Array, Builder, Op, Value
from ..dims import DimLike
from ..types import i64
from .core import Const
from .elementwise import constant
from .index import added_along
from .shape import DimValue

Place = tuple[int, int, int]


def of_line(
    b: Builder,
    g: Value,
    axis: int,
    extent: DimLike,
    place: Place,
    taps: int,
    weights: Value | None,
) -> Value:
    """The cotangent of x, of `extent` along `axis`, for that of its interpolation there.

    Result element p took the `taps` elements from floor((a * p + b) / c) on, the edge repeated,
    times row p of `weights` [period, taps].
    """
    size = g.tensor.shape[axis]
    known = type(extent) is int and type(size) is int
    known = known and (weights is None or type(weights.tensor.shape[0]) is int)
    if known:
        return _gathered(b, g, axis, int(extent), place, taps, weights)  # type: ignore[arg-type]
    parts = []
    for tap in range(taps):
        part = g
        if weights is not None:
            row = _row(b, weights, tap, size)
            part = b.mul(g, b.reshape(row, shape=_along(g.tensor.rank, axis, size)))
        parts.append(added_along(b, part, _index(b, place, tap, size, extent), axis, extent))
    total = parts[0]
    for part in parts[1:]:
        total = b.add(total, part)
    return total


def _gathered(
    b: Builder,
    g: Value,
    axis: int,
    extent: int,
    place: Place,
    taps: int,
    weights: Value | None,
) -> Value:
    size: Any = g.tensor.shape[axis]
    at, tap, there = _contributions(extent, size, place, taps)
    behind = [1] * (g.tensor.rank - axis - 1)
    shape = (extent, at.shape[1], *behind)
    parts = b.take(g, b.insert(Const(at)).result, axis=axis)
    if weights is not None:
        period: Any = weights.tensor.shape[0]
        flat = b.reshape(weights, shape=(period * taps,))
        rows = b.take(flat, b.insert(Const(at % max(period, 1) * taps + tap)).result)
        parts = b.mul(parts, b.reshape(rows, shape=shape))
    if not there.all():
        mask = b.insert(Const(there.reshape(shape))).result
        parts = b.where(mask, parts, constant(b, parts, 0.0))
    return b.reduce_sum(parts, axes=(axis + 1,))  # type: ignore[no-any-return]


def _contributions(extent: int, size: int, place: Place, taps: int) -> tuple[Array, Array, Array]:
    """Of each source element the (result element, tap) pairs that took it, [extent, most], and
    which of those there are."""
    result = np.arange(size)[:, None]
    first = (place[0] * result + place[1]) // place[2]
    source = np.clip(first + np.arange(taps), 0, max(extent - 1, 0)).reshape(-1)
    order = np.argsort(source, kind="stable")
    counts = np.bincount(source, minlength=extent)[:extent]
    most = int(counts.max(initial=0))
    rank = np.arange(source.size) - np.repeat(np.cumsum(counts) - counts, counts)
    at, tap = np.zeros((2, extent, most), np.int64)
    there = np.zeros((extent, most), np.bool_)
    where = (source[order], rank)
    at[where], tap[where], there[where] = order // taps, order % taps, True
    return at, tap, there


def of_weights(b: Builder, op: Op, k: int, g: Value) -> Value:
    """The cotangent of the weights [period, taps] of the k-th axis of a `resample`.

    The other axes are resized, then each tap is a copy, summed over all but this axis.
    """
    attrs = op.attributes
    axis, place, size = attrs["axes"][k], attrs["places"][k], attrs["sizes"][k]
    x, *weights = op.operands
    rest = [n for n in range(len(weights)) if n != k]
    picked = {name: [attrs[name][n] for n in rest] for name in attrs}
    if x.tensor.dtype is not g.tensor.dtype:
        x = b.cast(x, to=g.tensor.dtype)
    if rest:
        x = b.resample(x, *[weights[n] for n in rest], **picked)
    others = tuple([d for d in range(x.tensor.rank) if d != axis])
    columns = []
    for tap in range(attrs["taps"][k]):
        a, start, c = place
        read = b.resample(x, axes=(axis,), sizes=(size,), places=((a, start + c * tap, c),),
                          taps=(1,))  # fmt: skip
        column = b.reduce_sum(b.mul(g, read), axes=others) if others else b.mul(g, read)
        columns.append(b.reshape(column, shape=(size, 1)))
    table = b.concat(*columns, axis=1)
    period = weights[k].tensor.shape[0]
    if period is size or period == size:
        return table  # type: ignore[no-any-return]
    rounds = -(-size // period)
    table = b.pad(table, low=(0, 0), high=(rounds * period - size, 0))
    table = b.reshape(table, shape=(rounds, period, attrs["taps"][k]))
    return b.reduce_sum(table, axes=(0,))  # type: ignore[no-any-return]


def _along(rank: int, axis: int, size: DimLike) -> Sequence[DimLike]:
    return [size if k == axis else 1 for k in range(rank)]


def _row(b: Builder, weights: Value, tap: int, size: DimLike) -> Value:
    """The weights of one tap for every result element: [size]."""
    period = weights.tensor.shape[0]
    column = b.slice(weights, starts=(0, tap), sizes=(period, 1))
    column = b.reshape(column, shape=(period,))
    at = b.iota(shape=(size,))
    return b.take(column, b.mod(at, b.emit(DimValue, dim=period, dtype=i64)))  # type: ignore[no-any-return]


def _index(b: Builder, place: Place, tap: int, size: DimLike, extent: DimLike) -> Value:
    """Which source element every result element took: [size]."""
    a, start, c = place
    at = b.iota(shape=(size,))
    at = b.add(b.mul(at, constant(b, at, a)), constant(b, at, start))
    step = constant(b, at, c)
    first = b.div(b.sub(at, b.mod(at, step)), step)
    first = b.add(first, constant(b, at, tap))
    last = b.sub(b.emit(DimValue, dim=extent, dtype=i64), constant(b, at, 1))
    return b.max(b.min(first, last), constant(b, at, 0))  # type: ignore[no-any-return]


__all__ = ["of_line", "of_weights"]
