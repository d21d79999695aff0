"""What this machine can do at best: the yardstick of every "% of peak".  Kernels are LLVM text of
our own.

FMA rate from independent register accumulators, bandwidth from plain vector loads and stores.
Every figure comes as the best and the median of several runs; on a shared machine the best is the
machine, the median the hour.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import threading
import time
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_int64, c_void_p
from dataclasses import asdict, dataclass

import numpy as np

from ...backends.cpu.engine import Engine
from ...backends.cpu.host import codegen_target, host
from ...backends.llvm.compile import compile_many

ACCUMULATORS = 16
"""Independent chains: latency 4 times two ports needs at least 8, and 16 leaves registers over."""

_UNROLL = 4


@dataclass(frozen=True)
class Measured:
    """The best and the median of several runs, in `unit`."""

    best: float
    median: float
    unit: str


def _loop(name: str, parameters: str, phis: list[str], body: list[str], tail: list[str]) -> str:
    """A function that runs `body` %n times; %i counts."""
    head = ["entry:", "  br label %loop", "loop:", "  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]"]
    close = ["%i1 = add nuw nsw i64 %i, 1", "%more = icmp ult i64 %i1, %n"]
    close += ["br i1 %more, label %loop, label %done"]
    lines = [f"define void @{name}({parameters}, i64 %n) nounwind #0 {{", *head]
    lines += [f"  {line}" for line in (*phis, *body, *close)]
    return "\n".join([*lines, "done:", *(f"  {line}" for line in tail), "  ret void", "}"])


def _fma_text(bits: int) -> str:
    lanes = bits // 32
    vector = f"<{lanes} x float>"
    phis, body, tail = [], [], []
    for a in range(ACCUMULATORS):
        last = f"%v{a}_{_UNROLL - 1}"
        phis.append(f"%v{a} = phi {vector} [ zeroinitializer, %entry ], [ {last}, %loop ]")
        tail.append(f"%o{a} = getelementptr {vector}, ptr %out, i64 {a}")
        tail.append(f"store {vector} {last}, ptr %o{a}, align 4")
    call = f"call {vector} @llvm.fma.v{lanes}f32({vector} %x, {vector} %y, {vector}"
    for step in range(_UNROLL):
        for a in range(ACCUMULATORS):
            before = f"%v{a}_{step - 1}" if step else f"%v{a}"
            body.append(f"%v{a}_{step} = {call} {before})")
    # The factors are read from memory: known ones would be folded.
    phis.append(f"%x = load {vector}, ptr %out, align 4")
    phis.append(f"%y = load {vector}, ptr %out, align 4")
    declare = f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})"
    attribute = f'attributes #0 = {{ "prefer-vector-width"="{bits}" }}'
    return "\n".join([declare, _loop("run", "ptr %out", phis, body, tail), attribute])


def _copy_text(bits: int, hint: str = "") -> str:
    vector = f"<{bits // 32} x float>"
    step = _UNROLL * bits // 8
    body = [f"%at = mul nuw nsw i64 %i, {step}"]
    for side in ("out", "in"):
        body.append(f"%{side}p = getelementptr i8, ptr %{side}, i64 %at")
    for k in range(_UNROLL):
        body.append(f"%s{k} = getelementptr {vector}, ptr %inp, i64 {k}")
        body.append(f"%v{k} = load {vector}, ptr %s{k}, align 4")
    for k in range(_UNROLL):
        body.append(f"%d{k} = getelementptr {vector}, ptr %outp, i64 {k}")
        body.append(f"store {vector} %v{k}, ptr %d{k}, align {bits // 8}{hint}")
    attribute = f'attributes #0 = {{ "prefer-vector-width"="{bits}" }}'
    return _loop("run", "ptr noalias %out, ptr noalias %in", [], body, []) + "\n" + attribute


def _stream_text(bits: int) -> str:
    """The copy with stores that go past the caches, so that the target is not read first."""
    return _copy_text(bits, ", !nontemporal !0") + "\n!0 = !{i32 1}"


def _read_text(bits: int) -> str:
    vector = f"<{bits // 32} x i32>"
    count = 8
    phis, body, tail = [], [f"%far = mul nuw nsw i64 %i, {count * bits // 8}"], []
    body.append("%at = and i64 %far, %mask")  # round and round in one call
    body.append("%inp = getelementptr i8, ptr %in, i64 %at")
    for k in range(count):
        phis.append(f"%v{k} = phi {vector} [ zeroinitializer, %entry ], [ %w{k}, %loop ]")
        body.append(f"%p{k} = getelementptr {vector}, ptr %inp, i64 {k}")
        body.append(f"%l{k} = load {vector}, ptr %p{k}, align 4")
        body.append(f"%w{k} = xor {vector} %v{k}, %l{k}")
        tail.append(f"%o{k} = getelementptr {vector}, ptr %out, i64 {k}")
        tail.append(f"store {vector} %w{k}, ptr %o{k}, align 4")
    attribute = f'attributes #0 = {{ "prefer-vector-width"="{bits}" }}'
    return _loop("run", "ptr %out, ptr %in, i64 %mask", phis, body, tail) + "\n" + attribute


_TEXTS = {"fma": _fma_text, "copy": _copy_text, "stream": _stream_text, "read": _read_text}


_PARAMETERS = {
    "fma": [c_void_p],
    "copy": [c_void_p, c_void_p],
    "stream": [c_void_p, c_void_p],
    "read": [c_void_p, c_void_p, c_int64],
}


@functools.cache
def _kernel(kind: str, bits: int) -> tuple[Callable[..., None], Engine]:
    """The kernel as a function, and the engine that holds it."""
    name = f"peak_{kind}_{bits}"
    engine = Engine(compile_many({name: _TEXTS[kind](bits)}, codegen_target()))
    return CFUNCTYPE(None, *_PARAMETERS[kind], c_int64)(engine.address("run")), engine


def _times(run: Callable[[], object], repeats: int) -> list[float]:
    run()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


def _rate(work: float, times: list[float], unit: str) -> Measured:
    return Measured(work / min(times) / 1e9, work / statistics.median(times) / 1e9, unit)


def measure_fma_peak(bits: int | None = None, repeats: int = 20, threads: int = 1) -> Measured:
    """GFLOP/s, f32, two operations per fused multiply-add, of `threads` cores together.

    About 2 ms a run.
    """
    width = bits or host().vector_bits
    kernel, _ = _kernel("fma", width)
    outs = [np.zeros(ACCUMULATORS * width // 32, np.float32) for _ in range(threads)]
    rounds = 100_000
    work = 2.0 * rounds * _UNROLL * ACCUMULATORS * (width // 32) * threads

    def run(index: int) -> None:
        kernel(outs[index].ctypes.data, rounds)

    times = _times(lambda: run(0), repeats) if threads == 1 else _together(run, threads, repeats)
    return _rate(work, times, "GFLOP/s")


def _aligned(size: int) -> np.ndarray:
    """`size` bytes on a 4096-byte boundary, written once."""
    raw = np.ones(size + 4096, np.uint8)
    start = -raw.ctypes.data % 4096
    return raw[start : start + size]


def measure_copy_bandwidth(
    size: int = 64 << 20, threads: int = 1, repeats: int = 10, streaming: bool = False
) -> Measured:
    """GB/s of copying `size` bytes, bytes read plus bytes written; both buffers stay mapped.

    `threads` copy a part each, released together; `streaming` stores past the caches.
    """
    width = host().vector_bits
    kernel, _ = _kernel("stream" if streaming else "copy", width)
    step = _UNROLL * width // 8
    part = size // threads // step * step
    source, target = _aligned(part * threads), _aligned(part * threads)

    def copy(index: int) -> None:
        at = index * part
        kernel(target.ctypes.data + at, source.ctypes.data + at, part // step)

    work = 2.0 * part * threads
    if threads == 1:
        return _rate(work, _times(lambda: copy(0), repeats), "GB/s")
    return _rate(work, _together(copy, threads, repeats), "GB/s")


def _together(run: Callable[[int], None], threads: int, repeats: int) -> list[float]:
    """Seconds from a common start to the last end of `run(index)`, on a thread each."""
    gate = threading.Barrier(threads)
    starts = np.zeros((threads, repeats + 1))
    ends = np.zeros((threads, repeats + 1))

    def work(index: int) -> None:
        for k in range(repeats + 1):
            gate.wait()
            starts[index, k] = time.perf_counter()
            run(index)
            ends[index, k] = time.perf_counter()

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [float(seconds) for seconds in (ends.max(axis=0) - starts.min(axis=0))[1:]]


def measure_read_bandwidth(size: int | None = None, repeats: int = 20) -> Measured:
    """GB/s of reading `size` bytes again and again on one core; by default half of the L2.

    `size` is rounded down to a power of two.
    """
    width = host().vector_bits
    kernel, _ = _kernel("read", width)
    step = width  # 8 vectors of width / 8 bytes
    size = 1 << (size or host().caches.l2 // 2).bit_length() - 1
    source, out = _aligned(size), np.zeros(width // 4, np.int32)
    again = max(1, (64 << 20) // size)

    def run() -> None:
        kernel(out.ctypes.data, source.ctypes.data, size - 1, size // step * again)

    return _rate(float(size * again), _times(run, repeats), "GB/s")


def measure_all() -> dict[str, Measured]:
    """Every figure of this machine by name."""
    found = {}
    for bits in (128, 256, 512):
        if bits <= host().vector_bits:
            found[f"fma f32, {bits} bits, one core"] = measure_fma_peak(bits)
    for threads in range(1, host().cores + 1):
        if threads in (1, 2, host().cores):
            found[f"copy 64 MiB, {threads} threads"] = measure_copy_bandwidth(threads=threads)
            streamed = measure_copy_bandwidth(threads=threads, streaming=True)
            found[f"streaming copy, {threads} threads"] = streamed
    found["read of half the L2, one core"] = measure_read_bandwidth()
    return found


def main() -> None:
    """Print the figures, as a table or as JSON."""
    parser = argparse.ArgumentParser(description="Measure what this machine can do at best.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure_all()
    if arguments.json:
        print(json.dumps({name: asdict(figure) for name, figure in figures.items()}, indent=2))
        return
    for name, figure in figures.items():
        print(f"{name:32} {figure.best:8.1f} best {figure.median:8.1f} median {figure.unit}")


if __name__ == "__main__":
    main()
