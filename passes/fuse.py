"""Fusion: the ops of each block are parted into `fused` regions, which become one kernel each.

A region has an anchor (contraction, pool, reduction) or none, elementwise ops before and behind it,
and views as index maps.  Nothing costly is computed twice, regions depend on each other without
cycles, and every refusal is kept with its reason (`Fuse.reasons`). What stays outside: constants,
control flow, and reshapes, which only rename. May import: ir, fuse_kinds, fuse_build, options.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..ir.core import Block, Op, Value
from ..ir.dims import equal
from ..ir.ops.autodiff import Recompute
from ..ir.ops.core import Func, Fused, Module
from ..ir.ops.shape import Reshape
from ..ir.rewrite import worklist
from ..ir.types import Shape
from .fuse_build import build
from .fuse_kinds import (
    COSTLY,
    SOURCES,
    drops_filling,
    kind_of,
    once,
    reads_through,
    reduced_axes,
    single,
    windows_apart,
)
from .options import Pass

WINDOW = 4
"""Elements of the largest pooling window that is worth keeping in registers."""


class Refusal(NamedTuple):
    """Why two ops do not share a kernel."""

    producer: str
    consumer: str
    why: str


@dataclass(frozen=True)
class Fuse(Pass):
    """Make regions of at most `max` ops; `pool` joins a pool whose windows lie apart to its
    producer.
    """

    max: int = 48
    pool: bool = True
    reasons: list[Refusal] = field(default_factory=list, init=False, compare=False, repr=False)

    def run(self, module: Module) -> Module:
        self.reasons.clear()
        for func in module.funcs:
            if func.kind == "func":
                self.block(func.body)
        return module

    def block(self, block: Block) -> None:
        """Fuse one block, inner regions first."""
        for op in block:
            if op.regions and not isinstance(op, (Fused, Func)):
                for region in op.regions:
                    self.block(region)
            elif isinstance(op, Recompute):
                op.set_operands(op.operands[:1])  # ops stay in order from here on: no need to wait
        worklist(block, {})
        grouping = Grouping(block, self)
        grouping.run()
        build(block, grouping.groups, grouping.lazy)


class Group:
    """Ops that will be one region: `kind` of the anchor, `shape` of what joins next."""

    __slots__ = ("axes", "first", "full", "kind", "last", "ops", "shape")

    def __init__(self, op: Op, kind: str, at: int) -> None:
        self.ops = [op]
        self.kind = "pointwise" if kind == "view" else kind
        self.shape: Shape | None = op.results[0].tensor.shape if kind else None
        self.full: Shape | None = None
        self.axes: tuple[int, ...] = ()
        if kind == "reduction":
            self.full = op.operands[0].tensor.shape
            self.axes = reduced_axes(op)
        self.first = self.last = at


class Grouping:
    """The partition of one block, made op by op in order."""

    def __init__(self, block: Block, options: Fuse) -> None:
        self.options = options
        self.ops = [op for op in block if not op.terminator]
        self.at = {op: k for k, op in enumerate(self.ops)}
        self.kinds = {op: kind_of(op) for op in self.ops}
        self.block = block
        self.lazy = self._lazy_ops()
        self.home: dict[Op, Group] = {}
        self.read: dict[Op, list[tuple[Op, bool]]] = {}
        self.groups: list[Group] = []

    # ---- views that are made again where they are read

    def _lazy_ops(self) -> set[Op]:
        """Views and sources that every user reads through, so that they need no kernel; and all
        reshapes.
        """
        lazy: set[Op] = set()
        strict: set[Op] = set()
        for op in reversed(self.ops):
            if self.kinds[op] != "view" and not isinstance(op, SOURCES):
                continue
            users = op.results[0].users
            if drops_filling(op):
                continue
            if users and all([self._reads(user, op, lazy, strict) for user in users]):
                lazy.add(op)
                if any(
                    [u in strict or self.kinds.get(u) in ("contraction", "pool") for u in users]
                ):
                    strict.add(op)
        return lazy

    def _reads(self, user: Op, view: Op, lazy: set[Op], strict: set[Op]) -> bool:
        kind = self.kinds.get(user, "")
        if user.block is not self.block or not kind:
            return False
        if kind == "view" and user in lazy:
            return reads_through("contraction" if user in strict else "view", view)
        if kind == "view" and isinstance(user, Reshape):
            return False  # it stays outside: it renames memory
        return reads_through(kind, view) or (isinstance(view, SOURCES) and kind != "loops")

    def producers(self, op: Op) -> list[tuple[Op, bool]]:
        """The ops that `op` reads, views looked through: (producer, never through a view)."""
        known = self.read.get(op)
        if known is not None:
            return known
        found: dict[Op, bool] = {}
        todo = [(v, True) for v in _read_by(op)]
        while todo:
            value, direct = todo.pop()
            made = value.op
            if made is None or made not in self.at:
                continue
            if made in self.lazy or (self.kinds[made] == "view" and isinstance(made, Reshape)):
                todo.extend([(v, False) for v in made.operands if v is not None])
            else:
                found[made] = found.get(made, True) and direct
        self.read[op] = sorted(found.items(), key=lambda item: -self.at[item[0]])
        return self.read[op]

    # ---- the partition

    def run(self) -> None:
        """Put every op into a group."""
        for op in self.ops:
            if op in self.lazy or (isinstance(op, Reshape) and self.kinds[op]):
                continue
            group = Group(op, self.kinds[op], self.at[op])
            self.home[op] = group
            self.groups.append(group)
            if group.kind:
                self._attach(op, group)
        self.groups = [g for g in self.groups if g.ops]

    def _attach(self, op: Op, group: Group) -> None:
        """Join `op` to the groups of its producers, the latest anchor first."""
        producers = [(p, d) for p, d in self.producers(op) if self.home[p].kind]
        producers.sort(key=lambda item: self.home[item[0]].kind == "pointwise")
        for producer, direct in producers:
            theirs = self.home[producer]
            group = self.home[op]
            if theirs is group:
                continue
            why = self._refuse(producer, theirs, op, group, direct) or self._limits(theirs, group)
            if why:
                self.options.reasons.append(Refusal(_said(producer), _said(op), why))
            else:
                self._merge(theirs, group, op)

    def _refuse(self, producer: Op, theirs: Group, op: Op, group: Group, direct: bool) -> str:
        """Why the producer's group and that of `op` cannot share a kernel; empty if they can."""
        kind = self.kinds[op]
        if theirs.kind == "loops" or kind == "loops":
            return "it writes its own loops"
        if theirs.kind == "concat":
            return "a concat comes last"
        if theirs.kind == "pointwise":
            return self._prologue(theirs, op, group, direct)
        if group.kind not in ("pointwise", "reduction") and kind != "pool":
            return "a region has one anchor"
        if kind == "pool":
            return self._pooled(producer, theirs, op, direct)
        if direct and drops_filling(op) and theirs.kind == "contraction":
            return "" if self._only_for(theirs, op) else "the packed value is needed elsewhere"
        if not direct or kind == "view":
            return "a view stands between: the loops differ"
        if theirs.kind == "reduction":
            return self._around_reduction(theirs, op, group)
        if group.kind == "reduction":
            return f"the reduction is a second anchor beside the {theirs.kind}"
        shape = op.results[0].tensor.shape
        if not _alike(theirs.shape, shape):
            return f"the loops differ: {_dims(theirs.shape)} and {_dims(shape)}"
        if self._read_by_reductions(producer, op):
            return "reductions compute it from what is stored anyway"
        return ""

    def _read_by_reductions(self, producer: Op, op: Op) -> bool:
        """Is `op` cheap, only for reductions over it (and elementwise ops), and what it is computed
        from stored for others?  As a result of its own it would be written once and read by each.
        """
        if self.kinds[op] != "pointwise" or op.name in COSTLY or len(op.results) != 1:
            return False
        users = op.results[0].users
        kinds = {self.kinds.get(u, "") for u in users}
        if "reduction" not in kinds or not kinds <= {"reduction", "pointwise"}:
            return False
        return any([u is not op for r in producer.results for u in r.users])

    def _prologue(self, theirs: Group, op: Op, group: Group, direct: bool) -> str:
        """Elementwise ops before `op`."""
        kind = self.kinds[op]
        if self._feeds_anchor(theirs, group):
            return "it also feeds the anchor, which would compute it again"
        if kind == "contraction":
            return "the contraction would compute it again for each row or column"
        if kind == "pool" and not windows_apart(op):
            return "overlapping windows would compute it again"
        target = op.results[0].tensor.shape
        if kind in ("reduction", "pool"):
            target = op.operands[0].tensor.shape
        if direct and _alike(theirs.shape, target):
            return ""
        if kind == "concat":
            return "" if self._only_for(theirs, op) else "its value is needed elsewhere"
        if not self._only_for(theirs, op):
            return "its value is needed elsewhere, and the loops differ"
        if direct and kind == "view" and once(op):
            return ""
        dear = len(theirs.ops) > 4 or any([p.name in COSTLY for p in theirs.ops])
        if dear and not _smaller(target, theirs.shape):
            return "it would be computed again for each element along the broadcast axes"
        return ""

    def _feeds_anchor(self, theirs: Group, group: Group) -> bool:
        """Does a contraction or pool of the group read what these ops compute?"""
        anchors = [m for m in group.ops if self.kinds[m] in ("contraction", "pool")]
        read = [(a, p) for a in anchors for p, _ in self.producers(a) if self.home[p] is theirs]
        return any([self.kinds[a] == "contraction" or not windows_apart(a) for a, _ in read])

    def _around_reduction(self, theirs: Group, op: Op, group: Group) -> str:
        """Ops behind a reduction: over its result, or again over the rows that it reduced."""
        if self.kinds[op] == "reduction":
            same = _alike(theirs.full, group.full) and theirs.axes == group.axes
            return "" if same else "it reduces other axes"
        shape = op.results[0].tensor.shape
        if (
            _alike(shape, theirs.full)
            or _alike(shape, theirs.shape)
            or _alike(shape, _kept(theirs))
        ):
            return ""
        return f"the loops differ: {_dims(theirs.full)} and {_dims(shape)}"

    def _pooled(self, producer: Op, theirs: Group, op: Op, direct: bool) -> str:
        if not self.options.pool:
            return "joining pools is switched off"
        if theirs.kind != "contraction" or not direct:
            return "a region has one anchor"
        if not windows_apart(op):
            return "overlapping windows would compute the contraction again"
        if math.prod(op.attributes["kernel"]) > WINDOW:
            return "its windows take more registers than they save memory"
        if not self._only_for(theirs, op):
            return "the unpooled value is needed elsewhere"
        return ""

    def _only_for(self, group: Group, op: Op) -> bool:
        """Nothing but `op` (through views) and the group itself uses the group's values."""
        todo = [u for member in group.ops for r in member.results for u in r.users]
        seen: set[Op] = set()
        while todo:
            user = todo.pop()
            if user is op or user in seen or self.home.get(user) is group:
                continue
            if user not in self.lazy:
                return False
            seen.add(user)
            todo.extend(user.results[0].users)
        return True

    def _limits(self, a: Group, b: Group) -> str:
        if len(a.ops) + len(b.ops) > self.options.max:
            return f"the region would hold more than {self.options.max} ops"
        return "another op between them needs one and feeds the other" if self._cyclic(a, b) else ""

    def _cyclic(self, a: Group, b: Group) -> bool:
        """Does a path lead from one group to the other through a third?"""
        floor = min(a.first, b.first)
        todo = [g for g in self._sources((a, b)) if g is not a and g is not b]
        seen: set[int] = set()
        while todo:
            group = todo.pop()
            if group is a or group is b:
                return True
            if id(group) in seen or group.last < floor:
                continue
            if len(seen) > 4000:
                return True
            seen.add(id(group))
            todo.extend(self._sources((group,)))
        return False

    def _sources(self, groups: Iterable[Group]) -> list[Group]:
        return [self.home[p] for g in groups for op in g.ops for p, _ in self.producers(op)]

    def _merge(self, theirs: Group, group: Group, op: Op) -> None:
        """Make one group of two; the anchor's remains."""
        into, other = (group, theirs) if theirs.kind == "pointwise" else (theirs, group)
        if (self.kinds[op] == "pool" or drops_filling(op)) and into is theirs:
            into.shape = op.results[0].tensor.shape
        elif theirs.kind == "pointwise" and group.kind == "pointwise":
            into.shape = op.results[0].tensor.shape
        for member in other.ops:
            self.home[member] = into
        into.ops = sorted([*into.ops, *other.ops], key=self.at.__getitem__)
        into.first, into.last = min(into.first, other.first), max(into.last, other.last)
        other.ops = []


def _read_by(op: Op) -> list[Value]:
    """The values that an op uses, in its regions too."""
    values = [v for v in op.operands if v is not None and not single(v)]
    for region in op.regions:
        values += [v for inner in region.walk() for v in inner.operands if v is not None]
    return values


def _alike(a: Shape | None, b: Shape | None) -> bool:
    return (
        a is not None
        and b is not None
        and len(a) == len(b)
        and all([x is y or equal(x, y) is True for x, y in zip(a, b, strict=True)])
    )


def _kept(group: Group) -> Shape:
    """The reduced shape with extents of 1 kept."""
    assert group.full is not None
    return tuple([1 if k in group.axes else e for k, e in enumerate(group.full)])


def _smaller(a: Shape | None, b: Shape | None) -> bool:
    """Has shape `a` at most as many elements as `b`?  Unknown is no."""
    total = [1, 1]
    for k, shape in enumerate((a or (), b or ())):
        for extent in shape:
            if not isinstance(extent, int):
                return False
            total[k] *= extent
    return total[0] <= total[1]


def _dims(shape: Shape | None) -> str:
    return "[" + ", ".join([str(e) for e in shape or ()]) + "]"


def _said(op: Op) -> str:
    return f"{op.name} {op.loc.name}" if op.loc is not None and op.loc.name else op.name


__all__ = ["Fuse", "Group", "Grouping", "Refusal"]
