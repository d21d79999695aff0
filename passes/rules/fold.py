"""Constant folding: an op on constants becomes the constant that its `evaluate` gives.

What would grow is not folded: iota and broadcasts are cheaper computed than stored.
May import: ir, the values beside it.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from ...ir.core import OPS, Builder, Op, Value
from ...ir.dims import Dim
from ...ir.errors import Error
from ...ir.ops.core import Const
from ...ir.rewrite import Rule
from ...ir.types import TensorType
from .values import LATE, RuleTable, constant, is_constant, make_constant, moved_constant

GROWTH = 1.1
"""A result this much larger than its operands together is still stored."""


def fold_rule(limit: int) -> Rule:
    """The rule that folds; results above `limit` bytes must not be larger than the operands."""

    def fold(op: Op, b: Builder) -> list[Value] | None:
        for value in op.operands:
            if value is not None and not is_constant(value):
                return None
        if not op.pure or op.regions or not _static(op):
            return None
        size = sum([_bytes(r.tensor) for r in op.results])
        given = sum([_bytes(v.tensor) for v in op.operands if v is not None])
        if size > limit and size > GROWTH * given:
            return None
        if type(op) in _moves() and given >= LATE:
            source = op.operands[0].owner.value
            return [moved_constant(b, type(op), source, op.results[0].tensor, op.attributes)]
        return _evaluated(op, b)

    return fold


@functools.cache
def _moves() -> frozenset[type[Op]]:
    """Ops that put elements in another order and lose none, so that they may wait."""
    return frozenset([OPS[name] for name in ("pack", "reshape", "transpose")])


def _bytes(type: TensorType) -> int:
    return math.prod([e for e in type.shape if isinstance(e, int)]) * type.dtype.bytes


def _static(op: Op) -> bool:
    """Static tensor results, and no dim expression in the attributes."""
    for result in op.results:
        if not isinstance(result.type, TensorType) or not result.type.is_static:
            return False
    return not any([_has_dim(v) for v in op.attrs])


def _has_dim(value: object) -> bool:
    if type(value) is tuple:
        return any([_has_dim(v) for v in value])
    return type(value) is Dim


def _evaluated(op: Op, b: Builder) -> list[Value] | None:
    arrays = [constant(v) for v in op.operands]
    try:
        with np.errstate(all="ignore"):
            found = type(op).evaluate(*arrays, **op.attributes)
    except Error:
        return None  # the error belongs to the run that meets it
    results = found if isinstance(found, (tuple, list)) and len(op.results) != 1 else (found,)
    return [
        make_constant(b, np.asarray(a), r.tensor) for a, r in zip(results, op.results, strict=True)
    ]


def fold_rules(limit: int) -> RuleTable:
    """The folding rule for every class that has values."""
    rule = fold_rule(limit)
    skipped = {Const}
    return {
        cls: [rule]
        for cls in OPS.values()
        if hasattr(cls, "evaluate") and cls.pure and cls not in skipped and not cls.spec.regions
    }


__all__ = ["GROWTH", "fold_rule", "fold_rules"]
