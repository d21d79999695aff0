"""Constant matrices in panels: the columns of a register tile stand together, row after row.

The last panel may be filled up with zeros; what they give is dropped by the `unpack` behind the
product, which stays a part of it.  May import: ir, passes.rules.
"""

from __future__ import annotations

from ..ir.core import Builder, Op, Value
from ..ir.dims import ceildiv
from ..ir.rewrite import Rule
from .rules.values import is_constant

MOST_WASTE = 8
"""Columns may be filled up by one in this many."""
WIDEN = {1: 4, 2: 2}
"""Panels for a few rows are wider: independent sums for a row, and longer streams."""


def panel_rule(panel: int) -> Rule:
    """Products with a constant matrix, in panels of at least `panel` columns."""

    def panels(op: Op, b: Builder) -> Value | None:
        x, w = op.operands
        if not is_constant(w) or w.tensor.rank != 2 or x.tensor.rank < 2 or x.tensor.rank > 8:
            return None
        columns = w.tensor.shape[1]
        width = panel_width(x, columns, panel) if isinstance(columns, int) else 0
        return panel_product(op, b, width) if width else None

    return panels


def panel_width(x: Value, columns: int, panel: int) -> int:
    """Columns of a panel for the rows of x; 0 where panels gain nothing."""
    rows = 1
    for extent in x.tensor.shape[:-1]:
        rows = rows * extent if isinstance(extent, int) else 1 << 30
    for width in (panel * WIDEN.get(rows, 1), panel):
        waste = ceildiv(columns, width) * width - columns
        if columns > width and waste * MOST_WASTE <= columns:
            return width
    return 0


def panel_product(op: Op, b: Builder, panel: int) -> Value:
    """x times w with w in panels [N/panel, K, panel]."""
    x, w = op.operands
    rank = x.tensor.rank
    rows = "abcdefgh"[: rank - 1]
    panels = b.pack(w, axes=(1,), blocks=(panel,), order=(1, 0, 2))
    made = b.contract(x, panels, equation=f"{rows}k,jkn->{rows}jn", out=op.attributes["out"])
    return b.unpack(made, axes=(rank - 1,), blocks=(panel,), shape=op.results[0].tensor.shape)  # type: ignore[no-any-return]


__all__ = ["panel_product", "panel_rule", "panel_width"]
