"""The derivative of a convolution in its weights: `conv_filter_grad`.

With conv and conv_input_grad it is one of three forms of a trilinear sum, the sum over batch,
positions and taps of g[position] * w[tap] * x[position * stride + tap * dilation - pad]: each
leaves out one factor, so that the derivatives of each are the two others, to every order.  Imports:
the core, types, dims, contract, windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Grads, Op, Real, Value, attr, operand, sample
from ..dims import DimLike, sym
from ..types import Shape, TensorType, from_numpy
from .constraints import require, same
from .contract import accumulator, exact_matmul, product_dtype, product_sum, zero
from .window import Window, check_windows, window


class ConvFilterGrad(Op):
    """The gradient of a convolution in its weights: [O, C/groups, *kernel] from its input x [N, C,
    *S] and the cotangent g [N, O, *S'] of its result.

    Element [o, c, k] is the sum of g[n, o, s] * x[n, c, s*stride + k*dilation - pad] over batch and
    positions; positions in the pads do not take part (or add zero, where g is finite).  With
    `channel_block` = c the layouts are those of the blocked convolution: x [N, ceil(C/c), *S, c], g
    [N, ceil(O/c), *S', c], the result [O/ob, ceil(C/c)/groups, *kernel, c, ob] with `out_block` ob
    (default c), or [ceil(C/c), *kernel, c] where `groups` is the channel count C (depthwise).
    `in_block` is x's own block where it differs.

    C1: element types as for matmul.  C2: x and g have one rank, with a spatial axis.  C3: kernel
    extents are known; strides, dilations (>= 1) and pads (>= 0) fit their number.  C4: g has x's
    batch and one position for each window of x.  C5: the channels of x and g are multiples of
    groups.  C6: in blocked layout the last extents are the blocks, and g's blocks fill those of the
    result.
    """

    x = operand(Real)
    g = operand(Real)
    kernel = attr(tuple)
    strides = attr(tuple, ())
    pads = attr(tuple, ())
    dilations = attr(tuple, ())
    groups = attr(int, 1)
    channel_block = attr(int, 0)
    out_block = attr(int, 0)
    in_block = attr(int, 0)

    @staticmethod
    def infer(
        x: TensorType,
        g: TensorType,
        kernel: tuple[int, ...],
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
        groups: int,
        channel_block: int,
        out_block: int,
        in_block: int = 0,
    ) -> TensorType:
        dtype = product_dtype("conv_filter_grad", x.dtype, g.dtype, None)
        blocked = 1 if channel_block else 0
        rank = x.rank - 2 - blocked
        found = f"x : {x}   g : {g}"
        require(
            rank >= 1 and g.rank == x.rank,
            "E0314",
            "conv_filter_grad (C2): x and g must have one rank, with batch, channels and space",
            found,
        )
        require(
            len(kernel) == rank,
            "E0315",
            f"conv_filter_grad (C3): {rank} spatial axes, kernel {kernel}",
            found,
        )
        win = window("conv_filter_grad", kernel, strides, pads, dilations)
        check_windows("conv_filter_grad", x.shape[2 : 2 + rank], g, win)
        require(same(x.shape[0], g.shape[0]), "E0314", "conv_filter_grad (C4): two batches", found)
        if not channel_block:
            shares = groups >= 1 and same(x.shape[1] % groups, 0) and same(g.shape[1] % groups, 0)
            require(
                shares,
                "E0314",
                f"conv_filter_grad (C5): channels are no multiples of {groups} groups",
                found,
            )
            return TensorType(dtype, (g.shape[1], x.shape[1] // groups, *kernel))
        sizes = in_block or channel_block, channel_block, out_block or channel_block
        return TensorType(dtype, _blocked_weights(x, g, kernel, groups, sizes))

    @staticmethod
    def evaluate(
        x: Array,
        g: Array,
        kernel: tuple[int, ...],
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
        groups: int,
        channel_block: int,
        out_block: int,
        in_block: int = 0,
    ) -> Array:
        types = from_numpy(x.dtype), from_numpy(g.dtype)
        result, acc = product_dtype("conv_filter_grad", *types, None), accumulator(*types)
        win = window("conv_filter_grad", kernel, strides, pads, dilations)
        if not channel_block:
            return _correlate(x, g, win, groups, acc).astype(result.np)
        blocks = x.shape[1]
        depthwise = _is_depthwise(x.shape, groups)
        x, g = _joined(x), _joined(g)
        share = x.shape[1] if depthwise else groups
        plain = _correlate(x, g, win, share, acc).astype(result.np)
        if depthwise:
            split = plain.reshape(blocks, channel_block, *kernel)
            return np.moveaxis(split, 1, -1)
        ib, ob = in_block or channel_block, out_block or channel_block
        split = plain.reshape(plain.shape[0] // ob, ob, plain.shape[1] // ib, ib, *kernel)
        return split.transpose(0, 2, *range(4, split.ndim), 3, 1)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Parallel over the result; reductions n and s0...  Where x is in the pads, g is read as
        zero too: such a term is zero whatever the values, and may be left out.
        """
        x, g, out = xs[0].tensor, xs[1].tensor, self.result.tensor
        rank = len(self.kernel)
        win = window("conv_filter_grad", self.kernel, self.strides, self.pads, self.dilations)
        at = [sym(f"s{k}") for k in range(rank)]
        taps = [sym(f"k{k}") for k in range(rank)]
        places = [win.position(k, at[k], taps[k]) for k in range(rank)]
        inside: list[DimLike] = []
        for k, size in enumerate(x.shape[2 : 2 + rank]):
            if win.before[k]:
                inside.append(places[k])
            if win.after[k]:
                inside.append(size - 1 - places[k])
        maps, target = self._maps(x, g, out, places, at, taps)
        its = [(str(name), extent, "parallel") for name, extent in zip(target, out.shape)]
        its.append(("n", x.shape[0], "reduction"))
        its += [(str(s), g.shape[2 + k], "reduction") for k, s in enumerate(at)]
        acc = accumulator(x.dtype, g.dtype)
        fills = (zero(x.dtype), zero(g.dtype)) if inside else ()
        where = (inside, inside) if inside else ()
        return product_sum(b, xs, its, maps, target, out, acc, fills, where)

    def _maps(
        self,
        x: TensorType,
        g: TensorType,
        out: TensorType,
        places: Sequence[DimLike],
        at: Sequence[DimLike],
        taps: Sequence[DimLike],
    ) -> tuple[list[tuple[DimLike, ...]], tuple[DimLike, ...]]:
        """Where x and g are read, and where the result is written."""
        n, o, i, ib, ob = (sym(name) for name in ("n", "o", "i", "ib", "ob"))
        if not self.channel_block:
            source: DimLike = i
            if self.groups != 1:
                source = (o // (out.shape[0] // self.groups)) * out.shape[1] + i
            return [(n, source, *places), (n, o, *at)], (o, i, *taps)
        if _is_depthwise(x.shape, self.groups):
            return [(n, o, *places, ob), (n, o, *at, ob)], (o, *taps, ob)
        source = i
        if self.groups != 1:
            source = (o // (out.shape[0] // self.groups)) * out.shape[1] + i
        ratio = (self.out_block or self.channel_block) // self.channel_block
        block, lane = o * ratio, ob
        if ratio != 1:
            block, lane = block + ob // self.channel_block, ob % self.channel_block
        return [(n, source, *places, ib), (n, block, *at, lane)], (o, i, *taps, ib, ob)

    def vjp(self, b: Builder, h: Value | None) -> Grads:
        """In x the convolution's input gradient with h as weights, in g the convolution with h."""
        require(
            not self.channel_block, "E0601", "conv_filter_grad: the blocked form has no gradient"
        )
        given = {k: self.attributes[k] for k in ("strides", "pads", "dilations", "groups")}
        rank = len(self.kernel)
        size = self.x.tensor.shape[2 : 2 + rank]
        return (
            b.conv_input_grad(self.g, h, size=size, **given),
            b.conv(self.x, h, **given),
        )

    samples: ClassVar[Any] = (
        sample((1, 3, 7, 5), (1, 4, 5, 3), kernel=(3, 3)),
        sample((2, 3, 8, 9), (2, 5, 5, 3), kernel=(3, 2), strides=(2, 3), pads=(1, 0, 2, 1)),
        sample(
            (1, 4, 9, 9),
            (1, 6, 9, 9),
            kernel=(3, 3),
            groups=2,
            dilations=(2, 1),
            pads=(2, 1, 2, 1),
        ),
        sample((1, 5, 6, 6), (1, 5, 6, 6), kernel=(3, 3), groups=5, pads=(1, 1, 1, 1)),
        sample((1, 3, 5), (1, 6, 5), kernel=(1,), groups=3),
        sample((1, 2, 3, 4, 5), (1, 3, 3, 3, 5), kernel=(2, 2, 2), pads=(1, 0, 1, 0, 0, 0)),
        sample((0, 3, 5, 5), (0, 4, 3, 3), kernel=(3, 3)),
        sample((1, 2, 2, 2), (1, 1, 0, 0), kernel=(3, 3)),
        sample((1, 3, 6, 5), (1, 4, 6, 5), dtypes=("f16", "f16"), kernel=(3, 3), pads=(1, 1, 1, 1)),
        sample((2, 2, 6, 5, 4), (2, 2, 6, 5, 4), kernel=(3, 3), channel_block=4, pads=(1, 1, 1, 1)),
        sample(
            (1, 2, 5, 7, 4),
            (1, 2, 2, 3, 4),
            kernel=(3, 3),
            channel_block=4,
            out_block=8,
            strides=(2, 2),
        ),
        sample(
            (1, 3, 6, 5, 1),
            (1, 2, 6, 5, 4),
            kernel=(3, 3),
            channel_block=4,
            in_block=1,
            pads=(1, 1, 1, 1),
        ),
        sample(
            (1, 2, 6, 6, 4),
            (1, 2, 6, 6, 4),
            kernel=(3, 3),
            channel_block=4,
            groups=7,
            pads=(1, 1, 1, 1),
        ),
        sample((1, 4, 4, 3, 4), (1, 2, 2, 1, 4), kernel=(3, 3), channel_block=4, groups=2),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((1, 3, 7, 5), (1, 4, 5, 3), dtypes=("f32", "f64"), kernel=(3, 3))),
        ("C2", sample((1, 3, 7, 5), (1, 4, 5), kernel=(3, 3))),
        ("C2", sample((1, 3), (1, 4), kernel=())),
        ("C3", sample((1, 3, 7, 5), (1, 4, 5, 3), kernel=(3,))),
        ("C3", sample((1, 3, 7, 5), (1, 4, 5, 3), kernel=(3, 3), pads=(1, 1))),
        ("C4", sample((1, 3, 7, 5), (1, 4, 5, 4), kernel=(3, 3))),
        ("C4", sample((2, 3, 7, 5), (1, 4, 5, 3), kernel=(3, 3))),
        ("C5", sample((1, 3, 7, 5), (1, 4, 5, 3), kernel=(3, 3), groups=2)),
        ("C6", sample((1, 1, 4, 4, 3), (1, 1, 4, 4, 4), kernel=(1, 1), channel_block=4)),
        (
            "C6",
            sample((1, 1, 4, 4, 4), (1, 1, 4, 4, 4), kernel=(1, 1), channel_block=4, out_block=8),
        ),
    )


def _is_depthwise(x: Shape, groups: int) -> bool:
    """Blocked with a group for each channel: more groups than blocks."""
    return groups != 1 and isinstance(x[1], int) and groups > x[1]


def _blocked_weights(
    x: TensorType,
    g: TensorType,
    kernel: tuple[int, ...],
    groups: int,
    sizes: tuple[int, int, int],
) -> Shape:
    """The result's shape in blocks; `sizes` are those of x, of g, and of the result's columns."""
    in_block, block, out_block = sizes
    found = f"x : {x}   g : {g}"
    require(
        x.shape[-1] == in_block and g.shape[-1] == block,
        "E0314",
        f"conv_filter_grad (C6): the last extents are not the blocks {in_block} and {block}",
        found,
    )
    if _is_depthwise(x.shape, groups):
        fits = in_block == block and same(x.shape[1], g.shape[1])
        require(fits, "E0314", "conv_filter_grad (C5): x and g have different blocks", found)
        return (x.shape[1], *kernel, block)
    ratio = out_block // block
    whole = out_block % block == 0 and ratio >= 1 and same(g.shape[1] % ratio, 0)
    require(
        whole,
        "E0314",
        f"conv_filter_grad (C6): g's blocks do not fill blocks of {out_block}",
        found,
    )
    shares = same(x.shape[1] % groups, 0) and same(g.shape[1] % (ratio * groups), 0)
    require(shares, "E0314", f"conv_filter_grad (C5): blocks do not split in {groups}", found)
    return (g.shape[1] // ratio, x.shape[1] // groups, *kernel, in_block, out_block)


def _joined(x: Array) -> Array:
    """Channels in blocks as one axis."""
    plain = np.moveaxis(x, -1, 2)
    return plain.reshape(x.shape[0], x.shape[1] * x.shape[-1], *x.shape[2:-1])


def _correlate(x: Array, g: Array, win: Window, groups: int, acc: Any) -> Array:
    """Plain layout, one matrix product per tap over the positions whose x is inside."""
    count, size = g.shape[2:], x.shape[2:]
    n, channels, outs = x.shape[0], x.shape[1] // groups, g.shape[1] // groups
    total = np.zeros((groups, outs, channels, *win.kernel), acc.np)
    for tap in np.ndindex(*win.kernel):
        here, there = [slice(None)] * 2, [slice(None)] * 2
        for k, t in enumerate(tap):
            start, step = t * win.dilations[k] - win.before[k], win.strides[k]
            first = min(count[k], max(0, -(start // step)))
            last = max(first, min(count[k], (size[k] - 1 - start) // step + 1))
            here.append(slice(first, last))
            there.append(slice(start + first * step, max(0, start + last * step), step))
            if last <= first:
                there[-1] = slice(0, 0)
        left, right = g[tuple(here)], x[tuple(there)]
        length = math.prod(left.shape[2:])
        rows = left.reshape(n, groups, outs, length).transpose(1, 2, 0, 3)
        columns = right.reshape(n, groups, channels, length).transpose(1, 0, 3, 2)
        total[(..., *tap)] = exact_matmul(
            rows.reshape(groups, outs, n * length),
            columns.reshape(groups, n * length, channels),
            acc,
        )
    return total.reshape(groups * outs, channels, *win.kernel)


__all__ = ["ConvFilterGrad"]
