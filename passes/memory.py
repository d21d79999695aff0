"""Offsets for buffers in one arena: offline dynamic storage allocation (a strip packing in time and
space).

Several greedy orders are tried, then a local search where the best still exceeds the lower bound
(the largest live set).  Sizes with symbols are split into a static part times a symbolic factor;
buffers with the same factor share one region, planned like static ones, and the regions are
stacked. Every offset and every region is a multiple of 64 bytes.  May import: ir.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

from ..ir.dims import Dim, DimLike, ceildiv, evaluate
from ..ir.dims_expr import from_terms

ALIGN = 64
"""Bytes; a cache line and an AVX-512 register."""

_SEARCH_STEPS = 400


@dataclass(frozen=True)
class Item:
    """A buffer: `size` in bytes, needed from time `first` to time `last`, both included."""

    name: str
    size: DimLike
    first: int
    last: int


@dataclass(frozen=True)
class Layout:
    """Offsets in the order of the items, the arena they need, and the lower bound (the largest live
    set).
    """

    offsets: tuple[DimLike, ...]
    arena: DimLike
    items: tuple[Item, ...]

    def lower_bound(self, dims: Mapping[str, int] | None = None) -> int:
        """Bytes of the largest live set, sizes rounded up to the alignment, for these dims."""
        sizes = [align(evaluate(i.size, dims or {})) for i in self.items]
        return peak(sizes, self.items)


def align(size: int) -> int:
    """`size` rounded up to the alignment."""
    return -(-size // ALIGN) * ALIGN


def peak(sizes: Sequence[int], items: Sequence[Item]) -> int:
    """The largest total size of items alive at one time."""
    when = _fullest(sizes, items)
    alive = [s for s, i in zip(sizes, items, strict=True) if i.first <= when <= i.last]
    return sum(alive)


def _fullest(sizes: Sequence[int], items: Sequence[Item]) -> int:
    """A time at which the items alive are largest together."""
    changes: dict[int, int] = {}
    for size, item in zip(sizes, items, strict=True):
        changes[item.first] = changes.get(item.first, 0) + size
        changes[item.last + 1] = changes.get(item.last + 1, 0) - size
    now, best, when = 0, -1, 0
    for time in sorted(changes):
        now += changes[time]
        if now > best:
            best, when = now, time
    return when


def assign(items: Sequence[Item]) -> Layout:
    """Give every item an offset such that items alive at the same time do not overlap."""
    regions: dict[DimLike, list[int]] = {}
    scaled: list[int] = []
    for k, item in enumerate(items):
        size, factor = _split(item.size)
        scaled.append(size)
        regions.setdefault(factor, []).append(k)
    offsets: list[DimLike] = [0] * len(items)
    base: DimLike = 0
    for factor in sorted(regions, key=lambda f: (isinstance(f, Dim), str(f))):
        members = regions[factor]
        placed, total = _pack([scaled[k] for k in members], [items[k] for k in members])
        for k, offset in zip(members, placed, strict=True):
            offsets[k] = base + factor * offset
        base = base + factor * total
    return Layout(tuple(offsets), base, tuple(items))


def _split(size: DimLike) -> tuple[int, DimLike]:
    """(static size, symbolic factor) whose product is at least `size` and aligned."""
    if not isinstance(size, Dim):
        return align(size), 1
    content = gcd(*[c for _, c in size.terms], size.const)
    factor = from_terms({m: c // content for m, c in size.terms}, size.const // content)
    if content % ALIGN == 0 or content >= 16 * ALIGN:
        return align(content), factor
    return ALIGN, ceildiv(size, ALIGN)


def _pack(sizes: Sequence[int], items: Sequence[Item]) -> tuple[list[int], int]:
    """Static offsets and their total: the best of several orders, searched on above the bound."""
    if not items:
        return [], 0
    clashes = _clashes(items)
    bound = peak(sizes, items)
    span = [i.last - i.first for i in items]
    fullest = _fullest(sizes, items)
    late = [not i.first <= fullest <= i.last for i in items]
    keys: list[Callable[[int], tuple[int, ...]]] = [
        lambda k: (-sizes[k], items[k].first),
        lambda k: (-sizes[k], -span[k], items[k].first),
        lambda k: (-sizes[k] * (span[k] + 1), items[k].first),
        lambda k: (-span[k], -sizes[k]),
        lambda k: (items[k].first, -sizes[k]),
        lambda k: (items[k].first, -span[k], -sizes[k]),
        lambda k: (-items[k].last, -sizes[k]),
        # What makes up the bound lies without a gap where it is placed before all else.
        lambda k: (late[k], 0 if late[k] else -items[k].last, -sizes[k], items[k].first),
        lambda k: (late[k], -sizes[k] if late[k] else sizes[k], items[k].first),
    ]
    best: tuple[int, list[int], list[int]] | None = None
    for key in keys:
        order = sorted(range(len(items)), key=key)
        for tightest in (False, True):
            offsets, total = _place(order, sizes, clashes, tightest)
            if best is None or total < best[0]:
                best = total, offsets, order
            if best[0] <= bound:
                return best[1], best[0]
    assert best is not None
    total, offsets = _search(best, sizes, clashes, bound)
    return offsets, total


def _clashes(items: Sequence[Item]) -> list[list[int]]:
    """For each item those alive at some same time."""
    order = sorted(range(len(items)), key=lambda k: items[k].first)
    found: list[list[int]] = [[] for _ in items]
    alive: list[int] = []
    for k in order:
        alive = [j for j in alive if items[j].last >= items[k].first]
        for j in alive:
            found[k].append(j)
            found[j].append(k)
        alive.append(k)
    return found


def _place(
    order: Sequence[int],
    sizes: Sequence[int],
    clashes: Sequence[Sequence[int]],
    tightest: bool,
    limit: int = 0,
) -> tuple[list[int], int]:
    """Put items in order into the lowest gap that fits (or into the tightest hole); stops at the
    first item that reaches above `limit`, if that is given.
    """
    ends = [-1] * len(sizes)
    offsets = [-1] * len(sizes)
    total = 0
    for k in order:
        taken = [(offsets[j], ends[j]) for j in clashes[k] if ends[j] >= 0]
        taken.sort()
        offsets[k] = at = _gap(taken, sizes[k], tightest)
        ends[k] = end = at + sizes[k]
        if end > total:
            total = end
            if limit and total > limit:
                break
    return offsets, total


def _gap(taken: Sequence[tuple[int, int]], size: int, tightest: bool) -> int:
    """The lowest address where `size` bytes fit between taken ranges; with `tightest` the smallest
    such hole.
    """
    at, best, slack = 0, -1, 0
    for lo, hi in taken:
        if lo - at >= size:
            if not tightest:
                return at
            if best < 0 or lo - at < slack:
                best, slack = at, lo - at
        if hi > at:
            at = hi
    return best if best >= 0 else at


def _search(
    start: tuple[int, list[int], list[int]],
    sizes: Sequence[int],
    clashes: Sequence[Sequence[int]],
    bound: int,
) -> tuple[int, list[int]]:
    """Local search over orders: move an item that reaches the top to an earlier turn; seeded, so
    repeatable.  A worse order is seldom kept, so it is only then placed to its end.
    """
    total, offsets, order = start
    if len(sizes) > 2000:
        return total, offsets
    rng = random.Random(len(sizes))
    current, current_offsets, now = list(order), offsets, total
    for _ in range(_SEARCH_STEPS):
        if total <= bound:
            break
        top = [k for k in current if current_offsets[k] + sizes[k] == now]
        k = rng.choice(top) if rng.random() < 0.7 else rng.choice(current)
        trial = [j for j in current if j != k]
        trial.insert(rng.randrange(current.index(k) + 1), k)
        tightest = rng.random() < 0.3
        found, height = _place(trial, sizes, clashes, tightest, now)
        if height > now:
            if rng.random() >= 0.02:
                continue
            found, height = _place(trial, sizes, clashes, tightest)
        current, current_offsets, now = trial, found, height
        if height < total:
            total, offsets = height, found
    return total, offsets


def live_at(items: Sequence[Item], time: int) -> list[Item]:
    """The items alive at a time, for reports."""
    return [i for i in items if i.first <= time <= i.last]


__all__ = ["ALIGN", "Item", "Layout", "align", "assign", "live_at", "peak"]
