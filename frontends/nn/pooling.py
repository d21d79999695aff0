"""Pooling over one, two or three axes, with torch's arguments and rounding.

x is [N, C, *S] (or [C, *S]).  May import: ir, its siblings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.errors import Error
from ...ir.ops.contract import Contract
from ...ir.ops.index import Take
from ...ir.ops.pool import AvgPool, MaxPool, MaxPoolIndices
from .convolution import batched, unbatched
from .dispatch import apply
from .functions import abs as absolute
from .functions import sign
from .layers import padded, tupled
from .tensor import Tensor

Size = int | Sequence[int]

# ------------------------------------------------------------ functions


def _max_pool(
    rank: int, x: Tensor, kernel_size: Size, stride: Size | None, padding: Size, dilation: Size,
    ceil_mode: bool, return_indices: bool,
) -> Any:  # fmt: skip
    x, alone = batched(x, rank)
    attrs = _geometry(rank, kernel_size, stride, padding)
    attrs |= {"dilations": tupled(dilation, rank, "dilation"), "ceil_mode": ceil_mode}
    found = unbatched(apply(MaxPool, x, **attrs), alone)
    if not return_indices:
        return found
    plane = math.prod(x.type.shape[2:])  # torch counts within the channel's plane
    return found, unbatched(apply(MaxPoolIndices, x, **attrs) % plane, alone)


def _geometry(rank: int, kernel: Size, stride: Size | None, padding: Size) -> dict[str, Any]:
    """The window's attributes; E0641 for pads beyond half of the kernel."""
    kernels = tupled(kernel, rank, "kernel_size")
    strides = kernels if stride is None else tupled(stride, rank, "stride")
    pads = tupled(padding, rank, "padding")
    if any([2 * p > k for p, k in zip(pads, kernels)]):
        raise Error("E0641", "a pad is at most half of the kernel",
                    details=(f"found padding {pads}, kernel {kernels}",))  # fmt: skip
    return {"kernel": kernels, "strides": strides, "pads": (*pads, *pads)}


def max_pool1d(
    x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
    dilation: Size = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The greatest element of each window of x [N, C, L]; with indices a pair."""
    return _max_pool(1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
    dilation: Size = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The greatest element of each window of x [N, C, H, W]; with indices a pair."""
    return _max_pool(2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
    dilation: Size = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The greatest element of each window of x [N, C, D, H, W]; with indices a pair."""
    return _max_pool(3, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _avg_pool(
    rank: int, x: Tensor, kernel_size: Size, stride: Size | None, padding: Size, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None,
) -> Tensor:  # fmt: skip
    x, alone = batched(x, rank)
    attrs = _geometry(rank, kernel_size, stride, padding)
    if divisor_override is None:
        attrs |= {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
        return unbatched(apply(AvgPool, x, **attrs), alone)
    if not divisor_override:
        raise Error("E0641", "divisor_override is 0")
    attrs["ceil_mode"] = ceil_mode
    whole = _window_sums(x, rank, attrs)
    return unbatched(whole / float(divisor_override), alone)


def _window_sums(x: Tensor, rank: int, attrs: dict[str, Any]) -> Tensor:
    """The sum of each window: x padded until every window is whole, then the mean times taps."""
    kernel, strides, low = attrs["kernel"], attrs["strides"], attrs["pads"][:rank]
    high = list(low)
    if attrs["ceil_mode"]:
        for k, extent in enumerate(x.type.shape[2:]):
            count = -(-(extent + 2 * low[k] - kernel[k]) // strides[k]) + 1
            if (count - 1) * strides[k] >= extent + low[k]:
                count -= 1
            high[k] = max(high[k], (count - 1) * strides[k] + kernel[k] - extent - low[k])
    mean: Tensor = apply(AvgPool, padded(x, low, high), kernel=kernel, strides=strides)
    return mean * float(math.prod(kernel))


def avg_pool1d(
    x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """The mean of each window of x [N, C, L]."""
    return _avg_pool(1, x, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window of x [N, C, H, W], or its sum over `divisor_override`."""
    return _avg_pool(
        2, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool3d(
    x: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window of x [N, C, D, H, W], or its sum over `divisor_override`."""
    return _avg_pool(
        3, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _lp_pool(
    rank: int, x: Tensor, norm_type: float, kernel_size: Size, stride: Size | None, ceil_mode: bool
) -> Tensor:
    """As torch computes it: the mean of x**p, its sign, times the taps, to the power 1/p."""
    kernel = tupled(kernel_size, rank, "kernel_size")
    mean = _avg_pool(rank, x**norm_type, kernel, stride, 0, ceil_mode, True, None)
    whole = sign(mean) * absolute(mean) * float(math.prod(kernel))
    return whole ** (1.0 / norm_type)


def lp_pool1d(
    x: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """The p-norm of each window of x [N, C, L]; as in torch, odd powers keep the sign of x."""
    return _lp_pool(1, x, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    x: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """The p-norm of each window of x [N, C, H, W]; as in torch, odd powers keep the sign of x."""
    return _lp_pool(2, x, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    x: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """The p-norm of each window of x [N, C, D, H, W]; as in torch, odd powers keep the sign."""
    return _lp_pool(3, x, norm_type, kernel_size, stride, ceil_mode)


# ------------------------------------------------------------ adaptive


def _sizes(rank: int, x: Tensor, output_size: Any) -> tuple[int, ...]:
    """The extents asked for; None keeps one.  E0641 where an extent is not known."""
    shape = x.type.shape[-rank:]
    given = (output_size,) * rank if not isinstance(output_size, (tuple, list)) else output_size
    if len(given) != rank:
        raise Error("E0641", f"adaptive pooling takes a size or {rank} of them",
                    details=(f"found {output_size}",))  # fmt: skip
    out = [shape[k] if size is None else size for k, size in enumerate(given)]
    if not all([isinstance(e, int) for e in shape]) and out != [1] * rank:
        raise Error("E0641", "adaptive pooling needs known extents, unless it pools to 1",
                    details=(f"found {x.type}",))  # fmt: skip
    return tuple(out)  # type: ignore[arg-type]


def _spans(extent: int, size: int) -> list[tuple[int, int]]:
    """The windows [start, stop) by which torch pools `extent` elements to `size`."""
    return [(k * extent // size, -(-(k + 1) * extent // size)) for k in range(size)]


def _adaptive_avg(rank: int, x: Tensor, output_size: Any) -> Tensor:
    x, alone = batched(x, rank)
    sizes, shape = _sizes(rank, x, output_size), x.type.shape[2:]
    if sizes == (1,) * rank:
        return unbatched(x.mean(axis=tuple(range(2, 2 + rank)), keepdims=True), alone)
    if all([e % s == 0 for e, s in zip(shape, sizes)]):
        kernel = tuple([e // s for e, s in zip(shape, sizes)])
        return unbatched(apply(AvgPool, x, kernel=kernel, strides=kernel), alone)
    for k, size in enumerate(sizes):
        x = _averaged(x, 2 + k, size)
    return unbatched(x, alone)


def _averaged(x: Tensor, axis: int, size: int) -> Tensor:
    """x pooled along one axis: a product with the matrix of the windows' weights."""
    extent = x.type.shape[axis]
    assert isinstance(extent, int)
    if size == extent:
        return x
    weights = np.zeros((extent, size), x.type.dtype.np)
    for k, (start, stop) in enumerate(_spans(extent, size)):
        weights[start:stop, k] = 1 / (stop - start)
    letters = "abcde"[: len(x.type.shape)]
    result = letters.replace(letters[axis], "z")
    made: Tensor = apply(Contract, x, weights, equation=f"{letters},{letters[axis]}z->{result}")
    return made


def _adaptive_max(rank: int, x: Tensor, output_size: Any, return_indices: bool) -> Any:
    x, alone = batched(x, rank)
    sizes, shape = _sizes(rank, x, output_size), x.type.shape[2:]
    if not all([isinstance(e, int) for e in shape]) and not return_indices:
        return unbatched(x.max(axis=tuple(range(2, 2 + rank)), keepdims=True), alone)
    if all([e % s == 0 for e, s in zip(shape, sizes)]):
        whole: Any = tuple([e // s for e, s in zip(shape, sizes)])
        found = _max_pool(rank, x, whole, whole, 0, 1, False, return_indices)
        if not return_indices:
            return unbatched(found, alone)
        return unbatched(found[0], alone), unbatched(found[1], alone)
    if return_indices:
        raise Error("E0642", "indices are known where the windows divide the extents only",
                    details=(f"found {x.type} to {sizes}",))  # fmt: skip
    kernel: list[int] = []
    for k, size in enumerate(sizes):
        x, width = _windowed(x, 2 + k, size)
        kernel.append(width)
    return unbatched(apply(MaxPool, x, kernel=tuple(kernel), strides=tuple(kernel)), alone)


def _windowed(x: Tensor, axis: int, size: int) -> tuple[Tensor, int]:
    """x with its windows along `axis` laid out one after the other, and their width; a narrower
    window repeats its last element."""
    extent = x.type.shape[axis]
    assert isinstance(extent, int)
    spans = _spans(extent, size)
    width = max([stop - start for start, stop in spans], default=1)
    index = [min(start + tap, stop - 1) for start, stop in spans for tap in range(width)]
    return apply(Take, x, np.asarray(index), axis=axis), width


def adaptive_avg_pool1d(x: Tensor, output_size: Any) -> Tensor:
    """x [N, C, L] averaged to [N, C, output_size]."""
    return _adaptive_avg(1, x, output_size)


def adaptive_avg_pool2d(x: Tensor, output_size: Any) -> Tensor:
    """x [N, C, H, W] averaged to [N, C, *output_size]; None keeps an extent."""
    return _adaptive_avg(2, x, output_size)


def adaptive_avg_pool3d(x: Tensor, output_size: Any) -> Tensor:
    """x [N, C, D, H, W] averaged to [N, C, *output_size]; None keeps an extent."""
    return _adaptive_avg(3, x, output_size)


def adaptive_max_pool1d(x: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The greatest elements of x [N, C, L] by windows that make [N, C, output_size]."""
    return _adaptive_max(1, x, output_size, return_indices)


def adaptive_max_pool2d(x: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The greatest elements of x [N, C, H, W] by windows that make [N, C, *output_size]."""
    return _adaptive_max(2, x, output_size, return_indices)


def adaptive_max_pool3d(x: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The greatest elements of x [N, C, D, H, W] by windows that make [N, C, *output_size]."""
    return _adaptive_max(3, x, output_size, return_indices)


__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "lp_pool1d", "lp_pool2d", "lp_pool3d", "max_pool1d", "max_pool2d", "max_pool3d",
]  # fmt: skip
