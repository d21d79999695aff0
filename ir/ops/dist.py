"""Collectives: ops that every process of a group runs together, each with its own part.

What joins the processes is a `Group` that the host sets (`set_group`); alone, each op is what it
is for a group of one.  Processes run the same program, so they meet in the same order; the ops are
not pure, lest one process drop or fold what the others wait for.  They are steps of the host: a
compiled plan calls back.

A tensor's *part* in a group of `world` is its elements in order, padded with zeros to a multiple of
`world` and cut into `world` equal runs: process r owns run r.  Imports: the core, types, dims.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from ..core import Any_, Array, Builder, Grads, Number, Op, Value, attr, operand, sample, variadic
from ..dims import DimLike, ceildiv, equal
from ..types import TensorType, i64
from .constraints import require
from .elementwise import constant

REDUCTIONS = ("sum", "mean", "max", "min")


class Group(Protocol):
    """What a communicator gives; arrays are dense, and not kept beyond a call, but for `start`."""

    rank: int
    world: int

    def all_reduce(self, x: Array, how: str) -> Array:
        """The elementwise sum (mean, max, min) over all processes, the same bits on each."""

    def all_gather(self, x: Array) -> list[Array]:
        """What each process gave, by rank."""

    def broadcast(self, x: Array, root: int) -> Array:
        """What process `root` gave."""

    def start(self, bucket: int, xs: Sequence[Array], how: str, scatter: bool) -> None:
        """Begin to reduce arrays, which stay as they are until the `wait` for this bucket."""

    def wait(self, bucket: int, xs: Sequence[Array], how: str, scatter: bool) -> list[Array]:
        """The reduced arrays (with `scatter` this process's parts of them), started or not."""


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

    def start(self, bucket: int, xs: Sequence[Array], how: str, scatter: bool) -> None:
        return

    def wait(self, bucket: int, xs: Sequence[Array], how: str, scatter: bool) -> list[Array]:
        return [x.reshape(-1) if scatter else x for x in xs]


_GROUP: list[Group] = [Alone()]


def group() -> Group:
    """The group of this process."""
    return _GROUP[0]


def set_group(new: Group | None) -> Group:
    """Join a group (None: be alone); gives the group before."""
    old, _GROUP[0] = _GROUP[0], new if new is not None else Alone()
    return old


def part_of(x: Array, rank: int, world: int) -> Array:
    """The part that process `rank` of `world` owns."""
    flat = x.reshape(-1)
    extent = -(-flat.size // world)
    mine = flat[rank * extent : (rank + 1) * extent]
    if mine.size == extent:
        return mine
    return np.concatenate([mine, np.zeros(extent - mine.size, x.dtype)])


def part_type(x: TensorType, world: int) -> TensorType:
    """The type of a part."""
    return TensorType(x.dtype, (ceildiv(math.prod(x.shape), world),))


def _check_how(op: str, how: str) -> None:
    require(
        how in REDUCTIONS, "E0345", f"{op} (C1): no reduction '{how}'", hint=", ".join(REDUCTIONS)
    )


def _all_parts(x: Array, world: int) -> list[Array]:
    """What each of `world` processes gave; who is alone in another's program stands for all."""
    found = group().all_gather(x)
    return found if len(found) == world else found[:1] * world


class AllReduce(Op, name="dist.all_reduce"):
    """The sum (or mean, max, min) of x over all processes, elementwise, on each of them.

    C1: `how` is one of these.
    """

    pure = False
    host = True
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
    host = True
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
        return np.concatenate(_all_parts(x, world), axis)

    def vjp(self, b: Builder, g: Value) -> Grads:
        return (b.emit(ReduceScatter, g, axis=self.axis, world=self.world),)


class ReduceScatter(Op, name="dist.reduce_scatter"):
    """This process's part, along `axis`, of the sum of x over all `world` processes.

    C1: axis < rank.  C2: its extent is a multiple of world.
    """

    pure = False
    host = True
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
        return np.ascontiguousarray(np.split(whole, world, axis)[group().rank % world])

    def vjp(self, b: Builder, g: Value) -> Grads:
        return (b.emit(AllGather, g, axis=self.axis, world=self.world),)


class Broadcast(Op, name="dist.broadcast"):
    """x of process `root`, on all.  C1: root is at least 0."""

    pure = False
    host = True
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
    host = True
    samples: ClassVar[Any] = (sample(),)

    @staticmethod
    def infer() -> TensorType:
        return TensorType(i64, ())

    @staticmethod
    def evaluate() -> Array:
        return np.asarray(group().rank, np.int64)


class _Start(Op):
    """Base: begin to exchange some tensors together, a wait of the same bucket gives the results.

    The result is the bucket's number, for the wait to stand behind.  C1: `how` is a reduction.
    """

    pure = False
    host = True
    scatter: ClassVar[bool] = False
    xs = variadic(Number)
    how = attr(str, "sum")
    bucket = attr(int, 0)
    samples: ClassVar[Any] = (sample((3, 5), (2,)), sample((4,), bucket=3))
    rejects: ClassVar[Any] = (("C1", sample((2,), how="median")),)

    @classmethod
    def infer(cls, *xs: TensorType, how: str, bucket: int) -> TensorType:
        _check_how(cls.name, how)
        return TensorType(i64, ())

    @classmethod
    def evaluate(cls, *xs: Array, how: str, bucket: int) -> Array:
        group().start(bucket, xs, how, scatter=cls.scatter)
        return np.asarray(bucket, np.int64)


class _Wait(Op):
    """Base: what a start of the same bucket began, or else done now; the last operand is what the
    start gave.

    C1: `how` is a reduction.  C2: the last operand is i64[].
    """

    pure = False
    host = True
    xs = variadic(Number)
    how = attr(str, "sum")
    bucket = attr(int, 0)
    samples: ClassVar[Any] = (
        sample((3, 5), (2,), (), dtypes=("f32", "f32", "i64")),
        sample((4,), (), dtypes=("f32", "i64"), bucket=3),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((2,), (), dtypes=("f32", "i64"), how="median")),
        ("C2", sample((2,), (3,), dtypes=("f32", "i64"))),
    )


class AllReduceStart(_Start, name="dist.all_reduce_start"):
    """Begin to reduce some tensors together: see `all_reduce_wait`."""

    no_gradient = "made behind differentiation, from all_reduce"


class AllReduceWait(_Wait, name="dist.all_reduce_wait"):
    """The sums (means, ...) of tensors over all processes.  C1, C2 as for all waits."""

    no_gradient = "made behind differentiation, from all_reduce"

    @classmethod
    def infer(cls, *xs: TensorType, how: str, bucket: int) -> tuple[TensorType, ...]:
        return _awaited(cls.name, xs, how)

    @staticmethod
    def evaluate(*xs: Array, how: str, bucket: int) -> Any:
        found = group().wait(bucket, xs[:-1], how, scatter=False)
        return found[0] if len(found) == 1 else tuple(found)


class ReduceScatterStart(_Start, name="dist.reduce_scatter_start"):
    """Begin to reduce some tensors of which this process wants its parts: see
    `reduce_scatter_wait`.
    """

    no_gradient = "made behind differentiation, where optimizer state is sharded"
    scatter = True


class ReduceScatterWait(_Wait, name="dist.reduce_scatter_wait"):
    """This process's parts of the sums (means, ...) of tensors over all `world` processes.  C1, C2
    as for all waits.
    """

    no_gradient = "made behind differentiation, where optimizer state is sharded"
    world = attr(int, 1)

    @classmethod
    def infer(cls, *xs: TensorType, how: str, bucket: int, world: int) -> tuple[TensorType, ...]:
        return tuple([part_type(x, world) for x in _awaited(cls.name, xs, how)])

    @staticmethod
    def evaluate(*xs: Array, how: str, bucket: int, world: int) -> Any:
        found = group().wait(bucket, xs[:-1], how, scatter=True)
        if group().world != world:  # alone in another's program
            found = [part_of(x, 0, world) for x in xs[:-1]]
        return found[0] if len(found) == 1 else tuple(found)


class Part(Op, name="dist.part"):
    """This process's part of x, of `world` processes.  C1: world is at least 1."""

    no_gradient = "made behind differentiation, where optimizer state is sharded"
    pure = False
    host = True
    x = operand(Number)
    world = attr(int, 1)
    samples: ClassVar[Any] = (sample((3, 5)), sample(()), sample((7,), world=3), sample((0, 2)))
    rejects: ClassVar[Any] = (("C1", sample((2,), world=0)),)

    @staticmethod
    def infer(x: TensorType, world: int) -> TensorType:
        require(world >= 1, "E0345", f"part (C1): {world} processes")
        return part_type(x, world)

    @staticmethod
    def evaluate(x: Array, world: int) -> Array:
        return part_of(x, group().rank % world, world)


class GatherParts(Op, name="dist.gather_parts"):
    """The tensors of which the operands are this process's parts, of `world` processes.

    C1: one operand for each of the `shapes`, flattened behind one another in `extents` with their
    ranks in `ranks`; each of the size of a part.
    """

    no_gradient = "made behind differentiation, where optimizer state is sharded"
    pure = False
    host = True
    xs = variadic(Number)
    extents = attr(tuple, ())
    ranks = attr(tuple, ())
    world = attr(int, 1)
    samples: ClassVar[Any] = (
        sample((15,), (2,), extents=(3, 5, 2), ranks=(2, 1)),
        sample((1,), extents=(), ranks=(0,)),
        sample((3,), extents=(7,), ranks=(1,), world=3),
    )
    rejects: ClassVar[Any] = (("C1", sample((15,), extents=(4, 5), ranks=(2,))),)

    @staticmethod
    def infer(
        *xs: TensorType, extents: Any, ranks: Any, world: int
    ) -> tuple[TensorType, ...] | TensorType:
        shapes = _shapes(extents, ranks)
        found = tuple([TensorType(x.dtype, s) for x, s in zip(xs, shapes)])
        fits = len(shapes) == len(xs) and all([part_type(f, world) is x for x, f in zip(xs, found)])
        require(fits, "E0345", "gather_parts (C1): the parts are of other tensors", f"found {xs}")
        return found[0] if len(found) == 1 else found

    @staticmethod
    def evaluate(*xs: Array, extents: Any, ranks: Any, world: int) -> Any:
        raw = [np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in xs]
        all_ = _all_parts(np.concatenate(raw), world)
        found, at = [], 0
        for x, bytes_, shape in zip(xs, raw, _shapes(extents, ranks)):
            size = math.prod(shape)
            flat = np.concatenate([part[at : at + bytes_.size] for part in all_])
            found.append(flat.view(x.dtype)[:size].reshape(shape))
            at += bytes_.size
        return found[0] if len(found) == 1 else tuple(found)


def _shapes(extents: Sequence[Any], ranks: Sequence[int]) -> list[tuple[Any, ...]]:
    """Shapes that were put behind one another."""
    found, at = [], 0
    for rank in ranks:
        found.append(tuple(extents[at : at + rank]))
        at += rank
    return found


def _awaited(op: str, xs: Sequence[TensorType], how: str) -> tuple[TensorType, ...]:
    """The tensors before a start's result; C1 and C2."""
    _check_how(op, how)
    last = xs[-1] if xs else None
    require(
        last is TensorType(i64, ()), "E0345", f"{op} (C2): the start's result comes last",
        f"found {last}",
    )  # fmt: skip
    return tuple(xs[:-1])


def _scaled(op: str, x: TensorType, axis: int, factor: int) -> tuple[DimLike, ...]:
    """The shape with one extent times `factor`; C1."""
    require(
        0 <= axis < len(x.shape), "E0345", f"{op} (C1): axis {axis} is out of range", f"found {x}"
    )
    return (*x.shape[:axis], x.shape[axis] * factor, *x.shape[axis + 1 :])


__all__ = [
    "AllGather", "AllReduce", "AllReduceStart", "AllReduceWait", "Alone", "Broadcast",
    "GatherParts", "Group", "Part", "Rank", "ReduceScatter", "ReduceScatterStart",
    "ReduceScatterWait", "group", "part_of", "part_type", "set_group",
]  # fmt: skip
