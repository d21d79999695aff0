"""How a contraction under a window runs: convolution, epilogue, then pooling, in one pass over the
output.

The tile of the pooled output decides which part of the convolution is needed; both accumulators
stay in registers, so the full-size result of the convolution never exists.  May import: ir, the
steps beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...ir.dims import DimLike, symbols_of
from ...ir.ops.loop import Alloc, For, Load, Store
from .contraction import split_tails
from .memory import ComputeAt
from .microtile import finish_tile
from .nests import child_of, contains, find_loop, perfect_chain
from .scheduler import Scheduler, static, stride
from .steps import Reorder, Tile, parallel
from .window import window


@dataclass(frozen=True)
class Windowed:
    """An accumulator `inner` read, window by window, by the update of `outer`, which the root
    reads.
    """

    inner: Alloc
    outer: Alloc
    root: For
    reads: tuple[Load, ...]


def match_windowed(s: Scheduler, root: For) -> Windowed | None:
    """The pair of accumulators behind a pooled contraction; None if the nest is something else."""
    block = s.kernel.body
    allocs = [a for a in s.allocs() if a.block is block]
    for outer in allocs:
        nests = {child_of(u, block) for u in outer.result.users if isinstance(u, Store)}
        if root in nests or not any(
            isinstance(u, Load) and contains(root, u) for u in outer.result.users
        ):
            continue
        for inner in allocs:
            users = [u for u in inner.result.users if child_of(u, block) in nests]
            if any([isinstance(u, Store) for u in users]):
                continue  # two accumulators of one reduction
            reads = [u for u in users if isinstance(u, Load)]
            if inner is not outer and reads and len(allocs) == 2 + _copies(allocs):
                return Windowed(inner, outer, root, tuple(reads))
    return None


def _copies(allocs: list[Alloc]) -> int:
    """Padded copies do not take part in the match."""
    return sum(".pad" in a.label for a in allocs)


def schedule_windowed(s: Scheduler, root: For) -> bool:
    """Schedule the nest `root` if it is a pooled contraction; False if it is not."""
    found = match_windowed(s, root)
    if found is None or not s.target.vector_bits:
        return False
    chain = perfect_chain(root)
    outs = [op for op in root.walk() if isinstance(op, Store)]
    lane = next((l.var for l in reversed(chain) if all(stride(o, l.var) == 1 for o in outs)), None)
    if lane is None or any(stride(r, lane) != 1 for r in _outer_reads(found)):
        return False
    lane_dims = _lane_dims(found, lane)
    if lane_dims is None:
        return False
    outer, full = _tile(s, found, [l.var for l in chain if l.var != lane], lane)
    if not outer:
        return False
    s.do(ComputeAt(found.outer.label, outer[-1], "register"))
    s.do(ComputeAt(found.inner.label, outer[-1], "register"))
    split_tails(s, full, outer)
    finish_tile(s, lane_dims)
    if s.target.threads > 1 and static(find_loop(s.kernel, outer[0]).extent) > 1:
        s.attempt(parallel(outer[0]))
    return True


def _outer_reads(found: Windowed) -> list[Load]:
    return [u for u in found.outer.result.users if isinstance(u, Load) and contains(found.root, u)]


def _lane_dims(found: Windowed, lane: str) -> dict[str, int] | None:
    """The dimension of each accumulator along which the vector runs."""
    index = _outer_reads(found)[0].index
    outer_dim = next((d for d, e in enumerate(index) if lane in symbols_of(e)), None)
    stores = [u for u in found.outer.result.users if isinstance(u, Store)]
    update = next((u for u in stores if _combines(u)), None)
    if update is None or outer_dim is None:
        return None
    var = update.index[outer_dim]
    inner_dim = next((d for d, e in enumerate(found.reads[0].index) if e is var), None)
    return (
        None if inner_dim is None else {found.inner.label: inner_dim, found.outer.label: outer_dim}
    )


def _combines(store: Store) -> bool:
    """Does the stored value come from loads (an update), not from a constant (a start)?"""
    op = store.value.op
    return op is not None and any(isinstance(v.op, Load) for v in op.operands)


def _tile(
    s: Scheduler, found: Windowed, others: list[str], lane: str
) -> tuple[list[str], dict[str, DimLike]]:
    """Tile the innermost window dimension so that both accumulators fit.

    Gives the outer loops, and how many iterations of the tile loop are full.
    """
    if not others:
        return [], {}
    row = others[-1]
    lanes = s.target.lanes(found.inner.result.buffer.dtype.bits)
    vectors = -(-static(find_loop(s.kernel, lane).extent) // lanes)
    count = find_loop(s.kernel, row).extent
    extent = static(count)
    room = s.target.registers - 3
    per_row = max(1, _window_rows(found)) * vectors
    fits = [t for t in range(1, min(extent, room) + 1) if per_row * _span(found, t) <= room]
    size = max([t for t in fits if _good(extent, t)], default=0)
    if not size or not s.attempt(Reorder((*others, lane))):
        return [], {}
    if size == extent:
        return others[:-1], {}
    s.do(Tile(row, size))
    s.do(Reorder((*others[:-1], f"{row}.o", f"{row}.i", lane)))
    return [*others[:-1], f"{row}.o"], {f"{row}.o": count // size}


def _good(extent: int, tile: int) -> bool:
    """Few short tails: the tile divides the extent, or the last tile is at least half full."""
    return extent % tile == 0 or extent % tile * 2 >= tile


def _window_shape(found: Windowed) -> tuple[DimLike, ...]:
    """Extents of the inner accumulator's part read for one element of the outer one."""
    assert found.inner.block is not None
    update = child_of(found.reads[0], found.inner.block)
    assert isinstance(update, For)
    last = [l for l in perfect_chain(update) if isinstance(l, For) and not l.reduction][-1]
    return window(found.reads, last).shape


def _window_rows(found: Windowed) -> int:
    """Rows of the window (all its dimensions but the innermost spatial one)."""
    return math.prod([static(e) for e in _window_shape(found) if e != 1][:-1])


def _span(found: Windowed, tile: int) -> int:
    """Columns of the contraction that `tile` columns of the output need."""
    shape = [static(e) for e in _window_shape(found) if e != 1]
    return tile * (shape[-1] if shape else 1)


__all__ = ["match_windowed", "schedule_windowed"]
