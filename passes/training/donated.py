"""Donated values: a state argument lies in the memory that its next value is written to.

So nothing may read the argument once the next value is made; else the plan has to make a copy,
which a train step does not want.  `OrderUpdates` puts every update behind the last reader of what
it replaces; what no order can help is refused.  May import: ir, passes.options, passes.lifetimes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from ...ir.core import Op, Value
from ...ir.errors import Error
from ...ir.interpret import input_names
from ...ir.ops.core import Func, Module
from ...ir.rewrite import uses_outside
from ..lifetimes import is_view, root
from ..options import Pass


def updates(func: Func) -> Iterator[tuple[int, Op]]:
    """The state arguments of a function by number, each with the op that makes its next value;
    none for a state that does not change or becomes another argument.
    """
    for k, result in func.state:
        made = root(func.returned[result]).op
        if made is not None:
            yield k, made


def readers(func: Func, value: Value) -> set[Op]:
    """The ops of the function's own block that read a value, in regions and through views too; the
    `return` not.
    """
    found: set[Op] = set()
    todo = [value]
    while todo:
        for user in todo.pop().users:
            if is_view(user):
                todo.append(user.results[0])
            op = user
            while op.block is not func.body:
                assert op.parent_op is not None
                op = op.parent_op
            if not op.terminator:
                found.add(op)
    return found


def verify_donated(func: Func) -> None:
    """Raise E0603 where an op reads a state argument behind the op that makes its next value."""
    at = {op: k for k, op in enumerate(func.body)}
    for k, update in updates(func):
        late = [op for op in readers(func, func.args[k]) if at[op] > at[update]]
        if late:
            raise _refusal(func, k, min(late, key=at.__getitem__), update)


def order_updates(func: Func) -> None:
    """Reorder the ops such that `verify_donated` holds, in place; else as they were.

    Errors: E0603 an op reads a state argument and needs its next value, too.
    """
    ops = [op for op in func.body if not op.terminator]
    at = {op: k for k, op in enumerate(ops)}
    needs = [_makers(op, at) for op in ops]
    for k, update in updates(func):
        needs[at[update]] |= {at[op] for op in readers(func, func.args[k])} - {at[update]}
    order = _sorted(needs)
    if len(order) < len(ops):
        raise _cycle(func, at, needs)
    end = func.body.last
    for k in order:
        func.body.remove(ops[k])
        func.body.insert_before(ops[k], end)


def _makers(op: Op, at: dict[Op, int]) -> set[int]:
    """The positions of the ops whose results an op reads."""
    values = [v for v in op.operands if v is not None]
    values += [v for region in op.regions for v in uses_outside(region)]
    return {at[v.op] for v in values if v.op in at}


def _sorted(needs: list[set[int]]) -> list[int]:
    """Positions, each behind those it needs, the earliest first; what is in a cycle is left out."""
    feeds: list[list[int]] = [[] for _ in needs]
    for k, wanted in enumerate(needs):
        for source in wanted:
            feeds[source].append(k)
    left = [len(wanted) for wanted in needs]
    ready = [k for k, count in enumerate(left) if count == 0]
    order: list[int] = []
    while ready:
        k = heapq.heappop(ready)
        order.append(k)
        for user in feeds[k]:
            left[user] -= 1
            if left[user] == 0:
                heapq.heappush(ready, user)
    return order


def _cycle(func: Func, at: dict[Op, int], needs: list[set[int]]) -> Error:
    """The error for a reader that comes behind the update of what it reads, whatever the order."""
    for k, update in updates(func):
        for op in sorted(readers(func, func.args[k]) - {update}, key=at.__getitem__):
            if _reaches(at[op], at[update], needs):
                return _refusal(func, k, op, update)
    raise AssertionError("states that need each other, but no reader that does")


def _reaches(start: int, goal: int, needs: list[set[int]]) -> bool:
    """Whether an op needs another, by way of ops that read what others make or replace."""
    seen, todo = {start}, [start]
    while todo:
        more = needs[todo.pop()] - seen
        if goal in more:
            return True
        seen |= more
        todo.extend(more)
    return False


def _refusal(func: Func, argument: int, reader: Op, update: Op) -> Error:
    name = input_names(func)[argument]
    return Error(
        "E0603",
        f"the state '{name}' of @{func.sym} is read after its update",
        where=reader.place(),
        details=(f"updated by {update.place()}", "its next value is written in its place"),
        hint="read it before the update, or use the next value",
    )


@dataclass(frozen=True)
class OrderUpdates(Pass):
    """Put the updates of states behind the last readers of what they replace."""

    def run(self, module: Module) -> Module:
        for func in module.funcs:
            if func.kind == "func" and func.state:
                order_updates(func)
        return module


__all__ = ["OrderUpdates", "order_updates", "readers", "updates", "verify_donated"]
