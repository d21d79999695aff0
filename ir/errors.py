"""Errors as a user sees them: what, where, expected, found, and a hint.

Invariant: an `Error` never needs a traceback to be understood; `render()` is the text the command
prints.  Numbers: E01 import, E02 IR, E03 types and shapes, E04 lowering and targets, E05 run time,
E06 training, E07 compression, E08 packaging, each with two more digits.
Imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_OK = 0
EXIT_USER = 1
EXIT_USAGE = 2
EXIT_UNSUPPORTED = 3
EXIT_INVALID_MODEL = 4
EXIT_VERIFICATION = 5
EXIT_DOES_NOT_FIT = 6
EXIT_NO_TOOLCHAIN = 7
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


class Error(Exception):
    """A mistake that the user can mend.

    `code` is an error number such as "E0312"; `where` names the place (an op's location, a file and
    line, a node); `details` are indented lines below it (found, expected); `hint` says what to do.
    """

    exit_code = EXIT_USER

    def __init__(
        self,
        code: str,
        message: str,
        *,
        where: object = None,
        details: Sequence[str] = (),
        hint: str | None = None,
        exit_code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where
        self.details = tuple(details)
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code

    def render(self) -> str:
        """The whole error as printed to stderr, without a final newline."""
        lines = [f"error[{self.code}]: {self.message}"]
        if self.where is not None and str(self.where):
            lines.append(f"  {self.where}")
        lines += [f"    {line}" for line in self.details]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


class UnsupportedError(Error):
    """An op, dtype or feature that this importer or target does not have."""

    exit_code = EXIT_UNSUPPORTED


class InvalidModelError(Error):
    """The model itself is wrong: a damaged file, an ill-typed node, a broken IR text."""

    exit_code = EXIT_INVALID_MODEL


class VerifyError(Error):
    """The IR breaks a rule, or a result differs from the reference."""

    exit_code = EXIT_VERIFICATION
