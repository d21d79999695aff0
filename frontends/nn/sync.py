"""Batch statistics of all processes that train together: what `sync=True` asks of a batch norm.

Each process sends the mean and variance of its own rows, which are put together as of one batch,
without a difference of large sums (Chan, Golub and LeVeque 1979).  May import: ir, its siblings.
"""

from __future__ import annotations

import numpy as np

from ...ir.errors import Error
from ...ir.ops.dist import AllGather, group
from .dispatch import apply, as_tensor
from .functions import rsqrt
from .shaping import concatenate, reshape
from .tensor import Tensor


def normalise_together(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x [N, C, *S] normalised by the statistics of all processes' rows, their mean, their biased
    variance, how many values a channel has); statistics of narrow x are f32.
    """
    world, channels = group().world, x.type.shape[1]
    if not isinstance(channels, int):
        raise Error("E0640", "a synchronised batch norm needs a fixed number of channels")
    wide = x if x.dtype.bits >= 32 else x.astype("f32")
    axes = (0, *range(2, x.ndim))
    along = (channels, *[1] * (x.ndim - 2))
    mean, count = wide.mean(axes), as_tensor(x.size // channels).astype(wide.dtype)
    centred = wide - reshape(mean, along)
    variance = (centred * centred).mean(axes)
    mine = concatenate([mean, variance, reshape(count, (1,))])
    every: Tensor = apply(AllGather, reshape(mine, (1, 2 * channels + 1)), world=world)
    counts = every[:, 2 * channels :].detach()
    total = counts.sum()
    means, variances = every[:, :channels], every[:, channels : 2 * channels]
    mean = (means * (counts / total)).sum(0)
    apart = means - reshape(mean, (1, channels))
    variance = ((variances + apart * apart) * (counts / total)).sum(0)
    factor = rsqrt(variance + np.asarray(eps, wide.dtype.np))
    out = (wide - reshape(mean, along)) * reshape(factor, along)
    out = out if weight is None else out * reshape(weight, along)
    out = out if bias is None else out + reshape(bias, along)
    return out.astype(x.dtype), mean, variance, total


__all__ = ["normalise_together"]
