"""Things by name, where a user may give a name or the thing itself.  May import: ir."""

from __future__ import annotations

from collections.abc import Iterable

from ...ir.errors import Error
from ...ir.spelling import suggestion


def unknown(code: str, what: str, given: object, known: Iterable[str], instead: str) -> Error:
    """The error for a name that stands for nothing, with the nearest that does.

    `what` is the kind of thing in one word, `instead` says what may be given besides a name.
    """
    names = list(known)
    return Error(
        code,
        f"unknown {what} {given!r}"[:200],
        details=(f"known: {', '.join(names)}, or {instead}",),
        hint=suggestion(given, names),
    )


__all__ = ["unknown"]
