"""Random programs of nn functions: value, gradient and second derivative, eager and traced alike.

Each step takes an array of 3 by 4 to one of 3 by 4; control flow, indexing and transforms are among
them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irc
from irc import nn

PICKS = np.array([[0, 1, 1, 3]] * 3)
WEIGHT = np.arange(12.0).reshape(3, 4) * 0.1
Step = Callable[[Any], Any]


def scanned(x: Any) -> Any:
    return nn.scan(lambda c, r: (nn.tanh(c + r), c * r), x[0], x)[1]


def branching(x: Any) -> Any:
    def body(c: Any, r: Any) -> Any:
        return nn.cond(c.sum() > r.sum(), lambda: c * 0.5, lambda: nn.sin(r + c)), c + r

    return nn.scan(body, x[0], x, reverse=True)[1]


def looped(x: Any) -> Any:
    return nn.while_loop(
        lambda v, k: k < 3, lambda v, k: (nn.tanh(v) * 1.1, k + 1), (x, 0), max_trip=5
    )[0]


UNARY: list[Step] = [
    nn.tanh, nn.sin, nn.exp, nn.relu, nn.gelu, nn.softmax, scanned, branching, looped,
    lambda x: nn.log(x * x + 1),
    lambda x: nn.sqrt(x * x + 0.5),
    lambda x: nn.flip(x, 1),
    lambda x: nn.roll(x, 1, 0),
    lambda x: nn.cumsum(x, 1),
    lambda x: nn.cumprod(nn.sigmoid(x), 1),
    lambda x: nn.sort(x, 1),
    lambda x: x.max(1, True) - x,
    lambda x: nn.where(x > 0, x, x * x),
    lambda x: nn.pad(x[1:], ((1, 0), (0, 0))),
    lambda x: nn.concatenate([x[:, 2:], x[:, :2]], 1),
    lambda x: x[[2, 0, 1]],
    lambda x: nn.clip(x, -1, 1),
    lambda x: nn.stack([x, x * 2]).mean(0),
    lambda x: nn.remat(lambda z: nn.sin(z) * z)(x),
    lambda x: nn.cond(x.sum() > 0, nn.sin, lambda x: x * x * 0.1, x),
    lambda x: nn.prod(x * 0.1 + 1, 1, True) * x,
    lambda x: nn.logsumexp(x, 1, True) + x,
    lambda x: x.T.reshape(3, 4),
    lambda x: nn.take_along_axis(x, PICKS, 1),
    lambda x: nn.scatter_add(x, 1, PICKS, x * 0.5),
    lambda x: nn.norm(x, 2, 1, True) * x,
    lambda x: nn.stop_gradient(x) * x,
    lambda x: nn.var(x, 1, True) + x,
    lambda x: nn.einsum("ij,kj->ik", x, x) @ x * 0.05,
    lambda x: irc.grad(lambda z: (nn.sin(z) * z).sum())(x),
]  # fmt: skip
BINARY: list[Callable[[Any, Any], Any]] = [
    lambda a, b: a + b,
    lambda a, b: a * b,
    lambda a, b: a / (b * b + 1),
    nn.maximum,
    lambda a, b: a @ b.T @ a * 0.05,
    lambda a, b: nn.where(a > b, a, b * b),
]


def program(rng: np.random.Generator) -> Step:
    """Two to six steps, each on the last value or on two earlier ones."""
    steps: list[Any] = []
    for k in range(2, 2 + int(rng.integers(2, 7))):
        if rng.random() < 0.7:
            steps.append((UNARY[rng.integers(len(UNARY))], (k - 1,)))
        else:
            steps.append((BINARY[rng.integers(len(BINARY))], tuple(rng.integers(0, k, 2))))

    def run(x: Any) -> Any:
        values = [x, x * 0.5 + 0.1]
        for step, places in steps:
            values.append(step(*[values[p] for p in places]))
        return (values[-1] * WEIGHT).sum()

    return run


@pytest.mark.parametrize("seed", range(12))
def test_eager_traced_and_compiled_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    f, x = program(rng), rng.standard_normal((3, 4))
    first = irc.grad(f)
    second = irc.grad(lambda x: (first(x) * np.cos(WEIGHT)).sum())
    for function in (f, first, second):
        want = function(nn.tensor(x)).numpy()
        np.testing.assert_allclose(nn.trace(function, x)(x).numpy(), want, 1e-8, 1e-10)
    found, want = irc.compile(first)(x).numpy(), first(nn.tensor(x)).numpy()
    np.testing.assert_allclose(found, want, 1e-8, 1e-10)
