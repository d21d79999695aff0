"""Values while importing: an IR value, or something known that becomes one when it is needed.

`known` holds the elements of a small integer, bool or constant tensor: numbers, or, in an object
array, dim expressions.  This is how shape arithmetic disappears.  Imports: ir.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.blobs import Blob
from ...ir.core import Builder, Loc, Value
from ...ir.dims import Dim
from ...ir.ops.core import Const
from ...ir.types import DType, TensorType

Array = np.ndarray[Any, Any]
KNOWN_LIMIT = 4096
"""Elements of the largest tensor whose value is followed while importing."""


@dataclass(slots=True, eq=False)
class Item:
    """One value of the ONNX graph; `home` builds where it is made, for inner graphs too."""

    type: TensorType
    home: Builder
    origin: str = ""
    blob: Blob | None = None
    elements: Array | None = None
    made: Value | None = None
    loc: Loc | None = None
    """Where the constant comes from, if not from the node that first uses it."""

    @property
    def known(self) -> Array | None:
        """The elements, if they are known and few."""
        if self.elements is None and self.blob is not None:
            if self.blob.type.size <= KNOWN_LIMIT:
                self.elements = self.blob.array
        few = self.elements is not None and self.elements.size <= KNOWN_LIMIT
        return self.elements if few else None

    @property
    def value(self) -> Value:
        """The IR value, made on first use."""
        if self.made is None:
            if self.blob is None:
                assert self.elements is not None
                if self.elements.dtype == object and self.type.dtype.kind != "string":
                    self.made = _dims_value(self.home, self.elements, self.type.dtype)
                    return self.made
                self.blob = Blob(self.elements, self.type)
            self.made = self.home.insert(Const(self.blob, loc=self.loc)).result
        return self.made


def item_of(value: Value, home: Builder, origin: str = "") -> Item:
    """An item for a value that exists."""
    return Item(value.tensor, home, origin, made=value)


def known_item(elements: Array, dtype: DType, home: Builder, origin: str = "") -> Item:
    """An item for known elements; dim expressions that are all numbers become numbers."""
    elements = np.asarray(elements)
    if elements.dtype == object and dtype.kind != "string":
        if not any(isinstance(e, Dim) for e in elements.flat):
            elements = elements.astype(dtype.np)
    elif dtype.kind != "string":
        elements = elements.astype(dtype.np, copy=False)
    return Item(TensorType(dtype, elements.shape), home, origin, elements=elements)


def is_symbolic(elements: Array) -> bool:
    """Some element is a dim expression."""
    return elements.dtype == object and any(isinstance(e, Dim) for e in elements.flat)


def _dims_value(b: Builder, elements: Array, dtype: DType) -> Value:
    """Dim expressions as a tensor: one `dim_value` each."""
    parts = [b.dim_value(dim=e, dtype=dtype) for e in elements.flat]
    if elements.ndim == 0:
        return parts[0]
    rows = [b.reshape(p, shape=(1,)) for p in parts]
    flat = rows[0] if len(rows) == 1 else b.concat(*rows, axis=0)
    return flat if elements.ndim == 1 else b.reshape(flat, shape=elements.shape)


__all__ = ["KNOWN_LIMIT", "Array", "Item", "is_symbolic", "item_of", "known_item"]
