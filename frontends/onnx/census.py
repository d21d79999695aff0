"""What an ONNX file holds, without reading its weights: nodes by type, bytes, opset.

Imports: onnx.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import TensorProto, load_model


@dataclass(frozen=True)
class Census:
    """`ops` counts nodes by type, those of inner graphs included; `bytes` of the file and of the
    files beside it that hold its weights.
    """

    ops: dict[str, int]
    bytes: int
    opset: int


def census(path: str | Path) -> Census:
    """Count what is in a model file that can be read; the most frequent types come first."""
    model = load_model(str(path), load_external_data=False)
    ops = Counter(_types(model.graph.node))
    files = {Path(path), *[Path(path).parent / name for name in _beside(model.graph)]}
    total = sum([file.stat().st_size for file in files if file.is_file()])
    opsets = {o.domain: o.version for o in model.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 0))
    return Census(dict(sorted(ops.items(), key=lambda i: (-i[1], i[0]))), total, opset)


def _types(nodes: Iterable[Any]) -> Iterator[str]:
    for node in nodes:
        plain = node.domain in ("", "ai.onnx")
        yield node.op_type if plain else f"{node.domain}.{node.op_type}"
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _types(graph.node)


def _beside(graph: Any) -> Iterator[str]:
    """The files that hold the graph's weights."""
    for tensor in graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield next((e.value for e in tensor.external_data if e.key == "location"), "")


__all__ = ["Census", "census"]
