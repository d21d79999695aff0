"""Time of a train step: irc beside torch eager and torch.compile, in turns, on this machine.

Each engine has a process of its own; all but the one whose turn it is are stopped.  The ratio is
the quickest torch's time over ours: above 1 we are faster.  `python -m irc.tools.bench.train_steps
worker ENGINE NET THREADS` is such a process: a line of seconds on stdin, a line of JSON as answer.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from .race import geometric_mean
from .train_nets import NETS
from .train_peers import ENGINES
from .worker import forget_peak, resident

MIB = 1 << 20


@dataclass
class Steps:
    """One engine on one network: ms of every step, least processor time of one, memory.

    `memory` is the peak of resident memory while training, beyond that after the imports, in bytes:
    state, activations, gradients and what the engine keeps for itself.
    """

    times: list[float] = field(default_factory=list)
    cpu: float = 0.0
    memory: int = 0
    losses: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def median(self) -> float:
        """ms."""
        return statistics.median(self.times) if self.times else float("inf")

    @property
    def least(self) -> float:
        """ms."""
        return min(self.times, default=float("inf"))


@dataclass
class Row:
    """One network at one number of threads."""

    net: str
    threads: int
    engines: dict[str, Steps]

    def ratio(self, which: str = "median") -> float:
        """The quickest peer's time over ours; nan where none ran, 0 where ours failed."""
        peers = [getattr(s, which) for n, s in self.engines.items() if n != "irc" and s.times]
        ours = self.engines.get("irc", Steps())
        if not peers:
            return float("nan")
        return min(peers) / getattr(ours, which) if ours.times else 0.0

    def memory_ratio(self) -> float:
        """Our peak over the least of a peer's; nan where one is missing."""
        peers = [s.memory for n, s in self.engines.items() if n != "irc" and s.memory]
        ours = self.engines.get("irc", Steps()).memory
        return ours / min(peers) if peers and ours else float("nan")


class Runner:
    """A worker that is stopped whenever it has no turn."""

    def __init__(self, engine: str, net: str, threads: int) -> None:
        names = ("OMP", "OPENBLAS", "MKL", "IRC")
        command = [sys.executable, "-P", "-m", "irc.tools.bench.train_steps"]
        self.process = subprocess.Popen(
            [*command, "worker", engine, net, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {f"{n}_NUM_THREADS": str(threads) for n in names},
        )
        self.ready = self._answer()
        self.process.send_signal(signal.SIGSTOP)

    def turn(self, seconds: float) -> dict[str, Any]:
        """Steps for about so long."""
        assert self.process.stdin is not None
        if self.process.poll() is not None:
            return {"error": f"the process ended with {self.process.poll()}"}
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        found = self._answer()
        self.process.send_signal(signal.SIGSTOP)
        return found

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process ended"}
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def measure(net: str, threads: int, engines: Sequence[str], rounds: int, seconds: float) -> Row:
    """Rounds of turns, begun by another engine each."""
    runners = {name: Runner(name, net, threads) for name in engines}
    found = {name: Steps(**runner.ready) for name, runner in runners.items()}
    try:
        for k in range(rounds):
            order = [n for n in runners if not found[n].error]
            for name in order[k % len(order) :] + order[: k % len(order)] if order else ():
                answer, mine = runners[name].turn(seconds), found[name]
                mine.times += answer.get("times", [])
                mine.error = answer.get("error", "")
                mine.cpu = min(mine.cpu or float("inf"), answer.get("cpu", float("inf")))
                mine.memory = max(mine.memory, answer.get("memory", 0))
    finally:
        for runner in runners.values():
            runner.close()
    return Row(net, threads, found)


def worker(engine: str, net: str, threads: int) -> None:
    """Take steps when asked; the answer to nothing is the first losses."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**found: Any) -> None:
        kept.write(json.dumps(found) + "\n")
        kept.flush()

    try:
        before = _baseline(engine)
        call = ENGINES[engine](net, threads)
        answer(losses=[call() for _ in range(3)])
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}"[:500])
        return
    forget_peak()
    for line in sys.stdin:
        times, cpu = _turn(call, float(line))
        answer(times=times, cpu=cpu, memory=resident("VmHWM") - before)


def _baseline(engine: str) -> int:
    """Resident memory with the engine imported and used once, in bytes."""
    if engine == "irc":
        from ...backends.llvm.compile import prepare

        prepare()
    else:
        import torch

        x = torch.ones(8, 8, requires_grad=True)
        (x @ x).sum().backward()
    return resident("VmRSS")


def _turn(call: Callable[[], float], seconds: float) -> tuple[list[float], float]:
    """ms of each step for about so long, the first not counted; the least processor time."""
    call()
    times, spent = [], []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start, used = time.perf_counter(), time.process_time()
        call()
        spent.append(1e3 * (time.process_time() - used))
        times.append(1e3 * (time.perf_counter() - start))
    return times, min(spent)


def table(rows: Sequence[Row], engines: Sequence[str]) -> str:
    """The figures for people: ms, median (least)."""
    lines = [f"{'network':<10}{'threads':>8}" + "".join([f"{n:>20}" for n in engines])
             + f"{'ratio':>8}{'least':>8}{'memory MiB':>24}"]  # fmt: skip
    for row in rows:
        cells = [row.engines[n] for n in engines]
        text = "".join([f"{s.median:12.2f} ({s.least:6.2f})"[-20:].rjust(20) for s in cells])
        memory = " / ".join([f"{s.memory / MIB:.0f}" for s in cells])
        lines.append(f"{row.net:<10}{row.threads:>8}{text}{row.ratio():8.2f}{row.ratio('least'):8.2f}"
                     f"{memory:>24}")  # fmt: skip
    for threads in sorted({row.threads for row in rows}):
        found = [row for row in rows if row.threads == threads]
        mean, least = [geometric_mean([r.ratio(w) for r in found]) for w in ("median", "least")]
        lines.append(f"geometric mean, {threads} threads: {mean:.3f}, of least {least:.3f}")
    return "\n".join(lines)


@click.command()
@click.option("--nets", default=",".join(NETS), show_default=True, help="Networks, with commas.")
@click.option("--threads", default="1,2", show_default=True, help="Numbers of threads.")
@click.option("--engines", default=",".join(ENGINES), show_default=True, help="Who trains.")
@click.option("--rounds", default=6, show_default=True, help="Turns of each engine.")
@click.option("--seconds", default=1.0, show_default=True, help="Length of a turn.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    nets: str, threads: str, engines: str, rounds: int, seconds: float, as_json: bool
) -> None:
    """Step time and memory of training beside torch eager and torch.compile."""
    who = engines.split(",")
    rows = [
        measure(net, int(count), who, rounds, seconds)
        for net in nets.split(",")
        for count in threads.split(",")
    ]
    if as_json:
        said = [asdict(r) | {"ratio": r.ratio(), "memory_ratio": r.memory_ratio()} for r in rows]
        click.echo(json.dumps(said, indent=1))
    else:
        click.echo(table(rows, who))
    raise SystemExit(int(any([s.error for r in rows for s in r.engines.values()])))


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        command()
