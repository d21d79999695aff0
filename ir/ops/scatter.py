"""Scatters: a copy of an operand with elements written, or combined, where an index says.

Negative indices count from the end.  Updates happen one after the other, in row-major order of the
indices: of equal indices the last wins, and sums are rounded at each step.  An index out of range
is an error: E0503 here, `STATUS_INDEX` in compiled code.  Imports: the core, types, dims, the loop
level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Grads, Int, Op, Plain, Value, attr, operand, sample
from ..dims import DimLike, sym
from ..types import TensorType, i64
from .axis import _Axis
from .constraints import axis_of, least, require, same
from .convert import compute_dtype, widen
from .core import zeros
from .elementwise import constant, passed, stopped, widened
from .index import in_range
from .loop import Bind, For, IndexValue, Load, Store

COMBINERS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}
REDUCTIONS = ("none", *COMBINERS)


def nest(b: Builder, prefix: str, extents: Sequence[DimLike]) -> tuple[Builder, list[DimLike]]:
    """Loops over these extents; a builder inside the innermost, and the loop symbols."""
    at: list[DimLike] = []
    for k, extent in enumerate(extents):
        b = b.at(b.insert(For.make(f"{prefix}{k}", extent)).body)
        at.append(sym(f"{prefix}{k}"))
    return b, at


def copied(b: Builder, source: Value, target: Value) -> None:
    """A nest that copies a buffer."""
    inner, at = nest(b, "c", source.buffer.shape)
    inner.emit(Store, inner.emit(Load, source, index=at), target, index=at)


def bound_index(
    b: Builder, index: Value, at: Sequence[DimLike], extent: DimLike, name: str
) -> None:
    """Bind symbol `name` to an element of `index`, counted from the front; it must be in range."""
    found = b.emit(Load, index, index=at)
    found = found if found.type is i64 else b.cast(found, to=i64)
    if index.buffer.dtype.kind != "uint":
        size = b.emit(IndexValue, value=extent, dtype=i64)
        found = b.where(b.lt(found, constant(b, found, 0)), b.add(found, size), found)
    b.emit(Bind, found, symbol=name, extent=extent)


def update(
    b: Builder, reduction: str, value: Value, target: Value, index: Sequence[DimLike]
) -> None:
    """Write the element, or combine it with the one that is there; narrow floats through f32."""
    if reduction != "none":
        dtype = target.buffer.dtype
        wide = compute_dtype(dtype) if dtype.is_float else dtype
        pair = [b.emit(Load, target, index=index), value]
        if wide is not dtype:
            pair = [b.cast(v, to=wide) for v in pair]
        value = getattr(b, reduction)(*pair)
        value = value if wide is dtype else b.cast(value, to=dtype)
    b.emit(Store, value, target, index=index)


def scattered(x: Array, places: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    """A copy of x with `updates` put, one after the other, at `places` (an index per axis)."""
    if reduction == "none":
        out = x.copy()
        out[places] = updates
        return out
    combine = COMBINERS[reduction]
    wide, new = widen(x).copy(), widen(updates)
    with np.errstate(all="ignore"):
        if x.dtype.kind == "f" and x.dtype.itemsize >= 4 or x.dtype.kind in "biuc":
            combine.at(wide, places, new)  # type: ignore[attr-defined]
            return wide.astype(x.dtype)
        for at, value in zip(
            zip(*[p.reshape(-1) for p in np.broadcast_arrays(*places)], strict=True),
            new.reshape(-1, *new.shape[places[0].ndim :]), strict=True,
        ):  # fmt: skip
            wide[at] = widen(combine(wide[at], value).astype(x.dtype))
    return wide.astype(x.dtype)


def _check(op: str, x: TensorType, updates: TensorType, reduction: str) -> None:
    """C1: the reduction is known.  C2: one element type."""
    known = reduction in REDUCTIONS and (
        reduction in ("none", "max", "min") or x.dtype.kind != "bool"
    )
    require(
        known, "E0304", f"{op} (C1): no reduction '{reduction}' of {x.dtype}",
        hint=", ".join(REDUCTIONS),
    )  # fmt: skip
    require(
        x.dtype is updates.dtype, "E0303", f"{op} (C2): x and updates have one element type",
        f"found {x} and {updates}",
    )  # fmt: skip


def _agree(a: Sequence[DimLike], b: Sequence[DimLike]) -> bool:
    """No two extents are known to differ."""
    return len(a) == len(b) and all([same(m, n) is not False for m, n in zip(a, b, strict=True)])


class _Scatter(Op):
    """Base of scatters with a reduction: how they go back."""

    def put(self, b: Builder, x: Value, updates: Value, reduction: str) -> Value:
        """This scatter of other values."""
        others = {k: v for k, v in self.attributes.items() if k != "reduction"}
        return b.emit(type(self), x, self.operands[1], updates, reduction=reduction, **others)  # type: ignore[no-any-return]

    picked: ClassVar[Callable[..., Value]]
    """picked(self, b, x): for each update the element of x in its place."""

    def vjp(self, b: Builder, g: Value) -> Grads:
        """By the reduction: what was overwritten counts for nothing, a product for the product of
        the others, and of equal extremes each has its share.
        """
        x, _, updates = self.operands
        reduction = self.attributes["reduction"]
        if reduction == "add":
            return g, None, self.picked(b, g)
        if reduction == "none":
            number = b.reshape(b.iota(shape=(updates.tensor.size,)), shape=updates.tensor.shape)
            none = zeros(b, TensorType(number.tensor.dtype, x.tensor.shape))
            last = self.put(b, none, number, "none")
            stays = b.eq(self.picked(b, last), number)
            blank = zeros(b, TensorType(g.tensor.dtype, updates.tensor.shape))
            kept = self.put(b, g, blank, "none")
            return kept, None, passed(b, stays, self.picked(b, g))
        g, x, updates, result = widened(b, g, x, updates, self.result)
        if reduction == "mul":
            return self._factors(b, g, x, updates)
        kept, won = b.eq(x, result), b.eq(updates, self.picked(b, result))
        dtype = g.tensor.dtype
        count = self.put(b, b.cast(kept, to=dtype), b.cast(won, to=dtype), "add")
        share = b.div(g, count)
        return passed(b, kept, share), None, passed(b, won, self.picked(b, share))

    def _factors(self, b: Builder, g: Value, x: Value, updates: Value) -> Grads:
        """The others' product is that of all that are not 0, unless another one is 0."""
        one = constant(b, updates, 1.0)
        zero = b.eq(updates, constant(b, updates, 0.0))
        plain = b.where(zero, one, updates)
        single = b.cast(zero, to=g.tensor.dtype)
        number = self.put(b, zeros(b, TensorType(g.tensor.dtype, x.tensor.shape)), single, "add")
        others = b.gt(self.picked(b, number), single)
        product = self.picked(b, b.mul(g, self.put(b, x, plain, "mul")))
        ones = b.broadcast_to(one, shape=x.tensor.shape)
        of_x = b.mul(g, self.put(b, ones, updates, "mul"))
        return of_x, None, stopped(b, others, b.div(product, plain))


class ScatterElements(_Axis, _Scatter):
    """x, with updates[i] written (or combined by `reduction`) at x[..., index[i], ...] along
    `axis`, the other coordinates being those of i (ONNX ScatterElements).

    C1: the reduction is none, add, mul, max or min, and bools are not added.  C2: x and updates
    have one element type.  C3: index and updates have one shape, of the rank of x.  C4: axis <
    rank(x).  C5: the index reaches no further than x outside of the axis.
    """

    x = operand(Plain)
    index = operand(Int)
    updates = operand(Plain)
    axis = attr(int, 0)
    reduction = attr(str, "none")

    @staticmethod
    def infer(
        x: TensorType, index: TensorType, updates: TensorType, axis: int, reduction: str
    ) -> TensorType:
        _check("scatter_elements", x, updates, reduction)
        require(
            x.rank == index.rank and _agree(index.shape, updates.shape),
            "E0319", "scatter_elements (C3): index and updates have one shape, of the rank of x",
            f"found {x}, {index} and {updates}",
        )  # fmt: skip
        at = axis_of(axis, x.rank, "scatter_elements", "C4")
        for k in range(x.rank):
            require(
                k == at or least(x.shape[k] - index.shape[k], 0),
                "E0319", "scatter_elements (C5): the index reaches beyond x",
                f"axis {k} of {index} for {x}",
            )  # fmt: skip
        return x

    @staticmethod
    def evaluate(x: Array, index: Array, updates: Array, axis: int, reduction: str) -> Array:
        at = in_range(index, x.shape[axis], "scatter_elements")
        places: list[Array] = list(np.indices(index.shape, sparse=True))
        places[axis] = np.where(at < 0, at + x.shape[axis], at)
        return scattered(x, tuple(np.broadcast_arrays(*places)), updates, reduction)

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """A copy, then the updates in order."""
        x, index, updates = inputs
        copied(b, x, outputs[0])
        b, at = nest(b, "i", index.buffer.shape)
        bound_index(b, index, at, x.buffer.shape[self.axis], "p")
        place = [sym("p") if k == self.axis else i for k, i in enumerate(at)]
        update(b, self.reduction, b.emit(Load, updates, index=at), outputs[0], place)

    def picked(self, b: Builder, x: Value) -> Value:
        shape, reached = x.tensor.shape, self.index.tensor.shape
        sizes = tuple([e if k == self.axis else reached[k] for k, e in enumerate(shape)])
        if sizes != shape:
            x = b.slice(x, starts=[0] * len(shape), sizes=sizes)
        return b.gather_elements(x, self.index, axis=self.axis)  # type: ignore[no-any-return]

    samples: ClassVar[Any] = (
        *[
            sample((5, 3), (4, 3), (4, 3), dtypes=(name, "i64", name),
                   ranges=((-2, 2), (-5, 4), (-2, 2)), reduction=reduction)
            for name, reduction in (
                ("f32", "none"), ("i8", "none"), ("f32", "add"), ("f64", "mul"), ("i32", "mul"),
                ("bf16", "add"), ("f16", "min"), ("u8", "add"), ("f32", "max"), ("i64", "min"),
            )
        ],
        sample((2, 7), (2, 3), (2, 3), dtypes=("f32", "i32", "f32"),
               ranges=((-2, 2), (-7, 6), (-2, 2)), axis=-1),
        sample((2, 7), (1, 20), (1, 20), dtypes=("f32", "u8", "f32"),
               ranges=((-2, 2), (0, 6), (-2, 2)), axis=1, reduction="add"),
        sample((6,), (4,), (4,), dtypes=("bool", "i64", "bool"), ranges=((0, 1), (0, 5), (0, 1))),
        sample((6,), (0,), (0,), dtypes=("f32", "i64", "f32"), ranges=((-2, 2), (0, 5), (0, 1))),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((5,), (2,), (2,), dtypes=("f32", "i64", "f32"), reduction="sub")),
        ("C1", sample((5,), (2,), (2,), dtypes=("bool", "i64", "bool"), reduction="add")),
        ("C2", sample((5,), (2,), (2,), dtypes=("f32", "i64", "f64"))),
        ("C3", sample((5,), (2,), (3,), dtypes=("f32", "i64", "f32"))),
        ("C3", sample((5, 1), (2,), (2,), dtypes=("f32", "i64", "f32"))),
        ("C4", sample((5,), (2,), (2,), dtypes=("f32", "i64", "f32"), axis=1)),
        ("C5", sample((5, 2), (2, 3), (2, 3), dtypes=("f32", "i64", "f32"))),
    )


class ScatterND(_Scatter):
    """x, with the slices `updates` written (or combined) where rows of `index` say: the last extent
    of index counts the leading axes of x that a row names (ONNX ScatterND).

    C1: the reduction is none, add, mul, max or min, and bools are not added.  C2: x and updates
    have one element type.  C3: the last extent of index is a number, at most rank(x).  C4: updates
    has the shape index.shape[:-1] + x.shape[that extent:].
    """

    x = operand(Plain)
    index = operand(Int)
    updates = operand(Plain)
    reduction = attr(str, "none")

    @staticmethod
    def infer(x: TensorType, index: TensorType, updates: TensorType, reduction: str) -> TensorType:
        _check("scatter_nd", x, updates, reduction)
        depth: Any = index.shape[-1] if index.rank else None
        require(
            type(depth) is int and depth <= x.rank,
            "E0319", "scatter_nd (C3): the last extent of index must be a number, at most rank(x)",
            f"found {index} for {x}",
        )  # fmt: skip
        want = (*index.shape[:-1], *x.shape[depth:])
        require(
            _agree(updates.shape, want), "E0319", "scatter_nd (C4): updates has another shape",
            f"found {updates}, expected [{', '.join(map(str, want))}]",
        )  # fmt: skip
        return x

    @staticmethod
    def evaluate(x: Array, index: Array, updates: Array, reduction: str) -> Array:
        depth = index.shape[-1]
        if not depth:  # every row names all of x
            rows = updates.reshape(math.prod(index.shape[:-1]), *x.shape)
            out: Array = x[None]
            for row in rows:
                out = scattered(out, (np.zeros(1, np.int64),), row[None], reduction)
            return np.asarray(out[0])
        places = []
        for k in range(depth):
            at = in_range(index[..., k], x.shape[k], "scatter_nd").reshape(-1)
            places.append(np.where(at < 0, at + x.shape[k], at))
        rows = updates.reshape(math.prod(index.shape[:-1]), *x.shape[depth:])
        return scattered(x, tuple(places), rows, reduction)

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """A copy, then the slices in order."""
        x, index, updates = inputs
        copied(b, x, outputs[0])
        shape = index.buffer.shape
        b, at = nest(b, "i", shape[:-1])
        place: list[DimLike] = []
        for k in range(shape[-1]):  # type: ignore[arg-type]
            bound_index(b, index, [*at, k], x.buffer.shape[k], f"p{k}")
            place.append(sym(f"p{k}"))
        b, inner = nest(b, "s", x.buffer.shape[len(place) :])
        value = b.emit(Load, updates, index=[*at, *inner])
        update(b, self.reduction, value, outputs[0], [*place, *inner])

    def picked(self, b: Builder, x: Value) -> Value:
        return b.gather_nd(x, self.index)  # type: ignore[no-any-return]

    samples: ClassVar[Any] = (
        *[
            sample((5, 3, 2), (4, 2), (4, 2), dtypes=(name, "i64", name),
                   ranges=((-2, 2), (-3, 2), (-2, 2)), reduction=reduction)
            for name, reduction in (
                ("f32", "none"), ("u8", "none"), ("f32", "add"), ("f64", "mul"), ("bf16", "mul"),
                ("f16", "add"), ("i8", "max"), ("f32", "min"), ("bool", "none"),
            )
        ],
        sample((5, 3), (7, 1), (7, 3), dtypes=("f32", "i32", "f32"),
               ranges=((-2, 2), (0, 4), (-2, 2)), reduction="add"),
        sample((9,), (2, 3, 1), (2, 3), dtypes=("f32", "i64", "f32"),
               ranges=((-2, 2), (-9, 8), (-2, 2))),
        sample((2, 3), (0,), (2, 3), dtypes=("f32", "i64", "f32"), reduction="add"),
        sample((2, 3), (0, 2), (0,), dtypes=("f32", "i64", "f32")),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((5,), (2, 1), (2,), dtypes=("f32", "i64", "f32"), reduction="mean")),
        ("C2", sample((5,), (2, 1), (2,), dtypes=("f32", "i64", "i32"))),
        ("C3", sample((5,), (2, 2), (2,), dtypes=("f32", "i64", "f32"))),
        ("C3", sample((5,), (), (2,), dtypes=("f32", "i64", "f32"))),
        ("C4", sample((5, 3), (2, 1), (2,), dtypes=("f32", "i64", "f32"))),
    )


class TensorScatter(_Axis):
    """x, with `updates` written along `axis` from start[b] on for each b along axis 0 (ONNX
    TensorScatter: a cache of keys that grows).

    With `circular` positions beyond the end go on at the front.  C1: x and updates have one element
    type.  C2: 0 < axis < rank(x).  C3: updates agrees with x outside of the axis and is no longer
    along it.  C4: start has one element per extent of axis 0.
    """

    x = operand(Plain)
    updates = operand(Plain)
    start = operand(Int)
    axis = attr(int, -2)
    circular = attr(bool, False)

    @staticmethod
    def infer(
        x: TensorType, updates: TensorType, start: TensorType, axis: int, circular: bool
    ) -> TensorType:
        require(x.dtype is updates.dtype, "E0303",
                "tensor_scatter (C1): x and updates have one element type",
                f"found {x} and {updates}")  # fmt: skip
        at = axis_of(axis, x.rank, "tensor_scatter", "C2")
        require(at > 0, "E0330", "tensor_scatter (C2): axis 0 is the batch")
        others = [[e for k, e in enumerate(t.shape) if k != at] for t in (x, updates)]
        fits = x.rank == updates.rank and _agree(*others)
        fits = fits and least(x.shape[at] - updates.shape[at], 0) is not False
        require(fits, "E0319", "tensor_scatter (C3): updates does not fit x",
                f"found {updates} for {x}")  # fmt: skip
        require(_agree(start.shape, x.shape[:1]), "E0319",
                "tensor_scatter (C4): one start for each extent of axis 0",
                f"found {start} for {x}")  # fmt: skip
        return x

    @staticmethod
    def evaluate(x: Array, updates: Array, start: Array, axis: int, circular: bool) -> Array:
        size, count = x.shape[axis], updates.shape[axis]
        first = in_range(start, size if circular else size - count + 1, "tensor_scatter", 0)
        out = x.copy()
        for row, begin in enumerate(first):
            at = (begin + np.arange(count)) % max(size, 1)
            np.moveaxis(out[row], axis - 1, 0)[at] = np.moveaxis(updates[row], axis - 1, 0)
        return out

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """A copy, then the updates of each row behind its start."""
        x, updates, start = inputs
        copied(b, x, outputs[0])
        shape = updates.buffer.shape
        size = x.buffer.shape[self.axis]
        b, first = nest(b, "b", shape[:1])
        room = size if self.circular else size - shape[self.axis] + 1
        found = b.emit(Load, start, index=first)
        found = found if found.type is i64 else b.cast(found, to=i64)
        b.emit(Bind, found, symbol="p", extent=room)
        b, rest = nest(b, "i", shape[1:])
        at = [*first, *rest]
        place = list(at)
        place[self.axis] = sym("p") + at[self.axis]
        if self.circular:
            place[self.axis] = place[self.axis] % size
        b.emit(Store, b.emit(Load, updates, index=at), outputs[0], index=place)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Zero where something was written, and that for the updates."""
        shape = self.updates.tensor.shape
        none = zeros(b, TensorType(g.tensor.dtype, shape))
        kept = b.tensor_scatter(g, none, self.start, axis=self.axis, circular=self.circular)
        step = [e if k == self.axis else 1 for k, e in enumerate(shape)]
        first = b.reshape(b.cast(self.start, to=i64), shape=(shape[0], *[1] * (len(shape) - 1)))
        place = b.add(first, b.iota(shape=step, axis=self.axis))
        if self.circular:
            place = b.mod(place, b.dim_value(dim=self.x.tensor.shape[self.axis]))
        place = b.broadcast_to(place, shape=shape)
        return kept, b.take_along(g, place, axis=self.axis), None

    samples: ClassVar[Any] = (
        sample((3, 7, 2), (3, 4, 2), (3,), dtypes=("f32", "f32", "i64"),
               ranges=((-2, 2), (-2, 2), (0, 3))),
        sample((2, 2, 5, 3), (2, 2, 1, 3), (2,), dtypes=("f16", "f16", "i32"),
               ranges=((-2, 2), (-2, 2), (0, 4))),
        sample((3, 7, 2), (3, 4, 2), (3,), dtypes=("f32", "f32", "i64"),
               ranges=((-2, 2), (-2, 2), (0, 6)), axis=1, circular=True),
        sample((2, 3, 5), (2, 3, 0), (2,), dtypes=("i8", "i8", "i64"),
               ranges=((-2, 2), (-2, 2), (0, 5)), axis=-1),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((3, 7), (3, 4), (3,), dtypes=("f32", "f16", "i64"), axis=1)),
        ("C2", sample((3, 7), (3, 4), (3,), dtypes=("f32", "f32", "i64"), axis=2)),
        ("C2", sample((3, 7), (3, 7), (3,), dtypes=("f32", "f32", "i64"), axis=0)),
        ("C3", sample((3, 7), (3, 8), (3,), dtypes=("f32", "f32", "i64"), axis=1)),
        ("C3", sample((3, 7), (2, 4), (3,), dtypes=("f32", "f32", "i64"), axis=1)),
        ("C4", sample((3, 7), (3, 4), (2,), dtypes=("f32", "f32", "i64"), axis=1)),
    )


__all__ = ["ScatterElements", "ScatterND", "TensorScatter"]
