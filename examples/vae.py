"""A variational autoencoder of scikit-learn's digits, in eager style: no Trainer, no compiled step.

Every line runs at once, so print and a debugger work anywhere in it; `irc.compile` of `loss_of`
would give the same numbers.

    python examples/vae.py [--epochs 20]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from irc import data, nn, optim

LATENT = 8


class VAE(nn.Module):
    """64 pixels to a normal distribution over 8 numbers, and back (Kingma and Welling 2013)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, 96), nn.ReLU(), nn.Linear(96, 64))

    def forward(self, x: Any) -> tuple[Any, Any, Any]:
        mean, logvar = nn.split(self.encoder(x), 2, -1)
        noise = nn.random.normal(mean.shape)
        return self.decoder(mean + nn.exp(0.5 * logvar) * noise), mean, logvar


def loss_of(net: VAE, x: Any) -> Any:
    """The negative evidence lower bound per image."""
    logits, mean, logvar = net(x)
    pixels = nn.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    divergence = -0.5 * nn.sum(1 + logvar - mean**2 - nn.exp(logvar))
    return (pixels + divergence) / x.shape[0]


def fit(epochs: int = 20, rows: int | None = None) -> list[float]:
    """The mean loss of each epoch."""
    images = (load_digits().data[:rows] / 16.0).astype(np.float32)
    nn.manual_seed(0)
    net = VAE()
    optimizer = optim.Adam(3e-3).attach(net)
    history = []
    for epoch in range(epochs):
        losses = []
        for x in data.arrays(images).shuffle(seed=epoch).batch(64):
            loss = loss_of(net, nn.tensor(x))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        history.append(float(np.mean(losses)))
        print(f"epoch {epoch + 1}  loss {history[-1]:.3f}")
    return history


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rows", type=int, default=None, help="train on so many images only")
    given = parser.parse_args()
    fit(given.epochs, given.rows)


if __name__ == "__main__":
    main()
