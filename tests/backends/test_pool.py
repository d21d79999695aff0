"""The thread pool: every index once, statuses, re-entry, threads, fork, sleeping and waking."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_int32, c_int64, c_void_p

import numpy as np
import pytest

from irc.backends.cpu.engine import Engine
from irc.backends.cpu.host import codegen_target, host, named_target
from irc.backends.cpu.pool import Pool, pool
from irc.backends.llvm.compile import assembly, compile_many, compile_text
from irc.backends.llvm.pool import MAX_THREADS, pool_text
from irc.ir.errors import Error, UnsupportedError

TEXT = """
declare i32 @irc_parallel_for(ptr, ptr, ptr, i64)
; Counts in a cell of its own per index; the status comes from the cell beside it.
define i32 @task(ptr %a, i64 %i) {
  %p = getelementptr [8 x i64], ptr %a, i64 %i
  %v = load i64, ptr %p
  %w = add i64 %v, 1
  store i64 %w, ptr %p
  %q = getelementptr i64, ptr %p, i64 1
  %s = load i64, ptr %q
  %r = trunc i64 %s to i32
  ret i32 %r
}
; Both indices wait until the other has begun: fails after a second or so without two threads.
define i32 @meet(ptr %a, i64 %i) {
entry:
  %o = atomicrmw add ptr %a, i64 1 seq_cst
  %t = add i64 %o, 2
  %goal = and i64 %t, -2
  br label %wait
wait:
  %k = phi i64 [ 0, %entry ], [ %k1, %again ]
  %v = load atomic i64, ptr %a acquire, align 8
  %go = icmp uge i64 %v, %goal
  br i1 %go, label %out, label %again
again:
  %k1 = add i64 %k, 1
  %never = icmp ugt i64 %k1, 2000000000
  br i1 %never, label %out, label %wait
out:
  %s = phi i32 [ 0, %wait ], [ 9, %again ]
  ret i32 %s
}
; arg: { pool, cells }: each index runs a job of 4 on the same pool.
define i32 @nested(ptr %arg, i64 %i) {
  %pool = load ptr, ptr %arg
  %cp = getelementptr ptr, ptr %arg, i64 1
  %cells = load ptr, ptr %cp
  %at = mul i64 %i, 4
  %mine = getelementptr [8 x i64], ptr %cells, i64 %at
  %s = call i32 @irc_parallel_for(ptr %pool, ptr @task, ptr %mine, i64 4)
  ret i32 %s
}
define i32 @many(ptr %pool, ptr %fn, ptr %a, i64 %n, i64 %count) {
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %next ]
  %s = call i32 @irc_parallel_for(ptr %pool, ptr %fn, ptr %a, i64 %n)
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %count
  br i1 %more, label %next, label %out
out:
  ret i32 %s
}
; Two jobs by turns, of different data and size: a late thread must not mix them up.
define i32 @by_turns(ptr %pool, ptr %a, ptr %b, i64 %count) {
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %next ]
  %s = call i32 @irc_parallel_for(ptr %pool, ptr @task, ptr %a, i64 2)
  %t = call i32 @irc_parallel_for(ptr %pool, ptr @task, ptr %b, i64 5)
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %count
  br i1 %more, label %next, label %out
out:
  ret i32 %t
}
"""
Many = Callable[[int | None, int, int, int, int], int]


@pytest.fixture(scope="module")
def engine() -> Engine:
    objects = compile_many({"test_pool": TEXT}, codegen_target())
    return Engine(objects, {"irc_parallel_for": pool(1).parallel_for})


@pytest.fixture(scope="module")
def many(engine: Engine) -> Many:
    kind = CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p, c_int64, c_int64)
    return kind(engine.address("many"))


def cells(n: int) -> np.ndarray:
    return np.zeros((max(n, 1), 8), np.int64)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 64])
def test_every_index_once(engine: Engine, many: Many, threads: int, n: int) -> None:
    a = cells(n + 1)
    task = engine.address("task")
    assert many(pool(threads).handle, task, a.ctypes.data, n, 50) == 0
    assert (a[:n, 0] == 50).all()
    assert (a[n:, 0] == 0).all()


def test_no_pool_is_serial(engine: Engine, many: Many) -> None:
    a = cells(5)
    assert many(None, engine.address("task"), a.ctypes.data, 5, 3) == 0
    assert (a[:, 0] == 3).all()


@pytest.mark.parametrize("handle", [True, False])
def test_status_of_the_lowest_failing_index(engine: Engine, many: Many, handle: bool) -> None:
    a = cells(9)
    a[4, 1], a[8, 1] = -3, 7
    where = pool(3).handle if handle else None
    for _ in range(200):
        assert many(where, engine.address("task"), a.ctypes.data, 9, 1) == -3
    assert (a[:, 0] == 200).all()
    a[4, 1] = a[8, 1] = 0
    assert many(where, engine.address("task"), a.ctypes.data, 9, 1) == 0


@pytest.mark.parametrize("threads", [2, 4])
def test_jobs_by_turns_are_not_mixed_up(engine: Engine, threads: int) -> None:
    a, b = cells(6), cells(6)
    kind = CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p, c_int64)
    by_turns = kind(engine.address("by_turns"))
    assert by_turns(pool(threads).handle, a.ctypes.data, b.ctypes.data, 200_000) == 0
    assert a[:, 0].tolist() == [200_000] * 2 + [0] * 4
    assert b[:, 0].tolist() == [200_000] * 5 + [0]


def test_two_threads_work_at_once(engine: Engine, many: Many) -> None:
    a = cells(1)
    assert many(pool(2).handle, engine.address("meet"), a.ctypes.data, 2, 100) == 0
    assert a[0, 0] == 200


def test_sleepers_are_woken(engine: Engine, many: Many) -> None:
    a = cells(1)
    for _ in range(10):
        time.sleep(0.005)
        assert many(pool(2).handle, engine.address("meet"), a.ctypes.data, 2, 1) == 0


def test_job_within_a_job(engine: Engine, many: Many) -> None:
    a = cells(32)
    arguments = np.array([pool(2).handle, a.ctypes.data], np.uint64)
    assert many(pool(2).handle, engine.address("nested"), arguments.ctypes.data, 8, 100) == 0
    assert (a[:, 0] == 100).all()


def hammer(engine: Engine, many: Many, team: Pool, rounds: int) -> bool:
    """Jobs with pauses around the time at which threads fall asleep."""
    a = cells(7)
    for k in range(rounds):
        many(team.handle, engine.address("task"), a.ctypes.data, 2 + k % 6, 500)
        time.sleep((k % 5) * 0.0003)
    expected = [sum(500 for k in range(rounds) if i < 2 + k % 6) for i in range(7)]
    return a[:, 0].tolist() == expected


@pytest.mark.parametrize("threads", [2, 4])
def test_hammer_from_two_python_threads(engine: Engine, many: Many, threads: int) -> None:
    good: list[bool] = []
    workers = [
        threading.Thread(target=lambda: good.append(hammer(engine, many, pool(threads), 100)))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert good == [True, True]


def test_forked_child_has_threads_of_its_own(engine: Engine, many: Many) -> None:
    team = pool(2)
    a = cells(1)
    many(team.handle, engine.address("meet"), a.ctypes.data, 2, 10)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            met = many(team.handle, engine.address("meet"), a.ctypes.data, 2, 10)
            status = 0 if met == 0 and hammer(engine, many, team, 20) else 2
        finally:
            os._exit(status)
    assert hammer(engine, many, team, 20)
    assert os.waitpid(pid, 0)[1] == 0


def test_fork_while_another_thread_holds_the_pool(engine: Engine, many: Many) -> None:
    team = pool(2)
    stop = threading.Event()

    def busy() -> None:
        a = cells(2)
        while not stop.is_set():
            many(team.handle, engine.address("task"), a.ctypes.data, 2, 2000)

    worker = threading.Thread(target=busy)
    worker.start()
    try:
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                a = cells(1)  # needs the pool, not just a serial run
                os._exit(many(team.handle, engine.address("meet"), a.ctypes.data, 2, 10))
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        worker.join()


def test_destroy_ends_the_threads(engine: Engine, many: Many) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/task"))

    text = compile_text(pool_text(host().arch), codegen_target())
    with Engine({"pool": text}) as own:
        create = CFUNCTYPE(c_void_p, c_int32)(own.address("irc_pool_create"))
        destroy = CFUNCTYPE(None, c_void_p)(own.address("irc_pool_destroy"))
        run = CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p, c_int64)(
            own.address("irc_parallel_for")
        )
        before = count()
        for pause in (0.0, 0.0, 0.01):
            handle = create(4)
            assert count() == before  # they start at the first job
            a = cells(8)
            run(handle, engine.address("task"), a.ctypes.data, 8)
            assert count() == before + 3
            time.sleep(pause)
            destroy(handle)
            assert count() == before
        destroy(create(4))
        destroy(None)


def test_asleep_costs_no_time(engine: Engine, many: Many) -> None:
    a = cells(2)
    many(pool(2).handle, engine.address("task"), a.ctypes.data, 2, 10)
    time.sleep(0.1)
    start = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - start < 0.1


def test_no_writable_globals_on_either_architecture() -> None:
    for arch in ("x86_64", "aarch64"):
        text = assembly(pool_text(arch), named_target(f"{arch}-linux"))
        assert ".data" not in text
        assert ".bss" not in text
        assert "irc_parallel_for:" in text
    assert "yield" in text
    with pytest.raises(UnsupportedError, match="E0493"):
        pool_text("riscv64")


def test_thread_count_is_checked() -> None:
    assert pool(2) is pool(2)
    for bad in (0, -1, MAX_THREADS + 1):
        with pytest.raises(Error, match="E0496"):
            pool(bad)
