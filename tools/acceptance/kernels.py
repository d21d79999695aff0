"""Single kernels against the machine: FMA peak, copy bandwidth, OpenBLAS, a second thread.

Each is a module of one op, compiled as any model is, and timed in a native loop on buffers that
stay; the yardstick is measured in the same rounds.  Convolutions take and give channels in blocks,
as they stand inside a network.
"""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.core import Builder, Value
from ...ir.ops.core import Const, Func, Module, Return
from ...ir.types import TensorType, f32
from .. import driver
from ..bench.native import NativeCall, fork_join
from ..bench.peak import measure_copy_bandwidth, measure_fma_peak
from ..targets import choose
from . import Measured, Skipped

ROUNDS = 12
SHARE = 0.75
BANDWIDTH_SHARE = 0.70
SPEED_UP = 1.8
FORK_US = 2.0
BIG = 64 << 20
GEMM = 960


@dataclass(frozen=True)
class Case:
    """A kernel: its input shapes, its body, the work of one call (FLOP or bytes)."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    body: Callable[..., Value]
    work: float

    def module(self) -> Module:
        """The module of the one op."""
        func = Func.make("main", [TensorType(f32, s) for s in self.shapes])
        b = Builder(func.body)
        b.emit(Return, self.body(b, *func.args))
        return Module.make([func])


def weights(b: Builder, *shape: int) -> Value:
    """A seeded constant."""
    array = np.random.default_rng(1).standard_normal(shape).astype(np.float32) * 0.05
    return b.insert(Const(array)).result


def conv_case(size: int, channels: int, out: int, kernel: int) -> Case:
    """A convolution of one image, `kernel` odd, same padding, channels in the target's blocks."""
    block = choose("cpu", 1).target.layout_block or 1

    def body(b: Builder, x: Value) -> Value:
        plain = b.unpack(x, axes=(1,), blocks=(block,), shape=(1, channels, size, size))
        w = weights(b, out, channels, kernel, kernel)
        pad = kernel // 2
        y = b.conv(plain, w, strides=(1, 1), pads=(pad, pad, pad, pad))
        return b.pack(y, axes=(1,), blocks=(block,))

    shape = (1, channels // block, size, size, block)
    work = 2.0 * size * size * channels * out * kernel * kernel
    return Case(f"conv {kernel}x{kernel} {size}x{size}x{channels}-{out}", (shape,), body, work)


CONVS = ((56, 64, 64, 3), (14, 256, 256, 3), (28, 512, 128, 1))


def gemm_case() -> Case:
    """The product of two inputs."""
    shape = (GEMM, GEMM)
    return Case(f"gemm {GEMM}", (shape, shape), lambda b, x, y: b.matmul(x, y), 2.0 * GEMM**3)


def chain(b: Builder, x: Value) -> Value:
    """Six elementwise ops."""

    def scalar(value: float) -> Value:
        return b.insert(Const(np.array(value, np.float32))).result

    y = b.relu(b.add(b.mul(x, scalar(1.5)), scalar(0.25)))
    return b.min(b.sub(b.mul(y, y), x), scalar(6.0))


def norm(b: Builder, x: Value) -> Value:
    """Layer normalisation with scale and bias."""
    columns = x.tensor.shape[1]
    return b.layer_norm(x, weights(b, columns), weights(b, columns), axis=1)


STREAMS = (
    Case("elementwise chain", ((16384, 1024),), chain, 2.0 * BIG),
    Case("softmax", ((16384, 1024),), lambda b, x: b.softmax(x, axis=1), 2.0 * BIG),
    Case("layer norm", ((16384, 1024),), norm, 2.0 * BIG),
)


@functools.cache
def bound(case: Case, threads: int) -> NativeCall:
    """The case compiled for this machine, on random inputs."""
    choice = choose("cpu", threads)
    exe = driver.build(driver.lower(case.module(), choice), choice)
    rng = np.random.default_rng(0)
    return NativeCall(exe, [rng.standard_normal(s, np.float32) for s in case.shapes])


def rates(case: Case, threads: int = 1, rounds: int = 1) -> list[float]:
    """Work per nanosecond (GFLOP/s or GB/s) of a few calls, the first not counted."""
    call = bound(case, threads)
    call.seconds(1)
    repeat = max(1, int(5e-3 / call.seconds(1)))
    return [case.work / (call.seconds(repeat) / repeat) / 1e9 for _ in range(rounds)]


def shares(cases: list[Case], yardstick: Callable[[], float]) -> dict[str, dict[str, float]]:
    """Best and median of each case, and of the yardstick, over rounds in turns."""
    found: dict[str, list[float]] = {"peak": []} | {case.name: [] for case in cases}
    for _ in range(ROUNDS):
        found["peak"].append(yardstick())
        for case in cases:
            found[case.name] += rates(case, rounds=2)
    return {n: {"best": max(v), "median": statistics.median(v)} for n, v in found.items()}


def judged(found: dict[str, dict[str, float]], bar: float, unit: str) -> Measured:
    """Each case's best over the yardstick's best, against the bar."""
    peak = found["peak"]["best"]
    parts = {n: v["best"] / peak for n, v in found.items() if n != "peak"}
    said = ", ".join([f"{n} {share:.0%}" for n, share in parts.items()])
    figure = f"{said} of {peak:.0f} {unit}"
    return Measured(figure, min(parts.values()) >= bar, {"rates": found, "shares": parts})


def fma_peak() -> float:
    """GFLOP/s of one core, now."""
    return measure_fma_peak(repeats=4).best


# OpenBLAS, in a process of its own: it reads its thread count when numpy is imported --------------

_BLAS = """
import sys, time
import numpy as np
rng = np.random.default_rng(0)
a = rng.standard_normal((SIZE, SIZE), np.float32)
b = rng.standard_normal((SIZE, SIZE), np.float32)
out = np.empty((SIZE, SIZE), np.float32)
for line in sys.stdin:
    best = 1e9
    for _ in range(int(line)):
        start = time.perf_counter()
        np.matmul(a, b, out=out)
        best = min(best, time.perf_counter() - start)
    print(best, flush=True)
"""


class Blas:
    """numpy's matrix product with one thread."""

    def __init__(self) -> None:
        limits = {f"{n}_NUM_THREADS": "1" for n in ("OPENBLAS", "OMP", "MKL", "BLIS")}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BLAS.replace("SIZE", str(GEMM))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | limits,
        )

    def rate(self, repeats: int = 3) -> float:
        """GFLOP/s of the best of a few products."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{repeats}\n")
        self.process.stdin.flush()
        return 2.0 * GEMM**3 / float(self.process.stdout.readline()) / 1e9

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait(10)


# Lines --------------------------------------------------------------------------------------------


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
    return judged(shares([conv_case(*c) for c in CONVS], fma_peak), SHARE, "GFLOP/s")


def bandwidth() -> Measured:
    """Streaming kernels of 64 MiB against a plain copy of 64 MiB."""
    found = shares(list(STREAMS), lambda: measure_copy_bandwidth(BIG, repeats=3).best)
    return judged(found, BANDWIDTH_SHARE, "GB/s")


def two_threads() -> Measured:
    """Two threads over one on the large kernels that compute."""
    if choose("cpu").target.threads < 2:
        raise Skipped("one core")
    ratios = {}
    for case in [gemm_case(), *[conv_case(*c) for c in CONVS]]:
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
