"""Transfer from an imported ONNX model: freeze the body, replace the head, fine-tune.

A network learns the digits 0 to 4 and leaves as ONNX, as any exporter would write it.  That file is
imported, cut before its last layer, and learns the digits 5 to 9 from 20 images of each.

    python examples/transfer.py [--epochs 15]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import irc
from irc import nn, optim, train


def task(low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the digits low to high, labels counted from 0."""
    found = load_digits()
    chosen = (found.target >= low) & (found.target <= high)
    images = (found.images[chosen] / 16.0).astype(np.float32)[:, None]
    return images, found.target[chosen].astype(np.int64) - low


def pretrained(path: Path, epochs: int) -> None:
    """An ONNX model of the first task."""
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * 16, 5),
    )  # fmt: skip
    x, y = task(0, 4)
    t = train.Trainer(net, loss="cross_entropy", optimizer=optim.Adam(2e-3), metrics=["accuracy"])
    t.fit((x, y), epochs=epochs, batch_size=64)
    irc.export_onnx(net, path, example=nn.Spec(("N", 1, 8, 8)))


class Transferred(nn.Module):
    """The imported body, which keeps its weights, and a head of its own."""

    def __init__(self, body: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.body = body.requires_grad_(False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Any) -> Any:
        return self.head(self.body(x))


def fit(epochs: int = 15, pretraining: int = 5) -> float:
    """The accuracy on the digits 5 to 9 that were not trained on."""
    nn.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.onnx"
        pretrained(path, pretraining)
        imported = nn.from_ir(irc.load(path))
    body = imported.cut(before=imported.steps[-1])
    x, y = task(5, 9)
    few = np.concatenate([np.flatnonzero(y == c)[:20] for c in range(5)])
    rest = np.setdiff1d(np.arange(len(y)), few)
    width = body(nn.tensor(x[:1])).shape[1]
    net = Transferred(body, width, 5)
    t = train.Trainer(net, loss="cross_entropy", optimizer=optim.Adam(5e-3), metrics=["accuracy"])
    t.fit((x[few], y[few]), epochs=epochs, batch_size=20)
    return float(t.evaluate((x[rest], y[rest]))["accuracy"])


def main() -> None:
    """Train and print the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    given = parser.parse_args()
    print(f"accuracy on images not trained on: {fit(given.epochs):.4f}")


if __name__ == "__main__":
    main()
