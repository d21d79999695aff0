"""Import rows of ops whose data decides the extent of their results.

Where the data is known at import, so is the extent.  Imports: node, ir.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.ops.selection import NonZero, Unique
from ...ir.types import i64
from .item import Array, is_symbolic
from .node import Known, Node, Result, Row


def plain(n: Node, index: int) -> Array | None:
    """The elements of operand `index`, if they are known numbers."""
    known = n.known(index)
    if known is None or is_symbolic(known):
        return None
    return known.astype(n.type(index).dtype.np)


def non_zero(n: Node) -> Result:
    """The positions of elements that are not 0."""
    x = plain(n, 0)
    return n.b.non_zero(n.x(0)) if x is None else Known(NonZero.evaluate(x), i64)


def compress(n: Node) -> Result:
    """Slices where the condition holds; a known condition is a gather."""
    x, axis = n.x(0), n.attr("axis")
    condition = plain(n, 1)
    if condition is None:
        return n.b.compress(x, n.x(1), axis=axis)
    flat = n.reshape(x, (x.tensor.size,)) if axis is None else x
    return n.b.gather(flat, n.const(np.flatnonzero(condition), i64), axis=axis or 0)


def unique(n: Node) -> Result:
    """The distinct elements, where they are, and how often."""
    axis, sort = n.attr("axis"), bool(n.attr("sorted", 1))
    x = plain(n, 0)
    if x is None:
        return n.b.unique(n.x(0), axis=axis, sorted=sort)
    axis = None if axis is None else n.axis(axis, x.ndim)
    values, *rest = Unique.evaluate(x, axis=axis, sorted=sort)
    return Known(values, n.type(0).dtype), *[Known(v, i64) for v in rest]


ROWS: Sequence[tuple[str, int, Row]] = (
    ("NonZero", 9, non_zero),
    ("Compress", 9, compress),
    ("Unique", 11, unique),
)
