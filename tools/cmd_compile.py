"""`irc compile`: a model to a compiled plan, or to any stage on the way."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..backends import compiler
from ..ir.errors import Error
from . import driver
from .completion import MODELS
from .options import (
    json_flag,
    model_argument,
    note,
    target_options,
    verbose,
    verbosity,
    watch_options,
)
from .progress import Say, working
from .tables import show_json

if TYPE_CHECKING:
    from ..backends.executable import Program
    from ..ir.ops.core import Module
    from ..passes.options import Pass
    from ..passes.pipeline import Compiled, Options
    from .artifacts import Kind

EMIT = ("plan", "ir", "loops", "llvm", "asm", "obj", "c")


@click.command()
@model_argument(*MODELS)
@target_options
@click.option(
    "-o", "--output", default=None, help="The file to write; it is replaced only when whole."
)
@click.option("--emit", type=click.Choice(EMIT), default=None, help="What to write [plan; c: C].")
@watch_options
@json_flag
@verbosity
def command(
    model: str,
    target: str,
    threads: int | None,
    precision: str,
    shapes: dict[str, Any],
    output: str | None,
    emit: str | None,
    as_json: bool,
    **watch: Any,
) -> None:
    """Compile MODEL (ONNX, .ir or .irc) for a target; a compiled plan (.ircx) by default.

    Text (ir, loops, llvm, asm, c) goes to stdout where -o names no file.
    """
    from ..backends.targets import choose
    from . import artifacts

    choice = choose(target, threads)
    compiler.check_precision(precision, choice)
    name, kind = artifacts.kind_of(emit, choice)
    goal = Path(output) if output else None if kind.text else artifacts.default_output(model, kind)
    if goal is not None:
        artifacts.check_writable(goal)
    started = time.perf_counter()
    with working("compile") as say:
        say(f"reading {model}")
        module = driver.load(model, shapes or None)
        options = watched(kind.phase, say, **watch)
        check_phases(name, kind, options)
        key = None
        if name == "plan" and not watch["time_passes"] and not choice.lacking():
            key = compiler.program_key(module, choice, options, shapes)
        known = compiler.find_program(key)
        if known is not None and goal is not None:
            found, text, written = _facts(known.program), "", [goal]
            known.save(goal)
        else:
            compiled = compiler.lower(module, choice, options, shapes)
            found = figures(compiled)
            if goal is None:
                text, written = artifacts.text_of(name, compiled, choice, Path(model).stem), []
            else:
                say(f"{said(found)}code for {goal}")
                text, written = "", artifacts.write(name, compiled, choice, goal)
                compiler.keep_program(key, goal, compiled)
            if watch["time_passes"]:
                show_times(compiled.seconds)
    seconds = time.perf_counter() - started
    if as_json:
        made = {"files": [str(p) for p in written]} if written else {"text": text}
        facts = {"target": target, "emit": name} | made | found
        show_json(facts | {"seconds": round(seconds, 3)})
        return
    click.echo(text, nl=False)
    if written:
        note(f"{written[0]}: {written[0].stat().st_size} bytes, {said(found)}{seconds:.2f} s")


def check_phases(name: str, kind: Kind, options: Options) -> None:
    """Raise E0408 where an output is made in a phase that --from or --to leave out."""
    if name in ("ir", "loops"):
        return
    phase = kind.phase
    if options.to_phase != phase:
        said = f"--to stops behind {options.to_phase}"
    elif options.from_phase == phase:
        said = f"--from begins behind {phase}"
    else:
        return
    raise Error("E0408", f"{name} needs the phase {phase}, {said}")


def watched(
    to: str,
    say: Say | None = None,
    verify_each: bool = False,
    dump_dir: str | None = None,
    from_phase: str | None = None,
    to_phase: str | None = None,
    time_passes: bool = False,
) -> Options:
    """The pipeline's options from the flags; `to` is the last phase unless --to says another.

    `say` hears of each pass.
    """
    from ..passes.pipeline import Options, phase_index

    last = "planned" if to_phase == "emitted" else to_phase or to
    first = from_phase or "import"
    if phase_index(first) > phase_index(last):
        raise Error("E0221", f"the phase {first} comes behind {last}: nothing to do")

    def on_pass(step: Pass, module: Module, seconds: float) -> None:
        if say is not None:
            say(f"behind {step.name}")
        if verbose() >= 1:
            show_pass(step, module, seconds)

    return Options(
        verify_each=verify_each,
        dump_dir=dump_dir,
        from_phase=first,
        to_phase=last,
        on_pass=on_pass,
    )


def show_pass(step: Pass, module: Module, seconds: float) -> None:
    """One line per pass on stderr."""
    note(f"{step!s:<40}{seconds * 1e3:9.2f} ms")


def show_times(seconds: Mapping[str, float]) -> None:
    """The table of --time-passes on stderr, slowest first."""
    rows = sorted(seconds.items(), key=lambda row: -row[1])
    for name, spent in [*rows, ("total", sum(seconds.values()))]:
        click.echo(f"{name:<24}{spent * 1e3:9.2f} ms", err=True)


def figures(compiled: Compiled) -> dict[str, object]:
    """Memory and kernels of a planned module; empty before that phase."""
    from ..backends.executable import Program

    return {} if compiled.planned is None else _facts(Program.of(compiled.planned))


def _facts(program: Program) -> dict[str, object]:
    arena = program.layout.arena
    return {
        "arena_bytes": arena if isinstance(arena, int) else str(arena),
        "lower_bound": program.layout.lower_bound() if isinstance(arena, int) else None,
        "weight_bytes": program.weight_bytes,
        "kernels": len(program.kernels),
        "host_steps": len(program.host_steps),
    }


def said(found: Mapping[str, object]) -> str:
    """The same as a few words."""
    if not found:
        return ""
    return f"{found['kernels']} kernels, arena {found['arena_bytes']} bytes, "
