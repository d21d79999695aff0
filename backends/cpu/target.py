"""The `cpu` target: this machine, or a narrower one made by masking its features.

May import: ir, host.py, and the schedules for processors.
"""

from __future__ import annotations

from ...ir.target import Target
from ...passes.schedule.choose import schedule
from .host import codegen_target, host, present_features, vector_bits

_REGISTERS = {512: 32, 256: 16, 128: 16}


def cpu_target(threads: int | None = None, mask: str | None = None) -> Target:
    """This machine; `mask` ("avx2", "sse4.2") forbids features above it."""
    machine = host()
    features = present_features(codegen_target(mask))
    arm = machine.arch.startswith(("aarch64", "arm"))
    bits = vector_bits(features)
    return Target(
        name="cpu",
        arch=machine.arch,
        vector_bits=bits,
        registers=32 if arm else _REGISTERS[bits],
        fma=arm or "fma" in features,
        expand=True,
        threads=threads or machine.cores,
        l1=machine.caches.l1d,
        l2=machine.caches.l2,
        l3=machine.caches.l3,
        line=machine.caches.line,
        layout_block=16 if bits == 512 else 8,
        features=features,
        schedule=schedule,
    )


__all__ = ["cpu_target"]
