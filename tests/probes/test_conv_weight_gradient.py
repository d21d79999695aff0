"""The gradient of a convolution's weights as one generic: the kernel window runs over the image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from irc.ir.core import Builder
from irc.ir.dims import sym
from irc.ir.ops.core import Func, Return, generic
from irc.ir.types import TensorType, f32


def weight_gradient(
    c: int, k: int, h: int, w: int, size: int, stride: int, pad: int, dilation: int, groups: int
) -> Func:
    """dw[K, C/G, R, S] = sum over n, p, q of dy[n, K, p, q] * x[n, C, p + r, q + s]."""
    n = sym("N")
    reach = dilation * (size - 1) + 1
    ph, pw = ((extent + 2 * pad - reach) // stride + 1 for extent in (h, w))
    func = Func.make("main", [TensorType(f32, (n, c, h, w)), TensorType(f32, (n, k, ph, pw))])
    b = Builder(func.body)
    o, i, r, s, m, p, q = (sym(v) for v in "oirsmpq")
    channel = o // (k // groups) * (c // groups) + i
    its = [
        ("o", k, "parallel"),
        ("i", c // groups, "parallel"),
        ("r", size, "parallel"),
        ("s", size, "parallel"),
        ("m", n, "reduction"),
        ("p", ph, "reduction"),
        ("q", pw, "reduction"),
    ]
    x_map = [m, channel, p * stride + r * dilation - pad, q * stride + s * dilation - pad]
    dw = generic(
        b,
        func.args,
        its,
        [x_map, [m, o, p, q]],
        [[o, i, r, s]],
        [TensorType(f32, (k, c // groups, size, size))],
        lambda b, e, f: b.mul(e, f),
        init=(0.0,),
        combine=lambda b, acc, e: b.add(acc, e),
        fills=(0.0, None),
    )
    b.emit(Return, dw)
    return func


@pytest.mark.parametrize(
    ("c", "k", "h", "w", "size", "stride", "pad", "dilation", "groups"),
    [
        (2, 3, 5, 6, 3, 1, 1, 1, 1),
        (4, 2, 7, 5, 3, 2, 1, 1, 2),
        (3, 3, 9, 7, 3, 1, 2, 2, 3),
        (1, 1, 3, 3, 1, 1, 0, 1, 1),
    ],
)
def test_weight_gradient(
    c: int,
    k: int,
    h: int,
    w: int,
    size: int,
    stride: int,
    pad: int,
    dilation: int,
    groups: int,
    check_func: Callable[..., None],
) -> None:
    func = weight_gradient(c, k, h, w, size, stride, pad, dilation, groups)
    rng = np.random.default_rng(0)
    ph, pw = (int(d) for d in func.args[1].tensor.shape[2:])
    x, dy = rng.standard_normal((2, c, h, w)), rng.standard_normal((2, k, ph, pw))
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    want = np.zeros((k, c // groups, size, size))
    for o in range(k):
        first = o // (k // groups) * (c // groups)
        for r in range(size):
            for s in range(size):
                rows, columns = (
                    r * dilation + stride * np.arange(ph),
                    s * dilation + stride * np.arange(pw),
                )
                cut = padded[:, first : first + c // groups][:, :, rows][:, :, :, columns]
                want[o, :, r, s] = np.einsum("ncpq,npq->c", cut, dy[:, o])
    check_func(
        func, [x.astype(np.float32), dy.astype(np.float32)], [want.astype(np.float32)], atol=1e-4
    )
