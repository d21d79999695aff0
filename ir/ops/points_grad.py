"""The gradient of sampling at points: `scatter_points` for the images, sums for the weights.

Imports: the core, types, dims, scatters, the loop level.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Any_, Array, Builder, Float, Grads, Op, Value, attr, operand, sample, variadic
from ..dims import DimLike, sym
from ..types import Shape, TensorType, f32, f64, i64
from .constraints import require, same
from .elementwise import constant
from .index import in_range
from .loop import Bind, IndexValue, Load, Store
from .scatter import nest
from .shape import DimValue


class ScatterPoints(Op):
    """The adjoint of sample_points: zeros [N, C, *S] of spatial extents `shape`, to which each
    element of x [N, C, *P] is added at its point's positions times the products of their weights.

    `tables` are those of sample_points.  A position outside is a run-time error.

    C1: x is f32 or f64.  C2: there are 2 * taps tables for each spatial axis, positions i64 and
    weights of x's element type, all [N, *P].
    """

    x = operand(Float)
    tables = variadic(Any_)
    taps = attr(int)
    shape = attr(tuple)

    @staticmethod
    def infer(x: TensorType, *tables: TensorType, taps: int, shape: Shape) -> TensorType:
        found = f"x : {x}   tables {', '.join(map(str, tables))}"
        require(x.dtype in (f32, f64), "E0303", "scatter_points (C1): x must be f32 or f64", found)
        half = len(shape) * taps
        points = (x.shape[0], *x.shape[2:])
        fits = x.rank >= 2 and taps >= 1 and len(shape) >= 1 and len(tables) == 2 * half
        for k, table in enumerate(tables if fits else ()):
            fits = fits and table.dtype is (i64 if k < half else x.dtype)
            fits = fits and table.rank == len(points)
            fits = fits and all([same(a, e) is not False for a, e in zip(table.shape, points)])
        require(fits, "E0316", "scatter_points (C2): the tables do not fit", found)
        return TensorType(x.dtype, (*x.shape[:2], *shape))

    @staticmethod
    def evaluate(x: Array, *tables: Array, taps: int, shape: tuple[int, ...]) -> Array:
        rank = len(shape)
        for k in range(rank * taps):
            in_range(tables[k], shape[k // taps], "scatter_points", 0)
        out = np.zeros((x.shape[0], *shape, x.shape[1]), x.dtype)
        batch = np.arange(x.shape[0]).reshape(-1, *[1] * (tables[0].ndim - 1))
        moved = np.moveaxis(x, 1, -1)
        for chosen in np.ndindex(*[taps] * rank):
            at = [k * taps + t for k, t in enumerate(chosen)]
            part = moved
            for a in at:
                part = part * tables[rank * taps + a][..., None]
            np.add.at(out, (batch, *[tables[a] for a in at]), part)
        return np.ascontiguousarray(np.moveaxis(out, -1, 1))

    def loops(self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """Zeros; then every point adds to its neighbours, channel by channel."""
        x, *tables = inputs
        (target,) = outputs
        rank, taps = len(self.shape), self.taps
        inner, at = nest(b, "z", target.buffer.shape)
        number = inner.emit(IndexValue, value=0, dtype=i64)
        inner.emit(Store, inner.cast(number, to=x.buffer.dtype), target, index=at)
        b, at = nest(b, "i", x.buffer.shape)
        point = (at[0], *at[2:])
        weights = []
        for k in range(rank * taps):
            place = b.emit(Load, tables[k], index=point)
            b.emit(Bind, place, symbol=f"p{k}", extent=self.shape[k // taps])
            weights.append(b.emit(Load, tables[rank * taps + k], index=point))
        value = b.emit(Load, x, index=at)
        for chosen in np.ndindex(*[taps] * rank):
            index: list[DimLike] = [at[0], at[1]]
            part = value
            for k, tap in enumerate(chosen):
                index.append(sym(f"p{k * taps + tap}"))
                part = b.mul(part, weights[k * taps + tap])
            b.emit(Store, b.add(b.emit(Load, target, index=index), part), target, index=index)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Samples of g for x; for the weights the same as where g were the images."""
        dx = b.sample_points(g, *self.tables, taps=self.taps)
        return dx, *of_weights(b, g, self.x, self.tables, self.taps)

    samples: ClassVar[Any] = (
        sample((2, 3, 6), *[(2, 6)] * 8, taps=2, shape=(4, 5),
               dtypes=("f32", *["i64"] * 4, *["f32"] * 4),
               ranges=((-2, 2), *[(0, 3)] * 2, *[(0, 4)] * 2, *[(-1, 1)] * 4)),
        sample((1, 2, 3, 2), (1, 3, 2), (1, 3, 2), taps=1, shape=(7,),
               dtypes=("f64", "i64", "f64"), ranges=((-2, 2), (0, 6), (-1, 1))),
        sample((1, 2, 0), (1, 0), (1, 0), taps=1, shape=(7,), dtypes=("f64", "i64", "f64")),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((1, 2, 5), (1, 5), (1, 5), taps=1, shape=(7,),
                      dtypes=("f16", "i64", "f32"))),
        ("C2", sample((1, 2, 5), (1, 5), taps=1, shape=(7,), dtypes=("f32", "i64"))),
        ("C2", sample((1, 2, 5), (1, 6), (1, 5), taps=1, shape=(7,),
                      dtypes=("f32", "i64", "f32"))),
    )  # fmt: skip


def of_weights(
    b: Builder, images: Value, g: Value, tables: Sequence[Value], taps: int
) -> list[Value | None]:
    """The cotangents of the tables of `sample_points` for g, that of the samples: none for the
    positions.

    Each combination of taps reads the images once, at flat positions, and sums over the channels;
    a weight gets those sums of its tap, times the other axes' weights.
    """
    half = len(tables) // 2
    shape = images.tensor.shape
    area: DimLike = 1
    for extent in shape[2:]:
        area = area * extent
    flat = b.reshape(images, shape=(*shape[:2], area))
    ones = b.broadcast_to(constant(b, tables[half], 1.0), shape=tables[half].tensor.shape)
    parts: list[list[Value]] = [[] for _ in range(half)]
    for chosen in np.ndindex(*[taps] * (len(shape) - 2)):
        at = [k * taps + tap for k, tap in enumerate(chosen)]
        place = tables[at[0]]
        for k, extent in zip(at[1:], shape[3:]):
            size = b.emit(DimValue, dim=extent, dtype=i64)
            place = b.add(b.mul(place, size), tables[k])
        read = b.sample_points(flat, place, ones, taps=1)
        total = b.reduce_sum(b.mul(g, read), axes=(1,))
        for k in at:
            part = total
            for other in at:
                part = part if other == k else b.mul(part, tables[half + other])
            parts[k].append(part)
    sums: list[Value | None] = [functools.reduce(b.add, given) for given in parts]
    return [*[None] * half, *sums]


__all__ = ["ScatterPoints", "of_weights"]
