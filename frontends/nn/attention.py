"""Scaled dot-product attention, and the layer with several heads.  May import: ir, its siblings."""

from __future__ import annotations

import math
from typing import Any

from ...ir.errors import Error
from ...ir.ops.attention import Attention
from ...ir.types import boolean
from .creation import ones as ones_tensor
from .creation import tril
from .creation import zeros as zeros_tensor
from .dense import Linear, linear
from .dispatch import apply, as_tensor
from .dropout import dropout
from .functions import where
from .init import xavier_normal, xavier_uniform, zeros
from .layers import Layer
from .reductions import softmax
from .shaping import broadcast_to, concatenate, reshape, split, transpose
from .tensor import Parameter, Tensor

_NEVER = float("-inf")


def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """softmax(scale * q k^T + mask) v: query [..., S, D], key [..., T, D], value [..., T, E].

    A mask broadcasts to [..., S, T]: bools say what takes part, floats are added.  A query that
    sees no key gives zeros.  With `enable_gqa` each head of key and value serves several of query.
    """
    q, k, v = as_tensor(query), as_tensor(key), as_tensor(value)
    if is_causal and attn_mask is not None:
        raise Error("E0641", "attention takes attn_mask or is_causal, one of them")
    if k.ndim > 3 and q.type.shape[-3] is not k.type.shape[-3] and not enable_gqa:
        if q.type.shape[-3] != k.type.shape[-3]:
            raise Error(
                "E0641",
                "query and key differ in heads",
                details=(f"query {q.type}, key {k.type}",),
                hint="enable_gqa=True",
            )
    mask = None if attn_mask is None else as_tensor(attn_mask)
    factor = 1 / math.sqrt(_known(q.type.shape[-1])) if scale is None else scale
    if dropout_p:
        return _explicit(q, k, v, mask, factor, dropout_p, is_causal)[0]
    lead = q.type.shape[:-2]
    if mask is not None and mask.dtype is not boolean:
        mask = mask.astype(q.dtype)
    q4, k4, v4 = [_four(x) for x in (q, k, v)]
    out: Tensor = apply(Attention, q4, k4, v4, _four(mask, lead), scale=float(factor),
                        causal=is_causal)  # fmt: skip
    return reshape(out, (*lead, q.type.shape[-2], v.type.shape[-1]))


def _known(extent: Any) -> int:
    if not isinstance(extent, int):
        raise Error("E0641", "attention needs a known width", details=(f"found {extent}",))
    return extent


def _four(x: Tensor | None, lead: Any = None) -> Any:
    """x [..., S, D] as [B, H, S, D]; a mask broadcasts over what it leaves out of `lead`."""
    if x is None:
        return None
    shape = x.type.shape
    if lead is None:
        heads = shape[-3] if len(shape) > 3 else 1
        batch = math.prod(shape[:-3]) if len(shape) > 3 else math.prod(shape[:-2])
        return reshape(x, (batch, heads, *shape[-2:]))
    if len(lead) == 2 or len(shape) == 2:
        return x
    full = broadcast_to(x, (*lead, *shape[-2:]))
    return _four(full)


def _explicit(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, p: float,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(result, weights), written out: where the weights are wanted or dropped."""
    groups = q.type.shape[-3] // k.type.shape[-3] if q.ndim > 3 else 1
    if isinstance(groups, int) and groups > 1:
        k, v = [x.repeat(groups, -3 % x.ndim) for x in (k, v)]
    scores = (q * scale) @ k.mT
    if causal:
        mask = tril(ones_tensor((q.type.shape[-2], k.type.shape[-2]), dtype=boolean))
    if mask is not None:
        keep = mask.dtype is boolean
        scores = where(mask, scores, _NEVER) if keep else scores + mask.astype(scores.dtype)
    weights = dropout(softmax(scores, -1), p)
    return weights @ v, weights


class MultiheadAttention(Layer):
    """Attention of several heads with projections (Vaswani 2017), with torch's parameters.

    `in_proj_weight` [3E, E] (or `q_proj_weight`, `k_proj_weight`, `v_proj_weight` where kdim or
    vdim differ), `in_proj_bias` [3E], `out_proj`, and `bias_k`, `bias_v` with `add_bias_kv`.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
        add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
        vdim: int | None = None, batch_first: bool = False, dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise Error("E0641", f"embed_dim {embed_dim} is no multiple of num_heads {num_heads}")
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self.dropout, self.batch_first = dropout, batch_first
        self.add_zero_attn = add_zero_attn
        e, same = embed_dim, self.kdim == self.vdim == embed_dim
        for name, width in (("q", e), ("k", self.kdim), ("v", self.vdim)):
            own = None if same else Parameter(xavier_uniform((e, width), dtype=dtype))
            self.register_parameter(f"{name}_proj_weight", own)
        joint = Parameter(xavier_uniform((3 * e, e), dtype=dtype)) if same else None
        self.in_proj_weight = joint
        self.in_proj_bias = Parameter(zeros((3 * e,), dtype)) if bias else None
        self.out_proj = Linear(e, e, bias=bias, dtype=dtype)
        if self.out_proj.bias is not None:
            self.out_proj.bias.assign(zeros((e,), dtype))
        self.bias_k, self.bias_v = [
            Parameter(xavier_normal((1, 1, e), dtype=dtype)) if add_bias_kv else None
            for _ in range(2)
        ]

    def describe(self) -> str:
        return f"{type(self).__name__} {self.embed_dim}x{self.num_heads}"

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Any = None,
        need_weights: bool = True, attn_mask: Any = None, average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """(result, weights or None).

        Masks as in torch: bools are true where attention is NOT allowed, floats are added;
        `attn_mask` is [S, T] or [N*heads, S, T], `key_padding_mask` [N, T].  `is_causal` stands for
        the causal mask where none is given.
        """
        self.expect_rank(query, (2, 3), "[S, N, E], [N, S, E] with batch_first, or [S, E]")
        for x, size, what in zip((query, key, value), (self.embed_dim, self.kdim, self.vdim),
                                 ("query", "key", "value")):  # fmt: skip
            self.expect_rank(x, (query.ndim,), f"as many axes as the query, {query.ndim}")
            self.expect_axis(x, -1, size, f"features in the {what}")
            self.expect_type(x, self.out_proj.weight)
        alone = query.ndim == 2
        xs = [self._batch_first(x, alone) for x in (query, key, value)]
        q, k, v = self._projected(*xs)
        mask = self._mask(q, k, attn_mask, key_padding_mask, is_causal, alone)
        k, v, mask = self._extended(k, v, mask)
        out, weights = self._attend(q, k, v, mask, need_weights)
        out = self.out_proj(self._joined(out))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if alone:
            return out[0], None if weights is None else weights[0]
        return (out if self.batch_first else out.swapaxes(0, 1)), weights

    def _batch_first(self, x: Tensor, alone: bool) -> Tensor:
        if alone:
            return x[None]
        return x if self.batch_first else x.swapaxes(0, 1)

    def _projected(self, *xs: Tensor) -> list[Tensor]:
        """query, key and value projected, [N, S, E]."""
        if self.in_proj_weight is not None and xs[0] is xs[1] is xs[2]:
            return list(split(linear(xs[0], self.in_proj_weight, self.in_proj_bias), 3, -1))
        weights: Any = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            weights = split(self.in_proj_weight, 3, 0)
        bias = self.in_proj_bias
        biases = (None,) * 3 if bias is None else split(bias, 3, 0)
        return [linear(x, w, b) for x, w, b in zip(xs, weights, biases)]

    def _heads(self, x: Tensor) -> Tensor:
        """[N, S, E] as [N, heads, S, E/heads]."""
        n, s, _ = x.type.shape
        return transpose(reshape(x, (n, s, self.num_heads, self.head_dim)), (0, 2, 1, 3))

    def _joined(self, x: Tensor) -> Tensor:
        n, _, s, _ = x.type.shape
        return reshape(transpose(x, (0, 2, 1, 3)), (n, s, self.embed_dim))

    def _mask(
        self, q: Tensor, k: Tensor, attn: Any, padding: Any, causal: bool, alone: bool
    ) -> Tensor | None:
        """Both masks as one that broadcasts to [N, heads, S, T], in torch's sense, or None."""
        n, s, t = q.type.shape[0], q.type.shape[1], k.type.shape[1]
        found: list[Tensor] = []
        if causal and attn is None:
            attn = ~tril(ones_tensor((s, t), dtype=boolean))
        if attn is not None:
            attn = as_tensor(attn)
            self._check_mask(attn, (s, t), "attn_mask")
            heads = (n, self.num_heads, s, t) if attn.ndim == 3 else (1, 1, s, t)
            found.append(reshape(attn, heads))
        if padding is not None:
            padding = as_tensor(padding)
            self._check_mask(padding, (t,), "key_padding_mask")
            found.append(reshape(padding, (1 if alone else n, 1, 1, t)))
        if not found:
            return None
        if all([m.dtype is boolean for m in found]):
            return found[0] if len(found) == 1 else found[0] | found[1]
        added = [where(m, _NEVER, 0.0).astype(q.dtype) if m.dtype is boolean else m.astype(q.dtype)
                 for m in found]  # fmt: skip
        return added[0] if len(added) == 1 else added[0] + added[1]

    def _check_mask(self, mask: Tensor, last: tuple[Any, ...], what: str) -> None:
        if mask.dtype is not boolean and not mask.dtype.is_float:
            raise self.wrong(f"{what} must be bools or floats", "bool or float", mask.type)
        for k, extent in enumerate(last):
            self.expect_axis(mask, k - len(last), extent, f"positions in {what}")

    def _extended(self, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Any]:
        """key and value with the learnt and the zero rows behind, and the mask for them."""
        rows: list[tuple[Any, Any]] = []
        n = k.type.shape[0]
        if self.bias_k is not None:
            shape = (n, 1, self.embed_dim)
            rows.append((broadcast_to(self.bias_k, shape), broadcast_to(self.bias_v, shape)))
        if self.add_zero_attn:
            nothing = zeros_tensor((n, 1, self.embed_dim), dtype=k.dtype)
            rows.append((nothing, nothing))
        for more_k, more_v in rows:
            k, v = concatenate([k, more_k], 1), concatenate([v, more_v], 1)
            if mask is not None:
                free = zeros_tensor((*mask.type.shape[:-1], 1), dtype=mask.dtype)
                mask = concatenate([mask, free], -1)
        return k, v, mask

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        q, k, v = [self._heads(x) for x in (q, k, v)]
        if mask is not None and mask.dtype is boolean:
            mask = ~mask
        p = self.dropout if self.training else 0.0
        if need_weights:
            return _explicit(q, k, v, mask, 1 / math.sqrt(self.head_dim), p)
        return scaled_dot_product_attention(q, k, v, mask, p), None


MultiHeadAttention = MultiheadAttention
"""The same by the more common spelling."""


__all__ = ["MultiHeadAttention", "MultiheadAttention", "scaled_dot_product_attention"]
