"""Whole programs on disk: a model compiled before is opened, not compiled again.

An entry is an `.ircx` file named by everything that its code depends on: the module with its
constants, the target, LLVM, and this package's own sources. So an entry never goes stale; it can be
evicted (least recently used first) or found damaged, and then it counts as absent.  Several
processes may share the folder.  Its weights are mapped, not copied.  May import: ir, the llvm
backend's cache, archive.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...ir.blobs import Blob
from ...ir.errors import Error
from ...ir.ops.core import Const, Module
from ...ir.target import Target
from ...ir.text import print_op
from ..llvm.cache import cache_dir, evict
from ..llvm.version import llvm_version
from .archive import open_archive

if TYPE_CHECKING:
    from ..llvm.compile import CodegenTarget
    from .build import CpuExecutable

LIMIT = 4 << 30
"""Bytes that all programs may take."""

LARGEST = 1 << 30
"""Bytes of weights from which a program is not kept: it would evict all others."""

_SOURCES = ("ir", "passes", "backends")


def program_key(module: Module, target: Target, codegen: CodegenTarget) -> str:
    """The name, in hex, of a module compiled for a target by this package.

    Reads every constant, and forgets again what can be read once more.
    """
    for op in module.walk():
        if isinstance(op, Const) and isinstance(op.value, Blob):
            _ = op.value.digest
            op.value.release()
    made = hashlib.sha256()
    for part in (sources(), llvm_version(), _told(target), codegen.key(), print_op(module)):
        made.update(part.encode() + b"\0")
    return made.hexdigest()


def _told(target: Target) -> str:
    """A target as text that is the same in every process."""
    parts = []
    for field in dataclasses.fields(target):
        value = getattr(target, field.name)
        if isinstance(value, frozenset):
            value = sorted(value)
        elif callable(value):
            value = f"{value.__module__}.{value.__qualname__}"
        parts.append(f"{field.name}={value!r}")
    return " ".join(parts)


@functools.cache
def sources() -> str:
    """What says that the compiler is the same: size and time of each of its source files."""
    root = Path(__file__).parents[2]
    made = hashlib.sha256()
    for package in _SOURCES:
        for path in sorted((root / package).rglob("*.py")):
            found = path.stat()
            line = f"{path.relative_to(root)} {found.st_size} {found.st_mtime_ns}\n"
            made.update(line.encode())
    return made.hexdigest()


def find(key: str) -> CpuExecutable | None:
    """The program, now the most recently used; None where it is absent or damaged."""
    path = _path(key)
    if not path.exists():
        return None
    try:
        found = open_archive(path)
        _touch(path)
        return found
    except (Error, OSError):
        _drop(path)
        return None


def _touch(path: Path) -> None:
    """Say that an entry is in use; in a folder that cannot be written this is left out."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _drop(path: Path) -> None:
    """Take a damaged entry away; where that cannot be done it is in the way of nothing else."""
    with contextlib.suppress(OSError):
        path.unlink()


def keep(key: str, save: Callable[[Path], object], weight_bytes: int) -> None:
    """Have `save` write a program, then evict what exceeds the limit; a failure is silent."""
    if weight_bytes > LARGEST:
        return
    path = _path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        save(path)
        evict(path.parent, "*", LIMIT)
    except (Error, OSError):
        return


def _path(key: str) -> Path:
    return cache_dir() / "programs" / f"{key}.ircx"


__all__ = ["LARGEST", "LIMIT", "find", "keep", "program_key", "sources"]
