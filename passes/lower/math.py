"""Expand functions on scalars and vectors into arithmetic that every target has.

After it a kernel holds no exp, tanh, pow or activation, and with `fma=False` no `fma`: only native
arithmetic, comparisons, `where`, casts and bit operations.  May import: ir.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...ir.core import Builder, Op, Value
from ...ir.ops.core import Func
from ...ir.ops.elementwise_math import Rem
from ...ir.ops.fma import Fma
from ...ir.types import DType, VectorType, element


def expand_math(func: Func, fma: bool = True) -> None:
    """Replace, in place, every op on scalars or vectors that has `approximate` or `decompose`.

    `fma` says whether the target rounds a multiply-add once; without it `fma` becomes `mul` and
    `add`, and the error bounds of docs/numerics.md double.
    """
    pending = list(func.walk())
    while pending:
        op = pending.pop()
        expansion = _expansion(op, fma)
        if expansion is None:
            continue
        block = op.block
        assert block is not None
        before = op.prev
        value = expansion(Builder(block, before=op, loc=op.loc))
        made = block.first if before is None else before.next
        while made is not op:
            assert made is not None
            pending.append(made)
            made = made.next
        op.replace_by((value,))


Expansion = Callable[[Builder], Value]


def _expansion(op: Op, fma: bool) -> Expansion | None:
    """How this op is expanded; None for one that stays."""
    if (
        not op.operands
        or len(op.results) != 1
        or not isinstance(op.result.type, (DType, VectorType))
    ):
        return None
    if isinstance(op, Fma) and not fma:
        return lambda b: b.add(b.mul(op.x, op.y), op.z)
    if isinstance(op, Rem) and not element(op.result.type).is_float:
        return None
    approximate: Any = getattr(op, "approximate", None)
    if approximate is not None:
        return lambda b: approximate(b, *op.operands)
    return getattr(op, "decompose", None)


__all__ = ["expand_math"]
