"""Neutral operands of max and min in kernels go; others stay."""

from __future__ import annotations

import math

import pytest

from irc.ir.core import Builder
from irc.ir.dims import sym
from irc.ir.ops.core import Const, Func
from irc.ir.ops.loop import Load, Splat, Store
from irc.ir.types import BufferType, DType
from irc.passes.lower.extremes import drop_extremes


@pytest.mark.parametrize("lanes", [0, 4])
@pytest.mark.parametrize(
    ("op", "dtype", "number", "goes"),
    [
        ("max", "f32", -math.inf, True),
        ("min", "f32", math.inf, True),
        ("max", "i16", -32768, True),
        ("max", "u8", 0, True),
        ("min", "u8", 255, True),
        ("max", "f32", 0.0, False),
        ("min", "i16", -32768, False),
        ("max", "i16", 0, False),
    ],
)
def test_neutral_operands(op: str, dtype: str, number: float, goes: bool, lanes: int) -> None:
    type_ = DType(dtype)
    for swapped in (False, True):
        func = Func.make("k", [BufferType(type_, (4,))] * 2, kind="kernel")
        b = Builder(func.body)
        value = b.emit(Load, func.args[0], index=(0,))
        other = b.insert(Const(number, type_)).result
        if lanes:
            value, other = (b.emit(Splat, v, lanes=lanes) for v in (value, other))
        made = getattr(b, op)(*((other, value) if swapped else (value, other)))
        store = {"index": (sym("l"),), "lane": "l"} if lanes else {"index": (0,)}
        b.emit(Store, made, func.args[1], **store)
        assert drop_extremes(func) == goes
        assert any(o.name == op for o in func.walk()) != goes
