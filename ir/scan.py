"""The scanner under the parser: a text, a position, and errors that show the line with a caret.

Imports: types, dims, errors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

from .dims import DimLike, parse_dim
from .errors import Error, InvalidModelError
from .types import Type, parse_type

T = TypeVar("T")
SPACE = r"(?:[ \t\r\n]++|//[^\n]*+)*+"
MAX_NESTING = 60
"""Depth of brackets in dims and types, and of tuples in tuples."""
MAX_EXPRESSION = 20_000
"""Characters in one type or dim."""


def token(pattern: str) -> re.Pattern[str]:
    """A token and the space after it; group 1 is the token."""
    return re.compile(f"({pattern}){SPACE}")


_SKIP = re.compile(SPACE)
_STRING = token(r'"(?:[^"\\\n]|\\.)*+"')
_PLAIN_TYPE = token(r"[a-z][a-z0-9]*+(?:\[[^\[\]<>{}\"\n]*+\])?+(?![<\[])")
_TYPE_HEAD = re.compile(r"[a-z]++<")
_STOP = re.compile(r"[()\[\]{},<>\"\n]")


class Scanner:
    """A text and the position of the next token."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.at = 0
        self.skip()

    def skip(self) -> None:
        """Go past space and comments."""
        match = _SKIP.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def error(
        self, message: str, at: int | None = None, code: str = "E0220", hint: str | None = None
    ) -> NoReturn:
        """Raise an error that shows the line and points at the column."""
        at = self.at if at is None else at
        line = self.text.count("\n", 0, at) + 1
        start = self.text.rfind("\n", 0, at) + 1
        stop = self.text.find("\n", at)
        column = at - start
        source = self.text[start : stop if stop >= 0 else len(self.text)]
        cut = max(0, column - 60)
        shown = "".join([c if c.isprintable() else " " for c in source[cut : cut + 100]])
        raise InvalidModelError(
            code,
            message,
            where=f"{self.file}:{line}:{column + 1}",
            details=(shown, " " * (column - cut) + "^"),
            hint=hint,
        )

    def found(self) -> str:
        """What stands at the position, for messages."""
        rest = self.text[self.at : self.at + 20].split("\n", 1)[0]
        return (
            f"found {rest!r}"
            if rest
            else "the line ends here"
            if self.at < len(self.text)
            else "the text ends here"
        )

    def take(self, literal: str) -> bool:
        """Go past `literal` if it comes next."""
        if not self.text.startswith(literal, self.at):
            return False
        self.at += len(literal)
        self.skip()
        return True

    def expect(self, literal: str) -> None:
        """Go past `literal`, which must come next."""
        if not self.take(literal):
            self.error(f"expected '{literal}', {self.found()}")

    def match(self, pattern: re.Pattern[str]) -> str | None:
        """Go past the token if it comes next, and give it."""
        match = pattern.match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return match.group(1)

    def need(self, pattern: re.Pattern[str], what: str) -> str:
        """Go past the token, which must come next, and give it."""
        return self.match(pattern) or self.error(f"expected {what}, {self.found()}")

    def string(self) -> str:
        """A JSON string."""
        at = self.at
        raw = self.need(_STRING, "a string")
        try:
            text = json.loads(raw, strict=False)
        except ValueError:
            self.error("this is no JSON string", at)
        assert isinstance(text, str)
        return text

    def type(self) -> Type:
        """A type."""
        at = self.at
        text = self.match(_PLAIN_TYPE)
        if text is None:
            if _TYPE_HEAD.match(self.text, at) is None:
                self.error(f"expected a type, {self.found()}")
            self._balance("<>", at)
            text = self.text[at : self.at]
            self.skip()
        return self._read(parse_type, text, at, "a type")

    def dim(self) -> DimLike:
        """An integer expression; it ends before a comma or a closing bracket."""
        at, depth = self.at, 0
        while (stop := _STOP.search(self.text, self.at)) is not None:
            char = stop.group()
            self.at = stop.start()
            if char == "(":
                depth += 1
            elif char == ")" and depth:
                depth -= 1
            elif char != "," or depth == 0:
                break
            if depth > MAX_NESTING:
                self.error("brackets are nested too deeply", at, "E0226")
            self.at += 1
        text = self.text[at : self.at].strip()
        if not text:
            self.at = at
            self.error(f"expected a value, {self.found()}", at)
        value = self._read(parse_dim, text, at, "a dim expression")
        self.skip()
        return value

    def _balance(self, pair: str, at: int) -> None:
        """Go past everything up to the bracket that closes the next one."""
        depth = 0
        for place in range(at, min(len(self.text), at + MAX_EXPRESSION)):
            if self.text[place] == pair[0]:
                depth += 1
            elif self.text[place] == pair[1]:
                depth -= 1
                if depth == 0:
                    self.at = place + 1
                    return
            if depth > MAX_NESTING:
                self.error("brackets are nested too deeply", at, "E0226")
        self.error(f"'{pair[0]}' is never closed", at)

    def _read(self, read: Callable[[str], T], text: str, at: int, what: str) -> T:
        """`read(text)`, with its errors placed; text from outside may break it in any way."""
        if len(text) > MAX_EXPRESSION or text.count("(") > MAX_NESTING:
            self.error(f"{what} is too long or nested too deeply", at, "E0226")
        try:
            return read(text)
        except Error as error:
            self.error(error.message, at, error.code, error.hint)
        except (ValueError, AssertionError, LookupError, ArithmeticError, TypeError):
            self.error(f"{text!r} is not {what}", at, "E0203")


__all__ = ["MAX_NESTING", "SPACE", "Scanner", "token"]
