"""Interned canonical integer expressions: the terms of shapes, indices and loop bounds.

A `Dim` is a sum of monomials with integer coefficients plus a constant; a monomial is a product
of atoms; an atom is a symbol, a floor division, a modulo, a minimum or a maximum.  Invariants:
equal construction gives the same object (equality is `is`); a constant result is always a plain
int; every rule applied while building holds for all integers, given only that divisors are
positive.  Rules that need ranges live in dims_prove.py and dims_simplify.py.  Imports only errors;
everyone else imports dims.py.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from math import gcd
from operator import index
from typing import Any, NoReturn
from weakref import ReferenceType, WeakValueDictionary

from .errors import Error

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
SYM, DIV, MOD, MIN, MAX = "sym", "//", "%", "min", "max"
_LOCK = threading.RLock()


class Atom:
    """A symbol, or one operation that sums and products cannot say.  Interned; compare with `is`.

    `args` is (name,) for a symbol, (numerator, divisor) for // and %, sorted arms for min and max.
    """

    __slots__ = ("kind", "args", "text", "symbols", "__weakref__")
    kind: str
    args: tuple[Any, ...]
    text: str
    symbols: frozenset[str]

    def __reduce__(self) -> tuple[Any, ...]:
        return atom, (self.kind, self.args)


class Mono:
    """A product of atoms sorted by text (with repetition).  Interned; compare with `is`."""

    __slots__ = ("factors", "key", "symbols", "__weakref__")
    factors: tuple[Atom, ...]
    key: str
    symbols: frozenset[str]

    def __reduce__(self) -> tuple[Any, ...]:
        return mono, (self.factors,)


Terms = tuple[tuple[Mono, int], ...]


class Dim:
    """An integer expression that is not a constant.  Immutable and interned: equality is identity.

    `terms` are (monomial, coefficient) pairs in a stable order, `const` is the added constant.
    """

    __slots__ = ("terms", "const", "_symbols", "_text", "__weakref__")
    terms: Terms
    const: int
    _symbols: frozenset[str] | None
    _text: str | None
    __array_ufunc__ = None  # numpy scalars leave their arithmetic with dims to us

    @property
    def symbols(self) -> frozenset[str]:
        """The names of all symbols in the expression."""
        found = self._symbols
        if found is None:
            terms = self.terms
            found = terms[0][0].symbols
            if len(terms) > 1:
                found = found.union(*[m.symbols for m, _ in terms])
            self._symbols = found
        return found

    def __add__(self, other: DimLike) -> DimLike:
        if type(other) is int:
            return dim(self.terms, self.const + other)
        if isinstance(other, Dim):
            return _add(self, other, 1)
        return NotImplemented if (k := _as_int(other)) is None else self + k

    __radd__ = __add__

    def __sub__(self, other: DimLike) -> DimLike:
        if type(other) is int:
            return dim(self.terms, self.const - other)
        if isinstance(other, Dim):
            return _add(self, other, -1)
        return NotImplemented if (k := _as_int(other)) is None else self - k

    def __rsub__(self, other: int) -> DimLike:
        return NotImplemented if (k := _as_int(other)) is None else (-self) + k

    def __neg__(self) -> Dim:
        return _scale(self, -1)

    def __mul__(self, other: DimLike) -> DimLike:
        if type(other) is int:
            return _scale(self, other) if other else 0
        if isinstance(other, Dim):
            return _product(self, other)
        return NotImplemented if (k := _as_int(other)) is None else self * k

    __rmul__ = __mul__

    def __floordiv__(self, other: DimLike) -> DimLike:
        return NotImplemented if (k := _operand(other)) is None else floordiv(self, k)

    def __rfloordiv__(self, other: int) -> DimLike:
        return NotImplemented if (k := _as_int(other)) is None else floordiv(k, self)

    def __mod__(self, other: DimLike) -> DimLike:
        return NotImplemented if (k := _operand(other)) is None else mod(self, k)

    def __rmod__(self, other: int) -> DimLike:
        return NotImplemented if (k := _as_int(other)) is None else mod(k, self)

    def __lt__(self, other: object) -> NoReturn:
        raise TypeError("a Dim has no order of its own: ask dims.nonneg(a - b) or dims.equal(a, b)")

    __le__ = __gt__ = __ge__ = __lt__

    def __str__(self) -> str:
        text = self._text
        if text is None:
            text = self._text = _format(self)
        return text

    def __repr__(self) -> str:
        return f"Dim({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return dim, (self.terms, self.const)


DimLike = int | Dim

_ATOMS: WeakValueDictionary[tuple[str, tuple[Any, ...]], Atom] = WeakValueDictionary()
_MONOS: WeakValueDictionary[tuple[Atom, ...], Mono] = WeakValueDictionary()
_DIMS: WeakValueDictionary[tuple[Terms, int], Dim] = WeakValueDictionary()
_SYMBOLS: WeakValueDictionary[str, Dim] = WeakValueDictionary()
# The references themselves: `get` of the class above, asked this often, would be half the cost.
_ATOM_REFS: Mapping[Any, ReferenceType[Atom]] = vars(_ATOMS)["data"]
_MONO_REFS: Mapping[Any, ReferenceType[Mono]] = vars(_MONOS)["data"]
_DIM_REFS: Mapping[Any, ReferenceType[Dim]] = vars(_DIMS)["data"]
_COUNTER = itertools.count()


def _as_int(value: object) -> int | None:
    try:
        return index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _operand(value: object) -> DimLike | None:
    return value if isinstance(value, Dim) else _as_int(value)


# Interning -------------------------------------------------------------------------------------


def dim(terms: Terms, const: int) -> DimLike:
    """The expression of sorted, non-zero `terms` plus `const`; an int when there are no terms."""
    if not terms:
        return const
    key = (terms, const)
    known = _DIM_REFS.get(key)
    found = None if known is None else known()
    if found is None:
        with _LOCK:
            found = _DIMS.get(key)
            if found is None:
                found = object.__new__(Dim)
                found.terms, found.const, found._symbols, found._text = terms, const, None, None
                _DIMS[key] = found
    return found


def mono(factors: tuple[Atom, ...]) -> Mono:
    """The product of `factors`, which are sorted by text."""
    known = _MONO_REFS.get(factors)
    found = None if known is None else known()
    if found is None:
        with _LOCK:
            found = _MONOS.get(factors)
            if found is None:
                found = object.__new__(Mono)
                found.factors = factors
                found.key = "*".join([f.text for f in factors])
                found.symbols = frozenset().union(*[f.symbols for f in factors])
                _MONOS[factors] = found
    return found


def atom(kind: str, args: tuple[Any, ...]) -> Atom:
    """The atom of `kind` with canonical `args`."""
    key = (kind, args)
    known = _ATOM_REFS.get(key)
    found = None if known is None else known()
    if found is None:
        with _LOCK:
            found = _ATOMS.get(key)
            if found is None:
                found = object.__new__(Atom)
                found.kind, found.args = kind, args
                found.text = _format_atom(kind, args)
                if kind == SYM:
                    found.symbols = frozenset(args)
                else:
                    found.symbols = frozenset().union(*[symbols_of(a) for a in args])
                _ATOMS[key] = found
    return found


def _wrap(a: Atom) -> Dim:
    made = dim(((mono((a,)), 1),), 0)
    assert isinstance(made, Dim)
    return made


def from_atom(a: Atom) -> Dim:
    """The expression that is just the atom `a`."""
    return _wrap(a)


def from_mono(m: Mono, coefficient: int = 1) -> DimLike:
    """coefficient * m."""
    return dim(((m, coefficient),), 0) if coefficient else 0


def sym(name: str) -> Dim:
    """The symbol `name` ([A-Za-z_][A-Za-z0-9_.]*); the same object for the same name."""
    found = _SYMBOLS.get(name)
    if found is None:
        if not NAME.match(name):
            raise Error("E0320", f"{name!r} is no dim name", hint="use letters, digits, _ and .")
        with _LOCK:
            found = _SYMBOLS[name] = _wrap(atom(SYM, (name,)))
    return found


def fresh(prefix: str = "d") -> Dim:
    """A new symbol whose name no living symbol of this process has."""
    while True:
        name = f"{prefix}{next(_COUNTER)}"
        if name not in _SYMBOLS:
            return sym(name)


# Sums and products -----------------------------------------------------------------------------


def _key(term: tuple[Mono, int]) -> str:
    return term[0].key


def from_terms(terms: Mapping[Mono, int], const: int) -> DimLike:
    """The sum of coefficient * monomial over `terms`, plus `const`; zero coefficients vanish."""
    kept = [t for t in terms.items() if t[1]]
    if len(kept) > 1:
        kept.sort(key=_key)
    return dim(tuple(kept), const)


def _add(a: Dim, b: Dim, sign: int) -> DimLike:
    total = dict(a.terms)
    for m, c in b.terms:
        total[m] = total.get(m, 0) + sign * c
    return from_terms(total, a.const + sign * b.const)


def _scale(a: Dim, k: int) -> Dim:
    made = dim(tuple([(m, c * k) for m, c in a.terms]), a.const * k)
    assert isinstance(made, Dim)
    return made


def _times(a: Mono, b: Mono) -> Mono:
    return mono(tuple(sorted(a.factors + b.factors, key=lambda f: f.text)))


def _product(a: Dim, b: Dim) -> DimLike:
    total: dict[Mono, int] = {}
    for m, c in a.terms:
        if b.const:
            total[m] = total.get(m, 0) + c * b.const
        for n, d in b.terms:
            both = _times(m, n)
            total[both] = total.get(both, 0) + c * d
    if a.const:
        for n, d in b.terms:
            total[n] = total.get(n, 0) + a.const * d
    return from_terms(total, a.const * b.const)


def mono_without(m: Mono, part: Iterable[Atom]) -> tuple[Atom, ...] | None:
    """The factors of m less those of `part`; None where `part` does not divide m."""
    left = list(m.factors)
    for f in part:
        if f not in left:
            return None
        left.remove(f)
    return tuple(left)


def single(e: DimLike, *kinds: str) -> Atom | None:
    """The atom that e consists of, if e is one atom of these kinds and nothing else."""
    if isinstance(e, Dim) and len(e.terms) == 1 and not e.const:
        m, c = e.terms[0]
        if c == 1 and len(m.factors) == 1 and m.factors[0].kind in kinds:
            return m.factors[0]
    return None


# Division --------------------------------------------------------------------------------------


def floordiv(a: DimLike, b: DimLike) -> DimLike:
    """Floor of a / b, for b positive.  Raises E0321 for a constant b <= 0."""
    if isinstance(b, Dim):
        return _divide_by_dim(a, b)[0]
    _check_divisor(b)
    if not isinstance(a, Dim):
        return a // b
    return a if b == 1 else _floordiv_const(a, b)


def mod(a: DimLike, b: DimLike) -> DimLike:
    """a - b * floordiv(a, b), for b positive.  Raises E0321 for a constant b <= 0."""
    if isinstance(b, Dim):
        return _divide_by_dim(a, b)[1]
    _check_divisor(b)
    if not isinstance(a, Dim):
        return a % b
    return 0 if b == 1 else _mod_const(a, b)


def ceildiv(a: DimLike, b: DimLike) -> DimLike:
    """Ceiling of a / b, for b positive: (a + b - 1) // b."""
    return floordiv(a + b - 1, b)


def _check_divisor(b: int) -> None:
    if b <= 0:
        raise Error("E0321", f"a dim is divided by {b}", hint="divisors of dims are positive")


def _split(a: Dim, b: int) -> tuple[DimLike, dict[Mono, int], int]:
    """a as b * whole + rest + r: coefficients of rest below b in magnitude, r in [0, b)."""
    whole: list[tuple[Mono, int]] = []
    rest: dict[Mono, int] = {}
    for m, c in a.terms:
        q, r = divmod(c, b)
        if r and c < 0:  # truncate, so that N - i stays as written
            q, r = q + 1, r - b
        if q:
            whole.append((m, q))
        if r:
            rest[m] = r
    q, r = divmod(a.const, b)
    return dim(tuple(whole), q), rest, r


def _floordiv_const(a: Dim, b: int) -> DimLike:
    whole, rest, r = _split(a, b)
    if not rest:
        return whole
    g = gcd(b, *rest.values())
    if g > 1:
        rest = {m: c // g for m, c in rest.items()}
        b, r = b // g, r // g
    inner = [m for m, c in rest.items() if c == 1 and _const_division(m)]
    if len(inner) == 1:  # (x // p + y) // b is (x + p*y) // (p*b)
        x, p = inner[0].factors[0].args
        del rest[inner[0]]
        return whole + floordiv(x + from_terms(rest, r) * p, p * b)
    numerator = from_terms(rest, r)
    remainder = single(numerator, MOD)
    if remainder is not None and type(remainder.args[1]) is int:
        x, p = remainder.args
        if p <= b:
            return whole
        if p % b == 0:  # (x % (b*q)) // b is (x // b) % q
            return whole + mod(floordiv(x, b), p // b)
    return whole + _wrap(atom(DIV, (numerator, b)))


def _const_division(m: Mono) -> bool:
    if len(m.factors) != 1 or m.factors[0].kind != DIV:
        return False
    return type(m.factors[0].args[1]) is int


def _mod_const(a: Dim, b: int) -> DimLike:
    _, rest, r = _split(a, b)
    if not rest:
        return r
    for m, c in rest.items():
        f = m.factors[0]
        if f.kind != MOD or len(m.factors) != 1 or type(f.args[1]) is not int:
            continue
        if c * f.args[1] % b == 0:
            del rest[m]  # x % p is x, modulo any divisor of p
            return mod(from_terms(rest, r) + f.args[0] * c, b)
    g = gcd(b, *rest.values())
    if g > 1:
        inner = from_terms({m: c // g for m, c in rest.items()}, r // g)
        return mod(inner, b // g) * g + r % g
    return _wrap(atom(MOD, (from_terms(rest, r), b)))


def _divide_by_dim(a: DimLike, b: Dim) -> tuple[DimLike, DimLike]:
    """(a // b, a % b) for a symbolic b, taking out the multiples of b that a plainly contains."""
    whole, rest = _take_multiples(a, b)
    if not isinstance(rest, Dim):
        if rest == 0:
            return whole, 0
    elif (shared := _shared_factor(rest, b)) is not None:
        factor, x, y = shared
        return whole + floordiv(x, y), mod(x, y) * factor
    remainder = rest
    if isinstance(rest, Dim):
        for m, c in rest.terms:
            if m.factors[0].kind == MOD and len(m.factors) == 1 and m.factors[0].args[1] is b:
                return (
                    whole + _wrap(atom(DIV, (rest, b))),
                    mod(rest + (m.factors[0].args[0] - _wrap(m.factors[0])) * c, b),
                )
    nested = single(rest, DIV)
    if nested is not None:  # (x // p) // b is x // (p*b)
        quotient = floordiv(nested.args[0], nested.args[1] * b)
    else:
        quotient = _wrap(atom(DIV, (rest, b)))
    return whole + quotient, _wrap(atom(MOD, (remainder, b)))


def _take_multiples(a: DimLike, b: Dim) -> tuple[DimLike, DimLike]:
    """(q, a - q*b), q gathered where one term of a over the leading term of b shortens the rest."""
    lead, k = max(b.terms, key=lambda t: len(t[0].factors))
    whole: DimLike = 0
    rest = a
    progress = True
    while progress and isinstance(rest, Dim):
        progress = False
        for m, c in rest.terms:
            left = mono_without(m, lead.factors) if c % k == 0 else None
            if left is None:
                continue
            q = from_mono(mono(left), c // k) if left else c // k
            shorter = rest - q * b
            if not isinstance(shorter, Dim) or len(shorter.terms) < len(rest.terms):
                whole, rest, progress = whole + q, shorter, True
                break
    return whole, rest


def _shared_factor(a: Dim, b: Dim) -> tuple[DimLike, DimLike, DimLike] | None:
    """(f, a / f, b / f) for the largest product f that divides every term of both."""
    if a.const or b.const:
        return None
    terms = a.terms + b.terms
    shared = list(terms[0][0].factors)
    for m, _ in terms[1:]:
        pool = list(m.factors)
        shared = [f for f in shared if f in pool and (pool.remove(f) or True)]  # type: ignore[func-returns-value]
    g = gcd(*[c for _, c in terms])
    if not shared and g == 1:
        return None
    factor = from_mono(mono(tuple(shared)), g) if shared else g
    return factor, _cancel(a, shared, g), _cancel(b, shared, g)


def _cancel(e: Dim, factors: list[Atom], g: int) -> DimLike:
    total: DimLike = 0
    for m, c in e.terms:
        left = mono_without(m, factors)
        total = total + (from_mono(mono(left), c // g) if left else c // g)
    return total


# Minimum and maximum ---------------------------------------------------------------------------


def min_(*xs: DimLike) -> DimLike:
    """The least of xs (at least one)."""
    return _extremum(MIN, xs)


def max_(*xs: DimLike) -> DimLike:
    """The greatest of xs (at least one)."""
    return _extremum(MAX, xs)


def _arms(kind: str, e: DimLike) -> Iterable[DimLike]:
    """The arms of e seen as an extremum of `kind`: k*min(a, b) + c has k*a + c and k*b + c."""
    if isinstance(e, Dim) and len(e.terms) == 1 and len(e.terms[0][0].factors) == 1:
        inner, k = e.terms[0][0].factors[0], e.terms[0][1]
        if inner.kind in (MIN, MAX) and (inner.kind == kind) == (k > 0):
            for arm in inner.args:
                yield from _arms(kind, arm * k + e.const)
            return
    yield e


def _extremum(kind: str, xs: Iterable[DimLike]) -> DimLike:
    pick: Callable[[int, int], int] = min if kind == MIN else max
    arms: dict[Terms, int] = {}
    for x in xs:
        for arm in _arms(kind, x):
            terms, const = (arm.terms, arm.const) if isinstance(arm, Dim) else ((), index(arm))
            arms[terms] = pick(arms[terms], const) if terms in arms else const
    if len(arms) == 1:
        return dim(*arms.popitem())
    shift = min(arms.values(), key=lambda c: (abs(c), c))
    g = gcd(*[c - shift for c in arms.values()], *[c for terms in arms for _, c in terms])
    parts = [dim(tuple([(m, c // g) for m, c in t]), (k - shift) // g) for t, k in arms.items()]
    parts.sort(key=lambda e: (isinstance(e, Dim), str(e)))
    return _wrap(atom(kind, tuple(parts))) * g + shift


def symbols_of(e: DimLike) -> frozenset[str]:
    """The names of all symbols in e; empty for an int."""
    return e.symbols if isinstance(e, Dim) else frozenset()


def rebuild(kind: str, args: list[DimLike]) -> DimLike:
    """The operation `kind` (//, %, min, max) on new arguments."""
    if kind == DIV:
        return floordiv(*args)
    return mod(*args) if kind == MOD else _extremum(kind, args)


# Text ------------------------------------------------------------------------------------------


def _format_atom(kind: str, args: tuple[Any, ...]) -> str:
    if kind == SYM:
        return str(args[0])
    if kind in (MIN, MAX):
        return f"{kind}({', '.join([str(a) for a in args])})"
    return f"{_enclose(args[0])} {kind} {_enclose(args[1])}"


def _enclose(e: DimLike) -> str:
    """e as an operand of // and %: in parentheses unless it is a number >= 0, a name or a call."""
    plain = single(e, SYM, MIN, MAX) is not None if isinstance(e, Dim) else e >= 0
    return str(e) if plain else f"({e})"


def _format_term(m: Mono, k: int, leading_minus: bool) -> str:
    bare = k == 1 and len(m.factors) == 1 and not leading_minus
    parts = [f.text if bare or f.kind not in (DIV, MOD) else f"({f.text})" for f in m.factors]
    return "*".join(parts if k == 1 else [str(k), *parts])


def _format(e: Dim) -> str:
    positive = [_format_term(m, c, False) for m, c in e.terms if c > 0]
    minus = [(m, -c) for m, c in e.terms if c < 0]
    head = " + ".join(positive)
    rest = e.const
    if not positive and rest > 0:
        head, rest = str(rest), 0
    if not head:
        m, c = minus.pop(0)
        head = "-" + _format_term(m, c, True)
    head += "".join([f" - {_format_term(m, c, False)}" for m, c in minus])
    return head + (f" + {rest}" if rest > 0 else f" - {-rest}" if rest < 0 else "")
