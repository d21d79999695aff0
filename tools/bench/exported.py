"""Networks of today as torch exports them: plain torch.nn modules, random weights, two sizes.

`small` runs in well under a second and is for tests, `full` is the size people deploy.  An export
takes seconds to a minute, so files are kept in the cache folder under the digest of what made them.
Both exporters of torch are used: `dynamo` (its default) and `torchscript`, the older one.
Imports: torch inside functions only (the extra `oracle`), numpy.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...backends.llvm.cache import cache_dir
from ...ir.errors import EXIT_NO_TOOLCHAIN, Error

Array = np.ndarray[Any, Any]
Sizes = Mapping[str, int]
OPSET = 18


@dataclass(frozen=True)
class Export:
    """A network: how to build it, its input, its sizes, the exporter it takes by default."""

    network: str  # a class of .torch_nets
    inputs: Callable[[Sizes, np.random.Generator], dict[str, Array]]
    small: Sizes
    full: Sizes
    exporter: str = "dynamo"

    def sizes(self, size: str) -> Sizes:
        """The numbers of `small` or `full`."""
        return {"small": self.small, "full": self.full}[size]


def _tokens(sizes: Sizes, rng: np.random.Generator) -> dict[str, Array]:
    return {"ids": rng.integers(0, sizes["vocabulary"], (1, sizes["tokens"]), np.int64)}


def _masked_tokens(sizes: Sizes, rng: np.random.Generator) -> dict[str, Array]:
    """Tokens of which the last eighth is padding."""
    mask = np.ones((1, sizes["tokens"]), np.int64)
    mask[:, -(sizes["tokens"] // 8) :] = 0
    return {**_tokens(sizes, rng), "mask": mask}


def _image(sizes: Sizes, rng: np.random.Generator) -> dict[str, Array]:
    return {"image": rng.standard_normal((1, 3, sizes["image"], sizes["image"]), np.float32)}


def _steps(sizes: Sizes, rng: np.random.Generator) -> dict[str, Array]:
    return {"x": rng.standard_normal((1, sizes["steps"], sizes["inputs"]), np.float32)}


_SMALL = {"layers": 2, "width": 64, "heads": 4}
_BASE = {"layers": 12, "width": 768, "heads": 12}
_SMALL_RNN = {"layers": 2, "units": 32, "inputs": 16, "steps": 9, "classes": 10}
_RNN = {"layers": 2, "units": 512, "inputs": 128, "steps": 100, "classes": 100}

EXPORTS: dict[str, Export] = {
    "bert": Export(
        "Bert",
        _masked_tokens,
        {**_SMALL, "vocabulary": 101, "tokens": 16},
        {**_BASE, "vocabulary": 30522, "tokens": 128},
    ),
    "gpt": Export(
        "Gpt",
        _tokens,
        {**_SMALL, "vocabulary": 101, "tokens": 12},
        {**_BASE, "vocabulary": 50257, "tokens": 64},
    ),
    "vit": Export(
        "Vit",
        _image,
        {**_SMALL, "image": 32, "patch": 8, "classes": 10},
        {**_BASE, "image": 224, "patch": 16, "classes": 1000},
    ),
    "mobilenet_v2": Export(
        "MobileNetV2",
        _image,
        {"image": 32, "quarters": 1, "classes": 10},
        {"image": 224, "quarters": 4, "classes": 1000},
    ),
    "unet": Export(
        "UNet",
        _image,
        {"image": 32, "base": 8, "levels": 2},
        {"image": 256, "base": 32, "levels": 4},
    ),
    "lstm": Export("Lstm", _steps, _SMALL_RNN, _RNN),
    "gru": Export("Gru", _steps, _SMALL_RNN, _RNN),
}

NAMES = tuple(EXPORTS)
EXPORTERS = ("dynamo", "torchscript")


def inputs(name: str, size: str = "full", seed: int = 1) -> dict[str, Array]:
    """Seeded inputs by name."""
    export = EXPORTS[name]
    return export.inputs(export.sizes(size), np.random.default_rng(seed))


def exported(name: str, size: str = "full", exporter: str = "") -> Path:
    """The ONNX file of a network, exported now or before; E0535 where torch is missing."""
    export = EXPORTS[name]
    chosen = exporter or export.exporter
    folder = cache_dir() / "models" / f"{name}-{size}-{chosen}-{_digest()}"
    file = folder / "model.onnx"
    if not file.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            _write(name, size, chosen, Path(made) / "model.onnx")
            _publish(Path(made), folder)
    return file


def _publish(made: Path, folder: Path) -> None:
    """Give the finished files their place; another process may have been first."""
    kept = made.with_name(made.name + ".done")
    shutil.copytree(made, kept)
    try:
        os.rename(kept, folder)
    except OSError:
        shutil.rmtree(kept)


def _digest() -> str:
    """Changes with the networks, this file and torch."""
    from importlib.metadata import PackageNotFoundError, version

    digest = hashlib.sha256()
    for file in (Path(__file__), Path(__file__).with_name("torch_nets.py")):
        digest.update(file.read_bytes())
    try:
        digest.update(version("torch").encode())
    except PackageNotFoundError:
        raise Error(
            "E0535",
            "torch is not installed",
            hint="pip install 'tensor-irc[oracle]'",
            exit_code=EXIT_NO_TOOLCHAIN,
        ) from None
    return digest.hexdigest()[:12]


def _write(name: str, size: str, exporter: str, file: Path) -> None:
    import torch

    from . import torch_nets

    export = EXPORTS[name]
    sizes = export.sizes(size)
    torch.manual_seed(0)
    network = getattr(torch_nets, export.network)(**_known(sizes))
    torch_nets.fill(network)
    given = inputs(name, size)
    arguments = tuple([torch.from_numpy(x) for x in given.values()])
    # Kernels that PyTorch alone has are no ONNX ops; what the exporters say is for their authors.
    torch.backends.mha.set_fastpath_enabled(False)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), arguments, str(file), dynamo=exporter == "dynamo",
            input_names=list(given), output_names=["y"], opset_version=OPSET,
            verbose=False,
        )  # fmt: skip


def _known(sizes: Sizes) -> dict[str, int]:
    """The sizes that a network has; the number of steps is only its input's."""
    return {name: number for name, number in sizes.items() if name != "steps"}


__all__ = ["EXPORTERS", "EXPORTS", "NAMES", "Export", "exported", "inputs"]
