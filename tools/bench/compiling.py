"""What compiling takes: `irc compile` in a process of its own, with an empty cache and again.

Time is that of the whole command, start-up included.  Memory is the peak of the proportional set
size (shared pages counted once) of the process and all below it, sampled while it runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .zoo import Subject

SAMPLE = 0.03
TIMEOUT = 600


@dataclass(frozen=True)
class Compiling:
    """Seconds, seconds of all processors, peak bytes of memory, and what the command said of the
    plan (`facts`) or its `error`.
    """

    seconds: float
    cpu_seconds: float
    memory: int
    facts: dict[str, Any]
    error: str = ""


def compile_apart(subject: Subject, output: Path, threads: int, cache: Path) -> Compiling:
    """Compile to `output` with this cache folder."""
    command = [sys.executable, "-P", "-m", "irc.tools.main", "compile", str(subject.file)]
    command += ["-o", str(output), "--threads", str(threads), "--json"]
    for name, shape in subject.shapes.items():
        command += ["--shape", f"{name}:{'x'.join(map(str, shape))}"]
    environment = os.environ | {"IRC_CACHE_DIR": str(cache)}
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as failed:
        started, before = time.perf_counter(), _spent()
        process = subprocess.Popen(command, stdout=said, stderr=failed, env=environment)
        watch = _Watch(process.pid)
        watch.start()
        try:
            process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        seconds, spent = time.perf_counter() - started, _spent() - before
        watch.stop()
        said.seek(0)
        failed.seek(0)
        if process.returncode:
            return Compiling(seconds, spent, watch.peak, {}, failed.read()[:2000] or "failed")
        return Compiling(seconds, spent, watch.peak, json.load(said))


def _spent() -> float:
    """Processor seconds of the children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


class _Watch(threading.Thread):
    """Samples the memory of a process and its children until told to stop."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.ended = pid, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE):
            self.peak = max(self.peak, sum([_proportional(pid) for pid in _family(self.pid)]))

    def stop(self) -> None:
        """End the thread."""
        self.ended.set()
        self.join()


def _family(pid: int) -> Iterator[int]:
    """A process and all below it; nothing where the system does not say."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            below = task.read_text().split()
        except OSError:
            continue
        for child in below:
            yield from _family(int(child))


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


__all__ = ["Compiling", "compile_apart"]
