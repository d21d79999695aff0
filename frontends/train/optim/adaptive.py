"""Rates per element from the history of the gradient: Adagrad, RMSprop, Adadelta, Adafactor.

May import: ir, frontends/nn, its siblings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ....ir.types import DType
from ... import nn
from .base import Optimizer, Slots

Tensor = Any


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """The gradient over the root of the sum of its squares (Duchi 2011)."""

    lr: Any = 1e-2
    lr_decay: float = 0.0
    initial: float = 0.0
    eps: float = 1e-10

    def slots(self, p: Tensor) -> Slots:
        return {"sum": nn.full_like(p, self.initial)}

    def update(
        self, p: Tensor, g: Tensor, slots: Slots, lr: Tensor, step: Tensor
    ) -> tuple[Tensor, Slots]:
        if self.weight_decay:
            g = g + self.weight_decay * p
        if self.lr_decay:
            lr = lr / (1.0 + (step - 1.0) * self.lr_decay).astype(p.dtype)
        total = slots["sum"] + g * g
        return p - lr * g / (nn.sqrt(total) + self.eps), {"sum": total}


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """The gradient over the root of the running mean of its squares (Hinton 2012).

    `centered` takes the variance in place of the mean square.
    """

    lr: Any = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False

    def slots(self, p: Tensor) -> Slots:
        names = ["square"] + ["mean"] * self.centered + ["momentum"] * bool(self.momentum)
        return {name: nn.zeros_like(p) for name in names}

    def update(
        self, p: Tensor, g: Tensor, slots: Slots, lr: Tensor, step: Tensor
    ) -> tuple[Tensor, Slots]:
        if self.weight_decay:
            g = g + self.weight_decay * p
        kept = {"square": self.alpha * slots["square"] + (1.0 - self.alpha) * g * g}
        spread = kept["square"]
        if self.centered:
            kept["mean"] = slots["mean"] + (1.0 - self.alpha) * (g - slots["mean"])
            spread = spread - kept["mean"] * kept["mean"]
        along = g / (nn.sqrt(spread) + self.eps)
        if self.momentum:
            along = kept["momentum"] = self.momentum * slots["momentum"] + along
        return p - lr * along, kept


@dataclass(frozen=True)
class Adadelta(Optimizer):
    """The gradient in units of the parameter, from two running mean squares (Zeiler 2012)."""

    lr: Any = 1.0
    rho: float = 0.9
    eps: float = 1e-6

    def slots(self, p: Tensor) -> Slots:
        return {"square": nn.zeros_like(p), "delta": nn.zeros_like(p)}

    def update(
        self, p: Tensor, g: Tensor, slots: Slots, lr: Tensor, step: Tensor
    ) -> tuple[Tensor, Slots]:
        if self.weight_decay:
            g = g + self.weight_decay * p
        square = self.rho * slots["square"] + (1.0 - self.rho) * g * g
        along = nn.sqrt(slots["delta"] + self.eps) / nn.sqrt(square + self.eps) * g
        delta = self.rho * slots["delta"] + (1.0 - self.rho) * along * along
        return p - lr * along, {"square": square, "delta": delta}


@dataclass(frozen=True)
class Adafactor(Optimizer):
    """The second moment of a matrix from its rows' and columns' means (Shazeer and Stern 2018).

    With relative step sizes: the rate is bounded by 1 / sqrt(step) and scaled by the parameter's
    root mean square; updates are bounded by `bound`.  Decay is decoupled.
    """

    lr: Any = 1e-2
    decay: float = -0.8
    eps: tuple[float | None, float] = (None, 1e-3)
    bound: float = 1.0

    def slots(self, p: Tensor) -> Slots:
        if len(p.shape) < 2:
            return {"square": nn.zeros_like(p)}
        rows, columns = (*p.shape[:-1], 1), (*p.shape[:-2], 1, p.shape[-1])
        return {
            "rows": nn.zeros(rows, dtype=p.dtype),
            "columns": nn.zeros(columns, dtype=p.dtype),
        }

    def update(
        self, p: Tensor, g: Tensor, slots: Slots, lr: Tensor, step: Tensor
    ) -> tuple[Tensor, Slots]:
        eps = self.eps[0] if self.eps[0] is not None else _epsilon(p.dtype)
        fresh = (step**self.decay).astype(p.dtype)
        bounded = nn.minimum(lr, (1.0 / nn.sqrt(step)).astype(p.dtype))
        rate = nn.maximum(_rms(p), self.eps[1]) * bounded
        if self.weight_decay:
            p = p * (1.0 - lr * self.weight_decay)
        square = g * g
        if len(p.shape) < 2:
            spread = slots["square"] + fresh * (square - slots["square"])
            kept = {"square": spread}
        else:
            rows, columns = slots["rows"], slots["columns"]
            rows = rows + fresh * (nn.mean(square, -1, keepdims=True) - rows)
            columns = columns + fresh * (nn.mean(square, -2, keepdims=True) - columns)
            spread = rows * columns / nn.maximum(nn.mean(rows, -2, keepdims=True), eps)
            kept = {"rows": rows, "columns": columns}
        along = g / nn.sqrt(nn.maximum(spread, eps * eps))
        held = nn.maximum(_rms(along) / self.bound, 1.0)
        return p - rate / held * along, kept


def _rms(x: Tensor) -> Tensor:
    return nn.sqrt(nn.sum(x * x)) / math.sqrt(max(1, x.size))


def _epsilon(dtype: DType) -> float:
    """The distance from one to the next number of a float type."""
    return {"f64": 2.0**-52, "f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}[dtype.name]


__all__ = ["Adadelta", "Adafactor", "Adagrad", "RMSprop"]
