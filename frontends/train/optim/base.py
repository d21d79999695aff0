"""What all optimizers share: clipping, decay, groups, averages, and the loop over parameters.

An optimizer is a frozen description.  `slots(p)` says what it keeps beside a parameter, `update`
is one step for one parameter, written with `nn` tensors; `init` and `apply` do it for a whole
network, as pure functions of dicts, so that the same lines run eagerly and inside a compiled step.
May import: ir, frontends/nn, its siblings.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from ....ir.errors import Error
from ... import nn
from ...nn.dispatch import as_tensor
from .schedules import Schedule, as_schedule

Tensor = Any
Params = Mapping[str, Tensor]
State = dict[str, Tensor]
Slots = dict[str, Tensor]
EMA = "ema"


@dataclass(frozen=True)
class Group:
    """Settings for the parameters whose names match a pattern ("head.*").

    `rate` scales the learning rate (0 freezes), `weight_decay` replaces the optimizer's.
    """

    pattern: str
    rate: float = 1.0
    weight_decay: float | None = None


@dataclass(frozen=True)
class Optimizer:
    """The base.  Subclasses give `update`, and `slots` where they keep something.

    `lr` is a number or a schedule.  `weight_decay` is added to the gradient (L2) unless the class
    decouples it; `decay_mask` says for (name, parameter) whether it decays, `True` by default for
    all.  `clip_norm` scales all gradients to a global norm, `clip_value` bounds each element.
    `groups` are `Group`s, the first that matches wins.  `ema` keeps a moving average of the
    parameters with this decay.
    """

    lr: float | Schedule | Callable[[Tensor], Tensor] = 1e-3
    _: KW_ONLY
    weight_decay: float = 0.0
    decay_mask: Callable[[str, Tensor], bool] | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    groups: tuple[Group, ...] = ()
    ema: float | None = None

    def __post_init__(self) -> None:
        as_schedule(self.lr)
        if not isinstance(self.weight_decay, (int, float)) or self.weight_decay < 0:
            raise Error(
                "E0691",
                f"{type(self).__name__}: weight_decay is a number from 0",
                details=(f"found {self.weight_decay!r}"[:120],),
            )
        for name in ("clip_norm", "clip_value"):
            bound = getattr(self, name)
            if bound is not None and not bound > 0:
                raise Error("E0691", f"{name} is above 0, found {bound!r}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise Error("E0691", f"ema, a decay, lies from 0 to below 1, found {self.ema!r}")
        betas = getattr(self, "betas", ())
        given = betas if isinstance(betas, (tuple, list)) else (None,)
        if not all([isinstance(b, (int, float)) and 0 <= b < 1 for b in given]):
            raise Error(
                "E0691",
                f"{type(self).__name__}: betas are two numbers from 0 to below 1",
                details=(f"found {betas!r}"[:120],),
                hint="the optimizer is made without parameters: the Trainer, or .attach(net), "
                "gives them",
            )

    def slots(self, p: Tensor) -> Slots:
        """The first values of what is kept beside parameter `p`, by name."""
        return {}

    def update(
        self, p: Tensor, g: Tensor, slots: Slots, lr: Tensor, step: Tensor
    ) -> tuple[Tensor, Slots]:
        """The next parameter and slots; `lr` is a scalar of p's type, `step` f64, 1 at first."""
        raise Error("E0691", f"the optimizer {type(self).__name__} does not define `update`")

    # ------------------------------------------------------------ for a whole network

    @property
    def schedule(self) -> Schedule:
        """The learning rate as a schedule."""
        return as_schedule(self.lr)

    def init(self, params: Params) -> State:
        """The first state: `name/slot` for each parameter."""
        state: State = {}
        for name, p in params.items():
            state |= {f"{name}/{slot}": value for slot, value in self.slots(p).items()}
            if self.ema is not None:
                state[f"{name}/{EMA}"] = p
        return state

    def apply(
        self,
        params: Params,
        grads: Mapping[str, Tensor | None],
        state: Mapping[str, Tensor],
        step: Tensor,
        rate: Tensor | float = 1.0,
    ) -> tuple[dict[str, Tensor], State, dict[str, Tensor]]:
        """The next parameters and state, and what to log: `lr`, and `grad_norm` where it is known.

        `step` counts from 0; `rate` scales the schedule (a plateau, from the host).  A parameter
        whose gradient is None stays as it is.
        """
        lr = self.schedule(step) * rate
        count = as_tensor(step).astype("f64") + 1.0
        grads, logged = self.clipped(grads)
        logged["lr"] = lr
        new_params, new_state = dict(params), dict(state)
        for name, p in params.items():
            g = grads.get(name)
            if g is None:
                continue
            own = self.of_group(name, p)
            prefix = name + "/"
            slots = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
            average = slots.pop(EMA, None)
            scale = self.group(name).rate
            local = (lr * scale if scale != 1.0 else lr).astype(p.dtype)
            new, kept = own.update(p, g.astype(p.dtype), slots, local, count)
            new_params[name] = new
            new_state |= {prefix + slot: value for slot, value in kept.items()}
            if average is not None:
                assert self.ema is not None
                new_state[prefix + EMA] = average + (new - average) * (1.0 - self.ema)
        return new_params, new_state, logged

    def group(self, name: str) -> Group:
        """The first group whose pattern matches a parameter's name."""
        return next((g for g in self.groups if fnmatch.fnmatchcase(name, g.pattern)), Group("*"))

    def of_group(self, name: str, p: Tensor) -> Optimizer:
        """This optimizer with the weight decay that holds for a parameter."""
        decay = self.group(name).weight_decay
        decay = self.weight_decay if decay is None else decay
        if self.decay_mask is not None and not self.decay_mask(name, p):
            decay = 0.0
        return self if decay == self.weight_decay else replace(self, weight_decay=decay)

    def clipped(
        self, grads: Mapping[str, Tensor | None]
    ) -> tuple[dict[str, Tensor | None], dict[str, Tensor]]:
        """Gradients bounded by value, then by their global norm; the norm before is logged."""
        found = dict(grads)
        logged: dict[str, Tensor] = {}
        if self.clip_value is not None:
            bound = self.clip_value
            found = {n: None if g is None else nn.clip(g, -bound, bound) for n, g in found.items()}
        if self.clip_norm is not None:
            norm = global_norm([g for g in found.values() if g is not None])
            logged["grad_norm"] = norm
            factor = nn.minimum(self.clip_norm / (norm + 1e-6), 1.0)
            found = {n: None if g is None else g * factor.astype(g.dtype) for n, g in found.items()}
        return found, logged

    def attach(self, net: nn.Module) -> Attached:
        """The optimizer bound to a module's parameters, for a loop in eager style."""
        return Attached(self, net)


def global_norm(grads: list[Tensor]) -> Tensor:
    """The Euclidean norm of all elements together; squares of narrow floats are summed in f32."""
    total = None
    for g in grads:
        wide = g if g.dtype.bits >= 32 else g.astype("f32")
        square = nn.sum(wide * wide)
        total = square if total is None else total + square.astype(total.dtype)
    return nn.sqrt(total) if total is not None else nn.full((), 0.0)


class Attached:
    """An optimizer at work on a module: `backward` fills the gradients, `step` uses them."""

    def __init__(self, optimizer: Optimizer, net: nn.Module) -> None:
        if not isinstance(net, nn.Module):
            raise Error(
                "E0691", f"an optimizer is attached to a module, found {type(net).__name__}",
                hint=".attach(net)",
            )  # fmt: skip
        self.optimizer = optimizer
        self.net = net
        with nn.no_grad():
            self.state = optimizer.init(dict(net.named_parameters()))
        self.steps = 0
        self.logged: dict[str, Tensor] = {}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for _, p in self.net.named_parameters():
            p.grad = None

    def step(self) -> dict[str, Tensor]:
        """One update of the module's parameters in place; gives what is logged."""
        params = dict(self.net.named_parameters())
        with nn.no_grad():
            new, self.state, self.logged = self.optimizer.apply(
                params, {n: p.grad for n, p in params.items()}, self.state, self.steps
            )
            for name, p in params.items():
                p.assign(new[name])
        self.steps += 1
        return self.logged


__all__ = ["EMA", "Attached", "Group", "Optimizer", "global_norm"]
