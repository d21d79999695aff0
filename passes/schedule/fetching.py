"""What the epilogue of the next tile touches, asked for while the sums of this one are computed.

A tile of sums takes long, and what its epilogue reads and writes (a residual, a parameter and its
slots, the result) lies in memory.  Asked for a row at a time during the tile before, it is in the
cache when it is needed, and the memory works while the sums do.  May import: ir, the steps beside
it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from ...ir.core import Builder
from ...ir.dims import DimLike, substitute, sym, symbols_of
from ...ir.ops.core import Func
from ...ir.ops.loop import Alloc, For, Load, Prefetch, Store
from ...ir.symbols import loops_around
from .nests import Refused, accesses, perfect_chain
from .scheduler import Scheduler, static
from .steps import Step

DEPTH = 64
"""Rounds of the reduction below which the memory has no time to answer."""
MOST = 3
"""Buffers fetched for one tile: more would push each other out of the first cache."""


@dataclass(frozen=True)
class Fetch(Step):
    """While the register tile `label` is computed, prefetch what the nest that reads the next one
    touches of buffers of at least `least` bytes, one line per vector.

    The rows of a tile are spread over the rounds of the reduction; where those are not one loop,
    or too few, the tile's own rows are asked for at its start.
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
        lane, rows = chain[-1], chain[:-1]
        wanted = self._wanted(lane, rows)
        if not wanted or not rows or not all([loop.kind == "unroll" for loop in rows]):
            return False
        rounds = _rounds(alloc)
        first, extent = rows[0], static(rows[0].extent)
        env: dict[str, DimLike] = {lane.var: 0}
        if rounds is None or static(rounds.extent, 0) < extent:
            b = Builder(alloc.block, alloc.next, lane.loc)  # type: ignore[arg-type]
        else:
            b = Builder(rounds.body, rounds.body.first, lane.loc)
            env[first.var] = extent + sym(rounds.var) * extent // rounds.extent
            rows = rows[1:]
        for loop in rows:
            made = b.insert(For.make(f"{loop.var}.f", loop.extent, loop.kind, loop.lo))
            env[loop.var] = sym(made.var)
            b = Builder(made.body, loc=lane.loc)
        for op in wanted:
            index = tuple([substitute(e, env) for e in op.index])
            b.insert(Prefetch(op.operands[-1], index=index, write=isinstance(op, Store)))
        return True

    def _wanted(self, lane: For, rows: list[For]) -> list[Load | Store]:
        """Accesses that differ along every loop of the tile, to large buffers, each once: what is
        read, then what is written (its lines are read too).
        """
        names = {loop.var for loop in (lane, *rows)}
        found: dict[object, Load | Store] = {}
        for kind in (Load, Store):
            for op in lane.body:
                if not isinstance(op, kind) or op.where or op.operands[-1].op is not None:
                    continue
                buffer = op.operands[-1]
                size = static(buffer.buffer.size, 0) * buffer.buffer.dtype.bytes
                moving = {n for e in op.index for n in symbols_of(e)}
                if size >= self.least and names <= moving:
                    found.setdefault((buffer, op.index), op)
        return list(found.values())[:MOST]


def _rounds(alloc: Alloc) -> For | None:
    """The loop that runs the reduction of a tile; None where there are several, or it is written
    out.
    """
    for user in alloc.result.users:
        around = [l for l in loops_around(user) if isinstance(user, Store) and l.reduction]
        if around:
            serial = [l for l in around if l.kind == "serial"]
            return serial[0] if len(serial) == 1 else None
    return None


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
