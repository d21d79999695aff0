"""The gradients of pools against torch: ties, ceil mode, dilation, pads, second order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

CASES = [
    {"kernel": (3, 2), "strides": (2, 1), "pads": (1, 0, 1, 0)},
    {"kernel": (2, 2), "strides": (2, 2)},
    {"kernel": (2, 2), "strides": (2, 2), "ceil_mode": True},
    {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "ceil_mode": True},
    {"kernel": (2, 2), "strides": (3, 3), "ceil_mode": True},
    {"kernel": (2, 3), "strides": (1, 1), "dilations": (3, 2), "pads": (1, 1, 1, 1)},
    {"kernel": (2, 2), "strides": (4, 3), "dilations": (2, 2)},
    {"kernel": (4, 3), "strides": (4, 3)},
]


def torch_max(x: Any, case: dict[str, Any]) -> Any:
    return torch.nn.functional.max_pool2d(
        x, case["kernel"], case["strides"], case.get("pads", (0, 0))[:2],
        case.get("dilations", 1), case.get("ceil_mode", False),
    )  # fmt: skip


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("case", CASES)
def test_max_pool(gradients: Any, apply: Any, case: dict[str, Any], levels: int) -> None:
    """With few levels there are ties in every window."""
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.integers(-levels, levels, (2, 3, 8, 7)) / 2, requires_grad=True)
    y = torch_max(x, case)
    g = torch.tensor(rng.standard_normal(y.shape), requires_grad=True)
    (want,) = torch.autograd.grad(y, x, g, create_graph=True)
    given = [x.detach().numpy(), g.detach().numpy()]
    (got,) = gradients("max_pool", given[:1], given[1:], **case)
    np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-12)
    np.testing.assert_array_equal(apply("max_pool_grad", *given, **case), got)
    h = torch.tensor(rng.standard_normal(x.shape))
    (second,) = torch.autograd.grad(want, g, h)
    none, mine = gradients("max_pool_grad", given, [h.numpy()], **case)
    assert none is None
    np.testing.assert_array_equal(mine, second.numpy())


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("case", [c for c in CASES if "dilations" not in c])
def test_avg_pool(gradients: Any, apply: Any, case: dict[str, Any], counted: bool) -> None:
    rng = np.random.default_rng(1)
    x = torch.tensor(rng.standard_normal((2, 3, 8, 7)), requires_grad=True)
    pads = case.get("pads", (0, 0))[:2]
    y = torch.nn.functional.avg_pool2d(
        x, case["kernel"], case["strides"], pads, case.get("ceil_mode", False), counted
    )
    g = torch.tensor(rng.standard_normal(y.shape), requires_grad=True)
    (want,) = torch.autograd.grad(y, x, g, create_graph=True)
    given = {**case, "count_include_pad": counted}
    (got,) = gradients("avg_pool", [x.detach().numpy()], [g.detach().numpy()], **given)
    np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-12)
    apply("avg_pool_grad", g.detach().numpy(), size=(8, 7), **given)
    h = torch.tensor(rng.standard_normal(x.shape))
    (second,) = torch.autograd.grad(want, g, h)
    (mine,) = gradients("avg_pool_grad", [g.detach().numpy()], [h.numpy()], size=(8, 7), **given)
    np.testing.assert_allclose(mine, second.numpy(), atol=1e-12)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("case", [c for c in CASES if "dilations" not in c and "pads" not in c])
def test_lp_pool(gradients: Any, apply: Any, case: dict[str, Any], p: int) -> None:
    rng = np.random.default_rng(2)
    x = torch.tensor(rng.standard_normal((2, 3, 8, 8)))
    x[0, 0] = 0
    x.requires_grad_()
    kernel, strides = case["kernel"], case["strides"]
    y = torch.nn.functional.avg_pool2d(
        x.abs() ** p, kernel, strides, 0, case.get("ceil_mode", False), divisor_override=1
    )
    g = torch.tensor(rng.standard_normal(y.shape))
    (want,) = torch.autograd.grad(torch.where(y == 0, 0 * y, y) ** (1 / p), x, g)
    (got,) = gradients("lp_pool", [x.detach().numpy()], [g.numpy()], p=p, **case)
    np.testing.assert_allclose(got[0, 1:], want[0, 1:].numpy(), atol=1e-12)
    np.testing.assert_allclose(got[1:], want[1:].numpy(), atol=1e-12)
    np.testing.assert_array_equal(got[0, 0], 0)  # the norm at zero


def test_nan_is_the_greatest(gradients: Any) -> None:
    x = np.array([[[1.0, 3.0, np.nan, 2.0, 5.0, np.nan]]])
    (got,) = gradients("max_pool", [x], [np.array([[[7.0, 8.0]]])], kernel=(3,), strides=(3,))
    np.testing.assert_array_equal(got, [[[0, 0, 7.0, 0, 0, 8.0]]])


def test_blocked_channels(apply: Any) -> None:
    """Lanes behind the positions: the same gradients, channel by channel."""
    rng = np.random.default_rng(3)
    x = rng.integers(-3, 3, (2, 2, 6, 5, 4)).astype(np.float64)
    for case in (CASES[0], CASES[1], CASES[3]):
        moved = np.moveaxis(x, -1, 2).reshape(2, 8, 6, 5)
        g = rng.standard_normal(apply("max_pool", moved, **case).shape)
        want = apply("max_pool_grad", moved, g, **case)
        split = np.moveaxis(g.reshape(2, 2, 4, *g.shape[2:]), 2, -1)
        got = apply("max_pool_grad", x, split, **case, channel_block=4)
        np.testing.assert_array_equal(np.moveaxis(got, -1, 2).reshape(want.shape), want)
        mean = apply("avg_pool_grad", split, size=(6, 5), **case, channel_block=4)
        plain = apply("avg_pool_grad", g, size=(6, 5), **case)
        np.testing.assert_allclose(np.moveaxis(mean, -1, 2).reshape(plain.shape), plain)
