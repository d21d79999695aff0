"""Which loop of a copy the threads share."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from irc.ir.ops.loop import For
from irc.ir.target import Target
from irc.passes.lower.finish import finish
from irc.passes.schedule.choose import choose

_spec = importlib.util.spec_from_file_location(
    "schedule_kernels", Path(__file__).with_name("kernels.py")
)
assert _spec is not None and _spec.loader is not None
kernels = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kernels)

TARGET = Target("t", vector_bits=512, registers=32, fma=True, expand=True, threads=2)


@pytest.mark.parametrize(
    ("shape", "perm", "extent"),
    [
        ((1, 224, 224, 3), (0, 3, 1, 2), 32),  # not the 3 channels, of which one thread gets 2
        ((2, 80, 500), (0, 2, 1), 2),
        ((512, 512), (1, 0), 32),
        ((64, 64), (1, 0), 0),  # over before a second thread has begun
    ],
)
def test_threads_get_even_shares_of_copies(
    shape: tuple[int, ...], perm: tuple[int, ...], extent: int
) -> None:
    made = kernels.kernel([shape], lambda b, x: b.transpose(x, perm=perm))
    scheduled = choose(made, TARGET).kernel
    shared = [op.extent for op in scheduled.walk() if isinstance(op, For) and op.kind == "parallel"]
    assert shared == ([extent] if extent else [])
    finish(scheduled, TARGET)
    given = kernels.inputs(made, 1)
    np.testing.assert_array_equal(kernels.interpret(scheduled, given)[0], given[0].transpose(perm))
