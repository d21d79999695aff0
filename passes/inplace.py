"""May a kernel write a result over one of its inputs?  Proved on the scheduled loops, else no.

The two buffers have one type.  For each load of the input and each store to the output that could
touch the same element, the load must come first: (1) in different iterations of the loops around
both they touch different elements: each such loop's variable moves the index of one dimension
further than the rest of that dimension can differ; (2) in the same iteration the load comes first
in program order, or the elements are different.  Pairs that never touch one element in any two
iterations (the halves of an unrolled tile) need neither. May import: ir.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from ..ir.core import Block, Op, Value
from ..ir.dims import DimLike, Range, linear, nonneg, symbols_of
from ..ir.ops.core import Func
from ..ir.ops.loop import Aligned, Bind, For, Load, Prefetch, Store, When, While
from ..ir.symbols import loop_range, loops_around
from ..ir.types import BufferType

Access = Load | Store
_FAR = 1 << 62


def overwrites(kernel: Func, source: int, target: int) -> bool:
    """Whether argument `source` of the kernel may share its memory with the result argument
    `target`.
    """
    reads, writes = kernel.args[source], kernel.args[target]
    if (
        reads.type is not writes.type
        or not isinstance(reads.type, BufferType)
        or reads.type.dtype.bits < 8
    ):
        return False
    bound = {op.symbol for op in kernel.walk() if isinstance(op, Bind)}
    loads = _accesses(reads, Load, bound)
    stores = _accesses(writes, Store, bound)
    return loads is not None and stores is not None and _all_ordered(loads, stores)


def _accesses(buffer: Value, kind: type[Op], bound: set[str]) -> list[Access] | None:
    """All that touch elements of the buffer; None if one is not a load (or store) at an index of
    loop variables alone.
    """
    users = [u for u in buffer.users if not isinstance(u, (Prefetch, Aligned))]
    for user in users:
        if type(user) is not kind or (isinstance(user, Store) and user.value is buffer):
            return None
        index: tuple[DimLike, ...] = user.index  # type: ignore[attr-defined]
        if any([not bound.isdisjoint(symbols_of(e)) for e in index]):
            return None
        parent = user.parent_op
        while parent is not None and not isinstance(parent, Func):
            if isinstance(parent, While):
                return None
            parent = parent.parent_op
    return users  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class _Shape:
    """What accesses of one block share that differ in the constants of their indices alone."""

    block: Block
    lane: str
    lanes: int
    terms: tuple[tuple[tuple[str, int], ...], ...]


def _all_ordered(loads: Sequence[Access], stores: Sequence[Access]) -> bool:
    """Whether no load follows a store on an element that both touch.

    Unrolled kernels hold thousands of pairs that are alike: one answer serves all pairs of the
    same two shapes whose constants are equally far from each other.
    """
    order = _positions({op.block for op in (*loads, *stores)})
    sorted_loads, sorted_stores = [_shapes(ops) for ops in (loads, stores)]
    if sorted_loads is None or sorted_stores is None:
        return False
    answers: dict[object, bool | None] = {}
    for shape, consts, load in sorted_loads:
        for shape2, consts2, store in sorted_stores:
            key = (shape, shape2, *[a - b for a, b in zip(consts, consts2, strict=True)])
            if key not in answers:
                answers[key] = _apart_or_ordered(load, store)
            answer = answers[key]
            if answer is None:
                answer = _earlier(load, store, order)
            if not answer:
                return False
    return True


def _positions(blocks: set[Block | None]) -> dict[Op, int]:
    """The place of every op in its block."""
    return {op: k for block in blocks if block is not None for k, op in enumerate(block)}


def _shapes(ops: Sequence[Access]) -> list[tuple[int, tuple[int, ...], Access]] | None:
    """The number of each access's shape and the constants of its index; None where one index is
    not linear.
    """
    numbers: dict[_Shape, int] = {}
    found: list[tuple[int, tuple[int, ...], Access]] = []
    for op in ops:
        parts = [linear(e) for e in op.index]
        known = [p for p in parts if p is not None]
        if len(known) < len(parts) or op.block is None:
            return None
        terms = tuple([tuple(sorted(t.items())) for t, _ in known])
        lanes = op.lanes if isinstance(op, Load) else _lanes(op)
        shape = _Shape(op.block, op.lane, lanes, terms)
        number = numbers.setdefault(shape, len(numbers))
        found.append((number, tuple([c for _, c in known]), op))
    return found


def _apart_or_ordered(load: Access, store: Access) -> bool | None:
    """True where the two never touch the same element; None where they do so in one iteration
    only, so that the order in it decides; False where nothing is known.
    """
    around = loops_around(load), loops_around(store)
    shared = [a for a in around[0] if a in around[1]]
    ranges = [
        _ranges(load, [a for a in around[0] if a not in shared]),
        _ranges(store, [a for a in around[1] if a not in shared]),
    ]
    moving = {a.var: a for a in shared}
    pairs = list(zip(load.index, store.index, strict=True))
    if any([_never_equal(_difference(e, f, ranges), shared) for e, f in pairs]):
        return True
    residuals: list[Range] = []
    for e, f in pairs:
        found = _dimension(e, f, moving, ranges)
        if found is None:
            return False
        residuals.append(found)
    if any([a.extent != 1 for a in moving.values()]):
        return False
    return True if any([_apart(r) for r in residuals]) else None


def _ranges(op: Access, private: Sequence[For]) -> dict[str, Range]:
    """Ranges of what varies in one access alone: the loops around only it, and its lanes."""
    ranges: dict[str, Range] = {a.var: loop_range(a) for a in private}
    if op.lane:
        ranges[op.lane] = (0, op.lanes - 1 if isinstance(op, Load) else _lanes(op) - 1)
    return ranges


def _lanes(store: Store) -> int:
    return int(getattr(store.value.type, "lanes", 1))


def _dimension(
    e: DimLike, f: DimLike, moving: dict[str, For], ranges: Sequence[dict[str, Range]]
) -> Range | None:
    """The range of e - f in one shared iteration; takes the shared loops that this dimension tells
    apart off `moving`.  None where it cannot be said.
    """
    found = _difference(e, f, ranges)
    if found is not None:
        _tell_apart(found[0], moving, found[1])
    return None if found is None else found[1]


def _difference(
    e: DimLike, f: DimLike, ranges: Sequence[dict[str, Range]]
) -> tuple[dict[str, int], Range] | None:
    """What both have in common, as factors of symbols, and the range of e - f without it."""
    first, second = linear(e), linear(f)
    if first is None or second is None:
        return None
    own: list[dict[str, int]] = []
    for (terms, _), mine in zip((first, second), ranges, strict=True):
        own.append({n: c for n, c in terms.items() if n in mine})
    common = [
        {n: c for n, c in t.items() if n not in m}
        for (t, _), m in zip((first, second), ranges, strict=True)
    ]
    if common[0] != common[1]:
        return None
    low, high = _extremes(own[0], ranges[0], first[1])
    low2, high2 = _extremes(own[1], ranges[1], second[1])
    residual = (
        None if low is None or high2 is None else low - high2,
        None if high is None or low2 is None else high - low2,
    )
    return common[0], residual


def _never_equal(found: tuple[dict[str, int], Range] | None, shared: Sequence[For]) -> bool:
    """Whether the two differ in any two iterations of the shared loops.

    The smaller steps, taken as often as their loops allow, stay between two multiples of the
    greatest common divisor of the larger ones.
    """
    if found is None:
        return False
    low, high = found[1]
    loops = {a.var: loop_range(a) for a in shared}
    steps = [(abs(c), loops[n]) for n, c in found[0].items() if n in loops and c]
    steps.sort(key=lambda step: step[0])
    for k in range(len(steps) + 1):
        if not (isinstance(low, int) and isinstance(high, int)):
            return False
        whole = gcd(*[c for c, _ in steps[k:]])
        if low > 0 or high < 0 if whole == 0 else -(-low // whole) * whole > high:
            return True
        if k < len(steps):
            c, (first, last) = steps[k]
            if not (isinstance(first, int) and isinstance(last, int)):
                return False
            low, high = low - c * (last - first), high + c * (last - first)
    return False


def _extremes(terms: dict[str, int], ranges: dict[str, Range], const: int) -> Range:
    """The least and greatest value of const + sum of terms."""
    low: DimLike | None = const
    high: DimLike | None = const
    for name, c in terms.items():
        lo, hi = ranges[name]
        if c < 0:
            lo, hi = hi, lo
        low = None if low is None or lo is None else low + lo * c
        high = None if high is None or hi is None else high + hi * c
    return low, high


def _tell_apart(common: dict[str, int], moving: dict[str, For], residual: Range) -> None:
    """Mixed radix: a step must exceed what all smaller ones and the residual make up."""
    low, high = residual
    reach: DimLike = max(-low, high, 0) if isinstance(low, int) and isinstance(high, int) else _FAR
    varying = [(c, n) for n, c in common.items() if n in moving]  # other symbols do not change
    for c, name in sorted(varying, key=lambda item: abs(item[0])):
        if nonneg(abs(c) - 1 - reach) is not True:
            return
        reach = reach + abs(c) * (moving[name].extent - 1)
    for _, name in varying:
        del moving[name]


def _apart(residual: Range) -> bool:
    """Zero is not among the differences."""
    low, high = residual
    return (low is not None and nonneg(low - 1) is True) or (
        high is not None and nonneg(-1 - high) is True
    )


def _earlier(load: Op, store: Op, positions: dict[Op, int]) -> bool:
    """Whether the load comes before the store in the innermost block that holds both."""
    if load.block is store.block:
        return positions[load] < positions[store]
    chain: dict[Block, Op] = {}
    op: Op | None = load
    while op is not None and op.block is not None:
        chain[op.block] = op
        op = op.parent_op
    op = store
    while op is not None and op.block is not None:
        first = chain.get(op.block)
        if first is op:  # two regions of one op: of a condition's only one runs
            return isinstance(op, When)
        if first is not None:
            return _before(first, op)
        op = op.parent_op
    return False


def _before(first: Op, second: Op) -> bool:
    op: Op | None = first
    while op is not None:
        if op is second:
            return True
        op = op.next
    return False


__all__ = ["overwrites"]
