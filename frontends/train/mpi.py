"""A group of processes over MPI: collectives in one order, and an end together.

One thread at a time talks to MPI: collectives that are started go to a thread that does them in
turn, others wait for those before them.  Where a process dies (sentinel.py sees it), has ended
while another waits for it, or fails by an exception that nobody catches, the job ends, and says
which it was.  May import: ir, exchange; mpi4py where it is used.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ...ir.core import Array
from ...ir.errors import EXIT_INTERRUPTED, Error
from .exchange import reduced
from .sentinel import ENDED

POLL_S = 0.5
FORWARD_S = 0.2
"""What a launcher needs to pass on the last words of a process before it kills it."""
PATIENCE_S = 2.0
"""How long a process waits for one that says it has ended, before it ends the job."""


class Started:
    """A collective on its way."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:
            self.error = error
        self.done.set()

    def wait(self) -> Any:
        self.done.wait()
        if self.error is not None:
            raise self.error
        return self.result


class MpiGroup:
    """All processes of an MPI communicator (a `Group` of ir/ops/dist.py)."""

    def __init__(self, communicator: Any) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._comm = communicator.Dup()
        self._ends = communicator.Dup()
        self.rank, self.world = int(communicator.rank), int(communicator.size)
        self._pending: dict[int, Started] = {}
        self._queue: queue.SimpleQueue[Started] = queue.SimpleQueue()
        self._waiting_since: float | None = None
        self._unfinished = 0
        self._lock = threading.Lock()
        self._closing = False
        self._folder: str | None = None
        here = (socket.gethostname(), os.getpid())
        self.places: list[tuple[str, int]] = self._comm.allgather(here)
        self.local = sum([host == here[0] for host, _ in self.places])
        threading.Thread(target=self._work, name="irc-collectives", daemon=True).start()

    # ------------------------------------------------------------ the group of ir/ops/dist.py

    def all_reduce(self, x: Array, how: str) -> Array:
        """The arrays of all processes combined; the same bits on each."""
        return self._do(lambda: reduced(self._transport, [x], how, False)[0])  # type: ignore[no-any-return]

    def all_gather(self, x: Array) -> list[Array]:
        """What each process gave, by rank."""
        x = np.ascontiguousarray(x)
        found = np.empty((self.world, *x.shape), x.dtype)
        self._do(lambda: self._transport.all_gather(_raw(x), _raw(found)))
        return list(found)

    def broadcast(self, x: Array, root: int) -> Array:
        """What process `root` gave."""
        found = np.array(x)
        self._do(lambda: self._comm.Bcast([_raw(found), self._mpi.BYTE], root))
        return found

    def start(self, bucket: int, xs: Sequence[Array], how: str, scatter: bool) -> None:
        """Begin to reduce arrays, which nobody changes before the wait."""
        work = Started(lambda: reduced(self._transport, xs, how, scatter))
        with self._lock:
            self._unfinished += 1
        self._pending[bucket] = work
        self._queue.put(work)

    def wait(self, bucket: int, xs: Sequence[Array], how: str, scatter: bool) -> list[Array]:
        """The reduced arrays."""
        work = self._pending.pop(bucket, None)
        if work is None:
            self.start(bucket, xs, how, scatter)
            work = self._pending.pop(bucket)
        return work.wait()  # type: ignore[no-any-return]

    def exchange(self, value: Any) -> list[Any]:
        """What each process gave, by rank: any Python values."""
        return self._do(lambda: self._comm.allgather(value))  # type: ignore[no-any-return]

    def from_root(self, value: Any) -> Any:
        """What process 0 gave."""
        return self._do(lambda: self._comm.bcast(value, 0))

    # ------------------------------------------------------------ one thing after the other

    @property
    def _transport(self) -> _Bytes:
        return _Bytes(self._comm, self._mpi.BYTE)

    def _do(self, work: Callable[[], Any]) -> Any:
        """Do a collective behind those that are started."""
        job = Started(work)
        with self._lock:
            idle = not self._unfinished
            self._unfinished += 1
        if idle:
            self._finish(job)
        else:
            self._queue.put(job)
        return job.wait()

    def _work(self) -> None:
        while True:
            self._finish(self._queue.get())

    def _finish(self, job: Started) -> None:
        self._waiting_since = time.monotonic()
        try:
            job.run()
        finally:
            self._waiting_since = None
            with self._lock:
                self._unfinished -= 1

    # ------------------------------------------------------------ ends

    def guard(self) -> None:
        """Watch the other processes, and end the job with this one's failure."""
        self._start_sentinel()
        sys.excepthook = self._failed
        threading.Thread(target=self._watch, name="irc-watcher", daemon=True).start()
        atexit.register(self.close)

    def close(self) -> None:
        """Wait for the others to end; called when Python ends."""
        if self._closing:
            return
        if self._unfinished:
            self.abort(f"rank {self.rank} ends amid a collective")
        requests = [
            self._ends.isend(self.rank, r, tag=1) for r in range(self.world) if r != self.rank
        ]
        together = self._ends.Ibarrier()
        while not together.Test():
            time.sleep(0.002)
        self._closing = True
        self._ends_by_itself()
        for r in range(self.world):
            if r != self.rank:
                self._ends.recv(source=r, tag=1)
        self._mpi.Request.waitall(requests)

    def abort(self, message: str, code: int = 1) -> None:
        """Say why, and end all processes."""
        self._ends_by_itself()
        if message:
            sys.stderr.write(message + "\n")
            sys.stderr.flush()
            time.sleep(FORWARD_S)
        threading.Timer(5.0, os._exit, (code,)).start()
        self._mpi.COMM_WORLD.Abort(code)

    def _failed(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """An exception that nobody caught: the other processes would wait for ever."""
        if issubclass(kind, KeyboardInterrupt):
            self.abort("", EXIT_INTERRUPTED)
        if self.rank:
            time.sleep(2 * FORWARD_S)  # where all fail alike, rank 0 speaks and ends the job
        what = kind.__name__
        if isinstance(error, Error):
            what = error.code
            sys.stderr.write(f"{error.render()}\n")
        else:
            sys.__excepthook__(kind, error, trace)
        said = Error("E0654", f"rank {self.rank} of {self.world} failed: {what}; the job ends")
        self.abort(said.render(), getattr(error, "exit_code", 1))

    def _start_sentinel(self) -> None:
        """Have the first process of each machine start one that sees deaths."""
        host = self.places[self.rank][0]
        here = [(r, pid) for r, (h, pid) in enumerate(self.places) if h == host]
        first = self.rank == here[0][0] and hasattr(os, "pidfd_open")
        folders = self.exchange(tempfile.mkdtemp(prefix="irc-job-") if first else None)
        self._folder = folders[here[0][0]]
        if not first:
            return
        pairs = [part for r, pid in here for part in (str(pid), _death(r, self.world, pid, host))]
        script = str(Path(__file__).with_name("sentinel.py"))
        subprocess.Popen(
            [sys.executable, "-I", "-S", script, self._folder, *pairs],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def _ends_by_itself(self) -> None:
        """Tell the sentinel that the deaths to come are no accident."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                (Path(self._folder) / ENDED).touch()

    def _watch(self) -> None:
        """See whether this process waits for one that has ended."""
        if self._mpi.Query_thread() != self._mpi.THREAD_MULTIPLE:
            return
        while not self._closing:
            time.sleep(POLL_S)
            since = self._waiting_since
            if since is not None and time.monotonic() - since > PATIENCE_S:
                self._look_for_ends()

    def _look_for_ends(self) -> None:
        """This process waits for others: has one of them ended its program?"""
        status = self._mpi.Status()
        if self._ends.iprobe(source=self._mpi.ANY_SOURCE, tag=1, status=status):
            said = Error(
                "E0654",
                f"rank {status.Get_source()} has ended, and rank {self.rank} waits for it; "
                "the job ends",
                hint="all processes run the same steps: look for a branch on the rank",
            )
            self.abort(said.render())


class _Bytes:
    """A communicator as what moves bytes."""

    def __init__(self, communicator: Any, byte: Any) -> None:
        self._comm, self._byte = communicator, byte
        self.rank, self.world = int(communicator.rank), int(communicator.size)

    def all_to_all(self, send: Array, receive: Array) -> None:
        """One row to each process."""
        self._comm.Alltoall([send, self._byte], [receive, self._byte])

    def all_gather(self, send: Array, receive: Array) -> None:
        """The rows of all processes."""
        self._comm.Allgather([send, self._byte], [receive, self._byte])


def _death(rank: int, world: int, pid: int, host: str) -> str:
    """What is said of a process that was killed."""
    return Error(
        "E0653",
        f"rank {rank} of {world} was killed or crashed; the job ends",
        details=(f"process {pid} on {host}",),
        hint="out of memory? Trainer.load goes on from the last checkpoint",
    ).render()


def _raw(x: Array) -> Array:
    """The memory of a dense array."""
    return x.reshape(-1).view(np.uint8)


__all__ = ["MpiGroup", "Started"]
