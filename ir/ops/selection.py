"""Selections whose data decides how many elements they give: nonzero, compress, unique.

A result's extent that only a run can tell is a fresh symbol, which the run binds; so two of these
ops never have equal types, and they run on the host.  Imports: the core, types, dims.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..core import Array, Bool, Builder, Grads, Op, Plain, Real, Value, attr, operand, sample
from ..dims import fresh
from ..types import TensorType, i64
from .constraints import axis_of, least, require
from .convert import widen
from .index import added_along


class _Selection(Op):
    """Base: evaluated by the host; `axis` is held counted from the front."""

    memoise = False
    host: ClassVar[bool] = True

    def __init__(self, *operands: Value, axis: int | None = None, **attrs: Any) -> None:
        if axis is not None and operands and isinstance(operands[0].type, TensorType):
            axis = axis_of(axis, operands[0].tensor.rank, self.name, "C1")
        super().__init__(*operands, axis=axis, **attrs)

    def returned(self, b: Builder, g: Value, place: Value) -> Value:
        """The cotangent of x whose selected elements, at these places, have the cotangent g."""
        x, axis = self.operands[0].tensor, self.attributes["axis"]
        if axis is not None:
            return added_along(b, g, place, axis, x.shape[axis])
        flat = added_along(b, g, place, 0, x.size)
        return b.reshape(flat, shape=x.shape)  # type: ignore[no-any-return]


class NonZero(Op):
    """The positions of the elements that are not 0, in row-major order: i64[rank, N], a column per
    element.  A scalar counts as one element without coordinates.
    """

    memoise = False
    host: ClassVar[bool] = True
    no_gradient = "positions"
    x = operand(Plain)

    @staticmethod
    def infer(x: TensorType) -> TensorType:
        return TensorType(i64, (x.rank, fresh("n")))

    @staticmethod
    def evaluate(x: Array) -> Array:
        if not x.ndim:
            return np.zeros((0, int(bool(x != 0))), np.int64)
        return np.stack(np.nonzero(widen(x))).astype(np.int64)


class Compress(_Selection):
    """The slices of x along `axis` at which the condition holds; without `axis` elements of x laid
    flat.  A condition shorter than the axis leaves the rest out.

    C1: axis < rank(x).  C2: the condition is a vector no longer than the axis.
    """

    x = operand(Plain)
    condition = operand(Bool)
    axis = attr(object, None)

    @staticmethod
    def infer(x: TensorType, condition: TensorType, axis: int | None) -> TensorType:
        at = None if axis is None else axis_of(axis, x.rank, "compress", "C1")
        extent = x.size if at is None else x.shape[at]
        fits = condition.rank == 1 and least(extent - condition.shape[0], 0)
        require(fits, "E0319", "compress (C2): the condition does not fit the axis",
                f"found {condition} for {x}")  # fmt: skip
        if at is None:
            return TensorType(x.dtype, (fresh("n"),))
        return TensorType(x.dtype, (*x.shape[:at], fresh("n"), *x.shape[at + 1 :]))

    @staticmethod
    def evaluate(x: Array, condition: Array, axis: int | None) -> Array:
        return np.compress(condition, x, axis)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Back to where the condition holds."""
        place = b.non_zero(self.condition)
        place = b.reshape(place, shape=place.tensor.shape[1:])
        return self.returned(b, g, place), None

    rejects: ClassVar[Any] = (
        ("C1", sample((2, 3), (2,), axis=2)),
        ("C2", sample((2, 3), (4,), axis=1)),
        ("C2", sample((2, 3), (7,))),
        ("C2", sample((2, 3), (2, 1), axis=0)),
    )


class Unique(_Selection):
    """(values, first, inverse, counts): the distinct elements of x laid flat, or slices along
    `axis`; where each is first found; for each element or slice the number of its value; and how
    often each is there (ONNX Unique).

    With `sorted` ascending, slices in lexicographic order, else by first appearance.  C1: axis <
    rank(x).
    """

    x = operand(Real)
    axis = attr(object, None)
    sorted = attr(bool, True)

    @staticmethod
    def infer(x: TensorType, axis: int | None, sorted: bool) -> tuple[TensorType, ...]:
        at = None if axis is None else axis_of(axis, x.rank, "unique", "C1")
        number = fresh("n")
        shape = (number,) if at is None else (*x.shape[:at], number, *x.shape[at + 1 :])
        count = x.size if at is None else x.shape[at]
        positions = TensorType(i64, (number,))
        return TensorType(x.dtype, shape), positions, TensorType(i64, (count,)), positions

    @staticmethod
    def evaluate(x: Array, axis: int | None, sorted: bool) -> tuple[Array, ...]:
        _, first, inverse, counts = np.unique(
            widen(x), return_index=True, return_inverse=True, return_counts=True, axis=axis
        )
        inverse = inverse.reshape(-1)
        if not sorted:
            order = np.argsort(first)
            rank = np.argsort(order)
            first, inverse, counts = first[order], rank[inverse], counts[order]
        flat = x.reshape(-1) if axis is None else x
        values = np.take(flat, first, 0 if axis is None else axis)
        return values, *[v.astype(np.int64) for v in (first, inverse, counts)]

    def vjp(self, b: Builder, g: Value, *others: Value | None) -> Grads:
        """Of equal elements that which was found first has the cotangent."""
        return (self.returned(b, g, self.results[1]),)

    rejects: ClassVar[Any] = (("C1", sample((2, 3), axis=-3)),)


__all__ = ["Compress", "NonZero", "Unique"]
