"""Loop-invariant ops leave the bodies of `for`, `while` and `scan`: a weight's transpose is done
once.

Only pure ops without regions move, all of whose operands are known outside; sources of one element
stay, since they cost nothing where they are.  May import: ir, passes.options.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.core import Block, Op
from ..ir.ops.core import Module
from ..ir.types import TensorType
from .options import Pass

LOOPS = ("for", "while", "scan")


@dataclass(frozen=True)
class Hoist(Pass):
    """Move what does not change out of loops."""

    def run(self, module: Module) -> Module:
        for func in module.funcs:
            if func.kind == "func":
                _block(func.body)
        return module


def _block(block: Block) -> None:
    for op in list(block):
        for region in op.regions:
            _block(region)
        if op.name in LOOPS:
            for region in op.regions:
                hoist_from(region, op)


def hoist_from(region: Block, loop: Op) -> int:
    """Move the invariant ops of a region before `loop`; gives how many."""
    inside = set(region.args)
    moved: list[Op] = []
    for op in region:
        own = {v for inner in op.walk() for v in inner.operands if v is not None}
        if op.pure and not op.regions and not op.terminator and _worth(op) and not own & inside:
            moved.append(op)
        else:
            inside.update(op.results)
    for op in moved:
        region.remove(op)
        assert loop.block is not None
        loop.block.insert_before(op, loop)
    return len(moved)


def _worth(op: Op) -> bool:
    """A tensor result that no evaluation can fail to give (an index out of range must not come
    early).
    """
    return all([isinstance(r.type, TensorType) for r in op.results]) and op.name not in (
        "take",
        "take_along",
        "gather",
        "gather_elements",
    )


__all__ = ["Hoist", "hoist_from"]
