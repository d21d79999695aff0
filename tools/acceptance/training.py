"""Acceptance of training: gradients, optimizers, whole trainings, step time, distribution, export.

Whole trainings have a file of their own; how to add a line: see the docstring of this package.
"""

from __future__ import annotations

import functools
import os

from ..bench.race import geometric_mean
from ..bench.training import ENGINES, Race, race, row
from ..bench.training_nets import NETS
from . import Line, Measured, training_runs
from .spine import tests

FASTER, SLOWEST = 1.2, 0.9
THREADS = (1, 2)


@functools.cache
def races() -> tuple[Race, ...]:
    """Every network at one thread and two; IRC_ACCEPT_ROUNDS turns (default 6)."""
    rounds = int(os.environ.get("IRC_ACCEPT_ROUNDS", "6"))
    return tuple([race(name, count, rounds, 1.0, ENGINES) for count in THREADS for name in NETS])


def step_time() -> Measured:
    """Speed of a step over that of the quicker of torch eager and torch.compile."""
    speeds = {f"{r.name} {r.threads}": r.speedup() for r in races()}
    least = {f"{r.name} {r.threads}": r.speedup("min") for r in races()}
    mean, slowest = geometric_mean([s or 1e-9 for s in speeds.values()]), min(speeds.values())
    each = ", ".join([f"{name} {s:.2f}" for name, s in speeds.items()])
    fused = geometric_mean([r.speedup("median", ["torch.fused"]) or 1e-9 for r in races()])
    figure = f"{mean:.2f}x, of the least {geometric_mean([*least.values()]):.2f}x ({each})"
    figure += f"; beside fused optimizers {fused:.2f}x"
    passed = mean >= FASTER and slowest >= SLOWEST
    return Measured(figure, passed, {"rows": [row(r) for r in races()]})


def step_memory() -> Measured:
    """Peak of resident memory over torch eager's."""
    found = {f"{r.name} {r.threads}": r.memory_ratio() for r in races()}
    each = ", ".join([f"{name} {x:.2f}" for name, x in found.items()])
    return Measured(f"at most {max(found.values()):.2f}x ({each})", max(found.values()) <= 1.0)


LINES = (
    Line(
        "gradients",
        "every differentiable op: slopes in f64, second order, against torch, edges, reasons",
        tests(
            "tests/ir/ops/test_gradients.py",
            "tests/ir/ops/test_gradients_edges.py",
            "tests/ir/ops/test_gradients_nn.py",
            "tests/ir/ops/test_gradients_torch.py",
            "tests/ir/ops/test_gradients_nn_torch.py",
            "tests/passes/autodiff",
            every=True,
        ),
    ),
    Line(
        "optimizers",
        "20 steps of each optimizer and schedule as torch's (or the paper's)",
        tests("tests/frontends/train/test_optim.py", "tests/frontends/train/test_schedules.py"),
    ),
    Line(
        "curves",
        "MLP, CNN, LSTM, attention: torch's loss curve, 100 steps f64 1e-8, 10 steps f32 1e-4",
        tests("tests/frontends/train/test_curves.py", every=True),
    ),
    Line(
        "layers",
        "layers and losses against torch, forward and gradients; eager, traced",
        tests("tests/frontends/nn", every=True),
    ),
    Line(
        "digits",
        "98.5 %, mean of three seeds, each no slower than torch eager",
        training_runs.digits,
    ),
    Line("char-gpt", "1.86 bits per character, mean of three seeds", training_runs.char_gpt),
    Line(
        "resume",
        "repeatable to the bit; killed and resumed equals uninterrupted; checkpoints",
        tests(
            "tests/frontends/train/test_trainer.py",
            "tests/frontends/train/test_checkpoint.py",
            every=True,
        ),
    ),
    Line(
        "step",
        "the step's options: accumulation 1e-10 / 1e-5, loss scale, frozen, same dropout bits",
        tests("tests/frontends/train/test_step.py", every=True),
    ),
    Line(
        "step-time",
        "geometric mean 1.2x faster than the better of torch eager and compile, none below 0.9",
        step_time,
    ),
    Line("step-memory", "peak at most torch eager's", step_memory),
    Line(
        "remat",
        "GPT at half its activation memory: same loss to the bit, 1.35x the time",
        training_runs.remat,
    ),
    Line("bf16", "the digits network within 0.3 points of f32", training_runs.bf16),
    Line(
        "distributed",
        "two and four ranks equal one process; ZeRO-1; a killed rank; resumption",
        tests("tests/frontends/train/test_distributed.py", every=True),
    ),
    Line(
        "c-step",
        "the exported C step trains as Python does, sanitizers clean",
        tests("tests/frontends/train/test_export.py", "tests/deploy", every=True),
    ),
    Line("loader", "the fed step at 90 % of its own rate", training_runs.loader),
    Line(
        "flat-memory",
        "no growth over 50 epochs and over 200 eager steps",
        training_runs.flat_memory,
    ),
    Line(
        "errors",
        "wrong shapes, labels, configs, data: named",
        tests("tests/tools/test_train_command.py", "tests/frontends/train/data", every=True),
    ),
    Line(
        "docs",
        "the tutorial's programs and the examples run",
        tests("tests/docs", every=True),
    ),
)
