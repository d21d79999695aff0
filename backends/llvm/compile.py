"""From LLVM text to object code, in worker processes.

Invariants: nothing here calls LLVM in this process, so no input can end it; a worker that dies or
overstays is replaced, and its text is kept in the crash folder; results do not depend on the number
of workers. `compile_many` goes through the cache on disk, `compile_text` and `assembly` do not.
"""

from __future__ import annotations

import atexit
import dataclasses
import hashlib
import json
import os
import re
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...ir.errors import EXIT_INTERNAL, Error, UnsupportedError
from .cache import cache_dir, cache_key, kernel_cache

TIMEOUT = 120.0
"""Seconds that one module may take."""

MOST_PREPARED = 4
"""Processes started before there is work for them."""

_WORKER = Path(__file__).with_name("worker.py")
_HEADER = struct.Struct("<I")


@dataclass(frozen=True)
class CodegenTarget:
    """What LLVM needs to know of the machine, and how hard it should try.

    `features` is LLVM's list ("+avx2,-avx512f").  `reloc` and `code_model` are llvmlite's names;
    position-independent small code serves the JIT, archives and shared libraries alike.  Text comes
    scheduled and says which loops to unroll, so LLVM's own vectorizers and unrolling (`vectorize`)
    are off.
    """

    triple: str
    cpu: str = ""
    features: str = ""
    opt: int = 2
    reloc: str = "pic"
    code_model: str = "small"
    vectorize: bool = False
    abi: str = ""

    def key(self) -> str:
        """The whole target as one line: equal where the code is equal."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @property
    def arch(self) -> str:
        """The first part of the triple: x86_64, aarch64, thumbv7em ..."""
        return self.triple.split("-", 1)[0]


class _GivenUp(Exception):
    """The process was ended by `_give_up` while it was at work."""


class _WorkerDied(Exception):
    """The process is gone or was killed; the text says how."""


_UNKNOWN_TARGET = ("not a recognized processor", "not a recognized feature")


class _Worker:
    """One compiler process, used by one thread at a time."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile()
        self._heard = 0  # bytes of the log already read
        # -P: the folder of worker.py must not shadow modules of the standard library.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            process_group=0,  # Ctrl-C goes to the parent alone, who ends this one
        )

    def request(self, header: bytes, text: bytes, timeout: float) -> tuple[bytes, bytes]:
        """Send a request and wait for both parts of the answer."""
        stdin = self._process.stdin
        assert stdin is not None
        deadline = time.monotonic() + timeout
        try:
            stdin.write(_HEADER.pack(len(header)) + header + _HEADER.pack(len(text)))
            stdin.write(text)
            stdin.flush()
            return self._message(deadline), self._message(deadline)
        except TimeoutError:  # an OSError too, so it comes first
            raise _WorkerDied(f"LLVM took more than {timeout:g} s") from None
        except (OSError, EOFError):
            raise _WorkerDied(self._epitaph()) from None

    def _message(self, deadline: float) -> bytes:
        (size,) = _HEADER.unpack(self._read(_HEADER.size, deadline))
        return self._read(size, deadline)

    def _read(self, size: int, deadline: float) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        handle = stdout.fileno()
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        parts = bytearray()
        while len(parts) < size:
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            part = os.read(handle, size - len(parts))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def said(self, everything: bool = False) -> str:
        """What the process has written to stderr, since the last call or at all."""
        if everything:
            self._heard = 0
        # pread: the process shares this file's own position.
        said = os.pread(self._log.fileno(), 1 << 16, self._heard)
        self._heard += len(said)
        return said.decode(errors="replace").strip()

    def _epitaph(self) -> str:
        self._process.kill()  # its end of the pipe is closed, or it talks nonsense
        status = self._process.wait()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        said = [line for line in self.said().splitlines() if line.strip()]
        telling = [line for line in said if "error" in line.lower()] or said
        return ": ".join([f"LLVM ended with {how}", *telling[-1:]])

    def kill(self) -> None:
        """End the process; who waits for its answer sees the end of its stream."""
        self._process.kill()

    def close(self) -> None:
        """Kill the process and reap it."""
        self.kill()
        self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Close this side's ends only: the process belongs to the parent of this one."""
        for stream in (self._process.stdin, self._process.stdout, self._log):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass
        self._process.returncode = self._process.returncode or 0


_idle: list[_Worker] = []
_all: set[_Worker] = set()
_lock = threading.Lock()


def _acquire() -> _Worker:
    with _lock:
        while _idle:
            worker = _idle.pop()
            if worker.alive():
                return worker
            worker.close()
            _all.discard(worker)
        worker = _Worker()
        _all.add(worker)
        return worker


def prepare(workers: int | None = None) -> None:
    """Start the processes that will be wanted soon: they come up while texts are still made."""
    count = workers or len(os.sched_getaffinity(0))
    with _lock:
        while len(_all) < min(count, MOST_PREPARED):
            worker = _Worker()
            _all.add(worker)
            _idle.append(worker)


def _discard(worker: _Worker) -> None:
    with _lock:
        _all.discard(worker)
    worker.close()


def shutdown() -> None:
    """End every compiler process; the next compilation starts new ones."""
    with _lock:
        workers = list(_all)
        _all.clear()
        _idle.clear()
    for worker in workers:
        worker.close()


def _give_up() -> None:
    """End every compiler process; one at work is closed by the thread that waits for it."""
    with _lock:
        idle, busy = list(_idle), _all.difference(_idle)
        _all.clear()
        _idle.clear()
    for worker in idle:
        worker.close()
    for worker in busy:
        worker.kill()


def _forget_after_fork() -> None:
    """A forked child must not talk into its parent's pipes, nor keep them open."""
    global _lock
    _lock = threading.Lock()
    for worker in _all:
        worker.forget()
    _all.clear()
    _idle.clear()


atexit.register(shutdown)
os.register_at_fork(after_in_child=_forget_after_fork)


def crash_folder() -> Path:
    """Where texts are kept that LLVM did not survive or refused."""
    return cache_dir() / "crashes"


def _keep(name: str, text: str) -> str:
    """Write the text of a failed compilation and say where."""
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:80]
    path = crash_folder() / f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.ll"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        return f"the text could not be kept: {error}"
    return f"text: {path}"


def _run(name: str, text: str, target: CodegenTarget, output: str, timeout: float) -> bytes:
    request = dataclasses.asdict(target) | {"output": output, "timeout": timeout}
    worker = _acquire()
    try:
        kind, answer = worker.request(json.dumps(request).encode(), text.encode(), timeout)
    except _WorkerDied as died:
        with _lock:
            given_up = worker not in _all
        if given_up:
            worker.close()
            raise _GivenUp from None
        said = worker.said(everything=True)
        _discard(worker)
        _check_target(said, target)
        details = (str(died), _keep(name, text), f"target: {target.key()}")
        raise Error(
            "E0490",
            f"LLVM failed on kernel '{name}'",
            details=details,
            hint="please report this together with the kept text",
            exit_code=EXIT_INTERNAL,
        ) from None
    except BaseException:
        _discard(worker)  # an interrupted conversation cannot be resumed
        raise
    said = worker.said()
    with _lock:
        _idle.append(worker)
    if kind != b"ok":
        raise _refusal(name, text, target, answer.decode(errors="replace"))
    _check_target(said, target)
    return answer


def _check_target(said: str, target: CodegenTarget) -> None:
    """Refuse a processor or feature for which LLVM has printed its warning that it is unknown."""
    for line in said.splitlines():
        if any(phrase in line for phrase in _UNKNOWN_TARGET):
            raise UnsupportedError(
                "E0492", f"LLVM says: {line}", details=(f"target: {target.key()}",)
            )


def _refusal(name: str, text: str, target: CodegenTarget, complaint: str) -> Error:
    """The error for text that LLVM does not accept, or a target it does not have."""
    if "No available targets" in complaint or "Unable to find target" in complaint:
        return UnsupportedError("E0492", f"this LLVM has no target {target.triple}")
    lines = [line for line in complaint.splitlines() if line.strip()][:6]
    return Error(
        "E0491",
        f"LLVM refuses the text of kernel '{name}'",
        details=(*lines, _keep(name, text)),
        hint="please report this together with the kept text",
        exit_code=EXIT_INTERNAL,
    )


def compile_text(
    text: str, target: CodegenTarget, *, name: str = "module", timeout: float = TIMEOUT
) -> bytes:
    """The object file of one module.

    Errors: E0490 LLVM died or took too long, E0491 text refused, E0492 target unknown.
    """
    return _run(name, text, target, "object", timeout)


def assembly(
    text: str, target: CodegenTarget, *, name: str = "module", timeout: float = TIMEOUT
) -> str:
    """The assembly of one module, for reading.  Errors as `compile_text`."""
    return _run(name, text, target, "assembly", timeout).decode()


def compile_many(
    named_texts: Mapping[str, str] | Iterable[tuple[str, str]],
    target: CodegenTarget,
    workers: int | None = None,
    *,
    timeout: float = TIMEOUT,
) -> dict[str, bytes]:
    """The object files of many modules, from the cache where it has them.

    Texts may come one by one: each is compiled while the next is being made.  Identical texts are
    compiled once.  `workers` bounds the processes at work (default: the cores this process may
    use).  The error raised is that of the first failing name in the order given, after all others
    are done; an interrupt ends all processes at once.
    """
    pairs = named_texts.items() if isinstance(named_texts, Mapping) else named_texts
    count = workers or len(os.sched_getaffinity(0))
    keys: dict[str, str] = {}
    objects: dict[str, Future[bytes]] = {}
    with _threads(max(1, count)) as threads:
        for name, text in pairs:
            key = keys[name] = cache_key(text, target.key())
            if key not in objects:
                objects[key] = _object(threads, key, name, text, target, timeout)
        wait(objects.values())
    return {name: objects[key].result() for name, key in keys.items()}


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that are waited for, but where the block fails: then what has not begun is dropped,
    and on an interrupt the processes at work are ended too.
    """
    threads = ThreadPoolExecutor(count)
    try:
        yield threads
    except BaseException as failure:
        threads.shutdown(wait=False, cancel_futures=True)
        if not isinstance(failure, Exception):
            _give_up()
        raise
    finally:
        threads.shutdown()


def _object(
    threads: ThreadPoolExecutor,
    key: str,
    name: str,
    text: str,
    target: CodegenTarget,
    timeout: float,
) -> Future[bytes]:
    """The object of one text: in the cache, or on its way from a worker process."""
    cache = kernel_cache()
    known = cache.get(key)
    if known is not None:
        done: Future[bytes] = Future()
        done.set_result(known)
        return done

    def build() -> bytes:
        body = compile_text(text, target, name=name, timeout=timeout)
        cache.put(key, body)
        return body

    return threads.submit(build)
