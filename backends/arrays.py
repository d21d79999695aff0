"""numpy arrays as kernels want them: aligned, dense, packed below a byte, and their addresses
quickly.

May import: ir.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.blobs import Blob
from ..ir.types import DType

Array = np.ndarray[Any, Any]

ALIGN = 64
_SMALL = 1 << 14
"""Bytes below which alignment to a cache line is not worth a microsecond."""

_LARGE = 1 << 20
"""Bytes from which blocks are kept for reuse."""

_pointer = ctypes.c_void_p.from_address
_FIELD = object.__basicsize__
"""Offset of the data pointer in numpy's PyArrayObject_fields: the first field after the object
head.
"""


def _slow_address(array: Array) -> int:
    return array.ctypes.data


def _quick_address(array: Array) -> int:
    """What `array.ctypes.data` says, six times sooner: the field that PyArray_DATA reads."""
    return _pointer(id(array) + _FIELD).value or 0


def _trust() -> bool:
    """Whether the quick way gives the true address here, on arrays of several kinds."""
    base = np.arange(64.0)
    probes = (base, base[3:], base[::2], base.reshape(8, 8)[2:, 1:], np.zeros((2, 3), np.uint8))
    return all([_quick_address(p) == p.ctypes.data for p in probes])


address = _quick_address if _trust() else _slow_address


def aligned(size: int) -> Array:
    """Fresh uninitialised bytes at a multiple of 64."""
    return _line_up(np.empty(size + ALIGN, np.uint8), size)


class Spare:
    """Large blocks whose arrays the caller has let go of, for the next result of the same size.

    A new block of tens of megabytes costs a page fault every 4 KiB, which can take longer than the
    kernel that fills it.  A block is free when nothing but this list refers to it.
    """

    def __init__(self, limit: int = 256 << 20) -> None:
        self.limit = limit
        self.blocks: list[Array] = []
        self.lock = threading.Lock()

    def take(self, size: int) -> Array:
        """Uninitialised bytes at a multiple of 64, perhaps used before."""
        with self.lock:
            for at in range(len(self.blocks)):
                if self.blocks[at].size == size + ALIGN and sys.getrefcount(self.blocks[at]) == 2:
                    return _line_up(self.blocks[at], size)
            made = np.empty(size + ALIGN, np.uint8)
            if size <= self.limit // 2:
                self.blocks.append(made)
                while sum([b.size for b in self.blocks]) > self.limit:
                    self.blocks.pop(0)
            return _line_up(made, size)


_spare = Spare()


def _line_up(raw: Array, size: int) -> Array:
    start = -address(raw) % ALIGN
    return raw[start : start + size]


def empty(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """A fresh dense array; large ones lie at a multiple of 64."""
    size = math.prod(shape) * dtype.itemsize
    if size < _SMALL:
        return np.empty(shape, dtype)
    if size < _LARGE:
        return aligned(size).view(dtype).reshape(shape)
    return _spare.take(size).view(dtype).reshape(shape)


def is_packed(dtype: DType) -> bool:
    """Elements of 2 or 4 bits, several to a byte."""
    return dtype.bits in (2, 4)


def stored_bytes(dtype: DType, count: int) -> int:
    """Bytes of `count` elements in a kernel's memory."""
    return (count * dtype.bits + 7) // 8 if is_packed(dtype) else count * dtype.np.itemsize


def pack(array: Array, dtype: DType) -> Array:
    """The bytes of packed elements, little end first, flat in row-major order."""
    per = 8 // dtype.bits
    flat = np.ascontiguousarray(array, dtype.np).reshape(-1)
    codes = np.zeros(-(-flat.size // per) * per, np.uint8)
    codes[: flat.size] = flat.view(np.uint8) & np.uint8((1 << dtype.bits) - 1)
    shifts = np.arange(per, dtype=np.uint8) * np.uint8(dtype.bits)
    joined: Array = np.bitwise_or.reduce(codes.reshape(-1, per) << shifts, axis=1)
    return joined


def unpack(raw: Array, dtype: DType, shape: Sequence[int]) -> Array:
    """The elements of packed bytes, one to a byte."""
    per = 8 // dtype.bits
    shifts = np.arange(per, dtype=np.uint8) * np.uint8(dtype.bits)
    codes: Array = (raw.reshape(-1, 1) >> shifts) & np.uint8((1 << dtype.bits) - 1)
    codes = codes.reshape(-1)[: math.prod(shape)]
    if dtype.kind == "int":
        sign = np.uint8(1 << (dtype.bits - 1))
        codes = (codes ^ sign).astype(np.int8) - np.int8(sign)
        return codes.astype(dtype.np).reshape(shape)
    if dtype.kind == "uint":
        return codes.astype(dtype.np).reshape(shape)
    return codes.view(dtype.np).reshape(shape)


def weight_image(weights: Sequence[tuple[int, Blob]], size: int) -> Array:
    """All constants at their offsets, in one aligned read-only run of bytes."""
    image = aligned(size)
    end = 0
    for offset, blob in weights:
        image[end:offset] = 0
        dtype = blob.type.dtype
        if is_packed(dtype):
            raw = pack(blob.array, dtype)
            end = offset + raw.size
            image[offset:end] = raw
        else:
            end = offset + blob.nbytes
            blob.copy_to(image[offset:end].view(dtype.np).reshape(blob.type.shape))
    image[end:] = 0
    image.flags.writeable = False
    return image


__all__ = [
    "ALIGN",
    "address",
    "aligned",
    "empty",
    "is_packed",
    "pack",
    "stored_bytes",
    "unpack",
    "weight_image",
]
