"""Networks by connection: inputs, layers and functions on symbols, models of them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from irc import nn
from irc.ir.errors import Error


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_a_layer_on_an_input() -> None:
    x = nn.Input((784,))
    layer = nn.Linear(784, 10)
    net = nn.Model(x, layer(x))
    a = normal(3, 784)
    assert (net(a).numpy() == layer(a).numpy()).all()
    assert list(net.state_dict()) == ["linear.weight", "linear.bias"]


def test_functions_operators_and_extents_are_steps() -> None:
    x = nn.Input((4, 6))
    h = nn.relu(x) * 2 + 1
    flat = h.reshape(h.shape[0], -1)
    net = nn.Model(x, nn.softmax(flat - flat.mean(1, keepdims=True), 1))
    a = normal(5, 4, 6)
    want = (np.maximum(a, 0) * 2 + 1).reshape(5, -1)
    want = want - want.mean(1, keepdims=True)
    want = np.exp(want) / np.exp(want).sum(1, keepdims=True)
    np.testing.assert_allclose(net(a).numpy(), want, rtol=1e-5)
    assert net(normal(2, 4, 6)).shape == (2, 24)


def test_several_inputs_and_outputs_in_containers() -> None:
    a, b = nn.Input((3,), name="a"), nn.Input((4,), name="b")
    both = nn.concatenate([a, b], 1)
    net = nn.Model([a, b], {"sum": both.sum(1), "parts": (both, nn.Linear(7, 2)(both))})
    x, y = normal(2, 3), normal(2, 4)
    one, two = net(x, y), net([x, y])
    np.testing.assert_allclose(one["sum"].numpy(), x.sum(1) + y.sum(1), rtol=1e-5)
    assert one["parts"][1].shape == (2, 2)
    assert (two["parts"][1].numpy() == one["parts"][1].numpy()).all()


def test_a_layer_called_twice_is_shared() -> None:
    a, b = nn.Input((3,)), nn.Input((3,))
    tower = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    net = nn.Model((a, b), tower(a) * tower(b))
    assert len(list(net.parameters())) == 2
    x, y = normal(2, 3), normal(2, 3, seed=1)
    np.testing.assert_array_equal(net(x, y).numpy(), (tower(x) * tower(y)).numpy())
    net(x, y).sum().backward()
    both = tower[0].weight.grad.numpy().copy()
    tower.zero_grad()
    (tower(x) * tower(y)).sum().backward()
    np.testing.assert_array_equal(tower[0].weight.grad.numpy(), both)


def test_a_residual_network_trains_its_statistics() -> None:
    x = nn.Input((3, 8, 8))
    y = nn.relu(nn.BatchNorm2d(3)(nn.Conv2d(3, 3, 3, padding=1)(x)) + x)
    net = nn.Model(x, nn.Linear(3, 2)(y.mean((2, 3))))
    before = net.batchnorm2d.running_mean.numpy().copy()
    assert (before == 0).all(), "building the network moved its statistics"
    net(normal(4, 3, 8, 8))
    assert (net.batchnorm2d.running_mean.numpy() != 0).all()
    assert net.training and net.batchnorm2d.training
    after = net.batchnorm2d.running_mean.numpy().copy()
    net.eval()(normal(4, 3, 8, 8))
    assert (net.batchnorm2d.running_mean.numpy() == after).all()


def test_building_draws_nothing_and_dropout_draws_anew() -> None:
    nn.manual_seed(3)
    state = nn.random.state()
    x = nn.Input((50,))
    net = nn.Model(x, nn.Dropout(0.5)(x))
    assert all((nn.random.state()[k] == v).all() for k, v in state.items())
    a = np.ones((4, 50), np.float32)
    assert (net(a).numpy() != net(a).numpy()).any()
    assert (net.eval()(a).numpy() == a).all()


def test_building_leaves_what_a_module_changes_in_any_mode() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", np.asarray(0))

        def forward(self, x: Any) -> Any:
            self.count = self.count + 1
            return x + nn.random.uniform(3)

    state, x, noisy = nn.random.state(), nn.Input((3,)), Noisy()
    net = nn.Model(x, noisy(x))
    assert noisy.count.item() == 0
    assert all((nn.random.state()[k] == v).all() for k, v in state.items())
    net(normal(2, 3))
    assert noisy.count.item() == 1


def test_modules_with_several_results_and_named_extents() -> None:
    x = nn.Input(("T", 3))
    y, (h, c) = nn.LSTM(3, 4, batch_first=True)(x)
    net = nn.Model(x, (y[:, -1], h, c))
    last, h_, c_ = net(normal(2, 5, 3))
    assert last.shape == (2, 4) and h_.shape == c_.shape == (1, 2, 4)
    np.testing.assert_array_equal(last.numpy(), h_.numpy()[0])
    assert net(normal(2, 7, 3))[0].shape == (2, 4)


def test_keyword_arguments_of_modules() -> None:
    x = nn.Input((5, 4))
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    y, weights = attention(x, x, x, need_weights=False)
    assert weights is None
    net = nn.Model(x, y)
    a = nn.tensor(normal(2, 5, 4))
    np.testing.assert_allclose(net(a).numpy(), attention(a, a, a)[0].numpy(), rtol=1e-5, atol=1e-6)


def test_a_model_is_a_layer_of_another() -> None:
    x = nn.Input((3,))
    inner = nn.Model(x, nn.relu(nn.Linear(3, 4)(x)))
    z = nn.Input((3,))
    outer = nn.Model(z, nn.Linear(4, 2)(inner(z) + inner(z * 2)))
    assert list(dict(outer.named_children())) == ["model", "linear"]
    assert outer(normal(2, 3)).shape == (2, 2)
    features = nn.Model(x, inner(x))
    assert features.model is inner


def test_names_can_be_given() -> None:
    x = nn.Input((3,))
    head = nn.Linear(3, 2)
    net = nn.Model(x, nn.Linear(2, 2)(head(x)), names={"head": head})
    assert list(net.state_dict())[:2] == ["head.weight", "head.bias"]


def test_parameters_in_operators_are_the_networks() -> None:
    x, scale = nn.Input((3,)), nn.Parameter(np.ones(3, np.float32))
    net = nn.Model(x, x * scale + scale)
    assert [n for n, _ in net.named_parameters()] == ["parameter_0"]
    net(normal(2, 3)).sum().backward()
    assert scale.grad.shape == (3,)


def test_a_model_traces_copies_and_takes_a_new_layer() -> None:
    x = nn.Input((3,))
    net = nn.Model(x, nn.Linear(3, 4)(nn.Linear(3, 3)(x)))
    a = normal(2, 3)
    traced = nn.trace(net, nn.Spec(("N", 3)))
    np.testing.assert_array_equal(traced(a).numpy(), net(a).numpy())
    twin = copy.deepcopy(net)
    twin.linear.weight.assign(np.zeros((3, 3)))
    assert (twin(a).numpy() != net(a).numpy()).any()
    net.linear_1 = nn.Linear(3, 7)
    assert net(a).shape == (2, 7)


def test_fixed_and_missing_batches() -> None:
    assert nn.Input((3,), batch=8).shape == (8, 3)
    x = nn.Input((3,), batch=None)
    assert nn.Model(x, x.sum())(normal(3)).shape == ()


# ------------------------------------------------------------ errors


def test_a_wrong_shape_says_so_while_connecting() -> None:
    with pytest.raises(Error) as raised:
        nn.Linear(784, 10)(nn.Input((783,)))
    assert "Linear 784->10" in str(raised.value) and "f32[N, 783]" in str(raised.value)


def test_calls_that_do_not_fit() -> None:
    a, b = nn.Input((3,), name="left"), nn.Input((3,), name="right")
    net = nn.Model([a, b], a + b)
    for given, said in (
        ((normal(2, 3),), "takes 2 inputs, 1 given"),
        ((normal(2, 3), normal(2, 4)), "right does not fit"),
        ((normal(2, 3), normal(3, 3)), "right does not fit"),
        ((normal(2, 3).astype(np.float64), normal(2, 3)), "left does not fit"),
    ):
        with pytest.raises(Error, match=said) as raised:
            net(*given)
        assert raised.value.code == "E0645"


def test_outputs_that_nothing_leads_to() -> None:
    a, b = nn.Input((3,)), nn.Input((3,), name="forgotten")
    with pytest.raises(Error, match="not given") as raised:
        nn.Model(a, a + b)
    assert "forgotten" in str(raised.value)
    with pytest.raises(Error, match="no network symbol"):
        nn.Model(a, nn.ones((3,)))
    with pytest.raises(Error, match="E0617"):
        bool(a.sum() > 0)
