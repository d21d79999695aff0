"""How types and constants read in LLVM text.

In registers a bool is i1, bf16 is i16 (arithmetic goes through float, so that no target needs a
library call), a sub-byte integer is iN; in memory a bool is one byte, an odd integer the next
wider one.
Imports: ir types and errors.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

import numpy as np

from ...ir.errors import UnsupportedError
from ...ir.types import DType, Type, VectorType, bf16, boolean, f16, f32, f64

_FLOATS = {f64: "double", f32: "float", f16: "half", bf16: "i16"}
_SUFFIX = {f64: "f64", f32: "f32", f16: "f16"}
_text: dict[Type, str] = {}


@functools.cache
def scalar_text(dtype: DType) -> str:
    """The register type of one element; E0420 for types that no register holds."""
    if dtype in _FLOATS:
        return _FLOATS[dtype]
    if dtype.is_integer:
        return f"i{dtype.bits}"
    if dtype is boolean:
        return "i1"
    raise UnsupportedError("E0420", f"kernels have no arithmetic on {dtype}", hint="cast to f32")


def type_text(type: Type) -> str:
    """The register type of a scalar or vector."""
    known = _text.get(type)
    if known is None:
        if isinstance(type, VectorType):
            known = f"<{type.lanes} x {scalar_text(type.dtype)}>"
        else:
            assert isinstance(type, DType)
            known = scalar_text(type)
        _text[type] = known
    return known


@functools.cache
def memory_bits(dtype: DType) -> int:
    """Bits that one element takes in a buffer: below 8 for packed integers."""
    if dtype is boolean:
        return 8
    if dtype.is_integer and dtype.bits < 8:
        return 1 << (dtype.bits - 1).bit_length()
    return max(8, 1 << (dtype.bits - 1).bit_length())


@functools.cache
def memory_text(dtype: DType) -> str:
    """The type that loads and stores of one element name."""
    return _FLOATS.get(dtype) or f"i{max(8, memory_bits(dtype))}"


@functools.cache
def suffix(type: Type) -> str:
    """The part of an intrinsic's name that says the type: v16f32, i32."""
    lanes = f"v{type.lanes}" if isinstance(type, VectorType) else ""
    dtype = type.dtype if isinstance(type, VectorType) else type
    assert isinstance(dtype, DType)
    return lanes + (_SUFFIX.get(dtype) or scalar_text(dtype))


def literal(value: Any, dtype: DType) -> str:
    """A constant of the register type, exact; the number is rounded to `dtype` first."""
    if dtype is boolean:
        return "true" if value else "false"
    if not dtype.is_float:
        return str(int(value))
    with np.errstate(over="ignore"):
        rounded = np.asarray(value).astype(dtype.np)
    if dtype is bf16:
        return str(int(rounded.view(np.int16)))
    if dtype is f16:
        return f"0xH{int(rounded.view(np.uint16)):04X}"
    if dtype is f32 or dtype is f64:
        return f"0x{struct.unpack('<Q', struct.pack('<d', float(rounded)))[0]:016X}"
    raise UnsupportedError("E0420", f"kernels have no constants of type {dtype}")


def constant(value: Any, type: Type) -> str:
    """A constant of a scalar or, in every lane, of a vector type."""
    if isinstance(type, VectorType):
        return f"splat ({scalar_text(type.dtype)} {literal(value, type.dtype)})"
    assert isinstance(type, DType)
    return literal(value, type)


__all__ = [
    "constant",
    "literal",
    "memory_bits",
    "memory_text",
    "scalar_text",
    "suffix",
    "type_text",
]
