"""The HLS printer: pragmas and processes in the text, and the text compiled and run on the host."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc.backends.hls.printer import SHIM, emit_func
from irc.ir.errors import UnsupportedError
from irc.ir.kernel_builder import KernelBuilder
from irc.ir.ops.core import Func
from irc.ir.ops.loop import Pop, Push
from irc.ir.types import i32

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
FLAGS = [
    "-std=c++14",
    "-O1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-fPIC",
    "-shared",
]


def simulate(func: Func, folder: Path, *arrays: np.ndarray[Any, Any]) -> int:
    """Compile with the shim, and call the kernel."""
    source, library = folder / "k.cpp", folder / "k.so"
    source.write_text(emit_func(func))
    command = ["g++", *FLAGS, "-I", str(SHIM), "-o", str(library), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + source.read_text()
    return getattr(ctypes.CDLL(str(library)), func.sym)(
        *[ctypes.c_void_p(a.ctypes.data) for a in arrays]
    )  # type: ignore[no-any-return]


def running_sum(size: int) -> Func:
    """Doubles pass through a stream into a running sum over a window of three."""
    k = KernelBuilder("running", f"i32[{size}]", f"i32[{size}]")
    x, y = k.args
    queue = k.alloc("i32[4]", "stream", "queue")
    with k.process("source"), k.loop("i", size, "pipeline") as i:
        v = k.load(x, i)
        k.emit(Push, k.add(v, v), queue)
    with k.process("window"):
        last = k.alloc("i32[3]", "register", "last")
        with k.loop("z", 3, "unroll") as z:
            k.store(k.const(0, i32), last, z)
        with k.loop("j", size, "pipeline") as j:
            with k.loop("s", 2, "unroll") as s:
                k.store(k.load(last, s + 1), last, s)
            k.store(k.emit(Pop, queue), last, 2)
            k.store(k.add(k.add(k.load(last, 0), k.load(last, 1)), k.load(last, 2)), y, j)
    return k.func


def test_processes_meet_in_a_stream(tmp_path: Path) -> None:
    x = np.arange(7, dtype=np.int32) ** 2
    y = np.zeros_like(x)
    assert simulate(running_sum(7), tmp_path, x, y) == 0
    np.testing.assert_array_equal(y, np.convolve(2 * x, [1, 1, 1])[:7])


def test_pragmas_stand_where_they_belong() -> None:
    lines = emit_func(running_sum(7)).splitlines()

    def after(start: str) -> str:
        return lines[
            next(n for n, line in enumerate(lines) if line.strip().startswith(start)) + 1
        ].strip()

    assert after("int32_t running(") == "#pragma HLS DATAFLOW"
    assert after("hls::stream<int32_t> queue") == "#pragma HLS STREAM variable=queue depth=4"
    assert after("int32_t last[3]") == "#pragma HLS ARRAY_PARTITION variable=last complete dim=0"
    assert after("for (ptrdiff_t j") == "#pragma HLS PIPELINE II=1"
    assert after("for (ptrdiff_t z") == "#pragma HLS UNROLL"
    assert "static void running_window(int32_t a1[7], hls::stream<int32_t> &queue) {" in lines


def test_scalars_do_not_cross_into_a_process() -> None:
    k = KernelBuilder("crossing", "i32[1]", "i32[1]")
    x, y = k.args
    v = k.load(x, 0)
    with k.process("late"):
        k.store(k.add(v, v), y, 0)
    with pytest.raises(UnsupportedError, match="E0435"):
        emit_func(k.func)
