"""The known name that a mistyped word is most like.  Imports nothing of the package."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: object, known: Iterable[object], least: float = 0.6) -> str | None:
    """The nearest of the known names, whatever the case; None where none is like the word.

    `least` is how alike they must be, from 0 to 1 (difflib's ratio).
    """
    names = {str(n).lower(): str(n) for n in known}
    found = get_close_matches(str(word).lower(), names, 1, least)
    return names[found[0]] if found else None


def suggestion(
    word: object, known: Iterable[object], otherwise: str | None = None, least: float = 0.6
) -> str | None:
    """A hint for a message: the nearest name, or what is said otherwise."""
    near = nearest(word, known, least)
    return f"did you mean '{near}'?" if near else otherwise


__all__ = ["nearest", "suggestion"]
