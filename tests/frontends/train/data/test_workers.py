"""Worker processes: the same data in the same order, named failures, nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc.frontends.train import data
from irc.ir.errors import Error

N = 64
X, Y = np.arange(N * 12, dtype=np.float32).reshape(N, 12), np.arange(N)
LINUX = Path("/proc/self/statm").exists()


def scaled(x: Any, y: Any) -> Any:
    return x * 3, y.astype(np.int16)


def plain() -> Any:
    return data.arrays(X, Y).shuffle(seed=1).batch(10)


def equal(one: Any, two: Any) -> bool:
    one, two = list(one), list(two)
    return len(one) == len(two) and all(
        a.dtype == b.dtype and np.array_equal(a, b)
        for e, f in zip(one, two) for a, b in zip(e, f)
    )  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_give_what_no_workers_give(workers: int) -> None:
    shared, alone = plain().map(scaled, workers=workers), plain().map(scaled)
    for _ in range(3):
        assert equal(shared, alone)
    shared.close()


def test_the_work_is_done_by_the_workers() -> None:
    dataset = plain().map(lambda x, y: (x, np.full(len(x), os.getpid())), workers=2)
    processes = {int(p[0]) for _, p in list(dataset)[1:]}  # the first is made here, for its size
    assert len(processes) == 2 and os.getpid() not in processes
    dataset.close()


def test_a_map_before_batch_works_on_whole_batches() -> None:
    dataset = data.arrays(X, Y).map(lambda x, y: (x + os.getpid(), y), workers=2).batch(10)
    assert {float(x[0, 0] - 12 * y[0]) for x, y in dataset} != {float(os.getpid())}
    assert [len(x) for x, _ in dataset] == [10] * 6 + [4]
    dataset.close()


def test_spawned_processes() -> None:
    dataset = data.arrays(X).batch(10).map(np.negative, workers=2, start="spawn").prefetch()
    for _ in range(2):
        found = list(dataset)
        np.testing.assert_array_equal(np.concatenate(found), -X)
    dataset.close()


def test_a_lambda_cannot_be_sent_to_a_spawned_process() -> None:
    dataset = data.arrays(X).batch(10).map(lambda x: -x, workers=2, start="spawn")
    with pytest.raises(Error, match="top of a module") as caught:
        list(dataset)
    assert caught.value.code == "E0671"


def test_elements_of_other_sizes_and_of_objects_go_through_the_pipe() -> None:
    def grow(x: Any, y: Any) -> Any:
        return np.repeat(x, 1 + int(y[0]) * 100, 1), y

    assert equal(plain().map(grow, workers=2), plain().map(grow))

    def words(x: Any, y: Any) -> Any:
        return np.array([str(v) for v in y], object), y

    assert equal(plain().map(words, workers=2), plain().map(words))


def test_a_generator_maps_in_workers() -> None:
    def make() -> Any:
        return zip(X, Y)

    shared = data.generator(make).batch(4).map(scaled, workers=2)
    assert equal(shared, data.generator(make).batch(4).map(scaled))


def test_a_failure_names_the_item() -> None:
    def fails(x: Any, y: Any) -> Any:
        if y == 37:
            raise KeyError("thirty-seven")
        return x, y

    dataset = data.arrays(X, Y).map(fails, workers=2).batch(10)
    seen = []
    with pytest.raises(Error) as caught:
        for _, y in dataset:
            seen.append(int(y[0]))
    text = caught.value.render()
    assert caught.value.code == "E0670"
    assert "KeyError: 'thirty-seven'" in text and "sample 37, epoch 0" in text
    assert 'raise KeyError("thirty-seven")' in text  # the worker's traceback
    assert seen == [0, 10, 20]
    dataset.close()


def test_a_killed_worker_is_named_and_nothing_hangs() -> None:
    def dies(x: Any, y: Any) -> Any:
        if 30 in y:
            os.kill(os.getpid(), signal.SIGKILL)
        return x, y

    dataset = data.arrays(X, Y).batch(10).map(dies, workers=2)
    with pytest.raises(Error, match="batch 3 .sample 30 to sample 39") as caught:
        list(dataset)
    assert caught.value.code == "E0672" and "SIGKILL" in str(caught.value)
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the worker forks a child of its own")
def test_a_killed_worker_whose_child_lives_on_is_no_hang(tmp_path: Path) -> None:
    over = tmp_path / "over"

    def dies(x: Any, y: Any) -> Any:
        if 30 in y:
            if os.fork() == 0:  # inherits the worker's end of the pipe
                for _ in range(1000):
                    time.sleep(0.02)
                    if over.exists():
                        break
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        return x, y

    begin = time.monotonic()
    with pytest.raises(Error, match="SIGKILL"):
        list(data.arrays(X, Y).batch(10).map(dies, workers=2))
    assert time.monotonic() - begin < 10
    over.touch()


def test_a_worker_killed_between_two_epochs() -> None:
    dataset = plain().map(scaled, workers=2)
    list(dataset)
    victim = multiprocessing.active_children()[0]
    os.kill(victim.pid or 0, signal.SIGKILL)
    with pytest.raises(Error, match="was killed by SIGKILL"):
        list(dataset)
    assert equal(dataset.iterate(0), plain().map(scaled).iterate(0))  # new workers
    dataset.close()


def test_a_worker_that_exits_is_named() -> None:
    dataset = plain().map(lambda x, y: sys.exit(3) if len(x) < 10 else (x, y), workers=1)
    with pytest.raises(Error, match="exit code 3"):
        list(dataset)


def test_a_broken_off_epoch_leaves_nothing_in_the_next() -> None:
    shared, alone = plain().map(scaled, workers=2), plain().map(scaled)
    for broken_at in (1, 2, 5):
        for _ in zip(range(broken_at), shared):
            pass
        assert equal(shared.iterate(7), alone.iterate(7))
        for _ in zip(range(broken_at), shared):
            pass
        assert equal(shared.iterate(7, 6), alone.iterate(7, 6))  # one batch
    shared.close()


def test_two_epochs_at_once() -> None:
    shared, alone = plain().map(scaled, workers=2), plain().map(scaled)
    found = zip_flat(shared.iterate(0), shared.iterate(1))
    assert equal(found, zip_flat(alone.iterate(0), alone.iterate(1)))
    shared.close()


def zip_flat(one: Any, two: Any) -> Any:
    for a, b in zip(one, two):
        yield from (a, b)


def test_a_cache_is_filled_before_the_workers_start() -> None:
    calls: list[int] = []

    def note(x: Any, y: Any) -> Any:
        calls.append(len(x))
        return x, y

    dataset = data.arrays(X, Y).map(note, batched=True).cache().batch(10).map(scaled, workers=2)
    assert equal(dataset, data.arrays(X, Y).batch(10).map(scaled))
    assert calls == [N]  # in this process, once
    dataset.close()


def shared_files() -> set[str]:
    folder = Path("/dev/shm")
    return {p.name for p in folder.iterdir()} if folder.exists() else set()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if LINUX else 0


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if LINUX else 0
    return pages * os.sysconf("SC_PAGE_SIZE") if LINUX else 0


def test_nothing_is_left_behind() -> None:
    def use() -> None:
        dataset = plain().map(scaled, workers=2).prefetch()
        list(dataset)
        for _ in dataset:  # broken off, and never closed
            break

    use()
    files, handles, threads = shared_files(), open_files(), threading.active_count()
    for _ in range(5):
        use()
    assert not multiprocessing.active_children()
    assert shared_files() <= files
    assert open_files() <= handles
    assert threading.active_count() <= threads


@pytest.mark.skipif(not LINUX, reason="reads the resident memory from /proc")
def test_memory_is_flat_over_epochs() -> None:
    big = np.zeros((2000, 8, 8), np.float32)
    pipelines = [
        data.arrays(big, np.arange(2000)).shuffle().batch(64),
        data.arrays(big, np.arange(2000)).shuffle().batch(64).map(scaled, workers=2).prefetch(),
    ]
    for dataset in pipelines:
        for epoch in range(50):
            if epoch == 10:
                before = resident_bytes()
            for _ in dataset:
                pass
        assert resident_bytes() - before < 2 << 20  # an epoch is 0.5 MB, forty of them 20 MB
        dataset.close()


ORPHANS = """
import os, numpy as np
from irc.frontends.train import data
def slow(x):
    return x
dataset = data.arrays(np.zeros((64, 4))).batch(4).map(slow, workers=3)
iterator = iter(dataset)
next(iterator), next(iterator)
print(*[worker.process.pid for worker in dataset._pool.workers], flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(not LINUX, reason="looks for processes in /proc")
def test_workers_end_when_their_parent_is_killed() -> None:
    command = [sys.executable, "-c", ORPHANS]  # workers that live on would hold its stdout open
    shell = subprocess.run(command, capture_output=True, text=True, timeout=30)
    pids = shell.stdout.split()
    assert len(pids) == 3, shell.stderr
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(alive(pid) for pid in pids):
        time.sleep(0.02)
    assert not any(alive(pid) for pid in pids)


def alive(pid: str) -> bool:
    """Running; a zombie whose new parent does not wait for it is not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
