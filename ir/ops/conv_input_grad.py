"""The derivative of a convolution in its input: `conv_input_grad`.

Its own derivatives are the convolution and `conv_filter_grad`, which says why.  Imports: the core,
types, dims, contract, windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Grads, Op, Real, Value, attr, operand, sample
from ..dims import DimLike, ceildiv
from ..types import Shape, TensorType, from_numpy
from .constraints import require, same
from .contract import accumulator, exact_matmul, product_dtype
from .window import Window, check_windows, window


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
        check_windows("conv_input_grad", size, g, win)
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


__all__ = ["ConvInputGrad"]
