"""Recurrent layers and cells against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc import nn
from irc.ir.errors import Error


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


LAYERS = {
    "lstm": (lambda n: n.LSTM(3, 4), (5, 2, 3)),
    "lstm two layers": (lambda n: n.LSTM(3, 4, 2, batch_first=True), (2, 5, 3)),
    "lstm both ways": (lambda n: n.LSTM(3, 2, 2, bidirectional=True), (4, 2, 3)),
    "lstm no bias": (lambda n: n.LSTM(3, 4, bias=False), (5, 2, 3)),
    "lstm alone": (lambda n: n.LSTM(3, 4), (5, 3)),
    "gru": (lambda n: n.GRU(3, 4), (5, 2, 3)),
    "gru both ways": (lambda n: n.GRU(3, 2, 2, bidirectional=True, batch_first=True), (2, 4, 3)),
    "gru no bias": (lambda n: n.GRU(3, 4, bias=False), (1, 2, 3)),
    "rnn": (lambda n: n.RNN(3, 4), (5, 2, 3)),
    "rnn relu": (lambda n: n.RNN(3, 4, 2, nonlinearity="relu"), (5, 2, 3)),
    "rnn both ways": (lambda n: n.RNN(3, 4, bidirectional=True), (5, 3)),
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", LAYERS)
def test_layers(against: Any, name: str) -> None:
    make, shape = LAYERS[name]
    against.layer(make, normal(*shape))


@pytest.mark.oracle
@pytest.mark.parametrize("batch_first", [False, True])
def test_first_states(against: Any, batch_first: bool) -> None:
    x = normal(2, 5, 3) if batch_first else normal(5, 2, 3)
    h, c = normal(4, 2, 2, seed=1), normal(4, 2, 2, seed=2)
    both = lambda n: n.LSTM(3, 2, 2, bidirectional=True, batch_first=batch_first)  # noqa: E731
    against.layer(both, x, (h, c))
    against.layer(lambda n: n.GRU(3, 2, 4, batch_first=batch_first), x, h)


def test_lengths_end_sequences() -> None:
    layer = nn.LSTM(3, 4, batch_first=True)
    x = nn.tensor(normal(2, 5, 3).astype(np.float32))
    y, (h, c) = layer(x, lengths=np.array([3, 5]))
    short, (h1, c1) = layer(x[:1, :3])
    assert (y.numpy()[0, 3:] == 0).all()
    np.testing.assert_allclose(y.numpy()[0, :3], short.numpy()[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(h.numpy()[:, 0], h1.numpy()[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(c.numpy()[:, 0], c1.numpy()[:, 0], rtol=1e-5, atol=1e-6)


def test_dropout_between_layers_only_while_training() -> None:
    layer, x = nn.GRU(3, 4, 2, dropout=0.5), nn.ones((5, 2, 3))
    assert (layer(x)[0].numpy() != layer(x)[0].numpy()).any()
    layer.eval()
    assert (layer(x)[0].numpy() == layer(x)[0].numpy()).all()


CELLS = {
    "lstm": lambda n: n.LSTMCell(3, 4),
    "gru": lambda n: n.GRUCell(3, 4),
    "gru no bias": lambda n: n.GRUCell(3, 4, bias=False),
    "rnn": lambda n: n.RNNCell(3, 4),
    "rnn relu": lambda n: n.RNNCell(3, 4, nonlinearity="relu"),
}


@pytest.mark.oracle
@pytest.mark.parametrize("name", CELLS)
def test_cells(against: Any, name: str) -> None:
    states = (normal(2, 4, seed=1), normal(2, 4, seed=2))
    against.layer(CELLS[name], normal(2, 3), states if name == "lstm" else states[0])
    against.layer(CELLS[name], normal(3))


def test_a_wrong_shape_names_the_layer() -> None:
    net = nn.Sequential({"rnn": nn.LSTM(3, 4)})
    for bad, said in ((nn.ones((5, 2, 4)), "3 along axis -1"), (nn.ones((3,)), "[T, N, in]")):
        with pytest.raises(Error) as raised:
            net(bad)
        assert raised.value.code == "E0640"
        assert "rnn (LSTM 3->4)" in str(raised.value) and said in str(raised.value)
    layer, x = nn.GRU(3, 4), nn.ones((5, 2, 3))
    with pytest.raises(Error, match="first state"):
        layer(x, nn.ones((1, 3, 4)))
