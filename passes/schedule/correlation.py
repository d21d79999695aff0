"""How a product of two operands that both lie along the sum runs: the filter gradient of a
convolution.

Both operands are streams, position after position, and each position is an outer product of their
channels: the accumulators are lanes of one times lanes of the other.  The register tile takes
several vectors of one operand and single elements of the other.  Sums longer than the caches are
cut into parts, after each of which the accumulators rest in memory.  May import: ir, the steps
beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from ...ir.dims import symbols_of
from ...ir.ops.loop import Alloc, For, Load, Store
from ...ir.symbols import loops_around
from .contraction import Contraction, match_contraction
from .memory import ComputeAt, Place
from .microtile import finish_tile
from .nests import Refused, contains, find_loop, perfect_chain
from .scheduler import Scheduler, depends, static, stride
from .steps import Reorder, Tile, parallel
from .sums import Loosen, SumApart, Trim

SMALL_WORK = 200_000
"""Multiply-adds below which one thread is faster than two."""
MOST_COLUMNS = 4
"""Blocks of the streamed operand side by side in a tile: each is a stream of its own."""
LEAST_ROWS = 4
"""Rows of a tile below which the loads of the other operand are the limit."""


@dataclass(frozen=True)
class Correlation:
    """A contraction, its vector dimension, that of the rows, and those of more vectors."""

    c: Contraction
    vector: int
    row: int
    columns: tuple[int, ...]
    streamed: Load
    other: Load


def match_correlation(c: Contraction, least: int = 2) -> Correlation | None:
    """The dimensions of such a product; None if it is something else.

    The rows' operand has its rows side by side in memory and, like the streamed one, moves with
    every loop of the sum, of which there are `least` and more: positions.
    """
    sums = [name for name, _ in c.reductions]
    if len(sums) < least or not all([depends(l, name) for l in c.loads for name in sums]):
        return None
    if len({frozenset(load.where) for load in c.loads}) != 1:
        return None
    outs = [op for op in c.consumer.walk() if isinstance(op, Store)]
    guarded = {name for load in c.loads for w in load.where for name in symbols_of(w)}
    for streamed, other in (c.loads, c.loads[::-1]):
        vector = [
            d
            for d, (var, out, _) in enumerate(c.dims)
            if var and stride(streamed, var) == 1 and not depends(other, var)
            and all([stride(o, out) == 1 for o in outs])
        ]  # fmt: skip
        rows = [
            d
            for d, (var, _, extent) in enumerate(c.dims)
            if var and stride(other, var) == 1 and not depends(streamed, var)
            and isinstance(extent, int) and var not in guarded
        ]  # fmt: skip
        if len(vector) == 1 and rows:
            columns = [
                d
                for d, (var, _, extent) in enumerate(c.dims)
                if var and d not in vector and not depends(other, var) and isinstance(extent, int)
            ]
            return Correlation(c, vector[0], rows[-1], tuple(columns), streamed, other)
    return None


def schedule_correlation(s: Scheduler, root: For) -> bool:
    """Schedule the nest `root` if it reads such a product; False if it does not.

    Where taps are the rows (few channels), padding cannot be left out: only one operand keeps its
    guards then, for which others make a padded copy.
    """
    if not s.target.vector_bits:
        return False
    for alloc in [a for a in s.allocs() if a.block is s.kernel.body]:
        c = match_contraction(alloc)
        found = match_correlation(c) if c is not None and c.consumer is root else None
        sizes = _tile_sizes(found, s) if found is not None else None
        if found is None or sizes is None:
            if c is not None and c.consumer is root and all([load.where for load in c.loads]):
                s.attempt(Loosen(alloc.label))
            continue
        apart = _sum_apart(s, found, sizes)
        if apart is not None:
            found = apart
        _schedule(s, found, sizes)
        return True
    return False


def _tile_sizes(found: Correlation, s: Scheduler) -> dict[int, int] | None:
    """Elements of the register tile per dimension: the most sums with the fewest loads."""
    c, target = found.c, s.target
    extent, rows = static(c.dims[found.vector][2]), static(c.dims[found.row][2])
    lanes = min(target.lanes(c.acc.result.buffer.dtype.bits), extent)
    across = {d: static(c.dims[d][2]) for d in found.columns}
    wide = max(across, key=lambda d: across[d], default=None)
    most = across[wide] if wide is not None else 1
    best: tuple[float, int, int, int] | None = None
    for r, w, v in product(_divisors(rows), _divisors(most), _divisors(extent // lanes)):
        used = w * v
        whole = v * lanes == extent
        if (w > 1 and not whole) or w > MOST_COLUMNS or r * used + used + 1 > target.registers:
            continue
        score = min(r * used, 16) / 16 + r * used / (r + used) / 16
        best = max(best or (0.0, 0, 0, 0), (score, r, w, v))
    if best is None or best[1] < min(LEAST_ROWS, rows) or extent % lanes:
        return None
    _, r, w, v = best
    sizes = {found.row: r, found.vector: v * lanes}
    if wide is not None and w > 1:
        sizes[wide] = w
    return sizes


def _divisors(extent: int) -> list[int]:
    return [d for d in range(1, extent + 1) if extent % d == 0]


def _sum_apart(s: Scheduler, found: Correlation, sizes: Mapping[int, int]) -> Correlation | None:
    """Cut a sum over more than the caches hold into parts; None where it stays whole.

    Threads share a loop of results around the parts, if one splits evenly.
    """
    c = found.c
    bytes_ = c.acc.result.buffer.dtype.bytes
    width = sum([static(c.dims[d][2]) for d in (found.vector, found.row)])
    room = s.target.l1 // (width * bytes_)
    extents = [(name, static(extent)) for name, extent in c.reductions]
    total = 1
    for _, extent in extents:
        total *= extent
    if total <= room * 4:
        return None
    outer, left = [], room
    for name, extent in reversed(extents):
        if left == 1:
            outer.append(name)
        elif extent <= left:
            left //= extent
        else:
            outer.append(_cut(s, name, extent, left))
            left = 1
    if not outer:
        return None
    outer.reverse()
    shared = _shared(s, c, sizes)
    chain = [loop.var for loop in perfect_chain(find_loop(s.kernel, _first(s, c)))]
    s.do(Reorder((*shared, *outer, *[v for v in chain if v not in (*shared, *outer)])))
    s.do(SumApart(c.acc.label, outer[-1]))
    if shared:
        s.attempt(parallel(shared[0]))
    part = next(a for a in s.allocs() if a.label == f"{c.acc.label}.s")
    made = match_contraction(part)
    found_part = match_correlation(made, 0) if made is not None else None
    if found_part is None:
        raise Refused(f"the parts of {c.acc.label} are no such product")
    return found_part


def _shared(s: Scheduler, c: Contraction, sizes: Mapping[int, int]) -> list[str]:
    """The loop of whole tiles that threads share, in a list; none where one thread runs, or no such
    loop gives each thread as much.
    """
    threads = s.target.threads
    for d, (var, _, extent) in enumerate(c.dims):
        even = isinstance(extent, int) and (extent % threads == 0 or extent >= 4 * threads)
        if threads > 1 and var and d not in sizes and even:
            return [var]
    return []


def _first(s: Scheduler, c: Contraction) -> str:
    """The outermost loop of the update."""
    return str(loops_around(c.store)[0].var)


def _cut(s: Scheduler, name: str, extent: int, most: int) -> str:
    """Tile a loop of the sum; gives the outer loop."""
    if most == 1:
        return name
    parts = -(-extent // most)
    size = -(-extent // parts)
    s.do(Tile(name, size))
    return f"{name}.o"


def _schedule(s: Scheduler, found: Correlation, sizes: dict[int, int]) -> None:
    """Tile the results, sum in registers, leave out what padding adds."""
    c = found.c
    outer: list[str] = []
    inner: dict[int, str] = {}
    for d, (_, var, extent) in enumerate(c.dims):
        if not var:
            continue
        size = sizes.get(d, 1)
        if size == 1:
            outer.append(var)
        elif extent == size:
            inner[d] = var
        else:
            s.do(Tile(var, size))
            outer.append(f"{var}.o")
            inner[d] = f"{var}.i"
    wide = [d for d in inner if d not in (found.row, found.vector)]
    within = [inner[d] for d in (found.row, *wide, found.vector) if d in inner]
    s.do(Reorder((*outer, *within)))
    label = c.acc.label
    s.do(ComputeAt(label, outer[-1], "register") if outer else Place(label, "register"))
    alloc = next(a for a in s.allocs() if a.label == label)
    _trim(s, alloc)
    finish_tile(s, {label: found.vector}, frozenset(wide))
    work = 1
    for _, _, extent in c.dims:
        work *= static(extent, 64)
    for _, extent in c.reductions:
        work *= static(extent, 64)
    around = [loop.kind for loop in loops_around(alloc)] if alloc.block is not None else []
    if s.target.threads > 1 and work >= SMALL_WORK and outer and "parallel" not in around:
        s.attempt(parallel(outer[0]))


def _trim(s: Scheduler, alloc: Alloc) -> None:
    """Leave out the positions where one operand is padding."""
    stores = [u for u in alloc.result.users if isinstance(u, Store)]
    around = [loop for u in stores for loop in loops_around(u) if loop.reduction]
    for loop in [loop for loop in around if not contains(loop, alloc)]:
        guards = [w for op in loop.walk() if isinstance(op, Load) for w in op.where]
        if any([loop.var in symbols_of(w) for w in guards]):
            s.do(Trim(loop.var))


__all__ = ["Correlation", "match_correlation", "schedule_correlation"]
