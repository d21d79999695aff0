"""Optimizers by name, for `Trainer(optimizer="adamw")`.  May import: ir, its siblings, names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ....ir.errors import Error
from ..names import unknown
from .adam import LAMB, Adam, Adamax, AdamW, NAdam, RAdam
from .adaptive import Adadelta, Adafactor, Adagrad, RMSprop
from .base import Optimizer
from .gradient import SGD, Lion, Muon

OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "sgd": SGD, "adam": Adam, "adamw": AdamW, "nadam": NAdam,
    "radam": RAdam, "adagrad": Adagrad, "rmsprop": RMSprop,
    "adadelta": Adadelta, "adamax": Adamax, "lion": Lion, "lamb": LAMB,
    "adafactor": Adafactor, "muon": Muon,
}  # fmt: skip


def as_optimizer(given: Any) -> Optimizer:
    """An optimizer by name, with its defaults, or itself; E0691 for an unknown one."""
    if isinstance(given, Optimizer):
        return given
    if isinstance(given, str) and given.lower() in OPTIMIZERS:
        return OPTIMIZERS[given.lower()]()
    if isinstance(given, type) and issubclass(given, Optimizer):
        raise Error(
            "E0691", f"the optimizer is the class {given.__name__}",
            hint=f"optim.{given.__name__}(1e-3), an object",
        )  # fmt: skip
    given = given if isinstance(given, str) else type(given)
    raise unknown("E0691", "optimizer", given, OPTIMIZERS, "an optim.Optimizer")


__all__ = ["OPTIMIZERS", "as_optimizer"]
