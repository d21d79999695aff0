"""The two derivatives of a convolution: `conv_filter_grad` and `conv_input_grad`.

With conv they are three forms of one trilinear sum, the sum over batch, positions and taps of
g[position] * w[tap] * x[position * stride + tap * dilation - pad]: each leaves out one factor, so
that the derivatives of each are the two others, to every order.  Imports: the core, types, dims,
contract, windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Grads, Op, Real, Value, attr, operand, sample
from ..dims import DimLike, ceildiv, sym
from ..types import Shape, TensorType, from_numpy
from .constraints import require, same
from .contract import accumulator, exact_matmul, product_dtype, product_sum, zero
from .window import Window, window, windows_of


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
        _check_windows("conv_filter_grad", x.shape[2 : 2 + rank], g, win)
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


def _check_windows(op: str, size: Shape, g: TensorType, win: Window) -> None:
    """Constraint C4 of both ops: g has one position for each window."""
    for k, count in enumerate(windows_of(op, size, win)):
        require(
            same(count, g.shape[2 + k]),
            "E0314",
            f"{op} (C4): g does not have one position for each window",
            f"spatial axis {k}: {count} windows, g : {g}",
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


@dataclass(frozen=True, slots=True)
class _Phase:
    """What one residue class of positions along an axis sees: taps first, first + step, ... of the
    kernel (`count` of them), as a window of dilation `dilation` over g, padded by `before`.
    """

    first: int
    step: int
    count: int
    dilation: int
    before: int
    shift: int


def _phase(win: Window, axis: int, residue: int) -> _Phase:
    """The taps that reach positions stride*q + residue, and where they read g.

    Tap k takes g at m with m*stride + k*dilation = position + pad; so k*dilation is congruent to
    position + pad, and m falls by dilation/gcd from one such tap to the next.
    """
    stride, dilation = win.strides[axis], win.dilations[axis]
    start, rest = divmod(residue + win.before[axis], stride)
    taps = [k for k in range(win.kernel[axis]) if k * dilation % stride == rest]
    if not taps:
        return _Phase(0, 1, 0, 1, 0, 0)
    common = math.gcd(dilation, stride)
    shift = start - taps[0] * dilation // stride
    fall = dilation // common
    before = (len(taps) - 1) * fall - shift
    return _Phase(taps[0], stride // common, len(taps), fall, before, shift)


class ConvInputGrad(Op):
    """The gradient of a convolution in its input: [N, C, *size] from the cotangent g [N, O, *S'] of
    its result and its weights w [O, C/groups, *K].

    Element p is the sum of w[k] * g[s] over all taps and positions with s*stride + k*dilation - pad
    = p.  With strides, positions of equal remainder form a convolution of g with the taps that
    reach them, and no zero is multiplied (Shi 2016, as in `conv_transpose`).

    C1: element types as for matmul.  C2: g and w have one rank, at least 3.  C3: kernel extents are
    known; strides, dilations (>= 1) and pads (>= 0) fit their number; `size` has one extent per
    spatial axis.  C4: g has one position for each window of an input of `size`.  C5: O is w's first
    extent and a multiple of groups.
    """

    g = operand(Real)
    w = operand(Real)
    size = attr(tuple)
    strides = attr(tuple, ())
    pads = attr(tuple, ())
    dilations = attr(tuple, ())
    groups = attr(int, 1)

    @staticmethod
    def infer(
        g: TensorType,
        w: TensorType,
        size: Shape,
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
        groups: int,
    ) -> TensorType:
        dtype = product_dtype("conv_input_grad", g.dtype, w.dtype, None)
        found = f"g : {g}   w : {w}"
        require(
            g.rank >= 3 and w.rank == g.rank,
            "E0314",
            "conv_input_grad (C2): g and w must have one rank, at least 3",
            found,
        )
        require(
            len(size) == g.rank - 2,
            "E0315",
            f"conv_input_grad (C3): {g.rank - 2} spatial axes, size {size}",
            found,
        )
        win = window("conv_input_grad", w.shape[2:], strides, pads, dilations)
        _check_windows("conv_input_grad", size, g, win)
        require(
            groups >= 1 and same(g.shape[1], w.shape[0]) and same(w.shape[0] % groups, 0),
            "E0314",
            f"conv_input_grad (C5): g's channels are not w's, in {groups} groups",
            found,
        )
        return TensorType(dtype, (g.shape[0], w.shape[1] * groups, *size))

    @staticmethod
    def evaluate(
        g: Array,
        w: Array,
        size: tuple[int, ...],
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
        groups: int,
    ) -> Array:
        types = from_numpy(g.dtype), from_numpy(w.dtype)
        result, acc = product_dtype("conv_input_grad", *types, None), accumulator(*types)
        win = window("conv_input_grad", w.shape[2:], strides, pads, dilations)
        n, count = g.shape[0], g.shape[2:]
        outer, inner = g.shape[1] // groups, w.shape[1]
        reach = [max(e + b, (c - 1) * s + win.reach(k)) for k, (e, b, c, s) in enumerate(
            zip(size, win.before, count, win.strides))]  # fmt: skip
        total = np.zeros((n, groups * inner, *reach), acc.np)
        rows = g.reshape(n, groups, outer, math.prod(count))
        taps = w.reshape(groups, outer, inner, math.prod(win.kernel)).swapaxes(1, 2)
        for place, tap in enumerate(np.ndindex(*win.kernel)):
            part = exact_matmul(taps[None, :, :, :, place], rows, acc)
            target = (slice(None), slice(None), *win.slices(tap, count))
            total[target] += part.reshape(n, groups * inner, *count)
        inside = [slice(b, b + e) for b, e in zip(win.before, size)]
        return total[(slice(None), slice(None), *inside)].astype(result.np)

    def decompose(self, b: Builder) -> Value:
        """One convolution for each residue of the strides, interleaved."""
        win = window(
            "conv_input_grad", self.w.tensor.shape[2:], self.strides, self.pads, self.dilations
        )
        w = _transposed(b, self.w, self.groups)
        phases = [[_phase(win, k, r) for r in range(s)] for k, s in enumerate(win.strides)]
        made: Value = _woven(b, self, w, win, phases, [])
        return made

    def vjp(self, b: Builder, h: Value | None) -> Grads:
        """In g the convolution itself, in w its filter gradient."""
        given = {k: self.attributes[k] for k in ("strides", "pads", "dilations", "groups")}
        kernel = self.w.tensor.shape[2:]
        return (
            b.conv(h, self.w, **given),
            b.conv_filter_grad(h, self.g, kernel=kernel, **given),
        )

    samples: ClassVar[Any] = (
        sample((1, 4, 5, 3), (4, 3, 3, 3), size=(7, 5)),
        sample((2, 5, 5, 3), (5, 3, 3, 2), size=(8, 9), strides=(2, 3), pads=(1, 0, 2, 1)),
        sample((2, 5, 4, 4), (5, 3, 3, 3), size=(8, 7), strides=(2, 2), pads=(1, 1, 1, 1)),
        sample((1, 4, 4, 4), (4, 2, 1, 1), size=(8, 7), strides=(2, 2)),
        sample(
            (1, 6, 9, 9),
            (6, 2, 3, 3),
            size=(9, 9),
            groups=2,
            dilations=(2, 1),
            pads=(2, 1, 2, 1),
        ),
        sample((1, 2, 4), (2, 3, 3), size=(11,), strides=(2,), dilations=(2,)),
        sample((1, 2, 3), (2, 3, 4), size=(12,), strides=(4,), dilations=(2,), pads=(2, 1)),
        sample((1, 5, 6, 6), (5, 1, 3, 3), size=(6, 6), groups=5, pads=(1, 1, 1, 1)),
        sample((1, 2, 5), (2, 2, 1), size=(1,), pads=(2, 2)),
        sample((1, 2, 2), (2, 1, 2), size=(7,), strides=(4,)),
        sample((1, 3, 3, 3, 5), (3, 2, 2, 2, 2), size=(3, 4, 5), pads=(1, 0, 1, 0, 0, 0)),
        sample((0, 4, 3, 3), (4, 3, 3, 3), size=(5, 5)),
        sample((1, 1, 0, 0), (1, 2, 3, 3), size=(2, 2)),
        sample((1, 4, 6, 5), (4, 3, 3, 3), size=(6, 5), dtypes=("f16", "f16"), pads=(1, 1, 1, 1)),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((1, 4, 5, 3), (4, 3, 3, 3), dtypes=("f32", "f64"), size=(7, 5))),
        ("C2", sample((1, 4, 5, 3), (4, 3, 3), size=(7, 5))),
        ("C3", sample((1, 4, 5, 3), (4, 3, 3, 3), size=(7,))),
        ("C3", sample((1, 4, 5, 3), (4, 3, 3, 3), size=(7, 5), strides=(0, 1))),
        ("C4", sample((1, 4, 5, 3), (4, 3, 3, 3), size=(7, 6))),
        ("C5", sample((1, 3, 5, 3), (4, 3, 3, 3), size=(7, 5))),
        ("C5", sample((1, 4, 5, 3), (4, 3, 3, 3), size=(7, 5), groups=3)),
    )


def _transposed(b: Builder, w: Value, groups: int) -> Value:
    """[O, C/g, *K] as weights of the way back: [C, O/g, *K]."""
    outs, inner, *kernel = w.tensor.shape
    rest = range(2, 2 + len(kernel))
    if groups == 1:
        return b.transpose(w, perm=(1, 0, *rest))  # type: ignore[no-any-return]
    split = b.reshape(w, shape=(groups, outs // groups, inner, *kernel))
    turned = b.transpose(split, perm=(0, 2, 1, *[k + 1 for k in rest]))
    return b.reshape(turned, shape=(inner * groups, outs // groups, *kernel))  # type: ignore[no-any-return]


def _woven(
    b: Builder,
    op: ConvInputGrad,
    w: Value,
    win: Window,
    phases: Sequence[Sequence[_Phase]],
    chosen: list[_Phase],
) -> Any:
    """The result for the phases chosen so far, those of the remaining axes interleaved."""
    axis = len(chosen)
    if axis == len(phases):
        return _one_phase(b, op, w, win, chosen)
    stride = win.strides[axis]
    parts = [_woven(b, op, w, win, phases, [*chosen, p]) if p.count else None
             for p in phases[axis]]  # fmt: skip
    size = op.size[axis]
    if stride == 1:
        return parts[0]
    first = next(p for p in parts if p is not None).tensor.shape
    lifted = (*first[: 3 + axis], 1, *first[3 + axis :])
    rows, empty = [], 0
    for part in reversed(parts):
        if part is None:
            empty += 1
            continue
        rows.append(_widened(b, b.reshape(part, shape=lifted), 3 + axis, 0, empty))
        empty = 0
    rows[-1] = _widened(b, rows[-1], 3 + axis, empty, 0)
    wide = b.concat(*rows[::-1], axis=3 + axis) if len(rows) > 1 else rows[0]
    whole = (*first[: 2 + axis], first[2 + axis] * stride, *first[3 + axis :])
    made = b.reshape(wide, shape=whole)
    if same(whole[2 + axis], size) is True:
        return made
    kept = (*whole[: 2 + axis], size, *whole[3 + axis :])
    return b.slice(made, starts=(0,) * len(kept), sizes=kept)


def _widened(b: Builder, x: Value, axis: int, low: int, high: int) -> Value:
    """x with zeros before and behind along one axis."""
    if not low and not high:
        return x
    rank = x.tensor.rank
    before, behind = [0] * rank, [0] * rank
    before[axis], behind[axis] = low, high
    return b.pad(x, low=before, high=behind)  # type: ignore[no-any-return]


def _one_phase(
    b: Builder, op: ConvInputGrad, w: Value, win: Window, chosen: Sequence[_Phase]
) -> Value:
    """The convolution of g that gives the positions of one residue per axis."""
    g, rank = op.g, win.rank
    starts, sizes, steps = [0] * (2 + rank), list(w.tensor.shape), [1] * (2 + rank)
    for k, phase in enumerate(chosen):
        starts[2 + k] = phase.first + (phase.count - 1) * phase.step
        sizes[2 + k], steps[2 + k] = phase.count, -phase.step
    taps = w
    if win.kernel != (1,) * rank:
        taps = b.slice(w, starts=starts, sizes=sizes, steps=steps)
    low, high = [], []
    kept, cut = list(g.tensor.shape), [0] * (2 + rank)
    for k, phase in enumerate(chosen):
        before, after = phase.before, _missing(op.size[k], g.tensor.shape[2 + k], win, k)
        after += phase.shift
        low.append(max(0, before))
        high.append(max(0, after))
        cut[2 + k] = max(0, -before)
        kept[2 + k] = kept[2 + k] - cut[2 + k] - max(0, -after)
    if tuple(kept) != g.tensor.shape:
        g = b.slice(g, starts=cut, sizes=kept)
    dilations = tuple([p.dilation if p.count > 1 else 1 for p in chosen])
    return b.conv(g, taps, pads=(*low, *high), dilations=dilations, groups=op.groups)  # type: ignore[no-any-return]


def _missing(size: DimLike, count: DimLike, win: Window, axis: int) -> int:
    """By how much the positions of a phase outnumber those of g; at most, for symbolic extents."""
    stride = win.strides[axis]
    more = ceildiv(size, stride) - count
    if isinstance(more, int):
        return more
    pads = win.before[axis] + win.after[axis]
    return (stride - 1 - pads + win.reach(axis)) // stride


__all__ = ["ConvFilterGrad", "ConvInputGrad"]
