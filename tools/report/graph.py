"""The graph of a fused module: regions, views, control flow and the values between them.

A node is what stands in a block: a fused region with its ops, a reshape, a step for the host, or an
op with regions, whose blocks are graphs of their own inside it.  Constants are parameters of their
readers, not nodes.  Imports: ir, passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...ir.blobs import Blob
from ...ir.core import Block, Op, Value
from ...ir.fields import attr
from ...ir.literals import attribute_text
from ...ir.ops.core import Const, Func, Fused
from ...passes.cost import cost_of, elements, work

LONGEST = 240
"""Characters of an attribute or a name, from which it is cut."""

KINDS = {
    "contraction": re.compile("conv|conv_transpose|matmul|contract"),
    "pool": re.compile("(max|avg|lp)_pool"),
    "reduction": re.compile("(reduce_|arg).*|softmax|log_softmax|.*_norm|cum.*|top_k|sort"),
}
"""Kind of a region by the first of these that names one of its ops."""

MOVES = frozenset(
    "pack unpack transpose concat slice pad gather scatter broadcast_to resize tile reshape".split()
)
"""A region of these alone moves elements; every other one is elementwise."""


@dataclass
class Inner:
    """One op inside a node."""

    name: str
    result: str
    attributes: dict[str, str]
    place: str
    reads: list[str]
    flops: int


@dataclass
class Node:
    """One box: `kind` says how it is drawn, `operands` and `results` are (name, type) pairs.

    `kernel` is the kernel that a region became; `graphs` are the blocks of an op with regions.
    """

    id: int
    kind: str
    title: str
    result: str
    place: str = ""
    kernel: str = ""
    flops: int = 0
    bytes: int = 0
    inputs: list[tuple[str, str]] = field(default_factory=list)
    outputs: list[tuple[str, str]] = field(default_factory=list)
    attributes: dict[str, str] = field(default_factory=dict)
    ops: list[Inner] = field(default_factory=list)
    graphs: list[Graph] = field(default_factory=list)


@dataclass
class Graph:
    """Nodes in order of the program, and edges (from, to, type) by their ids."""

    name: str
    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[int, int, str]] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """All nodes, those inside others too."""
        for node in self.nodes:
            yield node
            for graph in node.graphs:
                yield from graph.walk()


def graph_of(main: Func, kernels: Mapping[Op, str]) -> Graph:
    """The graph of `main` behind fusion; `kernels` names the kernel of each fused region."""
    return _Maker(main, kernels).block(main.body, "main", main)


class _Maker:
    """State while one function becomes a graph: numbers for nodes, names for values."""

    def __init__(self, main: Func, kernels: Mapping[Op, str]) -> None:
        self.kernels = kernels
        self.count = 0
        self.names: dict[Value, str] = {}
        for name, arg in zip(main.inputs, main.args):
            self.names[arg] = name

    def node(self, kind: str, title: str, result: str, **facts: Any) -> Node:
        made = Node(self.count, kind, cut(title), result, **facts)
        self.count += 1
        return made

    def block(self, block: Block, name: str, func: Func | None = None) -> Graph:
        """The nodes of a block; of a function also its outputs."""
        graph = Graph(name)
        home: dict[Value, int] = {}
        for k, arg in enumerate(block.args):
            node = self.node("input", self.name(arg, f"argument {k}"), str(arg.type))
            node.outputs = [(node.title, node.result)]
            graph.nodes.append(node)
            home[arg] = node.id
        for op in block:
            if isinstance(op, Const) or op.terminator:
                continue
            node = self.op(op)
            graph.nodes.append(node)
            home |= dict.fromkeys(op.results, node.id)
            self._edges(graph, home, op, node)
        last = block.last
        for k, value in enumerate(last.operands if last is not None else ()):
            given = func.outputs[k] if func is not None and k < len(func.outputs) else f"result {k}"
            self._result(graph, home, value, given)
        used = {end for edge in graph.edges for end in edge[:2]}
        if func is None:  # arguments of a region that it does not read say nothing
            graph.nodes = [n for n in graph.nodes if n.kind != "input" or n.id in used]
        return graph

    def _result(self, graph: Graph, home: dict[Value, int], value: Value, name: str) -> None:
        """A node for what a block gives, and for the constant that it may be."""
        if isinstance(value.op, Const) and value not in home:
            constant = self.node("constant", self.name(value, "constant"), str(value.type))
            graph.nodes.append(constant)
            home[value] = constant.id
        node = self.node("output", name, str(value.type))
        node.inputs = [(self.name(value, name), node.result)]
        graph.nodes.append(node)
        if value in home:
            graph.edges.append((home[value], node.id, node.result))

    def _edges(self, graph: Graph, home: dict[Value, int], op: Op, node: Node) -> None:
        """From what an op, or an op inside it, reads of this block."""
        for value in _read(op):
            if value in home and home[value] != node.id:
                graph.edges.append((home[value], node.id, str(value.type)))

    def op(self, op: Op) -> Node:
        """The node of one op of a block."""
        cost = work(op)
        facts: dict[str, Any] = {"flops": cost.flops, "bytes": cost.bytes, "place": place(op)}
        result = ", ".join([str(v.type) for v in op.results])
        if isinstance(op, Fused):
            made = self.node(kind_of(op), op.label, result, **facts)
            made.kernel = self.kernels.get(op, "")
            made.ops = self.region(op)
        elif op.regions:
            made = self.node("control", op.name, result, **facts)
            fields = [r.name for r in type(op).spec.regions]
            made.graphs = [self.block(b, n) for b, n in zip(op.regions, fields, strict=True)]
        else:
            made = self.node("view" if op.name == "reshape" else "host", op.name, result, **facts)
        made.attributes = {} if isinstance(op, Fused) else attributes(op)
        made.inputs = [(self.said(v), str(v.type)) for v in op.operands if v is not None]
        made.outputs = [(self.name(v), str(v.type)) for v in op.results]
        return made

    def region(self, fused: Fused) -> list[Inner]:
        """The ops of a fused region, each with what it reads."""
        local = {a: self.said(v) for a, v in zip(fused.body.args, fused.operands, strict=True)}
        found: list[Inner] = []
        for op in fused.body:
            if op.terminator:
                continue
            if isinstance(op, Const):
                local[op.results[0]] = constant(op)
                continue
            reads = [local.get(v, "?") for v in op.operands if v is not None]
            for v in op.results:
                local[v] = f"{op.name} {len(found) + 1}"
            result = ", ".join([str(v.type) for v in op.results])
            flops = (work(op) if op.regions else cost_of(op)).flops
            found.append(Inner(op.name, result, attributes(op), place(op), reads, flops))
        return found

    def said(self, value: Value) -> str:
        """A value as an operand: a constant says that it is one."""
        return constant(value.op) if isinstance(value.op, Const) else self.name(value)

    def name(self, value: Value, otherwise: str = "") -> str:
        """The name of a value; numbered where it has none."""
        known = self.names.get(value)
        if known is None:
            known = self.names[value] = cut(value.name or otherwise or f"%{len(self.names)}")
        return known


def _read(op: Op) -> list[Value]:
    """The values that an op reads, its regions included, each once."""
    found = {v: None for inner in op.walk() for v in inner.operands if v is not None}
    return list(found)


def kind_of(fused: Fused) -> str:
    """What a region mostly is."""
    names = [op.name for op in fused.body if not op.terminator and op.name != "const"]
    for kind, pattern in KINDS.items():
        if any([pattern.fullmatch(name) for name in names]):
            return kind
    return "movement" if MOVES.issuperset(names) else "elementwise"


def constant(op: Const) -> str:
    """`parameter fc1.w`, or the number that a constant is."""
    if isinstance(op.value, Blob) and elements(op.value.type) != 1:  # large ones stay on the disk
        return cut(f"parameter {op.results[0].name or ''}".strip())
    value = op.value.array.item() if isinstance(op.value, Blob) else op.value
    return cut(f"{value:g}" if isinstance(value, float) else str(value))


def attributes(op: Op) -> dict[str, str]:
    """The attributes that are not at their defaults, as the IR text writes them."""
    fields: tuple[attr, ...] = type(op).spec.attrs
    shown = [f for f in fields if not f.implied and op.attributes[f.name] != f.default]
    return {f.name: cut(attribute_text(op.attributes[f.name], f.type, None)) for f in shown}


def place(op: Op) -> str:
    """Where an op came from: the ONNX node or the source line."""
    return cut(str(op.loc)) if op.loc is not None else ""


def cut(text: str) -> str:
    """Text of at most `LONGEST` characters."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


__all__ = ["Graph", "Inner", "Node", "graph_of", "kind_of"]
