"""Running sums and products along an axis, by loops of their own.

Floats narrower than f32 accumulate in f32, and each result is rounded once.  `evaluate` adds f32 in
f64, as the reductions do.  Imports: the core, types, the loop level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Grads, Number, Value, attr, operand, sample
from ..dims import DimLike, sym
from ..types import BufferType, TensorType, from_numpy
from .axis import _Axis
from .constraints import axis_of
from .control import Scan
from .convert import round_float, widen
from .core import Const, zeros
from .elementwise import widened
from .loop import Alloc, For, Load, Store
from .reduce import sum_dtype


class _Cumulative(_Axis):
    """Base: element n of the result combines elements 0 to n along `axis`.

    With `exclusive` 0 to n - 1; with `reverse` from the other end.  C1: axis < rank(x).
    """

    x = operand(Number)
    axis = attr(int, 0)
    exclusive = attr(bool, False)
    reverse = attr(bool, False)
    combine: ClassVar[str]
    start: ClassVar[int]
    accumulate: ClassVar[Callable[..., Any]]

    @classmethod
    def infer(cls, x: TensorType, axis: int, exclusive: bool, reverse: bool) -> TensorType:
        axis_of(axis, x.rank, cls.name, "C1")
        return x

    @classmethod
    def evaluate(cls, x: Array, axis: int, exclusive: bool, reverse: bool) -> Array:
        wide = widen(x)
        wide = wide.astype(np.float64) if wide.dtype.kind == "f" else wide
        wide = np.flip(wide, axis) if reverse else wide
        with np.errstate(all="ignore"):
            total = cls.accumulate(wide, axis=axis, dtype=wide.dtype)
        if exclusive:
            total = np.roll(total, 1, axis)
            total[(slice(None),) * axis + (slice(0, 1),)] = cls.start
        total = np.flip(total, axis) if reverse else total
        dtype = from_numpy(x.dtype)
        return round_float(total, dtype) if dtype.is_float else total.astype(x.dtype)

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """Along the last axis (and for narrow floats) an accumulator per row; else each slice from
        the slice before it, so that the inner axes stay the inner loops.
        """
        (x,), (out,) = inputs, outputs
        shape = x.buffer.shape
        narrow = sum_dtype(x.buffer.dtype) is not x.buffer.dtype
        if narrow or self.axis == len(shape) - 1:
            self._by_rows(b, x, out)
        else:
            self._by_slices(b, x, out)

    def _place(self, at: Sequence[DimLike], offset: int) -> list[DimLike]:
        """The index `at` with the axis's step number turned into a position, `offset` steps on."""
        extent = self.x.tensor.shape[self.axis]
        step = sym("j") + offset
        place = list(at)
        place[self.axis] = extent - 1 - step if self.reverse else step
        return place

    def _by_rows(self, b: Builder, x: Value, out: Value) -> None:
        shape, dtype = x.buffer.shape, x.buffer.dtype
        acc_type = sum_dtype(dtype)
        at: list[DimLike] = [sym(f"i{d}") for d in range(len(shape))]
        for d, extent in enumerate(shape):
            if d != self.axis:
                b = b.at(b.insert(For.make(f"i{d}", extent)).body)
        acc = b.emit(Alloc, label="sum", type=BufferType(acc_type, (1,), "register"))
        b.emit(Store, b.insert(Const(self.start, acc_type)).result, acc, index=(0,))
        b = b.at(b.insert(For.make("j", shape[self.axis])).body)
        place = self._place(at, 0)
        value = b.emit(Load, x, index=place)
        value = value if acc_type is dtype else b.cast(value, to=acc_type)
        before = b.emit(Load, acc, index=(0,))
        after = getattr(b, self.combine)(before, value)
        b.emit(Store, after, acc, index=(0,))
        given = before if self.exclusive else after
        given = given if acc_type is dtype else b.cast(given, to=dtype)
        b.emit(Store, given, out, index=place)

    def _by_slices(self, b: Builder, x: Value, out: Value) -> None:
        shape = x.buffer.shape
        at: list[DimLike] = [sym(f"i{d}") for d in range(len(shape))]
        for d, extent in enumerate(shape):
            b = b.at(b.insert(For.make("j" if d == self.axis else f"i{d}", extent)).body)
        place, behind = self._place(at, 0), self._place(at, -1)
        first = (sym("j") - 1,)
        before = b.emit(Load, out, index=behind, where=first, fill=self.start)
        if self.exclusive:
            value = b.emit(Load, x, index=behind, where=first, fill=self.start)
        else:
            value = b.emit(Load, x, index=place)
        b.emit(Store, getattr(b, self.combine)(before, value), out, index=place)

    samples: ClassVar[Any] = (
        sample((3, 5), axis=1, ranges=((-1.5, 1.5),)),
        sample((4, 3, 2), axis=1, exclusive=True, ranges=((-1.5, 1.5),)),
        sample((7,)),
        sample((5, 3), axis=0, reverse=True),
        sample((2, 6), axis=-1, exclusive=True, reverse=True),
        sample((6, 17), axis=0, exclusive=True, reverse=True),
        sample((6, 17), axis=0, dtypes=("bf16",)),
        sample((3, 1), axis=1, exclusive=True),
        sample((0, 3), axis=0, exclusive=True),
        sample((3, 0), axis=0),
        sample((9,), dtypes=("i8",), ranges=((-90, 90),)),
    )
    rejects: ClassVar[Any] = (("C1", sample((3, 5), axis=2)),)


class CumSum(_Cumulative):
    """The running sum along `axis`; integers wrap.  C1: axis < rank(x)."""

    combine = "add"
    start = 0
    accumulate = np.cumsum

    def vjp(self, b: Builder, g: Value) -> Grads:
        """The running sum from the other end."""
        turned = not self.reverse
        return (b.cum_sum(g, axis=self.axis, exclusive=self.exclusive, reverse=turned),)


class CumProd(_Cumulative):
    """The running product along `axis`; integers wrap.  C1: axis < rank(x)."""

    combine = "mul"
    start = 1
    accumulate = np.cumprod

    def vjp(self, b: Builder, g: Value) -> Grads:
        """The product before each element times the sum over the results behind it of their
        cotangents, each times the elements between: nothing is divided, so that some may be 0.
        """
        g, x = widened(b, g, self.x)
        before = b.cum_prod(x, axis=self.axis, exclusive=True, reverse=self.reverse)
        perm = [self.axis, *[k for k in range(x.tensor.rank) if k != self.axis]]
        slices = [b.transpose(v, perm=perm) for v in (g, x)]

        def step(b: Builder, behind: Value, g: Value, x: Value) -> tuple[Value, Value]:
            if self.exclusive:
                return b.add(g, b.mul(x, behind)), behind
            total = b.add(g, behind)
            return b.mul(x, total), total

        start = zeros(b, TensorType(g.tensor.dtype, slices[0].tensor.shape[1:]))
        scan = b.insert(Scan.make([start], slices, step, reverse=not self.reverse))
        back = [perm.index(k) for k in range(len(perm))]
        return (b.mul(before, b.transpose(scan.results[1], perm=back)),)


__all__ = ["CumProd", "CumSum"]
