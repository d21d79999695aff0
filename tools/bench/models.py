"""Seeded ONNX models for demo, tests and benchmarks.  The same seed gives the same bytes.

Each function returns a ModelProto of opset 17 whose weights are scaled so that activations keep
their size.  `MODELS` names them all.  Imports: onnx, numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

OPSET, IR_VERSION = 17, 8
Array = np.ndarray[Any, Any]


class Net:
    """A graph being written: nodes in order, weights drawn from one generator."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def op(self, type: str, *inputs: str, outputs: Sequence[str] = (), **attrs: Any) -> str:
        """Append a node called after its type and number; gives its first result."""
        name = f"{type.lower()}{len(self.nodes)}"
        node = helper.make_node(type, list(inputs), list(outputs) or [name], name, **attrs)
        self.nodes.append(node)
        return str(node.output[0])

    def constant(self, name: str, array: Array) -> str:
        """An initializer; gives its name."""
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, *shape: int, fan_in: int = 0) -> str:
        """Normal float32 weights of variance 2 / fan_in (He 2015); without it small ones."""
        scale = math.sqrt(2 / fan_in) if fan_in else 0.1
        return self.constant(name, (self.random.standard_normal(shape) * scale).astype(np.float32))

    def linear(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """x @ w.T + b."""
        w = self.weight(f"{name}.w", outputs, inputs, fan_in=inputs)
        return self.op("Gemm", x, w, self.weight(f"{name}.b", outputs), transB=1)

    def conv(self, x: str, name: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1,
             groups: int = 1) -> str:  # fmt: skip
        """A convolution with bias that keeps the extents (over the stride)."""
        fan_in = inputs // groups * kernel * kernel
        w = self.weight(f"{name}.w", outputs, inputs // groups, kernel, kernel, fan_in=fan_in)
        pad = kernel // 2
        return self.op("Conv", x, w, self.weight(f"{name}.b", outputs), group=groups,
                       kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)  # fmt: skip

    def model(self, inputs: Sequence[Any], outputs: dict[str, Sequence[int | str]]) -> ModelProto:
        """The finished, checked model."""
        results = [info(name, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self.nodes, self.name, list(inputs), results, self.initializers)
        opset = helper.make_opsetid("", OPSET)
        made = helper.make_model(graph, opset_imports=[opset], producer_name="irc")
        made.ir_version = IR_VERSION
        checker.check_model(made)
        return made


def info(name: str, shape: Sequence[int | str], dtype: int = TensorProto.FLOAT) -> Any:
    """A declared input or output."""
    return helper.make_tensor_value_info(name, dtype, list(shape))


def mlp(seed: int = 0, batch: int | str = 1) -> ModelProto:
    """784-512-512-10 with relu: x [batch, 784] to y [batch, 10]."""
    net = Net("mlp", seed)
    h = net.op("Relu", net.linear("x", "fc1", 784, 512))
    h = net.op("Relu", net.linear(h, "fc2", 512, 512))
    y = net.linear(h, "fc3", 512, 10)
    net.op("Identity", y, outputs=["y"])
    return net.model([info("x", (batch, 784))], {"y": (batch, 10)})


def small_cnn(seed: int = 0, batch: int | str = 1) -> ModelProto:
    """Two 3x3 convolutions (16, 32), relu, max pools, a linear layer: x [batch, 1, 28, 28]."""
    net = Net("small_cnn", seed)
    h = net.op("Relu", net.conv("x", "conv1", 1, 16))
    h = net.op("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2])
    h = net.op("Relu", net.conv(h, "conv2", 16, 32))
    h = net.op("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2])
    h = net.op("Flatten", h)
    net.op("Identity", net.linear(h, "fc", 32 * 7 * 7, 10), outputs=["y"])
    return net.model([info("x", (batch, 1, 28, 28))], {"y": (batch, 10)})


def demo_cnn(seed: int = 0, batch: int | str = 1) -> ModelProto:
    """Convolutions, one depthwise, batch norms, a residual sum: x [batch, 3, 32, 32]."""
    net = Net("demo_cnn", seed)
    h = net.op("Relu", normalised(net, net.conv("x", "stem", 3, 16, stride=2), "bn1", 16))
    side = h
    h = net.op("Relu", normalised(net, net.conv(h, "depth", 16, 16, groups=16), "bn2", 16))
    h = normalised(net, net.conv(h, "point", 16, 16, kernel=1), "bn3", 16)
    h = net.op("Relu", net.op("Add", h, side))
    h = net.op("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2])
    h = net.op("Relu", net.conv(h, "last", 16, 32))
    h = net.op("Flatten", net.op("GlobalAveragePool", h))
    net.op("Softmax", net.linear(h, "fc", 32, 10), outputs=["y"], axis=-1)
    return net.model([info("x", (batch, 3, 32, 32))], {"y": (batch, 10)})


def normalised(net: Net, x: str, name: str, channels: int) -> str:
    """A batch normalisation with its own statistics."""
    draw = net.random.uniform
    parts = {"scale": (0.5, 1.5), "bias": (-0.2, 0.2), "mean": (-0.2, 0.2), "var": (0.5, 1.5)}
    names = [
        net.constant(f"{name}.{part}", draw(low, high, channels).astype(np.float32))
        for part, (low, high) in parts.items()
    ]
    return net.op("BatchNormalization", x, *names)


def lstm2(seed: int = 0, steps: int | str = 16, batch: int | str = 1) -> ModelProto:
    """Two LSTM layers of 64 units and a linear layer on the last state: x [steps, batch, 32]."""
    net = Net("lstm2", seed)
    h, units, width = "x", 64, 32
    last = ""
    for layer in (1, 2):
        weights = [
            net.weight(f"lstm{layer}.w", 1, 4 * units, width, fan_in=2 * width),
            net.weight(f"lstm{layer}.r", 1, 4 * units, units, fan_in=2 * units),
            net.weight(f"lstm{layer}.b", 1, 8 * units),
        ]
        y, last = f"lstm{layer}.y", f"lstm{layer}.h"
        net.op("LSTM", h, *weights, outputs=[y, last], hidden_size=units)
        axes = net.constant(f"axes{layer}", np.array([1], np.int64))
        h, width = net.op("Squeeze", y, axes), units
    axes = net.constant("axes", np.array([0], np.int64))
    net.op("Identity", net.linear(net.op("Squeeze", last, axes), "fc", units, 10), outputs=["y"])
    return net.model([info("x", (steps, batch, 32))], {"y": (batch, 10)})


def control(seed: int = 0) -> ModelProto:
    """A data-dependent `If` and a data-dependent `Loop`: x [4, 8] to y [4, 8].

    Where the mean of x is positive x goes through one linear layer, else through another; then the
    result is halved until its greatest magnitude is at most 0.5, 20 times at most.
    """
    net = Net("control", seed)
    for name in ("a", "b"):
        net.weight(name, 8, 8, fan_in=8)
    net.constant("zero", np.array(0, np.float32))
    mean = net.op("ReduceMean", "x", keepdims=0)
    positive = net.op("Greater", mean, "zero")
    h = net.op("If", positive, then_branch=_branch("then", "a"), else_branch=_branch("else", "b"))
    trips = net.constant("trips", np.array(20, np.int64))
    go = net.op("Identity", net.constant("yes", np.array(True)))
    net.op("Loop", trips, go, h, outputs=["y"], body=_halving())
    return net.model([info("x", (4, 8))], {"y": (4, 8)})


def _branch(name: str, weight: str) -> Any:
    """tanh(x @ weight), both of the outer graph."""
    product = helper.make_node("MatMul", ["x", weight], [f"{name}.product"], f"{name}.matmul")
    out = helper.make_node("Tanh", [f"{name}.product"], [f"{name}.out"], f"{name}.tanh")
    return helper.make_graph([product, out], name, [], [info(f"{name}.out", (4, 8))])


def _halving() -> Any:
    """One step: carried / 2, and whether its greatest magnitude is still above 0.5."""
    half = numpy_helper.from_array(np.array(0.5, np.float32), "half")
    nodes = [
        helper.make_node("Mul", ["carried", "half"], ["halved"], "halve"),
        helper.make_node("Abs", ["halved"], ["magnitude"], "abs"),
        helper.make_node("ReduceMax", ["magnitude"], ["greatest"], "greatest", keepdims=0),
        helper.make_node("Greater", ["greatest", "half"], ["go_on"], "test"),
    ]
    inputs = [info("i", (), TensorProto.INT64), info("go", (), TensorProto.BOOL),
              info("carried", (4, 8))]  # fmt: skip
    outputs = [info("go_on", (), TensorProto.BOOL), info("halved", (4, 8))]
    return helper.make_graph(nodes, "halving", inputs, outputs, [half])


def first_model() -> ModelProto:
    """One op: what an engine is loaded with before anything is measured.  x [1, 16] to y."""
    net = Net("first", 0)
    net.op("Relu", "x", outputs=["y"])
    return net.model([info("x", (1, 16))], {"y": (1, 16)})


MODELS: dict[str, Callable[..., ModelProto]] = {
    "mlp": mlp, "small_cnn": small_cnn, "demo_cnn": demo_cnn, "lstm2": lstm2, "control": control,
}  # fmt: skip

__all__ = [
    "MODELS",
    "Net",
    "control",
    "demo_cnn",
    "first_model",
    "info",
    "lstm2",
    "mlp",
    "small_cnn",
]
