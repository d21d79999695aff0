"""Import row of Einsum: terms become pairwise contractions of distinct letters, and transposes.

Imports: node, ir.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.core import Value
from .node import Node, Result, Row

Term = tuple[Value, str]
"""An operand, and one letter for each of its axes."""


def einsum(n: Node) -> Result:
    """Terms from the left, two at a time; `...` stands for leading axes of equal number."""
    equation = n.required("equation").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    parts = terms.split(",")
    if len(parts) != len(n):
        raise n.invalid("E0313", f"Einsum: {equation!r} has {len(parts)} terms")
    letters = _expanded(n, parts)
    if not arrow:
        every = "".join(parts).replace(".", "")
        result = "..." * ("..." in terms) + "".join(
            sorted(c for c in set(every) if every.count(c) == 1)
        )
    result = result.replace("...", letters.pop())
    if len(set(result)) != len(result):
        raise n.invalid("E0313", f"Einsum: {equation!r} repeats a letter of the result")
    for k, term in enumerate(letters):
        if len(term) != n.rank(k):
            raise n.invalid("E0313", f"Einsum: '{parts[k]}' does not fit rank {n.rank(k)}")
    rest = _squeezed(n, [_diagonal(n, n.x(k), term) for k, term in enumerate(letters)])
    while len(rest) > 1:
        first, second, *rest = rest
        kept = "".join([result, *[term for _, term in rest]])
        whole = not rest
        rest = [_product(n, first, second, result if whole else kept, whole), *rest]
    x, term = rest[0]
    x, term = _without(n, x, term, result)
    return n.transpose(x, [term.index(c) for c in result])


def _squeezed(n: Node, terms: Sequence[Term]) -> list[Term]:
    """Terms without the axes of extent 1 that stand for a greater extent of another term."""
    wide = {c for x, term in terms for c, e in zip(term, x.tensor.shape, strict=True) if e != 1}
    out = []
    for x, term in terms:
        keep = [k for k, c in enumerate(term) if x.tensor.shape[k] != 1 or c not in wide]
        shape = [x.tensor.shape[k] for k in keep]
        out.append((n.reshape(x, shape), "".join([term[k] for k in keep])))
    return out


def _product(n: Node, first: Term, second: Term, kept: str, last: bool) -> Term:
    """The contraction of two terms over the letters that nothing else needs."""
    x, of_x = _without(n, *first, second[1] + kept)
    y, of_y = _without(n, *second, of_x + kept)
    found = "".join(dict.fromkeys(c for c in of_x + of_y if c in kept))
    to = kept if last and set(kept) == set(found) else found
    return n.b.contract(x, y, equation=f"{of_x},{of_y}->{to}"), to


def _expanded(n: Node, parts: Sequence[str]) -> list[str]:
    """The terms with `...` replaced by letters of its own, and what it stands for."""
    used = set("".join(parts))
    free = [c for c in "zyxwvutsrqponmlkjihgfedcba" if c not in used]
    dots = ""
    for k, part in enumerate(parts):
        if "..." in part:
            count = n.rank(k) - (len(part) - 3)
            if count < 0 or count > len(free) or (dots and len(dots) != count):
                raise n.unsupported("Einsum: the axes of '...' do not fit", ",".join(parts))
            dots = dots or "".join(free[:count])
    return [*[p.replace("...", dots) for p in parts], dots]


def _diagonal(n: Node, x: Value, term: str) -> tuple[Value, str]:
    """A letter that occurs twice in a term: everything off the diagonal is 0, then summed."""
    while len(set(term)) != len(term):
        last = max(k for k, c in enumerate(term) if term.index(c) != k)
        first = term.index(term[last])
        places = [n.b.iota(shape=x.tensor.shape, axis=k) for k in (first, last)]
        x = n.b.where(n.b.eq(*places), x, n.like(x, 0))
        x = n.b.reduce_sum(x, axes=(last,))
        term = term[:last] + term[last + 1 :]
    return x, term


def _without(n: Node, x: Value, term: str, kept: str) -> tuple[Value, str]:
    """Sum over the letters that occur nowhere else."""
    gone = tuple([k for k, c in enumerate(term) if c not in kept])
    if not gone:
        return x, term
    return n.b.reduce_sum(x, axes=gone), "".join(c for c in term if c in kept)


ROWS: Sequence[tuple[str, int, Row]] = (("Einsum", 12, einsum),)
