"""What a fit shows: one line per epoch, with a bar that says loss, rate, speed and time left.

On a terminal the line moves (rich); elsewhere one plain line is printed when an epoch ends; both go
to stderr.  May import: rich, its siblings.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from .callbacks import Callback, Logs

EVERY = 0.1
"""Seconds between two changes of the line."""


class Progress(Callback):
    """The line.  `moving` says whether it moves; by default where stderr is a terminal."""

    def __init__(self, epochs: int, moving: bool | None = None) -> None:
        self.epochs = epochs
        self.moving = sys.stderr.isatty() if moving is None else moving
        self.bar: Any = None
        self.task: Any = None
        self.steps: int | None = None
        self.began = self.shown = 0.0
        self.done = 0

    def fit_begins(self) -> None:
        if self.moving:
            self.bar = _bar()
            self.bar.start()

    def epoch_begins(self, epoch: int) -> None:
        self.began, self.done = time.perf_counter(), 0
        self.steps = self.trainer.steps_per_epoch
        if self.bar is not None:
            label = f"epoch {epoch + 1}/{self.epochs}"
            self.task = self.bar.add_task(label, total=self.steps, said="")

    def step_ends(self, step: int, logs: Logs) -> None:
        self.done += 1
        now = time.perf_counter()
        if self.bar is not None and now - self.shown > EVERY:
            self.shown = now
            self.bar.update(self.task, completed=self.done, said=said(logs))

    def epoch_ends(self, epoch: int, logs: Logs) -> None:
        seconds = time.perf_counter() - self.began
        pace = f"{1e3 * seconds / max(1, self.done):.3g} ms/step"
        line = f"epoch {epoch + 1}/{self.epochs}  {said(logs)}  {seconds:.1f} s, {pace}"
        if self.bar is not None:
            self.bar.remove_task(self.task)
            self.bar.console.print(line, highlight=False)
        else:
            print(line, file=sys.stderr)

    def fit_ends(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _bar() -> Any:
    """The bar of a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
    )
    return Bar(*columns, console=Console(stderr=True), transient=True)


def said(logs: Mapping[str, Any]) -> str:
    """The scalars of the logs in a few words."""
    scalars = {n: float(v) for n, v in logs.items() if np.ndim(v) == 0}
    return "  ".join([f"{name} {value:.4g}" for name, value in scalars.items()])


__all__ = ["Progress", "said"]
