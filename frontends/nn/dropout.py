"""Dropout: elements (or whole channels) set to zero at random while training.

The draws come from nn's Philox state, so eager, compiled and C runs of one seed drop the same
elements.  May import: ir, its siblings.
"""

from __future__ import annotations

import math

from ...ir.errors import Error
from ...ir.ops.compare import Where
from .dispatch import apply
from .layers import Layer, scalar
from .random import uniform
from .tensor import Tensor


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """x with each element zeroed with probability p, the others divided by 1 - p."""
    return _dropped(x, p, training, len(x.type.shape))


def dropout1d(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """As `dropout`, whole channels of [N, C, L] (or [C, L]) at a time."""
    return _dropped(x, p, training, len(x.type.shape) - 1)


def dropout2d(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """As `dropout`, whole channels of [N, C, H, W] (or [N, C]) at a time."""
    return _dropped(x, p, training, 2)


def dropout3d(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """As `dropout`, whole channels of [N, C, D, H, W] (or [C, D, H, W]) at a time."""
    rank = len(x.type.shape)
    return _dropped(x, p, training, 1 if rank == 4 else 2)


def _dropped(x: Tensor, p: float, training: bool, axes: int) -> Tensor:
    """One draw for each index of the first `axes` axes."""
    _check(p)
    if not training or p == 0:
        return x
    shape = x.type.shape
    drawn = uniform((*shape[:axes], *[1] * (len(shape) - axes)))
    keep = drawn >= p
    scale = 0.0 if p == 1 else 1 / (1 - p)
    made: Tensor = apply(Where, keep, x * scale, scalar(0, x))
    return made


def _check(p: float) -> None:
    if not 0 <= p <= 1:
        raise Error("E0641", f"a dropout probability lies between 0 and 1, found {p}")


_ALPHA = -1.7580993408473766


def alpha_dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Dropout that keeps the mean and variance of selu networks (Klambauer 2017)."""
    _check(p)
    if not training or p == 0:
        return x
    if p == 1:
        return x * 0.0
    keep = uniform(x.type.shape) >= p
    a = 1 / math.sqrt((1 - p) * (1 + p * _ALPHA**2))
    dropped = apply(Where, keep, x, scalar(_ALPHA, x))
    made: Tensor = dropped * a - a * _ALPHA * p
    return made


class Dropout(Layer):
    """`dropout` while training, the identity in evaluation."""

    function = staticmethod(dropout)

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        _check(p)
        self.p, self.inplace = p, inplace

    def describe(self) -> str:
        return f"{type(self).__name__} p={self.p:g}"

    def forward(self, x: Tensor) -> Tensor:
        return type(self).function(x, self.p, self.training)


class Dropout1d(Dropout):
    """`dropout1d` while training."""

    function = staticmethod(dropout1d)


class Dropout2d(Dropout):
    """`dropout2d` while training."""

    function = staticmethod(dropout2d)


class Dropout3d(Dropout):
    """`dropout3d` while training."""

    function = staticmethod(dropout3d)


class AlphaDropout(Dropout):
    """`alpha_dropout` while training."""

    function = staticmethod(alpha_dropout)
