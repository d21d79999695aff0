"""The gradients of pools: `max_pool_grad`, `avg_pool_grad`.

Each element of the operand gathers from the windows that cover it, so that nothing is scattered.
With `channel_block` all operands have a trailing axis of channel lanes.  Imports: the core, types,
dims, pools.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Grads, Op, Value, attr, operand, sample
from ..dims import DimLike, evaluate, max_, sym
from ..types import Shape, TensorType, from_numpy, i32, i64
from .constraints import require, same
from .contract import add_up, as_type
from .convert import compute_dtype, highest, lowest
from .core import generic
from .elementwise import constant
from .loop import IndexValue
from .pool import _counted, _first_greatest, _Pool, max_indices
from .window import Window

WRITTEN_OUT = 9
"""Elements of a window up to which it is searched again for each of its elements."""


class _PoolGrad(Op):
    """Base: the attributes of the pool, and how its operand's elements see the windows."""

    def cover(self, win: Window, size: Shape) -> tuple[list[Any], list[DimLike], list[DimLike]]:
        """(reduction iterators, per axis the covering window, the tap that is the element there).

        Window p//stride - j is the j-th back from the last that covers position p of the padded
        input.
        """
        its: list[Any] = []
        windows: list[DimLike] = []
        taps: list[DimLike] = []
        for k in range(win.rank):
            place = sym(f"p{k}") + win.before[k]
            most = -(-win.reach(k) // win.strides[k])
            at: DimLike = place // win.strides[k]
            if most > 1:
                its.append((f"j{k}", most, "reduction"))
                at = at - sym(f"j{k}")
            windows.append(at)
            taps.append(place - at * win.strides[k])
        return its, windows, taps


def _check_cotangent(op: str, expected: Shape, g: TensorType) -> None:
    """Constraint C6: g has the shape of the pool's result."""
    alike = len(expected) == g.rank and all(
        [same(a, c) is not False for a, c in zip(expected, g.shape)]
    )
    require(alike, "E0316", f"{op} (C6): g does not have the shape of the pool's result",
            f"found {g}", f"expected {TensorType(g.dtype, expected)}")  # fmt: skip


class MaxPoolGrad(_PoolGrad):
    """The gradient of max_pool at x for the cotangent g of its result: each element of g goes to
    the first of the greatest elements of its window, as in torch.

    A NaN counts as the greatest.  Sums of f8, f16 and bf16 are in f32.  C1: x and g have one
    element type.  C2 to C5 as for all pools.  C6: g has the shape of the pool's result.
    """

    x = operand(Float)
    g = operand(Float)
    kernel = attr(tuple)
    strides = attr(tuple, ())
    pads = attr(tuple, ())
    dilations = attr(tuple, ())
    ceil_mode = attr(bool, False)
    channel_block = attr(int, 0)

    @classmethod
    def infer(cls, x: TensorType, g: TensorType, **attrs: Any) -> TensorType:
        require(x.dtype is g.dtype, "E0303", "max_pool_grad (C1): two element types", f"{x}, {g}")
        _, counts = _geometry(cls, x, attrs)
        lanes = (attrs["channel_block"],) if attrs["channel_block"] else ()
        _check_cotangent("max_pool_grad", (*x.shape[:2], *counts, *lanes), g)
        return x

    @classmethod
    def evaluate(cls, x: Array, g: Array, **attrs: Any) -> Array:
        dtype = from_numpy(x.dtype)
        found = max_indices(x, _geometry(cls, TensorType(dtype, x.shape), attrs))
        total = np.zeros(x.size, compute_dtype(dtype).np)
        np.add.at(total, found.reshape(-1), g.reshape(-1).astype(total.dtype))
        return total.reshape(x.shape).astype(x.dtype)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Windows that lie apart are searched again for each element; else their greatest elements
        are found first, and each element adds up the windows whose greatest it is.
        """
        x, g = xs
        win, counts = _geometry(type(self), x.tensor, self.attributes)
        names = ["n", "c", *[f"p{k}" for k in range(win.rank)]]
        names += ["cb"] if self.channel_block else []
        its: list[Any] = [(name, e, "parallel") for name, e in zip(names, x.tensor.shape)]
        target = tuple([sym(name) for name in names])
        covers, windows, taps = self.cover(win, x.tensor.shape[2:])
        lanes = [sym("cb")] if self.channel_block else []
        source = (sym("n"), sym("c"), *windows, *lanes)
        if not covers and math.prod(win.kernel) <= WRITTEN_OUT:
            return self._searched(b, x, g, win, its, target, source, windows, taps)
        found = self._greatest(b, x, win, counts)
        flat = _flat([sym(f"p{k}") for k in range(win.rank)], x.tensor.shape[2:])
        acc = compute_dtype(x.tensor.dtype)

        def taken(b: Builder, index: Value, g: Value) -> Value:
            here = b.emit(IndexValue, value=flat, dtype=i32)
            g = as_type(b, g, acc)
            return b.where(b.eq(index, here), g, constant(b, g, 0.0))  # type: ignore[no-any-return]

        summed: dict[str, Any] = {}
        if covers:
            summed = {"init": (0.0,), "combine": add_up, "acc_types": (acc,)}
        return generic(  # type: ignore[no-any-return]
            b,
            [found, g],
            [*its, *covers],
            [source, source],
            [target],
            [x.tensor],
            taken if covers else lambda b, i, g: as_type(b, taken(b, i, g), x.tensor.dtype),
            fills=(-1, 0.0),
            **summed,
        )

    def _searched(
        self,
        b: Builder,
        x: Value,
        g: Value,
        win: Window,
        its: list[Any],
        target: Sequence[DimLike],
        source: Sequence[DimLike],
        windows: Sequence[DimLike],
        taps: Sequence[DimLike],
    ) -> Value:
        """One window per element, all of whose elements are read."""
        lanes = [sym("cb")] if self.channel_block else []
        maps: list[Any] = []
        for tap in np.ndindex(*win.kernel):
            at = [win.position(k, windows[k], t) for k, t in enumerate(tap)]
            maps.append((sym("n"), sym("c"), *at, *lanes))
        mine: DimLike = 0
        outside: DimLike = 0
        for k, tap_at in enumerate(taps):
            mine = mine * win.kernel[k] + tap_at // win.dilations[k]
            last = (win.kernel[k] - 1) * win.dilations[k]
            outside = max_(outside, tap_at - last, tap_at % win.dilations[k])

        def body(b: Builder, g: Value, *given: Value) -> Value:
            best, at = given[0], constant(b, g, 0.0)
            for k, value in enumerate(given[1:], 1):
                wins = b.logical_or(b.gt(value, best), _only_nan(b, value, best))
                best = b.where(wins, value, best)
                at = b.where(wins, constant(b, g, float(k)), at)
            here = b.cast(b.emit(IndexValue, value=mine, dtype=i64), to=g.type)
            takes = b.eq(at, here)
            if outside != 0:
                beyond = b.emit(IndexValue, value=outside, dtype=i64)
                takes = b.logical_and(takes, b.eq(beyond, constant(b, beyond, 0)))
            return b.where(takes, g, constant(b, g, 0.0))  # type: ignore[no-any-return]

        low = lowest(x.tensor.dtype)
        return generic(  # type: ignore[no-any-return]
            b,
            [g, *[x] * len(maps)],
            its,
            [tuple(source), *maps],
            [tuple(target)],
            [x.tensor],
            body,
            fills=(0.0, *[low] * len(maps)),
        )

    def _greatest(self, b: Builder, x: Value, win: Window, counts: Sequence[DimLike]) -> Value:
        """Per window the position of the first greatest element in its plane, i32."""
        lanes = (self.channel_block,) if self.channel_block else ()
        size = x.tensor.shape[2 : 2 + win.rank]
        names = ["n", "c", *[f"s{k}" for k in range(win.rank)], *(["cb"] if lanes else [])]
        out = TensorType(i32, (*x.tensor.shape[:2], *counts, *lanes))
        its: list[Any] = [(name, e, "parallel") for name, e in zip(names, out.shape)]
        its += [(f"k{k}", extent, "reduction") for k, extent in enumerate(win.kernel)]
        places = [win.position(k, sym(f"s{k}"), sym(f"k{k}")) for k in range(win.rank)]
        outside: DimLike = 0
        for place, extent in zip(places, size):
            outside = max_(outside, -place, place - extent + 1)

        def term(b: Builder, x: Value) -> tuple[Value, Value]:
            here = b.emit(IndexValue, value=_flat(places, size), dtype=i32)
            beyond = b.emit(IndexValue, value=outside, dtype=i32)
            inside = b.eq(beyond, constant(b, beyond, 0))
            return x, b.where(inside, here, constant(b, here, highest(i32)))

        low = lowest(x.tensor.dtype)
        return generic(  # type: ignore[no-any-return]
            b,
            [x],
            its,
            [(sym("n"), sym("c"), *places, *([sym("cb")] if lanes else []))],
            [tuple([sym(name) for name in names])],
            [out],
            term,
            init=(low, highest(i32)),
            combine=_first_greatest,
            acc_types=(x.tensor.dtype, i32),
            finish=lambda b, best, found: found,
            fills=(low,),
        )

    def vjp(self, b: Builder, h: Value | None) -> Grads:
        """In g what stands where the greatest elements are; x moves nothing."""
        given = {k: v for k, v in self.attributes.items() if k != "channel_block"}
        require(not self.channel_block, "E0601", "max_pool_grad: the blocked form has no gradient")
        at = b.max_pool_indices(self.x, **given)
        total: DimLike = 1
        for extent in self.x.tensor.shape:
            total = total * extent
        return None, b.take(b.reshape(h, shape=(total,)), at, axis=0)

    samples: ClassVar[Any] = (
        sample((1, 3, 6, 7), (1, 3, 5, 5), kernel=(2, 3)),
        sample((1, 3, 6, 7), (1, 3, 3, 3), kernel=(2, 2), strides=(2, 2)),
        sample((2, 3, 7, 7), (2, 3, 4, 4), kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
        sample((1, 2, 9), (1, 2, 8), kernel=(3,), dilations=(2,), pads=(2, 1)),
        sample((1, 2, 9), (1, 2, 3), kernel=(2,), dilations=(2,), strides=(4,), pads=(1, 1)),
        sample((1, 2, 6, 7), (1, 2, 3, 4), kernel=(3, 2), strides=(2, 2), ceil_mode=True),
        sample((1, 2, 5, 7), (1, 2, 3, 4), kernel=(2, 2), strides=(2, 2), ceil_mode=True),
        sample((1, 2, 7, 7), (1, 2, 2, 2), kernel=(2, 2), strides=(3, 4)),
        sample((1, 1, 3, 4, 5), (1, 1, 2, 3, 4), kernel=(2, 2, 2)),
        sample((1, 1, 9, 8), (1, 1, 2, 2), kernel=(4, 4), strides=(4, 4)),
        sample((1, 3, 1, 1), (1, 3, 1, 1), kernel=(1, 1)),
        sample((0, 3, 5, 5), (0, 3, 4, 4), kernel=(2, 2)),
        sample((1, 2, 5, 5, 4), (1, 2, 5, 5, 4), kernel=(3, 3), pads=(1, 1, 1, 1), channel_block=4),
        sample((1, 2, 4, 6, 4), (1, 2, 2, 3, 4), kernel=(2, 2), strides=(2, 2), channel_block=4),
        sample((1, 3, 4, 4), (1, 3, 2, 2), kernel=(2, 2), strides=(2, 2), dtypes=("bf16",)),
        sample((1, 3, 5, 5), (1, 3, 4, 4), kernel=(2, 2), dtypes=("f16",)),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((1, 3, 5, 5), (1, 3, 4, 4), kernel=(2, 2), dtypes=("f32", "f64"))),
        ("C2", sample((3, 5), (3, 5), kernel=())),
        ("C3", sample((1, 3, 5, 5), (1, 3, 4, 4), kernel=(2,))),
        ("C4", sample((1, 3, 5, 5), (1, 3, 4, 0), kernel=(2, 9))),
        ("C5", sample((1, 3, 5, 5), (1, 3, 6, 4), kernel=(2, 2), pads=(2, 0, 0, 0))),
        ("C6", sample((1, 3, 5, 5), (1, 3, 5, 5), kernel=(2, 2))),
        ("C6", sample((1, 3, 5, 5), (1, 3, 4), kernel=(2, 2))),
    )


def _geometry(cls: type[Op], x: TensorType, attrs: dict[str, Any]) -> tuple[Window, Shape]:
    """The pool's windows, told in the name of the gradient."""
    return _Pool.geometry.__func__(cls, x, attrs)  # type: ignore[attr-defined,no-any-return]


def _flat(places: Sequence[DimLike], size: Shape) -> DimLike:
    """The position in a plane laid flat."""
    flat: DimLike = 0
    for place, extent in zip(places, size):
        flat = flat * extent + place
    return flat


def _only_nan(b: Builder, value: Value, best: Value) -> Value:
    """value is NaN and best is not."""
    return b.logical_and(b.ne(value, value), b.eq(best, best))  # type: ignore[no-any-return]


class AvgPoolGrad(_PoolGrad):
    """The gradient of avg_pool for the cotangent g of its result: each element of an input of
    `size` gets its share of all windows that cover it.

    f8, f16 and bf16 are summed in f32.  C2 to C5 as for all pools.  C6: g has the shape of the
    pool's result.
    """

    g = operand(Float)
    size = attr(tuple)
    kernel = attr(tuple)
    strides = attr(tuple, ())
    pads = attr(tuple, ())
    dilations = attr(tuple, ())
    ceil_mode = attr(bool, False)
    channel_block = attr(int, 0)
    count_include_pad = attr(bool, False)

    @classmethod
    def infer(cls, g: TensorType, **attrs: Any) -> TensorType:
        return cls.windows(g, attrs)[0]

    @classmethod
    def windows(cls, g: TensorType, attrs: dict[str, Any]) -> tuple[TensorType, Window]:
        """The type of the result, and the windows over it; checks the constraints."""
        lanes = (attrs["channel_block"],) if attrs["channel_block"] else ()
        require(
            g.rank == 2 + len(attrs["size"]) + len(lanes),
            "E0316",
            "avg_pool_grad (C6): g must have batch, channels, one axis per extent of `size`",
            f"found {g}, size {attrs['size']}, block {attrs['channel_block']}",
        )
        x = TensorType(g.dtype, (*g.shape[:2], *attrs["size"], *lanes))
        win, counts = _geometry(cls, x, attrs)
        _check_cotangent("avg_pool_grad", (*g.shape[:2], *counts, *lanes), g)
        return x, win

    @classmethod
    def evaluate(cls, g: Array, **attrs: Any) -> Array:
        dtype = from_numpy(g.dtype)
        acc = compute_dtype(dtype)
        x, win = cls.windows(TensorType(dtype, g.shape), attrs)
        share = g.astype(acc.np)
        reach: list[int] = []
        for k, size in enumerate(attrs["size"]):
            count = g.shape[2 + k]
            low, high = _counted(win, k, size, attrs["count_include_pad"])
            inside = win.taps_inside(k, sym("at"), low, high)
            along = [1] * g.ndim
            along[2 + k] = count
            taps = np.asarray([evaluate(inside, {"at": at}) for at in range(count)], acc.np)
            share = share / taps.reshape(along)
            reach.append(max(size + win.before[k], (count - 1) * win.strides[k] + win.reach(k)))
        total = np.zeros((*g.shape[:2], *reach, *g.shape[2 + win.rank :]), acc.np)
        for tap in np.ndindex(*win.kernel):
            at = (slice(None), slice(None), *win.slices(tap, g.shape[2 : 2 + win.rank]))
            total[at] += share
        kept = [slice(low, low + e) for low, e in zip(win.before, attrs["size"])]
        return total[(slice(None), slice(None), *kept)].astype(g.dtype)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the input's elements, the windows that cover each as a reduction."""
        (g,) = xs
        x, win = self.windows(g.tensor, self.attributes)
        acc = compute_dtype(x.dtype)
        names = ["n", "c", *[f"p{k}" for k in range(win.rank)]]
        names += ["cb"] if self.channel_block else []
        its: list[Any] = [(name, e, "parallel") for name, e in zip(names, x.shape)]
        covers, windows, taps = self.cover(win, self.size)
        lanes = [sym("cb")] if self.channel_block else []
        count: DimLike = 1
        where: list[DimLike] = []
        for k, extent in enumerate(self.size):
            low, high = _counted(win, k, extent, self.count_include_pad)
            count = count * win.taps_inside(k, windows[k], low, high)
            where += _on_a_tap(win, k, taps[k])

        def term(b: Builder, g: Value) -> Value:
            number = b.emit(IndexValue, value=max_(count, 1), dtype=i64)
            return b.div(as_type(b, g, acc), b.cast(number, to=acc))  # type: ignore[no-any-return]

        summed: dict[str, Any] = {}
        if covers:
            summed = {"init": (0.0,), "combine": add_up, "acc_types": (acc,)}
        return generic(  # type: ignore[no-any-return]
            b,
            [g],
            [*its, *covers],
            [(sym("n"), sym("c"), *windows, *lanes)],
            [tuple([sym(name) for name in names])],
            [x],
            term if covers else lambda b, g: as_type(b, term(b, g), x.dtype),
            fills=(0.0,),
            where=(where,),
            **summed,
        )

    def vjp(self, b: Builder, h: Value | None) -> Grads:
        """The mean of each window: avg_pool itself."""
        given = {k: v for k, v in self.attributes.items() if k != "size"}
        return (b.avg_pool(h, **given),)

    samples: ClassVar[Any] = (
        sample((1, 3, 5, 5), size=(6, 7), kernel=(2, 3)),
        sample((2, 3, 4, 4), size=(7, 7), kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
        sample(
            (2, 3, 4, 4),
            size=(7, 7),
            kernel=(3, 3),
            strides=(2, 2),
            pads=(1, 1, 1, 1),
            count_include_pad=True,
        ),
        sample((1, 2, 8), size=(9,), kernel=(3,), dilations=(2,), pads=(2, 1)),
        sample((1, 2, 3, 4), size=(6, 7), kernel=(3, 2), strides=(2, 2), ceil_mode=True),
        sample(
            (1, 2, 4, 4),
            size=(6, 7),
            kernel=(3, 3),
            strides=(2, 2),
            pads=(1, 1, 1, 1),
            ceil_mode=True,
            count_include_pad=True,
        ),
        sample((1, 2, 2, 2), size=(7, 7), kernel=(2, 2), strides=(3, 4)),
        sample((1, 2, 2), size=(9,), kernel=(2,), dilations=(2,), strides=(4,)),
        sample((1, 1, 2, 3, 4), size=(3, 4, 5), kernel=(2, 2, 2)),
        sample((0, 3, 4, 4), size=(5, 5), kernel=(2, 2)),
        sample((1, 2, 5, 5, 4), size=(5, 5), kernel=(3, 3), pads=(1, 1, 1, 1), channel_block=4),
        sample((1, 3, 5, 5), size=(5, 5), kernel=(2, 2), pads=(1, 1, 0, 0), dtypes=("f16",)),
        sample((1, 3, 4, 4), size=(5, 5), kernel=(2, 2), dtypes=("f64",)),
    )
    rejects: ClassVar[Any] = (
        ("C2", sample((3, 5), size=(), kernel=())),
        ("C3", sample((1, 3, 4, 4), size=(5, 5), kernel=(2,))),
        ("C5", sample((1, 3, 6, 4), size=(5, 5), kernel=(2, 2), pads=(2, 0, 0, 0))),
        ("C4", sample((1, 3, 4, 4), size=(5, 5), kernel=(2, 9))),
        ("C6", sample((1, 3, 4, 4), size=(6, 5), kernel=(2, 2))),
        ("C6", sample((1, 3, 4, 4), size=(5,), kernel=(2,))),
    )


def _on_a_tap(win: Window, axis: int, tap: DimLike) -> list[DimLike]:
    """Guards (each at least 0) that say that this offset into a window is one of its taps."""
    stride, reach, dilation = win.strides[axis], win.reach(axis), win.dilations[axis]
    guards: list[DimLike] = []
    if reach % stride:
        guards.append(reach - 1 - tap)
    if dilation != 1:
        guards.append(-(tap % dilation))
    return guards


__all__ = ["AvgPoolGrad", "MaxPoolGrad"]
