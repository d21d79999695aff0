"""Quantization: `quantize`, `dequantize` and the integer `requantize`.  Types never carry scales.

A parameter (scale, zero point, multiplier, shift) has rank 0, or rank 1 along `axis`, or for
quantize and dequantize with `group` > 0 the rank of x, one element per `group` elements of `axis`.
Imports: the core, types, dims.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import (
    Array,
    Builder,
    Float,
    Grads,
    Int,
    Op,
    Real,
    Value,
    attr,
    operand,
    optional,
    sample,
)
from ..dims import DimLike, ceildiv
from ..types import DType, Shape, TensorType, f32, from_numpy, i32, i64
from .axis import _Axis
from .constraints import axis_of, require, same
from .contract import as_type
from .convert import convert, highest, lowest, widen
from .core import generic, indices, iterators
from .elementwise import constant, widened

ROUNDINGS = ("away", "even", "up")


def _check_parameter(
    op: str, x: TensorType, parameter: TensorType | None, axis: int, group: int, name: str
) -> None:
    """C2: `axis` exists where it is needed.  C3: the parameter fits x."""
    if parameter is None or (parameter.rank == 0 and not group):
        return
    at = axis_of(axis, x.rank, op, "C2")
    want: Shape = (x.shape[at],)
    if group:
        require(group > 0, "E0342", f"{op} (C3): the group is negative", f"found {group}")
        want = (*x.shape[:at], ceildiv(x.shape[at], group), *x.shape[at + 1 :])
    fits = parameter.rank == len(want)
    fits = fits and all([same(a, e) is not False for a, e in zip(parameter.shape, want)])
    require(
        fits,
        "E0342",
        f"{op} (C3): {name} does not fit x, axis {axis} and group {group}",
        f"found {parameter}, x : {x}",
    )


def _parameter_map(
    x: TensorType, parameter: TensorType, at: Sequence[DimLike], axis: int, group: int
) -> list[DimLike]:
    """Where a parameter is read for element `at` of x."""
    if group:
        index = list(at)
        index[axis] = index[axis] // group
        return index
    return [at[axis]] if parameter.rank else []


def _laid_out(parameter: Array, x: Array, axis: int, group: int) -> Array:
    """A parameter broadcast against x."""
    if group:
        spread = np.repeat(parameter, group, axis)
        return np.take(spread, np.arange(x.shape[axis]), axis)
    if parameter.ndim == 0:
        return parameter
    at = axis % x.ndim
    return parameter.reshape([-1 if k == at else 1 for k in range(x.ndim)])


def _pointwise(b: Builder, op: Op, xs: Sequence[Value], axis: int, group: int, body: Any) -> Value:
    """One parallel iterator per axis of x; the parameters behind it are read by their maps."""
    x = xs[0].tensor
    its = iterators("i", x.shape)
    at = indices(its)
    maps = [at, *[_parameter_map(x, p.tensor, at, axis, group) for p in xs[1:]]]
    return generic(b, xs, its, maps, [at], [op.result.tensor], body)  # type: ignore[no-any-return]


class Quantize(_Axis):
    """saturate(round(x / scale) + zero_point) in type `to`, rounding half to even.

    NaN gives 0.  Computed in f32 (f64 for f64).  To a float type (f8, f4) nothing is rounded before
    the conversion, which saturates at the greatest finite value and keeps NaN. C1: scale has x's
    type, zero_point the type `to`, an integer of at most 16 bits; a float `to` has at most 8 and no
    zero_point.  C2: axis < rank(x).  C3: scale and zero_point have rank 0, or x's extent of `axis`,
    or with `group` x's shape with one element per group of that axis.
    """

    x = operand(Float)
    scale = operand(Float)
    zero_point = optional(Real)
    no_gradient = "piecewise constant"
    to = attr(DType)
    axis = attr(int, 0)
    group = attr(int, 0)

    @staticmethod
    def infer(
        x: TensorType,
        scale: TensorType,
        zero_point: TensorType | None = None,
        *,
        to: DType,
        axis: int,
        group: int,
    ) -> TensorType:
        if to.is_float:
            ok = to.bits <= 8 and zero_point is None
        else:
            ok = to.is_integer and to.bits <= 16 and (zero_point is None or zero_point.dtype is to)
        require(
            ok and scale.dtype is x.dtype,
            "E0342",
            "quantize (C1): element types do not fit",
            f"x : {x}   scale : {scale}   zero_point : {zero_point}   to {to}",
        )
        _check_parameter("quantize", x, scale, axis, group, "scale")
        _check_parameter("quantize", x, zero_point, axis, group, "zero_point")
        return TensorType(to, x.shape)

    @staticmethod
    def evaluate(
        x: Array, scale: Array, zero_point: Array | None = None, *, to: DType, axis: int, group: int
    ) -> Array:
        with np.errstate(all="ignore"):
            scaled = np.asarray(widen(x) / _laid_out(widen(scale), x, axis, group))
            if to.is_float:
                return convert(np.clip(scaled, -highest(to), highest(to)), to)
            scaled = np.rint(scaled)
            if zero_point is not None:
                scaled = scaled + _laid_out(widen(zero_point), x, axis, group).astype(scaled.dtype)
            return convert(scaled, to)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Divide, round, add, convert (which saturates)."""
        x = xs[0].tensor
        wide = f32 if x.dtype.bits < 32 else x.dtype
        to = self.to

        def body(b: Builder, x: Value, scale: Value, zero_point: Value | None = None) -> Value:
            scaled = b.div(as_type(b, x, wide), as_type(b, scale, wide))
            if to.is_float:
                top = constant(b, scaled, float(highest(to)))
                bottom = constant(b, scaled, -float(highest(to)))
                return b.cast(b.max(b.min(scaled, top), bottom), to=to)  # type: ignore[no-any-return]
            scaled = b.round_even(scaled)
            if zero_point is not None:
                scaled = b.add(scaled, b.cast(zero_point, to=wide))
            return b.cast(scaled, to=to)  # type: ignore[no-any-return]

        return _pointwise(b, self, _present(xs), self.axis, self.group, body)

    samples: ClassVar[Any] = (
        sample(
            (3, 5),
            (),
            (),
            dtypes=("f32", "f32", "i8"),
            ranges=((-9, 9), (0.05, 0.06), (-5, 5)),
            to=DType("i8"),
        ),
        sample((3, 5), (), dtypes=("f32", "f32"), ranges=((-9, 9), (0.5, 0.6)), to=DType("u8")),
        sample(
            (2, 3, 4),
            (3,),
            (3,),
            dtypes=("f32", "f32", "u8"),
            ranges=((-9, 9), (0.01, 0.1), (0, 255)),
            to=DType("u8"),
            axis=1,
        ),
        sample(
            (3, 7),
            (3, 3),
            (3, 3),
            dtypes=("f32", "f32", "i4"),
            ranges=((-2, 2), (0.1, 0.4), (-2, 2)),
            to=DType("i4"),
            axis=-1,
            group=3,
        ),
        sample(
            (7, 2),
            (2, 2),
            dtypes=("f16", "f16"),
            ranges=((-2, 2), (0.1, 0.4)),
            to=DType("u4"),
            group=4,
        ),
        sample(
            (5,),
            (),
            (),
            dtypes=("f64", "f64", "i16"),
            ranges=((-9, 9), (1e-4, 2e-4), (-5, 5)),
            to=DType("i16"),
        ),
        sample(
            (5,),
            (),
            (),
            dtypes=("bf16", "bf16", "u16"),
            ranges=((-9, 9), (1e-3, 2e-3), (0, 500)),
            to=DType("u16"),
        ),
        sample(
            (9,), (), dtypes=("f32", "f32"), ranges=((-900, 900), (0.5, 1.5)), to=DType("f8e4m3fn")
        ),
        sample(
            (0, 3),
            (3,),
            dtypes=("f32", "f32"),
            ranges=((-9, 9), (0.5, 1.5)),
            to=DType("i8"),
            axis=1,
        ),
        sample((), (), dtypes=("f32", "f32"), ranges=((-9, 9), (0.5, 1.5)), to=DType("i8")),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((3, 5), (), dtypes=("f32", "f64"), to=DType("i8"))),
        ("C1", sample((3, 5), (), (), dtypes=("f32", "f32", "u8"), to=DType("i8"))),
        ("C1", sample((3, 5), (), to=DType("i32"))),
        ("C1", sample((3, 5), (), (), dtypes=("f32", "f32", "f8e5m2"), to=DType("f8e5m2"))),
        ("C2", sample((3, 5), (5,), to=DType("i8"), axis=2)),
        ("C3", sample((3, 5), (5,), to=DType("i8"), axis=0)),
        ("C3", sample((3, 5), (3, 3), to=DType("i8"), axis=1, group=3)),
        ("C3", sample((3, 5), (), (3,), dtypes=("f32", "f32", "i8"), to=DType("i8"), axis=1)),
    )


class Dequantize(_Axis):
    """(x - zero_point) * scale in scale's element type, computed in f32 (f64 for f64).

    The difference is exact for integers of at most 16 bits and wraps in i32 otherwise.
    C1: x is an integer of at most 16 bits, i32, or a float of at most 8 bits without zero_point;
    zero_point has x's type.  C2: axis < rank(x).  C3: as for quantize.
    """

    x = operand(Real)
    scale = operand(Float)
    zero_point = optional(Int)
    axis = attr(int, 0)
    group = attr(int, 0)

    @staticmethod
    def infer(
        x: TensorType,
        scale: TensorType,
        zero_point: TensorType | None = None,
        *,
        axis: int,
        group: int,
    ) -> TensorType:
        if x.dtype.is_float:
            ok = x.dtype.bits <= 8 and zero_point is None
        else:
            ok = x.dtype.bits <= 16 or x.dtype is i32
        require(
            ok and (zero_point is None or zero_point.dtype is x.dtype),
            "E0342",
            "dequantize (C1): element types do not fit",
            f"x : {x}   scale : {scale}   zero_point : {zero_point}",
        )
        _check_parameter("dequantize", x, scale, axis, group, "scale")
        _check_parameter("dequantize", x, zero_point, axis, group, "zero_point")
        return TensorType(scale.dtype, x.shape)

    @staticmethod
    def evaluate(
        x: Array, scale: Array, zero_point: Array | None = None, *, axis: int, group: int
    ) -> Array:
        to = from_numpy(scale.dtype)
        if not from_numpy(x.dtype).is_float:
            wide = np.asarray(widen(x).astype(np.int32))
            if zero_point is not None:
                wide = wide - _laid_out(widen(zero_point).astype(np.int32), x, axis, group)
            x = wide
        factor = _laid_out(widen(scale), x, axis, group)
        return convert(np.asarray(widen(x).astype(factor.dtype) * factor), to)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Subtract in i32, convert, multiply."""
        to = xs[1].tensor.dtype
        wide = f32 if to.bits < 32 else to

        def body(b: Builder, x: Value, scale: Value, zero_point: Value | None = None) -> Value:
            if not xs[0].tensor.dtype.is_float:
                x = as_type(b, x, i32)
                if zero_point is not None:
                    x = b.sub(x, as_type(b, zero_point, i32))
            return as_type(b, b.mul(as_type(b, x, wide), as_type(b, scale, wide)), to)

        return _pointwise(b, self, _present(xs), self.axis, self.group, body)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """That of the scale, and of a float x; integers have none."""
        x, scale, *zero_point = self.operands
        g, wide = widened(b, g, scale)
        ones = b.broadcast_to(constant(b, wide, 1.0), shape=scale.tensor.shape)
        of_scale = b.mul(g, b.dequantize(x, ones, *zero_point, **self.attributes))
        of_scale = self._summed(b, of_scale, scale.tensor.shape)
        rest = [None] * len(zero_point)
        if not x.tensor.dtype.is_float:
            return None, of_scale, *rest
        ones = b.broadcast_to(constant(b, x, 1.0), shape=x.tensor.shape)
        return b.mul(g, b.dequantize(ones, wide, **self.attributes)), of_scale, *rest

    def _summed(self, b: Builder, g: Value, shape: Shape) -> Value:
        """The sum over the elements of x that share a scale; rank 0 is the pass's."""
        axis, given = self.axis, g.tensor.shape
        if self.group:
            whole = shape[axis] * self.group - given[axis]
            pads = [whole if k == axis else 0 for k in range(len(given))]
            g = b.pad(g, low=[0] * len(given), high=pads)
            split = (*shape[: axis + 1], self.group, *shape[axis + 1 :])
            return b.reduce_sum(b.reshape(g, shape=split), axes=(axis + 1,))  # type: ignore[no-any-return]
        if not shape:
            return g
        return b.reduce_sum(g, axes=[k for k in range(len(given)) if k != axis])  # type: ignore[no-any-return]

    samples: ClassVar[Any] = (
        sample(
            (3, 5), (), (), dtypes=("i8", "f32", "i8"), ranges=((-128, 127), (0.05, 0.06), (-5, 5))
        ),
        sample((3, 5), (), dtypes=("u8", "f32"), ranges=((0, 255), (0.5, 0.6))),
        sample(
            (2, 3, 4),
            (3,),
            (3,),
            dtypes=("u8", "f32", "u8"),
            ranges=((0, 255), (0.01, 0.1), (0, 255)),
            axis=1,
        ),
        sample(
            (3, 7),
            (3, 3),
            (3, 3),
            dtypes=("i4", "f16", "i4"),
            ranges=((-8, 7), (0.1, 0.4), (-2, 2)),
            axis=-1,
            group=3,
        ),
        sample((7, 2), (2, 2), dtypes=("u4", "f32"), ranges=((0, 15), (0.1, 0.4)), group=4),
        sample(
            (5,), (), (), dtypes=("i16", "f64", "i16"), ranges=((-999, 999), (1e-4, 2e-4), (-5, 5))
        ),
        sample((5,), (5,), dtypes=("i32", "f32"), ranges=((-99999, 99999), (1e-4, 2e-4))),
        sample((9,), (), dtypes=("f8e4m3fn", "f32"), ranges=((-9, 9), (0.5, 1.5))),
        sample((0, 3), (3,), dtypes=("i8", "bf16"), ranges=((-9, 9), (0.5, 1.5)), axis=1),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((3, 5), (), (), dtypes=("i8", "f32", "u8"))),
        ("C1", sample((3, 5), (), dtypes=("i64", "f32"))),
        ("C2", sample((3, 5), (5,), dtypes=("i8", "f32"), axis=-3)),
        ("C3", sample((3, 5), (5,), dtypes=("i8", "f32"), axis=0)),
    )


class Requantize(_Axis):
    """saturate(round(x * multiplier / 2**shift) + zero_point) in integer type `to`.

    The product is exact in i64.      `rounding` says where a half goes: "away" from zero, to
    "even", or "up" (toward plus infinity). Multipliers are 0 to 2**31 - 1, shifts 1 to 62: others
    have no stated result. C1: x, multiplier and shift are i32, `to` is an integer of at most 16
    bits, zero_point has type `to`, `rounding` is known.  C2: axis < rank(x).  C3: the parameters
    have rank 0, or x's extent of `axis`.
    """

    no_gradient = "integers"
    x = operand(Int)
    multiplier = operand(Int)
    shift = operand(Int)
    zero_point = optional(Int)
    to = attr(DType)
    axis = attr(int, 0)
    rounding = attr(str, "away")

    @staticmethod
    def infer(
        x: TensorType,
        multiplier: TensorType,
        shift: TensorType,
        zero_point: TensorType | None = None,
        *,
        to: DType,
        axis: int,
        rounding: str,
    ) -> TensorType:
        ok = x.dtype is multiplier.dtype is shift.dtype is i32 and to.is_integer and to.bits <= 16
        ok = ok and (zero_point is None or zero_point.dtype is to) and rounding in ROUNDINGS
        require(
            ok,
            "E0342",
            "requantize (C1): element types or rounding do not fit",
            f"x : {x}   multiplier : {multiplier}   shift : {shift}",
            f"zero_point : {zero_point}   to {to}",
            f"rounding {rounding}, known: {', '.join(ROUNDINGS)}",
        )
        for name, parameter in (
            ("multiplier", multiplier),
            ("shift", shift),
            ("zero_point", zero_point),
        ):
            _check_parameter("requantize", x, parameter, axis, 0, name)
        return TensorType(to, x.shape)

    @staticmethod
    def evaluate(
        x: Array,
        multiplier: Array,
        shift: Array,
        zero_point: Array | None = None,
        *,
        to: DType,
        axis: int,
        rounding: str,
    ) -> Array:
        by = _laid_out(shift, x, axis, 0).astype(np.int64)
        product = x.astype(np.int64) * _laid_out(multiplier, x, axis, 0)
        half = np.int64(1) << (by - 1)
        if rounding == "up":
            total = (product + half) >> by
        elif rounding == "away":
            total = np.sign(product) * ((np.abs(product) + half) >> by)
        else:
            total = product >> by
            rest = product - (total << by)
            total = total + ((rest > half) | ((rest == half) & (total % 2 == 1)))
        if zero_point is not None:
            total = total + _laid_out(widen(zero_point), x, axis, 0).astype(np.int64)
        return np.asarray(np.clip(total, lowest(to), highest(to)), np.int64).astype(to.np)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """All in i64: multiply, round, shift, add, clamp."""
        to, rounding = self.to, self.rounding

        def body(
            b: Builder, x: Value, m: Value, shift: Value, zero_point: Value | None = None
        ) -> Value:
            product = b.mul(b.cast(x, to=i64), b.cast(m, to=i64))
            total = _rounded(b, product, b.cast(shift, to=i64), rounding)
            if zero_point is not None:
                total = b.add(total, b.cast(zero_point, to=i64))
            bottom, top = constant(b, total, lowest(to)), constant(b, total, highest(to))
            return b.cast(b.max(b.min(total, top), bottom), to=to)  # type: ignore[no-any-return]

        return _pointwise(b, self, _present(xs), self.axis, 0, body)

    samples: ClassVar[Any] = tuple(
        [
            sample(
                (3, 5),
                *shapes,
                dtypes=("i32", "i32", "i32", to),
                ranges=((-(2**20), 2**20), (2**20, 2**31 - 1), (36, 44), (0, 5)),
                to=DType(to),
                axis=1,
                rounding=how,
            )
            for shapes, to, how in (
                (((), (), ()), "i8", "away"),
                (((5,), (5,), ()), "u8", "even"),
                (((5,), (), (5,)), "i16", "up"),
                (((), (5,), ()), "i4", "even"),
                (((), (), ()), "u4", "up"),
                (((), (), ()), "u16", "away"),
            )
        ]
    ) + (
        sample(
            (9, 3),
            (),
            (),
            dtypes=("i32",) * 3,
            ranges=((-40, 40), (1, 3), (2, 3)),
            to=DType("i8"),
            rounding="even",
        ),
        sample(
            (9, 3), (), (), dtypes=("i32",) * 3, ranges=((-40, 40), (1, 3), (2, 3)), to=DType("i8")
        ),
        sample(
            (9, 3),
            (),
            (),
            dtypes=("i32",) * 3,
            ranges=((-40, 40), (1, 3), (2, 3)),
            to=DType("i8"),
            rounding="up",
        ),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((3, 5), (), (), dtypes=("i64", "i32", "i32"), to=DType("i8"))),
        ("C1", sample((3, 5), (), (), dtypes=("i32",) * 3, to=DType("i8"), rounding="down")),
        ("C2", sample((3, 5), (5,), (), dtypes=("i32",) * 3, to=DType("i8"), axis=2)),
        ("C3", sample((3, 5), (3,), (), dtypes=("i32",) * 3, to=DType("i8"), axis=1)),
    )


def _rounded(b: Builder, product: Value, shift: Value, rounding: str) -> Value:
    """product / 2**shift rounded, on i64 scalars."""
    zero, one = constant(b, product, 0), constant(b, product, 1)
    half = b.shift_left(one, b.sub(shift, one))
    if rounding == "up":
        return b.shift_right(b.add(product, half), shift)  # type: ignore[no-any-return]
    if rounding == "away":
        size = b.shift_right(b.add(b.abs(product), half), shift)
        return b.where(b.lt(product, zero), b.neg(size), size)  # type: ignore[no-any-return]
    floor = b.shift_right(product, shift)
    rest = b.sub(product, b.shift_left(floor, shift))
    odd = b.eq(b.bitwise_and(floor, one), one)
    upward = b.logical_or(b.gt(rest, half), b.logical_and(b.eq(rest, half), odd))
    return b.where(upward, b.add(floor, one), floor)  # type: ignore[no-any-return]


def _present(xs: Sequence[Value | None]) -> list[Value]:
    return [x for x in xs if x is not None]


__all__ = ["ROUNDINGS", "Dequantize", "Quantize", "Requantize"]
