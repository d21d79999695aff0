"""Random tensors from an explicit state, Philox: a key u32[2] and a counter u32[4].

A `Generator` holds the state; each draw advances the counter.  In a trace key and counter are state
inputs and the next counter a state output, so the same seed gives the same bits eager, compiled and
in C.  May import: ir, its siblings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...ir.core import Array, Op
from ...ir.errors import Error
from ...ir.ops.random import PhiloxBits, PhiloxNext, RandomNormal, RandomUniform
from ...ir.types import DType, f32, f64, i64
from .dispatch import STATE, here, leaf, one
from .draws import Draw, note, number
from .dtypes import as_dtype
from .functions import cast, cos, less, log, sqrt
from .indexing import argsort
from .shaping import as_shape, extents
from .tensor import Buffer, Tensor

_WORD = 0xFFFFFFFF


class Generator:
    """A stream of random numbers; equal seeds give equal streams."""

    def __init__(self, seed: int = 0, name: str = "random") -> None:
        self.name = name
        self.table: dict[str, Tensor] = {}
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Start again, at the stream of this seed (any integer; 64 bits count)."""
        self._put("key", [seed & _WORD, (seed >> 32) & _WORD])
        self._put("counter", [0, 0, 0, 0])

    def _put(self, name: str, words: Any) -> None:
        array = np.asarray(words, np.uint32)
        known = self.table.get(name)
        if STATE.trace is None and known is not None and known.value is None:
            known.array = array
            return
        if STATE.trace is not None:
            STATE.trace.note(self.table, name)
        made = Buffer(array)
        made.label = f"{self.name}.{name}"
        self.table[name] = made

    def state(self) -> dict[str, Array]:
        """Copies of key and counter."""
        return {name: np.array(t) for name, t in self.table.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state` gave; E0627 where it is none."""
        for name, count in (("key", 2), ("counter", 4)):
            words = np.asarray(state.get(name, ()))
            if words.shape != (count,):
                raise Error(
                    "E0627", f"a generator's state has {count} words '{name}'", where=here(),
                    details=(f"found {list(words.shape)}",),
                )  # fmt: skip
        for name in ("key", "counter"):
            self._put(name, np.asarray(state[name]).astype(np.uint32))

    def draw(self, op: type[Op], shape: Any, words: int = 1, **attrs: Any) -> Tensor:
        """The op on key and counter, which then is past so many words per element."""
        shape = extents(shape, op.name)
        key, counter = self.table["key"], self.table["counter"]
        made: Tensor = one(op, key, counter, shape=shape, **attrs)
        self.advance(math.prod(shape) * words)
        return made

    def advance(self, words: Any) -> None:
        """Put the counter behind so many words."""
        counter = self.table["counter"]
        if STATE.trace is None and counter.value is None:
            self._put("counter", PhiloxNext.evaluate(counter.array, int(words)))
            return
        if STATE.trace is not None:
            STATE.trace.note(self.table, "counter")
        self.table["counter"] = one(PhiloxNext, counter, count=words)


default = Generator()
"""The stream that draws without a generator of their own come from."""


def seed(value: int) -> None:
    """Start the default stream again."""
    default.seed(value)


manual_seed = seed


def state() -> dict[str, Array]:
    """Key and counter of the default stream."""
    return default.state()


def set_state(saved: Mapping[str, Any]) -> None:
    """Go on with the default stream from a saved state."""
    default.set_state(saved)


def host_draw(op: type[Op], shape: Any, dtype: DType, **attrs: Any) -> Array:
    """An array from the default stream, drawn now also while tracing (initial values)."""
    table = default.table
    words = 2 if dtype is f64 or op is RandomNormal else 1
    if op is RandomNormal and dtype is f64:
        return normal(shape, attrs.get("mean", 0.0), attrs.get("deviation", 1.0), f64).array
    if STATE.trace is not None:
        raise Error("E0627", "parameters are made before tracing, not inside", where=here())
    made = leaf(table["key"].array), leaf(table["counter"].array)
    drawn = one(op, *made, shape=tuple(shape), dtype=dtype, **attrs)
    key, counter = [t.array for t in made]
    draw = Draw(op, tuple(key.tolist()), number(counter), tuple(shape), dtype, tuple(attrs.items()))
    default.advance(math.prod(shape) * words)
    return note(np.asarray(drawn.array), draw)


def uniform(
    *shape: Any, low: float = 0.0, high: float = 1.0, dtype: Any = f32,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Uniform numbers on [low, high)."""
    dtype = as_dtype(dtype)
    words = 2 if dtype is f64 else 1
    stream = generator or default
    return stream.draw(
        RandomUniform, as_shape(shape), words, dtype=dtype, low=float(low), high=float(high)
    )


def normal(
    shape: Any, mean: float = 0.0, deviation: float = 1.0, dtype: Any = f32,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Normal numbers, by Box and Muller (1958); f64 ones from two uniform f64 each."""
    dtype, stream, shape = as_dtype(dtype), generator or default, as_shape((shape,))
    if dtype is not f64:
        return stream.draw(
            RandomNormal, shape, 2, dtype=dtype, mean=float(mean), deviation=float(deviation)
        )
    u, v = [uniform(shape, dtype=f64, generator=stream) for _ in range(2)]
    return sqrt(log(1.0 - u) * -2.0) * cos(v * (2 * math.pi)) * deviation + mean


def randn(*shape: Any, dtype: Any = f32, generator: Generator | None = None) -> Tensor:
    """Normal numbers of mean 0 and deviation 1."""
    return normal(as_shape(shape), dtype=dtype, generator=generator)


def rand(*shape: Any, dtype: Any = f32, generator: Generator | None = None) -> Tensor:
    """Uniform numbers on [0, 1)."""
    return uniform(as_shape(shape), dtype=dtype, generator=generator)


def bernoulli(p: Any, shape: Any, generator: Generator | None = None) -> Tensor:
    """Bools that are true with probability p."""
    return less(uniform(as_shape((shape,)), generator=generator), p)


def randint(
    low: int, high: int, shape: Any, dtype: Any = i64, generator: Generator | None = None
) -> Tensor:
    """Integers from low to high - 1, by 32 random bits modulo their number."""
    if not 0 < high - low <= 2**32:
        raise Error("E0627", f"there is no integer from {low} to {high - 1}", where=here())
    stream = generator or default
    words = cast(stream.draw(PhiloxBits, as_shape((shape,))), i64)
    return cast(words % (high - low) + low, dtype)


def permutation(count: Any, generator: Generator | None = None) -> Tensor:
    """The numbers 0 ... count - 1 in a random order."""
    return argsort(uniform((count,), dtype=f64, generator=generator))


__all__ = [
    "Generator", "bernoulli", "default", "host_draw", "manual_seed", "normal", "permutation",
    "rand", "randint", "randn", "seed", "set_state", "state", "uniform",
]  # fmt: skip
