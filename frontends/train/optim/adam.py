"""Adam and what grew from it: AdamW, NAdam, RAdam, Adamax, LAMB.

Bias corrections are computed in f64 scalars and rounded to the parameter's type once.
May import: frontends/nn, its siblings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ... import nn
from .base import Optimizer, Slots

Tensor = Any


@dataclass(frozen=True)
class _Moments(Optimizer):
    """Running means of the gradient (`mean`) and of its square (`square`)."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def slots(self, p: Tensor) -> Slots:
        return {"mean": nn.zeros_like(p), "square": nn.zeros_like(p)}

    def moments(self, g: Tensor, slots: Slots) -> Slots:
        """The next running means."""
        first, second = self.betas
        return {
            "mean": slots["mean"] + (1.0 - first) * (g - slots["mean"]),
            "square": second * slots["square"] + (1.0 - second) * g * g,
        }

    def corrections(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """1 - beta ** step of both, f64."""
        first, second = self.betas
        return 1.0 - first**step, 1.0 - second**step

    def decayed(self, p: Tensor, g: Tensor) -> Tensor:
        """The gradient with L2 decay."""
        return g + self.weight_decay * p if self.weight_decay else g


@dataclass(frozen=True)
class Adam(_Moments):
    """The mean gradient over the root mean square (Kingma and Ba 2014); L2 decay.

    `amsgrad` divides by the greatest mean square so far (Reddi 2018).
    """

    amsgrad: bool = False

    def slots(self, p: Tensor) -> Slots:
        kept = super().slots(p)
        return kept | {"most": nn.zeros_like(p)} if self.amsgrad else kept

    def update(
        self, p: Tensor, g: Tensor, slots: Slots, lr: Tensor, step: Tensor
    ) -> tuple[Tensor, Slots]:
        kept = self.moments(self.decayed(p, g), slots)
        spread = kept["square"]
        if self.amsgrad:
            spread = kept["most"] = nn.maximum(slots["most"], spread)
        first, second = self.corrections(step)
        rate = (lr.astype("f64") / first).astype(p.dtype)
        scale = (1.0 / nn.sqrt(second)).astype(p.dtype)
        return p - rate * kept["mean"] / (nn.sqrt(spread) * scale + self.eps), kept


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled decay: p * (1 - lr * weight_decay) first (Loshchilov and Hutter 2017)."""

    weight_decay: float = 1e-2

    def decayed(self, p: Tensor, g: Tensor) -> Tensor:
        return g

    def update(
        self, p: Tensor, g: Tensor, slots: Slots, lr: Tensor, step: Tensor
    ) -> tuple[Tensor, Slots]:
        if self.weight_decay:
            p = p * (1.0 - lr * self.weight_decay)
        return super().update(p, g, slots, lr, step)


@dataclass(frozen=True)
class NAdam(_Moments):
    """Adam with Nesterov's momentum (Dozat 2016); L2 decay."""

    lr: Any = 2e-3
    momentum_decay: float = 4e-3

    def slots(self, p: Tensor) -> Slots:
        return super().slots(p) | {"product": nn.ones((), dtype=p.dtype)}

    def update(
        self, p: Tensor, g: Tensor, slots: Slots, lr: Tensor, step: Tensor
    ) -> tuple[Tensor, Slots]:
        g = self.decayed(p, g)
        kept = self.moments(g, slots)
        now = self._momentum(step)
        after = self._momentum(step + 1.0)
        product = slots["product"].astype("f64") * now
        kept["product"] = product.astype(p.dtype)
        _, second = self.corrections(step)
        root = nn.sqrt(kept["square"] * (1.0 / second).astype(p.dtype)) + self.eps
        rate = lr.astype("f64")
        of_gradient = (rate * (1.0 - now) / (1.0 - product)).astype(p.dtype)
        of_mean = (rate * after / (1.0 - product * after)).astype(p.dtype)
        return p - of_gradient * g / root - of_mean * kept["mean"] / root, kept

    def _momentum(self, step: Tensor) -> Tensor:
        return self.betas[0] * (1.0 - 0.5 * 0.96 ** (step * self.momentum_decay))


@dataclass(frozen=True)
class RAdam(_Moments):
    """Adam that waits until the variance of its rate is bounded (Liu 2019); L2 decay."""

    def update(
        self, p: Tensor, g: Tensor, slots: Slots, lr: Tensor, step: Tensor
    ) -> tuple[Tensor, Slots]:
        kept = self.moments(self.decayed(p, g), slots)
        first, second = self.corrections(step)
        beta = self.betas[1]
        limit = 2.0 / (1.0 - beta) - 1.0
        length = limit - 2.0 * step * beta**step / second
        known = length > 5.0
        safe = nn.where(known, length, limit)
        share = (safe - 4.0) * (safe - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * safe)
        rectified = (nn.sqrt(share) * nn.sqrt(second)).astype(p.dtype)
        adapted = rectified / (nn.sqrt(kept["square"]) + self.eps)
        factor = nn.where(known, adapted, nn.ones((), dtype=p.dtype))
        rate = (lr.astype("f64") / first).astype(p.dtype)
        return p - rate * kept["mean"] * factor, kept


@dataclass(frozen=True)
class Adamax(Optimizer):
    """Adam with the greatest magnitude in place of the root mean square; L2 decay."""

    lr: Any = 2e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def slots(self, p: Tensor) -> Slots:
        return {"mean": nn.zeros_like(p), "most": nn.zeros_like(p)}

    def update(
        self, p: Tensor, g: Tensor, slots: Slots, lr: Tensor, step: Tensor
    ) -> tuple[Tensor, Slots]:
        if self.weight_decay:
            g = g + self.weight_decay * p
        first, second = self.betas
        mean = slots["mean"] + (1.0 - first) * (g - slots["mean"])
        most = nn.maximum(second * slots["most"], nn.abs(g) + self.eps)
        rate = (lr.astype("f64") / (1.0 - first**step)).astype(p.dtype)
        return p - rate * mean / most, {"mean": mean, "most": most}


@dataclass(frozen=True)
class LAMB(_Moments):
    """Adam's step scaled per parameter to the parameter's norm (You 2019); decoupled decay."""

    eps: float = 1e-6

    def update(
        self, p: Tensor, g: Tensor, slots: Slots, lr: Tensor, step: Tensor
    ) -> tuple[Tensor, Slots]:
        kept = self.moments(g, slots)
        first, second = self.corrections(step)
        mean = kept["mean"] * (1.0 / first).astype(p.dtype)
        along = mean / (nn.sqrt(kept["square"] * (1.0 / second).astype(p.dtype)) + self.eps)
        if self.weight_decay:
            along = along + self.weight_decay * p
        size, length = nn.sqrt(nn.sum(p * p)), nn.sqrt(nn.sum(along * along))
        usual = (size > 0.0) & (length > 0.0)
        trust = nn.where(usual, size / nn.where(usual, length, nn.ones_like(length)), 1.0)
        return p - lr * trust.astype(p.dtype) * along, kept


__all__ = ["LAMB", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"]
