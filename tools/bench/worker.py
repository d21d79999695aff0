"""One engine in a process of its own: `python -m irc.tools.bench.worker ENGINE`.

Commands are lines of JSON on stdin, answers lines of JSON on what was stdout; what libraries print
goes to stderr.  `load` imports the engine, runs a model of one op, so that what every use of it
costs is there, and notes the resident memory as the baseline; then it loads the model.  `run` warms
up and times calls; `memory` says the peak of resident memory since loading; `peak` measures the
machine instead.  An error becomes the answer {"error": ...}.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .peers import ENGINES, Call

WARM_UP = 0.02
"""Seconds of calls before each turn that are not counted: another process has had the caches."""
MOST_CALLS = 1000


def resident(field: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (peak) of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def forget_peak() -> None:
    """Let VmHWM begin anew."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass


class Worker:
    """The state between commands: the engine's call and the memory before loading."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.call: Call = lambda: None
        self.baseline = 0

    def load(self, model: str, inputs: str, threads: int, first: str) -> dict[str, Any]:
        """Load a model and run it twice; `first` is the model of one op."""
        make = ENGINES[self.engine]
        with np.load(inputs) as file:
            feeds = {name: file[name] for name in file.files}
        make(first, {"x": np.ones((1, 16), np.float32)}, threads)()
        gc.collect()
        self.baseline = resident("VmRSS")
        forget_peak()
        started = time.perf_counter()
        self.call = make(model, feeds, threads)
        self.call()
        seconds = time.perf_counter() - started
        loading = resident("VmHWM") - self.baseline
        gc.collect()
        forget_peak()
        self.call()
        return {"load_seconds": seconds, "load_memory": loading}

    def run(self, seconds: float) -> dict[str, Any]:
        """Nanoseconds of single calls for about `seconds`, one at least; and of processor time."""
        call, clock, spent = self.call, time.perf_counter_ns, time.process_time_ns
        gc.disable()
        end = clock() + int(min(WARM_UP, seconds) * 1e9)
        call()
        while clock() < end:
            call()
        found, used = [], []
        end = clock() + int(seconds * 1e9)
        while not found or (clock() < end and len(found) < MOST_CALLS):
            before, start = spent(), clock()
            call()
            found.append(clock() - start)
            used.append(spent() - before)
        gc.enable()
        return {"ns": found, "cpu_ns": used}

    def memory(self) -> dict[str, Any]:
        """Peak of resident memory while running, beyond the baseline."""
        return {"run_memory": resident("VmHWM") - self.baseline}

    def peak(self, threads: int) -> dict[str, Any]:
        """GFLOP/s of fused multiply-adds on that many cores, now."""
        from .peak import measure_fma_peak

        return {"gflops": measure_fma_peak(repeats=4, threads=threads).best}


def serve(worker: Worker, answer: Callable[[dict[str, Any]], None]) -> None:
    """Do what the lines on stdin say until they end."""
    commands: dict[str, Callable[..., dict[str, Any]]] = {
        "load": worker.load,
        "run": worker.run,
        "memory": worker.memory,
        "peak": worker.peak,
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            found = commands[request.pop("do")](**request)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"[:2000]}
        answer(found)


def main(engine: Callable[[str], Worker]) -> None:
    """Keep stdout for answers, and serve as the worker of the engine named on the command line."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(found: dict[str, Any]) -> None:
        kept.write(json.dumps(found) + "\n")
        kept.flush()

    serve(engine(sys.argv[1]), answer)


if __name__ == "__main__":
    main(Worker)
