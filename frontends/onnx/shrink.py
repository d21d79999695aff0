"""An ONNX model as a program that can be made smaller, without importing it: edits of the graph.

A place of the kinds `inputs`, `bypass` and `end` is a node of the main graph; of `weights` an
initializer of several elements that are not all equal; of `extents` a pair (extent, smaller one).
Types of values in between come from the model and onnx's shape inference; what has none is left
alone.  Imports: onnx, ir.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper, shape_inference
from onnx import load as load_proto

from ...ir.archive import replacing
from ...ir.errors import Error


class OnnxProgram:
    """A model that is never changed; edits copy it."""

    def __init__(self, proto: Any) -> None:
        self.proto = proto
        self._edits: dict[str, Callable[[Sequence[int]], Any]] = {
            "outputs": self._fewer_outputs,
            "weights": self._plain_weights,
            "end": self._ended,
            "inputs": self._cut,
            "bypass": self._bypassed,
            "extents": self._smaller,
        }

    @classmethod
    def read(cls, path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> OnnxProgram:
        """A model from its file, its inputs of these shapes; E0100 where it cannot be read."""
        try:
            proto = load_proto(str(path))
        except Exception as error:  # onnx raises what protobuf and the system raise
            said = str(error).partition("\n")[0]
            raise Error("E0100", f"cannot read {path}", details=(said,)) from None
        for value in proto.graph.input:
            if value.name in (shapes or {}):
                dims = value.type.tensor_type.shape.dim
                del dims[:]
                for extent in (shapes or {})[value.name]:
                    dims.add().dim_value = int(extent)
        return cls(proto)

    @property
    def graph(self) -> Any:
        """The main graph."""
        return self.proto.graph

    @property
    def size(self) -> int:
        """Nodes of the main graph."""
        return len(self.graph.node)

    @cached_property
    def weights(self) -> list[int]:
        """The initializers, by number, whose elements differ."""
        found = []
        for k, tensor in enumerate(self.graph.initializer):
            if tensor.data_type != TensorProto.STRING and np.prod(tensor.dims) > 1:
                array = numpy_helper.to_array(tensor)
                if (array != array.flat[0]).any():
                    found.append(k)
        return found

    @cached_property
    def extents(self) -> list[tuple[int, int]]:
        """(extent, smaller extent) to try, for all that inputs and initializers have."""
        found = {e for tensor in self.graph.initializer for e in tensor.dims if e > 1}
        for value in self.graph.input:
            dims = value.type.tensor_type.shape.dim
            found |= {d.dim_value for d in dims if d.dim_value > 1}
        return [
            (e, less)
            for e in sorted(found, reverse=True)
            for less in sorted({1, 2, e // 2} & set(range(1, e)))
        ]

    @cached_property
    def types(self) -> dict[str, Any]:
        """The TypeProto of each value that has one, with an extent or a name for every axis."""
        proto = self.proto
        try:
            proto = shape_inference.infer_shapes(proto, data_prop=True)
        except Exception:  # a broken model is what is being reduced
            pass
        graph = proto.graph
        known = [*graph.value_info, *graph.input, *graph.output]
        return {v.name: v.type for v in known if _settled(v.type)}

    def atoms(self, kind: str) -> int:
        """Places for an edit of a kind."""
        return {
            "outputs": len(self.graph.output),
            "weights": len(self.weights),
            "extents": len(self.extents),
            "constants": 0,
            "inline": 0,
        }.get(kind, len(self.graph.node))

    def edited(self, kind: str, chosen: Sequence[int]) -> OnnxProgram | None:
        """A new program with the edits; None where they are impossible."""
        made = self._edits[kind](chosen)
        return None if made is None else OnnxProgram(_swept(made))

    def save(self, path: Path) -> None:
        """Write the model whole, or nothing."""
        with replacing(path) as file:
            file.write(self.proto.SerializeToString(deterministic=True))

    # ---- edits

    def _copy(self) -> Any:
        made = ModelProto()
        made.CopyFrom(self.proto)
        return made

    def _fewer_outputs(self, chosen: Sequence[int]) -> Any:
        if len(chosen) >= len(self.graph.output):
            return None
        made = self._copy()
        for k in sorted(chosen, reverse=True):
            del made.graph.output[k]
        return made

    def _ended(self, chosen: Sequence[int]) -> Any:
        (k,) = chosen
        names = [n for n in self.graph.node[k].output if n]
        if not names or set(names) == {o.name for o in self.graph.output}:
            return None
        made = self._copy()
        del made.graph.output[:]
        for name in names:
            value = made.graph.output.add()
            value.name = name
            if name in self.types:
                value.type.CopyFrom(self.types[name])
        return made

    def _cut(self, chosen: Sequence[int]) -> Any:
        """The chosen nodes go; what others read of them is an input."""
        gone = set(chosen)
        kept = [n for k, n in enumerate(self.graph.node) if k not in gone]
        read = {name for node in kept for name in _reads(node)}
        made_by = [n for k in chosen for n in self.graph.node[k].output if n]
        if {o.name for o in self.graph.output} & set(made_by):
            return None
        names = [n for n in made_by if n in read]
        if any([name not in self.types for name in names]):
            return None
        made = self._copy()
        for k in sorted(gone, reverse=True):
            del made.graph.node[k]
        for name in names:
            value = made.graph.input.add()
            value.name = name
            value.type.CopyFrom(self.types[name])
        return made

    def _bypassed(self, chosen: Sequence[int]) -> Any:
        """Readers of a node's first result read its first operand of the same type."""
        renamed: dict[str, str] = {}
        for k in chosen:
            node = self.graph.node[k]
            out = self._type_text(node.output[0]) if node.output else None
            like = [n for n in node.input if n and out and self._type_text(n) == out]
            if not like:
                return None
            renamed[node.output[0]] = renamed.get(like[0], like[0])
        if renamed.keys() & {o.name for o in self.graph.output}:
            return None
        made = self._copy()
        for k in sorted(chosen, reverse=True):
            del made.graph.node[k]
        for node in made.graph.node:
            _rename(node, renamed)
        return made

    def _type_text(self, name: str) -> bytes | None:
        type_ = self.types.get(name)
        return None if type_ is None else bytes(type_.SerializeToString(deterministic=True))

    def _plain_weights(self, chosen: Sequence[int]) -> Any:
        made = self._copy()
        for k in [self.weights[c] for c in chosen]:
            tensor = made.graph.initializer[k]
            array = numpy_helper.to_array(tensor)
            _set_tensor(tensor, np.full_like(array, array.flat[0]))
        return made

    def _smaller(self, chosen: Sequence[int]) -> Any:
        (k,) = chosen
        old, new = self.extents[k]
        made = self._copy()
        for value in made.graph.input:
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_value == old:
                    dim.dim_value = new
        for tensor in made.graph.initializer:
            array = numpy_helper.to_array(tensor)
            part = array[tuple([slice(new if e == old else None) for e in array.shape])]
            if array.dtype == np.int64 and array.ndim == 1:  # a shape
                part = np.where(part == old, new, part)
            if part.shape != array.shape or (part != array).any():
                _set_tensor(tensor, np.ascontiguousarray(part))
        del made.graph.value_info[:]
        for value in made.graph.output:
            value.type.tensor_type.ClearField("shape")
        return made


def _settled(type_: Any) -> bool:
    """Is it a tensor of a known element type and rank?"""
    tensor = type_.tensor_type
    return bool(tensor.elem_type) and tensor.HasField("shape")


def _reads(node: Any) -> Iterator[str]:
    """The names that a node and the graphs in it read."""
    yield from [n for n in node.input if n]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)
            yield from [o.name for o in graph.output]


def _rename(node: Any, renamed: Mapping[str, str]) -> None:
    for k, name in enumerate(node.input):
        node.input[k] = renamed.get(name, name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                _rename(inner, renamed)


def _set_tensor(tensor: Any, array: Any) -> None:
    """Other elements under the same name."""
    made = numpy_helper.from_array(array, tensor.name)
    made.data_type = tensor.data_type
    tensor.CopyFrom(made)


def _swept(proto: Any) -> Any:
    """Take out, in place, what the outputs do not need: nodes, inputs, initializers, types."""
    graph = proto.graph
    wanted = {o.name for o in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(_reads(node))
    nodes = kept[::-1]
    del graph.node[:]
    graph.node.extend(nodes)
    for values in (graph.input, graph.initializer, graph.value_info):
        for k in range(len(values) - 1, -1, -1):
            if values[k].name not in wanted:
                del values[k]
    return proto


__all__ = ["OnnxProgram"]
