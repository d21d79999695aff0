"""The range prover: integer bounds, signs and symbolic extremes of dims whose symbols have ranges.

Every answer is sound for all valuations inside the ranges; "unknown" is always allowed.  A symbol
without a range is a tensor extent: 0 or more, unbounded above.  Divisors count as 1 or more.
The method: split minima and maxima into their arms, replace a symbol in which the expression is
monotone by its (symbolic) bound, innermost loop first, and bound what is left by
b*(x // b) <= x <= b*(x // b) + b - 1 and by interval arithmetic.  Imports only dims_* and errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    from_atom,
    from_mono,
    mono,
    mono_without,
    sym,
    symbols_of,
)
from .dims_query import coefficient, replace_atoms, substitute
from .errors import Error

Range = tuple[DimLike | None, DimLike | None]
"""Inclusive lower and upper bound; None is unbounded; bounds may be symbolic."""

Ranges = Mapping[str, Range]
Interval = tuple[int | None, int | None]
EXTENT: Range = (0, None)
_STEPS = 300


class Prover:
    """One set of ranges with the bounds already found in it.  Gives up after a number of steps."""

    def __init__(self, ranges: Ranges, steps: int = _STEPS) -> None:
        self.ranges = ranges
        self.steps = steps
        self.memo: dict[Dim, int | None] = {}

    def lower(self, e: DimLike) -> int | None:
        """The best integer found that e is never below; None where none was found."""
        if not isinstance(e, Dim):
            return e
        if e in self.memo:
            return self.memo[e]
        if self.steps <= 0:
            return None
        self.steps -= 1
        self.memo[e] = None  # met again below: unknown, which ends every cycle
        found = self.memo[e] = self._lower(e)
        return found

    def upper(self, e: DimLike) -> int | None:
        """The best integer found that e is never above; None where none was found."""
        least = self.lower(-e)
        return None if least is None else -least

    def nonneg(self, e: DimLike) -> bool:
        """Whether e >= 0 is proved."""
        least = self.lower(e)
        return least is not None and least >= 0

    def interval(self, e: DimLike) -> Interval:
        """(lower, upper) of e."""
        return self.lower(e), self.upper(e)

    def range_of(self, name: str) -> Range:
        """The given range of a symbol, or that of an extent."""
        return self.ranges.get(name, EXTENT)

    # The strategies, cheapest first ------------------------------------------------------------

    def _lower(self, e: Dim) -> int | None:
        plain, least = self._affine(e)
        if plain:
            return least
        extremum = self._by_arms(e)
        if extremum is not None:
            return extremum[0]
        for name in self.innermost(e):
            direction = self.direction(e, name)
            if direction is None:
                continue
            bound = self.range_of(name)[0 if direction >= 0 else 1]
            if bound is not None:
                return self.lower(_at_end(e, name, bound, direction))
        found = [self._by_interval(e)]
        found += [self.lower(weaker) for weaker in self._without_mod(e)]
        found += [self._by_quotient(e, m, c, f) for m, c, f in atoms_of(e, DIV)]
        return max((x for x in found if x is not None), default=None)

    def _affine(self, e: Dim) -> tuple[bool, int | None]:
        """(True, exact lower bound) where every term is a symbol with integer bounds."""
        total: int | None = e.const
        for m, c in e.terms:
            f = m.factors[0]
            if f.kind != SYM or len(m.factors) != 1:
                return False, None
            low, high = self.range_of(f.args[0])
            if isinstance(low, Dim) or isinstance(high, Dim):
                return False, None
            least = low if c > 0 else high
            total = None if total is None or least is None else total + c * least
        return True, total

    def _by_arms(self, e: Dim) -> tuple[int | None] | None:
        """Replace a min or max by its arms: the worst counts, or the best where any will do.

        The former come first, so that the latter can choose knowing which arm it was.
        """
        choice: list[DimLike] = []
        for m, c, f in atoms_of(e, MIN, MAX):
            rest = without(m, f)
            sign = self.sign(rest)
            if sign is None:
                continue
            outer = e - from_mono(m, c)
            cases = [outer + rest * arm * c for arm in f.args]
            if (c * sign > 0) == (f.kind == MIN):
                least = [self.lower(case) for case in cases]
                known = [x for x in least if x is not None]
                return (min(known) if len(known) == len(cases) else None,)
            choice = choice or cases
        if not choice:
            return None
        return (max((x for x in map(self.lower, choice) if x is not None), default=None),)

    def _without_mod(self, e: Dim) -> Iterable[DimLike]:
        """Expressions at most e: one modulo bounded by its ends, or written as a division."""
        for m, c, f in atoms_of(e, MOD):
            x, b = f.args
            rest = without(m, f)
            outer = e - from_mono(m, c)
            sign = self.sign(rest)
            if sign is not None and c * sign > 0:
                yield outer
            elif sign is not None:
                yield outer + rest * (b - 1) * c
                if self.nonneg(x):
                    yield outer + rest * x * c
            yield outer + rest * (x - b * (x // b)) * c
            return

    def _by_quotient(self, e: Dim, m: Mono, c: int, f: Atom) -> int | None:
        """x - b + 1 <= b * (x // b) <= x, applied to e scaled by b (or to b's own product)."""
        x, b = f.args
        rest = without(m, f)
        if self.sign(rest) != 1:
            return None
        outer = e - from_mono(m, c)
        bound = x - b + 1 if c > 0 else x
        if isinstance(b, int):
            least = self.lower(outer * b + rest * bound * c)
            return None if least is None else -(-least // b)
        share = rest // b
        return self.lower(outer + share * bound * c) if share * b is rest else None

    def _by_interval(self, e: Dim) -> int | None:
        total = e.const
        for m, c in e.terms:
            low, high = self._product([self._atom(f) for f in m.factors])
            least = low if c > 0 else high
            if least is None:
                return None
            total += c * least
        return total

    def _product(self, parts: list[Interval]) -> Interval:
        low, high = parts[0]
        for a, b in parts[1:]:
            if low is not None and low >= 0 and a is not None and a >= 0:
                low, high = low * a, None if high is None or b is None else high * b
            elif low is None or high is None or a is None or b is None:
                return None, None
            else:
                ends = (low * a, low * b, high * a, high * b)
                low, high = min(ends), max(ends)
        return low, high

    def _atom(self, f: Atom) -> Interval:
        if f.kind == SYM:
            first, last = self.range_of(f.args[0])
            least = None if first is None else self.lower(first)
            return least, None if last is None else self.upper(last)
        if f.kind == DIV:
            return _quotient(self.interval(f.args[0]), self.interval(f.args[1]))
        if f.kind == MOD:
            low, high = self.interval(f.args[0])
            most = self.upper(f.args[1])
            ends = [] if most is None else [most - 1]
            if low is not None and low >= 0 and high is not None:
                ends.append(high)
            return 0, min(ends, default=None)
        return _between(f.kind, [self.interval(a) for a in f.args])

    # Monotony ----------------------------------------------------------------------------------

    def sign(self, e: DimLike) -> int | None:
        """1 where e >= 0, -1 where e <= 0, None where neither is proved."""
        if self.nonneg(e):
            return 1
        return -1 if self.nonneg(-e) else None

    def innermost(self, e: Dim, among: Ranges | None = None) -> list[str]:
        """Symbols of e on which no other symbol's bounds depend, those with ranges first."""
        names = e.symbols if among is None else e.symbols & among.keys()
        used: set[str] = set()
        for name in names:
            for bound in self.range_of(name):
                if isinstance(bound, Dim):
                    used |= bound.symbols
        return sorted(names - used, key=lambda n: (n not in self.ranges, n))

    def direction(self, e: DimLike, name: str) -> int | None:
        """1 where e never falls as `name` grows, -1 where it never rises, 0 without it, or None."""
        if not isinstance(e, Dim) or name not in e.symbols:
            return 0
        form = coefficient(e, name)
        if form is not None:
            return self.sign(form[0])
        ways = [self._term_direction(m, c, name) for m, c in e.terms if name in m.symbols]
        return _agree(ways)

    def _term_direction(self, m: Mono, c: int, name: str) -> int | None:
        inside = [f for f in m.factors if name in f.symbols]
        ways = [self._atom_direction(f, name) for f in inside]
        outside = mono_without(m, inside)
        sign = self.sign(from_mono(mono(outside)) if outside else 1)
        if len(inside) > 1 and not all(self.nonneg(from_atom(f)) for f in inside):
            return None
        way = _agree(ways)
        return None if way is None or sign is None else way * sign * (1 if c > 0 else -1)

    def _atom_direction(self, f: Atom, name: str) -> int | None:
        if f.kind == SYM:
            return 1
        if f.kind == MOD:
            return None
        if f.kind in (MIN, MAX):
            return _agree([self.direction(a, name) for a in f.args])
        x, b = f.args
        if name not in symbols_of(b):
            return self.direction(x, name)
        way = self.direction(b, name)
        if name in symbols_of(x) or way is None:
            return None
        sign = self.sign(x)
        return None if sign is None else -way * sign


def _agree(ways: list[int | None]) -> int | None:
    if None in ways:
        return None
    kinds = {w for w in ways if w}
    return 0 if not kinds else kinds.pop() if len(kinds) == 1 else None


def atoms_of(e: Dim, *kinds: str) -> list[tuple[Mono, int, Atom]]:
    """(monomial, coefficient, atom) for each term of e with a factor of these kinds."""
    return [(m, c, f) for m, c in e.terms for f in m.factors if f.kind in kinds]


def _at_end(e: DimLike, name: str, bound: DimLike, inward: int) -> DimLike:
    """e at an end of the range of `name`; one further in where a divisor in e excludes the end."""
    for _ in range(4):
        try:
            return substitute(e, {name: bound})
        except Error:
            bound = bound + (1 if inward >= 0 else -1)
    return e


def without(m: Mono, f: Atom) -> DimLike:
    """m / f, for a factor f of m."""
    left = mono_without(m, (f,))
    return from_mono(mono(left)) if left else 1


def _quotient(x: Interval, b: Interval) -> Interval:
    """The interval of x // b for b >= 1."""
    small, large = max(b[0] or 1, 1), b[1]
    low: int | None = None
    high: int | None = None
    if x[0] is not None:
        low = x[0] // small if x[0] < 0 else 0 if large is None else x[0] // max(large, 1)
    if x[1] is not None:
        high = x[1] // small if x[1] >= 0 else -1 if large is None else x[1] // max(large, 1)
    return low, high


def _between(kind: str, arms: list[Interval]) -> Interval:
    """The interval of the min or max of values in `arms`."""
    lows = [a[0] for a in arms if a[0] is not None]
    highs = [a[1] for a in arms if a[1] is not None]
    if kind == MIN:
        return min(lows) if len(lows) == len(arms) else None, min(highs, default=None)
    return max(lows, default=None), max(highs) if len(highs) == len(arms) else None


# The questions ---------------------------------------------------------------------------------


def bounds(e: DimLike, ranges: Ranges) -> tuple[int | None, int | None]:
    """Integers (lower, upper) that e never leaves, inclusive; None where none was found."""
    if not isinstance(e, Dim):
        return e, e
    return Prover(ranges).lower(e), Prover(ranges).upper(e)


def nonneg(e: DimLike, ranges: Ranges | None = None) -> bool | None:
    """Whether e >= 0: always (True), never (False), or unknown (None)."""
    if not isinstance(e, Dim):
        return e >= 0
    if Prover(ranges or {}).nonneg(e):
        return True
    opaque, wider = _opaque(e, ranges or {})
    if opaque is not e and Prover(wider).nonneg(opaque):
        return True
    return False if Prover(ranges or {}).nonneg(-1 - e) else None


def _opaque(e: Dim, ranges: Ranges) -> tuple[DimLike, Ranges]:
    """e with a symbol of the same range for each min and max that occurs again inside a quotient.

    Taken apart by its arms, such a minimum would no longer be the same number in both places.
    """
    outside = {f for _, _, f in atoms_of(e, MIN, MAX)}
    inside = [f for f in outside if any(_holds(q, f) for _, _, q in atoms_of(e, DIV, MOD))]
    names: dict[Atom, DimLike] = {}
    wider = dict(ranges)
    for k, f in enumerate(inside):
        name = f"_extremum{k}"
        names[f] = sym(name)
        wider[name] = Prover(ranges).interval(from_atom(f))
    return (replace_atoms(e, names), wider) if names else (e, ranges)


def _holds(outer: Atom, f: Atom) -> bool:
    """Does one of the arguments of an atom contain another atom?"""
    for x in outer.args:
        if isinstance(x, Dim):
            for m, _ in x.terms:
                if any(g is f or _holds(g, f) for g in m.factors):
                    return True
    return False


def equal(a: DimLike, b: DimLike, ranges: Ranges | None = None) -> bool | None:
    """Whether a == b: always (True), never (False), or unknown (None)."""
    if a is b:
        return True
    d = expand_mod(a - b)
    if not isinstance(d, Dim):
        return d == 0
    if d.const % gcd(*[c for _, c in d.terms]):
        return False
    low, high = bounds(d, ranges or {})
    if low == 0 and high == 0:
        return True
    if (low is not None and low > 0) or (high is not None and high < 0):
        return False
    return None


def expand_mod(e: DimLike) -> DimLike:
    """e with each x % b outside divisions written as x - b * (x // b)."""
    while isinstance(e, Dim):
        found = atoms_of(e, MOD)
        if not found:
            break
        m, c, f = found[0]
        x, b = f.args
        e = e - from_mono(m, c) + without(m, f) * (x - b * (x // b)) * c
    return e


def extremes(
    e: DimLike, ranges: Ranges, given: Ranges | None = None
) -> tuple[DimLike | None, DimLike | None]:
    """The symbolic (minimum, maximum) of e over exactly the symbols in `ranges`.

    Exact, for e must be monotone in each; None where that is not proved or a bound is missing.
    `given` are ranges of symbols that stay (extents by default).
    """
    prover = Prover({**(given or {}), **ranges})
    return _extreme(prover, e, ranges, 0), _extreme(prover, e, ranges, 1)


def _extreme(prover: Prover, e: DimLike, ranges: Ranges, side: int) -> DimLike | None:
    for _ in range(2 * len(ranges) + 1):
        if not isinstance(e, Dim) or e.symbols.isdisjoint(ranges):
            return e
        for name in prover.innermost(e, ranges):
            way = prover.direction(e, name)
            if way is not None:
                break
        else:
            return None
        rising = (way >= 0) == (side == 0)
        bound = prover.range_of(name)[0 if rising else 1]
        if bound is None:
            return None
        e = _at_end(e, name, bound, 1 if rising else -1)
    return None


__all__ = [
    "Prover",
    "Range",
    "Ranges",
    "atoms_of",
    "bounds",
    "equal",
    "expand_mod",
    "extremes",
    "nonneg",
    "without",
]
