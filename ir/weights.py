"""Large constants in a safetensors file: written in one pass, mapped when read.

Tensors are named by the full hash of their blob; the file's metadata gives their types, because
element types that safetensors lacks are stored as plain bytes (4- and 2-bit ones packed, little end
first; strings as JSON).  The same blobs always give the same bytes.  Imports: types, blobs, errors.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .blobs import Blob
from .errors import Error, InvalidModelError
from .types import TensorType, parse_type

Array = np.ndarray[Any, Any]
ALIGNMENT = 64
MAX_HEADER = 100 << 20
NAMES = {
    "f64": "F64", "f32": "F32", "f16": "F16", "bf16": "BF16", "f8e4m3fn": "F8_E4M3",
    "f8e5m2": "F8_E5M2", "i64": "I64", "i32": "I32", "i16": "I16", "i8": "I8", "u64": "U64",
    "u32": "U32", "u16": "U16", "u8": "U8", "bool": "BOOL",
}  # fmt: skip
PACKED = {"i4": 4, "u4": 4, "f4e2m1": 4, "i2": 2, "u2": 2}


def write_weights(file: BinaryIO, blobs: Iterable[Blob]) -> None:
    """Write the blobs as one safetensors file."""
    # Wide elements first, so that every tensor is aligned to its elements without holes.
    ordered = sorted(blobs, key=lambda b: (-_width(b), b.digest))
    header: dict[str, Any] = {"__metadata__": {b.digest: b.type.text for b in ordered}}
    at = 0
    for blob in ordered:
        size = stored_bytes(blob.type, blob)
        plain = blob.dtype.name in NAMES
        shape = list(blob.type.shape) if plain else [size]
        header[blob.digest] = {
            "dtype": NAMES.get(blob.dtype.name, "U8"),
            "shape": shape,
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    for blob in ordered:
        file.write(encode(blob))


def _width(blob: Blob) -> int:
    return 1 if blob.dtype.kind == "string" else blob.dtype.np.itemsize


def _count(type: TensorType) -> int:
    return math.prod([extent for extent in type.shape if isinstance(extent, int)])


def stored_bytes(type: TensorType, blob: Blob | None = None) -> int:
    """Bytes of a constant in the file; for strings the blob itself is needed."""
    if type.dtype.kind == "string":
        return len(encode(blob)) if blob is not None else -1
    size = _count(type)
    per = 8 // PACKED[type.dtype.name] if type.dtype.name in PACKED else 0
    return -(-size // per) if per else size * type.dtype.np.itemsize


def encode(blob: Blob) -> Any:
    """The stored bytes of a constant, as bytes or as a view of its array."""
    array = np.ascontiguousarray(blob.array)
    if blob.dtype.kind == "string":
        return json.dumps(array.reshape(-1).tolist()).encode()
    raw = array.reshape(-1).view(np.uint8)
    bits = PACKED.get(blob.dtype.name)
    if bits is None:
        return raw.data
    per = 8 // bits
    parts = np.resize(raw, -(-raw.size // per) * per) & ((1 << bits) - 1)
    parts[raw.size :] = 0
    shifts = np.arange(per, dtype=np.uint8) * bits
    return np.bitwise_or.reduce(parts.reshape(-1, per) << shifts, axis=1).astype(np.uint8).tobytes()


def decode(raw: Array, type: TensorType) -> Array:
    """The elements from their stored bytes (uint8)."""
    dtype = type.dtype
    if dtype.kind == "string":
        return np.array(json.loads(raw.tobytes()), object).reshape(type.shape)
    bits = PACKED.get(dtype.name)
    if bits is None:
        return raw.view(dtype.np).reshape(type.shape)
    shifts = np.arange(8 // bits, dtype=np.uint8) * bits
    parts = ((raw[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)
    parts = parts[: _count(type)]
    if dtype.kind == "int":  # sign-extend: ml_dtypes wants the low bits in a signed byte
        parts = (parts.astype(np.int8) << (8 - bits)) >> (8 - bits)
        return parts.astype(dtype.np).reshape(type.shape)
    return parts.view(dtype.np).reshape(type.shape)


def read_weights(path: Path, start: int, size: int, trusted: bool) -> dict[str, Blob]:
    """The blobs of a safetensors file at `start` in `path`, by 16 digits of their names.

    Nothing but the header is read now.  Unless `trusted` (the bytes were checked already), a blob
    is held against its hash when it is first read.  Raises E0261 for a damaged file.
    """
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if start + size else b""
    try:
        return {name[:16]: blob for name, blob in _blobs(path, data, start, size, trusted)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Error) as error:
        raise InvalidModelError(
            "E0261", f"the weights in {path} are damaged", details=(str(error)[:200],)
        ) from None


def _blobs(
    path: Path, data: Any, start: int, size: int, trusted: bool
) -> Iterator[tuple[str, Blob]]:
    length = int.from_bytes(data[start : start + 8], "little")
    if size < 8 or not 0 < length <= min(size - 8, MAX_HEADER):
        raise ValueError("the header is cut off")
    header = json.loads(data[start + 8 : start + 8 + length])
    types: Mapping[str, str] = header.pop("__metadata__")
    for name, entry in header.items():
        low, high = entry["data_offsets"]
        type_ = parse_type(types[name])
        if not isinstance(type_, TensorType) or not type_.is_static or len(name) != 64:
            raise ValueError(f"{name} has the type {types[name]}")
        if not 0 <= low <= high <= size - 8 - length or stored_bytes(type_) not in (high - low, -1):
            raise ValueError(f"{name} lies outside the file or has the wrong size")
        blob = Blob(None, type_, key=(str(path), start + 8 + length + low, high - low, name))
        blob.load = _loader(data, blob, None if trusted else name)
        if trusted:
            blob.digest = name
        yield name, blob


def _loader(data: Any, blob: Blob, expected: str | None) -> Any:
    """A function that reads the blob, and checks its hash where one is expected."""

    def load() -> Array:
        assert blob.key is not None
        path, offset, length, _ = blob.key
        array = decode(np.frombuffer(data, np.uint8, length, offset), blob.type)
        if expected is not None and Blob(array, blob.type).digest != expected:
            raise InvalidModelError(
                "E0261",
                f"the weights in {path} are damaged",
                details=(f"constant {expected[:16]} does not have its hash",),
            )
        return array

    return load


__all__ = ["decode", "encode", "read_weights", "stored_bytes", "write_weights"]
