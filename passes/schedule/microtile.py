"""The innermost tile of a kernel: accumulators in registers, vectors, unrolled rows.

Works on whatever copies of a tile there are (full and tail tiles), found through the accumulator's label.
May import: ir, the steps beside it.
"""

from __future__ import annotations

from ...ir.dims import DimLike
from ...ir.ops.loop import Alloc, For, Load, Store
from .memory import Pad, Place
from .nests import child_of, perfect_chain
from .scheduler import Scheduler
from .steps import Partition, Reorder, Tile, unroll, vector

UNROLL = 4
"""Rounds of the innermost reduction written out."""


def finish_tile(s: Scheduler, label: str, vector_dim: int, columns: frozenset[int] = frozenset()) -> None:
    """Vectorise and unroll every copy of the tile whose accumulator is `label`.

    `columns` are the other dimensions that reuse a broadcast operand: they go innermost.
    """
    for acc in s.allocs():
        if acc.label == label or acc.label.startswith(label + ".t"):
            _finish_copy(s, acc, vector_dim, columns)


def _finish_copy(s: Scheduler, acc: Alloc, vector_dim: int, columns: frozenset[int]) -> None:
    shape = acc.result.buffer.shape
    lanes = _lanes(s.target.lanes(acc.result.buffer.dtype.bits), shape[vector_dim])
    fixed = _static_loops(acc)
    if not fixed:
        s.do(Place(acc.label, "stack"))
    if isinstance(shape[vector_dim], int) and shape[vector_dim] % lanes:
        s.do(Pad(acc.label, vector_dim, lanes))
    block = acc.block
    assert block is not None
    users = [u for u in acc.result.users if isinstance(u, (Load, Store))]
    for nest in {child_of(u, block): u for u in users}.items():
        head, access = nest
        if isinstance(head, For):
            _finish_nest(s, head, _order(access, vector_dim, columns), access.index[vector_dim], lanes, fixed)


def _lanes(widest: int, extent: object) -> int:
    """Vector lanes for an extent: the narrowest power of two that holds it, up to the target's."""
    lanes = 1
    while lanes < widest and isinstance(extent, int) and lanes < extent:
        lanes *= 2
    return lanes if isinstance(extent, int) else widest


def _static_loops(acc: Alloc) -> bool:
    """Are the accumulator's indices loops with constant extents?"""
    block = acc.block
    assert block is not None
    extents = {loop.var: loop.extent for op in block for loop in op.walk() if isinstance(loop, For)}
    for user in acc.result.users:
        for e in user.attributes["index"]:
            if not isinstance(e, int) and not all(isinstance(extents.get(n), int) for n in e.symbols):
                return False
    return True


def _order(access: Load | Store, vector_dim: int, columns: frozenset[int]) -> list[str]:
    """The loops of a tile besides the vector: rows, then columns."""
    loops = [(d in columns, str(e)) for d, e in enumerate(access.index) if not isinstance(e, int) and d != vector_dim]
    return [name for _, name in sorted(loops, key=lambda pair: pair[0])]


def _finish_nest(s: Scheduler, head: For, names: list[str], lane_expr: DimLike, lanes: int, fixed: bool) -> None:
    """One nest of a tile: reductions outermost, then rows and columns written out, then the vector."""
    chain = perfect_chain(head)
    extents = {loop.var: loop.extent for loop in chain}
    reductions = [loop.var for loop in chain if loop.reduction]
    others = [loop.var for loop in chain if not loop.reduction and loop.var not in names and loop.var != str(lane_expr)]
    lane_loops: list[str] = []
    if not isinstance(lane_expr, int):
        name = str(lane_expr)
        loop = next(loop for loop in chain if loop.var == name)
        if loop.extent == lanes or (isinstance(loop.extent, int) and loop.extent < lanes):
            lane_loops = [name]
        else:
            s.do(Tile(name, lanes))
            lane_loops = [f"{name}.o", f"{name}.i"]
    s.do(Reorder((*others, *reductions, *names, *lane_loops)))
    if lane_loops:
        s.do(vector(lane_loops[-1]))
    if fixed:
        for name in [*names, *lane_loops[:-1]]:
            s.do(unroll(name))
    if reductions:
        _unroll_reduction(s, reductions[-1], extents[reductions[-1]])


def _unroll_reduction(s: Scheduler, name: str, extent: DimLike) -> None:
    if not isinstance(extent, int) or extent <= UNROLL:
        if isinstance(extent, int):
            s.do(unroll(name))
        return
    s.do(Tile(name, UNROLL))
    if extent % UNROLL:
        s.do(Partition(f"{name}.o", extent // UNROLL, suffix=".r"))
    s.do(unroll(f"{name}.i"))


__all__ = ["finish_tile"]
