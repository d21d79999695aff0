"""Single kernels on this machine: cases of one op, their rates, and OpenBLAS beside them.

Each is a module of one op, compiled as any model is, and timed in a native loop on buffers that
stay.  Convolutions take and give channels in blocks, as they stand inside a network.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click
import numpy as np

from ...backends import compiler
from ...backends.targets import choose
from ...ir.core import Builder, Value
from ...ir.ops.core import Const, Func, Module, Return
from ...ir.types import TensorType, f32
from .native import NativeCall
from .peak import measure_copy_bandwidth, measure_fma_peak

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


def conv_cases() -> list[Case]:
    """The convolutions of resnet50 that a plain and a small map and a 1x1 stand for."""
    return [conv_case(*sizes) for sizes in CONVS]


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
    exe = compiler.build(compiler.lower(case.module(), choice), choice)
    rng = np.random.default_rng(0)
    return NativeCall(exe, [rng.standard_normal(s, np.float32) for s in case.shapes])


def rates(case: Case, threads: int = 1, rounds: int = 1) -> list[float]:
    """Work per nanosecond (GFLOP/s or GB/s) of a few calls, the first not counted."""
    call = bound(case, threads)
    call.seconds(1)
    repeat = max(1, int(5e-3 / call.seconds(1)))
    return [case.work / (call.seconds(repeat) / repeat) / 1e9 for _ in range(rounds)]


def fma_peak() -> float:
    """GFLOP/s of one core, now."""
    return measure_fma_peak(repeats=4).best


def copy_peak() -> float:
    """GB/s of a plain copy of 64 MiB by one core, now."""
    return measure_copy_bandwidth(BIG, repeats=3).best


def shares(
    cases: Sequence[Case], yardstick: Callable[[], float], rounds: int, threads: int = 1
) -> dict[str, dict[str, float]]:
    """Best and median of each case, and of the yardstick (`peak`), over rounds in turns."""
    found: dict[str, list[float]] = {"peak": []} | {case.name: [] for case in cases}
    for _ in range(rounds):
        found["peak"].append(yardstick())
        for case in cases:
            found[case.name] += rates(case, threads, 2)
    return {n: {"best": max(v), "median": statistics.median(v)} for n, v in found.items()}


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


@click.command()
@click.option("--threads", default=1, show_default=True, help="Threads of the kernels.")
@click.option("--rounds", default=8, show_default=True, help="Turns of each.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(threads: int, rounds: int, as_json: bool) -> None:
    """Rates of single kernels beside the FMA peak and the copy bandwidth of one core."""
    compute = shares([gemm_case(), *conv_cases()], fma_peak, rounds, threads)
    streams = shares(STREAMS, copy_peak, rounds, threads)
    if as_json:
        click.echo(json.dumps({"GFLOP/s": compute, "GB/s": streams}, indent=1))
        return
    for unit, found in (("GFLOP/s", compute), ("GB/s", streams)):
        for name, rate in found.items():
            share = rate["best"] / found["peak"]["best"]
            best, median = rate["best"], rate["median"]
            click.echo(f"{name:<32}{best:9.1f} best {median:9.1f} median {unit:<8}{share:6.0%}")
