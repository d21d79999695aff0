"""Import rows of ops about indices: gathers, one-hot, top-k.  Imports: node, ir."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.core import Value
from ...ir.dims import DimLike
from ...ir.types import i64
from .item import Array, is_symbolic
from .node import Node, Result, Row
from .rows_shape import product


def gather(n: Node) -> Result:
    """Rows picked by index; known, evenly spaced indices are a slice."""
    x = n.x(0)
    axis = n.axis(n.attr("axis", 0), x.tensor.rank)
    run = _run(n.known(1), x.tensor.shape[axis])
    if run is None:
        return n.b.gather(x, n.x(1), axis=axis)
    start, count, step = run
    dims = x.tensor.shape
    part = n.take_range(x, axis, start, count, step)
    return n.reshape(part, (*dims[:axis], *n.shape(1), *dims[axis + 1 :]))


def _run(known: Array | None, extent: DimLike) -> tuple[int, int, int] | None:
    """(start, number, step) of indices that walk evenly inside a known extent."""
    if known is None or not known.size or is_symbolic(known) or type(extent) is not int:
        return None
    at = known.reshape(-1).astype(np.int64)
    if at.min() < -extent or at.max() >= extent:
        return None  # an error, but only of the run that comes so far
    at = np.where(at < 0, at + extent, at)
    steps = np.diff(at)
    if at.size > 1 and (steps[0] == 0 or (steps != steps[0]).any()):
        return None
    return int(at[0]), int(at.size), int(steps[0]) if at.size > 1 else 1


def gather_elements(n: Node) -> Result:
    """Elements picked along one axis."""
    return n.b.gather_elements(n.x(0), n.x(1), axis=n.attr("axis", 0))


def gather_nd(n: Node) -> Result:
    """Indices of several axes become one index into those axes (and the batch's) laid flat."""
    x, index = n.x(0), n.x(1)
    batch = n.attr("batch_dims", 0)
    dims, at = x.tensor.shape, index.tensor.shape
    depth = at[-1] if at else None
    if type(depth) is not int or batch + depth > len(dims):
        raise n.invalid("E0319", "GatherND: the last extent of the indices does not fit")
    index = n.cast(index, i64)
    parts = [n.b.iota(shape=at[:-1], axis=k) for k in range(batch)]
    for k in range(depth):
        part = n.reshape(n.take_range(index, len(at) - 1, k, 1), at[:-1])
        size = n.b.dim_value(dim=dims[batch + k], dtype=i64)
        parts.append(n.b.where(n.b.lt(part, n.like(part, 0)), n.b.add(part, size), part))
    flat: Value = parts[0]
    for k, part in enumerate(parts[1:], 1):
        flat = n.b.add(n.b.mul(flat, n.b.dim_value(dim=dims[k], dtype=i64)), part)
    joined = n.reshape(x, (product(dims[: batch + depth]), *dims[batch + depth :]))
    return n.b.take(joined, flat, axis=0)


def one_hot(n: Node) -> Result:
    """`values` are (off, on)."""
    index, values = n.x(0), n.x(2)
    (depth,) = n.dims(1, "depth")
    index = index if index.tensor.dtype is i64 else n.b.cast(index, to=i64)
    hot = n.b.one_hot(index, depth=depth, axis=n.attr("axis", -1))
    off, on = [n.reshape(n.take_range(values, 0, k, 1), ()) for k in (0, 1)]
    return n.b.where(hot, on, off)


def top_k(n: Node) -> Result:
    """k is an attribute before opset 10; largest came with 11."""
    k = n.required("k") if n.version < 10 else n.dims(1, "k")[0]
    axis, largest = n.attr("axis", -1), bool(n.attr("largest", 1))
    return n.b.top_k(n.x(0), k=k, axis=axis, largest=largest)


ROWS: Sequence[tuple[str, int, Row]] = (
    ("Gather", 1, gather),
    ("GatherElements", 11, gather_elements),
    ("GatherND", 11, gather_nd),
    ("OneHot", 9, one_hot),
    ("TopK", 1, top_k),
)
