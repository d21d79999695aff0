"""Brute-force evaluation of `generic`: index grids, gathers with guards, the scalar body on arrays.

Parallel points are evaluated all at once; reductions are combined one after the other in the order
of the iterators, the last one fastest, which is the order that the numerics promise.
Imports: the core, dims, ops/core, ops/loop, errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .core import Array, Block, Op, Value
from .dims import Dim, DimLike, evaluate
from .dims_grid import Grid, evaluate_grid
from .errors import Error
from .ops.core import Generic, Yield
from .ops.loop import IndexValue
from .types import element

CHUNK = 1 << 20
"""Elements of the iteration space that are evaluated at once, at least one reduction point."""


def run_generic(op: Generic, arrays: Sequence[Array], dims: Mapping[str, int]) -> tuple[Array, ...]:
    """The results of `op` on these arrays under these values of the shape symbols."""
    return _Run(op, arrays, dims).results()


class _Run:
    """One evaluation.  Grids have an axis per parallel iterator, and one for a reduction chunk."""

    def __init__(self, op: Generic, arrays: Sequence[Array], dims: Mapping[str, int]) -> None:
        self.op = op
        self.arrays = arrays
        self.dims = dict(dims)
        self.parallel = [(n, evaluate(e, dims)) for n, e in op.parallel]
        self.reduction = [(n, evaluate(e, dims)) for n, e in op.reduction]
        self.shape = tuple([e for _, e in self.parallel])
        self.rank = len(self.shape) + 1
        self.points: dict[str, Grid] = dict(self.dims)
        for axis, (name, extent) in enumerate(self.parallel):
            self.points[name] = self.along(np.arange(extent), axis)

    def along(self, values: Array, axis: int) -> Array:
        """A one-dimensional array laid along one axis of the grid."""
        return values.reshape([-1 if k == axis else 1 for k in range(self.rank)])

    def results(self) -> tuple[Array, ...]:
        """Evaluate everything."""
        if len(self.op.regions) == 1:
            if self.reduction:
                raise Error("E0505", "generic: a reduction needs a combiner", where=self.op.loc)
            values = [v[..., 0] for v in self.contributions(dict(self.points))]
        else:
            values = self.run_block(self.op.finish, self.accumulate(), self.points_without_chunk())
        return tuple([self.place(k, np.asarray(v)) for k, v in enumerate(values)])

    def points_without_chunk(self) -> dict[str, Grid]:
        """The parallel grids without the axis of the chunk."""
        return {n: v[..., 0] if isinstance(v, np.ndarray) else v for n, v in self.points.items()}

    def accumulate(self) -> list[Array]:
        """Fold the contributions of all reduction points into the accumulators, chunk by chunk."""
        op = self.op
        accs = [
            np.full(self.shape, init, t.np) for init, t in zip(op.init, op.acc_types, strict=True)
        ]
        total = math.prod([e for _, e in self.reduction])
        step = max(1, CHUNK // max(1, math.prod(self.shape)))
        fold = _ufunc_of(op.combine)
        for start in range(0, total if math.prod(self.shape) else 0, step):
            count = min(step, total - start)
            env = dict(self.points)
            index = np.unravel_index(
                np.arange(start, start + count), tuple([e for _, e in self.reduction]) or (1,)
            )
            for (name, _), values in zip(self.reduction, index):
                env[name] = self.along(values, self.rank - 1)
            parts = [np.broadcast_to(v, (*self.shape, count)) for v in self.contributions(env)]
            if fold is not None and parts[0].dtype == accs[0].dtype:
                accs = [
                    fold.accumulate(np.concatenate([accs[0][..., None], parts[0]], -1), axis=-1)[
                        ..., -1
                    ]
                ]
                continue
            env = self.points_without_chunk()
            for k in range(count):
                accs = self.run_block(op.combine, [*accs, *[p[..., k] for p in parts]], env)
        return accs

    def contributions(self, env: dict[str, Grid]) -> list[Array]:
        """The body on the operands gathered at the points of `env`."""
        gathered = []
        for k in range(len(self.arrays)):
            value = self.gather(k, env)
            if value.dtype.kind in "iu" or element(self.op.operands[k].type).is_integer:
                env[f"_v{k}"] = value.astype(np.int64)
            gathered.append(value)
        ones = (1,) * self.rank
        found = self.run_block(self.op.body, gathered, env)
        return [v if v.ndim == self.rank else v.reshape(ones) for v in found]

    def gather(self, k: int, env: Mapping[str, Grid]) -> Array:
        """Operand k at its index map, with guards and fill."""
        op, array = self.op, self.arrays[k]
        fill = op.fills[k] if op.fills else None
        valid: Any = True
        index = []
        for extent, expression in zip(array.shape, op.maps[k], strict=True):
            at = self.grid(expression, env)
            valid = valid & (at >= 0) & (at < extent)
            index.append(np.clip(at, 0, max(extent - 1, 0)))
        for expression in op.where[k] if op.where else ():
            valid = valid & (self.grid(expression, env) >= 0)
        if np.all(valid):
            return array[tuple(index)] if index else array.reshape((1,) * self.rank)
        if fill is None:
            raise Error(
                "E0505",
                f"generic: operand {k} is read outside its bounds",
                where=op.loc,
                details=(f"at [{', '.join(map(str, op.maps[k]))}] of {list(array.shape)}",),
            )
        filling = np.asarray(fill).astype(array.dtype)
        if array.size == 0:
            return np.broadcast_to(
                filling, np.broadcast_shapes(np.shape(valid), *[i.shape for i in index])
            ).copy()
        value = array[tuple(index)] if index else array.reshape((1,) * self.rank)
        return np.where(valid, value, filling)

    def grid(self, expression: DimLike, env: Mapping[str, Grid]) -> Array:
        """The values of an index expression, with all axes of the grid."""
        values = np.asarray(evaluate_grid(expression, env))
        return values if values.ndim else values.reshape((1,) * self.rank)

    def place(self, r: int, value: Array) -> Array:
        """Result r, with `value` (one element per parallel point) written at its map."""
        op = self.op
        shape = tuple([evaluate(e, self.dims) for e in op.types[r].shape])
        value = np.broadcast_to(value, self.shape)
        names = [n for n, _ in self.parallel]
        if shape == self.shape and [str(e) for e in op.out_maps[r]] == names:
            return np.array(value)
        out = _poison(shape, op.types[r].dtype.np)
        index = [self.grid(e, self.points)[..., 0] for e in op.out_maps[r]]
        for extent, at in zip(shape, index, strict=True):
            if at.size and math.prod(self.shape) and not (at.min() >= 0 and at.max() < extent):
                raise Error(
                    "E0505", f"generic: result {r} is written outside its bounds", where=op.loc
                )
        if index:
            out[tuple(np.broadcast_arrays(*index, value)[:-1])] = value
        elif value.size:
            out[()] = value.reshape(-1)[-1]
        return out

    def run_block(
        self, block: Block, args: Sequence[Array], env: Mapping[str, Grid]
    ) -> list[Array]:
        """A scalar region on arrays, element by element."""
        values: dict[Value, Array] = dict(zip(block.args, args, strict=True))
        for op in block:
            if isinstance(op, Yield):
                return [np.asarray(values[v]) for v in op.operands]
            if isinstance(op, IndexValue):
                found: Any = np.asarray(evaluate_grid(op.value, env)).astype(op.dtype.np)
            else:
                attributes = {
                    n: evaluate(v, self.dims) if isinstance(v, Dim) else v
                    for n, v in op.attributes.items()
                }
                found = type(op).evaluate(*[values[v] for v in op.operands], **attributes)
            for value, array in zip(
                op.results, found if len(op.results) > 1 else (found,), strict=True
            ):
                values[value] = _checked(op, value, np.asarray(array))
        raise Error("E0505", "generic: a region ends without yield", where=self.op.loc)


def _checked(op: Op, value: Value, array: Array) -> Array:
    if array.dtype != element(value.type).np:
        raise Error(
            "E0503", f"{op.name} gives {array.dtype} where its type is {value.type}", where=op.loc
        )
    return array


def _ufunc_of(combine: Block) -> np.ufunc | None:
    """The ufunc that the combiner is, where it is one op of accumulator and contribution."""
    first = combine.first
    if first is None or first.next is not combine.last or len(combine.args) != 2:
        return None
    called: Callable[..., Any] | None = getattr(type(first), "evaluate", None)
    plain = first.operands == combine.args and combine.last.operands == first.results  # type: ignore[union-attr]
    return called if plain and isinstance(called, np.ufunc) else None


def _poison(shape: tuple[int, ...], dtype: Any) -> Array:
    """Memory that no map may leave unwritten: NaN, or the byte 0xA5."""
    if dtype.kind == "O":
        return np.full(shape, None, dtype)
    if dtype.kind in "fcV" and dtype.itemsize > 1:
        return np.full(shape, np.nan, dtype)
    return (
        np.full(shape, 0xA5, np.uint8).astype(dtype)
        if dtype.kind == "b"
        else np.full(shape, 85, dtype)
    )


__all__ = ["CHUNK", "run_generic"]
