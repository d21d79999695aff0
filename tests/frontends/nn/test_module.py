"""Modules: what they hold, torch's names and weights, modes, mistakes, copies."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import irc
from irc import nn
from irc.ir.errors import Error

RNG = np.random.default_rng(5)
X = RNG.standard_normal((2, 3)).astype(np.float32)


class Block(nn.Module):
    """A layer, a parameter, a buffer that is kept and one that is not."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.fc = nn.Linear(3, width)
        self.scale = nn.Parameter(np.ones(width, np.float32))
        self.bias = None
        self.register_buffer("count", np.zeros((), np.float32))
        self.register_buffer("scratch", np.zeros(2, np.float32), persistent=False)

    def forward(self, x: Any) -> Any:
        self.count = self.count + 1
        return self.fc(x) * self.scale


class Net(nn.Module):
    """Blocks in a list, a dict and a sequence; one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(3), Block(3)])
        self.heads = nn.ModuleDict({"a": nn.Linear(3, 2), "b": self.blocks[0]})
        self.body = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        self.weights = nn.ParameterList([np.ones(2, np.float32)])

    def forward(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.heads["a"](self.body(x)) * self.weights[0]


NAMES = [
    "blocks.0.scale", "blocks.0.fc.weight", "blocks.0.fc.bias", "blocks.1.scale",
    "blocks.1.fc.weight", "blocks.1.fc.bias", "heads.a.weight", "heads.a.bias", "body.0.weight",
    "body.0.bias", "weights.0",
]  # fmt: skip


def test_names_and_walks() -> None:
    net = Net()
    assert [n for n, _ in net.named_parameters()] == NAMES
    assert len(list(net.parameters())) == len(NAMES)
    assert [n for n, _ in net.named_buffers()] == [
        "blocks.0.count", "blocks.0.scratch", "blocks.1.count", "blocks.1.scratch",
    ]  # fmt: skip
    assert [n for n, _ in net.named_children()] == ["blocks", "heads", "body", "weights"]
    assert sum(isinstance(m, nn.Linear) for m in net.modules()) == 4
    assert net.get_submodule("blocks.1.fc") is net.blocks[1].fc
    assert len(net.blocks) == 2 and net.blocks[-1] is net.blocks[1] and "a" in net.heads
    assert isinstance(net.body[:1], nn.Sequential) and len(net.body[:1]) == 1
    text = repr(net)
    assert "(blocks): ModuleList(" in text and "    (fc): Linear" in text
    visited: list[str] = []
    assert net.apply(lambda m: visited.append(type(m).__name__)) is net and visited[-1] == "Net"


def test_state_dict_has_torchs_names() -> None:
    torch = pytest.importorskip("torch")
    net = Net()
    state = net.state_dict()
    assert "blocks.0.count" in state and "blocks.0.scratch" not in state
    assert "heads.b.scale" in state  # a tied module under each name, as in torch
    state["body.0.bias"][:] = 7
    assert not (net.body[0].bias.numpy() == 7).any()
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU())
    net.body.load_state_dict(theirs.state_dict())
    want = theirs(torch.tensor(X)).detach().numpy()
    np.testing.assert_allclose(net.body(X).numpy(), want, 1e-5, 1e-6)
    theirs.load_state_dict({k: torch.tensor(v) for k, v in net.body.state_dict().items()})
    half = {k: v.to(torch.bfloat16) for k, v in theirs.state_dict().items()}
    net.body.load_state_dict(half)
    assert net.body[0].weight.dtype is nn.f32


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    net = Net()
    before, state = net.state_dict(), net.state_dict()
    del state["weights.0"]
    state["more"] = np.ones(2)
    state["body.0.bias"] = np.ones(9)
    state["heads.a.bias"] = np.full(2, 9.0)
    with pytest.raises(irc.Error, match="E0621") as found:
        net.load_state_dict(state)
    for said in ("missing: weights.0", "unexpected: more", "expected [3], found [9]"):
        assert said in str(found.value)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    del state["body.0.bias"]
    net.load_state_dict(state, strict=False)
    assert net.heads["a"].bias.tolist() == [9.0, 9.0]


def test_modes_dtypes_and_gradients() -> None:
    net = Net().eval()
    assert not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())
    assert net.double().blocks[0].fc.weight.dtype is nn.f64
    assert net.blocks[0].count.dtype is nn.f64 and net(nn.tensor(X, "f64")).dtype is nn.f64
    assert net.to("bfloat16")(nn.tensor(X, "bf16")).dtype is nn.bf16
    net = Net()
    net.blocks[0].requires_grad_(False)
    net(X).sum().backward()
    assert net.blocks[0].scale.grad is None and net.blocks[1].scale.grad is not None
    net.zero_grad()
    assert net.blocks[1].scale.grad is None


def test_buffers_keep_no_history() -> None:
    net = Block()
    for _ in range(3):
        net(X)
    assert float(net.count) == 3 and net.count.is_leaf
    net.count = net.scale.sum()
    assert not net.count.requires_grad and "count" in net.state_dict()
    with pytest.raises(irc.Error, match="E0620.*parameter"):
        net.scale = np.ones(4)
    net.scale = None
    assert net.scale is None and "scale" not in net.state_dict()
    net.scale = nn.Parameter(np.ones(2))
    assert "scale" in net.state_dict()
    del net.count
    with pytest.raises(AttributeError, match="no attribute 'count'.*scratch"):
        _ = net.count


def test_mistakes_of_a_class() -> None:
    class Forgot(nn.Module):
        def __init__(self) -> None:
            self.fc = nn.Linear(2, 2)

    class Lacking(nn.Module):
        pass

    with pytest.raises(irc.Error, match=r"E0620.*super\(\)") as found:
        Forgot()
    assert "test_module.py" in str(found.value)
    with pytest.raises(irc.Error, match="E0620.*forward"):
        Lacking()(X)


def test_copies() -> None:
    net = Net()
    net(X)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert [n for n, _ in other.named_parameters()] == NAMES
        assert other.heads["b"] is other.blocks[0]
        np.testing.assert_array_equal(other(X).numpy(), net(X).numpy())
        other.weights[0].assign([5.0, 5.0])
        assert net.weights[0].tolist() == [1.0, 1.0]


def test_modules_as_arguments_of_compiled_functions() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    run = irc.compile(lambda net, x: net(x))
    nn.manual_seed(1)
    want = net(X)
    nn.manual_seed(1)
    np.testing.assert_allclose(run(net, X).numpy(), want.numpy(), 1e-5, 1e-6)
    net.eval()
    np.testing.assert_allclose(run(net, X).numpy(), net(X).numpy(), 1e-5, 1e-6)
    assert len(run.programs) == 2
    net[0].weight = nn.Parameter(np.zeros((3, 3), np.float32))
    np.testing.assert_allclose(run(net, X).numpy(), net(X).numpy(), 1e-5, 1e-6)
    traced = nn.trace(lambda net, x: net(x), net, X)
    assert traced.parameters == ["0.weight", "0.bias"] and traced.inputs == ("x",)


def test_parts_of_a_sequence_are_called() -> None:
    with pytest.raises(Error, match="part 1 is no module: None"):
        nn.Sequential(nn.Linear(2, 2), None)
    with pytest.raises(Error, match=r"nn.ReLU\(...\), an object"):
        nn.Sequential(nn.Linear(2, 2), nn.ReLU)
