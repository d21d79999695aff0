"""The determinant of square matrices, by loops of its own.

Imports: the core, types, the loop level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Grads, Op, Value, operand, sample
from ..dims import DimLike, sym
from ..types import BufferType, TensorType, from_numpy, i64
from .constraints import require, same
from .convert import compute_dtype, round_float, widen
from .core import Const
from .elementwise import constant, widened
from .loop import Alloc, Bind, For, IndexValue, Load, Store


def _nest(b: Builder, loops: Sequence[tuple[str, DimLike, DimLike]]) -> Builder:
    """Loops (name, first, extent), outermost first."""
    for name, low, extent in loops:
        b = b.at(b.insert(For.make(name, extent, lo=low)).body)
    return b


class Det(Op):
    """The determinant of the matrices in the last two axes, by elimination with row pivots.

    f16 and bf16 compute in f32 and round once; `evaluate` computes in f64.  C1: rank(x) >= 2.  C2:
    the matrices are square.
    """

    x = operand(Float)

    @staticmethod
    def infer(x: TensorType) -> TensorType:
        require(x.rank >= 2, "E0312", "det (C1): a matrix has two axes", f"found {x}")
        square = same(x.shape[-2], x.shape[-1])
        require(square, "E0312", "det (C2): the matrices must be square", f"found {x}")
        return TensorType(x.dtype, x.shape[:-2])

    @staticmethod
    def evaluate(x: Array) -> Array:
        with np.errstate(all="ignore"):
            found = np.linalg.det(widen(x).astype(np.float64))
        return round_float(np.asarray(found), from_numpy(x.dtype))

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """Per matrix: a copy, then for each column the greatest element is brought to the diagonal
        and the rows below are cleared.
        """
        (x,) = inputs
        dtype = x.buffer.dtype
        wide = compute_dtype(dtype)
        *outer, n = x.buffer.shape[:-1]
        work = b.emit(Alloc, label="work", type=BufferType(wide, (n, n), "heap"))
        b = _nest(b, [(f"i{k}", 0, extent) for k, extent in enumerate(outer)])
        matrix = [sym(f"i{k}") for k in range(len(outer))]
        total = b.emit(Alloc, label="total", type=BufferType(wide, (1,), "register"))
        inner = _nest(b, [("y", 0, n), ("x", 0, n)])
        value = inner.emit(Load, x, index=[*matrix, sym("y"), sym("x")])
        value = value if wide is dtype else inner.cast(value, to=wide)
        inner.emit(Store, value, work, index=(sym("y"), sym("x")))
        b.emit(Store, b.insert(Const(1.0, wide)).result, total, index=(0,))
        step = _nest(b, [("k", 0, n)])
        self._pivot(step, work, n)
        self._swap(step, work, total, n)
        self._clear(step, work, n)
        out = b.emit(Load, total, index=(0,))
        b.emit(Store, out if wide is dtype else b.cast(out, to=dtype), outputs[0], index=matrix)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Times the cofactors, each the determinant of what is left without its row and column.

        Right for singular matrices too; n**5 operations on n**4 numbers, so for small ones.
        """
        shape = self.x.tensor.shape
        if not shape[-1]:
            return (None,)
        g, x = widened(b, g, self.x)
        n, first, lead = shape[-1], len(shape) - 2, tuple(range(len(shape) - 2))
        row, column = b.iota(shape=(n, 1)), b.iota(shape=(1, n - 1), axis=1)
        others = b.add(column, b.cast(b.ge(column, row), to=i64))
        minors = b.take(b.take(x, others, axis=first), others, axis=first + 2)
        minors = b.transpose(minors, perm=(*lead, first, first + 2, first + 1, first + 3))
        parity = b.bitwise_and(b.add(row, b.iota(shape=(1, n), axis=1)), constant(b, row, 1))
        sign = b.where(b.eq(parity, constant(b, row, 0)), *[constant(b, x, v) for v in (1.0, -1.0)])
        share = b.reshape(g, shape=(*shape[:-2], 1, 1))
        return (b.mul(b.mul(share, sign), b.det(minors)),)

    def _pivot(self, b: Builder, work: Value, n: DimLike) -> None:
        """Bind `p` to the row, from k on, with the greatest magnitude in column k."""
        k = sym("k")
        wide = work.buffer.dtype
        best, place = [
            b.emit(Alloc, label=label, type=BufferType(t, (1,), "register"))
            for label, t in (("best", wide), ("place", i64))
        ]
        b.emit(Store, b.insert(Const(-1.0, wide)).result, best, index=(0,))
        b.emit(Store, b.emit(IndexValue, value=k, dtype=i64), place, index=(0,))
        row = _nest(b, [("r", k, n - k)])
        size = row.abs(row.emit(Load, work, index=(sym("r"), k)))
        have, at = row.emit(Load, best, index=(0,)), row.emit(Load, place, index=(0,))
        wins = row.gt(size, have)
        here = row.emit(IndexValue, value=sym("r"), dtype=i64)
        row.emit(Store, row.where(wins, size, have), best, index=(0,))
        row.emit(Store, row.where(wins, here, at), place, index=(0,))
        b.emit(Bind, b.emit(Load, place, index=(0,)), symbol="p", extent=n)

    def _swap(self, b: Builder, work: Value, total: Value, n: DimLike) -> None:
        """Exchange rows k and p; the product of the pivots changes its sign with each exchange."""
        k, p, c = sym("k"), sym("p"), sym("c")
        column = _nest(b, [("c", k, n - k)])
        upper = column.emit(Load, work, index=(k, c))
        lower = column.emit(Load, work, index=(p, c))
        column.emit(Store, lower, work, index=(k, c))
        column.emit(Store, upper, work, index=(p, c))
        have = b.mul(b.emit(Load, total, index=(0,)), b.emit(Load, work, index=(k, k)))
        apart = b.emit(IndexValue, value=p - k, dtype=i64)
        moved = b.ne(apart, constant(b, apart, 0))
        b.emit(Store, b.where(moved, b.neg(have), have), total, index=(0,))

    def _clear(self, b: Builder, work: Value, n: DimLike) -> None:
        """Subtract multiples of row k from those below; a pivot of 0 has only zeros below."""
        k, r, c = sym("k"), sym("q"), sym("d")
        row = _nest(b, [("q", k + 1, n - k - 1)])
        pivot = row.emit(Load, work, index=(k, k))
        zero = constant(row, pivot, 0.0)
        share = row.div(row.emit(Load, work, index=(r, k)), pivot)
        share = row.where(row.eq(pivot, zero), zero, share)
        column = _nest(row, [("d", k + 1, n - k - 1)])
        taken = column.mul(share, column.emit(Load, work, index=(k, c)))
        left = column.sub(column.emit(Load, work, index=(r, c)), taken)
        column.emit(Store, left, work, index=(r, c))

    samples: ClassVar[Any] = (
        sample((3, 3)),
        sample((2, 5, 4, 4)),
        sample((1, 1)),
        sample((7, 7), dtypes=("f64",)),
        sample((3, 2, 2), ranges=((0, 0),)),
        sample((0, 2, 2)),
        sample((0, 0)),
        sample((2, 2), dtypes=("bf16",)),
    )
    rejects: ClassVar[Any] = (("C1", sample((3,))), ("C2", sample((3, 2))))


__all__ = ["Det"]
