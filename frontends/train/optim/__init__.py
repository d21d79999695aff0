"""Optimizers and schedules (`from irc import optim`).

    opt = optim.AdamW(optim.cosine(2e-3, total=900, warmup=50), weight_decay=1e-4, clip_norm=1.0)

An optimizer of one's own is a subclass of `Optimizer` with `update(p, g, slots, lr, step)`.
"""

from .adam import LAMB, Adam, Adamax, AdamW, NAdam, RAdam
from .adaptive import Adadelta, Adafactor, Adagrad, RMSprop
from .base import Attached, Group, Optimizer, global_norm
from .gradient import SGD, Lion, Muon
from .schedules import (
    Schedule,
    as_schedule,
    chain,
    constant,
    cosine,
    cyclic,
    exponential,
    linear,
    multistep,
    one_cycle,
    polynomial,
    step,
    warm_restarts,
    warmup,
)

__all__ = [
    "LAMB", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Attached",
    "Group", "Lion", "Muon", "NAdam", "Optimizer", "RAdam", "RMSprop", "Schedule", "as_schedule",
    "chain", "constant", "cosine", "cyclic", "exponential", "global_norm", "linear", "multistep",
    "one_cycle", "polynomial", "step", "warm_restarts", "warmup",
]  # fmt: skip
