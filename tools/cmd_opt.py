"""`irc opt`: passes over IR text, from a file or standard input to standard output or a file.

Invariant: starts quickly, so it imports neither llvmlite (unless a target is named) nor onnx.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..ir.errors import Error
from . import completion, driver
from .cmd_compile import show_times, watched
from .options import json_flag, note, verbose, verbosity, watch_options
from .tables import show_json

if TYPE_CHECKING:
    from ..ir.ops.core import Module
    from ..passes.options import Pass

PASS_MODULES = {
    "canonicalize": "canonicalize",
    "cse": "cse",
    "dce": "canonicalize",
    "decompose": "decompose",
    "fold": "canonicalize",
    "fold-weights": "fold_weights",
    "fuse": "fuse",
    "hoist": "hoist",
    "layout": "layout",
}
"""Pass to its module, so that a few passes start without the rest of the compiler."""


@click.command()
@click.argument("file", default="-", shell_complete=completion.files(*completion.MODELS))
@click.option(
    "--passes", default=None, help="As 'canonicalize,cse,fuse{max=8}'.",
    shell_complete=completion.passes,
)  # fmt: skip
@click.option(
    "--target", default=None, help="Whose pipeline --from and --to mean.",
    shell_complete=completion.targets,
)  # fmt: skip
@click.option("-o", "--output", default="-", show_default=True, help="Text, or an .irc archive.")
@click.option("--list", "listing", is_flag=True, help="List the passes and their options.")
@watch_options
@json_flag
@verbosity
def command(
    file: str,
    passes: str | None,
    target: str | None,
    output: str,
    listing: bool,
    as_json: bool,
    **watch: Any,
) -> None:
    """Read FILE (.ir, .irc or -), run passes over it, and print it.

    Without --passes it is read, verified and printed; with --to the pipeline runs up to a phase.
    With --json: the milliseconds of each pass, ops before and after, and the text or the file.
    """
    from ..ir.text import print_op

    if listing:
        list_passes(as_json)
        return
    if passes is not None and (watch["from_phase"] or watch["to_phase"]):
        raise click.UsageError("--passes and --from/--to exclude each other")
    module = read(file)
    before, seconds = ops_of(module), dict[str, float]()
    if passes is not None or watch["to_phase"]:
        module, seconds = changed(module, passes, target, watch)
    if output != "-":
        module.save(output)
    if as_json:
        facts = {
            "milliseconds": {name: round(s * 1e3, 3) for name, s in seconds.items()},
            "ops_before": before,
            "ops_after": ops_of(module),
        }
        kept = {"text": print_op(module)} if output == "-" else {"file": output}
        show_json(facts | kept)
    elif output == "-":
        click.echo(print_op(module))


def ops_of(module: Module) -> int:
    """Ops of all functions, constants and terminators not counted."""
    plain = ("const", "func", "module")
    return sum([not op.terminator and op.name not in plain for op in module.walk()])


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
) -> tuple[Module, dict[str, float]]:
    """The module behind the passes, or behind the phases of a target, and seconds by pass."""
    if passes is not None:
        return passed(module, passes, watch)
    from ..passes.pipeline import compile_module

    result = compile_module(module, target_of(target), watched("fused", **watch))
    if watch["time_passes"]:
        show_times(result.seconds)
    return result.module, result.seconds


def passed(
    module: Module, passes: str, watch: dict[str, Any]
) -> tuple[Module, dict[str, float]]:
    """The module behind each of the passes named, in order, and seconds by pass."""
    from ..ir.verify import verify

    seconds: dict[str, float] = {}
    for number, step in enumerate(parsed(passes)):
        start = time.perf_counter()
        try:
            module = step.run(module)
            if watch["verify_each"]:
                verify(module)
        except Exception as error:
            if not isinstance(error, Error):
                keep(module, step, error)
            raise
        seconds[step.name] = seconds.get(step.name, 0.0) + time.perf_counter() - start
        if verbose() >= 1:
            note(f"{step!s:<40}{seconds[step.name] * 1e3:9.2f} ms")
        if watch["dump_dir"] is not None:
            dump(module, Path(watch["dump_dir"]), f"{number}_{step.name}.ir")
    if watch["time_passes"]:
        show_times(seconds)
    return module, seconds


def parsed(text: str) -> list[Pass]:
    """The passes of a text; where it names one that is not in the table all are imported."""
    from ..passes.options import parse_pipeline

    names = set(re.findall(r"[A-Za-z][\w-]*", re.sub(r"\{.*?\}", "", text)))
    modules = [PASS_MODULES.get(name, "pipeline") for name in sorted(names)]
    for module in modules if "pipeline" not in modules else ["pipeline"]:
        import_module(f"...passes.{module}", __name__)
    return parse_pipeline(text)


def keep(module: Module, step: Pass, error: Exception) -> None:
    """Write the reproducer of a pass that failed, and say on the error where."""
    from ..passes.pipeline import write_reproducer

    with contextlib.suppress(Exception):
        error.reproducer = write_reproducer(module, str(step), None, error)  # type: ignore[attr-defined]


def dump(module: Module, folder: Path, name: str) -> None:
    """--dump-ir of one pass: what came out of it."""
    from ..ir.text import print_op

    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(print_op(module) + "\n", encoding="utf-8")


def target_of(name: str | None) -> Any:
    """A target's description; without a name one of no particular machine."""
    from ..ir.target import Target

    if name is None:
        return Target("plain")
    from ..backends.targets import choose

    return choose(name).target


def list_passes(as_json: bool = False) -> None:
    """Names and options of all passes, and the phases."""
    from ..passes.options import PASSES, default_of, options_of
    from ..passes.pipeline import PHASES

    if as_json:
        found = {
            name: {f.name: default_of(cls, f.name) for f in options_of(cls)}
            for name, cls in sorted(PASSES.items())
        }
        show_json({"passes": found, "phases": PHASES})
        return
    for name in sorted(PASSES):
        cls = PASSES[name]
        shown = [f"{f.name}={default_of(cls, f.name)}" for f in options_of(cls)]
        doc = (cls.__doc__ or "").partition("\n")[0]
        click.echo(f"{name + ('{' + ' '.join(shown) + '}' if shown else ''):<36}{doc}")
    click.echo(f"phases: {', '.join(PHASES)}")
