"""The pooling functions as layers.  May import: ir, its siblings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from . import pooling as f
from .layers import Layer
from .pooling import Size
from .tensor import Tensor


class _Pool(Layer):
    """Base: `rank` spatial axes, a function, and its settings in order."""

    rank: ClassVar[int]
    function: ClassVar[Callable[..., Any]]
    shown: ClassVar[str] = "kernel_size"

    def describe(self) -> str:
        return f"{type(self).__name__} {getattr(self, self.shown)}"

    def settings(self) -> tuple[Any, ...]:
        """The function's arguments behind x."""
        raise AttributeError(f"{type(self).__name__} has no settings")

    def forward(self, x: Tensor) -> Any:
        self.expect_rank(
            x, (self.rank + 1, self.rank + 2), f"{self.rank} axes behind [N, C] or [C]"
        )
        return type(self).function(x, *self.settings())


class _MaxPool(_Pool):
    """Base of the max pools."""

    def __init__(
        self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def settings(self) -> tuple[Any, ...]:
        return (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
                self.return_indices)  # fmt: skip


class MaxPool1d(_MaxPool):
    """`max_pool1d` as a layer."""

    rank, function = 1, staticmethod(f.max_pool1d)


class MaxPool2d(_MaxPool):
    """`max_pool2d` as a layer."""

    rank, function = 2, staticmethod(f.max_pool2d)


class MaxPool3d(_MaxPool):
    """`max_pool3d` as a layer."""

    rank, function = 3, staticmethod(f.max_pool3d)


class _AvgPool(_Pool):
    """Base of the average pools."""

    def __init__(
        self, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
        ceil_mode: bool = False, count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad
        self.divisor_override = divisor_override

    def settings(self) -> tuple[Any, ...]:
        return (self.kernel_size, self.stride, self.padding, self.ceil_mode,
                self.count_include_pad, self.divisor_override)  # fmt: skip


class AvgPool1d(_AvgPool):
    """`avg_pool1d` as a layer."""

    rank, function = 1, staticmethod(f.avg_pool1d)

    def __init__(
        self, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
        ceil_mode: bool = False, count_include_pad: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)

    def settings(self) -> tuple[Any, ...]:
        return super().settings()[:-1]


class AvgPool2d(_AvgPool):
    """`avg_pool2d` as a layer."""

    rank, function = 2, staticmethod(f.avg_pool2d)


class AvgPool3d(_AvgPool):
    """`avg_pool3d` as a layer."""

    rank, function = 3, staticmethod(f.avg_pool3d)


class _LPPool(_Pool):
    """Base of the p-norm pools."""

    def __init__(
        self, norm_type: float, kernel_size: Size, stride: Size | None = None,
        ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm_type, self.kernel_size = norm_type, kernel_size
        self.stride, self.ceil_mode = stride, ceil_mode

    def settings(self) -> tuple[Any, ...]:
        return self.norm_type, self.kernel_size, self.stride, self.ceil_mode


class LPPool1d(_LPPool):
    """`lp_pool1d` as a layer."""

    rank, function = 1, staticmethod(f.lp_pool1d)


class LPPool2d(_LPPool):
    """`lp_pool2d` as a layer."""

    rank, function = 2, staticmethod(f.lp_pool2d)


class LPPool3d(_LPPool):
    """`lp_pool3d` as a layer."""

    rank, function = 3, staticmethod(f.lp_pool3d)


class _Adaptive(_Pool):
    """Base of the pools that are given the size of their result."""

    shown = "output_size"

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def settings(self) -> tuple[Any, ...]:
        return (self.output_size,)


class AdaptiveAvgPool1d(_Adaptive):
    """`adaptive_avg_pool1d` as a layer."""

    rank, function = 1, staticmethod(f.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_Adaptive):
    """`adaptive_avg_pool2d` as a layer."""

    rank, function = 2, staticmethod(f.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_Adaptive):
    """`adaptive_avg_pool3d` as a layer."""

    rank, function = 3, staticmethod(f.adaptive_avg_pool3d)


class _AdaptiveMax(_Adaptive):
    """Base of the adaptive max pools."""

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def settings(self) -> tuple[Any, ...]:
        return self.output_size, self.return_indices


class AdaptiveMaxPool1d(_AdaptiveMax):
    """`adaptive_max_pool1d` as a layer."""

    rank, function = 1, staticmethod(f.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMax):
    """`adaptive_max_pool2d` as a layer."""

    rank, function = 2, staticmethod(f.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMax):
    """`adaptive_max_pool3d` as a layer."""

    rank, function = 3, staticmethod(f.adaptive_max_pool3d)


__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d", "LPPool1d",
    "LPPool2d", "LPPool3d", "MaxPool1d", "MaxPool2d", "MaxPool3d",
]  # fmt: skip
