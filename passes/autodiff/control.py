"""How structured control flow is differentiated: one rule per region op.

A rule `rule(b, op, gs, pullback)` gives (value, cotangent) pairs for everything the op reads, what
its regions take from outside included.  May import: ir.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...ir.core import Builder, Op, Value

Pairs = Iterable[tuple[Value, Value | None]]
Rule = Callable[[Builder, Any, Sequence[Value | None], Callable[..., list[Value | None]]], Pairs]

CONTROL: dict[type[Op], Rule] = {}

__all__ = ["CONTROL", "Pairs", "Rule"]
