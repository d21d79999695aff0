"""Losses by name, for `Trainer(loss="cross_entropy")`.  May import: ir, frontends/nn, names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...ir.errors import Error
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
    """A loss by name, or the function or module itself; E0688 for an unknown one."""
    if isinstance(loss, type):
        raise Error(
            "E0688",
            f"the loss is the class {loss.__name__}",
            hint=f"nn.{loss.__name__}(), an object",
        )
    if callable(loss):
        return loss  # type: ignore[no-any-return]
    if isinstance(loss, str) and loss in NAMES:
        return NAMES[loss]
    raise unknown("E0688", "loss", loss, NAMES, "a function (output, target) -> scalar")


def labels_of(loss: Any, output: Any, target: Any) -> Any:
    """What metrics take for the target: of a cross entropy's probabilities the likeliest class."""
    entropy = loss is nn.cross_entropy or isinstance(loss, nn.CrossEntropyLoss)
    if not entropy or not target.dtype.is_float or target.ndim < 2:
        return target
    return nn.argmax(target, axis=1)


__all__ = ["NAMES", "as_loss", "labels_of"]
