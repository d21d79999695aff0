"""Local response normalization across channels (Krizhevsky et al. 2012).

With `channel_block` the operand has a trailing axis of channel lanes.  Imports: the core, types,
dims.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Grads, Op, Value, attr, operand, sample
from ..dims import DimLike, sym
from ..types import TensorType, from_numpy
from .constraints import require
from .contract import add_up, as_type
from .convert import compute_dtype, round_float, widen
from .core import generic, indices, iterators
from .elementwise import constant


class LocalResponseNorm(Op):
    """x / (bias + alpha / size * s) ** beta, s the sum of squares over `size` channels around.

    The window of channel c starts (size - 1) // 2 before it; outside x it holds zeros. In blocks
    the lanes from `channels` on are no channels (0: all are).  f8, f16 and bf16 compute in f32.
    C1: x has batch and channels (and the channel block last).  C2: size is at least 1.
    """

    x = operand(Float)
    size = attr(int)
    alpha = attr(float, 1e-4)
    beta = attr(float, 0.75)
    bias = attr(float, 1.0)
    channel_block = attr(int, 0)
    channels = attr(int, 0)

    @classmethod
    def infer(cls, x: TensorType, **attrs: Any) -> TensorType:
        block = attrs["channel_block"]
        require(
            x.rank >= (3 if block else 2) and (not block or x.shape[-1] == block),
            "E0316",
            "local_response_norm (C1): x must have batch, channels, and the channel block last",
            f"found {x}, block {block}",
        )
        require(
            attrs["size"] >= 1,
            "E0315",
            f"local_response_norm (C2): a window of {attrs['size']} channels",
        )
        return x

    @classmethod
    def evaluate(cls, x: Array, **attrs: Any) -> Array:
        wide = widen(x).astype(np.float64)
        block, size = attrs.get("channel_block", 0), attrs["size"]
        flat = np.moveaxis(wide, -1, 2) if block else wide
        flat = flat.reshape(x.shape[0], x.shape[1] * (block or 1), *flat.shape[3 if block else 2 :])
        squares = flat * flat
        squares[:, (attrs.get("channels", 0) or flat.shape[1]) :] = 0
        total = np.zeros_like(flat)
        count = flat.shape[1]
        for k in range(-((size - 1) // 2), size // 2 + 1):
            low, high = max(0, -k), min(count, count - k)
            if low < high:
                total[:, low:high] += squares[:, low + k : high + k]
        base = attrs.get("bias", 1.0) + attrs.get("alpha", 1e-4) / size * total
        with np.errstate(all="ignore"):
            out = flat / base ** attrs.get("beta", 0.75)
        if block:
            out = np.moveaxis(out.reshape(x.shape[0], x.shape[1], block, *x.shape[2:-1]), 2, -1)
        return round_float(out, from_numpy(x.dtype))

    def generic(self, b: Builder, *xs: Value) -> Value:
        """Sums of squares, parallel over x, a reduction over the window; then the quotient."""
        x = xs[0].tensor
        wide = compute_dtype(x.dtype)
        its = iterators("i", x.shape)
        at = indices(its)
        source, inside = self._neighbour(at, x)
        total = generic(
            b,
            xs,
            [*its, ("k", self.size, "reduction")],
            [source],
            [at],
            [TensorType(wide, x.shape)],
            lambda b, v: b.mul(as_type(b, v, wide), as_type(b, v, wide)),
            init=(0.0,),
            combine=add_up,
            acc_types=(wide,),
            fills=(0.0,),
            where=[inside],
        )

        def quotient(b: Builder, v: Value, s: Value) -> Value:
            scale = constant(b, s, self.alpha / self.size)
            base = b.add(b.mul(s, scale), constant(b, s, self.bias))
            power = b.pow(base, constant(b, s, self.beta))
            return as_type(b, b.div(as_type(b, v, wide), power), x.dtype)

        return generic(b, [xs[0], total], its, [at, at], [at], [x], quotient)  # type: ignore[no-any-return]

    def _neighbour(
        self, at: list[DimLike], x: TensorType
    ) -> tuple[tuple[DimLike, ...], tuple[DimLike, ...]]:
        """Where the window's element is read, and what must be >= 0 for it to be a channel."""
        shift = sym("k") - (self.size - 1) // 2
        block = self.channel_block
        channel = at[1] * block + at[-1] + shift if block else at[1] + shift
        count = self.channels or (x.shape[1] * block if block else x.shape[1])
        inside = (channel, count - 1 - channel)
        if not block:
            return (at[0], channel, *at[2:]), inside
        return (at[0], channel // block, *at[2:-1], channel % block), inside

    def vjp(self, b: Builder, g: Value) -> Grads:
        """With p = base ** -beta: g p less 2 alpha beta / size x times the mirrored window's sum of
        g x p / base."""
        wide = compute_dtype(self.x.tensor.dtype)
        x, g = [self._flat(b, as_type(b, v, wide)) for v in (self.x, g)]
        before, behind = (self.size - 1) // 2, self.size // 2
        total = _windowed(b, self._of_channels(b, b.mul(x, x)), before, behind)
        scale = constant(b, total, self.alpha / self.size)
        base = b.add(b.mul(total, scale), constant(b, total, self.bias))
        power = b.pow(base, constant(b, base, -self.beta))
        pulled = _windowed(b, b.div(b.mul(b.mul(g, x), power), base), behind, before)
        factor = constant(b, pulled, 2 * self.alpha * self.beta / self.size)
        pulled = self._of_channels(b, b.mul(x, b.mul(pulled, factor)))
        return (self._blocked(b, b.sub(b.mul(g, power), pulled)),)

    def _flat(self, b: Builder, x: Value) -> Value:
        """x with its channels on axis 1, the lanes of a block among them."""
        if not self.channel_block:
            return x
        shape = x.tensor.shape
        moved = b.transpose(x, perm=(0, 1, len(shape) - 1, *range(2, len(shape) - 1)))
        return b.reshape(moved, shape=(shape[0], shape[1] * shape[-1], *shape[2:-1]))  # type: ignore[no-any-return]

    def _blocked(self, b: Builder, x: Value) -> Value:
        """The inverse of `_flat`."""
        if not self.channel_block:
            return x
        shape = self.x.tensor.shape
        split = b.reshape(x, shape=(shape[0], shape[1], shape[-1], *shape[2:-1]))
        return b.transpose(split, perm=(0, 1, *range(3, len(shape)), 2))  # type: ignore[no-any-return]

    def _of_channels(self, b: Builder, x: Value) -> Value:
        """x [N, C, ...], zeros in lanes that are no channels."""
        if not self.channels:
            return x
        along = (1, x.tensor.shape[1], *[1] * (x.tensor.rank - 2))
        at = b.iota(shape=along, axis=1)
        return b.where(b.lt(at, constant(b, at, self.channels)), x, constant(b, x, 0.0))  # type: ignore[no-any-return]

    samples = (
        sample((1, 5, 3, 4), size=3),
        sample((2, 7, 5), size=4, alpha=0.5, beta=0.5, bias=2.0),
        sample((1, 17, 3, 3), size=5, alpha=2e-5),
        sample((2, 1), size=3),
        sample((1, 3, 0), size=3),
        sample((1, 6, 2), size=2, alpha=0.1, beta=0.3, dtypes=("f64",)),
        sample((1, 4, 3), size=3, dtypes=("f16",)),
        sample((1, 3, 2, 3, 16), size=5, channel_block=16),
        sample((1, 2, 3, 4), size=3, alpha=0.3, channel_block=4, channels=7),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((5,), size=3)),
        ("C1", sample((1, 2, 3, 5), size=3, channel_block=4)),
        ("C2", sample((1, 5, 3), size=0)),
    )


def _windowed(b: Builder, x: Value, before: int, behind: int) -> Value:
    """The sum over a window of channels (axis 1) around each."""
    shape = x.tensor.shape
    rest = [0] * (len(shape) - 2)
    padded = b.pad(x, low=(0, before, *rest), high=(0, behind, *rest))
    parts = [b.slice(padded, starts=(0, k, *rest), sizes=shape) for k in range(before + behind + 1)]
    total: Value = functools.reduce(b.add, parts)
    return total


__all__ = ["LocalResponseNorm"]
