"""Transformations: map, batch, cache.

A `Map` says what becomes of a sample, of a block of samples (`batched`) or of a batch; a `Batch`
asks its parent for rows, so that a map below it sees whole blocks; a `Cache` keeps what came out.
Imports numpy, nodes, workers, elements and errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from itertools import count as naturals
from itertools import islice
from typing import Any

import numpy as np

from ....ir.errors import Error
from .element import Element, as_element, count, each, join, row, stack
from .node import Node, Step, Where, generator, own, positions
from .order import need
from .workers import Pool

CACHE_CHUNK = 256  # samples that a cache asks for at once


def called(function: Callable[..., Any]) -> str:
    """The name of a function, for errors."""
    return str(getattr(function, "__qualname__", None) or type(function).__name__)


class Map(Step):
    """`function` applied to each sample, or to blocks of samples, or to each batch.

    A tuple is spread over the arguments.  With a seed the function gets `rng=`, a numpy Generator
    of its own for each (seed, epoch, position).
    """

    def __init__(
        self,
        parent: Node,
        function: Callable[..., Any],
        batched: bool,
        seed: int | None,
        workers: int = 0,
        start: str | None = None,
    ) -> None:
        super().__init__(parent)
        if not callable(function):
            raise Error("E0663", f"map: {function!r} is not a function")
        self.function, self.batched = function, batched or parent.grouped
        self.seed = None if seed is None else need(seed, 0, "map(seed=)")
        self.workers, self.start = workers, start
        if self.batched and not self.grouped and seed is not None:
            raise Error(
                "E0666",
                f"map({called(function)}, batched=True, seed={seed}) stands before .batch()",
                details=("random numbers belong to a batch, and there is none yet",),
                hint="put .batch(n) before it, or leave batched=True out",
            )
        if not self.batched:
            self.chunk = 1

    def describe(self) -> str:
        """With the seed; the function's name may change between runs."""
        return "map()" if self.seed is None else f"map(seed={self.seed})"

    def label(self, position: int, epoch: int) -> str:
        """The parent's name of the element."""
        return self.parent.label(position, epoch)

    def apply(self, element: Element, position: int, epoch: int) -> Element:
        """The function's result for one element; a failure names the element (E0670)."""
        random = {}
        if self.seed is not None:
            random["rng"] = generator(self.seed, epoch, self.depth, position)
        try:
            if isinstance(element, tuple):
                return as_element(self.function(*element, **random))
            return as_element(self.function(element, **random))
        except Exception as reason:
            raise self.failure(self.label(position, epoch), epoch, reason) from reason

    def failure(self, what: str, epoch: int, reason: Exception) -> Error:
        """The error for an exception in the function; an Error keeps its own number and text."""
        where = f"map({called(self.function)}), {what}, epoch {epoch}"
        if isinstance(reason, Error):
            place = where if reason.where is None else f"{reason.where} ({where})"
            return Error(
                reason.code,
                reason.message,
                where=place,
                details=reason.details,
                hint=reason.hint,
                exit_code=reason.exit_code,
            )
        return Error(
            "E0670",
            f"the function of map failed: {type(reason).__name__}: {reason}",
            where=where,
        )

    def checked(self, batch: Element) -> Element:
        """A result of a whole batch, whose fields must agree on the number of samples."""
        try:
            count(batch)
        except Error as reason:
            reason.where = f"map({called(self.function)})"
            raise
        return batch

    def element(self, position: int, epoch: int) -> Element:
        """The function of one sample or batch."""
        if self.batched and not self.grouped:
            return row(self.rows(np.array([position], np.intp), epoch), 0)
        made = self.apply(self.parent.element(position, epoch), position, epoch)
        return self.checked(made) if self.grouped else made

    def rows(self, where: Where, epoch: int) -> Element:
        """One call for the block (batched), else a call for each sample."""
        block = self.parent.rows(where, epoch)
        places = positions(where)
        if not self.batched:
            made = [self.apply(row(block, k), int(at), epoch) for k, at in enumerate(places)]
            return stack(made, int(places[0]))
        result = self.checked(self.apply(block, int(places[0]), epoch))
        if count(result) != len(places):
            raise Error(
                "E0667",
                f"map({called(self.function)}, batched=True) changed the number of samples",
                details=(f"expected: {len(places)}", f"found: {count(result)}"),
                hint="before .batch() a map gives as many samples as it got; "
                "after .batch() it may give more or fewer",
            )
        return result

    def flow(self, epoch: int, start: int) -> Iterator[Element]:
        """The function of each element as it comes by, in `workers` processes if there are any."""
        elements = self.parent.stream(epoch, start)
        if self.workers:
            with Pool(self.alone()._work, self.workers, self.start, self.label) as pool:
                yield from pool.run((at, epoch, e) for at, e in enumerate(elements, start))
        else:
            for at, element in enumerate(elements, start):
                yield self._work(at, epoch, element)

    def alone(self) -> Map:
        """This map without what is below it, which a worker that is sent elements does not need."""
        made, below = copy(self), Node()
        made.parent, below.grouped = below, self.grouped
        return made

    def _work(self, position: int, epoch: int, element: Element) -> Element:
        if self.batched and not self.grouped:
            block = each(element, lambda field: np.asarray(field)[None])
            return row(self.checked(self.apply(block, position, epoch)), 0)
        made = self.apply(element, position, epoch)
        return self.checked(made) if self.grouped else made


class Batch(Step):
    """`number` samples side by side; the last batch may be smaller, or is dropped (`drop_last`)."""

    def __init__(self, parent: Node, number: int, drop_last: bool) -> None:
        super().__init__(parent)
        self.number, self.drop_last = need(number, 1, "batch(n)"), drop_last
        if parent.grouped:
            raise Error(
                "E0668",
                f"{parent.pipeline()} has batches already",
                hint="one .batch(n) is enough; take(), skip() and shuffle() may follow it",
            )
        self.grouped, self.samples = True, parent.size
        if self.samples is not None:
            self.size = (self.samples + (0 if drop_last else number - 1)) // number
        if self.samples and not self.size:
            raise Error(
                "E0665",
                f"batch({number}, drop_last=True) drops all {self.samples} samples",
                hint="a smaller batch, or drop_last=False",
            )

    def describe(self) -> str:
        """With the number of samples."""
        return f"batch({self.number}{', drop_last=True' if self.drop_last else ''})"

    def span(self, position: int) -> slice:
        """The samples of a batch."""
        stop = (position + 1) * self.number
        return slice(stop - self.number, stop if self.samples is None else min(stop, self.samples))

    def label(self, position: int, epoch: int) -> str:
        """The batch, with the names of its first sample and of the last."""
        if not self.indexed:
            return f"batch {position}"
        span = self.span(position)
        first, last = self.parent.label(span.start, epoch), self.parent.label(span.stop - 1, epoch)
        return f"batch {position} ({first} to {last})"

    def element(self, position: int, epoch: int) -> Element:
        """The rows of the batch's samples."""
        return self.parent.rows(self.span(position), epoch)

    def walk(self, epoch: int, start: int) -> Iterator[Element]:
        """The batches from `start` on; a loop of its own, as this is the quick path."""
        rows, number, samples = self.parent.rows, self.number, self.samples
        stops = naturals(start) if self.size is None else range(start, self.size)
        for position in stops:
            first = position * number
            stop = first + number
            if samples is not None and stop > samples:
                stop = samples
            yield rows(slice(first, stop), epoch)

    def flow(self, epoch: int, start: int) -> Iterator[Element]:
        """Samples gathered as they come by."""
        samples = self.parent.stream(epoch, start * self.number)
        at = start * self.number
        while group := list(islice(samples, self.number)):
            if len(group) == self.number or not self.drop_last:
                yield stack(group, at)
            at += len(group)


class Cache(Step):
    """Everything below, computed once (its epoch 0) and kept in memory.

    `fetch` computes it: a stream of the elements, or of blocks of samples.
    """

    def __init__(self, parent: Node, source: Callable[[], Iterator[Element]]) -> None:
        super().__init__(parent)
        self.source: Callable[[], Iterator[Element]] | None = source
        self.kept: Any = None  # a block of all samples, or a list of batches
        if parent.size is None and parent.indexed:
            raise Error("E0664", f"{parent.pipeline()} has no end and cannot be cached")
        if not parent.indexed:
            self.indexed = True
            self.fill()
            kept: Any = self.kept
            self.size = len(kept) if self.grouped else count(kept)
        if not self.grouped:
            self.chunk = CACHE_CHUNK

    def describe(self) -> str:
        """The bare name."""
        return "cache()"

    def label(self, position: int, epoch: int) -> str:
        """The parent's name of the element in epoch 0."""
        return self.parent.label(position, 0)

    def fill(self) -> None:
        """Compute what is kept, once; a pool does so before it starts, with its first element."""
        if self.kept is not None or self.source is None:
            return
        made = list(self.source())
        self.source = None
        if self.grouped:
            self.kept = made
        elif not self.parent.indexed:
            self.kept = stack(made, 0)
        else:
            self.kept = join(made)

    def rows(self, where: Where, epoch: int) -> Element:
        """A take from the kept block."""
        self.fill()
        return each(self.kept, lambda field: field.take(positions(where), 0))

    def element(self, position: int, epoch: int) -> Element:
        """A copy of the kept batch, or a row of the kept block."""
        if not self.grouped:
            return super().element(position, epoch)
        self.fill()
        return own(self.kept[position])

    def forget(self) -> dict[str, Any]:
        """What is kept, without the way to compute it."""
        self.fill()
        return {**self.__dict__, "source": None}
