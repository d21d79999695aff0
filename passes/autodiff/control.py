"""How structured control flow is differentiated: one rule per region op.

A rule `rule(b, op, gs, moved, pullback)` gives (value, cotangent) pairs for what the op reads, what
its regions take from outside included; `moved` are the values that depend on what is differentiated
by.  May import: ir, its siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...ir.core import Builder, Op, Value
from ...ir.ops.autodiff import CustomGradient, Remat
from ...ir.ops.control import If, Scan, inlined
from ...ir.ops.core import Const, Yield, zeros
from ...ir.ops.shape import BroadcastTo, Reshape
from ...ir.rewrite import uses_outside
from ...ir.types import TensorType
from .activity import differentiable, reads
from .loops import reverse_scan
from .regions import Apart, Cotangent, Pullback, grow, taken_apart

Pairs = Iterable[tuple[Value, Cotangent]]
Rule = Callable[[Builder, Any, Sequence[Cotangent], set[Value], Pullback], Pairs]


def reverse_if(
    b: Builder, op: If, gs: Sequence[Cotangent], moved: set[Value], pullback: Pullback
) -> Pairs:
    """The cotangent ops of the branch that was taken; outer values get zeros where it does not read
    them.  What they need of the branch's values are further results of the forward op.
    """
    captured = dict.fromkeys([v for region in op.regions for v in uses_outside(region)])
    wrt = [v for v in captured if v in moved]
    given = [g is not None for g in gs]
    parts = [taken_apart(region, given, wrt, pullback) for region in op.regions]
    hand_over(op, parts)
    outer = [g for g in gs if g is not None]
    for part in parts:
        part.rewire(dict(zip(part.block.args, outer, strict=True)))
        part.block.args = ()
    reached = [k for k in range(len(wrt)) if any([p.found[k] is not None for p in parts])]
    if not reached:
        return []
    for part in parts:
        inner = Builder(part.block, loc=op.loc)
        found = [part.found[k] for k in reached]
        inner.emit(
            Yield,
            *[zeros(inner, wrt[k].tensor) if g is None else g for k, g in zip(reached, found)],
        )
    made = b.insert(If(op.condition, regions=[p.block for p in parts], loc=op.loc))
    return [(wrt[k], r) for k, r in zip(reached, made.results, strict=True)]


def hand_over(op: If, parts: Sequence[Apart]) -> None:
    """Make what the reverse branches need results of the forward op, unless it is one; those of one
    type share results, and the branch that has none gives zeros.
    """
    slots: list[list[Value | None]] = []
    for side, (region, part) in enumerate(zip(op.regions, parts, strict=True)):
        assert region.last is not None
        part.rewire(dict(zip(region.last.operands, op.results, strict=True)))
        there = set(region.last.operands)
        for value in [v for v in part.needs if v not in there]:
            free = [s for s in slots if s[side] is None and _type(s) is value.type]
            if not free:
                slots.append([None, None])
            (free or slots[-1:])[0][side] = value
    made = grow(op, [_type(slot) for slot in slots])
    for side, (region, part) in enumerate(zip(op.regions, parts, strict=True)):
        last = region.last
        assert last is not None
        inner = Builder(region, last, op.loc)
        values = [s[side] or zeros(inner, r.tensor) for s, r in zip(slots, made, strict=True)]
        last.set_operands([*last.operands, *values])
        part.rewire({v: r for s, r in zip(slots, made) if (v := s[side]) is not None})


def _type(slot: Sequence[Value | None]) -> TensorType:
    """The type of what shares a result."""
    return next(v.tensor for v in slot if v is not None)


def reverse_custom(
    b: Builder, op: CustomGradient, gs: Sequence[Cotangent], moved: set[Value], pullback: Pullback
) -> Pairs:
    """What the op's own backward region yields."""
    given = [
        zeros(b, r.tensor) if g is None else g for r, g in zip(op.results, gs, strict=True)
    ]
    found = inlined(b, op.backward, [*op.operands, *op.results, *given])
    pairs = zip(op.operands, found, strict=True)
    return [(v, g) for v, g in pairs if v in moved and differentiable(v) and not is_zero(g)]


def is_zero(value: Value) -> bool:
    """Whether a value is the constant zero, or that repeated: no path, not a cotangent."""
    op = value.op
    while isinstance(op, (BroadcastTo, Reshape)):
        op = op.x.op
    return isinstance(op, Const) and not op.value.array.any()


def reverse_remat(
    b: Builder, op: Remat, gs: Sequence[Cotangent], moved: set[Value], pullback: Pullback
) -> Pairs:
    """The region's ops once more, from inputs that are there only when a cotangent is, and back
    through these.
    """
    after = [g for g in gs if g is not None]
    again = {v: b.recompute(v, *after) for v in reads(op) if not isinstance(v.op, Const)}
    env: dict[Value, Value] = dict(again)
    args = [env.get(v, v) for v in op.operands]
    outputs = inlined(b, op.body, args, env)
    wrt = [v for v in again if v in moved]
    found = pullback(b, outputs, gs, [again[v] for v in wrt])
    return list(zip(wrt, found, strict=True))


CONTROL: dict[type[Op], Rule] = {
    If: reverse_if,
    Scan: reverse_scan,
    Remat: reverse_remat,
    CustomGradient: reverse_custom,
}

__all__ = ["CONTROL", "Pairs", "Rule"]
