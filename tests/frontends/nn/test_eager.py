"""Eager gradients: the recording, `.grad`, memory, ops of one's own; against torch."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import irc
from irc import nn
from irc.ir.core import OPS, Array, Builder, Float, Grads, Op, Value, operand, sample
from irc.ir.types import TensorType

RNG = np.random.default_rng(1)


@pytest.fixture(scope="module")
def times_cube() -> Iterator[type[Op]]:
    """An op as a user writes one; it is forgotten behind the tests."""

    class TimesCube(Op):
        """x times y cubed: an op as a user writes one."""

        x = operand(Float)
        y = operand(Float)
        samples = (sample((3,), (3,)),)

        @staticmethod
        def infer(x: TensorType, y: TensorType) -> TensorType:
            return x

        @staticmethod
        def evaluate(x: Array, y: Array) -> Array:
            return np.asarray(x * y**3)

        def vjp(self, b: Builder, g: Value) -> Grads:
            square = b.mul(self.y, self.y)
            three = b.add(square, b.add(square, square))
            return b.mul(g, b.mul(square, self.y)), b.mul(g, b.mul(self.x, three))

        def decompose(self, b: Builder) -> Value:
            return b.mul(self.x, b.mul(self.y, b.mul(self.y, self.y)))  # type: ignore[no-any-return]

    yield TimesCube
    del OPS["times_cube"]


Case = tuple[str, Callable[[Any, Any, Any], Any]]
CASES: list[Case] = [
    ("chain", lambda f, x, y: f.tanh(x @ y) * 2 + 1),
    ("broadcast", lambda f, x, y: (x + y[:, 0]) * x.sum(0)),
    ("reused", lambda f, x, y: (x * x + x) / (x * x + 1)),
    ("softmax", lambda f, x, y: f.softmax(x @ y, -1)),
    ("index", lambda f, x, y: x[1:, ::2].sum() * y[0] + x[:, 1].sum()),
    ("rows", lambda f, x, y: x[[0, 0, 2]] @ y),
    ("where", lambda f, x, y: f.where(x > 0, x, x * 0.1) @ y),
    ("max", lambda f, x, y: (x @ y).max() if f is nn else (x @ y).amax()),
    ("shapes", lambda f, x, y: (x.T.reshape(2, 6) ** 2).sum(0)),
    ("norm", lambda f, x, y: f.sqrt((x * x).sum(1))),
    ("root", lambda f, x, y: f.log(f.exp(x).sum(1) + 1)),
]


@pytest.mark.parametrize(("name", "call"), CASES, ids=[n for n, _ in CASES])
def test_gradients_as_torch(name: str, call: Any) -> None:
    torch = pytest.importorskip("torch")
    x, y = RNG.standard_normal((3, 4)), RNG.standard_normal((4, 3))
    mine = [nn.tensor(a, requires_grad=True) for a in (x, y)]
    others = [torch.tensor(a, requires_grad=True) for a in (x, y)]
    got, want = call(nn, *mine), call(torch, *others)
    np.testing.assert_allclose(got.numpy(), want.detach().numpy(), 1e-10)
    weight = RNG.standard_normal(got.shape)
    (got * weight).sum().backward()
    (want * torch.tensor(weight)).sum().backward()
    for a, b in zip(mine, others):
        assert (a.grad is None) == (b.grad is None)
        if b.grad is not None:
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), 1e-9, 1e-12)


def test_backward_adds_and_may_be_repeated() -> None:
    x = nn.tensor([2.0, 3.0], requires_grad=True)
    loss = (x * x).sum()
    loss.backward()
    loss.backward()
    assert x.grad is not None and x.grad.tolist() == [8.0, 12.0]
    y = x * x
    y.backward(nn.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [12.0, 72.0]
    assert not x.grad.requires_grad
    x.backward(np.ones(2))
    assert x.grad.tolist() == [13.0, 73.0]


def test_what_has_no_gradient() -> None:
    x = nn.tensor([2.0, 3.0], requires_grad=True)
    with nn.no_grad():
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad
    assert not x.detach().requires_grad and not (x > 1).requires_grad
    assert not nn.argmax(x).requires_grad
    (x * x.detach() + nn.stop_gradient(x * 100)).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0, 3.0]
    with pytest.raises(irc.Error, match="E0615.*\n.*test_eager"):
        nn.tensor([1.0]).sum().backward()
    with pytest.raises(irc.Error, match="E0615"):
        (x * 2).backward()
    with pytest.raises(irc.Error, match="E0615"):
        (x * 2).sum().backward(np.ones(3))
    with pytest.raises(irc.Error, match="E0615"):
        nn.tensor([1]).requires_grad_()

    @nn.no_grad()
    def quiet() -> Any:
        return x * 2

    assert not quiet().requires_grad


def test_new_values_leave_the_recording_as_it_was() -> None:
    x = nn.Parameter(np.array([2.0, 3.0]))
    loss = (x * x * x).sum()
    x.assign([100.0, 100.0])
    loss.backward()
    assert x.grad is not None and x.grad.tolist() == [12.0, 27.0]
    assert x.tolist() == [100.0, 100.0]
    x.data = x.data * 0.5
    assert x.tolist() == [50.0, 50.0] and x.is_leaf
    with pytest.raises(irc.Error, match="E0612"):
        x.assign(np.ones(3))


def test_dropping_the_loss_frees_everything() -> None:
    gc.collect()
    gc.disable()
    try:
        x = nn.tensor(np.ones(4), requires_grad=True)
        middle = nn.exp(x)
        gone = weakref.ref(middle)
        loss = nn.tanh(middle).sum()
        loss.backward()
        del middle
        assert gone() is not None
        del loss
        assert gone() is None  # by reference counts alone: no cycles
    finally:
        gc.enable()


def _pages() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def test_memory_stays_flat_over_two_hundred_steps() -> None:
    net = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 32))
    x = RNG.standard_normal((64, 32)).astype(np.float32)

    def step() -> None:
        net.zero_grad()
        (net(x) ** 2).mean().backward()
        with nn.no_grad():
            for p in net.parameters():
                p.assign(p - p.grad * 0.01)

    for _ in range(20):
        step()
    before = _pages()
    for _ in range(200):
        step()
    assert _pages() - before < 512  # 2 MB; the arrays of a step are about 0.3 MB


def test_an_op_of_ones_own(times_cube: type[Op]) -> None:
    x, y = [nn.tensor(RNG.standard_normal(3), requires_grad=True) for _ in range(2)]

    def call(x: Any, y: Any) -> Any:
        return nn.apply(times_cube, x, y).sum()

    call(x, y).backward()
    np.testing.assert_allclose(x.grad.numpy(), y.numpy() ** 3)  # type: ignore[union-attr]
    np.testing.assert_allclose(y.grad.numpy(), 3 * x.numpy() * y.numpy() ** 2)  # type: ignore[union-attr]
    found = irc.compile(irc.grad(call, 1))(x, y)
    np.testing.assert_allclose(found.numpy(), 3 * x.numpy() * y.numpy() ** 2)


def test_a_long_recording_needs_no_recursion() -> None:
    x = nn.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(5_000):
        y = y * 1.0
    y.backward()
    assert float(x.grad) == 1.0  # type: ignore[arg-type]
    del y


def test_the_random_stream() -> None:
    nn.manual_seed(7)
    uniform = nn.random.uniform(1000, dtype="f64")
    first = uniform, nn.random.normal((1000,)), nn.random.randint(0, 9, 50)
    state = nn.random.state()
    rest = nn.random.randn(5)
    nn.random.set_state(state)
    np.testing.assert_array_equal(rest.numpy(), nn.random.randn(5).numpy())
    nn.manual_seed(7)
    np.testing.assert_array_equal(first[0].numpy(), nn.random.uniform((1000,), dtype="f64").numpy())
    assert abs(float(first[0].mean()) - 0.5) < 0.05 and abs(float(first[1].std()) - 1) < 0.1
    assert set(first[2].tolist()) == set(range(9))
    other = nn.random.Generator(7)
    same = nn.random.uniform(1000, dtype="f64", generator=other)
    np.testing.assert_array_equal(uniform.numpy(), same.numpy())
    assert sorted(nn.random.permutation(20).tolist()) == list(range(20))
    assert abs(float(nn.random.normal((4000,), 1.0, 2.0, "f64").std()) - 2) < 0.2
    with pytest.raises(irc.Error, match="E0627"):
        nn.random.set_state({"key": [1]})
