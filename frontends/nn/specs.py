"""Descriptions of inputs: shapes with symbolic extents, and what a call looked like.

May import: ir, its siblings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.dims import DimLike, parse_dim
from ...ir.errors import Error
from ...ir.types import TensorType, f32, from_numpy
from .dispatch import Base, as_tensor, here
from .dtypes import as_dtype
from .trees import flatten, is_leaf, unflatten


@dataclass(frozen=True)
class Spec:
    """What an input will be: extents (numbers, or names of symbolic ones) and an element type."""

    shape: tuple[Any, ...]
    dtype: Any = f32
    name: str = ""

    @property
    def type(self) -> TensorType:
        """The tensor type."""
        return TensorType(as_dtype(self.dtype), tuple([as_extent(e) for e in self.shape]))


def as_extent(given: Any) -> DimLike:
    """An extent from a number, a dim, or the text of one ("N", "2*N"); None and -1 have no name."""
    if isinstance(given, str):
        return parse_dim(given)
    if given is None or (isinstance(given, int) and given < 0):
        raise Error(
            "E0622", f"{given} is no extent of an input", where=here(),
            hint='give a symbolic extent a name: ("N", 784)',
        )  # fmt: skip
    return given  # type: ignore[no-any-return]


def is_input(x: Any) -> bool:
    """Whether it is an example of an input, or the description of one."""
    return isinstance(x, Spec) or is_leaf(x)


def type_of(x: Any) -> TensorType:
    """The type of an example: a description, tensor, array or number."""
    if isinstance(x, (Spec, Base)):
        return x.type
    if isinstance(x, np.ndarray):
        return TensorType(from_numpy(x.dtype), x.shape)
    return as_tensor(x).type


def described(args: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments of a call with descriptions in place of tensors."""
    leaves, tree = flatten(tuple(args))
    kinds = [type_of(x) for x in leaves]
    return unflatten(tree, [Spec(t.shape, t.dtype) for t in kinds])  # type: ignore[no-any-return]


def batched(examples: Sequence[Any], name: str = "N") -> tuple[Any, ...]:
    """The descriptions with the first extent of each open: the size of a batch."""
    leaves, tree = flatten(tuple(examples), is_input)
    kinds = [type_of(x) for x in leaves]
    return unflatten(  # type: ignore[no-any-return]
        tree, [Spec((name, *t.shape[1:]) if t.shape else (), t.dtype) for t in kinds]
    )


__all__ = ["Spec", "as_extent", "batched", "described", "is_input", "type_of"]
