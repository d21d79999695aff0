"""How element types, constants and names read in C99.

In registers f16 and bf16 are floats that hold a representable value, an odd integer the next
wider one, always normalised; in memory f16 and bf16 are uint16_t, a bool is a byte, integers
below 8 bits are packed.
Imports: ir types and errors.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from ...ir.errors import UnsupportedError
from ...ir.types import DType, bf16, boolean, f16, f32, f64

_KEYWORDS = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if "
    "inline int long register restrict return short signed sizeof static struct switch "
    "typedef union unsigned void volatile while bool true false ctx status main asm class "
    "delete export new operator private public template this throw try catch using virtual "
    "namespace not and or xor int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t "
    "size_t ptrdiff_t INFINITY NAN NULL".split()
)


def width(dtype: DType) -> int:
    """Bits of the C integer that holds one element of an integer type."""
    return max(8, 1 << (dtype.bits - 1).bit_length())


def register_type(dtype: DType) -> str:
    """The type of a local variable."""
    if dtype.is_float and dtype.bits >= 16:
        return "double" if dtype is f64 else "float"
    if dtype is boolean:
        return "bool"
    if dtype.is_integer:
        return f"{'u' if dtype.kind == 'uint' else ''}int{width(dtype)}_t"
    raise UnsupportedError("E0430", f"C kernels have no arithmetic on {dtype}", hint="cast to f32")


def memory_type(dtype: DType) -> str:
    """The element type of an array in memory."""
    if dtype is f16 or dtype is bf16:
        return "uint16_t"
    if dtype is boolean or packed_bits(dtype):
        return "uint8_t"
    return register_type(dtype)


def packed_bits(dtype: DType) -> int:
    """Bits of an element of a packed integer type; 0 for types that fill bytes."""
    if dtype.is_integer and dtype.bits < 8:
        return 1 << (dtype.bits - 1).bit_length()
    return 0


def literal(value: Any, dtype: DType) -> str:
    """A constant, exact: shortest decimals that read back, or INFINITY and NAN."""
    if dtype is boolean:
        return "true" if value else "false"
    if dtype.is_float:
        return _float(value, dtype)
    value = int(value)
    if dtype.bits > 32:
        suffix = "u" if dtype.kind == "uint" else ""
        if value == -(1 << 63):
            return "INT64_MIN"
        return f"{'U' if suffix else ''}INT64_C({value})"
    if value == -(1 << 31):
        return "INT32_MIN"
    return f"{value}u" if dtype.bits == 32 and dtype.kind == "uint" else str(value)


def _float(value: Any, dtype: DType) -> str:
    with np.errstate(over="ignore"):
        rounded = np.asarray(value).astype(dtype.np)
    wide = np.float64(rounded) if dtype is f64 else np.float32(rounded)
    if math.isinf(wide):
        return "INFINITY" if wide > 0 else "-INFINITY"
    if math.isnan(wide):
        return "NAN"
    text = str(wide)
    return text if dtype is f64 else text + "f"


def identifier(name: str, taken: set[str]) -> str:
    """A C name like `name` that is in no scope yet; it is added to `taken`."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "v"
    if plain[0].isdigit() or plain in _KEYWORDS or plain.startswith(("irc_", "_")):
        plain = "x" + plain
    known, count = plain, 1
    while known in taken:
        count += 1
        known = f"{plain}_{count}"
    taken.add(known)
    return known


__all__ = [
    "f32",
    "identifier",
    "literal",
    "memory_type",
    "packed_bits",
    "register_type",
    "width",
]
