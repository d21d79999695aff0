"""GRU and plain RNN against loops written from the ONNX definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc.ir.core import Builder
from irc.ir.ops.control import Scan
from irc.ir.ops.core import Func
from irc.ir.ops.sequence import Gru
from irc.ir.types import parse_type


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def gru_step(w: Any, r: Any, bias: Any, s: Any, h: Any, before_reset: bool) -> Any:
    (wz, wr, wh), (rz, rr, rh) = np.split(w, 3), np.split(r, 3)
    bwz, bwr, bwh, brz, brr, brh = np.split(bias, 6)
    z = sigmoid(wz @ s + rz @ h + bwz + brz)
    reset = sigmoid(wr @ s + rr @ h + bwr + brr)
    if before_reset:
        new = np.tanh(wh @ s + reset * (rh @ h + brh) + bwh)
    else:
        new = np.tanh(wh @ s + rh @ (reset * h) + brh + bwh)
    return (1 - z) * new + z * h


def rnn_step(w: Any, r: Any, bias: Any, s: Any, h: Any, _: bool) -> Any:
    of_w, of_r = np.split(bias, 2)
    return np.tanh(w @ s + r @ h + of_w + of_r)


STEPS = {"gru": (3, gru_step), "rnn": (1, rnn_step)}


def by_loops(op: str, given: Any, lengths: Any, before_reset: bool) -> Any:
    """Each direction and each sequence of the batch by itself."""
    x, w, r, bias, h0 = given
    y, last = np.zeros((x.shape[0], *h0.shape)), h0.copy()
    for d in range(len(w)):
        for n in range(x.shape[1]):
            steps = range(lengths[n])
            h = h0[d, n]
            for t in steps if d == 0 else reversed(steps):
                h = STEPS[op][1](w[d], r[d], bias[d], x[t, n], h, before_reset)
                y[t, d, n] = h
            last[d, n] = h
    return y, last


def parameters(op: str, time: int, directions: int) -> list[Any]:
    rng = np.random.default_rng(0)
    gates, batch, inputs, hidden = STEPS[op][0], 3, 2, 4
    shapes = [
        (time, batch, inputs), (directions, gates * hidden, inputs),
        (directions, gates * hidden, hidden), (directions, 2 * gates * hidden),
        (directions, batch, hidden),
    ]  # fmt: skip
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("time", [1, 4])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize(
    ("op", "attrs"),
    [("gru", {"linear_before_reset": False}), ("gru", {"linear_before_reset": True}), ("rnn", {})],
)
def test_by_loops(
    apply: Any, op: str, attrs: Any, time: int, directions: int, varied: bool
) -> None:
    given = parameters(op, time, directions)
    lengths = np.array([time, max(time - 2, 0), 1], np.int32) if varied else None
    direction = "bidirectional" if directions == 2 else "forward"
    found = apply(op, *given, lengths, direction=direction, **attrs)
    before = bool(attrs.get("linear_before_reset"))
    want = by_loops(op, given, lengths if varied else [time] * 3, before)
    for got, expected in zip(found, want, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("named", "function"),
    [
        (("affine", 2.0, 0.5), lambda v: 2 * v + 0.5),
        (("scaled_tanh", 2.0, 0.5), lambda v: 2 * np.tanh(0.5 * v)),
        (("thresholded_relu", 0.5), lambda v: np.where(v > 0.5, v, 0)),
        ("softsign", lambda v: v / (1 + abs(v))),
        (("leaky_relu", 0.3), lambda v: np.where(v < 0, 0.3 * v, v)),
    ],
)
def test_activations(apply: Any, named: Any, function: Any) -> None:
    x = np.linspace(-2, 2, 9).reshape(1, 9, 1)
    y, _ = apply("rnn", x, np.ones((1, 1, 1)), np.zeros((1, 1, 1)), activations=(named,))
    np.testing.assert_allclose(y.reshape(-1), function(x.reshape(-1)), rtol=1e-12)


def test_the_product_with_w_is_outside_of_the_scan() -> None:
    types = ["f32[7, 1, 2]", "f32[1, 12, 2]", "f32[1, 12, 4]", "f32[1, 24]"]
    func = Func.make("main", [parse_type(t) for t in types])
    b = Builder(func.body)
    op = Gru(*func.args, linear_before_reset=True)
    op.decompose(b)
    (scan,) = [found for found in func.body if isinstance(found, Scan)]
    assert [found.name for found in func.body].count("contract") == 1
    assert [found.name for found in scan.body].count("contract") == 1
