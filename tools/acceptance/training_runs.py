"""Whole trainings for the acceptance of training: the digits, the GPT on characters, the loader.

The networks are those of examples/; torch's counterpart of the digits network is here.  Data comes
from scikit-learn (extra demo) and from Python's own library.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from . import Measured, Skipped
from .spine import ROOT

SEEDS = (0, 1, 2)
DIGITS_BAR, BF16_POINTS = 0.985, 0.003
BITS_BAR = 1.86
REMAT_TIME = 1.35
CORPUS = "2e31e854ce7c5a39"
"""The first digits of the sha256 of the text that the bar of the character GPT was set on."""
FED = 0.9
EPOCHS_FLAT, STEPS_FLAT = 50, 200
GROWTH_MIB = 2.0


def example(name: str) -> ModuleType:
    """A program of examples/ as a module; skips where what it needs is not installed."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise Skipped(f"{error.name} is not installed") from None
    return module


def torch_digits(module: Any, seed: int, epochs: int, threads: int) -> tuple[float, float]:
    """Seconds and accuracy of the same network and data in torch eager, as its users write it."""
    try:
        import torch
    except ImportError:
        raise Skipped("torch is not installed") from None
    from ...frontends.train import data

    functional: Any = torch.nn.functional
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    x, y, held, labels = module.digits()

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = (1, 32, 64, 128)
            pairs = list(zip(widths, widths[1:]))
            self.convs = torch.nn.ModuleList(
                [torch.nn.Conv2d(a, b, 3, padding=1) for a, b in pairs]
            )
            self.norms = torch.nn.ModuleList([torch.nn.BatchNorm2d(b) for _, b in pairs])
            self.head = torch.nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            for k, (conv, norm) in enumerate(zip(self.convs, self.norms)):
                x = functional.relu(norm(conv(x)))
                x = functional.max_pool2d(x, 2) if k < 2 else x
            return self.head(x.mean((2, 3)))

    net = Net()
    steps = epochs * (len(x) // 64)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    batches = data.arrays(x, y).shuffle(seed=seed).batch(64, drop_last=True)
    batches = batches.augment(data.augment.Shift(1), seed=seed)
    start = time.perf_counter()
    for _ in range(epochs):
        for images, targets in batches:
            loss = functional.cross_entropy(net(torch.tensor(images)), torch.tensor(targets))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    seconds = time.perf_counter() - start
    net.eval()
    with torch.no_grad():
        said = net(torch.tensor(held)).argmax(1).numpy()
    return seconds, float((said == labels).mean())


def _quiet_fit(module: Any, **options: Any) -> tuple[float, float]:
    """Seconds, compilation included, and accuracy."""
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        _, found = module.fit(**options)
    return time.perf_counter() - start, float(found["accuracy"])


def digits() -> Measured:
    """Accuracy of three seeds, the time of each beside torch eager; the cache is empty at first."""
    module = example("digits_cnn")
    epochs = int(os.environ.get("IRC_ACCEPT_EPOCHS", "30"))
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as cache, _environment("IRC_CACHE_DIR", cache):
        for seed in SEEDS:
            ours.append(_quiet_fit(module, epochs=epochs, seed=seed, threads=1))
            theirs.append(torch_digits(module, seed, epochs, 1))
    mean = statistics.mean([a for _, a in ours])
    ratios = [a / b for (a, _), (b, _) in zip(ours, theirs)]
    figure = (
        f"mean {100 * mean:.2f} % (torch {100 * statistics.mean([a for _, a in theirs]):.2f}); "
        f"seconds {', '.join([f'{a:.1f}' for a, _ in ours])}, "
        f"torch eager {', '.join([f'{a:.1f}' for a, _ in theirs])}"
    )
    passed = mean >= DIGITS_BAR and all([r <= 1.0 for r in ratios])
    return Measured(figure, passed, {"ours": ours, "torch": theirs})


def bf16() -> Measured:
    """The digits network with products in bf16, mean of three seeds, beside f32."""
    module = example("digits_cnn")
    found = {
        precision: statistics.mean(
            [_quiet_fit(module, seed=s, threads=2, precision=precision)[1] for s in SEEDS]
        )
        for precision in ("f32", "bf16")
    }
    lost = found["f32"] - found["bf16"]
    figure = f"f32 {100 * found['f32']:.2f} %, bf16 {100 * found['bf16']:.2f} %"
    return Measured(figure, lost <= BF16_POINTS, found)


def char_gpt() -> Measured:
    """Bits per character on held-out text, mean of three seeds."""
    module = example("char_gpt")
    _, digest = module.corpus()
    if not digest.startswith(CORPUS):
        raise Skipped(f"the text has the hash {digest[:16]}, the bar was set on {CORPUS}")
    found = [module.fit(seed=seed, say=lambda said: None) for seed in SEEDS]
    mean = statistics.mean(found)
    figure = f"{mean:.4f} bits per character ({', '.join([f'{x:.4f}' for x in found])})"
    return Measured(figure, mean <= BITS_BAR, {"bits": found, "sha256": digest})


@contextlib.contextmanager
def _environment(name: str, value: str) -> Any:
    """A variable of the environment for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def remat() -> Measured:
    """The GPT of the race at half its activation memory: loss to the bit, and time."""
    from ...frontends import nn
    from ...frontends.train import optim
    from ...frontends.train.step import TrainStep
    from ...passes.autodiff.remat import activation_memory
    from ..bench.training_nets import NETS
    from ..timing import alternate

    net = NETS["gpt"]
    batch = net.arrays()
    steps, held, losses = {}, {}, {}
    for share in (1.0, 0.5):
        nn.manual_seed(0)
        step = TrainStep(
            net.build(nn, nn),
            loss=lambda o, y: nn.cross_entropy(o.reshape((-1, o.shape[-1])), y.reshape((-1,))),
            optimizer=optim.AdamW(1e-3),
            activation_memory=None if share == 1.0 else share,
            threads=1,
        )
        losses[share] = [float(step(batch).logs["loss"]) for _ in range(5)]
        func, _ = step.forward_with(batch)
        held[share] = activation_memory(func, len(func.returned) - len(step.parameters))
        steps[share] = functools.partial(step, batch)
    times = alternate({str(k): v for k, v in steps.items()}, 20.0)
    slower = times["0.5"].median / times["1.0"].median
    half = held[0.5] / held[1.0]
    same = losses[0.5] == losses[1.0]
    figure = (
        f"{half:.2f} of {held[1.0] / 2**20:.1f} MiB, losses {'equal' if same else 'differ'}, "
        f"{slower:.2f}x the time"
    )
    return Measured(figure, same and half <= 0.5 and slower <= REMAT_TIME, {"losses": losses})


# ---------------------------------------------------------------------- feeding


def made_images(folder: Path, count: int = 2000, side: int = 64) -> Path:
    """A folder of pictures in two classes."""
    try:
        from PIL import Image
    except ImportError:
        raise Skipped("Pillow is not installed") from None
    rng = np.random.default_rng(0)
    for k in range(count):
        place = folder / f"class{k % 2}"
        place.mkdir(exist_ok=True)
        base = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(base).resize((side, side), Image.Resampling.BILINEAR)
        picture.save(place / f"{k:05d}.jpg", quality=85)
    return folder


def _rates(step: Any, batches: Any, epochs: int) -> tuple[float, float]:
    """Samples per second of the step alone on one batch, and of the step fed by the data."""
    first = next(iter(batches))
    step(first)
    fed, rows = 0.0, 0
    start = time.perf_counter()
    for _ in range(epochs):
        for batch in batches:
            step(batch)
            rows += len(batch[0])
    fed = rows / (time.perf_counter() - start)
    count = max(1, rows // len(first[0]))
    start = time.perf_counter()
    for _ in range(count):
        step(first)
    alone = count * len(first[0]) / (time.perf_counter() - start)
    return alone, fed


def loader() -> Measured:
    """The compiled step fed by arrays and by a folder of images, over its own rate."""
    from ...frontends import nn
    from ...frontends.train import data
    from ...frontends.train.step import TrainStep

    module = example("digits_cnn")
    x, y, _, _ = module.digits()
    found = {}
    step = TrainStep(module.Net(), loss="cross_entropy", threads=1)
    batches = data.arrays(x, y).shuffle(seed=0).batch(64, drop_last=True).prefetch(2)
    found["digits"] = _rates(step, batches, 8)
    with tempfile.TemporaryDirectory() as folder:
        images = data.images(made_images(Path(folder)), size=(32, 32)).shuffle(seed=0)
        images = images.batch(50).map(_as_it_is, workers=2)
        net = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 64, 2),
        )  # fmt: skip
        step = TrainStep(net, loss="cross_entropy", threads=1)
        found["images"] = _rates(step, images, 4)
        images.close()
    shares = {name: fed / alone for name, (alone, fed) in found.items()}
    figure = "; ".join(
        [f"{n} {100 * shares[n]:.0f} % of {found[n][0]:.0f} samples/s" for n in found]
    )
    return Measured(figure, all([s >= FED for s in shares.values()]), {"rates": found})


def _as_it_is(*batch: Any) -> Any:
    return batch


def _resident() -> float:
    from ..bench.worker import resident

    return resident("VmRSS") / 2**20


def flat_memory() -> Measured:
    """Growth of the process over 50 epochs of the digits, and over 200 eager steps."""
    import gc

    from ...frontends import nn
    from ...frontends.train import data, optim

    module = example("digits_cnn")
    x, y, _, _ = module.digits()
    t, _ = module.fit(epochs=1, rows=256)
    batches = data.arrays(x[:256], y[:256]).shuffle(seed=0).batch(64)
    sizes = []
    for _ in range(EPOCHS_FLAT):
        t.fit(batches, epochs=t.epoch + 1, progress=False)
        gc.collect()
        sizes.append(_resident())
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = optim.Adam(1e-3).attach(net)
    eager = []
    for step in range(STEPS_FLAT):
        loss = nn.cross_entropy(net(nn.tensor(x[:64].reshape(64, 64))), nn.tensor(y[:64]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            eager.append(_resident())
    growth = {"epochs": sizes[-1] - sizes[9], "eager": eager[-1] - eager[4]}
    figure = "; ".join([f"{name} {mib:+.1f} MiB" for name, mib in growth.items()])
    passed = all([mib < GROWTH_MIB for mib in growth.values()])
    return Measured(figure, passed, {"epochs": sizes, "eager": eager})


if __name__ == "__main__":
    print(globals()[sys.argv[1]]())
