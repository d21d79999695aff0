"""Physical layouts: convolutions in blocks of channels, constant matrices in panels.

A convolution becomes unpack(conv(pack(x), packed w)); `unpack` then sinks through what follows
(elementwise ops, pools, reductions over space, concats) until it meets the `pack` of the next one
and both vanish.  Logical shapes stay; packs of constants are folded.  Nothing happens where `block`
is 0. May import: ir, passes.cost, passes.options, passes.rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.core import OPS, Builder, Op, Value
from ..ir.dims import DimLike, equal
from ..ir.ops.core import Module
from ..ir.ops.elementwise import _Elementwise
from ..ir.rewrite import Rule, worklist
from ..ir.target import Target
from .cost import FEW_CHANNELS, blocked_pays, elements, reads_plain
from .fuse_kinds import reduced_axes
from .layout_moves import (
    layout_of,
    sunk_broadcast,
    sunk_concat,
    sunk_pad,
    sunk_resample,
    sunk_reshape,
    sunk_slice,
    sunk_transpose,
)
from .options import Pass, hidden
from .panels import panel_rule
from .rules.control import held_view
from .rules.fold import fold_rules
from .rules.products import grouped_product, sunk_split
from .rules.shapes import pack_of_unpack, unpack_of_pack, zero_lanes
from .rules.values import RuleTable, classes, is_constant, joined, table

_FOLD_ALWAYS = 1 << 40
MUCH = 8
"""An operand this many times smaller than a result is packed for it, whatever it is."""


@dataclass(frozen=True)
class Layout(Pass):
    """Blocks of `block` channels; `panel` columns per panel of a constant matrix (0: plain).

    With `always` every convolution that can be blocked is, whatever it costs.
    """

    block: int = 0
    panel: int = 0
    always: bool = False
    target: Target = hidden(Target("plain"))

    def run(self, module: Module) -> Module:
        if self.block == 0 and self.panel == 0:
            return module
        rules = self.rules()
        for func in module.funcs:
            if func.kind == "func":
                worklist(func, rules)
                worklist(
                    func,
                    table(
                        (classes("unpack"), [unpack_is_reshape]),
                        (classes("pack"), [pack_is_reshape]),
                    ),
                )
        return module

    def rules(self) -> RuleTable:
        """Introduce, sink, cancel; packs of constants are folded on the way."""
        elementwise = [cls for cls in OPS.values() if issubclass(cls, _Elementwise)]
        folding = fold_rules(_FOLD_ALWAYS)
        folds: RuleTable = {cls: folding[cls] for cls in classes("pack", "reshape")}
        made = table(
            ([*elementwise, *classes("clip")], [sunk_elementwise, sunk_split]),
            (classes("max_pool", "avg_pool", "lp_pool", "avg_pool_grad"), [sunk_pool]),
            (classes("max_pool_grad"), [sunk_pool_grad]),
            (classes("resample"), [sunk_resample]),
            (classes("reduce_mean", "reduce_sum", "reduce_max", "reduce_min"), [sunk_reduction]),
            (classes("concat"), [sunk_concat]),
            (classes("pad"), [sunk_pad]),
            (classes("reshape"), [sunk_reshape]),
            (classes("transpose"), [sunk_transpose]),
            (classes("broadcast_to"), [sunk_broadcast]),
            (classes("slice"), [sunk_slice]),
            (classes("local_response_norm"), [sunk_response_norm]),
            (classes("matmul"), [flattened_product]),
            (classes("pack"), [pack_of_unpack]),
            (classes("unpack"), [unpack_of_pack]),
            (classes("recompute"), [held_view]),
        )
        if self.block:
            convs = table(
                (classes("conv"), [self.conv_rule()]),
                (classes("conv_filter_grad"), [self.filter_rule()]),
            )
            made = joined(made, convs)
        if self.panel:
            made = joined(made, table((classes("matmul"), [panel_rule(self.panel)])))
        return joined(folds, made)

    def conv_rule(self) -> Rule:
        """Convolutions that gain."""

        def blocked(op: Op, b: Builder) -> Value | None:
            if op.attributes["channel_block"]:
                return None
            if not _blockable(op, self.block):
                return grouped_product(op, b)
            ready = _packed_by(op.operands[0], self.block)
            if not (self.always or blocked_pays(op, self.block, ready)):
                return None
            return blocked_conv(op, b, self.block, self.out_block(op))

        return blocked

    def filter_rule(self) -> Rule:
        """Filter gradients, where an operand is in blocks or they gain."""

        def blocked(op: Op, b: Builder) -> Value | None:
            x, g = op.operands
            channels, outs, groups = x.tensor.shape[1], g.tensor.shape[1], op.attributes["groups"]
            if op.attributes["channel_block"] or not _groups_fit(
                channels, outs, groups, self.block
            ):
                return None
            ready = _packed_by(x, self.block) or _packed_by(g, self.block)
            few = isinstance(outs, int) and 2 * outs < self.block
            return None if few and not ready and not self.always else blocked_filter_grad(
                op, b, self.block
            )  # fmt: skip

        return blocked

    def out_block(self, op: Op) -> int:
        """Columns of a weight block: two vectors where the output channels fill them."""
        outs = op.operands[1].tensor.shape[0]
        wide = 2 * self.block * op.attributes["groups"]
        return 2 * self.block if isinstance(outs, int) and outs % wide == 0 else self.block


def _blockable(op: Op, block: int) -> bool:
    """Static channels; one group, groups of whole blocks, or a group per channel with one output
    (depthwise).
    """
    x, w = op.operands
    if not w.tensor.is_static:
        return False
    return _groups_fit(x.tensor.shape[1], w.tensor.shape[0], op.attributes["groups"], block)


def _groups_fit(channels: DimLike, outs: DimLike, groups: int, block: int) -> bool:
    """Static channels; one group, groups of whole blocks, or a group per channel with one
    output.
    """
    if not isinstance(channels, int) or not isinstance(outs, int):
        return False
    if groups == channels == outs:
        return True
    whole = groups * block
    return groups == 1 or (channels % whole == 0 and outs % whole == 0)


def _depthwise(op: Op) -> bool:
    w = op.operands[1].tensor
    return op.attributes["groups"] == w.shape[0] and w.shape[1] == 1 and w.shape[0] != 1


def _packed_by(value: Value, block: int) -> bool:
    """The value comes out of this blocked layout."""
    op = value.op
    return (
        op is not None
        and op.name == "unpack"
        and op.attributes["axes"] == (1,)
        and op.attributes["blocks"] == (block,)
    )


def blocked_conv(op: Op, b: Builder, block: int, out_block: int) -> Value:
    """unpack(conv(pack(x), pack(w))) in blocks of channels."""
    x, w = op.operands
    outs = w.tensor.shape[0]
    given = dict(op.attributes, channel_block=block)
    if reads_plain(op, block, _packed_by(x, block)):
        packed = b.reshape(x, shape=(*x.tensor.shape, 1))
        weights = b.pack(w, axes=(1, 0), blocks=(1, out_block))
        given.update(out_block=out_block, out_channels=outs, in_block=1)
    elif not _depthwise(op):
        packed = b.pack(x, axes=(1,), blocks=(block,))
        weights = b.pack(w, axes=(1, 0), blocks=(block, out_block))
        given.update(out_block=out_block, out_channels=outs)
    else:
        packed = b.pack(x, axes=(1,), blocks=(block,))
        flat = b.reshape(w, shape=(outs, *w.tensor.shape[2:]))
        weights = b.pack(flat, axes=(0,), blocks=(block,))
    made = b.emit(type(op), packed, weights, **given)
    return b.unpack(made, axes=(1,), blocks=(block,), shape=op.results[0].tensor.shape)  # type: ignore[no-any-return]


def blocked_filter_grad(op: Op, b: Builder, block: int) -> Value:
    """unpack(conv_filter_grad(pack(x), pack(g))) in blocks of channels."""
    x, g = op.operands
    made: Value
    shape = op.results[0].tensor.shape
    given = dict(op.attributes, channel_block=block, out_block=block)
    packed_g = b.pack(g, axes=(1,), blocks=(block,))
    channels, groups = x.tensor.shape[1], op.attributes["groups"]
    plain = isinstance(channels, int) and channels <= FEW_CHANNELS and groups == 1
    if plain and not _packed_by(x, block):
        given.update(in_block=1)
        made = b.emit(type(op), b.reshape(x, shape=(*x.tensor.shape, 1)), packed_g, **given)
        return b.unpack(made, axes=(1, 0), blocks=(1, block), shape=shape)  # type: ignore[no-any-return]
    made = b.emit(type(op), b.pack(x, axes=(1,), blocks=(block,)), packed_g, **given)
    if groups == 1 or groups != channels:
        return b.unpack(made, axes=(1, 0), blocks=(block, block), shape=shape)  # type: ignore[no-any-return]
    flat = b.unpack(made, axes=(0,), blocks=(block,), shape=(shape[0], *shape[2:]))
    return b.reshape(flat, shape=shape)  # type: ignore[no-any-return]


def sunk_elementwise(op: Op, b: Builder) -> Value | None:
    """f(unpack(x), unpack(y)) is unpack(f(x, y)); broadcast operands are packed alike."""
    if not op.results:
        return None
    result = op.results[0].tensor
    found = [_aligned_layout(v, result.rank) if v is not None else None for v in op.operands]
    layouts = {f for f in found if f is not None}
    if len(layouts) != 1:
        return None
    (layout,) = layouts
    leaders = [
        v
        for v, f in zip(op.operands, found, strict=True)
        if f is not None and v.tensor.shape == result.shape
    ]
    if not leaders:
        return None
    given = [v for v in op.operands if v is not None]
    size = elements(result)
    plans = [_plan_for(v, layout, result.rank, result.shape[layout[0]], size) for v in given]
    if None in plans:
        return None
    moved = iter(
        [_apply(plan, v, b, layout, result.rank) for plan, v in zip(plans, given, strict=True)]
    )
    operands = [next(moved) if v is not None else None for v in op.operands]
    made = b.emit(type(op), *operands, **op.attributes)
    return b.unpack(made, axes=(layout[0],), blocks=(layout[1],), shape=result.shape)  # type: ignore[no-any-return]


def _aligned_layout(value: Value, rank: int) -> tuple[int, int] | None:
    """The layout of a value, its axis as broadcasting to `rank` axes counts it."""
    layout = layout_of(value)
    return None if layout is None else (layout[0] + rank - value.tensor.rank, layout[1])


def _plan_for(
    value: Value, layout: tuple[int, int], rank: int, channels: object, size: int
) -> str | None:
    """How an operand gets into the layout: it is packed, one element, one channel, or to be packed:
    a constant, or small beside the result of `size` elements.
    """
    if _aligned_layout(value, rank) == layout:
        return "unwrap"
    shape = (1,) * (rank - value.tensor.rank) + value.tensor.shape
    if all([e == 1 for e in shape]):
        return "scalar"
    if shape[layout[0]] == 1:
        return "lane"
    whole = value.tensor.is_static and shape[layout[0]] == channels
    return "pack" if whole and (is_constant(value) or _little(value, size)) else None


def _little(value: Value, size: int) -> bool:
    """Is a value, or what it repeats, small beside `size` elements?"""
    repeats = value.op is not None and value.op.name == "broadcast_to"
    source = value.op.operands[0] if value.op is not None and repeats else value
    return MUCH * elements(source.tensor) <= size


def _apply(plan: str | None, value: Value, b: Builder, layout: tuple[int, int], rank: int) -> Value:
    """The operand in the layout."""
    if plan == "unwrap":
        assert value.op is not None
        packed = value.op.operands[0]
        ahead = (1,) * (rank - value.tensor.rank)
        return b.reshape(packed, shape=(*ahead, *packed.tensor.shape)) if ahead else packed
    if plan == "scalar" and is_constant(value):
        return b.reshape(value, shape=())  # type: ignore[no-any-return]
    shape = (1,) * (rank - value.tensor.rank) + value.tensor.shape
    if plan == "scalar" or plan == "lane":
        return b.reshape(value, shape=(*shape, 1))  # type: ignore[no-any-return]
    full = value if value.tensor.rank == rank else b.reshape(value, shape=shape)
    return b.pack(full, axes=(layout[0],), blocks=(layout[1],))  # type: ignore[no-any-return]


def sunk_pool(op: Op, b: Builder) -> Value | None:
    """A pool of unpacked channels runs on the blocks."""
    x = op.operands[0]
    layout = layout_of(x)
    if layout is None or layout[0] != 1 or op.attributes["channel_block"]:
        return None
    assert x.op is not None
    made = b.emit(type(op), x.op.operands[0], **{**op.attributes, "channel_block": layout[1]})
    return b.unpack(made, axes=(1,), blocks=(layout[1],), shape=op.results[0].tensor.shape)  # type: ignore[no-any-return]


def sunk_pool_grad(op: Op, b: Builder) -> Value | None:
    """The gradient of a pool, one of whose operands is unpacked: the other is packed for it."""
    found = {layout_of(v) for v in op.operands} - {None}
    if len(found) != 1 or op.attributes["channel_block"]:
        return None
    (layout,) = found
    if layout is None or layout[0] != 1:
        return None
    given = {**op.attributes, "channel_block": layout[1]}
    blocks = [b.pack(v, axes=(1,), blocks=(layout[1],)) for v in op.operands]
    made = b.emit(type(op), *blocks, **given)
    return b.unpack(made, axes=(1,), blocks=(layout[1],), shape=op.results[0].tensor.shape)  # type: ignore[no-any-return]


def sunk_reduction(op: Op, b: Builder) -> Value | None:
    """A reduction over other axes than the blocked one."""
    x = op.operands[0]
    layout = layout_of(x)
    axes = reduced_axes(op)
    if layout is None or layout[0] in axes or not axes:
        return None
    assert x.op is not None
    made = b.emit(type(op), x.op.operands[0], **{**op.attributes, "axes": axes})
    axis = (
        layout[0] if op.attributes["keepdims"] else layout[0] - sum([a < layout[0] for a in axes])
    )
    return b.unpack(made, axes=(axis,), blocks=(layout[1],), shape=op.results[0].tensor.shape)  # type: ignore[no-any-return]


def sunk_response_norm(op: Op, b: Builder) -> Value | None:
    """Normalization across the blocked channels."""
    x = op.operands[0]
    layout, shape = layout_of(x), x.tensor.shape
    if layout is None or layout[0] != 1 or op.attributes["channel_block"]:
        return None
    if not isinstance(shape[1], int):
        return None
    assert x.op is not None
    given = {**op.attributes, "channel_block": layout[1], "channels": shape[1]}
    made = b.emit(type(op), x.op.operands[0], **given)
    return b.unpack(made, axes=(1,), blocks=(layout[1],), shape=shape)  # type: ignore[no-any-return]


def flattened_product(op: Op, b: Builder) -> Value | None:
    """matmul(reshape(unpack(x)), w), channels and all behind them in one row: w is reordered."""
    x, w = op.operands
    flat = x.op
    if flat is None or flat.name != "reshape" or not is_constant(w) or w.tensor.rank != 2:
        return None
    image = flat.operands[0]
    layout = layout_of(image)
    if layout is None or layout[0] != 1 or image.op is None or x.tensor.rank != 2:
        return None
    shape, packed = image.tensor.shape, image.op.operands[0]
    if equal(shape[0], x.tensor.shape[0]) is not True or not all(
        [type(e) is int for e in shape[1:]]
    ):
        return None
    whole = equal(shape[1] % layout[1], 0) is True
    if not whole and not zero_lanes(packed, 1, int(str(shape[1]))):
        return None
    rank = len(shape)
    rows = b.reshape(w, shape=(*shape[1:], w.tensor.shape[1]))
    order = (*range(rank - 1), rank, rank - 1)  # the lanes stand before the columns
    blocks = b.pack(rows, axes=(0,), blocks=(layout[1],), order=order)
    length = math.prod([e for e in packed.tensor.shape[1:] if isinstance(e, int)])
    made = b.reshape(blocks, shape=(length, w.tensor.shape[1]))
    row = b.reshape(packed, shape=(shape[0], length))
    return b.matmul(row, made, out=op.attributes["out"])  # type: ignore[no-any-return]


def unpack_is_reshape(op: Op, b: Builder) -> Value | None:
    """An unpack that moves nothing: whole blocks, and only axes of extent 1 between block and
    lanes.
    """
    shape, given = op.results[0].tensor.shape, op.attributes
    if (
        len(given["axes"]) != 1
        or given["order"]
        or not _moves_nothing(shape, given["axes"][0], given["blocks"][0])
    ):
        return None
    return b.reshape(op.operands[0], shape=shape)  # type: ignore[no-any-return]


def pack_is_reshape(op: Op, b: Builder) -> Value | None:
    """A pack that moves nothing."""
    shape, given = op.operands[0].tensor.shape, op.attributes
    if (
        len(given["axes"]) != 1
        or given["order"]
        or not _moves_nothing(shape, given["axes"][0], given["blocks"][0])
    ):
        return None
    return b.reshape(op.operands[0], shape=op.results[0].tensor.shape)  # type: ignore[no-any-return]


def _moves_nothing(shape: Sequence[object], axis: int, block: int) -> bool:
    behind = all([e == 1 for e in shape[axis + 1 :]])
    return behind and equal(shape[axis] % block, 0) is True  # type: ignore[operator]


__all__ = ["Layout", "blocked_conv"]
