"""The train step as one function: (state..., batch...) -> (state'..., loss, rate, metrics...).

The forward function is traced and differentiated as a program of its own, with what is between as
passes over it: mixed precision, gradients, rematerialisation, micro-batches, reduction over
processes.  Then the optimizer's Python runs once in a trace behind it.  All state is donated.
May import: ir, passes, frontends/nn, its siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...ir.core import Value
from ...ir.ops.control import inlined
from ...ir.ops.core import Func, Module, Return
from ...ir.ops.dist import group
from ...ir.types import TensorType, f32, f64, i64
from ...ir.verify import verify
from ...passes.autodiff.grad import differentiate
from ...passes.autodiff.remat import within
from ...passes.training.accumulate import accumulate
from ...passes.training.donated import order_updates, verify_donated
from ...passes.training.parallel import data_parallel
from ...passes.training.precision import mixed
from .. import nn
from ..nn.tracing import Trace, tracing
from .optim import Optimizer
from .sharding import Sharded

Pass = Callable[[Func], Func]

KEY, COUNTER = "rng/key", "rng/counter"
STEP, RATE, SCALE, GOOD = "step", "rate", "scale/value", "scale/good"
GROWTH_STEPS = 2000
"""Good steps after which a dynamic loss scale doubles."""


@dataclass(frozen=True)
class Forward:
    """A traced forward function: `main(state..., inputs...) -> (state'..., results...)`.

    `names` are the names of its state arguments, `updated` pairs (argument, result) the buffers
    that it changes, `trained` the arguments to differentiate by.  Of the results behind the state,
    the first is what is differentiated, the second the loss, the rest are partials of metrics, of
    which those in `stacked` hold one row per sample.
    """

    func: Func
    names: tuple[str, ...]
    updated: tuple[tuple[int, int], ...]
    trained: tuple[int, ...]
    stacked: frozenset[int] = frozenset()
    even: bool = True
    """Whether all processes have as many rows of the batch."""

    @property
    def inputs(self) -> list[TensorType]:
        """The types of the inputs (the loss scale, if it is one, last)."""
        return [a.tensor for a in self.func.args[len(self.names) :]]


@dataclass(frozen=True)
class Settings:
    """How a step is made of a forward function; see `TrainStep`."""

    optimizer: Optimizer
    precision: str = "f32"
    accumulate: int = 1
    loss_scale: float | str | None = None
    activation_memory: float | int | None = None
    shard_optimizer: bool = False
    rewrites: tuple[Pass, ...] = ()
    """Passes over the function with gradients, behind those named here."""

    @property
    def scales(self) -> bool:
        """Whether losses are scaled."""
        return self.loss_scale is not None

    @property
    def first_scale(self) -> float:
        """The loss scale that a fresh step begins with."""
        return 2.0**16 if self.loss_scale == "dynamic" else float(self.loss_scale or 1.0)

    @property
    def sharded(self) -> bool:
        """Whether the optimizer's state lies in parts in several processes."""
        return self.shard_optimizer and group().world > 1


@dataclass(frozen=True)
class StepProgram:
    """The program: `states` name its first arguments, `logs` the results behind the new state.

    `func.state` pairs each state with its next value; the partials of metrics come last.
    """

    module: Module
    states: tuple[str, ...]
    logs: tuple[str, ...]
    forward: Func = field(compare=False)
    """The function with gradients, as the step holds it: for looking into, op by op."""


def step_program(
    forward: Forward, settings: Settings, slots: Mapping[str, TensorType]
) -> StepProgram:
    """The whole step of a forward function; `slots` are the optimizer's, by name."""
    func, kept = gradients_of(forward, settings)
    states = [*forward.names, *slots, STEP, RATE]
    types = [a.type for a in func.args[: len(forward.names)]] + [*slots.values()]
    types += [TensorType(i64, ()), TensorType(f64, ())]
    if settings.scales:
        states += [SCALE, GOOD]
        types += [TensorType(f32, ()), TensorType(i64, ())]
    batch = forward.inputs[: -1 if settings.scales else None]
    trace = Trace({})
    with tracing(trace):
        made = [trace.block.add_arg(t, n) for t, n in zip(types, states, strict=True)]
        given = [trace.block.add_arg(a.type, a.name) for a in _batch_args(func, forward, settings)]
        assert len(given) == len(batch)
        old = {name: trace.tensor(v) for name, v in zip(states, made, strict=True)}
        inner = [*made[: len(forward.names)], *given]
        inner += [made[states.index(SCALE)]] if settings.scales else []
        found = [trace.tensor(v) for v in inlined(trace.b, func.body, inner)]
        new, logs = _updated(forward, settings, old, found[: len(kept)], found[len(kept) :], trace)
        changed = [k for k, name in enumerate(states) if name in new]
        partials = found[2 + len(forward.updated) : len(kept)]
        results = [new[states[k]] for k in changed] + [*logs.values(), *partials]
        returned = [trace.value(t) for t in results]
    names = [f"{states[k]}.next" for k in changed] + list(logs)
    names += [f"partial{k}" for k in range(len(partials))]
    pairs = [(k, r) for r, k in enumerate(changed)]
    return _finished(trace, [*made, *given], returned, names, pairs, states, tuple(logs), func)


def gradients_of(forward: Forward, settings: Settings) -> tuple[Func, list[int]]:
    """The forward function with gradients behind its results, all passes applied.

    The second part numbers the results that are no gradients.
    """
    func = forward.func
    if settings.precision in ("bf16", "f16"):
        func = mixed(func, settings.precision)
    objective = len(forward.updated)
    func = differentiate(func, list(forward.trained), [objective])
    count = len(func.returned) - len(forward.trained)
    func.set_attr("state", forward.updated)
    # also where all is kept: a budget then changes no bit of the results
    func = within(func, settings.activation_memory, count)
    grads = range(count, len(func.returned))
    if settings.accumulate > 1:
        first = len(forward.names)
        last = len(func.args) - settings.scales
        mean = [objective, objective + 1, *grads]
        func = accumulate(func, settings.accumulate, range(first, last), mean, forward.stacked)
    if group().world > 1:
        func = _over_processes(func, forward, list(grads), settings.sharded)
    for rewrite in settings.rewrites:
        func = rewrite(func)
    return func, list(range(count))


def _over_processes(func: Func, forward: Forward, grads: list[int], sharded: bool) -> Func:
    """Gradients, losses and what the forward pass says of the batch averaged over processes."""
    updated = [r for _, r in forward.updated]
    objective = len(updated)
    floats = [r for r in updated if func.returned[r].tensor.dtype.is_float]
    return data_parallel(
        func,
        grads,
        [objective, objective + 1, *floats],
        shared=[] if forward.even else [r for r in updated if r not in floats],
        keys=[k for k, name in enumerate(forward.names) if name == KEY],
        scatter=group().world if sharded else 0,
    )


def _batch_args(func: Func, forward: Forward, settings: Settings) -> list[Value]:
    """The arguments of `func` that are the batch."""
    return list(func.args[len(forward.names) : len(func.args) - settings.scales])


def _updated(
    forward: Forward,
    settings: Settings,
    old: Mapping[str, Any],
    kept: Sequence[Any],
    grads: Sequence[Any],
    trace: Trace,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The next value of each state that changes, and what is logged.

    A step whose loss (or, where losses are scaled or clipped, gradient) is not finite changes
    nothing but the loss scale.
    """
    optimizer, updates = settings.optimizer, len(forward.updated)
    loss = kept[updates + 1]
    params = {forward.names[k]: old[forward.names[k]] for k in forward.trained}
    bare = {n.removeprefix("params/"): t for n, t in params.items()}
    shards = Sharded(trace, bare) if settings.sharded else None
    found = dict(zip(bare, grads, strict=True))
    good = nn.isfinite(loss)
    if settings.scales:
        found, whole = _unscaled(found, old[SCALE])
        good = good & (whole if shards is None else shards.everywhere(whole))
    slots = {n.removeprefix("slots/"): t for n, t in old.items() if n.startswith("slots/")}
    clipped: dict[str, Any] = {}
    if shards is not None:
        found, clipped = shards.clipped(optimizer, found)
        optimizer, bare = shards.optimizer(optimizer), shards.parts
    new_params, new_slots, logs = optimizer.apply(bare, found, slots, old[STEP], old[RATE])
    logs |= clipped
    if "grad_norm" in logs:
        good = good & nn.isfinite(logs["grad_norm"])
    if shards is not None:
        new_params = {n: nn.where(good, t, bare[n]) for n, t in new_params.items()}
        new_params = shards.whole(new_params)
    new = {f"slots/{n}": t for n, t in new_slots.items()}
    new |= {forward.names[k]: kept[r] for k, r in forward.updated}
    new[STEP] = old[STEP] + 1
    if shards is None:
        new |= {f"params/{n}": t for n, t in new_params.items()}
    new = {n: nn.where(good, t, old[n]) for n, t in new.items() if t is not old[n]}
    if shards is not None:
        new |= {f"params/{n}": t for n, t in new_params.items()}
    if settings.scales:
        new |= _next_scale(settings, old, good)
    logged = {"loss": loss, "lr": logs.pop("lr")} | logs
    if settings.scales:
        logged["loss_scale"] = old[SCALE]
    return new, logged


def _unscaled(grads: Mapping[str, Any], scale: Any) -> tuple[dict[str, Any], Any]:
    """Gradients divided by the loss scale, and whether all are finite."""
    whole: Any = None
    found = {}
    for name, g in grads.items():
        found[name] = g * (1.0 / scale).astype(g.dtype)
        most = nn.isfinite(nn.max(nn.abs(g)))
        whole = most if whole is None else whole & most
    return found, whole


def _next_scale(settings: Settings, old: Mapping[str, Any], good: Any) -> dict[str, Any]:
    """A dynamic scale halves behind a bad step and doubles behind many good ones."""
    if settings.loss_scale != "dynamic":
        return {}
    count = old[GOOD] + 1
    grown = count >= GROWTH_STEPS
    scale = nn.where(good, nn.where(grown, old[SCALE] * 2.0, old[SCALE]), old[SCALE] * 0.5)
    rest = nn.where(good & nn.logical_not(grown), count, nn.zeros_like(count))
    return {SCALE: nn.clip(scale, 2.0**-24, 2.0**24), GOOD: rest}


def _finished(
    trace: Trace,
    args: Sequence[Value],
    returned: Sequence[Value],
    outputs: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    states: Sequence[str],
    logs: tuple[str, ...],
    forward: Func,
) -> StepProgram:
    """The trace's block as the module of a step."""
    trace.b.emit(Return, *returned)
    func = Func(
        sym="main",
        inputs=tuple([a.name or "" for a in args]),
        outputs=tuple(outputs),
        state=tuple(pairs),
        regions=[trace.block],
    )
    order_updates(func)
    verify_donated(func)
    module = Module.make([func], "train_step")
    verify(module)
    return StepProgram(module, tuple(states), logs, forward)


__all__ = [
    "COUNTER", "GOOD", "GROWTH_STEPS", "KEY", "RATE", "SCALE", "STEP", "Forward", "Settings",
    "StepProgram", "gradients_of", "step_program",
]  # fmt: skip
