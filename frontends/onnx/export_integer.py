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
from ...ir.types import DType, f32, i8, i32, u8
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


# ---- quantization by the range of the data itself


def dynamic_range(op: Op) -> tuple[Op, ...] | None:
    """The ops that choose the scale and the zero point of a `quantize` as DynamicQuantizeLinear
    does: the last two give them.  None where they do anything else.
    """
    x, scale, point = (*op.operands, None, None)[:3]
    if op.attributes["to"] is not u8 or x is None or x.tensor.dtype is not f32 or point is None:
        return None
    seen: list[Op] = []

    def made(value: Value | None, name: str) -> tuple[Value, ...]:
        """The operands of the op called `name` that makes a value, constants of one number last."""
        maker = value.op if value is not None else None
        if maker is None or maker.name != name:
            raise LookupError(name)
        seen.append(maker)
        return tuple(sorted(maker.operands, key=lambda v: _array(v) is not None))

    def bounded(value: Value, name: str, bound: float) -> Value:
        inner, end = made(value, name)
        known = _array(end)
        if known is None or known.size != 1 or float(known.reshape(-1)[0]) != bound:
            raise LookupError(name)
        return inner

    try:
        held = bounded(bounded(made(point, "cast")[0], "max", 0.0), "min", 255.0)
        below, by = made(made(held, "round_even")[0], "div")
        low = made(below, "neg")[0]
        high, less = made(bounded(scale, "div", 255.0), "sub")
        ends = bounded(low, "min", 0.0), bounded(high, "max", 0.0)
        whole = [made(e, n) == (x,) for e, n in zip(ends, ("reduce_min", "reduce_max"))]
    except LookupError:
        return None
    reduced = [e.op for e in ends]
    every = all([r is not None and len(r.attributes["axes"]) == x.tensor.rank for r in reduced])
    if by is not scale or less is not low or not all(whole) or not every or scale.op is None:
        return None
    assert point.op is not None
    inner = [o for o in seen if o not in (scale.op, point.op)]
    return (*dict.fromkeys(inner), scale.op, point.op)


__all__ = ["dynamic_range", "integer_product"]
