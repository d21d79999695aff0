"""One training step of an MLP - forward, backward, SGD with momentum - as one function with donated
state.
"""

from __future__ import annotations

import numpy as np
import pytest

import irc.ir.ops  # noqa: F401  # registers the ops that the builder names
from irc.backends.cpu.build import build, weight_image
from irc.ir import interpret
from irc.ir.core import Builder, Value
from irc.ir.dims import evaluate, sym
from irc.ir.interpret_loops import run_kernel
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.target import Target
from irc.ir.types import TensorType, boolean, f32
from irc.passes.pipeline import compile_module

SIZES = (6, 5, 3)
RATE, MOMENTUM = 0.5, 0.9


def train_step() -> Func:
    """(x[N, 6], y[N, 3], parameters, momenta) to (loss, parameters, momenta), all donated."""
    n = sym("N")
    shapes: list[tuple[int, ...]] = [(6, 5), (5,), (5, 3), (3,)]
    states = [TensorType(f32, s) for s in (*shapes, *shapes)]
    names = ["x", "y", "w1", "b1", "w2", "b2", "m1", "n1", "m2", "n2"]
    pairs = [(2 + k, 1 + k) for k in range(8)]
    func = Func.make(
        "main",
        [TensorType(f32, (n, 6)), TensorType(f32, (n, 3)), *states],
        names,
        "func",
        ["loss", *[f"{name}.next" for name in names[2:]]],
        pairs,
    )
    b = Builder(func.body)
    x, y, w1, b1, w2, b2, *momenta = func.args

    def scalar(value: float) -> Value:
        return b.insert(Const(np.float32(value))).result

    count = b.dim_value(dim=n, dtype=f32)
    before = b.add(b.matmul(x, w1), b1)
    hidden = b.relu(before)
    logits = b.add(b.matmul(hidden, w2), b2)
    log_p = b.log_softmax(logits, axis=1)
    loss = b.neg(b.div(b.reduce_sum(b.mul(y, log_p), axes=(0, 1)), count))
    d_logits = b.div(b.sub(b.exp(log_p), y), count)
    d_hidden = b.matmul(d_logits, b.transpose(w2, perm=(1, 0)))
    alive = b.gt(before, scalar(0))
    assert alive.tensor.dtype is boolean
    d_before = b.where(alive, d_hidden, scalar(0))
    grads = [
        b.matmul(b.transpose(x, perm=(1, 0)), d_before), b.reduce_sum(d_before, axes=(0,)),
        b.matmul(b.transpose(hidden, perm=(1, 0)), d_logits), b.reduce_sum(d_logits, axes=(0,)),
    ]  # fmt: skip
    news = [b.add(b.mul(m, scalar(MOMENTUM)), g) for m, g in zip(momenta, grads, strict=True)]
    params = [b.sub(p, b.mul(m, scalar(RATE))) for p, m in zip((w1, b1, w2, b2), news, strict=True)]
    b.emit(Return, loss, *params, *news)
    return func


def numpy_step(
    x: np.ndarray, y: np.ndarray, state: list[np.ndarray]
) -> tuple[float, list[np.ndarray]]:
    w1, b1, w2, b2, *momenta = state
    before = x @ w1 + b1
    hidden = np.maximum(before, 0)
    logits = hidden @ w2 + b2
    log_p = logits - logits.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    d_logits = (np.exp(log_p) - y) / len(x)
    d_before = np.where(before > 0, d_logits @ w2.T, 0)
    grads = [x.T @ d_before, d_before.sum(0), hidden.T @ d_logits, d_logits.sum(0)]
    news = [MOMENTUM * m + g for m, g in zip(momenta, grads, strict=True)]
    return -(y * log_p).sum() / len(x), [
        *[p - RATE * m for p, m in zip((w1, b1, w2, b2), news, strict=True)],
        *news,
    ]


def start(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = [(6, 5), (5,), (5, 3), (3,)]
    return [rng.standard_normal(s).astype(np.float32) * 0.5 for s in shapes] + [
        np.zeros(s, np.float32) for s in shapes
    ]


@pytest.mark.parametrize("n", [1, 7, 16])
def test_steps_equal_numpy_and_learn(n: int) -> None:
    func = train_step()
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, 6)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[rng.integers(0, 3, n)]
    state, wide = start(), [s.astype(np.float64) for s in start()]
    losses = []
    for _ in range(8):
        loss, *state = interpret.run(func, [x, y, *state])
        want, wide = numpy_step(x.astype(np.float64), y.astype(np.float64), wide)
        losses.append(float(loss))
        assert losses[-1] == pytest.approx(want, rel=1e-4)
        for got, other in zip(state, wide, strict=True):
            np.testing.assert_allclose(got, other, rtol=1e-3, atol=1e-4)
    assert losses[-1] < losses[0]


def test_state_says_what_is_donated() -> None:
    func = train_step()
    assert len(func.state) == 8
    for param, result in func.state:
        assert func.args[param].type is func.returned[result].type
        assert func.outputs[result] == func.inputs[param] + ".next"


@pytest.mark.parametrize("n", [1, 7])
def test_compiled_step_updates_its_state_in_place(n: int) -> None:
    """Through every phase: the plan interpreted strictly, then native."""
    target = Target("plain")
    planned = compile_module(Module.make([train_step()]), target).planned
    assert planned is not None
    exe = build(planned, target)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, 6)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[rng.integers(0, 3, n)]
    state, wide = start(), [s.astype(np.float64) for s in start()]
    for _ in range(3):
        again = [s.copy() for s in state]
        arena = np.zeros(evaluate(planned.arena_bytes, {"N": n}), np.uint8)
        loss = np.empty((), np.float32)
        weights = weight_image(planned.weights, planned.weight_bytes)
        args = [x, y, *again, loss, arena, weights]
        assert run_kernel(planned.func, args, {"N": n}, module=planned.module) == 0
        native = exe.run([x, y, *state])
        want, wide = numpy_step(x.astype(np.float64), y.astype(np.float64), wide)
        assert float(loss) == float(native[0]) == pytest.approx(want, rel=1e-4)
        for mine, other, exact in zip(state, again, wide, strict=True):
            np.testing.assert_array_equal(mine, other)
            np.testing.assert_allclose(mine, exact, rtol=1e-3, atol=1e-4)
