"""The k greatest or least elements along an axis, by loops of its own.

Imports: the core, types, the loop level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Block, Builder, Grads, Real, Value, attr, operand, sample
from ..dims import DimLike, sym
from ..types import BufferType, TensorType, i64
from .axis import _Axis
from .constraints import axis_of, least, require
from .convert import widen
from .core import Const, zeros
from .elementwise import constant
from .loop import Alloc, Bind, For, IndexValue, Load, Store, When
from .sorting import at_least_zero, index_value, merge_sort

INSERTED = 64
"""Up to so many results they are kept sorted by insertion."""


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

    def vjp(self, b: Builder, g: Value, *others: Value | None) -> Grads:
        """Back to where the values were: no place is named twice."""
        start = zeros(b, TensorType(g.tensor.dtype, self.x.tensor.shape))
        return (b.scatter_elements(start, self.results[1], g, axis=self.axis),)

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """Few results: each element is inserted into them if it beats the last.  More: elements
        that beat the last are collected, and sorted whenever there are 2 k.
        """
        if type(self.k) is int and self.k == 0:
            return
        (x,) = inputs
        extent = x.buffer.shape[self.axis]
        if type(self.k) is int and type(extent) is int and self.k > INSERTED:
            self._by_sorting(b, x, outputs, self.k, min(2 * self.k, extent))
        else:
            self._by_insertion(b, x, outputs)

    def _rows(self, b: Builder, x: Value) -> tuple[Builder, list[DimLike]]:
        """Loops over all axes but the own; a builder inside, and the index of element `j`."""
        at: list[DimLike] = []
        for d, extent in enumerate(x.buffer.shape):
            at.append(sym("j") if d == self.axis else sym(f"i{d}"))
            if d != self.axis:
                b = b.at(b.insert(For.make(f"i{d}", extent)).body)
        return b, at

    def _by_sorting(
        self, b: Builder, x: Value, outputs: Sequence[Value], k: int, room: int
    ) -> None:
        """k log(extent / k) elements enter on random data; one in k of them begins a sort."""
        extent: DimLike = x.buffer.shape[self.axis]
        work, spare = [
            tuple([b.emit(Alloc, label=f"{label}.{name}", type=BufferType(dtype, (room,), "heap"))
                   for name, dtype in (("keys", x.buffer.dtype), ("places", i64))])
            for label in ("work", "spare")
        ]  # fmt: skip
        b, at = self._rows(b, x)
        worst, count, full = [
            b.emit(Alloc, label=label, type=BufferType(dtype, (1,), "register"))
            for label, dtype in (("worst", x.buffer.dtype), ("count", i64), ("full", i64))
        ]
        for state in (worst, count, full):
            zero = b.insert(Const(0, state.buffer.dtype)).result
            b.emit(Store, zero, state, index=(0,))
        j = sym("j")
        step = b.at(b.insert(For.make("j", extent + 1)).body)
        found = step.emit(Load, x, index=at, where=(extent - 1 - j,), fill=0)
        entered = step.emit(Load, full, index=(0,))
        free = step.eq(entered, constant(step, entered, 0))
        beats = self.beats(step, found, step.emit(Load, worst, index=(0,)))
        enters = step.logical_and(step.logical_or(free, beats), at_least_zero(step, extent - 1 - j))
        then = step.at(step.insert(When(enters, regions=[Block(), Block()])).then)
        then.emit(Bind, then.emit(Load, count, index=(0,)), symbol="c", extent=room)
        for value, buffer in ((found, work[0]), (index_value(then, j), work[1])):
            then.emit(Store, value, buffer, index=(sym("c"),))
        then.emit(Store, index_value(then, sym("c") + 1), count, index=(0,))
        have = step.emit(Load, count, index=(0,))
        entered = step.emit(Load, full, index=(0,))
        sorted_ = step.logical_and(
            step.eq(have, constant(step, have, k)), step.ne(entered, constant(step, entered, 0))
        )
        ends = step.logical_and(at_least_zero(step, j - extent), step.logical_not(sorted_))
        flush = step.logical_or(ends, step.eq(have, constant(step, have, room)))
        then = step.at(step.insert(When(flush, regions=[Block(), Block()])).then)
        then.emit(Bind, have, symbol="n", extent=room + 1)
        merge_sort(then, work, spare, sym("n"), self.beats)
        then.emit(Store, then.emit(Load, work[0], index=(k - 1,)), worst, index=(0,))
        for value, state in ((k, count), (1, full)):
            then.emit(Store, then.insert(Const(value, i64)).result, state, index=(0,))
        last = b.at(b.insert(For.make("p", k)).body)
        slot = [*at[: self.axis], sym("p"), *at[self.axis + 1 :]]
        for buffer, out in zip(work, outputs, strict=True):
            last.emit(Store, last.emit(Load, buffer, index=(sym("p"),)), out, index=slot)

    def _by_insertion(self, b: Builder, x: Value, outputs: Sequence[Value]) -> None:
        """k insertions at worst per element, none for most: about extent + k * k * log(extent / k)
        steps on random data.
        """
        axis = self.axis
        b, at = self._rows(b, x)
        carried = [
            b.emit(Alloc, label=label, type=BufferType(dtype, (1,), "register"))
            for label, dtype in (("value", x.buffer.dtype), ("index", i64))
        ]
        b = b.at(b.insert(For.make("j", x.buffer.shape[axis])).body)
        found = b.emit(Load, x, index=at)
        j = sym("j")
        last = [*at[:axis], self.k - 1, *at[axis + 1 :]]
        worst = b.emit(Load, outputs[0], index=last, where=(j - self.k,), fill=0)
        enters = b.logical_or(at_least_zero(b, self.k - 1 - j), self.beats(b, found, worst))
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
        wins = b.logical_or(at_least_zero(b, p - j), self.beats(b, found, old[0]))
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
        sample((2, 80), k=80),
        sample((3, 400), k=70, dtypes=("i16",), ranges=((-30, 30),), largest=False),
        sample((200, 3), k=66, axis=0, dtypes=("bf16",)),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((3, 7), k=3, axis=2)),
        ("C2", sample((3, 7), k=8)),
        ("C2", sample((3, 7), k=-1)),
    )


__all__ = ["TopK"]
