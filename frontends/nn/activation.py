"""Activations, as functions and as layers with torch's arguments.  May import: ir, its siblings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ...ir.core import Op
from ...ir.errors import Error
from ...ir.ops import activations as ops
from ...ir.ops.elementwise_math import Sigmoid as SigmoidOp
from .dispatch import apply
from .functions import clip, floating, tanh, where
from .init import constant
from .layers import Layer
from .random import uniform
from .reductions import log_softmax, softmax
from .shaping import reshape, split
from .tensor import Parameter, Tensor

# ------------------------------------------------------------ functions


def _of(op: type[Op], x: Any, **attrs: Any) -> Tensor:
    """An op on floats."""
    made: Tensor = apply(op, floating(x), **attrs)
    return made


def relu(x: Any) -> Tensor:
    """max(x, 0)."""
    return _of(ops.Relu, x)


def relu6(x: Any) -> Tensor:
    """x held between 0 and 6."""
    return hardtanh(x, 0.0, 6.0)


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Tensor:
    """x where it is positive, else negative_slope * x."""
    return _of(ops.LeakyRelu, x, alpha=float(negative_slope))


def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """x where it is positive, else alpha * (exp(x) - 1)."""
    return _of(ops.Elu, x, alpha=float(alpha))


def selu(x: Any) -> Tensor:
    """The scaled elu that keeps mean 0 and variance 1 (Klambauer 2017)."""
    return _of(ops.Selu, x)


def celu(x: Any, alpha: float = 1.0) -> Tensor:
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))."""
    return _of(ops.Celu, x, alpha=float(alpha))


def gelu(x: Any, approximate: str = "none") -> Tensor:
    """x times the normal distribution function; `approximate` is "none" or "tanh"."""
    if approximate not in ("none", "tanh"):
        raise Error("E0641", f"gelu: no approximation '{approximate}'", hint="none or tanh")
    return _of(ops.Gelu, x, form="erf" if approximate == "none" else "tanh")


def silu(x: Any) -> Tensor:
    """x * sigmoid(x)."""
    return _of(ops.Silu, x)


def mish(x: Any) -> Tensor:
    """x * tanh(softplus(x))."""
    return _of(ops.Mish, x)


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta.  It needs no `threshold`: large x overflow nowhere."""
    if beta == 1:
        return _of(ops.Softplus, x)
    return _of(ops.Softplus, floating(x) * beta) / beta


def softsign(x: Any) -> Tensor:
    """x / (1 + abs(x))."""
    return _of(ops.Softsign, x)


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + exp(-x))."""
    return _of(SigmoidOp, x)


def logsigmoid(x: Any) -> Tensor:
    """log(sigmoid(x)), without overflow."""
    return -_of(ops.Softplus, -floating(x))


def tanhshrink(x: Any) -> Tensor:
    """x - tanh(x)."""
    return floating(x) - tanh(x)


def hardswish(x: Any) -> Tensor:
    """x * hardsigmoid(x) (Howard 2019)."""
    return _of(ops.HardSwish, x)


def hardsigmoid(x: Any) -> Tensor:
    """x / 6 + 1/2, held between 0 and 1."""
    return _of(ops.HardSigmoid, x, alpha=1 / 6, beta=0.5)


def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """x held between min_val and max_val."""
    return clip(floating(x), min_val, max_val)


def hardshrink(x: Any, lambd: float = 0.5) -> Tensor:
    """x where abs(x) > lambd, else 0."""
    return _of(ops.Shrink, x, bias=0.0, lambd=float(lambd))


def softshrink(x: Any, lambd: float = 0.5) -> Tensor:
    """x moved by lambd towards 0, and 0 where it would pass it."""
    return _of(ops.Shrink, x, bias=float(lambd), lambd=float(lambd))


def threshold(x: Any, threshold: float, value: float) -> Tensor:
    """x where it is above the threshold, else value."""
    if value == 0:
        return _of(ops.ThresholdedRelu, x, alpha=float(threshold))
    return where(x > threshold, x, value)


def prelu(x: Any, weight: Tensor) -> Tensor:
    """x where it is positive, else weight * x; weight is [1] or one number per channel (axis 1)."""
    x = floating(x)
    if weight.size != 1 and x.ndim > 2:
        weight = reshape(weight, (weight.type.shape[0], *[1] * (x.ndim - 2)))
    made: Tensor = apply(ops.PRelu, x, weight)
    return made


def softmin(x: Any, dim: int = -1) -> Tensor:
    """softmax(-x)."""
    return softmax(-x, dim)


def glu(x: Any, dim: int = -1) -> Tensor:
    """a * sigmoid(b), of the two halves of x along `dim` (Dauphin 2016)."""
    a, b = split(x, 2, dim)
    return a * sigmoid(b)


def rrelu(x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False) -> Tensor:
    """leaky_relu of a slope drawn for each element while training, else of the middle one."""
    if not training:
        return leaky_relu(x, (lower + upper) / 2)
    x = floating(x)
    slope = uniform(x.type.shape, low=lower, high=upper, dtype=x.type.dtype)
    made: Tensor = apply(ops.PRelu, x, slope)
    return made


# ------------------------------------------------------------ layers


class Activation(Layer):
    """Base of the layers that are a function with settings; `inplace` has no effect."""

    function: ClassVar[Callable[..., Tensor]]
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        kwargs.pop("inplace", None)
        names = [*self.settings, "inplace"]
        given = dict(zip(names, args)) | kwargs
        given.pop("inplace", None)
        unknown = [name for name in given if name not in self.settings]
        if unknown or len(args) > len(names):
            raise Error("E0641", f"{type(self).__name__} takes no '{(unknown or ['more'])[0]}'",
                        hint=f"it takes {', '.join(self.settings) or 'nothing'}")  # fmt: skip
        for name, default in self.settings.items():
            setattr(self, name, given.get(name, default))

    def describe(self) -> str:
        shown = [
            f"{n}={getattr(self, n)}" for n, v in self.settings.items() if getattr(self, n) != v
        ]
        return " ".join([type(self).__name__, *shown])

    def forward(self, x: Tensor) -> Tensor:
        return type(self).function(x, *[getattr(self, name) for name in self.settings])


class ReLU(Activation):
    """`relu` as a layer."""

    function = staticmethod(relu)


class ReLU6(Activation):
    """`relu6` as a layer."""

    function = staticmethod(relu6)


class LeakyReLU(Activation):
    """`leaky_relu` as a layer."""

    function = staticmethod(leaky_relu)
    settings: ClassVar[dict[str, Any]] = {"negative_slope": 0.01}


class ELU(Activation):
    """`elu` as a layer."""

    function = staticmethod(elu)
    settings: ClassVar[dict[str, Any]] = {"alpha": 1.0}


class SELU(Activation):
    """`selu` as a layer."""

    function = staticmethod(selu)


class CELU(Activation):
    """`celu` as a layer."""

    function = staticmethod(celu)
    settings: ClassVar[dict[str, Any]] = {"alpha": 1.0}


class GELU(Activation):
    """`gelu` as a layer."""

    function = staticmethod(gelu)
    settings: ClassVar[dict[str, Any]] = {"approximate": "none"}


class SiLU(Activation):
    """`silu` as a layer."""

    function = staticmethod(silu)


class Mish(Activation):
    """`mish` as a layer."""

    function = staticmethod(mish)


class Softplus(Activation):
    """`softplus` as a layer."""

    function = staticmethod(softplus)
    settings: ClassVar[dict[str, Any]] = {"beta": 1.0, "threshold": 20.0}


class Softsign(Activation):
    """`softsign` as a layer."""

    function = staticmethod(softsign)


class Sigmoid(Activation):
    """`sigmoid` as a layer."""

    function = staticmethod(sigmoid)


class LogSigmoid(Activation):
    """`logsigmoid` as a layer."""

    function = staticmethod(logsigmoid)


class Tanh(Activation):
    """`tanh` as a layer."""

    function = staticmethod(tanh)


class Tanhshrink(Activation):
    """`tanhshrink` as a layer."""

    function = staticmethod(tanhshrink)


class Hardswish(Activation):
    """`hardswish` as a layer."""

    function = staticmethod(hardswish)


class Hardsigmoid(Activation):
    """`hardsigmoid` as a layer."""

    function = staticmethod(hardsigmoid)


class Hardtanh(Activation):
    """`hardtanh` as a layer."""

    function = staticmethod(hardtanh)
    settings: ClassVar[dict[str, Any]] = {"min_val": -1.0, "max_val": 1.0}


class Hardshrink(Activation):
    """`hardshrink` as a layer."""

    function = staticmethod(hardshrink)
    settings: ClassVar[dict[str, Any]] = {"lambd": 0.5}


class Softshrink(Activation):
    """`softshrink` as a layer."""

    function = staticmethod(softshrink)
    settings: ClassVar[dict[str, Any]] = {"lambd": 0.5}


class Threshold(Activation):
    """`threshold` as a layer."""

    function = staticmethod(threshold)
    settings: ClassVar[dict[str, Any]] = {"threshold": 0.0, "value": 0.0}


class Softmax(Activation):
    """`softmax` as a layer."""

    function = staticmethod(softmax)
    settings: ClassVar[dict[str, Any]] = {"dim": -1}


class LogSoftmax(Activation):
    """`log_softmax` as a layer."""

    function = staticmethod(log_softmax)
    settings: ClassVar[dict[str, Any]] = {"dim": -1}


class Softmin(Activation):
    """`softmin` as a layer."""

    function = staticmethod(softmin)
    settings: ClassVar[dict[str, Any]] = {"dim": -1}


class GLU(Activation):
    """`glu` as a layer."""

    function = staticmethod(glu)
    settings: ClassVar[dict[str, Any]] = {"dim": -1}


class Softmax2d(Layer):
    """softmax over the channels of [N, C, H, W] (or [C, H, W])."""

    def forward(self, x: Tensor) -> Tensor:
        return softmax(x, -3)


class RReLU(Activation):
    """`rrelu` as a layer: random while it trains."""

    settings: ClassVar[dict[str, Any]] = {"lower": 1 / 8, "upper": 1 / 3}

    def forward(self, x: Tensor) -> Tensor:
        return rrelu(x, self.lower, self.upper, self.training)


class PReLU(Layer):
    """`prelu` with slopes that are learnt: `weight` [num_parameters]."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, dtype: Any = "f32") -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = Parameter(constant((num_parameters,), init, dtype))

    def describe(self) -> str:
        return f"PReLU {self.num_parameters}"

    def forward(self, x: Tensor) -> Tensor:
        if self.num_parameters > 1:
            self.expect_axis(x, 1 if x.ndim > 1 else 0, self.num_parameters, "channels")
        return prelu(x, self.weight)


__all__ = [
    "CELU", "ELU", "GELU", "GLU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh",
    "LeakyReLU", "LogSigmoid", "LogSoftmax", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU",
    "SiLU", "Sigmoid", "Softmax", "Softmax2d", "Softmin", "Softplus", "Softshrink", "Softsign",
    "Tanh", "Tanhshrink", "Threshold", "celu", "elu", "gelu", "glu", "hardshrink", "hardsigmoid",
    "hardswish", "hardtanh", "leaky_relu", "logsigmoid", "mish", "prelu", "relu", "relu6",
    "rrelu", "selu", "sigmoid", "silu", "softmin", "softplus", "softshrink", "softsign",
    "tanhshrink", "threshold",
]  # fmt: skip
