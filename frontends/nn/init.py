"""Initial values of parameters: the distributions of torch.nn.init, drawn from nn's own generator.

Each distribution has two forms: `kaiming_uniform(shape, ...)` gives an array, and
`kaiming_uniform_(parameter, ...)` fills a parameter and gives it back.  After the same
`nn.manual_seed` the same bits come out on every machine.  May import: ir, its siblings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...ir.errors import Error
from ...ir.ops.random import RandomNormal, RandomUniform
from ...ir.types import f32, f64
from .dispatch import here
from .dtypes import as_dtype
from .random import host_draw
from .tensor import Tensor

Array = np.ndarray[Any, Any]
Shape = Sequence[int]

_GAINS = {
    "linear": 1.0,
    "identity": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3,
    "relu": math.sqrt(2.0),
    "selu": 0.75,
    **{f"conv{n}d": 1.0 for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": 1.0 for n in (1, 2, 3)},
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a nonlinearity; `param` is leaky_relu's slope."""
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope * slope))
    if nonlinearity not in _GAINS:
        raise Error("E0641", f"no gain is known for '{nonlinearity}'",
                    hint=", ".join([*_GAINS, "leaky_relu"]))  # fmt: skip
    return _GAINS[nonlinearity]


def fans(shape: Shape) -> tuple[int, int]:
    """(fan in, fan out) of a weight [out, in, *kernel]; E0641 where it is no matrix at least."""
    if len(shape) < 2:
        raise Error("E0641", "fans are known for weights of at least two axes",
                    details=(f"found shape {list(shape)}",))  # fmt: skip
    _require_extents(shape)
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def _require_extents(shape: Shape) -> None:
    """E0641 for sizes of layers that are no numbers from 0."""
    if not all([isinstance(n, (int, np.integer)) and n >= 0 for n in shape]):
        raise Error(
            "E0641", "a size of a layer is no whole number from 0", where=here(),
            details=(f"a parameter would have shape {list(shape)}",),
        )  # fmt: skip


def _fan(shape: Shape, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise Error("E0641", f"no mode '{mode}'", hint="fan_in or fan_out")
    return fans(shape)[mode == "fan_out"]


# ------------------------------------------------------------ distributions


def uniform(shape: Shape, a: float = 0.0, b: float = 1.0, dtype: Any = f32) -> Array:
    """Uniform on [a, b)."""
    return _draw(RandomUniform, shape, dtype, low=float(a), high=float(b))


def normal(shape: Shape, mean: float = 0.0, std: float = 1.0, dtype: Any = f32) -> Array:
    """Normal with this mean and standard deviation."""
    return _draw(RandomNormal, shape, dtype, mean=float(mean), deviation=float(std))


def _draw(op: Any, shape: Shape, dtype: Any, **attrs: Any) -> Array:
    _require_extents(shape)
    made = as_dtype(dtype)
    wide = made if made in (f32, f64) else f32
    drawn = host_draw(op, tuple(shape), wide, **attrs)
    return drawn.astype(made.np, copy=False)


def constant(shape: Shape, val: float, dtype: Any = f32) -> Array:
    """`val` everywhere."""
    return np.full(tuple(shape), val, as_dtype(dtype).np)


def zeros(shape: Shape, dtype: Any = f32) -> Array:
    """0 everywhere."""
    return constant(shape, 0.0, dtype)


def ones(shape: Shape, dtype: Any = f32) -> Array:
    """1 everywhere."""
    return constant(shape, 1.0, dtype)


def eye(shape: Shape, dtype: Any = f32) -> Array:
    """The identity matrix; E0641 where the shape is no matrix."""
    _matrix(shape, "eye")
    return np.eye(shape[0], shape[1], dtype=as_dtype(dtype).np)


def dirac(shape: Shape, groups: int = 1, dtype: Any = f32) -> Array:
    """A convolution's weight [out, in, *kernel] that passes its channels through."""
    if len(shape) not in (3, 4, 5) or shape[0] % groups:
        raise Error("E0641", "dirac takes a convolution's weight, channels a multiple of groups",
                    details=(f"found shape {list(shape)}, groups {groups}",))  # fmt: skip
    out = np.zeros(tuple(shape), as_dtype(dtype).np)
    centre = tuple([k // 2 for k in shape[2:]])
    each = shape[0] // groups
    for g in range(groups):
        for d in range(min(each, shape[1])):
            out[(g * each + d, d, *centre)] = 1
    return out


def xavier_uniform(shape: Shape, gain: float = 1.0, dtype: Any = f32) -> Array:
    """Uniform within gain * sqrt(6 / (fan in + fan out)) (Glorot 2010)."""
    bound = gain * math.sqrt(6.0 / sum(fans(shape)))
    return uniform(shape, -bound, bound, dtype)


def xavier_normal(shape: Shape, gain: float = 1.0, dtype: Any = f32) -> Array:
    """Normal of deviation gain * sqrt(2 / (fan in + fan out)) (Glorot 2010)."""
    return normal(shape, 0.0, gain * math.sqrt(2.0 / sum(fans(shape))), dtype)


def kaiming_uniform(
    shape: Shape,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    dtype: Any = f32,
) -> Array:
    """Uniform within gain * sqrt(3 / fan) (He 2015); `a` is the slope of a leaky relu."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / max(1, _fan(shape, mode)))
    return uniform(shape, -bound, bound, dtype)


def kaiming_normal(
    shape: Shape,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    dtype: Any = f32,
) -> Array:
    """Normal of deviation gain / sqrt(fan) (He 2015); `a` is the slope of a leaky relu."""
    deviation = calculate_gain(nonlinearity, a) / math.sqrt(max(1, _fan(shape, mode)))
    return normal(shape, 0.0, deviation, dtype)


def orthogonal(shape: Shape, gain: float = 1.0, dtype: Any = f32) -> Array:
    """Rows (or columns, where they are fewer) orthonormal, times gain (Saxe 2013)."""
    if len(shape) < 2:
        raise Error("E0641", "orthogonal takes at least two axes",
                    details=(f"found shape {list(shape)}",))  # fmt: skip
    rows, cols = shape[0], math.prod(shape[1:])
    drawn = normal((rows, cols), dtype=f64)
    q, r = np.linalg.qr(drawn.T if rows < cols else drawn)
    q = q * np.sign(np.diag(r))
    q = q.T if rows < cols else q
    return np.ascontiguousarray(gain * q.reshape(tuple(shape))).astype(as_dtype(dtype).np)


def trunc_normal(
    shape: Shape,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    dtype: Any = f32,
) -> Array:
    """Normal, drawn again wherever it falls outside [a, b]; E0641 where almost all does."""
    if not _mass(a, b, mean, std) > 1e-3:
        raise Error("E0641", "almost nothing of the normal distribution lies within the bounds",
                    details=(f"mean {mean}, std {std}, bounds {a} and {b}",))  # fmt: skip
    out = normal(shape, mean, std, f64).reshape(-1)
    outside = np.flatnonzero((out < a) | (out > b))
    while outside.size:
        again = normal((int(outside.size),), mean, std, f64)
        out[outside] = again
        outside = outside[(again < a) | (again > b)]
    return out.reshape(tuple(shape)).astype(as_dtype(dtype).np)


def _mass(a: float, b: float, mean: float, std: float) -> float:
    """The probability that a normal number lies between a and b."""
    if not std > 0:
        return 0.0
    low, high = [math.erf((v - mean) / (std * math.sqrt(2.0))) for v in (a, b)]
    return (high - low) / 2


def sparse(shape: Shape, sparsity: float, std: float = 0.01, dtype: Any = f32) -> Array:
    """Normal numbers, a share `sparsity` of each column being 0 (Martens 2010); a matrix."""
    _matrix(shape, "sparse")
    out = normal(shape, 0.0, std, dtype)
    order = np.argsort(uniform(shape, dtype=f64), axis=0)
    zeros = math.ceil(sparsity * shape[0])
    np.put_along_axis(out, order[:zeros], 0, axis=0)
    return out


def _matrix(shape: Shape, what: str) -> None:
    if len(shape) != 2:
        raise Error("E0641", f"{what} takes a matrix", details=(f"found shape {list(shape)}",))


# ------------------------------------------------------------ the same, in place


def _filled(draw: Callable[..., Array]) -> Callable[..., Tensor]:
    """The form of a distribution that fills a parameter."""

    def fill(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        tensor.assign(draw(tensor.shape, *args, **kwargs, dtype=tensor.dtype))
        return tensor

    fill.__name__ = f"{draw.__name__}_"
    fill.__doc__ = f"Fills `tensor` by `{draw.__name__}` of its shape and type, and gives it back."
    return fill


uniform_ = _filled(uniform)
normal_ = _filled(normal)
constant_ = _filled(constant)
zeros_ = _filled(zeros)
ones_ = _filled(ones)
eye_ = _filled(eye)
dirac_ = _filled(dirac)
xavier_uniform_ = _filled(xavier_uniform)
xavier_normal_ = _filled(xavier_normal)
kaiming_uniform_ = _filled(kaiming_uniform)
kaiming_normal_ = _filled(kaiming_normal)
orthogonal_ = _filled(orthogonal)
trunc_normal_ = _filled(trunc_normal)
sparse_ = _filled(sparse)
