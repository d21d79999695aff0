"""The networks that are measured: light, exported and real ones, each as a file and its inputs.

`light` are the onnx wheel's architectures with seeded weights (light.py), `exported` come from
torch (exported.py), `shared` are real models in `$IRC_MODELS`, else in shared/models inside or
beside the checkout.  What is made is kept as files in the cache folder.  Imports: numpy, onnx.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ...backends.llvm.cache import cache_dir
from ...ir.errors import Error
from . import exported, light

Array = np.ndarray[Any, Any]
Shapes = Mapping[str, tuple[int, ...]]
ROOT = Path(__file__).resolve().parent.parent.parent

SHARED: dict[str, Shapes] = {
    "dense_big": {},
    "fastestdet": {},
    "magika_v3_3": {},
    "mnist": {},
    "silero_vad_16k": {"input": (1, 576), "state": (2, 1, 128), "sr": ()},
    "squeezenet_fp16": {},
    "ultraface_rfb320": {},
}
"""Real models, and the shapes of inputs that have symbolic extents."""


@dataclass(frozen=True)
class Subject:
    """A network to measure: its ONNX file, inputs by name, shapes to compile it for, its group."""

    name: str
    group: str
    file: Path
    inputs: Mapping[str, Array]
    shapes: Shapes = field(default_factory=dict)


def names(group: str = "") -> tuple[str, ...]:
    """All names of a group (`light`, `exported`, `shared`), or of the first two."""
    groups = {
        "light": light.NAMES,
        "exported": exported.NAMES,
        "shared": tuple(SHARED),
        "": light.NAMES + exported.NAMES,
    }
    return groups[group]


def subject(name: str, size: str = "full", exporter: str = "") -> Subject:
    """The network of that name; `size` and `exporter` are for exported ones.

    Errors: E0536 for no such name, E0535 where torch is missing, E0101 for a real one that is not
    here.
    """
    if name in light.NAMES:
        return Subject(name, "light", light_file(name), light.inputs(name))
    if name in exported.NAMES:
        file = exported.exported(name, size, exporter)
        return Subject(name, "exported", file, exported.inputs(name, size))
    if name in SHARED:
        return _shared(name)
    known = ", ".join(names() + names("shared"))
    raise Error("E0536", f"no network is called '{name}'", hint=f"one of {known}")


@functools.cache
def light_file(name: str) -> Path:
    """The light model with its weights as a file, made now or before."""
    source = Path(light.__file__).read_bytes() + onnx.__version__.encode()
    digest = hashlib.sha256(source).hexdigest()[:12]
    file = cache_dir() / "models" / f"{name}-light-{digest}.onnx"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            made = Path(folder) / "model.onnx"
            onnx.save(light.light(name), made)
            os.replace(made, file)
    return file


def models_folder() -> Path | None:
    """Where the real models are."""
    chosen = os.environ.get("IRC_MODELS")
    folders = [Path(chosen)] if chosen else [ROOT / "shared/models", ROOT.parent / "shared/models"]
    return next((folder for folder in folders if folder.is_dir()), None)


def _shared(name: str) -> Subject:
    folder = models_folder()
    if folder is None or not (folder / f"{name}.onnx").exists():
        hint = "set IRC_MODELS to the folder of the real models"
        raise Error("E0101", f"no {name}.onnx", hint=hint)
    with np.load(folder / f"{name}.npz") as file:
        inputs = {key[5:]: file[key] for key in file.files if key.startswith("0/in/")}
    return Subject(name, "shared", folder / f"{name}.onnx", inputs, SHARED[name])


__all__ = ["SHARED", "Shapes", "Subject", "light_file", "models_folder", "names", "subject"]
