"""Descent along the gradient and its momentum: SGD, Lion, Muon.

May import: frontends/nn, its siblings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ... import nn
from .base import Optimizer, Slots

Tensor = Any


@dataclass(frozen=True)
class SGD(Optimizer):
    """p - lr * d, d the gradient or its momentum: d = momentum * d + (1 - dampening) * g.

    With `nesterov` the step is g + momentum * d (Sutskever 2013).  As torch has it: the first
    momentum is the whole gradient.
    """

    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0

    def slots(self, p: Tensor) -> Slots:
        return {"momentum": nn.zeros_like(p)} if self.momentum else {}

    def update(
        self, p: Tensor, g: Tensor, slots: Slots, lr: Tensor, step: Tensor
    ) -> tuple[Tensor, Slots]:
        if self.weight_decay:
            g = g + self.weight_decay * p
        if not self.momentum:
            return p - lr * g, {}
        later = (step > 1.0).astype(p.dtype)
        part = g - later * (self.dampening * g) if self.dampening else g
        d = self.momentum * slots["momentum"] + part
        along = g + self.momentum * d if self.nesterov else d
        return p - lr * along, {"momentum": d}


@dataclass(frozen=True)
class Lion(Optimizer):
    """The sign of a mix of momentum and gradient; decoupled decay (Chen 2023)."""

    betas: tuple[float, float] = (0.9, 0.99)

    def slots(self, p: Tensor) -> Slots:
        return {"momentum": nn.zeros_like(p)}

    def update(
        self, p: Tensor, g: Tensor, slots: Slots, lr: Tensor, step: Tensor
    ) -> tuple[Tensor, Slots]:
        m, (first, second) = slots["momentum"], self.betas
        along = nn.sign(first * m + (1.0 - first) * g)
        if self.weight_decay:
            along = along + self.weight_decay * p
        return p - lr * along, {"momentum": second * m + (1.0 - second) * g}


@dataclass(frozen=True)
class Muon(Optimizer):
    """Momentum made orthogonal by Newton-Schulz steps, for matrices (Jordan 2024).

    Parameters of another rank than two take plain momentum steps; put them in a group of their own
    rate, or train them by another optimizer.  Decay is decoupled.
    """

    weight_decay: float = 0.1
    momentum: float = 0.95
    nesterov: bool = True
    coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315)
    iterations: int = 5
    eps: float = 1e-7

    def slots(self, p: Tensor) -> Slots:
        return {"momentum": nn.zeros_like(p)}

    def update(
        self, p: Tensor, g: Tensor, slots: Slots, lr: Tensor, step: Tensor
    ) -> tuple[Tensor, Slots]:
        m = slots["momentum"] + (1.0 - self.momentum) * (g - slots["momentum"])
        along = g + self.momentum * (m - g) if self.nesterov else m
        scale = 1.0
        if len(p.shape) == 2:
            along = self.orthogonal(along)
            scale = math.sqrt(max(1.0, p.shape[0] / p.shape[1]))
        return p * (1.0 - lr * self.weight_decay) - (lr * scale) * along, {"momentum": m}

    def orthogonal(self, x: Tensor) -> Tensor:
        """A matrix with the singular vectors of x and singular values near one."""
        a, b, c = self.coefficients
        tall = x.shape[0] > x.shape[1]
        x = x.T if tall else x
        x = x / nn.maximum(nn.sqrt(nn.sum(x * x)), self.eps)
        for _ in range(self.iterations):
            gram = x @ x.T
            x = a * x + (b * gram + c * (gram @ gram)) @ x
        return x.T if tall else x


__all__ = ["SGD", "Lion", "Muon"]
