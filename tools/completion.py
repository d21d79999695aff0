"""What the shell offers behind a flag or in the place of a file, as click's `shell_complete`.

Each function takes click's (context, parameter, text so far) and gives the words that go on from
that text.  The tables they read are imported when a shell asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import click

Complete = Callable[[click.Context, click.Parameter, str], list[str]]

MODELS = (".onnx", ".ir", ".irc")
PLANS = (*MODELS, ".ircx")
ARRAYS = (".npz",)


def targets(ctx: click.Context, param: click.Parameter, text: str) -> list[str]:
    """The names of targets."""
    from ..backends.targets import ROWS

    return beginning(ROWS, text)


def phases(ctx: click.Context, param: click.Parameter, text: str) -> list[str]:
    """The phases of the pipeline."""
    from ..passes.pipeline import PHASES

    return beginning(PHASES, text)


def passes(ctx: click.Context, param: click.Parameter, text: str) -> list[str]:
    """The passes: the last of a list with commas."""
    from ..passes.pipeline import PASSES

    before, comma, last = text.rpartition(",")
    return [before + comma + name for name in beginning(sorted(PASSES), last)]


def op_names(ctx: click.Context, param: click.Parameter, text: str) -> list[str]:
    """The ops."""
    from ..ir.ops import OPS

    return beginning(sorted(OPS), text)


def beginning(names: Iterable[str], text: str) -> list[str]:
    """The names that begin with the text."""
    return [name for name in names if name.startswith(text)]


def files(*suffixes: str) -> Complete:
    """Files with one of the suffixes, and the folders on the way; a single folder is looked into.

    A shell puts a blank behind an only answer, so a folder that is the only one gives its content.
    """

    def complete(ctx: click.Context, param: click.Parameter, text: str) -> list[str]:
        found = _entries(text, suffixes)
        while len(found) == 1 and found[0].endswith("/"):
            inside = _entries(found[0], suffixes)
            if not inside:
                break
            found = inside
        return found

    return complete


def _entries(text: str, suffixes: Iterable[str]) -> list[str]:
    folder, begun = os.path.split(text)
    try:
        entries = sorted(Path(os.path.expanduser(folder) or ".").iterdir())
    except OSError:
        return []
    found = []
    for entry in entries:
        hidden = entry.name.startswith(".") and not begun.startswith(".")
        if hidden or not entry.name.startswith(begun):
            continue
        if entry.is_dir():
            found.append(os.path.join(folder, entry.name) + "/")
        elif entry.suffix in suffixes:
            found.append(os.path.join(folder, entry.name))
    return found


__all__ = ["ARRAYS", "MODELS", "PLANS", "files", "op_names", "passes", "phases", "targets"]
