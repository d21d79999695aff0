"""Explicit physical layouts: `pack` splits axes into blocks, `unpack` joins them again.

A logical axis of extent E with block b becomes ceil(E/b) at its place, and the block is appended
behind all axes; what pads the last block is zero.  NCHW16c is axes (1,), blocks (16,); a weight
panel [O/32, I/16, K, K, 16, 32] is axes (1, 0), blocks (16, 32).  Imports: the core, types, dims.
"""

from __future__ import annotations

import numpy as np

from ..core import Array, Builder, Grads, Op, Plain, Value, attr, operand, sample
from ..dims import DimLike, ceildiv
from ..types import Shape, TensorType
from .constraints import permutation, require, same
from .core import generic, indices, iterators
from .shape import element_by_element


def packed_shape(
    shape: Shape, axes: tuple[int, ...], blocks: tuple[int, ...], order: tuple[int, ...]
) -> Shape:
    """The shape after packing."""
    block = dict(zip(axes, blocks))
    split = [ceildiv(e, block[k]) if k in block else e for k, e in enumerate(shape)]
    found = (*split, *blocks)
    return tuple([found[k] for k in order]) if order else found


def _check(
    op: str, rank: int, axes: tuple[int, ...], blocks: tuple[int, ...], order: tuple[int, ...]
) -> None:
    """Constraints C1 and C2 of both ops, for the logical rank."""
    ok = len(axes) == len(blocks) and len(set(axes)) == len(axes)
    ok = ok and all([0 <= a < rank for a in axes]) and all([c >= 1 for c in blocks])
    require(
        ok,
        "E0318",
        f"{op} (C1): one block of at least 1 for each of some distinct axes",
        f"rank {rank}, axes {axes}, blocks {blocks}",
    )
    require(
        not order or permutation(order, rank + len(axes)),
        "E0318",
        f"{op} (C2): {order} is not a permutation of the packed axes",
    )


class Pack(Op):
    """x with each of `axes` split into blocks, these last, then permuted by `order`.

    Zeros fill the last block.

    C1: axes are distinct, one block of at least 1 each.  C2: `order` is empty or a permutation of
    the packed axes: axis k of the result is packed axis order[k].
    """

    x = operand(Plain)
    axes = attr(tuple)
    blocks = attr(tuple)
    order = attr(tuple, ())

    @staticmethod
    def infer(
        x: TensorType, axes: tuple[int, ...], blocks: tuple[int, ...], order: tuple[int, ...]
    ) -> TensorType:
        _check("pack", x.rank, axes, blocks, order)
        return TensorType(x.dtype, packed_shape(x.shape, axes, blocks, order))

    @staticmethod
    def evaluate(
        x: Array, axes: tuple[int, ...], blocks: tuple[int, ...], order: tuple[int, ...]
    ) -> Array:
        pad = [(0, 0)] * x.ndim
        split: list[int] = []
        block = dict(zip(axes, blocks))
        place: list[int] = []
        for k, extent in enumerate(x.shape):
            place.append(len(split))
            if k in block:
                pad[k] = (0, -extent % block[k])
                split += [-(-extent // block[k]), block[k]]
            else:
                split.append(extent)
        if any([p for _, p in pad]):
            full = np.zeros([e + p for e, (_, p) in zip(x.shape, pad)], x.dtype)
            full[tuple([slice(e) for e in x.shape])] = x
            x = full
        packed = x.reshape(split).transpose([*place, *[place[a] + 1 for a in axes]])
        return packed.transpose(order) if order else packed

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the result; x is read at block*b + lane, zero beyond its extent."""
        x = xs[0].tensor
        out = self.result.tensor
        its = iterators("p", out.shape)
        at = indices(its)
        packed = _unordered(at, self.order)
        index = list(packed[: x.rank])
        whole = True
        for k, (axis, block) in enumerate(zip(self.axes, self.blocks)):
            index[axis] = index[axis] * block + packed[x.rank + k]
            whole = whole and same(x.shape[axis] % block, 0) is True
        fills = () if whole else (False if x.dtype.kind == "bool" else 0,)
        return generic(b, xs, its, [index], [at], [out], lambda b, x: x, fills=fills)  # type: ignore[no-any-return]

    def vjp(self, b: Builder, g: Value) -> Grads:
        return (b.unpack(g, shape=self.x.tensor.shape, **self.attributes),)

    samples = (
        sample((1, 7, 3, 5), axes=(1,), blocks=(4,)),
        sample((1, 8, 2, 2), axes=(1,), blocks=(4,)),
        sample((9, 5, 3, 3), axes=(1, 0), blocks=(4, 8)),
        sample((13, 10), axes=(0, 1), blocks=(4, 8), order=(1, 0, 3, 2)),
        sample((0, 3), axes=(0,), blocks=(4,)),
        sample((5,), axes=(0,), blocks=(1,), dtypes=("i8",)),
        sample((5,), axes=(0,), blocks=(3,), dtypes=("bf16",)),
    )
    rejects = (
        ("C1", sample((5, 3), axes=(2,), blocks=(4,))),
        ("C1", sample((5, 3), axes=(0,), blocks=(4, 4))),
        ("C1", sample((5, 3), axes=(0,), blocks=(0,))),
        ("C2", sample((5, 3), axes=(0,), blocks=(4,), order=(0, 1))),
    )


def _unordered(at: list[DimLike], order: tuple[int, ...]) -> list[DimLike]:
    """The indices of the packed axes before `order` was applied."""
    return [at[order.index(k)] for k in range(len(at))] if order else at


class Unpack(Op):
    """The logical tensor of `shape` that `pack` with the same attributes packed.

    C1, C2: as for pack.  C3: x has the shape that packing `shape` gives.
    """

    x = operand(Plain)
    axes = attr(tuple)
    blocks = attr(tuple)
    shape = attr(tuple)
    order = attr(tuple, ())

    @staticmethod
    def infer(
        x: TensorType,
        axes: tuple[int, ...],
        blocks: tuple[int, ...],
        shape: Shape,
        order: tuple[int, ...],
    ) -> TensorType:
        _check("unpack", len(shape), axes, blocks, order)
        want = packed_shape(shape, axes, blocks, order)
        ok = len(want) == x.rank and all([same(a, e) is not False for a, e in zip(want, x.shape)])
        require(
            ok,
            "E0318",
            "unpack (C3): x does not have the packed shape",
            f"found {x}",
            f"expected {TensorType(x.dtype, want)}",
        )
        return TensorType(x.dtype, shape)

    @staticmethod
    def evaluate(
        x: Array,
        axes: tuple[int, ...],
        blocks: tuple[int, ...],
        shape: tuple[int, ...],
        order: tuple[int, ...],
    ) -> Array:
        if order:
            x = x.transpose(np.argsort(order))
        rank = len(shape)
        back: list[int] = []
        full: list[int] = []
        for k in range(rank):
            back.append(k)
            full.append(x.shape[k])
            if k in axes:
                back.append(rank + axes.index(k))
                full[-1] *= blocks[axes.index(k)]
        return x.transpose(back).reshape(full)[tuple([slice(e) for e in shape])]

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the logical shape; x is read at (i // b, i % b)."""
        rank = len(self.shape)

        def index(at: list[DimLike]) -> list[DimLike]:
            split = list(at)
            for axis, block in zip(self.axes, self.blocks):
                split[axis] = at[axis] // block
            packed = [*split, *[at[a] % c for a, c in zip(self.axes, self.blocks)]]
            return [packed[k] for k in self.order] if self.order else packed

        assert rank == self.result.tensor.rank
        return element_by_element(b, self, xs[0], index)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Packed: what pads the last block came from nowhere."""
        return (b.pack(g, axes=self.axes, blocks=self.blocks, order=self.order),)

    samples = (
        sample((1, 2, 3, 5, 4), axes=(1,), blocks=(4,), shape=(1, 7, 3, 5)),
        sample((2, 2, 3, 3, 4, 8), axes=(1, 0), blocks=(4, 8), shape=(9, 5, 3, 3)),
        sample((2, 4, 8, 4), axes=(0, 1), blocks=(4, 8), shape=(13, 10), order=(1, 0, 3, 2)),
        sample((0, 3, 4), axes=(0,), blocks=(4,), shape=(0, 3)),
        sample((2, 3), axes=(0,), blocks=(3,), shape=(5,), dtypes=("i8",)),
    )
    rejects = (
        ("C1", sample((2, 3), axes=(0,), blocks=(3, 3), shape=(5,))),
        ("C2", sample((2, 3), axes=(0,), blocks=(3,), shape=(5,), order=(0, 0))),
        ("C3", sample((2, 3), axes=(0,), blocks=(3,), shape=(7,))),
    )


__all__ = ["Pack", "Unpack", "packed_shape"]
