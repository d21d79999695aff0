"""Elements: what a dataset hands out, and how rows of them are stacked and split.

An element is one array, a tuple of arrays, or a dict of arrays.  A *block* has the same form with
one more leading dimension: many samples side by side.  A batch is a block.
Invariant: after `as_element` every field is a numpy array or numpy scalar.
Imports numpy and the errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ....ir.errors import Error

Array = np.ndarray[Any, Any]
Element = Any  # Array | tuple[Array, ...] | dict[str, Array]


def as_field(value: object) -> Array:
    """`value` as an array: Python floats become f32, ints i64; arrays keep their element type."""
    if isinstance(value, np.ndarray | np.generic):
        return value  # type: ignore[return-value]
    try:
        made = np.asarray(value)
    except ValueError as reason:
        raise Error(
            "E0660",
            "a list of values that have no common shape is not an array",
            details=(str(reason),),
            hint="give fields of different shapes as a tuple, not as a list",
        ) from None
    if made.dtype == np.float64 and not hasattr(value, "__array__"):
        return made.astype(np.float32)
    return made.astype(object) if made.dtype.kind in "US" else made


def as_element(value: object) -> Element:
    """`value` with every field an array; a tuple or dict may not hold another one (E0660)."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, tuple):
        return tuple([_flat(field, number) for number, field in enumerate(value)])
    if isinstance(value, dict):
        return {name: _flat(field, name) for name, field in value.items()}
    if value is None:
        raise Error("E0660", "an element is None", hint="return the element from the function")
    return as_field(value)


def _flat(value: object, name: object) -> Array:
    if isinstance(value, tuple | dict) or value is None:
        raise Error(
            "E0660",
            f"field {name!r} of an element is a {type(value).__name__}, not an array",
            hint="an element is one array, a tuple of arrays or a dict of arrays",
        )
    return as_field(value)


def fields(element: Element) -> list[Array]:
    """The arrays of an element, in order."""
    if isinstance(element, tuple):
        return list(element)
    return list(element.values()) if isinstance(element, dict) else [element]


def names(element: Element) -> list[str]:
    """How an error calls each field."""
    if isinstance(element, dict):
        return [repr(name) for name in element]
    return [str(i) for i in range(len(element))] if isinstance(element, tuple) else ["0"]


def form(element: Element) -> object:
    """What two elements share if they can be stacked: single, a tuple of n, or these names."""
    if isinstance(element, tuple):
        return len(element)
    return tuple(element) if isinstance(element, dict) else "single"


def rebuild(shape: object, parts: Sequence[Array]) -> Element:
    """The inverse of `fields`: an element of form `shape` from its arrays."""
    if isinstance(shape, tuple):
        return dict(zip(shape, parts))
    return tuple(parts) if isinstance(shape, int) else parts[0]


def each(element: Element, function: Callable[[Array], Array]) -> Element:
    """The element with `function` applied to each field."""
    if isinstance(element, tuple):
        return tuple([function(field) for field in element])
    if isinstance(element, dict):
        return {name: function(field) for name, field in element.items()}
    return function(element)


def stack(elements: Sequence[Element], first: int) -> Element:
    """Samples as one block; `first` is the number of the first, for the error (E0661)."""
    shape = form(elements[0])
    for number, element in enumerate(elements):
        if form(element) != shape:
            raise Error(
                "E0661",
                f"sample {first + number} has other fields than sample {first}",
                details=(f"found: {form(element)}", f"expected: {shape}"),
            )
    columns = zip(*[fields(element) for element in elements])
    labels = names(elements[0])
    return rebuild(shape, [_column(c, labels[k], first) for k, c in enumerate(columns)])


def _column(values: Sequence[Array], label: str, first: int) -> Array:
    """One field of many samples, stacked."""
    wanted = np.shape(values[0])
    for number, value in enumerate(values):
        if np.shape(value) != wanted:
            raise Error(
                "E0661",
                f"samples cannot be stacked: field {label} has different shapes",
                details=(
                    f"sample {first}: {wanted}",
                    f"sample {first + number}: {np.shape(value)}",
                ),
                hint="bring samples to one shape (crop, pad, resize) before .batch()",
            )
    return np.stack(values)


def count(block: Element) -> int:
    """The number of samples in a block; the fields must agree (E0662)."""
    sizes = [np.shape(field)[0] if np.ndim(field) else -1 for field in fields(block)]
    if not sizes or min(sizes) != max(sizes) or sizes[0] < 0:
        found = [f"field {n}: shape {np.shape(f)}" for n, f in zip(names(block), fields(block))]
        raise Error(
            "E0662",
            "the fields of a batch have different numbers of samples",
            details=found,
            hint="every array of a batch has the samples in its first dimension",
        )
    return sizes[0]


def row(block: Element, number: int) -> Element:
    """One sample of a block, as arrays of their own where they are not scalars."""
    return each(block, lambda field: field[number])


def join(blocks: Sequence[Element]) -> Element:
    """Blocks one after the other, as one block."""
    if len(blocks) == 1:
        return blocks[0]
    columns = zip(*[fields(block) for block in blocks])
    return rebuild(form(blocks[0]), [np.concatenate(column) for column in columns])


def take(block: Element, where: Array) -> Element:
    """The samples of a block at the positions `where`: one numpy take per field."""
    return each(block, lambda field: field.take(where, 0))
