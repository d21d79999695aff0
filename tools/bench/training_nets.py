"""The networks whose training is raced: written once, for `irc.nn` and for `torch.nn`.

Each builder takes the framework's module `m`; parameters have the same names in both, so that the
same weights load.  Batches are numpy arrays from a seed.  Imports neither framework.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Training:
    """A network, its batch, and its optimizer by name with torch's arguments."""

    name: str
    build: Callable[[Any, Any], Any]
    """(nn module, functional module) -> network."""
    batch: Callable[[np.random.Generator], tuple[Array, Array]]
    optimizer: str
    arguments: Mapping[str, float] = field(default_factory=dict)

    def arrays(self, seed: int = 0) -> tuple[Array, Array]:
        """Inputs and labels."""
        return self.batch(np.random.default_rng(seed))


def mlp(m: Any, f: Any) -> Any:
    """784-512-512-10."""
    return m.Sequential(
        m.Linear(784, 512), m.ReLU(), m.Linear(512, 512), m.ReLU(), m.Linear(512, 10)
    )


def cnn(m: Any, f: Any) -> Any:
    """Two convolutions with pools, two linear layers, for 1x28x28."""
    return m.Sequential(
        m.Conv2d(1, 32, 3, padding=1), m.ReLU(), m.MaxPool2d(2),
        m.Conv2d(32, 64, 3, padding=1), m.ReLU(), m.MaxPool2d(2),
        m.Flatten(), m.Linear(64 * 49, 128), m.ReLU(), m.Linear(128, 10),
    )  # fmt: skip


def resnet18(m: Any, f: Any) -> Any:
    """ResNet-18 in its CIFAR form (He 2015): 3x3 stem, stages of 64, 128, 256 and 512."""

    class Block(m.Module):  # type: ignore[misc]  # the framework is an argument
        def __init__(self, taken: int, given: int, stride: int) -> None:
            super().__init__()
            self.conv1 = m.Conv2d(taken, given, 3, stride=stride, padding=1, bias=False)
            self.bn1 = m.BatchNorm2d(given)
            self.conv2 = m.Conv2d(given, given, 3, padding=1, bias=False)
            self.bn2 = m.BatchNorm2d(given)
            self.short = m.Identity()
            if stride != 1 or taken != given:
                conv = m.Conv2d(taken, given, 1, stride=stride, bias=False)
                self.short = m.Sequential(conv, m.BatchNorm2d(given))

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(f.relu(self.bn1(self.conv1(x)))))
            return f.relu(y + self.short(x))

    class Net(m.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stem = m.Conv2d(3, 64, 3, padding=1, bias=False)
            self.bn = m.BatchNorm2d(64)
            widths = [64, 64, 128, 128, 256, 256, 512, 512]
            taken = [64, *widths[:-1]]
            strides = [1 if a == b else 2 for a, b in zip(taken, widths)]
            self.blocks = m.Sequential(*[Block(*row) for row in zip(taken, widths, strides)])
            self.head = m.Linear(512, 10)

        def forward(self, x: Any) -> Any:
            x = self.blocks(f.relu(self.bn(self.stem(x))))
            return self.head(x.mean((2, 3)))

    return Net()


VOCABULARY, WIDTH, HEADS, LAYERS, LENGTH = 1000, 256, 4, 4, 128


def gpt(m: Any, f: Any) -> Any:
    """A pre-norm GPT: 4 layers, width 256, 4 heads, vocabulary 1000, 128 tokens."""

    class Block(m.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = m.LayerNorm(WIDTH), m.LayerNorm(WIDTH)
            self.q, self.k, self.v = [m.Linear(WIDTH, WIDTH) for _ in range(3)]
            self.out = m.Linear(WIDTH, WIDTH)
            self.up, self.down = m.Linear(WIDTH, 4 * WIDTH), m.Linear(4 * WIDTH, WIDTH)

        def heads(self, x: Any) -> Any:
            return x.reshape(x.shape[0], LENGTH, HEADS, WIDTH // HEADS).swapaxes(1, 2)

        def forward(self, x: Any) -> Any:
            y = self.norm1(x)
            q, k, v = self.heads(self.q(y)), self.heads(self.k(y)), self.heads(self.v(y))
            mixed = f.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.swapaxes(1, 2).reshape(x.shape[0], LENGTH, WIDTH))
            return x + self.down(f.gelu(self.up(self.norm2(x))))

    class Net(m.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.token = m.Embedding(VOCABULARY, WIDTH)
            self.place = m.Parameter(m.init.normal_(m.Parameter(_zeros(m)), 0.0, 0.02))
            self.blocks = m.Sequential(*[Block() for _ in range(LAYERS)])
            self.norm, self.head = m.LayerNorm(WIDTH), m.Linear(WIDTH, VOCABULARY, bias=False)

        def forward(self, tokens: Any) -> Any:
            return self.head(self.norm(self.blocks(self.token(tokens) + self.place)))

    return Net()


def _zeros(m: Any) -> Any:
    """Room for the places, as the framework's Parameter takes it."""
    if m.__name__.startswith("torch"):
        import torch

        return torch.zeros(LENGTH, WIDTH)
    return np.zeros((LENGTH, WIDTH), np.float32)


def _images(rows: int, *shape: int) -> Callable[[np.random.Generator], tuple[Array, Array]]:
    return lambda rng: (
        rng.standard_normal((rows, *shape)).astype(np.float32),
        rng.integers(0, 10, rows),
    )


def _tokens(rng: np.random.Generator) -> tuple[Array, Array]:
    drawn = rng.integers(0, VOCABULARY, (2, 8, LENGTH))
    return drawn[0], drawn[1]


NETS = {
    n.name: n
    for n in (
        Training("mlp", mlp, _images(128, 784), "adam", {"lr": 1e-3}),
        Training("cnn", cnn, _images(64, 1, 28, 28), "sgd", {"lr": 0.01, "momentum": 0.9}),
        Training("resnet18", resnet18, _images(32, 3, 32, 32), "sgd",
                 {"lr": 0.01, "momentum": 0.9}),
        Training("gpt", gpt, _tokens, "adamw", {"lr": 1e-3, "weight_decay": 0.01}),
    )
}  # fmt: skip


FIRST = Training(
    "first", lambda m, f: m.Sequential(m.Linear(8, 10)), _images(4, 8), "adam", {"lr": 1e-3}
)
"""A step so small that what it leaves behind is what every use of the framework costs."""

__all__ = ["FIRST", "NETS", "Training"]
