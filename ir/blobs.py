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

_STRIP = 64
"""Elements of a row that are copied together where each lies in a page of its own."""

_PROBES = 61
"""Elements that are compared first: a prime number, to meet every row and column of a tile."""

_numbers = itertools.count()


class FileBytes:
    """A file whose slices are mapped as they are used and may be dropped again.

    With `hold` it is mapped at once and for good, so that it may be replaced or removed meanwhile;
    without, only while slices are in use: weights in a thousand files take no thousand descriptors.
    E0109 where the file was changed since: its mapping would show other bytes, or end the process.
    """

    def __init__(self, path: str | os.PathLike[str], hold: bool = False) -> None:
        self.path = str(path)
        self.state = _state(os.stat(path))
        self.hold = hold
        self._map: mmap.mmap | None = None
        if hold and self.size:
            self._map = self._mapped()

    @property
    def size(self) -> int:
        """Bytes of the file when it was first seen."""
        return self.state[0]

    def _mapped(self) -> mmap.mmap:
        try:
            with open(self.path, "rb") as file:
                if _state(os.fstat(file.fileno())) != self.state:
                    raise self._changed()
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError:
            raise self._changed() from None

    def _changed(self) -> Error:
        return Error(
            "E0109",
            f"{self.path} has been changed since it was loaded",
            hint="load the model again",
        )

    def bytes(self, offset: int = 0, length: int | None = None) -> Array:
        """A slice as u8, read-only."""
        length = self.size - offset if length is None else length
        if not length:
            return np.zeros(0, np.uint8)
        if self._map is None:
            self._map = self._mapped()
        try:
            now = _state(os.stat(self.path))
        except OSError:
            now = (0, 0, -1)
        if now[2] == self.state[2] and now != self.state:  # the file itself, not one in its place
            raise self._changed()
        return np.frombuffer(self._map, np.uint8, length, offset)

    def drop(self, offset: int = 0, length: int | None = None) -> None:
        """Give back the memory of a slice that was read; it is read again when it is used."""
        if self._map is None:
            return
        if not self.hold:
            self._map = None  # unmapped with the last array that shows it
            return
        end = self.size if length is None else offset + length
        first = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        last = end // mmap.PAGESIZE * mmap.PAGESIZE if end < self.size else end
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


def _state(found: os.stat_result) -> tuple[int, int, int]:
    """What changes when a file does: size, time, and the file itself."""
    return found.st_size, found.st_mtime_ns, found.st_ino


class Blob:
    """The value of a constant: `array` (read-only numpy), its `type`, and a lazy content `digest`.

    `load` defers reading (external data, mapped files, moves); `key` is then its identity: equal
    keys are equal contents.  `drop` gives back what `load` reads beside the array.
    """

    __slots__ = ("_array", "_digest", "_probe", "drop", "key", "load", "source", "type")

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
        self._probe: bytes | None = None
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
        made = cls.derived(source, type, move)
        made.key = ("moved", how, source.identity())
        return made

    @classmethod
    def derived(cls, source: Blob, type: TensorType, make: Callable[[Array], Array]) -> Blob:
        """What `make` gives for the elements of `source`, made when it is needed."""

        def load() -> Array:
            found = make(source.array)
            if not np.may_share_memory(found, source.array):
                source.release()  # what was copied need not be held twice
            return found

        made = cls(None, type, load)
        made.source = source
        return made

    def identity(self) -> tuple[Any, ...]:
        """The key, one of its own where it has none."""
        if self.key is None:
            self.key = ("blob", next(_numbers))
        return self.key

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
        copy_elements(target, self.array)
        if not known:
            self.release()

    def release(self) -> None:
        """Forget what can be loaded again, here and in the source it is made of."""
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
        mine, others = self.key or ("",), other.key or ("",)
        if mine[0] == others[0] == "moved" and mine[1] == others[1]:
            return self.source == other.source
        if self._digest is not None and other._digest is not None:
            return self._digest == other._digest
        if self.type.dtype.kind == "string":
            return self.digest == other.digest
        if self.probe() != other.probe():
            return False
        fresh = [blob for blob in (self, other) if blob._array is None]
        same = _same_bytes(self.array, other.array)
        for blob in fresh:
            blob.release()
        return same

    def probe(self) -> bytes:
        """A few elements: what differs here differs."""
        if self._probe is None:
            known = self._array is not None
            array = np.atleast_1d(self.array)
            if array.size > _PROBES:
                places = np.arange(0, array.size, array.size // _PROBES)
                array = array[np.unravel_index(places, array.shape)]
            self._probe = array.tobytes()
            if not known:
                self.release()
        return self._probe

    def __hash__(self) -> int:
        return hash(self.type.text)

    def __repr__(self) -> str:
        return f"<blob {self.type}>"


def copy_elements(target: Array, source: Array) -> None:
    """`target[...] = source`, in strips where the elements of a row lie pages apart.

    A row of a transposed matrix touches a page per element; a strip of it, followed down, stays in
    the cache.
    """
    rank = source.ndim
    if rank < 2 or abs(source.strides[-1]) < mmap.PAGESIZE or source.shape[-1] <= _STRIP:
        target[...] = source
        return
    for k in range(0, source.shape[-1], _STRIP):
        target[..., k : k + _STRIP] = source[..., k : k + _STRIP]


def in_shape(array: Array, shape: tuple[int, ...]) -> Array:
    """`array.reshape(shape)`, whose copy, where one is needed, goes in strips."""
    try:
        view = array.view()
        view.shape = shape
    except AttributeError:
        dense = np.empty(array.shape, array.dtype)
        copy_elements(dense, array)
        return dense.reshape(shape)
    return view


def _same_bytes(one: Array, other: Array) -> bool:
    """Whether two arrays of one shape and type are equal to the bit."""
    pieces = zip(_pieces(one), _pieces(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pieces)


def _pieces(array: Array) -> list[Array]:
    """The bytes of an array in pieces."""
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return [raw[k : k + _CHUNK] for k in range(0, raw.size, _CHUNK)]


__all__ = ["Blob", "FileBytes", "copy_elements", "in_shape"]
