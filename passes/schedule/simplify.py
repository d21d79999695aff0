"""Simplify a kernel's index expressions with the ranges of its loops, and drop what became trivial.

Guards that always hold go, guarded accesses that never happen become their fill, loops of one
iteration disappear, loops of none too.  May import: ir.
"""

from __future__ import annotations

from typing import Any

from ...ir.core import Op
from ...ir.dims import Dim, DimLike, Range, linear, nonneg, simplify
from ...ir.ops.core import Const, Func
from ...ir.ops.loop import For, If, Load, Store
from ...ir.symbols import bind_ranges, loop_range, map_dims_in, ranges_around

Ranges = dict[str, Range]


def simplify_kernel(kernel: Func) -> None:
    """Simplify everything in a kernel."""
    _block(kernel, bind_ranges(kernel))


def simplify_under(loop: For) -> None:
    """Simplify one loop and everything in it."""
    ranges = ranges_around(loop)
    loop.attrs = tuple([_value(v, ranges) for v in loop.attrs])
    ranges[loop.var] = loop_range(loop)
    _block(loop, ranges)


def simplify_nest(op: Op) -> None:
    """Simplify one op of a kernel and everything in it; it may disappear."""
    _op(op, ranges_around(op))


def _block(op: Op, ranges: Ranges) -> None:
    for block in op.regions:
        for inner in list(block):
            if inner.block is not None:
                _op(inner, ranges)


def _op(op: Op, ranges: Ranges) -> None:
    """Simplify one op, then what is nested in it."""
    if op.attrs and not isinstance(op, Const):
        op.attrs = tuple([_value(v, ranges) for v in op.attrs])
    if isinstance(op, For):
        _loop(op, ranges)
    elif isinstance(op, If):
        _guard(op, ranges)
    elif isinstance(op, (Load, Store)) and op.where:
        _access(op, ranges)
    elif op.regions:
        _block(op, ranges)


def _value(value: Any, ranges: Ranges) -> Any:
    kind = type(value)
    if kind is Dim:
        return value if _plain(value) else simplify(value, ranges)
    if kind is tuple and value:
        made = tuple([_value(v, ranges) for v in value])
        return value if all([a is b for a, b in zip(made, value, strict=True)]) else made
    return value


_plain_cache: dict[Dim, bool] = {}


def _plain(e: Dim) -> bool:
    """Is the expression affine, so that no range can make it simpler?"""
    known = _plain_cache.get(e)
    if known is None:
        if len(_plain_cache) > 200_000:
            _plain_cache.clear()
        known = _plain_cache[e] = linear(e) is not None
    return known


def _loop(loop: For, ranges: Ranges) -> None:
    if loop.extent == 0:
        loop.erase()
        return
    inner = {**ranges, loop.var: loop_range(loop)}
    if loop.extent == 1 and not loop.kind.startswith("gpu."):
        for op in loop.body:
            map_dims_in(op, {loop.var: loop.lo})
        _splice(loop, loop)
        return
    _block(loop, inner)
    if loop.body.size == 0:
        loop.erase()


def _splice(holder: For | If, before: Op) -> None:
    """Put the body of `holder` in its place."""
    block = holder.block
    assert block is not None
    moved = list(holder.body)
    for op in moved:
        holder.body.remove(op)
        block.insert_before(op, before)
    holder.erase()
    for op in moved:
        if op.block is not None:
            _op(op, ranges_around(op))


def _guard(guard: If, ranges: Ranges) -> None:
    kept = _open_conditions(guard.where, ranges)
    if kept is None:
        guard.erase()
    elif not kept:
        _splice(guard, guard)
    else:
        guard.set_attr("where", kept)
        _block(guard, ranges)


def _open_conditions(where: tuple[DimLike, ...], ranges: Ranges) -> tuple[DimLike, ...] | None:
    """The conditions that are not always true; None if one is never true."""
    kept: list[DimLike] = []
    for e in where:
        holds = nonneg(e, ranges)
        if holds is False:
            return None
        if holds is None and e not in kept:
            kept.append(e)
    return tuple(kept)


def _access(op: Load | Store, ranges: Ranges) -> None:
    inner = {**ranges, op.lane: (0, op.lanes - 1)} if isinstance(op, Load) and op.lane else ranges
    kept = _open_conditions(op.where, inner)
    if kept is None and isinstance(op, Store):
        op.erase()
    elif kept is None and isinstance(op, Load) and not op.lane:
        made = Const(op.fill, op.result.type, loc=op.loc)
        op.block.insert_before(made, op)  # type: ignore[union-attr]
        op.replace_by(made.results)
    elif kept is not None and kept != op.where:
        op.set_attr("where", kept)


__all__ = ["simplify_kernel", "simplify_nest", "simplify_under"]
