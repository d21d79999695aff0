"""Dataset: the pipeline as a user holds it, its iterators, and where they stand.

A dataset never changes what it describes: each method gives a new one.  It only counts its epochs:
every `for` over it is the next epoch.  `state()` says where the newest iterator stands, counted in
elements handed out (what workers or a prefetch thread made beyond that is made again).
Imports numpy, nodes, order, transform, workers, prefetch, augment and errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count as naturals
from typing import Any

from ....ir.errors import Error
from .augment import Chain, Step
from .element import Element
from .node import Node, UnknownLength
from .order import Repeat, Shard, Shuffle, Skip, Take, need
from .prefetch import ahead
from .transform import CACHE_CHUNK, Batch, Cache, Map
from .workers import AHEAD, Pool

STATE_KEYS = ("epoch", "pipeline", "position")
STARTS = (None, "fork", "spawn", "forkserver")


class Progress:
    """Where an iterator stands; shared by it and its dataset."""

    def __init__(self, epoch: int, position: int, fresh: bool) -> None:
        self.epoch, self.position = epoch, position
        self.fresh = fresh  # the next `for` begins here
        self.ended = False


class Cursor:
    """An iterator over one epoch.  `state()` and `restore()` as of the dataset."""

    def __init__(self, dataset: Dataset, progress: Progress) -> None:
        self._dataset, self._progress = dataset, progress
        self._stream = dataset._stream(progress.epoch, progress.position)

    def __iter__(self) -> Cursor:
        return self

    def __next__(self) -> Element:
        element = next(self._stream, None)
        if element is None:
            self._finish(self._progress)
            raise StopIteration
        self._progress.position += 1
        return element

    def _finish(self, progress: Progress) -> None:
        if progress.ended:
            return
        if progress.position == 0:
            raise empty(self._dataset.node)
        progress.epoch, progress.position, progress.ended = progress.epoch + 1, 0, True

    def state(self) -> dict[str, Any]:
        """Where it stands: see `Dataset.state`."""
        return _state(self._dataset.node, self._progress)

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where another iterator stood: see `Dataset.restore`."""
        epoch, position = _check(self._dataset.node, state)
        self.close()
        progress = self._progress
        progress.epoch, progress.position, progress.ended = epoch, position, False
        self._stream = self._dataset._stream(epoch, position)

    def close(self) -> None:
        """End it now: its prefetch thread and its hold on the workers."""
        close = getattr(self._stream, "close", None)
        if close is not None:
            close()


class Dataset:
    """A pipeline of data: a source and the steps after it.

    `for element in dataset` runs through one epoch; the next `for` is the next epoch (another order
    after `shuffle`).  `len()` is the number of elements of an epoch, where known (`size` is None
    where not).  Elements are arrays, tuples or dicts of arrays; after `batch` with one more
    dimension in front.
    """

    def __init__(
        self, node: Node, workers: int = 0, start: str | None = None, prefetched: int = 0
    ) -> None:
        self.node, self.workers, self.start, self.prefetched = node, workers, start, prefetched
        self._progress: Progress | None = None
        self._pool: Pool | None = None
        if node.size == 0:
            raise empty(node)

    def _then(self, node: Node) -> Dataset:
        return Dataset(node, self.workers, self.start, self.prefetched)

    # ---------------------------------------------------------------- steps

    def map(
        self,
        function: Callable[..., Any],
        batched: bool = False,
        workers: int = 0,
        seed: int | None = None,
        start: str | None = None,
    ) -> Dataset:
        """`function` of every sample; after `batch`, of every batch.

        A tuple is spread over the arguments: `map(lambda x, y: (x / 16, y))`.  With
        `batched=True` before `batch` the function gets many samples at once, stacked, and gives as
        many.  With a `seed` it is called with `rng=`, a numpy Generator of its own for each (seed,
        epoch, position).
        `workers`: that many processes compute whole elements of the dataset (put `batch` before or
        after it, so that these are batches) and send them through shared memory, in order.
        Where processes are spawned (Windows, macOS, or `start="spawn"`), the function must pickle:
        one defined at the top of a module.
        """
        number = need(workers, 0, "map(workers=)")
        if start not in STARTS:
            raise Error("E0663", f"map(start={start!r})", details=(f"expected: one of {STARTS}",))
        node = Map(self.node, function, batched, seed, number, start)
        shared = max(self.workers, number) if node.indexed else 0
        return Dataset(node, shared, start or self.start, self.prefetched)

    def augment(self, *steps: Step, seed: int = 0, workers: int = 0) -> Dataset:
        """Random changes of batches of images, by the steps of `augment`, one after the other."""
        if not self.node.grouped:
            raise Error("E0666", "augment works on batches", hint="put .batch(n) before it")
        return self.map(Chain(steps), seed=seed, workers=workers)

    def batch(self, number: int, drop_last: bool = False) -> Dataset:
        """`number` samples side by side, one numpy take per array; the last may be smaller."""
        return self._then(Batch(self.node, number, drop_last))

    def shuffle(
        self, seed: int = 0, buffer: int | None = None, reshuffle: bool = True
    ) -> Dataset:
        """Another order each epoch, the same in every run.

        Where only one element after the other is known (a generator), give the size of a window in
        `buffer`.  `reshuffle=False`: the same order each epoch.
        """
        return self._then(Shuffle(self.node, seed, reshuffle, buffer))

    def shard(self, rank: int, world: int, even: bool = True) -> Dataset:
        """Every `world`-th element from number `rank` on: the part of one of `world` processes.

        `even`: all get as many, up to `world` - 1 elements at the end are left out.  Put it after
        `shuffle` (with one seed) and before `batch`.
        """
        return self._then(Shard(self.node, rank, world, even))

    def take(self, number: int) -> Dataset:
        """The first `number` elements."""
        return self._then(Take(self.node, number))

    def skip(self, number: int) -> Dataset:
        """All but the first `number` elements."""
        return self._then(Skip(self.node, number))

    def repeat(self, times: int | None = None) -> Dataset:
        """The elements `times` over, or without end; each pass is shuffled anew."""
        return self._then(Repeat(self.node, times))

    def cache(self) -> Dataset:
        """Keep what comes out in memory: computed at the first use, by the workers if any.

        A generator is read now, and can be shuffled and counted from here on.
        """
        node, workers, start = self.node, self.workers, self.start
        below = node if node.grouped or not node.indexed else Batch(node, CACHE_CHUNK, False)
        source = Dataset(below, workers, start)
        made = Cache(node, lambda: _closing(source))
        return Dataset(made, 0, None, self.prefetched)

    def prefetch(self, number: int = 2) -> Dataset:
        """A thread computes up to `number` elements of the finished pipeline in advance."""
        number = need(number, 0, "prefetch(n)")
        return Dataset(self.node, self.workers, self.start, number)

    # ---------------------------------------------------------------- iteration

    def __iter__(self) -> Iterator[Element]:
        progress = self._progress
        if progress is None:
            progress = Progress(0, 0, False)
        elif progress.fresh:
            progress.fresh = False
        else:
            progress = Progress(progress.epoch + (0 if progress.ended else 1), 0, False)
        self._progress = progress
        return Cursor(self, progress)

    def iterate(self, epoch: int, position: int = 0) -> Cursor:
        """An iterator over a given epoch from a given position, whatever came before."""
        epoch, position = need(epoch, 0, "iterate(epoch)"), need(position, 0, "iterate(position)")
        self._progress = Progress(epoch, position, False)
        return Cursor(self, self._progress)

    def peek(self) -> Element:
        """The first element of epoch 0, computed here; no iterator moves."""
        for element in self.node.stream(0, 0):
            return element
        raise empty(self.node)

    def __len__(self) -> int:
        if self.node.size is None:
            raise UnknownLength(
                "E0669",
                f"the length of {self.node.pipeline()} is not known",
                hint="generator(length=n), .take(n) after .repeat(), or .cache() to read it",
            )
        return self.node.size

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<data {self.node.pipeline()}>"

    @property
    def size(self) -> int | None:
        """The number of elements of an epoch; None where it is not known or there is no end."""
        return self.node.size

    @property
    def batched(self) -> bool:
        """Whether elements are batches."""
        return self.node.grouped

    def state(self) -> dict[str, Any]:
        """Where the newest iterator stands: epoch, elements handed out, pipeline; JSON-able."""
        return _state(self.node, self._progress or Progress(0, 0, True))

    def restore(self, state: dict[str, Any]) -> None:
        """The next `for` goes on where `state()` was taken, to the sample.

        The pipeline must be the same (E0673), but for workers, prefetch and the rank of a shard.
        """
        self._progress = Progress(*_check(self.node, state), True)

    def close(self) -> None:
        """End the worker processes now; the next `for` starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _stream(self, epoch: int, position: int) -> Iterator[Element]:
        """The elements from a position on, by workers and a thread where asked for."""
        if self.prefetched:
            return ahead(lambda: self._computed(epoch, position), self.prefetched)
        return self._computed(epoch, position)

    def _computed(self, epoch: int, position: int) -> Iterator[Element]:
        if self.workers and self.node.indexed:
            return self._shared(epoch, position)
        return self.node.stream(epoch, position)

    def _shared(self, epoch: int, position: int) -> Iterator[Element]:
        """Elements computed by the worker processes, which stay for the next epoch."""
        pool = self._pool
        if pool is None or not pool.alive or not pool.busy.acquire(blocking=False):
            pool = Pool(self.node.element, self.workers, self.start, self.node.label)
            pool.busy.acquire()
            self._pool = pool
        size = self.node.size
        numbers = naturals(position) if size is None else range(position, size)
        try:
            yield from pool.run(((at, epoch) for at in numbers), AHEAD)
        finally:
            pool.busy.release()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}


def _closing(dataset: Dataset) -> Iterator[Element]:
    """One epoch, and the end of its workers."""
    try:
        yield from dataset._computed(0, 0)
    finally:
        dataset.close()


def empty(node: Node) -> Error:
    """The error for a pipeline without a single element (E0665)."""
    return Error(
        "E0665",
        f"the dataset is empty: {node.pipeline()} has no element",
        hint="look at the source, and at take, skip, shard and batch(drop_last=True)",
    )


def _state(node: Node, progress: Progress) -> dict[str, Any]:
    return {
        "epoch": progress.epoch,
        "position": progress.position,
        "pipeline": node.pipeline(),
    }


def _check(node: Node, state: dict[str, Any]) -> tuple[int, int]:
    """Epoch and position of a state that belongs to this pipeline."""
    if not isinstance(state, dict) or sorted(state) != list(STATE_KEYS):
        raise Error("E0673", f"this is not the state of a dataset: {state!r:.80}")
    if state["pipeline"] != node.pipeline():
        raise Error(
            "E0673",
            "the state was saved by another pipeline: its positions are other samples here",
            details=(f"saved: {state['pipeline']}", f"this dataset: {node.pipeline()}"),
        )
    epoch = need(state["epoch"], 0, "the epoch of the state")
    return epoch, need(state["position"], 0, "the position of the state")
