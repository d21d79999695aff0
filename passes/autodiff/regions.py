"""A region taken apart for the reverse pass: its cotangent ops leave it, and what they read of its
values is said.

The forward ops stay where they are.  Of the values that the reverse ops read, those that cost next
to nothing (constants, views, widening casts; in a loop, what does not depend on the round) are made
again; the others are the residuals, which the forward op has to hand over.  May import: ir,
pullback's types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...ir.core import Block, Builder, Op, Value
from ...ir.rewrite import uses_outside
from ...ir.types import TensorType, element

Cotangent = Value | None
Pullback = Callable[
    [Builder, Sequence[Value], Sequence[Cotangent], Sequence[Value]], list[Cotangent]
]

REPEATED = frozenset({"const", "iota", "dim_value", "broadcast_to", "reshape", "transpose"})
"""Ops that the reverse region does again rather than keep their results."""


@dataclass
class Apart:
    """Reverse ops in a block whose arguments are the cotangents given.

    `found` are the cotangents asked for, `needs` the values of the region (results, arguments) that
    ops and `found` refer to.
    """

    block: Block
    found: list[Cotangent]
    needs: list[Value]

    def rewire(self, env: Mapping[Value, Value]) -> None:
        """Put other values in the place of those needed."""
        replace_reads(self.block, env)
        self.found = [env.get(v, v) if v is not None else None for v in self.found]


def taken_apart(
    region: Block,
    given: Sequence[bool],
    wrt: Sequence[Value],
    pullback: Pullback,
    invariant: bool = False,
) -> Apart:
    """Differentiate what a region yields by `wrt` (arguments and outer values).

    `given` says which yielded values have a cotangent.  With `invariant` ops that read no argument
    of the region are repeated, too.
    """
    last = region.last
    assert last is not None
    block = Block([v.type for v, has in zip(last.operands, given, strict=True) if has])
    args = iter(block.args)
    cotangents = [next(args) if has else None for has in given]
    found = pullback(Builder(region, loc=last.loc), last.operands, cotangents, wrt)
    reverse: list[Op] = []
    while region.last is not last:
        op = region.last
        assert op is not None
        if op.pure and not any([r.users for r in op.results]) and not set(op.results) & set(found):
            op.erase()
        else:
            region.remove(op)
            reverse.append(op)
    for op in reversed(reverse):
        block.append(op)
    apart = Apart(block, found, [])
    _repeat(apart, region, _invariants(region) if invariant else set())
    return apart


def _invariants(region: Block) -> set[Op]:
    """The ops that depend on nothing the region makes or takes, save one another."""
    moving: set[Value] = set(region.args)
    found: set[Op] = set()
    for op in region:
        if op.terminator or not op.pure or op.regions or moving.intersection(op.operands):
            moving.update(op.results)
        else:
            found.add(op)
    return found


def _repeat(apart: Apart, region: Block, invariant: set[Op]) -> None:
    """Copy what is cheap to the head of the reverse ops; note the rest as needed."""
    env: dict[Value, Value] = {}
    needs: dict[Value, None] = {}
    first = apart.block.first

    def local(value: Value) -> None:
        op = value.op
        if value in env or value in needs or not _of(value, region):
            return
        if op is None or not (op in invariant or _cheap(op)):
            needs[value] = None
            return
        for operand in op.operands:
            local(operand)
        apart.block.insert_before(op.copy(env), first)

    for value in [*uses_outside(apart.block), *[v for v in apart.found if v is not None]]:
        local(value)
    apart.rewire(env)
    apart.needs = list(needs)


def _of(value: Value, region: Block) -> bool:
    """A result of one of the region's ops, or an argument of it."""
    return value.owner is region or (isinstance(value.owner, Op) and value.owner.block is region)


def _cheap(op: Op) -> bool:
    """A constant, a view, or a cast that makes a value larger."""
    if op.name == "cast":
        return element(op.operands[0].type).bits < element(op.results[0].type).bits
    return op.name in REPEATED


def replace_reads(block: Block, env: Mapping[Value, Value]) -> None:
    """Make the ops of a block, nested ones included, read other values."""
    for op in block.walk():
        if any([v in env for v in op.operands]):
            op.set_operands([env.get(v, v) for v in op.operands])


def grow(op: Op, types: Iterable[TensorType]) -> list[Value]:
    """Give an op further results, in place: those that it has stay the values they are."""
    at = len(op.results)
    made = [Value(t, op, at + k) for k, t in enumerate(types)]
    op.results = (*op.results, *made)
    return made


__all__ = ["Apart", "Cotangent", "Pullback", "grow", "replace_reads", "taken_apart"]
