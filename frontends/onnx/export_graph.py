"""A graph being written: names, nodes, constants, and the places of ops that the rows fill.

A `Graph` is a scope: values of the IR have names in it or in an outer one; names are unique over
the whole model, since an inner graph sees the outer ones.  Imports: ir, the importer's types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto

from ...ir.blobs import Blob
from ...ir.core import Block, Op, Value
from ...ir.dims import DimLike
from ...ir.errors import UnsupportedError
from ...ir.ops.core import Const
from ...ir.types import DType, TensorType, bf16, f32, i64
from .tensors import DTYPES

Array = np.ndarray[Any, Any]
SMALL = 1 << 16
"""Bytes of the constants that are compared with each other."""
REPEATED = 1 << 10
"""Bytes above which one number repeated is a ConstantOfShape."""
Names = str | Sequence[str]

_CODES = {ours: TensorProto.DataType.Value(name) for name, ours in DTYPES.items()}


def code_of(dtype: DType, where: object = None) -> int:
    """The TensorProto.DataType number of an element type; E0119 where ONNX lacks it."""
    code = _CODES.get(dtype.name)
    if code is None:
        raise UnsupportedError("E0119", f"ONNX has no element type {dtype}", where=where,
                               hint="cast to a wider type before exporting")  # fmt: skip
    return code


class NeedsOpset(UnsupportedError):
    """An op that only a newer opset can say; `least` is the first that can."""

    def __init__(self, least: int, what: str, where: object = None) -> None:
        super().__init__("E0120", f"{what} needs opset {least} or newer", where=where,
                         hint=f"opset={least}")  # fmt: skip
        self.least = least


@dataclass(slots=True)
class Node:
    """One ONNX node; an attribute may hold a `Graph`."""

    type: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any]
    domain: str = ""


@dataclass(slots=True)
class Model:
    """What all graphs of a model share."""

    opset: int
    taken: set[str] = field(default_factory=set)
    constants: dict[str, Blob] = field(default_factory=dict)
    """Initializers by name."""
    blobs: dict[Any, str] = field(default_factory=dict)
    """The names of the constants that stand already."""

    def unique(self, wish: str) -> str:
        """`wish`, numbered where it is taken."""
        name, count = wish, 0
        while name in self.taken or not name:
            count += 1
            name = f"{wish or 'v'}_{count}"
        self.taken.add(name)
        return name

    def constant(self, blob: Blob, wish: str) -> str:
        """The initializer of a blob: one for equal small ones, and for the same large one."""
        small = blob.nbytes <= SMALL and blob.dtype.kind != "string"
        key = (blob.type, blob.array.tobytes()) if small else id(blob)
        name = self.blobs.get(key)
        if name is None:
            code_of(blob.dtype, wish)
            name = self.blobs[key] = self.unique(wish)
            self.constants[name] = blob
        return name


@dataclass(slots=True)
class Graph:
    """One graph of the model."""

    model: Model
    emit: Callable[[Graph, Op], None]
    """Writes one op into a graph (the export table's face)."""
    name: str = "graph"
    parent: Graph | None = None
    nodes: list[Node] = field(default_factory=list)
    names: dict[Value, str] = field(default_factory=dict)
    inputs: list[tuple[str, TensorType]] = field(default_factory=list)
    outputs: list[tuple[str, TensorType]] = field(default_factory=list)
    sources: dict[str, tuple[Value, int]] = field(default_factory=dict)
    """Symbol to a value and the axis whose extent tells it."""
    extents: dict[DimLike, str] = field(default_factory=dict)
    """Dims that have been computed: names of i64 vectors of one element."""
    repeats: dict[Any, str] = field(default_factory=dict)
    """Vectors of one number that have been made."""

    def chain(self) -> Iterable[Graph]:
        """This graph and those around it."""
        graph: Graph | None = self
        while graph is not None:
            yield graph
            graph = graph.parent

    def of(self, value: Value) -> str:
        """The name of a value; a constant becomes an initializer when it is first named."""
        for graph in self.chain():
            found = graph.names.get(value)
            if found is not None:
                return found
        op = value.op
        assert isinstance(op, Const), f"{value} has not been written"
        wish = op.loc.name if op.loc is not None else ""
        blob = op.value if isinstance(op.value, Blob) else Blob(np.asarray(op.value, op.type.np))
        return self.model.constant(blob, wish or value.name or "constant")

    def has(self, value: Value) -> bool:
        """The value is a constant, or has been written here or outside."""
        return isinstance(value.owner, Const) or any([value in g.names for g in self.chain()])

    def give(self, value: Value, name: str) -> None:
        """State the name of a value, and learn what its shape tells."""
        self.names[value] = name
        if isinstance(value.type, TensorType) and not value.type.is_static:
            self.learn(value)

    def learn(self, value: Value) -> None:
        """Note where a symbol that nothing told before can be read."""
        for axis, extent in enumerate(value.tensor.shape or ()):
            for symbol in getattr(extent, "symbols", ()):
                if all([symbol not in g.sources for g in self.chain()]):
                    self.sources[symbol] = (value, axis)

    def add(self, type: str, inputs: Sequence[str], name: str, count: int = 1,
            attrs: Mapping[str, Any] | None = None, domain: str = "") -> list[str]:  # fmt: skip
        """Append a node; gives the names of its results."""
        unique = self.model.unique
        node = unique(name)
        outputs = [unique(f"{node}.out" if k == 0 else f"{node}.out{k}") for k in range(count)]
        kept = {k: v for k, v in (attrs or {}).items() if v is not None}
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        self.nodes.append(Node(type, node, list(inputs), list(outputs), kept, domain))
        return outputs

    def block(self, block: Block) -> list[str]:
        """Write the ops of a block; gives the names of what its terminator takes."""
        for op in block:
            if op.terminator:
                return [self.of(v) for v in op.operands]
            if not isinstance(op, Const):
                self.emit(self, op)
        return []

    def inner(self, name: str) -> Graph:
        """A graph inside this one."""
        return Graph(self.model, self.emit, self.model.unique(name), self)

    def result(self, name: str, type: TensorType) -> None:
        """One more output of an inner graph: by a node of its own, unless it has one already."""
        own = {o for node in self.nodes for o in node.outputs}
        if name not in own or name in [o for o, _ in self.outputs]:
            (name,) = self.add("Identity", [name], "result")
        self.outputs.append((name, type))


@dataclass(slots=True)
class Place:
    """An op being written: what a row of the export table sees.

    Operands are read by name, `p.x(0)`; `p.node(...)` appends a node and gives the name of its
    result (the tuple of names, with `count`).
    """

    graph: Graph
    op: Op

    @property
    def opset(self) -> int:
        return self.graph.model.opset

    @property
    def name(self) -> str:
        """Where the op came from, else what it is."""
        return (self.op.loc.name if self.op.loc is not None else "") or self.op.name

    @property
    def attrs(self) -> dict[str, Any]:
        return self.op.attributes

    def need(self, least: int, what: str) -> None:
        """Raise `NeedsOpset` where the opset is older."""
        if self.opset < least:
            raise NeedsOpset(least, what, self.op.place())

    def refuse(self, why: str) -> UnsupportedError:
        """What ONNX cannot say, to raise."""
        return UnsupportedError("E0118", f"ONNX has no counterpart of {self.op.name}",
                                where=self.op.place(), details=(why,))  # fmt: skip

    def value(self, index: int = 0) -> Value:
        """Operand `index` of the op."""
        return self.op.operands[index]

    def type(self, index: int = 0) -> TensorType:
        return self.op.operands[index].tensor

    @property
    def out(self) -> TensorType:
        """The type of the first result."""
        return self.op.results[0].tensor

    def x(self, index: int = 0) -> str:
        """The name of operand `index`; empty where it is absent."""
        value = self.op.operands[index] if index < len(self.op.operands) else None
        return "" if value is None else self.graph.of(value)

    def all(self) -> list[str]:
        """The names of all operands."""
        return [self.x(k) for k in range(len(self.op.operands))]

    def node(self, type: str, *inputs: str, domain: str = "", **attrs: Any) -> str:
        """Append a node of one result; attributes that are None are left out."""
        return self.graph.add(type, inputs, self.name, 1, attrs, domain)[0]

    def nodes(self, type: str, count: int, *inputs: str, **attrs: Any) -> list[str]:
        """Append a node of several results."""
        return self.graph.add(type, inputs, self.name, count, attrs)

    def const(self, array: Any, dtype: DType | None = None) -> str:
        """A small constant."""
        made = np.asarray(array) if dtype is None else np.asarray(array).astype(dtype.np)
        type_ = None if dtype is None else TensorType(dtype, made.shape)
        return self.graph.model.constant(Blob(made, type_), f"{self.name}.constant")

    def repeated(self, array: Array, dtype: DType) -> str:
        """A constant vector, in one number where it repeats it."""
        if array.nbytes <= REPEATED or (array != array[0]).any():
            return self.const(array, dtype)
        key = (dtype, array.shape, array[:1].tobytes())
        known = next((g.repeats[key] for g in self.graph.chain() if key in g.repeats), None)
        if known is None:
            known = self.node("ConstantOfShape", self.ints(array.shape), value=array[:1])
            self.graph.repeats[key] = known
        return known

    def ints(self, values: Sequence[int]) -> str:
        """An i64 vector."""
        return self.const(np.array(values, np.int64))

    def like(self, value: float | int | bool, index: int = 0) -> str:
        """A constant of rank 0 in the element type of operand `index`."""
        return self.const(value, self.type(index).dtype)

    def cast(self, name: str, to: DType) -> str:
        """`name` in another element type."""
        return self.node("Cast", name, to=code_of(to, self.op.place()))

    def in_f32(self, write: Callable[[str], str]) -> str:
        """`write` of operand 0; through f32 where the op has no form for bf16."""
        if self.type().dtype is not bf16:
            return write(self.x())
        return self.cast(write(self.cast(self.x(), f32)), bf16)

    def to_i64(self, index: int) -> str:
        """Operand `index`, of integers, as i64."""
        return self.x(index) if self.type(index).dtype is i64 else self.cast(self.x(index), i64)


Row = Callable[[Place], "Names | None"]
"""Writes an op and gives the names of its results; None where the op must be decomposed first."""

__all__ = ["Graph", "Model", "Names", "NeedsOpset", "Node", "Place", "Row", "code_of"]
