"""Building the `fused` regions of a block from a partition of its ops.

Groups are put in an order that respects who reads whom; views that regions read through are copied
into them, reshapes of memory stay outside.  What is to be computed again comes behind what it waits
for.  May import: ir, fuse_kinds, fuse_order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..ir.core import Block, Loc, Op, Value
from ..ir.ops.autodiff import Recompute
from ..ir.ops.core import Fused, Yield
from ..ir.ops.shape import Reshape
from .fuse_kinds import kind_of, single
from .fuse_order import order_units


class Unit(Protocol):
    """Ops that stand together; `kind` is empty for what stays as it is."""

    ops: list[Op]
    kind: str


def build(block: Block, groups: Sequence[Unit], lazy: set[Op]) -> None:
    """Rewrite the block: one `fused` per group of a kind, other ops as they are, in an order that
    works.
    """
    units: list[tuple[list[Op], bool]] = [(g.ops, bool(g.kind)) for g in groups]
    grouped = {op for ops, _ in units for op in ops}
    units += [([op], False) for op in block if op not in grouped and not op.terminator]
    order = order_units(block, units, lambda op, inside: _makers(op, inside, lazy))
    end = block.terminator
    for k in order:
        ops, fuse = units[k]
        if fuse:
            _fused(block, ops, lazy, end)
        else:
            for op in [
                op for op in ops if op.block is block
            ]:  # a view that only one region read is gone
                block.remove(op)
                block.insert_before(op, end)
    for op in block:
        if isinstance(op, Recompute):
            op.replace_by(op.operands)
    for op in reversed(list(block)):
        if op.pure and op.results and not any([r.users for r in op.results]):
            op.erase()


def _makers(op: Op, inside: set[Op], lazy: set[Op]) -> list[Op]:
    """The ops that must stand before `op`; views that its region copies are looked through."""
    todo = [v for inner in op.walk() for v in inner.operands if v is not None]
    found: list[Op] = []
    while todo:
        made = todo.pop().op
        if made is None:
            continue
        if inside and made in lazy and not _renames(made, inside, lazy):
            todo.extend(made.operands)
        else:
            found.append(made)
    return found


def _fused(block: Block, ops: Sequence[Op], lazy: set[Op], before: Op | None) -> Fused:
    """Move `ops` into a new region before `before`."""
    inside = set(ops)
    region = Block()
    env: dict[Value, Value] = {}
    inputs: list[Value] = []

    def local(value: Value) -> Value:
        """The value as the region sees it."""
        known = env.get(value)
        if known is not None:
            return known
        made = value.op
        if made is not None and (
            single(value) or (made in lazy and not _renames(made, inside, lazy))
        ):
            for operand in made.operands:
                local(operand)
            copy = region.append(made.copy(env))
            return copy.results[value.index]
        inputs.append(value)
        env[value] = region.add_arg(value.type, value.name)
        return env[value]

    for op in ops:
        for operand in op.operands:
            if operand is not None:
                local(operand)
        region.append(op.copy(env))
    outs = [
        r
        for op in ops
        for r in op.results
        if any([u not in inside and not _copied(u, inside, lazy) for u in r.users])
    ]
    outs = outs or list(ops[-1].results)
    region.append(Yield(*[env[v] for v in outs]))
    fused = Fused(*inputs, label=_label(ops), loc=_loc(ops), regions=[region])
    block.insert_before(fused, before)
    for old, new in zip(outs, fused.results, strict=True):
        new.name = old.name
        for user in old.users:
            if user not in inside:
                user.set_operands([new if v is old else v for v in user.operands])
    for op in reversed(list(ops)):
        _release(op)
    return fused


def _release(op: Op) -> None:
    """Erase an op whose results are read only by views that nobody reads any more."""
    for result in op.results:
        for user in result.users:
            _release(user)
    if op.block is not None:
        op.erase()


def _renames(op: Op, inside: set[Op], lazy: set[Op]) -> bool:
    """A reshape (of reshapes) of what the region does not compute: it stays outside."""
    while isinstance(op, Reshape):
        made = op.operands[0].op
        if made is None:
            return True
        if made in inside:
            return False
        if made not in lazy:
            return True
        op = made
    return False


def _copied(view: Op, inside: set[Op], lazy: set[Op]) -> bool:
    """All that read this view are inside, where they have a copy of it."""
    if view not in lazy:
        return False
    return all([u in inside or _copied(u, inside, lazy) for u in view.results[0].users])


def _label(ops: Sequence[Op]) -> str:
    """`conv+add+relu`: what the region computes, shortened."""
    names = [op.name for op in ops if kind_of(op) != "view"] or [op.name for op in ops]
    return "+".join(names if len(names) <= 6 else [*names[:3], "...", *names[-2:]])


def _loc(ops: Sequence[Op]) -> Loc | None:
    """The location of the anchor, else of the last op that has one."""
    for op in ops:
        if op.loc is not None and kind_of(op) not in ("view", "pointwise"):
            return op.loc
    return next((op.loc for op in reversed(ops) if op.loc is not None), None)


__all__ = ["build"]
