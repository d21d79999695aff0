"""Checkpoints: the whole train state, the network's graph, and what continues where.

A checkpoint is a folder: `state.safetensors` (every state array, types it lacks as bytes),
`graph.irc` where a graph is given, and `meta.json` (format, types, sha256 of each file, and what
the loop adds: epoch, position in the data, history).  It is written beside its goal and renamed, so
that a failure at any moment leaves the previous one; what does not match its hashes is refused.
Never pickle.  May import: ir.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.core import Array
from ...ir.errors import Error, InvalidModelError
from ...ir.ops.core import Module
from ...ir.types import DType, from_numpy

FORMAT = 1
STATE, GRAPH, META = "state.safetensors", "graph.irc", "meta.json"
PREVIOUS = ".previous"


def save_checkpoint(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    meta: Mapping[str, Any] | None = None,
    graph: Module | None = None,
) -> None:
    """Write the folder `path`; one already there is replaced at the very end.

    `meta` holds what JSON can.  Raises E0694 where it cannot be written: what was there stays.
    """
    goal = Path(path)
    if goal.exists() and not (goal / META).is_file() and (goal.is_file() or any(goal.iterdir())):
        raise Error(
            "E0694",
            f"{goal} is no checkpoint, and is left as it is",
            hint="name a new or an empty folder",
        )
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{goal.name}-", dir=goal.parent))
    except OSError as error:
        raise _unwritable(goal, error) from None
    try:
        _write(aside, arrays, dict(meta or {}), graph)
        _exchange(aside, goal)
    except OSError as error:
        raise _unwritable(goal, error) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _unwritable(goal: Path, error: OSError) -> Error:
    return Error("E0694", f"cannot write the checkpoint {goal}: {error.strerror or error}")


def _write(
    folder: Path, arrays: Mapping[str, Array], meta: dict[str, Any], graph: Module | None
) -> None:
    from safetensors.numpy import save_file

    raw, types = {}, {}
    for name, array in arrays.items():
        array = np.asarray(array)
        types[name] = [from_numpy(array.dtype).name, list(array.shape)]
        raw[name] = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    save_file(raw, folder / STATE)
    if graph is not None:
        graph.save(str(folder / GRAPH))
    files = [p for p in (folder / STATE, folder / GRAPH) if p.exists()]
    about = {
        "format": FORMAT,
        "types": types,
        "sha256": {p.name: _digest(p) for p in files},
        "meta": meta,
    }
    (folder / META).write_text(json.dumps(about, indent=1), encoding="utf-8")
    for file in (*files, folder / META):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def _exchange(aside: Path, goal: Path) -> None:
    """Move `aside` to `goal`; what stood there is set aside meanwhile, and found by `load`."""
    old = goal.with_name(goal.name + PREVIOUS)
    if not goal.exists():
        aside.rename(goal)
        return
    shutil.rmtree(old, ignore_errors=True)
    goal.rename(old)
    try:
        aside.rename(goal)
    except OSError:
        old.rename(goal)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_checkpoint(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the meta of a checkpoint.

    Raises E0695 where there is none, E0696 where a file is missing, damaged or of a newer format,
    naming it.  A folder whose replacement was cut off is found under its interim name.
    """
    goal = Path(path)
    if not goal.exists():
        interim = goal.with_name(goal.name + PREVIOUS)
        if not interim.exists():
            raise Error("E0695", f"there is no checkpoint {goal}")
        goal = interim
    about = _about(goal)
    for name, digest in about["sha256"].items():
        file = goal / name
        found = _digest(file) if file.is_file() else None
        if found != digest:
            raise InvalidModelError(
                "E0696",
                f"the checkpoint {goal} is damaged",
                details=(
                    f"file {name}",
                    f"expected sha256 {digest[:16]}...",
                    f"found    {'no file' if found is None else f'sha256 {found[:16]}...'}",
                ),
                hint="an older checkpoint may be whole: nothing was changed",
            )
    return _arrays(goal, about["types"]), about["meta"]


def _about(goal: Path) -> dict[str, Any]:
    file = goal / META
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        whole = isinstance(about["sha256"], dict) and isinstance(about["types"], dict)
        newer = int(about["format"]) > FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidModelError(
            "E0696", f"the checkpoint {goal} is damaged", details=(f"file {META}: {error}",)
        ) from None
    if newer or not whole:
        raise InvalidModelError(
            "E0696",
            f"the checkpoint {goal} is of a newer format" if newer else f"{file} is damaged",
            details=(f"expected at most {FORMAT}", f"found    {about['format']}"),
        )
    return dict(about)


def _arrays(goal: Path, types: Mapping[str, Any]) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        raw = load_file(goal / STATE)
        return {
            name: raw[name].view(DType(dtype).np).reshape(shape).copy()
            for name, (dtype, shape) in types.items()
        }
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InvalidModelError(
            "E0696", f"the checkpoint {goal} is damaged", details=(f"file {STATE}: {error}",)
        ) from None


def remove(path: str | os.PathLike[str]) -> None:
    """Delete a checkpoint, if it is one."""
    with contextlib.suppress(OSError):
        if (Path(path) / META).is_file():
            shutil.rmtree(path)


__all__ = ["load_checkpoint", "remove", "save_checkpoint"]
