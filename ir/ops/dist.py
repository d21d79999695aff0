"""Collectives: ops that every process of a group runs together, each with its own part.

What joins the processes is a `Group` that the host sets (`set_group`); alone, each op is what it
is for a group of one.  Processes run the same program, so they meet in the same order; the ops are
not pure, lest one process drop or fold what the others wait for.  They are steps of the host: a
compiled plan calls back.  Imports: the core, types, dims.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from ..core import Any_, Array, Builder, Grads, Number, Op, Value, attr, operand, sample, variadic
from ..dims import DimLike, equal
from ..types import TensorType, i64
from .constraints import require
from .elementwise import constant

REDUCTIONS = ("sum", "mean", "max", "min")


class Group(Protocol):
    """What a communicator gives; arrays are dense, and not kept."""

    rank: int
    world: int

    def all_reduce(self, x: Array, how: str) -> Array:
        """The elementwise sum (mean, max, min) over all processes, the same bits on each."""

    def all_gather(self, x: Array) -> list[Array]:
        """What each process gave, by rank."""

    def broadcast(self, x: Array, root: int) -> Array:
        """What process `root` gave."""

    def start(self, xs: Sequence[Array], how: str) -> Any:
        """Begin to reduce these arrays together; the handle for `wait`."""

    def wait(self, handle: Any) -> list[Array]:
        """The reduced arrays."""


class Alone:
    """A group of one process."""

    rank = 0
    world = 1

    def all_reduce(self, x: Array, how: str) -> Array:
        return x

    def all_gather(self, x: Array) -> list[Array]:
        return [x]

    def broadcast(self, x: Array, root: int) -> Array:
        return x

    def start(self, xs: Sequence[Array], how: str) -> Any:
        return [np.array(x) for x in xs]

    def wait(self, handle: Any) -> list[Array]:
        return list(handle)


_GROUP: list[Group] = [Alone()]


def group() -> Group:
    """The group of this process."""
    return _GROUP[0]


def set_group(new: Group | None) -> Group:
    """Join a group (None: be alone); gives the group before."""
    old, _GROUP[0] = _GROUP[0], new if new is not None else Alone()
    return old


def _check_how(op: str, how: str) -> None:
    require(
        how in REDUCTIONS, "E0345", f"{op} (C1): no reduction '{how}'", hint=", ".join(REDUCTIONS)
    )


class AllReduce(Op, name="dist.all_reduce"):
    """The sum (or mean, max, min) of x over all processes, elementwise, on each of them.

    C1: `how` is one of these.
    """

    pure = False
    x = operand(Number)
    how = attr(str, "sum")
    samples: ClassVar[Any] = (sample((3, 5)), sample(()), sample((0, 2)), sample((4,), how="mean"))
    rejects: ClassVar[Any] = (("C1", sample((2,), how="median")),)

    @staticmethod
    def infer(x: TensorType, how: str) -> TensorType:
        _check_how("all_reduce", how)
        return x

    @staticmethod
    def evaluate(x: Array, how: str) -> Array:
        return group().all_reduce(x, how)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """The sum of all cotangents; of max and min, where x is the extreme, shared by ties."""
        if self.how in ("sum", "mean"):
            return (b.emit(AllReduce, g, how=self.how),)
        hit = b.cast(b.eq(self.x, self.result), to=self.x.tensor.dtype)
        shared = b.div(b.emit(AllReduce, g), b.emit(AllReduce, hit))
        zero = constant(b, g, 0.0)
        return (b.where(b.eq(self.x, self.result), shared, zero),)


class AllGather(Op, name="dist.all_gather"):
    """The parts of all `world` processes, one behind the other along `axis`.  C1: axis < rank."""

    pure = False
    x = operand(Any_)
    axis = attr(int, 0)
    world = attr(int, 1)
    samples: ClassVar[Any] = (sample((3, 5)), sample((3, 5), axis=1), sample((0, 2)))
    rejects: ClassVar[Any] = (("C1", sample((2,), axis=1)),)

    @staticmethod
    def infer(x: TensorType, axis: int, world: int) -> TensorType:
        return TensorType(x.dtype, _scaled("all_gather", x, axis, world))

    @staticmethod
    def evaluate(x: Array, axis: int, world: int) -> Array:
        return np.concatenate(group().all_gather(x), axis)

    def vjp(self, b: Builder, g: Value) -> Grads:
        return (b.emit(ReduceScatter, g, axis=self.axis, world=self.world),)


class ReduceScatter(Op, name="dist.reduce_scatter"):
    """This process's part, along `axis`, of the sum of x over all `world` processes.

    C1: axis < rank.  C2: its extent is a multiple of world.
    """

    pure = False
    x = operand(Number)
    axis = attr(int, 0)
    world = attr(int, 1)
    samples: ClassVar[Any] = (sample((4, 5)), sample((3, 4), axis=1), sample((0, 2)))
    rejects: ClassVar[Any] = (
        ("C1", sample((2,), axis=1)),
        ("C2", sample((3, 2), world=2)),
    )

    @staticmethod
    def infer(x: TensorType, axis: int, world: int) -> TensorType:
        _scaled("reduce_scatter", x, axis, 1)
        part = x.shape[axis] // world
        require(
            equal(part * world, x.shape[axis]) is not False,
            "E0345",
            f"reduce_scatter (C2): extent {x.shape[axis]} does not split into {world} parts",
        )
        return TensorType(x.dtype, (*x.shape[:axis], part, *x.shape[axis + 1 :]))

    @staticmethod
    def evaluate(x: Array, axis: int, world: int) -> Array:
        whole = group().all_reduce(x, "sum")
        return np.ascontiguousarray(np.split(whole, world, axis)[group().rank])

    def vjp(self, b: Builder, g: Value) -> Grads:
        return (b.emit(AllGather, g, axis=self.axis, world=self.world),)


class Broadcast(Op, name="dist.broadcast"):
    """x of process `root`, on all.  C1: root is at least 0."""

    pure = False
    x = operand(Any_)
    root = attr(int, 0)
    samples: ClassVar[Any] = (sample((3, 5)), sample(()), sample((0, 2)))
    rejects: ClassVar[Any] = (("C1", sample((2,), root=-1)),)

    @staticmethod
    def infer(x: TensorType, root: int) -> TensorType:
        require(root >= 0, "E0345", f"broadcast (C1): there is no process {root}")
        return x

    @staticmethod
    def evaluate(x: Array, root: int) -> Array:
        return group().broadcast(x, root)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """The sum of all cotangents, on the root alone."""
        total = b.emit(AllReduce, g)
        rank = b.emit(Rank)
        return (b.where(b.eq(rank, constant(b, rank, self.root)), total, constant(b, total, 0.0)),)


class Rank(Op, name="dist.rank"):
    """The number of this process in its group, i64[]."""

    no_gradient = "integer result"
    pure = False

    @staticmethod
    def infer() -> TensorType:
        return TensorType(i64, ())

    @staticmethod
    def evaluate() -> Array:
        return np.asarray(group().rank, np.int64)


class AllReduceStart(Op, name="dist.all_reduce_start"):
    """Begin to reduce some tensors together; `all_reduce_wait` on the results gives the sums.

    The results are the tensors on their way: nobody but the wait may read them.  C1: `how` is a
    reduction.
    """

    no_gradient = "made behind differentiation, from all_reduce"
    pure = False
    xs = variadic(Number)
    how = attr(str, "sum")
    samples: ClassVar[Any] = (sample((3, 5), (2,)),)
    rejects: ClassVar[Any] = (("C1", sample((2,), how="median")),)

    @staticmethod
    def infer(*xs: TensorType, how: str) -> tuple[TensorType, ...]:
        _check_how("all_reduce_start", how)
        return (*xs, TensorType(i64, ()))

    @staticmethod
    def evaluate(*xs: Array, how: str) -> tuple[Array, ...]:
        return (*[np.array(x) for x in xs], np.asarray(_keep(group().start(xs, how)), np.int64))


class AllReduceWait(Op, name="dist.all_reduce_wait"):
    """The reduced tensors of an `all_reduce_start`: its results, the ticket last."""

    no_gradient = "made behind differentiation, from all_reduce"
    pure = False
    xs = variadic(Number)

    @staticmethod
    def infer(*xs: TensorType) -> tuple[TensorType, ...]:
        return xs[:-1]

    @staticmethod
    def evaluate(*xs: Array) -> Any:
        found = group().wait(_WAITING.pop(int(xs[-1])))
        return found[0] if len(found) == 1 else tuple(found)


_WAITING: dict[int, Any] = {}
_TICKETS = iter(range(1 << 62))


def _keep(handle: Any) -> int:
    """A ticket for a handle that is waited for later."""
    ticket = next(_TICKETS)
    _WAITING[ticket] = handle
    return ticket


def _scaled(op: str, x: TensorType, axis: int, factor: int) -> tuple[DimLike, ...]:
    """The shape with one extent times `factor`; C1."""
    require(
        0 <= axis < len(x.shape), "E0345", f"{op} (C1): axis {axis} is out of range", f"found {x}"
    )
    return (*x.shape[:axis], x.shape[axis] * factor, *x.shape[axis + 1 :])


__all__ = [
    "AllGather", "AllReduce", "AllReduceStart", "AllReduceWait", "Alone", "Broadcast", "Group",
    "Rank", "ReduceScatter", "group", "set_group",
]  # fmt: skip
