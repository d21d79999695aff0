"""Convolution: `conv`, over any number of spatial axes, plain or in blocked channel layout.

A bias is a separate broadcast `add`; `auto_pad` is the importer's concern.  Imports: the core,
types, dims, and the product-sum rules of contract.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..core import Array, Builder, Grads, Op, Real, Value, attr, operand, sample
from ..dims import DimLike, ceildiv, sym
from ..types import DType, Shape, TensorType, from_numpy
from .constraints import require, same
from .contract import accumulator, as_type, exact_matmul, product_dtype, product_sum, zero
from .window import Window, window, windows_of


class Conv(Op):
    """Cross-correlation of x [N, C, *S] with w [O, C/groups, *K], as in ONNX Conv: [N, O, *S'].

    `pads` are (before ..., after ...), in zeros, whose products may be left out.  With
    `channel_block` = c the layouts are blocked: x [N, ceil(C/c), *S, c]; w [ceil(O/ob),
    ceil(C/c)/groups, *K, c, ob] with `out_block` ob a multiple of c (default c), or [ceil(C/c), *K,
    c] where `groups` is the channel count C (depthwise); the result is [N, ceil(out_channels/c),
    *S', c].  Lanes that pad w with zeros give zeros.  `in_block` is x's own block where it differs:
    with 1, a plain image is x already (first layers).

    C1: element types as for matmul.  C2: x and w have the ranks above, with a spatial axis.  C3:
    kernel extents are known; strides, dilations (>= 1) and pads (>= 0) fit their number.  C4: the
    kernel fits the padded input.  C5: C = groups times w's channel extent.  C6: O is a multiple of
    groups, or in blocked layout `out_channels` fits into w's blocks.  C7: `out_block` is a multiple
    of `channel_block`, and the trailing extents are these blocks.
    """

    x = operand(Real)
    w = operand(Real)
    strides = attr(tuple, ())
    pads = attr(tuple, ())
    dilations = attr(tuple, ())
    groups = attr(int, 1)
    out = attr(DType, None)
    channel_block = attr(int, 0)
    out_block = attr(int, 0)
    out_channels = attr(object, 0)
    in_block = attr(int, 0)

    @staticmethod
    def infer(
        x: TensorType,
        w: TensorType,
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
        groups: int,
        out: DType | None,
        channel_block: int,
        out_block: int,
        out_channels: DimLike,
        in_block: int = 0,
    ) -> TensorType:
        dtype = product_dtype("conv", x.dtype, w.dtype, out)
        blocked = 1 if channel_block else 0
        rank = x.rank - 2 - blocked
        depthwise = bool(blocked) and groups != 1 and w.rank == rank + 2
        found = f"x : {x}   w : {w}"
        want = rank + (2 if depthwise else 2 + 2 * blocked)
        require(
            rank >= 1 and w.rank == want,
            "E0314",
            f"conv (C2): x and w must have ranks n and {want - x.rank:+d} to it",
            found,
        )
        lead = 1 if depthwise else 2
        win = window("conv", w.shape[lead : lead + rank], strides, pads, dilations)
        spatial = windows_of("conv", x.shape[2 : 2 + rank], win)
        if not channel_block:
            return TensorType(dtype, (x.shape[0], _plain_channels(x, w, groups), *spatial))
        if depthwise:
            blocks = _depthwise_blocks(x, w, channel_block)
        else:
            sizes = in_block or channel_block, channel_block, out_block or channel_block
            blocks = _out_blocks(x, w, groups, sizes, out_channels)
        return TensorType(dtype, (x.shape[0], blocks, *spatial, channel_block))

    @staticmethod
    def evaluate(
        x: Array,
        w: Array,
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
        groups: int,
        out: DType | None,
        channel_block: int,
        out_block: int,
        out_channels: DimLike,
        in_block: int = 0,
    ) -> Array:
        types = from_numpy(x.dtype), from_numpy(w.dtype)
        result = product_dtype("conv", *types, out)
        acc = accumulator(*types, out)
        if not channel_block:
            win = window("conv", w.shape[2:], strides, pads, dilations)
            return _convolve(x, w, win, groups, acc).astype(result.np)
        plain = np.moveaxis(x, -1, 2)
        plain = plain.reshape(x.shape[0], x.shape[1] * x.shape[-1], *x.shape[2:-1])
        if groups != 1 and w.ndim == x.ndim - 1:
            flat = np.moveaxis(w, -1, 1)
            flat = flat.reshape(w.shape[0] * channel_block, 1, *w.shape[1:-1])
            groups, blocks = flat.shape[0], x.shape[1]
        else:
            o, i, ib, ob = w.shape[0], w.shape[1], w.shape[-2], w.shape[-1]
            order = (0, w.ndim - 1, 1, w.ndim - 2, *range(2, w.ndim - 2))
            flat = w.transpose(order).reshape(o * ob, i * ib, *w.shape[2:-2])
            blocks = int(ceildiv(out_channels or o * ob, channel_block))  # type: ignore[arg-type]
            flat = flat[: blocks * channel_block]
        win = window("conv", flat.shape[2:], strides, pads, dilations)
        y = _convolve(plain, flat, win, groups, acc).astype(result.np)
        y = y.reshape(y.shape[0], blocks, channel_block, *y.shape[2:])
        return np.moveaxis(y, 2, -1)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Parallel n, o, s0.. (and the lane ob); reductions i (and its lane ib), k0..."""
        out = self.result.tensor
        x, w = xs[0].tensor, xs[1].tensor
        blocked = 1 if self.channel_block else 0
        rank = x.rank - 2 - blocked
        depthwise = bool(blocked) and self.groups != 1 and w.rank == rank + 2
        lead = 1 if depthwise else 2
        win = window("conv", w.shape[lead : lead + rank], self.strides, self.pads, self.dilations)
        at = [sym(f"s{k}") for k in range(rank)]
        taps = [sym(f"k{k}") for k in range(rank)]
        places = [win.position(k, at[k], taps[k]) for k in range(rank)]
        sizes = [("n", out.shape[0], "parallel"), ("o", out.shape[1], "parallel")]
        sizes += [(f"s{k}", out.shape[2 + k], "parallel") for k in range(rank)]
        n, o, ob = sym("n"), sym("o"), sym("ob")
        if not blocked:
            its = [*sizes, ("i", w.shape[1], "reduction")]
            maps = self._plain_maps(w.shape, places, taps, out.shape[1])
            target: tuple[DimLike, ...] = (n, o, *at)
        else:
            its = [*sizes, ("ob", self.channel_block, "parallel")]
            target = (n, o, *at, ob)
            if depthwise:
                maps = [(n, o, *places, ob), (o, *taps, ob)]
            else:
                its.append(("i", w.shape[1], "reduction"))
                maps = self._blocked_maps(w.shape, places, taps, out.shape[1])
        its += [(f"k{k}", extent, "reduction") for k, extent in enumerate(win.kernel)]
        if blocked and not depthwise:
            its.append(("ib", self.in_block or self.channel_block, "reduction"))
        acc = accumulator(x.dtype, w.dtype, self.out)
        fills = (zero(x.dtype), None)
        return product_sum(b, xs, its, maps, target, out, acc, fills)

    def _plain_maps(
        self, w: Shape, places: Sequence[DimLike], taps: Sequence[DimLike], channels: DimLike
    ) -> list[tuple[DimLike, ...]]:
        n, o, i = sym("n"), sym("o"), sym("i")
        channel: DimLike = i
        if self.groups != 1:
            channel = (o // (channels // self.groups)) * w[1] + i
        return [(n, channel, *places), (o, i, *taps)]

    def _blocked_maps(
        self, w: Shape, places: Sequence[DimLike], taps: Sequence[DimLike], blocks: DimLike
    ) -> list[tuple[DimLike, ...]]:
        n, o, i, ob, ib = sym("n"), sym("o"), sym("i"), sym("ob"), sym("ib")
        source: DimLike = i
        if self.groups != 1:
            source = (o // (blocks // self.groups)) * w[1] + i
        ratio = (self.out_block or self.channel_block) // self.channel_block
        lane = (o % ratio) * self.channel_block + ob
        return [(n, source, *places, ib), (o // ratio, i, *taps, ib, lane)]

    def vjp(self, b: Builder, g: Value | None) -> Grads:
        """Input gradient and filter gradient, in the element type of the result."""
        require(
            not self.channel_block, "E0601", "conv: the blocked form has no gradient",
            hint="differentiate before layouts are chosen",
        )  # fmt: skip
        x, w = (as_type(b, v, self.result.tensor.dtype) for v in (self.x, self.w))
        given = {k: self.attributes[k] for k in ("strides", "pads", "dilations", "groups")}
        kernel, size = w.tensor.shape[2:], x.tensor.shape[2:]
        return (
            b.conv_input_grad(g, w, size=size, **given),
            b.conv_filter_grad(x, g, kernel=kernel, **given),
        )

    samples = (
        sample((1, 3, 7, 5), (4, 3, 3, 3)),
        sample((2, 3, 8, 9), (5, 3, 3, 2), strides=(2, 3), pads=(1, 0, 2, 1)),
        sample((1, 4, 9, 9), (6, 2, 3, 3), groups=2, dilations=(2, 1), pads=(2, 1, 2, 1)),
        sample((1, 5, 6, 6), (5, 1, 3, 3), groups=5, pads=(1, 1, 1, 1)),
        sample((1, 3, 5), (6, 1, 1), groups=3),
        sample((2, 3, 11), (4, 3, 5), strides=(2,), pads=(2, 2)),
        sample((1, 2, 3, 4, 5), (3, 2, 2, 2, 2), pads=(1, 0, 1, 0, 1, 1)),
        sample((0, 3, 5, 5), (4, 3, 3, 3)),
        sample((1, 2, 2, 2), (1, 2, 3, 3)),
        sample((1, 3, 6, 5), (4, 3, 3, 3), dtypes=("f16", "f16"), pads=(1, 1, 1, 1)),
        sample(
            (1, 3, 6, 5),
            (4, 3, 3, 3),
            dtypes=("u8", "i8"),
            pads=(1, 1, 1, 1),
            ranges=((0, 255), (-128, 127)),
        ),
        sample((1, 2, 6, 5, 4), (2, 2, 3, 3, 4, 4), channel_block=4, pads=(1, 1, 1, 1)),
        sample(
            (1, 2, 5, 7, 4),
            (1, 2, 3, 3, 4, 8),
            channel_block=4,
            out_block=8,
            strides=(2, 2),
            out_channels=8,
        ),
        sample((1, 2, 4, 4, 4), (2, 2, 1, 1, 4, 8), channel_block=4, out_block=8, out_channels=11),
        sample((1, 3, 6, 5, 1), (2, 3, 3, 3, 1, 4), channel_block=4, in_block=1, pads=(1, 1, 1, 1)),
        sample((1, 2, 6, 6, 4), (2, 3, 3, 4), channel_block=4, groups=7, pads=(1, 1, 1, 1)),
        sample((1, 4, 5, 6, 4), (2, 2, 3, 3, 4, 4), channel_block=4, groups=2, pads=(1, 1, 1, 1)),
        sample(
            (1, 3, 5, 5, 4),
            (6, 1, 1, 1, 4, 8),
            channel_block=4,
            out_block=8,
            groups=3,
            out_channels=48,
        ),
    )
    rejects = (
        ("C1", sample((1, 3, 7, 5), (4, 3, 3, 3), dtypes=("f32", "f64"))),
        ("C2", sample((1, 3), (4, 3))),
        ("C2", sample((1, 3, 7, 5), (4, 3, 3))),
        ("C3", sample((1, 3, 7, 5), (4, 3, 3, 3), strides=(0, 1))),
        ("C3", sample((1, 3, 7, 5), (4, 3, 3, 3), pads=(1, 1))),
        ("C4", sample((1, 3, 2, 5), (4, 3, 5, 3))),
        ("C5", sample((1, 4, 7, 5), (4, 3, 3, 3))),
        ("C6", sample((1, 4, 7, 5), (5, 2, 3, 3), groups=2)),
        ("C6", sample((1, 1, 5, 5, 4), (1, 1, 1, 1, 4, 4), channel_block=4, out_channels=9)),
        ("C7", sample((1, 1, 5, 5, 4), (1, 1, 1, 1, 4, 6), channel_block=4, out_block=6)),
        ("C7", sample((1, 1, 5, 5, 3), (1, 1, 1, 1, 3, 4), channel_block=4)),
    )


def _plain_channels(x: TensorType, w: TensorType, groups: int) -> DimLike:
    """O, after checking C5 and C6 in plain layout."""
    require(
        groups >= 1 and same(x.shape[1], w.shape[1] * groups),
        "E0314",
        "conv (C5): x's channels are not groups times w's",
        f"x : {x}   w : {w}",
        f"{x.shape[1]} != {groups} * {w.shape[1]}",
    )
    require(
        same(w.shape[0] % groups, 0),
        "E0314",
        f"conv (C6): {w.shape[0]} output channels are not a multiple of {groups} groups",
    )
    return w.shape[0]


def _out_blocks(
    x: TensorType,
    w: TensorType,
    groups: int,
    sizes: tuple[int, int, int],
    out_channels: DimLike,
) -> DimLike:
    """How many blocks of output channels there are, after checking C5 to C7 in blocked layout.

    `sizes` are the blocks of x, of the result, and of w's output channels.
    """
    in_block, block, out_block = sizes
    found = f"x : {x}   w : {w}"
    trailing = x.shape[-1] == in_block and w.shape[-2:] == (in_block, out_block)
    require(
        trailing and out_block % block == 0,
        "E0314",
        f"conv (C7): trailing extents are not the blocks {in_block} and {out_block}",
        found,
    )
    require(
        groups >= 1 and same(x.shape[1], w.shape[1] * groups),
        "E0314",
        f"conv (C5): x's channel blocks are not {groups} times w's",
        found,
    )
    require(
        groups == 1 or (same(w.shape[0] % groups, 0) and type(out_channels) is int),
        "E0314",
        f"conv (C6): w's blocks are not a multiple of {groups} groups",
        found,
    )
    room = w.shape[0] * out_block
    if type(out_channels) is int and out_channels == 0:
        return room // block
    blocks = ceildiv(out_channels, block)
    least_blocks = ceildiv(out_channels, out_block)
    require(
        same(least_blocks, w.shape[0]),
        "E0314",
        f"conv (C6): {out_channels} output channels do not fill w's blocks",
        found,
    )
    return blocks


def _depthwise_blocks(x: TensorType, w: TensorType, block: int) -> DimLike:
    """x's blocks of channels, after checking C5 and C7 for a depthwise blocked convolution."""
    found = f"x : {x}   w : {w}"
    require(
        x.shape[-1] == block and w.shape[-1] == block,
        "E0314",
        f"conv (C7): trailing extents are not the block {block}",
        found,
    )
    require(
        same(x.shape[1], w.shape[0]),
        "E0314",
        "conv (C5): x and w have different channel blocks",
        found,
    )
    return x.shape[1]


def _convolve(x: Array, w: Array, win: Window, groups: int, acc: DType) -> Array:
    """Plain layout, one matrix product per tap, summed in `acc`."""
    pad = [(0, 0), (0, 0), *zip(win.before, win.after)]
    padded = np.pad(x, pad) if any(win.before) or any(win.after) else x
    count = [int(win.extent(k, size)) for k, size in enumerate(x.shape[2:])]  # type: ignore[arg-type]
    n, o = x.shape[0], w.shape[0]
    inner, outer = w.shape[1], o // groups
    total = np.zeros((n, groups, outer, math.prod(count)), acc.np)
    weights = w.reshape(groups, outer, inner, math.prod(win.kernel))
    for place, tap in enumerate(np.ndindex(*win.kernel)):
        part = padded[(slice(None), slice(None), *win.slices(tap, count))]
        part = part.reshape(n, groups, inner, math.prod(count))
        total += exact_matmul(weights[None, :, :, :, place], part, acc)
    return total.reshape(n, o, *count)


__all__ = ["Conv"]
