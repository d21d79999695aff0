"""Schedule steps for machines with many threads: Bind to a GPU's, Pipeline asynchronous copies.

May import: ir, the steps and nests beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...ir.core import Block, Op, Value
from ...ir.dims import DimLike, sym
from ...ir.ops.core import Func
from ...ir.ops.loop import (
    Alloc,
    AsyncCopy,
    Barrier,
    CallInstr,
    Commit,
    For,
    If,
    Load,
    Store,
    Wait,
    While,
    accessed,
)
from ...ir.symbols import free_symbols, loops_around, map_dims_in
from ...ir.types import BufferType
from .nests import Refused, contains, find_loop, reads_writes, separates
from .simplify import simplify_nest, simplify_under
from .steps import Mark, Step, rename_nest

_THREADS = ("gpu.warp", "gpu.lane", "gpu.thread")
_INSIDE = {
    "gpu.block": ("gpu.block",),
    "gpu.warp": ("gpu.block",),
    "gpu.lane": ("gpu.warp",),
    "gpu.thread": ("gpu.block", "gpu.thread"),
}
"""What the next gpu loop around one of each kind must be (a grid's outermost has none)."""


@dataclass(frozen=True)
class Bind(Step):
    """Run a parallel loop on the blocks, warps, lanes or threads of a GPU: `kind` of loop.KINDS.

    A barrier goes where, inside a block, other threads than those that wrote a buffer read it, or
    overwrite what others still read; also from one iteration of a serial loop to the next.
    """

    loop: str
    kind: str

    def apply(self, kernel: Func) -> None:
        loop = Mark(self.loop, self.kind).check(kernel)
        _check_nesting(loop, self.kind)
        old = loop.kind
        loop.set_attr("kind", self.kind)
        try:
            places = list(_barriers(loop)) if self.kind in _THREADS else []
        except Refused:
            loop.set_attr("kind", old)
            raise
        for block, before in places:
            block.insert_before(Barrier(loc=loop.loc), before)


def _check_nesting(loop: For, kind: str) -> None:
    """Refuse kinds that do not stand in each other."""
    around = [l for l in loops_around(loop) if l.kind.startswith("gpu.") or l.kind == "parallel"]
    allowed = _INSIDE.get(kind)
    if allowed is None:
        raise Refused(f"{kind} is no kind of loop of a GPU: {', '.join(_INSIDE)}")
    nearest = around[-1].kind if around else ""
    if nearest not in allowed and not (kind == "gpu.block" and not around):
        raise Refused(f"{loop.var} cannot be {kind} inside {nearest or 'no loop of a GPU'}")
    if kind == "gpu.lane" and loop.extent != 32:
        raise Refused(f"a warp has 32 lanes, {loop.var} {loop.extent} iterations")
    if kind in _THREADS and not isinstance(loop.extent, int):
        raise Refused(f"the threads of a block are counted at compile time, not {loop.extent}")


def _barriers(loop: For) -> Iterator[tuple[Block, Op | None]]:
    """Where barriers are missing around a loop of threads: (block, before which op)."""
    op: Op = loop
    while not (isinstance(op, For) and op.kind == "gpu.block"):
        block, parent = op.block, op.parent_op
        assert block is not None and parent is not None
        places = _missing(block, op, parent)
        if places:
            _check_uniform(block, loop)
        yield from [(block, place) for place in places]
        op = parent


def _missing(block: Block, op: Op, parent: Op) -> list[Op | None]:
    """Before which ops of the block (None: at its end) `op` needs a barrier.

    Whatever meets `op` in memory with no barrier on the way is parted from it, first within a
    round of the block, then, where it is the body of a serial loop, from one round to the next.
    """
    ops = [None if isinstance(o, Barrier) else o for o in block if o is op or _threaded(o)]
    places: list[Op | None] = []
    before, after = _open(ops[: ops.index(op)][::-1]), _open(ops[ops.index(op) + 1 :])
    if any([_meet(other, op) for other in before]):
        places.append(op)
        ops.insert(ops.index(op), None)
    late = next((other for other in after if _meet(op, other)), None)
    if late is not None:
        places.append(late)
        ops.insert(ops.index(late), None)
    if isinstance(parent, While) or (isinstance(parent, For) and parent.kind not in _INSIDE):
        at = ops.index(op)
        onward = _open([*ops[at + 1 :], *ops[: at + 1]])
        back = _open([*ops[:at][::-1], *ops[at:][::-1]])
        # what both walks reach without leaving the round was parted above
        onward = [o for o in onward if ops.index(o) <= at]
        back = [o for o in back if ops.index(o) >= at]
        if any([_meet(op, other, parent.var) for other in (*onward, *back)]):
            places.append(None)
    return places


def _threaded(op: Op) -> bool:
    """Is there work of several threads in an op?  What is not bound yet comes when it is."""
    wide = (Barrier, CallInstr, AsyncCopy)
    return any([isinstance(o, wide) or getattr(o, "kind", "") in _THREADS for o in op.walk()])


def _open(ops: list[Op | None]) -> list[Op]:
    """The ops up to the first barrier (None)."""
    found: list[Op] = []
    for op in ops:
        if op is None:
            break
        found.append(op)
    return found


def _meet(a: Op, b: Op, across: str = "") -> bool:
    """Does one thread of `a` write what another of `b` touches, or the other way round?

    `across` names the loop of which they are different iterations.
    """
    return any([
        _clash(one, other, {across, *rounds, *later})
        for one, rounds in _leaves(a, ())
        for other, later in _leaves(b, ())
    ])  # fmt: skip


def _leaves(op: Op, rounds: tuple[str, ...]) -> Iterator[tuple[Op, tuple[str, ...]]]:
    """The outermost loops of threads in an op, and what else threads do; with the loops around."""
    plain = isinstance(op, If) or (isinstance(op, For) and op.kind not in _THREADS)
    if not plain:
        yield op, rounds
        return
    rounds = (*rounds, op.var) if isinstance(op, For) else rounds
    for inner in op.regions[0]:
        if _threaded(inner):
            yield from _leaves(inner, rounds)


def _clash(a: Op, b: Op, rounds: set[str]) -> bool:
    """Do threads of two leaves meet in a buffer, one of them writing?"""
    (reads, writes), (later_reads, later_writes) = reads_writes(a), reads_writes(b)
    for buffer in (writes & (later_reads | later_writes)) | (later_writes & reads):
        made = buffer.op
        own = made is not None and (contains(a, made) or contains(b, made))
        private = buffer.buffer.space.split(".")[0] in ("register", "fragment", "tile")
        if not own and not private and not _same_thread(a, b, buffer, rounds):
            return True
    return False


def _same_thread(a: Op, b: Op, buffer: Value, rounds: set[str]) -> bool:
    """Does each thread touch the same elements of the buffer in both loops, and no other's?"""
    if not (isinstance(a, For) and isinstance(b, For) and a.kind in _THREADS):
        return False
    if (a.kind, a.lo, a.extent) != (b.kind, b.lo, b.extent):
        return False
    for op in (*a.body.walk(), *b.body.walk()):
        opaque = accessed(op) is None and buffer in op.operands
        moves = buffer in op.operands and rounds & free_symbols(op)
        if opaque or moves or (isinstance(op, For) and op.kind in _THREADS):
            return False
    trial = For.make(a.var, a.extent, a.kind, a.lo)
    for source in (a, b):
        for op in source.body:
            trial.body.append(op.copy({}))
    map_dims_in(trial, {b.var: sym(a.var)})
    same = separates(trial, buffer)
    trial.erase()
    return same


def _check_uniform(block: Block, loop: For) -> None:
    """Refuse a barrier in this block unless all threads get there, and equally often."""
    threads = {l.var for l in (*loops_around(loop), loop) if l.kind in _THREADS}
    op = block.parent
    while op is not None and not isinstance(op, Func):
        plain = isinstance(op, (For, If))
        if not plain or free_symbols(op) & threads:
            raise Refused(f"not all threads would reach a barrier inside {op.name}")
        op = op.parent_op


@dataclass(frozen=True)
class Pipeline(Step):
    """Start the asynchronous copies of a loop `stages - 1` iterations ahead of their use.

    The body begins with copies and their commit, then waits for all of them.  Each buffer gets
    `stages` slots, taken in turn; the first copies go before the loop.  A group is committed in
    every iteration, also where nothing is left to copy, so that the wait is the same in all.
    """

    loop: str
    stages: int

    def apply(self, kernel: Func) -> None:
        loop = find_loop(kernel, self.loop)
        if self.stages < 2:
            raise Refused(f"{self.stages} stages leave nothing to run ahead")
        head, wait = _copies(loop)
        buffers = _staged(loop, head)
        ahead = self.stages - 1
        for buffer in buffers:
            _slots(buffer, self.stages, loop.var)
        first = For.make(loop.var, ahead, lo=loop.lo)
        for op in head:
            first.body.append(op.copy({}))
        wait.set_attr("pending", ahead)
        loop.set_attr("reduction", False)  # the slots want the iterations in order
        last = loop.lo + loop.extent - 1
        for op in head:
            map_dims_in(op, {loop.var: sym(loop.var) + ahead})
            _guard_copies(op, last - sym(loop.var) - ahead)
        for op in first.body:
            _guard_copies(op, last - sym(loop.var))
        assert loop.block is not None
        rename_nest(kernel, first, ".first")
        loop.block.insert_before(first, loop)
        simplify_under(loop)
        simplify_nest(first)


def _copies(loop: For) -> tuple[list[Op], Wait]:
    """The leading ops of the body, which start copies and commit them once, and their wait."""
    if loop.kind != "serial":
        raise Refused(f"iterations of {loop.var} do not run in order")
    waits = [op for op in loop.walk() if isinstance(op, Wait)]
    commits = [op for op in loop.walk() if isinstance(op, Commit)]
    if len(waits) != 1 or len(commits) != 1 or waits[0].pending != 0:
        raise Refused(f"{loop.var} has not one commit and one wait for everything")
    ops = list(loop.body)
    head = ops[: next(k for k, op in enumerate(ops) if contains(op, waits[0]))]
    inner = [op for top in head for op in top.walk()]
    plain = all([isinstance(op, (AsyncCopy, Commit, For, If)) for op in inner])
    if not plain or commits[0] not in inner:
        raise Refused(f"the body of {loop.var} does not begin with copies and their commit")
    if any([isinstance(op, AsyncCopy) and op not in inner for op in loop.walk()]):
        raise Refused(f"{loop.var} also starts copies later in its body")
    for op in (waits[0], commits[0]):
        parent = op.parent_op
        while parent is not loop:
            if not (isinstance(parent, For) and parent.kind in _THREADS):
                raise Refused(f"{op.name} is not reached once in each iteration of {loop.var}")
            parent = parent.parent_op
    return head, waits[0]


def _staged(loop: For, head: list[Op]) -> list[Value]:
    """The buffers that the copies fill: used in the loop alone; their sources stay as they are."""
    copies = [op for top in head for op in top.walk() if isinstance(op, AsyncCopy)]
    buffers = list({op.target: None for op in copies})
    written = reads_writes(loop)[1]
    changed = [op.source.name for op in copies if op.source in written]
    if changed:
        raise Refused(f"{changed[0]} is written in {loop.var}: it cannot be copied ahead")
    for buffer in buffers:
        if not isinstance(buffer.op, Alloc) or contains(loop, buffer.op):
            raise Refused(f"{buffer.name} is not allocated before {loop.var}")
        if buffer.buffer.strides is not None:
            raise Refused(f"{buffer.name} is not dense")
        for user in buffer.users:
            if not contains(loop, user):
                raise Refused(f"{buffer.name} is also used outside of {loop.var}")
            if not isinstance(user, (AsyncCopy, CallInstr, Load, Store)):
                raise Refused(f"{buffer.name} is used by {user.name}")
    return buffers


def _slots(buffer: Value, stages: int, var: str) -> None:
    """Give a buffer a leading dimension, in which iteration `var` takes slot `var % stages`."""
    alloc, old = buffer.op, buffer.buffer
    assert isinstance(alloc, Alloc)
    slot = sym(var) % stages
    for user in set(buffer.users):
        if isinstance(user, CallInstr):
            index = [user.index[k] if k < len(user.index) else () for k in range(len(user.args))]
            for k, value in enumerate(user.args):
                if value is buffer:
                    index[k] = (slot, *(index[k] or (0,) * old.rank))
            user.set_attr("index", tuple(index))
            continue
        name = "target_index" if isinstance(user, AsyncCopy) else "index"
        user.set_attr(name, (slot, *user.attributes[name]))
    made = BufferType(old.dtype, (stages, *old.shape), old.space)
    alloc.set_attr("type", made)
    buffer.type = made


def _guard_copies(op: Op, where: DimLike) -> None:
    """Start the copies under an op only where the expression is at least zero."""
    for copy in [o for o in op.walk() if isinstance(o, AsyncCopy)]:
        block = copy.block
        assert block is not None
        guard = If(where=(where,), regions=[Block()])
        block.insert_before(guard, copy)
        block.remove(copy)
        guard.body.append(copy)


__all__ = ["Bind", "Pipeline"]
