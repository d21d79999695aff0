"""Loss curves of small networks against torch's: the same weights, the same batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from irc import nn, optim
from irc.frontends.train.step import TrainStep

torch = pytest.importorskip("torch")
tnn: Any = torch.nn

pytestmark = pytest.mark.oracle
ROWS = 16


def mlp(m: Any) -> Any:
    return m.Sequential(m.Linear(12, 24), m.Tanh(), m.Linear(24, 24), m.ReLU(), m.Linear(24, 5))


def cnn(m: Any) -> Any:
    return m.Sequential(
        m.Conv2d(2, 6, 3, padding=1), m.BatchNorm2d(6), m.ReLU(), m.MaxPool2d(2),
        m.Conv2d(6, 8, 3, stride=2), m.ReLU(), m.Flatten(), m.Linear(8, 5),
    )  # fmt: skip


def recurrent(m: Any) -> Any:
    class Net(m.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = m.LSTM(6, 10, batch_first=True)
            self.head = m.Linear(10, 5)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    return Net()


def attention(m: Any) -> Any:
    class Net(m.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = m.TransformerEncoderLayer(
                8, 2, 16, dropout=0.0, batch_first=True, norm_first=True, activation="gelu"
            )
            self.head = m.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            return self.head(self.block(x).mean(1))

    return Net()


CASES: dict[str, tuple[Callable[[Any], Any], tuple[int, ...], Any, Any]] = {
    "mlp": (
        mlp, (12,), optim.Adam(1e-2), lambda p: torch.optim.Adam(p, lr=1e-2),
    ),
    "cnn": (
        cnn, (2, 8, 8), optim.SGD(0.05, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    ),
    "lstm": (
        recurrent, (7, 6), optim.RMSprop(1e-3), lambda p: torch.optim.RMSprop(p, lr=1e-3),
    ),
    "attention": (
        attention, (6, 8), optim.AdamW(1e-2, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    ),
}  # fmt: skip


def batches(shape: tuple[int, ...], steps: int, dtype: Any) -> Any:
    rng = np.random.default_rng(1)
    for _ in range(steps):
        yield rng.standard_normal((ROWS, *shape)).astype(dtype), rng.integers(0, 5, ROWS)


def curves(name: str, steps: int, dtype: str, target: str) -> tuple[list[float], list[float]]:
    build, shape, optimizer, peers = CASES[name]
    torch.manual_seed(0)
    theirs = build(tnn).to(getattr(torch, dtype)).train()
    mine = build(nn).to("f64" if dtype == "float64" else "f32")
    mine.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    step = TrainStep(mine, loss="cross_entropy", optimizer=optimizer, target=target, threads=1)
    peer = peers(theirs.parameters())
    ours, others = [], []
    for x, y in batches(shape, steps, dtype):
        loss = tnn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(y))
        peer.zero_grad()
        loss.backward()
        peer.step()
        others.append(loss.item())
        ours.append(float(step((x, y)).logs["loss"]))
    return ours, others


@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "lstm", pytest.param("attention", marks=pytest.mark.long)]
)
def test_a_hundred_steps_in_f64(name: str) -> None:
    ours, theirs = curves(name, 100, "float64", "cpu")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_ten_steps_in_f32(name: str) -> None:
    ours, theirs = curves(name, 10, "float32", "cpu")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_the_reference_takes_the_same_way() -> None:
    ours, theirs = curves("mlp", 20, "float64", "reference")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
