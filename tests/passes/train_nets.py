"""Train steps made by hand, for the tests of what compiles them: loss, gradients, update.

A `Net` says its parameters, a batch, and the loss; `step` makes the whole train step of it,
parameters and slots donated.  Imports: ir, passes.autodiff.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irc.ir.core import Builder, Value
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.types import DType, TensorType, f32, i64
from irc.passes.autodiff.pullback import pullback

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Values = Mapping[str, Value]
Loss = Callable[[Builder, Values, Sequence[Value]], Value]


@dataclass(frozen=True)
class Net:
    """A network and its training: `parameters` are (name, shape), `batch` (dtype, shape, number of
    classes or 0); `rule` is the optimizer.
    """

    name: str
    parameters: tuple[tuple[str, Shape], ...]
    batch: tuple[tuple[DType, Shape, int], ...]
    loss: Loss
    rule: Rule

    def draw(self, seed: int = 0) -> list[Array]:
        """Initial parameters: matrices by fan in, scales 1, biases 0."""
        rng = np.random.default_rng(seed)
        return [_drawn(rng, name, shape) for name, shape in self.parameters]

    def batches(self, seed: int = 1) -> list[Array]:
        """One batch: normal numbers, or classes."""
        rng = np.random.default_rng(seed)
        return [
            rng.integers(0, classes, shape).astype(t.np)
            if classes
            else rng.standard_normal(shape).astype(t.np)
            for t, shape, classes in self.batch
        ]

    def state(self, seed: int = 0) -> list[Array]:
        """Parameters, slots, and the number of steps done."""
        drawn = self.draw(seed)
        slots = [np.zeros_like(p) for p in drawn for _ in range(self.rule.slots)]
        return [*drawn, *slots, np.zeros((), np.float32)]


def _drawn(rng: np.random.Generator, name: str, shape: Shape) -> Array:
    if len(shape) == 1:
        scale = "norm" in name and name.endswith("weight")
        return np.full(shape, 1.0 if scale else 0.0, np.float32)
    scale = 0.02 if "embed" in name else 1.0 / math.sqrt(math.prod(shape[1:]))
    return (rng.standard_normal(shape) * scale).astype(np.float32)


# The optimizers -----------------------------------------------------------------------------------

Update = tuple[Value, list[Value]]


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma 2015) in torch's form; with `decay` that of AdamW (Loshchilov 2019)."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decay: float = 0.0
    slots: int = 2

    def update(self, b: Builder, p: Value, g: Value, slots: Sequence[Value], t: Value) -> Update:
        """The next parameter and moments; `t` counts steps from 1."""
        m = b.add(b.mul(slots[0], number(b, self.beta1)), b.mul(g, number(b, 1 - self.beta1)))
        squares = b.mul(b.mul(g, g), number(b, 1 - self.beta2))
        v = b.add(b.mul(slots[1], number(b, self.beta2)), squares)
        one = number(b, 1.0)
        first = b.sub(one, b.pow(number(b, self.beta1), t))
        second = b.sub(one, b.pow(number(b, self.beta2), t))
        rate, scale = b.div(number(b, self.lr), first), b.div(one, b.sqrt(second))
        root = b.add(b.mul(b.sqrt(v), scale), number(b, self.epsilon))
        kept = b.mul(p, number(b, 1 - self.lr * self.decay)) if self.decay else p
        return b.sub(kept, b.div(b.mul(rate, m), root)), [m, v]


@dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum, torch's form."""

    lr: float = 0.01
    momentum: float = 0.9
    slots: int = 1

    def update(self, b: Builder, p: Value, g: Value, slots: Sequence[Value], t: Value) -> Update:
        """The next parameter and velocity."""
        velocity = b.add(b.mul(slots[0], number(b, self.momentum)), g)
        return b.sub(p, b.mul(velocity, number(b, self.lr))), [velocity]


Rule = Adam | Momentum


def number(b: Builder, value: float) -> Value:
    """A scalar f32 constant."""
    return b.insert(Const(np.array(value, np.float32))).result


def step(net: Net) -> Module:
    """The train step: (parameters, slots, count, batch) to (their next values, the loss)."""
    count = len(net.parameters)
    types = [TensorType(f32, shape) for _, shape in net.parameters]
    slots = [t for t in types for _ in range(net.rule.slots)]
    names = [n for n, _ in net.parameters]
    held = [*names, *[f"{n}.slot{k}" for n in names for k in range(net.rule.slots)], "steps"]
    given = [TensorType(t, shape) for t, shape, _ in net.batch]
    func = Func.make(
        "main",
        [*types, *slots, TensorType(f32, ()), *given],
        [*held, *[f"batch{k}" for k in range(len(given))]],
        outputs=[*held, "loss"],
        state=[(k, k) for k in range(len(held))],
    )
    b = Builder(func.body)
    parameters = func.args[:count]
    loss = net.loss(b, dict(zip(names, parameters)), func.args[len(held) :])
    loss.name = "loss"
    grads = pullback(b, [loss], [number(b, 1.0)], parameters)
    t = b.add(func.args[len(held) - 1], number(b, 1.0))
    new: list[Value] = []
    moved: list[Value] = []
    for k, (p, g) in enumerate(zip(parameters, grads, strict=True)):
        mine = func.args[count + k * net.rule.slots : count + (k + 1) * net.rule.slots]
        assert g is not None, f"the loss does not depend on {names[k]}"
        value, following = net.rule.update(b, p, g, mine, t)
        new.append(value)
        moved += following
    last = next(op.results[0] for op in reversed(list(func.body)) if op.results[0].name == "loss")
    b.emit(Return, *new, *moved, t, last)
    return Module.make([func])


# The networks -------------------------------------------------------------------------------------


def linear(b: Builder, p: Values, name: str, x: Value) -> Value:
    """x times the transposed weight, plus the bias if there is one."""
    y = b.matmul(x, b.transpose(p[f"{name}.weight"], perm=(1, 0)))
    return b.add(y, p[f"{name}.bias"]) if f"{name}.bias" in p else y


def cross_entropy(b: Builder, logits: Value, labels: Value) -> Value:
    """The mean over rows of minus the log of the label's share."""
    rows = logits.tensor.shape[0]
    shares = b.log_softmax(logits, axis=1)
    picked = b.take_along(shares, b.reshape(labels, shape=(rows, 1)), axis=1)
    return b.neg(b.reduce_mean(picked))  # type: ignore[no-any-return]


def _linear(name: str, out: int, of: int) -> tuple[tuple[str, Shape], ...]:
    return (f"{name}.weight", (out, of)), (f"{name}.bias", (out,))


def mlp(rows: int = 128, sizes: Sequence[int] = (784, 512, 512, 10)) -> Net:
    """Linear layers with rectifiers between, cross entropy, Adam."""
    layers = [f"l{k}" for k in range(len(sizes) - 1)]
    parameters = [q for n, of, out in zip(layers, sizes, sizes[1:]) for q in _linear(n, out, of)]

    def loss(b: Builder, p: Values, batch: Sequence[Value]) -> Value:
        x = batch[0]
        for name in layers[:-1]:
            x = b.relu(linear(b, p, name, x))
        return cross_entropy(b, linear(b, p, layers[-1], x), batch[1])

    batch = (f32, (rows, sizes[0]), 0), (i64, (rows,), sizes[-1])
    return Net("mlp", tuple(parameters), batch, loss, Adam())


@dataclass(frozen=True)
class Sizes:
    """Of a GPT."""

    layers: int = 4
    width: int = 256
    heads: int = 4
    words: int = 1000
    rows: int = 8
    length: int = 128


def gpt(s: Sizes | None = None) -> Net:
    """Pre-norm blocks of causal attention and a gelu layer, learned positions, AdamW."""
    s = s or Sizes()
    blocks = [f"block{k}" for k in range(s.layers)]
    parameters: list[tuple[str, Shape]] = [
        ("embed.weight", (s.words, s.width)),
        ("position.embed.weight", (s.length, s.width)),
    ]
    for name in blocks:
        parameters += [(f"{name}.norm1.weight", (s.width,)), (f"{name}.norm1.bias", (s.width,))]
        parameters += _linear(f"{name}.qkv", 3 * s.width, s.width)
        parameters += _linear(f"{name}.out", s.width, s.width)
        parameters += [(f"{name}.norm2.weight", (s.width,)), (f"{name}.norm2.bias", (s.width,))]
        parameters += _linear(f"{name}.up", 4 * s.width, s.width)
        parameters += _linear(f"{name}.down", s.width, 4 * s.width)
    parameters += [("norm.weight", (s.width,)), ("norm.bias", (s.width,))]
    parameters.append(("head.weight", (s.words, s.width)))

    def loss(b: Builder, p: Values, batch: Sequence[Value]) -> Value:
        x = b.add(b.take(p["embed.weight"], batch[0], axis=0), p["position.embed.weight"])
        for name in blocks:
            x = b.add(x, attention(b, p, name, _norm(b, p, f"{name}.norm1", x), s))
            up = b.gelu(linear(b, p, f"{name}.up", _norm(b, p, f"{name}.norm2", x)))
            x = b.add(x, linear(b, p, f"{name}.down", up))
        logits = linear(b, p, "head", _norm(b, p, "norm", x))
        flat = b.reshape(logits, shape=(s.rows * s.length, s.words))
        return cross_entropy(b, flat, b.reshape(batch[1], shape=(s.rows * s.length,)))

    tokens = (i64, (s.rows, s.length), s.words)
    return Net("gpt", tuple(parameters), (tokens, tokens), loss, Adam(decay=0.01))


def _norm(b: Builder, p: Values, name: str, x: Value) -> Value:
    return b.layer_norm(x, p[f"{name}.weight"], p[f"{name}.bias"], axis=-1)  # type: ignore[no-any-return]


def attention(b: Builder, p: Values, name: str, x: Value, s: Sizes) -> Value:
    """Causal attention of several heads, its projections included."""
    mixed = linear(b, p, f"{name}.qkv", x)
    split = b.reshape(mixed, shape=(s.rows, s.length, 3, s.heads, s.width // s.heads))
    parts = b.transpose(split, perm=(2, 0, 3, 1, 4))
    q, k, v = [_part(b, parts, at) for at in range(3)]
    scores = b.matmul(q, b.transpose(k, perm=(0, 1, 3, 2)))
    scores = b.mul(scores, number(b, 1 / math.sqrt(s.width // s.heads)))
    later = np.triu(np.full((s.length, s.length), -np.inf, np.float32), 1)
    shares = b.softmax(b.add(scores, b.insert(Const(later)).result), axis=-1)
    y = b.transpose(b.matmul(shares, v), perm=(0, 2, 1, 3))
    return linear(b, p, f"{name}.out", b.reshape(y, shape=(s.rows, s.length, s.width)))


def _part(b: Builder, parts: Value, at: int) -> Value:
    """parts[at]."""
    shape = parts.tensor.shape
    one = b.slice(parts, starts=(at, 0, 0, 0, 0), sizes=(1, *shape[1:]))
    return b.reshape(one, shape=shape[1:])  # type: ignore[no-any-return]
