"""Time, GFLOP/s and GB/s of each kernel of a model on given inputs, beside the machine's peaks.

Operations and bytes are those that the ops of a region need, operands and results each once; the
time of a kernel is that of all its calls in a run.  Imports: the driver, the rows of the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..backends.targets import Choice
from ..ir.errors import UnsupportedError
from ..ir.ops.core import Module
from .report.collect import Settings, can_profile, kernel_rows, launches, run_phases

RUNS = (3, 50)
"""Runs at least and at most."""


def kernel_profile(
    module: Module, choice: Choice, inputs: Mapping[str, Any], seconds: float
) -> list[dict[str, Any]]:
    """One row per kernel, the dearest first: name, ops, from, calls, seconds, share, gflops, gbs,
    of_peak, of_bandwidth.  E0470 where kernels of the target cannot be timed here.

    The model is specialised to the shapes of the inputs, so that every extent counts as it is.
    """
    from ..backends.cpu.profile import profile
    from .bench.peak import measure_copy_bandwidth, measure_fma_peak

    if not can_profile(choice):
        raise UnsupportedError(
            "E0470",
            f"kernels of target {choice.name} cannot be timed on this machine",
            hint="without --profile the model is timed as a whole",
        )
    shapes = {name: x.shape for name, x in inputs.items()}
    phases = run_phases(module, Settings("", choice, shapes))
    threads = choice.target.threads
    timed = profile(phases.planned, inputs, choice.target, threads=threads, runs=1)
    once = sum([k.seconds for k in timed])
    runs = max(RUNS[0], min(RUNS[1], int(seconds / max(once, 1e-6))))
    timed = profile(phases.planned, inputs, choice.target, threads=threads, runs=runs)
    peaks = {
        "gflops": measure_fma_peak(repeats=4).best * threads,
        "gbs": measure_copy_bandwidth(threads=threads, repeats=2).best,
    }
    measured = {"kernels": {k.kernel: k for k in timed}, "peaks": peaks}
    rows = [r for r in kernel_rows(phases, launches(phases), measured) if r["seconds"]]
    return sorted(rows, key=lambda row: -row["seconds"])


__all__ = ["kernel_profile"]
