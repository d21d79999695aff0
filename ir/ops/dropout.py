"""Dropout: elements set to zero by the bits of a Philox state.

No mask is kept: who needs it again, as the gradient does, draws the same bits again.
Imports: the core, types, random.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Grads, Int, Op, Value, attr, operand, sample
from ..errors import Error
from ..types import Shape, TensorType, from_numpy, u32
from .constraints import require
from .contract import as_type
from .convert import compute_dtype, round_float, widen
from .core import zeros
from .elementwise import broadcast, constant
from .random import PhiloxBits

WHOLE = 1 << 32


class Dropout(Op):
    """x / (1 - ratio) where an element is kept, 0 where it is dropped (Srivastava 2014).

    Element n is kept where word n of `philox_bits` is at least ratio * 2^32; a ratio of 1 drops
    all.  `drawn`, where given, is the shape of the draw, which broadcasts to x: [N, C, 1, 1] drops
    whole channels.  f8, f16 and bf16 are scaled in f32.

    C1: key is u32[2], counter u32[4].  C2: ratio is from 0 to 1.  C3: `drawn` broadcasts to x.
    """

    x = operand(Float)
    key = operand(Int)
    counter = operand(Int)
    ratio = attr(float, 0.5)
    drawn = attr(object, None)

    @staticmethod
    def infer(
        x: TensorType, key: TensorType, counter: TensorType, ratio: float, drawn: Shape | None
    ) -> TensorType:
        state = key is TensorType(u32, (2,)) and counter is TensorType(u32, (4,))
        require(state, "E0343", "dropout (C1): the key must be u32[2], the counter u32[4]",
                f"found {key}, {counter}")  # fmt: skip
        require(0 <= ratio <= 1, "E0343", f"dropout (C2): a ratio is from 0 to 1, found {ratio}")
        if drawn is not None:
            try:
                fits = broadcast(x.shape, tuple(drawn)) == x.shape
            except Error:
                fits = False
            require(fits, "E0310", f"dropout (C3): {drawn} does not broadcast to {x}")
        return x

    @staticmethod
    def evaluate(
        x: Array, key: Array, counter: Array, ratio: float, drawn: tuple[int, ...] | None
    ) -> Array:
        if ratio == 1:
            return np.zeros_like(x)
        bits = PhiloxBits.evaluate(key, counter, x.shape if drawn is None else drawn)
        wide = widen(x)
        scaled = wide * wide.dtype.type(1 / (1 - ratio))
        kept = np.where(bits >= np.uint32(_threshold(ratio)), scaled, scaled.dtype.type(0))
        return round_float(kept, from_numpy(x.dtype))

    def decompose(self, b: Builder) -> Value:
        """Bits, compared and selected by."""
        dtype = self.x.tensor.dtype
        shape = self.x.tensor.shape
        if self.ratio == 1:
            return zeros(b, self.x.tensor)
        if not _threshold(self.ratio):
            return b.identity(self.x)  # type: ignore[no-any-return]
        drawn = shape if self.drawn is None else self.drawn
        bits = b.philox_bits(self.key, self.counter, shape=drawn)
        wide = as_type(b, self.x, compute_dtype(dtype))
        scaled = b.mul(wide, constant(b, wide, 1 / (1 - self.ratio)))
        kept = b.ge(bits, constant(b, bits, _threshold(self.ratio)))
        return as_type(b, b.where(kept, scaled, constant(b, scaled, 0.0)), dtype)

    def vjp(self, b: Builder, g: Value) -> Grads:
        """Dropout is linear, and its own adjoint."""
        return b.dropout(g, self.key, self.counter, ratio=self.ratio, drawn=self.drawn), None, None

    samples: ClassVar[Any] = (
        *[
            sample((3, 5), (2,), (4,), dtypes=(name, "u32", "u32"),
                   ranges=((-2, 2), (0, 2**31), (0, 2**31)), ratio=ratio)
            for name, ratio in (("f32", 0.5), ("f64", 0.1), ("f16", 0.3), ("bf16", 0.0),
                                ("f32", 1.0))
        ],
        sample((2, 3, 4, 1), (2,), (4,), dtypes=("f32", "u32", "u32"),
               ranges=((-2, 2), (0, 2**31), (0, 2**31)), ratio=0.4, drawn=(2, 3, 1, 1)),
        sample((0, 3), (2,), (4,), dtypes=("f32", "u32", "u32")),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((3,), (2,), (2,), dtypes=("f32", "u32", "u32"))),
        ("C2", sample((3,), (2,), (4,), dtypes=("f32", "u32", "u32"), ratio=1.5)),
        ("C3", sample((3,), (2,), (4,), dtypes=("f32", "u32", "u32"), drawn=(2,))),
    )


def _threshold(ratio: float) -> int:
    """The least word that keeps an element."""
    return min(round(ratio * WHOLE), WHOLE - 1)


__all__ = ["Dropout"]
