"""What compiled code takes without Python around it.

A loop in LLVM text calls a plan again and again on the same buffers; another forks and joins the
thread pool.  In a fork every index waits until all have begun, so each needs a thread of its own:
with nothing to do the caller would take them all before another thread sees the job.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...backends.arrays import address, aligned
from ...backends.cpu.engine import Engine
from ...backends.cpu.host import codegen_target
from ...backends.cpu.pool import pool
from ...backends.executable import Executable, Frame
from ...backends.llvm.compile import compile_many

Array = np.ndarray[Any, Any]

_TEXT = """\
define i32 @irc_repeat(ptr %entry, ptr %ctx, ptr %args, ptr %dims, i64 %n) nounwind {
head:
  br label %loop
loop:
  %i = phi i64 [ 0, %head ], [ %j, %loop ]
  %all = phi i32 [ 0, %head ], [ %or, %loop ]
  %status = call i32 %entry(ptr %ctx, ptr %args, ptr %dims)
  %or = or i32 %all, %status
  %j = add i64 %i, 1
  %more = icmp ult i64 %j, %n
  br i1 %more, label %loop, label %done
done:
  ret i32 %or
}
define i32 @irc_meet(ptr %arg, i64 %index) nounwind {
head:
  %widthp = getelementptr i64, ptr %arg, i64 1
  %width = load i64, ptr %widthp
  %old = atomicrmw add ptr %arg, i64 1 seq_cst
  %round = udiv i64 %old, %width
  %next = add i64 %round, 1
  %goal = mul i64 %next, %width
  br label %wait
wait:
  %now = load atomic i64, ptr %arg acquire, align 8
  %short = icmp ult i64 %now, %goal
  br i1 %short, label %wait, label %done
done:
  ret i32 0
}
define i32 @irc_fork(ptr %parallel, ptr %pool, i64 %width, i64 %n) nounwind {
head:
  %count = alloca [2 x i64], align 64
  store i64 0, ptr %count
  %widthp = getelementptr i64, ptr %count, i64 1
  store i64 %width, ptr %widthp
  br label %loop
loop:
  %i = phi i64 [ 0, %head ], [ %j, %loop ]
  %all = phi i32 [ 0, %head ], [ %or, %loop ]
  %status = call i32 %parallel(ptr %pool, ptr @irc_meet, ptr %count, i64 %width)
  %or = or i32 %all, %status
  %j = add i64 %i, 1
  %more = icmp ult i64 %j, %n
  br i1 %more, label %loop, label %done
done:
  ret i32 %or
}
"""


@functools.cache
def _engine() -> Engine:
    return Engine(compile_many({"irc_native_loops": _TEXT}, codegen_target()))


def _function(name: str, *kinds: Any) -> Any:
    return ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(_engine().address(name))


class NativeCall:
    """An executable bound to buffers: `seconds(n)` is the time of n calls in a native loop."""

    def __init__(self, exe: Executable, inputs: Mapping[str, Array] | Sequence[Array]) -> None:
        """Take copies of the inputs, aligned, and room for the outputs, touched once."""
        given = [inputs[n] for n in exe.names] if isinstance(inputs, Mapping) else list(inputs)
        self.exe = exe
        self.given = [_room(x.shape, x.dtype, x) for x in given]
        shapes = [x.shape for x in self.given]
        dims = exe._frame(self.given).dims
        # A frame of its own: `exe.run` writes the addresses of its arrays into the thread's.
        self.frame = Frame(exe.program, dims, shapes, address(exe.weights))
        self.outs = [_room(shape, dtype.np) for _, shape, dtype in self.frame.outputs]
        for k, array in enumerate([*self.given, *self.outs]):
            self.frame.args[k] = address(array)
        self.arena = aligned(self.frame.needs)
        self.arena[...] = 0
        self.frame.take(self.arena)
        void = ctypes.c_void_p
        self._repeat = _function("irc_repeat", void, void, void, void, ctypes.c_int64)
        self._entry = ctypes.cast(exe._entry, void).value

    def seconds(self, n: int = 1) -> float:
        """Wall time of n calls; raises where one fails."""
        frame = self.frame
        start = time.perf_counter()
        status = self._repeat(self._entry, self.exe._context_at, frame.args_at, frame.dims_at, n)
        seconds = time.perf_counter() - start
        if status:
            raise RuntimeError(f"the plan fails with status {status}")
        return seconds

    def least(self, rounds: int = 10, n: int = 1) -> float:
        """The least time of one call over several rounds of n."""
        self.seconds(1)
        return min([self.seconds(n) for _ in range(rounds)]) / n


def _room(shape: Sequence[int], dtype: np.dtype[Any], source: Array | None = None) -> Array:
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    array = aligned(max(1, size))[:size].view(dtype).reshape(shape)
    array[...] = 0 if source is None else source
    return array


def fork_join(threads: int, n: int = 10_000, rounds: int = 20) -> list[float]:
    """Seconds of one fork and join of threads that only meet: one figure per round of n."""
    team = pool(threads)
    void, i64 = ctypes.c_void_p, ctypes.c_int64
    fork = _function("irc_fork", void, void, i64, i64)
    fork(team.parallel_for, team.handle, threads, n)
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        fork(team.parallel_for, team.handle, threads, n)
        found.append((time.perf_counter() - start) / n)
    return found


__all__ = ["NativeCall", "fork_join"]
