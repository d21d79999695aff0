"""`irc optimize`: a model to a smaller one that means the same, for any runtime."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import driver
from .completion import MODELS
from .options import json_flag, model_argument, note, shape_option, verbosity
from .tables import show_json

if TYPE_CHECKING:
    from ..ir.ops.core import Module

ROWS_SHOWN = 24


@click.command()
@model_argument(*MODELS)
@click.option("-o", "--output", required=True, help="The file to write: .onnx, .irc or .ir.")
@click.option("--opset", type=int, default=None, help="Of the .onnx file; without it 17 or newer.")
@click.option("--f16", is_flag=True, help="Weights and arithmetic in float16; inputs stay.")
@shape_option
@json_flag
@verbosity
def command(
    model: str, output: str, opset: int | None, f16: bool, shapes: dict[str, Any], as_json: bool
) -> None:
    """Write MODEL (ONNX, .ir, .irc) smaller: constants folded, batch norms in the weights, equal
    and unused nodes removed.

    The results are the same but for rounding; input and output names stay.
    """
    from ..passes.optimize import optimized
    from ..passes.specialise import specialise

    suffix = Path(output).suffix
    if suffix not in (".onnx", *driver.TEXT_SUFFIXES):
        raise click.UsageError(f"-o {output}: the name must end in .onnx, .irc or .ir")
    if opset is not None and suffix != ".onnx":
        raise click.UsageError("--opset is for an .onnx file")
    start = time.perf_counter()
    loaded = driver.load(model, shapes or None)
    if shapes and Path(model).suffix in driver.TEXT_SUFFIXES:
        loaded = specialise(loaded, shapes)
    before = counted(model, loaded)
    made = optimized(loaded, f16=f16)
    if suffix == ".onnx":
        from ..frontends.onnx import export_onnx

        export_onnx(made, output, opset)
    else:
        made.save(output)
    seconds = round(time.perf_counter() - start, 3)
    facts = {"output": output, "seconds": seconds, "before": before, "after": counted(output, made)}
    if as_json:
        show_json(facts)
    else:
        show(facts)
        note(f"written to {output} in {seconds} s")


def counted(path: str, module: Module) -> dict[str, Any]:
    """Bytes and nodes of a file: ONNX nodes, or for IR the module's ops; the opset of ONNX."""
    if driver.first_bytes(Path(path))[:2] == b"PK" or Path(path).suffix in driver.TEXT_SUFFIXES:
        skipped = ("func", "const", "module")
        ops = Counter(o.name for o in module.walk() if not o.terminator and o.name not in skipped)
        weights = Path(path).with_suffix(".safetensors") if Path(path).suffix == ".ir" else None
        total = sum([f.stat().st_size for f in (Path(path), weights) if f and f.exists()])
        return {"nodes": sum(ops.values()), "bytes": total, "ops": dict(ops.most_common())}
    from ..frontends.onnx import census

    found = census(path)
    return {
        "nodes": sum(found.ops.values()),
        "bytes": found.bytes,
        "opset": found.opset,
        "ops": found.ops,
    }


def show(facts: dict[str, Any]) -> None:
    """Nodes and bytes before and after, and the nodes by type, those that changed first."""
    from rich.console import Console
    from rich.table import Table

    before, after = facts["before"], facts["after"]
    alike = ("opset" in before) == ("opset" in after)  # ONNX nodes and our ops are no pairs
    table = Table("", "before", "after", "change", box=None)
    for key in ("nodes", "bytes"):
        table.add_row(key, f"{before[key]:,}", f"{after[key]:,}", _change(before[key], after[key]))
    if "opset" in before and "opset" in after:
        table.add_row("opset", str(before["opset"]), str(after["opset"]), "")
    names = sorted(
        {*before["ops"], *after["ops"]} if alike else after["ops"],
        key=lambda n: (-abs(after["ops"].get(n, 0) - before["ops"].get(n, 0)), n),
    )
    table.add_section()
    for name in names[:ROWS_SHOWN]:
        old, new = before["ops"].get(name, 0), after["ops"].get(name, 0)
        change = f"{new - old:+}" if new != old and alike else ""
        table.add_row(name, str(old) if alike else "", str(new), change)
    if len(names) > ROWS_SHOWN:
        table.add_row(f"{len(names) - ROWS_SHOWN} more", "", "", "")
    for column in table.columns[1:]:
        column.justify = "right"
    Console(highlight=False).print(table)


def _change(old: int, new: int) -> str:
    return f"{(new - old) / old:+.1%}" if old else ""
