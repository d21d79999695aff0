"""How `unpack` sinks through ops that move elements: concat, pad, resample, reshape, transpose,
slice.

Each rule turns move(unpack(p)) into unpack(move'(p)), where blocks stay whole.  May import: ir.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.core import Builder, Op, Value
from ..ir.dims import equal
from ..ir.types import Shape


def layout_of(value: Value) -> tuple[int, int] | None:
    """(axis, block) of an `unpack` along one axis; None for anything else."""
    op = value.op
    if (
        op is None
        or op.name != "unpack"
        or len(op.attributes["axes"]) != 1
        or op.attributes["order"]
    ):
        return None
    return op.attributes["axes"][0], op.attributes["blocks"][0]


def sunk_concat(op: Op, b: Builder) -> Value | None:
    """A concat of values in one layout; along the blocked axis only of whole blocks."""
    layouts = {layout_of(v) for v in op.operands}
    if len(layouts) != 1 or None in layouts:
        return None
    (layout,) = layouts
    assert layout is not None
    rank = op.results[0].tensor.rank
    axis = op.attributes["axis"] % rank
    if axis == layout[0] and not _whole(op.operands, layout):
        return None
    made = b.concat(*[v.op.operands[0] for v in op.operands if v.op is not None], axis=axis)
    return _unpacked(b, made, layout[0], layout[1], op.results[0].tensor.shape)


def _whole(values: Sequence[Value], layout: tuple[int, int]) -> bool:
    return all([equal(v.tensor.shape[layout[0]] % layout[1], 0) is True for v in values])


def _unpacked(b: Builder, value: Value, axis: int, block: int, shape: Shape) -> Value:
    return b.unpack(value, axes=(axis,), blocks=(block,), shape=shape)  # type: ignore[no-any-return]


def sunk_pad(op: Op, b: Builder) -> Value | None:
    """A pad of other axes than the blocked one."""
    x = op.operands[0]
    layout = layout_of(x)
    given = op.attributes
    if layout is None or given["low"][layout[0]] != 0 or given["high"][layout[0]] != 0:
        return None
    assert x.op is not None
    made = b.pad(
        x.op.operands[0],
        low=(*given["low"], 0),
        high=(*given["high"], 0),
        mode=given["mode"],
        value=given["value"],
    )
    return _unpacked(b, made, *layout, op.results[0].tensor.shape)


def sunk_resample(op: Op, b: Builder) -> Value | None:
    """A resampling of other axes than the blocked one."""
    x = op.operands[0]
    layout = layout_of(x)
    if layout is None or x.op is None or layout[0] in op.attributes["axes"]:
        return None
    made = b.emit(type(op), x.op.operands[0], *op.operands[1:], **op.attributes)
    return _unpacked(b, made, *layout, op.results[0].tensor.shape)


def sunk_reshape(op: Op, b: Builder) -> Value | None:
    """A reshape that splits the blocked axis into others and whole blocks, or joins such."""
    x = op.operands[0]
    layout = layout_of(x)
    if layout is None or x.op is None or not _static(x.tensor.shape, op.results[0].tensor.shape):
        return None
    (axis, block), before, after = layout, x.tensor.shape, op.results[0].tensor.shape
    found = next((s for s in segments(before, after) if s[0] <= axis < s[1]), None)
    if found is None or axis != found[1] - 1 or found[2] == found[3]:
        return None
    last = found[3] - 1
    alone = found[1] - found[0] == 1 and found[3] - found[2] == 1
    if not alone and (before[axis] % block or after[last] % block):
        return None
    blocks = x.op.operands[0].tensor.shape[axis] if alone else after[last] // block
    made = b.reshape(x.op.operands[0], shape=(*after[:last], blocks, *after[last + 1 :], block))
    return _unpacked(b, made, last, block, after)


def _static(*shapes: Shape) -> bool:
    return all([type(e) is int and e > 0 for shape in shapes for e in shape])


def segments(before: Shape, after: Shape) -> list[tuple[int, int, int, int]]:
    """The shortest runs of axes [a, b) of `before` and [c, d) of `after` with equal products.

    Both shapes are static and positive.
    """
    found, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        low_i, low_j, left, right = i, j, 1, 1
        if i < len(before):
            left, i = int(str(before[i])), i + 1
        if j < len(after):
            right, j = int(str(after[j])), j + 1
        while left != right:
            if left < right:
                left, i = left * int(str(before[i])), i + 1
            else:
                right, j = right * int(str(after[j])), j + 1
        found.append((low_i, i, low_j, j))
    return found


def sunk_transpose(op: Op, b: Builder) -> Value | None:
    """A transpose; the lanes stay last."""
    x = op.operands[0]
    layout = layout_of(x)
    if layout is None or x.op is None:
        return None
    perm = op.attributes["perm"]
    made = b.transpose(x.op.operands[0], perm=(*perm, len(perm)))
    return _unpacked(b, made, perm.index(layout[0]), layout[1], op.results[0].tensor.shape)


def sunk_broadcast(op: Op, b: Builder) -> Value | None:
    """A repetition along other axes than the blocked one."""
    x = op.operands[0]
    layout, shape = layout_of(x), op.results[0].tensor.shape
    if layout is None or x.op is None or len(shape) != x.tensor.rank:
        return None
    packed = x.op.operands[0]
    if equal(x.tensor.shape[layout[0]], shape[layout[0]]) is not True:
        return None
    wide = (*shape[: layout[0]], packed.tensor.shape[layout[0]], *shape[layout[0] + 1 :], layout[1])
    return _unpacked(b, b.broadcast_to(packed, shape=wide), *layout, shape)


def sunk_slice(op: Op, b: Builder) -> Value | None:
    """A slice of whole blocks."""
    x = op.operands[0]
    layout = layout_of(x)
    if layout is None or x.op is None:
        return None
    (axis, block), given = layout, op.attributes
    starts, sizes = list(given["starts"]), list(given["sizes"])
    steps = list(given["steps"] or (1,) * len(sizes))
    extent = x.tensor.shape[axis]
    if equal(sizes[axis], extent) is True and starts[axis] == 0 and steps[axis] == 1:
        sizes[axis] = x.op.operands[0].tensor.shape[axis]
    elif steps[axis] == 1 and all([type(v[axis]) is int and v[axis] % block == 0
                                   for v in (starts, sizes)]):  # fmt: skip
        starts[axis], sizes[axis] = starts[axis] // block, sizes[axis] // block
    else:
        return None
    made = b.slice(x.op.operands[0], starts=(*starts, 0), sizes=(*sizes, block), steps=(*steps, 1))
    return _unpacked(b, made, axis, block, op.results[0].tensor.shape)


__all__ = [
    "layout_of",
    "segments",
    "sunk_broadcast",
    "sunk_concat",
    "sunk_pad",
    "sunk_resample",
    "sunk_reshape",
    "sunk_slice",
    "sunk_transpose",
]
