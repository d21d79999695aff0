"""`irc bench`: how long a model or plan takes, alone or in turns with another engine."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import click

from ..ir.errors import Error
from . import driver
from .cmd_run import runnable
from .completion import PLANS
from .options import (
    FiniteRange,
    input_options,
    json_flag,
    model_argument,
    note,
    target_options,
    verbosity,
)
from .tables import show_json, show_table

PEERS = ("onnxruntime",)


@click.command()
@model_argument(*PLANS)
@target_options
@input_options
@click.option(
    "--against", type=click.Choice(PEERS), default=None, help="An engine to compare with."
)
@click.option("--seconds", type=FiniteRange(0), default=2.0, show_default=True,
              help="How long to measure.")  # fmt: skip
@click.option("--profile", is_flag=True, help="Time, GFLOP/s and GB/s of each kernel.")
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
    against: str | None,
    seconds: float,
    profile: bool,
    as_json: bool,
) -> None:
    """Time MODEL: median, least and 90th percentile in ms, compile time, peak memory.

    With --against the other engine runs the same ONNX file on the same inputs and as many threads,
    in turns with this one; the ratio is ours over theirs, of medians. With --profile the kernels
    are timed one by one after that, the dearest first.
    """
    from ..backends.targets import thread_count
    from .feeds import feeds
    from .timing import alternate

    if against and not model.endswith(".onnx"):
        raise Error("E0530", f"{against} needs an ONNX file", details=(f"found {model}",))
    if profile and model.endswith(driver.PLAN_SUFFIX):
        raise click.UsageError("--profile needs the model, not its plan")
    started = time.perf_counter()
    exe = runnable(model, target, threads, precision, shapes)
    compile_ms = (time.perf_counter() - started) * 1e3
    inputs = feeds(exe.inputs, input_file, seed, shapes)
    calls = {"irc": lambda: exe.run(inputs)}
    calls["irc"]()
    memory = peak_memory()
    if against:
        from .bench.peers import PEERS as ENGINES

        calls[against] = ENGINES[against](model, inputs, thread_count(threads))
    times = alternate(calls, seconds)
    facts: dict[str, Any] = {
        **asdict(times["irc"]),
        "compile_ms": compile_ms,
        "peak_memory_bytes": memory,
        "arena_bytes": str(exe.arena_bytes),
        "threads": thread_count(threads),
    }
    if against:
        facts |= {against: asdict(times[against])}
        facts["ratio"] = times["irc"].median / times[against].median
        facts["ratio_of_least"] = times["irc"].min / times[against].min
    if profile:
        facts["kernels"] = profiled(model, target, threads, shapes, inputs, seconds)
    show(facts, against, as_json)


def profiled(
    model: str, target: str, threads: int | None, shapes: dict[str, Any],
    inputs: dict[str, Any], seconds: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of --profile."""
    from ..backends.targets import choose
    from .profiling import kernel_profile

    choice = choose(target, threads)
    return kernel_profile(driver.load(model, shapes or None), choice, inputs, seconds)


def show(facts: dict[str, Any], against: str | None, as_json: bool) -> None:
    """The figures, as JSON or as text."""
    if as_json:
        show_json(facts)
        return
    figures = ("median", "min", "p90")
    timed = {"irc": facts} | ({against: facts[against]} if against else {})
    cells = [[n, *[f"{t[k]:.4f}" for k in figures], t["runs"]] for n, t in timed.items()]
    if against:
        ratios = [f"{facts[k]:.3f}" for k in ("ratio", "ratio_of_least")]
        cells.append(["ratio", *ratios, "", ""])
    show_table(["ms", *figures, "runs"], cells, right=range(1, 5))
    if "kernels" in facts:
        click.echo()
        show_kernels(facts["kernels"])
    memory = facts["peak_memory_bytes"]
    note(
        f"compiled in {facts['compile_ms']:.0f} ms, {facts['threads']} threads, "
        f"arena {facts['arena_bytes']} bytes, process {memory >> 20} MiB at its peak"
    )


def show_kernels(rows: list[dict[str, Any]]) -> None:
    """The table of --profile."""
    headers = ["kernel", "calls", "us", "share", "GFLOP/s", "of peak", "GB/s", "ops", "from"]
    cells = [
        [
            row["name"], row["calls"], f"{row['seconds'] * 1e6:.1f}", f"{row['share']:.1%}",
            f"{row['gflops']:.1f}", f"{row['of_peak']:.1%}", f"{row['gbs']:.1f}", row["ops"],
            ", ".join(row["from"][:2]) + (" ..." if len(row["from"]) > 2 else ""),
        ]
        for row in rows
    ]  # fmt: skip
    show_table(headers, cells, right=range(1, 7))


def peak_memory() -> int:
    """Bytes that this process had resident at its peak; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
