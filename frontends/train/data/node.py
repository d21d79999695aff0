"""Node: one step of a pipeline, a pure description of what the element at a position is.

An *indexed* node answers any position of any epoch directly; a *flowing* node (a generator below
it) only one after the other.  A *grouped* node's elements are batches, all others' are samples.
Invariants: `element`, `rows` and `stream` are functions of (position, epoch) alone, so that a
worker process, a resumed run and the main process see the same data; a node pickles (spawn).
Imports numpy, elements and errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count as naturals
from itertools import islice
from typing import Any

import numpy as np

from ....ir.errors import Error
from .element import Array, Element, each, row

Where = slice | Array  # positions: a slice with start and stop, or an array of integers
SHUFFLE_DRAW = (1 << 64) - 1  # the counter that no batch number reaches


class UnknownLength(Error, TypeError):
    """`len()` of a pipeline that ends nobody knows where; a TypeError, as `list()` expects."""


def generator(seed: int, epoch: int, salt: int, index: int) -> np.random.Generator:
    """The random numbers of one element: Philox keyed by (seed, epoch), counted by (salt, index).

    Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """
    mask = (1 << 64) - 1
    key = np.array([seed & mask, epoch & mask], np.uint64)
    counter = np.array([0, 0, salt & mask, index & mask], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def positions(where: Where) -> Array:
    """The positions as an array."""
    return np.arange(where.start, where.stop) if isinstance(where, slice) else where


class Node:
    """One step of a pipeline; `parent` is the step before it, None for a source.

    size     number of elements of an epoch; None: unknown, or without end
    indexed  `element` (and `rows`, unless grouped) answer any position
    grouped  the elements are batches
    chunk    how many samples are fetched at once when samples are handed out one by one
    depth    number of steps below; part of the key of this node's random numbers
    """

    parent: Node | None = None
    size: int | None = None
    indexed: bool = True
    grouped: bool = False
    chunk: int = 1
    depth: int = 0

    def describe(self) -> str:
        """The step as text; equal text means that positions mean the same samples."""
        return type(self).__name__.lower()

    def pipeline(self) -> str:
        """All steps, the source first: what a saved state is checked against."""
        return f"{self.parent.pipeline()}.{self.describe()}" if self.parent else self.describe()

    def label(self, position: int, epoch: int) -> str:
        """How an error calls the element at `position`."""
        return f"{'batch' if self.grouped else 'sample'} {position}"

    def rows(self, where: Where, epoch: int) -> Element:
        """The samples at `where` side by side, in arrays of their own (nobody else sees writes)."""
        raise AssertionError(f"{self.describe()} has no rows")

    def element(self, position: int, epoch: int) -> Element:
        """The element at `position` in this epoch."""
        block = self.rows(np.array([position], np.intp), epoch)
        return row(block, 0)

    def flow(self, epoch: int, start: int) -> Iterator[Element]:
        """The elements from position `start` on, of a node that is not indexed."""
        raise AssertionError(f"{self.describe()} does not flow")

    def stream(self, epoch: int, start: int = 0) -> Iterator[Element]:
        """The elements of an epoch from position `start` on."""
        return self.walk(epoch, start) if self.indexed else self.flow(epoch, start)

    def walk(self, epoch: int, start: int) -> Iterator[Element]:
        """`stream` of an indexed node, computed here."""
        if self.grouped or self.chunk == 1:
            numbers = naturals(start) if self.size is None else range(start, self.size)
            for position in numbers:
                yield self.element(position, epoch)
            return
        at = start
        while self.size is None or at < self.size:
            stop = at + self.chunk if self.size is None else min(at + self.chunk, self.size)
            block = self.rows(slice(at, stop), epoch)
            for number in range(stop - at):
                yield row(block, number)
            at = stop

    def forget(self) -> dict[str, Any]:
        """The attributes to pickle; what can be computed again stays behind."""
        return self.__dict__.copy()

    def __getstate__(self) -> dict[str, Any]:
        return self.forget()


class Step(Node):
    """A node with a parent, like it unless it says otherwise."""

    parent: Node

    def __init__(self, parent: Node) -> None:
        self.parent = parent
        self.size = parent.size
        self.indexed = parent.indexed
        self.grouped = parent.grouped
        self.chunk = parent.chunk
        self.depth = parent.depth + 1


def own(block: Element) -> Element:
    """A copy of every field that is an array."""
    return each(block, np.copy)


def skip(elements: Iterator[Element], number: int) -> Iterator[Element]:
    """The elements after the first `number`."""
    return islice(elements, number, None) if number else elements
