"""Worker processes that compute elements and send them whole through shared memory, in order.

The k-th task goes to worker k mod n over that worker's own pipe: there is no shared queue, so
a killed worker can leave no lock behind.  A result is written to a slot of shared memory that was
made before the worker started and whose file has no name any more: nothing can leak, whoever dies.
What does not fit in a slot, or holds Python objects, goes through the pipe.
Invariants: the parent never waits for a process without also waiting for its end; a worker that has
a task waiting never blocks the parent (a task with data is sent only to an idle worker).
Imports numpy, elements and errors.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from ....ir.errors import Error
from .element import Array, Element, fields, form, rebuild

AHEAD = 2  # tasks that a worker has at a time, when a task is no more than a few numbers
ALIGN = 64  # bytes; a cache line
LOOK_SECONDS = 1.0  # between two looks at whether a silent worker still lives
TRACE_LINES = 8  # of a worker's traceback, in the error
Job = Callable[..., Element]
Task = tuple[Any, ...]  # position, epoch, and for a flowing pipeline the element
Label = Callable[[int, int], str]


# ------------------------------------------------------------------- in the worker


def _layout(parts: list[Array]) -> tuple[list[int], int]:
    """The offset of each array in a slot, and the bytes of all; -1 bytes for Python objects."""
    if any(part.dtype.hasobject for part in parts):
        return [], -1
    offsets, at = [], 0
    for part in parts:
        offsets.append(at)
        at += -(-part.nbytes // ALIGN) * ALIGN
    return offsets, at


def _write(element: Element, slot: memoryview) -> tuple[Any, ...]:
    """Put the arrays in the slot; what the parent needs to find them."""
    parts = [np.asarray(field) for field in fields(element)]
    offsets, size = _layout(parts)
    if size < 0 or size > len(slot):
        return ("whole", element)
    for part, offset in zip(parts, offsets):
        np.ndarray(part.shape, part.dtype, slot, offset)[...] = part
    return ("slot", form(element), [(p.dtype, p.shape, at) for p, at in zip(parts, offsets)])


def _fault(reason: BaseException) -> tuple[Any, ...]:
    """An exception as plain data: an exception class need not pickle."""
    lines = traceback.format_exception(reason.__cause__ or reason)
    text = [line for part in lines for line in part.rstrip().splitlines()]
    if isinstance(reason, Error):
        plain = (reason.code, reason.message, reason.where, reason.details, reason.hint)
        return ("error", plain, reason.exit_code, text)
    plain = ("E0670", f"{type(reason).__name__}: {reason}", None, (), None)
    return ("error", plain, Error.exit_code, text)


def _answer(job: Job, task: Task, slot: memoryview) -> bytes:
    """Do one task; an exception, also one of pickling, becomes the answer."""
    try:
        return pickle.dumps(_write(job(*task), slot), protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as reason:
        return pickle.dumps(_fault(reason), protocol=pickle.HIGHEST_PROTOCOL)


def _serve(job: Job, pipe: Connection, memory: Any, size: int) -> None:
    """A worker's life: task in, result out, until None comes or the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends the workers
    parent = multiprocessing.parent_process()
    ends: list[Any] = [pipe, parent.sentinel] if parent is not None else [pipe]
    whole = memoryview(memory).cast("B")
    try:
        while pipe in wait(ends):
            order = pipe.recv()
            if order is None:
                return
            slot, task = order
            pipe.send_bytes(_answer(job, task, whole[slot * size : (slot + 1) * size]))
    except (EOFError, OSError):
        return  # the parent has gone, or needs us no more


# ------------------------------------------------------------------- in the parent


class Worker:
    """A process, the parent's end of its pipe, its slots, and the tasks it has not answered."""

    def __init__(self, context: Any, job: Job, number: int, size: int, label: Label) -> None:
        self.number, self.size, self.label = number, size, label
        self.memory = context.RawArray("B", max(size, 1) * AHEAD)
        self.slots = memoryview(self.memory).cast("B")
        self.waiting: deque[tuple[int, int, Task]] = deque()  # serial, slot, task
        self.sent = 0
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(job, theirs, self.memory, size), daemon=True,
            name=f"irc-data-{number}",
        )  # fmt: skip
        self.process.start()
        theirs.close()

    def send(self, serial: int, task: Task) -> None:
        """Give it a task."""
        slot = self.sent % AHEAD
        self.sent += 1
        self.waiting.append((serial, slot, task))
        try:
            self.pipe.send((slot, task))
        except OSError:
            raise self.dead() from None

    def receive(self) -> tuple[int, Element]:
        """The oldest answer, copied out of its slot, with its serial number."""
        serial, slot, task = self.waiting[0]
        while self.pipe not in wait([self.pipe, self.process.sentinel], LOOK_SECONDS):
            if not self.process.is_alive():  # a child of its own may hold pipe and sentinel open
                raise self.dead()
        try:
            reply = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            raise self.dead() from None
        self.waiting.popleft()
        if reply[0] == "slot":
            base = slot * self.size
            parts = [
                np.ndarray(shape, dtype, self.slots, base + at).copy()
                for dtype, shape, at in reply[2]
            ]
            return serial, rebuild(reply[1], parts)
        if reply[0] == "whole":
            return serial, reply[1]
        return serial, Failed(reply)

    def dead(self) -> Error:
        """The error for a process that ended by itself (E0672)."""
        self.process.join(1.0)
        code = self.process.exitcode
        how = f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        at = f" while making {self.label(*self.waiting[0][2][:2])}" if self.waiting else ""
        return Error(
            "E0672",
            f"data worker {self.number} (process {self.process.pid}) {how}{at}",
            hint="out of memory? fewer workers or smaller batches; a script that is started as "
            'the main program needs `if __name__ == "__main__":` where processes are spawned',
        )

    def dismiss(self) -> None:
        """Tell the process to end when it has done its tasks."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.pipe.close()

    def close(self) -> None:
        """Wait for the end of the process, not long."""
        self.process.join(0.2)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(1.0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


class Nowhere:
    """A file that keeps nothing: to see whether something pickles without holding it twice."""

    def write(self, data: Any) -> int:
        """Pretend."""
        return len(data)


class Failed:
    """An answer that is an error."""

    def __init__(self, reply: tuple[Any, ...]) -> None:
        self.reply = reply

    def error(self) -> Error:
        """The worker's error, with the end of its traceback unless it is one of ours."""
        _, (code, message, where, details, hint), exit_code, text = self.reply
        if code == "E0670":
            details = (*details, "in a worker process:", *text[-TRACE_LINES:])
        return Error(
            code, message, where=where, details=details, hint=hint, exit_code=exit_code
        )


def _close(workers: list[Worker], owner: int) -> None:
    """End the workers, in the process that started them alone (a fork inherits the object)."""
    if os.getpid() == owner:
        for worker in workers:
            worker.dismiss()  # all learn of it before the first is waited for
        for worker in workers:
            worker.close()
        workers.clear()


class Pool:
    """`number` processes that run `job(*task)`; started by the first use, ended by `close`.

    `label(position, epoch)` names an element in errors.  `start`: "fork", "spawn", "forkserver", or
    None for the platform's own way; where processes are not forked, the job has to pickle (E0671).
    """

    def __init__(self, job: Job, number: int, start: str | None, label: Label) -> None:
        self.job, self.number, self.label = job, number, label
        self.context: Any = multiprocessing.get_context(start)
        self.workers: list[Worker] = []
        self.serial = 0
        self.busy = threading.Lock()
        self._end = weakref.finalize(self, _close, self.workers, os.getpid())

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether it has not been closed."""
        return self._end.alive

    def close(self) -> None:
        """End the processes; the pool cannot be used again."""
        self._end()

    def launch(self, size: int) -> None:
        """Start the processes, with slots of `size` bytes."""
        if self.context.get_start_method() != "fork":
            self._must_pickle()
        for number in range(self.number):
            self.workers.append(Worker(self.context, self.job, number, size, self.label))

    def _must_pickle(self) -> None:
        try:
            pickle.Pickler(Nowhere(), pickle.HIGHEST_PROTOCOL).dump(self.job)
        except Exception as reason:
            way = self.context.get_start_method()
            raise Error(
                "E0671",
                f"a function of this pipeline cannot be sent to a worker process: {reason}",
                details=(f"processes are started by {way!r} here, which pickles the pipeline",),
                hint="define the function at the top of a module (no lambda, no function inside a "
                "function), or use workers=0",
            ) from None

    def run(self, tasks: Iterator[Task], ahead: int = 1) -> Iterator[Element]:
        """The job of each task, in order; `ahead` tasks at most lie with each worker.

        The first task of a new pool is done here: it tells how large a slot must be.
        """
        if not self.workers:
            for first in tasks:
                element = self.job(*first)
                size = _layout([np.asarray(field) for field in fields(element)])[1]
                self.launch(max(size, 0))
                yield element
                break
            else:
                return
        try:
            yield from self._run(tasks, ahead)
        except Error as reason:
            if reason.code == "E0672":
                self.close()
            raise

    def _run(self, tasks: Iterator[Task], ahead: int) -> Iterator[Element]:
        begin, tasks = self.serial, iter(tasks)
        pending: deque[Worker] = deque()
        for task in tasks:
            worker = self.workers[self.serial % self.number]
            while len(worker.waiting) >= ahead and worker.waiting[0][0] < begin:
                worker.receive()  # left over from an epoch that was not finished
            if len(pending) >= ahead * self.number:
                yield self._next(pending, begin)
            worker.send(self.serial, task)
            self.serial += 1
            pending.append(worker)
        while pending:
            yield self._next(pending, begin)

    @staticmethod
    def _next(pending: deque[Worker], begin: int) -> Element:
        """The answer of the worker whose turn it is."""
        worker = pending.popleft()
        serial, element = worker.receive()
        while serial < begin:
            serial, element = worker.receive()
        if isinstance(element, Failed):
            raise element.error()
        return element
