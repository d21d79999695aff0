"""A register tile that is written along its rows and read along its columns is a transpose.

Runs when lanes and unrolled loops are written out: every index is a number or the lane.  Tiles that
are used in any other way stay buffers.  May import: ir, passes.schedule.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.core import Block, Op
from ...ir.dims import coefficient
from ...ir.ops.core import Func
from ...ir.ops.loop import Alloc, Load, Store, TransposeLanes
from ...ir.types import VectorType
from ..schedule.scheduler import address


@dataclass(frozen=True)
class _Tile:
    """The accesses of a tile: stores by row, loads with their columns, and the lanes of both."""

    stores: dict[int, Store]
    loads: dict[Load, int]
    rows: int
    columns: int


def transpose_tiles(kernel: Func) -> None:
    """Replace the tiles of a kernel, in place."""
    for op in list(kernel.walk()):
        if isinstance(op, Alloc) and op.type.space == "register":
            tile = _match(op)
            if tile is not None:
                _replace(op, tile)


def _match(alloc: Alloc) -> _Tile | None:
    """The tile, if every row is written once, whole and before any column is read."""
    stores: dict[int, Store] = {}
    loads: dict[Load, int] = {}
    strides, rows, columns = set(), set(), set()
    for user in alloc.result.users:
        form = _lanes_of(user)
        if form is None:
            return None
        step, start, lanes = form
        if isinstance(user, Load) and step > 1:
            loads[user] = start
            strides.add(step)
            rows.add(lanes)
        elif isinstance(user, Store) and step == 1 and start not in stores:
            stores[start] = user
            columns.add(lanes)
        else:
            return None
    if not len(strides) == len(rows) == len(columns) == 1:
        return None
    (width,), (count,), (across,) = strides, rows, columns
    whole = all([start % width == 0 for start in stores]) and across <= width
    inside = all([start < across for start in loads.values()])
    if not whole or not inside or max(stores) >= width * count or not _in_order(stores, loads):
        return None
    return _Tile({start // width: op for start, op in stores.items()}, loads, count, across)


def _lanes_of(user: Op) -> tuple[int, int, int] | None:
    """Elements per lane, element of lane 0, and lanes of an unguarded access; None if not known."""
    if not isinstance(user, (Load, Store)) or not user.lane or user.where:
        return None
    form = coefficient(address(user), user.lane)
    type_ = user.result.type if isinstance(user, Load) else user.value.type
    if form is None or not isinstance(type_, VectorType):
        return None
    step, start = form
    if not isinstance(step, int) or not isinstance(start, int):
        return None
    return step, start, type_.lanes


def _in_order(stores: dict[int, Store], loads: dict[Load, int]) -> bool:
    """Do all stores stand before all loads, in one block?"""
    first = next(iter(loads))
    block: Block | None = first.block
    if block is None or any([op.block is not block for op in (*stores.values(), *loads)]):
        return False
    left: set[Op] = set(stores.values())
    for op in block:
        left.discard(op)
        if op in loads:
            return not left
    return False


def _replace(alloc: Alloc, tile: _Tile) -> None:
    """One transpose before the first load; rows that nothing writes are never read either."""
    some = next(iter(tile.stores.values())).value
    given = [tile.stores[k].value if k in tile.stores else some for k in range(tile.rows)]
    block = alloc.block
    loads = set(tile.loads)
    first = next(op for op in next(iter(loads)).block if op in loads)  # type: ignore[union-attr]
    made = TransposeLanes(*given, loc=first.loc)
    assert first.block is not None and block is not None
    first.block.insert_before(made, first)
    for load, column in tile.loads.items():
        load.replace_by((made.results[column],))
    for store in tile.stores.values():
        store.erase()
    alloc.erase()


__all__ = ["transpose_tiles"]
