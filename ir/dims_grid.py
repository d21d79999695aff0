"""The value of a dim expression on whole arrays of symbol values (interpreters use it).

Imports dims_expr and errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np

from .dims_expr import DIV, MIN, MOD, SYM, Atom, Dim, DimLike
from .errors import Error

Grid = int | np.ndarray[Any, Any]


def evaluate_grid(e: DimLike, env: Mapping[str, Grid]) -> Grid:
    """e for symbols that are ints or int64 arrays; E0323 for a symbol without value."""
    if not isinstance(e, Dim):
        return e
    total: Grid = e.const
    for m, c in e.terms:
        value: Grid = c
        for f in m.factors:
            value = value * _atom_grid(f, env)
        total = total + value
    return total


def _atom_grid(f: Atom, env: Mapping[str, Grid]) -> Grid:
    if f.kind == SYM:
        found = env.get(f.args[0])
        if found is None:
            raise Error("E0323", f"dim {f.args[0]} has no value", hint="give its extent")
        return found
    values = [evaluate_grid(a, env) for a in f.args]
    if f.kind == DIV:
        return values[0] // values[1]
    if f.kind == MOD:
        return values[0] % values[1]
    return reduce(np.minimum if f.kind == MIN else np.maximum, values)


__all__ = ["Grid", "evaluate_grid"]
