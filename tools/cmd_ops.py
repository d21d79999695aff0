"""`irc ops`: the ops, the element types they take, the ONNX ops behind them, and who runs them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..ir.errors import Error
from ..ir.spelling import suggestion
from .completion import op_names
from .options import json_flag, note, verbosity
from .tables import markdown_table, show_json, show_table

if TYPE_CHECKING:
    from .op_table import Listed, ListedOnnx

SHOWN = 4
"""ONNX ops named in a row of text; JSON has all."""


@click.command()
@click.argument("name", required=False, shell_complete=op_names)
@click.option("--onnx", is_flag=True, help="The table of ONNX ops instead, with their opsets.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@json_flag
@verbosity
def command(name: str | None, onnx: bool, markdown: bool, as_json: bool) -> None:
    """List the ops, or those whose name (also the ONNX one) contains NAME.

    A target runs an op in a kernel, as a view without copying where that can be, as control flow
    of the plan, on the host beside the kernels, or not at all.
    """
    from ..frontends.onnx.listing import onnx_ops
    from .op_table import ir_ops, onnx_table

    known = onnx_ops()
    rows: list[Any] = onnx_table(known) if onnx else ir_ops(known)
    if name is not None:
        rows = matching(rows, name)
    if as_json:
        show_json([asdict(row) for row in rows])
        return
    headers, cells = onnx_cells(rows) if onnx else ir_cells(rows)
    if markdown:
        click.echo(markdown_table(headers, cells))
    else:
        show_table(headers, cells)
    if onnx:
        able = sum([row.how != "no" for row in rows])
        note(f"{able} of {len(rows)} ONNX ops are imported")
    else:
        note(f"{len(rows)} ops")


def matching(rows: list[Any], name: str) -> list[Any]:
    """The rows of which a name contains the text; E0537 where none does."""
    text = name.lower()
    found = [r for r in rows if any([text in n.lower() for n in (r.name, *getattr(r, "onnx", ()))])]
    exact = [r for r in found if r.name.lower() == text]
    if not found:
        hint = suggestion(text, [r.name for r in rows], least=0.5)
        raise Error("E0537", f"no op is called like '{name}'", hint=hint)
    return exact or found


def ir_cells(rows: list[Listed]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of the table of IR ops."""
    headers = ["op", "elements", "cpu", "c", "ONNX", "meaning"]
    return headers, [
        [r.name, " ".join(r.elements), r.targets["cpu"], r.targets["c"], few(r.onnx), r.meaning]
        for r in rows
    ]


def onnx_cells(rows: list[ListedOnnx]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of the table of ONNX ops."""
    headers = ["ONNX op", "opsets", "cpu", "c", "becomes"]
    return headers, [
        [
            r.name, ", ".join([str(v) for v in r.opsets]), r.targets["cpu"], r.targets["c"],
            ("its definition: " if r.how == "definition" and r.becomes else "")
            + (few(r.becomes) or ("its definition" if r.how == "definition" else "")),
        ]
        for r in rows
    ]  # fmt: skip


def few(names: tuple[str, ...]) -> str:
    """The first names, and how many more there are."""
    more = f" +{len(names) - SHOWN}" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
