"""Composites become primitives.  Until this pass they keep their names.

An elementwise composite stays here (it is one `generic`); lowering decomposes it on scalars.
May import: ir, passes.options.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.core import OPS, Builder, Op, Value
from ..ir.ops.core import Module
from ..ir.rewrite import Rule, worklist
from .options import Pass


def is_composite(cls: type[Op], elementwise: bool = False) -> bool:
    """Has a decomposition and no loops of its own (with `elementwise`: or is a composite of
    elementwise ops).
    """
    if not hasattr(cls, "decompose"):
        return False
    return elementwise or not (hasattr(cls, "generic") or hasattr(cls, "loops"))


def decompose_rule(op: Op, b: Builder) -> list[Value] | Value:
    """The op's own decomposition."""
    found = op.decompose(b)  # type: ignore[attr-defined]
    return list(found) if isinstance(found, (tuple, list)) else found


@dataclass(frozen=True)
class Decompose(Pass):
    """Decompose all composites, or those in `only`; never those in `keep`."""

    only: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    elementwise: bool = False

    def run(self, module: Module) -> Module:
        chosen = [
            cls
            for name, cls in OPS.items()
            if (name in self.only if self.only else is_composite(cls, self.elementwise))
            and name not in self.keep
        ]
        rules: dict[type[Op], list[Rule]] = {
            cls: [decompose_rule] for cls in chosen if hasattr(cls, "decompose")
        }
        worklist(module, rules)
        return module


__all__ = ["Decompose", "decompose_rule", "is_composite"]
