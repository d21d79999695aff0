"""Writing out loops: names stay apart, and no kernel grows without bound."""

import numpy as np
import pytest

from irc.ir.interpret_loops import run_kernel
from irc.ir.kernel_builder import KernelBuilder
from irc.ir.ops.core import Func
from irc.ir.ops.loop import For
from irc.ir.verify import verify
from irc.passes.lower import expand


def sums() -> Func:
    """out[i] = the sum of row i of in, every loop to be written out."""
    k = KernelBuilder("sums", "f32[4, 6]", "f32[4]")
    given, out = k.args
    with k.loop("i", 4, "unroll") as i:
        acc = k.alloc("f32[]", "register")
        k.store(k.const(0.0), acc)
        with k.loop("j", 6, "unroll", reduction=True) as j:
            k.accumulate(k.load(given, i, j), acc)
        k.store(k.load(acc), out, i)
    return k.func


@pytest.mark.parametrize(("most", "left"), [(1000, []), (60, ["j"]), (10, ["i", "j"])])
def test_long_loops_stay_loops(most: int, left: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Reductions are kept as loops first."""
    monkeypatch.setattr(expand, "MOST_OPS", most)
    kernel = sums()
    expand.unroll(kernel)
    verify(kernel)
    found = {op.var.split(".")[0] for op in kernel.walk() if isinstance(op, For)}
    assert sorted(found) == left
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    y = np.zeros(4, np.float32)
    assert run_kernel(kernel, [x, y]) == 0
    np.testing.assert_array_equal(y, x.sum(1))
