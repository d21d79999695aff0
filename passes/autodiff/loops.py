"""Loops in reverse: a scan over the slices in the other order, with what the rounds left behind.

The other loops become scans first: a `for` of known length, a bounded `for` and a `while` with
`max_trip` as rounds that may do nothing.  Cotangents of carried values are carried, those of slices
are stacked, those of outer values are sums carried along, in f32 where theirs is narrower.
May import: ir, passes.rules, its siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...ir.core import Block, Builder, Op, Value
from ...ir.dims import DimLike
from ...ir.errors import Error
from ...ir.ops.contract import as_type
from ...ir.ops.control import ForLoop, If, Scan, While, inlined
from ...ir.ops.convert import compute_dtype
from ...ir.ops.core import Yield, zeros
from ...ir.rewrite import uses_outside
from ...ir.types import TensorType, i64
from ..rules.dims import dims_held
from ..rules.values import constant
from .activity import differentiable, moved_by, needed_for
from .regions import Apart, Cotangent, Pullback, grow, taken_apart
from .sums import taken_later


@dataclass
class _Round:
    """What of a scan's round is active: outer values, argument indices, carried and stacked
    results.
    """

    captured: list[Value]
    args: set[int]
    carried: list[int]
    stacks: list[int]


def reverse_scan(
    b: Builder, op: Scan, gs: Sequence[Cotangent], moved: set[Value], pullback: Pullback
) -> list[tuple[Value, Cotangent]]:
    """The scan that runs backward, and what it gives for each value that the scan reads."""
    live = _active(op, gs, moved)
    args = op.body.args
    slices = [k for k in range(op.carried, len(args)) if k in live.args]
    given = [k in live.carried or k in live.stacks for k in range(len(op.results))]
    wrt = [*[args[k] for k in (*live.carried, *slices)], *live.captured]
    part = taken_apart(op.body, given, wrt, pullback, invariant=True)
    residuals = _hand_over(op, part)
    n, m = len(live.carried), len(slices)
    sums = [k for k, g in enumerate(part.found[n + m :]) if g is not None]
    stacked = [k for k in range(m) if part.found[n + k] is not None]
    inits = [gs[k] or zeros(b, op.results[k].tensor) for k in live.carried]
    inits += [zeros(b, _wide(live.captured[k].tensor)) for k in sums]
    scanned = [g for k in live.stacks if (g := gs[k]) is not None] + residuals
    block = _reverse_body(op, part, live, sums, [n + k for k in stacked])
    later = taken_later(block, n, len(sums))
    inits = [v for k, v in enumerate(inits) if k - n not in later]
    made = b.insert(
        Scan(
            *inits, *scanned, carried=len(inits), length=op.trips, reverse=not op.reverse,
            regions=[block], loc=op.loc,
        )
    )  # fmt: skip
    results = iter(made.results)
    pairs = [(op.operands[k], next(results)) for k in live.carried]
    whole = dict(enumerate(made.operands)), dict(enumerate(made.results))
    for at, k in enumerate(sums):
        total = later[at].taken(b, *whole) if at in later else next(results)
        pairs.append((live.captured[k], total))
    pairs += [(op.operands[slices[k]], next(results)) for k in stacked]
    return [(v, g) for v, g in pairs if v in moved]


def _active(op: Scan, gs: Sequence[Cotangent], moved: set[Value]) -> _Round:
    """What carries a derivative: forward from moved values, then backward from the cotangents, each
    around the loop until nothing is added.
    """
    args, last, n = op.body.args, op.body.last, op.carried
    assert last is not None
    captured = [v for v in uses_outside(op.body) if v in moved]
    active = {k for k, v in enumerate(op.operands) if v in moved}
    while True:
        ops, inner = moved_by(op.body, [*captured, *[args[k] for k in active]])
        more = {k for k in range(n) if last.operands[k] in inner and differentiable(args[k])}
        if more <= active:
            break
        active |= more
    stacks = [k for k in range(n, len(gs)) if gs[k] is not None and last.operands[k] in inner]
    carried = {k for k in range(n) if gs[k] is not None and k in active}
    while True:
        outputs = [last.operands[k] for k in (*carried, *stacks)]
        needed = needed_for(ops, outputs, inner)[1]
        more = {k for k in range(n) if args[k] in needed}
        if more <= carried:
            return _Round(captured, active, sorted(carried), stacks)
        carried |= more


def _hand_over(op: Scan, part: Apart) -> list[Value]:
    """The values that the reverse scan runs over for those that a round needs: what is scanned
    or stacked already, and further stacks of the forward scan.
    """
    last, n = op.body.last, op.carried
    assert last is not None
    there = dict(zip(last.operands[n:], op.results[n:], strict=True))
    there |= dict(zip(op.body.args[n:], op.scanned, strict=True))
    kept = [v for v in part.needs if v not in there]
    last.set_operands([*last.operands, *kept])
    types = [TensorType(v.tensor.dtype, (op.trips, *v.tensor.shape)) for v in kept]
    there |= dict(zip(kept, grow(op, types), strict=True))
    return [there[v] for v in part.needs]


def _reverse_body(
    op: Scan, part: Apart, live: _Round, sums: Sequence[int], stacked: Sequence[int]
) -> Block:
    """One round backward: its arguments, and what it yields."""
    block = part.block
    n, given = len(live.carried), block.args
    block.args = ()
    carried = [block.add_arg(op.results[k].type) for k in live.carried]
    totals = [block.add_arg(_wide(live.captured[k].tensor)) for k in sums]
    slices = [block.add_arg(v.type) for v in given[n:]]
    needed = [block.add_arg(v.type) for v in part.needs]
    part.rewire(dict(zip([*given, *part.needs], [*carried, *slices, *needed], strict=True)))
    b = Builder(block, loc=op.loc)
    outs = [g or zeros(b, a.tensor) for g, a in zip(part.found, carried)]
    first = len(part.found) - len(live.captured)
    for total, k in zip(totals, sums, strict=True):
        g = part.found[first + k]
        assert g is not None
        outs.append(b.add(total, as_type(b, g, total.tensor.dtype)))
    b.emit(Yield, *outs, *[g for k in stacked if (g := part.found[k]) is not None])
    return block


def _wide(type: TensorType) -> TensorType:
    """The type in which cotangents of this type are added up."""
    return TensorType(compute_dtype(type.dtype), type.shape)


def for_as_scan(op: ForLoop, b: Builder) -> Sequence[Value]:
    """A `for` as a scan over its index; one whose count is a bounded number as rounds that do
    nothing from there on.  Errors: E0602 the count has no bound.
    """
    trip, count = op.trip, op.count
    if count is not None:
        held = dims_held(count)
        trip, count = (held[0], None) if held is not None else (_bound(count), count)
    if trip is None:
        raise Error(
            "E0602",
            "a for loop whose count is known only at run time has no reverse",
            where=op.place(),
            details=(_WHY,),
            hint="bound it (count = min(n, 64)), or wrap what it reads in stop_gradient",
        )
    if isinstance(trip, int):
        trip = max(0, trip)

    def body(inner: Builder, *args: Value) -> Sequence[Value]:
        *carried, index = args
        if count is None:
            return inlined(inner, op.body, [index, *carried])
        go = inner.lt(index, count)
        return _guarded(inner, go, carried, lambda c: inlined(c, op.body, [index, *carried]))

    indices = b.iota(shape=(trip,), axis=0, dtype=i64)
    return b.insert(Scan.make(op.inits, [indices], body, length=trip, loc=op.loc)).results


def _bound(count: Value) -> DimLike | None:
    """The constant that a count is the minimum with."""
    made = count.op
    if made is None or made.name != "min":
        return None
    found = [constant(v) for v in made.operands]
    return next((int(c) for c in found if c is not None), None)


def while_as_scan(op: While, b: Builder) -> Sequence[Value]:
    """A bounded `while` as a scan whose rounds do nothing once the test has failed.

    Errors: E0602 there is no bound.
    """
    if op.max_trip is None:
        raise Error(
            "E0602",
            "a while loop without max_trip has no reverse",
            where=op.place(),
            details=(_WHY,),
            hint="give max_trip, or wrap what it reads in stop_gradient",
        )

    def body(inner: Builder, *carried: Value) -> Sequence[Value]:
        (go,) = inlined(inner, op.before, carried)
        return _guarded(inner, go, carried, lambda c: inlined(c, op.body, carried))

    scan = Scan.make(op.operands, [], body, length=op.max_trip, loc=op.loc)
    return b.insert(scan).results


def _guarded(
    b: Builder, go: Value, carried: Sequence[Value], body: Callable[[Builder], Sequence[Value]]
) -> Sequence[Value]:
    """What `body` gives where `go` holds, else the carried values."""
    return b.insert(If.make(go, body, lambda _: carried)).results


_WHY = "the reverse needs what every round leaves behind, so there must be a bound on their number"

AS_SCAN: dict[type[Op], Callable[..., Sequence[Value]]] = {
    ForLoop: for_as_scan,
    While: while_as_scan,
}
"""Loops that are differentiated as the scan that they are made first."""

__all__ = ["AS_SCAN", "for_as_scan", "reverse_scan", "while_as_scan"]
