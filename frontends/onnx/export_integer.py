"""Products of integers less their zero points: MatMulInteger and ConvInteger.

The importer says such a product in i32; here the operands of 8 bits are found again.
Imports: the graph being written, ir.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...ir.blobs import Blob
from ...ir.core import Op, Value
from ...ir.ops.core import Const
from ...ir.types import DType, i8, i32, u8
from .export_compute import conv_attrs
from .export_graph import Array, Place, Row


@dataclass(frozen=True)
class _Narrow:
    """An operand of 8 bits, and its zero point where it has one."""

    source: Value | Array
    dtype: DType
    zero: Value | Array | None = None

    def names(self, p: Place) -> tuple[str, str]:
        """The names of both; an absent zero point is empty."""
        zero = "" if self.zero is None else self._name(p, self.zero)
        return self._name(p, self.source), zero

    def _name(self, p: Place, value: Value | Array) -> str:
        return p.graph.of(value) if isinstance(value, Value) else p.const(value, self.dtype)


def integer_product(op: Op) -> Row | None:
    """The row of a product in i32 whose operands come from 8 bits; None for any other."""
    if op.results[0].tensor.dtype is not i32 or op.operands[0].tensor.dtype is not i32:
        return None
    x, w = [_narrow(v, k, op) for k, v in enumerate(op.operands)]
    if x is None or w is None:
        return None

    def write(p: Place) -> str:
        (a, a_zero), (b, b_zero) = x.names(p), w.names(p)
        if op.name == "matmul":
            return p.node("MatMulInteger", a, b, a_zero, b_zero)
        return p.node("ConvInteger", a, b, a_zero, b_zero, **conv_attrs(op))

    return write


def _array(value: Value) -> Array | None:
    op = value.op
    return op.value.array if isinstance(op, Const) and isinstance(op.value, Blob) else None


def _narrow(value: Value, which: int, op: Op) -> _Narrow | None:
    """Operand `which` as 8 bits and a zero point."""
    known = _array(value)
    if known is not None:
        return _fitted(known)
    maker = value.op
    plain = _widened(value)
    if plain is not None:
        return _Narrow(plain, plain.tensor.dtype)
    if maker is None or maker.name != "sub" or maker.operands[0].type is not value.type:
        return None
    source = _widened(maker.operands[0])
    if source is None:
        return None
    zero = _zero(maker.operands[1], source.tensor.dtype, which, op)
    return None if zero is None else _Narrow(source, source.tensor.dtype, zero)


def _fitted(known: Array) -> _Narrow | None:
    for dtype in (i8, u8):
        span = np.iinfo(dtype.np)
        if not known.size or (span.min <= known.min() and known.max() <= span.max):
            return _Narrow(known, dtype)
    return None


def _widened(value: Value) -> Value | None:
    """What a cast to i32 was given, if that has 8 bits."""
    op = value.op
    if op is None or op.name != "cast" or op.operands[0].tensor.dtype not in (i8, u8):
        return None
    return op.operands[0]


def _zero(value: Value, dtype: DType, which: int, op: Op) -> Value | Array | None:
    """A zero point in the operand's type: one, or one per row of x, column or channel of w."""
    shape = value.tensor.shape
    along = {("matmul", 0): -2, ("matmul", 1): -1, ("conv", 1): -op.operands[1].tensor.rank}
    long = [k - len(shape) for k, e in enumerate(shape) if e != 1]
    if long and long != [along.get((op.name, which))]:
        return None
    known = _array(value)
    if known is not None:
        return known.reshape(-1) if long else known.reshape(())
    if value.op is not None and value.op.name == "reshape":
        value = value.op.operands[0]
    source = _widened(value)
    fits = source is not None and source.tensor.dtype is dtype and source.tensor.rank == len(long)
    return source if fits else None


__all__ = ["integer_product"]
