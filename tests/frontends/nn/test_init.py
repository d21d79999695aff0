"""Initial values: distributions against their formulas and torch's, seeds, errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from irc import nn
from irc.ir.errors import Error

SHAPE = (64, 32, 3, 3)
FAN_IN, FAN_OUT = 32 * 9, 64 * 9

UNIFORM = {
    "uniform": (nn.init.uniform, {"a": -2.0, "b": 3.0}, (-2.0, 3.0)),
    "xavier": (nn.init.xavier_uniform, {"gain": 2.0}, 2 * math.sqrt(6 / (FAN_IN + FAN_OUT))),
    "kaiming": (nn.init.kaiming_uniform, {}, math.sqrt(2) * math.sqrt(3 / FAN_IN)),
    "kaiming a": (nn.init.kaiming_uniform, {"a": math.sqrt(5)}, 1 / math.sqrt(FAN_IN)),
    "kaiming out": (
        nn.init.kaiming_uniform, {"mode": "fan_out", "nonlinearity": "linear"},
        math.sqrt(3 / FAN_OUT),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNIFORM)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_uniform(name: str, dtype: str) -> None:
    nn.manual_seed(1)
    draw, given, bounds = UNIFORM[name]
    low, high = bounds if isinstance(bounds, tuple) else (-bounds, bounds)
    x = draw(SHAPE, **given, dtype=dtype)
    width = high - low
    assert x.dtype == {"f32": np.float32, "f64": np.float64}[dtype] and x.shape == SHAPE
    assert low <= x.min() < low + 0.01 * width and high - 0.01 * width < x.max() <= high
    assert abs(x.mean() - (low + high) / 2) < 0.02 * width
    assert abs(x.std() - width / math.sqrt(12)) < 0.01 * width


NORMAL = {
    "normal": (nn.init.normal, {"mean": 1.0, "std": 2.0}, 1.0, 2.0),
    "xavier": (nn.init.xavier_normal, {}, 0.0, math.sqrt(2 / (FAN_IN + FAN_OUT))),
    "kaiming": (nn.init.kaiming_normal, {"nonlinearity": "relu"}, 0.0, math.sqrt(2 / FAN_IN)),
}


@pytest.mark.parametrize("name", NORMAL)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_normal(name: str, dtype: str) -> None:
    nn.manual_seed(2)
    draw, given, mean, std = NORMAL[name]
    x = draw(SHAPE, **given, dtype=dtype)
    assert abs(x.mean() - mean) < 0.02 * std and abs(x.std() - std) < 0.02 * std
    assert abs(((x - mean) ** 4).mean() / std**4 - 3) < 0.2


def test_truncated() -> None:
    x = nn.init.trunc_normal((100, 100), std=1.0, a=-1.0, b=0.5)
    assert x.min() >= -1 and x.max() <= 0.5 and x.max() > 0.49
    with pytest.raises(Error, match="almost nothing"):
        nn.init.trunc_normal((2,), a=8.0, b=9.0)


@pytest.mark.parametrize("shape", [(5, 5), (3, 8), (8, 3), (4, 2, 3)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    x = nn.init.orthogonal(shape, gain=2.0, dtype="f64").reshape(shape[0], -1)
    small = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-12)


def test_sparse_eye_dirac_and_constants() -> None:
    x = nn.init.sparse((10, 6), 0.25, std=1.0)
    assert ((x == 0).sum(0) == 3).all() and abs(x).max() > 0.5
    assert (nn.init.eye((2, 3)) == np.eye(2, 3)).all()
    weight = nn.init.dirac((4, 4, 3, 3))
    layer = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    layer.weight.assign(weight)
    image = np.random.default_rng(0).standard_normal((1, 4, 5, 5)).astype(np.float32)
    assert (layer(image).numpy() == image).all()
    assert (nn.init.constant((3,), 2.5) == 2.5).all()


@pytest.mark.parametrize("name", [
    "uniform_", "normal_", "zeros_", "ones_", "xavier_uniform_", "xavier_normal_",
    "kaiming_uniform_", "kaiming_normal_", "orthogonal_", "trunc_normal_", "eye_",
])  # fmt: skip
def test_in_place(name: str) -> None:
    layer = nn.Linear(4, 6).double()
    before = layer.weight.numpy().copy()
    assert getattr(nn.init, name)(layer.weight) is layer.weight
    assert layer.weight.dtype is nn.f64 and (layer.weight.numpy() != before).any()
    nn.init.constant_(layer.bias, 0.5)
    assert (layer.bias.numpy() == 0.5).all()
    nn.init.sparse_(layer.weight, sparsity=1.0)
    assert not layer.weight.numpy().any()


def test_a_seed_repeats_and_draws_differ() -> None:
    nn.manual_seed(7)
    one, two = nn.Linear(8, 8), nn.Linear(8, 8)
    nn.manual_seed(7)
    again = nn.Linear(8, 8)
    assert (one.weight.numpy() == again.weight.numpy()).all()
    assert (one.weight.numpy() != two.weight.numpy()).any()


@pytest.mark.parametrize("call,said", [
    (lambda: nn.init.xavier_uniform((3,)), "at least two axes"),
    (lambda: nn.init.kaiming_uniform((3, 3), mode="in"), "no mode"),
    (lambda: nn.init.calculate_gain("swish"), "no gain"),
    (lambda: nn.init.eye((3,)), "takes a matrix"),
    (lambda: nn.init.orthogonal((3,)), "two axes"),
    (lambda: nn.init.dirac((3, 3)), "convolution"),
])  # fmt: skip
def test_errors(call: Any, said: str) -> None:
    with pytest.raises(Error, match=said) as raised:
        call()
    assert raised.value.code == "E0641"


# ------------------------------------------------------------ torch's defaults

LAYERS = {
    "linear": lambda n: n.Linear(200, 300),
    "bilinear": lambda n: n.Bilinear(20, 30, 40),
    "conv": lambda n: n.Conv2d(40, 60, 3, groups=2),
    "transposed": lambda n: n.ConvTranspose2d(40, 60, 3, groups=2),
    "embedding": lambda n: n.Embedding(200, 100),
    "lstm": lambda n: n.LSTM(60, 70),
    "gru cell": lambda n: n.GRUCell(60, 70),
    "batch norm": lambda n: n.BatchNorm2d(30),
    "prelu": lambda n: n.PReLU(30),
    "attention": lambda n: n.MultiheadAttention(80, 4),
    "attention kv": lambda n: n.MultiheadAttention(80, 4, kdim=60, add_bias_kv=True),
    "encoder": lambda n: n.TransformerEncoderLayer(64, 4, 128),
    "transformer": lambda n: n.Transformer(64, 4, 1, 1, 96),
}


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LAYERS)
def test_first_values_are_distributed_as_torchs(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra `oracle`)")
    torch.manual_seed(0)
    nn.manual_seed(0)
    theirs, ours = LAYERS[name](torch.nn).state_dict(), LAYERS[name](nn).state_dict()
    assert list(ours) == list(theirs)
    for key, array in ours.items():
        want = theirs[key].numpy()
        assert array.shape == want.shape and array.dtype == want.dtype, key
        if array.size < 50 or want.std() == 0:
            assert (want.std() == 0) == (array.std() == 0)
            assert want.std() or (array == want).all(), key
            continue
        spread, slack = want.std(), 4 / math.sqrt(array.size)
        assert abs(array.mean() - want.mean()) < 2 * slack * spread, key
        assert abs(array.std() - spread) < slack * spread, key
        assert abs(abs(array).max() / abs(want).max() - 1) < 0.35, key


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(-1, 3),
        lambda: nn.Linear(3.5, 3),
        lambda: nn.Conv2d(3, -4, 3),
        lambda: nn.Embedding(-2, 4),
    ],
)
def test_sizes_of_layers_are_whole_numbers(make: Any) -> None:
    with pytest.raises(Error, match="whole number"):
        make()
