"""How a contraction runs: GEMM, GEMV, convolution in any layout, batched and depthwise forms.

One recipe: a tile of accumulators in registers, rows times columns of vectors, computed where its
consumer (the epilogue) needs it, with the reductions inside.  What is a row or a column follows
from the operands: a dimension that the streamed operand does not see reuses it. May import: ir, the
steps beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...ir.dims import Dim, DimLike, coefficient, simplify, substitute, sym, symbols_of
from ...ir.ops.loop import Alloc, For, Load, Store
from ...ir.symbols import loops_around
from .aliasing import spread_rows
from .fetching import fetch_early
from .memory import ComputeAt, Place, Stage
from .microtile import finish_tile
from .nests import child_of, contains, perfect_chain
from .remainder import divide_rows
from .scheduler import Scheduler, depends, static, stride
from .steps import Partition, Reorder, Tile, parallel

STACK_BYTES = 512 << 10
"""Largest packed panel kept on the stack of a thread."""
MIN_USES = 4
"""Tiles that must share a panel before packing it pays."""
FEW_ROWS = 16
"""Rows up to which packing the other operand costs more than the product."""
SMALL_WORK = 200_000
"""Multiply-adds below which one thread is faster than two."""


@dataclass(frozen=True)
class Contraction:
    """One update nest `acc += a * b` and the nest that consumes it.

    `dims` are (variable in the update nest, variable in the consumer, extent) per accumulator
    dimension.
    """

    acc: Alloc
    update: For
    consumer: For
    dims: tuple[tuple[str, str, DimLike], ...]
    reductions: tuple[tuple[str, DimLike], ...]
    loads: tuple[Load, ...]
    store: Store


def match_update(acc: Alloc) -> tuple[For, Store, tuple[Load, ...]] | None:
    """The nest that does `acc += x * y`, its store, and the loads of x and y."""
    block = acc.block
    assert block is not None
    for store in acc.result.users:
        nest = child_of(store, block)
        if (
            isinstance(store, Store)
            and isinstance(nest, For)
            and any(l.reduction for l in perfect_chain(nest))
        ):
            loads = _factors(store, acc)
            return None if loads is None else (nest, store, loads)
    return None


def match_contraction(acc: Alloc) -> Contraction | None:
    """The contraction that computes this accumulator; None if it is something else."""
    found = match_update(acc)
    if found is None or acc.block is None:
        return None
    update, store, loads = found
    reads = [u for u in acc.result.users if isinstance(u, Load) and not contains(update, u)]
    consumers = {child_of(u, acc.block) for u in reads}
    if len(consumers) != 1 or len({r.index for r in reads}) != 1:
        return None
    (consumer,) = consumers
    return (
        _describe(acc, update, consumer, store, reads[0], loads)
        if isinstance(consumer, For)
        else None
    )


def split_blocks(s: Scheduler, acc: Alloc) -> None:
    """Where an accumulator is read at (i // B, i % B), make two loops of i: blocks and their lanes.

    Lanes beyond the extent are computed with the others and masked where they would be written.
    """
    for load in [u for u in acc.result.users if isinstance(u, Load)]:
        loops = {loop.var for loop in loops_around(load)}
        for d, size in enumerate(acc.result.buffer.shape):
            names = symbols_of(load.index[d])
            if len(names) != 1 or not names <= loops or not isinstance(size, int):
                continue
            (var,) = names
            if load.index[d] == sym(var) % size and sym(var) // size in load.index:
                s.attempt(Tile(var, size, tail="mask"))
                break


def _factors(store: Store, acc: Alloc) -> tuple[Load, ...] | None:
    """The two loads of `acc + x * y` (through casts); None for other updates."""
    total = store.value.op
    if total is None or total.name not in ("add", "fma"):
        return None
    rest = [
        v.op for v in total.operands if not (isinstance(v.op, Load) and v.op.source is acc.result)
    ]
    if total.name == "add":
        if len(rest) != 1 or rest[0] is None or rest[0].name != "mul":
            return None
        rest = [v.op for v in rest[0].operands]
    found = []
    for op in rest:
        while op is not None and op.name == "cast":
            op = op.operands[0].op
        if isinstance(op, Load):
            found.append(op)
    return tuple(found) if len(found) == 2 else None


def _describe(
    acc: Alloc, update: For, consumer: For, store: Store, read: Load, loads: tuple[Load, ...]
) -> Contraction | None:
    inner = {loop.var: loop for loop in perfect_chain(update)}
    outer = {loop.var: loop for loop in perfect_chain(consumer)}
    dims = []
    for mine, theirs in zip(store.index, read.index, strict=True):
        if isinstance(mine, int) and isinstance(theirs, int):
            dims.append(("", "", 1))
            continue
        if str(mine) not in inner or str(theirs) not in outer:
            return None
        dims.append((str(mine), str(theirs), outer[str(theirs)].extent))
    reductions = [(loop.var, loop.extent) for loop in inner.values() if loop.reduction]
    if sum(var != "" for var, _, _ in dims) + len(reductions) != len(inner):
        return None
    return Contraction(acc, update, consumer, tuple(dims), tuple(reductions), loads, store)


@dataclass(frozen=True)
class Tiling:
    """Register tile sizes per accumulator dimension (1 = not tiled) and which of them is the
    vector.
    """

    vector: int
    sizes: tuple[int, ...]
    columns: frozenset[int]


def choose_tiling(c: Contraction, s: Scheduler) -> Tiling | None:
    """Vector dimension, columns and rows of the register tile."""
    target = s.target
    lanes = target.lanes(c.acc.result.buffer.dtype.bits)
    vector = _vector_dim(c)
    if vector is None:
        return None
    streamed, other = _sides(c, vector)
    extents = [static(e) for _, _, e in c.dims]
    columns = frozenset(
        d for d, (var, _, _) in enumerate(c.dims) if not depends(other, var) and d != vector
    )
    rows = [d for d, (var, _, _) in enumerate(c.dims) if not depends(streamed, var) and d != vector]
    shared = {
        d: shared_by(streamed, var, extent)
        for d, (var, _, _) in enumerate(c.dims)
        if (extent := extents[d]) > 1 and d not in (vector, *rows, *columns)
    }
    rows += [d for d, size in shared.items() if size > 1]
    room = target.registers - 2
    most_rows = 1
    for d in rows:
        most_rows = min(room, most_rows * shared.get(d, extents[d]))
    across = _across(most_rows, room, target.registers)
    sizes = [1] * len(extents)
    sizes[vector] = min(_round_up(extents[vector], lanes), lanes * across)
    left = max(1, across // max(1, sizes[vector] // lanes))
    for d in sorted(columns, reverse=True):
        sizes[d] = largest_divisor(extents[d], left)
        left //= sizes[d]
    used = max(1, sizes[vector] // lanes)
    for d in columns:
        used *= sizes[d]
    room = max(1, (target.registers - 2 - (used if used < 4 else 0)) // used)
    for d in sorted(rows, reverse=True):
        if d in shared:
            sizes[d] = largest_divisor(shared[d], room)
        else:
            sizes[d] = pick_rows(extents[d], room)
        if sizes[d] != extents[d]:
            break
        room //= sizes[d]
    return Tiling(vector, tuple(sizes), columns)


def shared_by(streamed: Load, var: str, extent: int) -> int:
    """Neighbours along a loop that read the same of an operand: channels of one group."""
    if not any([isinstance(e, Dim) and coefficient(e, var) is None for e in streamed.index]):
        return 1
    outer, inner = f"{var}.o", f"{var}.i"
    for size in [d for d in range(extent, 1, -1) if extent % d == 0]:
        ranges = {inner: (0, size - 1), outer: (0, extent // size - 1)}
        index = [simplify(substitute(e, {var: sym(outer) * size + sym(inner)}), ranges)
                 for e in streamed.index]  # fmt: skip
        if not any([inner in symbols_of(e) for e in index]):
            return size
    return 1


def _across(rows: int, room: int, registers: int) -> int:
    """Vectors side by side: two with enough rows, more when rows are few (independent chains)."""
    if rows >= 5:
        return 2
    return max(2, min(8, room // (rows + 1), 8 // rows if registers >= 16 else 2))


def _round_up(extent: int, lanes: int) -> int:
    return -(-extent // lanes) * lanes


def _vector_dim(c: Contraction) -> int | None:
    """The accumulator dimension whose loop moves the output by one element and at least one operand
    too.
    """
    outs = [op for op in c.consumer.walk() if isinstance(op, Store)]
    best: tuple[int, int] | None = None
    for d, (var, out_var, extent) in enumerate(c.dims):
        if any(stride(o, out_var) != 1 for o in outs):
            continue
        steps = [stride(load, var) for load in c.loads]
        if any(step is None for step in steps):
            continue
        score = (1 if 1 in steps else 0, min(static(extent), 64))
        if best is None or score > best[0]:  # type: ignore[operator]
            best = (score, d)  # type: ignore[assignment]
    return None if best is None else best[1]


def _sides(c: Contraction, vector: int) -> tuple[Load, Load]:
    """(operand streamed along the vector dimension, the other one)."""
    var = c.dims[vector][0]
    a, b = c.loads
    if depends(b, var):
        return b, a
    return a, b


def largest_divisor(extent: int, most: int) -> int:
    """The largest divisor of `extent` not above `most`."""
    return max(d for d in range(1, max(1, most) + 1) if extent % d == 0)


def pick_rows(extent: int, most: int) -> int:
    """Rows of a tile, at most `most`: fewest vector steps for the whole extent, tails counted."""
    if extent <= most:
        return extent
    overhead = 3

    def cost(rows: int) -> int:
        full, rest = divmod(extent, rows)
        return full * (rows + overhead) + (max(rest, 4) + overhead if rest else 0)

    return min(range(max(1, most * 2 // 3), most + 1), key=lambda rows: (cost(rows), -rows))


def schedule_contraction(s: Scheduler, label: str) -> bool:
    """Schedule the contraction that computes the accumulator `label`; False if it is not one."""
    acc = next((a for a in s.allocs() if a.label == label), None)
    c = match_contraction(acc) if acc is not None else None
    if c is not None and any(load.where for load in c.loads):
        return False
    tiling = choose_tiling(c, s) if c is not None and s.target.vector_bits else None
    if c is None or tiling is None or _is_dot(c, tiling, s):
        return False
    if _spread(s, c, tiling):
        c = match_contraction(c.acc) or c
    outer = _tile_consumer(s, c, tiling)
    panel = _panel_loop(c, tiling, s, outer)
    source = _sides(c, tiling.vector)[0].source.name or ""
    if outer:
        s.do(ComputeAt(label, outer[-1], "register"))
    else:
        s.do(Place(label, "register"))
    if panel is not None:
        _pack(s, c, tiling, panel, source)
    tiled = zip(c.dims, tiling.sizes, strict=True)
    split_tails(s, {f"{var}.o": extent // size for (_, var, extent), size in tiled}, outer)
    divide_rows(s, label, tiling.vector)
    finish_tile(s, {label: tiling.vector}, tiling.columns)
    fetch_early(s, label, math.prod([static(extent) for _, extent in c.reductions]))
    _threads(s, c, outer)
    return True


def _is_dot(c: Contraction, tiling: Tiling, s: Scheduler) -> bool:
    """Few rows against rows: sums along consecutive elements, which no tile of columns reuses."""
    streamed, other = _sides(c, tiling.vector)
    inner, depth = c.reductions[-1]
    rows = 1
    for var, _, extent in c.dims:
        rows *= 1 if not var or depends(streamed, var) else static(extent)
    along = stride(streamed, inner) == 1 and stride(other, inner) == 1
    across = stride(streamed, c.dims[tiling.vector][0]) == 1
    lanes = s.target.lanes(streamed.source.buffer.dtype.bits)
    return along and not across and rows <= FEW_ROWS and static(depth) >= 2 * lanes


def _tile_consumer(s: Scheduler, c: Contraction, tiling: Tiling) -> list[str]:
    """Tile and order the consumer's loops; gives the outer ones, outermost first."""
    outer: dict[int, str] = {}
    inner: dict[int, str] = {}
    for d, ((_, var, extent), size) in enumerate(zip(c.dims, tiling.sizes, strict=True)):
        if not var:
            continue
        if size == 1:
            outer[d] = var
        elif static(extent) <= size:
            inner[d] = var
        else:
            s.do(Tile(var, size))
            outer[d], inner[d] = f"{var}.o", f"{var}.i"
    columns = tiling.columns | {tiling.vector}
    rows = [d for d in range(len(c.dims)) if d not in columns]
    batch = [d for d in rows if all(depends(load, c.dims[d][0]) for load in c.loads)]
    rows = [d for d in rows if d not in batch]
    ordered = [*batch, *sorted(columns), *rows]
    order = [outer[d] for d in ordered if d in outer]
    within = [
        inner[d]
        for d in [*batch, *rows, *sorted(columns - {tiling.vector}), tiling.vector]
        if d in inner
    ]
    s.do(Reorder((*order, *within)))
    return order


def _panel_loop(c: Contraction, tiling: Tiling, s: Scheduler, outer: Sequence[str]) -> str | None:
    """The loop at whose start the streamed operand's panel should be packed; None if it is fine as
    it is.

    It is where its vectors are consecutive and each step of the innermost reduction follows the
    last one.
    """
    streamed, _ = _sides(c, tiling.vector)
    var = c.dims[tiling.vector][0]
    inner, _ = c.reductions[-1]
    size = tiling.sizes[tiling.vector]
    depth = 1
    for name, extent in c.reductions:
        depth *= static(extent) if depends(streamed, name) else 1
    contiguous = stride(streamed, var) == 1
    dense = contiguous and stride(streamed, inner) in (
        size,
        s.target.lanes(streamed.source.buffer.dtype.bits),
    )
    bytes_ = depth * size * streamed.source.buffer.dtype.bytes
    if dense or bytes_ > STACK_BYTES or not outer:
        return None
    uses = 1
    for d, (name, _, extent) in enumerate(c.dims):
        if name and not depends(streamed, name):
            uses *= -(-static(extent) // tiling.sizes[d])
    if uses < (MIN_USES if contiguous else 1):
        return None
    reads = {d for d, (name, _, _) in enumerate(c.dims) if name and depends(streamed, name)}
    columns = [c.dims[d][1] for d in reads]
    at = [k for k, name in enumerate(outer) if name.removesuffix(".o") in columns]
    return outer[max(at)] if at else None


def _pack(s: Scheduler, c: Contraction, tiling: Tiling, loop: str, source: str) -> None:
    """Copy the panel: reductions outermost, the vector dimension last and consecutive."""
    label = f"{c.acc.label}.panel"
    streamed, _ = _sides(c, tiling.vector)
    var = c.dims[tiling.vector][0]
    last = next(d for d, e in enumerate(streamed.index) if var in symbols_of(e))
    rank = len(streamed.index)
    order = tuple([d for d in range(rank) if d != last] + [last])
    s.attempt(Stage(source, loop, label, "stack", (), order if order != tuple(range(rank)) else ()))


def _spread(s: Scheduler, c: Contraction, tiling: Tiling) -> bool:
    """Give the rows of the tile addresses that the first cache can hold side by side."""
    _, rows = _sides(c, tiling.vector)
    sizes: dict[str, int] = {}
    uses = 1
    for (var, _, extent), size in zip(c.dims, tiling.sizes, strict=True):
        if var and depends(rows, var):
            sizes[var] = size
        else:
            uses *= -(-static(extent) // size)
    return spread_rows(s, f"{c.acc.label}.rows", rows, sizes, c.reductions[-1][0], uses)


def split_tails(s: Scheduler, full: Mapping[str, DimLike], outer: Sequence[str]) -> None:
    """Give full tiles their own loops, so that extents become constants.

    `full` says how many iterations of a tile loop are full.
    """
    for var in outer:
        if var not in full:
            continue
        for loop in [op for op in s.kernel.walk() if isinstance(op, For) and _base(op.var) == var]:
            if _has_tail(loop):
                s.do(Partition(loop.var, full[var], suffix=".t"))


def _base(var: str) -> str:
    """The name a loop had before it was copied as a tail."""
    while var.endswith(".t"):
        var = var.removesuffix(".t")
    return var


def _has_tail(loop: For) -> bool:
    """Does the last iteration of a tile loop do less than the others?"""
    return any(isinstance(op, For) and loop.var in symbols_of(op.extent) for op in loop.walk())


def _threads(s: Scheduler, c: Contraction, outer: Sequence[str]) -> None:
    work = 1
    for _, _, extent in c.dims:
        work *= static(extent, 64)
    for _, extent in c.reductions:
        work *= static(extent, 64)
    if s.target.threads > 1 and work >= SMALL_WORK and outer:
        s.attempt(parallel(outer[0]))


__all__ = [
    "Contraction",
    "choose_tiling",
    "match_contraction",
    "match_update",
    "pick_rows",
    "schedule_contraction",
    "shared_by",
    "split_blocks",
    "split_tails",
]
