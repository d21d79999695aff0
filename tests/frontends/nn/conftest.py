"""Layers and functions held against torch: the same text makes both, weights go by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from irc import nn

Make = Callable[[Any], Any]
RTOL, ATOL = 1e-9, 1e-10


@pytest.fixture
def against() -> Against:
    """Comparisons with torch; the test skips where torch is not installed."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra `oracle`)")
    torch.set_num_threads(1)
    return Against(torch)


def same(ours: Any, theirs: Any, what: str, rtol: float = RTOL) -> None:
    """Equal arrays in equal containers; NaN equals NaN."""
    if isinstance(theirs, (tuple, list)):
        assert len(ours) == len(theirs)
        for k, (a, b) in enumerate(zip(ours, theirs)):
            same(a, b, f"{what}[{k}]", rtol)
    elif theirs is None:
        assert ours is None, what
    else:
        found = theirs.detach().numpy()
        assert tuple(ours.shape) == found.shape, what
        np.testing.assert_allclose(ours.numpy(), found, rtol, ATOL, err_msg=what)


def leaves(tree: Any) -> list[Any]:
    """The floating tensors of nested tuples."""
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in leaves(part)]
    return [] if tree is None or "int" in str(tree.dtype) or str(tree.dtype)[0] == "i" else [tree]


class Against:
    """What a test does with torch."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch

    def layer(self, make: Make, *inputs: Any, train: bool = True, **kwargs: Any) -> Any:
        """A layer: the same state, results, gradients of inputs and parameters, buffers after."""
        self.torch.manual_seed(0)
        theirs = make(self.torch.nn).double().train(train)
        ours = make(nn).double().train(train)
        for p in theirs.parameters():
            if not p.abs().sum():  # zeros would hide what they scale
                self.torch.nn.init.normal_(p)
        ours.load_state_dict(theirs.state_dict())
        names = [name for name, _ in theirs.named_parameters()]
        assert [name for name, _ in ours.named_parameters()] == names
        got, have = self._run(ours, theirs, inputs, kwargs)
        for name, p in theirs.named_parameters():
            mine = dict(ours.named_parameters())[name].grad
            if p.grad is not None:
                same(mine if mine is not None else nn.zeros(p.shape, dtype="f64"), p.grad, name)
        for name, b in theirs.named_buffers():
            same(dict(ours.named_buffers())[name], b, name)
        self.traced(ours, inputs, kwargs)
        return got, have

    def twice(self, make: Make, x: Any) -> None:
        """The gradient of the squared gradient of the squared results, eager and traced."""
        theirs, ours = make(self.torch.nn).double(), make(nn).double()
        ours.load_state_dict(theirs.state_dict())
        other = self.torch.tensor(x, requires_grad=True)
        loss = (theirs(other) ** 2).sum()
        (first,) = self.torch.autograd.grad(loss, other, create_graph=True)
        (first**2).sum().backward()

        def squared(x: Any) -> Any:
            return (nn.grad(lambda z: (ours(z) ** 2).sum())(x) ** 2).sum()

        same(nn.grad(squared)(nn.tensor(x)), other.grad, "eager")
        same(nn.trace(nn.grad(squared), x)(x), other.grad, "traced")

    def function(self, call: Make, *inputs: Any, rtol: float = RTOL, **kwargs: Any) -> Any:
        """A function: `call(F)` gives it; the same results and gradients."""
        theirs = call(self.torch.nn.functional)
        return self._run(call(nn), theirs, inputs, kwargs, rtol)

    def frozen(self, f: Any, name: str, kwargs: dict[str, Any], reduction: str) -> Any:
        """A function with these settings; arrays among them in its own kind of tensor."""
        make = nn.tensor if f is nn else self.torch.tensor
        given = {k: make(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
        return lambda *inputs: getattr(f, name)(*inputs, **given, reduction=reduction)

    def logits(self, f: Any, given: dict[str, Any], reduction: str, **settings: Any) -> Any:
        """ctc_loss of logits: torch's gradient is that of log probabilities that sum to one."""
        make = nn.tensor if f is nn else self.torch.tensor
        named = {name: make(v) for name, v in given.items()} | settings
        return lambda x: f.ctc_loss(f.log_softmax(x, -1), **named, reduction=reduction)

    def _run(self, ours: Any, theirs: Any, inputs: Any, kwargs: Any, rtol: float = RTOL) -> Any:
        mine, others = self.tensors(inputs)
        my_named, other_named = [dict(zip(kwargs, t)) for t in self.tensors(kwargs.values())]
        got, have = ours(*mine, **my_named), theirs(*others, **other_named)
        same(got, have, "result", rtol)
        total, other_total = 0.0, 0.0
        for a, b in zip(leaves(got), leaves(have)):
            weight = np.random.default_rng(3).standard_normal(tuple(b.shape))
            total = total + (a * weight).sum()
            other_total = other_total + (b * self.torch.tensor(weight)).sum()
        other_total.backward()
        total.backward()
        for k, (a, b) in enumerate(zip(mine, others)):
            if getattr(b, "grad", None) is not None:
                same(a.grad, b.grad, f"gradient of input {k}", rtol)
        return got, have

    def tensors(self, inputs: Any) -> tuple[list[Any], list[Any]]:
        """Our and torch's tensors of arrays; floats ask for gradients, other things pass."""
        mine: list[Any] = []
        others: list[Any] = []
        for x in inputs:
            if isinstance(x, (tuple, list)) and x and isinstance(x[0], np.ndarray):
                a, b = self.tensors(x)
                mine.append(tuple(a))
                others.append(tuple(b))
            elif isinstance(x, np.ndarray):
                needs = x.dtype == np.float64
                mine.append(nn.tensor(x, requires_grad=needs))
                others.append(self.torch.tensor(x, requires_grad=needs))
            else:
                mine.append(x)
                others.append(x)
        return mine, others

    def traced(self, layer: Any, inputs: Any, kwargs: Any) -> None:
        """The traced layer, interpreted, gives what the eager one gives, and the same buffers."""
        state = layer.state_dict()
        mine = self.tensors(inputs)[0]
        named = dict(zip(kwargs, self.tensors(kwargs.values())[0]))
        eager, after = layer(*mine, **named), layer.state_dict()
        layer.load_state_dict(state)
        found = nn.trace(lambda *xs: layer(*xs, **named), *mine)(*mine)
        equal(found, eager)
        for name, array in layer.state_dict().items():
            np.testing.assert_array_equal(array, after[name], err_msg=name)


def equal(found: Any, eager: Any) -> None:
    """The same values in nested tuples, to the bit."""
    if isinstance(eager, (tuple, list)):
        assert len(found) == len(eager)
        for a, b in zip(found, eager):
            equal(a, b)
    elif eager is not None:
        np.testing.assert_array_equal(found.numpy(), eager.numpy())
