"""Import rows of reductions.  Axes are an attribute in older opsets, an operand in newer ones.

Imports: node, ir.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...ir.core import Value
from ...ir.types import f64
from .node import Node, Result, Row

Reduce = Callable[[Node, Value, tuple[int, ...] | None, bool], Value]


def reduction(make: Reduce | str, before: Callable[[Node, Value], Value] | None = None) -> Row:
    """The IR op `make`; with `noop_with_empty_axes` and no axes only `before` happens."""

    def row(n: Node) -> Result:
        x, axes = n.x(0), n.axes(1)
        keep = bool(n.attr("keepdims", 1))
        if not axes:
            if n.attr("noop_with_empty_axes", 0):
                return x if before is None else before(n, x)
            axes = None
        else:
            axes = tuple([n.axis(a, x.tensor.rank) for a in axes])
        if isinstance(make, str):
            return getattr(n.b, make)(x, axes=axes, keepdims=keep)
        return make(n, x, axes, keep)

    return row


def _of_floats(name: str) -> Reduce:
    """A norm that the IR has for floats; integers go through f64 and are truncated."""

    def make(n: Node, x: Value, axes: tuple[int, ...] | None, keep: bool) -> Value:
        dtype = x.tensor.dtype
        wide = x if dtype.is_float else n.b.cast(x, to=f64)
        return n.cast(getattr(n.b, name)(wide, axes=axes, keepdims=keep), dtype)

    return make


def position(op: str) -> Row:
    """ArgMax and ArgMin."""
    return lambda n: getattr(n.b, op)(
        n.x(0), axis=n.attr("axis", 0), keepdims=bool(n.attr("keepdims", 1)),
        select_last=bool(n.attr("select_last_index", 0)),
    )  # fmt: skip


def cumulative(op: str) -> Row:
    """CumSum and CumProd; the axis is an operand."""

    def row(n: Node) -> Result:
        x = n.x(0)
        axis = n.axis(n.numbers(1, "axis")[0], x.tensor.rank)
        exclusive, reverse = [bool(n.attr(name, 0)) for name in ("exclusive", "reverse")]
        return getattr(n.b, op)(x, axis=axis, exclusive=exclusive, reverse=reverse)

    return row


def _absolute(n: Node, x: Value) -> Value:
    return n.b.abs(x)


def _squared(n: Node, x: Value) -> Value:
    return n.b.mul(x, x)


def _logarithm(n: Node, x: Value) -> Value:
    return n.b.log(x)


ROWS: Sequence[tuple[str, int, Row]] = (
    ("ReduceSum", 1, reduction("reduce_sum")),
    ("ReduceMean", 1, reduction("reduce_mean")),
    ("ReduceProd", 1, reduction("reduce_prod")),
    ("ReduceMax", 1, reduction("reduce_max")),
    ("ReduceMin", 1, reduction("reduce_min")),
    ("ReduceL1", 1, reduction("reduce_l1", _absolute)),
    ("ReduceL2", 1, reduction(_of_floats("reduce_l2"), _absolute)),
    ("ReduceSumSquare", 1, reduction("reduce_sum_square", _squared)),
    ("ReduceLogSum", 1, reduction(_of_floats("reduce_log_sum"), _logarithm)),
    ("ReduceLogSumExp", 1, reduction(_of_floats("reduce_log_sum_exp"))),
    ("ArgMax", 1, position("argmax")),
    ("ArgMin", 1, position("argmin")),
    ("CumSum", 11, cumulative("cum_sum")),
    ("CumProd", 26, cumulative("cum_prod")),
    ("Det", 11, lambda n: n.b.det(n.x(0))),
)
