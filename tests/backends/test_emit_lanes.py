"""Vectors turned, and lanes apart under guards, as LLVM prints them."""

from __future__ import annotations

import numpy as np
import pytest
from emit_cases import Case, buf, check, floats, kernel, lane

from irc.ir.ops import loop
from irc.ir.types import DType, bf16, f32, i64, u8

SIZES = [
    (16, 16, f32), (4, 16, f32), (16, 4, f32), (8, 8, f32), (4, 4, f32), (2, 2, f32), (1, 4, f32),
    (2, 32, f32), (16, 16, u8), (4, 8, u8), (8, 8, i64), (2, 8, i64), (16, 16, bf16),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "lanes", "dtype"), SIZES)
def test_rows_become_columns(rows: int, lanes: int, dtype: DType) -> None:
    f, b, (x, y) = kernel("turn", buf(dtype, rows, lanes), buf(dtype, lanes, rows))
    given = [b.emit(loop.Load, x, index=(r, lane), lane="lane", lanes=lanes) for r in range(rows)]
    for at, column in enumerate(b.insert(loop.TransposeLanes(*given)).results):
        b.emit(loop.Store, column, y, index=(at, lane), lane="lane")
    a = np.arange(rows * lanes).reshape(rows, lanes).astype(dtype.np)
    turned = np.ascontiguousarray(a.T)
    check(Case([f], [a, np.zeros_like(turned)], [a, turned]), "llvm")


def test_what_guards_hide_between_lanes_is_not_read() -> None:
    """Lanes two and three elements apart: guards that end, begin, or do both, and none at all."""
    f, b, (x, y) = kernel("apart", buf(f32, 10), buf(f32, 4, 8))
    for at, (step, first, where) in enumerate((
        (2, -3, (2 * lane - 3, 12 - 2 * lane)),
        (2, 0, (4 - lane,)),
        (3, -6, (lane - 2, 15 - 3 * lane)),
        (2, -20, (3 * lane - 30, 14 - lane)),
    )):  # fmt: skip
        e = step * lane + first
        v = b.emit(loop.Load, x, index=(e,), where=where, fill=5.0, lane="lane", lanes=8)
        b.emit(loop.Store, v, y, index=(at, lane), lane="lane")
    a = floats(10)
    want = np.full((4, 8), 5.0, np.float32)
    want[0, 2:7] = a[1::2]
    want[1, :5] = a[::2]
    want[2, 2:6] = a[::3]
    check(Case([f], [a, np.zeros_like(want)], [a, want]), "llvm")
