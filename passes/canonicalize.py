"""Canonical form: rules applied until none matches, then dead code gone.

The rules stand in passes/rules, by subject; they are exact: no rule changes a result by a bit, save
the folding of normalisations into weights, which is its own pass.  May import: ir, passes.rules.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.core import Builder, Op, Value
from ..ir.ops.core import Const, Module
from ..ir.ops.shape import Reshape
from ..ir.rewrite import Rule, worklist
from ..ir.types import element
from .options import Pass
from .rules.algebra import algebra_rules
from .rules.control import control_rules
from .rules.dims import dim_rules
from .rules.fold import fold_rules
from .rules.shapes import shape_rules
from .rules.values import RuleTable, classes, joined


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
    rules = joined(algebra_rules(), shape_rules(), dim_rules(), control_rules(), fold_rules(limit))
    for name in ("add", "mul", "max", "min", "div", "pow"):
        (cls,) = classes(name)
        rules[cls] = [_gated(tuple(rules[cls]))]
    return rules


def _gated(rules: tuple[Rule, ...]) -> Rule:
    """The rules of a binary op as one, which first looks whether any can match: on two different
    floats that no constant and no reshape made, none can.
    """

    def first(op: Op, b: Builder) -> Sequence[Value] | Value | None:
        x, y = op.operands
        if x is not y and type(x.owner) not in _WATCHED and type(y.owner) not in _WATCHED:
            if element(x.type).is_float:
                return None
        for rule in rules:
            found = rule(op, b)
            if found is not None:
                return found
        return None

    return first


_WATCHED = frozenset({Const, Reshape})


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
