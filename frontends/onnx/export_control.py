"""Export rows of control flow: If, Loop, Scan, their regions as inner graphs.

Imports: the graph being written, ir.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...ir.core import Block, Value
from ...ir.types import TensorType, boolean, i64
from .export_dims import numbers, scalar
from .export_graph import Graph, Place, Row

FLAG, COUNT = TensorType(boolean, ()), TensorType(i64, ())


def _types(values: Sequence[Value]) -> list[TensorType]:
    return [v.tensor for v in values]


def _yielded(block: Block) -> list[TensorType]:
    assert block.last is not None
    return _types(block.last.operands)


def _inputs(graph: Graph, values: Sequence[Value]) -> None:
    """Make values the inputs of an inner graph."""
    for value in values:
        name = graph.model.unique(value.name or "item")
        graph.inputs.append((name, value.tensor))
        graph.give(value, name)


def _input(graph: Graph, wish: str, type: TensorType) -> str:
    """An input that no value of ours stands for."""
    name = graph.model.unique(wish)
    graph.inputs.append((name, type))
    return name


def _results(graph: Graph, names: Sequence[str], types: Sequence[TensorType]) -> None:
    for name, type_ in zip(names, types):
        graph.result(name, type_)


def if_(p: Place) -> Sequence[str]:
    """Both regions as inner graphs."""
    graphs = []
    for block, name in zip(p.op.regions, ("then", "else")):
        inner = p.graph.inner(name)
        _results(inner, inner.block(block), _yielded(block))
        graphs.append(inner)
    return p.nodes("If", len(p.op.results), p.x(), then_branch=graphs[0], else_branch=graphs[1])


def for_(p: Place) -> Sequence[str]:
    """A Loop whose condition stays true."""
    (block,) = p.op.regions
    count = p.x(0) or scalar(p.graph, p.attrs["trip"])
    inner = p.graph.inner("body")
    _inputs(inner, block.args[:1])
    flag = _input(inner, "go", FLAG)
    _inputs(inner, block.args[1:])
    made = inner.block(block)
    inner.result(flag, FLAG)
    _results(inner, made, _yielded(block))
    starts = [p.graph.of(v) for v in p.op.operands[1:]]
    return p.nodes("Loop", len(p.op.results), count, "", *starts, body=inner)


def while_(p: Place) -> Sequence[str]:
    """A Loop: the test is made once before it, and behind each step."""
    before, block = p.op.regions
    starts = [p.graph.of(v) for v in p.op.operands]
    for arg, name in zip(before.args, starts):
        p.graph.names[arg] = name
    (first,) = p.graph.block(before)
    inner = p.graph.inner("body")
    _input(inner, "index", COUNT)
    _input(inner, "go", FLAG)
    _inputs(inner, block.args)
    made = inner.block(block)
    for arg, name in zip(before.args, made):
        inner.names[arg] = name
    (again,) = inner.block(before)
    inner.result(again, FLAG)
    _results(inner, made, _yielded(block))
    most = p.attrs["max_trip"]
    bound = "" if most is None else scalar(p.graph, most)
    return p.nodes("Loop", len(p.op.results), bound, first, *starts, body=inner)


def scan(p: Place) -> Sequence[str]:
    """A Scan; without scanned values a Loop that stacks."""
    (block,) = p.op.regions
    carried, reverse = p.attrs["carried"], p.attrs["reverse"]
    scanned, stacked = len(p.op.operands) - carried, len(p.op.results) - carried
    if not scanned:
        return _stacking(p, block, carried)
    inner = p.graph.inner("body")
    _inputs(inner, block.args)
    _results(inner, inner.block(block), _yielded(block))
    ways = {
        "scan_input_directions": [1] * scanned if reverse else None,
        "scan_output_directions": [1] * stacked if reverse and stacked else None,
    }
    return p.nodes("Scan", len(p.op.results), *p.all(), body=inner, num_scan_inputs=scanned, **ways)


def _stacking(p: Place, block: Block, carried: int) -> Sequence[str]:
    inner = p.graph.inner("body")
    _input(inner, "index", COUNT)
    flag = _input(inner, "go", FLAG)
    _inputs(inner, block.args)
    made = inner.block(block)
    inner.result(flag, FLAG)
    _results(inner, made, _yielded(block))
    count = scalar(p.graph, p.attrs["length"])
    found = p.nodes("Loop", len(p.op.results), count, "", *p.all(), body=inner)
    if p.attrs["reverse"]:
        least = [np.iinfo(np.int64).min + 1]
        told = [numbers(p.graph, v) for v in ([-1], least, [0], [-1])]
        found[carried:] = [p.node("Slice", name, *told) for name in found[carried:]]
    return found


ROWS: Mapping[str, Row] = {"if": if_, "for": for_, "while": while_, "scan": scan}
