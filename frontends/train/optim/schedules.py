"""Learning-rate schedules: pure functions of the step, compiled into the train step.

A schedule maps the step (0 at the first update) to a rate, an f64 scalar.  There is nothing to
save or to restore: the step is part of the train state.  Steps count updates, not epochs.  A user's
own is any function of the step written with `nn`, or a subclass of `Schedule` with `at`.
May import: ir, frontends/nn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ....ir.errors import Error
from ... import nn
from ...nn.dispatch import as_tensor

Tensor = Any


@dataclass(frozen=True)
class Schedule:
    """A rate by the step; `schedule(step)` takes an int or an integer tensor and gives f64[]."""

    def at(self, t: Tensor) -> Tensor:
        """The rate at step `t`, an f64 scalar tensor."""
        raise Error("E0690", f"the schedule {type(self).__name__} does not define `at(t)`")

    def __call__(self, step: Tensor) -> Tensor:
        return as_tensor(self.at(as_tensor(step).astype("f64"))).astype("f64")

    def then(self, after: Any, at: int) -> Schedule:
        """This schedule for the first `at` steps, then `after`, counted from there."""
        return Chain((self, as_schedule(after)), (at,))


@dataclass(frozen=True)
class OfFunction(Schedule):
    """A schedule of any function of the step."""

    function: Callable[[Tensor], Tensor]

    def at(self, t: Tensor) -> Tensor:
        return self.function(t)


def as_schedule(rate: Any) -> Schedule:
    """A number as a constant, a function as a schedule; E0690 for what is neither."""
    if isinstance(rate, Schedule):
        return rate
    if callable(rate):
        return OfFunction(rate)
    try:
        if isinstance(rate, str):
            raise TypeError
        if (number := float(rate)) < 0:
            raise Error("E0690", "a rate is not negative", details=(f"found {number:g}",))
        return Constant(number)
    except (TypeError, ValueError):
        raise Error(
            "E0690",
            "a rate is a number, a schedule, or a function of the step",
            details=(f"found {rate!r}"[:120],),
            hint="an optimizer is made without parameters, optim.Adam(1e-3): the Trainer, or "
            ".attach(net), gives them",
        ) from None


@dataclass(frozen=True)
class Constant(Schedule):
    """The same rate at every step."""

    rate: float

    def at(self, t: Tensor) -> Tensor:
        return nn.full((), self.rate, dtype="f64")


@dataclass(frozen=True)
class Step(Schedule):
    """rate * gamma ** (step // size)."""

    rate: float
    size: int
    gamma: float = 0.1

    def at(self, t: Tensor) -> Tensor:
        return self.rate * self.gamma ** nn.floor(t / self.size)


@dataclass(frozen=True)
class Multistep(Schedule):
    """The rate times gamma for each of `steps` that has been reached."""

    rate: float
    steps: tuple[int, ...]
    gamma: float = 0.1

    def at(self, t: Tensor) -> Tensor:
        passed = nn.full((), 0.0, dtype="f64")
        for bound in self.steps:
            passed = passed + nn.where(t >= bound, 1.0, 0.0)
        return self.rate * self.gamma**passed


@dataclass(frozen=True)
class Exponential(Schedule):
    """rate * gamma ** step."""

    rate: float
    gamma: float

    def at(self, t: Tensor) -> Tensor:
        return self.rate * self.gamma**t


@dataclass(frozen=True)
class Linear(Schedule):
    """From rate * start to rate * end in `total` steps, then rate * end."""

    rate: float
    total: int
    start: float = 1 / 3
    end: float = 1.0

    def at(self, t: Tensor) -> Tensor:
        share = nn.minimum(t, float(self.total)) / self.total
        return self.rate * (self.start + (self.end - self.start) * share)


@dataclass(frozen=True)
class Polynomial(Schedule):
    """rate * (1 - step / total) ** power down to `end`, which it keeps."""

    rate: float
    total: int
    power: float = 1.0
    end: float = 0.0

    def at(self, t: Tensor) -> Tensor:
        left = 1.0 - nn.minimum(t, float(self.total)) / self.total
        return (self.rate - self.end) * left**self.power + self.end


@dataclass(frozen=True)
class Cosine(Schedule):
    """Linear from rate / warmup in `warmup` steps, then half a cosine from rate to `end` at `total`
    (Loshchilov and Hutter 2016), which it keeps.
    """

    rate: float
    total: int
    warmup: int = 0
    end: float = 0.0

    def at(self, t: Tensor) -> Tensor:
        span = max(1, self.total - self.warmup)
        share = nn.clip((t - self.warmup) / span, 0.0, 1.0)
        down = self.end + (self.rate - self.end) * (1.0 + nn.cos(math.pi * share)) / 2
        if not self.warmup:
            return down
        return nn.where(t < self.warmup, self.rate * (t + 1.0) / self.warmup, down)


@dataclass(frozen=True)
class WarmRestarts(Schedule):
    """Half a cosine from rate to `end` in `first` steps, again and again, each `factor` times as
    long as the one before (SGDR, Loshchilov and Hutter 2016).
    """

    rate: float
    first: int
    factor: int = 1
    end: float = 0.0

    def at(self, t: Tensor) -> Tensor:
        if self.factor == 1:
            begin, length = nn.floor(t / self.first) * self.first, float(self.first)
        else:  # the n-th cycle begins at first * (factor^n - 1) / (factor - 1)
            ratio = t / self.first * (self.factor - 1) + 1.0
            cycle = nn.floor(nn.log(ratio) / math.log(self.factor) + 1e-9)
            power = float(self.factor) ** cycle
            begin = self.first * (power - 1.0) / (self.factor - 1)
            length = self.first * power
        share = (t - begin) / length
        return self.end + (self.rate - self.end) * (1.0 + nn.cos(math.pi * share)) / 2


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from rate / div to rate in `warm` of the steps, then down to rate / div / final (Smith
    2018).

    `shape` is "cos" or "linear"; `three` adds a phase that mirrors the way up.
    """

    rate: float
    total: int
    warm: float = 0.3
    div: float = 25.0
    final: float = 1e4
    shape: str = "cos"
    three: bool = False

    def at(self, t: Tensor) -> Tensor:
        start, low = self.rate / self.div, self.rate / self.div / self.final
        top = float(self.warm * self.total) - 1
        last = float(self.total - 1)
        if not self.three:
            return nn.where(
                t <= top,
                self._between(start, self.rate, t / top if top else t),
                self._between(self.rate, low, nn.minimum((t - top) / (last - top), 1.0)),
            )
        mid = float(2 * self.warm * self.total) - 2
        down = self._between(self.rate, start, (t - top) / (mid - top))
        out = self._between(start, low, nn.minimum((t - mid) / (last - mid), 1.0))
        return nn.where(
            t <= top, self._between(start, self.rate, t / top), nn.where(t <= mid, down, out)
        )

    def _between(self, a: float, b: float, share: Tensor) -> Tensor:
        if self.shape == "linear":
            return a + (b - a) * share
        return b + (a - b) / 2 * (1.0 + nn.cos(math.pi * share))


@dataclass(frozen=True)
class Cyclic(Schedule):
    """Triangles between `low` and `high`: `up` steps up, `down` steps down (Smith 2015).

    `mode` is "triangular", "triangular2" (each triangle half as high) or "exp_range" (its height
    times gamma ** step).
    """

    low: float
    high: float
    up: int = 2000
    down: int | None = None
    mode: str = "triangular"
    gamma: float = 1.0

    def at(self, t: Tensor) -> Tensor:
        whole = float(self.up + (self.down if self.down is not None else self.up))
        peak = self.up / whole
        cycle = nn.floor(1.0 + t / whole)
        x = 1.0 + t / whole - cycle
        height = (self.high - self.low) * nn.where(x <= peak, x / peak, (x - 1.0) / (peak - 1.0))
        if self.mode == "triangular2":
            height = height / 2.0 ** (cycle - 1.0)
        elif self.mode == "exp_range":
            height = height * self.gamma**t
        return self.low + height


@dataclass(frozen=True)
class Warmup(Schedule):
    """`after` with its first `steps` steps scaled up linearly from 1 / steps."""

    after: Schedule
    steps: int

    def at(self, t: Tensor) -> Tensor:
        return self.after.at(t) * nn.minimum((t + 1.0) / self.steps, 1.0)


@dataclass(frozen=True)
class Chain(Schedule):
    """Schedules one after the other; `bounds[k]` is the step at which number k + 1 begins, and
    each counts its own steps from 0.
    """

    parts: tuple[Schedule, ...]
    bounds: tuple[int, ...]

    def at(self, t: Tensor) -> Tensor:
        rate = self.parts[0].at(t)
        for begin, part in zip(self.bounds, self.parts[1:], strict=True):
            rate = nn.where(t >= begin, part.at(nn.maximum(t - begin, 0.0)), rate)
        return rate


def _positive(name: str, **values: float) -> None:
    for what, value in values.items():
        if not value > 0:
            raise Error("E0690", f"{name}: {what} must be above 0", details=(f"found {value}",))


def constant(rate: float) -> Schedule:
    """The same rate at every step."""
    return Constant(rate)


def step(rate: float, size: int, gamma: float = 0.1) -> Schedule:
    """The rate times gamma after every `size` steps."""
    _positive("step", size=size)
    return Step(rate, size, gamma)


def multistep(rate: float, steps: Sequence[int], gamma: float = 0.1) -> Schedule:
    """The rate times gamma at each of `steps`."""
    return Multistep(rate, tuple(sorted(steps)), gamma)


def exponential(rate: float, gamma: float) -> Schedule:
    """The rate times gamma at every step."""
    return Exponential(rate, gamma)


def linear(rate: float, total: int, start: float = 1 / 3, end: float = 1.0) -> Schedule:
    """From rate * start to rate * end in `total` steps."""
    _positive("linear", total=total)
    return Linear(rate, total, start, end)


def polynomial(rate: float, total: int, power: float = 1.0, end: float = 0.0) -> Schedule:
    """From the rate to `end` in `total` steps along (1 - share) ** power."""
    _positive("polynomial", total=total)
    return Polynomial(rate, total, power, end)


def cosine(rate: float, total: int, warmup: int = 0, end: float = 0.0) -> Schedule:
    """`warmup` linear steps up to the rate, then half a cosine down to `end` at step `total`."""
    _positive("cosine", total=total)
    return Cosine(rate, total, warmup, end)


def warm_restarts(rate: float, first: int, factor: int = 1, end: float = 0.0) -> Schedule:
    """Cosines of `first`, first * factor, ... steps, each from the rate to `end`."""
    _positive("warm_restarts", first=first, factor=factor)
    return WarmRestarts(rate, first, factor, end)


def one_cycle(
    rate: float,
    total: int,
    warm: float = 0.3,
    div: float = 25.0,
    final: float = 1e4,
    shape: str = "cos",
    three: bool = False,
) -> Schedule:
    """Up to the rate and far down again; see `OneCycle`."""
    _positive("one_cycle", total=total, div=div, final=final)
    if shape not in ("cos", "linear"):
        raise Error("E0690", f"one_cycle: no shape '{shape}'", hint="cos or linear")
    return OneCycle(rate, total, warm, div, final, shape, three)


def cyclic(
    low: float,
    high: float,
    up: int = 2000,
    down: int | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> Schedule:
    """Triangles between two rates; see `Cyclic`."""
    _positive("cyclic", up=up)
    if mode not in ("triangular", "triangular2", "exp_range"):
        raise Error(
            "E0690", f"cyclic: no mode '{mode}'", hint="triangular, triangular2 or exp_range"
        )
    return Cyclic(low, high, up, down, mode, gamma)


def warmup(after: Any, steps: int) -> Schedule:
    """A schedule (or a number) scaled up linearly in its first `steps` steps."""
    _positive("warmup", steps=steps)
    return Warmup(as_schedule(after), steps)


def chain(*parts: tuple[Any, int] | Any) -> Schedule:
    """Schedules in order: (schedule, its number of steps), and the last one alone.

    `chain((warm, 100), (flat, 500), fall)`; a schedule counts its own steps from 0.
    """
    if not parts:
        raise Error("E0690", "chain: there is no schedule")
    schedules: list[Schedule] = []
    bounds: list[int] = []
    begin = 0
    for k, part in enumerate(parts):
        pair = part if isinstance(part, tuple) else (part, 0)
        schedules.append(as_schedule(pair[0]))
        begin += pair[1]
        if k + 1 < len(parts):
            _positive("chain", **{f"steps of part {k}": pair[1]})
            bounds.append(begin)
    return Chain(tuple(schedules), tuple(bounds))


__all__ = [
    "Chain", "Constant", "Cosine", "Cyclic", "Exponential", "Linear", "Multistep", "OneCycle",
    "Polynomial", "Schedule", "Step", "WarmRestarts", "Warmup", "as_schedule", "chain", "constant",
    "cosine", "cyclic", "exponential", "linear", "multistep", "one_cycle", "polynomial", "step",
    "warm_restarts", "warmup",
]  # fmt: skip
