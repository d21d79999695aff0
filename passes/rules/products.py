"""Grouped 1x1 convolutions as batched matrix products, and what lets the rest of a network follow.

Groups whose channels fill no blocks run twice as fast as products [o, k] x [k, H * W] per group.
The reshape behind such a product sinks through elementwise ops, so that they still join its kernel.
May import: ir, the values beside it.
"""

from __future__ import annotations

import math

from ...ir.core import Builder, Op, Value
from ...ir.dims import DimLike
from ...ir.types import Shape
from .values import is_tensor

FEWEST = 4
"""Channels of a group below which a product is no faster than the convolution."""


def grouped_product(op: Op, b: Builder) -> Value | None:
    """conv(x, w) of 1x1 kernels in groups is w [g, o, k] times x [N, g, k, H * W]."""
    x, w = op.operands
    groups = op.attributes["groups"]
    if groups == 1 or op.attributes["channel_block"] or not _pointwise(op):
        return None
    shape, weights = x.tensor.shape, w.tensor.shape
    if not all([isinstance(e, int) for e in (*shape[1:], *weights)]):
        return None
    outs, ins = int(str(weights[0])) // groups, int(str(weights[1]))
    if outs < FEWEST or ins < FEWEST:
        return None
    place = math.prod([int(str(e)) for e in shape[2:]])
    left = b.reshape(w, shape=(groups, outs, ins))
    right = b.reshape(x, shape=(shape[0], groups, ins, place))
    made = b.matmul(left, right, out=op.attributes["out"])
    return b.reshape(made, shape=op.results[0].tensor.shape)  # type: ignore[no-any-return]


def _pointwise(op: Op) -> bool:
    """Kernel 1, step 1, no padding."""
    given = op.attributes
    return (
        all([e == 1 for e in op.operands[1].tensor.shape[2:]])
        and all([s == 1 for s in given["strides"]])
        and not any(given["pads"])
    )


def sunk_split(op: Op, b: Builder) -> Value | None:
    """f(reshape(p), y) is reshape(f(p, reshape(y))) behind a batched product p [N, g, o, S]."""
    split = next((v for v in op.operands if v is not None and _split_product(v)), None)
    if split is None or split.op is None or len(op.results) != 1:
        return None
    inner, shape = split.op.operands[0], split.tensor.shape
    if op.results[0].tensor.shape != shape or len(split.users) != 1:
        return None
    plans = [v if v is None else _reshaped(v.tensor.shape, shape, inner.tensor.shape)
             for v in op.operands]  # fmt: skip
    if any([v is not None and plan is None for v, plan in zip(op.operands, plans, strict=True)]):
        return None
    operands = [
        v if v is None else inner if v is split else b.reshape(v, shape=plan)
        for v, plan in zip(op.operands, plans, strict=True)
    ]
    made = b.emit(type(op), *operands, **op.attributes)
    return b.reshape(made, shape=shape)  # type: ignore[no-any-return]


def _split_product(value: Value) -> bool:
    """Is it [N, C, *S] from a product [N, g, o, S], perhaps through elementwise ops?"""
    op = value.op
    if op is None or op.name != "reshape" or not is_tensor(value):
        return False
    inner, shape = op.operands[0], value.tensor.shape
    if inner.op is None or inner.tensor.rank != 4 or value.tensor.rank < 3:
        return False
    n, g, o, s = inner.tensor.shape
    root: Op | None = inner.op
    while root is not None and root.name != "matmul" and root.operands and root.block is op.block:
        first = root.operands[0]
        same = first is not None and first.type is root.results[0].type
        root = first.op if same else None
    whole = n == shape[0] and g * o == shape[1] and s == math.prod(shape[2:], start=1)
    return whole and root is not None and root.name == "matmul"


def _reshaped(shape: Shape, whole: Shape, split: Shape) -> Shape | None:
    """The shape [N, g, o, S] of an operand that broadcasts to [N, C, *S]; None if it has none."""
    full: tuple[DimLike, ...] = (1,) * (len(whole) - len(shape)) + tuple(shape)
    if full == whole:
        return split
    if all([e == 1 for e in full]):
        return ()
    if full[1] == whole[1] and all([e == 1 for k, e in enumerate(full) if k != 1]):
        return (split[1], split[2], 1)
    return None


__all__ = ["grouped_product", "sunk_split"]
