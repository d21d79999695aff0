"""Types: element types, tensors, buffers, vectors and the host-only kinds.

Every type is immutable and interned, so equality is `is`; its printed text is made once.  An
element type is itself the type of a scalar value.  Types never carry scales: quantization is an op.
Imports: dims and errors only.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import ml_dtypes
import numpy as np

from .dims import Dim, DimLike, parse_dim
from .errors import Error

Shape = tuple[DimLike, ...]


class Type:
    """Base of all types.  `text` is the printed form; `parse_type` reads it back."""

    __slots__ = ("__weakref__", "text")
    text: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Any, ...]:
        return parse_type, (self.text,)


class DType(Type):
    """An element type; also the type of one scalar.  `kind` is float, int, uint, bool, complex or
    string.
    """

    __slots__ = ("bits", "kind", "name", "np")
    name: str
    kind: str
    bits: int
    np: np.dtype[Any]
    pool: ClassVar[dict[str, DType]] = {}

    def __new__(cls, name: str) -> DType:
        known = cls.pool.get(name)
        if known is None:
            known = _make_dtype(name)
            cls.pool[name] = known
        return known

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        """Signed or unsigned integer (a bool is not one)."""
        return self.kind in ("int", "uint")

    @property
    def bytes(self) -> int:
        """Bytes of one element when stored alone (sub-byte types: 1)."""
        return max(1, self.bits // 8)


_FLOATS = {
    "f64": (64, np.float64),
    "f32": (32, np.float32),
    "f16": (16, np.float16),
    "bf16": (16, ml_dtypes.bfloat16),
    "f8e4m3fn": (8, ml_dtypes.float8_e4m3fn),
    "f8e5m2": (8, ml_dtypes.float8_e5m2),
    "f8e4m3fnuz": (8, ml_dtypes.float8_e4m3fnuz),
    "f8e5m2fnuz": (8, ml_dtypes.float8_e5m2fnuz),
    "f4e2m1": (4, ml_dtypes.float4_e2m1fn),
}
_SMALL_INTS = {
    "i4": ml_dtypes.int4,
    "u4": ml_dtypes.uint4,
    "i2": ml_dtypes.int2,
    "u2": ml_dtypes.uint2,
}


def _make_dtype(name: str) -> DType:
    """Build the element type called `name`; odd integer widths are held in the next wider numpy
    type.
    """
    if name in _FLOATS:
        kind, (bits, storage) = "float", _FLOATS[name]
    elif name == "bool":
        kind, bits, storage = "bool", 8, np.bool_
    elif name in ("c64", "c128"):
        kind, bits, storage = (
            "complex",
            int(name[1:]),
            np.complex64 if name == "c64" else np.complex128,
        )
    elif name == "string":
        kind, bits, storage = "string", 64, np.object_
    elif name[:1] in "iu" and name[1:].isdigit() and 1 <= int(name[1:]) <= 64 and name[1] != "0":
        kind, bits = ("int" if name[0] == "i" else "uint"), int(name[1:])
        wide = max(8, 1 << (bits - 1).bit_length())
        storage = _SMALL_INTS.get(name) or np.dtype(f"{name[0]}{wide // 8}")
    else:
        raise Error(
            "E0201", f"'{name}' is not an element type", hint="f32, bf16, i8, u4, bool, ..."
        )
    made = object.__new__(DType)
    made.text = made.name = name
    made.kind, made.bits, made.np = kind, bits, np.dtype(storage)
    return made


f64, f32, f16, bf16 = DType("f64"), DType("f32"), DType("f16"), DType("bf16")
i64, i32, i16, i8, i4 = DType("i64"), DType("i32"), DType("i16"), DType("i8"), DType("i4")
u64, u32, u16, u8, u4 = DType("u64"), DType("u32"), DType("u16"), DType("u8"), DType("u4")
boolean, string = DType("bool"), DType("string")
c64, c128 = DType("c64"), DType("c128")

_BY_NUMPY = {
    DType(name).np: DType(name)
    for name in (
        *_FLOATS,
        "i64",
        "i32",
        "i16",
        "i8",
        "i4",
        "i2",
        "u64",
        "u32",
        "u16",
        "u8",
        "u4",
        "u2",
        "bool",
        "c64",
        "c128",
    )
}


def from_numpy(dtype: Any) -> DType:
    """The element type whose arrays have this numpy dtype (strings of any width are `string`)."""
    dtype = np.dtype(dtype)
    known = _BY_NUMPY.get(dtype)
    if known is not None:
        return known
    if dtype.kind in "OSU" or dtype.kind == "T":
        return string
    raise Error("E0202", f"arrays of numpy dtype {dtype} have no element type here")


def dims_text(shape: Shape) -> str:
    """`4, N, 3`: the inside of a shape's brackets."""
    return ", ".join([str(d) for d in shape])


class TensorType(Type):
    """A tensor value: `f32[N, 3]`; `shape` is None where even the rank is unknown (`f32[*]`, host
    only).
    """

    __slots__ = ("dtype", "shape")
    dtype: DType
    shape: Shape
    pool: ClassVar[dict[tuple[DType, Shape | None], TensorType]] = {}

    def __new__(cls, dtype: DType, shape: Shape | None) -> TensorType:
        key = (dtype, shape)
        known = cls.pool.get(key)
        if known is None:
            known = object.__new__(cls)
            known.dtype = dtype
            known.shape = shape  # type: ignore[assignment]  # None only on the host, which checks `ranked`
            known.text = f"{dtype.text}[{'*' if shape is None else dims_text(shape)}]"
            cls.pool[key] = known
        return known

    @property
    def ranked(self) -> bool:
        return self.shape is not None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        """All extents are plain integers."""
        return self.shape is not None and all([type(d) is int for d in self.shape])

    @property
    def size(self) -> DimLike:
        """Number of elements (an expression when a dim is symbolic)."""
        return math.prod(self.shape)


class BufferType(Type):
    """Memory with a shape: `buffer<f32[16, N], heap>`.

    `space` is heap (arguments and planned memory), stack, register, tile, fragment, shared, bram or
    stream; `strides`, in elements, is None for dense row-major.
    """

    __slots__ = ("dtype", "shape", "space", "strides")
    dtype: DType
    shape: Shape
    space: str
    strides: Shape | None
    pool: ClassVar[dict[Any, BufferType]] = {}

    def __new__(
        cls, dtype: DType, shape: Shape, space: str = "heap", strides: Shape | None = None
    ) -> BufferType:
        key = (dtype, shape, space, strides)
        known = cls.pool.get(key)
        if known is None:
            known = object.__new__(cls)
            known.dtype, known.shape, known.space, known.strides = dtype, shape, space, strides
            tail = "" if strides is None else f", strides=[{dims_text(strides)}]"
            known.text = f"buffer<{dtype.text}[{dims_text(shape)}], {space}{tail}>"
            cls.pool[key] = known
        return known

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def element_strides(self) -> Shape:
        """Strides in elements, the dense ones where none are stated."""
        return self.strides if self.strides is not None else dense_strides(self.shape)

    @property
    def size(self) -> DimLike:
        """Number of elements."""
        return math.prod(self.shape)


def dense_strides(shape: Shape) -> Shape:
    """Row-major strides, in elements."""
    strides: list[DimLike] = []
    step: DimLike = 1
    for extent in reversed(shape):
        strides.append(step)
        step = step * extent
    return tuple(reversed(strides))


class VectorType(Type):
    """A register of `lanes` scalars: `vec<f32, 16>` (kernel level only)."""

    __slots__ = ("dtype", "lanes")
    dtype: DType
    lanes: int
    pool: ClassVar[dict[tuple[DType, int], VectorType]] = {}

    def __new__(cls, dtype: DType, lanes: int) -> VectorType:
        known = cls.pool.get((dtype, lanes))
        if known is None:
            known = object.__new__(cls)
            known.dtype, known.lanes = dtype, lanes
            known.text = f"vec<{dtype.text}, {lanes}>"
            cls.pool[dtype, lanes] = known
        return known


class TokenType(Type):
    """Orders effects; has no value."""

    __slots__ = ()
    only: ClassVar[TokenType | None] = None

    def __new__(cls) -> TokenType:
        if cls.only is None:
            cls.only = object.__new__(cls)
            cls.only.text = "token"
        return cls.only


class SequenceType(Type):
    """A list of values of one type (host only): `seq<f32[N]>`."""

    __slots__ = ("element",)
    element: Type
    pool: ClassVar[dict[Type, SequenceType]] = {}

    def __new__(cls, element: Type) -> SequenceType:
        known = cls.pool.get(element)
        if known is None:
            known = object.__new__(cls)
            known.element, known.text = element, f"seq<{element.text}>"
            cls.pool[element] = known
        return known


class OptionalType(Type):
    """A value that may be absent (host only): `opt<f32[N]>`."""

    __slots__ = ("element",)
    element: Type
    pool: ClassVar[dict[Type, OptionalType]] = {}

    def __new__(cls, element: Type) -> OptionalType:
        known = cls.pool.get(element)
        if known is None:
            known = object.__new__(cls)
            known.element, known.text = element, f"opt<{element.text}>"
            cls.pool[element] = known
        return known


def element(type: Type) -> DType:
    """The element type of a scalar, tensor, buffer or vector type."""
    if isinstance(type, DType):
        return type
    return type.dtype  # type: ignore[attr-defined,no-any-return]


def like(type: Type, dtype: DType) -> Type:
    """The same shape (scalar, vector or tensor) with another element type."""
    if isinstance(type, TensorType):
        return TensorType(dtype, type.shape)
    if isinstance(type, VectorType):
        return VectorType(dtype, type.lanes)
    return dtype


def split_commas(text: str) -> list[str]:
    """Split at the commas that stand outside brackets; empty text gives no parts."""
    parts: list[str] = []
    depth = start = 0
    for at, char in enumerate(text):
        if char in "([<{":
            depth += 1
        elif char in ")]>}":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    last = text[start:].strip()
    return [*parts, last] if last or parts else []


_parsed: dict[str, Type] = {}


def parse_type(text: str) -> Type:
    """The type whose printed form is `text`; raises `Error` E0203 otherwise."""
    known = _parsed.get(text)
    if known is None:
        known = _parse_type(text.strip())
        if len(_parsed) < 100_000:
            _parsed[text] = known
    return known


def _parse_shape(text: str) -> Shape:
    shape = tuple([parse_dim(part) for part in split_commas(text)])
    if any([type(extent) is int and extent < 0 for extent in shape]):
        raise Error("E0203", f"[{text}] has a negative extent")
    return shape


def _parse_type(text: str) -> Type:
    if text.endswith("]") and "[" in text and "<" not in text:
        name, inside = text[:-1].split("[", 1)
        return TensorType(DType(name), None if inside.strip() == "*" else _parse_shape(inside))
    if text == "token":
        return TokenType()
    if text.endswith(">") and "<" in text:
        head, inside = text[:-1].split("<", 1)
        parts = split_commas(inside)
        if head == "seq" and len(parts) == 1:
            return SequenceType(parse_type(parts[0]))
        if head == "opt" and len(parts) == 1:
            return OptionalType(parse_type(parts[0]))
        if head == "vec" and len(parts) == 2:
            return VectorType(DType(parts[0]), int(parts[1]))
        if head == "buffer" and len(parts) >= 2:
            tensor = parse_type(parts[0])
            strides = (
                _parse_shape(parts[2].removeprefix("strides=[")[:-1]) if len(parts) > 2 else None
            )
            assert isinstance(tensor, TensorType)
            return BufferType(tensor.dtype, tensor.shape, parts[1], strides)
        raise Error("E0203", f"'{text}' is not a type")
    return DType(text)


__all__ = [
    "BufferType",
    "DType",
    "Dim",
    "OptionalType",
    "SequenceType",
    "Shape",
    "TensorType",
    "TokenType",
    "Type",
    "VectorType",
    "bf16",
    "boolean",
    "c64",
    "c128",
    "dense_strides",
    "dims_text",
    "element",
    "f16",
    "f32",
    "f64",
    "from_numpy",
    "i4",
    "i8",
    "i16",
    "i32",
    "i64",
    "like",
    "parse_type",
    "split_commas",
    "string",
    "u4",
    "u8",
    "u16",
    "u32",
    "u64",
]
