"""Import rows of attention and rotary embedding.  Imports: node, ir."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...ir.core import Value
from ...ir.dims import DimLike
from ...ir.ops.attention import Attention
from .node import Node, Result, Row


def heads_first(n: Node, x: Value, heads: int | None) -> Value:
    """[B, S, heads * D] as [B, heads, S, D]; rank 4 is so already."""
    if x.tensor.rank == 4:
        return x
    if x.tensor.rank != 3 or not heads:
        raise n.invalid("E0346", f"{n.op}: rank 3 needs a number of heads, other ranks must be 4")
    batch, length, wide = x.tensor.shape
    split = n.reshape(x, (batch, length, heads, wide // heads))
    return n.transpose(split, (0, 2, 1, 3))


def heads_joined(n: Node, x: Value) -> Value:
    """[B, heads, S, D] as [B, S, heads * D]."""
    batch, heads, length, width = x.tensor.shape
    return n.reshape(n.transpose(x, (0, 2, 1, 3)), (batch, length, heads * width))


def padded_mask(n: Node, mask: Value, keys: DimLike) -> Value:
    """A mask shorter than the keys: what is missing takes no part."""
    missing = keys - mask.tensor.shape[-1]
    if type(missing) is int and missing <= 0 or mask.tensor.shape[-1] is keys:
        return mask
    low = [0] * mask.tensor.rank
    fill = 0 if mask.tensor.dtype.kind == "bool" else -math.inf
    return n.b.pad(mask, low=low, high=[*low[1:], missing], value=fill)  # type: ignore[no-any-return]


def attention(n: Node) -> Result:
    """The IR's `attention`; past keys and values stand before the new ones."""
    flat = n.rank(0) == 3
    q = heads_first(n, n.x(0), n.attr("q_num_heads"))
    k, v = [heads_first(n, n.x(i), n.attr("kv_num_heads")) for i in (1, 2)]
    past: DimLike = 0
    if n.has(4) and n.has(5):
        past = n.shape(4)[2]
        k, v = n.b.concat(n.x(4), k, axis=2), n.b.concat(n.x(5), v, axis=2)
    mask = n.opt(3)
    if mask is not None:
        mask = padded_mask(n, mask, k.tensor.shape[2])
    op = n.b.insert(
        Attention(
            q, k, v, mask, n.opt(6), scale=n.attr("scale", 0.0), offset=past,
            causal=bool(n.attr("is_causal", 0)), softcap=n.attr("softcap", 0.0),
            left=n.attr("left_window_size", -1), right=n.attr("right_window_size", -1),
        )
    )  # fmt: skip
    y = heads_joined(n, op.result) if flat else op.result
    results: list[Value | None] = [y, k, v]
    wanted = list(n.proto.output)
    if len(wanted) > 3 and wanted[3]:
        stage = op.stages(n.b)[n.attr("qk_matmul_output_mode", 0)]
        results.append(n.cast(stage, q.tensor.dtype))
    return results[: max(len(wanted), 1)]


def rotary(n: Node) -> Result:
    """The IR's `rotary_embedding`; positions pick rows of the tables."""
    return rotated(n, n.x(0), n.x(1), n.x(2), n.opt(3))


def rotated(n: Node, x: Value, cos: Value, sin: Value, positions: Value | None) -> Value:
    """x of rank 3 or 4 turned by the angles of its positions."""
    flat = x.tensor.rank == 3
    heads = n.attr("num_heads", 0)
    if flat and not heads and n.attr("rotary_embedding_dim", 0) == 0:
        heads = x.tensor.shape[2] // (2 * cos.tensor.shape[-1])
    y = heads_first(n, x, heads)
    if positions is not None:
        cos, sin = [n.b.gather(table, positions, axis=0) for table in (cos, sin)]
    elif cos.tensor.rank == 2:
        cos, sin = [n.reshape(table, (1, *table.tensor.shape)) for table in (cos, sin)]
    out: Value = n.b.rotary_embedding(y, cos, sin, interleaved=bool(n.attr("interleaved", 0)))
    return heads_joined(n, out) if flat else out


ROWS: Sequence[tuple[str, int, Row]] = (
    ("Attention", 23, attention),
    ("RotaryEmbedding", 23, rotary),
)
