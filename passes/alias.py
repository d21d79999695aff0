"""Proof that a plan's memory holds: nothing that is still needed is ever overwritten.

Works on the values of `main` and the places they were given, with liveness computed afresh: sets of
live values, backward through regions, loops to a fixed point.  A value may share bytes with a live
one only when both are the same content (views, a loop's carried value handed on), or when a launch
writes a result over an operand that dies in it and its kernel is proved to allow that. May import:
ir, lifetimes, places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..ir.core import Block, Op, Value
from ..ir.dims import Dim, DimLike, Range, evaluate, nonneg, sym
from ..ir.dims_expr import DIV, Atom
from ..ir.dims_query import replace_atoms
from ..ir.errors import EXIT_INTERNAL, Error
from ..ir.ops.core import Const, Func
from ..ir.ops.plan import Launch
from .lifetimes import is_view, root
from .places import Place, bytes_of

LARGEST_KERNEL = 256
"""Windows up to this size are looked for in extents that shrink by one."""

Proof = Callable[[Launch, int, int], bool]


def verify_places(main: Func, places: Mapping[Value, Place], proved: Proof) -> None:
    """Raise E0435, naming two values, where one is overwritten while the other still needs the
    bytes.
    """
    state = {main.args[k] for k, _ in main.state}
    constant = [v for v in main.args if v not in state]
    checker = _Checker(places, proved, constant)
    values = [*main.args, *places]
    checker.names, named = quotients(values)
    checker.ranges = {**implied_ranges(values), **named}
    checker.block(main.body, set())


def verify_layout(rows: Iterable[tuple[str, DimLike, DimLike, int, int]]) -> None:
    """Raise E0435 where two buffers (name, offset, bytes, first, last) overlap in time and in
    memory.
    """
    listed = list(rows)
    for k, (name, offset, size, first, last) in enumerate(listed):
        for other, offset2, size2, first2, last2 in listed[:k]:
            if first <= last2 and first2 <= last and not disjoint(offset, size, offset2, size2):
                raise _clash(name, other, f"both are needed at time {max(first, first2)}")


def disjoint(
    offset: DimLike,
    size: DimLike,
    offset2: DimLike,
    size2: DimLike,
    ranges: Mapping[str, Range] | None = None,
) -> bool:
    """Whether two byte ranges are proved not to meet, whatever the dims (within `ranges`)."""
    if size == 0 or size2 == 0:
        return True
    behind, before = offset2 - offset - size, offset - offset2 - size2
    return nonneg(behind, ranges) is True or nonneg(before, ranges) is True


def quotients(values: Iterable[Value]) -> tuple[dict[Atom, DimLike], dict[str, Range]]:
    """A symbol for every quotient that an extent is, up to a constant, and its least value.

    `(D + 1) // 2 - 3` is an extent, so the quotient is at least 3; as a symbol it can be reasoned
    about in the products that sizes are.
    """
    names: dict[Atom, DimLike] = {}
    ranges: dict[str, Range] = {}
    extents = {e for v in values for e in getattr(v.type, "shape", None) or () if type(e) is Dim}
    for e in sorted(extents, key=str):
        (first, count), *others = e.terms
        if others or count != 1 or len(first.factors) != 1 or first.factors[0].kind != DIV:
            continue
        quotient = first.factors[0]
        name = str(names.setdefault(quotient, sym(f"_quotient{len(names)}")))
        least = ranges.get(name, (0, None))[0]
        ranges[name] = (max(-e.const, least if isinstance(least, int) else 0), None)
    return names, ranges


def implied_ranges(values: Iterable[Value]) -> dict[str, Range]:
    """What it says about a symbol that no extent is negative: `D - 6` is one, so D >= 6.

    Only extents in one symbol speak; the least value at which one is not negative is a bound, as
    it is negative at all smaller ones.
    """
    least: dict[str, int] = {}
    extents = {e for v in values for e in getattr(v.type, "shape", None) or () if type(e) is Dim}
    for e in extents:
        if len(e.symbols) != 1:
            continue
        (name,) = e.symbols
        first = next((k for k in range(LARGEST_KERNEL) if _value(e, name, k) >= 0), None)
        if first:
            least[name] = max(first, least.get(name, 0))
    return {name: (first, None) for name, first in least.items()}


def _value(e: Dim, name: str, at: int) -> int:
    """The value of an extent; where it divides by 0 it says nothing."""
    try:
        return evaluate(e, {name: at})
    except ZeroDivisionError:
        return 0


def _clash(one: object, other: object, why: str) -> Error:
    return Error(
        "E0435",
        f"'{one}' and '{other}' overlap in memory",
        details=(why,),
        exit_code=EXIT_INTERNAL,
        hint="this is a defect of the memory plan; please report it",
    )


class _Checker:
    """Backward walk; `live` holds roots (a view counts as its root).

    `constant` values may never be written over; `stacks` says as a part of which value another is
    written: a slice of a stack, a branch's or a loop's result.
    """

    def __init__(
        self, places: Mapping[Value, Place], proved: Proof, constant: Sequence[Value]
    ) -> None:
        self.places = places
        self.proved = proved
        self.constant = constant
        self.stacks: dict[Value, Value] = {}
        self.ranges: dict[str, Range] = {}
        self.names: dict[Atom, DimLike] = {}

    def block(self, block: Block, live: set[Value]) -> set[Value]:
        """The values live before a region, given those live after it; checks every write inside."""
        ops = list(block)
        for op in reversed(ops):
            live = self.op(op, live)
        return live - set(block.args)

    def op(self, op: Op, live: set[Value]) -> set[Value]:
        """The values live before an op."""
        if is_view(op) or isinstance(op, Const):
            return live
        uses = {root(v) for v in op.operands if v is not None}
        after = live - set(op.results)
        if op.regions and op.name in _REGIONS:
            return _REGIONS[op.name](self, op, live, after, uses)
        if not op.terminator:
            for value in op.results:
                self.written(op, value, after | (set(op.results) - {value}), uses)
        return after | uses

    def written(self, op: Op, value: Value, live: Iterable[Value], uses: set[Value]) -> None:
        """`value` is written while `live` are needed and `uses` are read."""
        for other in (*live, *self.constant):
            self.apart(value, other, "one is written while the other is still needed")
        for used in uses:
            if isinstance(op, Launch) and self.same_place(value, used):
                at = [k for k, v in enumerate(op.operands) if root(v) is used]
                if all([self.proved(op, k, value.index) for k in at]):
                    continue
            self.apart(value, used, f"{op.where()} reads one while it writes the other")

    def same_place(self, one: Value, other: Value) -> bool:
        """Whether two values begin at the same byte of one storage."""
        a, b = self.places.get(one), self.places.get(other)
        return a is not None and b is not None and a.storage is b.storage and a.offset == b.offset

    def apart(self, one: Value, other: Value, why: str) -> None:
        """Raise unless the bytes of two values are disjoint."""
        if one is other or self.part(one, other):
            return
        a, b = self.places.get(one), self.places.get(other)
        if a is None or b is None or a.storage.kind != b.storage.kind:
            return
        if a.storage is b.storage:
            ok = self.disjoint(a.offset, bytes_of(one.type), b.offset, bytes_of(other.type))
        elif a.storage.kind in ("input", "output"):
            return
        else:
            first, second = a.storage, b.storage
            ok = self.disjoint(first.offset, first.bytes, second.offset, second.bytes)
        if not ok:
            raise _clash(one.name or one.type, other.name or other.type, why)

    def part(self, one: Value, other: Value) -> bool:
        """Whether one value is written as a part of the other."""
        whole = self.stacks.get(one)
        while whole is not None and whole is not other:
            whole = self.stacks.get(whole)
        return whole is other

    def disjoint(self, *spans: DimLike) -> bool:
        """Whether two ranges (offset, size, offset, size) do not meet, as the extents say."""
        named = [replace_atoms(e, self.names) for e in spans] if self.names else list(spans)
        return disjoint(named[0], named[1], named[2], named[3], self.ranges)

    # Regions -------------------------------------------------------------------------------------

    def branch(self, op: Op, live: set[Value], after: set[Value], uses: set[Value]) -> set[Value]:
        """Results are what a branch yields: at its end they are written while the rest lives on."""
        found = after | uses
        for region in op.regions:
            self.becomes(region, op.results)
            self.moved(region, op.results, after)
            found |= self.block(region, set(after))
        return found

    def loop(self, op: Op, live: set[Value], after: set[Value], uses: set[Value]) -> set[Value]:
        """Carried values move to the arguments at the end of an iteration; outer values used inside
        live throughout.
        """
        inits, scanned, body = _parts(op)
        count = len(inits)
        outer = after | scanned | self.used_inside(op)
        args = body.args[1:] if op.name == "for" else body.args[:count]
        self.stacks.update(zip(args, op.results))
        for arg, value in zip(args, op.results, strict=False):
            if arg in self.places and value in self.places and not self.same_place(arg, value):
                raise _clash(
                    arg.name or arg.type,
                    value.name or value.type,
                    "a loop's result lies elsewhere than its value",
                )
            for other in (*outer, *self.constant, *[a for a in args if a is not arg]):
                self.apart(arg, other, "a loop overwrites a value that is still needed")
        assert body.last is not None
        self.becomes(body, op.results)
        for value, stack in zip(body.last.operands[count:], op.results[count:], strict=True):
            self.stacks[root(value)] = stack
        around = outer | set(op.results[count:])
        for region in op.regions:
            if region is body:
                self.moved(region, args, around)
                self.block(region, set(around))
            else:
                self.block(region, around | set(region.args))
        return (outer - set(op.results)) | uses

    def becomes(self, region: Block, results: Sequence[Value]) -> None:
        """What a region makes and yields may be written where the results are, slice of a stack as
        they may be.
        """
        assert region.last is not None
        for value, result in zip(region.last.operands, results, strict=True):
            made = root(value)
            if made.op is not None and made.op.block is region:
                self.stacks[made] = result

    def moved(self, region: Block, targets: Sequence[Value], live: set[Value]) -> None:
        """At the end of a region the first yielded values become `targets`."""
        assert region.last is not None
        yielded = [root(v) for v in region.last.operands[: len(targets)]]
        for target in targets:
            for other in live:
                self.apart(
                    target, other, "the end of a region overwrites a value that is still needed"
                )
            for other, place in zip(yielded, targets, strict=True):
                if place is not target and self.same_place(other, place):
                    self.apart(
                        target,
                        other,
                        "a value that has reached its place is overwritten by another",
                    )

    def used_inside(self, op: Op) -> set[Value]:
        """Values from outside that the regions read."""
        inside = {v for o in op.walk() for v in o.results if o is not op}
        inside |= {a for o in op.walk() for r in o.regions for a in r.args}
        used = {root(v) for o in op.walk() if o is not op for v in o.operands if v is not None}
        return used - inside


def _parts(op: Op) -> tuple[Sequence[Value], set[Value], Block]:
    """(initial carried values, scanned values, body) of a loop."""
    if op.name == "scan":
        carried = op.carried  # type: ignore[attr-defined]
        return op.operands[:carried], {root(v) for v in op.operands[carried:]}, op.regions[0]
    if op.name == "for":
        return op.operands[1:], set(), op.regions[0]
    return op.operands, set(), op.regions[1]


_REGIONS = {
    "if": _Checker.branch,
    "for": _Checker.loop,
    "while": _Checker.loop,
    "scan": _Checker.loop,
}

__all__ = ["Proof", "disjoint", "verify_layout", "verify_places"]
