"""Acceptance of the spine, one thin slice through every room.

How to add a line: see the docstring of this package.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import Line, Measured

ROOT = Path(__file__).resolve().parent.parent.parent
START_UP_ROUNDS = 11
HELP_BUDGET_MS = 80.0


def medians_ms(rounds: int, commands: Sequence[Sequence[str]]) -> list[float]:
    """Median wall time of each command in ms, run in turn so that all see the same machine."""
    times: list[list[float]] = [[] for _ in commands]
    for _ in range(rounds):
        for command, kept in zip(commands, times, strict=True):
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            kept.append((time.perf_counter() - started) * 1e3)
    return [statistics.median(kept) for kept in times]


def help_start_up() -> Measured:
    """What `irc --help` costs beyond an empty Python."""
    script = Path(sys.executable).with_name("irc")
    bare, shown = medians_ms(
        START_UP_ROUNDS, [[sys.executable, "-c", "pass"], [str(script), "--help"]]
    )
    return Measured(
        f"{shown - bare:.0f} ms more ({shown:.0f} against {bare:.0f})",
        shown - bare <= HELP_BUDGET_MS,
        {"help_ms": shown, "python_ms": bare, "rounds": START_UP_ROUNDS},
    )


def structure() -> Measured:
    """The structure test, in its own process."""
    command = [sys.executable, "-P", "-m", "pytest", "-q", "--color=no", "tests/test_structure.py"]
    shell = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    outcomes = re.findall(r"(\d+) (passed|failed|error)", shell.stdout)
    counts = {word: int(number) for number, word in outcomes}
    found = [line for line in shell.stdout.splitlines() if line.startswith(("E  ", "FAILED"))]
    figure = ", ".join(f"{number} {word}" for word, number in counts.items()) or "did not run"
    return Measured(figure, shell.returncode == 0, {**counts, "findings": found})


LINES = (
    Line("help", "`irc --help` at most 80 ms over `python -c pass`", help_start_up),
    Line("structure", "file <= 600 lines, function <= 60, imports one way, no stubs", structure),
)
