"""`irc explain`: why a model is compiled as it is: fusions, schedules, copies, host steps."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from ..backends import compiler
from ..ir.errors import Error
from . import driver
from .completion import MODELS
from .options import json_flag, model_argument, target_options, verbosity
from .tables import show_json


@click.command()
@model_argument(*MODELS)
@click.argument("kernel", required=False)
@target_options
@json_flag
@verbosity
def command(
    model: str,
    kernel: str | None,
    target: str,
    threads: int | None,
    precision: str,
    shapes: dict[str, Any],
    as_json: bool,
) -> None:
    """Say which fusions of MODEL were refused and why, and how kernels (or one) are scheduled."""
    from ..backends.targets import choose

    choice = choose(target, threads)
    compiler.check_precision(precision, choice)
    module = driver.load(model, shapes or None)
    compiled = compiler.lower(module, choice, shapes=shapes)
    assert compiled.planned is not None
    facts = {
        "kernels": schedules(module, choice, shapes),
        "fusion": [f"{r.producer} | {r.consumer}: {r.why}" for r in compiled.refusals],
        "schedule": [f"{name}: {why}" for name, why in compiled.schedule_refusals],
        "copies": list(compiled.planned.copies),
        "host": list(compiled.planned.host_steps),
    }
    if kernel is not None:
        facts["kernels"] = [k for k in facts["kernels"] if matches(k["name"], kernel)]
        if not facts["kernels"]:
            names = ", ".join(f.sym for f in compiled.planned.kernels)
            raise Error("E0409", f"no kernel is called '{kernel}'", details=(f"kernels: {names}",))
    if as_json:
        show_json(facts)
        return
    show(facts, whole=kernel is None)


def matches(name: str, wanted: str) -> bool:
    """`k3`, `@k3` or the whole name."""
    wanted = wanted.removeprefix("@")
    return name == wanted or name.startswith(f"{wanted}_")


def schedules(module: Any, choice: Any, shapes: dict[str, Any]) -> list[dict[str, Any]]:
    """For each kernel: where it comes from, the steps chosen, and those that were refused."""
    from ..ir.ops.core import Fused
    from ..passes.lower.kernels import content, kernel_name
    from ..passes.lower.loops import lower_fused
    from ..passes.pipeline import Options
    from ..passes.schedule.choose import choose

    lowered = compiler.lower(module, choice, Options(to_phase="generic"), shapes)
    found: dict[str, dict[str, Any]] = {}
    for func in [f for f in lowered.module.funcs if f.kind == "func"]:
        for fused in [op for op in func.walk() if isinstance(op, Fused)]:
            key = content(fused)
            place = str(fused.loc) if fused.loc else ""
            if key in found:
                found[key]["from"].append(place)
                continue
            name = kernel_name(fused, len(found))
            scheduled = choose(lower_fused(fused, name), choice.target)
            found[key] = {
                "name": name,
                "from": [place],
                "steps": [said(step) for step in scheduled.steps],
                "refused": [f"{said(step)}: {why}" for step, why in scheduled.refusals],
            }
    return list(found.values())


def said(step: Any) -> str:
    """A schedule step with the fields that are not at their defaults."""
    fields = [f for f in dataclasses.fields(step) if getattr(step, f.name) != f.default]
    shown = ", ".join([f"{f.name}={getattr(step, f.name)!r}" for f in fields])
    return f"{type(step).__name__}({shown})"


def show(facts: dict[str, Any], whole: bool) -> None:
    """The facts as text; one kernel alone leaves the model's out."""
    for kernel in facts["kernels"]:
        places = ", ".join([p for p in kernel["from"] if p])
        click.echo(f"@{kernel['name']}{f'  from {places}' if places else ''}")
        for step in kernel["steps"]:
            click.echo(f"    {step}")
        for refusal in kernel["refused"]:
            click.echo(f"    refused {refusal}")
    if whole:
        for title in ("fusion", "schedule", "copies", "host"):
            click.echo(f"\n{title}: {'none' if not facts[title] else ''}")
            for line in facts[title]:
                click.echo(f"    {line}")
