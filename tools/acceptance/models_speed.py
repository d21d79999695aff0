"""Real networks beside onnxruntime and OpenVINO: latency, memory at run, arenas, compile time.

One measurement serves the lines on latency, memory and arenas.  Ratios are those of medians over
turns of the same run; IRC_ACCEPT_ROUNDS sets how many turns (default 10).
"""

from __future__ import annotations

import functools
import math
import os
import tempfile
from pathlib import Path

from ..bench.compiling import Compiling, compile_apart
from ..bench.cpu import Effort, Row, facts, means, measure
from ..bench.race import geometric_mean
from ..bench.zoo import names, subject
from . import Measured

THREADS = (1, 2)
LATENCY_MEAN, LATENCY_WORST = 1.3, 2.0
MEMORY_BAR, ARENA_BAR = 1.2, 1.05
MIB = 1 << 20
COMPILING = {"resnet50": (12.0, 2.0), "bert": (20.0, None)}
"""Seconds cold and warm."""
COMPILE_MEMORY = (3.0, 300 * 10**6)
"""At most this many times the weights, plus bytes."""


@functools.cache
def rows() -> tuple[Row, ...]:
    """Every light and exported network at one thread and two."""
    effort = Effort(rounds=int(os.environ.get("IRC_ACCEPT_ROUNDS", "10")), warm=False)
    return tuple(
        [row for name in names() for row in measure([subject(name)], THREADS, effort=effort)]
    )


def latency() -> Measured:
    """Geometric mean and worst ratio to the quicker peer at each number of threads."""
    parts, passed = [], True
    for threads in THREADS:
        these = [r for r in rows() if r.race.threads == threads]
        mean = means(these, threads)
        by_ratio = sorted(these, key=lambda r: -r.race.ratio())
        worst = ", ".join([f"{r.race.name} {r.race.ratio():.2f}" for r in by_ratio[:3]])
        least = means(these, threads, "min")
        parts.append(f"{threads}: {mean:.2f}x, of the least {least:.2f}x (worst {worst})")
        passed = passed and mean <= LATENCY_MEAN and by_ratio[0].race.ratio() <= LATENCY_WORST
    figure = f"{len(names())} networks; threads " + "; ".join(parts)
    return Measured(figure, passed, facts(rows()))


def memory() -> Measured:
    """Peak of resident memory at run beside onnxruntime's."""
    found = {f"{r.race.name}, {r.race.threads} threads": r.memory_ratio for r in rows()}
    return _within(found, MEMORY_BAR, "of onnxruntime's")


def arenas() -> Measured:
    """Arena over its lower bound, both in the details."""
    found = {f"{r.race.name}, {r.race.threads} threads": r.arena_ratio for r in rows()}
    sides = {
        f"{r.race.name}, {r.race.threads} threads": {
            "arena": r.cold.facts.get("arena_bytes"),
            "lower bound": r.cold.facts.get("lower_bound"),
        }
        for r in rows()
    }
    judged = _within(found, ARENA_BAR, "of the lower bound")
    return Measured(judged.figure, judged.passed, {**judged.details, "bytes": sides})


def _within(found: dict[str, float], bar: float, what: str) -> Measured:
    missing = [name for name, ratio in found.items() if math.isnan(ratio)]
    known = {name: ratio for name, ratio in found.items() if not math.isnan(ratio)}
    above = [f"{name} {ratio:.2f}" for name, ratio in known.items() if ratio > bar]
    worst = max(known, key=known.__getitem__, default="none")
    figure = f"at most {known.get(worst, 0):.3f}x {what} ({worst})"
    figure += f", geometric mean {geometric_mean(list(known.values())):.2f}"
    figure += f"; above: {', '.join(above)}" if above else ""
    figure += f"; not measured: {', '.join(missing)}" if missing else ""
    return Measured(figure, bool(known) and not above and not missing, {"ratios": found})


def compile_memory() -> Measured:
    """Peak memory of compiling each network with an empty cache, over what it may be."""
    found = {}
    for r in rows():
        weights = r.cold.facts.get("weight_bytes", 0)
        most = COMPILE_MEMORY[0] * weights + COMPILE_MEMORY[1]
        name = f"{r.race.name}, {r.race.threads} threads"
        found[name] = float("nan") if r.cold.error else r.cold.memory / most
    return _within(found, 1.0, "of 3x the weights + 300 MB")


def compile_time() -> Measured:
    """`irc compile` of two networks in fresh processes: empty cache, then again."""
    parts, passed = [], True
    details: dict[str, object] = {}
    for name, (cold_bar, warm_bar) in COMPILING.items():
        cold, warm = _compiled(name)
        weights = cold.facts.get("weight_bytes", 0)
        most = COMPILE_MEMORY[0] * weights + COMPILE_MEMORY[1]
        said = f"{name} {cold.seconds:.1f} s cold, {warm.seconds:.1f} s warm"
        parts.append(f"{said}, {cold.memory / MIB:.0f} of {most / MIB:.0f} MiB {cold.error[:80]}")
        details[name] = {"cold": vars(cold), "warm": vars(warm), "memory bar": most}
        passed = passed and not cold.error and cold.seconds < cold_bar and cold.memory < most
        passed = passed and (warm_bar is None or warm.seconds < warm_bar)
    return Measured("; ".join(parts), passed, details)


def _compiled(name: str) -> tuple[Compiling, Compiling]:
    with tempfile.TemporaryDirectory() as folder:
        plan, cache = Path(folder) / "plan.ircx", Path(folder) / "cache"
        each = subject(name)
        return compile_apart(each, plan, 1, cache), compile_apart(each, plan, 1, cache)


__all__ = ["arenas", "compile_memory", "compile_time", "latency", "memory", "rows"]
