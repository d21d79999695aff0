"""Transposed convolution, over any number of spatial axes.

It decomposes into one plain convolution, which the layouts and schedules of `conv` then serve.
With stride s the element J = q * s + r of the full result is a sum over the taps k = r + s * m at
x[q - m]: every phase r is a convolution of x with its own taps, and all phases together are one
with s times the output channels, whose results are then interleaved (Shi 2016, "Is the
deconvolution layer the same as a convolutional layer?").  Imports: the core, types, dims, contract.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Grads, Op, Real, Value, attr, operand, sample
from ..dims import DimLike
from ..types import TensorType, from_numpy
from .constraints import least, require, same
from .contract import accumulator, exact_matmul, product_dtype


@dataclass(frozen=True, slots=True)
class _Spread:
    """Per spatial axis: kernel extent, stride, pads, dilation, extra elements at the end."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilations: tuple[int, ...]
    extra: tuple[int, ...]

    def reach(self, axis: int) -> int:
        """How many positions the dilated kernel spans."""
        return self.dilations[axis] * (self.kernel[axis] - 1) + 1

    def extent(self, axis: int, size: DimLike) -> DimLike:
        """The extent of the result."""
        kept = self.reach(axis) - self.before[axis] - self.after[axis] + self.extra[axis]
        return (size - 1) * self.strides[axis] + kept


class ConvTranspose(Op):
    """The transpose (adjoint) of a convolution: x [N, C, *S] with w [C, O/groups, *K] to [N, O,
    *S'], as in ONNX ConvTranspose.

    Element i of x adds x[i] * w[k] to position i*stride + k*dilation - pad; positions outside the
    result are dropped.  S' = (S - 1) * stride + dilation * (K - 1) + 1 - pads + `extra`. `pads` are
    (before ..., after ...), and may be negative.

    C1: element types as for matmul.  C2: x and w have equal ranks, with a spatial axis.  C3: kernel
    extents are known; strides and dilations (>= 1), pads and extra (>= 0) fit their number.  C4: no
    extent is negative.  C5: C is w's first extent and a multiple of groups.
    """

    x = operand(Real)
    w = operand(Real)
    strides = attr(tuple, ())
    pads = attr(tuple, ())
    dilations = attr(tuple, ())
    extra = attr(tuple, ())
    groups = attr(int, 1)

    @staticmethod
    def infer(x: TensorType, w: TensorType, groups: int, **attrs: Any) -> TensorType:
        dtype = product_dtype("conv_transpose", x.dtype, w.dtype, None)
        found = f"x : {x}   w : {w}"
        require(
            x.rank >= 3 and w.rank == x.rank,
            "E0314",
            "conv_transpose (C2): x and w must have one rank, at least 3",
            found,
        )
        spread = _spread(w.shape[2:], **attrs)
        fits = groups >= 1 and same(x.shape[1], w.shape[0])
        require(
            fits and same(w.shape[0] % groups, 0),
            "E0314",
            f"conv_transpose (C5): x's channels are not w's, in {groups} groups",
            found,
        )
        out = tuple([spread.extent(k, size) for k, size in enumerate(x.shape[2:])])
        for extent in out:
            require(least(extent, 0), "E0315", "conv_transpose (C4): an extent is negative", found)
        return TensorType(dtype, (x.shape[0], w.shape[1] * groups, *out))

    @staticmethod
    def evaluate(x: Array, w: Array, groups: int, **attrs: Any) -> Array:
        types = from_numpy(x.dtype), from_numpy(w.dtype)
        result = product_dtype("conv_transpose", *types, None)
        acc = accumulator(*types)
        spread = _spread(w.shape[2:], **attrs)
        n, size = x.shape[0], x.shape[2:]
        rank, inner, outer = len(size), x.shape[1] // groups, w.shape[1]
        out = [int(spread.extent(k, e)) for k, e in enumerate(size)]  # type: ignore[arg-type]
        rows = x.reshape(n, groups, inner, math.prod(size))
        taps = w.reshape(groups, inner, outer, math.prod(spread.kernel)).swapaxes(1, 2)
        total = np.zeros((n, groups * outer, *out), acc.np)
        for place, tap in enumerate(np.ndindex(*spread.kernel)):
            part = exact_matmul(taps[None, :, :, :, place], rows, acc)
            source, target = [slice(None)] * 2, [slice(None)] * 2
            for k in range(rank):
                start = tap[k] * spread.dilations[k] - spread.before[k]
                step = spread.strides[k]
                first = max(0, -(start // step))
                last = min(size[k], max(first, -((start - out[k]) // step)))
                source.append(slice(first, last))
                target.append(slice(start + first * step, max(0, start + last * step), step))
                if last <= first:
                    target[-1] = slice(0, 0)
            shaped = part.reshape(n, groups * outer, *size)
            total[tuple(target)] += shaped[tuple(source)]
        return total.astype(result.np)

    def decompose(self, b: Builder) -> Value:
        """One convolution with the taps of every phase, then the phases interleaved."""
        x, w, groups = self.x, self.w, self.groups
        spread = _spread(w.tensor.shape[2:], self.strides, self.pads, self.dilations, self.extra)
        rank = len(spread.kernel)
        counts = [-(-spread.reach(k) // spread.strides[k]) for k in range(rank)]
        low, high = [], []
        for k, (count, stride) in enumerate(zip(counts, spread.strides)):
            end = spread.reach(k) - spread.after[k] + spread.extra[k]
            low.append(count - 1 - spread.before[k] // stride)
            high.append(-(-end // stride) - 1)
        if min((*low, *high)) < 0:
            x = b.pad(x, low=(0, 0, *low), high=(0, 0, *high))
            low = high = [0] * rank
        y = b.conv(x, _phases(b, w, spread, counts, groups), pads=(*low, *high), groups=groups)
        return _interleaved(b, y, spread, groups, self.result.tensor)

    def vjp(self, b: Builder, g: Value | None) -> Grads:
        """The convolution with w, and its filter gradient at g."""
        assert g is not None
        spread = _spread(
            self.w.tensor.shape[2:], self.strides, self.pads, self.dilations, self.extra
        )
        behind = [p - e for p, e in zip(spread.after, spread.extra)]
        g = _seen(b, g, spread.before, behind)
        pads = tuple([max(0, p) for p in (*spread.before, *behind)])
        given = {k: self.attributes[k] for k in ("strides", "dilations", "groups")}
        return (
            b.conv(g, self.w, pads=pads, **given),
            b.conv_filter_grad(g, self.x, kernel=spread.kernel, pads=pads, **given),
        )

    samples: ClassVar[Any] = (
        sample((1, 3, 4, 5), (3, 4, 2, 2), strides=(2, 2)),
        sample((2, 3, 4, 3), (3, 2, 3, 3), strides=(2, 2), pads=(1, 1, 1, 1), extra=(1, 1)),
        sample((1, 3, 4, 4), (3, 2, 4, 4), strides=(2, 2), pads=(1, 1, 1, 1)),
        sample((1, 4, 3, 4), (4, 3, 3, 2), strides=(1, 3), groups=2, pads=(1, 0, 2, 1)),
        sample((1, 2, 5), (2, 3, 3), dilations=(2,), strides=(2,), pads=(1, 3)),
        sample((1, 2, 5), (2, 3, 3)),
        sample((1, 2, 3), (2, 1, 1), strides=(3,), extra=(2,)),
        sample((1, 2, 4), (2, 1, 2), strides=(3,), pads=(4, 1)),
        sample((1, 2, 4), (2, 1, 3), strides=(2,), pads=(-3, -1)),
        sample((1, 2, 2, 3, 2), (2, 2, 2, 1, 3), strides=(2, 1, 2)),
        sample((0, 3, 4, 5), (3, 4, 2, 2), strides=(2, 2)),
        sample((1, 3, 4, 5), (3, 4, 3, 3), strides=(2, 2), dtypes=("f16", "f16")),
        sample((1, 3, 5), (3, 4, 3), dtypes=("u8", "i8"), ranges=((0, 255), (-128, 127))),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((1, 3, 4, 5), (3, 4, 2, 2), dtypes=("f32", "f64"))),
        ("C2", sample((1, 3, 4, 5), (3, 4, 2))),
        ("C3", sample((1, 3, 4, 5), (3, 4, 2, 2), strides=(2, 0))),
        ("C3", sample((1, 3, 4, 5), (3, 4, 2, 2), pads=(1,))),
        ("C3", sample((1, 3, 4, 5), (3, 4, 2, 2), extra=(-1, 0))),
        ("C4", sample((1, 3, 1, 5), (3, 4, 2, 2), pads=(2, 0, 2, 0))),
        ("C5", sample((1, 2, 4, 5), (3, 4, 2, 2))),
        ("C5", sample((1, 3, 4, 5), (3, 4, 2, 2), groups=2)),
    )


def _seen(b: Builder, g: Value, before: Sequence[int], after: Sequence[int]) -> Value:
    """The part of the result that x reaches: without what pads below zero added."""
    if min((*before, *after)) >= 0:
        return g
    starts = [0, 0, *[max(0, -p) for p in before]]
    cut = [0, 0, *[max(0, -p) + max(0, -q) for p, q in zip(before, after)]]
    sizes = [e - c for e, c in zip(g.tensor.shape, cut)]
    return b.slice(g, starts=starts, sizes=sizes)  # type: ignore[no-any-return]


def _spread(
    kernel: Sequence[DimLike],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    extra: tuple[int, ...],
) -> _Spread:
    """The geometry that these attributes say (empty means ones, zeros); constraint C3."""
    rank = len(kernel)
    strides, dilations = tuple(strides) or (1,) * rank, tuple(dilations) or (1,) * rank
    pads, extra = tuple(pads) or (0,) * (2 * rank), tuple(extra) or (0,) * rank
    static = all([type(k) is int and k >= 1 for k in kernel])
    sizes = len(strides) == len(dilations) == len(extra) == rank and len(pads) == 2 * rank
    require(
        static and sizes and min((*strides, *dilations)) >= 1 and min(extra) >= 0,
        "E0315",
        f"conv_transpose (C3): {rank} known kernel extents, strides and dilations (at least 1) and "
        f"extra elements, {2 * rank} pads",
        f"kernel {tuple(kernel)}, strides {strides}, pads {pads}, dilations {dilations}, "
        f"extra {extra}",
    )
    fixed = tuple([k for k in kernel if type(k) is int])
    return _Spread(fixed, strides, pads[:rank], pads[rank:], dilations, extra)


def _phases(b: Builder, w: Value, spread: _Spread, counts: Sequence[int], groups: int) -> Value:
    """w [C, O/g, *K] as weights of a plain convolution: [g * prod(strides) * O/g, C/g, *counts].

    Tap k = r + stride * m of phase r becomes tap count - 1 - m.
    """
    rank, (inputs, outer) = len(spread.kernel), w.tensor.shape[:2]
    for k in range(rank):
        w = _dilated(b, w, 2 + k, spread.dilations[k])
    missing = [c * s - spread.reach(k) for k, (c, s) in enumerate(zip(counts, spread.strides))]
    if any(missing):
        w = b.pad(w, low=(0,) * (2 + rank), high=(0, 0, *missing))
    split = [e for pair in zip(counts, spread.strides) for e in pair]
    shape = (groups, inputs // groups, outer, *split)
    w = b.reshape(w, shape=shape)
    steps, starts = [1] * len(shape), [0] * len(shape)
    for k, count in enumerate(counts):
        steps[3 + 2 * k], starts[3 + 2 * k] = -1, count - 1
    w = b.slice(w, starts=starts, sizes=shape, steps=steps)
    taps, phases = [3 + 2 * k for k in range(rank)], [4 + 2 * k for k in range(rank)]
    w = b.transpose(w, perm=(0, *phases, 2, 1, *taps))
    wide = outer * (groups * math.prod(spread.strides))
    return b.reshape(w, shape=(wide, inputs // groups, *counts))  # type: ignore[no-any-return]


def _dilated(b: Builder, w: Value, axis: int, step: int) -> Value:
    """w with step - 1 zeros between its elements along one axis."""
    if step == 1:
        return w
    shape = list(w.tensor.shape)
    lifted = b.reshape(w, shape=(*shape[: axis + 1], 1, *shape[axis + 1 :]))
    high = [0] * (len(shape) + 1)
    high[axis + 1] = step - 1
    padded = b.pad(lifted, low=[0] * len(high), high=high)
    extent = shape[axis]
    shape[axis] = extent * step
    spread = b.reshape(padded, shape=shape)
    shape[axis] = (extent - 1) * step + 1
    return b.slice(spread, starts=[0] * len(shape), sizes=shape)  # type: ignore[no-any-return]


def _interleaved(b: Builder, y: Value, spread: _Spread, groups: int, result: TensorType) -> Value:
    """y [N, g * prod(strides) * O/g, *Q] with its phases beside each other, cut to the result."""
    rank, strides = len(spread.kernel), spread.strides
    if math.prod(strides) == 1:
        return y
    batch, channels, *out = result.shape
    size = y.tensor.shape[2:]
    y = b.reshape(y, shape=(batch, groups, *strides, channels // groups, *size))
    pairs = [a for k in range(rank) for a in (3 + rank + k, 2 + k)]
    y = b.transpose(y, perm=(0, 1, 2 + rank, *pairs))
    whole = [q * s for q, s in zip(size, strides)]
    y = b.reshape(y, shape=(batch, channels, *whole))
    starts = [p % s for p, s in zip(spread.before, strides)]
    if any(starts) or any([same(e, f) is not True for e, f in zip(out, whole)]):
        y = b.slice(y, starts=(0, 0, *starts), sizes=result.shape)
    return y


__all__ = ["ConvTranspose"]
