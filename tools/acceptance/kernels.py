"""Single kernels against the machine: FMA peak, copy bandwidth, OpenBLAS, a second thread.

The cases are those of tools/bench/kernels.py; the yardstick is measured in the same rounds.
"""

from __future__ import annotations

import statistics
from typing import Any

from ...backends.targets import choose
from ..bench.kernels import (
    STREAMS,
    Blas,
    conv_cases,
    copy_peak,
    fma_peak,
    gemm_case,
    rates,
    shares,
)
from ..bench.native import fork_join
from . import Measured, Skipped

ROUNDS = 30
SHARE = 0.75
BANDWIDTH_SHARE = 0.70
SPEED_UP = 1.8
FORK_US = 2.0


def judged(found: dict[str, dict[str, float]], bar: float, unit: str) -> Measured:
    """Each case's best over the yardstick's best, against the bar."""
    peak = found["peak"]["best"]
    parts = {n: v["best"] / peak for n, v in found.items() if n != "peak"}
    said = ", ".join([f"{n} {share:.0%}" for n, share in parts.items()])
    figure = f"{said} of {peak:.0f} {unit}"
    return Measured(figure, min(parts.values()) >= bar, {"rates": found, "shares": parts})


def gemm() -> Measured:
    """The product of two 960x960 matrices, both inputs, against the FMA peak and OpenBLAS."""
    case, blas = gemm_case(), Blas()
    ours, theirs, peak = [], [], []
    try:
        for _ in range(ROUNDS):
            peak.append(fma_peak())
            theirs.append(blas.rate())
            ours += rates(case, rounds=3)
    finally:
        blas.close()
    best, other, top = max(ours), max(theirs), max(peak)
    figure = f"{best:.0f} GFLOP/s, {best / top:.0%} of {top:.0f}; OpenBLAS {other:.0f}"
    details = {
        "irc": best,
        "irc_median": statistics.median(ours),
        "openblas": other,
        "openblas_median": statistics.median(theirs),
        "peak": top,
    }
    return Measured(figure, best >= SHARE * top and best >= other, details)


def conv() -> Measured:
    """Direct convolutions in the blocked layout against the FMA peak."""
    return judged(shares(conv_cases(), fma_peak, ROUNDS), SHARE, "GFLOP/s")


def bandwidth() -> Measured:
    """Streaming kernels of 64 MiB against a plain copy of 64 MiB."""
    found = shares(STREAMS, copy_peak, ROUNDS)
    return judged(found, BANDWIDTH_SHARE, "GB/s")


def two_threads() -> Measured:
    """Two threads over one on the large kernels that compute."""
    if choose("cpu").target.threads < 2:
        raise Skipped("one core")
    ratios = {}
    for case in [gemm_case(), *conv_cases()]:
        one, two = [], []
        for _ in range(ROUNDS):
            one += rates(case, 1, 2)
            two += rates(case, 2, 2)
        ratios[case.name] = max(two) / max(one)
    figure = ", ".join([f"{name} {ratio:.2f}x" for name, ratio in ratios.items()])
    return Measured(figure, min(ratios.values()) >= SPEED_UP, ratios)


def fork() -> Measured:
    """An empty parallel loop of two indices while the pool spins."""
    if choose("cpu").target.threads < 2:
        raise Skipped("one core")
    found = fork_join(2)
    least, median = min(found) * 1e6, statistics.median(found) * 1e6
    details: dict[str, Any] = {"least_us": least, "median_us": median}
    return Measured(f"{median:.2f} us, at best {least:.2f}", median < FORK_US, details)
