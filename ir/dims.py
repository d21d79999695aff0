"""Dims: the one integer expression language of shapes, loop indices and loop bounds.

This file is the face of the language, and holds its parser.  dims_expr.py builds canonical
expressions, dims_query.py substitutes and evaluates, dims_prove.py proves bounds, dims_simplify.py
simplifies within ranges.  Imports only these and errors.

A `DimLike` is an int or a `Dim`; a constant is always an int.  // and % have floor semantics and
positive divisors.  Symbols without a range are tensor extents: 0 or more, unbounded above.
"""

from __future__ import annotations

import re

from .dims_expr import (
    Dim,
    DimLike,
    ceildiv,
    floordiv,
    fresh,
    max_,
    min_,
    mod,
    sym,
    symbols_of,
)
from .dims_prove import Range, bounds, equal, extremes, nonneg
from .dims_query import coefficient, evaluate, linear, substitute
from .dims_simplify import simplify
from .errors import InvalidModelError

__all__ = [
    "Dim",
    "DimLike",
    "Range",
    "bounds",
    "ceildiv",
    "coefficient",
    "equal",
    "evaluate",
    "extremes",
    "floordiv",
    "fresh",
    "linear",
    "max_",
    "min_",
    "mod",
    "nonneg",
    "parse_dim",
    "simplify",
    "substitute",
    "sym",
    "symbols_of",
]

_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z_][A-Za-z0-9_.]*)|(//|[-+*%(),]))")


def parse_dim(text: str) -> DimLike:
    """The expression that `text` says; parse_dim(str(e)) is e.  Raises E0290 on other text."""
    parser = _Parser(text)
    value = parser.sum()
    if parser.next is not None:
        raise parser.error()
    return value


class _Parser:
    """Recursive descent over sum := [-] product (+|- product)*; product := atom (*|//|% atom)*."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        end = 0
        stripped = text.rstrip()
        while end < len(stripped):
            match = _TOKEN.match(stripped, end)
            if match is None:
                raise self.error()
            self.tokens.append(match.group(match.lastindex or 0))
            end = match.end()
        self.tokens.reverse()

    @property
    def next(self) -> str | None:
        return self.tokens[-1] if self.tokens else None

    def error(self) -> InvalidModelError:
        """The error that names the text."""
        hint = "dims are written with names, numbers, + - * // %, min() and max()"
        return InvalidModelError("E0290", f"{self.text!r} is no dim expression", hint=hint)

    def take(self, token: str) -> bool:
        """Consume `token` if it comes next."""
        if self.next != token:
            return False
        self.tokens.pop()
        return True

    def sum(self) -> DimLike:
        """A sum, with an optional leading minus."""
        value = -self.product() if self.take("-") else self.product()
        while True:
            if self.take("+"):
                value = value + self.product()
            elif self.take("-"):
                value = value - self.product()
            else:
                return value

    def product(self) -> DimLike:
        """Factors joined by *, // and %, from the left."""
        value = self.factor()
        while True:
            if self.take("*"):
                value = value * self.factor()
            elif self.take("//"):
                value = floordiv(value, self.factor())
            elif self.take("%"):
                value = mod(value, self.factor())
            else:
                return value

    def factor(self) -> DimLike:
        """A number, a name, min(...), max(...) or a sum in parentheses."""
        if self.take("("):
            value = self.sum()
            return self.close(value)
        token = self.tokens.pop() if self.tokens else ""
        if token.isdecimal():
            return int(token)
        if token in ("min", "max") and self.take("("):
            arms = [self.sum()]
            while self.take(","):
                arms.append(self.sum())
            return self.close(min_(*arms) if token == "min" else max_(*arms))
        if not (token[:1].isalpha() or token[:1] == "_"):
            raise self.error()
        return sym(token)

    def close(self, value: DimLike) -> DimLike:
        """`value`, after the closing parenthesis that must come next."""
        if not self.take(")"):
            raise self.error()
        return value
