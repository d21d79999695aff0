"""`python -m irc.tools.accept TOPIC [LINE ...]`: measure a topic's acceptance lines.

Prints a table (or JSON with --json), writes .accept/TOPIC.json in the checkout, and exits with 1
if any line fails.  A run of single lines replaces only those in the file.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .acceptance import FAILING, Line, Skipped, Verdict

TOPICS = {
    "models": ".acceptance.models",
    "spine": ".acceptance.spine",
    "training": ".acceptance.training",
}
OUTPUT = Path(__file__).resolve().parent.parent / ".accept"
COLOURS = {"pass": "green", "fail": "red", "error": "red", "skip": "yellow"}


def measure(line: Line) -> Verdict:
    """Run one line; whatever it raises becomes its verdict."""
    started = time.perf_counter()
    details: dict[str, object] = {}
    try:
        measured = line.measure()
        figure, verdict = measured.figure, "pass" if measured.passed else "fail"
        details = dict(measured.details)
    except Skipped as reason:
        figure, verdict = str(reason), "skip"
    except Exception as error:
        figure, verdict = f"{type(error).__name__}: {error}".partition("\n")[0][:200], "error"
        details["traceback"] = traceback.format_exc()
    seconds = round(time.perf_counter() - started, 3)
    return Verdict(line.name, line.bar, figure, verdict, seconds, details)


def chosen_lines(topic: str, names: Sequence[str]) -> list[Line]:
    """The topic's lines, or those called `names`, in the table's order."""
    table: tuple[Line, ...] = import_module(TOPICS[topic], __package__).LINES
    unknown = set(names) - {line.name for line in table}
    if unknown:
        known = ", ".join(line.name for line in table)
        raise click.UsageError(f"no line {', '.join(sorted(unknown))} in {topic}; it has: {known}")
    return [line for line in table if not names or line.name in names]


def save(topic: str, verdicts: Sequence[Verdict]) -> Path:
    """Write the verdicts to TOPIC.json, keeping those of lines not measured now."""
    path = OUTPUT / f"{topic}.json"
    rows: dict[str, object] = {}
    if path.exists():
        rows = {row["line"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
    rows.update((verdict.line, asdict(verdict)) for verdict in verdicts)
    OUTPUT.mkdir(exist_ok=True)
    path.write_text(json.dumps(list(rows.values()), indent=1, default=str), encoding="utf-8")
    return path


def show(topic: str, verdicts: Sequence[Verdict]) -> None:
    """The table for people, on stdout."""
    table = Table("line", "bar", "figure", "verdict", "s", title=f"acceptance: {topic}")
    for v in verdicts:
        verdict = Text(v.verdict, COLOURS[v.verdict])
        table.add_row(v.line, Text(v.bar), Text(v.figure), verdict, f"{v.seconds:.1f}")
    console = Console() if sys.stdout.isatty() else Console(width=140)
    console.print(table)
    counts = {word: sum(v.verdict == word for v in verdicts) for word in COLOURS}
    console.print(", ".join(f"{number} {word}" for word, number in counts.items() if number))


@click.command()
@click.argument("topic", type=click.Choice(sorted(TOPICS)))
@click.argument("lines", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON.")
def main(topic: str, lines: tuple[str, ...], as_json: bool) -> None:
    """Measure the acceptance lines of TOPIC (all, or those named)."""
    verdicts = []
    for line in chosen_lines(topic, lines):
        click.echo(f"{line.name} ...", err=True)
        verdicts.append(measure(line))
        path = save(topic, verdicts)  # each at once: some take many minutes
        click.echo(f"  {verdicts[-1].verdict}: {verdicts[-1].figure}", err=True)
    if as_json:
        click.echo(json.dumps([asdict(v) for v in verdicts], indent=1, default=str))
    else:
        show(topic, verdicts)
        click.echo(f"written to {path.relative_to(OUTPUT.parent)}", err=True)
    sys.exit(any(v.verdict in FAILING for v in verdicts))


if __name__ == "__main__":
    main()
