"""What an epilogue reads is asked for before the sums are computed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from irc.ir.core import Builder, Value
from irc.ir.ops.core import Func
from irc.ir.ops.loop import Prefetch
from irc.ir.target import Target
from irc.ir.verify import verify
from irc.passes.lower.finish import finish
from irc.passes.schedule.choose import choose

_spec = importlib.util.spec_from_file_location(
    "schedule_kernels", Path(__file__).with_name("kernels.py")
)
kernels = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
_spec.loader.exec_module(kernels)  # type: ignore[union-attr]

TARGET = Target("t", vector_bits=512, registers=32, fma=True, expand=True, l2=4096)


def residual(b: Builder, x: Value, w: Value, bias: Value, r: Value) -> Value:
    """A product with a bias, which is small, and a residual, which is not."""
    return b.add(b.add(b.matmul(x, w), bias), r)  # type: ignore[no-any-return]


def product(depth: int) -> Func:
    return kernels.kernel([(19, depth), (depth, 37), (37,), (19, 37)], residual)  # type: ignore[no-any-return]


def test_the_residual_is_fetched_in_every_tile_and_the_bias_is_not() -> None:
    plain = product(64)
    made = choose(plain, TARGET).kernel
    asked = [op.source.name for op in made.walk() if isinstance(op, Prefetch)]
    tiles = {a.label for a in made.walk() if getattr(a, "label", "").startswith("s0.acc0")
             and "panel" not in a.label}  # fmt: skip
    assert asked == ["in3"] * len(tiles) and len(tiles) > 1
    given = kernels.inputs(plain, 4)
    want = kernels.interpret(plain, given)[0]
    finish(made, TARGET)
    verify(made)
    np.testing.assert_allclose(kernels.interpret(made, given)[0], want, rtol=2e-5, atol=2e-5)


def test_a_short_sum_leaves_no_time_to_fetch() -> None:
    made = choose(product(32), TARGET).kernel
    assert not any(isinstance(op, Prefetch) for op in made.walk())
