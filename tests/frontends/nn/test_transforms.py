"""grad, value_and_grad, higher orders, custom gradients, remat: eager, interpreted, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irc
from irc import nn
from irc.frontends.nn.custom import custom_vjp

RNG = np.random.default_rng(3)
X = RNG.standard_normal(4)
W = RNG.standard_normal((4, 3))


def everywhere(function: Any, *args: Any) -> list[Any]:
    """The results eager, by the interpreter, and compiled: all alike."""
    found = [function(*args), nn.trace(function, *args)(*args), irc.compile(function)(*args)]
    for other in found[1:]:
        alike(other, found[0])
    return found


def alike(found: Any, want: Any) -> None:
    if isinstance(want, dict):
        assert list(found) == list(want)
        found, want = list(found.values()), list(want.values())
    if isinstance(want, (tuple, list)):
        assert len(found) == len(want)
        for a, b in zip(found, want):
            alike(a, b)
    else:
        np.testing.assert_allclose(np.asarray(found), np.asarray(want), 1e-9, 1e-12)


def slope(function: Any, x: Any) -> Any:
    """Central differences of a function of a vector."""
    step, out = 1e-6, np.empty_like(x)
    for k in range(x.size):
        moved = x.copy()
        moved[k] += step
        up = float(function(moved))
        moved[k] -= 2 * step
        out[k] = (up - float(function(moved))) / (2 * step)
    return out


def test_grad_of_a_sum_of_squares() -> None:
    found = irc.grad(lambda w: nn.sum(w * w))(np.array([1.0, 2.0]))
    assert found.tolist() == [2.0, 4.0] and not found.requires_grad
    for g in everywhere(irc.grad(lambda w: nn.sum(w * w)), X):
        np.testing.assert_allclose(g.numpy(), 2 * X)


def test_arguments_and_containers() -> None:
    def loss(p: Any, x: Any, scale: Any) -> Any:
        return (nn.tanh(x @ p["w"] + p["b"][0]) * scale).sum()

    p = {"w": W, "b": [np.zeros(3)]}
    found = everywhere(irc.grad(loss), p, X, 2.0)[0]
    assert list(found) == ["w", "b"] and found["w"].shape == (4, 3)
    both = irc.grad(loss, (1, 2))(p, X, 2.0)
    want = slope(lambda x: loss(p, nn.tensor(x), 2.0), X)
    np.testing.assert_allclose(both[0].numpy(), want, 1e-6)
    alike(irc.grad(loss, 1)(p, X, 2.0), both[0])
    value, gradient = everywhere(irc.value_and_grad(loss, 1), p, X, 2.0)[0]
    alike(value, loss(p, nn.tensor(X), 2.0))
    alike(gradient, both[0])


def test_aux_results_and_keywords() -> None:
    def loss(x: Any, *, power: int) -> Any:
        y = x**power
        return y.sum(), {"y": y}

    (value, aux), gradient = irc.value_and_grad(loss, has_aux=True)(X, power=3)
    np.testing.assert_allclose(gradient.numpy(), 3 * X**2)
    np.testing.assert_allclose(aux["y"].numpy(), X**3)
    assert abs(float(value) - (X**3).sum()) < 1e-9
    gradient, aux = irc.grad(loss, has_aux=True)(X, power=2)
    np.testing.assert_allclose(gradient.numpy(), 2 * X)
    with pytest.raises(irc.Error, match="E0624"):
        irc.grad(lambda x: x.sum(), has_aux=True)(X)


def test_higher_orders() -> None:
    def f(x: Any) -> Any:
        return nn.sum(nn.sin(x) * x**3)

    orders = [irc.grad(f)]
    for _ in range(2):
        orders.append(irc.grad(lambda x, g=orders[-1]: nn.sum(g(x))))
    for lower, higher in zip([f, *orders], orders):
        want = slope(lambda x, f=lower: f(nn.tensor(x)).sum(), X)
        np.testing.assert_allclose(everywhere(higher, X)[0].numpy(), want, 1e-5, 1e-6)


def test_a_gradient_penalty_reaches_the_parameters() -> None:
    torch = pytest.importorskip("torch")
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    theirs = torch.nn
    other = theirs.Sequential(theirs.Linear(4, 5), theirs.Tanh(), theirs.Linear(5, 1)).double()
    net.load_state_dict(other.state_dict())

    def penalty(net: Any, x: Any) -> Any:
        return (irc.grad(lambda x: net(x).sum())(x) ** 2).sum()

    penalty(net, nn.tensor(W.T)).backward()
    x = torch.tensor(W.T, requires_grad=True)
    (g,) = torch.autograd.grad(other(x).sum(), x, create_graph=True)
    (g**2).sum().backward()
    compiled = irc.compile(irc.grad(penalty))(net, W.T)
    for name, p in other.named_parameters():
        want = np.zeros(p.shape) if p.grad is None else p.grad.numpy()
        np.testing.assert_allclose(compiled[name].numpy(), want, 1e-8, 1e-12)
        mine = dict(net.named_parameters())[name].grad
        np.testing.assert_allclose(0 if mine is None else mine.numpy(), want, 1e-8, 1e-12)


def test_what_comes_through_the_closure_is_constant() -> None:
    def outer(x: Any) -> Any:
        y = x * 2
        return (irc.grad(lambda z: (z * y).sum())(x) * x).sum()

    for g in everywhere(irc.grad(outer), X):  # d/dx (2x . x)
        np.testing.assert_allclose(g.numpy(), 4 * X)
    w = nn.tensor(X, requires_grad=True)
    loss, gradient = irc.value_and_grad(lambda z: (z * w).sum())(X * 3)
    np.testing.assert_allclose(gradient.numpy(), X)
    loss.backward()
    np.testing.assert_allclose(w.grad.numpy(), X * 3)  # type: ignore[union-attr]


def test_gradients_of_what_is_there() -> None:
    x = nn.tensor(X, requires_grad=True)
    middle = nn.exp(x)
    loss = (middle * middle).sum()
    by_middle, by_x, by_other = nn.gradients(loss, [middle, x, nn.tensor(X)])
    np.testing.assert_allclose(by_middle.numpy(), 2 * np.exp(X))
    np.testing.assert_allclose(by_x.numpy(), 2 * np.exp(2 * X))
    assert by_other is None

    def call(x: Any) -> Any:
        y = nn.exp(x)
        return nn.gradients((y * y).sum(), [x, y])

    alike(nn.trace(call, X)(X), [by_x, by_middle])


def test_stop_gradient() -> None:
    for g in everywhere(irc.grad(lambda x: (irc.stop_gradient(x * x) * x).sum()), X):
        np.testing.assert_allclose(g.numpy(), X * X)


def clipped() -> Any:
    @irc.custom_vjp
    def straight(x: Any, y: Any) -> Any:
        return nn.round(x) * y

    @straight.backward
    def _(inputs: Any, g: Any) -> Any:
        return nn.clip(g, -0.5, 0.5), None

    return straight


def test_a_gradient_of_ones_own() -> None:
    straight = clipped()
    for g in everywhere(irc.grad(lambda x: (straight(x, 3.0) * X).sum()), X):
        np.testing.assert_allclose(g.numpy(), np.clip(X, -0.5, 0.5))
    x = nn.tensor(X, requires_grad=True)
    y = nn.tensor(X, requires_grad=True)
    straight(x, y).sum().backward()
    assert x.grad is not None and set(x.grad.tolist()) == {0.5}
    assert y.grad is None or not y.grad.numpy().any()
    np.testing.assert_allclose(straight(X, 2.0).numpy(), np.round(X) * 2)
    assert straight.__name__ == "straight"


def test_residuals_and_second_order() -> None:
    exp = custom_vjp(lambda x: nn.exp(x))

    def forward(x: Any) -> Any:
        y = nn.exp(x)
        return y, {"y": y}

    exp.defvjp(forward, lambda residuals, g: (g * residuals["y"],))

    def f(x: Any) -> Any:
        return (exp(x) * x).sum()

    for g in everywhere(irc.grad(f), X):
        np.testing.assert_allclose(g.numpy(), np.exp(X) * (X + 1))
    for g in everywhere(irc.grad(lambda x: irc.grad(f)(x).sum()), X):
        np.testing.assert_allclose(g.numpy(), np.exp(X) * (X + 2))
    scale = nn.Parameter(np.ones(4))
    odd = custom_vjp(lambda x: x, lambda residuals, g: g * scale)
    for g in everywhere(irc.grad(lambda x: (odd(x) ** 2).sum()), X):
        np.testing.assert_allclose(g.numpy(), 2 * X)


def test_mistakes_in_a_gradient_of_ones_own() -> None:
    for backward in (
        lambda r, g: (g, g, g), lambda r, g: (g[:2],), lambda r, g: ((g, g),),
    ):  # fmt: skip
        wrong = custom_vjp(lambda x: x * 2, backward)
        gradient = irc.grad(lambda x, f=wrong: f(x).sum())
        for call in (gradient, irc.compile(gradient)):
            with pytest.raises(irc.Error, match="E0625"):
                call(X)
    lonely = custom_vjp(lambda x: x * 2)
    with pytest.raises(irc.Error, match="E0625.*backward"):
        irc.grad(lambda x: lonely(x).sum())(X)


def test_remat_computes_again() -> None:
    def block(x: Any) -> Any:
        return nn.tanh(nn.sin(x) * 2)

    def loss(x: Any) -> Any:
        return (nn.remat(block)(nn.remat(block)(x)) ** 2).sum()

    plain = irc.grad(lambda x: (block(block(x)) ** 2).sum())(X)
    for g in everywhere(irc.grad(loss), X):
        np.testing.assert_allclose(g.numpy(), plain.numpy(), 1e-12)
    assert "remat" in str(nn.trace(loss, X).module)
    assert "recompute" in str(nn.trace(irc.grad(loss), X).module)
    dropping = nn.remat(lambda x: x * nn.random.uniform(x.shape, dtype="f64"))
    nn.manual_seed(3)
    want, after = irc.grad(lambda x: dropping(x).sum())(X), nn.random.state()
    nn.manual_seed(3)
    found = irc.compile(irc.grad(lambda x: dropping(x).sum()))(X)
    np.testing.assert_allclose(found.numpy(), want.numpy(), 1e-12)
    np.testing.assert_array_equal(nn.random.state()["counter"], after["counter"])


def test_mistakes_name_the_argument() -> None:
    with pytest.raises(irc.Error, match="E0624.*one float") as found:
        irc.grad(lambda x: x * 2)(X)
    assert "test_transforms.py" in str(found.value) and "f64[4]" in str(found.value)
    with pytest.raises(irc.Error, match="E0624.*argument 0.k is no float"):
        irc.grad(lambda p: p["k"].sum())({"k": np.arange(3)})
    with pytest.raises(irc.Error, match="E0624.*no argument 2"):
        irc.grad(lambda x: x.sum(), 2)(X)
    assert irc.grad(lambda x, n: x.sum() * n)(X, 3).tolist() == [3.0] * 4


def test_second_order_through_a_recurrent_layer() -> None:
    net = nn.LSTM(3, 4).double()
    x = RNG.standard_normal((5, 2, 3))

    def first(x: Any) -> Any:
        return irc.grad(lambda x: (net(x)[0] ** 2).sum())(x)

    found = everywhere(irc.grad(lambda x: (first(x) ** 2).sum()), x)[0].numpy()
    step, direction = 1e-6, RNG.standard_normal(x.shape)
    ends = [float((first(x + s * direction) ** 2).sum()) for s in (step, -step)]
    np.testing.assert_allclose((found * direction).sum(), (ends[0] - ends[1]) / (2 * step), 1e-5)
