"""The order in which the regions of a block stand: each behind those it reads, memory kept low.

A region may hold ops from far apart (an activation and what its way back needs), so that where it
should stand does not follow from the program.  Two orders are made, by the first and by the last op
of each unit, and the one whose values need less memory at once is taken.  What replaces a state (an
optimizer's update) stands behind every reader of the old value, so that it can be done in place.
May import: ir, cost.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from ..ir.core import Block, Op, Value
from ..ir.ops.autodiff import Recompute
from ..ir.ops.core import Const, Func, Return
from ..ir.ops.shape import Reshape
from .cost import size_of
from .lifetimes import root

Makers = Callable[[Op, set[Op]], list[Op]]
Unit = tuple[list[Op], bool]
Needs = list[set[int]]


def order_units(block: Block, units: Sequence[Unit], makers: Makers) -> list[int]:
    """Units in an order that works; `makers(op, inside)` are the ops that must stand before an op
    of the unit `inside`.
    """
    owner = {op: k for k, (ops, _) in enumerate(units) for op in ops}
    needs = _needs(block, units, owner, makers)
    _settle_state(block, units, owner, needs)
    at = {op: k for k, op in enumerate(block)}
    lasts = _sorted(needs, [max([at[op] for op in ops]) for ops, _ in units])
    keys = _wanted(needs, lasts, [min([at[op] for op in ops]) for ops, _ in units])
    for unit in _feeding_updates(block, units, lasts):
        keys[unit] = -1
    firsts = _sorted(needs, keys)
    if firsts == lasts:
        return lasts
    memory = _Memory(block, units, owner)
    return firsts if memory.peak(firsts) < memory.peak(lasts) else lasts


def _needs(block: Block, units: Sequence[Unit], owner: dict[Op, int], makers: Makers) -> Needs:
    """The units that each unit reads, and for one with effects the last before it that had some."""
    sets = [set(ops) if fuse else set() for ops, fuse in units]
    needs: Needs = [set() for _ in units]
    effect = -1
    for op in block:
        if op.terminator:
            continue
        me = owner[op]
        needs[me] |= {owner[made] for made in makers(op, sets[me]) if made in owner} - {me}
        if not op.pure:
            if effect >= 0 and effect != me:
                needs[me].add(effect)
            effect = me
    return needs


def _settle_state(block: Block, units: Sequence[Unit], owner: dict[Op, int], needs: Needs) -> None:
    """Readers of a state stand before the unit that makes its next value, unless they need it."""
    func = block.parent
    if not isinstance(func, Func):
        return
    readers = _readers(block, units, owner)
    for param, result in func.state:
        made = root(func.returned[result]).op
        if made not in owner:
            continue
        me = owner[made]
        for reader in readers.get(func.args[param], set()) - {me} - needs[me]:
            if not _reaches(needs, reader, me):
                needs[me].add(reader)


def _readers(block: Block, units: Sequence[Unit], owner: dict[Op, int]) -> dict[Value, set[int]]:
    """The units that read each parameter, perhaps through ops that stand alone: views."""
    found: dict[Value, set[int]] = {}
    for arg in block.args:
        todo, seen = list(arg.users), set()
        while todo:
            op = todo.pop()
            while op.block is not block and op.parent_op is not None:
                op = op.parent_op
            if op in seen or op not in owner:
                continue
            seen.add(op)
            if not units[owner[op]][1] and op.pure:
                todo += [u for r in op.results for u in r.users]
        found[arg] = {owner[op] for op in seen}
    return found


def _feeding_updates(block: Block, units: Sequence[Unit], order: Sequence[int]) -> list[int]:
    """Units whose results are next values of state, or are read by such units alone: done at once
    they free what they read, and nothing waits in memory.
    """
    func = block.parent
    if not isinstance(func, Func) or not func.state:
        return []
    replacing = {r for _, r in func.state}
    inside: set[Op] = set()
    found: list[int] = []
    for unit in reversed(order):
        ops = units[unit][0]
        users = [(u, r) for op in ops for r in op.results for u in r.users if u not in ops]
        if users and all([u in inside or _replaces(u, r, replacing) for u, r in users]):
            found.append(unit)
            inside.update(ops)
    return found


def _replaces(user: Op, value: Value, results: set[int]) -> bool:
    """Is the value returned as next values of state alone?"""
    at = {k for k, v in enumerate(user.operands) if v is value}
    return isinstance(user, Return) and at <= results


def _reaches(needs: Needs, start: int, goal: int) -> bool:
    """Does a unit need another, perhaps through others?"""
    todo, seen = [start], {start}
    while todo:
        for other in needs[todo.pop()]:
            if other == goal:
                return True
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return False


def _wanted(needs: Needs, order: Sequence[int], keys: Sequence[int]) -> list[int]:
    """Keys that are no later than those of the units that need it; `order` is one that works."""
    found = list(keys)
    for unit in reversed(order):
        for source in needs[unit]:
            found[source] = min(found[source], found[unit])
    return found


def _sorted(needs: Needs, keys: Sequence[int]) -> list[int]:
    """All units, each behind those it needs; of those that are ready the least key first."""
    feeds: list[list[int]] = [[] for _ in needs]
    for k, wanted in enumerate(needs):
        for source in wanted:
            feeds[source].append(k)
    left = [len(wanted) for wanted in needs]
    ready = [(keys[k], k) for k, count in enumerate(left) if count == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        _, k = heapq.heappop(ready)
        order.append(k)
        for user in feeds[k]:
            left[user] -= 1
            if left[user] == 0:
                heapq.heappush(ready, (keys[user], user))
    assert len(order) == len(needs), "fusion made a cycle"
    return order


class _Memory:
    """What values need at once in a given order of units; views are the memory of what they view,
    and the next value of a state has its own.
    """

    def __init__(self, block: Block, units: Sequence[Unit], owner: dict[Op, int]) -> None:
        self.owner = owner
        self.spans: list[tuple[int, set[int], int]] = []
        """(unit that makes it, units that read it, bytes) of each value between units."""
        func = block.parent
        state = {r for _, r in func.state} if isinstance(func, Func) else set()
        returned = func.returned if isinstance(func, Func) else ()
        kept = {root(v) for k, v in enumerate(returned) if k in state}
        for op, unit in owner.items():
            if isinstance(op, (Const, Reshape, Recompute)):
                continue
            for value in op.results:
                readers = self._readers(value) - {unit}
                if readers and value not in kept:
                    self.spans.append((unit, readers, size_of(value)))

    def _readers(self, value: Value) -> set[int]:
        found: set[int] = set()
        for user in value.users:
            if isinstance(user, Return):
                found.add(-1)
            elif isinstance(user, Recompute) and value is not user.operands[0]:
                continue  # it only waits
            elif user in self.owner and not isinstance(user, (Reshape, Recompute)):
                found.add(self.owner[user])
            else:
                for result in user.results:
                    found |= self._readers(result)
        return found

    def peak(self, order: Sequence[int]) -> int:
        """Bytes of the values alive at the worst moment."""
        at = {unit: k for k, unit in enumerate(order)}
        at[-1] = len(order)
        change = [0] * (len(order) + 2)
        for unit, readers, size in self.spans:
            change[at[unit]] += size
            change[max([at[r] for r in readers]) + 1] -= size
        most = now = 0
        for delta in change:
            now += delta
            most = max(most, now)
        return most


__all__ = ["order_units"]
