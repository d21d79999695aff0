"""Rows that share sets of the cache are copied further apart; others, and rows read once, not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from irc.ir.ops.loop import Alloc
from irc.ir.target import Target
from irc.ir.verify import verify
from irc.passes.lower.finish import finish
from irc.passes.lower.scratch import hoist_scratch
from irc.passes.schedule import aliasing
from irc.passes.schedule.choose import choose

_spec = importlib.util.spec_from_file_location(
    "schedule_kernels", Path(__file__).with_name("kernels.py")
)
kernels = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
_spec.loader.exec_module(kernels)  # type: ignore[union-attr]

NARROW = Target("t", vector_bits=128, registers=32, fma=True, expand=True, threads=2)


def copies(shapes):
    """The shapes of the copies of rows that the chosen schedule makes, and that schedule."""
    chosen = choose(kernels.kernel(shapes, kernels.MATMUL), NARROW)
    allocs = [op for op in chosen.kernel.walk() if isinstance(op, Alloc)]
    return [a.result.buffer.shape for a in allocs if a.label.endswith(".rows")], chosen


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "found"),
    [
        (9, 1024, 64, [(9, 1024 + 16)]),
        (9, 1040, 64, []),
        (9, 1024, 16, []),
        (2, 1024, 64, []),
        (9, 3072, 64, [(9, 3072 + 16)]),
    ],
)
def test_which_rows_are_copied(rows, depth, columns, found):
    assert copies([(rows, depth), (depth, columns)])[0] == found


def test_the_copy_computes_the_same(monkeypatch):
    monkeypatch.setattr(aliasing, "ALIAS_BYTES", 64)
    shapes = [(15, 16), (16, 70)]
    found, chosen = copies(shapes)
    assert found == [(15, 32)]
    plain, made = kernels.kernel(shapes, kernels.MATMUL), chosen.kernel
    finish(made, NARROW)
    hoist_scratch(made)
    verify(made)
    given = kernels.inputs(plain, 2)
    want, got = kernels.interpret(plain, given)[0], kernels.interpret(made, given)[0]
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)
