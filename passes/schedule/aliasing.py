"""Rows whose addresses lie a power of two apart share sets of the first cache: move them apart.

A register tile reads one element of each of its rows per step.  Where the rows fall into fewer sets
than they need, a line is gone before its next element is read; one copy, a cache line longer per
row, cures that.  May import: ir, the steps beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...ir.dims import symbols_of
from ...ir.ops.loop import Load
from .memory import Pad, Stage
from .scheduler import Scheduler, static, stride
from .steps import parallel

ALIAS_BYTES = 4096
"""Addresses this far apart share a set of the first cache (its size over its ways)."""
WAYS = 6
"""Lines of one set that rows may fill; the others are the streamed operand's."""
LEAST_USES = 8
"""Times that a row is read before copying it pays."""


def crowded(rows: Load, sizes: Mapping[str, int]) -> bool:
    """Do the rows of a tile, `sizes` of them per loop, fall into too few sets?"""
    width = rows.source.buffer.dtype.bytes
    for var, size in sizes.items():
        step = stride(rows, var)
        if size > 1 and isinstance(step, int) and step:
            apart = ALIAS_BYTES // math.gcd(step * width, ALIAS_BYTES)
            if -(-size // apart) > WAYS:
                return True
    return False


def spread_rows(
    s: Scheduler, label: str, rows: Load, sizes: Mapping[str, int], reduction: str, uses: int
) -> bool:
    """Copy the operand `rows`, once and a line longer per row, where its rows crowd.

    `sizes` are the loops of the tile, `uses` the number of times a row is read.  Gives whether it
    was copied.
    """
    last = len(rows.index) - 1
    depth = rows.source.buffer.shape[last]
    if uses < LEAST_USES or not isinstance(depth, int) or not crowded(rows, sizes):
        return False
    if [d for d, e in enumerate(rows.index) if reduction in symbols_of(e)] != [last]:
        return False
    if not s.attempt(Stage(rows.source.name or "", "", label, "heap")):
        return False
    copy = next(a for a in s.allocs() if a.label == label)
    line = s.target.line // rows.source.buffer.dtype.bytes
    found = copy.result.buffer.shape[last]
    s.do(Pad(label, last, static(found) + line))
    if s.target.threads > 1:
        s.attempt(parallel(f"{label}.c0"))
    return True


__all__ = ["crowded", "spread_rows"]
