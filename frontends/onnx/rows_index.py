"""Import rows of ops about indices: gathers, scatters, one-hot, top-k.  Imports: node, ir."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.dims import DimLike
from ...ir.types import i64
from .item import Array, is_symbolic
from .node import Node, Result, Row


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
    """Slices picked by rows of indices."""
    return n.b.gather_nd(n.x(0), n.x(1), batch=n.attr("batch_dims", 0))


def scatter_elements(n: Node) -> Result:
    """Elements written, or combined, along one axis."""
    axis, reduction = n.attr("axis", 0), n.attr("reduction", "none")
    return n.b.scatter_elements(n.x(0), n.x(1), n.x(2), axis=axis, reduction=reduction)


def scatter_nd(n: Node) -> Result:
    """Slices written, or combined, where rows of indices say."""
    return n.b.scatter_nd(n.x(0), n.x(1), n.x(2), reduction=n.attr("reduction", "none"))


def tensor_scatter(n: Node) -> Result:
    """A cache with new positions; without indices they begin at 0."""
    x, update, mode = n.x(0), n.x(1), n.attr("mode", "linear")
    if mode not in ("linear", "circular"):
        raise n.invalid("E0111", f"TensorScatter has no mode '{mode}'")
    start = n.opt(2)
    if start is None:
        start = n.b.broadcast_to(n.const(0, i64), shape=x.tensor.shape[:1])
    circular = mode == "circular"
    return n.b.tensor_scatter(x, update, start, axis=n.attr("axis", -2), circular=circular)


def reverse_sequence(n: Node) -> Result:
    """The first elements of each sequence in reverse order."""
    batch, time = n.attr("batch_axis", 1), n.attr("time_axis", 0)
    return n.b.reverse_sequence(n.x(0), n.x(1), batch_axis=batch, time_axis=time)


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
    ("Scatter", 9, scatter_elements),
    ("ScatterElements", 11, scatter_elements),
    ("ScatterND", 11, scatter_nd),
    ("TensorScatter", 24, tensor_scatter),
    ("ReverseSequence", 10, reverse_sequence),
    ("OneHot", 9, one_hot),
    ("TopK", 1, top_k),
)
