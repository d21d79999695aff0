"""Ops about indices: iota, gathers, one-hot, reversed sequences.

`take`, `take_along` and `take_nd` are the primitives (indices from 0 on); `gather`,
`gather_elements` and `gather_nd` are ONNX's, where a negative index counts from the end.  An index
out of range is an error: E0503 here, `STATUS_INDEX` in compiled code.  Imports: the core, types,
dims, loop level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Grads, Int, Op, Plain, Value, attr, operand, sample
from ..dims import DimLike, sym
from ..errors import Error
from ..types import DType, Shape, TensorType, boolean, i64
from .axis import _Axis
from .constraints import axis_of, require, same
from .contract import as_type
from .core import Const, generic, indices, iterators, zeros
from .elementwise import widened
from .loop import IndexValue
from .shape import DimValue


class Iota(_Axis):
    """The index along `axis` as a value.

    C1: axis < the rank of `shape`.  C2: `dtype` is an integer or float type.
    """

    shape = attr(tuple)
    axis = attr(int, 0)
    dtype = attr(DType, i64)
    no_gradient = "reads nothing"

    @classmethod
    def axes(cls, operands: Sequence[Value], attrs: Mapping[str, Any]) -> int:
        return len(attrs.get("shape", ()))

    @staticmethod
    def infer(shape: Shape, axis: int, dtype: DType) -> TensorType:
        axis_of(axis, len(shape), "iota", "C1")
        require(
            dtype.kind in ("int", "uint", "float"), "E0303", f"iota (C2): no index is a {dtype}"
        )
        return TensorType(dtype, shape)

    @staticmethod
    def evaluate(shape: tuple[int, ...], axis: int, dtype: DType) -> Array:
        along = [1] * len(shape)
        along[axis] = shape[axis]
        values = np.arange(shape[axis]).astype(dtype.np).reshape(along)
        return np.broadcast_to(values, shape)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the result; the body is the iterator's value."""
        its = iterators("i", self.shape)
        at = indices(its)
        value = at[self.axis]

        def body(b: Builder) -> Value:
            return as_type(b, b.emit(IndexValue, value=value, dtype=i64), self.dtype)

        return generic(b, [], its, [], [at], [self.result.tensor], body)  # type: ignore[no-any-return]

    samples: ClassVar[Any] = (
        sample(shape=(5,)),
        sample(shape=(3, 4), axis=1, dtype=DType("f32")),
        sample(shape=(3, 1, 2), axis=-3, dtype=DType("i32")),
        sample(shape=(0,)),
        sample(shape=(9,), dtype=DType("bf16")),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample(shape=(3,), axis=1)),
        ("C2", sample(shape=(3,), dtype=boolean)),
    )


def in_range(index: Array, extent: int, op: str, lowest: int | None = None) -> Array:
    """The indices as i64; E0503 where one is not from `lowest` (default -extent) to extent - 1."""
    wide = index.astype(np.int64)
    wrong = (wide < (-extent if lowest is None else lowest)) | (wide >= extent)
    if wrong.any():
        raise Error(
            "E0503",
            f"{op}: index {int(wide[wrong][0])} is out of range",
            details=(f"the axis has {extent} elements",),
        )
    return wide


def _counted_up(b: Builder, index: Value, extent: DimLike) -> Value:
    """Indices with negative ones counted from the end, as elementwise ops."""
    dtype = index.tensor.dtype
    index = b.cast(index, to=i64) if dtype is not i64 else index
    if dtype.kind == "uint":
        return index
    zero = b.insert(Const(np.zeros((), np.int64))).result
    size = b.emit(DimValue, dim=extent)
    return b.where(b.lt(index, zero), b.add(index, size), index)  # type: ignore[no-any-return]


def added_along(b: Builder, g: Value, index: Value, axis: int, extent: DimLike) -> Value:
    """Zeros, of that extent along `axis`, with the slices of g added where the index says: the
    cotangent of what `take` took them from.  Narrow floats add up in f32.
    """
    (g,) = widened(b, g)
    rank = index.tensor.rank
    named = list(range(axis, axis + rank))
    rest = [k for k in range(g.tensor.rank) if k not in named]
    updates = b.transpose(g, perm=[*named, *rest]) if axis else g
    rows = b.reshape(index, shape=(*index.tensor.shape, 1))
    start = zeros(b, TensorType(g.tensor.dtype, (extent, *[g.tensor.shape[k] for k in rest])))
    made = b.scatter_nd(start, rows, updates, reduction="add")
    if axis:
        behind = range(axis + 1, len(rest) + 1)
        made = b.transpose(made, perm=[*range(1, axis + 1), 0, *behind])
    return made  # type: ignore[no-any-return]


class Take(_Axis):
    """x with `axis` replaced by the axes of `index`: x[..., index, ...].  C1: axis < rank(x).

    Indices are from 0 to the extent - 1; others are a run-time error.
    """

    x = operand(Plain)
    index = operand(Int)
    axis = attr(int, 0)

    @staticmethod
    def infer(x: TensorType, index: TensorType, axis: int) -> TensorType:
        at = axis_of(axis, x.rank, "take", "C1")
        return TensorType(x.dtype, (*x.shape[:at], *index.shape, *x.shape[at + 1 :]))

    @staticmethod
    def evaluate(x: Array, index: Array, axis: int) -> Array:
        return np.take(x, in_range(index, x.shape[axis], "take", 0), axis)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the result; x is read where the index says."""
        x, index = xs
        out = self.result.tensor
        axis = self.axis
        rank = index.tensor.rank
        its = iterators("i", out.shape)
        at = indices(its)
        place = [*at[:axis], sym("_v0"), *at[axis + rank :]]
        maps = [at[axis : axis + rank], place]
        return generic(b, [index, x], its, maps, [at], [out], lambda b, i, x: x)  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        extent = self.x.tensor.shape[self.axis]
        return added_along(b, g, self.index, self.axis, extent), None

    samples: ClassVar[Any] = (
        sample((5, 3), (4,), dtypes=("f32", "i64"), ranges=((-2, 2), (0, 4))),
        sample((2, 7, 3), (2, 2), dtypes=("f32", "i32"), ranges=((-2, 2), (0, 6)), axis=1),
        sample((3, 4), (), dtypes=("i8", "i64"), ranges=((-9, 9), (0, 3)), axis=-1),
        sample((3, 4), (0,), dtypes=("f32", "i64"), ranges=((-2, 2), (0, 2))),
        sample((300,), (7,), dtypes=("f16", "u8"), ranges=((-2, 2), (0, 255))),
    )
    rejects: ClassVar[Any] = (("C1", sample((5, 3), (4,), dtypes=("f32", "i64"), axis=2)),)


class Gather(_Axis):
    """As `take`, but a negative index counts from the end (ONNX Gather).  C1: axis < rank(x)."""

    x = operand(Plain)
    index = operand(Int)
    axis = attr(int, 0)

    @staticmethod
    def infer(x: TensorType, index: TensorType, axis: int) -> TensorType:
        at = axis_of(axis, x.rank, "gather", "C1")
        return TensorType(x.dtype, (*x.shape[:at], *index.shape, *x.shape[at + 1 :]))

    @staticmethod
    def evaluate(x: Array, index: Array, axis: int) -> Array:
        return np.take(x, in_range(index, x.shape[axis], "gather"), axis)

    def decompose(self, b: Builder) -> Value:
        """Take, with negative indices counted up."""
        index = _counted_up(b, self.index, self.x.tensor.shape[self.axis])
        return b.take(self.x, index, axis=self.axis)  # type: ignore[no-any-return]

    samples: ClassVar[Any] = (
        sample((5, 3), (4,), dtypes=("f32", "i64"), ranges=((-2, 2), (-5, 4))),
        sample((2, 7, 3), (2, 2), dtypes=("f32", "i32"), ranges=((-2, 2), (-7, 6)), axis=1),
        sample((3, 4), (), dtypes=("i8", "i64"), ranges=((-9, 9), (-4, 3)), axis=-1),
    )
    rejects: ClassVar[Any] = (("C1", sample((5, 3), (4,), dtypes=("f32", "i64"), axis=-3)),)


def _along(op: str, x: TensorType, index: TensorType, axis: int) -> TensorType:
    at = axis_of(axis, x.rank, op, "C1")
    fits = x.rank == index.rank
    for k in range(x.rank if fits else 0):
        fits = fits and (k == at or same(x.shape[k], index.shape[k]) is not False)
    require(
        fits,
        "E0319",
        f"{op} (C2): x and index differ outside the axis",
        f"x : {x}   index : {index}",
    )
    return TensorType(x.dtype, index.shape)


class TakeAlong(_Axis):
    """x picked along `axis` by an index of its own rank (numpy's take_along_axis).

    C1: axis < rank(x).  C2: the other extents of x and index are equal.  Indices as for `take`.
    """

    x = operand(Plain)
    index = operand(Int)
    axis = attr(int, 0)

    @staticmethod
    def infer(x: TensorType, index: TensorType, axis: int) -> TensorType:
        return _along("take_along", x, index, axis)

    @staticmethod
    def evaluate(x: Array, index: Array, axis: int) -> Array:
        return np.take_along_axis(x, in_range(index, x.shape[axis], "take_along", 0), axis)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the result; x is read where the index says."""
        x, index = xs
        out = self.result.tensor
        its = iterators("i", out.shape)
        at = indices(its)
        place = list(at)
        place[self.axis] = sym("_v0")
        return generic(b, [index, x], its, [at, place], [at], [out], lambda b, i, x: x)  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        (g,) = widened(b, g)
        start = zeros(b, TensorType(g.tensor.dtype, self.x.tensor.shape))
        made = b.scatter_elements(start, self.index, g, axis=self.axis, reduction="add")
        return made, None

    samples: ClassVar[Any] = (
        sample((5, 3), (2, 3), dtypes=("f32", "i64"), ranges=((-2, 2), (0, 4))),
        sample((2, 7), (2, 3), dtypes=("i8", "i32"), ranges=((-9, 9), (0, 6)), axis=-1),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((5, 3), (5, 3), dtypes=("f32", "i64"), axis=2)),
        ("C2", sample((5, 3), (2, 4), dtypes=("f32", "i64"))),
        ("C2", sample((5, 3), (2,), dtypes=("f32", "i64"))),
    )


class GatherElements(_Axis):
    """As `take_along`, but a negative index counts from the end (ONNX GatherElements).

    C1: axis < rank(x).  C2: the other extents of x and index are equal.
    """

    x = operand(Plain)
    index = operand(Int)
    axis = attr(int, 0)

    @staticmethod
    def infer(x: TensorType, index: TensorType, axis: int) -> TensorType:
        return _along("gather_elements", x, index, axis)

    @staticmethod
    def evaluate(x: Array, index: Array, axis: int) -> Array:
        return np.take_along_axis(x, in_range(index, x.shape[axis], "gather_elements"), axis)

    def decompose(self, b: Builder) -> Value:
        """Take_along, with negative indices counted up."""
        index = _counted_up(b, self.index, self.x.tensor.shape[self.axis])
        return b.take_along(self.x, index, axis=self.axis)  # type: ignore[no-any-return]

    samples: ClassVar[Any] = (
        sample((5, 3), (2, 3), dtypes=("f32", "i64"), ranges=((-2, 2), (-5, 4))),
        sample((2, 7), (2, 3), dtypes=("i8", "i32"), ranges=((-9, 9), (-7, 6)), axis=-1),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((5, 3), (5, 3), dtypes=("f32", "i64"), axis=-3)),
        ("C2", sample((5, 3), (2, 4), dtypes=("f32", "i64"))),
    )


def _nd(op: str, x: TensorType, index: TensorType, batch: int) -> TensorType:
    depth = index.shape[-1] if index.rank else None
    fits = type(depth) is int and 0 <= batch < index.rank and batch + depth <= x.rank
    require(
        fits,
        "E0319",
        f"{op} (C1): the last extent of index does not fit x",
        f"x : {x}   index : {index}   batch axes : {batch}",
    )
    pairs = zip(x.shape[:batch], index.shape[:batch])
    require(
        all([same(m, n) is not False for m, n in pairs]),
        "E0319",
        f"{op} (C2): the batch axes of x and index differ",
        f"x : {x}   index : {index}",
    )
    assert isinstance(depth, int)
    return TensorType(x.dtype, (*index.shape[:-1], *x.shape[batch + depth :]))


def _gathered_nd(op: str, x: Array, index: Array, batch: int, lowest: int | None) -> Array:
    places = list(np.indices(index.shape[:-1], sparse=True)[:batch])
    for k in range(index.shape[-1]):
        places.append(in_range(index[..., k], x.shape[batch + k], op, lowest))
    if not places:
        return np.broadcast_to(x, (*index.shape[:-1], *x.shape))
    found: Array = x[tuple(np.broadcast_arrays(*places, np.zeros(index.shape[:-1], np.int64))[:-1])]
    return found


class TakeND(Op):
    """Slices of x: the rows of `index` (its last axis) name the axes of x behind the `batch` first,
    which both share.

    C1: the last extent of index is a number, at most rank(x) - batch, and batch < rank(index).  C2:
    the batch axes are equal.  Indices as for `take`.
    """

    x = operand(Plain)
    index = operand(Int)
    batch = attr(int, 0)

    @staticmethod
    def infer(x: TensorType, index: TensorType, batch: int) -> TensorType:
        return _nd("take_nd", x, index, batch)

    @staticmethod
    def evaluate(x: Array, index: Array, batch: int) -> Array:
        return _gathered_nd("take_nd", x, index, batch, 0)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the result; x is read where the row says."""
        x, index = xs
        out = self.result.tensor
        depth: Any = index.tensor.shape[-1]
        its = iterators("i", out.shape)
        at = indices(its)
        row = at[: index.tensor.rank - 1]
        maps = [[*row, k] for k in range(depth)]
        named = [sym(f"_v{k}") for k in range(depth)]
        maps.append([*at[: self.batch], *named, *at[len(row) :]])
        operands = [*[index] * depth, x]
        return generic(b, operands, its, maps, [at], [out], lambda b, *read: read[-1])  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Added where the rows say, which for this name the batch axes too."""
        (g,) = widened(b, g)
        lead = (*self.index.tensor.shape[:-1], 1)
        own = b.cast(self.index, to=i64)
        along = [
            b.broadcast_to(b.iota(shape=[e if j == k else 1 for j, e in enumerate(lead)], axis=k),
                           shape=lead) for k in range(self.batch)
        ]  # fmt: skip
        rows = b.concat(*along, own, axis=len(lead) - 1) if along else own
        start = zeros(b, TensorType(g.tensor.dtype, self.x.tensor.shape))
        return b.scatter_nd(start, rows, g, reduction="add"), None

    samples: ClassVar[Any] = (
        sample((5, 3, 2), (4, 2), dtypes=("f32", "i64"), ranges=((-2, 2), (0, 2))),
        sample((5, 3), (2, 3, 1), dtypes=("i8", "i32"), ranges=((-9, 9), (0, 4))),
        sample((2, 5, 3), (2, 4, 1), dtypes=("f32", "i64"), ranges=((-2, 2), (0, 4)), batch=1),
        sample((5, 3), (2,), dtypes=("f32", "u8"), ranges=((-2, 2), (0, 2))),
        sample((2, 3), (4, 0), dtypes=("f32", "i64")),
        sample((2, 3), (0, 1), dtypes=("f32", "i64")),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((5, 3), (4, 3), dtypes=("f32", "i64"))),
        ("C1", sample((5, 3), (), dtypes=("f32", "i64"))),
        ("C1", sample((5, 3), (5, 1), dtypes=("f32", "i64"), batch=2)),
        ("C2", sample((5, 3), (4, 1), dtypes=("f32", "i64"), batch=1)),
    )


class GatherND(Op):
    """As `take_nd`, but a negative index counts from the end (ONNX GatherND).

    C1: the last extent of index is a number, at most rank(x) - batch, and batch < rank(index).  C2:
    the batch axes are equal.
    """

    x = operand(Plain)
    index = operand(Int)
    batch = attr(int, 0)

    @staticmethod
    def infer(x: TensorType, index: TensorType, batch: int) -> TensorType:
        return _nd("gather_nd", x, index, batch)

    @staticmethod
    def evaluate(x: Array, index: Array, batch: int) -> Array:
        return _gathered_nd("gather_nd", x, index, batch, None)

    def decompose(self, b: Builder) -> Value:
        """Take_nd, with negative indices counted up."""
        depth: Any = self.index.tensor.shape[-1]
        dims = self.x.tensor.shape[self.batch : self.batch + depth]
        index = self.index
        if index.tensor.dtype.kind != "uint" and dims:
            index = b.cast(index, to=i64) if index.tensor.dtype is not i64 else index
            if all([type(e) is int for e in dims]):
                size = b.insert(Const(np.array(dims, np.int64))).result
            else:
                parts = [b.reshape(b.emit(DimValue, dim=e), shape=(1,)) for e in dims]
                size = b.concat(*parts, axis=0)
            zero = b.insert(Const(np.zeros((), np.int64))).result
            index = b.where(b.lt(index, zero), b.add(index, size), index)
        return b.take_nd(self.x, index, batch=self.batch)  # type: ignore[no-any-return]

    samples: ClassVar[Any] = (
        sample((5, 3, 2), (4, 2), dtypes=("f32", "i64"), ranges=((-2, 2), (-3, 2))),
        sample((2, 5, 3), (2, 4, 1), dtypes=("i8", "i32"), ranges=((-2, 2), (-5, 4)), batch=1),
        sample((2, 3), (4, 0), dtypes=("f32", "i64")),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((5, 3), (4, 3), dtypes=("f32", "i64"))),
        ("C2", sample((5, 3), (4, 1), dtypes=("f32", "i64"), batch=1)),
    )


class ReverseSequence(Op):
    """x with the first lengths[n] elements along `time_axis` in reverse order, for each n along
    `batch_axis`; the rest as it is (ONNX ReverseSequence).

    C1: the axes are two axes of x.  C2: one length for each extent of the batch axis.  A length
    beyond the extent of the time axis is a run-time error, one below 2 changes nothing.
    """

    x = operand(Plain)
    lengths = operand(Int)
    batch_axis = attr(int, 1)
    time_axis = attr(int, 0)

    @staticmethod
    def infer(x: TensorType, lengths: TensorType, batch_axis: int, time_axis: int) -> TensorType:
        axes = [axis_of(a, x.rank, "reverse_sequence", "C1") for a in (batch_axis, time_axis)]
        require(axes[0] != axes[1], "E0330", "reverse_sequence (C1): batch and time are one axis")
        require(
            lengths.rank == 1 and same(lengths.shape[0], x.shape[axes[0]]),
            "E0319",
            "reverse_sequence (C2): one length for each extent of the batch axis",
            f"found {lengths} for {x}",
        )
        return x

    @staticmethod
    def evaluate(x: Array, lengths: Array, batch_axis: int, time_axis: int) -> Array:
        extent = x.shape[time_axis]
        lengths = in_range(lengths, extent + 1, "reverse_sequence", -(1 << 62))
        along, across = [1] * x.ndim, [1] * x.ndim
        along[time_axis], across[batch_axis] = extent, x.shape[batch_axis]
        time, length = np.arange(extent).reshape(along), lengths.reshape(across)
        place = np.where(time < length, length - 1 - time, time)
        return np.take_along_axis(x, np.broadcast_to(place, x.shape), time_axis)

    def decompose(self, b: Builder) -> Value:
        """Take_along, by an index computed from the lengths."""
        shape = self.x.tensor.shape
        batch, time = self.batch_axis % len(shape), self.time_axis % len(shape)
        lengths = b.cast(self.lengths, to=i64)
        length = b.reshape(lengths, shape=[e if k == batch else 1 for k, e in enumerate(shape)])
        at = b.iota(shape=[e if k == time else 1 for k, e in enumerate(shape)], axis=time)
        one = b.insert(Const(np.ones((), np.int64))).result
        place = b.where(b.lt(at, length), b.sub(b.sub(length, one), at), at)
        return b.take_along(self.x, b.broadcast_to(place, shape=shape), axis=time)  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Reversed again."""
        return b.reverse_sequence(g, self.lengths, **self.attributes), None

    samples: ClassVar[Any] = (
        sample((5, 3), (3,), dtypes=("f32", "i64"), ranges=((-2, 2), (0, 5))),
        sample((3, 7, 2), (3,), dtypes=("i8", "i32"), ranges=((-9, 9), (0, 7)), batch_axis=0,
               time_axis=1),
        sample((1, 1), (1,), dtypes=("bool", "i64"), ranges=((0, 1), (0, 1))),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((5, 3), (3,), dtypes=("f32", "i64"), batch_axis=2)),
        ("C1", sample((5, 3), (3,), dtypes=("f32", "i64"), time_axis=-1)),
        ("C2", sample((5, 3), (5,), dtypes=("f32", "i64"))),
    )


class OneHot(_Axis):
    """True where the position along the new `axis`, of extent `depth`, is the index.

    A negative index counts from the end; one out of range gives no true element.  C1: axis <=
    rank(index).
    """

    index = operand(Int)
    depth = attr(object)
    axis = attr(int, -1)
    no_gradient = "a predicate"

    @classmethod
    def axes(cls, operands: Sequence[Value], attrs: Mapping[str, Any]) -> int:
        return super().axes(operands, attrs) + 1

    @staticmethod
    def infer(index: TensorType, depth: DimLike, axis: int) -> TensorType:
        at = axis_of(axis, index.rank + 1, "one_hot", "C1")
        return TensorType(boolean, (*index.shape[:at], depth, *index.shape[at:]))

    @staticmethod
    def evaluate(index: Array, depth: int, axis: int) -> Array:
        wide = index.astype(np.int64)
        wide = np.where(wide < 0, wide + depth, wide)
        at = axis % (index.ndim + 1)
        along = np.arange(depth).reshape([-1 if k == at else 1 for k in range(index.ndim + 1)])
        return np.asarray(np.expand_dims(wide, at) == along)

    def decompose(self, b: Builder) -> Value:
        """An iota compared with the index."""
        shape = self.index.tensor.shape
        at = self.axis
        index = _counted_up(b, self.index, self.depth)
        lifted = b.reshape(index, shape=(*shape[:at], 1, *shape[at:]))
        along = [self.depth if k == at else 1 for k in range(len(shape) + 1)]
        return b.eq(lifted, b.iota(shape=along, axis=at))  # type: ignore[no-any-return]

    samples: ClassVar[Any] = (
        sample((4,), dtypes=("i64",), ranges=((-5, 6),), depth=5),
        sample((2, 3), dtypes=("i32",), ranges=((-3, 2),), depth=3, axis=0),
        sample((3,), dtypes=("u8",), ranges=((0, 9),), depth=7, axis=1),
        sample((), dtypes=("i64",), ranges=((0, 3),), depth=4),
    )
    rejects: ClassVar[Any] = (("C1", sample((4,), dtypes=("i64",), depth=5, axis=2)),)


__all__ = [
    "Gather", "GatherElements", "GatherND", "Iota", "OneHot", "ReverseSequence", "Take",
    "TakeAlong", "TakeND", "in_range",
]  # fmt: skip
