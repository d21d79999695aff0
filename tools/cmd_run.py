"""`irc run`: a model or a compiled plan on given or random inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..ir.errors import VerifyError
from . import driver
from .completion import PLANS
from .options import input_options, json_flag, model_argument, note, target_options, verbosity
from .progress import working
from .tables import show_json

if TYPE_CHECKING:
    import numpy as np


@click.command()
@model_argument(*PLANS)
@target_options
@input_options
@click.option("-o", "--output", default=None, help="Write the results to this .npz file.")
@click.option("--check-finite", is_flag=True, help="Fail where a result is infinite or no number.")
@json_flag
@verbosity
def command(
    model: str,
    target: str,
    threads: int | None,
    precision: str,
    shapes: dict[str, Any],
    input_file: str | None,
    seed: int,
    output: str | None,
    check_finite: bool,
    as_json: bool,
) -> None:
    """Run MODEL (ONNX, .ir, .irc or .ircx) and print its results, or write them with -o."""
    from .feeds import feeds, write_npz

    exe = runnable(model, target, threads, precision, shapes)
    if input_file is None:
        note(f"random inputs, seed {seed}")
    results = exe.run(feeds(exe.inputs, input_file, seed, shapes))
    named = {name: y for (name, _), y in zip(exe.outputs, results, strict=True)}
    if output is not None:
        write_npz(output, named)
        note(f"written to {output}")
    if as_json:
        show_json({name: summary(y) for name, y in named.items()})
    elif output is None:
        for name, y in named.items():
            click.echo(f"{name} : {y.dtype}{list(y.shape)}\n{y}")
    if check_finite:
        refuse_infinite(named)


def runnable(
    model: str, target: str, threads: int | None, precision: str, shapes: dict[str, Any]
) -> Any:
    """The executable of a plan as it is, or of a model compiled now."""
    if model.endswith(driver.PLAN_SUFFIX):
        return driver.open_plan(model)
    with working("compile") as say:
        say(f"reading {model}")
        return driver.compile(model, target, threads, precision, shapes or None, say)


def summary(y: np.ndarray[Any, Any]) -> dict[str, object]:
    """Type, shape, extremes and mean of a result."""
    found: dict[str, object] = {"dtype": str(y.dtype), "shape": list(y.shape)}
    if y.size and y.dtype.kind in "fiub":
        wide = y.astype("f8")
        found |= {"min": wide.min(), "max": wide.max(), "mean": wide.mean()}
    return found


def refuse_infinite(named: dict[str, Any]) -> None:
    """Raise E0526, naming the results that hold infinities or NaN."""
    import numpy as np

    bad = [name for name, y in named.items() if y.dtype.kind == "f" and not np.isfinite(y).all()]
    if bad:
        raise VerifyError("E0526", f"infinite values or NaN in {', '.join(bad)}")
