"""Looking at a kernel: find loops and buffers by name, containment, and what may be reordered.

May import: ir.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...ir.core import Block, Op, Value
from ...ir.dims import DimLike, bounds, coefficient, symbols_of
from ...ir.errors import Error
from ...ir.ops.core import Func
from ...ir.ops.instr import instr
from ...ir.ops.loop import (
    Alloc,
    AsyncCopy,
    Call,
    CallInstr,
    For,
    HostCall,
    If,
    Load,
    Pop,
    Push,
    Store,
)
from ...ir.symbols import loop_range, loops_around, ranges_around


class Refused(Error):
    """A schedule step that would change the meaning, or cannot be applied; says why."""

    def __init__(self, reason: str) -> None:
        super().__init__("E0410", reason)


def find_loop(kernel: Op, var: str) -> For:
    """The loop called `var`."""
    for op in kernel.walk():
        if isinstance(op, For) and op.var == var:
            return op
    raise Refused(f"there is no loop {var}")


def find_alloc(kernel: Op, label: str) -> Alloc:
    """The alloc called `label`."""
    for op in kernel.walk():
        if isinstance(op, Alloc) and op.label == label:
            return op
    raise Refused(f"there is no buffer {label}")


def find_buffer(kernel: Func, name: str) -> Value:
    """A kernel argument or an alloc, by name."""
    for arg in kernel.args:
        if arg.name == name:
            return arg
    return find_alloc(kernel, name).result


def contains(outer: Op, inner: Op) -> bool:
    """Is `inner` nested in (or equal to) `outer`?"""
    op: Op | None = inner
    while op is not None:
        if op is outer:
            return True
        op = op.parent_op
    return False


def child_of(op: Op, block: Block) -> Op:
    """The op of `block` that is or holds `op`."""
    while op.block is not block:
        parent = op.parent_op
        if parent is None:
            raise Refused("the producer does not stand beside its alloc")
        op = parent
    return op


def perfect_chain(loop: For) -> list[For]:
    """The loops from `loop` inwards while each holds nothing but the next."""
    chain = [loop]
    while chain[-1].body.size == 1 and isinstance(chain[-1].body.first, For):
        chain.append(chain[-1].body.first)
    return chain


def accesses(op: Op) -> Iterator[Load | Store]:
    """Every load and store under an op."""
    for inner in op.walk():
        if isinstance(inner, (Load, Store)):
            yield inner


_WIDE = (AsyncCopy, Call, CallInstr, HostCall, Pop, Push)
"""Ops that touch more of their buffers than one element."""


def reads_writes(op: Op) -> tuple[set[Value], set[Value]]:
    """The buffers that everything under an op reads, and those that it writes."""
    reads: set[Value] = set()
    writes: set[Value] = set()
    for inner in op.walk():
        if isinstance(inner, Load):
            reads.add(inner.source)
        elif isinstance(inner, Store):
            writes.add(inner.target)
        elif isinstance(inner, _WIDE):
            given, changed = _windows(inner)
            reads |= given
            writes |= changed
    return reads, writes


def _windows(op: Op) -> tuple[set[Value], set[Value]]:
    """What one op of `_WIDE` reads and writes."""
    if isinstance(op, AsyncCopy):
        return {op.source}, {op.target}
    if isinstance(op, CallInstr):
        body = instr(op.instr).body
        sides = reads_writes(body)
        given, changed = [
            {v for v, arg in zip(op.args, body.args, strict=True) if arg in side} for side in sides
        ]
        return given, changed
    whole = {op.stream} if isinstance(op, (Push, Pop)) else set(op.operands)
    return whole, whole


def is_parallel(loop: For) -> bool:
    """Do different iterations touch different elements of everything that the loop writes?

    Of what instructions, copies and calls touch, no window is compared: that must not be written.
    """
    if loop.extent == 1:
        return True
    inside = {op.result for op in loop.walk() if isinstance(op, Alloc)}
    written = reads_writes(loop)[1] - inside
    opaque = [_windows(op) for op in loop.walk() if isinstance(op, _WIDE)]
    if any([written & (given | changed) for given, changed in opaque]):
        return False
    return all([separates(loop, buffer) for buffer in written])


def separates(loop: For, buffer: Value) -> bool:
    """Some dimension of all accesses is `c*var + rest` with the rest narrower than c."""
    touching = [op for op in accesses(loop) if op.operands[-1] is buffer]
    return any([_dimension_separates(loop, touching, d) for d in range(buffer.buffer.rank)])


def _dimension_separates(loop: For, touching: list[Load | Store], d: int) -> bool:
    lows: set[DimLike] = set()
    step: int | None = None
    width = 0
    for op in touching:
        parts = coefficient(op.index[d], loop.var)
        if (
            parts is None
            or not isinstance(parts[0], int)
            or parts[0] == 0
            or step not in (None, parts[0])
        ):
            return False
        step = parts[0]
        inner = {
            l.var: loop_range(l) for l in loops_around(op) if l is not loop and contains(loop, l)
        }
        local = {n: r for n, r in inner.items() if n in symbols_of(parts[1])}
        rest = parts[1]
        for name in local:
            split = coefficient(rest, name)
            if split is None:
                return False
            rest = split[1]
        lows.add(rest)
        spread = parts[1] - rest
        low, high = (0, 0) if spread == 0 else bounds(spread, ranges_around(op))
        if low is None or high is None or low < 0:
            return False
        width = max(width, high)
    return len(lows) == 1 and step is not None and width < abs(step)


def may_move(loop: For) -> bool:
    """May the iterations of this loop run in another order?  Declared reductions and parallel loops
    may.
    """
    return bool(loop.reduction) or is_parallel(loop)


def move_body(source: Block, target: Block) -> None:
    """Move every op of one block to the end of another."""
    for op in list(source):
        source.remove(op)
        target.append(op)


def top_nests(kernel: Func) -> list[Op]:
    """The loops and guarded regions at the kernel's top level, in order."""
    return [op for op in kernel.body if isinstance(op, (For, If))]


__all__ = [
    "Refused",
    "accesses",
    "child_of",
    "contains",
    "find_alloc",
    "find_buffer",
    "find_loop",
    "is_parallel",
    "may_move",
    "move_body",
    "perfect_chain",
    "reads_writes",
    "separates",
    "top_nests",
]
