"""What part of a buffer is touched under a loop, and moving a producer to where its result is read.

The window of a buffer under a loop is, per dimension, the least and the greatest index over all
inner loops, as expressions in the outer ones.  `sink` recomputes a producer over just that window:
the one mechanism behind ComputeAt, Stage and Keep. May import: ir, the nests beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.core import Block, Op, Value
from ...ir.dims import (
    DimLike,
    Range,
    bounds,
    equal,
    extremes,
    max_,
    min_,
    nonneg,
    simplify,
    substitute,
    sym,
)
from ...ir.ops.loop import Alloc, For, If, Load, Store
from ...ir.symbols import bind_ranges, loop_range, loops_around, map_dims, ranges_around
from ...ir.types import BufferType
from .nests import Refused, child_of, contains
from .simplify import simplify_nest


@dataclass(frozen=True)
class Window:
    """Per dimension: the first index, and the number of elements (both may use outer loop
    variables).
    """

    lows: tuple[DimLike, ...]
    extents: tuple[DimLike, ...]
    shape: tuple[DimLike, ...]
    """Upper bounds of the extents, free of loop variables: what must be allocated."""


def window(
    reads: Sequence[Load], target: For | None, clip: Sequence[DimLike] | None = None
) -> Window:
    """The window that these loads touch in one iteration of `target`; `clip` bounds it by a shape.

    Without a target: in the whole kernel.
    """
    outer = ranges_around(target, inclusive=True) if target is not None else {}
    outside = (
        {loop.var for loop in (*loops_around(target), target)} if target is not None else set()
    )
    lows: list[DimLike] = []
    extents: list[DimLike] = []
    shape: list[DimLike] = []
    for d in range(len(reads[0].index)):
        lo, hi = _span([r.index[d] for r in reads], [_inner(r, outside) for r in reads], outer, d)
        if clip is not None:
            lo, hi = max_(lo, 0), min_(hi, clip[d] - 1)
        lo, extent = simplify(lo, outer), simplify(hi - lo + 1, outer)
        lows.append(lo)
        extents.append(extent)
        shape.append(_most(extent, outer, outside))
    return Window(tuple(lows), tuple(extents), tuple(shape))


def _inner(read: Load, outside: set[str]) -> dict[str, Range]:
    inner = {loop.var: loop_range(loop) for loop in loops_around(read) if loop.var not in outside}
    inner.update(bind_ranges(read))
    return inner


def _span(
    exprs: Sequence[DimLike], inner: Sequence[dict[str, Range]], outer: dict[str, Range], d: int
) -> tuple[DimLike, DimLike]:
    """Least and greatest index over several loads."""
    lo: DimLike | None = None
    hi: DimLike | None = None
    for e, ranges in zip(exprs, inner, strict=True):
        least, most = extremes(e, ranges)
        if least is None or most is None:
            raise Refused(f"the range of index {e} in dimension {d} is not known")
        lo = least if lo is None or equal(lo, least, outer) else min_(lo, least)
        hi = most if hi is None or equal(hi, most, outer) else max_(hi, most)
    assert lo is not None and hi is not None
    return lo, hi


def _most(extent: DimLike, outer: dict[str, Range], outside: set[str]) -> DimLike:
    """An upper bound of an extent without loop variables."""
    if isinstance(extent, int):
        return extent
    _, top = bounds(extent, outer)
    if top is not None:
        return top
    _, symbolic = extremes(extent, {n: r for n, r in outer.items() if n in extent.symbols})
    if symbolic is None:
        raise Refused(f"the extent {extent} has no upper bound")
    return symbolic


def sink(alloc: Alloc, target: For | None, space: str, clip: bool) -> None:
    """Recompute the buffer of `alloc` inside `target`, over the window read there, in `space`.

    Without a target it stays where it is, narrowed to what the whole kernel reads.
    """
    buffer = alloc.result
    if target is not None and contains(target, alloc):
        raise Refused(f"{alloc.label} is already inside the loop {target.var}")
    reads, producers = split_users(alloc, target)
    if any([under_guard(r) for r in reads]):
        raise Refused(f"{alloc.label} is read in a guarded region")
    home = target.body if target is not None else alloc.block
    assert home is not None and alloc.block is not None
    shape = buffer.buffer.shape
    guarded = clip and any([r.where for r in reads])
    box = window(reads, target, shape if guarded else None)
    ranges = ranges_around(target, inclusive=True) if target is not None else {}
    ends = [lo + extent for lo, extent in zip(box.lows, box.extents, strict=True)]
    for nest in producers:
        covers(nest, buffer, ends, ranges)
    beside = _read_beside(buffer, producers, target)
    for read in reads:
        read.set_attr("index", _shifted(read.index, box, ranges_around(read)))
    first = min([child_of(r, home) for r in (*reads, *beside)], key=position)
    if beside:
        _check_inputs(producers, home, first)
    for nest in producers:
        narrow(nest, buffer, box)
        assert nest.block is not None
        nest.block.remove(nest)
        home.insert_before(nest, first)
    alloc.block.remove(alloc)
    home.insert_before(alloc, home.first)
    made = BufferType(buffer.buffer.dtype, box.shape, space)
    alloc.set_attr("type", made)
    buffer.type = made
    for nest in producers:
        simplify_nest(nest)


def _read_beside(buffer: Value, producers: Sequence[Op], target: For | None) -> list[Load]:
    """Loads inside `target` of the other buffers that the producers write: they, too, come behind
    where those are put.
    """
    found: list[Load] = []
    others = {
        op.target: None
        for nest in producers
        for op in nest.walk()
        if isinstance(op, Store) and op.target is not buffer
    }
    for other in others if target is not None else ():
        for user in other.users:
            if not isinstance(user, Load) or any([contains(nest, user) for nest in producers]):
                continue
            assert target is not None
            if contains(target, user):
                found.append(user)
            elif _before(user, target):
                raise Refused(f"{other.name}, computed beside it, is read before {target.var}")
    return found


def _check_inputs(producers: Sequence[Op], home: Block, first: Op) -> None:
    """What the producers read is there before `first`, where they are put."""
    limit = position(first)
    for nest in producers:
        for load in [op for op in nest.walk() if isinstance(op, Load)]:
            for user in load.source.users:
                parent = user.block
                while parent is not None and parent is not home:
                    parent = parent.parent.block if parent.parent is not None else None
                if parent is home and isinstance(user, Store):
                    if position(child_of(user, home)) >= limit:
                        raise Refused(f"{load.source.name} is computed after its reader would be")


def _before(op: Op, target: For) -> bool:
    """Does an op outside a loop run before it?"""
    around: Op | None = target
    while around is not None and around.block is not None:
        if contains(around.block.parent, op):  # type: ignore[arg-type]  # a block of a kernel
            return position(child_of(op, around.block)) < position(around)
        around = around.parent_op
    return False


def split_users(alloc: Alloc, target: For | None) -> tuple[list[Load], list[Op]]:
    """Loads inside `target` (or in nests that only read), and the nests that produce the buffer, in
    order.
    """
    reads: list[Load] = []
    producers: list[Op] = []
    home = alloc.block
    assert home is not None
    name = target.var if target is not None else "the kernel"
    written = {child_of(u, home) for u in alloc.result.users if isinstance(u, Store)}
    for user in alloc.result.users:
        inside = (
            contains(target, user) if target is not None else child_of(user, home) not in written
        )
        if isinstance(user, Load) and inside:
            reads.append(user)
            continue
        if not isinstance(user, (Load, Store)):
            raise Refused(f"{alloc.label} is used by {user.name}")
        nest = child_of(user, home)
        if target is not None and contains(nest, target):
            raise Refused(f"{alloc.label} is computed around the loop {name}")
        if nest not in producers:
            producers.append(nest)
    for nest in producers:
        if not any(isinstance(u, Store) and contains(nest, u) for u in alloc.result.users):
            raise Refused(f"{alloc.label} is also read outside {name}")
    if not reads:
        raise Refused(f"{alloc.label} is not read under {name}")
    return reads, sorted(producers, key=position)


def under_guard(read: Load) -> bool:
    """Does the load stand in a guarded region, so that its index alone says too much?"""
    parent = read.parent_op
    while parent is not None:
        if isinstance(parent, If):
            return True
        parent = parent.parent_op
    return False


def position(op: Op) -> int:
    """How many ops stand before this one in its block."""
    count = 0
    while op.prev is not None:
        op = op.prev
        count += 1
    return count


def _shifted(
    index: Sequence[DimLike], box: Window, ranges: dict[str, Range]
) -> tuple[DimLike, ...]:
    return tuple([simplify(e - lo, ranges) for e, lo in zip(index, box.lows, strict=True)])


def covers(
    nest: Op,
    buffer: Value,
    ends: Sequence[DimLike] | None = None,
    ranges: dict[str, Range] | None = None,
) -> None:
    """Refuse unless every store of the nest runs over the whole buffer, one loop per dimension; or
    at least up to `ends`, where the reads end.
    """
    loops = {loop.var: loop for loop in nest.walk() if isinstance(loop, For)}
    for op in nest.walk():
        if not isinstance(op, Store) or op.target is not buffer:
            continue
        for d, (e, extent) in enumerate(zip(op.index, buffer.buffer.shape, strict=True)):
            loop = loops.get(str(e))
            whole = (
                extent == 1
                if isinstance(e, int)
                else loop is not None and (loop.lo, loop.extent) == (0, extent)
            )
            if not whole and ends is not None and loop is not None and loop.lo == 0:
                whole = nonneg(loop.extent - ends[d], ranges or {}) is True
            if not whole:
                raise Refused(
                    f"the producer's index {e} does not run over the whole of {buffer.name}"
                )


def narrow(nest: Op, buffer: Value, box: Window) -> None:
    """Make a producer nest compute the window only: loop p_d runs over it, accesses shift by its
    start.
    """
    stores = [op for op in nest.walk() if isinstance(op, Store) and op.target is buffer]
    index = stores[0].index
    if any([s.index != index for s in stores]):
        raise Refused("the producer writes at several places")
    loops = {loop.var: loop for loop in nest.walk() if isinstance(loop, For)}
    env: dict[str, DimLike] = {}
    for e, lo, extent in zip(index, box.lows, box.extents, strict=True):
        if isinstance(e, int):
            continue
        loop = loops[str(e)]
        if loop.extent != extent or lo != 0:
            loop.set_attr("extent", extent)
            if lo != 0:
                env[loop.var] = lo + sym(loop.var)
    for op in nest.walk():
        if isinstance(op, For):
            if op.var not in env:
                op.set_attr("lo", substitute(op.lo, env))
                op.set_attr("extent", substitute(op.extent, env))
            continue
        map_dims(op, env)
        if isinstance(op, (Load, Store)) and op.operands[-1] is buffer:
            op.set_attr("index", tuple([e - lo for e, lo in zip(op.index, box.lows, strict=True)]))


__all__ = ["Window", "covers", "narrow", "position", "sink", "split_users", "under_guard", "window"]
