"""A line on the terminal that says what is being done, for work that takes a while.

It is drawn on stderr, only where that is a terminal, and never under -q; rich is imported when the
work has taken long enough to be worth a line.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .options import verbose

PATIENCE = 0.3
"""Seconds before the line appears."""

Say = Callable[[str], None]


@contextmanager
def working(title: str) -> Iterator[Say]:
    """A function that replaces the line's text; the line vanishes when the block ends."""
    if verbose() < 0 or not sys.stderr.isatty():
        yield _silent
        return
    line = _Line(title)
    try:
        yield line.say
    finally:
        line.stop()


def _silent(text: str) -> None:
    """Nobody is looking."""


class _Line:
    """The line, from its first text after the patience has run out."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.began = time.monotonic()
        self.status: Any = None

    def say(self, text: str) -> None:
        """Show a text."""
        from rich.markup import escape

        room = max(10, shutil.get_terminal_size().columns - len(self.title) - 5)
        cut = text if len(text) <= room else text[: room - 3] + "..."
        shown = f"{self.title}: {escape(cut)}"
        if self.status is not None:
            self.status.update(shown)
        elif time.monotonic() - self.began >= PATIENCE:
            from rich.console import Console

            self.status = Console(stderr=True).status(shown)
            self.status.start()

    def stop(self) -> None:
        """Wipe the line."""
        if self.status is not None:
            self.status.stop()


__all__ = ["Say", "working"]
