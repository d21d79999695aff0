"""Batches and state as arrays: dense, of the network's type, aligned, and taken apart and put
together again.

May import: ir, backends, frontends/nn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...backends.arrays import aligned
from ...ir.core import Array
from ...ir.errors import Error
from ...ir.types import DType, TensorType, from_numpy
from .. import nn


def owned(array: Array) -> Array:
    """A writable copy in memory of its own, aligned."""
    made = aligned(max(1, array.nbytes))[: array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(made, array)
    return made


def as_batch(batch: Any) -> tuple[Any, ...]:
    """A batch as a tuple of its parts; a list of numbers in it is an array."""
    if isinstance(batch, list) and all([isinstance(b, (bool, int, float)) for b in batch]):
        return (np.asarray(batch),)
    return tuple([numbers(b) for b in batch]) if isinstance(batch, (tuple, list)) else (batch,)


def numbers(part: Any) -> Any:
    """A list of numbers, or of such lists, as an array; anything else as it is."""
    inner = part
    while isinstance(inner, list) and inner:
        inner = inner[0]
    if inner is part or not isinstance(inner, (bool, int, float, np.generic)):
        return part
    try:
        return np.asarray(part)
    except ValueError as error:
        raise Error(
            "E0660", "a list of a batch is no array", details=(str(error),),
            hint="its inner lists have different lengths",
        ) from None  # fmt: skip


def leaves_of(part: Any) -> list[Any]:
    """The arrays of one field of a batch, whatever holds them."""
    leaves: list[Any] = nn.trees.flatten(part)[0]
    return leaves


def rearranged(parts: Sequence[Any], given: list[Any]) -> list[Any]:
    """Tensors in the places of a batch's arrays."""
    found, at = [], 0
    for part in parts:
        leaves, tree = nn.trees.flatten(part)
        found.append(nn.trees.unflatten(tree, given[at : at + len(leaves)]))
        at += len(leaves)
    return found


def dense(x: Any, dtype: DType) -> Array:
    """An array as the step takes it: floats in the network's type, all dense."""
    array = np.asarray(x)
    found = from_numpy(array.dtype)
    if found.is_float and found is not dtype:
        array = array.astype(dtype.np)
    return np.ascontiguousarray(array).reshape(array.shape)


def partials_of(names: Sequence[Sequence[str]], found: Sequence[Array]) -> list[dict[str, Array]]:
    """The partials of each metric by name, from the program's results."""
    rest = iter(found)
    return [{name: next(rest) for name in row} for row in names]


def type_text(array: Array, shape: tuple[int, ...] | None = None) -> str:
    """Element type and shape as messages have them."""
    return f"{from_numpy(array.dtype).name}{list(array.shape if shape is None else shape)}"


def type_of(array: Array) -> TensorType:
    """The tensor type of an array."""
    return TensorType(from_numpy(array.dtype), array.shape)


__all__ = [
    "as_batch", "dense", "leaves_of", "numbers", "owned", "partials_of", "rearranged", "type_of",
    "type_text",
]  # fmt: skip
