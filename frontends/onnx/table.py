"""The import table: which row imports an op type from which opset on.  Imports: the rows' files.

A row is (op type, first opset, function of the node).  Of several rows of one op type the newest
not above the node's opset counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from . import (
    rows_attention,
    rows_control,
    rows_einsum,
    rows_elementwise,
    rows_index,
    rows_linear,
    rows_lists,
    rows_microsoft,
    rows_microsoft_quant,
    rows_normalize,
    rows_pool,
    rows_quant,
    rows_random,
    rows_reduce,
    rows_resize,
    rows_select,
    rows_sequence,
    rows_shape,
    rows_signal,
    rows_vision,
)
from .functions import schema_of
from .node import Node, Result, Row

MAX_OPSET = 28
"""The newest opset whose definitions were read when the rows were written."""

FAMILIES: Sequence[Sequence[tuple[str, int, Row]]] = (
    rows_elementwise.ROWS,
    rows_shape.ROWS,
    rows_index.ROWS,
    rows_linear.ROWS,
    rows_einsum.ROWS,
    rows_pool.ROWS,
    rows_reduce.ROWS,
    rows_resize.ROWS,
    rows_vision.ROWS,
    rows_signal.ROWS,
    rows_normalize.ROWS,
    rows_attention.ROWS,
    rows_microsoft.STANDARD_ROWS,
    rows_sequence.ROWS,
    rows_control.ROWS,
    rows_quant.ROWS,
    rows_random.ROWS,
    rows_lists.ROWS,
    rows_select.ROWS,
)

_rows: dict[tuple[str, str], list[tuple[int, Row]]] = {}


def register_onnx_op(domain: str, type: str, since: int, fn: Callable[[Node], Result]) -> None:
    """Add a row: nodes `type` of `domain` from opset `since` on are imported by `fn`.

    `fn(node)` reads operands (`node.x(0)`), attributes (`node.attr("alpha", 0.01)`) and builds with
    `node.b`; it gives a value or a tuple of them.  A later row for the same place replaces the
    earlier one.
    """
    rows = _rows.setdefault(("" if domain == "ai.onnx" else domain, type), [])
    has_row.cache_clear()
    rows[:] = sorted([r for r in rows if r[0] != since] + [(since, fn)], key=lambda r: -r[0])


def lookup(domain: str, type: str, version: int) -> Row | None:
    """The row for a node of this opset; None where there is none."""
    for since, row in _rows.get((domain, type), ()):
        if since <= version:
            return row
    return None


@cache
def has_row(domain: str, type: str, version: int) -> bool:
    """A row exists, or the standard's definition by other ops that all have one."""
    if lookup(domain, type, version) is not None:
        return True
    schema = schema_of(domain, type, version)
    if schema is None or not schema.has_function:
        return schema is not None  # a body that depends on types is looked into later
    opsets = {o.domain: o.version for o in schema.function_body.opset_import}
    return all(
        has_row(n.domain, n.op_type, opsets.get(n.domain, version))
        for n in schema.function_body.node
    )


def supported() -> list[str]:
    """The op types of the default domain that have a row."""
    return sorted([type for domain, type in _rows if not domain])


def rows_of() -> list[tuple[str, str, int]]:
    """(domain, op type, first opset) of every row."""
    return sorted([(*key, since) for key, rows in _rows.items() for since, _ in rows])


for _family in FAMILIES:
    for _type, _since, _row in _family:
        register_onnx_op("", _type, _since, _row)
for _type, _since, _row in (*rows_microsoft.ROWS, *rows_microsoft_quant.ROWS):
    register_onnx_op(rows_microsoft.DOMAIN, _type, _since, _row)

__all__ = ["FAMILIES", "MAX_OPSET", "has_row", "lookup", "register_onnx_op", "rows_of",
           "supported"]  # fmt: skip
