"""Structural equality of programs: same ops, operands, attributes, types, regions and locations.

Names of values do not count; constants are equal by hash.  Imports: the core.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .core import Block, Op, Value


def equal(a: Op, b: Op) -> bool:
    """The two programs are the same but for the names of values."""
    return difference(a, b) is None


def difference(a: Op, b: Op) -> str | None:
    """The first difference in words, with the path to it; None where there is none."""
    return _op_difference(a, b, {}, "")


def same(a: Any, b: Any) -> bool:
    """Attribute values are the same, types too: 1 is not 1.0, 0.0 is not -0.0, NaN is NaN."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) is tuple:
        return len(a) == len(b) and all([same(x, y) for x, y in zip(a, b, strict=True)])
    if type(a) is float:
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
    if type(a) is complex:
        return same(a.real, b.real) and same(a.imag, b.imag)
    return bool(a == b)


def _op_difference(a: Op, b: Op, env: dict[Value, Value], path: str) -> str | None:
    path = f"{path}/{a.name}"
    if type(a) is not type(b):
        return f"{path}: {a.name} is not {b.name}"
    if a.loc != b.loc:
        return f"{path}: location {a.loc!r} is not {b.loc!r}"
    if len(a.operands) != len(b.operands):
        return f"{path}: {len(a.operands)} operands, not {len(b.operands)}"
    for k, (x, y) in enumerate(zip(a.operands, b.operands, strict=True)):
        if (env.get(x, x) if x is not None else None) is not y:
            return f"{path}: operand {k} differs"
    for field, x, y in zip(a.spec.attrs, a.attrs, b.attrs, strict=True):
        if not same(x, y):
            return f"{path}: attribute {field.name} = {x!r} is not {y!r}"
    found = _types_difference(a.results, b.results, env, f"{path}: result")
    if found is None and len(a.regions) != len(b.regions):
        found = f"{path}: {len(a.regions)} regions, not {len(b.regions)}"
    for k, (p, q) in enumerate(zip(a.regions, b.regions)):
        found = found or _block_difference(p, q, env, f"{path}.{k}" if k else path)
    return found


def _types_difference(
    a: Sequence[Value], b: Sequence[Value], env: dict[Value, Value], what: str
) -> str | None:
    if len(a) != len(b):
        return f"{what}s: {len(a)}, not {len(b)}"
    for k, (x, y) in enumerate(zip(a, b, strict=True)):
        if x.type is not y.type:
            return f"{what} {k}: {x.type} is not {y.type}"
        env[x] = y
    return None


def _block_difference(a: Block, b: Block, env: dict[Value, Value], path: str) -> str | None:
    found = _types_difference(a.args, b.args, env, f"{path}: argument")
    if found is None and len(a) != len(b):
        found = f"{path}: {len(a)} ops, not {len(b)}"
    if found is not None:
        return found
    for k, (x, y) in enumerate(zip(a, b, strict=True)):
        found = _op_difference(x, y, env, f"{path}[{k}]")
        if found is not None:
            return found
    return None


__all__ = ["difference", "equal", "same"]
