"""Convolution against plain loops and torch, blocked layouts against pack, symbolic dims,
padding.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from irc.ir.errors import Error
from irc.ir.ops.conv import Conv
from irc.ir.ops.layout import Pack, Unpack
from irc.ir.types import parse_type

CASES = [
    {"x": (2, 3, 7, 6), "w": (4, 3, 3, 2), "strides": (2, 1), "pads": (1, 0, 2, 1)},
    {"x": (1, 4, 8, 7), "w": (6, 2, 3, 3), "groups": 2, "dilations": (2, 1), "pads": (2, 1, 2, 1)},
    {"x": (1, 6, 5, 5), "w": (12, 1, 3, 3), "groups": 6, "pads": (1, 1, 1, 1)},
    {"x": (2, 3, 13), "w": (5, 3, 4), "strides": (3,), "pads": (0, 2), "dilations": (2,)},
    {"x": (1, 2, 4, 5, 3), "w": (3, 2, 2, 3, 1), "pads": (1, 0, 0, 0, 1, 0)},
]


def conv_by_loops(
    x: Any, w: Any, strides: Any = (), pads: Any = (), dilations: Any = (), groups: int = 1
) -> Any:
    rank = x.ndim - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    pads = pads or (0,) * 2 * rank
    spatial = [
        (x.shape[2 + k] + pads[k] + pads[rank + k] - dilations[k] * (w.shape[2 + k] - 1) - 1)
        // strides[k]
        + 1
        for k in range(rank)
    ]
    out = np.zeros((x.shape[0], w.shape[0], *spatial))
    for n, o, *at in itertools.product(*[range(e) for e in out.shape]):
        for i, *tap in itertools.product(*[range(e) for e in w.shape[1:]]):
            place = [a * s + t * d - p for a, s, t, d, p in zip(at, strides, tap, dilations, pads)]
            if all(0 <= p < e for p, e in zip(place, x.shape[2:])):
                channel = o // (w.shape[0] // groups) * w.shape[1] + i
                out[(n, o, *at)] += float(x[(n, channel, *place)]) * float(w[(o, i, *tap)])
    return out


def operands(case: dict[str, Any], seed: int = 0) -> tuple[Any, Any, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    attrs = {k: v for k, v in case.items() if k not in ("x", "w")}
    return rng.standard_normal(case["x"]), rng.standard_normal(case["w"]), attrs


@pytest.mark.parametrize("case", CASES)
def test_by_loops(apply: Any, case: dict[str, Any]) -> None:
    x, w, attrs = operands(case)
    np.testing.assert_allclose(
        apply("conv", x, w, **attrs), conv_by_loops(x, w, **attrs), atol=1e-12
    )


@pytest.mark.oracle
@pytest.mark.parametrize("case", CASES[:2])
def test_against_torch(apply: Any, case: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra `oracle`)")
    x, w, attrs = operands({**case, "pads": (1, 2, 1, 2)})
    want = torch.nn.functional.conv2d(
        torch.from_numpy(x),
        torch.from_numpy(w),
        None,
        attrs.get("strides", 1),
        (1, 2),
        attrs.get("dilations", 1),
        attrs.get("groups", 1),
    )
    np.testing.assert_allclose(apply("conv", x, w, **attrs), want.numpy(), atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "outs", "block", "out_block"), [(7, 11, 4, 4), (8, 16, 4, 8), (5, 9, 4, 8)]
)
def test_blocked_layout_is_the_plain_one_packed(
    apply: Any, channels: int, outs: int, block: int, out_block: int
) -> None:
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((2, channels, 6, 5)), rng.standard_normal((outs, channels, 3, 3))
    attrs = {"strides": (2, 1), "pads": (1, 1, 1, 1)}
    px = Pack.evaluate(x, (1,), (block,), ())
    pw = Pack.evaluate(w, (1, 0), (block, out_block), ())
    y = apply("conv", px, pw, channel_block=block, out_block=out_block, out_channels=outs, **attrs)
    plain = apply("conv", x, w, **attrs)
    np.testing.assert_allclose(
        Unpack.evaluate(y, (1,), (block,), plain.shape, ()), plain, atol=1e-12
    )
    assert y.shape[1] == -(-outs // block)
    padding = np.moveaxis(y, -1, 2).reshape(2, -1, *plain.shape[2:])[:, outs:]
    assert (padding == 0).all()


def test_blocked_depthwise(apply: Any) -> None:
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((1, 7, 6, 5)), rng.standard_normal((7, 1, 3, 3))
    px = Pack.evaluate(x, (1,), (4,), ())
    pw = Pack.evaluate(w[:, 0], (0,), (4,), ())
    y = apply("conv", px, pw, channel_block=4, groups=7, pads=(1, 1, 1, 1))
    plain = apply("conv", x, w, groups=7, pads=(1, 1, 1, 1))
    np.testing.assert_allclose(Unpack.evaluate(y, (1,), (4,), plain.shape, ()), plain, atol=1e-12)


def test_u8_by_i8_is_exact(apply: Any) -> None:
    rng = np.random.default_rng(6)
    x = rng.integers(0, 256, (1, 3, 6, 6)).astype(np.uint8)
    w = rng.integers(-128, 128, (4, 3, 3, 3)).astype(np.int8)
    got = apply("conv", x, w, pads=(1, 1, 1, 1))
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, conv_by_loops(x, w, pads=(1, 1, 1, 1)))


def test_symbolic_extents(apply: Any) -> None:
    attrs = {"strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (), "groups": 1, "out": None,
             "channel_block": 0, "out_block": 0, "out_channels": 0}  # fmt: skip
    found = Conv.infer(parse_type("f32[N, 3, H, 2*W]"), parse_type("f32[8, 3, 3, 3]"), **attrs)
    assert str(found) == "f32[N, 8, (H + 1) // 2, W]"
    x, w, _ = operands({"x": (2, 3, 7, 6), "w": (4, 3, 3, 3)})
    types = ["f64[N, 3, H, W]", "f64[4, 3, 3, 3]"]
    got = apply("conv", x, w, types=types, pads=(1, 1, 1, 1))
    np.testing.assert_allclose(got, conv_by_loops(x, w, pads=(1, 1, 1, 1)), atol=1e-12)


def test_errors_say_what_was_found() -> None:
    attrs = {"strides": (), "pads": (), "dilations": (), "groups": 2, "out": None,
             "channel_block": 0, "out_block": 0, "out_channels": 0}  # fmt: skip
    with pytest.raises(Error, match=r"conv \(C5\)") as caught:
        Conv.infer(parse_type("f32[1, 5, 4, 4]"), parse_type("f32[4, 2, 3, 3]"), **attrs)
    assert "5 != 2 * 2" in caught.value.render()
    with pytest.raises(Error, match=r"conv \(C4\)") as caught:
        Conv.infer(parse_type("f32[1, 4, 4, 1]"), parse_type("f32[4, 2, 3, 3]"), **attrs)
    assert "spatial axis 1: extent 1" in caught.value.render()
