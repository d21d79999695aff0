"""Tables on stdout: drawn by rich on a terminal, aligned text in a pipe, so that both can be read;
and the documents of --json, for programs.

rich is imported only for a terminal.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

Row = Sequence[object]


def show_table(headers: Sequence[str], rows: Sequence[Row], right: Sequence[int] = ()) -> None:
    """Print rows under headers; the columns in `right` hold figures and stand to the right."""
    if not sys.stdout.isatty():
        click.echo(plain_table(headers, rows, right))
        return
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for k, header in enumerate(headers):
        table.add_column(header, justify="right" if k in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*[escape(str(cell)) for cell in row])
    Console().print(table)


def plain_table(headers: Sequence[str], rows: Sequence[Row], right: Sequence[int] = ()) -> str:
    """The table as lines, two blanks between columns."""
    lines = [[str(cell) for cell in row] for row in (headers, *rows)]
    widths = [max([len(line[k]) for line in lines]) for k in range(len(headers))]
    return "\n".join([
        "  ".join([
            cell.rjust(width) if k in right else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]).rstrip()
        for line in lines
    ])  # fmt: skip


def markdown_table(headers: Sequence[str], rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join([f"| {' | '.join(line)} |" for line in cells])


def show_json(facts: Any) -> None:
    """Print a document."""
    click.echo(json.dumps(finite(facts), indent=1, allow_nan=False))


def finite(facts: Any) -> Any:
    """The same with null for infinities and NaN, which JSON does not have."""
    if isinstance(facts, float):
        return facts if math.isfinite(facts) else None
    if isinstance(facts, Mapping):
        return {name: finite(fact) for name, fact in facts.items()}
    if isinstance(facts, (list, tuple)):
        return [finite(fact) for fact in facts]
    return facts


__all__ = ["finite", "markdown_table", "plain_table", "show_json", "show_table"]
