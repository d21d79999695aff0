"""Top-k, which has no generic form: its class's own loops, interpreted and compiled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from irc.ir.core import Builder
from irc.ir.ops.core import Func
from irc.ir.ops.topk import TopK
from irc.ir.types import BufferType, TensorType, f32, from_numpy, i64


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(
    ("shape", "k", "axis"), [((3, 17), 5, -1), ((1, 1), 1, 0), ((7, 2, 3), 7, 0), ((2, 9), 1, 1)]
)
def test_topk(
    shape: tuple[int, ...], k: int, axis: int, largest: bool, check: Callable[..., None]
) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 4, shape).astype(np.float32)  # many ties
    x.flat[:: max(1, x.size // 3)] = np.nan
    tensor = Func.make("main", [TensorType(f32, shape)])
    op = Builder(tensor.body).insert(TopK(*tensor.args, k=k, axis=axis, largest=largest))
    wants = [np.ascontiguousarray(w) for w in TopK.evaluate(x, k=k, axis=axis, largest=largest)]
    types = [BufferType(f32, shape), *[BufferType(from_numpy(w.dtype), w.shape) for w in wants]]
    func = Func.make("topk", types, ["x", "values", "at"], "kernel", ["values", "at"])
    op.loops(Builder(func.body), func.args[:1], func.args[1:])
    check(func, [x], wants, rtol=0, atol=0)
    assert types[2].dtype is i64
