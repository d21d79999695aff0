"""`irc optimize`: what it writes is valid, gives equal results and runs no slower in onnxruntime.

The light models of the onnx wheel as they are and, but for the largest, with seeded weights; and
the real models that are here.  Latency is the least processor time of a run on one thread, the two
models in turns, so that what else the machine does counts little.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...frontends.onnx import census, export_onnx, load
from ...passes.optimize import optimized
from ..bench.light import NAMES, inputs, light, path
from ..bench.peers import onnxruntime
from . import Line, Measured
from .networks import models_folder

TOLERANCE = {"float32": 1e-5, "float16": 1e-2}
NOISE = 1.05
"""The ratio that two sessions of one model have been seen to have."""
ROUNDS, TURNS = 8, 4
LARGEST = ("alexnet", "vgg19", "zfnet512")
"""Light models of more than 200 MB of weights: measured as they are only."""

Array = np.ndarray[Any, Any]
Call = Callable[[], Any]


@dataclass(frozen=True)
class Subject:
    """A model file to optimize, or what makes one; the inputs to run it on."""

    name: str
    model: Callable[[], str | bytes]
    inputs: Mapping[str, Array]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: x.shape for name, x in self.inputs.items()}


def subjects() -> Iterator[Subject]:
    """Every model: the real ones, the light ones as they are, those with weights."""
    folder = models_folder()
    for file in sorted(folder.glob("*.onnx")) if folder is not None else ():
        with np.load(file.with_suffix(".npz")) as kept:
            given = {key[5:]: kept[key] for key in kept.files if key.startswith("0/in/")}
        yield Subject(file.stem, partial(str, file), given)
    for name in NAMES:
        yield Subject(f"light {name}", partial(_file, name), inputs(name))
        if name not in LARGEST:
            yield Subject(f"{name} with weights", partial(_with_weights, name), inputs(name))


def _file(name: str) -> str:
    return str(path(name))


def _with_weights(name: str) -> bytes:
    made: bytes = light(name).SerializeToString()
    return made


def measured(subject: Subject, folder: Path) -> dict[str, Any]:
    """One model: error, ratio of latency, bytes and nodes before and after."""
    source = subject.model()
    if isinstance(source, bytes):
        before = folder / "before.onnx"
        before.write_bytes(source)
        source = str(before)
    after, again = str(folder / "after.onnx"), str(folder / "again.onnx")
    export_onnx(optimized(load(source, shapes=subject.shapes)), after)
    export_onnx(load(after), again)
    calls = [onnxruntime(m, subject.inputs, 1) for m in (source, after, again)]
    want, *found = [call() for call in calls]
    errors = [max([_error(x, y) for x, y in zip(want, got, strict=True)]) for got in found]
    ratio, least = _ratio(calls[0], calls[1])
    counts = [census(m) for m in (source, after)]
    return {
        "error": errors[0], "error of import and export": errors[1], "ratio": ratio, "ms": least,
        "bytes": [c.bytes for c in counts], "nodes": [sum(c.ops.values()) for c in counts],
        "tolerance": max([TOLERANCE.get(str(x.dtype), 1e-5) for x in want]),
    }  # fmt: skip


def _error(want: Array, got: Array) -> float:
    """The greatest difference over the greatest magnitude; infinite where shape or type differ."""
    if want.shape != got.shape or want.dtype != got.dtype:
        return math.inf
    wide = np.float64 if want.dtype.kind in "fiub" else want.dtype
    x, y = want.astype(wide), got.astype(wide)
    if not want.size or np.array_equal(x, y, equal_nan=want.dtype.kind == "f"):
        return 0.0
    found = np.max(np.abs(x - y)) / max(float(np.max(np.abs(x))), 1e-30)
    return float(found) if np.isfinite(found) else math.inf


def _ratio(before: Call, after: Call) -> tuple[float, float]:
    """Least processor time of `after` over that of `before`, and the latter in ms."""
    count = max(1, int(5e-3 / max(_seconds(before, 1), 1e-7)))
    best, least = math.inf, 0.0
    for _ in range(TURNS):
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for call, kept in zip((before, after), times):
                call()
                kept.append(_seconds(call, count))
        found = min(times[1]) / min(times[0])
        if found < best:
            best, least = found, min(times[0]) / count * 1e3
        if best <= 1.0:
            break
    return best, least


def _seconds(call: Call, count: int) -> float:
    start = time.thread_time()
    for _ in range(count):
        call()
    return time.thread_time() - start


def optimize_line() -> Measured:
    """Every model; the worst error and the greatest ratio of latency."""
    details: dict[str, Any] = {}
    wrong, slow = [], []
    for subject in subjects():
        with tempfile.TemporaryDirectory() as folder:
            found = details[subject.name] = measured(subject, Path(folder))
        errors = (found["error"], found["error of import and export"])
        if not all([e <= found["tolerance"] for e in errors]):
            wrong.append(subject.name)
        if found["ratio"] > NOISE:
            slow.append(subject.name)
    ratios = {name: row["ratio"] for name, row in details.items()}
    slowest = max(ratios, key=lambda name: ratios[name])
    mean = math.exp(sum([math.log(r) for r in ratios.values()]) / len(ratios))
    figure = f"{len(details)} models, latency {mean:.2f}x, at most {ratios[slowest]:.2f}x"
    figure += f" ({slowest})"
    figure += f", error {max([row['error'] for row in details.values()]):.1e}"
    figure += "".join([f"; {what}: {', '.join(n)}" for what, n in
                       (("wrong", wrong), ("slower", slow)) if n])  # fmt: skip
    return Measured(figure, not wrong and not slow, details)


OPTIMIZE = Line(
    "optimize", "valid, results equal within 1e-5 (f16: 1e-2), no slower in onnxruntime",
    optimize_line,
)  # fmt: skip
