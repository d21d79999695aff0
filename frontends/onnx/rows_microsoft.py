"""Import rows of the domain com.microsoft: the fused ops that onnxruntime's optimizer writes.

Their definitions are those of onnxruntime's docs/ContribOperators.md.  Imports: node, the rows of
the ops they are made of, ir.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.core import Value
from ...ir.dims import DimLike
from ...ir.types import f32, i64
from .node import Node, Result, Row
from .rows_attention import heads_first, heads_joined, rotated
from .rows_linear import conv, gemm, product

DOMAIN = "com.microsoft"


def gelu(form: str) -> Row:
    """Gelu of x, or of x plus a bias."""

    def row(n: Node) -> Result:
        x = n.x(0) if not n.has(1) else n.b.add(n.x(0), n.x(1))
        return n.b.gelu(x, form=form)  # type: ignore[no-any-return]

    return row


def quick_gelu(n: Node) -> Result:
    """x * sigmoid(alpha * x)."""
    x, alpha = n.x(0), n.attr("alpha", 1.702)
    return n.b.mul(x, n.b.sigmoid(n.b.mul(x, n.like(x, alpha))))  # type: ignore[no-any-return]


def fused_matmul(n: Node) -> Result:
    """alpha times a product of operands with their last two axes swapped where asked for; before
    that the first axis may go behind the batch."""
    moved = [_batch_first(n, n.x(k), n.attr(f"transBatch{'AB'[k]}", 0)) for k in (0, 1)]
    x, y = [_swapped(n, moved[k], n.attr(f"trans{'AB'[k]}", 0)) for k in (0, 1)]
    out, alpha = product(n, x, y), n.attr("alpha", 1.0)
    return out if alpha == 1.0 else n.b.mul(out, n.like(out, alpha))


def _swapped(n: Node, x: Value, swap: int) -> Value:
    rank = x.tensor.rank
    if not swap or rank < 2:
        return x
    return n.transpose(x, (*range(rank - 2), rank - 1, rank - 2))


def _batch_first(n: Node, x: Value, move: int) -> Value:
    """x with its first axis as the last but one, if asked for."""
    rank = x.tensor.rank
    if not move or rank < 3:
        return x
    return n.transpose(x, (*range(1, rank - 1), 0, rank - 1))


def activated(n: Node, x: Value) -> Value:
    """The attribute `activation` of x, with its parameters."""
    name = n.attr("activation", "") or ""
    given = n.attr("activation_params", None) or [
        n.attr(key) for key in ("activation_alpha", "activation_beta") if n.attr(key) is not None
    ]
    plain = {"": None, "Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}
    named = {"LeakyRelu": ("leaky_relu", 0.01), "HardSigmoid": ("hard_sigmoid", 0.2, 0.5)}
    if name in plain:
        op = plain[name]
        return x if op is None else getattr(n.b, op)(x)
    if name == "Clip" and len(given) == 2:
        return n.b.min(n.b.max(x, n.like(x, given[0])), n.like(x, given[1]))  # type: ignore[no-any-return]
    if name not in named:
        raise n.unsupported(f"{n.op}: the activation {name} is not supported")
    op, *usual = named[name]  # type: ignore[assignment]
    values = [*given, *usual[len(given) :]]
    return getattr(n.b, op)(x, **dict(zip(("alpha", "beta"), values)))  # type: ignore[no-any-return]


def fused_conv(n: Node) -> Result:
    """Activation of a convolution plus bias plus, where given, a further operand."""
    out = conv(n)
    assert isinstance(out, Value)
    return activated(n, n.b.add(out, n.x(3)) if n.has(3) else out)


def fused_gemm(n: Node) -> Result:
    """Activation of a Gemm."""
    out = gemm(n)
    assert isinstance(out, Value)
    return activated(n, out)


def simplified_layer_norm(n: Node) -> Result:
    """An RMS norm; the inverse of the root is a further result."""
    axis = n.axis(n.attr("axis", -1), n.rank(0))
    return _normalised(n, n.x(0), n.x(1), axis, n.attr("epsilon", 1e-5))


def _normalised(n: Node, x: Value, scale: Value, axis: int, epsilon: float) -> Result:
    y = n.b.rms_norm(x, scale, axis=axis, epsilon=epsilon)
    if len(n.proto.output) < 2 or not n.proto.output[1]:
        return y  # type: ignore[no-any-return]
    wide = n.cast(x, f32)
    axes = tuple(range(axis, x.tensor.rank))
    mean = n.b.reduce_mean(n.b.mul(wide, wide), axes=axes, keepdims=True)
    return y, n.b.rsqrt(n.b.add(mean, n.like(mean, epsilon)))


def _summed(n: Node, bias: int) -> Value:
    """Input plus skip plus, where given, operand `bias`."""
    total: Value = n.b.add(n.x(0), n.x(1))
    return n.b.add(total, n.x(bias)) if n.has(bias) else total


def _with_statistics(n: Node, y: Value, total: Value) -> Result:
    """(y, mean, inverse deviation, sum), as far as they are wanted; the middle two are not made."""
    wanted = [bool(o) for o in n.proto.output]
    if any(wanted[1:3]):
        raise n.unsupported(f"{n.op}: the statistics of training are not supported")
    return (y, None, None, total)[: len(wanted)] if len(wanted) > 3 else y


def skip_layer_norm(n: Node) -> Result:
    """Layer norm of input plus skip plus bias."""
    total = _summed(n, 4)
    y = n.b.layer_norm(total, n.x(2), n.opt(3), axis=-1, epsilon=n.attr("epsilon", 1e-12))
    return _with_statistics(n, y, total)


def skip_rms_norm(n: Node) -> Result:
    """RMS norm of input plus skip plus bias."""
    total = _summed(n, 3)
    y = n.b.rms_norm(total, n.x(2), axis=-1, epsilon=n.attr("epsilon", 1e-12))
    return _with_statistics(n, y, total)


def embed_layer_norm(n: Node) -> Result:
    """Layer norm of the sum of word, position and segment embeddings; how long each mask is."""
    ids = n.x(0)
    batch, length = ids.tensor.shape
    if n.has(8):
        places = n.b.gather(n.x(3), n.x(8), axis=0)
    else:
        places = n.take_range(n.x(3), 0, 0, length)
    total = n.b.add(n.b.gather(n.x(2), ids, axis=0), places)
    if n.has(1) and n.has(4):
        total = n.b.add(total, n.b.gather(n.x(4), n.x(1), axis=0))
    y = n.b.layer_norm(total, n.x(5), n.x(6), axis=-1, epsilon=n.attr("epsilon", 1e-12))
    if n.has(7):
        lengths = n.b.reduce_sum(n.x(7), axes=(1,))
    else:
        lengths = n.b.broadcast_to(n.const(0, ids.tensor.dtype), shape=(batch,))
    return (y, lengths, total)[: max(1, len(n.proto.output))]


# ---- attention


def _additive(n: Node, keep: Value, like: Value) -> Value:
    """0 where `keep` is true, else the filter value."""
    low = n.like(like, n.attr("mask_filter_value", -10000.0))
    return n.b.where(keep, n.like(like, 0.0), low)  # type: ignore[no-any-return]


def _key_mask(n: Node, index: int, q: Value, keys: DimLike) -> Value | None:
    """The padding mask of operand `index`, as numbers to add: lengths [B], or zeros at [B, T],
    [B, S, T] or [B, 1, S, T]."""
    mask = n.opt(index)
    if mask is None:
        return None
    batch, queries = q.tensor.shape[0], q.tensor.shape[2]
    dims = mask.tensor.shape
    if len(dims) == 1 and dims[0] == batch:
        count = n.reshape(n.cast(mask, i64), (batch, 1, 1, 1))
        return _additive(n, n.b.lt(n.b.iota(shape=(1, 1, 1, keys), axis=3), count), q)
    lifted = {2: (batch, 1, 1, keys), 3: (batch, 1, queries, keys)}.get(len(dims))
    if len(dims) == 4 and dims[2] == queries and dims[3] == keys:
        lifted = dims
    if lifted is None:
        raise n.unsupported(f"{n.op}: a mask of this shape is not supported", f"found {dims}")
    shaped = n.reshape(mask, lifted)
    return _additive(n, n.b.ne(shaped, n.like(shaped, 0)), q)


def _attended(
    n: Node, q: Value, k: Value, v: Value, mask_at: int, bias_at: int, past: DimLike
) -> Value:
    """The IR's `attention` of heads, joined."""
    mask = _key_mask(n, mask_at, q, k.tensor.shape[2])
    if n.has(bias_at):
        bias = n.x(bias_at)
        mask = bias if mask is None else n.b.add(mask, bias)
    causal = bool(n.attr("unidirectional", 0))
    y = n.b.attention(q, k, v, mask, scale=n.attr("scale", 0.0), causal=causal, offset=past)
    return heads_joined(n, y)


def attention(n: Node) -> Result:
    """One product gives q, k and v; `past` and the second result hold keys and values, stacked."""
    x, w, heads = n.x(0), n.x(1), n.required("num_heads")
    wide = w.tensor.shape[1]
    sizes = n.ints("qkv_hidden_sizes") or (wide // 3,) * 3
    all_ = product(n, x, w)
    all_ = n.b.add(all_, n.x(2)) if n.has(2) else all_
    parts, start = [], 0
    for size in sizes:
        parts.append(heads_first(n, n.take_range(all_, 2, start, size), heads))
        start = start + size
    q, k, v = parts
    past: DimLike = 0
    if n.has(4):
        past = n.shape(4)[3]
        before = [_slab(n, n.x(4), at) for at in (0, 1)]
        k, v = n.b.concat(before[0], k, axis=2), n.b.concat(before[1], v, axis=2)
    y = _attended(n, q, k, v, 3, 5, past)
    if len(n.proto.output) < 2 or not n.proto.output[1]:
        return y
    stacked = [n.reshape(t, (1, *t.tensor.shape)) for t in (k, v)]
    return y, n.b.concat(*stacked, axis=0)


def _slab(n: Node, x: Value, at: int) -> Value:
    """x[at] along axis 0."""
    return n.reshape(n.take_range(x, 0, at, 1), x.tensor.shape[1:])


def multi_head_attention(n: Node) -> Result:
    """q, k and v as [B, S, H * D], k and v as heads, or all packed as [B, S, H, 3, D]."""
    heads = n.required("num_heads")
    if n.rank(0) == 5 or not n.has(1):
        packed = n.transpose(n.x(0), (3, 0, 2, 1, 4))
        q, k, v = [_slab(n, n.take_range(packed, 0, at, 1), 0) for at in range(3)]
    elif not n.has(2):
        both = n.transpose(n.x(1), (3, 0, 2, 1, 4))
        q = heads_first(n, n.x(0), heads)
        k, v = [_slab(n, both, at) for at in (0, 1)]
    else:
        q, k, v = [heads_first(n, _biased(n, at), heads) for at in range(3)]
    past: DimLike = 0
    if n.has(6) and n.has(7):
        past = n.shape(6)[2]
        k, v = n.b.concat(n.x(6), k, axis=2), n.b.concat(n.x(7), v, axis=2)
    y = _attended(n, q, k, v, 4, 5, past)
    return (y, k, v)[: max(1, len(n.proto.output))]


def _biased(n: Node, at: int) -> Value:
    """Operand `at` plus its part of the bias, which has those of q, k and v one after the other."""
    x = n.x(at)
    if not n.has(3) or x.tensor.rank != 3:
        return x
    start: DimLike = sum([n.shape(k)[2] for k in range(at)])
    return n.b.add(x, n.take_range(n.x(3), 0, start, x.tensor.shape[2]))  # type: ignore[no-any-return]


def rotary(n: Node) -> Result:
    """As in the standard, with the positions second; a single position is that of the first."""
    x, places = n.x(0), n.x(1)
    if places.tensor.rank == 1:
        length = x.tensor.shape[-2]
        steps = n.b.iota(shape=(length,), dtype=places.tensor.dtype)
        places = n.reshape(n.b.add(steps, places), (1, length))
    return rotated(n, x, n.x(2), n.x(3), places)


ROWS: Sequence[tuple[str, int, Row]] = (
    ("Gelu", 1, gelu("erf")),
    ("BiasGelu", 1, gelu("erf")),
    ("FastGelu", 1, gelu("tanh")),
    ("QuickGelu", 1, quick_gelu),
    ("FusedMatMul", 1, fused_matmul),
    ("TransposeMatMul", 1, fused_matmul),
    ("FusedConv", 1, fused_conv),
    ("FusedGemm", 1, fused_gemm),
    ("SkipLayerNormalization", 1, skip_layer_norm),
    ("SkipSimplifiedLayerNormalization", 1, skip_rms_norm),
    ("SimplifiedLayerNormalization", 1, simplified_layer_norm),
    ("EmbedLayerNormalization", 1, embed_layer_norm),
    ("Attention", 1, attention),
    ("MultiHeadAttention", 1, multi_head_attention),
    ("RotaryEmbedding", 1, rotary),
)

STANDARD_ROWS: Sequence[tuple[str, int, Row]] = (
    ("SimplifiedLayerNormalization", 1, simplified_layer_norm),
)
"""What onnxruntime writes into the default domain, although the standard does not have it."""
