"""Functions over axes: sums, means, extremes, running sums, norms, softmax.

`axis` is None (all), an axis or several; `keepdims` leaves them with extent 1.
May import: ir, its siblings.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ...ir.ops import reduce as reductions
from ...ir.ops.argreduce import Argmax, Argmin
from ...ir.ops.cumulative import CumProd, CumSum
from ...ir.ops.normalize import LogSoftmax, Softmax
from .dispatch import as_tensor, one
from .functions import abs, cast, floating, maximum, numeric, power, sqrt, truth
from .shaping import Axes, axes_in, axis_in, flatten

if TYPE_CHECKING:
    from .tensor import Tensor


def sum(x: Any, axis: Axes = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
    """The sum; bools are counted (i64)."""
    x = numeric(x) if dtype is None else cast(x, dtype)
    axes = axes_in(axis, x.ndim, "sum")
    return one(reductions.ReduceSum, x, axes=axes, keepdims=keepdims)


def mean(x: Any, axis: Axes = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
    """The mean, a float (f32 of integers)."""
    x = floating(x) if dtype is None else cast(x, dtype)
    axes = axes_in(axis, x.ndim, "mean")
    return one(reductions.ReduceMean, x, axes=axes, keepdims=keepdims)


def prod(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The product."""
    x = numeric(x)
    axes = axes_in(axis, x.ndim, "prod")
    return one(reductions.ReduceProd, x, axes=axes, keepdims=keepdims)


def max(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The greatest element; among equal ones the gradient is shared evenly."""
    x = as_tensor(x)
    axes = axes_in(axis, x.ndim, "max")
    return one(reductions.ReduceMax, x, axes=axes, keepdims=keepdims)


def min(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The least element; among equal ones the gradient is shared evenly."""
    x = as_tensor(x)
    axes = axes_in(axis, x.ndim, "min")
    return one(reductions.ReduceMin, x, axes=axes, keepdims=keepdims)


amax, amin = max, min


def var(x: Any, axis: Axes = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """The mean square distance from the mean, over n - ddof (0 as in numpy; torch has 1)."""
    given = floating(x)
    axes = axes_in(axis, given.ndim, "var")
    distance = given - mean(given, axes, True)
    if not ddof:
        return mean(distance * distance, axes, keepdims)
    count = math.prod([given.type.shape[a] for a in axes])
    return sum(distance * distance, axes, keepdims) / (count - ddof)


def std(x: Any, axis: Axes = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """The square root of the variance."""
    return sqrt(var(x, axis, keepdims, ddof))


def all(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether every element is true."""
    return min(truth(x), axis, keepdims)


def any(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Whether an element is true."""
    return max(truth(x), axis, keepdims)


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Where the greatest element stands (i64), the first of equals; flattened for no axis."""
    x = as_tensor(x) if axis is not None else flatten(x)
    return one(Argmax, x, axis=axis_in(axis or 0, x.ndim, "argmax"), keepdims=keepdims)


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Where the least element stands (i64), the first of equals; flattened for no axis."""
    x = as_tensor(x) if axis is not None else flatten(x)
    return one(Argmin, x, axis=axis_in(axis or 0, x.ndim, "argmin"), keepdims=keepdims)


def cumsum(x: Any, axis: int | None = None, reverse: bool = False) -> Tensor:
    """The running sum along an axis; flattened for no axis."""
    x = numeric(x) if axis is not None else flatten(numeric(x))
    return one(CumSum, x, axis=axis_in(axis or 0, x.ndim, "cumsum"), reverse=reverse)


def cumprod(x: Any, axis: int | None = None) -> Tensor:
    """The running product along an axis; flattened for no axis."""
    x = numeric(x) if axis is not None else flatten(numeric(x))
    return one(CumProd, x, axis=axis_in(axis or 0, x.ndim, "cumprod"))


def logsumexp(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))), without overflow."""
    x = floating(x)
    axes = axes_in(axis, x.ndim, "logsumexp")
    return one(reductions.ReduceLogSumExp, x, axes=axes, keepdims=keepdims)


def softmax(x: Any, axis: int = -1) -> Tensor:
    """Exponentials along the axis, scaled to sum to one."""
    x = floating(x)
    return one(Softmax, x, axis=axis_in(axis, x.ndim, "softmax"))


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """The logarithm of the softmax."""
    x = floating(x)
    return one(LogSoftmax, x, axis=axis_in(axis, x.ndim, "log_softmax"))


def norm(x: Any, ord: float = 2, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The vector norm of this order: 1, 2, inf or any above 0; at 0 its gradient is 0."""
    x = floating(x)
    axes = axes_in(axis, x.ndim, "norm")
    if ord == 2:
        return one(reductions.ReduceL2, x, axes=axes, keepdims=keepdims)
    if ord == 1:
        return one(reductions.ReduceL1, x, axes=axes, keepdims=keepdims)
    if ord == math.inf:
        return max(abs(x), axes, keepdims)
    return power(sum(power(abs(x), float(ord)), axes, keepdims), 1 / ord)


def normalize(x: Any, ord: float = 2, axis: int = -1, epsilon: float = 1e-12) -> Tensor:
    """x divided by its norm along the axis, or by `epsilon` where that is greater."""
    return as_tensor(x) / maximum(norm(x, ord, axis, True), epsilon)


__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "cumprod", "cumsum", "log_softmax",
    "logsumexp", "max", "mean", "min", "norm", "normalize", "prod", "softmax", "std", "sum", "var",
]  # fmt: skip
