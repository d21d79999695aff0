"""Optimizers step by step against torch's, or the paper's formula where torch has none."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from irc.frontends import nn
from irc.frontends.train import optim
from irc.ir.errors import Error

STEPS = 20
SHAPES = ((5, 3), (4,), (), (2, 3, 4))


def drawn(seed: int, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def ours(optimizer: optim.Optimizer, dtype: str = "f64", shapes: Any = SHAPES) -> list[np.ndarray]:
    """All parameters after each of the steps, with gradients drawn by the step."""
    params: Any = {str(k): nn.tensor(x, dtype=dtype) for k, x in enumerate(drawn(0, shapes))}
    state = optimizer.init(params)
    seen = []
    for step in range(STEPS):
        grads = {str(k): nn.tensor(x, dtype=dtype) for k, x in enumerate(drawn(step + 1, shapes))}
        params, state, _ = optimizer.apply(params, grads, state, step)
        seen.append(np.concatenate([p.numpy().reshape(-1) for p in params.values()]))
    return seen


def torchs(make: Any, shapes: Any = SHAPES) -> list[np.ndarray]:
    torch = pytest.importorskip("torch")
    params = [torch.tensor(x, requires_grad=True) for x in drawn(0, shapes)]
    optimizer = make(torch.optim, params)
    seen = []
    for step in range(STEPS):
        for p, g in zip(params, drawn(step + 1, shapes), strict=True):
            p.grad = torch.tensor(g)
        optimizer.step()
        seen.append(np.concatenate([p.detach().numpy().reshape(-1) for p in params]))
    return seen


PEERS: dict[str, tuple[optim.Optimizer, Any]] = {
    "sgd": (optim.SGD(0.1), lambda o, p: o.SGD(p, lr=0.1)),
    "momentum": (
        optim.SGD(0.1, momentum=0.9, weight_decay=0.01),
        lambda o, p: o.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    ),
    "nesterov": (
        optim.SGD(0.1, momentum=0.9, nesterov=True),
        lambda o, p: o.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    ),
    "dampening": (
        optim.SGD(0.1, momentum=0.9, dampening=0.3),
        lambda o, p: o.SGD(p, lr=0.1, momentum=0.9, dampening=0.3),
    ),
    "adam": (
        optim.Adam(0.01, weight_decay=0.1),
        lambda o, p: o.Adam(p, lr=0.01, weight_decay=0.1),
    ),
    "amsgrad": (optim.Adam(0.01, amsgrad=True), lambda o, p: o.Adam(p, lr=0.01, amsgrad=True)),
    "adamw": (
        optim.AdamW(0.01, weight_decay=0.1),
        lambda o, p: o.AdamW(p, lr=0.01, weight_decay=0.1),
    ),
    "nadam": (
        optim.NAdam(0.01, weight_decay=0.1),
        lambda o, p: o.NAdam(p, lr=0.01, weight_decay=0.1),
    ),
    "radam": (
        optim.RAdam(0.01, weight_decay=0.1),
        lambda o, p: o.RAdam(p, lr=0.01, weight_decay=0.1),
    ),
    "adamax": (
        optim.Adamax(0.01, weight_decay=0.1),
        lambda o, p: o.Adamax(p, lr=0.01, weight_decay=0.1),
    ),
    "adagrad": (
        optim.Adagrad(0.1, lr_decay=0.1, weight_decay=0.1, initial=0.2),
        lambda o, p: o.Adagrad(
            p, lr=0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.2
        ),
    ),
    "rmsprop": (
        optim.RMSprop(0.01, momentum=0.5, centered=True, weight_decay=0.1),
        lambda o, p: o.RMSprop(p, lr=0.01, momentum=0.5, centered=True, weight_decay=0.1),
    ),
    "rmsprop_plain": (optim.RMSprop(0.01), lambda o, p: o.RMSprop(p, lr=0.01)),
    "adadelta": (
        optim.Adadelta(1.0, weight_decay=0.1),
        lambda o, p: o.Adadelta(p, lr=1.0, weight_decay=0.1),
    ),
    "adafactor": (
        optim.Adafactor(0.01, weight_decay=0.1),
        lambda o, p: o.Adafactor(p, lr=0.01, weight_decay=0.1),
    ),
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", PEERS)
def test_steps_equal_torchs(name: str) -> None:
    mine, theirs = PEERS[name]
    for step, (a, b) in enumerate(zip(ours(mine), torchs(theirs), strict=True)):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10, err_msg=f"step {step}")


def formula(update: Any) -> list[np.ndarray]:
    params = drawn(0)
    kept: list[dict[str, Any]] = [{} for _ in params]
    seen = []
    for step in range(STEPS):
        grads = drawn(step + 1)
        params = [update(p, g, k, step + 1) for p, g, k in zip(params, grads, kept, strict=True)]
        seen.append(np.concatenate([p.reshape(-1) for p in params]))
    return seen


def lion(p: Any, g: Any, kept: dict[str, Any], step: int) -> Any:
    m = kept.get("m", 0 * p)
    kept["m"] = 0.99 * m + 0.01 * g
    return p - 0.01 * (np.sign(0.9 * m + 0.1 * g) + 0.1 * p)


def lamb(p: Any, g: Any, kept: dict[str, Any], step: int) -> Any:
    m = kept["m"] = 0.9 * kept.get("m", 0 * p) + 0.1 * g
    v = kept["v"] = 0.999 * kept.get("v", 0 * p) + 0.001 * g * g
    along = m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-6) + 0.1 * p
    size, length = np.sqrt((p * p).sum()), np.sqrt((along * along).sum())
    return p - 0.01 * (size / length if size > 0 and length > 0 else 1.0) * along


def muon(p: Any, g: Any, kept: dict[str, Any], step: int) -> Any:
    m = kept["m"] = 0.95 * kept.get("m", 0 * p) + 0.05 * g
    along, scale = 0.05 * g + 0.95 * m, 1.0
    if p.ndim == 2:
        x = along.T if p.shape[0] > p.shape[1] else along
        x = x / max(np.linalg.norm(x), 1e-7)
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        along = x.T if p.shape[0] > p.shape[1] else x
        scale = math.sqrt(max(1.0, p.shape[0] / p.shape[1]))
    return p * (1 - 0.01 * 0.1) - 0.01 * scale * along


FORMULAS = {
    "lion": (optim.Lion(0.01, weight_decay=0.1), lion),
    "lamb": (optim.LAMB(0.01, weight_decay=0.1), lamb),
    "muon": (optim.Muon(0.01, weight_decay=0.1), muon),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_steps_equal_the_papers(name: str) -> None:
    mine, theirs = FORMULAS[name]
    for step, (a, b) in enumerate(zip(ours(mine), formula(theirs), strict=True)):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10, err_msg=f"step {step}")


EVERY = {**{k: v[0] for k, v in PEERS.items()}, **{k: v[0] for k, v in FORMULAS.items()}}


@pytest.mark.parametrize("name", EVERY)
def test_f32_stays_f32_and_near_f64(name: str) -> None:
    wide, narrow = ours(EVERY[name])[-1], ours(EVERY[name], "f32")[-1]
    assert narrow.dtype == np.float32
    # a sign that turns on a rounding moves an element by two rates
    np.testing.assert_allclose(narrow, wide, rtol=2e-3, atol=2e-3)


@pytest.mark.oracle
def test_clipping_by_norm_equals_torchs() -> None:
    torch = pytest.importorskip("torch")
    grads = drawn(3)
    params = [torch.zeros(g.shape, requires_grad=True, dtype=torch.float64) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.tensor(g)
    norm = torch.nn.utils.clip_grad_norm_(params, 1.5)
    found, logged = optim.SGD(0.1, clip_norm=1.5).clipped(
        {str(k): nn.tensor(g) for k, g in enumerate(grads)}
    )
    np.testing.assert_allclose(logged["grad_norm"].item(), norm.item(), rtol=1e-12)
    for g, p in zip(found.values(), params, strict=True):
        assert g is not None
        np.testing.assert_allclose(g.numpy(), p.grad.numpy(), rtol=1e-12)


def test_clipping_by_value() -> None:
    found, _ = optim.SGD(0.1, clip_value=0.5).clipped({"w": nn.tensor([-3.0, 0.25, 2.0])})
    assert found["w"] is not None and found["w"].numpy().tolist() == [-0.5, 0.25, 0.5]


def test_groups_and_masks() -> None:
    one = nn.tensor(np.ones(2))
    params: Any = {"body.weight": one, "body.bias": one, "head.weight": one}
    grads = {name: nn.tensor(np.zeros(2)) for name in params}
    optimizer = optim.SGD(
        0.5,
        weight_decay=0.1,
        decay_mask=lambda name, p: not name.endswith("bias"),
        groups=(optim.Group("head.*", rate=0.5, weight_decay=0.2),),
    )
    new, _, _ = optimizer.apply(params, grads, optimizer.init(params), 0)
    assert new["body.weight"].numpy()[0] == pytest.approx(1 - 0.5 * 0.1)
    assert new["body.bias"].numpy()[0] == 1.0
    assert new["head.weight"].numpy()[0] == pytest.approx(1 - 0.25 * 0.2)


def test_average_of_the_parameters() -> None:
    params: Any = {"w": nn.tensor(np.zeros(1))}
    optimizer = optim.SGD(1.0, ema=0.9)
    state = optimizer.init(params)
    for step in range(3):
        params, state, _ = optimizer.apply(params, {"w": nn.tensor(-np.ones(1))}, state, step)
    # parameters 1, 2, 3: 0.9 * (0.9 * 0.1 + 0.2) + 0.3
    assert state["w/ema"].numpy()[0] == pytest.approx(0.561)


def test_a_parameter_without_gradient_stays() -> None:
    params: Any = {"w": nn.tensor(np.ones(2)), "v": nn.tensor(np.ones(2))}
    optimizer = optim.Adam(0.1, weight_decay=0.5)
    new, state, _ = optimizer.apply(
        params, {"w": None, "v": params["v"]}, optimizer.init(params), 0
    )
    assert new["w"] is params["w"] and new["v"].numpy()[0] < 1
    assert not state["w/mean"].numpy().any()


def test_own_optimizer_in_a_few_lines() -> None:
    class Signs(optim.Optimizer):
        def update(self, p: Any, g: Any, slots: Any, lr: Any, step: Any) -> Any:
            return p - lr * nn.sign(g), slots

    params: Any = {"w": nn.tensor([1.0, 1.0])}
    new, _, logged = Signs(0.25).apply(params, {"w": nn.tensor([3.0, -2.0])}, {}, 0)
    assert new["w"].numpy().tolist() == [0.75, 1.25] and logged["lr"].item() == 0.25


def test_an_optimizer_without_update_says_so() -> None:
    with pytest.raises(Error, match="does not define `update`"):
        replace(optim.Optimizer(), lr=0.1).apply(
            {"w": nn.tensor([1.0])}, {"w": nn.tensor([1.0])}, {}, 0
        )


def test_attached_to_a_module_it_trains() -> None:
    nn.manual_seed(0)
    net = nn.Linear(3, 1)
    x = nn.tensor(np.random.default_rng(0).standard_normal((16, 3)))
    x = x.astype("f32")
    target = x @ nn.tensor([[1.0], [-2.0], [0.5]])
    opt = optim.Adam(0.1).attach(net)
    losses = []
    for _ in range(60):
        loss = nn.mean((net(x) - target) ** 2)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda net: optim.Adam(net.parameters()), "without parameters"),
        (lambda net: optim.Adam(net.parameters(), 1e-3), "without parameters"),
        (lambda net: optim.Adam("1e-3"), "a rate is a number"),
        (lambda net: optim.SGD(-0.1), "not negative"),
        (lambda net: optim.AdamW(1e-3, betas=(0.9, 1.5)), "betas are two numbers"),
        (lambda net: optim.AdamW(1e-3, (0.9, 0.9)), "weight_decay is a number"),
        (lambda net: optim.AdamW(clip_norm=-1.0), "clip_norm is above 0"),
        (lambda net: optim.AdamW(ema=2.0), "ema, a decay"),
    ],
)
def test_what_is_no_rate_is_refused_at_once(make: Any, said: str) -> None:
    with pytest.raises(Error, match=said):
        make(nn.Linear(2, 2))
