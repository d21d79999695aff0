"""The `c` target: C99 for any compiler, with register tiles that an ordinary optimiser can keep.

Chosen by measuring `cc -O2` on x86-64 (no -march): tiles of four lanes written out, the lanes one
loop of constant extent, the reduction left a loop, and no guards in it: compilers leave a loop with
a guarded load scalar.
May import: ir, and the schedules for processors.
"""

from __future__ import annotations

from ...ir.target import Target
from ...passes.schedule.choose import schedule

LANES_BITS = 128
"""Four floats: what SSE, NEON and Helium hold, and what a scalar machine still unrolls well."""

REGISTERS = 18
"""Two more than SSE has: compilers take one factor of a product from memory, so that the registers
which the chooser sets aside hold accumulators.
"""


def c_target() -> Target:
    """Any C compiler: no multiply-add, one thread, no host."""
    return Target(
        "c",
        vector_bits=LANES_BITS,
        registers=REGISTERS,
        unroll_tiles=True,
        unroll=1,
        pad_reuse=1,
        layout_block=4,
        host=False,
        schedule=schedule,
    )


__all__ = ["c_target"]
