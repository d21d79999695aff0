"""Rematerialisation: values of the forward part that the backward part computes again instead of
having them kept.

A function that gives results and gradients has two parts: what the results depend on, and the rest.
Values of the first that the second reads are its activation memory.  Dropped are those that cost
least per byte to compute again from what is kept (passes/cost.py), until the budget is met: cheap
ops next to what is kept first, then whole segments.  The copies stand right before what reads them
and are the same ops on the same values.  May import: ir, passes.cost, its siblings.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from ...ir.core import Builder, Op, Value
from ...ir.errors import Error
from ...ir.ops.core import Const, Func, Module
from ...ir.types import TensorType
from ..cost import BYTES_PER_FLOP, size_of, work
from ..options import Pass
from .activity import reads
from .regions import replace_reads

SPAN = 2.0
"""One copy serves readers within this many times the root of the number of backward ops; for others
the value is computed once more, since a copy held longer is as bad as a value kept."""
FREE = frozenset(
    {"broadcast_to", "const", "dim_value", "iota", "reshape", "slice", "stop_gradient", "transpose"}
)
"""Ops whose results are not kept: they are read through, or made anywhere."""


@dataclass
class Parts:
    """A function's forward ops, its backward ops with their positions, and which forward values
    that are not free the latter read, each with the position of the first reader.

    `near` is how far apart two readers may be that share a copy.
    """

    func: Func
    count: int
    forward: set[Op] = field(init=False)
    backward: dict[Op, int] = field(init=False)
    read: dict[Value, int] = field(init=False)
    near: float = field(init=False)

    def __post_init__(self) -> None:
        todo = list(self.func.returned[: self.count])
        self.forward = set()
        while todo:
            op = todo.pop().op
            if op is not None and op not in self.forward:
                self.forward.add(op)
                todo.extend(reads(op))
        ops = [op for op in self.func.body if op not in self.forward and not op.terminator]
        self.backward = {op: k for k, op in enumerate(ops)}
        self.near = SPAN * math.sqrt(len(ops))
        self.read = {}
        for op, k in self.backward.items():
            for value in self.sources(reads(op)):
                self.read.setdefault(value, k)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the values that the backward part reads."""
        return sum([size_of(v) for v in self.read if _counted(v)])

    def sources(self, values: Iterable[Value]) -> list[Value]:
        """The forward values, free ops looked through, that these come from."""
        found: dict[Value, None] = {}
        todo = list(values)
        while todo:
            value = todo.pop()
            if value.op is None or value.op not in self.forward:
                continue
            if value.op.name in FREE:
                todo.extend(reads(value.op))
            else:
                found[value] = None
        return list(found)


def activation_memory(func: Func, count: int) -> int:
    """Bytes of the forward values live when the backward part begins; `count` is the number of
    results that are no gradients.
    """
    return Parts(func, count).kept_bytes


def within(func: Func, budget: float | None, count: int) -> Func:
    """A copy of `func`, of whose results the first `count` are no gradients, that keeps at most
    `budget` bytes between its parts; a float up to 1 is the share of what it keeps now.

    The backward part is held apart from the forward one, so that compiled results are the same to
    the bit whatever the budget, None or 1.0 (all is kept) included.

    Errors: E0606 a budget that cannot be met.
    """
    made = func.copy()
    parts = Parts(made, count)
    now = parts.kept_bytes
    share = 1.0 if budget is None else budget
    most = share * now if isinstance(share, float) and share <= 1 else share
    dropped = chosen(parts, now, most)
    _Rewriting(parts, dropped).run()
    return made


def chosen(parts: Parts, now: int, most: float) -> set[Value]:
    """The values to compute again, the best bargains first.

    Prices change as others are dropped: one is looked at again when it comes up.
    """
    choice = _Choice(parts)
    wait = [(choice.price(v), k, v) for k, v in enumerate(parts.read) if choice.droppable(v)]
    heapq.heapify(wait)
    while now > most:
        if not wait:
            raise Error(
                "E0606",
                "the activation memory cannot be brought within the budget",
                details=(f"budget: {int(most)} bytes", f"lowest: {now} bytes"),
                hint="a smaller batch, or accumulate micro-batches",
            )
        _, k, value = heapq.heappop(wait)
        price = choice.price(value)
        if wait and price > wait[0][0]:
            heapq.heappush(wait, (price, k, value))
            continue
        choice.dropped.add(value)
        now -= size_of(value)
    return choice.dropped


def _counted(value: Value) -> bool:
    return isinstance(value.type, TensorType)


class _Choice:
    """What is dropped so far, and what dropping one more costs."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.dropped: set[Value] = set()
        self.returned = set(parts.sources(parts.func.returned))
        self.works: dict[Op, float] = {}

    def droppable(self, value: Value) -> bool:
        """Kept for the backward part alone, and of a size that matters."""
        return _counted(value) and value not in self.returned and size_of(value) > 0

    def price(self, value: Value) -> float:
        """The work of computing a value again, per byte."""
        return self.cone(value) / size_of(value)

    def cone(self, value: Value) -> float:
        """The work of all ops between a value and what is kept; copies of dropped values that are
        made nearby are there already.
        """
        seen: set[Op] = set()
        todo = [value]
        while todo:
            op = todo.pop().op
            if op is None or op in seen:
                continue
            seen.add(op)
            for source in self.parts.sources(reads(op)):
                kept = source in self.parts.read and source not in self.dropped
                if not kept and not self.shared(source, value):
                    todo.append(source)
        return sum([self.work(op) for op in seen])

    def shared(self, source: Value, value: Value) -> bool:
        """Whether a copy of `source` is made near the readers of `value`."""
        read = self.parts.read
        return source in self.dropped and abs(read[source] - read[value]) <= self.parts.near

    def work(self, op: Op) -> float:
        """Operations, bytes moved counted as those that take as long."""
        if op not in self.works:
            found = work(op)
            self.works[op] = found.flops + found.bytes * BYTES_PER_FLOP
        return self.works[op]


@dataclass(frozen=True)
class _Place:
    """Where copies go: a builder, what is known there, the position of the reader."""

    b: Builder
    after: tuple[Value, ...]
    at: int


Made = dict[Value, tuple[Value, int]]


class _Rewriting:
    """Copies put before the backward ops that read what was dropped.

    All that the backward ops read of the forward part is held back, kept or not, copies too: so
    their kernels are the same whatever is dropped, and those of the copies are apart from them.
    """

    def __init__(self, parts: Parts, dropped: set[Value]) -> None:
        self.parts = parts
        self.dropped = dropped
        self.copies: Made = {}
        self.held: Made = {}
        self.bases: Made = {}
        self.order = {op: k for k, op in enumerate(parts.func.body)}

    def run(self) -> None:
        """Rewrite the backward ops, in order."""
        before: tuple[Value, ...] = ()
        for op, at in list(self.parts.backward.items()):
            mine = [v for v in op.operands if v is not None and v.op in self.parts.backward]
            after = tuple([v for v in mine if not isinstance(v.op, Const)][:1]) or before
            assert op.block is not None
            place = _Place(Builder(op.block, op, op.loc), after, at)
            wanted = [v for v in reads(op) if self.parts.sources([v])]
            env = {v: self.shown(v, place) for v in wanted}
            op.set_operands([env.get(v, v) for v in op.operands])
            for region in op.regions:
                replace_reads(region, env)
            if op.results and not isinstance(op, Const):
                before = op.results[:1]

    def shown(self, value: Value, place: _Place) -> Value:
        """What a backward op reads for a forward value: it or its copy, held back; views anew."""
        op = value.op
        assert op is not None
        if op.name in FREE:
            env = {v: self.shown(v, place) for v in reads(op) if self.parts.sources([v])}
            return place.b.insert(op.copy(env)).results[value.index]
        if self.far(self.held, value, place):
            base = value
            if value in self.dropped:
                self.compute(value, place)
                base = self.copies[value][0]
            self.held[value] = place.b.recompute(base, *place.after), place.at
        return self.held[value][0]

    def compute(self, value: Value, place: _Place) -> None:
        """Copy the ops between a value and what is kept, in their order."""
        todo, ops = [value], set[Op]()
        while todo:
            op = todo.pop().op
            if op is None or op in ops or isinstance(op, Const):
                continue
            if any([self.far(self.copies, r, place) for r in op.results]):
                ops.add(op)
                todo.extend([v for v in reads(op) if self.computed(v)])
        for op in sorted(ops, key=self.order.__getitem__):
            env = {v: self.read(v, place) for v in reads(op)}
            copied = place.b.insert(op.copy(env))
            for old, new in zip(op.results, copied.results, strict=True):
                self.copies[old] = new, place.at

    def read(self, value: Value, place: _Place) -> Value:
        """What a copy reads: constants, other copies, and what is kept, not before `place.after`
        and apart from what backward ops read.
        """
        if isinstance(value.op, Const):
            return value
        if self.computed(value):
            return self.copies[value][0]
        if self.far(self.bases, value, place):
            base = place.b.recompute(value, *place.after, label="copies")
            self.bases[value] = base, place.at
        return self.bases[value][0]

    def computed(self, value: Value) -> bool:
        """Made by an op and not kept: dropped, free, or read by copies alone."""
        return value.op is not None and (value in self.dropped or value not in self.parts.read)

    def far(self, made: Made, value: Value, place: _Place) -> bool:
        """It was not made lately."""
        known = made.get(value)
        return known is None or place.at - known[1] > self.parts.near


@dataclass(frozen=True)
class Rematerialise(Pass):
    """Bring the activation memory of `func` within `budget` (see `within`); its first `results`
    results are no gradients.
    """

    func: str = "main"
    budget: float = 0.5
    results: int = 1

    def run(self, module: Module) -> Module:
        old = module.func(self.func)
        made = within(old, self.budget, self.results)
        module.body.insert_before(made, old)
        old.erase()
        return module


__all__ = ["Parts", "Rematerialise", "activation_memory", "chosen", "within"]
