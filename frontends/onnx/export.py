"""`export_onnx`: a module of tensor ops as an ONNX model, checked and written in one piece.

A row of the table writes one op; an op without a row is decomposed, and its parts written; what has
neither is an error (E0118).  Imports: onnx, ir, the files of rows.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, checker, helper, numpy_helper

from ...ir.archive import replacing
from ...ir.blobs import Blob
from ...ir.core import Block, Builder, Op
from ...ir.errors import Error, InvalidModelError
from ...ir.ops.core import Func, Module
from ...ir.types import SequenceType, TensorType
from . import (
    export_attention,
    export_compute,
    export_control,
    export_elementwise,
    export_moves,
    export_normalize,
    export_select,
)
from .export_graph import Graph, Model, NeedsOpset, Node, Place, Row, code_of
from .export_patterns import fusions

OLDEST, USUAL, NEWEST = 17, 17, 26
"""The opsets that the rows are written for, and the one that is written where none is asked for:
runtimes have their fastest kernels for it.  In newer ones average pools are slower, and a Relu in
half precision is taken apart.
"""
WORTH = {"gelu": 20}
"""Ops for which a newer opset is written, as it has them."""
EXTERNAL = (1 << 31) - (1 << 20)
"""Bytes of weights above which they go to a file of their own (protobuf ends at 2 GiB)."""
ALIGNMENT = 4096

Result = TypeVar("Result")

TABLE: Mapping[str, Row] = {
    **export_elementwise.ROWS,
    **export_moves.ROWS,
    **export_compute.ROWS,
    **export_attention.ROWS,
    **export_normalize.ROWS,
    **export_select.ROWS,
    **export_control.ROWS,
}
"""Op name to the row that writes it."""


def export_onnx(
    module: Module,
    path: str | os.PathLike[str],
    opset: int | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
    external_bytes: int = EXTERNAL,
) -> int:
    """Write the module's main function as an inference graph; gives the opset.

    Inputs and outputs keep their names, symbolic dims stay symbolic.  Without `opset` it is 17, or
    the newer one that an op needs.  Weights beyond `external_bytes` go to PATH.data.  Raises E0118
    for an op that ONNX cannot say, E0119 for such an element type, E0120 for an opset too old or
    unknown, E0264 where the file cannot be written; the file is replaced when all is well.
    """
    if not isinstance(module, Module):
        raise Error(
            "E0102", f"a {type(module).__name__} is no module", hint="irc.load makes one of a file"
        )
    goal = Path(path)

    def finish(graph: Graph) -> int:
        if sum([b.nbytes for b in graph.model.constants.values()]) > external_bytes:
            _write_external(graph, module.sym, metadata, goal)
        else:
            data = _proto(graph, module.sym, metadata).SerializeToString()
            check(data)
            with replacing(goal) as file:
                file.write(data)
        return graph.model.opset

    return _written(module, opset, finish)


def model_of(module: Module, opset: int | None = None) -> ModelProto:
    """The module as a checked message, weights included; errors as `export_onnx`."""

    def finish(graph: Graph) -> ModelProto:
        proto = _proto(graph, module.sym, None)
        check(proto)
        return proto

    return _written(module, opset, finish)


def check(model: Any) -> None:
    """Raise E0121 where onnx.checker, shape inference included, objects to what was written."""
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        said = [line for line in str(error).splitlines() if line.strip()]
        raise Refused("E0121", "the exported model is not valid ONNX", details=said[:6]) from None


class Refused(InvalidModelError):
    """The checker's objection, often to an element type that a newer opset allows."""


def _written(module: Module, opset: int | None, finish: Callable[[Graph], Result]) -> Result:
    """What `finish` makes of the graph; without `opset` of the oldest from the usual one on that
    can say it.
    """
    if opset is not None and not OLDEST <= opset <= NEWEST:
        raise Error("E0120", f"opset {opset} cannot be written", hint=f"{OLDEST} to {NEWEST}")
    least = max([WORTH.get(op.name, USUAL) for op in module.main.walk()], default=USUAL)
    first = None
    for candidate in [opset] if opset is not None else range(USUAL, NEWEST + 1):
        if opset is None and candidate < least:
            continue
        try:
            return finish(_main(module.main, candidate))
        except NeedsOpset as error:
            least, first = error.least, first or error
        except Refused as error:
            first = first or error
    assert first is not None
    raise first


# ---- the graph


def _main(func: Func, opset: int) -> Graph:
    if func.kind != "func":
        raise Error("E0118", f"a function of kind '{func.kind}' is no graph of tensor ops",
                    hint="export the module before it is lowered")  # fmt: skip
    found, gone = fusions(func)

    def emit(graph: Graph, op: Op) -> None:
        if op not in gone:
            _emit(graph, op, found[op].write if op in found else TABLE.get(op.name))

    model = Model(opset)
    graph = Graph(model, emit)
    names = _named(func)
    model.taken.update(names[0], names[1])
    for value, name in zip(func.args, names[0]):
        graph.inputs.append((name, _tensor(value.type, name)))
        graph.give(value, name)
    results = graph.block(func.body)
    read = _drop_dead(graph, results)
    model.constants = {n: blob for n, blob in model.constants.items() if n in read}
    _name_outputs(graph, results, names[1], func)
    return graph


def _named(func: Func) -> tuple[list[str], list[str]]:
    """Names of the inputs and outputs, numbered where the function has none."""
    inputs = [n or f"x{k}" for k, n in enumerate(func.inputs)]
    inputs += [v.name or f"x{k}" for k, v in enumerate(func.args) if k >= len(inputs)]
    outputs = list(func.outputs)
    outputs += [f"y{k}" for k in range(len(outputs), len(func.returned))]
    return inputs, outputs


def _tensor(type_: Any, name: str) -> TensorType:
    if not isinstance(type_, TensorType) or isinstance(type_, SequenceType):
        raise Error("E0118", f"'{name}' is {type_}, no tensor")
    return type_


def _emit(graph: Graph, op: Op, row: Row | None) -> None:
    """Write an op by its row, else its parts."""
    place = Place(graph, op)
    names = row(place) if row is not None else None
    if names is None:
        names = _parts(graph, op)
    for value, name in zip(op.results, [names] if isinstance(names, str) else names):
        graph.give(value, name)


def _parts(graph: Graph, op: Op) -> list[str]:
    """Decompose an op and write what it is made of."""
    if not hasattr(op, "decompose") or op.regions:
        raise Place(graph, op).refuse("and it is not made of ops that have one")
    given = [v for v in op.operands if v is not None]
    block = Block([v.type for v in given])
    stand_ins = iter(block.args)
    operands = [None if v is None else next(stand_ins) for v in op.operands]
    copy = type(op).raw(operands, op.attrs, [r.type for r in op.results], (), op.loc)  # type: ignore[arg-type]
    found = copy.decompose(Builder(block, loc=op.loc))  # type: ignore[attr-defined]
    for arg, value in zip(block.args, given):
        graph.names[arg] = graph.of(value)
    graph.block(block)
    made = found if isinstance(found, (tuple, list)) else (found,)
    return [graph.of(v) for v in made]


def _drop_dead(graph: Graph, results: Sequence[str]) -> set[str]:
    """Remove nodes whose results nobody reads; gives every name that is read."""
    read, kept = set(results), []
    for node in reversed(graph.nodes):
        if read.isdisjoint(node.outputs):
            continue
        kept.append(node)
        read.update(node.inputs)
        for value in node.attrs.values():
            if isinstance(value, Graph):
                read |= _drop_dead(value, [name for name, _ in value.outputs])
    graph.nodes = kept[::-1]
    return read


def _name_outputs(graph: Graph, results: list[str], wanted: list[str], func: Func) -> None:
    """Give results the names that they must have: by renaming, else by an Identity."""
    own = {o for node in graph.nodes for o in node.outputs}
    renamed: dict[str, str] = {}
    for name, want, value in zip(results, wanted, func.returned):
        if name in own and name not in renamed:
            renamed[name] = want
        elif want not in (name, renamed.get(name)):
            node = graph.model.unique(f"{want}.copy")
            graph.nodes.append(Node("Identity", node, [name], [want], {}))
        graph.outputs.append((want, _tensor(value.type, want)))
    _rename(graph, renamed)


def _rename(graph: Graph, renamed: Mapping[str, str]) -> None:
    for node in graph.nodes:
        node.inputs = [renamed.get(n, n) for n in node.inputs]
        node.outputs = [renamed.get(n, n) for n in node.outputs]
        for value in node.attrs.values():
            if isinstance(value, Graph):
                _rename(value, renamed)


# ---- messages


def _proto(
    graph: Graph, name: str, metadata: Mapping[str, str] | None, tensors: Any = None
) -> ModelProto:
    if tensors is None:
        tensors = [tensor_proto(n, blob) for n, blob in graph.model.constants.items()]
    opsets = [helper.make_opsetid("", graph.model.opset)]
    proto = helper.make_model(
        _graph_proto(graph, name or "graph", tensors), producer_name="irc",
        producer_version=_version(), opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),  # older programs read it
    )  # fmt: skip
    if metadata:
        helper.set_model_props(proto, dict(metadata))
    return proto


def _version() -> str:
    """Of the installed package; empty in a tree that is not."""
    try:
        return version("tensor-irc")
    except PackageNotFoundError:
        return ""


def _graph_proto(graph: Graph, name: str, tensors: Any = ()) -> GraphProto:
    inputs, outputs = [
        [_value_info(n, type_) for n, type_ in fields] for fields in (graph.inputs, graph.outputs)
    ]
    nodes = [_node_proto(node) for node in graph.nodes]
    return helper.make_graph(nodes, name, inputs, outputs, initializer=tensors)


def _node_proto(node: Node) -> Any:
    made = helper.make_node(node.type, node.inputs, node.outputs, node.name, domain=node.domain)
    for key, value in node.attrs.items():
        if isinstance(value, Graph):
            value = _graph_proto(value, value.name)
        elif isinstance(value, np.ndarray):
            value = tensor_proto("", Blob(value))
        made.attribute.append(helper.make_attribute(key, value))
    return made


def _value_info(name: str, type_: TensorType) -> Any:
    shape = [e if isinstance(e, int) else str(e) for e in type_.shape]
    return helper.make_tensor_value_info(name, code_of(type_.dtype, f"'{name}'"), shape)


def tensor_proto(name: str, blob: Blob) -> TensorProto:
    """A constant as a message."""
    if blob.dtype.kind == "string":
        texts = [str(s) for s in blob.array.reshape(-1)]
        return helper.make_tensor(name, TensorProto.STRING, blob.array.shape, texts)
    if blob.dtype.bits < 8:
        return numpy_helper.from_array(np.ascontiguousarray(blob.array), name)
    made = TensorProto(name=name, data_type=code_of(blob.dtype), dims=blob.array.shape)
    made.raw_data = blob.array.tobytes()
    return made


# ---- weights in a file of their own


def _write_external(
    graph: Graph, name: str, metadata: Mapping[str, str] | None, goal: Path
) -> None:
    """The model and PATH.data, made in a folder beside their goal and moved there when whole."""
    beside = f"{goal.name}.data"
    try:
        with tempfile.TemporaryDirectory(dir=goal.parent, prefix=".new-") as folder:
            new, data = Path(folder) / goal.name, Path(folder) / beside
            with data.open("wb") as file:
                tensors = list(_external(graph.model, file, beside))
            new.write_bytes(_proto(graph, name, metadata, tensors).SerializeToString())
            check(str(new))
            os.replace(data, goal.with_name(beside))
            os.replace(new, goal)
    except OSError as error:
        raise Error("E0264", f"cannot write {goal}: {error.strerror or error}") from None


def _external(model: Model, file: BinaryIO, location: str) -> Iterator[TensorProto]:
    """The initializers; those above 1 KiB are written to the file and only named."""
    for name, blob in model.constants.items():
        if blob.nbytes <= 1 << 10 or blob.dtype.bits < 8 or blob.dtype.kind == "string":
            yield tensor_proto(name, blob)
            continue
        file.seek(-(-file.tell() // ALIGNMENT) * ALIGNMENT)
        offset = file.tell()
        file.write(np.ascontiguousarray(blob.array).tobytes())
        made = TensorProto(name=name, data_type=code_of(blob.dtype), dims=blob.array.shape)
        made.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", blob.nbytes)):
            made.external_data.add(key=key, value=str(value))
        yield made


__all__ = ["NEWEST", "OLDEST", "TABLE", "check", "export_onnx", "model_of", "tensor_proto"]
