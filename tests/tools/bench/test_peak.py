"""The yardsticks: plausible against one another in the same run."""

from __future__ import annotations

import numpy as np
import pytest

from irc.backends.cpu.host import host
from irc.tools.bench import peak


def test_wider_vectors_do_more() -> None:
    if host().vector_bits < 256:
        pytest.skip("this processor has 128-bit vectors only")
    narrow, wide = peak.measure_fma_peak(128), peak.measure_fma_peak(256)
    assert 1.4 * narrow.best < wide.best < 2.6 * narrow.best
    assert narrow.median <= narrow.best


@pytest.mark.parametrize("kind", ["copy", "stream"])
def test_copy_kernels_copy(kind: str) -> None:
    kernel, _ = peak._kernel(kind, host().vector_bits)
    step = peak._UNROLL * host().vector_bits // 8
    source, target = peak._aligned(8192), peak._aligned(8192)
    source[:] = np.arange(8192) % 251
    kernel(target.ctypes.data, source.ctypes.data, 8192 // step - 1)
    assert (target[: 8192 - step] == source[: 8192 - step]).all()
    assert (target[8192 - step :] == 1).all()


def test_cache_is_faster_than_memory() -> None:
    near = peak.measure_read_bandwidth(host().caches.l1d // 2)
    far = peak.measure_read_bandwidth(64 << 20, repeats=3)
    assert near.best > far.best
    assert peak.measure_copy_bandwidth(1 << 20, threads=2, repeats=3).best > 0
