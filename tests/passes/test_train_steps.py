"""Whole train steps of odd sizes: what is compiled is what the interpreter says."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc.backends import compiler
from irc.backends.bound import Bound
from irc.backends.targets import choose
from irc.ir.interpret import run

_spec = importlib.util.spec_from_file_location(
    "train_nets", Path(__file__).with_name("train_nets.py")
)
nets = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
sys.modules["train_nets"] = nets  # dataclasses look their module up
_spec.loader.exec_module(nets)  # type: ignore[union-attr]

SIZES = nets.Sizes(layers=1, width=24, heads=3, words=37, rows=2, length=11)
SMALL: dict[str, Callable[[], Any]] = {
    "mlp": lambda: nets.mlp(7, (13, 19, 33, 5)),
    "gpt": lambda: replace(nets.gpt(SIZES), rule=nets.Momentum(lr=0.1)),
}
"""Adam would make steps of what rounding leaves of gradients that are zero (those of keys' biases).
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", SMALL)
def test_steps_of_odd_sizes_are_those_of_the_interpreter(name: str, threads: int) -> None:
    """Every parameter and slot after three steps, and the losses; nothing is copied."""
    net = SMALL[name]()
    made, choice = nets.step(net), choose("cpu", threads)
    exe = compiler.build(compiler.lower(made, choice), choice)
    assert exe.program.copies == ()
    held = net.state()
    want = [x.copy() for x in held]
    bound = Bound(exe, dict(zip(exe.names, held, strict=False)))
    batch = net.batches()
    for _ in range(3):
        (loss,) = bound(*batch)
        *want, wanted = run(made, [*want, *batch])
        np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    for k, (ours, theirs) in enumerate(zip(held, want, strict=True)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4, err_msg=exe.names[k])
