"""One module that holds every small program of the schedule tests and three networks, for targets.

Built whole, so that a target costs one compilation and one run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from irc.ir.core import Builder, Value
from irc.ir.interpret import run
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.types import TensorType, f32

Array = np.ndarray[Any, Any]

_spec = importlib.util.spec_from_file_location(
    "schedule_kernels", Path(__file__).parents[1] / "passes/schedule/kernels.py"
)
assert _spec is not None and _spec.loader is not None
_kernels = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_kernels)


class Net:
    """A builder with seeded weights."""

    def __init__(self, b: Builder, seed: int) -> None:
        self.b, self.rng = b, np.random.default_rng(seed)

    def weight(self, *shape: int, fan_in: int = 1) -> Value:
        data = self.rng.standard_normal(shape) / np.sqrt(fan_in)
        return self.b.insert(Const(data.astype(np.float32))).result

    def conv(self, x: Value, inputs: int, outputs: int, groups: int = 1) -> Value:
        w = self.weight(outputs, inputs // groups, 3, 3, fan_in=9 * inputs // groups)
        y = self.b.conv(x, w, pads=(1, 1, 1, 1), groups=groups)
        return self.b.relu(self.b.add(y, self.weight(outputs, 1, 1, fan_in=16)))

    def linear(self, x: Value, inputs: int, outputs: int) -> Value:
        y = self.b.matmul(x, self.weight(inputs, outputs, fan_in=inputs))
        return self.b.add(y, self.weight(outputs, fan_in=16))


def mlp(b: Builder, x: Value) -> Value:
    net = Net(b, 1)
    h = b.relu(net.linear(x, 784, 512))
    h = b.relu(net.linear(h, 512, 512))
    return net.linear(h, 512, 10)


def cnn(b: Builder, x: Value) -> Value:
    net = Net(b, 2)
    pool = {"kernel": (2, 2), "strides": (2, 2)}
    h = b.max_pool(net.conv(x, 1, 16), **pool)
    h = b.max_pool(net.conv(h, 16, 32), **pool)
    return net.linear(b.reshape(h, shape=(1, 1568)), 1568, 10)


def lstm(b: Builder, x: Value) -> Value:
    net = Net(b, 3)
    h, width = x, 32
    for _ in range(2):
        weights = (net.weight(1, 256, width, fan_in=64), net.weight(1, 256, 64, fan_in=64))
        y, last, _ = b.lstm(h, *weights, net.weight(1, 512, fan_in=64))
        h, width = b.reshape(y, shape=(16, 1, 64)), 64
    return net.linear(b.reshape(last, shape=(1, 64)), 64, 10)


NETWORKS: dict[str, tuple[list[tuple[int, ...]], Callable[..., Value]]] = {
    "mlp": ([(1, 784)], mlp),
    "cnn": ([(1, 1, 28, 28)], cnn),
    "lstm": ([(16, 1, 32)], lstm),
}
PROGRAMS = {**_kernels.PROGRAMS, **NETWORKS}


def module_of(names: list[str]) -> Module:
    """One module that runs the named programs side by side; a result for each."""
    shapes = [(f"{n}.{k}", s) for n in names for k, s in enumerate(PROGRAMS[n][0])]
    types = [TensorType(f32, shape) for _, shape in shapes]
    func = Func.make("main", types, [name for name, _ in shapes], outputs=names)
    b = Builder(func.body)
    args = iter(func.args)
    results = []
    for name in names:
        given, build = PROGRAMS[name]
        results.append(build(b, *[next(args) for _ in given]))
    b.emit(Return, *results)
    return Module.make([func])


def inputs_of(module: Module) -> list[Array]:
    """Seeded inputs."""
    rng = np.random.default_rng(7)
    return [rng.uniform(-1, 1, v.tensor.shape).astype(np.float32) for v in module.main.args]


@cache
def everything() -> tuple[Module, tuple[Array, ...], dict[str, Array]]:
    """All programs as one module, its inputs, and the reference's result of each."""
    module = module_of(list(PROGRAMS))
    given = inputs_of(module)
    return module, tuple(given), dict(zip(PROGRAMS, run(module, given), strict=True))


def difference(got: Array, want: Array) -> float:
    """max|got - want| as a share of max|want|; the shapes must agree."""
    assert got.shape == want.shape
    if want.size == 0:
        return 0.0
    return float(np.abs(got - want).max() / max(float(np.abs(want).max()), 1e-30))
