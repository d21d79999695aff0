"""Order: shuffle, shard, take, skip, repeat.

Over an indexed node they only compute positions: an array of them for a batch, no sample is touched
twice.  Over a flowing node they act on the elements as they come by.
Imports numpy, nodes, elements and errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count as naturals
from itertools import islice
from typing import Any

import numpy as np

from ....ir.errors import Error
from .element import Array, Element, join
from .element import take as take_rows
from .node import SHUFFLE_DRAW, Node, Step, Where, generator, positions, skip


def need(value: object, least: int, what: str) -> int:
    """`value` as an integer of at least `least`, else E0663 naming the argument."""
    ok = isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= least
    if not ok:
        raise Error("E0663", f"{what} is {value!r}", details=(f"expected: an integer >= {least}",))
    return int(value)  # type: ignore[call-overload, no-any-return]


class Ordered(Step):
    """A step that only says where in its parent a position lies (`place`)."""

    def place(self, where: Array | slice | int, epoch: int) -> Any:
        """Positions of the parent for positions of this node."""
        return where

    def label(self, position: int, epoch: int) -> str:
        """The parent's name of the element."""
        if not self.indexed:
            return super().label(position, epoch)
        return self.parent.label(int(self.place(position, epoch)), epoch)

    def rows(self, where: Where, epoch: int) -> Element:
        """The parent's rows at the places of `where`."""
        return self.parent.rows(self.place(where, epoch), epoch)

    def element(self, position: int, epoch: int) -> Element:
        """The parent's element at the place of `position`."""
        return self.parent.element(int(self.place(position, epoch)), epoch)


class Shuffle(Ordered):
    """Another order each epoch, the same in every run: a permutation keyed by (seed, epoch).

    A flowing parent is shuffled in a window of `buffer` elements, as they come by.
    """

    def __init__(self, parent: Node, seed: int, reshuffle: bool, buffer: int | None) -> None:
        super().__init__(parent)
        self.seed, self.reshuffle, self.buffer = need(seed, 0, "shuffle(seed=)"), reshuffle, buffer
        if buffer is not None:
            need(buffer, 1, "shuffle(buffer=)")
        if buffer is None and (self.size is None or not self.indexed):
            raise Error(
                "E0664",
                f"{parent.pipeline()} cannot be shuffled as a whole: its length is not known, "
                "or its elements come one after the other",
                hint="shuffle before .repeat(), read it by .cache(), or give shuffle(buffer=1000)",
            )
        if buffer is not None:
            self.indexed = False
        self._kept: tuple[int, Array] | None = None

    def describe(self) -> str:
        """With the seed and the window."""
        window = f", buffer={self.buffer}" if self.buffer else ""
        fixed = "" if self.reshuffle else ", reshuffle=False"
        return f"shuffle(seed={self.seed}{window}{fixed})"

    def draw(self, epoch: int) -> np.random.Generator:
        """The random numbers of an epoch's order."""
        return generator(self.seed, epoch if self.reshuffle else 0, self.depth, SHUFFLE_DRAW)

    def permutation(self, epoch: int) -> Array:
        """The order of an epoch; the last one is kept."""
        kept = self._kept
        if kept is None or kept[0] != epoch:
            kept = self._kept = (epoch, self.draw(epoch).permutation(self.size or 0))
        return kept[1]

    def place(self, where: Array | slice | int, epoch: int) -> Any:
        """A view of the permutation for a slice, a take otherwise."""
        return self.permutation(epoch)[where]

    def flow(self, epoch: int, start: int) -> Iterator[Element]:
        """Hand out a random element of a full window, put the next one in its place.

        The draws of a resumed epoch must be made again, so the window is filled from position 0.
        """
        window: list[Element] = []
        chance, size = self.draw(epoch), self.buffer or 1
        return skip(self._through(self.parent.stream(epoch), window, size, chance), start)

    @staticmethod
    def _through(
        elements: Iterator[Element], window: list[Element], size: int, chance: np.random.Generator
    ) -> Iterator[Element]:
        for element in elements:
            if len(window) < size:
                window.append(element)
                continue
            at = int(chance.integers(size))
            window[at], element = element, window[at]
            yield element
        yield from (window[at] for at in chance.permutation(len(window)))

    def forget(self) -> dict[str, Any]:
        """Without the permutation."""
        return {**self.__dict__, "_kept": None}


class Shard(Ordered):
    """Every `world`-th element, from number `rank` on; all ranks get as many (`even`)."""

    def __init__(self, parent: Node, rank: int, world: int, even: bool) -> None:
        super().__init__(parent)
        self.world = need(world, 1, "shard(world=)")
        self.rank, self.even = need(rank, 0, "shard(rank=)"), even
        if self.rank >= self.world:
            raise Error("E0663", f"shard: rank {rank} of {world}", hint="ranks count from 0")
        if self.size is not None:
            self.size = (self.size + (0 if even else self.world - 1 - self.rank)) // self.world

    def describe(self) -> str:
        """Without the rank: every rank can resume from the state that one of them saved."""
        return f"shard(world={self.world}{'' if self.even else ', even=False'})"

    def place(self, where: Array | slice | int, epoch: int) -> Any:
        """position * world + rank."""
        if isinstance(where, slice):
            where = np.arange(where.start, where.stop)
        return where * self.world + self.rank

    def flow(self, epoch: int, start: int) -> Iterator[Element]:
        """One of each full round of `world` elements (with even=False also of the last round)."""
        elements = self.parent.stream(epoch, start * self.world)
        while round_ := list(islice(elements, self.world)):
            if len(round_) == self.world or (not self.even and self.rank < len(round_)):
                yield round_[self.rank]


class Take(Ordered):
    """The first `number` elements."""

    def __init__(self, parent: Node, number: int) -> None:
        super().__init__(parent)
        self.number = need(number, 1, "take(n)")
        known = self.size is not None
        self.size = min(self.size or 0, number) if known else (number if self.indexed else None)

    def describe(self) -> str:
        """With the number."""
        return f"take({self.number})"

    def flow(self, epoch: int, start: int) -> Iterator[Element]:
        """Those of them from `start` on."""
        if start >= self.number:
            return iter(())
        return islice(self.parent.stream(epoch, start), self.number - start)


class Skip(Ordered):
    """All elements but the first `number`."""

    def __init__(self, parent: Node, number: int) -> None:
        super().__init__(parent)
        self.number = need(number, 0, "skip(n)")
        self.size = None if self.size is None else max(self.size - number, 0)

    def describe(self) -> str:
        """With the number."""
        return f"skip({self.number})"

    def place(self, where: Array | slice | int, epoch: int) -> Any:
        """position + number."""
        if isinstance(where, slice):
            return slice(where.start + self.number, where.stop + self.number)
        return where + self.number

    def flow(self, epoch: int, start: int) -> Iterator[Element]:
        """The parent's, later."""
        return self.parent.stream(epoch, start + self.number)


class Repeat(Step):
    """The elements `times` times over (None: without end), each pass an epoch of its own.

    Pass j of epoch e is the parent's epoch e * times + j; without end it is epoch e + j.
    """

    def __init__(self, parent: Node, times: int | None) -> None:
        super().__init__(parent)
        self.times = None if times is None else need(times, 1, "repeat(times)")
        known = times is not None and self.size is not None
        self.size = (self.size or 0) * (times or 0) if known else None
        self.indexed = parent.indexed and parent.size is not None

    def describe(self) -> str:
        """With the number of times."""
        return f"repeat({'' if self.times is None else self.times})"

    def epoch(self, epoch: int, turn: int) -> int:
        """The parent's epoch for one pass."""
        return epoch + turn if self.times is None else epoch * self.times + turn

    def label(self, position: int, epoch: int) -> str:
        """The parent's name of the element."""
        if not self.parent.size:
            return super().label(position, epoch)
        turn, at = divmod(position, self.parent.size)
        return self.parent.label(at, self.epoch(epoch, turn))

    def element(self, position: int, epoch: int) -> Element:
        """The parent's element of the pass that `position` falls in."""
        turn, at = divmod(position, self.parent.size or 1)
        return self.parent.element(at, self.epoch(epoch, turn))

    def rows(self, where: Where, epoch: int) -> Element:
        """Rows of one pass, or of several, gathered pass by pass and put back in order."""
        turns, places = np.divmod(positions(where), self.parent.size or 1)
        passes = np.unique(turns)
        if len(passes) == 1:
            return self.parent.rows(places, self.epoch(epoch, int(passes[0])))
        blocks = [
            self.parent.rows(places[turns == turn], self.epoch(epoch, int(turn))) for turn in passes
        ]
        back = np.argsort(np.argsort(turns, kind="stable"), kind="stable")
        return take_rows(join(blocks), back)

    def flow(self, epoch: int, start: int) -> Iterator[Element]:
        """Pass after pass; the passes before `start` are left out when their length is known."""
        whole = self.parent.size
        first, rest = divmod(start, whole) if whole else (0, start)
        for turn in naturals(first) if self.times is None else range(first, self.times):
            for element in self.parent.stream(self.epoch(epoch, turn), rest if whole else 0):
                if not whole and rest:
                    rest -= 1
                    continue
                yield element
            rest = 0 if whole else rest
