"""The schedule step Tensorize: one hardware instruction in the place of a loop nest that means it.

The nest is compared with the instruction's own meaning, `instr(name).body`, op by op; names of
loops, order of the operands of commutative ops, base addresses and the buffers' other dimensions
are free.  May import: ir, the steps and nests beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations

from ...ir.core import Block, Op, Value
from ...ir.dims import DimLike, equal, simplify, substitute, sym, symbols_of
from ...ir.ops.core import Func
from ...ir.ops.instr import Instr, instr
from ...ir.ops.loop import CallInstr, For, Load, Store
from ...ir.symbols import loops_around, ranges_around
from ...ir.types import BufferType, dense_strides
from .nests import Refused, find_loop, may_move, perfect_chain, reads_writes
from .steps import Step

Place = tuple[Value, tuple[DimLike, ...]]
_COMMUTATIVE = ("add", "mul", "min", "max")


@dataclass(frozen=True)
class Tensorize(Step):
    """Replace the nest of `loop`, which computes what `instr` does, by that one instruction."""

    loop: str
    instr: str

    def apply(self, kernel: Func) -> None:
        root, found = find_loop(kernel, self.loop), instr(self.instr)
        _check_scope(root, found)
        places = _matched(root, found)
        call = CallInstr(
            *[buffer for buffer, _ in places],
            instr=self.instr,
            index=tuple([base for _, base in places]),
            loc=root.loc,
        )
        assert root.block is not None
        root.block.insert_before(call, root)
        root.erase()


def _check_scope(root: For, found: Instr) -> None:
    kinds = [loop.kind for loop in loops_around(root)]
    if found.scope == "warp" and ("gpu.lane" in kinds or "gpu.warp" not in kinds):
        raise Refused(f"{found.name} belongs to a whole warp: {root.var} must be in a gpu.warp")


def _matched(root: For, found: Instr) -> list[Place]:
    """The buffer and first index of each operand; else `Refused`, for the order as written."""
    want, have = _nest(found.body), perfect_chain(root)
    extents = [loop.extent for loop in have]
    wanted = [loop.extent for loop in want]
    if len(have) != len(want) or sorted(map(str, extents)) != sorted(map(str, wanted)):
        given, needed = (" x ".join(map(str, shape)) for shape in (extents, wanted))
        raise Refused(f"the nest runs over {given}, {found.name} over {needed}")
    shared = [loop.var for loop in have if loop.kind not in ("serial", "vector", "unroll")]
    if shared:
        raise Refused(f"{', '.join(shared)} run on several threads")
    first: Refused | None = None
    for order in permutations(have):
        if [loop.extent for loop in order] != wanted:
            continue
        moved = [loop for loop, old in zip(order, have, strict=True) if loop is not old]
        try:
            if not all([may_move(loop) for loop in moved]):
                raise Refused(f"iterations of {root.var} depend on each other")
            return _Match(found, want, order, have[-1].body).places(want[-1].body)
        except Refused as refused:
            first = first or refused
    assert first is not None
    raise first


def _nest(body: Func) -> list[For]:
    """The loops of an instruction's meaning."""
    (loop,) = [op for op in body.body if isinstance(op, For)]
    return perfect_chain(loop)


@dataclass
class _Match:
    """A comparison under way: the instruction's loops stand for `order`, operands get bound."""

    instr: Instr
    want: Sequence[For]
    order: Sequence[For]
    body: Block
    bound: dict[Value, Place] = field(default_factory=dict)
    seen: set[Op] = field(default_factory=set)

    def places(self, want: Block) -> list[Place]:
        """The places of all operands, if the two bodies are one."""
        name = self.instr.name
        stores = [op for op in self.body if isinstance(op, Store)]
        (meant,) = [op for op in want if isinstance(op, Store)]
        if len(stores) != 1:
            raise Refused(f"the nest writes {len(stores)} values, {name} one")
        self.access(meant, stores[0])
        self.value(meant.value, stores[0].value)
        extra = [op.name for op in self.body if op not in self.seen]
        if extra:
            raise Refused(f"the nest also computes {', '.join(extra)}, {name} does not")
        places = [self.bound[arg] for arg in self.instr.body.args]
        written = reads_writes(self.instr.body)[1]
        changed = [self.bound[arg][0] for arg in written]
        if any([sum(buffer is one for buffer, _ in places) > 1 for one in changed]):
            raise Refused(f"{changed[0].name} is both read and written: {name} keeps them apart")
        return places

    def value(self, want: Value, have: Value) -> None:
        """The same op on the same values, or its equal."""
        w, h = want.op, have.op
        assert w is not None
        if h is None or type(h) is not type(w):
            found = h.name if h is not None else "an argument"
            raise Refused(f"the nest has {found} where {self.instr.name} has {w.name}")
        if h.block is not self.body:
            raise Refused(f"{h.name} is computed outside of the nest")
        if isinstance(w, Load) and isinstance(h, Load):
            self.access(w, h)
            return
        if h.attrs != w.attrs:
            raise Refused(f"{h.name} gives another value than in {self.instr.name}")
        orders = [h.operands]
        if w.name in _COMMUTATIVE:
            orders.append(h.operands[::-1])
        bound, seen, most = self.bound, {*self.seen, h}, None
        for operands in orders:
            self.bound, self.seen = dict(bound), set(seen)
            try:
                for wanted, given in zip(w.operands, operands, strict=True):
                    self.value(wanted, given)
                return
            except Refused as refused:
                if most is None or len(self.seen) > len(most[1]):
                    most = refused, self.seen
        assert most is not None
        self.seen = most[1]
        raise most[0]  # of the order that agrees for longer

    def access(self, want: Load | Store, have: Load | Store) -> None:
        """Bind an operand of the instruction to the window that an access of the nest runs over."""
        arg, buffer = want.operands[-1], have.operands[-1]
        operand = self.instr.operands[arg.index][0]
        self.check_type(operand, arg.buffer, buffer.buffer)
        self.seen.add(have)
        if have.where or have.lane:
            raise Refused(f"an access of {buffer.name} is guarded or a vector")
        names = {w.var: sym(h.var) - h.lo for w, h in zip(self.want, self.order, strict=True)}
        ranges = ranges_around(have)
        skip = buffer.buffer.rank - arg.buffer.rank
        base: list[DimLike] = list(have.index[:skip])
        for h, w in zip(have.index[skip:], want.index, strict=True):
            base.append(simplify(h - substitute(w, names), ranges))
        if any([symbols_of(e) & {loop.var for loop in self.order} for e in base]):
            index = ", ".join(map(str, have.index))
            raise Refused(f"operand '{operand}' of {self.instr.name} is not {buffer.name}[{index}]")
        known, at = self.bound.setdefault(arg, (buffer, tuple(base)))
        same = known is buffer and all([equal(a, b, ranges) for a, b in zip(at, base, strict=True)])
        if not same:
            raise Refused(f"operand '{operand}' of {self.instr.name} would be two windows")

    def check_type(self, operand: str, want: BufferType, have: BufferType) -> None:
        """The element type, the kind of memory, and elements that lie as the instruction reads."""
        name = f"operand '{operand}' of {self.instr.name}"
        if have.dtype is not want.dtype:
            raise Refused(f"{name} has elements {want.dtype}, the nest {have.dtype}")
        if have.rank < want.rank:
            raise Refused(f"{name} has rank {want.rank}, the nest's buffer {have.rank}")
        held = [space.split(".")[0] in ("tile", "fragment") for space in (want.space, have.space)]
        skip = have.rank - want.rank
        if any(held) and (have.space, have.shape) != (want.space, (1,) * skip + want.shape):
            raise Refused(f"{name} is a {want}, the nest has a {have}")
        if any(held):
            return
        strides = have.element_strides[skip:]
        given = any([f"{{{operand}.stride}}" in text for text in dict(self.instr.emit).values()])
        free = given or not self.instr.emit
        for d, (stride, dense) in enumerate(zip(strides, dense_strides(want.shape), strict=True)):
            if stride != dense and (not free or d == want.rank - 1):
                raise Refused(f"{name} wants its elements side by side, {have} has gaps")


__all__ = ["Tensorize"]
