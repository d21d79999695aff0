"""Merging generics: a pointwise producer moves into the body of the generic that reads it.

The producer's index maps are composed with the reader's.  Done where the producer's value is read
only there; a copy (a view) is moved into each of its readers.  A reader's fill is kept: what lies
outside the producer's result becomes an explicit guard, which needs the same fill in both or a
producer that copies. May import: ir.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...ir.core import Block, Loc, Op, Value
from ...ir.dims import DimLike, Range, nonneg, simplify, substitute, sym, symbols_of
from ...ir.ops.core import Const, Generic, Yield
from ...ir.symbols import map_dims

MOST_OPS = 64
"""Scalar ops in one body."""


def merge_generics(block: Block) -> int:
    """Merge producers into readers until nothing changes; gives the number of merges."""
    count = 0
    for op in reversed(list(block)):
        if not isinstance(op, Generic) or op.block is None:
            continue
        changed = True
        while changed:
            changed = False
            for k, value in enumerate(op.operands):
                producer = value.op
                if isinstance(producer, Const) and _becomes_scalar(op, k):
                    op = _merge_constant(producer, op, k)
                    _drop_unread(producer)
                    changed = True
                    break
                if isinstance(producer, Generic) and _mergeable(producer, op, k):
                    op = _merge(producer, op, k)
                    _drop_unread(producer)
                    count, changed = count + 1, True
                    break
    return count


def _becomes_scalar(reader: Generic, k: int) -> bool:
    """May a constant of one element stand in the body: read everywhere, it indexes nothing."""
    return not (reader.fills and reader.fills[k] is not None) and not _indexes(reader, k)


def _merge_constant(producer: Const, reader: Generic, k: int) -> Generic:
    """The reader with a constant of one element as a scalar of its body."""
    made = _Plan([], [], [], [])
    names = {f"_v{j}": sym(f"_v{j - 1}") for j in range(k + 1, len(reader.operands))}
    for j in range(len(reader.operands)):
        if j != k:
            _take(made, reader, j, names, ())
    types = [v.tensor.dtype for v in made.operands]
    block = Block(types)
    given = block.append(
        Const(producer.value.array.reshape(()).item(), producer.result.tensor.dtype)
    ).result
    args = [*reader.body.args[:k], *reader.body.args[k + 1 :]]
    env: dict[Value, Value] = dict(zip(args, block.args, strict=True))
    env[reader.body.args[k]] = given
    for op in reader.body:
        block.append(op.copy(env))
    _share_constants(block)
    return _replaced(reader, made, block, reader.loc)


def _replaced(reader: Generic, made: _Plan, body: Block, loc: Loc | None) -> Generic:
    """Put a generic with new operands and body in the reader's place."""
    keep = any([f is not None for f in made.fills])
    attrs = dict(
        reader.attributes,
        maps=tuple(made.maps),
        fills=tuple(made.fills) if keep else (),
        where=tuple(made.where) if any(made.where) else (),
    )
    others = [block.copy() for block in reader.regions[1:]]
    merged = Generic(*made.operands, loc=loc, regions=[body, *others], **attrs)
    assert reader.block is not None
    reader.block.insert_before(merged, reader)
    for old, new in zip(reader.results, merged.results, strict=True):
        new.name = old.name
    reader.replace_by(merged.results)
    return merged


def _drop_unread(op: Op) -> None:
    if not any([r.users for r in op.results]):
        op.erase()


def is_copy(op: Generic) -> bool:
    """The body gives an operand's element as it is."""
    last = op.body.last
    assert last is not None
    return (
        not op.reduction
        and op.body.size == 1
        and len(op.operands) == 1
        and last.operands == op.body.args
    )


def _mergeable(producer: Generic, reader: Generic, k: int) -> bool:
    """May the producer's body move into the reader, for operand k?"""
    if producer.reduction or len(producer.results) != 1 or producer.block is not reader.block:
        return False
    names = [name for name, _ in producer.parallel]
    if [str(e) for e in producer.out_maps[0]] != names:
        return False
    value = producer.results[0]
    uses = [j for j, v in enumerate(reader.operands) if v is value]
    if uses != [k] and not is_copy(producer):
        return False
    users = value.users
    if len(users) > 1 and not is_copy(producer):
        return False
    if any([isinstance(u, Yield) for u in users]) or (
        is_copy(producer) and not _readers_merge(users)
    ):
        return False
    if reader.body.size + producer.body.size > MOST_OPS:
        return False
    if not _keeps_gathered(producer, reader, k):
        return False
    if (
        reader.fills
        and reader.fills[k] is not None
        and not (is_copy(producer) and _fills_agree(producer, reader, k))
    ):
        return False
    if _gathers(reader) and (_gathers(producer) or (_indexes(reader, k) and not is_copy(producer))):
        return False
    if reader.reduction and not is_copy(producer) and len(reader.operands) > 1:
        return False  # a contraction would compute it again and again
    return not _repeats(producer, reader, k)


def _keeps_gathered(producer: Generic, reader: Generic, k: int) -> bool:
    """Is a dimension of operand k that a value indexes still a whole dimension when merged?

    The value is checked against the extent of the dimension that it indexes, which must not change.
    """
    shape = producer.results[0].tensor.shape
    for (name, _), e, extent in zip(producer.parallel, reader.maps[k], shape, strict=True):
        if not any([s.startswith("_v") for s in symbols_of(e)]):
            continue
        if not is_copy(producer):
            return False
        places = [d for d, f in enumerate(producer.maps[0]) if name in symbols_of(f)]
        source = producer.operands[0].tensor.shape
        if len(places) != 1 or producer.maps[0][places[0]] != sym(name):
            return False
        if source[places[0]] != extent:
            return False
    return True


def _repeats(producer: Generic, reader: Generic, k: int) -> bool:
    """Would the reader compute the same element of a costly producer many times?"""
    if is_copy(producer):
        return False
    seen: set[str] = set()
    for e in reader.maps[k]:
        seen |= symbols_of(e)
    idle = [e for n, e, _ in reader.iterators if n not in seen and e != 1]
    if not idle and not reader.reduction:
        return False
    if not idle:
        return _window(reader, k)
    return any([_dear(op) for op in producer.body]) or bool(reader.reduction)


def _window(reader: Generic, k: int) -> bool:
    """Do several points of the reader read one element: an index that mixes iterators?"""
    return any([len(symbols_of(e)) > 1 for e in reader.maps[k]])


def _dear(op: Op) -> bool:
    cheap = (
        "add",
        "sub",
        "mul",
        "neg",
        "max",
        "larger",
        "min",
        "cast",
        "identity",
        "abs",
        "yield",
        "const",
        "loop.index",
    )
    return op.name not in cheap


def _readers_merge(users: Sequence[Op]) -> bool:
    return all([isinstance(u, Generic) for u in users])


def _indexes(op: Generic, k: int) -> bool:
    """Is the value of operand k an index into another operand?"""
    return any([f"_v{k}" in symbols_of(e) for exprs in op.maps for e in exprs])


def _gathers(op: Generic) -> bool:
    return any([s.startswith("_v") for exprs in op.maps for e in exprs for s in symbols_of(e)])


def _fills_agree(producer: Generic, reader: Generic, k: int) -> bool:
    """Outside the producer's result and outside its operand the reader gets one fill."""
    if not producer.fills or producer.fills[0] is None:
        return True
    a, c = producer.fills[0], reader.fills[k]
    return bool(a == c) and math.copysign(1, a) == math.copysign(1, c)


@dataclass
class _Plan:
    """The operands of the merged generic."""

    operands: list[Value]
    maps: list[tuple[DimLike, ...]]
    fills: list[Any]
    where: list[tuple[DimLike, ...]]


def _merge(producer: Generic, reader: Generic, k: int) -> Generic:
    """The reader with the producer's body in it; the reader is replaced."""
    env = {name: e for (name, _), e in zip(producer.parallel, reader.maps[k], strict=True)}
    ranges: dict[str, Range] = {n: (0, e - 1) for n, e, _ in reader.iterators}
    made = _Plan([], [], [], [])
    shift = len(producer.operands) - 1
    guard = _guard(producer, reader, k, ranges)
    for j in range(len(reader.operands)):
        if j != k:
            _take(made, reader, j, _renumbered(k, shift, len(reader.operands)), ())
            continue
        for p in range(len(producer.operands)):
            names = {**env, **{f"_v{q}": sym(f"_v{k + q}") for q in range(len(producer.operands))}}
            _take(made, producer, p, names, guard)
            made.maps[-1] = tuple([simplify(e, ranges) for e in made.maps[-1]])
            if guard and made.fills[-1] is None:
                made.fills[-1] = reader.fills[k]
    body = _joined_body(producer, reader, k, env)
    return _replaced(reader, made, body, reader.loc or producer.loc)


def _renumbered(k: int, shift: int, count: int) -> dict[str, DimLike]:
    """Operands behind k move by `shift`: so do the names of their values."""
    return {f"_v{j}": sym(f"_v{j + shift}") for j in range(k + 1, count)} if shift else {}


def _take(
    made: _Plan, op: Generic, j: int, names: Mapping[str, DimLike], guard: tuple[DimLike, ...]
) -> None:
    """Append operand j of `op`, its index expressions renamed."""
    made.operands.append(op.operands[j])
    made.maps.append(tuple([substitute(e, names) for e in op.maps[j]]))
    made.fills.append(op.fills[j] if op.fills else None)
    have = tuple([substitute(e, names) for e in op.where[j]]) if op.where else ()
    made.where.append((*have, *guard))


def _guard(
    producer: Generic, reader: Generic, k: int, ranges: dict[str, Range]
) -> tuple[DimLike, ...]:
    """What the reader's fill for operand k says, as explicit conditions."""
    if not reader.fills or reader.fills[k] is None:
        return ()
    wanted = list(reader.where[k]) if reader.where else []
    for e, extent in zip(reader.maps[k], producer.results[0].tensor.shape, strict=True):
        wanted += [e, extent - 1 - e]
    return tuple([e for e in wanted if nonneg(e, ranges) is not True])


def _joined_body(producer: Generic, reader: Generic, k: int, env: Mapping[str, DimLike]) -> Block:
    """One scalar block: the producer's ops, then the reader's."""
    types = [v.tensor.dtype for v in reader.operands]
    types[k : k + 1] = [v.tensor.dtype for v in producer.operands]
    block = Block(types)
    count = len(producer.operands)
    inner: dict[Value, Value] = dict(
        zip(producer.body.args, block.args[k : k + count], strict=True)
    )
    for op in producer.body:
        if isinstance(op, Yield):
            break
        made = block.append(op.copy(inner))
        map_dims(made, env)
    assert producer.body.last is not None
    given = producer.body.last.operands[0]
    outer: dict[Value, Value] = dict(zip(reader.body.args[:k], block.args[:k], strict=True))
    outer[reader.body.args[k]] = inner.get(given, given)
    outer.update(zip(reader.body.args[k + 1 :], block.args[k + count :], strict=True))
    for op in reader.body:
        block.append(op.copy(outer))
    _share_constants(block)
    return block


def _share_constants(block: Block) -> None:
    seen: dict[Any, Value] = {}
    for op in block:
        if isinstance(op, Const):
            key = (op.type, repr(op.value))
            first = seen.setdefault(key, op.result)
            if first is not op.result:
                op.result.replace_by(first)
                op.erase()


__all__ = ["is_copy", "merge_generics"]
