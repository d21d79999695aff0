"""What an epilogue reads is asked for before the sums are computed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from irc.ir.core import Builder, Value
from irc.ir.dims import evaluate, symbols_of
from irc.ir.ops.core import Func
from irc.ir.ops.loop import Prefetch
from irc.ir.symbols import loops_around
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
    return kernels.kernel([(39, depth), (depth, 37), (37,), (39, 37)], residual)  # type: ignore[no-any-return]


def test_residual_and_result_are_fetched_in_every_tile_and_the_bias_is_not() -> None:
    plain = product(64)
    made = choose(plain, TARGET).kernel
    asked = [(op.source.name, op.write) for op in made.walk() if isinstance(op, Prefetch)]
    tiles = {a.label for a in made.walk() if getattr(a, "label", "").startswith("s0.acc0")
             and "panel" not in a.label}  # fmt: skip
    assert asked == [("in3", False), ("out0", True)] * len(tiles) and len(tiles) > 1
    given = kernels.inputs(plain, 4)
    want = kernels.interpret(plain, given)[0]
    finish(made, TARGET)
    verify(made)
    np.testing.assert_allclose(kernels.interpret(made, given)[0], want, rtol=2e-5, atol=2e-5)


def test_the_next_tile_is_asked_for_row_by_row() -> None:
    """Over the rounds of one tile, every row of the next one is asked for."""
    made = choose(product(256), TARGET).kernel
    op = next(op for op in made.walk() if isinstance(op, Prefetch) and op.source.name == "in3")
    rounds = next(l for l in loops_around(op) if l.reduction)
    row = op.index[0]
    others = dict.fromkeys(symbols_of(row) - {rounds.var}, 0)
    asked = {evaluate(row, {**others, rounds.var: k}) for k in range(rounds.extent)}
    assert asked == set(range(min(asked), min(asked) + len(asked))) and min(asked) == len(asked)


def test_a_short_sum_leaves_no_time_to_fetch() -> None:
    made = choose(product(32), TARGET).kernel
    assert not any(isinstance(op, Prefetch) for op in made.walk())
