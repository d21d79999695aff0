"""Tensors of a model file: element types, initializers as blobs, external data mapped when read.

Every size that a file states is checked before memory is taken for it.  Imports: onnx, ir.
"""

from __future__ import annotations

import math
import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ...ir.blobs import Blob, FileBytes
from ...ir.errors import InvalidModelError, UnsupportedError
from ...ir.types import DType, TensorType

Array = np.ndarray[Any, Any]
MAX_RANK = 64
MAX_BYTES = 1 << 40
FEW_BYTES = 1 << 16
"""Bytes below which external data is copied rather than kept mapped."""

DTYPES = {
    "FLOAT": "f32", "DOUBLE": "f64", "FLOAT16": "f16", "BFLOAT16": "bf16",
    "INT8": "i8", "INT16": "i16", "INT32": "i32", "INT64": "i64",
    "UINT8": "u8", "UINT16": "u16", "UINT32": "u32", "UINT64": "u64",
    "INT4": "i4", "UINT4": "u4", "INT2": "i2", "UINT2": "u2",
    "BOOL": "bool", "STRING": "string", "COMPLEX64": "c64", "COMPLEX128": "c128",
    "FLOAT8E4M3FN": "f8e4m3fn", "FLOAT8E4M3FNUZ": "f8e4m3fnuz", "FLOAT8E5M2": "f8e5m2",
    "FLOAT8E5M2FNUZ": "f8e5m2fnuz", "FLOAT4E2M1": "f4e2m1",
}  # fmt: skip


def dtype_of(code: int, where: object = None) -> DType:
    """The element type of a TensorProto.DataType number; E0105 for one that the IR lacks."""
    known = {value: name for name, value in TensorProto.DataType.items()}
    name = known.get(code)
    if name is None or name == "UNDEFINED":
        raise InvalidModelError("E0105", f"element type {code} does not exist", where=where)
    if name not in DTYPES:
        raise UnsupportedError("E0105", f"element type {name} is not supported", where=where)
    return DType(DTYPES[name])


@dataclass(frozen=True)
class Slice:
    """`length` bytes of a mapped file."""

    file: FileBytes
    offset: int
    length: int

    def blob(self, type_: TensorType) -> Blob:
        """The tensor of this type that the bytes are."""
        place = (self.offset, self.length)

        def load() -> Array:
            raw = self.file.bytes(*place)
            if self.length < FEW_BYTES and not self.file.hold:
                raw = raw.copy()  # what stays small must not keep its file open
                self.file.drop()
            return _from_bytes(raw, type_)

        return Blob(
            None,
            type_,
            load,
            ((self.file.path, self.file.state), *place),
            lambda: self.file.drop(*place),
        )


_open: weakref.WeakValueDictionary[object, FileBytes] = weakref.WeakValueDictionary()


def open_file(path: Path, hold: bool = False) -> FileBytes:
    """The file, mapped once however many tensors lie in it."""
    found = path.stat()
    key = (os.path.realpath(path), found.st_size, found.st_mtime_ns, found.st_ino, hold)
    file = _open.get(key)
    if file is None:
        file = _open[key] = FileBytes(path, hold)
    return file


def blob_of(
    tensor: Any, folder: Path | None, where: object = None, stored: Slice | None = None
) -> Blob:
    """A TensorProto as a blob; `stored` is its raw data where the message does not hold it, which
    is mapped on first use like external data.  E0106 where it is damaged.
    """
    where = where or f"tensor '{tensor.name}'"
    type_ = _type_of(tensor, where)
    if tensor.data_location == TensorProto.EXTERNAL:
        return _external(tensor, type_, folder, where)
    if stored is not None:
        if type_.dtype.kind == "string":
            raise _damaged(where, "strings are never raw data")
        _expect_bytes(stored.length, type_, where)
        return stored.blob(type_)
    if tensor.HasField("raw_data") and type_.dtype.bits >= 8 and type_.dtype.kind != "string":
        raw = tensor.raw_data
        _expect_bytes(len(raw), type_, where)
        array = np.frombuffer(raw, type_.dtype.np).reshape(type_.shape)  # type: ignore[arg-type]
        if array.dtype == np.bool_:
            array = array.view(np.uint8) != 0
        return Blob(array, type_)
    try:
        array = numpy_helper.to_array(tensor)
    except Exception as error:  # onnx raises ValueError, TypeError, RuntimeError ... on damage
        raise _damaged(where, str(error).partition("\n")[0]) from None
    if array.shape != type_.shape:
        raise _damaged(where, f"{array.size} elements for {type_}")
    if type_.dtype.kind == "string":
        texts = [s.decode(errors="replace") if isinstance(s, bytes) else s for s in array.flat]
        array = np.array(texts, object).reshape(array.shape)
    return Blob(np.asarray(array).astype(type_.dtype.np, copy=False), type_)


def _type_of(tensor: Any, where: object) -> TensorType:
    dims = tuple(tensor.dims)
    dtype = dtype_of(tensor.data_type, where)
    if len(dims) > MAX_RANK or any(d < 0 for d in dims):
        raise _damaged(where, f"its shape is {list(dims[:MAX_RANK])}")
    if math.prod(dims) * dtype.bytes > MAX_BYTES:
        raise _damaged(where, f"{math.prod(dims)} elements are more than a tensor may have")
    return TensorType(dtype, dims)


def _expect_bytes(found: int, type_: TensorType, where: object) -> None:
    want = stored_bytes(type_)
    if found != want:
        raise _damaged(where, f"{type_} takes {want} bytes, the file has {found}")


def stored_bytes(type_: TensorType) -> int:
    """The bytes of a tensor in a file: elements below a byte are packed."""
    count = int(type_.size)  # type: ignore[arg-type]
    return -(-count * type_.dtype.bits // 8) if type_.dtype.bits < 8 else count * type_.dtype.bytes


def _damaged(where: object, what: str) -> InvalidModelError:
    return InvalidModelError("E0106", "a tensor of the model is damaged", where=where,
                             details=(what,))  # fmt: skip


def _external(tensor: Any, type_: TensorType, folder: Path | None, where: object) -> Blob:
    """A slice of a file beside the model; the path must stay inside the model's folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = _inside(entries.get("location", ""), folder, where)
    want = stored_bytes(type_)
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or want)
    except ValueError:
        raise _damaged(where, f"offset or length of {path.name} is no number") from None
    size = path.stat().st_size
    if offset < 0 or length != want or offset + length > size:
        raise _damaged(
            where, f"{type_} wants bytes {offset} to {offset + want} ({length} stated) "
                   f"of {path.name}, which has {size}")  # fmt: skip
    if type_.dtype.kind == "string":
        raise _damaged(where, "strings are never external")

    return Slice(open_file(path), offset, length).blob(type_)


def _from_bytes(raw: Array, type_: TensorType) -> Array:
    """Stored bytes as an array; a view of them where the type allows it."""
    shape: Any = type_.shape
    if type_.dtype.bits < 8:
        proto = TensorProto(dims=shape, raw_data=raw.tobytes())
        names = {v: k for k, v in DTYPES.items()}
        proto.data_type = TensorProto.DataType.Value(names[type_.dtype.name])
        return np.asarray(numpy_helper.to_array(proto)).astype(type_.dtype.np, copy=False)
    if type_.dtype.kind == "bool":
        return np.asarray(raw != 0).reshape(shape)
    if raw.ctypes.data % type_.dtype.np.alignment and type_.dtype.np.isbuiltin != 1:
        raw = np.array(raw)  # numpy itself takes its own types anywhere
    return np.ndarray(shape, type_.dtype.np, raw)


def _inside(location: str, folder: Path | None, where: object) -> Path:
    """The file that `location` names, which must lie in `folder`; E0107 for any other place."""
    if folder is None:
        raise InvalidModelError("E0107", "the model's weights lie in another file", where=where,
                                details=(f"location {location!r}",),
                                hint="load the model from its path, not from bytes")  # fmt: skip
    base = os.path.realpath(folder)
    unsafe = not location or "\0" in location or "\\" in location or os.path.isabs(location)
    target = base if unsafe else os.path.realpath(os.path.join(base, location))
    if unsafe or ".." in location.split("/") or os.path.commonpath((base, target)) != base:
        raise InvalidModelError("E0107", "external data must lie inside the model's folder",
                                where=where, details=(f"location {location!r}",))  # fmt: skip
    if not os.path.isfile(target):
        raise InvalidModelError("E0107", "the file of external data does not exist", where=where,
                                details=(f"location {location!r}",))  # fmt: skip
    return Path(target)


def array_of(tensor: Any, folder: Path | None = None, where: object = None) -> Array:
    """A small tensor (an attribute) as an array."""
    return blob_of(tensor, folder, where).array


def sparse_of(sparse: Any, where: object = None) -> Array:
    """A SparseTensorProto as a dense array."""
    values, at = array_of(sparse.values, None, where), array_of(sparse.indices, None, where)
    shape = tuple(sparse.dims)
    if any(d < 0 for d in shape) or math.prod(shape) > 1 << 28 or values.ndim != 1:
        raise _damaged(where, f"sparse shape {list(shape)}")
    dense = np.zeros(shape, values.dtype)
    try:
        if at.ndim == 1:
            dense.reshape(-1)[at] = values
        else:
            dense[tuple(at.T)] = values
    except (IndexError, ValueError):
        raise _damaged(where, "a sparse index is out of range") from None
    return dense


ATTRIBUTES = onnx.AttributeProto

__all__ = [
    "ATTRIBUTES", "DTYPES", "Slice", "array_of", "blob_of", "dtype_of", "open_file", "sparse_of",
    "stored_bytes",
]  # fmt: skip
