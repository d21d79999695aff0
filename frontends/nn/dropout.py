"""Dropout: elements (or whole channels) set to zero at random while training.

The draws come from nn's Philox state, so eager, compiled and C runs of one seed drop the same
elements.  May import: ir, its siblings.
"""

from __future__ import annotations

import math
from typing import Any

from ...ir.errors import Error
from ...ir.ops.dropout import Dropout as DropoutOp
from .dispatch import apply
from .functions import floating, where
from .layers import Layer
from .random import default, uniform
from .tensor import Tensor


def dropout(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """x with each element zeroed with probability p, the others divided by 1 - p."""
    x = floating(x)
    return _dropped(x, p, training, x.ndim)


def dropout1d(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """As `dropout`, whole channels of [N, C, L] (or [C, L]) at a time."""
    x = floating(x)
    return _dropped(x, p, training, x.ndim - 1)


def dropout2d(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """As `dropout`, whole channels of [N, C, H, W] (or [N, C]) at a time."""
    return _dropped(floating(x), p, training, 2)


def dropout3d(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """As `dropout`, whole channels of [N, C, D, H, W] (or [C, D, H, W]) at a time."""
    x = floating(x)
    return _dropped(x, p, training, 1 if x.ndim == 4 else 2)


def _dropped(x: Tensor, p: float, training: bool, axes: int) -> Tensor:
    """One draw for each index of the first `axes` axes."""
    _check(p)
    if not training or p == 0:
        return x
    extents = x.type.shape
    drawn = None if axes == x.ndim else (*extents[:axes], *[1] * (x.ndim - axes))
    made: Tensor = apply(DropoutOp, x, default.table["key"], default.table["counter"],
                         ratio=float(p), drawn=drawn)  # fmt: skip
    default.advance(math.prod(extents[:axes]))
    return made


def _check(p: float) -> None:
    if not 0 <= p <= 1:
        raise Error("E0641", f"a dropout probability lies between 0 and 1, found {p}")


_ALPHA = -1.7580993408473766


def alpha_dropout(x: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """Dropout that keeps the mean and variance of selu networks (Klambauer 2017)."""
    _check(p)
    given = floating(x)
    if not training or p == 0:
        return given
    if p == 1:
        return given * 0.0
    keep = uniform(given.type.shape) >= p
    a = 1 / math.sqrt((1 - p) * (1 + p * _ALPHA**2))
    return (where(keep, given, _ALPHA) - _ALPHA * p) * a


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


__all__ = [
    "AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "alpha_dropout", "dropout",
    "dropout1d", "dropout2d", "dropout3d",
]  # fmt: skip
