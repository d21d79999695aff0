"""Options that several subcommands share, each as a decorator, and how much the command says.

Imports click alone.  `-q` and `-v` may stand before or after the subcommand, and are counted
together: `verbose()` answers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import click

from . import completion

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
            *flags, count=True, expose_value=False, callback=_count, help=text,
            allow_from_autoenv=False,
        )(function)  # fmt: skip
    return function


def json_flag(function: _Function) -> _Function:
    """The flag --json, passed on as `as_json`: one JSON document on stdout, for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


class FiniteRange(click.FloatRange):
    """A number within bounds, and neither infinite nor NaN, which compare with no bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; a usage error for what is none."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found


def _shape(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """`x:1x3x224x224` (repeated) as {"x": (1, 3, 224, 224)}; `x:` is a scalar."""
    shapes = {}
    for item in given:
        name, colon, text = item.rpartition(":")
        extents = text.split("x") if text else []
        if not colon or not name or not all([e.isdecimal() for e in extents]):
            raise click.BadParameter(f"'{item}' is not like x:1x3x224x224", ctx, param)
        shapes[name] = tuple([int(e) for e in extents])
    return shapes


def shape_option(function: _Function) -> _Function:
    """--shape, passed on as `shapes`, a dict."""
    text = "Extents of an input, as x:1x3x224x224; repeat for several."
    return click.option("--shape", "shapes", multiple=True, callback=_shape, help=text)(function)


def target_options(function: _Function) -> _Function:
    """--target, --threads, --precision and --shape: what `driver.compile` wants to know."""
    function = shape_option(function)
    function = click.option("--precision", default="f32", show_default=True, help="f32.")(function)
    threads = "Threads; over IRC_NUM_THREADS, over the cores allowed."
    function = click.option("--threads", type=int, default=None, help=threads)(function)
    target = "What to compile for; `irc targets` lists them."
    return click.option("--target", default="cpu", show_default=True, help=target,
                        shell_complete=completion.targets)(function)  # fmt: skip


def input_options(function: _Function) -> _Function:
    """--input and --seed: where the inputs of a run come from."""
    seed = "Seed of random inputs."
    function = click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help=seed
    )(function)
    text = "Inputs by name in an .npz file; without it they are random."
    return click.option("--input", "input_file", default=None, help=text,
                        shell_complete=completion.files(*completion.ARRAYS))(function)  # fmt: skip


def watch_options(function: _Function) -> _Function:
    """--verify-each, --dump-ir, --from, --to, --time-passes: what to see of the pipeline."""
    asks_phase = {"shell_complete": completion.phases}
    rows: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
        (("--time-passes",), {"is_flag": True, "help": "Milliseconds of each pass on stderr."}),
        (("--to", "to_phase"), {"default": None, "help": "Stop behind this phase."} | asks_phase),
        (
            ("--from", "from_phase"),
            {"default": None, "help": "The phase the module has behind it."} | asks_phase,
        ),
        (("--dump-ir", "dump_dir"), {"default": None, "help": "A folder for one file per phase."}),
        (("--verify-each",), {"is_flag": True, "help": "Verify behind each pass."}),
    )
    for flags, settings in rows:
        function = click.option(*flags, **settings)(function)
    return function


def model_argument(*suffixes: str) -> Callable[[_Function], _Function]:
    """The argument MODEL; a shell offers files with these suffixes."""
    return click.argument("model", shell_complete=completion.files(*suffixes))


def note(text: str) -> None:
    """A line of progress on stderr, unless -q."""
    if verbose() >= 0:
        click.echo(text, err=True)


def detail(text: str) -> None:
    """A line on stderr for those who asked for more with -v."""
    if verbose() >= 1:
        click.echo(text, err=True)
