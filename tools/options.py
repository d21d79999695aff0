"""Options that several subcommands share, each as a decorator, and how much the command says.

Imports only click.  `-q` and `-v` may stand before or after the subcommand, and are counted
together: `verbose()` answers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

_Function = Callable[..., Any]
_flags = {"verbose": 0, "quiet": 0}  # one command line per process at a time


def forget_verbosity() -> None:
    """Start a new command line: no -q and no -v seen yet."""
    _flags.update(verbose=0, quiet=0)


def _count(ctx: click.Context, param: click.Parameter, value: int) -> None:
    _flags[str(param.name)] += value


def verbose() -> int:
    """How much to say on stderr: below 0 errors only, 0 normal, 1 more; at least `IRC_DEBUG`."""
    debug = os.environ.get("IRC_DEBUG", "")
    level = _flags["verbose"] - _flags["quiet"]
    return max(level, int(debug)) if debug.isdecimal() and int(debug) else level


def verbosity(function: _Function) -> _Function:
    """The flags -q and -v; they reach the command through `verbose()`, not as arguments."""
    more = "Say more; twice for all. An internal error shows its traceback."
    less = "Errors only on stderr."
    for name, text in (("verbose", more), ("quiet", less)):
        flags = (f"-{name[0]}", f"--{name}")
        function = click.option(
            *flags, count=True, expose_value=False, callback=_count, help=text
        )(function)
    return function


def json_flag(function: _Function) -> _Function:
    """The flag --json, passed on as `as_json`: one JSON document on stdout, for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def note(text: str) -> None:
    """A line of progress on stderr, unless -q."""
    if verbose() >= 0:
        click.echo(text, err=True)
