"""`make demo`: a small seeded network from ONNX to machine code and to C, checked and measured.

Everything shown is measured in this run.  Exits with 5 where a result differs from the reference.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..backends import compiler
from ..backends.executable import Executable
from ..backends.targets import Choice, choose
from ..ir.errors import EXIT_OK, EXIT_VERIFICATION
from ..ir.ops.core import Fused, Module
from ..passes.pipeline import Compiled, Options
from . import artifacts, driver, verification
from .bench.models import MODELS
from .errors import guarded
from .feeds import random_inputs
from .timing import Times, alternate

OUTPUT = Path(".demo")
NETWORK = "demo_cnn"
TITLES = {"cpu": "this CPU, through LLVM", "c": "C99, by the system's compiler"}


@dataclass(frozen=True)
class Result:
    """One way to run the network: what was compiled, how right it is, what was written."""

    choice: Choice
    compiled: Compiled
    exe: Executable
    report: verification.Report
    compile_ms: float
    files: list[Path]


def main() -> int:
    """Make the network, compile it twice, compare, and print what came out."""
    console = Console() if sys.stdout.isatty() else Console(width=110)
    OUTPUT.mkdir(exist_ok=True)
    model = OUTPUT / f"{NETWORK}.onnx"
    model.write_bytes(MODELS[NETWORK]().SerializeToString())
    module = driver.load(model)
    inputs = random_inputs(compiler.reference(module).inputs, 0)
    console.print(f"{model}: {counted(module)}; compiled for one thread\n")
    results = [compiled(module, target, inputs) for target in TITLES]
    calls: dict[str, Any] = {r.choice.name: _call(r.exe, inputs) for r in results}
    reference = compiler.reference(module)
    calls["reference"] = lambda: reference.run(inputs)
    calls |= peers(model, inputs)
    times = alternate(calls, 4.0)
    console.print(summary(results, times))
    console.print(fusion(results[0]))
    console.print(memory(results[0]))
    console.print(commands(model))
    console.print(f"{page(model)} shows all of it: open it in a browser")
    passed = all([r.report.passed for r in results])
    console.print("every output and region agrees" if passed else "[red]results differ[/red]")
    return EXIT_OK if passed else EXIT_VERIFICATION


def counted(module: Module) -> str:
    """How many ops and parameters."""
    from .cmd_inspect import of_module

    facts = of_module(module)
    return f"{facts['op_count']} ops, {facts['parameter_bytes']} bytes of parameters"


def compiled(module: Module, target: str, inputs: dict[str, Any]) -> Result:
    """Compile, compare with the reference, write the files."""
    choice = choose(target, 1)
    start = time.perf_counter()
    lowered = compiler.lower(module, choice)
    exe = compiler.build(lowered, choice)
    compile_ms = (time.perf_counter() - start) * 1e3
    report = verification.compare(module, choice, inputs)
    name, kind = artifacts.kind_of(None, choice)
    files = artifacts.write(name, lowered, choice, OUTPUT / f"{NETWORK}{kind.suffix}")
    return Result(choice, lowered, exe, report, compile_ms, files)


def _call(exe: Executable, inputs: dict[str, Any]) -> Any:
    return lambda: exe.run(inputs)


def peers(model: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """onnxruntime on the same file, where it is installed."""
    from ..ir.errors import Error
    from .bench.peers import onnxruntime

    try:
        return {"onnxruntime": onnxruntime(str(model), inputs, 1)}
    except Error:
        return {}


def summary(results: list[Result], times: dict[str, Times]) -> Table:
    """Latency, agreement, memory and size of each way."""
    table = Table(
        "", "median us", "least us", "max error", "compile ms", "arena", "files", title="run"
    )
    for r in results:
        planned, t = r.compiled.planned, times[r.choice.name]
        assert planned is not None
        worst = Text(f"{r.report.worst:.1e}", "green" if r.report.passed else "red")
        files = ", ".join([f"{p.name} {p.stat().st_size}" for p in r.files])
        row = [TITLES[r.choice.name], f"{t.median * 1e3:.1f}", f"{t.min * 1e3:.1f}", worst]
        table.add_row(*row, f"{r.compile_ms:.0f}", f"{planned.arena_bytes} bytes", files)
    for name in times.keys() - TITLES.keys():
        t = times[name]
        table.add_row(name, f"{t.median * 1e3:.1f}", f"{t.min * 1e3:.1f}", "", "", "", "")
    return table


def fusion(result: Result) -> Table:
    """The fused regions, one kernel each, and what was refused."""
    lowered = compiler.lower(
        driver.load(OUTPUT / f"{NETWORK}.onnx"), result.choice, Options(to_phase="fused")
    )
    regions = [op for op in lowered.module.main.walk() if isinstance(op, Fused)]
    table = Table("kernel", "result", title=f"fusion: {len(regions)} regions")
    for op in regions:
        table.add_row(op.label, ", ".join([str(v.type) for v in op.results]))
    for r in result.compiled.refusals:
        table.add_row(Text(f"not {r.producer} with {r.consumer}", "dim"), Text(r.why, "dim"))
    return table


def memory(result: Result) -> Table:
    """The memory plan."""
    from .cmd_inspect import buffers

    planned = result.compiled.planned
    assert planned is not None
    title = f"memory: {planned.arena_bytes} bytes (at least {planned.lower_bound})"
    table = Table("buffer", "offset", "bytes", "needed from to", title=title, min_width=48)
    for row in buffers(planned.layout):
        span = f"{row['first']} to {row['last']}"
        table.add_row(row["name"], str(row["offset"]), str(row["bytes"]), span)
    return table


def page(model: Path) -> Path:
    """The report, with the times of each kernel on one thread."""
    from .report.collect import Settings, collect
    from .report.page import write

    output = OUTPUT / "report.html"
    write(collect(Settings(str(model), choose("cpu", 1))), output)
    return output


def commands(model: Path) -> str:
    """What to try next."""
    lines = [
        f"irc bench {model} --threads 1 --against onnxruntime",
        f"irc explain {model}",
        f"irc report {model}",
        f"irc verify {model} --target c",
        f"irc compile {model} --emit asm",
    ]
    return "\n".join(["next:", *[f"  {line}" for line in lines]])


if __name__ == "__main__":
    os.environ.setdefault("IRC_NUM_THREADS", "1")
    sys.exit(guarded(main, ["demo"]))
