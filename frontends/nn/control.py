"""Flow that depends on data: `cond`, `scan`, `while_loop`.

Eager they run as Python, each round recorded; in a trace they are the IR's region ops, whose bodies
may use everything around them.  State that a body assigns (buffers, the random counter) is carried
along.  May import: ir, its siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...ir.core import Block, Op, Value
from ...ir.dims import DimLike, equal
from ...ir.errors import Error
from ...ir.ops.control import If, Scan, While
from ...ir.ops.core import Yield
from ...ir.types import TensorType, Type
from .creation import zeros
from .dispatch import STATE, Base, as_tensor, here
from .functions import truth
from .shaping import reshape, stack
from .tensor import Tensor
from .tracing import Change, Trace, tracing
from .trees import Tree, flatten, paths, unflatten

Function = Callable[..., Any]


class Body:
    """A region filled by a function: the block, how its results are arranged, what it assigned."""

    def __init__(self, block: Block, tree: Tree, types: list[Type], changes: list[Change]) -> None:
        self.block, self.tree, self.types, self.changes = block, tree, types, changes


def fill(
    trace: Trace,
    types: Sequence[Type],
    run: Callable[[list[Tensor]], Any],
    entries: Sequence[Change] = (),
    places: Sequence[Change] = (),
) -> Body:
    """A region with arguments of these types; `run` gives what it yields.

    `entries` are further arguments in front: the region's own values of tables.  `places` are the
    table entries whose last values it yields behind the rest (in front, where they are entries).
    """
    taken = [c.before.type for c in entries]
    with trace.region([*taken, *types]) as frame, trace.scoped() as changes:
        own = [trace.tensor(v) for v in frame.block.args]
        for change, t in zip(entries, own):
            trace.note(change.table, change.name)
            change.table[change.name] = t
        leaves, tree = flatten(run(own[len(entries) :]))
        values = [trace.value(as_tensor(x)) for x in leaves]
        extra = [trace.value(c.table[c.name]) for c in (entries or places)]
        trace.b.emit(Yield, *((*extra, *values) if entries else (*values, *extra)))
    return Body(frame.block, tree, [v.type for v in values], changes)


def carry_on(trace: Trace, changes: Sequence[Change], values: Sequence[Value]) -> None:
    """Put the results that are state in their tables."""
    for change, value in zip(changes, values, strict=True):
        trace.note(change.table, change.name)
        change.table[change.name] = trace.tensor(value)


def united(*lists: Sequence[Change]) -> list[Change]:
    """The table entries that any of the regions assigned, each once."""
    found: dict[tuple[int, str], Change] = {}
    for changes in lists:
        for change in changes:
            found.setdefault((id(change.table), change.name), change)
    return list(found.values())


def insert(trace: Trace, op: Op) -> list[Tensor]:
    """Append a region op; its results."""
    return [trace.tensor(r) for r in trace.b.insert(op).results]


def cond(pred: Any, then: Function, otherwise: Function, *operands: Any) -> Any:
    """What `then(*operands)` gives where `pred` (one bool) is true, else `otherwise(*operands)`.

    Both give results of the same arrangement and types (E0623).  Where `pred` has a value, the
    function chosen is simply called.
    """
    trace = STATE.trace
    leaves, tree = flatten(operands)
    operands = unflatten(tree, [as_tensor(x) for x in leaves])
    known = not isinstance(pred, Base) or (pred.value is None and not pred.is_state)
    if trace is None or known:
        return then(*operands) if bool(pred) else otherwise(*operands)
    condition = trace.value(reshape(truth(pred), ()))

    def both(places: Sequence[Change]) -> list[Body]:
        def run(function: Function) -> Body:
            return fill(trace, (), lambda _: function(*operands), (), places)

        return [run(then), run(otherwise)]

    bodies = both(())
    places = united(*[b.changes for b in bodies])
    if places:
        bodies = both(places)
    first, second = bodies
    if first.tree != second.tree:
        raise Error(
            "E0623", "cond: the branches give results that are arranged differently", where=here()
        )
    _same_types("cond: the branches differ", first.types, second.types, ("then", "otherwise"))
    found = insert(trace, If(condition, regions=[first.block, second.block], loc=here()))
    count = len(first.types)
    carry_on(trace, places, [trace.value(t) for t in found[count:]])
    return unflatten(first.tree, found[:count])


def _same_types(
    what: str, want: Sequence[Type], found: Sequence[Type], names: tuple[str, str],
    labels: Sequence[str] = (),
) -> None:  # fmt: skip
    """E0623 unless the types are equal."""
    for k, (a, c) in enumerate(zip(want, found)):
        if a is not c:
            label = labels[k] if k < len(labels) and labels[k] else f"result {k}"
            raise Error(
                "E0623", f"{what} in {label}", where=here(),
                details=(f"{names[0]}: {a}", f"{names[1]}: {c}"),
                hint="cast or reshape one of them",
            )  # fmt: skip


def scan(
    body: Function, init: Any, xs: Any = None, length: DimLike | None = None, reverse: bool = False
) -> tuple[Any, Any]:
    """Run `body(carry, x) -> (carry, y)` on each slice of `xs` along axis 0.

    Gives the last carry and the y's stacked (in the order of the slices, also with `reverse`).
    Carry, x and y may be containers; without `xs` say the `length`, and x is None.  The carry keeps
    its types.  Errors: E0623.
    """
    leaves, tree = flatten(xs)
    slices = [as_tensor(x) for x in leaves]
    trips = _trips(slices, length)
    if STATE.trace is None:
        return _python_scan(body, init, slices, tree, trips, reverse)
    return _traced_scan(
        STATE.trace, body, init, slices, tree, length if not slices else None, reverse
    )


def _trips(slices: Sequence[Tensor], length: DimLike | None) -> Any:
    given = [] if length is None else [length]
    lengths = given + [x.type.shape[0] for x in slices if x.ndim]
    if not lengths or any([x.ndim == 0 for x in slices]):
        raise Error(
            "E0623", "scan: there is nothing to run over", where=here(),
            hint="xs with an axis, or length=",
        )  # fmt: skip
    for other in lengths[1:]:
        if equal(lengths[0], other) is False:
            raise Error(
                "E0623", "scan: lengths differ", where=here(),
                details=(f"found {', '.join([str(e) for e in lengths])}",),
            )  # fmt: skip
    return lengths[0]


def _pair(found: Any) -> tuple[Any, Any]:
    if not isinstance(found, tuple) or len(found) != 2:
        raise Error(
            "E0623", "scan: the body must give (carry, y)", where=here(),
            details=(f"found {type(found).__name__}",), hint="return carry, None",
        )  # fmt: skip
    return found


def _python_scan(
    body: Function, init: Any, slices: list[Tensor], tree: Tree, trips: int, reverse: bool
) -> tuple[Any, Any]:
    """Round by round, each recorded."""
    start, arranged = flatten(init)
    kinds = [as_tensor(x).type for x in start]
    carry: Any = unflatten(arranged, [as_tensor(x) for x in start])
    rounds: list[Any] = [None] * trips
    shape: Any = None
    for k in range(trips)[:: -1 if reverse else 1]:
        carry, y = _pair(body(carry, unflatten(tree, [x[k] for x in slices])))
        _check_carry(carry, arranged, kinds, init)
        parts, shape = flatten(y)
        rounds[k] = [as_tensor(p) for p in parts]
    if not trips:
        return carry, _no_rounds(body, carry, slices, tree)
    stacked = [stack(column, 0) for column in zip(*rounds, strict=True)]
    return carry, unflatten(shape, stacked)


def _no_rounds(body: Function, carry: Any, slices: list[Tensor], tree: Tree) -> Any:
    """The y's of no round: their types come from a trace that is thrown away."""
    leaves, arranged = flatten(carry)
    with tracing(Trace({})) as trace:
        own = [trace.tensor(trace.block.add_arg(t.type)) for t in leaves]
        kinds = [TensorType(x.type.dtype, x.type.shape[1:]) for x in slices]
        given = [trace.tensor(trace.block.add_arg(t)) for t in kinds]
        try:
            y = _pair(body(unflatten(arranged, own), unflatten(tree, given)))[1]
            parts, shape = flatten(y)
            types = [as_tensor(p).type for p in parts]
        finally:
            trace.restore()
    return unflatten(shape, [zeros((0, *t.shape), dtype=t.dtype) for t in types])


def _check_carry(carry: Any, arranged: Tree, kinds: Sequence[TensorType], init: Any) -> None:
    """E0623 where the carry is not what it was."""
    leaves, tree = flatten(carry)
    if tree != arranged:
        raise Error("E0623", "scan: the carry is arranged otherwise than init", where=here())
    found = [as_tensor(x).type for x in leaves]
    _same_types(
        "the carry changes its type", kinds, found, ("before", "after"), paths(init, "carry")
    )


def _traced_scan(
    trace: Trace, body: Function, init: Any, slices: list[Tensor], tree: Tree,
    length: DimLike | None, reverse: bool,
) -> tuple[Any, Any]:  # fmt: skip
    """A scan whose region is the body, traced once."""
    start, arranged = flatten(init)
    carried = [as_tensor(x) for x in start]
    kinds = [t.type for t in carried]
    types = [*kinds, *[TensorType(x.type.dtype, x.type.shape[1:]) for x in slices]]

    def run(own: list[Tensor]) -> Any:
        count = len(carried)
        found = _pair(body(unflatten(arranged, own[:count]), unflatten(tree, own[count:])))
        _check_carry(found[0], arranged, kinds, init)
        return found

    made = fill(trace, types, run)
    places = united(made.changes)
    if places:
        made = fill(trace, types, run, entries=places)
    inits = [trace.value(c.before) for c in places] + [trace.value(t) for t in carried]
    op = Scan(
        *inits, *[trace.value(x) for x in slices], carried=len(inits), length=length,
        reverse=reverse, regions=[made.block], loc=here(),
    )  # fmt: skip
    found = insert(trace, op)
    carry_on(trace, places, [trace.value(t) for t in found[: len(places)]])
    return unflatten(made.tree, found[len(places) :])  # type: ignore[no-any-return]


def while_loop(
    condition: Function, body: Function, init: Any, max_trip: DimLike | None = None
) -> Any:
    """Run `body(*values) -> values` as long as `condition(*values)`, at most `max_trip` times.

    `init` is a tuple or list of values (or one value alone); the result is arranged as it.  The
    values keep their types.  A gradient in a trace needs `max_trip`.  Errors: E0623.
    """
    alone = not isinstance(init, (tuple, list))
    values = (init,) if alone else tuple(init)

    def step(own: Sequence[Any]) -> tuple[Any, ...]:
        found = body(*own)
        return (found,) if alone else tuple(found)

    if STATE.trace is None:
        found = _python_while(condition, step, values, max_trip)
    else:
        found = _traced_while(STATE.trace, condition, step, values, max_trip)
    return found[0] if alone else type(init)(found)


def _python_while(condition: Function, step: Function, values: Any, max_trip: Any) -> Any:
    leaves, tree = flatten(values)
    kinds = [as_tensor(x).type for x in leaves]
    values = unflatten(tree, [as_tensor(x) for x in leaves])
    init, rounds = values, 0
    while (max_trip is None or rounds < max_trip) and bool(condition(*values)):
        values = step(values)
        _check_carry(values, tree, kinds, init)
        rounds += 1
    return values


def _traced_while(
    trace: Trace, condition: Function, step: Function, values: Any, max_trip: Any
) -> Any:
    leaves, tree = flatten(values)
    carried = [as_tensor(x) for x in leaves]
    kinds = [t.type for t in carried]

    def test(own: list[Tensor]) -> Any:
        return reshape(truth(condition(*unflatten(tree, own))), ())

    def run(own: list[Tensor]) -> Any:
        found = step(unflatten(tree, own))
        _check_carry(found, tree, kinds, values)
        return found

    places = united(fill(trace, kinds, run).changes)
    body = fill(trace, kinds, run, entries=places)
    before = _test_region(trace, kinds, test, places)
    inits = [trace.value(c.before) for c in places] + [trace.value(t) for t in carried]
    op = While(*inits, max_trip=max_trip, regions=[before, body.block], loc=here())
    found = insert(trace, op)
    carry_on(trace, places, [trace.value(t) for t in found[: len(places)]])
    return unflatten(tree, found[len(places) :])


def _test_region(
    trace: Trace, kinds: Sequence[Type], test: Function, places: Sequence[Change]
) -> Block:
    """The region that yields whether to go on; it may assign no state."""
    types = [*[c.before.type for c in places], *kinds]
    with trace.region(types) as frame, trace.scoped() as changes:
        own = [trace.tensor(v) for v in frame.block.args]
        for change, t in zip(places, own):
            change.table[change.name] = t
        trace.b.emit(Yield, trace.value(test(own[len(places) :])))
        for change, t in zip(places, own):
            if change.table[change.name] is not t:
                raise Error(
                    "E0623", f"while_loop: the condition assigns '{change.name}'", where=here(),
                    hint="do that in the body",
                )  # fmt: skip
    taken = {(id(c.table), c.name) for c in places}
    if any([(id(c.table), c.name) not in taken for c in changes]):
        raise Error("E0623", "while_loop: the condition assigns state", where=here())
    return frame.block


__all__ = ["cond", "scan", "while_loop"]
