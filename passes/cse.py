"""Common subexpressions: of equal pure ops the first stays, where it is visible to the others.

Ops with regions are not compared; their regions are searched, and see what stands before them.
May import: ir, passes.options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..ir.blobs import Blob
from ..ir.core import Block, Op
from ..ir.ops.autodiff import CustomGradient
from ..ir.ops.core import Func, Fused, Generic, Module
from .options import Pass


@dataclass(frozen=True)
class Cse(Pass):
    """Merge equal pure ops of one block, and of a region with what is visible around it."""

    def run(self, module: Module) -> Module:
        for func in module.funcs:
            if func.kind == "func":
                merge(func.body)
        return module


def merge(block: Block, seen: dict[Any, Op] | None = None) -> int:
    """Merge equal ops; gives how many went.  `seen` holds the ops of the enclosing scopes."""
    known = dict(seen or {})
    count = 0
    for op in block:
        if op.regions:
            isolated = isinstance(op, (Func, Fused, Generic, CustomGradient))
            for region in op.regions:
                count += merge(region, None if isolated else known)
            continue
        if not op.pure or op.terminator or not op.results:
            continue
        key = (
            type(op),
            op.operands,
            tuple([r.type for r in op.results]),
            *[_key(v) for v in op.attrs],
        )
        first = known.setdefault(key, op)
        if first is not op:
            op.replace_by(first.results)
            count += 1
    return count


def _key(value: Any) -> Any:
    """What two attribute values must share to be the same: 0.0 and -0.0 differ, so do 1 and 1.0."""
    kind = type(value)
    if kind is float:
        return "f", value.hex()
    if kind is tuple:
        return tuple([_key(v) for v in value])
    if kind is Blob and value.dtype.kind == "string":
        return id(value)
    return kind, value


__all__ = ["Cse", "merge"]
