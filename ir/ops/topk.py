"""The k greatest or least elements along an axis, by loops of its own.

Imports: the core, types, the loop level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Block, Builder, Real, Value, attr, operand, sample
from ..dims import DimLike, sym
from ..types import BufferType, TensorType, i64
from .axis import _Axis
from .constraints import axis_of, least, require
from .convert import widen
from .elementwise import constant
from .loop import Alloc, For, IndexValue, Load, Store, When


class TopK(_Axis):
    """(values, indices) of the k greatest elements along `axis`, the greatest first.

    Without `largest` of the k least, the least first.  Stable: of equal elements the one with the
    lower index comes first.  NaN counts as the greatest. C1: axis < rank(x).  C2: 0 <= k <= the
    axis's extent.
    """

    x = operand(Real)
    k = attr(object)
    axis = attr(int, -1)
    largest = attr(bool, True)

    @staticmethod
    def infer(x: TensorType, k: DimLike, axis: int, largest: bool) -> tuple[TensorType, TensorType]:
        at = axis_of(axis, x.rank, "top_k", "C1")
        for ok in (least(k, 0), least(x.shape[at] - k, 0)):
            require(ok, "E0319", f"top_k (C2): k = {k} does not fit axis {axis}", f"found {x}")
        shape = (*x.shape[:at], k, *x.shape[at + 1 :])
        return TensorType(x.dtype, shape), TensorType(i64, shape)

    @staticmethod
    def evaluate(x: Array, k: int, axis: int, largest: bool) -> tuple[Array, Array]:
        wide = widen(x)
        if largest:
            backwards = np.argsort(np.flip(wide, axis), axis=axis, kind="stable")
            order = x.shape[axis] - 1 - np.flip(backwards, axis)
        else:
            order = np.argsort(wide, axis=axis, kind="stable")
        order = np.take(order, np.arange(k), axis)
        return np.take_along_axis(x, order, axis), order.astype(np.int64)

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """Per row, each element is inserted into the sorted results if it beats the last of them.

        k insertions at worst per element, none for most: about extent + k * k * log(extent / k)
        steps on random data.
        """
        (x,) = inputs
        axis = self.axis
        if type(self.k) is int and self.k == 0:
            return
        at: list[DimLike] = []
        for d, extent in enumerate(x.buffer.shape):
            at.append(sym("j") if d == axis else sym(f"i{d}"))
            if d != axis:
                b = b.at(b.insert(For.make(f"i{d}", extent)).body)
        carried = [
            b.emit(Alloc, label=label, type=BufferType(dtype, (1,), "register"))
            for label, dtype in (("value", x.buffer.dtype), ("index", i64))
        ]
        b = b.at(b.insert(For.make("j", x.buffer.shape[axis])).body)
        found = b.emit(Load, x, index=at)
        j = sym("j")
        last = [*at[:axis], self.k - 1, *at[axis + 1 :]]
        worst = b.emit(Load, outputs[0], index=last, where=(j - self.k,), fill=0)
        enters = b.logical_or(_at_least_zero(b, self.k - 1 - j), self.beats(b, found, worst))
        when = b.insert(When(enters, regions=[Block(), Block()]))
        self.insertion(b.at(when.then), found, carried, outputs, at, axis)

    def insertion(
        self,
        b: Builder,
        found: Value,
        carried: Sequence[Value],
        outputs: Sequence[Value],
        at: Sequence[DimLike],
        axis: int,
    ) -> None:
        """Put the new element before the first result that it beats, and shift the rest down.

        What it beats it beats with all that follows, so equal elements keep their order.
        """
        j, p = sym("j"), sym("p")
        b.emit(Store, found, carried[0], index=(0,))
        b.emit(Store, b.emit(IndexValue, value=j, dtype=i64), carried[1], index=(0,))
        b = b.at(b.insert(For.make("p", self.k)).body)
        slot = [*at[:axis], p, *at[axis + 1 :]]
        new = [b.emit(Load, c, index=(0,)) for c in carried]
        old = [b.emit(Load, out, index=slot, where=(j - 1 - p,), fill=0) for out in outputs]
        wins = b.logical_or(_at_least_zero(b, p - j), self.beats(b, found, old[0]))
        for k, out in enumerate(outputs):
            b.emit(Store, b.where(wins, new[k], old[k]), out, index=slot, where=(j - p,))
            b.emit(Store, b.where(wins, old[k], new[k]), carried[k], index=(0,))

    def beats(self, b: Builder, x: Value, y: Value) -> Value:
        """Whether scalar x comes strictly before y."""
        if not self.largest:
            x, y = y, x
        greater: Value = b.gt(x, y)
        if x.type.kind != "float":  # type: ignore[attr-defined]
            return greater
        only_x = b.logical_and(b.ne(x, x), b.eq(y, y))
        return b.logical_or(greater, only_x)  # type: ignore[no-any-return]

    samples: ClassVar[Any] = (
        sample((3, 7), k=3),
        sample((5, 4), k=2, axis=0, largest=False),
        sample((1, 1), k=1),
        sample((2, 5), k=5),
        sample((2, 5), k=0),
        sample((2, 9), k=4, dtypes=("i8",), ranges=((-3, 3),)),
        sample((3, 6, 2), k=4, axis=1, dtypes=("u8",), ranges=((0, 4),), largest=False),
        sample((2, 5), k=2, dtypes=("f64",)),
        sample((2, 5), k=2, dtypes=("bf16",)),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((3, 7), k=3, axis=2)),
        ("C2", sample((3, 7), k=8)),
        ("C2", sample((3, 7), k=-1)),
    )


def _at_least_zero(b: Builder, value: DimLike) -> Value:
    index = b.emit(IndexValue, value=value, dtype=i64)
    return b.ge(index, constant(b, index, 0))  # type: ignore[no-any-return]


__all__ = ["TopK"]
