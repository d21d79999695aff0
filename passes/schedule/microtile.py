"""The innermost tile of a kernel: accumulators in registers, vectors, unrolled rows.

Works on whatever copies of a tile there are (full and tail tiles), found through the labels of the
register buffers.  Every loop that a register index depends on is written out; the others stay
loops. May import: ir, the steps beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.dims import DimLike
from ...ir.ops.loop import Alloc, For, Load, Store
from ...ir.symbols import dims_in
from .memory import Pad, Place
from .nests import accesses, perfect_chain
from .scheduler import Scheduler
from .steps import Partition, Reorder, Tile, unroll, vector


def finish_tile(
    s: Scheduler, lanes_of: Mapping[str, int], columns: frozenset[int] = frozenset()
) -> None:
    """Vectorise and unroll every copy of the tile whose register buffers are the keys of
    `lanes_of`.

    `lanes_of` says which dimension of each buffer is the vector; `columns` are the dimensions of
    the first buffer that reuse a broadcast operand: they go innermost.
    """
    first = next(iter(lanes_of))
    for leader in s.allocs():
        if _is_copy(leader.label, first) and leader.block is not None:
            copies = {
                a: dim
                for a in leader.block
                if isinstance(a, Alloc)
                for label, dim in lanes_of.items()
                if _is_copy(a.label, label)
            }
            _finish_copy(s, copies, leader, columns)


def _is_copy(label: str, of: str) -> bool:
    while label != of and label.endswith(".t"):
        label = label.removesuffix(".t")
    return label == of


def _finish_copy(
    s: Scheduler, buffers: dict[Alloc, int], leader: Alloc, columns: frozenset[int]
) -> None:
    block = leader.block
    assert block is not None
    shape = leader.result.buffer.shape
    lanes = _lanes(s.target.lanes(leader.result.buffer.dtype.bits), shape[buffers[leader]])
    fixed = all(_static_loops(acc) for acc in buffers)
    for acc, dim in buffers.items():
        if not fixed:
            s.do(Place(acc.label, "stack"))
        extent = acc.result.buffer.shape[dim]
        if isinstance(extent, int) and extent % lanes:
            s.do(Pad(acc.label, dim, lanes))
    for head in list(block):
        if not isinstance(head, For):
            continue
        found = _lane_access(head, buffers, leader)
        if found is not None:
            access, dim = found
            mine = access.operands[-1] is leader.result
            _finish_nest(s, head, access, dim, columns if mine else frozenset(), lanes, fixed)


def _lane_access(
    head: For, buffers: Mapping[Alloc, int], leader: Alloc
) -> tuple[Load | Store, int] | None:
    """An access to one of the buffers, preferably the leader, and its vector dimension."""
    found = None
    for op in accesses(head):
        owner = op.operands[-1].op
        if isinstance(owner, Alloc) and owner in buffers:
            if owner is leader:
                return op, buffers[owner]
            found = found or (op, buffers[owner])
    return found


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
            if not isinstance(e, int) and not all(
                isinstance(extents.get(n), int) for n in e.symbols
            ):
                return False
    return True


def _written_out(head: For, lane: DimLike) -> set[str]:
    """The loops that an index into a register buffer depends on, the vector's own excepted."""
    names: set[str] = set()
    for op in accesses(head):
        owner = op.operands[-1].op
        if (
            isinstance(owner, Alloc)
            and owner.type.space in ("register", "stack")
            and not _is_panel(owner.label)
        ):
            for e in dims_in(op.index):
                names |= e.symbols
    return names - {str(lane)}


def _is_panel(label: str) -> bool:
    """A packed operand, or a copy of one: its indices stay loops."""
    while label.endswith(".t"):
        label = label.removesuffix(".t")
    return label.endswith("panel")


def _order(
    access: Load | Store, dim: int, columns: frozenset[int], names: set[str], chain: list[str]
) -> list[str]:
    """The loops of a tile besides the vector: rows, then columns."""
    inner = [str(e) for d, e in enumerate(access.index) if d in columns and d != dim]
    return [n for n in chain if n in names and n not in inner] + [
        n for n in chain if n in names and n in inner
    ]


def _finish_nest(
    s: Scheduler,
    head: For,
    access: Load | Store,
    dim: int,
    columns: frozenset[int],
    lanes: int,
    fixed: bool,
) -> None:
    """One nest of a tile: reductions outside, rows and columns written out, then the vector."""
    lane = access.index[dim]
    chain = perfect_chain(head)
    extents = {loop.var: loop.extent for loop in chain}
    reducing = {loop.var for loop in chain if loop.reduction}
    written = _written_out(head, lane) & set(extents)
    names = _order(access, dim, columns, written, list(extents))
    rest = [n for n in extents if n not in written and n != str(lane)]
    rest = [n for n in rest if n not in reducing] + [n for n in rest if n in reducing]
    lane_loops: list[str] = []
    if not isinstance(lane, int):
        name = str(lane)
        extent = extents[name]
        if isinstance(extent, int) and extent <= lanes:
            lane_loops = [name]
        else:
            s.do(Tile(name, lanes))
            lane_loops = [f"{name}.o", f"{name}.i"]
    s.do(Reorder((*rest, *names, *lane_loops)))
    if lane_loops:
        s.do(vector(lane_loops[-1]))
    if fixed:
        for name in [*names, *lane_loops[:-1]]:
            s.do(unroll(name))
    inner = [n for n in rest if n in reducing]
    if inner:
        _unroll_reduction(s, inner[-1], extents[inner[-1]])


def _unroll_reduction(s: Scheduler, name: str, extent: DimLike) -> None:
    rounds = s.target.unroll
    if not isinstance(extent, int) or rounds <= 1:
        return
    if extent <= rounds:
        s.do(unroll(name))
        return
    s.do(Tile(name, rounds))
    if extent % rounds:
        s.do(Partition(f"{name}.o", extent // rounds, suffix=".r"))
    s.do(unroll(f"{name}.i"))


__all__ = ["finish_tile"]
