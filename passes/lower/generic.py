"""Inside fused regions every op becomes its `generic`; then producers are merged into the bodies
that read them.

What stays: ops with loops of their own, and constants of one element.  A merged body is one loop
nest less for the schedule to deal with: elementwise chains become one generic, views vanish into
index maps. May import: ir, passes.decompose, passes.options, the merging beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.core import Block, Builder, Op, Value
from ...ir.errors import UnsupportedError
from ...ir.ops.core import Const, Fused, Generic, Module, Yield
from ..decompose import decompose_rule
from ..options import Pass
from .merge import merge_generics


@dataclass(frozen=True)
class LowerGeneric(Pass):
    """Make the regions of all `fused` ops consist of generics; `merge` makes as few as can be."""

    merge: bool = True

    def run(self, module: Module) -> Module:
        for func in module.funcs:
            if func.kind == "func":
                for fused in [op for op in func.walk() if isinstance(op, Fused)]:
                    self.region(fused.body)
        return module

    def region(self, block: Block) -> None:
        """Lower one region in place."""
        todo = list(block)
        while todo:
            op = todo.pop(0)
            if isinstance(op, (Generic, Const, Yield)):
                continue
            if hasattr(op, "generic"):
                _become_generic(op)
            elif hasattr(op, "decompose") and not hasattr(op, "loops"):
                todo[:0] = _decomposed(op)
            elif not hasattr(op, "loops"):
                raise UnsupportedError(
                    "E0401", f"'{op.name}' has no loops", where=op.loc, hint="it runs on hosts only"
                )
        if self.merge:
            merge_generics(block)


def _become_generic(op: Op) -> None:
    """Replace an op by its generic form."""
    assert op.block is not None
    found = op.generic(Builder(op.block, op, op.loc), *op.operands)  # type: ignore[attr-defined]
    values = list(found) if isinstance(found, (tuple, list)) else [found]
    for old, new in zip(op.results, values, strict=True):
        new.name = old.name
    op.replace_by(values)


def _decomposed(op: Op) -> Sequence[Op]:
    """Replace a composite by its parts; gives them."""
    block = op.block
    assert block is not None
    before = op.prev
    values = decompose_rule(op, Builder(block, op, op.loc))
    made: list[Op] = []
    fresh = before.next if before is not None else block.first
    while fresh is not None and fresh is not op:
        made.append(fresh)
        fresh = fresh.next
    op.replace_by([values] if isinstance(values, Value) else values)
    return made


__all__ = ["LowerGeneric"]
