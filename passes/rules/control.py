"""Control flow whose outcome is known: constant conditions, loops of no or one round, what does not
change; and views of what is computed again.

May import: ir, the values and dims beside it.
"""

from __future__ import annotations

import numpy as np

from ...ir.core import Builder, Op, Value
from ...ir.ops.control import inlined
from ...ir.ops.core import Const
from .dims import dims_held
from .values import RuleTable, classes, constant, make_constant, table


def constant_if(op: Op, b: Builder) -> list[Value] | None:
    """An `if` whose condition is constant is one of its regions."""
    condition = constant(op.operands[0])
    if condition is None:
        return None
    return inlined(b, op.regions[0] if bool(condition) else op.regions[1], ())


def same_if(op: Op, b: Builder) -> list[Value] | None:
    """An `if` both of whose regions only yield the same outer values."""
    if any([block.size != 1 for block in op.regions]):
        return None
    first, second = [block.last.operands for block in op.regions]  # type: ignore[union-attr]
    return list(first) if first == second else None


def known_trip(op: Op, b: Builder) -> list[Value] | None:
    """A `for` with a constant count gets it as attribute; of no or one round it goes."""
    count, *inits = op.operands
    trip = op.attributes["trip"]
    if trip is None and count is not None and (held := dims_held(count)) is not None:
        trip = held[0]
    if isinstance(trip, int) and trip <= 0:
        return inits
    if trip == 1:
        zero = b.insert(Const(np.zeros((), np.int64))).result
        return inlined(b, op.regions[0], [zero, *inits])
    if count is None or trip is None:
        return None
    made = b.insert(type(op)(None, *inits, trip=trip, regions=[op.regions[0].copy()], loc=op.loc))  # type: ignore[arg-type]
    return list(made.results)


def single_scan(op: Op, b: Builder) -> list[Value] | None:
    """A scan over one slice is its region."""
    if getattr(op, "trips", None) != 1:
        return None
    carried = op.attributes["carried"]
    slices = [b.reshape(v, shape=v.tensor.shape[1:]) for v in op.operands[carried:]]
    given = inlined(b, op.regions[0], [*op.operands[:carried], *slices])
    stacked = [b.reshape(v, shape=(1, *v.tensor.shape)) for v in given[carried:]]
    return [*given[:carried], *stacked]


def never_entered(op: Op, b: Builder) -> list[Value] | None:
    """A `while` whose test is false before the first round, or that may run no round."""
    last = op.regions[0].last
    assert last is not None
    test = constant(last.operands[0])
    if op.attributes["max_trip"] == 0 or (test is not None and not bool(test)):
        return list(op.operands)
    return None


_CARRIED = {"for": (1, 1), "scan": (0, 0), "while": (0, 0)}
"""Per op: the first operand that is carried, and the first region argument that is."""


def unchanged_carried(op: Op, b: Builder) -> list[Value] | None:
    """A carried value that each round passes on as it came is the same in and behind the loop."""
    first, arg = _CARRIED[op.name]
    body = op.regions[-1]
    assert body.last is not None
    count = op.attributes["carried"] if op.name == "scan" else len(op.operands) - first
    for k in range(count):
        inside = body.args[arg + k]
        if body.last.operands[k] is not inside:
            continue
        init = op.operands[first + k]
        used = [
            block.args[arg + k]
            for block in op.regions
            if block.args[arg + k].users not in ((), (body.last,))
        ]
        behind = op.results[k].users
        if not used and not behind:
            continue
        for value in used:
            users = [u for u in value.users if u is not body.last]
            for user in users:
                user.set_operands([init if v is value else v for v in user.operands])
        if used:
            keep = list(body.last.operands)
            keep[k] = inside
            body.last.set_operands(keep)
        op.results[k].replace_by(init)
        return _again(op, b)
    return None


def _again(op: Op, b: Builder) -> list[Value]:
    """A copy of `op`, so that the worklist sees the change."""
    made = b.insert(op.copy({}))
    return list(made.results)


def drop_unused_carried(op: Op, b: Builder) -> list[Value] | None:
    """A carried value used only to carry itself on, and not behind the loop, goes; so does an
    unused stack.
    """
    first, arg = _CARRIED[op.name]
    body = op.regions[-1]
    assert body.last is not None
    carried = op.attributes["carried"] if op.name == "scan" else len(op.operands) - first
    for k in range(len(op.results)):
        if op.results[k].users:
            continue
        if k < carried:
            alone = all([set(block.args[arg + k].users) <= {body.last} for block in op.regions])
            passed = sum([v is body.args[arg + k] for v in body.last.operands])
            if not alone or passed != (body.last.operands[k] is body.args[arg + k]):
                continue
        return _without(op, b, k, carried, first, arg)
    return None


def _without(op: Op, b: Builder, k: int, carried: int, first: int, arg: int) -> list[Value]:
    """The loop without result `k` (and, where that is carried, its operand and arguments)."""
    made = op.copy({})
    operands = list(made.operands)
    last = made.regions[-1].last
    assert last is not None
    last.set_operands([v for j, v in enumerate(last.operands) if j != k])
    if k < carried:
        del operands[first + k]
        for block in made.regions:
            block.args = tuple([v for j, v in enumerate(block.args) if j != arg + k])
            for j, v in enumerate(block.args):
                v.index = j
    attrs = dict(op.attributes)
    if op.name == "scan":
        attrs["carried"] = carried - (k < carried)
        if k < carried or len(operands) == attrs["carried"]:
            attrs["length"] = op.trips  # type: ignore[attr-defined]
    blocks = made.regions
    made.regions = ()
    made.set_operands(())
    new = b.insert(type(op)(*operands, loc=op.loc, regions=blocks, **attrs))
    results = list(new.results)
    results.insert(k, operands[0] if operands and operands[0] is not None else op.operands[-1])
    return results


def drop_unused_slices(op: Op, b: Builder) -> list[Value] | None:
    """Values scanned whose slices nobody reads are not scanned."""
    first = op.attributes["carried"]
    unused = {k for k, v in enumerate(op.regions[0].args) if k >= first and not v.users}
    if not unused:
        return None
    attrs = dict(op.attributes, length=op.trips)  # type: ignore[attr-defined]
    body = op.regions[0].copy({})
    body.args = tuple([v for k, v in enumerate(body.args) if k not in unused])
    for k, v in enumerate(body.args):
        v.index = k
    operands = [v for k, v in enumerate(op.operands) if k not in unused]
    return list(b.insert(type(op)(*operands, loc=op.loc, regions=[body], **attrs)).results)


def constant_results(op: Op, b: Builder) -> list[Value] | None:
    """Results of an `if` that both regions give as the same outer value, or as equal constants, are
    that value.
    """
    then, other = [block.last.operands for block in op.regions]  # type: ignore[union-attr]
    for k, (x, y) in enumerate(zip(then, other, strict=True)):
        if not op.results[k].users:
            continue
        outer = x is y
        if not outer:
            a, c = constant(x), constant(y)
            if (
                a is None
                or c is None
                or a.nbytes > 256
                or x.type is not y.type
                or a.tobytes() != c.tobytes()
            ):
                continue
            value = make_constant(b, a, x.tensor)
        else:
            value = x
        op.results[k].replace_by(value)
        return _again(op, b)
    return None


def drop_unused_branch_values(op: Op, b: Builder) -> list[Value] | None:
    """Results of an `if` that nobody uses are not yielded."""
    unused = [k for k, r in enumerate(op.results) if not r.users]
    if not unused or len(unused) == len(op.results):
        return None
    made = op.copy({})
    for block in made.regions:
        assert block.last is not None
        block.last.set_operands([v for k, v in enumerate(block.last.operands) if k not in unused])
    blocks = made.regions
    made.regions = ()
    made.set_operands(())
    new = b.insert(type(op)(op.operands[0], loc=op.loc, regions=blocks))
    kept = iter(new.results)
    return [op.operands[0] if k in unused else next(kept) for k in range(len(op.results))]


_RENAMING = frozenset({"broadcast_to", "pack", "reshape", "transpose", "unpack"})


def held_view(op: Op, b: Builder) -> Value | None:
    """What is seen again of a view is a view of what is seen again."""
    x, *after = op.operands
    view = x.op
    if view is None or view.name not in _RENAMING:
        return None
    held = b.recompute(view.operands[0], *after, **op.attributes)
    return b.emit(type(view), held, **view.attributes)  # type: ignore[no-any-return]


def control_rules() -> RuleTable:
    """The table of this file."""
    return table(
        (classes("if"), [constant_if, same_if, constant_results, drop_unused_branch_values]),
        (classes("for"), [known_trip]),
        (classes("scan"), [single_scan, drop_unused_slices]),
        (classes("while"), [never_entered]),
        (classes("recompute"), [held_view]),
        (classes("for", "scan", "while"), [unchanged_carried, drop_unused_carried]),
    )


__all__ = ["control_rules", "held_view"]
