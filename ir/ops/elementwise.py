"""Elementwise ops.  Each works on tensors (with numpy broadcasting), scalars and vectors.

This file holds the base classes and the arithmetic; elementwise_math.py holds the functions.
Imports: the core, types, dims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Bool, Builder, Number, Op, Plain, Value, attr, operand, sample
from ..dims import DimLike, equal
from ..errors import Error
from ..types import DType, Shape, TensorType, Type, boolean, element, like
from .core import generic, indices, iterators


def broadcast(*shapes: Shape) -> Shape:
    """The numpy broadcast of these shapes; E0310 where two extents differ and neither is 1.

    Extents that cannot be compared (two symbols) are taken as equal and checked at run time.
    """
    rank = max([len(s) for s in shapes], default=0)
    out: list[DimLike] = [1] * rank
    for shape in shapes:
        for k, extent in enumerate(shape, rank - len(shape)):
            have = out[k]
            if have is extent or (type(extent) is int and extent == 1):
                continue
            if type(have) is int and have == 1:
                out[k] = extent
            elif equal(have, extent) is False:
                raise Error("E0310", "shapes do not broadcast",
                            details=(" with ".join(f"[{', '.join(map(str, s))}]" for s in shapes),
                                     f"extents {have} and {extent} differ and neither is 1"))  # fmt: skip
            elif type(have) is not int:
                out[k] = extent if type(extent) is int else have
    return tuple(out)


def broadcast_type(types: Sequence[Type], dtype: DType) -> Type:
    """The result type of an elementwise op: broadcast tensors, or the scalar or vector type itself."""
    first = types[0]
    if isinstance(first, TensorType):
        return TensorType(dtype, broadcast(*[t.shape for t in types]))  # type: ignore[attr-defined]
    for other in types[1:]:
        if like(other, dtype) is not like(first, dtype):
            raise Error("E0311", "scalar and vector operands must have one shape", details=(f"{first} and {other}",))
    return like(first, dtype)


def broadcast_map(shape: Shape, out: Shape, index: Sequence[DimLike]) -> tuple[DimLike, ...]:
    """Where an operand of `shape` is read for the element `index` of a result of shape `out`."""
    skip = len(out) - len(shape)
    return tuple([0 if type(e) is int and e == 1 else index[skip + k] for k, e in enumerate(shape)])


class _Elementwise(Op):
    """Base: all operands of one element type, which is the result's (C1), shapes broadcast (C2)."""

    result_dtype: ClassVar[DType | None] = None

    @classmethod
    def infer(cls, *types: Type, **attrs: Any) -> Type:
        first = types[0]
        dtype = element(first)
        for other in types[1:]:
            if other is not first and element(other) is not dtype:
                raise Error("E0303", f"{cls.name} (C1): operands must have one element type",
                            details=(f"found {', '.join(map(str, types))}",), hint="cast one of them")  # fmt: skip
        out = cls.result_dtype or dtype
        if len(types) == 1:
            return like(first, out)
        return broadcast_type(types, out)

    def generic(self, b: Builder, *xs: Value) -> Any:
        """One parallel iterator per dimension of the result; the body is this op on scalars."""
        out = self.result.tensor
        its = iterators("i", out.shape)
        index = indices(its)
        maps = [broadcast_map(x.tensor.shape, out.shape, index) for x in xs]
        return generic(b, xs, its, maps, [index], [out], lambda b, *s: b.emit(type(self), *s, **self.scalar_attributes))

    @property
    def scalar_attributes(self) -> dict[str, Any]:
        """The attributes of the same op on scalars."""
        return self.attributes


class _Binary(_Elementwise):
    x = operand(Number)
    y = operand(Number)
    samples = (sample((3, 5), (3, 5)), sample((4, 1, 3), (2, 1)), sample((), (7,)), sample((0, 3), (3,)))


class Add(_Binary):
    """x + y; integers wrap."""

    evaluate: ClassVar[Callable[..., Array]] = staticmethod(np.add)


class Cast(Op):
    """x converted to the element type `to`: floats round to nearest even, float to integer truncates and
    saturates, NaN becomes 0; to bool, anything but 0 is true."""

    x = operand(Plain)
    to = attr(DType)

    @staticmethod
    def infer(x: Type, to: DType) -> Type:
        return like(x, to)
