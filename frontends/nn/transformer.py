"""Transformer blocks and stacks with torch's arguments and parameter names (Vaswani 2017).

May import: ir, its siblings.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from ...ir.errors import Error
from .activation import gelu, relu
from .attention import MultiheadAttention
from .containers import ModuleList
from .creation import full, triu
from .dense import Linear
from .dropout import Dropout
from .init import xavier_uniform_
from .layers import Layer
from .module import Module
from .normalization import LayerNorm
from .tensor import Tensor

_ACTIVATIONS: dict[str, Callable[[Any], Tensor]] = {"relu": relu, "gelu": gelu}


def _activation(given: str | Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    if callable(given):
        return given
    if given not in _ACTIVATIONS:
        raise Error("E0641", f"no activation '{given}'", hint="relu, gelu, or a function")
    return _ACTIVATIONS[given]


class _Block(Layer):
    """What the blocks share: the feed-forward part, `linear1`, `dropout`, `linear2`."""

    def feed_forward(
        self, width: int, hidden: int, dropout: float, activation: Any, bias: bool, dtype: Any
    ) -> None:
        """Make the feed-forward part."""
        self.width = width
        self.linear1 = Linear(width, hidden, bias, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(hidden, width, bias, dtype)
        self.activation = _activation(activation)

    def describe(self) -> str:
        return f"{type(self).__name__} {self.width}"

    def transformed(self, x: Tensor) -> Tensor:
        """The feed-forward part, without dropout behind it."""
        return self.linear2(self.dropout(self.activation(self.linear1(x))))  # type: ignore[no-any-return]

    def attended(self, attention: Module, x: Tensor, to: Tensor, *masks: Any) -> Tensor:
        """Attention of x to `to`; masks are (attn, padding, causal)."""
        attn, padding, causal = masks
        out: Tensor = attention(x, to, to, key_padding_mask=padding, need_weights=False,
                                attn_mask=attn, is_causal=causal)[0]  # fmt: skip
        return out


class TransformerEncoderLayer(_Block):
    """Self-attention and a feed-forward part, each with a residual and a layer norm."""

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: Any = "relu", layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first,
                                            dtype=dtype)  # fmt: skip
        self.feed_forward(d_model, dim_feedforward, dropout, activation, bias, dtype)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)

    def forward(
        self, src: Tensor, src_mask: Any = None, src_key_padding_mask: Any = None,
        is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """src [S, N, E], or [N, S, E] with batch_first; masks as in MultiheadAttention."""
        masks = src_mask, src_key_padding_mask, is_causal
        x = src
        if self.norm_first:
            y = self.norm1(x)
            x = x + self.dropout1(self.attended(self.self_attn, y, y, *masks))
            return x + self.dropout2(self.transformed(self.norm2(x)))  # type: ignore[no-any-return]
        x = self.norm1(x + self.dropout1(self.attended(self.self_attn, x, x, *masks)))
        return self.norm2(x + self.dropout2(self.transformed(x)))  # type: ignore[no-any-return]


class TransformerDecoderLayer(_Block):
    """Self-attention, attention to the encoder's result, and a feed-forward part."""

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: Any = "relu", layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__()
        self.self_attn, self.multihead_attn = [
            MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, dtype=dtype)
            for _ in range(2)
        ]
        self.feed_forward(d_model, dim_feedforward, dropout, activation, bias, dtype)
        self.norm_first = norm_first
        self.norm1, self.norm2, self.norm3 = [
            LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype) for _ in range(3)
        ]
        self.dropout1, self.dropout2, self.dropout3 = [Dropout(dropout) for _ in range(3)]

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: Any = None, memory_mask: Any = None,
        tgt_key_padding_mask: Any = None, memory_key_padding_mask: Any = None,
        tgt_is_causal: bool = False, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """tgt and memory [S, N, E], or [N, S, E] with batch_first."""
        own = tgt_mask, tgt_key_padding_mask, tgt_is_causal
        other = memory_mask, memory_key_padding_mask, memory_is_causal
        x = tgt
        if self.norm_first:
            y = self.norm1(x)
            x = x + self.dropout1(self.attended(self.self_attn, y, y, *own))
            y = self.norm2(x)
            x = x + self.dropout2(self.attended(self.multihead_attn, y, memory, *other))
            return x + self.dropout3(self.transformed(self.norm3(x)))  # type: ignore[no-any-return]
        x = self.norm1(x + self.dropout1(self.attended(self.self_attn, x, x, *own)))
        x = self.norm2(x + self.dropout2(self.attended(self.multihead_attn, x, memory, *other)))
        return self.norm3(x + self.dropout3(self.transformed(x)))  # type: ignore[no-any-return]


class TransformerEncoder(Layer):
    """`num_layers` copies of a layer one after the other, and a norm behind them."""

    def __init__(self, encoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(encoder_layer) for _ in range(num_layers)])
        self.num_layers, self.norm = num_layers, norm

    def forward(
        self, src: Tensor, mask: Any = None, src_key_padding_mask: Any = None,
        is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, is_causal)
        return src if self.norm is None else self.norm(src)


class TransformerDecoder(Layer):
    """`num_layers` copies of a layer one after the other, and a norm behind them."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(decoder_layer) for _ in range(num_layers)])
        self.num_layers, self.norm = num_layers, norm

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: Any = None, memory_mask: Any = None,
        tgt_key_padding_mask: Any = None, memory_key_padding_mask: Any = None,
        tgt_is_causal: bool = False, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        for layer in self.layers:
            tgt = layer(tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask,
                        memory_key_padding_mask, tgt_is_causal, memory_is_causal)  # fmt: skip
        return tgt if self.norm is None else self.norm(tgt)


class Transformer(Layer):
    """An encoder and a decoder, all matrices drawn anew by xavier_uniform."""

    def __init__(
        self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6,
        num_decoder_layers: int = 6, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: Any = "relu", layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__()
        given = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first,
                 norm_first, bias, dtype)  # fmt: skip
        norms = [LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype) for _ in range(2)]
        self.encoder = TransformerEncoder(
            TransformerEncoderLayer(*given), num_encoder_layers, norms[0]
        )
        self.decoder = TransformerDecoder(
            TransformerDecoderLayer(*given), num_decoder_layers, norms[1]
        )
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        for p in self.parameters():
            if p.ndim > 1:
                xavier_uniform_(p)

    def forward(
        self, src: Tensor, tgt: Tensor, src_mask: Any = None, tgt_mask: Any = None,
        memory_mask: Any = None, src_key_padding_mask: Any = None,
        tgt_key_padding_mask: Any = None, memory_key_padding_mask: Any = None,
        src_is_causal: bool = False, tgt_is_causal: bool = False, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        out: Tensor = self.decoder(
            tgt,
            memory,
            tgt_mask,
            memory_mask,
            tgt_key_padding_mask,
            memory_key_padding_mask,
            tgt_is_causal,
            memory_is_causal,
        )
        return out

    @staticmethod
    def generate_square_subsequent_mask(size: int, dtype: Any = "f32") -> Tensor:
        """The additive causal mask [size, size]: 0 up to the diagonal, minus infinity above."""
        return triu(full((size, size), float("-inf"), dtype), 1)


__all__ = [
    "Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder",
    "TransformerEncoderLayer",
]  # fmt: skip
