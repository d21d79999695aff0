"""Constants held by reference: an array, or a slice of a file that is mapped only when read.

Identity is cheap until somebody asks for the content: a file slice is known by file, offset and
length, and the hash of the bytes is made once, on demand.  Imports: types only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .types import DType, TensorType, from_numpy

Array = np.ndarray[Any, Any]


class Blob:
    """The value of a constant: `array` (read-only numpy), its `type`, and a lazy content `digest`.

    `load` defers reading (external data, mapped files); `key` is then its identity (file, offset,
    length).
    """

    __slots__ = ("_array", "_digest", "key", "load", "type")

    def __init__(
        self,
        array: Array | None,
        type: TensorType | None = None,
        load: Callable[[], Array] | None = None,
        key: tuple[Any, ...] | None = None,
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

    @property
    def array(self) -> Array:
        """The elements, read-only, in the numpy type of the element type."""
        if self._array is None:
            assert self.load is not None
            self._array = self.load()
            self._array.flags.writeable = False
        return self._array

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
        return self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.type.text)

    def __repr__(self) -> str:
        return f"<blob {self.type}>"
