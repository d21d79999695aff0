"""Several processes train one network: who they are, whose rows are whose, and that they agree.

A process started by `mpiexec -n 4` or `irc launch -n 4` joins the others when it makes its first
train step; a script needs no change.  A batch is the global one: each process takes its rows of it,
so that the result is that of one process.  A dataset with `.shard(rank(), world())` in it gives
each process batches of its own, which together are the global ones.
May import: ir, backends, frontends/nn, its siblings.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ...backends.targets import thread_count
from ...ir.core import Array
from ...ir.errors import EXIT_NO_TOOLCHAIN, Error
from ...ir.ops.dist import group, part_of, set_group
from .data import Dataset
from .data.element import Element
from .data.node import Node, Step
from .data.order import Shard
from .data.transform import Batch
from .metrics import Totals

SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers say how many processes they start; PMIX_RANK says only that there are some."""
_JOINED: list[Any] = []
"""The group that this process has joined, once."""
INSTALL = "pip install 'tensor-irc[mpi]'"


def rank() -> int:
    """The number of this process among those that train together; 0 where it is alone."""
    join()
    return group().rank


def world() -> int:
    """How many processes train together."""
    join()
    return group().world


def launched() -> int:
    """How many processes a launcher says to have started with this one; 1 without a launcher."""
    said = [int(os.environ[name]) for name in SIZES if os.environ.get(name, "").isdecimal()]
    return max([1, *said, *[2] * ("PMIX_RANK" in os.environ)])


def join() -> None:
    """Join the processes that were launched with this one; nothing where there are none.

    Raises E0651 where they cannot be reached: mpi4py missing, or of another MPI than the launcher.
    """
    said = launched()
    if said == 1 or _JOINED:
        return
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise Error(
            "E0651",
            f"this is one of {said} processes, and MPI is missing",
            details=(str(error).splitlines()[0],),
            hint=INSTALL,
            exit_code=EXIT_NO_TOOLCHAIN,
        ) from None
    if MPI.COMM_WORLD.size == 1:
        if "PMIX_RANK" in os.environ and len([n for n in SIZES if n in os.environ]) == 0:
            return  # a job of one process
        raise Error(
            "E0651",
            f"this is one of {said} processes, but mpi4py sees none of the others",
            details=(f"mpi4py uses {MPI.Get_library_version().splitlines()[0]}",),
            hint="start them by the mpiexec of the same MPI, or by irc launch",
            exit_code=EXIT_NO_TOOLCHAIN,
        )
    from .mpi import MpiGroup

    made = MpiGroup(MPI.COMM_WORLD)
    made.guard()
    set_group(made)
    _JOINED.append(made)


def threads(given: int | None) -> int | None:
    """Threads of a program: those asked for, else an equal share of the cores of this machine."""
    joined: Any = group()
    if given is not None or joined.world == 1 or os.environ.get("IRC_NUM_THREADS"):
        return given
    share = max(1, thread_count() // joined.local)
    return int(min(joined.exchange(share)))


# ------------------------------------------------------------ whose rows are whose


@dataclass(frozen=True)
class Share:
    """This process's rows of a batch of `total`: `start` to `stop`.

    A batch with fewer rows than processes is everybody's as a whole, and counted by rank 0 alone.
    """

    start: int
    stop: int
    total: int
    counted: bool = True

    @property
    def rows(self) -> int:
        """How many rows this process computes."""
        return self.stop - self.start

    @property
    def part(self) -> bool:
        """Whether the other processes compute other rows."""
        return self.rows < self.total

    @property
    def factor(self) -> float:
        """What weighs this process's mean, so that the mean over processes is that of all rows."""
        return 1.0 if self.even else self.rows * group().world / self.total

    @property
    def even(self) -> bool:
        """Whether all processes compute as many rows."""
        return not self.part or self.total % group().world == 0


def share(total: int) -> Share:
    """This process's share of a batch; the first processes take one row more where it does not
    split evenly.
    """
    me, count = group().rank, group().world
    if total < count:
        return Share(0, total, total, me == 0)
    size, more = divmod(total, count)
    start = me * size + min(me, more)
    return Share(start, start + size + (me < more), total)


@dataclass(frozen=True)
class Own:
    """This process's rows of a batch, loaded by themselves."""

    batch: Any
    share: Share


class OwnRows(Step):
    """Of each batch of the parent this process's rows: only they are computed."""

    parent: Batch

    def __init__(self, parent: Batch) -> None:
        super().__init__(parent)

    def describe(self) -> str:
        """Without the rank: positions are those of the global batches."""
        return "own_rows()"

    def label(self, position: int, epoch: int) -> str:
        """The parent's name of the batch."""
        return self.parent.label(position, epoch)

    def share(self, position: int) -> Share:
        """Which rows of a batch are this process's."""
        span = self.parent.span(position)
        return share(span.stop - span.start)

    def element(self, position: int, epoch: int) -> Element:
        """The rows of this process's samples."""
        mine, first = self.share(position), self.parent.span(position).start
        return self.parent.parent.rows(slice(first + mine.start, first + mine.stop), epoch)


def divided(dataset: Any) -> Any:
    """The dataset, of which each process computes its own rows where they can be told apart: where
    `batch` comes last and its samples have positions.
    """
    if group().world == 1 or not isinstance(dataset, Dataset) or sharded(dataset.node):
        return dataset
    node = dataset.node
    if not isinstance(node, Batch) or not node.indexed:
        return dataset
    return Dataset(OwnRows(node), dataset.workers, dataset.start, dataset.prefetched)


def sharded(node: Node | None) -> bool:
    """Whether a pipeline holds a `shard`."""
    while node is not None:
        if isinstance(node, Shard) and node.world > 1:
            return True
        node = node.parent
    return False


def own_batches(dataset: Any, batches: Iterator[Any], position: int) -> Iterator[Any]:
    """The batches as a train step takes them: those that are this process's own say so."""
    node = dataset.node if isinstance(dataset, Dataset) else None
    for k, batch in enumerate(batches, position):
        if isinstance(node, OwnRows):
            yield Own(batch, node.share(k))
        elif group().world > 1 and sharded(node):
            yield Own(batch, every_rank_alike(rows_of(batch)))
        else:
            yield batch


def every_rank_alike(rows: int) -> Share:
    """The share of a process whose batch is its own, of as many rows as every other's."""
    me = group().rank
    return Share(me * rows, (me + 1) * rows, rows * group().world)


def rows_of(batch: Any) -> int:
    """The rows of a batch of arrays."""
    while isinstance(batch, (tuple, list, Mapping)):
        batch = next(iter(batch.values())) if isinstance(batch, Mapping) else batch[0]
    return len(batch)


# ------------------------------------------------------------ that they agree


def agree(what: str) -> None:
    """Raise E0652 in every process unless all are about to do the same."""
    joined: Any = group()
    if joined.world == 1:
        return
    mine = np.frombuffer(hashlib.blake2b(what.encode(), digest_size=16).digest(), np.uint8)
    found = joined.all_gather(mine)
    if all([np.array_equal(f, found[0]) for f in found]):
        return
    said = joined.exchange(what)
    raise Error(
        "E0652",
        "the processes do not do the same",
        details=tuple([f"rank {r}: {text}" for r, text in enumerate(said)]),
        hint="all processes run the same program on batches of the same shapes",
    )


def collectives(exe: Any) -> str:
    """A compiled step's collectives in their order, as short text that tells programs apart."""
    program = getattr(exe, "program", None)
    return _told(program.host_steps if program is not None else ())


@cache
def _told(steps: tuple[Any, ...]) -> str:
    told = [f"{name} {operands} {results}" for name, operands, results in steps]
    return hashlib.blake2b("\n".join(told).encode(), digest_size=4).hexdigest()


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process runs by itself what is otherwise run together."""
    join()
    before = set_group(None)
    try:
        yield
    finally:
        set_group(before)


def by_root(work: Callable[[], Any]) -> Any:
    """What process 0 finds, in every process; an error of it is raised in each."""
    joined: Any = group()
    if joined.world == 1:
        return work()
    agree("what rank 0 does for all")
    found: tuple[Any, Any] = (None, None)
    if joined.rank == 0:
        try:
            found = (work(), None)
        except Error as error:
            said = (error.code, error.message)
            more = {"where": error.where and str(error.where), "details": error.details,
                    "hint": error.hint, "exit_code": error.exit_code}  # fmt: skip
            found = (None, (said, more))
    result, failed = joined.from_root(found)
    if failed is not None:
        raise Error(*failed[0], **failed[1])
    return result


def same_state(state: Mapping[str, Array]) -> None:
    """Give every process the values that process 0 has; the arrays are changed in place."""
    if group().world > 1:
        agree("the first state: " + " ".join([f"{n}{a.dtype}{a.shape}" for n, a in state.items()]))
        for array in state.values():
            np.copyto(array, group().broadcast(array, 0))


def summed(values: Sequence[float]) -> list[float]:
    """Sums over all processes."""
    agree(f"the sums of {len(values)} numbers")
    found = group().all_reduce(np.asarray(values, np.float64), "sum")
    return [float(v) for v in found]


def exchanged(value: Any) -> list[Any]:
    """What every process gives, by rank."""
    joined: Any = group()
    return [value] if joined.world == 1 else list(joined.exchange(value))


def together(totals: Totals) -> Totals:
    """The totals of metrics over all processes."""
    if group().world == 1:
        return totals
    agree(f"the totals of {', '.join([m.name for m in totals.metrics])}")
    made = Totals(totals.metrics)
    for parts in exchanged(totals.parts):
        for (k, name), arrays in parts.items():
            for array in arrays:
                made.add([{name: array} if j == k else {} for j in range(len(made.metrics))])
    return made


# ------------------------------------------------------------ state in parts


def own_part(array: Array) -> Array:
    """This process's part of an array."""
    return part_of(array, group().rank, group().world)


def whole(part: Array, shape: tuple[int, ...]) -> Array:
    """The array of which every process gives its part."""
    flat = np.concatenate(group().all_gather(part))
    return flat[: int(np.prod(shape, dtype=np.int64))].reshape(shape)


__all__ = [
    "INSTALL", "Own", "OwnRows", "Share", "agree", "alone", "by_root", "collectives", "divided",
    "every_rank_alike", "exchanged", "join", "launched", "own_batches", "own_part", "rank",
    "rows_of", "same_state", "share", "sharded", "summed", "threads", "together", "whole", "world",
]  # fmt: skip
