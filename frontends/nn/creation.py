"""Tensors from nothing: zeros, ones, ranges, identity matrices, and random ones beside random.py.

Where an extent is symbolic, or the shape is taken from a traced tensor, they are ops of the trace.
May import: ir, its siblings.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ir.dims import Dim
from ...ir.ops.index import Iota
from ...ir.ops.shape import BroadcastTo
from ...ir.types import DType, f32
from .dispatch import Base, as_tensor, dim_tensor, has_dims, leaf, one
from .dtypes import as_dtype
from .functions import add, cast, greater_equal, less_equal, multiply, where
from .functions import equal as equal_to
from .shaping import expand_dims, extents

if TYPE_CHECKING:
    from .tensor import Tensor


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of the data; Python floats are f32, integers i64 unless said."""
    made: Tensor = Base.made_as(data, dtype, requires_grad)
    return made


def full(shape: Any, value: Any, dtype: Any = None) -> Tensor:
    """A tensor of this shape with one value everywhere."""
    shape = extents(shape, "full")
    element = as_tensor(value, None if dtype is None else as_dtype(dtype))
    if has_dims(shape) or element.value is not None or element.requires_grad:
        return one(BroadcastTo, element, shape=shape)
    return leaf(np.full(shape, element.array))


def zeros(*shape: Any, dtype: Any = f32) -> Tensor:
    """Zeros of this shape."""
    return full(shape, 0, dtype)


def ones(*shape: Any, dtype: Any = f32) -> Tensor:
    """Ones of this shape."""
    return full(shape, 1, dtype)


def _like(x: Any, dtype: Any) -> tuple[Any, DType]:
    x = as_tensor(x)
    return x.type.shape, x.type.dtype if dtype is None else as_dtype(dtype)


def zeros_like(x: Any, dtype: Any = None) -> Tensor:
    """Zeros of the shape and element type of x."""
    shape, dtype = _like(x, dtype)
    return full(shape, 0, dtype)


def ones_like(x: Any, dtype: Any = None) -> Tensor:
    """Ones of the shape and element type of x."""
    shape, dtype = _like(x, dtype)
    return full(shape, 1, dtype)


def full_like(x: Any, value: Any, dtype: Any = None) -> Tensor:
    """One value in the shape and element type of x."""
    shape, dtype = _like(x, dtype)
    return full(shape, value, dtype)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Tensor:
    """start, start + step, ... below stop; of integers i64, else f32, unless said.

    The number of elements may be symbolic: then start and step are integers.
    """
    if stop is None:
        start, stop = 0, start
    if any([isinstance(v, Dim) for v in (start, stop, step)]):
        count = -((start - stop) // step)
        steps = one(Iota, shape=(count,), axis=0)
        made = add(multiply(steps, step), start)
        return made if dtype is None else cast(made, dtype)
    array = np.arange(start, stop, step)
    if dtype is None and array.dtype == np.float64:
        dtype = f32
    return leaf(array if dtype is None else array.astype(as_dtype(dtype).np))


def linspace(start: float, stop: float, count: int, dtype: Any = f32) -> Tensor:
    """So many numbers from start to stop, evenly spaced."""
    return leaf(np.linspace(start, stop, count).astype(as_dtype(dtype).np))


def eye(rows: int, columns: int | None = None, dtype: Any = f32) -> Tensor:
    """Ones on the main diagonal, zeros elsewhere."""
    return leaf(np.eye(rows, columns, dtype=as_dtype(dtype).np))


def _diagonals(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column numbers that broadcast over the last two axes."""
    rows, columns = x.type.shape[-2:]
    return expand_dims(arange(rows), 1), expand_dims(arange(columns), 0)


def tril(x: Any, k: int = 0) -> Tensor:
    """The lower triangle of the last two axes up to diagonal k, zeros above."""
    x = as_tensor(x)
    row, column = _diagonals(x)
    return _masked(x, less_equal(column, add(row, k)))


def triu(x: Any, k: int = 0) -> Tensor:
    """The upper triangle of the last two axes from diagonal k on, zeros below."""
    x = as_tensor(x)
    row, column = _diagonals(x)
    return _masked(x, greater_equal(column, add(row, k)))


def _masked(x: Tensor, keep: Tensor) -> Tensor:
    return where(keep, x, False if x.type.dtype.kind == "bool" else 0)


def diagonal(x: Any) -> Tensor:
    """The main diagonal of the last two axes, as the last axis."""
    x = as_tensor(x)
    row, column = _diagonals(x)
    kept = _masked(x, equal_to(row, column))
    rows, columns = x.type.shape[-2:]
    if isinstance(rows, int) and isinstance(columns, int):
        size = min(rows, columns)
        kept = kept[..., :size, :size]
    return kept.sum(-1)


def meshgrid(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Coordinate matrices of two vectors, x along the columns (numpy's default, "xy")."""
    x, y = as_tensor(x), as_tensor(y)
    shape = (y.type.shape[0], x.type.shape[0])
    rows = one(BroadcastTo, expand_dims(x, 0), shape=shape)
    return rows, one(BroadcastTo, expand_dims(y, 1), shape=shape)


def size_of(x: Any) -> Any:
    """The number of elements: an int, or a tensor where an extent is symbolic."""
    count = math.prod(as_tensor(x).type.shape)
    return dim_tensor(count, DType("i64")) if isinstance(count, Dim) else count


__all__ = [
    "arange", "diagonal", "eye", "full", "full_like", "linspace", "meshgrid", "ones", "ones_like",
    "size_of", "tensor", "tril", "triu", "zeros", "zeros_like",
]  # fmt: skip
