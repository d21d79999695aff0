"""Argmax and argmin: where the greatest and the least element along an axis stand.

A NaN wins over every number, and of equals the first or the last wins.  Imports: the core, types,
dims, loop (for the index of an iterator), the frame of a reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Op, Value, attr, operand, sample
from ..dims import sym
from ..types import DType, TensorType, i32, i64
from .constraints import axis_of, least, require
from .convert import highest, lowest, widen
from .core import generic
from .elementwise import Ordered, constant
from .loop import IndexValue
from .reduce import reduced_shape, reduction_frame


class _Position(Op):
    """Base of argmax and argmin: the i64 position along `axis`, of equals the first or the last.

    A NaN wins over every number.  C1: axis in range.  C2: its extent is not 0.
    """

    x = operand(Ordered)
    axis = attr(int, 0)
    keepdims = attr(bool, False)
    select_last = attr(bool, False)
    no_gradient = "a position"
    beats: ClassVar[str]
    extreme: ClassVar[str]
    samples = (
        sample((3, 5), axis=1),
        sample((3, 5), axis=0, keepdims=True),
        sample((17,), axis=-1, select_last=True),
        sample((9, 2), dtypes=("i8",), axis=0),
        sample((9, 2), dtypes=("i8",), axis=0, select_last=True),
        sample((4, 1), axis=1),
        sample((0, 3), axis=1),
        sample((2, 3, 67), axis=2, dtypes=("i8",), select_last=True),
        sample((2, 67), axis=1, dtypes=("u8",), ranges=((0, 3),), keepdims=True),
    )
    rejects: ClassVar[Any] = (("C1", sample((3,), axis=1)), ("C2", sample((3, 0), axis=1)))

    def __init__(self, *operands: Value, axis: int = 0, **attrs: Any) -> None:
        if operands and isinstance(operands[0].type, TensorType):
            axis = axis_of(axis, operands[0].tensor.rank, self.name, "C1")
        super().__init__(*operands, axis=axis, **attrs)

    @classmethod
    def infer(cls, x: TensorType, axis: int, keepdims: bool, select_last: bool) -> TensorType:
        axis = axis_of(axis, x.rank, cls.name, "C1")
        require(least(x.shape[axis], 1), "E0331", f"{cls.name} (C2): axis {axis} of {x} is empty")
        return TensorType(i64, reduced_shape(x.shape, (axis,), keepdims))

    @staticmethod
    def start(dtype: DType) -> float | int:
        """The value that loses against all."""
        return lowest(dtype)

    def generic(self, b: Builder, *xs: Value) -> Any:
        """Along the last axis, where lanes run along the reduction, the extreme element, and then
        where it is; along others both at once, a lane per result.
        """
        if self.axis == xs[0].tensor.rank - 1:
            return self._in_two_passes(b, xs[0])
        return self._as_pairs(b, xs)

    def _in_two_passes(self, b: Builder, x: Value) -> Value:
        """The extreme element, then the least (or greatest) position that has it.

        A NaN makes the extreme NaN, and only its own position counts.
        """
        shape, dtype = x.tensor.shape, x.tensor.dtype
        extent = shape[self.axis]
        its, index, kept = reduction_frame(shape, (self.axis,), True)
        peak = TensorType(dtype, reduced_shape(shape, (self.axis,), True))
        extreme = generic(
            b, [x], its, [index], [kept], [peak], lambda b, x: x, init=(self.start(dtype),),
            combine=lambda b, have, new: getattr(b, self.extreme)(have, new), acc_types=(dtype,),
        )  # fmt: skip
        narrow = i32 if type(extent) is int and extent < highest(i32) else i64
        far = -1 if self.select_last else highest(narrow)
        position = sym(f"r{self.axis}")

        def term(b: Builder, x: Value, peak: Value) -> Value:
            found = b.eq(x, peak)
            found = b.logical_or(found, b.ne(x, x)) if dtype.is_float else found
            here = b.emit(IndexValue, value=position, dtype=narrow)
            return b.where(found, here, constant(b, here, far))  # type: ignore[no-any-return]

        def combine(b: Builder, have: Value, new: Value) -> Value:
            return b.max(have, new) if self.select_last else b.min(have, new)  # type: ignore[no-any-return]

        out = reduction_frame(shape, (self.axis,), self.keepdims)[2]
        return generic(  # type: ignore[no-any-return]
            b, [x, extreme], its, [index, kept], [out], [self.result.tensor], term, init=(far,),
            combine=combine, acc_types=(narrow,),
        )  # fmt: skip

    def _as_pairs(self, b: Builder, xs: Sequence[Value]) -> Any:
        """Accumulates the pair (value, position); ties go by position, so that any order gives one
        answer.
        """
        shape, dtype = xs[0].tensor.shape, xs[0].tensor.dtype
        its, index, out = reduction_frame(shape, (self.axis,), self.keepdims)
        position = sym(f"r{self.axis}")

        def term(b: Builder, x: Value) -> tuple[Value, Value]:
            return x, b.emit(IndexValue, value=position)

        def combine(
            b: Builder, best: Value, at: Value, new: Value, here: Value
        ) -> tuple[Value, Value]:
            wins = getattr(b, self.beats)(new, best)
            ties = b.eq(new, best)
            if dtype.is_float:
                new_nan, best_nan = b.ne(new, new), b.ne(best, best)
                wins = b.logical_or(wins, b.logical_and(new_nan, b.logical_not(best_nan)))
                ties = b.logical_or(ties, b.logical_and(new_nan, best_nan))
            nearer = b.gt(here, at) if self.select_last else b.lt(here, at)
            takes = b.logical_or(wins, b.logical_and(ties, nearer))
            return b.where(takes, new, best), b.where(takes, here, at)

        init = (self.start(dtype), -1 if self.select_last else highest(i64))
        return generic(
            b,
            xs,
            its,
            [index],
            [out],
            [self.result.tensor],
            term,
            init=init,
            combine=combine,
            acc_types=(dtype, i64),
            finish=lambda b, best, at: at,
        )


def _position(
    find: Callable[..., Any], x: Array, axis: int, keepdims: bool, select_last: bool
) -> Array:
    wide = widen(x)
    if not select_last:
        return np.asarray(find(wide, axis=axis, keepdims=keepdims), np.int64)
    flipped = find(np.flip(wide, axis), axis=axis, keepdims=keepdims)
    return np.asarray(x.shape[axis] - 1 - flipped, np.int64)


class Argmax(_Position):
    """The position of the greatest element along `axis`; see the base for ties and NaN.  C1: axis
    in range.  C2: not empty.
    """

    beats = "gt"
    extreme = "max"

    @staticmethod
    def evaluate(x: Array, axis: int, keepdims: bool, select_last: bool) -> Array:
        return _position(np.argmax, x, axis, keepdims, select_last)


class Argmin(_Position):
    """The position of the least element along `axis`; see the base for ties and NaN.  C1: axis in
    range.  C2: not empty.
    """

    beats = "lt"
    extreme = "min"

    @staticmethod
    def start(dtype: DType) -> float | int:
        return highest(dtype)

    @staticmethod
    def evaluate(x: Array, axis: int, keepdims: bool, select_last: bool) -> Array:
        return _position(np.argmin, x, axis, keepdims, select_last)


__all__ = ["Argmax", "Argmin"]
