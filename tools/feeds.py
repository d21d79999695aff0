"""Inputs of a run from an `.npz` file or from a seed, and results into one."""

from __future__ import annotations

import math
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.archive import replacing
from ..ir.dims import DimLike, evaluate, symbols_of
from ..ir.errors import Error, InvalidModelError
from ..ir.types import TensorType, Type

Array = np.ndarray[Any, Any]
Fields = Sequence[tuple[str, Type]]


_DAMAGE = (ValueError, zipfile.BadZipFile, zlib.error, EOFError, AttributeError, KeyError)


def feeds(
    fields: Fields, file: str | None, seed: int, shapes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Array]:
    """The inputs by name: from the file where there is one, else random."""
    return read_npz(file, fields) if file else random_inputs(fields, seed, shapes)


def random_inputs(
    fields: Fields, seed: int = 0, shapes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Array]:
    """Seeded inputs: normal floats, integers 0 and 1 (they may be indices), bools.

    Symbols of dims that `shapes` does not settle are 1.
    """
    rng = np.random.default_rng(seed)
    shapes = shapes or {}
    dims = _settled(fields, shapes)
    return {name: _random(rng, type_, dims, name) for name, type_ in fields}


def _settled(fields: Fields, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The value of each symbol: from the shapes given where one stands alone, else 1."""
    dims: dict[str, int] = {}
    for name, type_ in fields:
        if isinstance(type_, TensorType) and type_.shape is not None:
            for extent, found in zip(type_.shape, shapes.get(name, ())):
                if not isinstance(extent, int) and str(extent) in extent.symbols:
                    dims[str(extent)] = int(found)
            for extent in type_.shape:
                for symbol in symbols_of(extent):
                    dims.setdefault(symbol, 1)
    return dims


def _random(rng: np.random.Generator, type_: Type, dims: Mapping[str, int], name: str) -> Array:
    if not isinstance(type_, TensorType) or type_.shape is None or type_.dtype.kind == "string":
        raise Error("E0520", f"no random values for input '{name}' of type {type_}", hint="--input")
    shape = [_extent(e, dims) for e in type_.shape]
    if math.prod(shape) > sys.maxsize // 16:
        raise MemoryError  # numpy would call it a ValueError
    kind = type_.dtype.kind
    if kind == "complex":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(type_.dtype.np)
    if kind == "float":
        return np.asarray(rng.standard_normal(shape)).astype(type_.dtype.np)
    return np.asarray(rng.integers(0, 2, shape)).astype(type_.dtype.np)


def _extent(extent: DimLike, dims: Mapping[str, int]) -> int:
    return evaluate(extent, dims)


def read_npz(path: str, fields: Fields) -> dict[str, Array]:
    """The arrays of an `.npz` file by name; E0525 for no such file, E0501 for a wrong set."""
    source = Path(path)
    try:
        loaded = np.load(source, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("one array without a name: np.savez writes them with names")
        with loaded as file:
            found = {name: file[name] for name in file.files}
    except OSError as error:
        raise Error("E0525", f"cannot read {source}: {error.strerror or error}") from None
    except _DAMAGE as error:
        raise InvalidModelError(
            "E0525", f"{source} is no .npz file of plain arrays", details=(str(error)[:200],)
        ) from None
    names = [name for name, _ in fields]
    missing = [name for name in names if name not in found]
    if missing:
        said = f"{source} has {', '.join(found) or 'nothing'}"
        raise Error("E0501", f"missing input: {', '.join(missing)}", details=(said,))
    return {name: found[name] for name in names}


def write_npz(path: str, arrays: Mapping[str, Array]) -> None:
    """Write arrays by name; the old file stays until the new one is whole."""
    with replacing(Path(path)) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


__all__ = ["feeds", "random_inputs", "read_npz", "write_npz"]
