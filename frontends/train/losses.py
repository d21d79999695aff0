"""Losses by name, for `Trainer(loss="cross_entropy")`.  May import: ir, frontends/nn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import nn
from .names import unknown

Loss = Callable[[Any, Any], Any]

NAMES: dict[str, Loss] = {
    "cross_entropy": nn.cross_entropy,
    "nll": nn.nll_loss,
    "mse": nn.mse_loss,
    "l1": nn.l1_loss,
    "mae": nn.l1_loss,
    "huber": nn.huber_loss,
    "smooth_l1": nn.smooth_l1_loss,
    "bce": nn.binary_cross_entropy,
    "bce_with_logits": nn.binary_cross_entropy_with_logits,
    "kl": nn.kl_div,
    "hinge": nn.hinge_loss,
}


def as_loss(loss: Any) -> Loss:
    """A loss by name, or the function or module itself; E0699 for an unknown one."""
    if callable(loss):
        return loss  # type: ignore[no-any-return]
    if isinstance(loss, str) and loss in NAMES:
        return NAMES[loss]
    raise unknown("E0699", "loss", loss, NAMES, "a function (output, target) -> scalar")


__all__ = ["NAMES", "as_loss"]
