"""Reductions over windows that slide along the lanes: pools in plain layout.

A vector of results keeps its accumulator in a register while the window is written out around it.
Tiles and rows that padding reaches stand apart, so that the others have no guards.  May import:
ir, the steps beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.dims import DimLike, Range, ceildiv, coefficient, extremes, floordiv, symbols_of
from ...ir.ops.core import Const
from ...ir.ops.loop import Alloc, For, Load, Store
from ...ir.symbols import loop_names, loop_range
from .memory import ComputeAt
from .nests import Refused, accesses, child_of, contains, find_loop, perfect_chain
from .runs import MOST_STRIDE
from .scheduler import Scheduler, static, stride
from .steps import Partition, Reorder, Tile, unroll, vector

TAPS = 32
"""Elements of a window up to which all of it is written out."""


@dataclass(frozen=True)
class Sliding:
    """An accumulator, the nest that updates it, what that reads, and the loop of the lanes."""

    acc: Alloc
    update: For
    loads: tuple[Load, ...]
    root: For
    lane: str


def match_sliding(s: Scheduler, root: For) -> Sliding | None:
    """The window reduction that `root` reads; None if it is something else."""
    block, chain = s.kernel.body, perfect_chain(root)
    allocs = [a for a in s.allocs() if a.block is block]
    touched = list(accesses(root))
    if len(allocs) != 1 or any([op.block is not chain[-1].body for op in touched]):
        return None
    (acc,) = allocs
    stores = [u for u in acc.result.users if isinstance(u, Store)]
    updates = [u for u in stores if not isinstance(u.value.op, Const)]
    nests = [child_of(u, block) for u in updates]
    if len(stores) != 2 or len(nests) != 1 or not isinstance(nests[0], For) or nests[0] is root:
        return None
    loads = [
        op for op in accesses(nests[0]) if isinstance(op, Load) and op.source is not acc.result
    ]
    lane = chain[-1].var
    if not _one_element(acc, nests[0], root, lane) or not _slides(nests[0], loads, updates[0]):
        return None
    if any([stride(op, lane) not in (0, 1) for op in touched]):
        return None
    return Sliding(acc, nests[0], tuple(loads), root, lane)


def _one_element(acc: Alloc, update: For, root: For, lane: str) -> bool:
    """Does each result come from one element of the accumulator, dense along the lanes?"""
    reads = [u for u in acc.result.users if isinstance(u, Load) and not contains(update, u)]
    loops = {loop.var for loop in perfect_chain(root)}
    return (
        len(reads) == 1
        and contains(root, reads[0])
        and symbols_of(reads[0].index[-1]) == {lane}
        and all([e == 0 or str(e) in loops for e in reads[0].index])
        and isinstance(acc.result.buffer.size, int)
    )


def _slides(update: For, loads: Sequence[Load], store: Store) -> bool:
    """Does a window move by a few elements along the lanes, with a reduction along them too?"""
    chain = perfect_chain(update)
    across = str(store.index[-1])
    reductions = [loop.var for loop in chain if loop.reduction]
    if not any([loop.var == across for loop in chain]) or len(loads) != 1:
        return False
    (load,) = loads
    along = [var for var in reductions if any([{var, across} <= symbols_of(e) for e in load.index])]
    taps = math.prod([static(loop.extent) for loop in chain if loop.reduction])
    return bool(along) and taps <= TAPS and stride(load, across) in range(1, MOST_STRIDE + 1)


def schedule_sliding(s: Scheduler, root: For) -> bool:
    """Schedule the nest `root` if it is such a reduction; False if it is not."""
    found = match_sliding(s, root) if s.target.vector_bits else None
    if found is None:
        return False
    before, count = s.kernel.copy({}), len(s.steps)
    try:
        _schedule(s, found)
    except Refused as refused:
        s.give_up(before, count, refused)
        return False
    return True


def _schedule(s: Scheduler, found: Sliding) -> None:
    """Lanes, the window written out, then the edges."""
    acc, lane = found.acc, found.lane
    edges = _edges(found)
    names = loop_names(s.kernel)
    outer = [loop.var for loop in perfect_chain(found.root)][:-1]
    lanes = s.target.lanes(acc.result.buffer.dtype.bits)
    extent = static(find_loop(s.kernel, lane).extent)
    if extent > lanes:
        s.do(Tile(lane, lanes))
        outer.append(f"{lane}.o")
    if not outer:
        raise Refused("the nest is one vector")
    s.do(ComputeAt(acc.label, outer[-1], "register"))
    for nest in [op for op in find_loop(s.kernel, outer[-1]).body if isinstance(op, For)]:
        chain = perfect_chain(nest)
        taps = [loop.var for loop in chain if loop.reduction]
        rest = [loop.var for loop in chain if not loop.reduction]
        if len(rest) != 1:
            raise Refused(f"{nest.var} computes more than a vector")
        if len(chain) > 1:
            s.do(Reorder((*taps, *rest)))
        s.do(vector(rest[0]))
        for tap in taps:
            s.do(unroll(tap))
    for var, (low, high) in edges.items():
        if var == lane and extent > lanes:
            _apart(s, f"{var}.o", -(-extent // lanes), [-(-low // lanes), high // lanes])
        elif var != lane:
            _apart(s, var, static(find_loop(s.kernel, var).extent), [low, high])
    s.settled |= names | loop_names(s.kernel)


def _apart(s: Scheduler, var: str, extent: int, cuts: Sequence[int]) -> None:
    """Cut a loop at these iterations; inner loops come before outer ones, which copy them."""
    name = var
    for number, cut in enumerate(sorted({c for c in cuts if 0 < c < extent})):
        suffix = f".{var}{number}"
        s.do(Partition(name, cut, suffix))
        name += suffix


def _edges(found: Sliding) -> dict[str, tuple[int, int]]:
    """Per loop of the root, lanes first: the iterations [low, high) that no guard of the update
    concerns.
    """
    acc, update = found.acc, found.update
    stores = [u for u in acc.result.users if isinstance(u, Store) and contains(update, u)]
    reads = [u for u in acc.result.users if isinstance(u, Load) and contains(found.root, u)]
    taps = {l.var: loop_range(l) for l in perfect_chain(update) if l.reduction}
    edges: dict[str, tuple[int, int]] = {}
    for here, there in list(zip(stores[0].index, reads[0].index, strict=True))[::-1]:
        if isinstance(there, int):
            continue
        extent = static(find_loop(found.root, str(there)).extent)
        bounds = [_clear(e, str(here), taps, extent) for load in found.loads for e in load.where]
        low = max([b[0] for b in bounds], default=0)
        high = min([b[1] for b in bounds], default=extent)
        edges[str(there)] = (low, max(low, high))
    return edges


def _clear(guard: DimLike, var: str, taps: dict[str, Range], extent: int) -> tuple[int, int]:
    """The iterations of `var` in which a guard holds for every tap; all if it is about others."""
    least, _ = extremes(guard, taps)
    form = coefficient(least, var) if least is not None and var in symbols_of(least) else None
    if form is None or not isinstance(form[0], int) or not isinstance(form[1], int):
        return 0, extent
    slope, rest = form
    if slope > 0:
        return max(0, static(ceildiv(-rest, slope))), extent
    return 0, min(extent, static(floordiv(rest, -slope)) + 1)


__all__ = ["Sliding", "match_sliding", "schedule_sliding"]
