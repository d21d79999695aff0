"""Schedules against torch's schedulers, step by step, and compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc.frontends.train import optim
from irc.ir.errors import Error

STEPS = 20


def rates(schedule: optim.Schedule, steps: int = STEPS) -> list[float]:
    return [schedule(k).item() for k in range(steps)]


def torchs(make: Any, rate: float = 0.1, steps: int = STEPS) -> list[float]:
    torch = pytest.importorskip("torch")
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=rate)
    schedule = make(torch.optim.lr_scheduler, optimizer)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


PEERS: dict[str, tuple[optim.Schedule, Any]] = {
    "constant": (optim.constant(0.1), lambda s, o: s.LambdaLR(o, lambda k: 1.0)),
    "step": (optim.step(0.1, 3, 0.5), lambda s, o: s.StepLR(o, 3, 0.5)),
    "multistep": (
        optim.multistep(0.1, [2, 7, 8], 0.3),
        lambda s, o: s.MultiStepLR(o, [2, 7, 8], 0.3),
    ),
    "exponential": (optim.exponential(0.1, 0.9), lambda s, o: s.ExponentialLR(o, 0.9)),
    "linear": (optim.linear(0.1, 6), lambda s, o: s.LinearLR(o, total_iters=6)),
    "polynomial": (
        optim.polynomial(0.1, 12, 2.0),
        lambda s, o: s.PolynomialLR(o, 12, 2.0),
    ),
    "cosine": (
        optim.cosine(0.1, STEPS, end=0.01),
        lambda s, o: s.CosineAnnealingLR(o, STEPS, 0.01),
    ),
    "warm_restarts": (
        optim.warm_restarts(0.1, 4, end=0.01),
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 4, 1, 0.01),
    ),
    "longer_restarts": (
        optim.warm_restarts(0.1, 3, 2),
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2),
    ),
    "one_cycle": (optim.one_cycle(0.1, STEPS), lambda s, o: s.OneCycleLR(o, 0.1, STEPS + 0)),
    "one_cycle_linear": (
        optim.one_cycle(0.1, STEPS, shape="linear", three=True),
        lambda s, o: s.OneCycleLR(o, 0.1, STEPS, anneal_strategy="linear", three_phase=True),
    ),
    "cyclic": (optim.cyclic(0.1, 0.3, 4), lambda s, o: s.CyclicLR(o, 0.1, 0.3, 4)),
    "cyclic2": (
        optim.cyclic(0.1, 0.3, 4, 2, mode="triangular2"),
        lambda s, o: s.CyclicLR(o, 0.1, 0.3, 4, 2, mode="triangular2"),
    ),
    "cyclic_exp": (
        optim.cyclic(0.1, 0.3, 4, mode="exp_range", gamma=0.9),
        lambda s, o: s.CyclicLR(o, 0.1, 0.3, 4, mode="exp_range", gamma=0.9),
    ),
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", PEERS)
def test_rates_equal_torchs(name: str) -> None:
    mine, theirs = PEERS[name]
    steps = STEPS - 1 if name.startswith("one_cycle") else STEPS  # torch refuses a step too many
    np.testing.assert_allclose(rates(mine, steps), torchs(theirs, steps=steps), rtol=1e-7, atol=0)


def test_warmup_then_cosine() -> None:
    found = rates(optim.cosine(1.0, total=10, warmup=4), 12)
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found[4] == pytest.approx(1.0) and found[7] == pytest.approx(0.5)
    assert found[10] == found[11] == pytest.approx(0.0)


def test_warmup_of_any_schedule() -> None:
    assert rates(optim.warmup(0.5, 5), 6) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


def test_chain_counts_each_part_from_zero() -> None:
    chained = optim.chain((1.0, 2), (optim.exponential(0.8, 0.5), 3), 0.05)
    assert rates(chained, 7) == pytest.approx([1.0, 1.0, 0.8, 0.4, 0.2, 0.05, 0.05])
    joined = optim.constant(1.0).then(optim.exponential(0.8, 0.5), at=2)
    assert rates(joined, 5) == pytest.approx([1.0, 1.0, 0.8, 0.4, 0.2])


def test_own_schedule_is_a_function() -> None:
    assert rates(optim.as_schedule(lambda t: 1.0 / (1.0 + t)), 3) == pytest.approx(
        [1, 1 / 2, 1 / 3]
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.as_schedule("fast"),
        lambda: optim.step(0.1, 0),
        lambda: optim.one_cycle(0.1, 10, shape="square"),
        lambda: optim.cyclic(0.1, 0.2, mode="round"),
        lambda: optim.chain(),
        lambda: optim.Schedule()(0),
    ],
)
def test_what_is_no_schedule_is_refused(make: Any) -> None:
    with pytest.raises(Error) as caught:
        make()
    assert caught.value.code == "E0690"
