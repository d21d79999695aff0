"""Which values a derivative touches: those that depend on what is differentiated by, and of these
those that what is differentiated depends on.

May import: ir.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...ir.core import Block, Op, Value
from ...ir.rewrite import uses_outside
from ...ir.types import TensorType


def active_ops(block: Block, outputs: Sequence[Value], wrt: Sequence[Value]) -> list[Op]:
    """The ops of `block` on a differentiable way from `wrt` to `outputs`, in order."""
    ops, moved = moved_by(block, wrt)
    return needed_for(ops, outputs, moved)[0]


def moved_by(block: Block, wrt: Iterable[Value]) -> tuple[list[Op], set[Value]]:
    """The ops of `block` that depend on `wrt` by floats, and the values that do."""
    moved = {v for v in wrt if differentiable(v)}
    found: list[Op] = []
    for op in block:
        if op.terminator or op.no_gradient:
            continue
        if any([v in moved for v in reads(op)]):
            moved.update([r for r in op.results if differentiable(r)])
            found.append(op)
    return found, moved


def needed_for(
    ops: Sequence[Op], outputs: Iterable[Value], moved: set[Value]
) -> tuple[list[Op], set[Value]]:
    """Those of `ops` on which `outputs` depend through `moved` values; and such values."""
    needed = {v for v in outputs if v in moved}
    found: list[Op] = []
    for op in reversed(ops):
        if any([r in needed for r in op.results]):
            found.append(op)
            needed.update([v for v in reads(op) if v in moved])
    return found[::-1], needed


def reads(op: Op) -> list[Value]:
    """The values that an op reads, each once: operands, and what its regions take from outside."""
    found = dict.fromkeys([v for v in op.operands if v is not None])
    for region in op.regions:
        found.update(dict.fromkeys(uses_outside(region)))
    return list(found)


def differentiable(value: Value) -> bool:
    """Floats carry cotangents; integers, indices and predicates do not."""
    return isinstance(value.type, TensorType) and value.type.dtype.is_float


__all__ = ["active_ops", "differentiable", "moved_by", "needed_for", "reads"]
