"""Loops of kind `vector` become vector ops.

The body must be straight-line.  Lanes beyond a loop's extent are masked in memory; in buffers of
the kernel itself they are selected away, so that such buffers can stay in registers.  A reduction
loop combines its lanes in registers.  May import: ir.
"""

from __future__ import annotations

from collections.abc import Callable

from ...ir.core import OPS, Op, Value
from ...ir.dims import DimLike, bounds, nonneg, sym, symbols_of
from ...ir.errors import Error
from ...ir.ops.core import Const, Func
from ...ir.ops.loop import Alloc, Bind, For, IndexValue, Load, ReduceLanes, Splat, Store
from ...ir.symbols import dims_in, ranges_around
from ...ir.types import DType, VectorType, boolean, i32


def vectorize(kernel: Func) -> None:
    """Turn every loop of kind `vector` into vector ops."""
    # Masks are decided for all loops before any is rewritten: every index still has its range.
    for lanes in [
        _Lanes(op) for op in kernel.walk() if isinstance(op, For) and op.kind == "vector"
    ]:
        lanes.run()


class _Lanes:
    """One vector loop on its way to vector ops: its lanes, its tail mask, and the wide form of each
    value.
    """

    def __init__(self, loop: For) -> None:
        self.loop, self.var, self.block = loop, loop.var, loop.block
        assert self.block is not None and loop.lo == 0
        extent = loop.extent
        most = extent if isinstance(extent, int) else bounds(extent, ranges_around(loop))[1]
        if most is None:
            raise Error("E0411", f"the vector loop {loop.var} has no static bound", where=loop.loc)
        self.lanes = 1 << (most - 1).bit_length()
        masked = not isinstance(extent, int) or extent != self.lanes
        self.tail: tuple[DimLike, ...] = (extent - 1 - sym(self.var),) if masked else ()
        self.wide: dict[Value, Value] = {}
        self.masks = {
            op: self.open_tail(op)
            for op in loop.body
            if self.tail and isinstance(op, (Load, Store))
        }

    def put(self, op: Op) -> Op:
        """Insert before the loop."""
        assert self.block is not None
        return self.block.insert_before(op, self.loop)

    def run(self) -> None:
        """Convert the body in order, then drop the loop."""
        for op in list(self.loop.body):
            varies = any([self.var in symbols_of(e) for value in op.attrs for e in dims_in(value)])
            wide = any([v in self.wide for v in op.operands])
            if isinstance(op, Store):
                self.store(op, varies)
            elif isinstance(op, (Load, IndexValue)) and varies:
                self.keep(op, self.with_lane(op))
            elif wide and not isinstance(op, Bind):
                self.keep(op, self.widened(op))
            elif op.regions or wide or varies or not (op.pure or isinstance(op, Bind)):
                raise Error("E0411", f"'{op.name}' cannot run in vector lanes", where=op.loc)
            else:
                self.loop.body.remove(op)
                self.put(op)
        self.loop.erase()

    def keep(self, old: Op, made: Op) -> None:
        """Remember the wide form of an op's results."""
        self.put(made)
        self.wide.update(zip(old.results, made.results, strict=True))

    def with_lane(self, op: Load | IndexValue) -> Op:
        """The vector form of a lane-dependent load or index."""
        if isinstance(op, IndexValue):
            return IndexValue(
                value=op.value, lane=self.var, lanes=self.lanes, dtype=op.dtype, loc=op.loc
            )
        where = (*op.where, *self.masks.get(op, ()))
        return Load(
            op.source,
            index=op.index,
            where=where,
            fill=op.fill,
            lane=self.var,
            lanes=self.lanes,
            loc=op.loc,
        )

    def open_tail(self, op: Load | Store) -> tuple[DimLike, ...]:
        """The tail mask, unless the lanes beyond the extent fall in a part of a local buffer that
        nobody uses.

        Stores may then define more than the extent; loads only trust registers, which whole vectors
        set.
        """
        buffer = op.operands[-1]
        if not self.tail or not isinstance(buffer.op, Alloc):
            return self.tail
        if isinstance(op, Load) and buffer.buffer.space != "register":
            return self.tail
        ranges = {**ranges_around(self.loop), self.var: (0, self.lanes - 1)}
        inside = all(
            [nonneg(n - 1 - e, ranges) for e, n in zip(op.index, buffer.buffer.shape, strict=True)]
        )
        return () if inside and _reaches_end(op, self.loop) else self.tail

    def widened(self, op: Op) -> Op:
        """The vector form of an elementwise op."""
        operands = [self.splat(v) for v in op.operands]
        types = [VectorType(r.type, self.lanes) for r in op.results if isinstance(r.type, DType)]
        return type(op).raw(operands, op.attrs, types, op.regions, op.loc)

    def splat(self, value: Value) -> Value:
        """The vector form of an operand."""
        if value not in self.wide:
            self.wide[value] = self.put(Splat(value, lanes=self.lanes)).result
        return self.wide[value]

    def store(self, op: Store, varies: bool) -> None:
        """A vector store; or, where all lanes meet in one address, their combination."""
        if not varies:
            self.combine(op)
            return
        value = self.splat(op.value)
        where = (*op.where, *self.masks.get(op, ()))
        made = Store(
            value,
            op.target,
            index=op.index,
            where=where,
            lane=self.var,
            loc=op.loc,
            stream=op.stream,
        )
        self.put(made)

    def mask(self) -> Value:
        """A vector of bools: lane within the loop's extent."""
        index = self.put(
            IndexValue(value=self.tail[0], lane=self.var, lanes=self.lanes, dtype=i32)
        ).result
        zero = self.put(Splat(self.put(Const(0, i32)).result, lanes=self.lanes)).result
        return self.put(OPS["ge"].raw([index, zero], (), [VectorType(boolean, self.lanes)])).result

    def separated(self, fma: Op) -> Op:
        """`add(acc, x * y)` for `fma(x, y, acc)`, the product in lanes."""
        x, y, acc = fma.operands
        lanes = [self.splat(x), self.splat(y)]
        product = self.put(OPS["mul"].raw(lanes, (), [lanes[0].type], loc=fma.loc)).result
        self.wide[product] = product
        return OPS["add"].raw([acc, product], (), [acc.type], loc=fma.loc)

    def combine(self, op: Store) -> None:
        """acc = acc (+) lanes: reduce the vector, then combine the scalar once."""
        update = op.value.op
        assert update is not None
        if update.name == "fma":
            update = self.separated(update)
        olds = [v for v in update.operands if _reads(v, op)]
        parts = [v for v in update.operands if not _reads(v, op)]
        if (
            len(olds) != 1
            or len(parts) != 1
            or update.name not in IDENTITY
            or parts[0] not in self.wide
        ):
            raise Error(
                "E0411", "lanes store to one address: factor the reduction first", where=op.loc
            )
        lanes = self.wide[parts[0]]
        if self.tail:
            dtype = lanes.type.dtype  # type: ignore[attr-defined]
            fill = self.put(Const(IDENTITY[update.name](dtype), dtype)).result
            fills = self.put(Splat(fill, lanes=self.lanes)).result
            lanes = self.put(OPS["where"].raw([self.mask(), lanes, fills], (), [lanes.type])).result
        part = self.put(ReduceLanes(lanes, combiner=update.name, loc=op.loc)).result
        old = self.put(Load(op.target, index=op.index, where=op.where, loc=op.loc)).result
        value = self.put(
            type(update).raw([old, part], update.attrs, [part.type], loc=update.loc)
        ).result
        if update.block is None:
            update.set_operands(())
        self.put(Store(value, op.target, index=op.index, where=op.where, loc=op.loc))


def _reaches_end(op: Load | Store, loop: For) -> bool:
    """Does this access go as far along every dimension that the lanes move as any access to the
    buffer does?
    """
    buffer = op.operands[-1]
    for d, e in enumerate(op.index):
        if loop.var not in symbols_of(e):
            continue
        _, mine = bounds(e, ranges_around(op))
        for user in buffer.users:
            _, other = bounds(user.attributes["index"][d], ranges_around(user))
            if mine is None or other is None or other > mine:
                return False
    return True


def _reads(value: Value, store: Store) -> bool:
    """Is this value a load of the very element that the store writes?"""
    load = value.op
    return isinstance(load, Load) and load.source is store.target and load.index == store.index


def _least(dtype: DType) -> float:
    if dtype.is_float:
        return float("-inf")
    return 0 if dtype.kind == "uint" else -(1 << (dtype.bits - 1))


def _most(dtype: DType) -> float:
    if dtype.is_float:
        return float("inf")
    return (1 << (dtype.bits - (dtype.kind == "int"))) - 1


IDENTITY: dict[str, Callable[[DType], float]] = {
    "add": lambda dtype: 0,
    "mul": lambda dtype: 1,
    "max": _least,
    "larger": _least,
    "min": _most,
}

__all__ = ["IDENTITY", "vectorize"]
