"""What can be asked of a dim without knowing ranges: substitution, values, affine forms.

Imports only dims_expr and errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import index

from .dims_expr import (
    DIV,
    MIN,
    MOD,
    SYM,
    Atom,
    Dim,
    DimLike,
    Mono,
    from_atom,
    from_terms,
    mono,
    rebuild,
    sym,
)
from .errors import Error


def substitute(e: DimLike, env: Mapping[str, DimLike]) -> DimLike:
    """e with every symbol in `env` replaced by its value, all at once."""
    if not isinstance(e, Dim) or e.symbols.isdisjoint(env):
        return e
    return _substitute(e, env, {})


def replace_atoms(e: DimLike, values: Mapping[Atom, DimLike]) -> DimLike:
    """e with whole atoms (a minimum, a quotient) replaced wherever they occur."""
    names = {name: sym(name) for f in values for name in f.symbols}
    return _substitute(e, names, dict(values))


def _substitute(e: DimLike, env: Mapping[str, DimLike], memo: dict[Atom, DimLike]) -> DimLike:
    if not isinstance(e, Dim) or e.symbols.isdisjoint(env):
        return e
    total: dict[Mono, int] = {}
    const = e.const
    for m, c in e.terms:
        if m.symbols.isdisjoint(env):
            total[m] = total.get(m, 0) + c
            continue
        value: DimLike = 1
        for f in m.factors:
            new = memo.get(f)
            if new is None:
                new = memo[f] = _substitute_atom(f, env, memo)
            value = value * new if value != 1 else new
        if isinstance(value, Dim):
            const += c * value.const
            for n, d in value.terms:
                total[n] = total.get(n, 0) + c * d
        else:
            const += c * value
    return from_terms(total, const)


def _substitute_atom(f: Atom, env: Mapping[str, DimLike], memo: dict[Atom, DimLike]) -> DimLike:
    if f.kind == SYM:
        new = env.get(f.args[0])
        return from_atom(f) if new is None else new if isinstance(new, Dim) else index(new)
    return rebuild(f.kind, [_substitute(a, env, memo) for a in f.args])


def evaluate(e: DimLike, env: Mapping[str, int]) -> int:
    """The value of e under `env`; E0323 for a missing symbol, ZeroDivisionError for x // 0."""
    if not isinstance(e, Dim):
        return e
    total = e.const
    for m, c in e.terms:
        for f in m.factors:
            c *= _evaluate_atom(f, env)
        total += c
    return total


def _evaluate_atom(f: Atom, env: Mapping[str, int]) -> int:
    if f.kind == SYM:
        if f.args[0] not in env:
            raise Error("E0323", f"dim {f.args[0]} has no value", hint="give its extent")
        return int(env[f.args[0]])
    values = [evaluate(a, env) for a in f.args]
    if f.kind == DIV:
        return values[0] // values[1]
    if f.kind == MOD:
        return values[0] % values[1]
    return min(values) if f.kind == MIN else max(values)


def linear(e: DimLike) -> tuple[dict[str, int], int] | None:
    """({symbol: coefficient}, constant) where e is affine in its symbols, else None."""
    if not isinstance(e, Dim):
        return {}, e
    found: dict[str, int] = {}
    for m, c in e.terms:
        f = m.factors[0]
        if f.kind != SYM or len(m.factors) != 1:
            return None
        found[f.args[0]] = c
    return found, e.const


def coefficient(e: DimLike, name: str) -> tuple[DimLike, DimLike] | None:
    """(a, b) with e == a*name + b and both free of `name`; None where e has no such form."""
    if not isinstance(e, Dim) or name not in e.symbols:
        return 0, e
    slope: dict[Mono, int] = {}
    slope_const = 0
    rest: dict[Mono, int] = {}
    for m, c in e.terms:
        if name not in m.symbols:
            rest[m] = c
            continue
        others = tuple([f for f in m.factors if name not in f.symbols])
        if len(others) != len(m.factors) - 1 or not any(f.args == (name,) for f in m.factors):
            return None
        if others:
            slope[mono(others)] = c
        else:
            slope_const = c
    return from_terms(slope, slope_const), from_terms(rest, e.const)
