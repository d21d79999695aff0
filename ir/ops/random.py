"""Random numbers from an explicit counter: Philox4x32-10 (Salmon et al. 2011).

The state is a key u32[2] and a counter u32[4], least significant word first; who draws advances the
counter by `philox_next`.  Equal state gives equal bits on every target.
Imports: the core, types, dims.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Int, Op, Value, attr, operand, sample
from ..dims import DimLike, ceildiv
from ..types import DType, Shape, TensorType, dense_strides, f32, f64, i64, u32, u64
from .constraints import require
from .contract import as_type
from .core import generic, indices, iterators
from .elementwise import constant
from .loop import IndexValue

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORD = 0xFFFFFFFF


def philox(counter: Sequence[Array], key: tuple[int, int]) -> list[Array]:
    """The four words of each 128-bit counter (four u64 arrays of 32-bit words) under the key."""
    c = [np.asarray(word, np.uint64) for word in counter]
    k = list(key)
    for _ in range(ROUNDS):
        first, second = c[0] * np.uint64(MULTIPLIERS[0]), c[2] * np.uint64(MULTIPLIERS[1])
        c = [
            (second >> np.uint64(32)) ^ c[1] ^ np.uint64(k[0]),
            second & np.uint64(WORD),
            (first >> np.uint64(32)) ^ c[3] ^ np.uint64(k[1]),
            first & np.uint64(WORD),
        ]
        k = [(word + step) & WORD for word, step in zip(k, WEYL)]
    return c


def _check_state(op: str, key: TensorType | None, counter: TensorType) -> None:
    """C1: the state's types."""
    ok = (key is None or key is TensorType(u32, (2,))) and counter is TensorType(u32, (4,))
    require(
        ok,
        "E0343",
        f"{op} (C1): the key must be u32[2], the counter u32[4]",
        f"found {key}, {counter}",
    )


class PhiloxBits(Op):
    """Random u32 of `shape`: element n in row-major order is word n % 4 of block n // 4.

    Block k is Philox of counter + k.

    C1: key is u32[2], counter u32[4].
    """

    no_gradient = "integers"
    key = operand(Int)
    counter = operand(Int)
    shape = attr(tuple)

    @staticmethod
    def infer(key: TensorType, counter: TensorType, shape: Shape) -> TensorType:
        _check_state("philox_bits", key, counter)
        return TensorType(u32, shape)

    @staticmethod
    def evaluate(key: Array, counter: Array, shape: tuple[int, ...]) -> Array:
        blocks = math.prod(shape) + 3 >> 2
        carry = np.arange(blocks, dtype=np.uint64)
        words = []
        for word in counter:
            total = carry + np.uint64(word)
            words.append(total & np.uint64(WORD))
            carry = total >> np.uint64(32)
        made = np.stack(philox(words, (int(key[0]), int(key[1]))), axis=-1).astype(np.uint32)
        return made.reshape(-1)[: math.prod(shape)].reshape(shape)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the result; each element computes its block and picks its word."""
        key, counter = xs
        its = iterators("i", self.shape)
        at = indices(its)
        flat: DimLike = 0
        for index, stride in zip(at, dense_strides(self.shape)):
            flat = flat + index * stride
        maps = [(0,), (1,), (0,), (1,), (2,), (3,)]

        def body(b: Builder, k0: Value, k1: Value, *words: Value) -> Value:
            block = b.cast(b.emit(IndexValue, value=flat // 4, dtype=i64), to=u64)
            lane = b.emit(IndexValue, value=flat % 4, dtype=i64)
            made = _rounds(b, _advanced(b, words, block), [k0, k1])
            picked = made[3]
            for k in (2, 1, 0):
                picked = b.where(b.eq(lane, constant(b, lane, k)), made[k], picked)
            return picked

        operands = [key, key, *[counter] * 4]
        return generic(b, operands, its, maps, [at], [self.result.tensor], body)  # type: ignore[no-any-return]

    samples: ClassVar[Any] = tuple(
        [
            sample((2,), (4,), dtypes=("u32", "u32"), ranges=((0, 2**31), (0, 2**31)), shape=shape)
            for shape in ((), (1,), (4,), (3, 7), (0, 2), (2, 3, 5))
        ]
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((2,), (2,), dtypes=("u32", "u32"), shape=(3,))),
        ("C1", sample((2,), (4,), dtypes=("u32", "u64"), shape=(3,))),
    )


def _advanced(b: Builder, words: Sequence[Value], step: Value) -> list[Value]:
    """The 128-bit counter plus a u64 scalar, as four u32 scalars."""
    low, shift = constant(b, step, WORD), constant(b, step, 32)
    first = b.add(b.bitwise_and(step, low), b.cast(words[0], to=u64))
    second = b.add(
        b.add(b.shift_right(step, shift), b.shift_right(first, shift)), b.cast(words[1], to=u64)
    )
    third = b.add(b.shift_right(second, shift), b.cast(words[2], to=u64))
    fourth = b.add(b.shift_right(third, shift), b.cast(words[3], to=u64))
    return [b.cast(word, to=u32) for word in (first, second, third, fourth)]


def _rounds(b: Builder, words: list[Value], key: list[Value]) -> list[Value]:
    """Ten rounds on u32 scalars; the high half of a product comes from u64."""
    shift = constant(b, words[0], 32, u64)
    factors = [constant(b, words[0], m, u64) for m in MULTIPLIERS]
    steps = [constant(b, words[0], w) for w in WEYL]
    for round_ in range(ROUNDS):
        if round_:
            key = [b.add(word, step) for word, step in zip(key, steps)]
        products = [
            b.mul(b.cast(words[k], to=u64), m) for k, m in ((0, factors[0]), (2, factors[1]))
        ]
        high = [b.cast(b.shift_right(p, shift), to=u32) for p in products]
        low = [b.cast(p, to=u32) for p in products]
        words = [
            b.bitwise_xor(b.bitwise_xor(high[1], words[1]), key[0]),
            low[1],
            b.bitwise_xor(b.bitwise_xor(high[0], words[3]), key[1]),
            low[0],
        ]
    return words


class PhiloxNext(Op):
    """The counter after drawing `count` words: plus ceil(count / 4).  C1: counter is u32[4]."""

    no_gradient = "integers"
    counter = operand(Int)
    count = attr(object)

    @staticmethod
    def infer(counter: TensorType, count: DimLike) -> TensorType:
        _check_state("philox_next", None, counter)
        return counter

    @staticmethod
    def evaluate(counter: Array, count: int) -> Array:
        whole = sum(int(word) << (32 * k) for k, word in enumerate(counter)) + (count + 3 >> 2)
        return np.asarray([(whole >> (32 * k)) & WORD for k in range(4)], np.uint32)

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Over the four words; each adds and picks its own."""
        its = iterators("i", (4,))
        at = indices(its)

        def body(b: Builder, *words: Value) -> Value:
            step = b.cast(b.emit(IndexValue, value=ceildiv(self.count, 4), dtype=i64), to=u64)
            lane = b.emit(IndexValue, value=at[0], dtype=i64)
            made = _advanced(b, words, step)
            picked = made[3]
            for k in (2, 1, 0):
                picked = b.where(b.eq(lane, constant(b, lane, k)), made[k], picked)
            return picked

        maps = [(k,) for k in range(4)]
        return generic(b, [xs[0]] * 4, its, maps, [at], [self.result.tensor], body)  # type: ignore[no-any-return]

    samples: ClassVar[Any] = tuple(
        [
            sample((4,), dtypes=("u32",), ranges=((0, 2**31),), count=count)
            for count in (0, 1, 4, 2**33 + 1)
        ]
    )
    rejects: ClassVar[Any] = (("C1", sample((4,), dtypes=("i32",), count=1)),)


class RandomUniform(Op):
    """Uniform on [low, high): 24 random bits per element in f32, 53 in f64, 11 in f16, 8 in bf16.

    Element n is low + u * (high - low), u = (bits >> (32 - p)) / 2**p of word n (f64: of words 2n,
    2n + 1, 27 and 26 bits); computed in f32 and rounded.  C1: state as for philox_bits.  C2:
    `dtype` is one of these.
    """

    no_gradient = "a draw depends on no float"
    key = operand(Int)
    counter = operand(Int)
    shape = attr(tuple)
    dtype = attr(DType, f32)
    low = attr(float, 0.0)
    high = attr(float, 1.0)

    @staticmethod
    def infer(
        key: TensorType, counter: TensorType, shape: Shape, dtype: DType, low: float, high: float
    ) -> TensorType:
        _check_state("random_uniform", key, counter)
        require(
            dtype.name in _BITS,
            "E0303",
            f"random_uniform (C2): no uniform {dtype}",
            hint="draw f32 and cast",
        )
        return TensorType(dtype, shape)

    @staticmethod
    def evaluate(
        key: Array, counter: Array, shape: tuple[int, ...], dtype: DType, low: float, high: float
    ) -> Array:
        if dtype is f64:
            pairs = PhiloxBits.evaluate(key, counter, (*shape, 2))
            whole = np.left_shift(pairs[..., 0] >> 5, 26, dtype=np.uint64) + (pairs[..., 1] >> 6)
            return np.asarray(whole.astype(np.float64) * 2.0**-53 * (high - low) + low)
        bits = _BITS[dtype.name]
        draws = PhiloxBits.evaluate(key, counter, shape) >> np.uint32(32 - bits)
        unit = draws.astype(np.float32) * np.float32(2.0**-bits)
        return np.asarray(unit * np.float32(high - low) + np.float32(low)).astype(dtype.np)

    def decompose(self, b: Builder) -> Value:
        """Bits, shifted, converted and scaled."""
        if self.dtype is f64:
            words = b.philox_bits(self.key, self.counter, shape=(*self.shape, 2))
            parts = [
                b.reshape(
                    b.slice(words, starts=(*[0] * len(self.shape), k), sizes=(*self.shape, 1)),
                    shape=self.shape,
                )
                for k in (0, 1)
            ]
            high = b.cast(b.shift_right(parts[0], constant(b, parts[0], 5)), to=f64)
            low = b.cast(b.shift_right(parts[1], constant(b, parts[1], 6)), to=f64)
            unit = b.add(b.mul(high, constant(b, high, 2.0**26)), low)
            unit = b.mul(unit, constant(b, unit, 2.0**-53))
        else:
            bits = _BITS[self.dtype.name]
            words = b.philox_bits(self.key, self.counter, shape=self.shape)
            unit = b.cast(b.shift_right(words, constant(b, words, 32 - bits)), to=f32)
            unit = b.mul(unit, constant(b, unit, 2.0**-bits))
        span = constant(b, unit, self.high - self.low)
        scaled = b.add(b.mul(unit, span), constant(b, unit, self.low))
        return as_type(b, scaled, self.dtype)

    samples: ClassVar[Any] = tuple(
        [
            sample(
                (2,),
                (4,),
                dtypes=("u32", "u32"),
                ranges=((0, 2**31), (0, 2**31)),
                shape=(3, 5),
                dtype=DType(name),
                **attrs,
            )
            for name, attrs in (
                ("f32", {}),
                ("f32", {"low": -2.0, "high": 3.0}),
                ("f64", {}),
                ("f16", {}),
                ("bf16", {}),
            )
        ]
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((3,), (4,), dtypes=("u32", "u32"), shape=(3,))),
        ("C2", sample((2,), (4,), dtypes=("u32", "u32"), shape=(3,), dtype=DType("i32"))),
    )


class RandomNormal(Op):
    """Normal with `mean` and `deviation`, by Box and Muller (1958) from two words per element.

    Element n is mean + deviation * sqrt(-2 log u) * cos(2 pi v), u = ((word 2n >> 8) + 1) / 2**24
    and v = (word 2n + 1 >> 8) / 2**24, in f32, then rounded; magnitudes end at 5.77 deviations.
    C1: state as for philox_bits.  C2: `dtype` is f32, f16 or bf16.
    """

    no_gradient = "a draw depends on no float"
    key = operand(Int)
    counter = operand(Int)
    shape = attr(tuple)
    dtype = attr(DType, f32)
    mean = attr(float, 0.0)
    deviation = attr(float, 1.0)

    @staticmethod
    def infer(
        key: TensorType,
        counter: TensorType,
        shape: Shape,
        dtype: DType,
        mean: float,
        deviation: float,
    ) -> TensorType:
        _check_state("random_normal", key, counter)
        known = dtype.name in _BITS and dtype is not f64
        hint = "draw f32 and cast"
        require(known, "E0303", f"random_normal (C2): no normal {dtype}", hint=hint)
        return TensorType(dtype, shape)

    @staticmethod
    def evaluate(
        key: Array,
        counter: Array,
        shape: tuple[int, ...],
        dtype: DType,
        mean: float,
        deviation: float,
    ) -> Array:
        words = PhiloxBits.evaluate(key, counter, (*shape, 2)) >> np.uint32(8)
        unit = words.astype(np.float32) * np.float32(2.0**-24)
        radius = np.sqrt(np.float32(-2) * np.log(unit[..., 0] + np.float32(2.0**-24)))
        normal = radius * np.cos(unit[..., 1] * np.float32(2 * math.pi))
        scaled = normal * np.float32(deviation) + np.float32(mean)
        return np.asarray(scaled).astype(dtype.np)

    def decompose(self, b: Builder) -> Value:
        """Two uniforms, a radius and an angle."""
        words = b.philox_bits(self.key, self.counter, shape=(*self.shape, 2))
        unit = b.cast(b.shift_right(words, constant(b, words, 8)), to=f32)
        unit = b.mul(unit, constant(b, unit, 2.0**-24))
        zeros = [0] * len(self.shape)
        u, v = [
            b.reshape(b.slice(unit, starts=(*zeros, k), sizes=(*self.shape, 1)), shape=self.shape)
            for k in (0, 1)
        ]
        logarithm = b.log(b.add(u, constant(b, u, 2.0**-24)))
        radius = b.sqrt(b.mul(logarithm, constant(b, u, -2.0)))
        normal = b.mul(radius, b.cos(b.mul(v, constant(b, v, 2 * math.pi))))
        normal = b.mul(normal, constant(b, normal, self.deviation))
        normal = b.add(normal, constant(b, normal, self.mean))
        return as_type(b, normal, self.dtype)

    samples: ClassVar[Any] = tuple(
        [
            sample(
                (2,),
                (4,),
                dtypes=("u32", "u32"),
                ranges=((0, 2**31), (0, 2**31)),
                shape=shape,
                dtype=DType(name),
                **attrs,
            )
            for shape, name, attrs in (
                ((3, 5), "f32", {}),
                ((), "f32", {"mean": -2.0, "deviation": 3.0}),
                ((7,), "f16", {}),
                ((0, 2), "bf16", {}),
            )
        ]
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((2,), (3,), dtypes=("u32", "u32"), shape=(3,))),
        ("C2", sample((2,), (4,), dtypes=("u32", "u32"), shape=(3,), dtype=f64)),
    )


_BITS = {"f32": 24, "f64": 53, "f16": 11, "bf16": 8}

__all__ = ["PhiloxBits", "PhiloxNext", "RandomNormal", "RandomUniform", "philox"]
