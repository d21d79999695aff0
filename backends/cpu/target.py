"""The processors that code is compiled for: this machine, a narrower one made by masking its
features, and machines by name.

One schedule source serves them all; here stand only their registers, lanes and caches.
May import: ir, host.py, the LLVM backend, and the schedules for processors.
"""

from __future__ import annotations

from dataclasses import replace

from ...ir.target import Target
from ...passes.schedule.choose import schedule
from ..llvm.compile import CodegenTarget, assembly
from .host import codegen_target, host, named_target, present_features, vector_bits

_REGISTERS = {512: 32, 256: 16, 128: 16}
_STEM = "x86_64-linux"

_V2 = "cx16 popcnt sahf sse3 sse4.1 sse4.2 ssse3".split()
_V3 = [*_V2, *"avx avx2 bmi bmi2 f16c fma lzcnt movbe xsave".split()]
_V4 = [*_V3, *"avx512bw avx512cd avx512dq avx512f avx512vl".split()]
LEVELS = {"": (), "-v2": _V2, "-v3": _V3, "-v4": _V4}
"""Features of the levels of x86-64 (its psABI supplement, section 3.1.1), in LLVM's names."""

_PROBE = """\
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
define <16 x float> @probe(<16 x float> %x, <16 x float> %y) #0 {
  %z = call <16 x float> @llvm.fma.v16f32(<16 x float> %x, <16 x float> %y, <16 x float> %x)
  ret <16 x float> %z
}
attributes #0 = { "prefer-vector-width"="512" "min-legal-vector-width"="512" }
"""
_TRACES = {"avx512f": "%zmm", "avx": "%ymm", "fma": "vfmadd"}
"""What betrays a feature in the assembly of the probe."""


def cpu_target(threads: int | None = None, mask: str | None = None) -> Target:
    """This machine; `mask` ("avx2", "sse4.2") forbids features above it."""
    machine = host()
    made = _target("cpu", codegen_target(mask), threads or machine.cores)
    caches = machine.caches
    stream = 0 if made.vector_bits < 256 else max(caches.l3 // 2, 8 << 20)
    return replace(made, l1=caches.l1d, l2=caches.l2, l3=caches.l3, line=caches.line,
                   stream_bytes=stream)  # fmt: skip


def processor(name: str, threads: int = 1) -> tuple[Target, CodegenTarget]:
    """A machine by name ("x86_64-linux-v3", "aarch64-linux-cortex-a72"), for the passes and for
    LLVM.

    Errors: E0401 unknown name, E0492 LLVM does not know the processor in it.
    """
    codegen = named_target(name)
    level = name.removeprefix(_STEM)
    if name == "cpu":
        return cpu_target(threads), codegen
    if codegen.arch == "x86_64":
        features = LEVELS[level] if level in LEVELS else probed_features(codegen)
        codegen = replace(codegen, features=",".join([f"+{f}" for f in features]))
    return _target(name, codegen, threads), codegen


def probed_features(codegen: CodegenTarget) -> list[str]:
    """Which of the features that decide about vectors a processor of x86-64 has, as LLVM shows by
    using them.
    """
    text = assembly(_PROBE, codegen, name="probe")
    return [feature for feature, trace in _TRACES.items() if trace in text]


def _target(name: str, codegen: CodegenTarget, threads: int) -> Target:
    """Blocks of one vector: a channel block of several keeps pooled convolutions from fusing."""
    features = present_features(codegen)
    arm = codegen.arch.startswith(("aarch64", "arm"))
    bits = 128 if arm else vector_bits(features)
    return Target(
        name=name,
        arch=codegen.arch,
        vector_bits=bits,
        registers=32 if arm else _REGISTERS[bits],
        fma=arm or "fma" in features,
        expand=True,
        threads=threads,
        layout_block=bits // 32,
        widen=not features & {"avx512fp16", "fullfp16"},
        features=features,
        schedule=schedule,
    )


__all__ = ["LEVELS", "cpu_target", "probed_features", "processor"]
