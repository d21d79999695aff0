"""What the way back leaves: parts padded to the whole and added, elements scattered into zeros.

The cotangents of slices of one value are zero outside of their slices: their sum is the parts side
by side.  One element of each row, added to zeros, is a choice by comparison, which joins what reads
it.  Neither changes a value but the sign of a zero.  May import: ir, the values beside it.
"""

from __future__ import annotations

import numpy as np

from ...ir.core import Builder, Op, Value
from ...ir.dims import equal
from ...ir.types import TensorType
from .values import RuleTable, classes, is_tensor, make_constant, only_user, repeated, table

MOST_PARTS = 64
"""Parts of one sum."""


def parts_side_by_side(op: Op, b: Builder) -> Value | None:
    """The sum of zero-padded parts that fill an axis, and do not overlap, is their concat."""
    user = only_user(op.results[0])
    if user is not None and user.name == "add":
        return None  # a longer sum: at its end
    pads = _padded_parts(op)
    if pads is None or len(pads) < 2:
        return None
    axes = {axis for axis, _, _ in pads}
    if len(axes) != 1:
        return None
    (axis,) = axes
    pads.sort(key=lambda part: part[1])
    end = 0
    for _, start, value in pads:
        extent = value.tensor.shape[axis]
        if start != end or not isinstance(extent, int):
            return None
        end += extent
    if end != op.results[0].tensor.shape[axis]:
        return None
    return b.concat(*[value for _, _, value in pads], axis=axis)  # type: ignore[no-any-return]


def _padded_parts(op: Op) -> list[tuple[int, int, Value]] | None:
    """(axis, start, part) of every term of a sum; None where a term is something else."""
    todo = list(op.operands)
    found: list[tuple[int, int, Value]] = []
    while todo:
        value = todo.pop()
        made = value.op
        if made is None or only_user(value) is None or len(found) > MOST_PARTS:
            return None
        if made.name == "add" and made.results[0].type is op.results[0].type:
            todo += made.operands
            continue
        part = _padded(made) if made.name == "pad" else None
        if part is None or value.type is not op.results[0].type:
            return None
        found.append(part)
    return found


def _padded(op: Op) -> tuple[int, int, Value] | None:
    """(axis, elements before, operand) of a pad with zeros along one axis."""
    given = op.attributes
    low, high = given["low"], given["high"]
    if given["mode"] != "constant" or given["value"] != 0 or not _static((*low, *high)):
        return None
    axes = [k for k, (a, c) in enumerate(zip(low, high, strict=True)) if a or c]
    if len(axes) != 1 or min((*low, *high)) < 0:
        return None
    return axes[0], low[axes[0]], op.operands[0]


def _static(extents: tuple[object, ...]) -> bool:
    return all([isinstance(e, int) for e in extents])


def chosen_element(op: Op, b: Builder) -> Value | None:
    """scatter_elements of one element a row into zeros is `where(position == index, update, 0)`.

    Only where a `take_along` reads at the same index: it sees to it that all are in range.
    """
    x, index, updates = op.operands
    axis, type_ = op.attributes["axis"], op.results[0].tensor
    one_each = is_tensor(index) and index.tensor.shape[axis] == 1
    if op.attributes["reduction"] not in ("add", "none") or not one_each or not _zeros(x):
        return None
    rest = [k for k in range(type_.rank) if k != axis]
    if not all([equal(index.tensor.shape[k], type_.shape[k]) is True for k in rest]):
        return None
    if not any([_checks(user, index, axis, type_) for user in index.users]):
        return None
    along = [type_.shape[axis] if k == axis else 1 for k in range(type_.rank)]
    place = b.iota(shape=along, axis=axis, dtype=index.tensor.dtype)
    zero = make_constant(b, np.zeros((), type_.dtype.np), TensorType(type_.dtype, ()))
    return b.where(b.eq(place, index), updates, zero)  # type: ignore[no-any-return]


def _zeros(value: Value) -> bool:
    """Zeros, perhaps broadcast."""
    if value.op is not None and value.op.name == "broadcast_to":
        value = value.op.operands[0]
    number = repeated(value)
    return number is not None and number == 0


def _checks(user: Op, index: Value, axis: int, type_: TensorType) -> bool:
    """A take_along at this index, along an axis of the same extent."""
    if user.name != "take_along" or user.operands[1] is not index:
        return False
    shape = user.operands[0].tensor.shape
    return bool(user.attributes["axis"] == axis and shape[axis] == type_.shape[axis])


def gradient_rules() -> RuleTable:
    """The table of this file."""
    return table(
        (classes("add"), [parts_side_by_side]),
        (classes("scatter_elements"), [chosen_element]),
    )


__all__ = ["gradient_rules"]
