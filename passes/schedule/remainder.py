"""The rows that full tiles leave where their number is known only at run time.

They run in tiles of four rows, of two, and one: each keeps its accumulators in registers, which
a tile of as many rows as there may be could not.  May import: ir, the steps beside it.
"""

from __future__ import annotations

from ...ir.dims import symbols_of
from ...ir.ops.loop import Alloc, For, Store
from .memory import ComputeAt
from .nests import accesses, find_loop, perfect_chain
from .scheduler import Scheduler
from .steps import Partition, Tile

FEW = 4
"""Rows of the smaller tile: with two vectors each, independent sums enough for one unit."""


def divide_rows(s: Scheduler, label: str, lanes: int) -> None:
    """Divide every copy of the tile `label` whose rows, and they alone, have no static extent.

    `lanes` is the dimension of the vector.
    """
    for alloc in s.allocs():
        rows = _open_rows(alloc, lanes) if _is_copy(alloc.label, label) else ""
        if rows:
            _divide(s, alloc.label, rows)


def _is_copy(label: str, of: str) -> bool:
    return label == of or (label.startswith(of) and not label[len(of) :].replace(".t", ""))


def _open_rows(alloc: Alloc, lanes: int) -> str:
    """The one loop without a static extent of the nest that reads the tile; empty if there is none,
    or it is that of the lanes.
    """
    loops = _open_loops(alloc)
    if len(loops) != 1:
        return ""
    indices = [u.attributes["index"][lanes] for u in alloc.result.users]
    return "" if any([loops[0] in symbols_of(e) for e in indices]) else loops[0]


def _open_loops(alloc: Alloc) -> list[str]:
    """The loops without a static extent of the nest that only reads the tile."""
    for head in alloc.block or ():
        mine = [op for op in accesses(head) if op.operands[-1] is alloc.result]
        if isinstance(head, For) and mine and not any([isinstance(op, Store) for op in mine]):
            return [l.var for l in perfect_chain(head) if not isinstance(l.extent, int)]
    return []


def _divide(s: Scheduler, label: str, rows: str, size: int = FEW) -> None:
    """Tiles of `size` rows, what they leave in tiles of half as many, and so on to single rows."""
    if size == 1:
        s.attempt(ComputeAt(label, rows, "register"))
        return
    count = find_loop(s.kernel, rows).extent
    if not s.attempt(Tile(rows, size)):
        return
    if not s.attempt(ComputeAt(label, f"{rows}.o", "register")):
        return
    if s.attempt(Partition(f"{rows}.o", count // size)):
        rest = find_loop(s.kernel, f"{rows}.o").next
        copies = [op for op in rest.walk() if isinstance(op, Alloc)] if rest is not None else []
        inner = [l for a in copies for l in _open_loops(a)]
        if len(copies) == 1 and len(inner) == 1:
            _divide(s, copies[0].label, inner[0], size // 2)


__all__ = ["divide_rows"]
