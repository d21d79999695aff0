"""The schedule step Rolling: a line buffer between a producer and a loop that reads windows of it.

Where ComputeAt recomputes the whole window of every iteration, Rolling computes only the rows that
the iteration before did not have; the others are still in a buffer addressed modulo its depth.
May import: ir, the steps and windows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.core import Op, Value
from ...ir.dims import DimLike, max_, min_, nonneg, simplify, substitute, sym, symbols_of
from ...ir.ops.core import Func
from ...ir.ops.loop import Alloc, For, Load, Store
from ...ir.symbols import ranges_around
from ...ir.types import BufferType
from .nests import Refused, accesses, child_of, contains, find_alloc, find_loop
from .simplify import simplify_nest
from .steps import Step
from .window import Window, covers, narrow, position, split_users, under_guard, window


@dataclass(frozen=True)
class Rolling(Step):
    """Compute a buffer inside the serial loop that reads overlapping windows of it, each row once.

    The buffer stands before the loop and keeps as many rows as the widest window has; row r lies
    at r modulo that depth.  The first iteration computes its whole window, each later one what is
    new in its own: `Partition(loop, 1)` makes both counts static.
    """

    label: str
    loop: str
    space: str = "stack"

    def apply(self, kernel: Func) -> None:
        alloc, loop = find_alloc(kernel, self.label), find_loop(kernel, self.loop)
        if loop.kind not in ("serial", "unroll", "pipeline") or loop.reduction:
            raise Refused(f"iterations of {self.loop} do not run in order")
        reads, producers = split_users(alloc, loop)
        _check(alloc, loop, reads, producers)
        clip = alloc.result.buffer.shape if any([r.where for r in reads]) else None
        box = window(reads, loop, clip)
        row = _moving(box, loop)
        depth = box.shape[row]
        if not isinstance(depth, int):
            raise Refused(f"the window has {depth} rows: its depth must be static")
        _roll(alloc, loop, reads, producers, _new_rows(box, row, loop), row)
        made = BufferType(alloc.result.buffer.dtype, box.shape, self.space)
        alloc.set_attr("type", made)
        alloc.result.type = made
        for nest in producers:
            simplify_nest(nest)


def _check(alloc: Alloc, loop: For, reads: Sequence[Load], producers: Sequence[Op]) -> None:
    """Refuse where the producers do not move into the loop: what they touch must stay as it is."""
    buffer, home = alloc.result, alloc.block
    assert home is not None
    if contains(loop, alloc):
        raise Refused(f"{alloc.label} is already inside the loop {loop.var}")
    if any([under_guard(r) for r in reads]):
        raise Refused(f"{alloc.label} is read in a guarded region")
    for nest in producers:
        covers(nest, buffer)
        for op in accesses(nest):
            touched = op.operands[-1]
            made = touched.op
            own = made is not None and contains(nest, made)
            if isinstance(op, Store) and touched is not buffer and not own:
                raise Refused(f"the producer of {alloc.label} also writes {touched.name}")
            if touched is not buffer and not own and _written_after(touched, nest, home.parent):
                raise Refused(f"{touched.name}, which the producer reads, is written again")
        if len({op.index for op in accesses(nest) if op.operands[-1] is buffer}) > 1:
            raise Refused(f"the producer touches {alloc.label} at several places")


def _written_after(source: Value, nest: Op, scope: Op | None) -> bool:
    """Is a buffer written in or after this nest, within the function part that holds both?"""
    assert nest.block is not None
    stores = [u for u in source.users if isinstance(u, Store)]
    inside = [s for s in stores if scope is not None and contains(scope, s)]
    return any([position(child_of(s, nest.block)) >= position(nest) for s in inside])


def _moving(box: Window, loop: For) -> int:
    """The one dimension along which the window moves, forwards and with an overlap."""
    at = sym(loop.var)
    pairs = list(zip(box.lows, box.extents, strict=True))
    moving = [d for d, (lo, n) in enumerate(pairs) if loop.var in symbols_of(lo) | symbols_of(n)]
    if len(moving) != 1:
        raise Refused(f"the window moves along {len(moving)} dimensions with {loop.var}")
    low, extent = pairs[moving[0]]
    ranges = ranges_around(loop)
    ranges[loop.var] = (loop.lo, loop.lo + loop.extent - 2)
    high = low + extent - 1
    for end in (low, high):
        if nonneg(substitute(end, {loop.var: at + 1}) - end, ranges) is not True:
            raise Refused(f"the window does not only move forwards: its end {end}")
    if nonneg(substitute(low, {loop.var: at + 1}) - high - 1, ranges) is True:
        raise Refused(f"windows of {loop.var} do not overlap: ComputeAt serves them")
    return moving[0]


def _new_rows(box: Window, row: int, loop: For) -> Window:
    """The part of the window that is not yet in the buffer; in the first iteration all of it.

    The rows after the last window's end, but `first` while that is less: it starts at the first
    window and moves by a whole depth per iteration.
    """
    low, extent, depth = box.lows[row], box.extents[row], box.shape[row]
    at = sym(loop.var)
    ranges = ranges_around(loop, inclusive=True)
    before = substitute(low + extent, {loop.var: at - 1})
    first = substitute(low, {loop.var: loop.lo}) + depth * (at - loop.lo)
    start = simplify(max_(low, min_(before, first)), ranges)
    lows, extents = list(box.lows), list(box.extents)
    lows[row], extents[row] = start, simplify(low + extent - start, ranges)
    return Window(tuple(lows), tuple(extents), box.shape)


def _roll(
    alloc: Alloc,
    loop: For,
    reads: Sequence[Load],
    producers: Sequence[Op],
    fresh: Window,
    row: int,
) -> None:
    """Move the producers into the loop, over the rows of `fresh`, and the buffer before it."""
    depth = fresh.shape[row]
    assert alloc.block is not None and loop.block is not None
    for read in reads:
        read.set_attr("index", _wrapped(read.index, fresh, row, depth, read))
    first = min([child_of(r, loop.body) for r in reads], key=position)
    for nest in producers:
        narrow(nest, alloc.result, fresh)
        for op in accesses(nest):
            if op.operands[-1] is alloc.result:
                index: list[DimLike] = list(op.index)
                index[row] = (index[row] + fresh.lows[row]) % depth
                op.set_attr("index", tuple(index))
        assert nest.block is not None
        nest.block.remove(nest)
        loop.body.insert_before(nest, first)
    alloc.block.remove(alloc)
    loop.block.insert_before(alloc, loop)


def _wrapped(
    index: Sequence[DimLike], fresh: Window, row: int, depth: DimLike, read: Load
) -> tuple[DimLike, ...]:
    """Where an element of the whole buffer lies in the rolling one."""
    ranges = ranges_around(read)
    shifted = [
        e % depth if d == row else e - low
        for d, (e, low) in enumerate(zip(index, fresh.lows, strict=True))
    ]
    return tuple([simplify(e, ranges) for e in shifted])


__all__ = ["Rolling"]
