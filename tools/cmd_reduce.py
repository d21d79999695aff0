"""`irc reduce`: a failing model to a small one that fails in the same way."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..ir.errors import Error
from . import driver
from .artifacts import check_writable
from .completion import MODELS
from .options import (
    FiniteRange,
    detail,
    input_options,
    json_flag,
    model_argument,
    note,
    target_options,
    verbosity,
)
from .progress import working
from .tables import show_json
from .verdicts import CHECKS, STAGES, Conditions, Judge, Verdict, command_verdict

if TYPE_CHECKING:
    from .reduction import Program

Check = Callable[[str], Verdict]


@click.command()
@model_argument(*MODELS)
@click.option("-o", "--output", required=True, help="The small model: .irc or .ir, or .onnx.")
@click.option("--check", default="any", show_default=True,
              help="error, crash, mismatch, any, or a command with {} for the model.")  # fmt: skip
@target_options
@input_options
@click.option(
    "--tolerance", type=FiniteRange(0), default=None, help="Of max|ref|  [f32: 1e-4]."
)
@click.option("--timeout", type=click.FloatRange(0.1), default=60.0, show_default=True,
              help="Seconds after which a check counts as hanging.")  # fmt: skip
@click.option("--most", type=click.IntRange(1), default=5000, show_default=True,
              help="Checks at most.")  # fmt: skip
@json_flag
@verbosity
def command(
    model: str,
    output: str,
    check: str,
    target: str,
    threads: int | None,
    precision: str,
    shapes: dict[str, Any],
    input_file: str | None,
    seed: int,
    tolerance: float | None,
    timeout: float,
    most: int,
    as_json: bool,
) -> None:
    """Make MODEL small while it keeps failing in the same way.

    What fails is loading, compiling, running, or agreeing with the reference; with a command, that
    it ends with another code than 0. The same failure is the same error number, the same place of a
    crash, the same exit code. An ONNX model stays one where the output is .onnx, and is reduced
    as IR otherwise.
    """
    goal = Path(output)
    check_writable(goal)
    if check not in CHECKS and "{}" not in check:
        raise click.UsageError(
            f"--check is {', '.join(CHECKS)} or a command with {{}}, not '{check}'"
        )
    given = Conditions(target, threads, seed, input_file, tolerance)
    start = read(model, goal, shapes, given)
    with tempfile.TemporaryDirectory(prefix="irc-reduce-") as folder, working("reduce") as say:
        trial = Path(folder) / f"model{goal.suffix}"
        if check in CHECKS:
            with Judge(given, timeout) as judge:
                facts = reduced(start, goal, trial, staged(judge, check), most, say)
        else:
            facts = reduced(
                start, goal, trial, lambda path: command_verdict(check, path, timeout), most, say
            )
    if as_json:
        show_json(facts)
    else:
        note("{file}: {before} ops to {after}, {checks} checks; {failure}".format(**facts))


def read(model: str, goal: Path, shapes: dict[str, Any], given: Conditions) -> Program:
    """The model as a program, in the form of the output."""
    if goal.suffix == ".onnx":
        if not model.endswith(".onnx"):
            raise Error("E0535", f"{model} cannot be reduced as ONNX", hint="-o small.irc")
        from ..frontends.onnx.shrink import OnnxProgram

        return OnnxProgram.read(Path(model), shapes)
    if goal.suffix not in driver.TEXT_SUFFIXES:
        raise Error("E0535", f"{goal} says no form", hint="a name that ends in .irc, .ir or .onnx")
    from ..passes.specialise import specialise
    from .program_module import ModuleProgram
    from .verdicts import inputs_of

    module = driver.load(model, shapes or None)
    if shapes and not model.endswith(".onnx"):
        module = specialise(module, shapes)
    return ModuleProgram(module, lambda fields: inputs_of(fields, given))


def staged(judge: Judge, check: str) -> Check:
    """The built-in check; after the first failure it stops where that one came."""
    upto = "compare" if check in ("any", "mismatch") else "run"

    def found(path: str) -> Verdict:
        nonlocal upto
        verdict = judge(path, upto)
        if verdict.kind in CHECKS[check]:
            upto = min(verdict.stage or upto, upto, key=STAGES.index)
            return verdict
        return Verdict("ok", text="" if verdict.kind == "ok" else str(verdict))

    return found


def reduced(
    start: Program, goal: Path, trial: Path, check: Check, most: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Reduce, write the result, and say what was done; E0536 where nothing fails."""
    from .reduction import Search

    start.save(trial)
    first = check(str(trial))
    if first.kind == "ok":
        raise Error(
            "E0536", "the model does not fail", details=(first.text,) if first.text else (),
            hint="--check says what counts as failing",
        )  # fmt: skip
    say(f"{start.size} ops: {first}")

    def fails(program: Program) -> bool:
        program.save(trial)
        found = check(str(trial))
        detail(f"{program.size} ops: {found}")
        return first.same(found)

    search = Search(fails, say, most)
    best = search.reduce(start)
    best.save(goal)
    return {
        "file": str(goal), "failure": str(first), "before": start.size, "after": best.size,
        "checks": search.tries,
    }  # fmt: skip
