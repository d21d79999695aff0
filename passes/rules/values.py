"""What rules ask about a value: is it a constant, one repeated number, an index known as a dim.

May import: ir.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ...ir.blobs import Blob, in_shape
from ...ir.core import OPS, Array, Builder, Op, Value
from ...ir.ops.core import Const
from ...ir.rewrite import Rule
from ...ir.types import TensorType

LATE = 1 << 18
"""Bytes from which a constant is put in another order only where it is written to the weights."""

RuleTable = dict[type[Op], list[Rule]]


def table(*rows: tuple[Iterable[type[Op]], Iterable[Rule]]) -> RuleTable:
    """A table from rows (classes, rules)."""
    made: RuleTable = {}
    for classes, rules in rows:
        for cls in classes:
            made.setdefault(cls, []).extend(rules)
    return made


def joined(*tables: RuleTable) -> RuleTable:
    """Several tables as one; rules of earlier tables come first."""
    made: RuleTable = {}
    for rules in tables:
        for cls, found in rules.items():
            made.setdefault(cls, []).extend(found)
    return made


def classes(*names: str) -> list[type[Op]]:
    """The op classes with these names."""
    return [OPS[name] for name in names]


def is_tensor(value: Value) -> bool:
    """A tensor of known rank."""
    return isinstance(value.type, TensorType) and value.type.shape is not None


def constant(value: Value | None) -> Array | None:
    """The array of a tensor constant; None for any other value."""
    op = value.owner if value is not None else None
    if isinstance(op, Const) and isinstance(op.value, Blob):
        return op.value.array
    return None


def is_constant(value: Value | None) -> bool:
    """A tensor constant (nothing is read)."""
    return (
        value is not None and isinstance(value.owner, Const) and isinstance(value.owner.value, Blob)
    )


def repeated(value: Value | None) -> Any:
    """The number that every element of a constant is, as a numpy scalar; None otherwise.

    Large constants are not looked at: weights are hardly ever one number.
    """
    if not is_constant(value) or value.owner.value.nbytes > 1 << 16:  # type: ignore[union-attr]
        return None
    array = constant(value)
    assert array is not None
    if array.size == 0 or array.dtype == object:
        return None
    first = array.reshape(-1)[0]
    if array.size > 1 and not (array == first).all():
        return None
    if (
        array.size > 1
        and first == 0
        and array.dtype.kind == "f"
        and np.signbit(array).any() != np.signbit(array).all()
    ):
        return None
    return first


def make_constant(b: Builder, array: Array, type: TensorType) -> Value:
    """A constant of this type, dense in row-major order; an array that is a view is copied."""
    shape = [e for e in type.shape if isinstance(e, int)]
    owned = array.base is None and array.dtype == type.dtype.np and array.flags.c_contiguous
    if not owned:
        array = np.array(array, dtype=type.dtype.np, order="C", copy=True)
    return b.insert(Const(Blob(array.reshape(shape), type))).result


def moved_constant(
    b: Builder, cls: type[Op], source: Blob, type: TensorType, attributes: Mapping[str, Any]
) -> Value:
    """What an op that loses no element makes of a large constant, when it is needed."""
    shape = tuple([e for e in type.shape if isinstance(e, int)])

    def move(array: Array) -> Array:
        found = array if cls.name == "reshape" else cls.evaluate(array, **attributes)
        return in_shape(found, shape)

    how = (cls.name, *sorted(attributes.items()))
    return b.insert(Const(Blob.moved(source, type, how, move))).result


def derived_constant(
    b: Builder, source: Blob, type: TensorType, make: Callable[[Array], Array]
) -> Value:
    """What `make` gives for a large constant, made when it is needed and not kept."""
    return b.insert(Const(Blob.derived(source, type, make))).result


def only_user(value: Value) -> Op | None:
    """The op that alone uses a value, once."""
    uses = value.uses
    if uses is None or (isinstance(uses, dict) and len(uses) != 1):
        return None
    user: Op = next(iter(uses)) if isinstance(uses, dict) else uses
    return user if sum([v is value for v in user.operands]) == 1 else None


__all__ = [
    "LATE",
    "RuleTable",
    "classes",
    "constant",
    "derived_constant",
    "is_constant",
    "is_tensor",
    "joined",
    "make_constant",
    "moved_constant",
    "only_user",
    "repeated",
    "table",
]
