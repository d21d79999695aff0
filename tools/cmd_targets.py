"""`irc targets`: what can be compiled for, and what of it runs on this machine."""

from __future__ import annotations

import click

from .options import json_flag, note, verbosity
from .tables import show_json, show_table


@click.command()
@json_flag
@verbosity
def command(as_json: bool) -> None:
    """List the targets: name, whether code for it runs here, and what it is."""
    from ..backends.targets import ROWS, choose

    rows = []
    for name, meaning in ROWS.items():
        lacking = choose(name).lacking()
        rows.append({"name": name, "runs": not lacking, "lacking": lacking, "meaning": meaning})
    if as_json:
        show_json(rows)
        return
    cells = [
        [row["name"], "runs here" if row["runs"] else "files only", row["meaning"]] for row in rows
    ]
    show_table(["target", "code", "meaning"], cells)
    note("x86_64-linux-CPU and aarch64-linux-CPU take any processor that LLVM knows.")
