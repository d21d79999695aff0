"""Where values live: storages, places in them, and the buffers of the plan that show them.

A storage is one run of bytes: an argument of the plan, a constant among the weights, or a piece of
the arena, whose offset is decided last.  A place is a typed look at (part of) a storage. May
import: ir, memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..ir.blobs import Blob
from ..ir.core import Block, Op, Value
from ..ir.dims import DimLike, ceildiv, symbols_of
from ..ir.errors import UnsupportedError
from ..ir.ops.core import Func
from ..ir.ops.loop import View
from ..ir.types import BufferType, TensorType, Type, u8
from .memory import ALIGN, Item, Layout, align, assign


def bytes_of(type: Type) -> DimLike:
    """Bytes of a dense tensor or buffer, sub-byte elements packed."""
    assert isinstance(type, (TensorType, BufferType))
    if type.dtype.kind == "string" or type.shape is None:
        raise UnsupportedError("E0430", f"values of type {type} have no memory in a plan")
    size: DimLike = math.prod(type.shape)
    if type.dtype.bits in (2, 4):
        return ceildiv(size * type.dtype.bits, 8)
    return size * type.dtype.np.itemsize


def buffer_type(type: Type) -> BufferType:
    """The dense heap buffer of a tensor type."""
    assert isinstance(type, (TensorType, BufferType))
    return BufferType(type.dtype, type.shape, "heap")


@dataclass(eq=False)
class Storage:
    """`kind` is input, output, weights or arena; `first` to `last`: when arena bytes are needed."""

    name: str
    bytes: DimLike
    kind: str
    base: Value
    first: int = 1 << 60
    last: int = -1
    pinned: bool = False
    """Belongs to a loop, a branch or an argument: not to be reused in passing."""
    offset: DimLike = 0

    def need(self, first: int, last: int) -> None:
        """The bytes are needed from `first` to `last`."""
        self.first, self.last = min(self.first, first), max(self.last, last)


@dataclass(frozen=True, eq=False)
class Place:
    """`buffer` shows the bytes of the storage from `offset` on."""

    storage: Storage
    offset: DimLike
    buffer: Value

    @property
    def whole(self) -> bool:
        return self.offset == 0 and self.storage.bytes == bytes_of(self.buffer.type)


@dataclass
class Memory:
    """All storages of one plan, and the views that show them at its beginning."""

    func: Func
    arena: Value
    weights: Value
    storages: list[Storage] = field(default_factory=list)
    blobs: list[tuple[int, Blob]] = field(default_factory=list)
    weight_bytes: int = 0
    _known: dict[tuple[str, int], list[tuple[Blob, Storage]]] = field(default_factory=dict)
    _views: list[View] = field(default_factory=list)
    _shown: dict[tuple[Storage, DimLike, Type, Block | None], Value] = field(default_factory=dict)

    def argument(self, value: Value, kind: str) -> Place:
        """The place that an argument of the plan is."""
        storage = Storage(value.name or kind, bytes_of(value.type), kind, value, pinned=True)
        self.storages.append(storage)
        return Place(storage, 0, value)

    def fresh(self, name: str, size: DimLike) -> Storage:
        """A new piece of the arena."""
        view = View(self.arena, offset=0, type=BufferType(u8, (size,)))
        self._views.append(view)
        storage = Storage(name, size, "arena", view.result)
        self.storages.append(storage)
        return storage

    def constant(self, blob: Blob, name: str) -> Storage:
        """The piece of the weights that holds a constant; equal ones share it."""
        alike = self._known.setdefault((blob.type.text, blob.nbytes), [])
        for other, storage in alike:
            if other == blob:
                return storage
        size = bytes_of(blob.type)
        assert isinstance(size, int)
        view = View(self.weights, offset=self.weight_bytes, type=BufferType(u8, (size,)))
        self._views.append(view)
        storage = Storage(name, size, "weights", view.result, pinned=True, offset=self.weight_bytes)
        self.storages.append(storage)
        alike.append((blob, storage))
        self.blobs.append((self.weight_bytes, blob))
        self.weight_bytes += align(size)
        return storage

    def show(
        self, storage: Storage, type: Type, offset: DimLike = 0, block: Block | None = None
    ) -> Place:
        """A typed look at a storage; one whose offset varies in a loop is made in its `block`."""
        wanted = buffer_type(type)
        if offset == 0 and storage.base.type is wanted:
            return Place(storage, 0, storage.base)
        varies = block is not None and bool(symbols_of(offset))
        key = (storage, offset, wanted, block if varies else None)
        known = self._shown.get(key)
        if known is None:
            view = View(storage.base, offset=offset, type=wanted)
            if varies:
                assert block is not None
                block.append(view)
            else:
                self._views.append(view)
            known = self._shown[key] = view.result
            known.name = storage.name
        return Place(storage, offset, known)

    def settle(self) -> Layout:
        """Decide the offsets in the arena and put the views at the beginning of the plan."""
        pieces = [s for s in self.storages if s.kind == "arena" and s.last >= 0]
        layout = assign([Item(s.name, s.bytes, s.first, s.last) for s in pieces])
        for storage, offset in zip(pieces, layout.offsets, strict=True):
            storage.offset = offset
            made = storage.base.op
            assert made is not None
            made.set_attr("offset", offset)
        self.arena.type = BufferType(u8, (layout.arena,))
        self.weights.type = BufferType(u8, (self.weight_bytes,))
        for view in reversed(self._views):
            if not view.result.users:
                view.set_operands(())  # never looked through
        first: Op | None = self.func.body.first
        for view in self._views:
            if view.result.users:
                self.func.body.insert_before(view, first)
        return layout


__all__ = ["ALIGN", "Memory", "Place", "Storage", "buffer_type", "bytes_of"]
