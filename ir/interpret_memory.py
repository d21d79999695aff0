"""Memory as the loop interpreter sees it: bytes, a shadow of what is defined, and who touched what.

A `Memory` is a run of bytes; a `Window` is a typed, strided look at part of one.  The shadow holds
one byte per byte of memory: 0 is undefined, `INITIAL` came with the arguments, anything else names
the view through which the byte was last written.  Reading through a window accepts its own name
only, so a planned buffer that another one has overwritten reads as an error.  Stamps (who wrote,
who read) feed the race checks of interpret_async.py; they are per element and exist only where a
kernel runs iterations at the same time.
Imports: types, errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import Error
from .types import DType, dense_strides, u8

Array = np.ndarray[Any, Any]

INITIAL = 127
"""The shadow of memory that came with the arguments: readable through every view."""
_SHADOWS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.complex128}


def packed(dtype: DType) -> bool:
    """Elements of 2 or 4 bits, several to a byte."""
    return dtype.bits in (2, 4)


def bytes_for(dtype: DType, count: int) -> int:
    """Bytes of `count` elements."""
    return (count * dtype.bits + 7) // 8 if packed(dtype) else count * dtype.np.itemsize


class Memory:
    """Bytes with their shadow; `names` counts the views that have been given names of their own.

    `tracked` memory began undefined: each view made directly on it gets a name, by which overlap of
    live buffers shows.
    """

    __slots__ = ("bytes", "label", "names", "shadow", "stamps", "tracked")

    def __init__(self, raw: Array, label: str, defined: bool) -> None:
        self.bytes = raw
        self.label = label
        self.tracked = not defined
        self.names = 0
        self.shadow = np.full(raw.size, INITIAL if defined else 0, np.uint8)
        self.stamps: Array | None = None

    @classmethod
    def poisoned(cls, dtype: DType, count: int, label: str) -> Memory:
        """Undefined memory for `count` elements: NaN for floats, bytes 0xAA otherwise."""
        raw = np.empty(bytes_for(dtype, count), np.uint8)
        poison(raw, dtype)
        return cls(raw, label, defined=False)

    def name(self) -> int:
        """The shadow byte of the next view: 1 to 126, again and again."""
        self.names += 1
        return (self.names - 1) % (INITIAL - 1) + 1


def poison(raw: Array, dtype: DType) -> None:
    """Fill bytes with what no program should read: NaN, or 0xAA."""
    if dtype.kind in ("float", "complex") and not packed(dtype):
        raw.view(dtype.np)[...] = np.nan
    else:
        raw[...] = 0xAA


class Window:
    """A typed, strided look at memory.  `offset` is in bytes; `data` starts there and is flat.

    A `root` is bytes whose views each get a name.  For packed element types `data` holds bytes,
    and element e lies in byte e * bits // 8.
    """

    __slots__ = ("data", "dtype", "label", "memory", "offset", "owner", "root", "shape", "strides")

    def __init__(
        self,
        memory: Memory,
        dtype: DType,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        offset: int = 0,
        owner: int = INITIAL,
        label: str = "",
    ) -> None:
        self.memory, self.dtype, self.shape, self.strides = memory, dtype, shape, strides
        self.offset, self.owner, self.label = offset, owner, label or memory.label
        self.root = False
        need = offset + bytes_for(dtype, span(shape, strides))
        if offset < 0 or need > memory.bytes.size:
            raise Error(
                "E0511",
                f"the view '{self.label}' goes past the end of its memory",
                details=(f"bytes {offset} to {need} of {memory.bytes.size}",),
            )
        self.data = self.cut(memory.bytes, dtype.np)

    def cut(self, raw: Array, dtype: Any) -> Array:
        """A per-byte array from here on, one entry per element (per byte when packed)."""
        size = 1 if packed(self.dtype) else self.dtype.np.itemsize
        end = self.offset + (raw.size - self.offset) // size * size
        return raw[self.offset : end].view(np.uint8 if size == 1 and packed(self.dtype) else dtype)

    def shadow(self) -> tuple[Array, Any]:
        """The shadow, one entry per element, and what an entry must be to be read."""
        size = 1 if packed(self.dtype) else self.dtype.np.itemsize
        pattern = np.full(size, self.owner, np.uint8).view(_SHADOWS[size])[0]
        return self.cut(self.memory.shadow, _SHADOWS[size]), pattern if size == 16 else int(pattern)

    def stamps(self) -> tuple[Array, Array, Array]:
        """Per element: the stamps of the last writer, the last reader, and the reader before it."""
        memory = self.memory
        if memory.stamps is None:
            memory.stamps = np.full((3, max(1, memory.bytes.size)), -1, np.int64)
        step = 1 if packed(self.dtype) else self.dtype.np.itemsize
        cut = memory.stamps[:, self.offset :: step]
        return cut[0], cut[1], cut[2]

    def sub(self, index: Sequence[int], shape: tuple[int, ...], strides: tuple[int, ...]) -> Window:
        """A smaller window whose element 0 is element `index` of this one."""
        at = sum([i * s for i, s in zip(index, self.strides, strict=True)])
        return Window(
            self.memory,
            self.dtype,
            shape,
            strides,
            self.offset + bytes_for(self.dtype, at),
            self.owner,
            self.label,
        )

    def flat_indices(self) -> Array:
        """The flat element number of every element of the shape."""
        at = np.zeros(self.shape, np.int64)
        for axis, (extent, step) in enumerate(zip(self.shape, self.strides, strict=True)):
            rest = (1,) * (len(self.shape) - axis - 1)
            at += (np.arange(extent) * step).reshape(-1, *rest)
        return at

    def array(self) -> Array:
        """The elements, as a new dense array (packed types unpacked)."""
        return get_elements(self, self.flat_indices())

    def fill(self, values: Array) -> None:
        """Write every element; the shadow learns of it."""
        put_elements(self, self.flat_indices(), values)

    def undefined(self) -> tuple[int, ...] | None:
        """The index of the first element that nobody has written; None when there is none."""
        shadow, _ = self.shadow()
        at = self.flat_indices()
        bad = shadow[at * self.dtype.bits // 8 if packed(self.dtype) else at] == 0
        return tuple([int(k[0]) for k in np.nonzero(bad)]) if bad.any() else None


def span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first to the last, both included; 0 for an empty shape."""
    if math.prod(shape) == 0:
        return 0
    return 1 + sum([(n - 1) * s for n, s in zip(shape, strides, strict=True)])


def get_elements(window: Window, at: Array) -> Array:
    """The elements with flat numbers `at`."""
    if not packed(window.dtype):
        plain: Array = window.data[at]
        return plain
    bits = window.dtype.bits
    codes: Array = window.data[at * bits // 8] >> (at * bits % 8).astype(np.uint8) & (
        (1 << bits) - 1
    )
    values: Array = elements_of(window.dtype)[codes]
    return values


def put_elements(window: Window, at: Array, values: Any) -> None:
    """Store at flat numbers `at`, and mark the elements as written through this window."""
    shadow, pattern = window.shadow()
    if not packed(window.dtype):
        window.data[at] = values
        shadow[at] = pattern
        return
    for number, value in np.nditer([at, np.broadcast_to(code_of(values, window.dtype), at.shape)]):
        put_code(window.data, int(number), int(value), window.dtype.bits)
    shadow[at * window.dtype.bits // 8] = pattern


def put_code(data: Array, number: int, code: int, bits: int) -> None:
    """Write the bits of packed element `number`, little end first."""
    byte, low = divmod(number * bits, 8)
    mask = ((1 << bits) - 1) << low
    data[byte] = (int(data[byte]) & ~mask) | (code << low)


_codes: dict[DType, Array] = {}


def elements_of(dtype: DType) -> Array:
    """All elements of a packed type, in the order of their bit patterns."""
    known = _codes.get(dtype)
    if known is None:
        codes = np.arange(1 << dtype.bits, dtype=np.uint8)
        known = _codes[dtype] = (
            codes.view(dtype.np) if dtype.np.itemsize == 1 else codes.astype(dtype.np)
        )
    return known


def code_of(values: Any, dtype: DType) -> Array:
    """The bit patterns of elements of a packed type."""
    return np.asarray(values, dtype.np).view(np.uint8) & np.uint8((1 << dtype.bits) - 1)


def argument(
    array: Array,
    dtype: DType,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    label: str,
    defined: bool,
) -> Window:
    """A window on a numpy argument: its own bytes where the layout allows, otherwise a copy."""
    dense: tuple[int, ...] = dense_strides(shape)  # type: ignore[assignment]
    steps = strides if strides is not None else dense
    if strides is None and not packed(dtype) and array.flags.c_contiguous:
        raw = array.reshape(-1).view(np.uint8)
        if not defined:
            poison(raw, dtype)
        memory = Memory(raw, label, defined)
        window = Window(
            memory, dtype, shape, steps, owner=INITIAL if defined else memory.name(), label=label
        )
        window.root = dtype is u8
        return window
    memory = Memory.poisoned(dtype, span(shape, steps), label)
    window = Window(
        memory, dtype, shape, steps, owner=INITIAL if defined else memory.name(), label=label
    )
    if defined:
        window.fill(array)
        memory.tracked = False
    return window
