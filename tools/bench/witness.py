"""A second engine's word: what onnxruntime, all optimizations off, makes of a network.

`witness` gives the outputs, and `probed` a copy of the model that also returns what goes into the
last softmax and every tenth intermediate, with their values.  Imports: onnx, onnxruntime in a
function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, helper

from ...backends import compiler
from ...backends.targets import choose
from ...ir.errors import Error
from .. import driver, verification
from ..verification import Compared
from .zoo import Shapes, Subject

Array = np.ndarray[Any, Any]
EVERY = 10
TOLERANCE = {"float32": 1e-4, "float16": 1e-2}
"""Greatest max|y - ref| / max|ref| by element type; everything else must be equal."""


@dataclass(frozen=True)
class Witnessed:
    """A model (file or bytes), its inputs, the shapes to compile it for, the expected outputs."""

    model: str | bytes
    inputs: Mapping[str, Array]
    shapes: Shapes
    expected: Mapping[str, Array]


@dataclass(frozen=True)
class Agreement:
    """Each expected value compared, and the number of steps that the host evaluates."""

    rows: tuple[Compared, ...]
    host_steps: int

    @property
    def passed(self) -> bool:
        """Every value within its bar."""
        return all([row.passed for row in self.rows])

    @property
    def worst(self) -> float:
        """The greatest error."""
        return max([row.error for row in self.rows], default=0.0)


def witness(subject: Subject) -> Witnessed:
    """The outputs of the file as it is."""
    expected = reference(str(subject.file), subject.inputs)
    return Witnessed(str(subject.file), subject.inputs, subject.shapes, expected)


def probed(subject: Subject, every: int = EVERY) -> Witnessed:
    """A copy that returns intermediates too."""
    model = onnx.load(subject.file)
    before = {value.name for value in model.graph.output}
    wanted = [name for name in _chosen(model, every) if name not in before]
    model.graph.output.extend([onnx.ValueInfoProto(name=name) for name in wanted])
    found = reference(model.SerializeToString(), subject.inputs)
    kept = {n: y for n, y in found.items() if n in before or y.dtype.kind == "f"}
    del model.graph.output[len(before) :]
    for name in wanted:
        if name in kept:
            kind = helper.np_dtype_to_tensor_dtype(kept[name].dtype)
            shape = kept[name].shape
            model.graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    return Witnessed(model.SerializeToString(), subject.inputs, subject.shapes, kept)


def _chosen(model: ModelProto, every: int) -> list[str]:
    """The first result of every tenth node that computes, and what the last softmax reads."""
    nodes = [n for n in model.graph.node if n.op_type not in ("Constant", "Identity")]
    names = [n.output[0] for n in nodes[every - 1 :: every]]
    last = [n.input[0] for n in nodes if n.op_type == "Softmax"][-1:]
    inputs = {v.name for v in model.graph.input}
    return [name for name in dict.fromkeys(names + last) if name and name not in inputs]


def reference(model: str | bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs by name from onnxruntime without any optimization; E0529 where it is missing."""
    try:
        import onnxruntime as ort
    except ImportError:
        raise Error(
            "E0529", "onnxruntime is not installed", hint="pip install 'tensor-irc[bench]'"
        ) from None
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(inputs)), strict=True))


def agreement(
    given: Witnessed, target: str = "cpu", threads: int = 1, noise: float = 0.0
) -> Agreement:
    """Compile, run and compare; `noise` perturbs the weights by that relative amount first."""
    choice = choose(target, threads)
    module = driver.load(given.model, given.shapes or None)
    if noise:
        module = verification.noisy(module, noise)
    exe = compiler.build(compiler.lower(module, choice, shapes=given.shapes or None), choice)
    found = exe.run({name: np.array(x) for name, x in given.inputs.items()})
    names = [name for name, _ in exe.outputs]
    outputs = dict(zip(names, found, strict=True))
    rows = [_row(name, outputs.get(name), ref) for name, ref in given.expected.items()]
    return Agreement(tuple(rows), len(exe.program.host_steps))


def _row(name: str, y: Array | None, ref: Array) -> Compared:
    """Where the reference is not finite (a mask of minus infinity) ours must be the same."""
    bar = TOLERANCE.get(str(ref.dtype))
    if y is None:
        return Compared(name, float("inf"), bar or 0.0)
    return verification.row(name, y, ref, bar)


def first_wrong(rows: Sequence[Compared]) -> str:
    """The first value that is off, in words; empty where none is."""
    wrong = next((row for row in rows if not row.passed), None)
    return f"{wrong.what} off by {wrong.error:.1e}" if wrong else ""


__all__ = ["Agreement", "Witnessed", "agreement", "first_wrong", "probed", "reference", "witness"]
