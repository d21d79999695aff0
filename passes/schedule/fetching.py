"""Operands of an epilogue, asked for while the sum is computed.

A tile of sums takes long, and what its epilogue reads (a residual, a parameter and its slots) lies
in memory: asked for before the reduction, it is in the cache when the sums are done.  May import:
ir, the steps beside it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from ...ir.core import Block, Builder
from ...ir.dims import DimLike, substitute, sym, symbols_of
from ...ir.ops.core import Func
from ...ir.ops.loop import Alloc, For, Load, Prefetch, Store
from .nests import Refused, accesses, perfect_chain
from .scheduler import Scheduler, static
from .steps import Step

DEPTH = 64
"""Rounds of the reduction below which the memory has no time to answer."""


@dataclass(frozen=True)
class Fetch(Step):
    """Before the nests that compute the register tile `label`, prefetch what the nest that reads
    the tile loads of buffers of at least `least` bytes, one line per vector.
    """

    label: str
    least: int

    def apply(self, kernel: Func) -> None:
        found = False
        for alloc in [op for op in kernel.walk() if isinstance(op, Alloc)]:
            if alloc.label == self.label or alloc.label.startswith(f"{self.label}.t"):
                found = self._tile(alloc) or found
        if not found:
            raise Refused(f"nothing beside {self.label} is worth fetching early")

    def _tile(self, alloc: Alloc) -> bool:
        """One copy of the tile."""
        head = _reader(alloc)
        chain = perfect_chain(head) if head is not None else []
        if not chain or chain[-1].kind != "vector":
            return False
        lane, rows = chain[-1], [loop for loop in chain[:-1] if loop.kind == "unroll"]
        wanted = self._wanted(lane, rows)
        if not wanted or len(rows) != len(chain) - 1:
            return False
        block: Block = alloc.block  # type: ignore[assignment]
        b = Builder(block, alloc.next, lane.loc)
        env: dict[str, DimLike] = {lane.var: 0}
        for loop in rows:
            made = b.insert(For.make(f"{loop.var}.f", loop.extent, loop.kind, loop.lo))
            env[loop.var] = sym(made.var)
            b = Builder(made.body, loc=lane.loc)
        for load in wanted:
            index = tuple([substitute(e, env) for e in load.index])
            b.insert(Prefetch(load.source, index=index, write=False))
        return True

    def _wanted(self, lane: For, rows: list[For]) -> list[Load]:
        """Loads that differ along every loop of the tile, of large buffers, each once."""
        names = {loop.var for loop in (lane, *rows)}
        found: dict[object, Load] = {}
        for op in lane.body:
            if not isinstance(op, Load) or op.where or op.source.op is not None:
                continue
            size = static(op.source.buffer.size, 0) * op.source.buffer.dtype.bytes
            moving = {n for e in op.index for n in symbols_of(e)}
            if size >= self.least and names <= moving:
                found.setdefault((op.source, op.index), op)
        return list(found.values())


def _reader(alloc: Alloc) -> For | None:
    """The nest beside a tile that reads it and does not write it."""
    for head in alloc.block or ():
        mine = [op for op in accesses(head) if op.operands[-1] is alloc.result]
        if isinstance(head, For) and mine and not any([isinstance(op, Store) for op in mine]):
            return head
    return None


def fetch_early(s: Scheduler, label: str, depth: int) -> None:
    """Fetch the operands of the epilogue of tile `label` where its sums are of `depth` terms."""
    if depth >= DEPTH:
        with contextlib.suppress(Refused):  # most epilogues read nothing large
            s.do(Fetch(label, s.target.l2 // 4))


__all__ = ["Fetch", "fetch_early"]
