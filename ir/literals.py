"""The text of attribute values (numbers, strings, dims, types, tuples, constants), exact both ways.

Imports: types, dims, blobs, errors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .blobs import Blob
from .dims import Dim
from .errors import Error
from .types import DType, TensorType, Type

DENSE_LIMIT = 16
"""Constants of at most this many elements stand in the text, larger ones beside it."""
WORDS: dict[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "inf": math.inf,
    "nan": math.nan,
}


def is_small(blob: Blob) -> bool:
    """Its elements stand in the text itself."""
    if math.prod(blob.type.shape) > DENSE_LIMIT:
        return False
    return blob.dtype.kind != "string" or all([type(x) is str for x in blob.array.flat])


def quoted(text: str) -> str:
    """A JSON string."""
    return json.dumps(text)


def attribute_text(value: Any, declared: Any = object, result: Type | None = None) -> str:
    """The text of an attribute value.

    `declared` is the attribute's type: where it is a class of types the value prints bare.
    `result` is the type of the op's only result, which a constant of that type need not repeat.
    """
    writer = _WRITERS.get(type(value))
    if writer is not None:
        return writer(value)
    if isinstance(value, Dim):
        text = str(value)
        return f"({text})" if text.removeprefix("-") in WORDS else text
    if isinstance(value, Type):
        return (
            value.text
            if isinstance(declared, type) and issubclass(declared, Type)
            else "!" + value.text
        )
    if isinstance(value, tuple):
        return f"[{', '.join([attribute_text(v) for v in value])}]"
    if isinstance(value, Blob):
        return _blob_text(value, result)
    raise Error(
        "E0241",
        f"an attribute of type {type(value).__name__} has no text",
        details=(repr(value)[:200],),
    )


def _float_text(value: float) -> str:
    return "nan" if value != value else repr(value)


def _complex_text(value: complex) -> str:
    return f"complex<{_float_text(value.real)}, {_float_text(value.imag)}>"


_WRITERS: dict[type, Callable[[Any], str]] = {
    int: str,
    str: quoted,
    float: _float_text,
    complex: _complex_text,
    bool: lambda value: "true" if value else "false",
    type(None): lambda value: "none",
}


def _blob_text(blob: Blob, result: Type | None) -> str:
    if not is_small(blob):
        return f"@blob:{blob.digest[:16]}"
    inside = _elements_text(blob)
    return f"dense<{inside}>" if blob.type is result else f"dense<{blob.type.text}, {inside}>"


def _elements_text(blob: Blob) -> str:
    """`[1, 2, 3]`, or the bytes in hex where numbers would lose something (NaNs, complex)."""
    array, kind = blob.array.reshape(-1), blob.dtype.kind
    with np.errstate(all="ignore"):  # ml_dtypes warns about the very NaN that is asked for
        exact = kind != "complex" and not (kind == "float" and bool(np.isnan(array).any()))
    if not exact:
        return quoted(array.tobytes().hex())
    if kind == "float":
        parts = [_element_text(x) for x in array]
    elif kind == "string":
        parts = [quoted(x) for x in array]
    elif kind == "bool":
        parts = ["true" if x else "false" for x in array]
    else:
        parts = [str(int(x)) for x in array]
    return f"[{', '.join(parts)}]"


def _element_text(x: Any) -> str:
    """The shortest digits that give `x` back in its own type."""
    short = str(x)
    return repr(float(short)) if type(x)(float(short)) == x else repr(float(x))


def dense(type: TensorType, elements: Sequence[Any] | str) -> Blob:
    """The constant that `dense<elements>` says; a ValueError or its like for wrong elements."""
    dtype: DType = type.dtype
    if isinstance(elements, str):
        array = np.frombuffer(bytes.fromhex(elements), dtype.np)
    elif dtype.kind == "string":
        if not all([isinstance(x, str) for x in elements]):
            raise ValueError("elements must be strings")
        array = np.array(elements, object)
    elif dtype.kind == "bool":
        if not all([isinstance(x, bool) for x in elements]):
            raise ValueError("elements must be true or false")
        array = np.array(elements, np.bool_)
    elif dtype.is_integer:
        low = -(1 << (dtype.bits - 1)) if dtype.kind == "int" else 0
        if not all([isinstance(x, int) and low <= x < low + (1 << dtype.bits) for x in elements]):
            raise ValueError(f"elements must be integers that fit {dtype}")
        array = np.array(elements, np.uint64 if dtype.kind == "uint" else np.int64).astype(dtype.np)
    else:
        wide = np.array([float(x) for x in elements], np.float64)
        with np.errstate(all="ignore"):
            array = wide.astype(dtype.np)
            if not np.array_equal(np.isfinite(array), np.isfinite(wide)):
                raise ValueError(f"an element is too large for {dtype}")
    return Blob(array.reshape(type.shape), type)


__all__ = ["DENSE_LIMIT", "WORDS", "attribute_text", "dense", "is_small", "quoted"]
