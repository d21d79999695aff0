"""`make demo`: a small network is trained, exported, imported, compiled, put into C, and measured.

Everything shown is measured in this run.  Exits with 5 where a result differs from the reference.
The network goes its way by the public names alone (nn, data, optim, train, export_onnx, load,
compile); the tables behind look into what was compiled.
"""

from __future__ import annotations

import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ..backends import compiler
from ..backends.targets import Choice, choose
from ..frontends import nn, train
from ..frontends.train import data, optim
from ..ir.errors import EXIT_OK, EXIT_VERIFICATION, Error
from ..ir.ops.core import Fused, Module
from ..passes.pipeline import Compiled, Options
from . import driver, verification
from .cmd_inspect import buffers, of_module
from .errors import guarded
from .timing import Times, alternate

Array = np.ndarray[Any, Any]
Call = Callable[[Array], Any]

OUTPUT = Path(".demo")
EPOCHS, BATCH = 30, 64
MODEL = "model.onnx"


class Net(nn.Module):
    """Three convolutions with batch norms, one around which the image goes too, ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.c2, self.b2 = nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.c3, self.b3 = nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        """Logits (n, 10) of images (n, 1, 8, 8)."""
        x = nn.relu(self.b1(self.c1(x)))
        x = nn.max_pool2d(nn.relu(self.b2(self.c2(x))), 2)
        x = x + nn.relu(self.b3(self.c3(x)))
        return self.head(x.mean((2, 3)))


@dataclass(frozen=True)
class Images:
    """Training and held-out images (n, 1, 8, 8) with their labels, and what they are."""

    name: str
    x: Array
    y: Array
    held_x: Array
    held_y: Array


@dataclass(frozen=True)
class Stage:
    """One form of the network: how to call it, what it is on disk, what it needs to run."""

    title: str
    call: Call
    size: str
    memory: int | None
    seconds: float | None = None
    worst: float | None = None
    passed: bool = True


def main() -> int:
    """Take the network through all its stages and print what came out."""
    console = Console() if sys.stdout.isatty() else Console(width=110)
    OUTPUT.mkdir(exist_ok=True)
    images = digits()
    net, said = trained(images, EPOCHS)
    console.print(said)
    stages, module = taken(net, images)
    console.print(f"{OUTPUT / MODEL}: {counted(module)}; compiled for one thread\n")
    console.print(summary(stages, images, measured(stages, images, 4.0)))
    choice = choose("cpu", 1)
    lowered = compiler.lower(module, choice)
    console.print(fusion(lowered, module, choice))
    console.print(memory(lowered))
    console.print(commands(OUTPUT / MODEL))
    console.print(f"{page(OUTPUT / MODEL)} shows the graph and all of it: open it in a browser")
    passed = all([s.passed for s in stages])
    console.print("every output and region agrees" if passed else "[red]results differ[/red]")
    return EXIT_OK if passed else EXIT_VERIFICATION


# --------------------------------------------------------------------- data and training


def digits() -> Images:
    """Scikit-learn's digits where that is installed, else made images of the same shape."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        return divided("made images, scikit-learn is not installed", *made_digits())
    found = load_digits()
    images = (found.images / 16.0).astype(np.float32)[:, None]
    return divided("scikit-learn's digits", images, found.target.astype(np.int64))


def made_digits(count: int = 1797) -> tuple[Array, Array]:
    """Ten smooth patterns of 8 x 8 pixels, each moved by a pixel at most and blurred by noise."""
    rng = np.random.default_rng(0)
    patterns = np.kron(rng.random((10, 4, 4)), np.ones((2, 2)))
    labels = rng.integers(0, 10, count)
    moves = rng.integers(-1, 2, (count, 2))
    images = np.stack(
        [np.roll(patterns[k], m, (0, 1)) for k, m in zip(labels, moves.tolist(), strict=True)]
    )
    images = (images + 0.2 * rng.standard_normal(images.shape)).clip(0, 1)
    return images.astype(np.float32)[:, None], labels


def divided(name: str, x: Array, y: Array) -> Images:
    """A fifth is held out."""
    order = np.random.default_rng(0).permutation(len(x))
    held, kept = np.split(order, [len(x) // 5])
    return Images(name, x[kept], y[kept], x[held], y[held])


def trained(images: Images, epochs: int, **options: Any) -> tuple[Net, str]:
    """A trained network, and a sentence on how; `options` go to the trainer."""
    nn.manual_seed(0)
    net = Net()
    steps = epochs * -(-len(images.x) // BATCH)
    rate = optim.cosine(4e-3, total=steps, warmup=min(20, steps // 4))
    t = train.Trainer(
        net,
        loss="cross_entropy",
        metrics=["accuracy"],
        optimizer=optim.AdamW(rate, weight_decay=1e-4),
        **options,
    )
    batches = data.arrays(images.x, images.y).shuffle(seed=0).batch(BATCH)
    start = time.perf_counter()
    t.fit(batches.augment(data.augment.Shift(1), seed=0), epochs=1, progress=False)
    first = time.perf_counter() - start
    h = t.fit(batches.augment(data.augment.Shift(1), seed=0), epochs=epochs, progress=False)
    rest = time.perf_counter() - start - first
    each = 1e3 * rest / max(1, t.step.count - steps // epochs)
    found = t.evaluate((images.held_x, images.held_y))["accuracy"]
    return net.eval(), (
        f"{images.name}: {len(images.x)} images of {images.x.shape[1:]}, {len(images.held_x)} "
        f"held out\ntrained: {epochs} epochs, loss {h['loss'][0]:.3f} to {h['loss'][-1]:.4f}, "
        f"held-out accuracy {found:.1%}; the step of {BATCH} images compiled in {first:.1f} s, "
        f"then {each:.2f} ms each"
    )


# --------------------------------------------------------------------- the stages


def taken(net: Net, images: Images) -> tuple[list[Stage], Module]:
    """The network as it was built, as ONNX, for this CPU, in C, by another engine; the module."""
    x, path = images.held_x[:1], OUTPUT / MODEL
    parameters = sum([a.nbytes for a in net.state_dict().values()])

    def eager(x: Array) -> Array:
        with nn.no_grad():
            return np.asarray(net(nn.tensor(x)))

    stages = [Stage("builder, op by op", eager, f"{parameters} (arrays)", peak(eager, x))]
    start = time.perf_counter()
    driver.export_onnx(net, path, example=x)
    module = driver.load(path)
    seconds = time.perf_counter() - start
    imported: Any = driver.compile(module, target="reference")
    worst = verification.relative_error(imported(x), eager(x))
    passed = worst <= verification.TOLERANCE["f32"]
    held = peak(imported, x)
    title = "ONNX file, op by op"
    stages += [Stage(title, imported, sized(path), held, seconds, worst, passed)]
    stages += [compiled(module, "cpu", "this CPU, LLVM", x)]
    stages += [compiled(module, "c", "C99, system's compiler", x)]
    return [*stages, *peers(path, x)], module


def compiled(module: Module, target: str, title: str, x: Array) -> Stage:
    """Compile, write the files, compare every output and fused region with the reference."""
    start = time.perf_counter()
    exe: Any = driver.compile(module, target=target, threads=1)
    seconds = time.perf_counter() - start
    if target == "c":
        exe.sources.write(OUTPUT)
        size = sized(OUTPUT / "model.c")
    else:
        exe.save(OUTPUT / "model.ircx")
        size = sized(OUTPUT / "model.ircx")
    report = verification.compare(module, choose(target, 1), {exe.inputs[0][0]: x})
    return Stage(title, exe, size, exe.arena_bytes, seconds, report.worst, report.passed)


def peers(model: Path, x: Array) -> list[Stage]:
    """onnxruntime on the same file, where it is installed."""
    from .bench.peers import onnxruntime

    room = np.array(x)
    try:
        run = onnxruntime(str(model), {driver.load(model).main.args[0].name or "": room}, 1)
    except Error:
        return []

    def call(x: Array) -> Any:
        room[...] = x
        found: Any = run()
        return found[0]

    return [Stage("onnxruntime", call, sized(model), None)]


def peak(call: Call, x: Array) -> int:
    """The most bytes that one call holds at a time."""
    call(x)
    tracemalloc.start()
    call(x)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def sized(path: Path) -> str:
    """A file with its size."""
    return f"{path.stat().st_size} ({path.name})"


def measured(stages: Sequence[Stage], images: Images, seconds: float) -> dict[str, Times]:
    """The time of one image in each stage, in turns."""
    x = images.held_x[:1]
    return alternate({s.title: partial(s.call, x) for s in stages}, seconds)


def accuracy(stage: Stage, images: Images) -> float:
    """The share of held-out images that the stage names rightly, one at a time."""
    said = [np.argmax(stage.call(images.held_x[k : k + 1])) for k in range(len(images.held_x))]
    return float(np.mean(np.asarray(said) == images.held_y))


# --------------------------------------------------------------------- the tables


def summary(stages: Sequence[Stage], images: Images, times: dict[str, Times]) -> Table:
    """Accuracy, latency, size and memory at each stage."""
    table = Table(
        Column("stage", no_wrap=True), "accuracy", "latency us", "size in bytes", "memory",
        "made in s", "max error", title=f"one image of {images.name}",
    )  # fmt: skip
    for s in stages:
        t = times[s.title]
        worst = Text("" if s.worst is None else f"{s.worst:.1e}", "green" if s.passed else "red")
        row = [f"{accuracy(s, images):.2%}", f"{t.median * 1e3:.1f}", s.size]
        row += ["" if s.memory is None else str(s.memory)]
        row += ["" if s.seconds is None else f"{s.seconds:.2f}"]
        table.add_row(s.title, *row, worst)
    return table


def counted(module: Module) -> str:
    """How many ops and parameters."""
    facts = of_module(module)
    return f"{facts['op_count']} ops, {facts['parameter_bytes']} bytes of parameters"


def fusion(lowered: Compiled, module: Module, choice: Choice) -> Table:
    """The fused regions, one kernel each, and what was refused."""
    fused = compiler.lower(module, choice, Options(to_phase="fused"))
    regions = [op for op in fused.module.main.walk() if isinstance(op, Fused)]
    table = Table("kernel", "result", title=f"fusion: {len(regions)} regions")
    for op in regions:
        table.add_row(op.label, ", ".join([str(v.type) for v in op.results]))
    for r in lowered.refusals:
        table.add_row(Text(f"not {r.producer} with {r.consumer}", "dim"), Text(r.why, "dim"))
    return table


def memory(lowered: Compiled) -> Table:
    """The memory plan."""
    planned = lowered.planned
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
