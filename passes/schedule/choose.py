"""The schedule of a kernel, chosen from its loops and the target: inline, then one recipe per
output nest.

The same source serves AVX-512, AVX2, NEON and scalar C: only the target's registers and lanes
differ. May import: ir, the recipes beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.dims import symbols_of
from ...ir.ops.core import Func
from ...ir.ops.loop import Alloc, For, Load, Store
from ...ir.symbols import loops_around
from ...ir.target import Target
from .batched import schedule_batched
from .contraction import (
    match_contraction,
    match_update,
    schedule_contraction,
    shared_by,
    split_blocks,
)
from .correlation import schedule_correlation
from .joining import join_results
from .memory import ComputeAt, Inline, Stage
from .nests import Refused, child_of, contains, find_loop, perfect_chain
from .rows import schedule_rows, share_copies, vectorize_nest
from .scheduler import Scheduler, depends, static
from .sliding import schedule_sliding
from .steps import Applied, Simplify, Step
from .streaming import stream_results
from .window import window
from .windowed import schedule_windowed

COSTLY = frozenset(
    {"exp", "log", "tanh", "sigmoid", "erf", "sin", "cos", "pow", "div", "sqrt", "rsqrt"}
)
"""Ops worth computing once."""

FEW = 8
"""Results below which a padded copy that an element serves is made piece by piece."""

PIECE_BYTES = 16 << 10
"""Largest piece of such a copy, on the stack of a thread."""


@dataclass(frozen=True)
class Scheduled:
    """The chosen steps, the kernel they give, and the steps that were refused, with reasons."""

    steps: tuple[Step, ...]
    kernel: Func
    refusals: tuple[tuple[Step, str], ...]


def choose(kernel: Func, target: Target) -> Scheduled:
    """Choose and apply a schedule."""
    s = Scheduler(kernel, target)
    s.do(Simplify())
    _inline(s)
    join_results(s)
    roots = _outputs(s)
    while roots:
        names = [r.var for r in roots]
        root = roots.pop(0)
        if root.block is None:
            continue
        before, count = s.kernel.copy({}), len(s.steps)
        try:
            _schedule(s, root)
        except Refused as refused:  # a recipe that did not end well leaves nothing behind
            s.give_up(before, count, refused)
            roots = [r for r in _outputs(s) if r.var in names[1:]]
    for name in _plain_nests(s.kernel):
        vectorize_nest(s, name, target.lanes(32))
    if target.threads > 1:
        share_copies(s)
    stream_results(s)
    return Scheduled(tuple(s.steps), s.kernel, tuple(s.refusals))


def schedule(kernel: Func, target: Target) -> Sequence[Step]:
    """The steps and what they make of the kernel: what a `Target` asks for."""
    chosen = choose(kernel, target)
    return Applied(chosen.steps, chosen.kernel)


def _inline(s: Scheduler) -> None:
    """Recompute pointwise intermediates at their uses, where that repeats no costly work."""
    for alloc in s.allocs():
        if worth_inlining(alloc):
            s.attempt(Inline(alloc.label))


def worth_inlining(alloc: Alloc) -> bool:
    """Is every element read once, or so cheap that reading it twice costs more?"""
    users = alloc.result.users
    stores = [u for u in users if isinstance(u, Store)]
    loads = [u for u in users if isinstance(u, Load)]
    if len(stores) != 1 or not loads or alloc.block is None:
        return False
    producer = child_of(stores[0], alloc.block)
    if not isinstance(producer, For):
        return len(loads) > 0 and isinstance(producer, Store)
    body = [op for op in producer.walk() if not isinstance(op, For)]
    cheap = len(body) <= 12 and not any(op.name in COSTLY for op in body)
    once = len(loads) == 1 and not repeats(loads[0], alloc)
    return once or (cheap and not any(repeats(load, alloc) for load in loads)) or len(body) <= 2


def repeats(load: Load, alloc: Alloc) -> bool:
    """Is an element of the buffer read more often than it is computed?"""
    nest = child_of(load, alloc.block)  # type: ignore[arg-type]
    rounds = 1
    for loop in (op for op in nest.walk() if isinstance(op, For) and contains(op, load)):
        rounds *= static(loop.extent, 61)
    elements = 1
    for extent in alloc.result.buffer.shape:
        elements *= static(extent, 61)
    return rounds > elements


def _plain_nests(kernel: Func) -> list[str]:
    """The outermost loops of nests in which nothing is marked yet: copies, and what no recipe
    covered.
    """
    found: list[str] = []
    for op in kernel.walk():
        if isinstance(op, For) and _plain(op):
            parent = op.parent_op
            if not (isinstance(parent, For) and _plain(parent)):
                found.append(op.var)
    return found


def _plain(loop: For) -> bool:
    return all(op.kind == "serial" for op in loop.walk() if isinstance(op, For))


def _outputs(s: Scheduler) -> list[For]:
    """The top-level nests that write arguments of the kernel."""
    args = set(s.kernel.args)
    return [
        op
        for op in s.kernel.body
        if isinstance(op, For) and any(isinstance(u, Store) and u.target in args for u in op.walk())
    ]


def _schedule(s: Scheduler, root: For) -> None:
    """One output nest: a contraction with its epilogue, a contraction under a window, or rows."""
    name = root.var
    for recipe in (schedule_sliding, schedule_correlation, schedule_batched):
        if recipe(s, root):
            return
        root = find_loop(s.kernel, name)  # a recipe that was given up leaves a copy
    once: list[str] = []
    for alloc in [a for a in s.allocs() if a.block is s.kernel.body]:
        once += _stage_padding(s, alloc)
    _schedule_nest(s, root)
    for label in once:
        _narrow_padding(s, label)


def _schedule_nest(s: Scheduler, root: For) -> None:
    name = root.var
    for alloc in [a for a in s.allocs() if a.block is s.kernel.body]:
        split_blocks(s, alloc)
        found = match_contraction(alloc)
        if found is not None and found.consumer is root and schedule_contraction(s, alloc.label):
            return
    if not schedule_windowed(s, root):
        current = next((op for op in s.kernel.body if isinstance(op, For) and op.var == name), None)
        if current is not None:
            schedule_rows(s, current)


def _stage_padding(s: Scheduler, acc: Alloc) -> list[str]:
    """Give guarded operands (padding) a padded copy, so that the inner loops are free of guards.

    Only where an element is used for several results, as the target says (a depthwise convolution
    may be over before its copy is), where neighbours in a group share it, or where the guard
    differs from lane to lane.  Gives the copies that serve few results.
    """
    found = match_update(acc) or _match_reduction(acc)
    if found is None:
        return []
    update, _, loads = found
    few = []
    for k, load in enumerate(loads):
        reuse = 1
        for loop in perfect_chain(update):
            reuse *= 1 if loop.reduction or depends(load, loop.var) else static(loop.extent)
        label = f"{acc.label}.pad{k}"
        used = reuse >= s.target.pad_reuse or _guards_lanes(load, acc) or _in_groups(load, update)
        if load.where and load.block is not None and used:
            if s.attempt(Stage(load.source.name or "", "", label, "heap")) and reuse < FEW:
                few.append(label)
    return few


def _match_reduction(acc: Alloc) -> tuple[For, Store, tuple[Load, ...]] | None:
    """The nest of any other reduction over windows, where lanes have guards: pools at the edge."""
    for store in acc.result.users:
        nest = child_of(store, acc.block) if acc.block is not None else None
        if not isinstance(store, Store) or not isinstance(nest, For):
            continue
        loads = [op for op in nest.walk() if isinstance(op, Load) and op.source is not acc.result]
        if any(l.reduction for l in perfect_chain(nest)) and any(
            [_guards_lanes(load, acc) for load in loads]
        ):
            return nest, store, tuple(loads)
    return None


def _in_groups(load: Load, update: For) -> bool:
    """Do neighbouring results read the same elements, channels of one group?"""
    loops = [loop for loop in perfect_chain(update) if not loop.reduction]
    return any([shared_by(load, loop.var, static(loop.extent, 1)) > 1 for loop in loops])


def _guards_lanes(load: Load, acc: Alloc) -> bool:
    """Does the guard change along the last dimension of the results, which vectors run over?"""
    stores = [u for u in acc.result.users if isinstance(u, Store) and u.value.op is not None]
    lanes = {s for u in stores for e in u.index[-1:] for s in symbols_of(e)}
    return any([lanes & symbols_of(e) for e in load.where])


def _narrow_padding(s: Scheduler, label: str) -> None:
    """Make a padded copy piece by piece, in the outermost loop that reads little enough of it."""
    alloc = next((a for a in s.allocs() if a.label == label), None)
    reads = [u for u in alloc.result.users if isinstance(u, Load)] if alloc is not None else []
    if alloc is None or not reads:
        return
    for loop in loops_around(reads[0]):
        if loop.reduction or not all([contains(loop, read) for read in reads]):
            return
        try:
            piece = math.prod([static(extent) for extent in window(reads, loop).shape])
        except Refused:  # the last vector of a row may reach beyond it: no piece is known
            continue
        small = piece * alloc.result.buffer.dtype.bytes <= PIECE_BYTES
        if small and s.attempt(ComputeAt(label, loop.var, "stack")):
            return


__all__ = ["Scheduled", "choose", "schedule", "worth_inlining"]
