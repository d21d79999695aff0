"""Element types as users name them, and what two of them become together.

Promotion is by kind, then by width: bool below integers below floats; an integer with a float takes
the float's type (not a wider one, unlike numpy), two floats or two integers the wider, bf16 with
f16 f32, u8 with i8 i16.  Python numbers are weak: they take the tensor's type where its kind holds
them, else f32 or i64.  May import: ir.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.errors import Error
from ...ir.types import (
    DType,
    bf16,
    boolean,
    f16,
    f32,
    f64,
    from_numpy,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
)

_ALIASES = {
    "float": f32, "float32": f32, "float64": f64, "double": f64, "float16": f16, "half": f16,
    "bfloat16": bf16, "int": i64, "int64": i64, "long": i64, "int32": i32, "int16": i16,
    "int8": i8, "uint8": u8, "uint16": u16, "uint32": u32, "uint64": u64, "boolean": boolean,
}  # fmt: skip
_PYTHON = {float: f32, int: i64, bool: boolean}
_RANK = {"bool": 0, "uint": 1, "int": 1, "float": 2, "complex": 3, "string": 4}
_PROMOTED: dict[tuple[DType, DType], DType] = {}


def as_dtype(given: Any) -> DType:
    """An element type from itself, its name ("f32", "float32"), a numpy, torch or Python type.

    E0611 for what names none.
    """
    if isinstance(given, DType):
        return given
    if isinstance(given, type) and given in _PYTHON:
        return _PYTHON[given]
    name = given if isinstance(given, str) else str(given)
    name = name.removeprefix("torch.")
    if name in _ALIASES:
        return _ALIASES[name]
    try:
        return DType(name) if isinstance(given, str) else from_numpy(given)
    except (Error, TypeError):
        raise Error(
            "E0611", f"{given!r} names no element type", hint="f32, bf16, i64, bool, float32, ..."
        ) from None


def promoted(x: DType, y: DType) -> DType:
    """The element type that two tensors are computed in together."""
    if x is y:
        return x
    known = _PROMOTED.get((x, y))
    if known is None:
        known = _PROMOTED[x, y] = _promoted(x, y)
    return known


def _promoted(x: DType, y: DType) -> DType:
    if _RANK[x.kind] != _RANK[y.kind]:
        return x if _RANK[x.kind] > _RANK[y.kind] else y
    if x.kind != y.kind:  # signed with unsigned
        signed, other = (x, y) if x.kind == "int" else (y, x)
        return signed if signed.bits > other.bits else DType(f"i{min(64, 2 * other.bits)}")
    if x.bits != y.bits:
        return x if x.bits > y.bits else y
    return f32  # bf16 with f16, and the f8 types among themselves


def weak(value: Any, dtype: DType) -> DType:
    """The element type in which a Python number is computed with a tensor of `dtype`."""
    if isinstance(value, (bool, np.bool_)) or dtype.kind in ("float", "complex"):
        return dtype
    if isinstance(value, (int, np.integer)):
        return i64 if dtype.kind == "bool" else dtype
    return f32


__all__ = ["as_dtype", "promoted", "weak"]
