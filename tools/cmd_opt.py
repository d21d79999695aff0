"""`irc opt`: passes over IR text, from a file or standard input to standard output or a file.

Invariant: starts quickly, so it imports neither llvmlite (unless a target is named) nor onnx.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ..ir.errors import Error
from . import driver
from .cmd_compile import show_times, watched
from .options import verbosity, watch_options

if TYPE_CHECKING:
    from ..ir.ops.core import Module
    from ..passes.pipeline import Compiled, Options


@click.command()
@click.argument("file", default="-")
@click.option("--passes", default=None, help="As 'canonicalize,cse,fuse{max=8}'.")
@click.option("--target", default=None, help="Whose pipeline --from and --to mean.")
@click.option("-o", "--output", default="-", show_default=True, help="Text, or an .irc archive.")
@click.option("--list", "listing", is_flag=True, help="List the passes and their options.")
@watch_options
@verbosity
def command(
    file: str, passes: str | None, target: str | None, output: str, listing: bool, **watch: Any
) -> None:
    """Read FILE (.ir, .irc or -), run passes over it, and print it.

    Without --passes it is read, verified and printed; with --to the pipeline runs up to a phase.
    """
    from ..ir.text import print_op

    if listing:
        list_passes()
        return
    if passes is not None and (watch["from_phase"] or watch["to_phase"]):
        raise click.UsageError("--passes and --from/--to exclude each other")
    module = read(file)
    if passes is not None or watch["to_phase"]:
        module = changed(module, passes, target, watch)
    if output == "-":
        click.echo(print_op(module))
    else:
        module.save(output)


def read(file: str) -> Module:
    """A verified module from a file, or text from standard input."""
    if file != "-":
        return driver.load(file)
    from ..ir.parse import parse
    from ..ir.verify import verify

    try:
        text = sys.stdin.read()
    except UnicodeDecodeError:
        raise Error("E0260", "standard input is not text in UTF-8") from None
    module = parse(text, file="<stdin>")
    verify(module)
    return module


def changed(
    module: Module, passes: str | None, target: str | None, watch: dict[str, Any]
) -> Module:
    """The module behind the passes, or behind the phases of a target."""
    from ..passes.pipeline import Compiled, compile_module, parse_pipeline, run_passes
    from ..passes.pipeline import quiet_collector as quiet

    options = watched("fused", **watch)
    result = Compiled(module)
    if passes is None:
        result = compile_module(module, target_of(target), options)
    else:
        with quiet():
            result.module = run_passes(module, parse_pipeline(passes), options, result)
        dump(options, result)
    if watch["time_passes"]:
        show_times(result)
    return result.module


def dump(options: Options, result: Compiled) -> None:
    """--dump-ir of a list of passes: what came out of it."""
    from pathlib import Path

    from ..ir.text import print_op

    if options.dump_dir is not None:
        folder = Path(options.dump_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "passes.ir").write_text(print_op(result.module) + "\n", encoding="utf-8")


def target_of(name: str | None) -> Any:
    """A target's description; without a name one of no particular machine."""
    from ..ir.target import Target

    if name is None:
        return Target("plain")
    from .targets import choose

    return choose(name).target


def list_passes() -> None:
    """Names and options of all passes."""
    from ..passes.options import PASSES, default_of, options_of
    from ..passes.pipeline import PHASES

    for name in sorted(PASSES):
        cls = PASSES[name]
        shown = [f"{f.name}={default_of(cls, f.name)}" for f in options_of(cls)]
        doc = (cls.__doc__ or "").partition("\n")[0]
        click.echo(f"{name + ('{' + ' '.join(shown) + '}' if shown else ''):<36}{doc}")
    click.echo(f"phases: {', '.join(PHASES)}")
