"""Copies that cross: results move by one element along one loop, operands along another.

Square tiles of both loops go through registers: rows of the operand come in as vectors, columns
leave as vectors (passes/lower/transposes.py makes the shuffles).  May import: ir, the steps beside
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.dims import DimLike, Range, coefficient, simplify, substitute, sym
from ...ir.ops.loop import For, Load, Store
from ...ir.symbols import loop_names, ranges_around
from ...ir.types import boolean
from .memory import Stage
from .nests import Refused, find_loop, perfect_chain
from .runs import moves_in_lanes
from .scheduler import Scheduler, address, static
from .steps import Partition, Reorder, Step, Tile, unroll, vector

MOST_LANES = 16
"""Longest side of a tile: as many rows stand in registers."""
FEWEST = 4
"""Extent below which a loop makes no rows worth turning."""


@dataclass(frozen=True)
class Crossing:
    """The loop along which results are dense, the one along which `load` is, the tile's side."""

    lane: str
    row: str
    load: Load
    size: int


def find_crossing(
    chain: Sequence[For], touched: Sequence[Load | Store], lane: str, lanes: int
) -> Crossing | None:
    """How one operand of a pointwise nest crosses its results; None if it does not."""
    size = min(lanes, MOST_LANES)
    crossing = [o for o in touched if isinstance(o, Load) and not moves_in_lanes(o, lane, lanes)]
    if size < FEWEST or len(crossing) != 1 or crossing[0].source.buffer.dtype.bits < 8:
        return None
    load = crossing[0]
    if not _moves(chain, load, lane, size, dense=False) or load.source.buffer.dtype is boolean:
        return None
    for loop in reversed(chain):
        if loop.var != lane and not loop.reduction and _moves(chain, load, loop.var, size):
            return Crossing(lane, loop.var, load, size)
    return None


def _moves(chain: Sequence[For], load: Load, var: str, size: int, *, dense: bool = True) -> bool:
    """Within a tile of `size`, does the load move by one element (or by any number) per step?"""
    loop = next(loop for loop in chain if loop.var == var)
    if not isinstance(loop.extent, int) or loop.extent < FEWEST or loop.lo != 0:
        return False
    inner, outer = f"{var}.i", f"{var}.o"
    ranges: dict[str, Range] = {
        **ranges_around(load),
        inner: (0, min(size, loop.extent) - 1),
        outer: (0, (loop.extent - 1) // size),
    }
    moved: DimLike = size * sym(outer) + sym(inner)
    steps = [coefficient(simplify(substitute(e, {var: moved}), ranges), inner) for e in load.index]
    if any([step is None for step in steps]):
        return False
    offset = simplify(substitute(address(load), {var: moved}), ranges)
    form = coefficient(offset, inner)
    return form is not None and (form[0] == 1 if dense else isinstance(form[0], int))


def schedule_crossing(s: Scheduler, chain: Sequence[For], found: Crossing) -> bool:
    """Tile the nest and stage the operand's tile in registers; leaves nothing behind if refused."""
    before, count = s.kernel.copy({}), len(s.steps)
    try:
        _tiles(s, chain, found)
    except Refused as refused:
        s.give_up(before, count, refused)
        return False
    return True


def _tiles(s: Scheduler, chain: Sequence[For], found: Crossing) -> None:
    """Other loops, tiles, then rows (written out) and lanes; the last tiles stand apart."""
    lane, row, size = found.lane, found.row, found.size
    extents = {loop.var: loop.extent for loop in chain}
    others = [loop.var for loop in chain if loop.var not in (lane, row)]
    outer, inner = list(others), []
    for var in (lane, row):
        tiled = static(extents[var]) > size
        if tiled:
            s.do(Tile(var, size))
            outer.append(f"{var}.o")
        inner.append(f"{var}.i" if tiled else var)
    if not outer:
        raise Refused("the nest is one tile")
    within, across = inner
    s.do(Reorder((*outer, across, within)))
    label = f"{lane}.t{row}"
    s.do(Stage(found.load.source.name or "", outer[-1], label, "register"))
    copies = [loop.var for loop in perfect_chain(_copy_of(s, outer[-1], label))]
    if len(copies) != 2:
        raise Refused(f"a tile of {found.load.source.name} has {len(copies)} dimensions")
    marks: list[Step] = [unroll(across), vector(within), unroll(copies[0]), vector(copies[1])]
    for mark in marks:
        s.do(mark)
    for var, suffix in ((lane, ".lt"), (row, ".mt")):
        _split(s, var, extents[var], size, suffix)


def _split(s: Scheduler, var: str, extent: DimLike, size: int, suffix: str) -> None:
    """Put the last tiles along `var` apart, so that all extents are numbers."""
    assert isinstance(extent, int)
    if extent <= size or not extent % size:
        return
    start = f"{var}.o"
    for name in sorted(loop_names(s.kernel)):
        if name == start or name.startswith(f"{start}.lt"):
            s.do(Partition(name, extent // size, suffix))


def _copy_of(s: Scheduler, outer: str, label: str) -> For:
    """The nest that fills the tile."""
    for op in find_loop(s.kernel, outer).body:
        if isinstance(op, For) and op.var.startswith(f"{label}.c"):
            return op
    raise Refused(f"{label} is filled in no loop")


__all__ = ["Crossing", "find_crossing", "schedule_crossing"]
