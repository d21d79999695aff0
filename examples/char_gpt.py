"""A small GPT on the bytes of Python's own standard library: bits per character on the last 5 %.

python examples/char_gpt.py [--steps 1500] [--seed 0]
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

from irc import nn, optim, train

CONTEXT, WIDTH, HEADS, LAYERS = 128, 128, 4, 3
BATCH = 32


class Block(nn.Module):
    """Attention and a feed-forward part, each behind a norm and added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def attention(self, x: Any) -> Any:
        rows, length = x.shape[:2]
        heads = self.qkv(x).reshape((rows, length, 3, HEADS, WIDTH // HEADS))
        q, k, v = [heads[:, :, n].transpose(0, 2, 1, 3) for n in range(3)]
        mixed = nn.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(0, 2, 1, 3).reshape((rows, length, WIDTH)))

    def forward(self, x: Any) -> Any:
        x = x + self.attention(self.norm1(x))
        return x + self.down(nn.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Bytes in, logits of the next byte out, at every place."""

    def __init__(self, vocabulary: int = 256) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                nn.init.normal_(p, 0.0, deviation(name))

    def forward(self, tokens: Any) -> Any:
        places = nn.arange(tokens.shape[1])
        return self.head(self.norm(self.blocks(self.token(tokens) + self.place(places))))


def deviation(name: str) -> float:
    """How widely a matrix is drawn: about 1 / sqrt(width), what is added to the stream less."""
    if name in ("token.weight", "place.weight"):
        return 0.05
    return 0.08 / (math.sqrt(2 * LAYERS) if name.endswith(("out.weight", "down.weight")) else 1.0)


def corpus() -> tuple[np.ndarray, str]:
    """The bytes of the modules at the top of the standard library, and their sha256."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = b"".join([p.read_bytes() for p in sorted(folder.glob("*.py"))])
    return np.frombuffer(text, np.uint8), hashlib.sha256(text).hexdigest()


def loss(logits: Any, target: Any) -> Any:
    """The mean cross entropy over all places."""
    return nn.cross_entropy(logits.reshape((-1, logits.shape[-1])), target.reshape((-1,)))


def windows(text: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Contexts and the bytes that follow, from these places of the text."""
    found = text[starts[:, None] + np.arange(CONTEXT + 1)].astype(np.int64)
    return found[:, :-1], found[:, 1:]


def bits_per_character(t: train.TrainStep, text: np.ndarray, most: int | None = None) -> float:
    """The mean over windows that do not overlap."""
    starts = np.arange(0, len(text) - CONTEXT - 1, CONTEXT)[:most]
    whole = starts[: len(starts) // BATCH * BATCH].reshape(-1, BATCH)
    losses = [float(t.evaluate(windows(text, s)).logs["loss"]) for s in whole]
    return float(np.mean(losses)) / math.log(2)


def fit(steps: int = 1500, seed: int = 0, say: Any = print, **options: Any) -> float:
    """Train and give the bits per character on the last twentieth of the text."""
    text, _ = corpus()
    cut = len(text) * 95 // 100
    nn.manual_seed(seed)
    optimizer = optim.AdamW(
        optim.one_cycle(3e-3, total=steps),
        weight_decay=0.1,
        betas=(0.9, 0.95),
        clip_norm=1.0,
        decay_mask=lambda name, p: p.ndim == 2,
    )
    t = train.TrainStep(GPT(), loss=loss, optimizer=optimizer, seed=seed, **options)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        result = t(windows(text[:cut], rng.integers(0, cut - CONTEXT - 1, BATCH)))
        if step % 100 == 0 or step == steps - 1:
            say(f"step {step}  bits {float(result.logs['loss']) / math.log(2):.3f}")
    return bits_per_character(t, text[cut:], None if steps >= 1500 else 2 * BATCH)


def main() -> None:
    """Train and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(f"{fit(given.steps, given.seed):.4f} bits per character on held-out text")


if __name__ == "__main__":
    main()
