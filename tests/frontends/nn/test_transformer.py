"""Attention and transformer blocks against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc import nn
from irc.ir.errors import Error


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


CAUSAL = ~np.tril(np.ones((4, 4), bool))
PADDED = np.array([[False] * 4, [False, False, True, True]])

MASKS = {
    "none": {},
    "no weights": {"need_weights": False},
    "per head": {"average_attn_weights": False},
    "bool": {"attn_mask": CAUSAL},
    "bool no weights": {"attn_mask": CAUSAL, "need_weights": False},
    "float": {"attn_mask": normal(4, 4, seed=5), "need_weights": False},
    "each": {"attn_mask": np.tile(CAUSAL, (4, 1, 1)), "need_weights": False},
    "padding": {"key_padding_mask": PADDED},
    "padding and bool": {"key_padding_mask": PADDED, "attn_mask": CAUSAL, "need_weights": False},
}


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:Support for mismatched")
@pytest.mark.parametrize("name", MASKS)
def test_attention_with_masks(against: Any, name: str) -> None:
    x = normal(2, 4, 6)
    against.layer(lambda n: Same(n, n.MultiheadAttention(6, 2, batch_first=True)), x, **MASKS[name])


def Same(n: Any, attention: Any) -> Any:
    """Attention of x to itself."""

    class Net(n.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: Any, **masks: Any) -> Any:
            return self.attention(x, x, x, **masks)

    return Net()


KINDS = {
    "plain": (lambda n: n.MultiheadAttention(6, 3), 6, 6),
    "no bias": (lambda n: n.MultiheadAttention(6, 3, bias=False), 6, 6),
    "widths": (lambda n: n.MultiheadAttention(6, 2, kdim=5, vdim=3), 5, 3),
    "bias kv": (lambda n: n.MultiheadAttention(6, 2, add_bias_kv=True), 6, 6),
    "zero": (lambda n: n.MultiheadAttention(6, 2, add_zero_attn=True, kdim=5), 5, 6),
}


@pytest.mark.oracle
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_attention(against: Any, name: str, need_weights: bool) -> None:
    make, k, v = KINDS[name]
    xs = normal(4, 2, 6), normal(5, 2, k, seed=1), normal(5, 2, v, seed=2)
    against.layer(make, *xs, need_weights=need_weights)


@pytest.mark.oracle
def test_attention_without_a_batch(against: Any) -> None:
    against.layer(lambda n: n.MultiheadAttention(6, 2), *[normal(4, 6, seed=k) for k in range(3)])


CALLS = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "bool": {"attn_mask": ~CAUSAL},
    "float": {"attn_mask": normal(4, 4, seed=3)},
    "batched": {"attn_mask": normal(2, 3, 4, 4, seed=3)},
    "one head": {"attn_mask": normal(2, 1, 4, 4, seed=3)},
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", CALLS)
def test_scaled_dot_product(against: Any, name: str) -> None:
    xs = normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1), normal(2, 3, 4, 6, seed=2)
    against.function(lambda f: f.scaled_dot_product_attention, *xs, **CALLS[name])


@pytest.mark.oracle
@pytest.mark.parametrize("lead", [(), (2,), (2, 1, 3)])
def test_scaled_dot_product_of_any_rank(against: Any, lead: tuple[int, ...]) -> None:
    xs = [normal(*lead, 4, 5, seed=k) for k in range(3)]
    against.function(lambda f: f.scaled_dot_product_attention, *xs)


@pytest.mark.oracle
def test_grouped_heads(against: Any) -> None:
    xs = normal(2, 6, 4, 5), normal(2, 2, 4, 5, seed=1), normal(2, 2, 4, 5, seed=2)
    against.function(lambda f: f.scaled_dot_product_attention, *xs, enable_gqa=True)
    with pytest.raises(Error, match="differ in heads"):
        nn.scaled_dot_product_attention(*xs)


BLOCKS = {
    "post": lambda n: n.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True),
    "pre": lambda n: n.TransformerEncoderLayer(
        6, 3, 8, dropout=0.0, batch_first=True, norm_first=True, activation="gelu"
    ),
    "no bias": lambda n: n.TransformerEncoderLayer(
        6, 2, 8, dropout=0.0, batch_first=True, bias=False
    ),
    "stack": lambda n: n.TransformerEncoder(
        n.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True), 2, n.LayerNorm(6)
    ),
}


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BLOCKS)
def test_encoder(against: Any, name: str) -> None:
    against.layer(BLOCKS[name], normal(2, 4, 6))
    against.layer(BLOCKS[name], normal(2, 4, 6), CAUSAL, PADDED)


@pytest.mark.oracle
@pytest.mark.parametrize("first", [False, True])
def test_decoder(against: Any, first: bool) -> None:
    def make(n: Any) -> Any:
        layer = n.TransformerDecoderLayer(6, 2, 8, dropout=0.0, norm_first=first)
        return n.TransformerDecoder(layer, 2)

    against.layer(make, normal(4, 2, 6), normal(5, 2, 6, seed=1), tgt_mask=CAUSAL)


@pytest.mark.oracle
def test_transformer(against: Any) -> None:
    make = lambda n: n.Transformer(6, 2, 1, 1, 8, dropout=0.0, batch_first=True)  # noqa: E731
    against.layer(make, normal(2, 4, 6), normal(2, 3, 6, seed=1))


def test_copies_of_a_layer_are_their_own() -> None:
    stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 2)
    one, two = stack.layers[0].linear1.weight, stack.layers[1].linear1.weight
    assert one is not two and (one.numpy() == two.numpy()).all()


def test_the_causal_mask() -> None:
    mask = nn.Transformer.generate_square_subsequent_mask(3).numpy()
    assert (mask == np.triu(np.full((3, 3), -np.inf), 1)).all()


def test_a_query_that_sees_nothing_gives_zeros() -> None:
    x = nn.ones((1, 2, 4))
    out = nn.scaled_dot_product_attention(x, x, x, np.array([[True, False], [False, False]]))
    assert (out.numpy()[0, 1] == 0).all() and (out.numpy()[0, 0] == 1).all()


@pytest.mark.parametrize("need_weights", [True, False])
def test_weights_are_dropped_while_training_only(need_weights: bool) -> None:
    layer, x = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True), nn.ones((1, 6, 8))
    one, two = [layer(x, x, x, need_weights=need_weights)[0].numpy() for _ in range(2)]
    assert (one != two).any()
    layer.eval()
    one, two = [layer(x, x, x, need_weights=need_weights)[0].numpy() for _ in range(2)]
    assert (one == two).all()


def test_a_wrong_shape_names_the_layer() -> None:
    net = nn.Sequential({"block": nn.TransformerEncoderLayer(6, 2)})
    with pytest.raises(Error) as raised:
        net(nn.ones((4, 2, 5)))
    text = str(raised.value)
    assert "block.self_attn (MultiheadAttention 6x2)" in text and "6 along axis -1" in text
