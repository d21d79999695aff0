"""Makes a failing model small: tries ever smaller edits of a kind, and keeps what fails as before.

The search is delta debugging (Zeller and Hildebrandt 2002): all of a kind at once, then halves,
quarters and so on, until a whole round changes nothing.  It knows programs by `Program` alone; one
for IR modules stands in program_module.py, one for ONNX graphs in frontends/onnx/shrink.py.
Nothing is drawn at random, so the same model gives the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Program(Protocol):
    """A program that can be made smaller; it is never changed, edits give new ones."""

    @property
    def size(self) -> int:
        """The number of ops, constants not counted."""

    def atoms(self, kind: str) -> int:
        """How many places there are for an edit of a kind; each success makes them fewer."""

    def edited(self, kind: str, chosen: Sequence[int]) -> Program | None:
        """The program with edits of a kind at these places; None where that cannot be."""

    def save(self, path: Path) -> None:
        """Write the program whole, or nothing."""


@dataclass(frozen=True)
class Kind:
    """A kind of edit.  `alone` ones are tried one place at a time, `whole` ones at all places at
    once, `first` ones by halving for the first place that still fails.
    """

    name: str
    meaning: str
    alone: bool = False
    first: bool = False
    whole: bool = False


KINDS = (
    Kind("outputs", "an output less"),
    Kind("weights", "all constants have equal elements", whole=True),
    Kind("inline", "a region's ops stand in its place", alone=True),
    Kind("end", "the program ends at an op", first=True),
    Kind("inputs", "an op's results become inputs"),
    Kind("bypass", "an op gives what it takes"),
    Kind("constants", "an op's results become constants"),
    Kind("weights", "a constant's elements all equal"),
    Kind("extents", "an extent is smaller", alone=True),
)
"""In the order in which they are tried: what makes the check faster comes first, what takes a check
for each of many constants when few are left."""


@dataclass
class Search:
    """A reduction under way: `fails` says whether a program still fails as the first one did."""

    fails: Callable[[Program], bool]
    say: Callable[[str], None] = print
    most: int = 5000
    tries: int = 0
    """Checks so far, at most `most`."""

    def reduce(self, program: Program) -> Program:
        """The smallest program that the edits lead to."""
        while True:
            before = self.tries, program
            for kind in KINDS:
                program = self._of_a_kind(program, kind)
            if program is before[1] or self.tries >= self.most:
                return program

    def _of_a_kind(self, program: Program, kind: Kind) -> Program:
        if kind.first:
            return self._first(program, kind)
        return self._chunks(program, kind)

    def _try(self, program: Program, kind: Kind, chosen: Sequence[int]) -> Program | None:
        """The edited program where it fails still."""
        if self.tries >= self.most:
            return None
        candidate = program.edited(kind.name, chosen)
        if candidate is None:
            return None
        self.tries += 1
        if not self.fails(candidate):
            return None
        self.say(f"{candidate.size} ops after {self.tries} checks: {kind.meaning}")
        return candidate

    def _first(self, program: Program, kind: Kind) -> Program:
        """Halve for the first place at which the edit still fails."""
        low, high = 0, program.atoms(kind.name)
        best = program
        while low < high:
            middle = (low + high) // 2
            found = self._try(program, kind, [middle])
            if found is None:
                low = middle + 1
            else:
                best, high = found, middle
        return best

    def _chunks(self, program: Program, kind: Kind) -> Program:
        size = 1 if kind.alone else program.atoms(kind.name)
        while size:
            at = 0
            while at < (count := program.atoms(kind.name)):
                found = self._try(program, kind, range(at, min(at + size, count)))
                if found is None:
                    at += size
                    continue
                program = found
                if program.atoms(kind.name) >= count:
                    at += size
            size = 0 if kind.whole else size // 2
        return program


__all__ = ["KINDS", "Kind", "Program", "Search"]
