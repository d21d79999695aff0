"""Engines in turns on one network: each in its own process, one running at a time.

The parent only waits.  An engine that has no turn is stopped (SIGSTOP), so that threads which spin
for more work do not take the cores of the one that has.  Turns go round, so noise hits all alike.
"""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import driver
from ..timing import Times
from .models import first_model
from .zoo import Subject


@dataclass
class Figures:
    """One engine on one network: ms, seconds to load, bytes beyond the imported engine.

    `cpu` is the least processor time of a call in ms, all threads together: of one thread it is the
    latency that a busy machine hides; of more it contains their spinning.
    `run_memory` is the peak of resident memory while it runs, loading not counted; `load_memory`
    the peak until the first run has ended.  `error` says why the rest is missing.
    """

    times: Times | None = None
    cpu: float = 0.0
    load_seconds: float = 0.0
    load_memory: int = 0
    run_memory: int = 0
    error: str = ""


@dataclass
class Race:
    """Engines on one network with so many threads; `peak` is the FMA rate of those cores."""

    name: str
    threads: int
    engines: dict[str, Figures] = field(default_factory=dict)
    peak: float = 0.0

    def best_peer(self, which: str = "median") -> str:
        """The quicker of the others; empty where none ran."""
        found = {n: getattr(f.times, which) for n, f in self.engines.items() if f.times}
        found.pop("irc", None)
        return min(found, key=found.__getitem__, default="")

    def cpu_ratio(self) -> float:
        """Our least processor time over the least of a peer; nan where one is missing."""
        found = {n: f.cpu for n, f in self.engines.items() if f.times}
        ours = found.pop("irc", float("nan"))
        return ours / min(found.values(), default=float("nan"))

    def ratio(self, which: str = "median") -> float:
        """Our time over the best peer's; infinite where ours failed, nan where no peer ran."""
        peer, ours = self.best_peer(which), self.engines.get("irc", Figures()).times
        if not peer:
            return float("nan")
        theirs = getattr(self.engines[peer].times, which)
        return getattr(ours, which) / theirs if ours else float("inf")


class Runner:
    """A worker process that is stopped whenever it is not asked."""

    def __init__(self, engine: str, module: str = "irc.tools.bench.worker") -> None:
        command = [sys.executable, "-P", "-m", module, engine]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The answer to one command; {"error": ...} where the process ends without one."""
        assert self.process.stdin and self.process.stdout
        self._signal("SIGCONT")
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        self._signal("SIGSTOP")
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        return {"error": f"the process ended with {self.process.poll()}"}

    def _signal(self, name: str) -> None:
        if hasattr(signal, name) and self.process.poll() is None:
            self.process.send_signal(getattr(signal, name))

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what it was asked last
                    pipe.close()


def race(
    subject: Subject,
    models: Mapping[str, str],
    threads: int,
    rounds: int,
    seconds: float,
    tell: Callable[[str], object] = lambda said: None,
) -> Race:
    """Rounds of turns of about `seconds`; `models` gives each engine the file that it loads."""
    found = Race(subject.name, threads)
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **dict(subject.inputs))  # type: ignore[arg-type]
        firsts = _first_files(Path(folder))
        runners = {engine: Runner(engine) for engine in models}
        machine = Runner("peak")
        try:
            for engine, runner in runners.items():
                tell(f"{engine} loads")
                first = firsts[Path(models[engine]).suffix == driver.PLAN_SUFFIX]
                given = {"inputs": str(inputs), "threads": threads, "first": first}
                answer = runner.ask("load", model=models[engine], **given)
                found.engines[engine] = Figures(**answer)
            _turns(found, runners, machine, rounds, seconds, tell)
        finally:
            for runner in (*runners.values(), machine):
                runner.close()
    return found


def _first_files(folder: Path) -> tuple[str, str]:
    """The model of one op as an ONNX file and as a compiled plan."""
    model, plan = folder / "first.onnx", folder / f"first{driver.PLAN_SUFFIX}"
    model.write_bytes(first_model().SerializeToString())
    plan.write_bytes(_first_plan())
    return str(model), str(plan)


@functools.cache
def _first_plan() -> bytes:
    exe: Any = driver.compile(first_model(), threads=1)
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / f"first{driver.PLAN_SUFFIX}"
        exe.save(plan)
        return plan.read_bytes()


def _turns(
    found: Race,
    runners: Mapping[str, Runner],
    machine: Runner,
    rounds: int,
    seconds: float,
    tell: Callable[[str], object],
) -> None:
    times: dict[str, list[float]] = {n: [] for n, f in found.engines.items() if not f.error}
    peaks: list[float] = []
    for k in range(rounds):
        tell(f"round {k + 1} of {rounds}")
        peaks.append(machine.ask("peak", threads=found.threads).get("gflops", 0.0))
        order = list(times)
        for engine in order[k % len(order) :] + order[: k % len(order)] if order else ():
            answer = runners[engine].ask("run", seconds=seconds)
            times[engine] += [ns * 1e-9 for ns in answer.get("ns", ())]
            figures = found.engines[engine]
            figures.error = answer.get("error", "")
            figures.cpu = min([figures.cpu or 1e9, *(ns * 1e-6 for ns in answer.get("cpu_ns", ()))])
    found.peak = max(peaks, default=0.0)
    for engine, kept in times.items():
        figures = found.engines[engine]
        figures.times = Times.of(kept) if kept else None
        figures.run_memory = runners[engine].ask("memory").get("run_memory", 0)


def geometric_mean(ratios: Sequence[float]) -> float:
    """Of positive numbers; nan where there are none."""
    return statistics.geometric_mean(ratios) if ratios else float("nan")


__all__ = ["Figures", "Race", "Runner", "geometric_mean", "race"]
