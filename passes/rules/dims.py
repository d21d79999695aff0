"""Shape arithmetic on data becomes dim expressions: what `dim_value` starts ends in one
`dim_value`, or a constant.

A small integer tensor is followed back to dims through arithmetic, concat, slices and picks.
May import: ir, the values beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...ir.core import Builder, Op, Value
from ...ir.dims import DimLike, max_, min_, nonneg
from ...ir.types import TensorType
from .values import RuleTable, classes, constant, make_constant, table

LIMIT = 64
"""Elements of the tensors that are followed."""
DEPTH = 24
"""Ops that are followed back."""


def dims_held(value: Value, depth: int = DEPTH) -> list[DimLike] | None:
    """The elements, in row-major order, of an integer tensor of static shape as dims; None if
    unknown.
    """
    type_ = value.type
    if (
        not isinstance(type_, TensorType)
        or type_.shape is None
        or not type_.dtype.is_integer
        or not type_.is_static
    ):
        return None
    if type_.size > LIMIT or depth == 0:
        return None
    array = constant(value)
    if array is not None:
        return [int(v) for v in array.reshape(-1)]
    op = value.op
    rule = _FOLLOW.get(op.name) if op is not None else None
    if rule is None or op is None:
        return None
    return rule(op, depth - 1)


def _dim_value(op: Op, depth: int) -> list[DimLike] | None:
    return [op.attributes["dim"]]


def _same(op: Op, depth: int) -> list[DimLike] | None:
    return dims_held(op.operands[0], depth)


def _cast(op: Op, depth: int) -> list[DimLike] | None:
    narrow = op.results[0].tensor.dtype.bits < 32
    return None if narrow else dims_held(op.operands[0], depth)


def _concat(op: Op, depth: int) -> list[DimLike] | None:
    if op.results[0].tensor.rank != 1:
        return None
    parts = [dims_held(v, depth) for v in op.operands]
    return None if None in parts else [e for part in parts if part is not None for e in part]


def _slice(op: Op, depth: int) -> list[DimLike] | None:
    held = dims_held(op.operands[0], depth)
    if held is None or op.results[0].tensor.rank != 1:
        return None
    (start,), (size,) = op.attributes["starts"], op.attributes["sizes"]
    (step,) = op.attributes["steps"] or (1,)
    if not (isinstance(start, int) and isinstance(size, int)):
        return None
    return [held[start + k * step] for k in range(size)]


def _take(op: Op, depth: int) -> list[DimLike] | None:
    x, index = op.operands
    held, at = dims_held(x, depth), constant(index)
    if held is None or at is None or x.tensor.rank != 1:
        return None
    places = [int(k) for k in at.reshape(-1)]
    return [held[k] for k in places] if all([-len(held) <= k < len(held) for k in places]) else None


def _broadcast(op: Op, depth: int) -> list[DimLike] | None:
    held = dims_held(op.operands[0], depth)
    size = op.results[0].tensor.size
    return held * size if held is not None and len(held) == 1 and isinstance(size, int) else None


def _reduce(
    fold: Callable[[DimLike, DimLike], DimLike], start: DimLike
) -> Callable[[Op, int], list[DimLike] | None]:
    def reduce(op: Op, depth: int) -> list[DimLike] | None:
        held = dims_held(op.operands[0], depth)
        if held is None or op.results[0].tensor.size != 1:
            return None
        total = start
        for e in held:
            total = fold(total, e)
        return [total]

    return reduce


def _binary(
    compute: Callable[[DimLike, DimLike], DimLike | None],
) -> Callable[[Op, int], list[DimLike] | None]:
    def follow(op: Op, depth: int) -> list[DimLike] | None:
        x, y = [dims_held(v, depth) for v in op.operands]
        size = op.results[0].tensor.size
        if x is None or y is None or op.results[0].tensor.rank > 1:
            return None
        assert isinstance(size, int)
        x, y = [v * size if len(v) == 1 else v for v in (x, y)]
        found = [compute(p, q) for p, q in zip(x, y, strict=True)]
        return None if None in found else found  # type: ignore[return-value]

    return follow


def _divide(x: DimLike, y: DimLike) -> DimLike | None:
    """Truncating division, where floor division is the same."""
    if isinstance(x, int) and isinstance(y, int):
        return None if y == 0 else abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
    return x // y if nonneg(x) is True and nonneg(y - 1) is True else None


def _mod(x: DimLike, y: DimLike) -> DimLike | None:
    return x % y if nonneg(x) is True and nonneg(y - 1) is True else None


_FOLLOW: dict[str, Callable[[Op, int], list[DimLike] | None]] = {
    "dim_value": _dim_value,
    "identity": _same,
    "reshape": _same,
    "cast": _cast,
    "concat": _concat,
    "slice": _slice,
    "take": _take,
    "gather": _take,
    "broadcast_to": _broadcast,
    "add": _binary(lambda x, y: x + y),
    "sub": _binary(lambda x, y: x - y),
    "mul": _binary(lambda x, y: x * y),
    "div": _binary(_divide),
    "mod": _binary(_mod),
    "rem": _binary(_mod),
    "min": _binary(min_),
    "max": _binary(max_),
    "reduce_prod": _reduce(lambda x, y: x * y, 1),
    "reduce_sum": _reduce(lambda x, y: x + y, 0),
}


def held_by_dims(op: Op, b: Builder) -> Value | None:
    """A result whose elements are dims: a constant when all are known, a `dim_value` when there is
    one.
    """
    result = op.results[0]
    if (
        not isinstance(result.type, TensorType)
        or result.type.shape is None
        or not result.type.dtype.is_integer
    ):
        return None
    held = dims_held(result)
    if held is None or not _fits(held, result.tensor):
        return None
    if all([isinstance(e, int) for e in held]):
        if op.name == "broadcast_to" or all([constant(v) is not None for v in op.operands]):
            return None  # folding decides
        return make_constant(b, np.array(held, result.tensor.dtype.np), result.tensor)
    if len(held) != 1 or op.name in ("reshape", "broadcast_to"):
        return None
    value: Value = b.emit(_dim_value_class(), dim=held[0], dtype=result.tensor.dtype)
    return value if result.tensor.rank == 0 else b.reshape(value, shape=result.tensor.shape)


def _fits(held: list[DimLike], type: TensorType) -> bool:
    bits = type.dtype.bits - (type.dtype.kind == "int")
    low = -(1 << bits) if type.dtype.kind == "int" else 0
    return all([low <= e < (1 << bits) for e in held if isinstance(e, int)])


def _dim_value_class() -> type[Op]:
    (cls,) = classes("dim_value")
    return cls


def compared_dims(op: Op, b: Builder) -> Value | None:
    """A comparison of two dims that is known."""
    x, y = [dims_held(v) for v in op.operands]
    if x is None or y is None or len(x) != 1 or len(y) != 1 or not op.results[0].tensor.is_static:
        return None
    if all([constant(v) is not None for v in op.operands]):
        return None
    holds = _COMPARE[op.name](y[0] - x[0])
    if holds is None:
        return None
    return make_constant(b, np.full(op.results[0].tensor.shape, holds), op.results[0].tensor)


def _not(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def _zero(gap: DimLike) -> bool | None:
    if isinstance(gap, int):
        return gap == 0
    return False if nonneg(gap - 1) is True or nonneg(-gap - 1) is True else None


_COMPARE: dict[str, Callable[[DimLike], bool | None]] = {
    "le": nonneg,
    "lt": lambda gap: nonneg(gap - 1),
    "ge": lambda gap: nonneg(-gap),
    "gt": lambda gap: nonneg(-gap - 1),
    "eq": _zero,
    "ne": lambda gap: _not(_zero(gap)),
}


def dim_rules() -> RuleTable:
    """The table of this file."""
    followed = [n for n in _FOLLOW if n not in ("dim_value", "identity")]
    return table((classes(*followed), [held_by_dims]), (classes(*_COMPARE), [compared_dims]))


__all__ = ["dim_rules", "dims_held"]
