"""Products with a weight, and layers that only change shapes.  May import: ir, its siblings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...ir.ops.contract import Contract, Matmul
from ...ir.ops.shape import Transpose
from .dispatch import apply, as_tensor
from .init import kaiming_uniform, uniform
from .layers import Layer
from .shaping import axis_in, flatten, reshape
from .tensor import Parameter, Tensor

# ------------------------------------------------------------ functions


def linear(x: Any, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: x [..., in], weight [out, in] (or [in]), bias [out]."""
    x = as_tensor(x)
    shape, count = x.type.shape, len(weight.type.shape)
    if count == 1:
        wide = linear(x, reshape(weight, (1, weight.type.shape[0])), bias)
        return reshape(wide, shape[:-1])
    rows = x if len(shape) == 2 else reshape(x, (math.prod(shape[:-1]), shape[-1]))
    out: Tensor = apply(Matmul, rows, apply(Transpose, weight, perm=(1, 0)))
    if bias is not None:
        out = out + bias
    return out if len(shape) == 2 else reshape(out, (*shape[:-1], weight.type.shape[0]))


def bilinear(x1: Any, x2: Any, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x1^T W x2 per output: x1 [..., in1], x2 [..., in2], weight [out, in1, in2], bias [out]."""
    x1, x2 = as_tensor(x1), as_tensor(x2)
    out, in1, in2 = weight.type.shape
    lead = x1.type.shape[:-1]
    rows = math.prod(lead)
    half = apply(Contract, reshape(x1, (rows, in1)), weight, equation="ni,oij->noj")
    found: Tensor = (half * reshape(x2, (rows, 1, in2))).sum(axis=2)
    if bias is not None:
        found = found + bias
    return reshape(found, (*lead, out))


def unflatten(x: Any, dim: int, sizes: Sequence[int]) -> Tensor:
    """x with axis `dim` made several; one size may be -1."""
    x = as_tensor(x)
    axis, shape = axis_in(dim, x.ndim, "unflatten"), x.type.shape
    known = math.prod([s for s in sizes if s != -1])
    full = [shape[axis] // known if s == -1 else s for s in sizes]
    return reshape(x, (*shape[:axis], *full, *shape[axis + 1 :]))


# ------------------------------------------------------------ layers


class Linear(Layer):
    """x @ weight.T + bias: weight [out_features, in_features], bias [out_features]."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, dtype: Any = "f32"
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        shape = (out_features, in_features)
        self.weight = Parameter(kaiming_uniform(shape, a=math.sqrt(5), dtype=dtype))
        bound = 1 / math.sqrt(in_features) if in_features else 0.0
        self.bias = Parameter(uniform((out_features,), -bound, bound, dtype)) if bias else None

    def describe(self) -> str:
        return f"Linear {self.in_features}->{self.out_features}"

    def forward(self, x: Tensor) -> Tensor:
        self.expect_axis(x, -1, self.in_features, "features")
        self.expect_type(x, self.weight)
        return linear(x, self.weight, self.bias)


class Bilinear(Layer):
    """x1^T W x2 + bias: weight [out_features, in1_features, in2_features]."""

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True,
        dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__()
        self.in1_features, self.in2_features = in1_features, in2_features
        self.out_features = out_features
        bound = 1 / math.sqrt(in1_features)
        shape = (out_features, in1_features, in2_features)
        self.weight = Parameter(uniform(shape, -bound, bound, dtype))
        self.bias = Parameter(uniform((out_features,), -bound, bound, dtype)) if bias else None

    def describe(self) -> str:
        return f"Bilinear {self.in1_features},{self.in2_features}->{self.out_features}"

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        self.expect_axis(x1, -1, self.in1_features, "features in the first input")
        self.expect_axis(x2, -1, self.in2_features, "features in the second input")
        self.expect_type(x1, self.weight)
        self.expect_type(x2, self.weight)
        if len(x1.type.shape) != len(x2.type.shape):
            raise self.wrong("the inputs differ in rank", str(x1.type), x2.type)
        return bilinear(x1, x2, self.weight, self.bias)


class Identity(Layer):
    """Gives its input back; takes and ignores any arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class Flatten(Layer):
    """`flatten` as a layer; it keeps the batch axis unless told otherwise."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        return flatten(x, self.start_dim, self.end_dim)


class Unflatten(Layer):
    """`unflatten` as a layer."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, x: Tensor) -> Tensor:
        extent = x.type.shape[axis_in(self.dim, x.ndim, "unflatten")]
        known = math.prod([s for s in self.unflattened_size if s != -1])
        exact = -1 not in self.unflattened_size
        if isinstance(extent, int) and (extent != known if exact else extent % max(1, known)):
            raise self.wrong("the sizes do not multiply to the extent", str(known), x.type)
        return unflatten(x, self.dim, self.unflattened_size)


__all__ = [
    "Bilinear", "Flatten", "Identity", "Linear", "Unflatten", "bilinear", "linear", "unflatten",
]  # fmt: skip
