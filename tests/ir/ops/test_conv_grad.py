"""The derivatives of convolutions against torch, first and second order, and with symbolic dims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc.ir.core import Builder
from irc.ir.interpret import run
from irc.ir.ops.core import Func, Return
from irc.ir.types import parse_type

torch = pytest.importorskip("torch")

CASES = [
    {"x": (2, 3, 7, 6), "w": (4, 3, 3, 2), "strides": (2, 1), "pads": (1, 0, 2, 1)},
    {"x": (1, 4, 8, 7), "w": (6, 2, 3, 3), "groups": 2, "dilations": (2, 1), "pads": (2, 1, 2, 1)},
    {"x": (2, 6, 5, 5), "w": (12, 1, 3, 3), "groups": 6, "pads": (1, 1, 1, 1)},
    {"x": (2, 3, 13), "w": (5, 3, 4), "strides": (3,), "pads": (0, 2), "dilations": (2,)},
    {"x": (1, 2, 4, 5, 3), "w": (3, 2, 2, 3, 1), "pads": (1, 0, 0, 0, 1, 0)},
    {"x": (2, 3, 8, 8), "w": (5, 3, 1, 1), "strides": (2, 2)},
    {"x": (2, 3, 9, 8), "w": (5, 3, 3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)},
    {"x": (1, 2, 12), "w": (3, 2, 2), "strides": (4,)},
    {"x": (1, 2, 3), "w": (3, 2, 2), "pads": (5, 4)},
    {"x": (1, 2, 15), "w": (3, 2, 4), "strides": (4,), "dilations": (2,), "pads": (1, 3)},
]


def torch_conv(x: Any, w: Any, strides: Any, pads: Any, dilations: Any, groups: int) -> Any:
    """Pads may differ before and after, which torch's own argument cannot say."""
    rank = x.dim() - 2
    pads = pads or (0,) * 2 * rank
    wide = [p for k in reversed(range(rank)) for p in (pads[k], pads[rank + k])]
    conv = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d}.get(
        rank, torch.nn.functional.conv3d
    )
    x = torch.nn.functional.pad(x, wide)
    return conv(x, w, None, strides or 1, 0, dilations or 1, groups)


def operands(case: dict[str, Any], rng: Any) -> tuple[Any, Any, dict[str, Any]]:
    given = {"strides": (), "pads": (), "dilations": (), "groups": 1}
    given |= {k: v for k, v in case.items() if k not in ("x", "w")}
    made = [torch.tensor(rng.standard_normal(case[k]), requires_grad=True) for k in ("x", "w")]
    return made[0], made[1], given


def arrays(*tensors: Any) -> list[Any]:
    return [t.detach().numpy() for t in tensors]


@pytest.mark.parametrize("case", CASES)
def test_first_order(gradients: Any, case: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    x, w, attrs = operands(case, rng)
    y = torch_conv(x, w, **attrs)
    g = torch.tensor(rng.standard_normal(y.shape))
    want = torch.autograd.grad(y, (x, w), g)
    got = gradients("conv", arrays(x, w), arrays(g), **attrs)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_second_order(gradients: Any, case: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    x, w, attrs = operands(case, rng)
    y = torch_conv(x, w, **attrs)
    g = torch.tensor(rng.standard_normal(y.shape), requires_grad=True)
    dx, dw = torch.autograd.grad(y, (x, w), g, create_graph=True)
    a, c = (torch.tensor(rng.standard_normal(t.shape)) for t in (dx, dw))
    want = torch.autograd.grad((dx, dw), (x, w, g), (a, c))
    size, kernel = tuple(x.shape[2:]), tuple(w.shape[2:])
    dg, dw2 = gradients("conv_input_grad", arrays(g, w), arrays(a), size=size, **attrs)
    dx2, dg2 = gradients("conv_filter_grad", arrays(x, g), arrays(c), kernel=kernel, **attrs)
    for mine, theirs in zip((dx2, dw2, dg + dg2), want, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_by_every_way(apply: Any, case: dict[str, Any]) -> None:
    """evaluate, generic and decomposition of both agree."""
    rng = np.random.default_rng(2)
    x, w, attrs = operands(case, rng)
    g = torch.tensor(rng.standard_normal(torch_conv(x, w, **attrs).shape))
    apply("conv_filter_grad", *arrays(x, g), kernel=tuple(w.shape[2:]), **attrs)
    apply("conv_input_grad", *arrays(g, w), size=tuple(x.shape[2:]), **attrs)


TRANSPOSES = [
    {"x": (1, 3, 4, 5), "w": (3, 4, 2, 2), "strides": (2, 2)},
    {"x": (2, 4, 4, 3), "w": (4, 2, 3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1),
     "extra": (1, 1), "groups": 2},
    {"x": (1, 3, 4, 4), "w": (3, 2, 4, 4), "strides": (1, 3), "dilations": (2, 1)},
]  # fmt: skip


@pytest.mark.parametrize("case", TRANSPOSES)
def test_conv_transpose(gradients: Any, case: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    x, w, attrs = operands(case, rng)
    pads = (attrs["pads"] or (0,) * 4)[:2]
    y = torch.nn.functional.conv_transpose2d(
        x, w, None, attrs["strides"], pads, attrs.get("extra", 0), attrs["groups"],
        attrs["dilations"] or 1,
    )  # fmt: skip
    g = torch.tensor(rng.standard_normal(y.shape))
    want = torch.autograd.grad(y, (x, w), g)
    got = gradients("conv_transpose", arrays(x, w), arrays(g), **attrs)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-11)


def test_conv_transpose_beyond_torch(gradients: Any) -> None:
    """Pads below zero, and more extra elements than a stride, against differences."""
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((1, 2, 4)), rng.standard_normal((2, 1, 3))
    attrs = {"strides": (2,), "pads": (-3, -1), "extra": (3,)}
    g = rng.standard_normal((1, 1, 16))
    dx, dw = gradients("conv_transpose", [x, w], [g], **attrs)
    loss = lambda x, w: float((by(x, w, attrs) * g).sum())  # noqa: E731
    for array, found in ((x, dx), (w, dw)):
        for at in np.ndindex(array.shape):
            array[at] += 0.5
            high = loss(x, w)
            array[at] -= 1.0
            low = loss(x, w)
            array[at] += 0.5
            assert abs(high - low - found[at]) < 1e-10  # the loss is linear in each


def by(x: Any, w: Any, attrs: Any) -> Any:
    from irc.ir.ops.conv_transpose import ConvTranspose

    full = {"dilations": (), "groups": 1, **attrs}
    return ConvTranspose.evaluate(x, w, **full)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 2)])
def test_symbolic_dims(strides: tuple[int, int]) -> None:
    """The gradients of a convolution of any batch and size."""
    func = Func.make("main", [parse_type("f64[N, 3, H, W]"), parse_type("f64[5, 3, 3, 3]")])
    b = Builder(func.body)
    x, w = func.args
    op = b.conv(x, w, strides=strides, pads=(1, 1, 1, 1)).op
    dx, dw = op.vjp(b, op.result)
    made = dx.op.decompose(Builder(func.body, before=dx.op))
    b.emit(Return, dx, dw, made)
    rng = np.random.default_rng(5)
    for shape in ((2, 3, 8, 7), (1, 3, 5, 4), (1, 3, 6, 9)):
        given = [rng.standard_normal(shape), rng.standard_normal((5, 3, 3, 3))]
        got = run(func, given)
        tx, tw = (torch.tensor(a, requires_grad=True) for a in given)
        y = torch.nn.functional.conv2d(tx, tw, None, strides, 1)
        want = torch.autograd.grad(y, (tx, tw), y.detach())
        for mine, theirs in zip(got, (*want, want[0]), strict=True):
            np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-10)


def test_the_pads_take_no_part() -> None:
    """A filter gradient does not read g where x is in the pads: infinities there do no harm."""
    x, g = np.ones((1, 1, 3)), np.ones((1, 1, 3))
    g[0, 0, 0] = np.inf
    func = Func.make("main", [parse_type("f64[1, 1, 3]")] * 2)
    b = Builder(func.body)
    op = b.conv_filter_grad(*func.args, kernel=(3,), pads=(1, 1)).op
    b.emit(Return, op.result, op.generic(b, *op.operands))
    for got in run(func, [x, g]):
        np.testing.assert_array_equal(got, [[[2.0, np.inf, np.inf]]])
