"""Shape arithmetic as ONNX nodes: dim expressions read from the shapes of values.

Everything is computed on i64 vectors of one element, each expression once per graph.
Imports: ir, the graph being written.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from ...ir.blobs import Blob
from ...ir.dims import Dim, DimLike, coefficient, equal, nonneg
from ...ir.dims_expr import Atom, from_atom
from ...ir.errors import UnsupportedError
from .export_graph import Graph, Place

INT64 = np.iinfo(np.int64)
_NODES = {"%": "Mod", "min": "Min", "max": "Max"}


def vector(graph: Graph, dims: Sequence[DimLike]) -> str:
    """The name of an i64 vector of these dims."""
    parts = []
    for known, run in groupby(dims, lambda e: isinstance(e, int)):
        if known:
            parts.append(numbers(graph, list(run)))
        else:
            parts += [element(graph, e) for e in run]
    if not parts:
        return numbers(graph, [])
    return parts[0] if len(parts) == 1 else graph.add("Concat", parts, "shape", 1, {"axis": 0})[0]


def numbers(graph: Graph, values: Sequence[DimLike]) -> str:
    """An i64 vector constant."""
    return graph.model.constant(Blob(np.array(values, np.int64)), "shape")


def element(graph: Graph, extent: DimLike) -> str:
    """The name of an i64 vector of one element: the value of a dim."""
    if not isinstance(extent, Dim):
        return numbers(graph, [extent])
    for outer in graph.chain():
        if extent in outer.extents:
            return outer.extents[extent]
    terms = [_product(graph, m.factors, c) for m, c in extent.terms]
    if extent.const:
        terms.append(numbers(graph, [extent.const]))
    total = terms[0]
    for term in terms[1:]:
        total = _binary(graph, "Add", total, term)
    graph.extents[extent] = total
    return total


def scalar(graph: Graph, extent: DimLike) -> str:
    """The name of an i64 tensor of rank 0: the value of a dim."""
    if isinstance(extent, int):
        return graph.model.constant(Blob(np.array(extent, np.int64)), "extent")
    return graph.add("Squeeze", [element(graph, extent)], "extent")[0]


def _binary(graph: Graph, type: str, x: str, y: str) -> str:
    return graph.add(type, [x, y], "extent")[0]


def _product(graph: Graph, factors: Sequence[Atom], scale: int) -> str:
    parts = [_atom(graph, f) for f in factors]
    if scale != 1:
        parts.append(numbers(graph, [scale]))
    total = parts[0]
    for part in parts[1:]:
        total = _binary(graph, "Mul", total, part)
    return total


def _atom(graph: Graph, atom: Atom) -> str:
    key = from_atom(atom)
    for outer in graph.chain():
        if key in outer.extents:
            return outer.extents[key]
    if atom.kind == "sym":
        made = _symbol(graph, atom.args[0])
    elif atom.kind == "//":
        above, below = atom.args
        x, y = element(graph, above), element(graph, below)
        if nonneg(above) is not True:  # Div truncates
            x = _binary(graph, "Sub", x, _binary(graph, "Mod", x, y))
        made = _binary(graph, "Div", x, y)
    else:
        made, *rest = [element(graph, a) for a in atom.args]
        for other in rest:
            made = _binary(graph, _NODES[atom.kind], made, other)
    graph.extents[key] = made
    return made


def _symbol(graph: Graph, name: str) -> str:
    """The value of a symbol, from the extent of a value that tells it."""
    source = next((g.sources[name] for g in graph.chain() if name in g.sources), None)
    if source is None:
        raise UnsupportedError("E0118", f"no input tells the value of the dim {name}")
    value, axis = source
    attrs = {"start": axis, "end": axis + 1}
    read = graph.add("Shape", [graph.of(value)], f"extent.{name}", 1, attrs)[0]
    extent = value.tensor.shape[axis]
    parts = coefficient(extent, name)
    if parts is None:
        raise UnsupportedError("E0118", f"the extent {extent} does not tell the dim {name}")
    slope, rest = parts
    if rest != 0:
        read = _binary(graph, "Sub", read, element(graph, rest))
    return read if slope == 1 else _binary(graph, "Div", read, element(graph, slope))


def reshape_target(p: Place, source: Sequence[DimLike], target: Sequence[DimLike]) -> str:
    """What Reshape is told: 0 for an extent that stays, -1 for one that follows from the rest."""
    told: list[DimLike] = list(target)
    zero = [k for k, e in enumerate(told) if isinstance(e, int) and e == 0]
    for k, extent in enumerate(told):
        stays = k < len(source) and equal(source[k], extent) is True
        if isinstance(extent, Dim) and stays and not zero:
            told[k] = 0
    free = [k for k, e in enumerate(told) if isinstance(e, Dim)]
    if free and not zero:
        told[free[-1]] = -1
    return vector(p.graph, told)


def keeps_zero(target: Sequence[DimLike]) -> int | None:
    """Reshape's `allowzero`: whether a 0 in the target means an extent of 0."""
    return 1 if any([isinstance(e, int) and e == 0 for e in target]) else None


__all__ = ["INT64", "element", "keeps_zero", "numbers", "reshape_target", "scalar", "vector"]
