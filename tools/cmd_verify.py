"""`irc verify`: a compiled model against the reference, output by output and region by region."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..backends import compiler
from ..ir.errors import VerifyError
from . import driver
from .completion import PLANS
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
from .tables import show_json

if TYPE_CHECKING:
    from .bisection import Found
    from .verification import Compared, Report


@click.command()
@model_argument(*PLANS)
@target_options
@input_options
@click.option(
    "--tolerance", type=FiniteRange(0), default=None, help="Of max|ref|  [f32: 1e-4]."
)
@click.option(
    "--noise", type=FiniteRange(), default=0.0, help="Perturb the compiled weights: must fail."
)
@click.option("--bisect", is_flag=True, help="Name the first phase, pass and op that go wrong.")
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
    tolerance: float | None,
    noise: float,
    bisect: bool,
    as_json: bool,
) -> None:
    """Compare MODEL, compiled, with the reference; exit code 5 where they differ.

    Every output of the model is compared, and every fused region on the reference's own inputs, so
    that the first that diverges is the one at fault.  A plan (.ircx) holds no module to compare
    with: its checksums are verified, and that it repeats itself to the bit.

    With --bisect a difference is followed to the pass behind which it first shows and to the op
    that makes it; where only machine code is wrong, to the op in its kernel.
    """
    if model.endswith(driver.PLAN_SUFFIX):
        if bisect:
            raise click.UsageError("--bisect needs the model, not its plan")
        plan_repeats(model, input_file, seed, shapes)
        if as_json:
            show_json({"passed": True, "checksums": "right", "repeats": True})
        return
    from ..backends.targets import choose
    from . import verification
    from .feeds import feeds

    choice = choose(target, threads)
    compiler.check_precision(precision, choice)
    compiler.check_runs(choice)
    module = driver.load(model, shapes or None)
    inputs = feeds(compiler.reference(module, shapes or None).inputs, input_file, seed, shapes)
    bars = {"noise": noise, "tolerance": tolerance, "shapes": shapes or None}
    report = verification.compare(module, choice, inputs, **bars)
    found = None
    if bisect and not report.passed:
        from .bisection import bisect as first_wrong

        found = first_wrong(module, choice, inputs, say=detail, **bars)
    show(report, as_json, found)
    if found is not None:
        note("next: " + reduction(model, target, threads, shapes, input_file, seed, tolerance))
    if not report.passed:
        raise diverged(report)


def reduction(
    model: str, target: str, threads: int | None, shapes: dict[str, Any],
    input_file: str | None, seed: int, tolerance: float | None,
) -> str:  # fmt: skip
    """The command that makes a small model with the same fault."""
    suffix = ".onnx" if model.endswith(".onnx") else ".irc"
    words = ["irc", "reduce", model, "-o", f"small{suffix}", "--check", "mismatch"]
    flags = {"--target": target if target != "cpu" else None, "--threads": threads,
             "--input": input_file, "--seed": seed or None, "--tolerance": tolerance}  # fmt: skip
    words += [str(w) for flag, value in flags.items() if value is not None for w in (flag, value)]
    for name, shape in shapes.items():
        words += ["--shape", f"{name}:{'x'.join([str(e) for e in shape])}"]
    return shlex.join(words)


def show(report: Report, as_json: bool, found: Found | None = None) -> None:
    """The rows, and what a bisection found, as JSON or as text."""
    rows = [*report.outputs, *report.regions]
    if as_json:
        each = [asdict(r) | {"passed": r.passed} for r in rows]
        facts = {"passed": report.passed, "worst": report.worst, "host_steps": report.host_steps}
        more = {"first_wrong": asdict(found)} if found is not None else {}
        show_json(facts | {"rows": each} | more)
        return
    for r in rows:
        click.echo(f"{'ok  ' if r.passed else 'FAIL'} {r.error:9.2e}  {r.what}{_place(r)}")
    counts = f"{len(report.outputs)} outputs, {len(report.regions)} region results"
    click.echo(f"{counts}, worst {report.worst:.1e}")
    if found is not None:
        click.echo(told(found))


def told(found: Found) -> str:
    """What a bisection found, in four lines."""
    place = f" from {found.where}" if found.where else ""
    inside = f"region {found.region}: " if found.region else ""
    return "\n".join([
        f"first wrong after phase {found.phase}, {found.step}",
        f"  op      {found.op}{place} ({inside}op {found.position} of {found.count})",
        f"  gives   {', '.join(found.types)}",
        f"  error   {found.error:.2e} of max|ref|, at most {found.tolerance:.0e} allowed",
    ])  # fmt: skip


def _place(r: Compared) -> str:
    return f"  ({r.where})" if r.where else ""


def diverged(report: Report) -> VerifyError:
    """E0527, which names the first row that differs."""
    row = report.first
    assert row is not None
    return VerifyError(
        "E0527",
        "the compiled model differs from the reference",
        where=row.where or None,
        details=(
            f"first: {row.what}",
            f"max|y - ref| / max|ref| is {row.error:.2e}, at most {row.tolerance:.0e} allowed",
        ),
    )


def plan_repeats(model: str, input_file: str | None, seed: int, shapes: dict[str, Any]) -> None:
    """Open a plan (which compares checksums) and run it twice; E0528 where the bits differ."""
    import numpy as np

    from .feeds import feeds

    exe = driver.open_plan(model)
    inputs = feeds(exe.inputs, input_file, seed, shapes)
    first, second = [exe.run({n: np.array(x) for n, x in inputs.items()}) for _ in range(2)]
    same = [a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True)]
    if not all(same):
        raise VerifyError("E0528", f"{model} does not repeat itself", hint="please report this")
    note("checksums are right, and two runs agree to the bit; compare the model for its values")
