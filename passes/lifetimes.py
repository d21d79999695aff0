"""When each value of a structured program is made and last needed, on one line of time.

Every op has a start; an op with regions also has a stop after everything inside it.  A value from
outside that is used in a loop is needed until the loop stops, for the next iteration reads it
again.  Reshapes are views: a value is needed as long as its views.  May import: ir.
"""

from __future__ import annotations

from ..ir.core import Block, Op, Value
from ..ir.ops.core import Func, Return

LOOPS = ("for", "while", "scan")
"""Tensor-level ops whose regions run more than once."""


class Lifetimes:
    """`start` and `stop` of each op, `end` of the function; see `born` and `dies`."""

    def __init__(self, func: Func) -> None:
        self.start: dict[Op, int] = {}
        self.stop: dict[Op, int] = {}
        self.end = self._number(func.body, 1)
        self._dies: dict[Value, int] = {}

    def _number(self, block: Block, now: int) -> int:
        for op in block:
            self.start[op] = now
            now += 1
            for inner in op.regions:
                now = self._number(inner, now)
            self.stop[op] = now if op.regions else now - 1
            now += bool(op.regions)
        return now

    def born(self, value: Value) -> int:
        """When the value is made: its op's stop, or the start of the op whose block it enters."""
        if isinstance(value.owner, Block):
            parent = value.owner.parent
            return 0 if parent is None or isinstance(parent, Func) else self.start[parent]
        return self.stop[value.owner]

    def dies(self, value: Value) -> int:
        """When the value, or a view of it, is last needed; its birth where nobody uses it."""
        known = self._dies.get(value)
        if known is None:
            known = self.born(value)
            for user in value.users:
                known = max(known, self._needed(user, value))
            self._dies[value] = known
        return known

    def _needed(self, user: Op, value: Value) -> int:
        """When this use is over."""
        if isinstance(user, Return):
            return self.end
        over = self.start[user]
        if is_view(user):
            over = max(over, self.dies(user.results[0]))
        if user.name == "scan" and value in user.operands[user.carried :]:  # type: ignore[attr-defined]
            over = self.stop[user]  # slices are read in every iteration
        home = value.owner if isinstance(value.owner, Block) else value.owner.block
        op: Op | None = user
        while op is not None and op.block is not home:
            op = op.parent_op
            if op is not None and op.name in LOOPS:
                over = max(over, self.stop[op])
        return over


def is_view(op: Op) -> bool:
    """Whether the result is the operand's memory under another shape."""
    return op.name == "reshape"


def root(value: Value) -> Value:
    """The value whose memory this one views."""
    while isinstance(value.owner, Op) and is_view(value.owner):
        value = value.owner.operands[0]
    return value


__all__ = ["LOOPS", "Lifetimes", "is_view", "root"]
