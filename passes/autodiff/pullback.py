"""Reverse-mode differentiation of straight tensor code: the ops' own `vjp`, driven backwards.

The pass works on unfused tensor IR in one block.  It owns what no op repeats: which values are
active, the sum of several cotangents (in a wider type where theirs is narrow), the sum over axes
that an operand was broadcast along, and casts.  Reverse ops are ordinary ops behind the forward
ones, so that differentiating again gives the next order.

`None` is the zero cotangent throughout.  May import: ir, passes.hoist, its siblings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...ir.core import Block, Builder, Op, Value
from ...ir.dims import equal
from ...ir.errors import Error
from ...ir.ops.contract import as_type
from ...ir.ops.elementwise import widened
from ...ir.types import TensorType, element
from ..hoist import LOOPS, hoist_from
from .activity import differentiable, moved_by, needed_for
from .control import CONTROL
from .loops import AS_SCAN
from .regions import Cotangent, Pullback


class Tape:
    """The cotangents gathered so far, by value."""

    def __init__(self, b: Builder) -> None:
        self.b = b
        self.parts: dict[Value, list[Value]] = {}

    def add(self, value: Value, cotangent: Cotangent) -> None:
        """One more contribution, fitted to the shape and element type of `value`."""
        if cotangent is not None:
            self.parts.setdefault(value, []).append(fitted(self.b, cotangent, value.tensor))

    def total(self, value: Value) -> Cotangent:
        """The sum of the contributions; it replaces them."""
        parts = self.parts.get(value)
        if not parts:
            return None
        if len(parts) > 1:
            self.parts[value] = [total(self.b, parts)]
        return self.parts[value][0]


def pullback(
    b: Builder, outputs: Sequence[Value], cotangents: Sequence[Cotangent], wrt: Sequence[Value]
) -> list[Cotangent]:
    """The cotangents of `wrt` for those of `outputs`, as ops that `b` puts behind the forward ones.

    Differentiates the ops of `b.block` that lie between; composites without a rule are decomposed
    where they stand, so that a caller who holds a composite's result asks its users for the new
    one.  Errors: E0601 an op on the way has no gradient rule at all.
    """
    tape = Tape(b)
    active, moved, renamed = expanded(b.block, outputs, wrt)
    wrt = [renamed.get(v, v) for v in wrt]
    for value, cotangent in zip(outputs, cotangents, strict=True):
        tape.add(renamed.get(value, value), cotangent)
    outer_loc = b.loc
    for op in reversed(active):
        gs = [tape.total(r) for r in op.results]
        if not any(g is not None for g in gs):
            continue
        b.loc = op.loc
        for value, cotangent in contributions(b, op, gs, moved):
            if value in moved:
                tape.add(value, cotangent)
    b.loc = outer_loc
    return [tape.total(v) for v in wrt]


def contributions(
    b: Builder, op: Op, gs: Sequence[Cotangent], moved: set[Value]
) -> Iterable[tuple[Value, Cotangent]]:
    """What one op passes on: pairs of a value that it reads and a cotangent for it.

    `moved` are the values that depend on what is differentiated by.
    """
    rule = CONTROL.get(type(op))
    if rule is not None:
        return rule(b, op, gs, moved, pullback)
    found: Sequence[Cotangent] = op.vjp(b, *gs)  # type: ignore[attr-defined]
    pairs = zip(op.operands, found, strict=True)
    return [(v, g) for v, g in pairs if v is not None and differentiable(v)]


def expanded(
    block: Block, outputs: Sequence[Value], wrt: Sequence[Value]
) -> tuple[list[Op], set[Value], dict[Value, Value]]:
    """The active ops of a block in order, each with a rule, composites decomposed for it; and the
    values that depend on `wrt`.

    What does not change leaves active loops.  The last part says what became of the results of
    those decomposed.
    """
    renamed: dict[Value, Value] = {}
    while True:
        now = [[renamed.get(v, v) for v in values] for values in (outputs, wrt)]
        ops, moved = moved_by(block, now[1])
        active = needed_for(ops, now[0], moved)[0]
        if sum([hoist_from(r, op) for op in active if op.name in LOOPS for r in op.regions]):
            continue
        composites = [op for op in active if not has_rule(op)]
        if not composites:
            return active, moved, renamed
        for op in composites:
            made = _decomposed(op)
            for old, new in renamed.items():
                renamed[old] = made.get(new, new)
            renamed.update(made)


def _decomposed(op: Op) -> dict[Value, Value]:
    """Put the decomposition of an op in its place; what its results are called then."""
    parts: Any = AS_SCAN.get(type(op)) or getattr(type(op), "decompose", None)
    if parts is None:
        raise Error(
            "E0601",
            f"{op.name} has no gradient rule",
            where=op.place(),
            hint="wrap it in stop_gradient, or give the op's class a vjp",
        )
    assert op.block is not None
    found = parts(op, Builder(op.block, op, op.loc))
    new: list[Value] = list(found) if isinstance(found, (tuple, list)) else [found]
    renamed = dict(zip(op.results, new, strict=True))
    for old, value in renamed.items():
        value.name = value.name or old.name
    op.replace_by(new)
    return renamed


def has_rule(op: Op) -> bool:
    """Whether the op's class, or the table of control flow, says how to go back."""
    return hasattr(type(op), "vjp") or type(op) in CONTROL


def total(b: Builder, parts: Sequence[Value]) -> Value:
    """The sum of cotangents; those narrower than f32 are added in f32 and rounded once."""
    dtype = element(parts[0].type)
    found, *others = widened(b, *parts)
    for part in others:
        found = b.add(found, part)
    return as_type(b, found, dtype)


def fitted(b: Builder, cotangent: Value, type: TensorType) -> Value:
    """The cotangent summed over the axes that `type` was broadcast along, and cast."""
    given = cotangent.tensor
    if given is type:
        return cotangent
    if given.shape != type.shape:
        cotangent = unbroadcast(b, cotangent, type)
    return as_type(b, cotangent, type.dtype)


def unbroadcast(b: Builder, cotangent: Value, type: TensorType) -> Value:
    """The sum over broadcast axes (or the broadcast of a smaller cotangent), in the shape of
    `type`.
    """
    given = cotangent.tensor.shape
    if len(given) < len(type.shape) or any(
        _is_one(g) and not _is_one(e) for g, e in zip(given[::-1], type.shape[::-1])
    ):
        cotangent = b.broadcast_to(cotangent, shape=_joined(given, type.shape))
        given = cotangent.tensor.shape
    extra = len(given) - len(type.shape)
    axes = list(range(extra))
    axes += [
        extra + k
        for k, (g, e) in enumerate(zip(given[extra:], type.shape))
        if _is_one(e) and equal(g, e) is not True
    ]
    if axes:
        cotangent = b.reduce_sum(cotangent, axes=tuple(axes), keepdims=True)
    if cotangent.tensor.shape != type.shape:
        cotangent = b.reshape(cotangent, shape=type.shape)
    return cotangent


def _is_one(extent: Any) -> bool:
    return isinstance(extent, int) and extent == 1


def _joined(given: Sequence[Any], want: Sequence[Any]) -> tuple[Any, ...]:
    """`given`, with leading axes and extents of one grown to those of `want`."""
    rank = max(len(given), len(want))
    padded = [1] * (rank - len(given)) + list(given)
    wanted = [1] * (rank - len(want)) + list(want)
    return tuple([w if _is_one(g) else g for g, w in zip(padded, wanted)])


__all__ = [
    "Cotangent", "Pullback", "Tape", "contributions", "expanded", "fitted", "has_rule", "pullback",
    "total", "unbroadcast",
]  # fmt: skip
