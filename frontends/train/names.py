"""Things by name, where a user may give a name or the thing itself.  May import: ir."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ...ir.errors import Error


def nearest(word: object, known: Iterable[object]) -> str | None:
    """The known name that a mistyped word is most like, whatever the case."""
    names = {str(n).lower(): str(n) for n in known}
    found = difflib.get_close_matches(str(word).lower(), names, 1)
    return names[found[0]] if found else None


def unknown(code: str, what: str, given: object, known: Iterable[str], instead: str) -> Error:
    """The error for a name that stands for nothing, with the nearest that does.

    `what` is the kind of thing in one word, `instead` says what may be given besides a name.
    """
    names = list(known)
    near = nearest(given, names)
    return Error(
        code,
        f"unknown {what} {given!r}"[:200],
        details=(f"known: {', '.join(names)}, or {instead}",),
        hint=f"did you mean '{near}'?" if near else None,
    )


__all__ = ["nearest", "unknown"]
