"""Whole networks: right through LLVM and through C, fast beside onnxruntime, small, repeatable.

The seeded ones are made by tools/bench/models.py; the real ones lie in `$IRC_MODELS`, else in
shared/models inside or beside the checkout, and count where they are.
"""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...backends import compiler
from ...backends.c.build import run_sanitized
from ...backends.executable import Executable
from ...backends.targets import Choice, choose
from ...ir.interpret import run as interpret
from ...ir.ops.core import Module
from ...passes.plan import Planned
from .. import driver, verification
from ..bench.models import MODELS
from ..bench.native import NativeCall
from ..bench.peers import onnxruntime
from ..bench.zoo import models_folder
from ..feeds import random_inputs
from ..timing import alternate
from . import Measured, Skipped

NOISE = 0.02
SMALL_CNN_ARENA = 38_848
ARENA_RATIO = 1.05
OVERHEAD_US = 5.0
OVERHEAD_ROUNDS = 1000
SECONDS = 3.0

Array = np.ndarray[Any, Any]

REAL: dict[str, dict[str, tuple[int, ...]] | None] = {
    "mnist": None,
    "dense_big": None,
    "silero_vad_16k": {"input": (1, 576), "state": (2, 1, 128), "sr": ()},
}
"""Real models, and the shapes to specialise them to."""


@dataclass(frozen=True)
class Network:
    """A model: its ONNX bytes, shapes, inputs, and known outputs where it comes with some."""

    name: str
    onnx: bytes
    shapes: dict[str, tuple[int, ...]] | None
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    def module(self) -> Module:
        """The model imported."""
        return driver.load(self.onnx, self.shapes)

    def planned(self, choice: Choice) -> Planned:
        """The model planned for a target."""
        planned = compiler.lower(self.module(), choice).planned
        assert planned is not None
        return planned


@functools.cache
def networks() -> dict[str, Network]:
    """Every network by name, the seeded ones first."""
    found = {name: _seeded(name) for name in MODELS}
    folder = models_folder()
    for name, shapes in REAL.items():
        if folder is not None and (folder / f"{name}.onnx").exists():
            found[name] = _real(folder, name, shapes)
    return found


def _seeded(name: str) -> Network:
    onnx = MODELS[name]().SerializeToString()
    fields = compiler.reference(driver.load(onnx)).inputs
    return Network(name, onnx, None, random_inputs(fields, 3), {})


def _real(folder: Path, name: str, shapes: dict[str, tuple[int, ...]] | None) -> Network:
    with np.load(folder / f"{name}.npz") as file:
        inputs = {key[5:]: file[key] for key in file.files if key.startswith("0/in/")}
        outputs = {key[6:]: file[key] for key in file.files if key.startswith("0/out/")}
    return Network(name, (folder / f"{name}.onnx").read_bytes(), shapes, inputs, outputs)


def network(name: str) -> Network:
    """The network of that name; skips where it is a real one that is not here."""
    found = networks().get(name)
    if found is None:
        raise Skipped(f"no {name}.onnx: set IRC_MODELS to the folder of the real models")
    return found


def absent() -> str:
    """What to say of real models that are not here."""
    missing = [name for name in REAL if name not in networks()]
    return f"; not here: {', '.join(missing)}" if missing else ""


# Right --------------------------------------------------------------------------------------------


def agreement(target: str) -> Measured:
    """Outputs and regions of every network against the reference, and 2 % noise found in each."""
    choice = choose(target, 1)
    details: dict[str, object] = {}
    wrong: list[str] = []
    worst = least = None
    for name, net in networks().items():
        module = net.module()
        report = verification.compare(module, choice, net.inputs)
        noisy = verification.compare(module, choice, net.inputs, noise=NOISE)
        known = [_close(net, module)]
        details[name] = {
            "worst": report.worst,
            "rows": len(report.outputs) + len(report.regions),
            "with noise": noisy.worst,
            "host steps": report.host_steps,
            "agrees with the outputs it came with": known[0],
        }
        worst = max(worst or 0.0, report.worst)
        least = min(least if least is not None else noisy.worst, noisy.worst)
        if not report.passed or noisy.passed or report.host_steps or not known[0]:
            wrong.append(name)
    figure = f"{len(details)} networks, worst {worst:.1e}, with noise at least {least:.1e}"
    if wrong:
        figure += f"; wrong: {', '.join(wrong)}"
    return Measured(figure + absent(), not wrong, details)


def _close(net: Network, module: Module) -> bool:
    """Whether the reference agrees with the outputs that the model came with."""
    if not net.outputs:
        return True
    names = compiler.reference(module).outputs
    found = dict(zip([name for name, _ in names], interpret(module.main, net.inputs), strict=True))
    return all([np.allclose(found[n], y, rtol=1e-3, atol=1e-4) for n, y in net.outputs.items()])


def through_llvm() -> Measured:
    """By the cpu target."""
    return agreement("cpu")


def through_c() -> Measured:
    """By C99, built with -Wall -Wextra -Werror -pedantic."""
    return agreement("c")


def sanitized() -> Measured:
    """Each network's C program under the address and undefined-behaviour sanitizers."""
    choice = choose("c", 1)
    details: dict[str, object] = {}
    wrong = []
    for name, net in networks().items():
        planned = net.planned(choice)
        found = run_sanitized(planned, net.inputs)
        expected = interpret(net.module().main, net.inputs)
        rows = [
            verification.row(str(k), y, ref, None)
            for k, (y, ref) in enumerate(zip(found, expected, strict=True))
        ]
        details[name] = max([r.error for r in rows])
        if not all([r.passed for r in rows]):
            wrong.append(name)
    figure = f"{len(details)} networks clean" + (f"; wrong: {', '.join(wrong)}" if wrong else "")
    return Measured(figure + absent(), not wrong, details)


# Fast ---------------------------------------------------------------------------------------------


def latency(name: str, bar: float) -> Measured:
    """One thread, in turns with onnxruntime on the same inputs; the ratio of medians counts."""
    net = network(name)
    exe = driver.compile(net.onnx, threads=1, shapes=net.shapes)
    calls = {"irc": lambda: exe.run(net.inputs)}
    calls["onnxruntime"] = onnxruntime(net.onnx, net.inputs, 1)
    times = alternate(calls, SECONDS)
    ours, theirs = times["irc"], times["onnxruntime"]
    ratio, least = ours.median / theirs.median, ours.min / theirs.min
    figure = f"{ratio:.2f}x: {ours.median * 1e3:.1f} us against {theirs.median * 1e3:.1f}"
    figure += f"; of the least {least:.2f}x"
    return Measured(figure, ratio <= bar, {"irc": vars(ours), "onnxruntime": vars(theirs)})


def overhead() -> Measured:
    """What a run of the MLP through Python takes beyond the plan called in a native loop."""
    net = network("mlp")
    exe = driver.compile(net.onnx, threads=1)
    assert isinstance(exe, Executable)
    native, run, inputs = NativeCall(exe, net.inputs), exe.run, net.inputs
    inside: list[float] = []
    outside: list[float] = []
    for _ in range(OVERHEAD_ROUNDS):
        inside.append(native.seconds(20) / 20)
        start = time.perf_counter()
        for _ in range(20):
            run(inputs)
        outside.append((time.perf_counter() - start) / 20)
    within, through = min(inside) * 1e6, min(outside) * 1e6
    figure = f"{through - within:.2f} us beyond {within:.1f}"
    details = {"native_us": statistics.median(inside) * 1e6, "us": statistics.median(outside) * 1e6}
    return Measured(figure, through - within <= OVERHEAD_US, details)


# Small --------------------------------------------------------------------------------------------


def arenas() -> Measured:
    """The arena of every network beside its lower bound, on one thread."""
    details: dict[str, object] = {}
    worst = ("", 0.0)
    for name, net in networks().items():
        planned = net.planned(choose("cpu", 1))
        arena, least = planned.arena_bytes, planned.lower_bound
        assert isinstance(arena, int)
        ratio = arena / least if least else 1.0
        details[name] = {"arena": arena, "lower bound": least, "ratio": ratio}
        worst = max(worst, (name, ratio), key=lambda item: item[1])
    figure = f"{worst[1]:.3f}x at most ({worst[0]}), {len(details)} networks"
    return Measured(figure + absent(), worst[1] <= ARENA_RATIO, details)


def small_cnn_arena() -> Measured:
    """Bytes of the small CNN's arena, on the CPU and as C."""
    sizes = {t: network("small_cnn").planned(choose(t, 1)).arena_bytes for t in ("cpu", "c")}
    figure = ", ".join([f"{target} {size} bytes" for target, size in sizes.items()])
    return Measured(figure, all([int(s) <= SMALL_CNN_ARENA for s in sizes.values()]), sizes)


# Repeatable ---------------------------------------------------------------------------------------


def repeatable() -> Measured:
    """The same bits over ten runs here, and in two more processes, at a fixed thread count."""
    threads = min(2, choose("cpu").target.threads)
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for name, net in networks().items():
            exe = driver.compile(net.onnx, threads=threads, shapes=net.shapes)
            bits = {_bits(exe.run({n: x.copy() for n, x in net.inputs.items()})) for _ in range(10)}
            bits |= {_elsewhere(Path(folder), net, threads) for _ in range(2)}
            if len(bits) != 1:
                wrong.append(name)
    figure = f"{len(networks())} networks, {threads} threads"
    figure += f"; different: {', '.join(wrong)}" if wrong else ""
    return Measured(figure + absent(), not wrong, {"different": wrong})


def _bits(results: list[Array]) -> bytes:
    return b"".join([np.ascontiguousarray(y).tobytes() for y in results])


def _elsewhere(folder: Path, net: Network, threads: int) -> bytes:
    """The bits of a run in a process of its own."""
    model, inputs, output = [folder / f"{net.name}.{s}" for s in ("onnx", "npz", "out.npz")]
    model.write_bytes(net.onnx)
    np.savez(inputs, **dict(net.inputs))  # type: ignore[arg-type]
    shapes = [
        f"--shape={name}:{'x'.join(map(str, shape))}" for name, shape in (net.shapes or {}).items()
    ]
    command = [sys.executable, "-P", "-m", "irc.tools.main", "-q", "run", str(model), *shapes]
    command += ["--input", str(inputs), "-o", str(output), "--threads", str(threads)]
    subprocess.run(command, check=True, capture_output=True)
    with np.load(output) as file:
        return _bits([file[name] for name in file.files])
