"""Products: matmul, dot, outer, einsum.  May import: ir, its siblings."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from ...ir.errors import Error
from ...ir.ops.contract import Contract, Matmul
from .creation import diagonal
from .dispatch import as_tensor, here, one
from .functions import multiply, numeric, pair
from .reductions import sum as sum_over
from .shaping import expand_dims, moveaxis, squeeze, transpose

if TYPE_CHECKING:
    from .tensor import Tensor


def matmul(x: Any, y: Any) -> Tensor:
    """x @ y: products over the last axis of x and the last but one of y, vectors as in numpy."""
    x, y = pair(numeric(x), numeric(y))
    if x.ndim == 0 or y.ndim == 0:
        raise Error("E0612", "matmul: a number is no matrix", where=here(), hint="use *")
    row, column = x.ndim == 1, y.ndim == 1
    out = one(Matmul, expand_dims(x, 0) if row else x, expand_dims(y, 1) if column else y)
    gone = tuple([a for a, once in ((-2, row), (-1, column)) if once])
    return squeeze(out, gone) if gone else out


def dot(x: Any, y: Any) -> Tensor:
    """The inner product of vectors; of matrices their product."""
    x, y = as_tensor(x), as_tensor(y)
    return multiply(x, y) if x.ndim == 0 or y.ndim == 0 else matmul(x, y)


def outer(x: Any, y: Any) -> Tensor:
    """The products of every element of one vector with every one of another."""
    return multiply(expand_dims(x, 1), expand_dims(y, 0))


def einsum(equation: str, *operands: Any) -> Tensor:
    """The product-sum that the equation says, as in numpy: "bik,bkj->bij", "ii", "...d,dk"."""
    terms, result, xs = _parsed(equation, [as_tensor(x) for x in operands])
    for k, x in enumerate(xs):
        terms[k], xs[k] = _without_repeats(terms[k], x)
    while len(xs) > 1:
        others = set("".join(terms[2:])) | set(result)
        term, x = _product(terms[0], xs[0], terms[1], xs[1], others)
        terms, xs = [term, *terms[2:]], [x, *xs[2:]]
    term, x = _summed(terms[0], xs[0], set(result))
    missing = [c for c in result if c not in term]
    if missing:
        raise _wrong(equation, f"'{missing[0]}' stands in no operand")
    return transpose(x, tuple([term.index(c) for c in result])) if term != result else x


def _wrong(equation: str, why: str) -> Error:
    return Error("E0613", f"einsum: {equation!r}: {why}", where=here())


def _parsed(equation: str, xs: list[Tensor]) -> tuple[list[str], str, list[Tensor]]:
    """Terms and result with letters for the axes of an ellipsis."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(xs):
        raise _wrong(equation, f"{len(terms)} terms for {len(xs)} operands")
    free = [c for c in string.ascii_letters if c not in equation]
    widest = max(
        [x.ndim - len(t.replace("...", "")) for t, x in zip(terms, xs) if "..." in t], default=0
    )
    dots = "".join(free[:widest])
    for k, (term, x) in enumerate(zip(terms, xs)):
        rest = x.ndim - len(term.replace("...", ""))
        if rest < 0 or (rest and "..." not in term):
            raise _wrong(equation, f"'{term}' does not fit {x.type}")
        terms[k] = term.replace("...", dots[len(dots) - rest :] if rest else "")
    if not arrow:
        named = "".join(terms)
        once = sorted([c for c in set(named) if named.count(c) == 1 and c not in dots])
        return terms, dots + "".join(once), xs
    return terms, result.replace("...", dots), xs


def _without_repeats(term: str, x: Tensor) -> tuple[str, Tensor]:
    """A letter twice in one term is a diagonal."""
    for letter in term:
        while term.count(letter) > 1:
            first = term.index(letter)
            second = term.index(letter, first + 1)
            x = diagonal(moveaxis(x, (first, second), (-2, -1)))
            term = "".join([c for k, c in enumerate(term) if k not in (first, second)]) + letter
    return term, x


def _summed(term: str, x: Tensor, kept: set[str]) -> tuple[str, Tensor]:
    """Without the axes that nobody else names."""
    gone = tuple([k for k, c in enumerate(term) if c not in kept])
    if not gone:
        return term, x
    return "".join([c for c in term if c in kept]), sum_over(x, gone)


def _product(a: str, x: Tensor, c: str, y: Tensor, others: set[str]) -> tuple[str, Tensor]:
    """The contraction of two operands; axes that only one of them names are summed."""
    a, x = _summed(a, x, others | set(c))
    c, y = _summed(c, y, others | set(a))
    x, y = pair(numeric(x), numeric(y))
    batch = [k for k in a if k in c and k in others]
    out = (
        "".join(batch)
        + "".join([k for k in a if k not in c])
        + "".join([k for k in c if k not in a])
    )
    return out, one(Contract, x, y, equation=f"{a},{c}->{out}")


__all__ = ["dot", "einsum", "matmul", "outer"]
