"""Sorting in loops: a stable merge sort of keys with their positions, of a static capacity.

Imports: the core, types, dims, the loop level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..core import Block, Builder, Value
from ..dims import DimLike, ceildiv, sym
from ..types import BufferType, i64
from .core import Const
from .elementwise import constant
from .loop import Alloc, Bind, For, If, IndexValue, Load, Store

Beats = Callable[[Builder, Value, Value], Value]
"""Whether the first key comes strictly before the second."""
Pair = tuple[Value, Value]
"""A buffer of keys and one of positions, of one extent."""


def index_value(b: Builder, value: DimLike) -> Value:
    """An index expression as an i64 scalar."""
    return b.emit(IndexValue, value=value, dtype=i64)  # type: ignore[no-any-return]


def at_least_zero(b: Builder, value: DimLike) -> Value:
    """Whether an index expression is not negative."""
    index = index_value(b, value)
    return b.ge(index, constant(b, index, 0))  # type: ignore[no-any-return]


def merge_sort(b: Builder, work: Pair, spare: Pair, count: DimLike, beats: Beats) -> None:
    """Sort the first `count` pairs of `work`, what comes first first; equal keys keep their order.

    Runs of 1, 2, 4 ... elements are merged from one pair of buffers to the other: capacity times
    log2(capacity) steps without branches.  `count` may be a symbol bound at run time.
    """
    capacity = work[0].buffer.shape[0]
    assert type(capacity) is int
    source, target, width, number = work, spare, 1, 0
    while width < capacity:
        _merge_runs(b, source, target, width, count, beats, f"{number}")
        source, target = target, source
        width, number = 2 * width, number + 1
    if source is not work:
        p = sym("back")
        b = b.at(b.insert(For.make("back", count)).body)
        for have, want in zip(source, work, strict=True):
            b.emit(Store, b.emit(Load, have, index=(p,)), want, index=(p,))


def _merge_runs(
    b: Builder, source: Pair, target: Pair, width: int, count: DimLike, beats: Beats, tag: str
) -> None:
    """Merge neighbouring runs of `width` elements."""
    run, place, left, right = [f"{name}{tag}" for name in ("run", "place", "left", "right")]
    b = b.at(b.insert(For.make(run, ceildiv(count, 2 * width))).body)
    first = sym(run) * (2 * width)
    ends = first + width, first + 2 * width
    heads = []
    for label, start in ((left, first), (right, first + width)):
        head = b.emit(Alloc, label=label, type=BufferType(i64, (1,), "register"))
        b.emit(Store, index_value(b, start), head, index=(0,))
        heads.append(head)
    b = b.at(b.insert(For.make(place, 2 * width)).body)
    at = first + sym(place)
    b = b.at(b.insert(If(where=(count - 1 - at,), regions=[Block()])).body)
    _merge_step(b, source, target, (left, right), heads, ends, count, at, beats)


def _merge_step(
    b: Builder,
    source: Pair,
    target: Pair,
    names: tuple[str, str],
    heads: Sequence[Value],
    ends: Sequence[DimLike],
    count: DimLike,
    at: DimLike,
    beats: Beats,
) -> None:
    """Move the element that comes first of two heads to position `at`."""
    capacity = source[0].buffer.shape[0]
    keys, places, given, old = [], [], [], []
    for name, head, end in zip(names, heads, ends, strict=True):
        position = b.emit(Load, head, index=(0,))
        b.emit(Bind, position, symbol=name, extent=capacity + ends[1] - ends[0] + 1)
        inside = (end - 1 - sym(name), count - 1 - sym(name))
        keys.append(b.emit(Load, source[0], index=(sym(name),), where=inside, fill=0))
        places.append(b.emit(Load, source[1], index=(sym(name),), where=inside, fill=0))
        given.append(b.logical_and(*[at_least_zero(b, e) for e in inside]))
        old.append(position)
    one, zero = [b.insert(Const(n, i64)).result for n in (1, 0)]
    later = b.logical_and(given[1], beats(b, keys[1], keys[0]))
    takes = b.logical_and(given[0], b.logical_not(later))
    for pair, buffer in ((keys, target[0]), (places, target[1])):
        b.emit(Store, b.where(takes, *pair), buffer, index=(at,))
    steps = b.where(takes, one, zero), b.where(takes, zero, one)
    for head, position, step in zip(heads, old, steps, strict=True):
        b.emit(Store, b.add(position, step), head, index=(0,))


__all__ = ["at_least_zero", "index_value", "merge_sort"]
