"""The `irc` command: a table of subcommands, each imported only when it is called.

Invariant: `irc --help` imports click and nothing heavier (no numpy, onnx, llvmlite, rich), so the
help of every subcommand stands here as a short string.  To add a subcommand write `cmd_NAME.py`
with a click command named `command`, and add one row to `COMMANDS`.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

import click

from .. import __version__
from .errors import guarded
from .options import forget_verbosity, note, verbosity

# subcommand -> (module of this package, help line)
COMMANDS = {
    "bench": ("cmd_bench", "Latency of a model or plan, alone or against onnxruntime."),
    "completion": ("cmd_completion", "The completion script of bash, zsh or fish."),
    "compile": ("cmd_compile", "A model to a compiled plan, or to any stage on the way."),
    "explain": ("cmd_explain", "Why a model is compiled as it is: fusions, schedules, refusals."),
    "inspect": ("cmd_inspect", "Signature, ops, weights, kernels and memory of a model or plan."),
    "launch": ("cmd_launch", "A training script in several processes."),
    "ops": ("cmd_ops", "The ops: element types, ONNX ops behind them, who runs them."),
    "opt": ("cmd_opt", "Passes over IR text."),
    "optimize": ("cmd_optimize", "A model to a smaller one that means the same."),
    "reduce": ("cmd_reduce", "A failing model to a small one that fails in the same way."),
    "report": ("cmd_report", "One HTML file: graph, kernels with their times, memory, fusions."),
    "run": ("cmd_run", "A model or plan on given or random inputs."),
    "targets": ("cmd_targets", "What can be compiled for, and what of it runs here."),
    "train": ("cmd_train", "A network, trained as a TOML file says."),
    "verify": ("cmd_verify", "A compiled model against the reference, region by region."),
    "env": ("cmd_env", "Versions, machine and extras: the block a bug report needs."),
}


class LazyGroup(click.Group):
    """A click group whose subcommands come from `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in alphabetical order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the subcommand; None where there is no such name."""
        if name not in COMMANDS:
            return None
        module = import_module(f".{COMMANDS[name][0]}", __package__)
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, and an unknown name suggests the nearest one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from ..ir.spelling import nearest

            near = nearest(args[0], COMMANDS)
            hint = f" Did you mean '{near}'?" if near else ""
            raise click.UsageError(f"No such command '{args[0]}'.{hint}", ctx)
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and name is not None and not ctx.resilient_parsing:
            settle_defaults(ctx, name, command)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list under `irc --help`, from the table and not from the modules."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


def settle_defaults(ctx: click.Context, name: str, command: click.Command) -> None:
    """Take the command's defaults from irc.toml, where there is one."""
    from .settings import check_tables, defaults, read_settings, settings_file

    path = settings_file()
    if path is not None:
        tables = read_settings(path)
        check_tables(path, tables, COMMANDS)
        ctx.default_map = {name: defaults(path, command, name, tables.get(name))}


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "auto_envvar_prefix": "IRC",
    },
)
@click.version_option(__version__, message="irc %(version)s", allow_from_autoenv=False)
@verbosity
def group() -> None:
    """Compile ONNX models and irc programs for CPUs, microcontrollers, FPGAs and GPUs.

    Data goes to stdout, progress and logs to stderr.  Exit codes: 0 ok, 1 user error, 2 usage,
    3 unsupported op or target, 4 invalid model, 5 verification failed, 6 does not fit,
    7 toolchain missing, 70 internal error, 130 interrupted.
    """


def show_warning(message: Warning | str, *place: object, **more: object) -> None:
    """A warning as a line on stderr, without the place in our source."""
    note(f"warning: {message}")


def run(args: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit code."""

    def call() -> object:
        with group.make_context("irc", list(args)) as ctx:
            return group.invoke(ctx)

    forget_verbosity()
    return guarded(call, args)


def main() -> None:
    """The entry point of the script `irc`.

    What a command imports and builds lives until it ends, so collecting it on the way and once more
    at the exit is wasted: 50 ms of a short one.
    """
    gc.set_threshold(200_000, 50, 100)
    warnings.showwarning = show_warning
    asked = os.environ.get("_IRC_COMPLETE")
    if asked:
        from .cmd_completion import answer

        sys.exit(answer(asked))
    code = run(sys.argv[1:])
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
