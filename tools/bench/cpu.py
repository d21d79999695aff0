"""Whole networks on this machine's CPU: irc beside onnxruntime and OpenVINO, batch 1, f32.

Each network is compiled by a process of its own (cold, then warm), and then every engine runs it in
turns (race.py): irc from the compiled plan, the peers from the ONNX file.  The ratio is our median
over that of the quicker peer; its geometric mean is over the networks.
"""

from __future__ import annotations

import json
import math
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ...backends.cpu.host import host
from ...ir.errors import Error
from .. import driver
from .chart import chart
from .compiling import Compiling, compile_apart
from .flops import flops
from .peers import ENGINES, PEERS
from .race import Figures, Race, geometric_mean, race
from .zoo import Subject, names, subject

Tell = Callable[[str], object]
MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """One network at one number of threads; `cold` and `warm` are its compilations."""

    race: Race
    flops: int
    cold: Compiling
    warm: Compiling | None

    @property
    def share(self) -> float:
        """Of the measured FMA peak of the threads, by our least time; 0 where we failed."""
        times = self.race.engines.get("irc", Figures()).times
        return self.flops / (times.min * 1e6) / self.race.peak if times and self.race.peak else 0.0

    @property
    def memory_ratio(self) -> float:
        """Our peak while running over onnxruntime's; nan where one is missing."""
        ours, theirs = self.race.engines.get("irc"), self.race.engines.get("onnxruntime")
        if not ours or not theirs or not theirs.run_memory or ours.error:
            return float("nan")
        return ours.run_memory / theirs.run_memory

    @property
    def arena_ratio(self) -> float:
        """The arena over its lower bound; nan where the plan is symbolic or missing."""
        arena, least = self.cold.facts.get("arena_bytes"), self.cold.facts.get("lower_bound")
        return arena / least if isinstance(arena, int) and least else float("nan")


@dataclass(frozen=True)
class Effort:
    """How much to measure: rounds, seconds of a turn, and whether to compile once more, warm."""

    rounds: int = 10
    seconds: float = 0.1
    warm: bool = True


QUICK = Effort(rounds=3, seconds=0.03, warm=False)


def measure(
    chosen: Sequence[Subject],
    threads: Sequence[int],
    engines: Sequence[str] = tuple(ENGINES),
    effort: Effort = QUICK,
    tell: Tell = lambda said: None,
) -> list[Row]:
    """Every network at every number of threads."""
    rows = []
    for each in chosen:
        work = flops(driver.load(str(each.file), each.shapes or None))
        for count in threads:
            said = f"{each.name}, {count} threads" if count > 1 else f"{each.name}, 1 thread"
            rows.append(_row(each, count, engines, effort, work, lambda s: tell(f"{said}: {s}")))  # noqa: B023
    return rows


def _row(
    each: Subject, threads: int, engines: Sequence[str], effort: Effort, work: int, tell: Tell
) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        plan, cache = Path(folder) / "plan.ircx", Path(folder) / "cache"
        tell("irc compiles")
        cold = compile_apart(each, plan, threads, cache)
        warm = compile_apart(each, plan, threads, cache) if effort.warm and not cold.error else None
        models = {n: str(plan) if n == "irc" else str(each.file) for n in engines}
        if cold.error:
            models.pop("irc", None)
        found = race(each, models, threads, effort.rounds, effort.seconds, tell)
    if cold.error:
        found.engines["irc"] = Figures(error=cold.error)
    return Row(found, work, cold, warm)


def means(rows: Sequence[Row], threads: int, which: str = "median") -> float:
    """Geometric mean of the ratios at that number of threads; infinite where one failed."""
    ratios = [r.race.ratio(which) for r in rows if r.race.threads == threads]
    return geometric_mean([ratio for ratio in ratios if ratio == ratio])


def facts(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything, for JSON."""
    machine = {"cpu": host().cpu, "cores": host().cores, "system": platform.platform()}
    counts = sorted({r.race.threads for r in rows})
    mean = {str(n): {w: _known(means(rows, n, w)) for w in ("median", "min")} for n in counts}
    return {
        "machine": machine,
        "geometric_mean": mean,
        "rows": [
            asdict(r)
            | {"ratio": _known(r.race.ratio()), "ratio_of_least": _known(r.race.ratio("min"))}
            | {"memory_ratio": _known(r.memory_ratio), "arena_ratio": _known(r.arena_ratio)}
            | {"ratio_of_cpu": _known(r.race.cpu_ratio()), "share": r.share}
            for r in rows
        ],
    }  # fmt: skip


def _known(figure: float) -> float | None:
    """What JSON has no word for is null."""
    return figure if math.isfinite(figure) else None


def table(rows: Sequence[Row], threads: int, engines: Sequence[str]) -> Table:
    """The figures at one number of threads, for people."""
    title = f"batch 1, f32, threads: {threads}; ms, median (least)"
    ratios = ("ratio", "of least", "of cpu", "of peak")
    made = Table("network", "GFLOP", *engines, *ratios, "MiB at run", "arena", "compile s",
                 title=title)  # fmt: skip
    for r in (r for r in rows if r.race.threads == threads):
        times = [_cell(r.race.engines.get(n)) for n in engines]
        memory = [r.race.engines.get(n, Figures()).run_memory / MIB for n in engines]
        compiled = f"{r.cold.seconds:.1f}" + (f" / {r.warm.seconds:.1f}" if r.warm else "")
        made.add_row(
            r.race.name,
            f"{r.flops / 1e9:.3g}",
            *times,
            f"{r.race.ratio():.2f}",
            f"{r.race.ratio('min'):.2f}",
            f"{r.race.cpu_ratio():.2f}" if threads == 1 else "",
            f"{r.share:.0%}",
            " / ".join([f"{m:.0f}" for m in memory]),
            f"{r.arena_ratio:.3f}",
            compiled,
        )
    made.add_section()
    blank = [""] * (len(engines) + 1)
    mean, least = means(rows, threads), means(rows, threads, "min")
    spent = geometric_mean(
        [r.race.cpu_ratio() for r in rows if r.race.threads == threads and r.race.cpu_ratio() > 0]
    )
    said = [f"{mean:.2f}", f"{least:.2f}", f"{spent:.2f}" if threads == 1 else ""]
    made.add_row("geometric mean", *blank, *said)
    return made


def _cell(figures: Figures | None) -> str:
    if figures is None or figures.times is None:
        return "failed"
    return f"{figures.times.median:.2f} ({figures.times.min:.2f})"


def _split(text: str, known: Sequence[str], groups: bool = False) -> list[str]:
    """Names from a list with commas; a group stands for its networks."""
    found: list[str] = []
    for name in text.split(","):
        found += names(name) if groups and name in ("light", "exported", "shared") else [name]
    unknown = [name for name in found if name not in known]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}; known: {', '.join(known)}")
    return found


@click.command()
@click.option("--models", default="light,exported", show_default=True,
              help="Networks or groups (light, exported, shared), with commas.")  # fmt: skip
@click.option("--threads", default="1,2", show_default=True, help="Numbers of threads.")
@click.option("--rounds", default=Effort.rounds, show_default=True, help="Turns of each engine.")
@click.option("--seconds", default=Effort.seconds, show_default=True, help="Length of a turn.")
@click.option("--engines", default=",".join(ENGINES), show_default=True, help="Who runs.")
@click.option("--size", type=click.Choice(["small", "full"]), default="full", show_default=True,
              help="Size of the exported networks.")  # fmt: skip
@click.option("--quick", is_flag=True, help="Few short turns, compiled once: a first look.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--chart", "picture", type=click.Path(dir_okay=False), default=None,
              help="Write a bar chart (SVG) to this file.")  # fmt: skip
def command(
    models: str,
    threads: str,
    rounds: int,
    seconds: float,
    engines: str,
    size: str,
    quick: bool,
    as_json: bool,
    picture: str | None,
) -> None:
    """Latency, memory and compile time of whole networks beside onnxruntime and OpenVINO.

    Each engine has its own process, and they run in turns, batch 1, all in f32.  MiB at run is the
    peak of resident memory while running beyond the imported engine, in the order of the engines.
    """
    chosen = _split(models, names() + names("shared"), groups=True)
    who = _split(engines, tuple(ENGINES))
    counts = [int(n) for n in threads.split(",")]
    effort = QUICK if quick else Effort(rounds, seconds)
    tell: Tell = (lambda said: click.echo(said, err=True)) if sys.stderr.isatty() else str
    rows = []
    try:
        for name in chosen:
            rows += measure([subject(name, size)], counts, who, effort, tell)
    except Error as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(facts(rows), indent=1))
    else:
        console = Console() if sys.stdout.isatty() else Console(width=160)
        for count in counts:
            console.print(table(rows, count, who))
    if picture:
        Path(picture).write_text(chart([r.race for r in rows]), encoding="utf-8")
    raise SystemExit(1 if any([f.error for r in rows for f in r.race.engines.values()]) else 0)


__all__ = ["PEERS", "QUICK", "Effort", "Row", "command", "facts", "means", "measure", "table"]
