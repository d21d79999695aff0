"""Convolutions and their transposes over one, two or three axes, with torch's arguments.

x is [N, C, *S] (or [C, *S]); weights are [out, in/groups, *K], of transposes [in, out/groups, *K].
May import: ir, its siblings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ...ir.dims import DimLike
from ...ir.errors import Error
from ...ir.ops.conv import Conv
from ...ir.ops.conv_transpose import ConvTranspose
from .dispatch import apply
from .init import kaiming_uniform, uniform
from .layers import Layer, padded, tupled
from .shaping import reshape
from .tensor import Parameter, Tensor

Size = int | Sequence[int]
PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}

# ------------------------------------------------------------ functions


def _conv(
    rank: int, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Size,
    padding: Size | str, dilation: Size, groups: int,
) -> Tensor:  # fmt: skip
    x, alone = batched(x, rank)
    strides, dilations = tupled(stride, rank, "stride"), tupled(dilation, rank, "dilation")
    low, high = pads_of(padding, weight.type.shape[2:], strides, dilations)
    out: Tensor = apply(Conv, x, weight, strides=strides, pads=(*low, *high), dilations=dilations,
                        groups=groups)  # fmt: skip
    return unbatched(with_bias(out, bias, rank), alone)


def pads_of(
    padding: Size | str, kernel: Sequence[DimLike], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(before, after) per axis; "same" puts an odd rest behind, as torch does."""
    rank = len(kernel)
    if padding == "valid":
        return (0,) * rank, (0,) * rank
    if padding == "same":
        if any([s != 1 for s in strides]):
            raise Error("E0641", "padding='same' needs stride 1",
                        details=(f"found stride {tuple(strides)}",))  # fmt: skip
        total = [d * (int(k) - 1) for d, k in zip(dilations, kernel)]  # type: ignore[arg-type]
        return tuple([t // 2 for t in total]), tuple([t - t // 2 for t in total])
    if isinstance(padding, str):
        raise Error("E0641", f"no padding '{padding}'", hint="same, valid, or numbers")
    both = tupled(padding, rank, "padding")
    return both, both


def batched(x: Tensor, rank: int) -> tuple[Tensor, bool]:
    """x [N, C, *S], and whether it came without N."""
    shape = x.type.shape
    if len(shape) == rank + 1:
        return reshape(x, (1, *shape)), True
    return x, False


def unbatched(x: Tensor, alone: bool) -> Tensor:
    """x without its first axis, where it came without."""
    return reshape(x, x.type.shape[1:]) if alone else x


def with_bias(x: Tensor, bias: Tensor | None, rank: int) -> Tensor:
    """x + bias [C], per channel."""
    if bias is None:
        return x
    return x + reshape(bias, (bias.type.shape[0], *[1] * rank))


def conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1,
    padding: Size | str = 0, dilation: Size = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of x [N, C, L] with weight [O, C/groups, K]."""
    return _conv(1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1,
    padding: Size | str = 0, dilation: Size = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of x [N, C, H, W] with weight [O, C/groups, KH, KW]."""
    return _conv(2, x, weight, bias, stride, padding, dilation, groups)


def conv3d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1,
    padding: Size | str = 0, dilation: Size = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of x [N, C, D, H, W] with weight [O, C/groups, KD, KH, KW]."""
    return _conv(3, x, weight, bias, stride, padding, dilation, groups)


def _conv_transpose(
    rank: int, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: Size,
    output_padding: Size, groups: int, dilation: Size,
) -> Tensor:  # fmt: skip
    x, alone = batched(x, rank)
    strides, dilations = tupled(stride, rank, "stride"), tupled(dilation, rank, "dilation")
    extra = tupled(output_padding, rank, "output_padding")
    if any([e >= max(s, d) for e, s, d in zip(extra, strides, dilations)]):
        raise Error(
            "E0641",
            "output_padding must be below the stride or the dilation",
            details=(f"found {extra}, stride {strides}, dilation {dilations}",),
        )
    both = tupled(padding, rank, "padding")
    out: Tensor = apply(ConvTranspose, x, weight, strides=strides, pads=(*both, *both),
                        dilations=dilations, extra=extra, groups=groups)  # fmt: skip
    return unbatched(with_bias(out, bias, rank), alone)


def conv_transpose1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1,
) -> Tensor:  # fmt: skip
    """The transpose of conv1d: x [N, C, L], weight [C, O/groups, K]."""
    return _conv_transpose(1, x, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1,
) -> Tensor:  # fmt: skip
    """The transpose of conv2d: x [N, C, H, W], weight [C, O/groups, KH, KW]."""
    return _conv_transpose(2, x, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1,
) -> Tensor:  # fmt: skip
    """The transpose of conv3d: x [N, C, D, H, W], weight [C, O/groups, KD, KH, KW]."""
    return _conv_transpose(3, x, weight, bias, stride, padding, output_padding, groups, dilation)


# ------------------------------------------------------------ layers


class _Windows(Layer):
    """What convolutions share: channels, geometry, weight and bias with torch's first values."""

    rank: ClassVar[int]
    function: ClassVar[Callable[..., Tensor]]
    transposed: ClassVar[bool] = False

    def set_up(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size, dilation: Size,
        groups: int, bias: bool, dtype: Any,
    ) -> None:  # fmt: skip
        """Check the arguments and make the parameters."""
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise Error(
                "E0641",
                f"{type(self).__name__}: channels must be a multiple of groups",
                details=(f"in {in_channels}, out {out_channels}, groups {groups}",),
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = tupled(kernel_size, self.rank, "kernel_size")
        self.stride = tupled(stride, self.rank, "stride")
        self.dilation = tupled(dilation, self.rank, "dilation")
        if min(*self.kernel_size, *self.stride, *self.dilation) < 1:
            raise Error("E0641", "kernel, stride and dilation are at least 1",
                        details=(self.describe(),))  # fmt: skip
        outer, inner = out_channels, in_channels // groups
        if self.transposed:
            outer, inner = in_channels, out_channels // groups
        shape = (outer, inner, *self.kernel_size)
        self.weight = Parameter(kaiming_uniform(shape, a=math.sqrt(5), dtype=dtype))
        fan_in = inner * math.prod(self.kernel_size)
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        self.bias = Parameter(uniform((out_channels,), -bound, bound, dtype)) if bias else None

    def describe(self) -> str:
        kernel = "x".join([str(k) for k in self.kernel_size])
        return f"{type(self).__name__} {self.in_channels}->{self.out_channels} {kernel}"

    def check(self, x: Tensor) -> None:
        """E0640 where x has the wrong rank or channels."""
        axes = "[C, " + ", ".join("DHW"[-self.rank :] if self.rank > 1 else "L") + "]"
        self.expect_rank(x, (self.rank + 1, self.rank + 2), f"[N, {axes[1:]} or {axes}")
        self.expect_axis(x, -self.rank - 1, self.in_channels, "channels")
        self.expect_type(x, self.weight)


class _Conv(_Windows):
    """Base of Conv1d, Conv2d and Conv3d."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
        padding: Size | str = 0, dilation: Size = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__()
        if padding_mode not in PAD_MODES:
            raise Error("E0641", f"no padding_mode '{padding_mode}'", hint=", ".join(PAD_MODES))
        self.set_up(in_channels, out_channels, kernel_size, stride, dilation, groups, bias, dtype)
        self.padding = (
            padding if isinstance(padding, str) else tupled(padding, self.rank, "padding")
        )
        self.padding_mode = padding_mode
        self.before, self.after = pads_of(padding, self.kernel_size, self.stride, self.dilation)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        padding: Size | str = self.padding
        if self.padding_mode != "zeros":
            self.check_pads(x)
            x, padding = padded(x, self.before, self.after, PAD_MODES[self.padding_mode]), 0
        self.check_reach(x, padding)
        return type(self).function(x, self.weight, self.bias, self.stride, padding, self.dilation,
                                   self.groups)  # fmt: skip

    def check_pads(self, x: Tensor) -> None:
        """E0640 where a pad repeats more than the image has (torch's rule)."""
        spare = 1 if self.padding_mode == "reflect" else 0
        if self.padding_mode == "replicate":
            return
        for extent, pad in zip(x.type.shape[-self.rank :], map(max, self.before, self.after)):
            if isinstance(extent, int) and pad > extent - spare:
                raise self.wrong(f"a {self.padding_mode} pad is wider than the image",
                                 f"at least {pad + spare} elements", x.type)  # fmt: skip

    def check_reach(self, x: Tensor, padding: Size | str) -> None:
        """E0640 where the kernel is larger than the padded image."""
        before, after = (self.before, self.after) if padding else ((0,) * self.rank,) * 2
        for k, extent in enumerate(x.type.shape[-self.rank :]):
            reach = self.dilation[k] * (self.kernel_size[k] - 1) + 1
            if isinstance(extent, int) and extent + before[k] + after[k] < reach:
                raise self.wrong(
                    "the kernel is larger than the padded image",
                    f"at least {reach - before[k] - after[k]} elements",
                    x.type,
                )


class Conv1d(_Conv):
    """Cross-correlation over one axis."""

    rank, function = 1, staticmethod(conv1d)


class Conv2d(_Conv):
    """Cross-correlation over two axes."""

    rank, function = 2, staticmethod(conv2d)


class Conv3d(_Conv):
    """Cross-correlation over three axes."""

    rank, function = 3, staticmethod(conv3d)


class _ConvTranspose(_Windows):
    """Base of the transposed convolutions."""

    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1,
        padding: Size = 0, output_padding: Size = 0, groups: int = 1, bias: bool = True,
        dilation: Size = 1, padding_mode: str = "zeros", dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__()
        if padding_mode != "zeros":
            raise Error("E0641", f"{type(self).__name__} pads with zeros only",
                        details=(f"found padding_mode '{padding_mode}'",))  # fmt: skip
        self.set_up(in_channels, out_channels, kernel_size, stride, dilation, groups, bias, dtype)
        self.padding = tupled(padding, self.rank, "padding")
        self.output_padding = tupled(output_padding, self.rank, "output_padding")

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        self.check(x)
        extra = self.output_padding
        if output_size is not None:
            extra = self.extra_for(x, tuple(output_size)[-self.rank :])
        return type(self).function(x, self.weight, self.bias, self.stride, self.padding, extra,
                                   self.groups, self.dilation)  # fmt: skip

    def extra_for(self, x: Tensor, size: tuple[int, ...]) -> tuple[int, ...]:
        """The output padding that gives this size; E0640 where none does."""
        extra = []
        for k, extent in enumerate(x.type.shape[-self.rank :]):
            reach = self.dilation[k] * (self.kernel_size[k] - 1) + 1
            least = (extent - 1) * self.stride[k] - 2 * self.padding[k] + reach
            more = size[k] - least
            if not isinstance(more, int) or not 0 <= more < max(self.stride[k], self.dilation[k]):
                raise self.wrong(
                    "this output size is out of reach",
                    f"{least} and up to {self.stride[k] - 1} more",
                    size[k],
                )
            extra.append(more)
        return tuple(extra)


class ConvTranspose1d(_ConvTranspose):
    """The transpose of Conv1d."""

    rank, function = 1, staticmethod(conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """The transpose of Conv2d."""

    rank, function = 2, staticmethod(conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """The transpose of Conv3d."""

    rank, function = 3, staticmethod(conv_transpose3d)


__all__ = [
    "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d",
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
]  # fmt: skip
