"""From scheduled loops to what an emitter prints: functions expanded, vectors and unrolled loops
written out.

The order matters: functions and multiply-adds on scalars first (few ops), then vectors, then
unrolling.  What nobody uses goes before, so that no printer names it.
May import: ir, passes.lower, passes.schedule.
"""

from __future__ import annotations

from ...ir.ops.core import Func
from ...ir.rewrite import worklist
from ...ir.target import Target
from ..schedule.simplify import simplify_kernel
from .expand import contract_fma, lanes_outward, unroll
from .extremes import drop_extremes
from .lanes import split_lanes
from .math import expand_math
from .transposes import transpose_tiles
from .vectorize import vectorize


def finish(kernel: Func, target: Target) -> None:
    """Make a scheduled kernel printable for `target`, in place."""
    simplify_kernel(kernel)
    expand_math(kernel, fma=target.fma)
    worklist(kernel, {})
    if target.fma:
        contract_fma(kernel)
    if target.expand:
        vectorize(kernel)
    elif target.unroll_tiles:
        lanes_outward(kernel)
    if target.expand or target.unroll_tiles:
        unroll(kernel)
        simplify_kernel(kernel)
        if drop_extremes(kernel):
            worklist(kernel, {})
    if target.expand:
        split_lanes(kernel)
        transpose_tiles(kernel)
