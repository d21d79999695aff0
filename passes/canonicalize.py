"""Canonical form: rules applied until none matches, then dead code gone.

The rules stand in passes/rules, by subject; they are exact: no rule changes a result by a bit, save
the folding of normalisations into weights, which is its own pass.  May import: ir, passes.rules.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from ..ir.core import Op
from ..ir.ops.core import Module
from ..ir.rewrite import worklist
from .options import Pass
from .rules.algebra import algebra_rules
from .rules.control import control_rules
from .rules.dims import dim_rules
from .rules.fold import fold_rules
from .rules.shapes import shape_rules
from .rules.values import RuleTable, joined


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Simplify; constants are folded into results of at most `limit` bytes (more where nothing
    grows).
    """

    limit: int = 64 << 10

    def run(self, module: Module) -> Module:
        for func in module.funcs:
            if func.kind == "func":
                worklist(func, canonical_rules(self.limit))
        return module


@functools.lru_cache(maxsize=8)
def canonical_rules(limit: int) -> RuleTable:
    """All rules, cheap and frequent ones first."""
    return joined(algebra_rules(), shape_rules(), dim_rules(), control_rules(), fold_rules(limit))


@dataclass(frozen=True)
class Fold(Pass):
    """Fold constants only."""

    limit: int = 64 << 10

    def run(self, module: Module) -> Module:
        worklist(module, fold_rules(self.limit))
        return module


@dataclass(frozen=True)
class Dce(Pass):
    """Remove what no result needs."""

    def run(self, module: Module) -> Module:
        nothing: dict[type[Op], list[object]] = {}
        worklist(module, nothing)  # type: ignore[arg-type]
        return module


__all__ = ["Canonicalize", "Dce", "Fold", "canonical_rules"]
