"""Import rows of lists of tensors (ONNX's sequences): a list is taken apart while importing.

No list reaches the IR: its tensors are followed one by one, so its length and the positions asked
for must be known.  Imports: node, item, ir.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from ...ir.core import Value
from ...ir.dims import DimLike
from ...ir.errors import UnsupportedError
from ...ir.types import TensorType, f32, i64
from .item import Item, item_of, known_item
from .node import Known, Node, Result, Row


@dataclass(slots=True, eq=False)
class Listed(Item):
    """A list of tensors; it has no value of its own, and its type says nothing."""

    parts: tuple[Item, ...] = ()

    @property
    def value(self) -> NoReturn:
        raise UnsupportedError(
            "E0102", "a sequence of tensors cannot be used here", details=(self.origin,),
            hint="only ops of sequences take one, outside of loops and branches")  # fmt: skip


def _listed(n: Node, parts: Sequence[Item]) -> Result:
    made = Listed(TensorType(f32, (0,)), n.b, f"the sequence from '{n.name}'", parts=tuple(parts))
    return [made]  # type: ignore[list-item]  # an item stands for itself


def _parts(n: Node) -> tuple[Item, ...]:
    """The tensors of operand 0."""
    found = n.item(0)
    if not isinstance(found, Listed):
        raise n.unsupported(f"{n.op}: the tensors of the sequence must be known")
    return found.parts


def _position(n: Node, index: int, count: int, end: int) -> int:
    """Operand `index` in 0 ... count, counted from the back where negative; `end` without it."""
    if not n.has(index):
        return end
    (at,) = n.numbers(index, "position")
    if not -count <= at < max(count, end + 1):
        raise n.invalid("E0330", f"{n.op}: position {at} is outside a sequence of {count}")
    return at + count if at < 0 else at


def construct(n: Node) -> Result:
    """The operands, in order."""
    return _listed(n, [n.item(k) for k in range(len(n))])


def insert(n: Node) -> Result:
    """One more tensor, in front of a position, else behind the last."""
    parts = list(_parts(n))
    parts.insert(_position(n, 2, len(parts), len(parts)), n.item(1))
    return _listed(n, parts)


def erase(n: Node) -> Result:
    """Without the tensor at a position, else without the last."""
    parts = list(_parts(n))
    del parts[_position(n, 1, len(parts), len(parts) - 1)]
    return _listed(n, parts)


def at(n: Node) -> Result:
    """The tensor at a position."""
    parts = _parts(n)
    return [parts[_position(n, 1, len(parts), len(parts) - 1)]]  # type: ignore[list-item]


def length(n: Node) -> Result:
    """How many tensors."""
    return Known(np.array(len(_parts(n))), i64)


def _sizes(n: Node, extent: DimLike) -> list[int]:
    """Extents of the parts: each 1, all the same but the last, or as listed."""
    if n.has(1) and n.rank(1) == 1:
        return list(n.numbers(1, "split"))
    (step,) = n.numbers(1, "split") if n.has(1) else (1,)
    if not isinstance(extent, int):
        raise n.unsupported(f"{n.op}: the extent that is split must be known",
                            hint="give the extents with shapes=")  # fmt: skip
    if step < 1:
        raise n.invalid("E0316", f"{n.op}: parts of {step}")
    return [min(step, extent - start) for start in range(0, extent, step)]


def split(n: Node) -> Result:
    """Slices along an axis; without `split` and keepdims the axis goes."""
    axis, known, shape = n.axis(n.attr("axis", 0), n.rank(0)), n.known(0), n.shape(0)
    keep = n.has(1) or bool(n.attr("keepdims", 1))
    parts, start, origin = [], 0, f"from '{n.name}'"
    for size in _sizes(n, shape[axis]):
        if known is not None:
            some = np.take(known, range(start, start + size), axis)
            some = some if keep else some.squeeze(axis)
            parts.append(known_item(some, n.type(0).dtype, n.b, origin))
        else:
            part = n.take_range(n.x(0), axis, start, size)
            part = part if keep else n.reshape(part, (*shape[:axis], *shape[axis + 1 :]))
            parts.append(item_of(part, n.b, origin))
        start += size
    return _listed(n, parts)


def concat(n: Node) -> Result:
    """The tensors one after the other, along an axis they have or a new one."""
    parts = [item.value for item in _parts(n)]
    if not parts:
        raise n.invalid("E0316", f"{n.op} of an empty sequence")
    fresh = bool(n.attr("new_axis", 0))
    axis = n.axis(n.required("axis"), parts[0].tensor.rank + fresh)
    if fresh:
        parts = [_lifted(n, part, axis) for part in parts]
    return n.b.concat(*parts, axis=axis)  # type: ignore[no-any-return]


def _lifted(n: Node, x: Value, axis: int) -> Value:
    shape = x.tensor.shape
    return n.reshape(x, (*shape[:axis], 1, *shape[axis:]))


ROWS: Sequence[tuple[str, int, Row]] = (
    ("SequenceEmpty", 11, construct),
    ("SequenceConstruct", 11, construct),
    ("SequenceInsert", 11, insert),
    ("SequenceErase", 11, erase),
    ("SequenceAt", 11, at),
    ("SequenceLength", 11, length),
    ("SplitToSequence", 11, split),
    ("ConcatFromSequence", 11, concat),
)
