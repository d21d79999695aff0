"""The measured train steps: what is compiled is what the interpreter says and what torch does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from irc.backends import compiler
from irc.backends.bound import Bound
from irc.backends.targets import choose
from irc.ir.interpret import run
from irc.tools.bench.train_nets import NETS, Momentum, Net, Sizes, gpt, mlp, step
from irc.tools.bench.train_peers import ENGINES
from irc.tools.bench.train_steps import Row, Steps, table

SIZES = Sizes(layers=1, width=24, heads=3, words=37, rows=2, length=11)
SMALL: dict[str, Callable[[], Net]] = {
    "mlp": lambda: mlp(7, (13, 19, 33, 5)),
    "gpt": lambda: replace(gpt(SIZES), rule=Momentum(lr=0.1)),
}
"""Adam would make steps of what rounding leaves of gradients that are zero (those of keys' biases).
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", SMALL)
def test_steps_of_odd_sizes_are_those_of_the_interpreter(name: str, threads: int) -> None:
    """Every parameter and slot after three steps, and the losses; nothing is copied."""
    net = SMALL[name]()
    made, choice = step(net), choose("cpu", threads)
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


def test_losses_follow_those_of_torch() -> None:
    pytest.importorskip("torch")
    ours, theirs = [ENGINES[name]("mlp", 1) for name in ("irc", "eager")]
    np.testing.assert_allclose([ours() for _ in range(5)], [theirs() for _ in range(5)], rtol=1e-4)


def test_the_table_says_how_many_times_faster() -> None:
    engines = {
        "irc": Steps([2.0, 2.0, 5.0], memory=10 << 20),
        "eager": Steps([4.0, 3.0], memory=30 << 20),
        "compile": Steps(error="none"),
    }
    row = Row("mlp", 1, engines)
    assert row.ratio() == 1.75 and row.ratio("least") == 1.5
    assert row.memory_ratio() == pytest.approx(1 / 3)
    assert "mlp" in table([row], tuple(engines)) and set(NETS) >= {"mlp", "gpt"}
