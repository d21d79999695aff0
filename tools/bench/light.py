"""The nine light models of the onnx wheel, with weights: real architectures without a download.

onnx/backend/test/data/light holds well-known networks whose weights are `ConstantOfShape` nodes.
Here every parameter, those few that are stored included, is drawn from a seed by the part it plays:
convolutions and linear layers by He (2015), without the factor 2 where no rectifier halved the
input, less where they feed a residual sum; biases small, batch norms with a scale near 1 and a
variance in [0.5, 1.5], so that activations stay near unit variance through the whole net.
Parameters become initializers, not inputs.  Imports: onnx, numpy.
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

Array = np.ndarray[Any, Any]
Use = tuple[Any, int]  # a node, and which of its inputs
IR_VERSION = 8  # the first versions want every initializer among the inputs
RESIDUAL_GAIN = 0.45  # sixteen sums of branches of a fifth of the variance: 1.2 ** 16 = 18

NAMES = (
    "alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet",
    "squeezenet", "vgg19", "zfnet512",
)  # fmt: skip

_FILES = {"alexnet": "bvlc_alexnet"}
_NORM = {1: (0.8, 1.2), 2: (-0.1, 0.1), 3: (-0.1, 0.1), 4: (0.5, 1.5)}
"""Range of scale, bias, mean and variance by the input of BatchNormalization."""


def path(name: str) -> Path:
    """The file as the wheel has it, whose weights are one number each."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return folder / f"light_{_FILES.get(name, name)}.onnx"


def light(name: str, seed: int = 0) -> ModelProto:
    """The model with its weights; the same seed gives the same bytes."""
    model = onnx.load(path(name))
    model.ir_version = max(model.ir_version, IR_VERSION)
    graph = model.graph
    shapes = dict(_parameters(graph))
    uses = _uses(graph)
    makers = {out: node for node in graph.node for out in node.output}
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    made = [
        numpy_helper.from_array(_draw(rng, shape, *_part(uses, parameter), uses, makers), parameter)
        for parameter, shape in shapes.items()
    ]
    kept = [t for t in graph.initializer if t.name not in shapes and uses[t.name]]
    nodes = [n for n in graph.node if n.op_type != "ConstantOfShape"]
    read = {x for n in nodes for x in n.input}
    _replace(graph.initializer, [t for t in (*kept, *made) if t.name in read])
    _replace(graph.node, nodes)
    filled = {t.name for t in (*kept, *made)}
    _replace(graph.input, [v for v in graph.input if v.name in read and v.name not in filled])
    return model


def inputs(name: str, seed: int = 1) -> dict[str, Array]:
    """A normal image of the model's one input."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return {_INPUTS.get(name, "data_0"): rng.standard_normal((1, 3, 224, 224), np.float32)}


_INPUTS = dict.fromkeys(("resnet50", "shufflenet", "zfnet512"), "gpu_0/data_0")


def _replace(field: Any, items: list[Any]) -> None:
    del field[:]
    field.extend(items)


def _parameters(graph: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each float parameter: filled by a node, or stored."""
    stored: Mapping[str, Any] = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            yield node.output[0], tuple(numpy_helper.to_array(stored[node.input[0]]).tolist())
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            yield tensor.name, tuple(tensor.dims)


def _uses(graph: Any) -> dict[str, list[Use]]:
    uses: dict[str, list[Use]] = defaultdict(list)
    for node in graph.node:
        for k, name in enumerate(node.input):
            uses[name].append((node, k))
    return uses


def _part(uses: Mapping[str, list[Use]], name: str) -> Use:
    """The op that a parameter is for, seen through changes of its shape."""
    while uses[name]:
        node, k = uses[name][0]
        if node.op_type not in ("Unsqueeze", "Reshape"):
            return node, k
        name = node.output[0]
    return None, 0


def _draw(
    rng: Any,
    shape: tuple[int, ...],
    node: Any,
    k: int,
    uses: Mapping[str, list[Use]],
    makers: Mapping[str, Any],
) -> Array:
    """Values of one parameter, input `k` of `node`."""
    kind = node.op_type if node is not None else ""
    if kind in ("Conv", "Gemm") and k == 1:
        # Gemm holds its weights transposed, perhaps with extents of 1 before them.
        fan_in = shape[-1] if kind == "Gemm" else math.prod(shape[1:])
        gain = 2.0 if _is_rectified(makers, node.input[0]) else 1.0
        if _is_branch(uses, node):
            gain *= RESIDUAL_GAIN**2
        values: Array = rng.standard_normal(shape, np.float32)
        values *= np.float32(math.sqrt(gain / fan_in))
        return values
    low, high = _NORM[k] if kind == "BatchNormalization" else _RANGES.get(kind, (-0.1, 0.1))
    return rng.uniform(low, high, shape).astype(np.float32)


_RANGES = {"Mul": (0.8, 1.2)}


_CARRIERS = ("Concat", "Reshape", "Transpose", "Dropout", "LRN", "AveragePool")


def _is_rectified(makers: Mapping[str, Any], name: str) -> bool:
    """Whether half of a value's square is gone; a maximum over a window makes up for it."""
    node = makers.get(name)
    if node is not None and node.op_type in _CARRIERS:
        return _is_rectified(makers, node.input[0])
    return node is not None and node.op_type == "Relu"


def _is_branch(uses: Mapping[str, list[Use]], node: Any) -> bool:
    """Whether a layer's result goes, through a batch norm at most, into a sum of two values."""
    for user, _ in uses[node.output[0]]:
        if user.op_type == "BatchNormalization":
            return _is_branch(uses, user)
        if user.op_type == "Sum":
            return True
    return False


__all__ = ["NAMES", "inputs", "light", "path"]
