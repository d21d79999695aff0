"""cond, scan, while_loop: eager as Python, traced as regions, with gradients and state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irc
from irc import nn

from .test_transforms import everywhere, slope

RNG = np.random.default_rng(4)
X = RNG.standard_normal(3)
XS = RNG.standard_normal((5, 3))


def branch(x: Any) -> Any:
    return nn.cond(x.sum() > 0, lambda x: (nn.sin(x).sum(), x * 2), lambda x: ((x * x).sum(), x), x)


@pytest.mark.parametrize("sign", [1, -1])
def test_cond(sign: int) -> None:
    x = np.abs(X) * sign
    first, second = everywhere(branch, x)[0]
    np.testing.assert_allclose(first.numpy(), np.sin(x).sum() if sign > 0 else (x * x).sum())
    np.testing.assert_allclose(second.numpy(), x * 2 if sign > 0 else x)
    for g in everywhere(irc.grad(lambda x: branch(x)[0]), x):
        np.testing.assert_allclose(g.numpy(), np.cos(x) if sign > 0 else 2 * x)
    assert "if(" in str(nn.trace(branch, x).module)
    assert nn.cond(True, lambda: 1, lambda: 2) == 1


def cumulative(c: Any, xs: Any, reverse: bool = False) -> Any:
    def body(carry: Any, x: Any) -> Any:
        state = nn.tanh(carry["c"] * 0.5 + x["x"])
        return {"c": state}, (state * state, x["x"])

    last, (squares, same) = nn.scan(body, {"c": c}, {"x": xs}, reverse=reverse)
    return last["c"].sum() + (squares * np.arange(5.0)[:, None]).sum() + same.sum()


@pytest.mark.parametrize("reverse", [False, True])
def test_scan(reverse: bool) -> None:
    def f(c: Any, xs: Any) -> Any:
        return cumulative(c, xs, reverse)

    everywhere(f, X, XS)
    by_c, by_xs = everywhere(irc.grad(f, (0, 1)), X, XS)[0]
    np.testing.assert_allclose(by_c.numpy(), slope(lambda c: f(nn.tensor(c), XS), X), 1e-6)
    want = slope(lambda xs: f(X, nn.tensor(xs.reshape(5, 3))), XS.reshape(-1)).reshape(5, 3)
    np.testing.assert_allclose(by_xs.numpy(), want, 1e-6)
    assert "scan(" in str(nn.trace(f, X, XS).module)


def test_scan_with_a_length_and_symbolic_extents() -> None:
    def power(x: Any) -> Any:
        return nn.scan(lambda c, _: (c * x, None), nn.ones(3, dtype="f64"), length=4)[0].sum()

    for value in everywhere(power, X):
        np.testing.assert_allclose(value.numpy(), (X**4).sum())
    for g in everywhere(irc.grad(power), X):
        np.testing.assert_allclose(g.numpy(), 4 * X**3)
    total = nn.trace(
        lambda xs: nn.scan(lambda c, x: (c + x, c), nn.zeros(3, dtype="f64"), xs),
        nn.Spec(("T", 3), "f64"),
    )
    last, before = total(XS)
    np.testing.assert_allclose(last.numpy(), XS.sum(0))
    np.testing.assert_allclose(before.numpy(), np.cumsum(XS, 0) - XS)


def test_scan_of_nothing() -> None:
    def f(xs: Any) -> Any:
        return nn.scan(lambda c, x: (c + x, {"y": c * x}), nn.ones(3, dtype="f64"), xs)

    for last, ys in everywhere(f, XS[:0]):
        assert last.tolist() == [1.0] * 3 and ys["y"].shape == (0, 3)


def test_while_loop() -> None:
    def steps(x: Any) -> Any:
        def small(n: Any, y: Any) -> Any:
            return (y * y).sum() < 50

        return nn.while_loop(small, lambda n, y: (n + 1, y * 2), (0, x), 9)

    count, y = everywhere(steps, X)[0]
    n = int(count)
    assert 0 < n < 9
    np.testing.assert_allclose(y.numpy(), X * 2.0**n)
    for g in everywhere(irc.grad(lambda x: steps(x)[1].sum()), X):
        np.testing.assert_allclose(g.numpy(), np.full(3, 2.0**n))
    double = lambda x: nn.while_loop(lambda v: v < 10, lambda v: v * 2, x)  # noqa: E731
    alone = everywhere(double, np.float64(1.5))
    assert [float(v) for v in alone] == [12.0] * 3
    assert int(nn.while_loop(lambda v: True, lambda v: v + 1, 0, max_trip=7)) == 7


def test_bodies_use_parameters_and_carry_state() -> None:
    layer, norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
    xs = RNG.standard_normal((4, 6, 3)).astype(np.float32)

    def f(xs: Any) -> Any:
        def body(carry: Any, x: Any) -> Any:
            y = norm(layer(x)) * nn.random.uniform(x.shape)
            return carry + y.sum(), y

        return nn.scan(body, 0.0, xs)

    start = norm.state_dict()
    nn.manual_seed(5)
    want, after, random = f(nn.tensor(xs)), norm.state_dict(), nn.random.state()
    for run in (nn.trace(f, xs), irc.compile(f)):
        norm.load_state_dict(start)
        nn.manual_seed(5)
        found = run(xs)
        np.testing.assert_allclose(found[0].numpy(), want[0].numpy(), 1e-5, 1e-5)
        np.testing.assert_allclose(found[1].numpy(), want[1].numpy(), 1e-4, 1e-5)
        for name, array in norm.state_dict().items():
            np.testing.assert_allclose(array, after[name], 1e-5, 1e-6)
        np.testing.assert_array_equal(nn.random.state()["counter"], random["counter"])


@pytest.mark.parametrize("value", [1.0, -1.0])
def test_branches_and_loops_advance_the_random_stream(value: float) -> None:
    def f(x: Any) -> Any:
        y = nn.cond(x > 0, lambda: nn.random.uniform(2), lambda: nn.zeros(2))
        z = nn.while_loop(lambda v: v < 2.0, lambda v: v + nn.random.uniform(()), nn.tensor(0.0))
        return y + nn.random.uniform(2) + z

    nn.manual_seed(6)
    want, after = f(nn.tensor(value)), nn.random.state()
    for run in (nn.trace(f, value), irc.compile(f)):
        nn.manual_seed(6)
        np.testing.assert_allclose(run(value).numpy(), want.numpy(), 1e-6)
        np.testing.assert_array_equal(nn.random.state()["counter"], after["counter"])


MISTAKES = [
    (lambda x: nn.cond(x.sum() > 0, lambda: x, lambda: x[:2]), "branches differ"),
    (lambda x: nn.cond(x.sum() > 0, lambda: x, lambda: (x, x)), "arranged differently"),
    (lambda x: nn.scan(lambda c, y: (c[:1], y), x, XS), "carry changes its type"),
    (lambda x: nn.scan(lambda c, y: ((c, c), y), x, XS), "arranged otherwise"),
    (lambda x: nn.scan(lambda c, y: c, x, XS), "must give"),
    (lambda x: nn.scan(lambda c, y: (c, y), x), "nothing to run over"),
    (lambda x: nn.scan(lambda c, y: (c, y), x, (XS, XS[:2])), "lengths differ"),
    (lambda x: nn.while_loop(lambda v: v.sum() < 5, lambda v: v.sum(), x), "changes its type"),
]


@pytest.mark.parametrize(("call", "says"), MISTAKES, ids=[s for _, s in MISTAKES])
def test_mistakes(call: Any, says: str) -> None:
    with pytest.raises(irc.Error, match=f"E0623.*{says}") as found:
        nn.trace(call, X)
    assert "test_control.py" in str(found.value)
