"""Acceptance of the spine, one thin slice through every room.

How to add a line: see the docstring of this package.  Kernels and networks have files of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..bench import ir as ir_bench
from . import Line, Measured, Skipped, kernels, networks

ROOT = Path(__file__).resolve().parent.parent.parent
START_UP_ROUNDS = 15
HELP_BUDGET_MS = 80.0
OPT_BUDGET_MS = 300.0
TEST_MINUTES = 6.0
RANDOM = ("tests/fuzz", "tests/passes/schedule")
FAULTS = (
    "tests/ir/test_interpret_loops.py",  # wrong index, poisoned memory
    "tests/ir/test_interpret_async.py",  # missing barrier, missing wait
    "tests/passes/test_memory.py",  # overlapping buffers
    "tests/passes/test_plan.py",
)

SMALL_IR = """\
func @main(%x: f32[N, 4]) -> f32[N, 4] {
  %0 = relu(%x) : f32[N, 4]
  %1 = relu(%x) : f32[N, 4]
  %2 = add(%0, %1) : f32[N, 4]
  return %2
}
"""


def least_ms(rounds: int, commands: Sequence[Sequence[str]]) -> list[float]:
    """Least wall time of each command in ms, run in turn so that all see the same machine.

    Byte code is kept between the runs, as where a package is installed.
    """
    times: list[list[float]] = [[] for _ in commands]
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(rounds):
        for command, kept in zip(commands, times, strict=True):
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=plain)
            kept.append((time.perf_counter() - started) * 1e3)
    return [min(kept) for kept in times]


def irc_command() -> list[str]:
    """The script `irc` beside this Python, else the module that it calls."""
    script = Path(sys.executable).with_name("irc")
    return [str(script)] if script.exists() else [sys.executable, "-P", "-m", "irc.tools.main"]


def start_up(arguments: Sequence[str], budget: float) -> Measured:
    """What a command line costs beyond an empty Python."""
    bare, shown = least_ms(
        START_UP_ROUNDS, [[sys.executable, "-c", "pass"], [*irc_command(), *arguments]]
    )
    return Measured(
        f"{shown - bare:.0f} ms more ({shown:.0f} against {bare:.0f})",
        shown - bare <= budget,
        {"irc_ms": shown, "python_ms": bare, "rounds": START_UP_ROUNDS},
    )


def help_start_up() -> Measured:
    """What `irc --help` costs beyond an empty Python."""
    return start_up(["--help"], HELP_BUDGET_MS)


def opt_start_up() -> Measured:
    """What two passes over a small file cost beyond an empty Python."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "small.ir"
        file.write_text(SMALL_IR, encoding="utf-8")
        return start_up(["opt", str(file), "--passes", "canonicalize,cse"], OPT_BUDGET_MS)


def ir_speed() -> Measured:
    """Microseconds and bytes per op on a chain of 100,000."""
    rows = ir_bench.measure()
    figure = ", ".join([f"{r.what} {r.figure:.3g} {r.unit}" for r in rows])
    return Measured(figure, all([r.passed for r in rows]), {r.what: r.figure for r in rows})


def pytest_outcome(paths: Sequence[str], every: bool = False) -> Measured:
    """Tests in a process of their own, with `every` the long ones too; nothing found, or all
    skipped, is a failure.
    """
    missing = [path for path in paths if not (ROOT / path).exists()]
    if missing:
        return Measured(f"missing: {', '.join(missing)}", False)
    command = [sys.executable, "-P", "-m", "pytest", "-q", "--color=no", "-n", "0", *paths]
    command += ["-m", "long or not long"] if every else []
    shell = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    outcomes = re.findall(r"(\d+) (passed|failed|errors?|skipped)", shell.stdout)
    counts = {word: int(number) for number, word in outcomes}
    found = [line for line in shell.stdout.splitlines() if line.startswith(("E  ", "FAILED"))]
    figure = ", ".join(f"{number} {word}" for word, number in counts.items()) or "did not run"
    passed = shell.returncode == 0 and counts.get("passed", 0) > 0
    return Measured(figure, passed, {**counts, "findings": found})


def tests(*paths: str, every: bool = False) -> Callable[[], Measured]:
    """A line that runs tests, with `every` the long ones too."""
    return lambda: pytest_outcome(paths, every)


def from_scratch() -> Measured:
    """The page's own tests, which also count its lines: all but the blank ones."""
    page = ROOT / "docs" / "from_scratch.md"
    if not page.exists() or not (ROOT / "docs" / "numerics.md").exists():
        return Measured("a page is missing", False)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    run = pytest_outcome(["tests/docs/test_from_scratch.py"])
    lines = sum(bool(line.strip()) for block in blocks for line in block.splitlines())
    figure = f"{run.figure}; {lines} lines, only blank ones not counted"
    return Measured(figure, run.passed, run.details)


def fresh_clone() -> Measured:
    """`make demo` and `make test` in a clone of what is committed; the tests' own time counts."""
    if os.environ.get("IRC_ACCEPT_CLONE") != "1":
        raise Skipped("takes many minutes and the network: set IRC_ACCEPT_CLONE=1")
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "a-clone.1"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        plain = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
        codes, said = {}, ""
        for goal in ("demo", "test"):
            shell = subprocess.run(
                ["make", goal], cwd=clone, capture_output=True, text=True, env=plain
            )
            codes[goal], said = shell.returncode, shell.stdout
    match = re.search(r"in (\d+(?:\.\d+)?)s", said[-2000:])
    minutes = float(match[1]) / 60 if match else float("inf")
    figure = f"demo {codes['demo']}, test {codes['test']}, {minutes:.1f} minutes of tests"
    return Measured(figure, not any(codes.values()) and minutes < TEST_MINUTES, codes)


def latency(name: str, bar: float) -> Line:
    """A line that compares one network with onnxruntime."""
    words = f"one thread, at most {bar:g}x onnxruntime in the same run"
    return Line(f"latency-{name}", words, lambda: networks.latency(name, bar))


LINES = (
    Line("fresh-clone", "make demo and make test, tests under 6 minutes", fresh_clone),
    Line("help", "`irc --help` at most 80 ms over `python -c pass`", help_start_up),
    Line("opt-start", "`irc opt` on a small file at most 300 ms over it", opt_start_up),
    Line("models-llvm", "outputs and regions within 1e-4; 2 % noise found", networks.through_llvm),
    Line("models-c", "the same by C99 with strict warnings", networks.through_c),
    Line("models-sanitized", "C under address and undefined sanitizers", networks.sanitized),
    latency("mlp", 0.9),
    latency("small_cnn", 1.5),
    latency("mnist", 2.0),
    latency("silero_vad_16k", 2.0),
    Line("gemm", "960^3 at 75 % of the FMA peak, at least OpenBLAS", kernels.gemm),
    Line("conv", "three convolutions at 75 % of the FMA peak", kernels.conv),
    Line("bandwidth", "64 MiB streams at 70 % of the copy bandwidth", kernels.bandwidth),
    Line("two-threads", "at least 1.8x one thread on the large ones", kernels.two_threads),
    Line("fork-join", "under 2 us while the pool spins", kernels.fork),
    Line("overhead", "the MLP through Python at most 5 us over native", networks.overhead),
    Line("arena-small-cnn", "at most 38,848 bytes", networks.small_cnn_arena),
    Line("arenas", "at most 1.05x the lower bound on every network", networks.arenas),
    Line("ir-speed", "us/op: 3, 3, 15, 2, 2, 10; 600 bytes/op", ir_speed),
    Line("repeatable", "same bits, 10 runs and 2 more processes", networks.repeatable),
    Line("op-tests", "the tests made from the op classes", tests("tests/ir/ops")),
    Line("probes", "the waist probes", tests("tests/probes")),
    Line("random", "random programs and schedules, before and after", tests(*RANDOM)),
    Line("faults", "planted faults are caught", tests(*FAULTS)),
    Line("masks", "AVX2 by feature mask, NEON under qemu", tests("tests/backends/test_targets.py")),
    Line(
        "bad-input",
        "a sentence, the exit code, no partial file",
        tests("tests/tools/test_bad_input.py"),
    ),
    Line(
        "from-scratch",
        "the core rebuilt in under 500 lines, docstrings included, run",
        from_scratch,
    ),
    Line(
        "no-shortcut",
        "every kernel through loops, each call_instr one instruction",
        tests("tests/test_no_shortcut.py"),
    ),
    Line("structure", "sizes, direction of imports, no stubs", tests("tests/test_structure.py")),
)
