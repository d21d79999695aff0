"""`irc report`: one offline HTML file that shows what a model became and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..backends import compiler
from .completion import MODELS
from .options import json_flag, model_argument, note, target_options, verbosity
from .tables import show_json


@click.command()
@model_argument(*MODELS)
@click.option("-o", "--output", default=None, help="The file.  [default: report.html]")
@target_options
@click.option(
    "--profile/--no-profile",
    default=None,
    help="Run on random inputs and time each kernel.  [default: where the target runs here]",
)
@json_flag
@verbosity
def command(
    model: str,
    output: str | None,
    target: str,
    threads: int | None,
    precision: str,
    shapes: dict[str, Any],
    profile: bool | None,
    as_json: bool,
) -> None:
    """Write a page about MODEL: summary, graph, kernels, memory, fusions, schedules.

    The page needs no network and no other file.  With --json the data goes to stdout, and the page
    is written only where -o names it.
    """
    from ..backends.targets import choose
    from .artifacts import check_writable
    from .progress import working
    from .report.collect import Settings, can_profile, collect
    from .report.page import write

    choice = choose(target, threads)
    compiler.check_precision(precision, choice)
    page = Path(output or "report.html")
    wanted = output is not None or not as_json
    if wanted:
        check_writable(page)
    timed = can_profile(choice) if profile is None else profile
    with working("report") as say:
        data = collect(Settings(model, choice, shapes, timed), say)
    if wanted:
        write(data, page)
        note(f"{page}: {page.stat().st_size >> 10} kB, {data['summary']['regions']} regions")
    if as_json:
        show_json(data)
