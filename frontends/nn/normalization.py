"""Normalisation, as functions and as layers with torch's arguments, names and running statistics.

May import: ir, its siblings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ...ir.errors import Error
from ...ir.ops.batch_norm import BatchNormTrain
from ...ir.ops.dist import group
from ...ir.ops.normalize import LayerNorm as LayerNormOp
from ...ir.ops.norms import GroupNorm as GroupNormOp
from ...ir.ops.norms import RmsNorm as RmsNormOp
from ...ir.ops.pool import AvgPool
from .dispatch import apply, as_tensor
from .functions import rsqrt
from .init import ones, zeros
from .layers import Layer, padded
from .shaping import reshape
from .sync import normalise_together
from .tensor import Parameter, Tensor

# ------------------------------------------------------------ functions


def batch_norm(
    x: Any, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """x [N, C, *S] normalised per channel, by the batch's statistics while training (or where no
    running ones are given), else by the running ones.

    Eager, running statistics that are given are moved towards the batch's, as in torch; in a trace
    use the layer, which hands them on as state.
    """
    x = as_tensor(x)
    if not training and running_mean is not None and running_var is not None:
        return _normalised(x, running_mean, running_var, weight, bias, eps)
    out, mean, var = normalise_batch(x, weight, bias, eps)
    if training and running_mean is not None and running_var is not None:
        new_mean, new_var = moved(x, running_mean, running_var, mean, var, momentum)
        running_mean.assign(new_mean)
        running_var.assign(new_var)
    return out


def normalise_batch(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(x normalised by its own statistics, their mean, their biased variance)."""
    found: tuple[Tensor, Tensor, Tensor] = apply(BatchNormTrain, x, weight, bias,
                                                 epsilon=float(eps))  # fmt: skip
    return found


def moved(
    x: Tensor, running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor,
    momentum: float, count: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The running statistics behind a batch, of `count` values per channel (None: those of x);
    torch's variance there is the unbiased one.
    """
    n = as_tensor(x.size // x.type.shape[1] if count is None else count).astype(var.dtype)
    mean, unbiased = mean.detach(), var.detach() * (n / (n - 1.0))
    mean, unbiased = mean.astype(running_mean.dtype), unbiased.astype(running_var.dtype)
    return (
        running_mean + (mean - running_mean) * momentum,
        running_var + (unbiased - running_var) * momentum,
    )


def _normalised(
    x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """x times a factor, plus a shift, per channel."""
    factor = rsqrt(var + eps)
    if weight is not None:
        factor = factor * weight
    shift = -mean * factor if bias is None else bias - mean * factor
    along = (x.type.shape[1], *[1] * (x.ndim - 2))
    return x * reshape(factor, along) + reshape(shift, along)


def layer_norm(
    x: Any, normalized_shape: int | Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """x normalised over its last axes, those of `normalized_shape` (Ba 2016)."""
    made: Tensor = apply(LayerNormOp, x, weight, bias, axis=-len(_axes(normalized_shape)),
                         epsilon=float(eps))  # fmt: skip
    return made


def rms_norm(
    x: Any, normalized_shape: int | Sequence[int], weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:  # fmt: skip
    """x over its root mean square along its last axes; eps None is the type's own (Zhang 2019)."""
    x = as_tensor(x)
    if eps is None:
        eps = float(np.finfo(np.float64 if x.dtype.bits == 64 else np.float32).eps)
    made: Tensor = apply(RmsNormOp, x, weight, axis=-len(_axes(normalized_shape)),
                         epsilon=float(eps))  # fmt: skip
    return made


def group_norm(
    x: Any, num_groups: Any, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """x [N, C, *S] normalised over groups of channels (Wu 2018)."""
    made: Tensor = apply(GroupNormOp, x, weight, bias, groups=num_groups, epsilon=float(eps))
    return made


def instance_norm(
    x: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """x [N, C, *S] normalised per channel and example (Ulyanov 2016)."""
    x = as_tensor(x)
    return group_norm(x, x.type.shape[1], weight, bias, eps)


def local_response_norm(
    x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x [N, C, *S] / (k + alpha * mean of squares over `size` neighbouring channels)**beta
    (Krizhevsky 2012)."""
    x = as_tensor(x)
    n, c = x.type.shape[:2]
    squares = padded(reshape(x * x, (n, 1, c, -1)), (size // 2, 0), ((size - 1) // 2, 0))
    mean = reshape(apply(AvgPool, squares, kernel=(size, 1)), x.type.shape)
    made: Tensor = x / (mean * alpha + k) ** beta
    return made


def _axes(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


# ------------------------------------------------------------ layers


class _Running(Layer):
    """What norms with running statistics share: weight, bias, running_mean, running_var."""

    ranks: ClassVar[tuple[int, ...]]
    running_mean: Any
    running_var: Any
    num_batches_tracked: Any

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool,
        track_running_stats: bool, dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        shape = (num_features,)
        self.weight = Parameter(ones(shape, dtype)) if affine else None
        self.bias = Parameter(zeros(shape, dtype)) if affine else None
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(shape, dtype) if tracked else None)
        self.register_buffer("running_var", ones(shape, dtype) if tracked else None)
        count = np.asarray(0, np.int64) if tracked else None
        self.register_buffer("num_batches_tracked", count)

    def describe(self) -> str:
        return f"{type(self).__name__} {self.num_features}"

    def expect_alike(self, x: Tensor) -> None:
        """E0640 unless x has the element type of what the norm holds."""
        for held in (self.weight, self.running_mean):
            if held is not None:
                self.expect_type(x, held)

    def track(
        self, x: Tensor, mean: Tensor, var: Tensor, rate: Any, count: Tensor | None = None
    ) -> None:
        """Move the running statistics towards those of a batch, of `count` values per channel."""
        stats = self.running_mean, self.running_var
        self.running_mean, self.running_var = moved(x, *stats, mean, var, rate, count)


class _BatchNorm(_Running):
    """Base of the batch norms (Ioffe 2015)."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, sync: bool = False,
        dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype)
        self.sync = sync

    def forward(self, x: Tensor) -> Tensor:
        self.expect_rank(x, self.ranks, " or ".join([f"{r} axes" for r in self.ranks]))
        self.expect_axis(x, 1, self.num_features, "channels")
        self.expect_alike(x)
        if not self.training and self.track_running_stats:
            return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                              eps=self.eps)  # fmt: skip
        if self.training and self.sync and group().world > 1:
            out, mean, var, count = normalise_together(x, self.weight, self.bias, self.eps)
            if self.track_running_stats:
                self.track(x, mean, var, self.rate(), count)
            return out
        if self.training and x.size == self.num_features:
            raise self.wrong(
                "a batch norm cannot train on one value per channel",
                "more than one",
                x.type,
                hint="a larger batch, or net.eval()",
            )
        out, mean, var = normalise_batch(x, self.weight, self.bias, self.eps)
        if self.training and self.track_running_stats:
            self.track(x, mean, var, self.rate())
        return out

    def rate(self) -> Any:
        """What share the batch has in the running statistics; momentum None is their mean."""
        self.num_batches_tracked = self.num_batches_tracked + 1
        if self.momentum is not None:
            return self.momentum
        return 1.0 / self.num_batches_tracked.astype(self.running_mean.dtype)


class BatchNorm1d(_BatchNorm):
    """Batch norm of [N, C] or [N, C, L]; `sync` shares statistics among data-parallel ranks."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch norm of [N, C, H, W]; `sync` shares statistics among data-parallel ranks."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch norm of [N, C, D, H, W]; `sync` shares statistics among data-parallel ranks."""

    ranks = (5,)


class _InstanceNorm(_Running):
    """Base of the instance norms (Ulyanov 2016); [C, *S] is taken as one example."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = False, track_running_stats: bool = False, dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype)

    def forward(self, x: Tensor) -> Tensor:
        rank = self.ranks[0]
        self.expect_rank(x, (rank - 1, rank), f"{rank} axes, or {rank - 1} without a batch")
        if x.ndim == rank - 1:
            return self.forward(reshape(x, (1, *x.type.shape))).reshape(x.type.shape)
        self.expect_axis(x, 1, self.num_features, "channels")
        self.expect_alike(x)
        if self.track_running_stats and not self.training:
            return _normalised(x, self.running_mean, self.running_var, self.weight, self.bias,
                               self.eps)  # fmt: skip
        if self.training and x.size == x.type.shape[0] * self.num_features:
            raise self.wrong("an instance norm cannot train on one value per channel",
                             "more than one", x.type)  # fmt: skip
        if self.track_running_stats:
            self.track_instances(x)
        return instance_norm(x, self.weight, self.bias, self.eps)

    def track_instances(self, x: Tensor) -> None:
        """Move the running statistics towards the mean of the examples' own; as in torch, no batch
        is counted, and a momentum of None moves nothing."""
        axes = tuple(range(2, x.ndim))
        mean, var = x.mean(axes).mean(0), x.var(axes).mean(0)
        self.track(x[:1], mean, var, self.momentum or 0.0)


class InstanceNorm1d(_InstanceNorm):
    """Instance norm of [N, C, L]."""

    ranks = (3,)


class InstanceNorm2d(_InstanceNorm):
    """Instance norm of [N, C, H, W]."""

    ranks = (4,)


class InstanceNorm3d(_InstanceNorm):
    """Instance norm of [N, C, D, H, W]."""

    ranks = (5,)


class _LastAxes(Layer):
    """Base of the norms over the last axes."""

    normalized_shape: tuple[int, ...]

    def describe(self) -> str:
        return f"{type(self).__name__} {'x'.join([str(e) for e in self.normalized_shape])}"

    def check(self, x: Tensor) -> None:
        """E0640 unless the last axes of x are those of `normalized_shape`."""
        count = len(self.normalized_shape)
        for k, extent in enumerate(self.normalized_shape):
            self.expect_axis(x, k - count, extent, "features")
        if self.weight is not None:
            self.expect_type(x, self.weight)


class LayerNorm(_LastAxes):
    """`layer_norm` with weight and bias of `normalized_shape`."""

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5,
        elementwise_affine: bool = True, bias: bool = True, dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape, self.eps = _axes(normalized_shape), eps
        self.elementwise_affine = elementwise_affine
        shape = self.normalized_shape
        self.weight = Parameter(ones(shape, dtype)) if elementwise_affine else None
        self.bias = Parameter(zeros(shape, dtype)) if elementwise_affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(_LastAxes):
    """`rms_norm` with a weight of `normalized_shape`."""

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None = None,
        elementwise_affine: bool = True, dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape, self.eps = _axes(normalized_shape), eps
        self.weight = Parameter(ones(self.normalized_shape, dtype)) if elementwise_affine else None

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)


class GroupNorm(Layer):
    """`group_norm` with weight and bias per channel."""

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
        dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise Error("E0641", f"{num_channels} channels are not {num_groups} equal groups")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight = Parameter(ones((num_channels,), dtype)) if affine else None
        self.bias = Parameter(zeros((num_channels,), dtype)) if affine else None

    def describe(self) -> str:
        return f"GroupNorm {self.num_groups} of {self.num_channels}"

    def forward(self, x: Tensor) -> Tensor:
        self.expect_axis(x, 1, self.num_channels, "channels")
        if self.weight is not None:
            self.expect_type(x, self.weight)
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class LocalResponseNorm(Layer):
    """`local_response_norm` as a layer."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k)


__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d",
    "InstanceNorm3d", "LayerNorm", "LocalResponseNorm", "RMSNorm", "batch_norm", "group_norm",
    "instance_norm", "layer_norm", "local_response_norm", "rms_norm",
]  # fmt: skip
