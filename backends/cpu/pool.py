"""The thread pools of this process: one for each thread count, made on first use, kept for ever.

A pool may be used from several Python threads and after a fork (see ../llvm/pool.py).  Its code is
compiled once and cached like any kernel.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from dataclasses import dataclass

from ...ir.errors import Error
from ..llvm.compile import CodegenTarget, compile_many
from ..llvm.pool import MAX_THREADS, pool_text
from .engine import Engine
from .host import host

_lock = threading.Lock()
_pools: dict[int, Pool] = {}


@dataclass(frozen=True)
class Pool:
    """`handle` is the first argument of the function at `parallel_for` (../llvm/pool.py)."""

    threads: int
    handle: int
    parallel_for: int


@functools.cache
def _engine() -> Engine:
    machine = host()
    target = CodegenTarget(machine.triple)  # for any processor: one entry in a shared cache
    engine = Engine(compile_many({"irc_pool": pool_text(machine.arch)}, target))
    engine.address("irc_parallel_for")
    engine.address("irc_pool_create")
    engine.keep()
    return engine


def pool(threads: int) -> Pool:
    """The pool of `threads` threads, its caller's included; they start at its first parallel job.

    Errors: E0496 where `threads` is out of range or memory is out.
    """
    if not 1 <= threads <= MAX_THREADS:
        raise Error("E0496", f"{threads} threads asked for; a pool has 1 to {MAX_THREADS}")
    with _lock:
        if threads not in _pools:
            _pools[threads] = _create(threads)
        return _pools[threads]


def _create(threads: int) -> Pool:
    engine = _engine()
    create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int32)(engine.address("irc_pool_create"))
    handle = create(threads)
    if not handle:
        raise Error("E0496", f"no memory for a pool of {threads} threads")
    return Pool(threads, handle, engine.address("irc_parallel_for"))
