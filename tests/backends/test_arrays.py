"""Memory for results: aligned, never shared with an array that is still in use."""

from __future__ import annotations

import gc

import numpy as np

from irc.backends.arrays import Spare, address, empty


def test_large_blocks_are_reused_only_when_let_go():
    spare = Spare()
    first = spare.take(1 << 20).view(np.float32)
    kept = first[:10]
    first[:] = 1
    at = address(first)
    del first
    other = spare.take(1 << 20)
    assert address(other) != at, "a view still refers to the block"
    del kept
    gc.collect()
    assert address(spare.take(1 << 20)) == at


def test_kept_memory_is_bounded():
    spare = Spare(limit=4 << 20)
    held = [spare.take(1 << 20) for _ in range(10)]
    assert sum(b.size for b in spare.blocks) <= 4 << 20
    assert len({address(a) for a in held}) == 10
    spare.take(3 << 20)
    assert sum(b.size for b in spare.blocks) <= 4 << 20


def test_results_are_aligned():
    for shape in ((5000,), (1 << 19,)):
        array = empty(shape, np.dtype(np.float32))
        assert address(array) % 64 == 0 and array.shape == shape
