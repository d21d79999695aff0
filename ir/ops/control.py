"""Structured control flow on tensors: `if`, `for`, `while`, `scan`.

A region is one block; it may use values of enclosing blocks directly.  Carried values keep their
types. `interpret` runs an op through the interpreter, whose `block(block, arrays)` gives what a
region yields. Imports: the core, types, dims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ..core import (
    Any_,
    Array,
    Block,
    Bool,
    Builder,
    Int,
    Loc,
    Op,
    Value,
    attr,
    operand,
    optional,
    region,
    variadic,
)
from ..dims import DimLike
from ..errors import Error
from ..types import TensorType, Type, boolean, i64
from .constraints import require, same
from .core import Yield

Fill = Callable[..., Sequence[Value]]


class Blocks(Protocol):
    """What `interpret` needs of an interpreter."""

    def block(self, block: Block, args: Sequence[Any]) -> list[Any]:
        """The arrays that the region yields for these arguments."""

    def extent(self, extent: DimLike) -> int:
        """The value of a dim."""


def block_of(types: Sequence[Type], fill: Fill, loc: Loc | None = None) -> Block:
    """A region with arguments of these types; `fill(builder, *arguments)` gives what it yields."""
    block = Block(types)
    b = Builder(block, loc=loc)
    b.emit(Yield, *fill(b, *block.args))
    return block


def inlined(
    b: Builder, block: Block, args: Sequence[Value], env: dict[Value, Value] | None = None
) -> list[Value]:
    """A copy of the ops of a region or a function's body at the builder, its arguments replaced
    (and, as `env` says, values from outside); gives what it yields or returns.
    """
    env = {} if env is None else env
    env.update(zip(block.args, args, strict=True))
    for op in block:
        if op.terminator:
            return [env.get(v, v) for v in op.operands]
        b.insert(op.copy(env))
    return []


def yields(op: Op, index: int) -> tuple[Type, ...]:
    """The types that region `index` yields; E0340 where it does not end in a yield."""
    last = op.regions[index].last if index < len(op.regions) else None
    if not isinstance(last, Yield):
        raise Error("E0340", f"{op.name}: region {index} does not end in a yield", where=op.where())
    return tuple([v.type for v in last.operands])


def _listed(types: Sequence[Type]) -> str:
    return "(" + ", ".join([str(t) for t in types]) + ")"


def expect_types(
    op: Op, constraint: str, what: str, want: Sequence[Type], found: Sequence[Type]
) -> None:
    """E0340, naming the constraint, unless the types are those wanted."""
    ok = len(want) == len(found) and all([a is c for a, c in zip(want, found)])
    require(
        ok,
        "E0340",
        f"{op.name} ({constraint}): {what}",
        f"expected {_listed(want)}",
        f"found {_listed(found)}",
    )


def types_of(values: Sequence[Value]) -> tuple[Type, ...]:
    """The types of values."""
    return tuple([v.type for v in values])


def _scalar(op: Op, constraint: str, what: str, value: Type, want: Type) -> None:
    require(
        value is want, "E0340", f"{op.name} ({constraint}): {what} must be {want}", f"found {value}"
    )


def only(results: Sequence[Any]) -> Any:
    """One array alone, several as a list: what the interpreter expects of an op."""
    return results[0] if len(results) == 1 else list(results)


class If(Op):
    """The values of `then` where the condition is true, else those of `otherwise`.

    C1: the condition is bool[].  C2: both regions have no arguments and yield the same types.
    """

    condition = operand(Bool)
    then = region("yields the results")
    otherwise = region("yields values of the same types")

    @classmethod
    def make(cls, condition: Value, then: Fill, otherwise: Fill, loc: Loc | None = None) -> If:
        """An `if` whose regions `then(b)` and `otherwise(b)` build, giving what they yield."""
        return cls(
            condition, regions=[block_of((), then, loc), block_of((), otherwise, loc)], loc=loc
        )

    def result_types(self) -> tuple[Type, ...]:
        self.check_operands(types_of(self.operands))
        _scalar(self, "C1", "the condition", self.condition.type, TensorType(boolean, ()))
        args = (*self.then.args, *self.otherwise.args)
        expect_types(self, "C2", "the regions take no arguments", (), types_of(args))
        found = yields(self, 0)
        expect_types(self, "C2", "both regions must yield the same types", found, yields(self, 1))
        return found

    def interpret(self, interp: Blocks, condition: Array) -> Any:
        """Run one of the regions."""
        return only(interp.block(self.then if condition else self.otherwise, ()))


class ForLoop(Op, name="for"):
    """Runs `body` for index 0, 1, ... with values carried from `inits` to the results.

    The trip count is the attribute `trip` (a dim) or, where that is None, the operand `count`; a
    negative count is none.  C1: exactly one of them is given; count is i64[].  C2: the region's
    arguments are i64[] (the index) and the carried types.  C3: it yields the carried types.
    """

    count = optional(Int)
    inits = variadic(Any_)
    trip = attr(object, None)
    body = region("index, carried values; yields the next carried values")

    @classmethod
    def make(
        cls, trip: DimLike | Value, inits: Sequence[Value], body: Fill, loc: Loc | None = None
    ) -> ForLoop:
        """A loop whose region `body(b, index, *carried)` builds."""
        block = block_of((TensorType(i64, ()), *types_of(inits)), body, loc)
        count = trip if isinstance(trip, Value) else None
        static = None if count is not None else trip
        return cls(count, *inits, trip=static, regions=[block], loc=loc)  # type: ignore[arg-type]

    def result_types(self) -> tuple[Type, ...]:
        self.check_operands([v.type if v is not None else None for v in self.operands])
        count: Value | None = self.count
        require(
            (count is None) != (self.trip is None),
            "E0340",
            "for (C1): either the attribute trip or the operand count must be given",
        )
        if count is not None:
            _scalar(self, "C1", "the count", count.type, TensorType(i64, ()))
        carried = types_of(self.inits)
        want = (TensorType(i64, ()), *carried)
        expect_types(
            self, "C2", "the region takes index and carried values", want, types_of(self.body.args)
        )
        found = yields(self, 0)
        expect_types(self, "C3", "the region must yield the carried types", carried, found)
        return carried

    def interpret(self, interp: Blocks, count: Array | None, *carried: Array) -> Any:
        """Run the body as often as said."""
        trips = int(count) if count is not None else interp.extent(self.trip)
        values: Sequence[Array] = carried
        for index in range(trips):
            values = interp.block(self.body, [np.asarray(index, np.int64), *values])
        return only(values)


class While(Op):
    """Runs `body` on the carried values as long as `before`, on the same values, yields true.

    With `max_trip` at most so often.  C1: both regions take the carried types.  C2: `before` yields
    bool[].  C3: `body` yields the carried types.  C4: max_trip is None or at least 0.
    """

    inits = variadic(Any_)
    max_trip = attr(object, None)
    before = region("carried values; yields whether to go on")
    body = region("carried values; yields the next carried values")

    @classmethod
    def make(
        cls,
        inits: Sequence[Value],
        before: Fill,
        body: Fill,
        max_trip: DimLike | None = None,
        loc: Loc | None = None,
    ) -> While:
        """A loop whose regions `before(b, *carried)` and `body(b, *carried)` build."""
        types = types_of(inits)
        regions = [block_of(types, before, loc), block_of(types, body, loc)]
        return cls(*inits, max_trip=max_trip, regions=regions, loc=loc)

    def result_types(self) -> tuple[Type, ...]:
        carried = types_of(self.operands)
        for block in self.regions:
            found = types_of(block.args)
            expect_types(self, "C1", "the regions take the carried types", carried, found)
        expect_types(
            self,
            "C2",
            "the first region must yield one bool[]",
            (TensorType(boolean, ()),),
            yields(self, 0),
        )
        expect_types(self, "C3", "the body must yield the carried types", carried, yields(self, 1))
        negative = type(self.max_trip) is int and self.max_trip < 0
        require(not negative, "E0340", "while (C4): max_trip is negative", f"found {self.max_trip}")
        return carried

    def interpret(self, interp: Blocks, *carried: Array) -> Any:
        """Test and run, until the test fails or the bound is reached."""
        values: Sequence[Array] = carried
        left = None if self.max_trip is None else interp.extent(self.max_trip)
        while left is None or left > 0:
            if not interp.block(self.before, values)[0]:
                break
            values = interp.block(self.body, values)
            left = None if left is None else left - 1
        return only(values)


class Scan(Op):
    """Runs `body` on each slice of the scanned values along axis 0, with carried values.

    The first `carried` operands are the initial carried values, the rest are scanned; results are
    the last carried values, then each further yielded value stacked along a new axis 0.  With
    `reverse` the slices are taken, and the results stacked, from the last to the first. C1:
    `length` is given or some value is scanned, and all lengths are equal.  C2: the region's
    arguments are the carried types, then the types of the slices.  C3: it yields the carried types
    first.
    """

    values = variadic(Any_)
    carried = attr(int)
    length = attr(object, None)
    reverse = attr(bool, False)
    body = region(
        "carried values, slices; yields the next carried values, then slices of the results"
    )

    @classmethod
    def make(
        cls,
        inits: Sequence[Value],
        scanned: Sequence[Value],
        body: Fill,
        *,
        reverse: bool = False,
        length: DimLike | None = None,
        loc: Loc | None = None,
    ) -> Scan:
        """A scan whose region `body(b, *carried, *slices)` builds."""
        slices = [TensorType(v.tensor.dtype, v.tensor.shape[1:]) for v in scanned]
        block = block_of((*types_of(inits), *slices), body, loc)
        return cls(
            *inits,
            *scanned,
            carried=len(inits),
            length=length,
            reverse=reverse,
            regions=[block],
            loc=loc,
        )

    @property
    def inits(self) -> tuple[Value, ...]:
        return self.operands[: self.carried]

    @property
    def scanned(self) -> tuple[Value, ...]:
        return self.operands[self.carried :]

    @property
    def trips(self) -> DimLike:
        """How many slices there are."""
        known = [e for e in self._lengths() if type(e) is int]
        return known[0] if known else self._lengths()[0]

    def _lengths(self) -> list[DimLike]:
        given = [] if self.length is None else [self.length]
        return given + [v.tensor.shape[0] for v in self.scanned]

    def result_types(self) -> tuple[Type, ...]:
        self.check_operands(types_of(self.operands))
        require(
            all([v.tensor.rank >= 1 for v in self.scanned]) and bool(self._lengths()),
            "E0340",
            "scan (C1): there is no length, or a scanned value has no axis",
        )
        for other in self._lengths():
            require(
                same(self._lengths()[0], other),
                "E0340",
                "scan (C1): lengths differ",
                f"found {', '.join([str(e) for e in self._lengths()])}",
            )
        carried = types_of(self.inits)
        slices = [TensorType(v.tensor.dtype, v.tensor.shape[1:]) for v in self.scanned]
        expect_types(
            self,
            "C2",
            "the region takes carried values and slices",
            (*carried, *slices),
            types_of(self.body.args),
        )
        found = yields(self, 0)
        expect_types(
            self,
            "C3",
            "the region must yield the carried types first",
            carried,
            found[: self.carried],
        )
        stacked = [TensorType(t.dtype, (self.trips, *t.shape)) for t in found[self.carried :]]  # type: ignore[attr-defined]
        return (*carried, *stacked)

    def interpret(self, interp: Blocks, *arrays: Array) -> Any:
        """Run the body on every slice and stack what it gives."""
        values: Sequence[Array] = arrays[: self.carried]
        scanned = arrays[self.carried :]
        trips = interp.extent(self.trips)
        stacks = [
            np.empty([interp.extent(e) for e in r.tensor.shape], r.tensor.dtype.np)
            for r in self.results[self.carried :]
        ]
        for index in reversed(range(trips)) if self.reverse else range(trips):
            given = interp.block(self.body, [*values, *[np.asarray(x[index]) for x in scanned]])
            values = given[: self.carried]
            for stack, part in zip(stacks, given[self.carried :]):
                stack[index] = part
        return only([*values, *stacks])


__all__ = [
    "Blocks", "Fill", "ForLoop", "If", "Scan", "While", "block_of", "expect_types", "inlined",
    "only", "types_of", "yields",
]  # fmt: skip
