"""Ops that move elements and compute nothing: reshape, transpose, slice, broadcast, pad, concat.

All but concat are index maps, which fuse into what reads or writes them; concat copies each operand
to its slice of the result.  Squeeze, unsqueeze, flatten and expand are reshape and broadcast_to.
Imports: the core, types, dims.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import Any_, Array, Builder, Grads, Op, Plain, Value, attr, operand, sample, variadic
from ..dims import DimLike, Range, equal, nonneg, simplify, sym
from ..types import DType, Shape, TensorType, dense_strides, dims_text, i64
from .axis import _Axis
from .constraints import axis_of, least, permutation, require, same
from .contract import as_type
from .core import generic, indices, iterators
from .loop import For, IndexValue, Load, Store


def element_by_element(
    b: Builder, op: Op, x: Value, index: Any, fill: Any = None, prefix: str = "i"
) -> Value:
    """A generic that copies: result element i is x at `index(i)`, or `fill` outside x."""
    out = op.result.tensor
    its = iterators(prefix, out.shape)
    at = indices(its)
    fills = () if fill is None else (fill,)
    made = generic(b, [x], its, [index(at)], [at], [out], lambda b, x: x, fills=fills)
    return made  # type: ignore[no-any-return]


class Reshape(Op):
    """The elements of x, in row-major order, as another shape.  C1: as many elements as before."""

    x = operand(Plain)
    shape = attr(tuple)

    @staticmethod
    def infer(x: TensorType, shape: Shape) -> TensorType:
        require(
            same(x.size, math.prod(shape)),
            "E0317",
            "reshape (C1): the number of elements changes",
            f"found {x}, which has {x.size}",
            f"[{dims_text(shape)}] has {math.prod(shape)}",
        )
        return TensorType(x.dtype, shape)

    @staticmethod
    def evaluate(x: Array, shape: tuple[int, ...]) -> Array:
        return x.reshape(shape)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the result; x's index is affine, with // and % where axes of x split."""
        return element_by_element(
            b, self, xs[0], lambda at: reshape_map(xs[0].tensor.shape, self.shape, at)
        )

    def vjp(self, b: Builder, g: Value) -> Grads:
        return (b.reshape(g, shape=self.x.tensor.shape),)

    samples = (
        sample((4, 6), shape=(3, 8)),
        sample((2, 3, 5), shape=(6, 5)),
        sample((30,), shape=(2, 3, 5)),
        sample((2, 12, 5), shape=(2, 4, 3, 1, 5)),
        sample((), shape=(1, 1)),
        sample((1,), shape=()),
        sample((0, 3), shape=(5, 0)),
        sample((7, 11), shape=(11, 7), dtypes=("i8",)),
        sample((2, 3), shape=(3, 2), dtypes=("bool",), ranges=((0, 1),)),
        sample((2, 3), shape=(3, 2), dtypes=("f64",)),
    )
    rejects = (("C1", sample((4, 6), shape=(5, 5))),)


def reshape_map(source: Shape, target: Shape, at: Sequence[DimLike]) -> list[DimLike]:
    """Where x of shape `source` is read for element `at` of shape `target`."""
    ranges: dict[str, Range] = {}
    for expr, extent in zip(at, target):
        for name in getattr(expr, "symbols", ()):
            ranges[name] = (0, extent - 1)
    out: list[DimLike] = []
    for low, high, start, stop in _groups(source, target):
        flat: DimLike = 0
        for k, stride in zip(range(start, stop), dense_strides(target[start:stop])):
            flat = flat + at[k] * stride
        for k, stride in zip(range(low, high), dense_strides(source[low:high])):
            if _is_one(source[k]):
                out.append(0)
                continue
            rest = flat if _is_one(stride) else flat // stride
            outermost = all([_is_one(e) for e in source[low:k]])
            out.append(simplify(rest if outermost else rest % source[k], ranges))
    return out


def _is_one(extent: DimLike) -> bool:
    return type(extent) is int and extent == 1


def _groups(source: Shape, target: Shape) -> list[tuple[int, int, int, int]]:
    """Runs source[low:high] and target[start:stop] of equal size, as short as can be."""
    if any([type(e) is int and e == 0 for e in (*source, *target)]):
        return [(0, len(source), 0, len(target))]
    runs: list[tuple[int, int, int, int]] = []
    low = high = start = stop = 0
    a: DimLike = 1
    c: DimLike = 1
    while high < len(source) or stop < len(target):
        if equal(a, c) is True and (high > low and stop > start):
            runs.append((low, high, start, stop))
            low, start, a, c = high, stop, 1, 1
        if stop >= len(target) or (high < len(source) and nonneg(c - a) is True):
            a, high = a * source[high], high + 1
        else:
            c, stop = c * target[stop], stop + 1
    runs.append((low, high, start, stop))
    return runs


class Transpose(Op):
    """Axis k of the result is axis perm[k] of x.  C1: `perm` is a permutation of x's axes."""

    x = operand(Plain)
    perm = attr(tuple)

    @staticmethod
    def infer(x: TensorType, perm: tuple[int, ...]) -> TensorType:
        require(
            permutation(perm, x.rank),
            "E0318",
            f"transpose (C1): {perm} is not a permutation of {x.rank} axes",
            f"found {x}",
        )
        return TensorType(x.dtype, tuple([x.shape[p] for p in perm]))

    @staticmethod
    def evaluate(x: Array, perm: tuple[int, ...]) -> Array:
        return x.transpose(perm)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the result; x is read with the axes permuted."""
        return element_by_element(
            b, self, xs[0], lambda at: [at[self.perm.index(k)] for k in range(len(at))]
        )

    def vjp(self, b: Builder, g: Value) -> Grads:
        return (b.transpose(g, perm=[self.perm.index(k) for k in range(len(self.perm))]),)

    samples = (
        sample((3, 5), perm=(1, 0)),
        sample((2, 3, 5, 7), perm=(0, 2, 3, 1)),
        sample((), perm=()),
        sample((1, 0, 4), perm=(2, 0, 1)),
        sample((17, 33), perm=(1, 0), dtypes=("u8",)),
        sample((2, 3), perm=(1, 0), dtypes=("bool",), ranges=((0, 1),)),
    )
    rejects = (
        ("C1", sample((3, 5), perm=(1, 1))),
        ("C1", sample((3, 5), perm=(0,))),
    )


class Slice(Op):
    """Element i of the result is x at starts + i*steps, per axis.

    C1: one start, size and step per axis; steps are not 0 (negative ones walk backwards).
    C2: sizes are at least 0, and the first and the last element lie inside x.
    """

    x = operand(Plain)
    starts = attr(tuple)
    sizes = attr(tuple)
    steps = attr(tuple, ())

    @staticmethod
    def infer(x: TensorType, starts: Shape, sizes: Shape, steps: tuple[int, ...]) -> TensorType:
        steps = steps or (1,) * x.rank
        lengths = len(starts) == len(sizes) == len(steps) == x.rank
        require(
            lengths and 0 not in steps,
            "E0319",
            "slice (C1): one start, size and step (not 0) per axis",
            f"found {x}, starts {starts}, sizes {sizes}, steps {steps}",
        )
        for axis, (extent, start, size, step) in enumerate(zip(x.shape, starts, sizes, steps)):
            found = f"axis {axis}: extent {extent}, start {start}, size {size}, step {step}"
            require(least(size, 0), "E0319", "slice (C2): a size is negative", found)
            if least(size, 1) is True:
                last = start + (size - 1) * step
                for place in (start, last):
                    require(least(place, 0), "E0319", "slice (C2): outside the operand", found)
                    require(
                        least(extent - place, 1), "E0319", "slice (C2): outside the operand", found
                    )
        return TensorType(x.dtype, sizes)

    @staticmethod
    def evaluate(
        x: Array, starts: tuple[int, ...], sizes: tuple[int, ...], steps: tuple[int, ...]
    ) -> Array:
        parts = []
        for start, size, step in zip(starts, sizes, steps or (1,) * x.ndim):
            stop = start + size * step
            parts.append(slice(start, stop if stop >= 0 else None, step) if size else slice(0, 0))
        return x[tuple(parts)]

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the result; x is read at an affine index."""
        steps = self.steps or (1,) * len(self.starts)
        return element_by_element(
            b, self, xs[0], lambda at: [s + i * step for s, i, step in zip(self.starts, at, steps)]
        )

    def vjp(self, b: Builder, g: Value) -> Grads:
        """A pad, behind a reversal where a step is negative and zeros between where it skips."""
        steps = self.steps or (1,) * len(self.starts)
        sizes, low = list(self.sizes), list(self.starts)
        if any([step < 0 for step in steps]):
            first = [n - 1 if step < 0 else 0 for n, step in zip(sizes, steps)]
            turns = [-1 if step < 0 else 1 for step in steps]
            g = b.slice(g, starts=first, sizes=sizes, steps=turns)
            low = [s + (n - 1) * step if step < 0 else s for s, n, step in zip(low, sizes, steps)]
        if any([abs(step) > 1 for step in steps]):
            g = _spaced(b, g, [abs(step) for step in steps])
        shape = self.x.tensor.shape
        high = [e - s - n for e, s, n in zip(shape, low, g.tensor.shape)]
        return (b.pad(g, low=low, high=high),)

    samples = (
        sample((5, 7), starts=(1, 2), sizes=(3, 5)),
        sample((9, 7), starts=(8, 0), sizes=(5, 3), steps=(-2, 3)),
        sample((4,), starts=(3,), sizes=(4,), steps=(-1,)),
        sample((4, 3), starts=(4, 0), sizes=(0, 3)),
        sample((), starts=(), sizes=()),
        sample((5, 7), starts=(1, 2), sizes=(1, 1), dtypes=("i8",)),
        sample((5,), starts=(1,), sizes=(2,), steps=(2,), dtypes=("bool",), ranges=((0, 1),)),
    )
    rejects = (
        ("C1", sample((5, 7), starts=(1,), sizes=(3, 5))),
        ("C1", sample((5,), starts=(1,), sizes=(2,), steps=(0,))),
        ("C2", sample((5,), starts=(3,), sizes=(3,))),
        ("C2", sample((5,), starts=(1,), sizes=(3,), steps=(-1,))),
        ("C2", sample((5,), starts=(1,), sizes=(-1,))),
    )


def _spaced(b: Builder, x: Value, steps: Sequence[int]) -> Value:
    """x with step - 1 zeros behind each element of every axis."""
    split: list[DimLike] = []
    high: list[int] = []
    for extent, step in zip(x.tensor.shape, steps):
        split += [extent] if step == 1 else [extent, 1]
        high += [0] if step == 1 else [0, step - 1]
    joined = [extent * step for extent, step in zip(x.tensor.shape, steps)]
    x = b.pad(b.reshape(x, shape=split), low=[0] * len(high), high=high)
    return b.reshape(x, shape=joined)  # type: ignore[no-any-return]


class BroadcastTo(Op):
    """x repeated to `shape`, by numpy's rules.

    C1: x's axes, from the last, are 1 or equal to the shape's.
    """

    x = operand(Plain)
    shape = attr(tuple)

    @staticmethod
    def infer(x: TensorType, shape: Shape) -> TensorType:
        skip = len(shape) - x.rank
        found = f"found {x}, shape [{dims_text(shape)}]"
        require(skip >= 0, "E0310", "broadcast_to (C1): the shape has fewer axes", found)
        for k, extent in enumerate(x.shape):
            require(
                _is_one(extent) or same(extent, shape[skip + k]),
                "E0310",
                f"broadcast_to (C1): axis {k} is neither 1 nor {shape[skip + k]}",
                found,
            )
        return TensorType(x.dtype, shape)

    @staticmethod
    def evaluate(x: Array, shape: tuple[int, ...]) -> Array:
        return np.broadcast_to(x, shape)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the result; axes of extent 1 are read at 0."""
        shape = xs[0].tensor.shape
        skip = len(self.shape) - len(shape)
        return element_by_element(
            b,
            self,
            xs[0],
            lambda at: [0 if _is_one(e) else at[skip + k] for k, e in enumerate(shape)],
        )

    def vjp(self, b: Builder, g: Value) -> Grads:
        """The pass sums over what was repeated, as for every operand."""
        return (g,)

    samples = (
        sample((3, 1), shape=(3, 5)),
        sample((), shape=(2, 3)),
        sample((1, 7), shape=(2, 4, 7)),
        sample((1,), shape=(0,)),
        sample((3,), shape=(3,), dtypes=("i64",), ranges=((-9, 9),)),
    )
    rejects = (
        ("C1", sample((3, 2), shape=(3, 5))),
        ("C1", sample((3, 2), shape=(2,))),
    )


class Concat(_Axis):
    """The operands one after the other along `axis`.

    C1: at least one operand, all of one element type and rank.  C2: axis < rank.  C3: the other
    extents are equal.
    """

    xs = variadic(Any_)
    axis = attr(int)

    @staticmethod
    def infer(*xs: TensorType, axis: int) -> TensorType:
        found = ", ".join([str(x) for x in xs])
        alike = bool(xs) and all([x.dtype is xs[0].dtype and x.rank == xs[0].rank for x in xs])
        require(alike, "E0319", "concat (C1): operands must have one element type and rank", found)
        first = list(xs[0].shape)
        at = axis_of(axis, len(first), "concat", "C2")
        total: DimLike = 0
        for x in xs:
            total = total + x.shape[at]
            for k, extent in enumerate(x.shape):
                if k != at:
                    require(
                        same(first[k], extent),
                        "E0319",
                        f"concat (C3): extents of axis {k} differ",
                        found,
                    )
                    first[k] = extent if type(extent) is int else first[k]
        first[at] = total
        return TensorType(xs[0].dtype, tuple(first))

    @staticmethod
    def evaluate(*xs: Array, axis: int) -> Array:
        return np.concatenate(xs, axis)

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """One nest per operand, which copies it to its slice."""
        (target,) = outputs
        axis = self.axis
        offset: DimLike = 0
        for k, source in enumerate(inputs):
            copy_into(b, source, target, f"x{k}.", {axis: offset})
            offset = offset + source.buffer.shape[axis]

    def vjp(self, b: Builder, g: Value) -> Grads:
        found, offset = [], [0] * g.tensor.rank
        for x in self.xs:
            found.append(b.slice(g, starts=offset, sizes=x.tensor.shape))
            offset = list(offset)
            offset[self.axis] = offset[self.axis] + x.tensor.shape[self.axis]
        return found

    samples = (
        sample((2, 3), (2, 5), axis=1),
        sample((2, 3), (1, 3), (4, 3), axis=0),
        sample((3,), (0,), (2,), axis=-1),
        sample((2, 3, 1), axis=2),
        sample((2, 3), (2, 5), axis=1, dtypes=("i8", "i8")),
        sample((2, 3), (2, 5), axis=1, dtypes=("bool", "bool"), ranges=((0, 1), (0, 1))),
    )
    rejects = (
        ("C1", sample((2, 3), (2, 3, 1), axis=1)),
        ("C1", sample((2, 3), (2, 3), axis=1, dtypes=("f32", "f64"))),
        ("C2", sample((2, 3), (2, 3), axis=2)),
        ("C3", sample((2, 3), (4, 3), axis=1)),
    )


def copy_into(
    b: Builder, source: Value, target: Value, prefix: str, offsets: dict[int, DimLike]
) -> None:
    """A nest that copies a buffer into `target` at `offsets` (0 where not given)."""
    at: list[DimLike] = []
    for k, extent in enumerate(source.buffer.shape):
        loop = b.insert(For.make(f"{prefix}i{k}", extent))
        b = b.at(loop.body)
        at.append(sym(loop.var))
    value = b.emit(Load, source, index=at)
    b.emit(Store, value, target, index=[i + offsets.get(k, 0) for k, i in enumerate(at)])


class DimValue(Op):
    """The value of a dim expression as a tensor of rank 0: shape arithmetic meets data."""

    dim = attr(object)
    dtype = attr(DType, i64)
    no_gradient = "an extent"

    @staticmethod
    def infer(dim: DimLike, dtype: DType) -> TensorType:
        return TensorType(dtype, ())

    @staticmethod
    def evaluate(dim: int, dtype: DType) -> Array:
        return np.asarray(dim).astype(dtype.np)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """No iterators: one index value."""

        def body(b: Builder) -> Value:
            return as_type(b, b.emit(IndexValue, value=self.dim, dtype=i64), self.dtype)

        return generic(b, [], [], [], [()], [self.result.tensor], body)  # type: ignore[no-any-return]

    samples = (sample(dim=7), sample(dim=3, dtype=DType("f32")))


__all__ = [
    "BroadcastTo",
    "Concat",
    "DimValue",
    "Reshape",
    "Slice",
    "Transpose",
    "copy_into",
    "element_by_element",
    "reshape_map",
]
