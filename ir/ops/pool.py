"""Pooling over any number of spatial axes; global pooling is a reduction.

With `channel_block` the operand has a trailing axis of channel lanes, which pooling leaves alone.
Imports: the core, types, dims, windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Grads, Op, Real, Value, attr, operand, sample
from ..dims import DimLike, evaluate, max_, sym
from ..types import Shape, TensorType, element, f32, from_numpy, i64
from .constraints import require
from .contract import add_up, as_type
from .convert import highest, lowest, round_float, widen
from .core import generic
from .elementwise import constant
from .loop import IndexValue
from .window import Window, window, windows_of

Names = tuple[list[DimLike], list[DimLike]]


class _Pool(Op):
    """Base: windows over the axes after batch and channels.

    C2: x has batch, channel and at least one spatial axis (then the lanes of the channel block).
    C3: one kernel extent per spatial axis; strides, dilations (>= 1) and pads (>= 0) fit their
    number. C4: the kernel fits the padded input.  C5: no pad is as wide as the kernel's reach.
    """

    x = operand(Real)
    kernel = attr(tuple)
    strides = attr(tuple, ())
    pads = attr(tuple, ())
    dilations = attr(tuple, ())
    ceil_mode = attr(bool, False)
    channel_block = attr(int, 0)

    @classmethod
    def geometry(cls, x: TensorType, attrs: dict[str, Any]) -> tuple[Window, tuple[DimLike, ...]]:
        """The window and how many there are per spatial axis; checks C2 to C5."""
        op = cls.name
        block = attrs["channel_block"]
        lanes = 1 if block else 0
        rank = x.rank - 2 - lanes
        require(
            rank >= 1 and (not block or x.shape[-1] == block),
            "E0316",
            f"{op} (C2): x must have batch, channels, spatial axes, and the channel block last",
            f"found {x}, block {block}",
        )
        require(
            len(attrs["kernel"]) == rank,
            "E0315",
            f"{op} (C3): {rank} spatial axes, kernel {attrs['kernel']}",
            f"x : {x}",
        )
        win = window(op, attrs["kernel"], attrs["strides"], attrs["pads"], attrs["dilations"])
        counts = windows_of(op, x.shape[2 : 2 + rank], win, attrs["ceil_mode"])
        for k in range(rank):
            require(
                max(win.before[k], win.after[k]) < win.reach(k),
                "E0315",
                f"{op} (C5): a pad is as wide as the kernel",
                f"spatial axis {k}",
                f"pads {win.before[k]} and {win.after[k]}, kernel spans {win.reach(k)}",
            )
        return win, counts

    @classmethod
    def infer(cls, x: TensorType, **attrs: Any) -> TensorType:
        _, counts = cls.geometry(x, attrs)
        lanes = (attrs["channel_block"],) if attrs["channel_block"] else ()
        return TensorType(x.dtype, (*x.shape[:2], *counts, *lanes))

    def nest(self, x: TensorType) -> tuple[Window, list[Any], Names, tuple[DimLike, ...]]:
        """(window, iterators, (window, tap) symbols, the index of the result)."""
        win, _ = self.geometry(x, self.attributes)
        out = self.result.tensor
        names = [
            "n",
            "c",
            *[f"s{k}" for k in range(win.rank)],
            *(["cb"] if self.channel_block else []),
        ]
        its: list[Any] = [(name, e, "parallel") for name, e in zip(names, out.shape)]
        its += [(f"k{k}", extent, "reduction") for k, extent in enumerate(win.kernel)]
        at: list[DimLike] = [sym(f"s{k}") for k in range(win.rank)]
        taps: list[DimLike] = [sym(f"k{k}") for k in range(win.rank)]
        return win, its, (at, taps), tuple([sym(name) for name in names])

    def source(self, win: Window, names: Names) -> tuple[DimLike, ...]:
        """Where x is read."""
        places = [win.position(k, names[0][k], names[1][k]) for k in range(win.rank)]
        return (sym("n"), sym("c"), *places, *([sym("cb")] if self.channel_block else []))


class MaxPool(_Pool):
    """The greatest element of each window; pads do not take part, NaN wins.

    C2 to C5 as for all pools.
    """

    @classmethod
    def evaluate(cls, x: Array, **attrs: Any) -> Array:
        low = lowest(from_numpy(x.dtype))
        return _fold(cls, x, attrs, low, np.maximum, x.dtype).astype(x.dtype)

    def vjp(self, b: Builder, g: Value | None) -> Grads:
        """Each cotangent to the first greatest element of its window."""
        return (b.max_pool_grad(self.x, g, **self.attributes),)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Parallel n, c, s0.. (and the lane cb), reductions k0..; outside x is the lowest value."""
        x = xs[0].tensor
        win, its, names, at = self.nest(x)
        low = lowest(x.dtype)
        return generic(  # type: ignore[no-any-return]
            b,
            xs,
            its,
            [self.source(win, names)],
            [at],
            [self.result.tensor],
            lambda b, x: x,
            init=(low,),
            combine=lambda b, acc, x: b.max(acc, x),
            fills=(low,),
        )

    samples = (
        sample((1, 3, 6, 7), kernel=(2, 3)),
        sample((2, 3, 7, 7), kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
        sample((1, 2, 9), kernel=(3,), dilations=(2,), pads=(2, 1)),
        sample((1, 2, 6, 7), kernel=(3, 2), strides=(2, 2), ceil_mode=True),
        sample((1, 1, 3, 4, 5), kernel=(2, 2, 2)),
        sample((1, 3, 1, 1), kernel=(1, 1)),
        sample((0, 3, 5, 5), kernel=(2, 2)),
        sample((1, 2, 5, 5, 4), kernel=(3, 3), pads=(1, 1, 1, 1), channel_block=4),
        sample((1, 3, 5, 5), kernel=(2, 2), dtypes=("u8",), ranges=((0, 255),)),
        sample(
            (1, 3, 5, 5), kernel=(2, 2), pads=(1, 1, 0, 0), dtypes=("i8",), ranges=((-128, 127),)
        ),
        sample((1, 3, 5, 5), kernel=(2, 2), pads=(1, 1, 0, 0), dtypes=("bf16",)),
        sample((1, 3, 5, 5), kernel=(2, 2), dtypes=("f64",)),
    )
    rejects: ClassVar[Sequence[tuple[str, Any]]] = (
        ("C2", sample((3, 5), kernel=())),
        ("C2", sample((1, 3, 5, 5), kernel=(2,), channel_block=4)),
        ("C3", sample((1, 3, 5, 5), kernel=(2,))),
        ("C3", sample((1, 3, 5, 5), kernel=(2, 0))),
        ("C4", sample((1, 3, 5, 5), kernel=(2, 9))),
        ("C5", sample((1, 3, 5, 5), kernel=(2, 2), pads=(2, 0, 0, 0))),
    )


class AvgPool(_Pool):
    """The mean of each window.

    The sum is divided by the number of elements inside x, with `count_include_pad` inside x and its
    pads (a partial last window under `ceil_mode` reaches further: that does not count).

    f8, f16 and bf16 are summed in f32.    C2 to C5 as for all pools.
    """

    x = operand(Float)
    count_include_pad = attr(bool, False)

    @classmethod
    def infer(cls, x: TensorType, **attrs: Any) -> TensorType:
        return super().infer(x, **attrs)

    @classmethod
    def evaluate(cls, x: Array, **attrs: Any) -> Array:
        dtype = from_numpy(x.dtype)
        acc = f32 if dtype.bits < 32 else dtype
        total = _fold(cls, x, attrs, 0.0, np.add, acc.np)
        win, counts = cls.geometry(TensorType(dtype, x.shape), attrs)
        taps: Array = np.ones((), np.int64)
        for k, count in enumerate(counts):
            low, high = _counted(win, k, x.shape[2 + k], attrs["count_include_pad"])
            inside = win.taps_inside(k, sym("at"), low, high)
            along = [1] * x.ndim
            along[2 + k] = int(count)  # type: ignore[arg-type]
            found = [evaluate(inside, {"at": at}) for at in range(along[2 + k])]
            taps = taps * np.asarray(found, np.int64).reshape(along)
        return np.asarray(total / taps.astype(acc.np)).astype(x.dtype)

    def vjp(self, b: Builder, g: Value | None) -> Grads:
        """Each cotangent in equal shares to the elements of its window."""
        win, _ = self.geometry(self.x.tensor, self.attributes)
        size = self.x.tensor.shape[2 : 2 + win.rank]
        return (b.avg_pool_grad(g, size=size, **self.attributes),)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """As max_pool; the end divides by the number of counted taps, an expression of s0..."""
        x = xs[0].tensor
        acc = f32 if x.dtype.bits < 32 else x.dtype
        win, its, names, at = self.nest(x)
        taps: DimLike = 1
        for k in range(win.rank):
            low, high = _counted(win, k, x.shape[2 + k], self.count_include_pad)
            taps = taps * win.taps_inside(k, names[0][k], low, high)

        def divide(b: Builder, total: Value) -> Value:
            count = b.cast(b.emit(IndexValue, value=taps, dtype=i64), to=acc)
            return as_type(b, b.div(total, count), x.dtype)

        return generic(  # type: ignore[no-any-return]
            b,
            xs,
            its,
            [self.source(win, names)],
            [at],
            [self.result.tensor],
            lambda b, x: as_type(b, x, acc),
            init=(0.0,),
            combine=add_up,
            finish=divide,
            fills=(0.0,),
        )

    samples = (
        sample((1, 3, 6, 7), kernel=(2, 3)),
        sample((2, 3, 7, 7), kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
        sample(
            (2, 3, 7, 7), kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), count_include_pad=True
        ),
        sample((1, 2, 9), kernel=(3,), dilations=(2,), pads=(2, 1)),
        sample((1, 2, 6, 7), kernel=(3, 2), strides=(2, 2), ceil_mode=True),
        sample(
            (1, 2, 6, 7),
            kernel=(3, 3),
            strides=(2, 2),
            pads=(1, 1, 1, 1),
            ceil_mode=True,
            count_include_pad=True,
        ),
        sample((1, 1, 3, 4, 5), kernel=(2, 2, 2)),
        sample((0, 3, 5, 5), kernel=(2, 2)),
        sample((1, 2, 5, 5, 4), kernel=(3, 3), pads=(1, 1, 1, 1), channel_block=4),
        sample((1, 3, 5, 5), kernel=(2, 2), pads=(1, 1, 0, 0), dtypes=("f16",)),
        sample((1, 3, 5, 5), kernel=(2, 2), dtypes=("f64",)),
    )
    rejects: ClassVar[Sequence[tuple[str, Any]]] = MaxPool.rejects


class MaxPoolIndices(_Pool):
    """Where max_pool finds the greatest element of each window: its position in x laid flat, i64.

    The first of equals; a NaN counts as the greatest.  With `column_major` the spatial axes of x
    are laid flat from the last to the first.  C2 to C5 as for all pools.
    """

    no_gradient: ClassVar[str] = "integer result"
    column_major = attr(bool, False)

    @classmethod
    def infer(cls, x: TensorType, **attrs: Any) -> TensorType:
        return TensorType(i64, super().infer(x, **attrs).shape)

    @classmethod
    def evaluate(cls, x: Array, **attrs: Any) -> Array:
        geometry = cls.geometry(TensorType(from_numpy(x.dtype), x.shape), attrs)
        return max_indices(x, geometry, attrs["column_major"])

    def generic(self, b: Builder, *xs: Value) -> Value:
        """As max_pool, with pairs (value, position); ties go by position."""
        x = xs[0].tensor
        win, its, names, at = self.nest(x)
        size = x.shape[2 : 2 + win.rank]
        places = [win.position(k, names[0][k], names[1][k]) for k in range(win.rank)]
        flat: DimLike = 0
        for place, extent in zip(places, size):
            flat = flat * extent + place
        outside: DimLike = 0
        for place, extent in zip(places, size):
            outside = max_(outside, -place, place - extent + 1)

        def term(b: Builder, x: Value) -> tuple[Value, Value]:
            here = b.emit(IndexValue, value=flat, dtype=i64)
            beyond = b.emit(IndexValue, value=outside, dtype=i64)
            inside = b.eq(beyond, constant(b, beyond, 0))
            return x, b.where(inside, here, constant(b, here, highest(i64)))

        def finish(b: Builder, best: Value, found: Value) -> Value:
            return self.laid_flat(b, found, x, size)

        return generic(  # type: ignore[no-any-return]
            b,
            xs,
            its,
            [self.source(win, names)],
            [at],
            [self.result.tensor],
            term,
            init=(lowest(x.dtype), highest(i64)),
            combine=_first_greatest,
            acc_types=(x.dtype, i64),
            finish=finish,
            fills=(lowest(x.dtype),),
        )

    def laid_flat(self, b: Builder, found: Value, x: TensorType, size: Shape) -> Value:
        """The position in all of x, from that in the plane."""

        def index(value: DimLike) -> Value:
            return b.emit(IndexValue, value=value, dtype=i64)  # type: ignore[no-any-return]

        if self.column_major:
            rest, total, step = found, index(0), math.prod(size)
            for extent in reversed(size):
                step = step // extent
                total = b.add(total, b.mul(b.rem(rest, index(extent)), index(step)))
                rest = b.div(rest, index(extent))
            found = total
        lanes = self.channel_block or 1
        plane = (sym("n") * x.shape[1] + sym("c")) * math.prod(size)
        found = b.add(found, index(plane))
        if lanes != 1:
            found = b.add(b.mul(found, index(lanes)), index(sym("cb")))
        return found

    samples = (
        sample((1, 3, 6, 7), kernel=(2, 3)),
        sample((2, 3, 7, 7), kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
        sample((2, 3, 5, 7), kernel=(3, 3), pads=(1, 1, 1, 1), column_major=True),
        sample((1, 2, 9), kernel=(3,), dilations=(2,), pads=(2, 1)),
        sample((1, 2, 6, 7), kernel=(3, 2), strides=(2, 2), ceil_mode=True),
        sample((1, 1, 3, 4, 5), kernel=(2, 2, 2), column_major=True),
        sample((0, 3, 5, 5), kernel=(2, 2)),
        sample((1, 2, 5, 5, 4), kernel=(3, 3), pads=(1, 1, 1, 1), channel_block=4),
        sample((1, 3, 5, 5), kernel=(2, 2), pads=(1, 1, 0, 0), dtypes=("u8",), ranges=((0, 2),)),
        sample((1, 3, 5, 5), kernel=(2, 2), pads=(1, 1, 0, 0), dtypes=("bf16",)),
        sample((1, 3, 5, 5), kernel=(2, 2), dtypes=("f64",)),
    )
    rejects: ClassVar[Sequence[tuple[str, Any]]] = MaxPool.rejects


def max_indices(
    x: Array, geometry: tuple[Window, tuple[DimLike, ...]], column_major: bool = False
) -> Array:
    """Per window of x (and per lane) the first greatest element's position in all of x, flat."""
    win, counts = geometry
    count = [int(c) for c in counts]  # type: ignore[arg-type]
    size, lanes = x.shape[2 : 2 + win.rank], x.shape[2 + win.rank :]
    place = np.arange(math.prod(size)).reshape(1, 1, *size, *[1] * len(lanes))
    wide = widen(x)
    low = lowest(from_numpy(wide.dtype))
    best = np.full((*x.shape[:2], *count, *lanes), low, wide.dtype)
    found = np.full(best.shape, highest(i64))
    values, places = _padded(wide, win, count, low), _padded(place, win, count, highest(i64))
    for tap in np.ndindex(*win.kernel):
        at = (slice(None), slice(None), *win.slices(tap, count))
        part, here = values[at], places[at]
        number, best_number = part == part, best == best
        wins = (part > best) | (~number & best_number)
        ties = (part == best) | ~(number | best_number)
        takes = wins | ties & (here < found)
        best, found = np.where(takes, part, best), np.where(takes, here, found)
    if column_major:
        found = place.reshape(size).transpose().reshape(-1).argsort()[found]
    planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * win.rank)
    lane = np.arange(math.prod(lanes)) if lanes else 0
    base = planes.reshape(*planes.shape, *[1] * len(lanes)) * math.prod(size)
    return np.asarray((base + found) * math.prod(lanes) + lane)


def _first_greatest(
    b: Builder, best: Value, at: Value, new: Value, here: Value
) -> tuple[Value, Value]:
    """The greater of two (value, position) pairs; of equals, NaN among them, the lower position."""
    wins, ties = b.gt(new, best), b.eq(new, best)
    if element(new.type).is_float:
        new_nan, best_nan = b.ne(new, new), b.ne(best, best)
        wins = b.logical_or(wins, b.logical_and(new_nan, b.logical_not(best_nan)))
        ties = b.logical_or(ties, b.logical_and(new_nan, best_nan))
    takes = b.logical_or(wins, b.logical_and(ties, b.lt(here, at)))
    return b.where(takes, new, best), b.where(takes, here, at)


class LpPool(_Pool):
    """The p-norm of each window: the sum of abs(x)**p, to the power 1/p; pads do not take part.

    f8, f16 and bf16 are summed in f32.  C1: p is at least 1.  C2 to C5 as for all pools.
    """

    x = operand(Float)
    p = attr(int, 2)

    @classmethod
    def infer(cls, x: TensorType, **attrs: Any) -> TensorType:
        require(attrs["p"] >= 1, "E0315", f"lp_pool (C1): p is {attrs['p']}, not at least 1")
        return super().infer(x, **attrs)

    @classmethod
    def evaluate(cls, x: Array, **attrs: Any) -> Array:
        p = attrs["p"]
        powers = np.abs(widen(x).astype(np.float64)) ** p
        total = _fold(cls, powers, attrs, 0.0, np.add, np.float64)
        return round_float(total ** (1 / p), from_numpy(x.dtype))

    def vjp(self, b: Builder, g: Value | None) -> Grads:
        """sign(x) * abs(x)**(p-1) * the sum of g * y**(1-p) over the windows of an element.

        The sum is what avg_pool's gradient gives when every window counts all its taps.
        """
        x, y, p = self.x, self.result, self.p
        win, counts = self.geometry(x.tensor, self.attributes)
        size = x.tensor.shape[2 : 2 + win.rank]
        whole = _whole_windows(win, size, counts)
        given = {k: self.attributes[k] for k in ("kernel", "strides", "dilations")}
        block = self.channel_block
        if p == 1:
            slope, part = b.sign(x), g
        else:
            zero = constant(b, y, 0.0)
            power = b.pow(b.where(b.eq(y, zero), constant(b, y, 1.0), y), constant(b, y, 1 - p))
            part = b.where(b.eq(y, zero), zero, b.mul(g, power))
            steep = b.abs(x) if p == 2 else b.pow(b.abs(x), constant(b, x, p - 1))
            slope = x if p == 2 else b.mul(b.sign(x), steep)
        share = b.avg_pool_grad(part, size=size, pads=whole, count_include_pad=True,
                                channel_block=block, **given)  # fmt: skip
        taps = constant(b, share, float(math.prod(win.kernel)))
        return (b.mul(slope, b.mul(share, taps)),)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """As max_pool, summing powers; the end takes the root."""
        x, p = xs[0].tensor, self.p
        acc = f32 if x.dtype.bits < 32 else x.dtype
        win, its, names, at = self.nest(x)

        def power(b: Builder, x: Value) -> Value:
            wide = b.abs(as_type(b, x, acc))
            if p <= 2:
                return wide if p == 1 else b.mul(wide, wide)  # type: ignore[no-any-return]
            return b.pow(wide, constant(b, wide, p))  # type: ignore[no-any-return]

        def root(b: Builder, total: Value) -> Value:
            if p == 2:
                total = b.sqrt(total)
            elif p > 2:
                total = b.pow(total, constant(b, total, 1 / p))
            return as_type(b, total, x.dtype)

        return generic(  # type: ignore[no-any-return]
            b,
            xs,
            its,
            [self.source(win, names)],
            [at],
            [self.result.tensor],
            power,
            init=(0.0,),
            combine=add_up,
            finish=root,
            fills=(0.0,),
        )

    samples = (
        sample((1, 3, 6, 7), kernel=(2, 3)),
        sample((2, 3, 7, 7), kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), p=1),
        sample((1, 2, 9), kernel=(3,), dilations=(2,), pads=(2, 1), p=3),
        sample((1, 2, 6, 7), kernel=(3, 2), strides=(2, 2), ceil_mode=True),
        sample((1, 1, 3, 4, 5), kernel=(2, 2, 2)),
        sample((0, 3, 5, 5), kernel=(2, 2)),
        sample((1, 2, 5, 5, 4), kernel=(3, 3), pads=(1, 1, 1, 1), channel_block=4),
        sample((1, 3, 5, 5), kernel=(2, 2), pads=(1, 1, 0, 0), dtypes=("f16",)),
        sample((1, 3, 5, 5), kernel=(2, 2), dtypes=("f64",)),
    )
    rejects: ClassVar[Sequence[tuple[str, Any]]] = (
        ("C1", sample((1, 3, 5, 5), kernel=(2, 2), p=0)),
        *MaxPool.rejects,
    )


def _whole_windows(win: Window, size: Shape, counts: Sequence[DimLike]) -> tuple[int, ...]:
    """The pads that make every window whole: those of the pool, and what `ceil_mode` reaches."""
    after: list[int] = []
    for k, (extent, count) in enumerate(zip(size, counts)):
        more = (count - 1) * win.strides[k] + win.reach(k) - win.before[k] - extent
        after.append(max(win.after[k], more) if isinstance(more, int) and count != 0
                     else win.after[k])  # fmt: skip
    return (*win.before, *after)


def _counted(win: Window, axis: int, size: DimLike, pads: bool) -> tuple[int, DimLike]:
    """The positions (from, to) whose taps count in an average."""
    if pads:
        return -win.before[axis], size + win.after[axis]
    return 0, size


def _fold(
    cls: type[_Pool],
    x: Array,
    attrs: dict[str, Any],
    start: int | float,
    combine: Callable[[Array, Array], Array],
    dtype: Any,
) -> Array:
    """All windows of x folded with `combine`, one tap at a time."""
    win, counts = cls.geometry(TensorType(from_numpy(x.dtype), x.shape), attrs)
    count = [int(c) for c in counts]  # type: ignore[arg-type]
    padded = _padded(x.astype(dtype), win, count, start)
    lanes = x.shape[2 + win.rank :]
    total = np.full((*x.shape[:2], *count, *lanes), np.asarray(start).astype(dtype), dtype)
    for tap in np.ndindex(*win.kernel):
        part = (slice(None), slice(None), *win.slices(tap, count))
        total = combine(total, padded[part])
    return total


def _padded(x: Array, win: Window, count: Sequence[int], fill: float | int) -> Array:
    """x with all that its windows reach, `fill` outside."""
    reach = [
        max(0, (c - 1) * s + win.reach(k) - size - win.before[k])
        for k, (c, s, size) in enumerate(zip(count, win.strides, x.shape[2:]))
    ]
    tail = [(0, 0)] * (x.ndim - 2 - win.rank)
    pad = [(0, 0), (0, 0), *zip(win.before, reach), *tail]
    return np.pad(x, pad, constant_values=np.asarray(fill).astype(x.dtype))


__all__ = ["AvgPool", "LpPool", "MaxPool", "MaxPoolIndices", "max_indices"]
