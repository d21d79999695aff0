"""How `if`, `for`, `while` and `scan` are planned: structurally, with carried values in storages of
their own.

A carried value keeps one storage through all iterations: that of its initial value where it dies
here, else a new one, filled by a copy.  The body writes the next value there at once where the old
one is no longer read. May import: ir, lifetimes, places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..ir.core import Block, Builder, Op, Value
from ..ir.dims import DimLike, sym
from ..ir.errors import UnsupportedError
from ..ir.ops.control import ForLoop, If, Scan, While
from ..ir.ops.core import Const, Yield
from ..ir.ops.loop import Bind, For, IndexValue, Load, Store, When
from ..ir.ops.loop import While as LoopWhile
from ..ir.types import TensorType, i64
from .lifetimes import root
from .places import Place, bytes_of

if TYPE_CHECKING:
    from .plan import Planner

_MOST_TRIPS = 1 << 62


def plan_if(p: Planner, op: Op) -> None:
    """Both branches write the results to the same places."""
    assert isinstance(op, If)
    condition = p.b.emit(Load, p.place(op.condition).buffer, index=())
    places = [_result(p, op, v) for v in op.results]
    when = p.b.insert(When(condition, regions=[Block(), Block()], loc=op.loc))
    outer = p.b
    for region, block in zip(op.regions, when.regions, strict=True):
        p.b = Builder(block)
        _region(
            p, region, places, [None] * len(places), "a branch yields a value that it does not make"
        )
    p.b = outer


def plan_for(p: Planner, op: Op) -> None:
    """The count is a dim, or read from memory when the loop begins."""
    assert isinstance(op, ForLoop)
    var = _variable(p)
    places = _carry(p, op, op.inits, op.results)
    extent = op.trip
    if op.count is not None:
        count = p.b.emit(Load, p.place(op.count).buffer, index=())
        symbol = f"{var}.count"
        p.b.emit(
            Bind,
            p.b.max(count, p.b.insert(Const(0, i64)).result),
            symbol=symbol,
            extent=_MOST_TRIPS,
        )
        extent = sym(symbol)
    loop = p.b.insert(For.make(var, extent))
    outer, p.b = p.b, Builder(loop.body)
    index = op.body.args[0]
    if index.users:
        place = p.places[index] = p.fresh(index.type, p.times.start[op], p.times.stop[op], "index")
        place.storage.pinned = True
        p.b.emit(Store, p.b.emit(IndexValue, value=sym(var)), place.buffer, index=())
    _body(p, op.body, op.body.args[1:], places)
    p.b = outer
    _release(p, places)


def plan_while(p: Planner, op: Op) -> None:
    """The test is planned into the loop's header."""
    assert isinstance(op, While)
    var = _variable(p)
    places = _carry(p, op, op.inits, op.results)
    loop = p.b.insert(LoopWhile(var=var, regions=[Block(), Block()], loc=op.loc))
    outer, p.b = p.b, Builder(loop.before)
    for arg, place in zip(op.before.args, places, strict=True):
        p.places[arg] = place
    p.block(op.before)
    assert op.before.last is not None
    go: Value = p.b.emit(Load, p.place(op.before.last.operands[0]).buffer, index=())
    if op.max_trip is not None:
        rounds, most = p.b.emit(IndexValue, value=sym(var)), p.b.emit(IndexValue, value=op.max_trip)
        go = p.b.logical_and(go, p.b.lt(rounds, most))
    p.b.emit(Yield, go)
    p.b = Builder(loop.body)
    _body(p, op.body, op.body.args, places)
    p.b = outer
    _release(p, places)


def plan_scan(p: Planner, op: Op) -> None:
    """Slices are views whose offset moves with the loop; stacked results are written slice by
    slice.
    """
    assert isinstance(op, Scan)
    var = _variable(p)
    places = _carry(p, op, op.inits, op.results[: op.carried])
    stacks = [_result(p, op, v) for v in op.results[op.carried :]]
    at: DimLike = op.trips - 1 - sym(var) if op.reverse else sym(var)
    loop = p.b.insert(For.make(var, op.trips))
    outer, p.b = p.b, Builder(loop.body)
    for arg, whole in zip(op.body.args[op.carried :], op.scanned, strict=True):
        p.places[arg] = _slice(p, p.place(whole), arg.tensor, at)
    assert op.body.last is not None
    types = [v.tensor for v in op.body.last.operands[op.carried :]]
    slices = [_slice(p, stack, t, at) for stack, t in zip(stacks, types, strict=True)]
    _body(p, op.body, op.body.args[: op.carried], places, slices)
    p.b = outer
    _release(p, places)


def _variable(p: Planner) -> str:
    """A name for a loop of the plan."""
    p.loops += 1
    return f"plan.i{p.loops}"


def _slice(p: Planner, whole: Place, type: TensorType, at: DimLike) -> Place:
    if type.dtype.bits in (2, 4):
        raise UnsupportedError(
            "E0432",
            f"a scan over {type.dtype} values: slices do not begin at whole bytes",
            hint="cast to an 8-bit type first",
        )
    return p.memory.show(whole.storage, type, whole.offset + at * bytes_of(type), p.b.block)


def _result(p: Planner, op: Op, value: Value) -> Place:
    """The place of a result that regions write: its home, or new memory from the start of the op
    on.
    """
    place = p.homes.get(value) or p.fresh(
        value.type, p.times.start[op], p.times.dies(value), value.name
    )
    place.storage.need(p.times.start[op], p.times.dies(value))
    p.places[value] = place
    return place


def _carry(p: Planner, op: Op, inits: Sequence[Value], results: Sequence[Value]) -> list[Place]:
    """Places of the carried values, which hold the initial ones."""
    now = p.times.start[op]
    places: list[Place] = []
    pairs: list[tuple[Place, Place]] = []
    for init, value in zip(inits, results, strict=True):
        source = p.place(init)
        place = p.homes.get(value)
        if place is None and _may_keep(p, value, init, source, places):
            place = p.memory.show(source.storage, value.type)
        if place is None:
            place = p.fresh(value.type, now, now, value.name)
        place.storage.need(now, max(p.times.stop[op], p.times.dies(value)))
        p.places[value] = place
        places.append(place)
        pairs.append((source, place))
    p.copy_all(pairs, now, "the first value of a loop is still needed")
    for place in places:
        if place.storage.kind == "arena":
            place.storage.pinned = True
    return places


def _may_keep(p: Planner, value: Value, init: Value, source: Place, taken: Sequence[Place]) -> bool:
    """Whether the loop may change the initial value in its own memory."""
    storage = source.storage
    if storage.kind != "arena" or storage.pinned or not source.whole:
        return False
    dying = p.times.dies(root(init)) == p.times.start[value.owner]
    return dying and p.may_take(value, root(init)) and storage not in [t.storage for t in taken]


def _release(p: Planner, places: Sequence[Place]) -> None:
    """After the loop the memory of its results may be reused like any other."""
    for place in places:
        place.storage.pinned = place.storage.kind != "arena"


def _body(
    p: Planner,
    region: Block,
    args: Sequence[Value],
    places: Sequence[Place],
    slices: Sequence[Place] = (),
) -> None:
    """One iteration: carried values come and go in `places`, further yields go to `slices`."""
    for arg, place in zip(args, places, strict=True):
        p.places[arg] = place
    occupants = [*args, *[None] * len(slices)]
    _region(
        p,
        region,
        [*places, *slices],
        occupants,
        "the old value of a loop is read after the new one is made",
    )


def _region(
    p: Planner, region: Block, targets: Sequence[Place], occupants: Sequence[Value | None], why: str
) -> None:
    """Plan a region whose yields are wanted in `targets`."""
    last = region.last
    assert last is not None
    for value, target, occupant in zip(last.operands, targets, occupants, strict=True):
        p.promise(value, target, region, occupant)
    p.block(region)
    pairs = [(p.place(v), t) for v, t in zip(last.operands, targets, strict=True)]
    p.copy_all(pairs, p.times.start[last], why)


CONTROL: dict[str, Callable[[Planner, Op], None]] = {
    "if": plan_if,
    "for": plan_for,
    "while": plan_while,
    "scan": plan_scan,
}

__all__ = ["CONTROL"]
