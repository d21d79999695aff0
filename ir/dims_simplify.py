"""Simplification of dims within ranges: arms of min and max drop, divisions and modulos resolve.

The result has the same value for all valuations inside the ranges.  Imports only dims_*.
"""

from __future__ import annotations

from math import gcd

from .dims_expr import (
    DIV,
    MAX,
    MIN,
    MOD,
    SYM,
    Atom,
    Dim,
    DimLike,
    Mono,
    floordiv,
    from_atom,
    from_mono,
    from_terms,
    max_,
    min_,
    mod,
)
from .dims_prove import Prover, Ranges, atoms_of, without
from .dims_query import substitute


def simplify(e: DimLike, ranges: Ranges) -> DimLike:
    """e in fewer operations, equal to it for every valuation inside `ranges`."""
    if not isinstance(e, Dim):
        return e
    points = {n: r[0] for n in e.symbols if (r := ranges.get(n)) and r[0] == r[1]}
    fixed = {n: v for n, v in points.items() if isinstance(v, int)}
    if fixed:
        e = substitute(e, fixed)
    if not isinstance(e, Dim) or all(f.kind == SYM for m, _ in e.terms for f in m.factors):
        return e
    return _Simplifier(ranges).expr(e)


class _Simplifier:
    """One run over one expression: atoms are simplified once, from the leaves up."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges = ranges
        self.memo: dict[Atom, DimLike] = {}

    def expr(self, e: DimLike) -> DimLike:
        """e with each atom simplified, then x // b and x % b joined again."""
        if not isinstance(e, Dim):
            return e
        total: DimLike = e.const
        for m, c in e.terms:
            value: DimLike = c
            for f in m.factors:
                value = self.atom(f) * value
            total = total + value
        return _rejoin(total)

    def atom(self, f: Atom) -> DimLike:
        """The value of one atom, simplified."""
        found = self.memo.get(f)
        if found is None:
            found = self.memo[f] = self._atom(f)
        return found

    def _atom(self, f: Atom) -> DimLike:
        if f.kind == SYM:
            return from_atom(f)
        args = [self.expr(a) for a in f.args]
        if f.kind in (MIN, MAX):
            return self._extremum(f.kind, args)
        x, b = args
        plain = floordiv(x, b) if f.kind == DIV else mod(x, b)
        if not isinstance(plain, Dim):
            return plain
        return self._each(plain, f.kind)

    def _each(self, e: Dim, kind: str) -> DimLike:
        """Resolve the divisions (modulos) that building e left in it."""
        total: DimLike = e.const
        for m, c in e.terms:
            f = m.factors[0]
            if f.kind == kind and len(m.factors) == 1:
                value = self._div(*f.args) if kind == DIV else self._mod(*f.args)
                total = total + value * c
            else:
                total = total + from_mono(m, c)
        return total

    def _extremum(self, kind: str, args: list[DimLike]) -> DimLike:
        prover = Prover(self.ranges)
        kept = list(args)
        for arm in args:
            others = [o for o in kept if o is not arm]
            gaps = [arm - o if kind == MIN else o - arm for o in others]
            if any(prover.nonneg(gap) for gap in gaps):
                kept = others
        return min_(*kept) if kind == MIN else max_(*kept)

    def _block(self, x: DimLike, b: DimLike) -> int | None:
        """The k with k*b <= x < (k + 1)*b throughout, if there is one (0 for a symbolic b)."""
        prover = Prover(self.ranges)
        low = prover.lower(x)
        if low is None or (low < 0 and isinstance(b, Dim)):
            return None
        k = low // b if isinstance(b, int) else 0
        return k if prover.nonneg(b * (k + 1) - 1 - x) else None

    def _div(self, x: DimLike, b: DimLike) -> DimLike:
        k = self._block(x, b)
        if k is not None:
            return k
        for high, low, g in _levels(x, b):
            k = self._block(low, g)
            if k is not None:  # (g*high + low) // (g*q) is (high + k) // q
                return self.expr(floordiv(high + k, floordiv(b, g)))
        return floordiv(x, b)

    def _mod(self, x: DimLike, b: DimLike) -> DimLike:
        k = self._block(x, b)
        if k is not None:
            return x - b * k
        for high, low, g in _levels(x, b):
            k = self._block(low, g)
            if k is not None:  # (g*high + low) % (g*q) is g*((high + k) % q) + low - g*k
                return self.expr(mod(high + k, floordiv(b, g))) * g + (low - k * g)
        return mod(x, b)


def _levels(x: DimLike, b: DimLike) -> list[tuple[DimLike, DimLike, int]]:
    """(high, low, g) with x == g*high + low and g a proper divisor of b, the largest g first."""
    if not isinstance(x, Dim) or not isinstance(b, int):
        return []
    found = []
    for g in sorted({gcd(c, b) for _, c in x.terms}, reverse=True):
        if g in (1, b):
            continue
        high: dict[Mono, int] = {m: c // g for m, c in x.terms if c % g == 0}
        low = {m: c for m, c in x.terms if c % g}
        found.append((from_terms(high, x.const // g), from_terms(low, x.const % g), g))
    return found


def _rejoin(e: DimLike) -> DimLike:
    """e with each b*(x // b) + x % b, at the same coefficient, written as x."""
    if not isinstance(e, Dim):
        return e
    for m, c, f in atoms_of(e, MOD):
        x, b = f.args
        scale = without(m, f) * c
        part = floordiv(x, b) * b * scale
        if isinstance(part, Dim) and part.terms and _has(e, part):
            return _rejoin(e - from_mono(m, c) - part + x * scale)
    return e


def _has(e: Dim, part: Dim) -> bool:
    """Whether every term of `part` stands in e with its coefficient."""
    terms = dict(e.terms)
    return all(terms.get(m) == c for m, c in part.terms)
