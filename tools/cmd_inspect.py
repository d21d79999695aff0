"""`irc inspect`: what a model or a plan is: signature, ops, weights, kernels, memory."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from ..backends import compiler
from ..ir.errors import Error, UnsupportedError
from . import driver
from .completion import PLANS
from .options import json_flag, model_argument, target_options, verbosity
from .tables import show_json, show_table

if TYPE_CHECKING:
    from ..ir.ops.core import Module
    from ..passes.memory import Layout


@click.command()
@model_argument(*PLANS)
@target_options
@click.option("--memory", is_flag=True, help="The table of buffers in the arena.")
@json_flag
@verbosity
def command(
    model: str,
    target: str,
    threads: int | None,
    precision: str,
    shapes: dict[str, Any],
    memory: bool,
    as_json: bool,
) -> None:
    """Describe MODEL (ONNX, .ir, .irc), as it is and as planned, or a plan (.ircx)."""
    if model.endswith(driver.PLAN_SUFFIX):
        exe = driver.open_plan(model)
        facts = of_program(exe.program, exe)
        layout = exe.program.layout
    else:
        from ..backends.executable import Program
        from ..backends.targets import choose

        choice = choose(target, threads)
        compiler.check_precision(precision, choice)
        module = driver.load(model, shapes or None)
        try:
            planned = compiler.lower(module, choice, shapes=shapes).planned
            assert planned is not None
            facts = of_module(module) | of_program(Program.of(planned), None)
            layout = planned.layout
        except UnsupportedError as refusal:
            if refusal.code != "E0431":
                raise
            facts = of_module(module) | without_plan(module, refusal)
            layout = None
    rows = buffers(layout) if layout is not None and (memory or as_json) else []
    if as_json:
        show_json(facts | {"buffers": rows})
        return
    show(facts)
    if rows:
        headers = ["offset", "bytes", "first", "last", "buffer"]
        cells = [[row[k] for k in ("offset", "bytes", "first", "last", "name")] for row in rows]
        show_table(headers, cells, right=range(4))


def of_module(module: Module) -> dict[str, Any]:
    """Ops by name and constants of a module."""
    from ..ir.text import blobs_of

    ops = Counter(op.name for op in module.main.walk() if not op.terminator and op.name != "func")
    sizes = [blob.array.nbytes for blob in blobs_of(module).values()]
    constants = ops.pop("const", 0)
    return {
        "ops": dict(sorted(ops.items(), key=lambda item: (-item[1], item[0]))),
        "op_count": sum(ops.values()),
        "constants": constants,
        "parameter_bytes": sum(sizes),
    }


def without_plan(module: Module, why: Error) -> dict[str, Any]:
    """Signature of a program that runs op by op, and why it does."""
    exe = compiler.reference(module)
    return {
        "inputs": {name: str(type_) for name, type_ in exe.inputs},
        "outputs": {name: str(type_) for name, type_ in exe.outputs},
        "plan": f"none: {why.message}",
    }


def of_program(program: Any, exe: Any) -> dict[str, Any]:
    """Signature, kernels and memory of a plan; with its objects where it is compiled."""
    arena = program.layout.arena
    static = isinstance(arena, int)
    found: dict[str, Any] = {
        "inputs": {name: str(type_) for name, type_ in program.inputs},
        "outputs": {name: str(type_) for name, type_ in program.results},
        "state": len(program.state),
        "kernels": list(program.kernels),
        "calls": program.calls,
        "copies": list(program.copies),
        "host_steps": [name for name, _, _ in program.host_steps],
        "weight_bytes": program.weight_bytes,
        "arena_bytes": arena if static else str(arena),
        "lower_bound": program.layout.lower_bound() if static else None,
    }
    if exe is not None:
        codegen = exe.built.codegen
        found |= {
            "code_bytes": sum([len(body) for body in exe.built.objects.values()]),
            "compiled_for": f"{codegen.triple} {codegen.cpu}".strip(),
            "threads": exe.built.threads,
        }
    return found


def buffers(layout: Layout) -> list[dict[str, Any]]:
    """One row per buffer of the arena, by offset."""
    rows = [
        {
            "name": i.name,
            "offset": _plain(at),
            "bytes": _plain(i.size),
            "first": i.first,
            "last": i.last,
        }
        for i, at in zip(layout.items, layout.offsets, strict=True)
    ]
    return sorted(rows, key=lambda row: (str(row["offset"]).rjust(12), row["first"]))


def _plain(value: Any) -> Any:
    return value if isinstance(value, int) else str(value)


def show(facts: dict[str, Any]) -> None:
    """The facts as text."""
    for name, value in facts.items():
        if name in ("inputs", "outputs"):
            for key, type_ in value.items():
                click.echo(f"{name[:-1]:<16}{key} : {type_}")
        elif name == "ops":
            click.echo(f"{name:<16}{', '.join(f'{op} {n}' for op, n in value.items())}")
        elif name == "kernels":
            click.echo(f"{name:<16}{len(value)}: {', '.join(value)}")
        elif isinstance(value, list):
            click.echo(f"{name:<16}{', '.join(value) or 'none'}")
        elif value is not None:
            click.echo(f"{name:<16}{value}")
