"""Constants held by reference: an array, a slice of a mapped file, or another constant's elements
in another order.

Identity is cheap until somebody asks for the content: a file slice is known by file, offset and
length, a move by its source; the hash of the bytes is made once, on demand.  Imports: types only.
"""

from __future__ import annotations

import hashlib
import itertools
import mmap
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import Error
from .types import DType, TensorType, from_numpy

Array = np.ndarray[Any, Any]

_CHUNK = 1 << 20
"""Bytes compared at a time, so that what differs early is found early."""

_PROBES = 61
"""Elements that are compared first: a prime number, to meet every row and column of a tile."""

_numbers = itertools.count()


class FileBytes:
    """A file mapped once, whose slices are read as they are used and may be dropped again.

    E0109 where the file was changed since: its mapping would show other bytes, or end the process.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(path)
        self._file = open(path, "rb")  # noqa: SIM115  kept open: `_state` asks the same file
        self._map: mmap.mmap | None = None
        self.state = self._state()
        if self.size:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def _state(self) -> tuple[int, int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns, found.st_ino

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened."""
        return self.state[0]

    def __len__(self) -> int:
        return self.size

    def bytes(self, offset: int = 0, length: int | None = None) -> Array:
        """A slice as u8, read-only."""
        if self._state() != self.state:
            raise Error(
                "E0109",
                f"{self.path} has been changed since it was loaded",
                hint="load the model again",
            )
        length = self.size - offset if length is None else length
        if self._map is None or not length:
            return np.zeros(0, np.uint8)
        return np.frombuffer(self._map, np.uint8, length, offset)

    def drop(self, offset: int = 0, length: int | None = None) -> None:
        """Give back the memory of a slice that was read; it is read again when it is used."""
        if self._map is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        end = self.size if length is None else offset + length
        first = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        last = end // mmap.PAGESIZE * mmap.PAGESIZE if end < self.size else end
        if last > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


class Blob:
    """The value of a constant: `array` (read-only numpy), its `type`, and a lazy content `digest`.

    `load` defers reading (external data, mapped files, moves); `key` is then its identity: equal
    keys are equal contents.  `drop` gives back what `load` reads beside the array.
    """

    __slots__ = ("_array", "_digest", "drop", "key", "load", "source", "type")

    def __init__(
        self,
        array: Array | None,
        type: TensorType | None = None,
        load: Callable[[], Array] | None = None,
        key: tuple[Any, ...] | None = None,
        drop: Callable[[], None] | None = None,
    ) -> None:
        if array is not None:
            array = np.asarray(array)
            array = array.view()
            array.flags.writeable = False
            type = type or TensorType(from_numpy(array.dtype), array.shape)
        assert type is not None
        self.type: TensorType = type
        self._array = array
        self._digest: str | None = None
        self.load = load
        self.key = key
        self.drop = drop
        self.source: Blob | None = None

    @classmethod
    def moved(
        cls, source: Blob, type: TensorType, how: tuple[Any, ...], move: Callable[[Array], Array]
    ) -> Blob:
        """The elements of `source` in another order or shape, moved when they are needed.

        `move` may pad with zeros and must lose nothing; `how` identifies it: what the same move
        makes of different sources is different.
        """
        if source.key is None:
            source.key = ("blob", next(_numbers))
        made = cls(None, type, lambda: move(source.array), ("moved", how, source.key))
        made.source = source
        return made

    @property
    def array(self) -> Array:
        """The elements, read-only, in the numpy type of the element type."""
        if self._array is None:
            assert self.load is not None
            found = self.load().view()
            found.flags.writeable = False
            self._array = found
        return self._array

    def copy_to(self, target: Array) -> None:
        """Write the elements to `target`, of the same shape and type, keeping no array of them."""
        known = self._array is not None
        target[...] = self.array
        if not known:
            self.release()

    def release(self) -> None:
        """Forget what can be loaded again, here and in the source of a move."""
        if self.load is None:
            return
        self._array = None
        if self.drop is not None:
            self.drop()
        if self.source is not None:
            self.source.release()

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def nbytes(self) -> int:
        """Bytes in numpy's storage."""
        size = self.type.size
        assert isinstance(size, int), "a constant has a static shape"
        return size * self.type.dtype.np.itemsize

    @property
    def digest(self) -> str:
        """Hex SHA-256 of type and content."""
        if self._digest is None:
            made = hashlib.sha256(self.type.text.encode())
            array = self.array
            if array.dtype == object:
                made.update(repr(array.tolist()).encode())
            else:
                made.update(
                    np.ascontiguousarray(array).data
                    if array.dtype.isbuiltin == 1
                    else array.tobytes()
                )
            self._digest = made.hexdigest()
        return self._digest

    @digest.setter
    def digest(self, known: str) -> None:
        """State a hash that is known already (an archive names its constants by it)."""
        self._digest = known

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Blob) or self.type is not other.type:
            return False
        if self.key is not None and self.key == other.key:
            return True
        if self.source is not None and other.source is not None:
            mine, others = self.key, other.key
            if mine is not None and others is not None and mine[1] == others[1]:
                return self.source == other.source
        if self._digest is not None and other._digest is not None:
            return self._digest == other._digest
        if self.type.dtype.kind == "string":
            return self.digest == other.digest
        return _same_bytes(self.array, other.array)

    def __hash__(self) -> int:
        return hash(self.type.text)

    def __repr__(self) -> str:
        return f"<blob {self.type}>"


def _same_bytes(one: Array, other: Array) -> bool:
    """Whether two arrays of one shape and type are equal to the bit; a few elements first."""
    step = max(1, one.size // _PROBES)
    first, second = one.reshape(-1), other.reshape(-1)
    if first[::step].tobytes() != second[::step].tobytes():
        return False
    pieces = zip(_pieces(first), _pieces(second), strict=True)
    return all(np.array_equal(a, b) for a, b in pieces)


def _pieces(flat: Array) -> list[Array]:
    """The bytes of a dense array in pieces."""
    raw = np.ascontiguousarray(flat).view(np.uint8)
    return [raw[k : k + _CHUNK] for k in range(0, raw.size, _CHUNK)]


__all__ = ["Blob", "FileBytes"]
