"""`irc targets`: what can be compiled for, and what of it runs on this machine."""

from __future__ import annotations

import json

import click

from .options import json_flag, verbosity


@click.command()
@json_flag
@verbosity
def command(as_json: bool) -> None:
    """List the targets: name, whether code for it runs here, and what it is."""
    from .targets import ROWS, choose

    rows = []
    for name, meaning in ROWS.items():
        lacking = choose(name).lacking()
        rows.append({"name": name, "runs": not lacking, "lacking": lacking, "meaning": meaning})
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        click.echo(
            f"{row['name']:<18}{'runs here' if row['runs'] else 'files only':<12}{row['meaning']}"
        )
    click.echo("x86_64-linux-CPU and aarch64-linux-CPU take any processor that LLVM knows.")
