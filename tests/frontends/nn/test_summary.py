"""Summaries: shapes, parameters, operations and memory, without computing anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc import nn
from irc.ir.errors import Error


class Net(nn.Module):
    """A small network with a function between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.head = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 10))

    def forward(self, x: Any) -> Any:
        x = nn.relu(self.b1(self.c1(x)))
        return self.head(x.mean((2, 3)))


def test_rows_and_totals() -> None:
    net = Net()
    net.c1.requires_grad_(False)
    found = nn.summary(net, (4, 1, 8, 8))
    assert [(r.path, str(r.output[0]), r.parameters) for r in found.rows] == [
        ("", "f32[4, 10]", 320 + 64 + 528 + 170),
        ("c1", "f32[4, 32, 8, 8]", 320),
        ("b1", "f32[4, 32, 8, 8]", 64),
        ("head", "f32[4, 10]", 528 + 170),
        ("head.0", "f32[4, 16]", 528),
        ("head.1", "f32[4, 16]", 0),
        ("head.2", "f32[4, 16]", 0),
        ("head.3", "f32[4, 10]", 170),
    ]
    assert found.parameters == 1082 and found.trainable == 762
    assert found.parameter_bytes == 4 * 1082 and found.buffer_bytes == 2 * 128 + 8
    conv = 2 * 4 * 32 * 64 * 9
    assert found.rows[1].flops == conv + 4 * 32 * 64, "taps, and the bias"
    assert found.rows[0].flops == found.flops > conv
    assert found.rows[4].flops == 2 * 4 * 32 * 16 + 4 * 16


def test_it_computes_nothing_and_changes_nothing() -> None:
    net = Net()
    state = net.state_dict()
    nn.summary(net, (4096, 1, 2048, 2048))
    assert net.training and net.head[2].training
    assert all((a == state[n]).all() for n, a in net.state_dict().items())


def test_the_table() -> None:
    text = str(nn.summary(Net(), (4, 1, 8, 8)))
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "output", "parameters", "operations"]
    assert any(line.startswith("    3: Linear 16->10") and "170" in line for line in lines)
    assert "input: f32[4, 1, 8, 8]" in text
    assert "parameters: 1,082 (1,082 trainable, 0 frozen)" in text
    assert "4.33 kB parameters, 264 B buffers" in text


def test_shared_layers_count_once() -> None:
    x, layer = nn.Input((3,)), nn.Linear(3, 3)
    found = nn.summary(nn.Model(x, layer(layer(x))))
    assert found.parameters == 12 and [r.shared for r in found.rows] == [False, False, True]
    assert "shared" in str(found) and "f32[1, 3]" in str(found)


def test_several_inputs_and_their_types() -> None:
    a, b = nn.Input((3,)), nn.Input((2,))
    net = nn.Model([a, b], nn.concatenate([a, b], 1))
    assert str(nn.summary(net, ((5, 3), (5, 2))).rows[0].output[0]) == "f32[5, 5]"
    words = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2))
    assert str(nn.summary(words, (2, 7), dtype="i64").rows[0].output[0]) == "f32[2, 7, 2]"
    given = nn.summary(words, inputs=np.zeros((1, 3), np.int64))
    assert str(given.rows[0].output[0]) == "f32[1, 3, 2]"


def test_work_of_recurrence_attention_and_transposes_is_that_of_their_parts() -> None:
    lstm = nn.summary(nn.LSTM(10, 20), (7, 3, 10)).flops
    assert lstm > 2 * 7 * 3 * 80 * (10 + 20)
    x = nn.Input((16, 8))
    heads = x.reshape(x.shape[0], 16, 2, 4).transpose(0, 2, 1, 3)
    net = nn.Model(x, nn.scaled_dot_product_attention(heads, heads, heads))
    assert nn.summary(net, (2, 16, 8)).flops > 2 * 2 * (2 * 2 * 16 * 16 * 4)
    back = nn.summary(nn.ConvTranspose2d(4, 6, 3), (1, 4, 5, 5)).flops
    assert back >= 2 * 4 * 6 * 9 * 25


def test_inputs_are_those_of_the_first_call_where_none_are_given() -> None:
    net = nn.Linear(3, 2)
    with pytest.raises(Error, match="no inputs") as raised:
        nn.summary(net)
    assert raised.value.code == "E0647"
    net(np.ones((5, 3), np.float32))
    assert str(nn.summary(net).rows[0].output[0]) == "f32[5, 2]"


def test_a_wrong_shape_names_the_layer() -> None:
    with pytest.raises(Error, match=r"c1 \(Conv2d 1->32 3x3\)"):
        nn.summary(Net(), (4, 3, 8, 8))


def test_a_branch_on_values_says_so() -> None:
    class Branch(nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    with pytest.raises(Error, match="E0617"):
        nn.summary(Branch(), (3,))
