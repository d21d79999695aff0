"""Import rows of random distributions, drawn from Philox by a key of the node.

The key comes from the node's `seed`, else from its name; the counter begins at 0 in every run, so
that a compiled model gives the same numbers each time.  Imports: node, ir.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from ...ir.core import Value
from ...ir.dims import DimLike
from ...ir.types import DType, f32, f64, i32, i64, u32
from .node import Node, Result, Row
from .tensors import dtype_of

Draw = Callable[[Node, Sequence[DimLike], DType], Value]


def state(n: Node) -> tuple[Value, Value]:
    """(key, counter) of the node's stream."""
    seed = n.attr("seed")
    words = [zlib.crc32(n.name.encode()), 1]
    if seed is not None:
        words = [int(np.float32(seed).view(np.uint32)), 0]
    return n.const(words, u32), n.const([0, 0, 0, 0], u32)


def chosen(n: Node, default: DType) -> DType:
    """The element type that the node's `dtype` numbers."""
    code = n.attr("dtype")
    return default if code is None else dtype_of(code, n.place())


def uniform(n: Node, shape: Sequence[DimLike], dtype: DType) -> Value:
    """Uniform from `low` to `high`."""
    low, high = n.attr("low", 0.0), n.attr("high", 1.0)
    return n.b.random_uniform(*state(n), shape=tuple(shape), dtype=dtype, low=low, high=high)


def normal(n: Node, shape: Sequence[DimLike], dtype: DType) -> Value:
    """Normal with `mean` and `scale`; f64 is drawn in f32."""
    mean, deviation = n.attr("mean", 0.0), n.attr("scale", 1.0)
    drawn = f32 if dtype is f64 else dtype
    made = n.b.random_normal(
        *state(n), shape=tuple(shape), dtype=drawn, mean=mean, deviation=deviation
    )
    return n.cast(made, dtype)


def of_shape(draw: Draw) -> Row:
    """A draw whose shape is an attribute."""
    return lambda n: draw(n, n.required("shape"), chosen(n, f32))


def like(draw: Draw) -> Row:
    """A draw in the shape of the operand, and its element type unless told."""
    return lambda n: draw(n, n.shape(0), chosen(n, n.type(0).dtype))


def bernoulli(n: Node) -> Result:
    """1 with the probability that the operand says, else 0."""
    chance = n.x(0)
    dtype = chance.tensor.dtype
    drawn = n.b.random_uniform(*state(n), shape=chance.tensor.shape, dtype=dtype)
    return n.cast(n.b.lt(drawn, chance), chosen(n, dtype))


def multinomial(n: Node) -> Result:
    """Classes drawn from rows of unnormalized log-probabilities: how many of the running sums of
    the probabilities a uniform number reaches.
    """
    x, count = n.x(0), n.attr("sample_size", 1)
    if x.tensor.rank != 2:
        raise n.invalid("E0319", "Multinomial takes rows of log-probabilities")
    rows, classes = x.tensor.shape
    sums = n.b.cum_sum(n.b.softmax(x, axis=1), axis=1)
    total = n.take_range(sums, 1, classes - 1, 1)
    drawn = n.b.mul(n.b.random_uniform(*state(n), shape=(rows, count), dtype=x.tensor.dtype), total)
    reached = n.b.le(n.reshape(sums, (rows, 1, classes)), n.reshape(drawn, (rows, count, 1)))
    place = n.b.reduce_sum(n.cast(reached, i64), axes=(2,))
    last = n.b.sub(n.b.dim_value(dim=classes, dtype=i64), n.const(1, i64))
    return n.cast(n.b.min(place, last), chosen(n, i32))


ROWS: Sequence[tuple[str, int, Row]] = (
    ("RandomUniform", 1, of_shape(uniform)),
    ("RandomUniformLike", 1, like(uniform)),
    ("RandomNormal", 1, of_shape(normal)),
    ("RandomNormalLike", 1, like(normal)),
    ("Bernoulli", 15, bernoulli),
    ("Multinomial", 7, multinomial),
)
