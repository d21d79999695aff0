"""The arithmetic of collectives over a transport that moves bytes.

Every sum is made in the order of the ranks by one process and handed to the others (or by all of
them in the same order), so that all hold the same bits, whatever the message sizes; sums of floats
narrower than f32 are made in f32 and rounded once.  A tensor's parts are those of ir/ops/dist.py.
Imports numpy and the core alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ...ir.core import Array
from ...ir.types import from_numpy

BLOCK_BYTES = 4 << 20
"""Bytes that are exchanged at once: they stay in the caches between the steps."""
SMALL_BYTES = 32 << 10
"""Up to here everybody sums everything: one message in place of two."""

COMBINE: dict[str, Any] = {
    "sum": np.add, "mean": np.add, "max": np.maximum, "min": np.minimum,
}  # fmt: skip


class Transport(Protocol):
    """What moves rows of bytes between processes."""

    rank: int
    world: int

    def all_to_all(self, send: Array, receive: Array) -> None:
        """Row r of `send` becomes row (own rank) of process r's `receive`."""

    def all_gather(self, send: Array, receive: Array) -> None:
        """`send` of process r becomes row r of everybody's `receive`."""


def reduced(t: Transport, xs: Sequence[Array], how: str, scatter: bool) -> list[Array]:
    """The arrays combined over all processes; with `scatter` the parts of this one.

    All are of one element type.
    """
    flat = [np.ascontiguousarray(x).reshape(-1) for x in xs]
    extents = [-(-f.size // t.world) for f in flat]
    out = [np.empty(n if scatter else n * t.world, f.dtype) for f, n in zip(flat, extents)]
    for block in _blocks(extents, xs[0].itemsize * t.world):
        width = sum([stop - start for _, start, stop in block])
        send = np.empty((t.world, width), xs[0].dtype)
        for (k, start, stop), at in _places(block):
            for r in range(t.world):
                _put(send[r, at : at + stop - start], flat[k], r * extents[k] + start,
                     (r + 1) * extents[k])  # fmt: skip
        found = _exchanged(t, send, how, scatter)
        for (k, start, stop), at in _places(block):
            if scatter:
                out[k][start:stop] = found[0, at : at + stop - start]
                continue
            rows = out[k].reshape(t.world, extents[k])
            rows[:, start:stop] = found[:, at : at + stop - start]
    if scatter:
        return out
    return [o[: f.size].reshape(x.shape) for o, f, x in zip(out, flat, xs)]


def _exchanged(t: Transport, send: Array, how: str, scatter: bool) -> Array:
    """Row r of `send` combined over all processes: all rows, or this process's alone."""
    if send.nbytes <= SMALL_BYTES:
        every = np.empty((t.world, *send.shape), send.dtype)
        t.all_gather(_bytes(send), _bytes(every))
        found = combined(every, how)
        return found[t.rank : t.rank + 1] if scatter else found
    received = np.empty_like(send)
    t.all_to_all(_bytes(send), _bytes(received))
    mine = combined(received, how)
    if scatter:
        return mine[None]
    found = received  # its rows are read already
    t.all_gather(_bytes(mine), _bytes(found))
    return found


def combined(rows: Array, how: str) -> Array:
    """Rows combined in their order."""
    dtype = from_numpy(rows.dtype)
    narrow = dtype.is_float and dtype.bits < 32
    total: Array = rows[0].astype(np.float32) if narrow else rows[0].copy()
    with np.errstate(all="ignore"):
        for row in rows[1:]:
            COMBINE[how](total, row.astype(np.float32) if narrow else row, out=total)
        if how == "mean":
            total *= total.dtype.type(1 / len(rows))
    return total.astype(rows.dtype) if narrow else total


def _blocks(extents: Sequence[int], size: int) -> Iterator[list[tuple[int, int, int]]]:
    """Columns of all arrays as (array, first, behind the last), in lists of a block's bytes."""
    most = max(1, BLOCK_BYTES // size)
    block: list[tuple[int, int, int]] = []
    held = 0
    for k, extent in enumerate(extents):
        start = 0
        while start < extent:
            stop = min(extent, start + most - held)
            block.append((k, start, stop))
            held += stop - start
            start = stop
            if held == most:
                yield block
                block, held = [], 0
    if block:
        yield block


def _places(block: Sequence[tuple[int, int, int]]) -> Iterator[tuple[tuple[int, int, int], int]]:
    """Each run of columns with its place in the block."""
    at = 0
    for run in block:
        yield run, at
        at += run[2] - run[1]


def _put(goal: Array, flat: Array, start: int, limit: int) -> None:
    """Copy elements from `start` on, zeros behind the last; `limit` ends the part."""
    there = flat[start : min(limit, start + goal.size)]
    goal[: there.size] = there
    goal[there.size :] = 0


def _bytes(x: Array) -> Array:
    """The memory of a dense array."""
    return x.reshape(-1).view(np.uint8)


__all__ = ["BLOCK_BYTES", "SMALL_BYTES", "Transport", "combined", "reduced"]
