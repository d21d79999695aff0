"""Acceptance of the real models: right, fast, small, quickly compiled, and easy to begin with.

Accuracy and speed have files of their own; how to add a line: see the docstring of this package.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..bench.models import small_cnn
from . import Line, Measured, Skipped, models_accuracy, models_speed
from .optimize import OPTIMIZE
from .spine import ROOT, tests

TEST_MINUTES = 10.0
USER_MINUTES = 5.0
FIRST_STEPS = ("run model.onnx", "compile model.onnx -o model.ircx", "run model.ircx")


def clone_to(folder: str) -> Path:
    """A clone of what is committed; skips unless IRC_ACCEPT_CLONE=1, as it takes the network."""
    if os.environ.get("IRC_ACCEPT_CLONE") != "1":
        raise Skipped("takes many minutes and the network: set IRC_ACCEPT_CLONE=1")
    clone = Path(folder) / "a-clone.1"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    return clone


def plain_environment() -> dict[str, str]:
    """The environment without what points into this checkout."""
    return {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}


def test_time() -> Measured:
    """`make test` in a clone: it succeeds, and the tests' own time is below the bar."""
    with tempfile.TemporaryDirectory() as folder:
        clone = clone_to(folder)
        command = ["make", "test"]
        shell = subprocess.run(
            command, cwd=clone, capture_output=True, text=True, env=plain_environment()
        )
    match = re.search(r"in (\d+(?:\.\d+)?)s", shell.stdout[-2000:])
    minutes = float(match[1]) / 60 if match else float("inf")
    figure = f"make test {shell.returncode}, {minutes:.1f} minutes of tests"
    passed = shell.returncode == 0 and minutes < TEST_MINUTES
    return Measured(figure, passed, {"tail": shell.stdout[-2000:]})


def new_user() -> Measured:
    """Clone, install into an environment of one's own, compile and run one's own model: minutes."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        clone = clone_to(folder)
        scripts = Path(folder) / "environment" / "bin"
        steps = [
            [sys.executable, "-m", "venv", str(scripts.parent)],
            [str(scripts / "python"), "-m", "pip", "install", "--quiet", "-e", str(clone)],
            *([str(scripts / "irc"), *words.split()] for words in FIRST_STEPS),
        ]
        Path(folder, "model.onnx").write_bytes(small_cnn().SerializeToString())
        for step in steps:
            shell = subprocess.run(
                step, cwd=folder, capture_output=True, text=True, env=plain_environment()
            )
            if shell.returncode:
                said = f"{' '.join(step[-3:])}: exit code {shell.returncode}"
                return Measured(said, False, {"stderr": shell.stderr[-2000:]})
    minutes = (time.perf_counter() - started) / 60
    return Measured(f"{minutes:.1f} minutes from clone to result", minutes < USER_MINUTES)


LINES = (
    Line(
        "accuracy-light",
        "nine light networks: outputs, last logits, every tenth intermediate within 1e-4; noise",
        lambda: models_accuracy.agrees(models_accuracy.of_group("light")),
    ),
    Line(
        "accuracy-shared",
        "the real models, the same (float16 within 1e-2)",
        lambda: models_accuracy.agrees(models_accuracy.shared),
    ),
    Line(
        "accuracy-exported",
        "seven torch exports, full size, the same",
        lambda: models_accuracy.agrees(models_accuracy.of_group("exported")),
    ),
    Line(
        "accuracy-small",
        "the seven small, by both exporters, two threads, the same",
        lambda: models_accuracy.agrees(models_accuracy.small, threads=2),
    ),
    Line(
        "latency",
        "geometric mean at most 1.3x the quicker peer, none above 2x, threads 1 and 2",
        models_speed.latency,
    ),
    Line("memory", "peak at run at most 1.2x onnxruntime's", models_speed.memory),
    Line("arenas", "at most 1.05x the lower bound on every network", models_speed.arenas),
    Line(
        "compile-time",
        "resnet50 12 s cold, 2 s warm; BERT-base 20 s; memory 3x weights + 300 MB",
        models_speed.compile_time,
    ),
    Line(
        "compile-memory",
        "peak at most 3x the weights + 300 MB on every network",
        models_speed.compile_memory,
    ),
    Line(
        "c99",
        "squeezenet, shufflenet: no warning, right, sanitizers clean",
        models_accuracy.through_c,
    ),
    OPTIMIZE,
    Line(
        "tests",
        "exported and light networks in the tests, by LLVM and C",
        tests("tests/frontends/onnx/test_real_models.py"),
    ),
    Line("docs", "every command and program of README and docs", tests("tests/docs")),
    Line("new-user", "clone to a compiled own model in 5 minutes", new_user),
    Line("test-time", "make test in a clone in 10 minutes of tests", test_time),
)
