"""Reductions over axes: sum, mean, product, greatest, least, and norms.

`axes` is None for all or a tuple, negative counted from the end; the op holds it sorted and non-
negative. Floats narrower than f32 accumulate in f32 and round once.  `evaluate` sums f32 in f64: it
stands for the exact sum, which compiled code meets within (n + 1) * 2**-24 * sum(|x|) in any order.
Imports: the core, types, dims, loop (for the index of an iterator).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import (
    Array,
    Builder,
    Float,
    Grads,
    Number,
    Op,
    Real,
    Sample,
    Value,
    attr,
    operand,
    sample,
)
from ..dims import DimLike, sym
from ..types import DType, TensorType, f32, from_numpy
from .constraints import axis_of, require
from .convert import compute_dtype, highest, lowest, round_float, widen
from .core import Const, generic
from .elementwise import Ordered, constant, passed, stopped, widened
from .loop import IndexValue

Axes = tuple[int, ...]


def canonical_axes(op: str, axes: Axes | int | None, rank: int) -> Axes:
    """Sorted and counted from the front; E0330 naming C1 (range) or C2 (repeats)."""
    if axes is None:
        return tuple(range(rank))
    given = (axes,) if isinstance(axes, int) else axes
    out = tuple(sorted([axis_of(a, rank, op, "C1") for a in given]))
    require(
        len(set(out)) == len(out), "E0330", f"{op} (C2): an axis is named twice", f"found {given}"
    )
    return out


def reduced_shape(shape: Sequence[DimLike], axes: Axes, keepdims: bool) -> tuple[DimLike, ...]:
    """The result shape: reduced extents become 1, or vanish."""
    if keepdims:
        return tuple([1 if k in axes else e for k, e in enumerate(shape)])
    return tuple([e for k, e in enumerate(shape) if k not in axes])


Frame = tuple[list[tuple[str, DimLike, str]], list[DimLike], list[DimLike]]


def reduction_frame(shape: Sequence[DimLike], axes: Axes, keepdims: bool) -> Frame:
    """Iterators (parallel `i`, then reduction `r`), the operand's map and the result's map."""
    names = [f"{'r' if k in axes else 'i'}{k}" for k in range(len(shape))]
    its = [
        (n, e, "parallel")
        for k, (n, e) in enumerate(zip(names, shape, strict=True))
        if k not in axes
    ]
    its += [
        (n, e, "reduction") for k, (n, e) in enumerate(zip(names, shape, strict=True)) if k in axes
    ]
    index: list[DimLike] = [sym(n) for n in names]
    out = [0 if k in axes else index[k] for k in range(len(shape)) if keepdims or k not in axes]
    return its, index, out


def sum_dtype(dtype: DType) -> DType:
    """The accumulator of sums and products: at least f32; integers keep their type, and wrap."""
    return f32 if dtype.is_float and dtype.bits < 32 else dtype


SHAPES = (
    sample((3, 5), axes=(1,)),
    sample((3, 5), axes=(0,), keepdims=True),
    sample((2, 3, 7), axes=(0, -1)),
    sample((17,)),
    sample((), axes=()),
    sample((4, 1), axes=(-1,)),
    sample((3, 0), axes=(1,)),
)


class _Axes(Op):
    """Base: holds `axes` in canonical form.  C1: axes are in range.  C2: none is named twice."""

    axes = attr(object, None)
    keepdims = attr(bool, False)
    samples: ClassVar[Sequence[Sample]] = SHAPES
    rejects: ClassVar[Sequence[tuple[str, Sample]]] = (
        ("C1", sample((3, 5), axes=(2,))),
        ("C2", sample((3, 5), axes=(1, -1))),
    )

    def __init__(self, *operands: Value, axes: Axes | None = None, **attrs: Any) -> None:
        if operands and isinstance(operands[0].type, TensorType):
            axes = canonical_axes(self.name, axes, operands[0].tensor.rank)
        super().__init__(*operands, axes=axes, **attrs)

    @classmethod
    def infer(cls, x: TensorType, axes: Axes | None = None, keepdims: bool = False) -> TensorType:
        axes = canonical_axes(cls.name, axes, x.rank)
        return TensorType(x.dtype, reduced_shape(x.shape, axes, keepdims))

    def spread(self, b: Builder, g: Value) -> Value:
        """A value of the result's shape with the reduced axes back as extents of 1: it broadcasts
        to the operand.
        """
        if self.keepdims or not self.axes:
            return g
        return b.reshape(g, shape=reduced_shape(self.operands[0].tensor.shape, self.axes, True))  # type: ignore[no-any-return]

    def count(self) -> DimLike:
        """How many elements become one."""
        number: DimLike = 1
        for axis in self.axes:
            number = number * self.operands[0].tensor.shape[axis]
        return number


class _Reduction(_Axes):
    """Base of the primitive reductions: `combine` two accumulators, starting from `start`."""

    combine: ClassVar[str]

    @staticmethod
    def start(dtype: DType) -> float | int:
        """The identity of the combiner."""
        return 0

    @staticmethod
    def acc_type(dtype: DType) -> DType:
        """The accumulator's type."""
        return sum_dtype(dtype)

    def generic(self, b: Builder, *xs: Value) -> Any:
        shape, dtype = xs[0].tensor.shape, xs[0].tensor.dtype
        its, index, out = reduction_frame(shape, self.axes, self.keepdims)
        acc = self.acc_type(dtype)

        def term(b: Builder, x: Value) -> Value:
            return x if acc is dtype else b.cast(x, to=acc)

        def combine(b: Builder, have: Value, new: Value) -> Value:
            return getattr(b, self.combine)(have, new)  # type: ignore[no-any-return]

        return generic(
            b,
            xs,
            its,
            [index],
            [out],
            [self.result.tensor],
            term,
            init=(self.start(acc),),
            combine=combine,
            acc_types=(acc,),
            finish=self.finish(b, dtype),
        )

    def finish(self, b: Builder, dtype: DType) -> Callable[..., Value] | None:
        """What becomes of the accumulator; None for a cast."""
        return None


def _wide(x: Array) -> Array:
    """Floats as f64, which stands for exact sums; f64 and integers as they are."""
    x = widen(x)
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def _narrow(out: Any, store: Any) -> Array:
    dtype = from_numpy(store)
    out = np.asarray(out)
    return round_float(out, dtype) if dtype.is_float else out.astype(store)


class ReduceSum(_Reduction):
    """The sum over `axes`, 0 of nothing; integers wrap.  C1, C2: as all reductions: axes in range,
    each once.
    """

    x = operand(Number)
    combine = "add"

    @staticmethod
    def evaluate(x: Array, axes: Axes | None = None, keepdims: bool = False) -> Array:
        with np.errstate(all="ignore"):
            wide = _wide(x)
            return _narrow(np.sum(wide, axis=axes, keepdims=keepdims, dtype=wide.dtype), x.dtype)

    def vjp(self, b: Builder, g: Value) -> Grads:
        return (self.spread(b, g),)


class ReduceProd(_Reduction):
    """The product over `axes`, 1 of nothing; integers wrap.  C1: axes in range.  C2: each once."""

    x = operand(Number)
    combine = "mul"

    @staticmethod
    def start(dtype: DType) -> float | int:
        return 1

    @staticmethod
    def evaluate(x: Array, axes: Axes | None = None, keepdims: bool = False) -> Array:
        with np.errstate(all="ignore"):
            wide = _wide(x)
            return _narrow(np.prod(wide, axis=axes, keepdims=keepdims, dtype=wide.dtype), x.dtype)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """For each element the product of the others, before and behind it; some may be 0."""
        g, x = widened(b, self.spread(b, g), self.x)
        if not self.axes:
            return (g,)
        shape = x.tensor.shape
        perm = (*[k for k in range(len(shape)) if k not in self.axes], *self.axes)
        kept = tuple([shape[k] for k in perm[: len(shape) - len(self.axes)]])
        rows = b.reshape(b.transpose(x, perm=perm), shape=(*kept, self.count()))
        sides = [b.cum_prod(rows, axis=-1, exclusive=True, reverse=r) for r in (False, True)]
        others = b.reshape(b.mul(*sides), shape=tuple([shape[k] for k in perm]))
        back = tuple([perm.index(k) for k in range(len(shape))])
        return (b.mul(g, b.transpose(others, perm=back)),)


class ReduceMean(_Reduction):
    """The mean over `axes`.  C1: axes in range.  C2: each once.

    Floats: the sum divided by the number of elements, NaN of nothing.  Integers: summed in i64
    (u64), divided toward zero, 0 of nothing.
    """

    x = operand(Real)
    combine = "add"

    @staticmethod
    def acc_type(dtype: DType) -> DType:
        return (
            sum_dtype(dtype) if dtype.is_float else DType("i64" if dtype.kind == "int" else "u64")
        )

    def finish(self, b: Builder, dtype: DType) -> Callable[..., Value]:
        acc = self.acc_type(dtype)
        count = self.count()

        def finish(b: Builder, total: Value) -> Value:
            if isinstance(count, int):
                number = b.insert(Const(float(count) if acc.is_float else count, acc)).result
            else:
                number = b.cast(b.emit(IndexValue, value=count), to=acc)
            mean = b.div(total, number)
            return mean if acc is dtype else b.cast(mean, to=dtype)  # type: ignore[no-any-return]

        return finish

    def vjp(self, b: Builder, g: Value) -> Grads:
        (g,) = widened(b, self.spread(b, g))
        count = self.count()
        if isinstance(count, int):
            return (b.div(g, constant(b, g, count)),)
        return (b.div(g, b.dim_value(dim=count, dtype=g.tensor.dtype)),)

    @staticmethod
    def evaluate(x: Array, axes: Axes | None = None, keepdims: bool = False) -> Array:
        wide = _wide(x)
        count = (
            wide.size if axes is None else int(np.prod([x.shape[a] for a in axes], dtype=np.int64))
        )
        if wide.dtype.kind != "f":
            wide = wide.astype(np.int64 if wide.dtype.kind == "i" else np.uint64)
        with np.errstate(all="ignore"):
            total = np.sum(wide, axis=axes, keepdims=keepdims, dtype=wide.dtype)
            if wide.dtype.kind == "f":
                return _narrow(total / np.float64(count), x.dtype)
            size = np.abs(total) // wide.dtype.type(count) if count else np.zeros_like(total)
            return _narrow(np.where(total < 0, 0 - size, size), x.dtype)


class _Extreme(_Reduction):
    x = operand(Ordered)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Elements equal to the extreme share alike."""
        g = self.spread(b, g)
        chosen = b.eq(self.x, self.spread(b, self.result))
        ties = b.reduce_sum(b.cast(chosen, to=sum_dtype(g.tensor.dtype)), axes=self.axes,
                            keepdims=True)  # fmt: skip
        return (passed(b, chosen, b.div(*widened(b, g, ties))),)

    @staticmethod
    def acc_type(dtype: DType) -> DType:
        return dtype


class ReduceMax(_Extreme):
    """The greatest element; NaN if any is; of nothing, the least value of the type (minus
    infinity).

    With `of_numbers` a NaN among the elements makes the result unspecified, and the combiner is
    `larger`: a third of the time.  C1: axes in range.  C2: each once.
    """

    of_numbers = attr(bool, False)
    samples = (*SHAPES, sample((3, 37), axes=(1,), of_numbers=True))

    @staticmethod
    def start(dtype: DType) -> float | int:
        return lowest(dtype)

    @property
    def combine(self) -> str:  # type: ignore[override]
        """The combiner's op name."""
        return "larger" if self.of_numbers else "max"

    @classmethod
    def infer(
        cls,
        x: TensorType,
        axes: Axes | None = None,
        keepdims: bool = False,
        of_numbers: bool = False,
    ) -> TensorType:
        return super().infer(x, axes, keepdims)

    @staticmethod
    def evaluate(
        x: Array, axes: Axes | None = None, keepdims: bool = False, of_numbers: bool = False
    ) -> Array:
        wide = widen(x)
        start = wide.dtype.type(lowest(from_numpy(x.dtype)))
        with np.errstate(all="ignore"):
            return np.asarray(np.max(wide, axis=axes, keepdims=keepdims, initial=start)).astype(
                x.dtype
            )


class ReduceMin(_Extreme):
    """The least element; NaN if any is; of nothing, the greatest value of the type (infinity).

    C1: axes in range.  C2: each once.
    """

    combine = "min"

    @staticmethod
    def start(dtype: DType) -> float | int:
        return highest(dtype)

    @staticmethod
    def evaluate(x: Array, axes: Axes | None = None, keepdims: bool = False) -> Array:
        wide = widen(x)
        start = wide.dtype.type(highest(from_numpy(x.dtype)))
        with np.errstate(all="ignore"):
            return np.asarray(np.min(wide, axis=axes, keepdims=keepdims, initial=start)).astype(
                x.dtype
            )


class _Norm(_Axes):
    """Base of the composites: `of_f64` for numpy, `expand` for the IR, at least in f32."""

    x = operand(Float)
    of_f64: ClassVar[Callable[..., Any]]
    expand: ClassVar[Callable[..., Value]]

    @classmethod
    def evaluate(cls, x: Array, axes: Axes | None = None, keepdims: bool = False) -> Array:
        with np.errstate(all="ignore"):
            return _narrow(cls.of_f64(_wide(x), axis=axes, keepdims=keepdims), x.dtype)

    def decompose(self, b: Builder) -> Value:
        dtype = self.x.tensor.dtype
        wide = compute_dtype(dtype)
        if wide is dtype:
            return self.expand(b, self.x)
        return b.cast(self.expand(b, b.cast(self.x, to=wide)), to=dtype)  # type: ignore[no-any-return]

    def sum(self, b: Builder, x: Value) -> Value:
        """The sum over this op's axes."""
        return b.reduce_sum(x, axes=self.axes, keepdims=self.keepdims)  # type: ignore[no-any-return]


class ReduceL1(_Norm):
    """The sum of magnitudes.  C1: axes in range.  C2: each once."""

    x = operand(Real)

    @staticmethod
    def of_f64(x: Array, **over: Any) -> Array:
        size = x if x.dtype.kind == "u" else np.abs(x)
        return np.sum(size, dtype=x.dtype, **over)  # type: ignore[no-any-return]

    def expand(self, b: Builder, x: Value) -> Value:
        return self.sum(b, b.abs(x))


class ReduceSumSquare(_Norm):
    """The sum of squares.  C1: axes in range.  C2: each once."""

    x = operand(Real)

    @staticmethod
    def of_f64(x: Array, **over: Any) -> Array:
        return np.sum(x * x, dtype=x.dtype, **over)  # type: ignore[no-any-return]

    def expand(self, b: Builder, x: Value) -> Value:
        return self.sum(b, b.mul(x, x))

    def vjp(self, b: Builder, g: Value) -> Grads:
        g, x = widened(b, self.spread(b, g), self.x)
        return (b.mul(x, b.add(g, g)),)


class ReduceL2(_Norm):
    """The root of the sum of squares (not rescaled: overflows where a square does).  C1: axes in
    range.  C2: each once.
    """

    @staticmethod
    def of_f64(x: Array, **over: Any) -> Array:
        return np.sqrt(np.sum(x * x, **over))  # type: ignore[no-any-return]

    def expand(self, b: Builder, x: Value) -> Value:
        return b.sqrt(self.sum(b, b.mul(x, x)))  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        """x / norm, and 0 at 0."""
        g, x, norm = widened(b, self.spread(b, g), self.x, self.spread(b, self.result))
        zero = b.eq(norm, constant(b, norm, 0.0))
        share = stopped(b, zero, b.div(g, b.where(zero, constant(b, norm, 1.0), norm)))
        return (b.mul(x, share),)


class ReduceLogSum(_Norm):
    """The logarithm of the sum.  C1: axes in range.  C2: each once."""

    samples = tuple([sample(*s.shapes, ranges=((0.1, 3),), **s.attrs) for s in SHAPES])

    @staticmethod
    def of_f64(x: Array, **over: Any) -> Array:
        return np.log(np.sum(x, **over))  # type: ignore[no-any-return]

    def expand(self, b: Builder, x: Value) -> Value:
        return b.log(self.sum(b, x))  # type: ignore[no-any-return]


class ReduceLogSumExp(_Norm):
    """log(sum(exp(x))), shifted by the greatest element; minus infinity of nothing.  C1: axes in
    range.  C2: each once.
    """

    samples = (*SHAPES, sample((3, 5), ranges=((-300, 300),), axes=(1,)))

    @staticmethod
    def of_f64(x: Array, axis: Axes | None, keepdims: bool) -> Array:
        top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
        shift = np.where(np.isinf(top), 0.0, top)
        total = np.log(np.sum(np.exp(x - shift), axis=axis, keepdims=True)) + shift
        return np.asarray(total if keepdims else np.squeeze(total, axis=axis))

    def expand(self, b: Builder, x: Value) -> Value:
        # A NaN that `top` misses is in the sum of powers.
        top = b.reduce_max(x, axes=self.axes, keepdims=True, of_numbers=True)
        shift = b.where(b.is_inf(top), constant(b, top, 0.0), top)
        total = b.log(self.sum(b, b.exp(b.sub(x, shift))))
        if not self.keepdims:
            shift = b.reduce_max(shift, axes=self.axes)  # drops the extents of 1
        return b.add(total, shift)  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        """The softmax; 0 where all are minus infinity."""
        g, x, top = widened(b, self.spread(b, g), self.x, self.spread(b, self.result))
        least = b.eq(top, constant(b, top, float("-inf")))
        share = b.exp(b.sub(x, stopped(b, least, top)))
        return (b.mul(g, share),)


__all__ = [
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "canonical_axes",
    "reduced_shape", "reduction_frame", "sum_dtype",
]  # fmt: skip
