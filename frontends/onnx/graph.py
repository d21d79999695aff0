"""One graph of a model (the main one, a branch, a loop body, a function) turned into IR.

A graph is a scope: names map to items, inner graphs see the names of outer ones.  Nodes are taken
in their order; a known value is folded at once, anything else is built by its row.
Imports: ir, the import table's face.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from ...ir.blobs import Blob
from ...ir.core import Builder, Loc, Value
from ...ir.errors import Error, InvalidModelError, UnsupportedError
from .functions import attribute_kinds, body_of, schema_of
from .item import Item, item_of, known_item
from .known import fold, results_of
from .node import Known, Node, Row
from .tensors import Slice, blob_of, sparse_of

MAX_DEPTH = 48
"""Graphs inside graphs, functions included; protobuf itself stops near 100."""
MAX_STEPS = 200_000
"""Nodes out of functions: two calls of two calls of ... double with each level."""
CONTROL = frozenset({"If", "Loop", "Scan"})
MALFORMED = (TypeError, ValueError, IndexError, KeyError, AttributeError, ArithmeticError)
"""What a row raises on a node whose operands have ranks or kinds that it does not expect."""

Lookup = Callable[[str, str, int], Row | None]


@dataclass(frozen=True, slots=True)
class ModelContext:
    """What all graphs of a model share."""

    file: str
    folder: Path | None
    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str], Any]
    lookup: Lookup
    steps: Iterator[int] = field(default_factory=count)
    """Counts the nodes imported from functions."""

    @property
    def label(self) -> str:
        """The file's own name, which locations carry."""
        return Path(self.file).name if self.file else ""


@dataclass(slots=True)
class Graph:
    """A scope being imported: `b` appends to its block."""

    model: ModelContext
    b: Builder
    parent: Graph | None = None
    items: dict[str, Item] = field(default_factory=dict)
    opsets: Mapping[str, int] | None = None
    attributes: Mapping[str, Any] | None = None
    """The attributes of the call, inside a function."""
    depth: int = 0
    caller: Loc | None = None
    """The place of the call, inside a function."""

    # ---- names

    def find(self, name: str) -> Item | None:
        """The item of a name in this graph or an outer one."""
        graph: Graph | None = self
        while graph is not None:
            if name in graph.items:
                return graph.items[name]
            graph = graph.parent
        return None

    def define(self, name: str, item: Item, where: object = None) -> None:
        """Give a name its item; E0113 where it has one in this graph."""
        if name in self.items:
            raise InvalidModelError("E0113", f"two values are called '{name}'", where=where)
        self.items[name] = item

    def get(self, name: str, where: object, makers: Mapping[str, Any] | None = None) -> Item:
        """The item of a name; E0112 where there is none (yet)."""
        found = self.find(name)
        if found is not None:
            return found
        maker = (makers or {}).get(name)
        if maker is None:
            raise InvalidModelError("E0112", f"the value '{name}' is not defined", where=where)
        raise InvalidModelError(
            "E0112", f"the value '{name}' is used before it is made", where=where,
            details=(f"it is a result of {maker.op_type} '{maker.name}', which comes later",),
            hint="the nodes are not sorted, or they form a cycle")  # fmt: skip

    # ---- places

    def version_of(self, domain: str) -> int:
        """The opset of a domain here; 0 where the model does not import it."""
        opsets = self.opsets if self.opsets is not None else self.model.opsets
        return opsets.get("" if domain == "ai.onnx" else domain, 0)

    def place(self, proto: Any, version: int) -> str:
        """`node 'fc1' (MatMul, opset 17) in model.onnx`."""
        name = proto.name or next((o for o in proto.output if o), "")
        domain = "" if proto.domain in ("", "ai.onnx") else proto.domain + "."
        where = f" in {self.model.file}" if self.model.file else ""
        return f"node '{name}' ({domain}{proto.op_type}, opset {version}){where}"

    def loc(self, proto: Any) -> Loc:
        """The location that the node's ops carry."""
        if self.caller is not None:
            return Loc(f"{self.caller.name}/{proto.name or proto.op_type}", self.caller.file)
        first = next((o for o in proto.output if o), "")
        return Loc(proto.name or f"{proto.op_type}:{first}", self.model.label)

    def attributes_of(self, proto: Any) -> dict[str, Any]:
        """The attribute protos of a node, references of a function's body resolved."""
        found = {}
        for a in proto.attribute:
            if a.ref_attr_name:
                given = (self.attributes or {}).get(a.ref_attr_name)
                if given is not None:
                    found[a.name] = given
            else:
                found[a.name] = a
        return found

    # ---- importing

    def run(self, graph: Any, stored: Mapping[int, Slice] | None = None) -> list[Item]:
        """Import initializers and nodes of a GraphProto; gives the items of its outputs.

        `stored` says where the data of some initializers lies that the message does not hold.
        """
        for k, tensor in enumerate(graph.initializer):
            where = f"initializer '{tensor.name}'" + self._in_file()
            blob = blob_of(tensor, self.model.folder, where, (stored or {}).get(k))
            self.define(tensor.name, self.constant(tensor.name, blob), where)
        for sparse in graph.sparse_initializer:
            where = f"sparse initializer '{sparse.values.name}'" + self._in_file()
            dense = blob_of_array(sparse_of(sparse, where))
            self.define(sparse.values.name, self.constant(sparse.values.name, dense), where)
        self.nodes(graph.node)
        return [
            self.get(o.name, f"graph output '{o.name}'" + self._in_file()) for o in graph.output
        ]

    def constant(self, name: str, blob: Blob) -> Item:
        """The item of an initializer; its constant carries the name."""
        return Item(blob.type, self.b, "initializer", blob, loc=Loc(name, self.model.label))

    def _in_file(self) -> str:
        return f" in {self.model.file}" if self.model.file else ""

    def nodes(self, protos: Sequence[Any]) -> None:
        """Import nodes in their order."""
        makers = {name: p for p in protos for name in p.output if name}
        for proto in protos:
            self.node(proto, makers)

    def node(self, proto: Any, makers: Mapping[str, Any]) -> None:
        """Import one node and define its results."""
        version = self.version_of(proto.domain)
        where = self.place(proto, version)
        if self.caller is not None and next(self.model.steps) >= MAX_STEPS:
            raise InvalidModelError("E0114", f"functions unfold to more than {MAX_STEPS} nodes",
                                    where=where)  # fmt: skip
        inputs = [self.get(n, where, makers) if n else None for n in proto.input]
        outer, self.b.loc = self.b.loc, self.loc(proto)
        try:
            found = self.results(proto, inputs, version)
        finally:
            self.b.loc = outer
        names = list(proto.output)
        if len([n for n in names if n]) and len(names) > len(found):
            extra = ", ".join(names[len(found) :])
            raise UnsupportedError("E0102", f"{proto.op_type} gives {len(found)} results here",
                                   where=where, details=(f"also wanted: {extra}",))  # fmt: skip
        for name, item in zip(names, found):
            if name and item is not None:
                self.define(name, item, where)
            elif name:
                raise UnsupportedError("E0102", f"result '{name}' of {proto.op_type} is not "
                                       "supported", where=where)  # fmt: skip

    def results(self, proto: Any, inputs: Sequence[Item | None], version: int) -> list[Item | None]:
        """The items that a node gives: of a row, or of the body of a function."""
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        row = self.model.lookup(domain, proto.op_type, version)
        node = Node(proto, self, inputs, version)
        origin = f"from '{node.name}'"
        self.check_attributes(node, domain)
        if row is None:
            return self.call(node, domain)
        try:
            if proto.op_type in CONTROL and not domain:
                return [self.as_item(r, origin) for r in results_of(row(node))]
            found = fold(node, row) or results_of(row(node))
            return [self.as_item(r, origin) for r in found]
        except (InvalidModelError, UnsupportedError):
            raise
        except Error as error:
            node.reject(error)
        except MALFORMED as error:
            said = f"{type(error).__name__}: {error}"
            raise node.invalid(
                "E0117", f"{node.op}: operands or attributes do not fit", said
            ) from error

    def check_attributes(self, node: Node, domain: str) -> None:
        """Attributes have the kinds that the standard gives them; E0111 otherwise."""
        kinds = attribute_kinds(domain, node.op, node.version)
        for name, proto in node.attributes.items():
            want = kinds.get(name, proto.type)
            if proto.type != want:
                names = [type(proto).AttributeType.Name(k) for k in (want, proto.type)]
                raise node.invalid("E0111", f"attribute '{name}' of {node.op} must be {names[0]}",
                                   f"found {names[1]}")  # fmt: skip

    def as_item(self, result: Value | Known | Item | None, origin: str = "") -> Item | None:
        """A row's result as an item of this graph."""
        if result is None or isinstance(result, Item):
            return result
        if isinstance(result, Known):
            return known_item(result.elements, result.dtype, self.b, origin)
        return item_of(result, self.b, origin)

    def call(self, node: Node, domain: str) -> list[Item | None]:
        """A call of the model's own function, or of one of the standard: its body, in place."""
        function = self.model.functions.get((domain, node.op))
        schema = schema_of(domain, node.op, node.version) if function is None else None
        if schema is not None:
            types = [None if item is None else item.type for item in node.inputs]
            function = body_of(schema, resolved(node), node.version, types)
        if function is None:  # the reader has looked, but not into bodies that depend on types
            raise UnsupportedError("E0101", f"no operation {node.op}", where=node.place())
        inner = self.inner(node.place(), self.b)
        inner.parent = None
        inner.caller = self.loc(node.proto)
        outer = self.opsets if self.opsets is not None else self.model.opsets
        said = {_face(o.domain): o.version for o in function.opset_import}
        inner.opsets = said if schema is None else {**outer, **said}
        inner.attributes = {a.name: a for a in function.attribute_proto} | node.attributes
        for k, name in enumerate(function.input):
            item = node.inputs[k] if k < len(node.inputs) else None
            if item is not None:
                inner.items[name] = item
        return inner.body(function)

    def body(self, function: Any) -> list[Item | None]:
        """The results of a FunctionProto whose inputs are defined; absent inputs stay absent."""
        absent = {n for n in function.input if n not in self.items}
        protos = []
        for proto in function.node:
            if absent.intersection(proto.input):
                copy = type(proto)()
                copy.CopyFrom(proto)
                copy.input[:] = ["" if n in absent else n for n in proto.input]
                proto = copy
            protos.append(proto)
        self.nodes(protos)
        return [self.find(name) for name in function.output]  # those not wanted may be missing

    def inner(self, where: object, b: Builder) -> Graph:
        """A scope inside this one that builds at `b`; E0114 where it is nested too deep."""
        if self.depth >= MAX_DEPTH:
            raise InvalidModelError("E0114", f"graphs are nested more than {MAX_DEPTH} deep",
                                    where=where)  # fmt: skip
        return Graph(
            self.model, b, self, {}, self.opsets, self.attributes, self.depth + 1, self.caller
        )

    def region(self, graph: Any, b: Builder, args: Sequence[Item], where: object) -> list[Item]:
        """Import a node's subgraph at `b`, its inputs bound to `args`."""
        inner = self.inner(where, b)
        if len(graph.input) != len(args):
            raise InvalidModelError(
                "E0115", f"the inner graph '{graph.name}' takes {len(graph.input)} inputs, "
                f"{len(args)} are given", where=where)  # fmt: skip
        for declared, item in zip(graph.input, args):
            inner.define(declared.name, item, where)
        return inner.run(graph)


def resolved(node: Node) -> Any:
    """The node's message with attributes in place of references to a caller's."""
    if all(not a.ref_attr_name for a in node.proto.attribute):
        return node.proto
    made = type(node.proto)()
    made.CopyFrom(node.proto)
    del made.attribute[:]
    for name, attribute in node.attributes.items():
        made.attribute.append(attribute)
        made.attribute[-1].name = name
    return made


def _face(domain: str) -> str:
    """The default domain has two names."""
    return "" if domain == "ai.onnx" else domain


def blob_of_array(array: Any) -> Blob:
    """An array as a blob."""
    return Blob(array)


__all__ = ["Graph", "ModelContext", "blob_of_array"]
