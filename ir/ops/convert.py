"""Conversions between element types on numpy arrays, each rounding once: the semantics of `cast`.

Floats round to nearest even.  ml_dtypes converts f64 to a narrow type through f32, which would
round twice, so such values first go to f32 rounded to odd (Boldo and Melquiond, 2008). Imports:
types only.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from ..types import DType, f32, from_numpy, i8, i64, u8, u64

Array = np.ndarray[Any, Any]


def compute_dtype(dtype: DType) -> DType:
    """The type in which `evaluate` computes: at least f32, at least a byte."""
    if dtype.is_float:
        return f32 if dtype.bits < 32 else dtype
    if dtype.bits < 8 and dtype.is_integer:
        return i8 if dtype.kind == "int" else u8
    return dtype


def widen(x: Array) -> Array:
    """`x` in its compute type (exact)."""
    if x.dtype.isbuiltin == 1 and x.dtype != np.float16:
        return x
    return x.astype(compute_dtype(from_numpy(x.dtype)).np)


def lowest(dtype: DType) -> float | int:
    """The least value: minus infinity, the least finite float where there is none, the least
    integer.
    """
    if dtype.is_float:
        with np.errstate(all="ignore"):
            least = float(np.float32(-np.inf).astype(dtype.np))
        return least if least == -np.inf else float(ml_dtypes.finfo(dtype.np).min)  # type: ignore[no-untyped-call]
    if dtype.kind == "bool":
        return 0
    return 0 if dtype.kind == "uint" else -(1 << (dtype.bits - 1))


def highest(dtype: DType) -> float | int:
    """The greatest value, as `lowest`."""
    if dtype.is_float:
        return -lowest(dtype)
    if dtype.kind == "bool":
        return 1
    return (1 << (dtype.bits - (dtype.kind == "int"))) - 1


def odd_f32(x: Array) -> Array:
    """f64 to f32, rounded to odd: a later rounding to a narrower type is as if done at once."""
    near = np.asarray(x.astype(np.float32))
    wrong = (near != x) & ~np.isnan(x) & ((near.view(np.int32) & 1) == 0)
    side = np.where(near < x, np.float32(np.inf), np.float32(-np.inf))
    return np.where(wrong, np.nextafter(near, side), near)


def odd_sum(a: Array, b: Array) -> Array:
    """a + b in f64, rounded to odd."""
    total = np.asarray(a + b)
    part = total - a
    error = (a - (total - part)) + (b - part)
    wrong = (error != 0) & np.isfinite(total) & ((total.view(np.int64) & 1) == 0)
    side = np.where(error > 0, np.inf, -np.inf)
    return np.where(wrong, np.nextafter(total, side), total)


def round_float(x: Array, to: DType) -> Array:
    """Floats to a float type, rounded once to nearest even; overflow as the type has it."""
    if x.dtype == to.np:
        return x
    with np.errstate(all="ignore"):
        if x.dtype == np.float64 and to.np.isbuiltin != 1:
            x = odd_f32(x)
        elif x.dtype.isbuiltin != 1 or (x.dtype == np.float16 and to.np.isbuiltin != 1):
            x = x.astype(np.float32)
        return x.astype(to.np)


def _float_to_int(x: Array, to: DType) -> Array:
    x = np.trunc(widen(x).astype(np.float64))
    high = x >= float(highest(to)) + (1 if to.bits < 53 else 0)
    low = x < float(lowest(to))
    wide = u64.np if to.kind == "uint" else i64.np
    inside = np.where(high | low | np.isnan(x), 0, x).astype(wide)
    return np.where(
        high, wide.type(highest(to)), np.where(low, wide.type(lowest(to)), inside)
    ).astype(to.np)


def _int_to_float(x: Array, to: DType) -> Array:
    x = widen(x)
    if to.np.isbuiltin == 1 and to.bits >= 32:
        return x.astype(to.np)
    if x.dtype.itemsize == 8:  # 53 bits and a sticky one: exact in f64
        sticky = ((x & 0x7FF) != 0) & (np.abs(x.astype(np.float64)) >= 2.0**53)
        x = np.where(sticky, (x & ~x.dtype.type(0x7FF)) | x.dtype.type(0x800), x)
    return round_float(x.astype(np.float64), to)


def convert(x: Array, to: DType) -> Array:
    """`x` in element type `to`, by the rules of the op `cast`."""
    source = from_numpy(x.dtype)
    x = np.asarray(x)
    if source is to:
        return x
    with np.errstate(all="ignore"):
        if to.kind == "bool":
            return np.not_equal(widen(x), 0)
        if to.kind == "complex" or source.kind == "complex":
            return widen(x).astype(to.np)
        if source.is_float:
            return round_float(x, to) if to.is_float else _float_to_int(x, to)
        if to.is_float:
            return _int_to_float(x.astype(np.uint8) if source.kind == "bool" else x, to)
        return widen(x).astype(compute_dtype(to).np).astype(to.np)


__all__ = [
    "compute_dtype", "convert", "highest", "lowest", "odd_f32", "odd_sum", "round_float", "widen",
]  # fmt: skip
