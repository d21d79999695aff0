"""Several results of one computation: nests over the same elements become one nest.

A contraction whose sum two results need (its value, kept for the way back, and an activation of
it) has two consumers; as one nest they read the sum where it is, in registers.  What one result
stores and the other reads is handed on as a value.  May import: ir, the steps beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...ir.core import Block, Op, Value
from ...ir.dims import DimLike
from ...ir.ops.core import Func
from ...ir.ops.loop import Alloc, For, Load, Store
from .nests import accesses, perfect_chain, reads_writes
from .scheduler import Scheduler
from .steps import Fuse, Step

Place = tuple[Value, tuple[DimLike, ...]]


@dataclass(frozen=True)
class Forward(Step):
    """Where a block stores an element and reads it again, the value itself is used; buffers that
    nothing reads any more go.
    """

    def apply(self, kernel: Func) -> None:
        for block in list(_blocks(kernel)):
            _forward(block)
        for alloc in [op for op in kernel.walk() if isinstance(op, Alloc)]:
            users = alloc.result.users
            if all([isinstance(u, Store) and u.value is not alloc.result for u in users]):
                for user in users:
                    _erase(user)
                alloc.erase()


def _blocks(op: Op) -> Iterator[Block]:
    for inner in op.walk():
        yield from inner.regions


def _forward(block: Block) -> None:
    """One pass over a block; what an op with regions, or an access under a guard, writes is not
    known after it.
    """
    known: dict[Place, Value] = {}
    for op in list(block):
        if isinstance(op, Load):
            place = (op.source, op.index)
            value = known.get(place) if _plain(op) else None
            if value is not None:
                op.replace_by((value,))
            elif _plain(op):
                known[place] = op.result
        elif isinstance(op, Store):
            _forget(known, {op.target})
            if _plain(op) and op.value.type is op.target.buffer.dtype:
                known[op.target, op.index] = op.value
        elif op.regions:
            _forget(known, reads_writes(op)[1])
        elif not op.pure:
            known.clear()


def _plain(op: Load | Store) -> bool:
    return not op.where and not op.lane


def _forget(known: dict[Place, Value], written: set[Value]) -> None:
    for place in [p for p in known if p[0] in written]:
        del known[place]


def _erase(op: Op) -> None:
    """An op, what it alone needed, and the loops that are empty then."""
    parent, needs = op.parent_op, [v.op for v in op.operands]
    op.erase()
    for made in needs:
        if made is not None and made.block is not None and (made.pure or isinstance(made, Load)):
            if not isinstance(made, Alloc) and not any([r.users for r in made.results]):
                _erase(made)
    if isinstance(parent, For) and parent.block is not None and not parent.body.size:
        parent.erase()


def join_results(s: Scheduler) -> None:
    """Join every pointwise nest at the top with a later one over the same elements that touches
    some of what it touches.
    """
    joined = False
    again = True
    while again:
        again = False
        for first, second in _pairs(s.kernel):
            if _join(s, first, second):
                joined = again = True
                break
    if joined or any([isinstance(op, Load) for op in s.kernel.body]):
        s.do(Forward())


def _pairs(kernel: Func) -> list[tuple[For, For]]:
    nests = [op for op in kernel.body if isinstance(op, For) and _pointwise(op)]
    return [
        (a, b)
        for k, a in enumerate(nests)
        for b in nests[k + 1 :]
        if _extents(a) == _extents(b) and _buffers(a) & _buffers(b)
    ]


def _pointwise(nest: For) -> bool:
    """A perfect nest without reductions whose body is straight, and that sets more than numbers."""
    chain = perfect_chain(nest)
    straight = not any([op.regions for op in chain[-1].body])
    return straight and not any([l.reduction for l in chain]) and any(
        [isinstance(op, Load) for op in chain[-1].body]
    )  # fmt: skip


def _extents(nest: For) -> list[tuple[DimLike, DimLike]]:
    return [(loop.lo, loop.extent) for loop in perfect_chain(nest)]


def _buffers(nest: For) -> set[Value]:
    return {op.operands[-1] for op in accesses(nest)}


def _join(s: Scheduler, first: For, second: For) -> bool:
    """Loop by loop, outermost first; all or nothing."""
    names = [(a.var, b.var) for a, b in zip(perfect_chain(first), perfect_chain(second))]
    before, count = s.kernel.copy({}), len(s.steps)
    for a, b in names:
        if not s.attempt(Fuse(a, b)):
            if len(s.steps) > count:
                s.kernel = before
                del s.steps[count:]
            return False
    return True


__all__ = ["Forward", "join_results"]
