"""max(x, lowest) and min(x, highest) are x: what is left where a window's tap falls outside.

Such constants are the fill of a guarded load that never happens; a C compiler warns of the
comparison.  May import: ir.
"""

from __future__ import annotations

from ...ir.core import Value
from ...ir.ops.convert import highest, lowest
from ...ir.ops.core import Const, Func
from ...ir.types import DType, VectorType, element


def drop_extremes(kernel: Func) -> bool:
    """Replace every such op on scalars or vectors by its other operand; was there one?"""
    found = False
    for op in list(kernel.walk()):
        if op.name not in ("max", "min") or not isinstance(op.results[0].type, (DType, VectorType)):
            continue
        dtype = element(op.results[0].type)
        neutral = lowest(dtype) if op.name == "max" else highest(dtype)
        x, y = op.operands
        if _is(y, neutral) or _is(x, neutral):
            op.replace_by((x if _is(y, neutral) else y,))
            found = True
    return found


def _is(value: Value, number: float) -> bool:
    """Is it this number, in every lane?"""
    op = value.op
    if op is not None and op.name == "loop.splat":
        op = op.operands[0].op
    return isinstance(op, Const) and not isinstance(op.value, bool) and op.value == number


__all__ = ["drop_extremes"]
