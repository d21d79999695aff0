"""`python -m irc.tools.bench training`: train steps beside torch eager and torch.compile.

Each engine runs in a process of its own, one at a time, in turns, as in race.py; memory is the peak
of the process beyond what it was with the framework imported and a small step run.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from ..tables import show_json
from ..timing import Times
from .race import Runner, geometric_mean
from .training_nets import FIRST, NETS, Training
from .worker import Worker, forget_peak, main, resident

ENGINES = ("irc", "torch", "torch.compile", "torch.fused")
PEERS = ("torch", "torch.compile")
"""What the speed is measured by; fused optimizers, which are not torch's default, stand beside."""
Step = Callable[[], float]


def irc_step(net: Training, threads: int) -> Step:
    """One step by the compiled train step; gives the loss."""
    from ...frontends import nn
    from ...frontends.train import optim
    from ...frontends.train.step import TrainStep

    nn.manual_seed(0)
    makers: dict[str, Any] = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW}
    step = TrainStep(
        net.build(nn, nn),
        loss=lambda out, y: nn.cross_entropy(out.reshape((-1, out.shape[-1])), y.reshape((-1,))),
        optimizer=makers[net.optimizer](**net.arguments),
        threads=threads,
    )
    batch = net.arrays()
    return lambda: float(step(batch).logs["loss"])


def torch_step(net: Training, threads: int, compiled: bool, fused: bool) -> Step:
    """The same by torch's autograd and optimizers, as its users write it."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    functional = torch.nn.functional
    model: Any = net.build(torch.nn, functional)
    called = torch.compile(model) if compiled else model
    makers: dict[str, Any] = {
        "sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW,
    }  # fmt: skip
    chosen = {**net.arguments, "fused": True} if fused else dict(net.arguments)
    optimizer = makers[net.optimizer](model.parameters(), **chosen)
    x, y = [torch.tensor(a) for a in net.arrays()]

    def step() -> float:
        out = called(x)
        loss = functional.cross_entropy(out.reshape(-1, out.shape[-1]), y.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


def make_step(engine: str, net: Training, threads: int) -> Step:
    """The engine's step."""
    if engine == "irc":
        return irc_step(net, threads)
    return torch_step(net, threads, engine == "torch.compile", engine == "torch.fused")


class TrainWorker(Worker):
    """A worker whose call is a train step."""

    def load(self, model: str, inputs: str, threads: int, first: str) -> dict[str, Any]:
        """Build the step and take it three times; what any use loads is there before."""
        make_step(self.engine, FIRST, threads)()
        gc.collect()
        self.baseline = resident("VmRSS")
        forget_peak()
        started = time.perf_counter()
        step = make_step(self.engine, NETS[model], threads)
        losses = [step() for _ in range(3)]
        seconds = time.perf_counter() - started
        loading = resident("VmHWM") - self.baseline
        self.call = step
        gc.collect()
        forget_peak()
        step()
        return {"load_seconds": seconds, "load_memory": loading, "losses": losses}


@dataclass
class Figures:
    """One engine: ms of a step, seconds to build, bytes beyond the imported framework."""

    times: Times | None = None
    cpu: float = 0.0
    load_seconds: float = 0.0
    run_memory: int = 0
    losses: list[float] = field(default_factory=list)
    error: str = ""


@dataclass
class Race:
    """The engines on one network."""

    name: str
    threads: int
    engines: dict[str, Figures]

    def speedup(self, which: str = "median", peers: Sequence[str] = PEERS) -> float:
        """How many times faster than the quicker of the peers; 0 where ours failed."""
        others = [self.engines[n].times for n in peers if n in self.engines]
        theirs = [getattr(t, which) for t in others if t]
        ours = self.engines["irc"].times
        return min(theirs) / getattr(ours, which) if ours and theirs else 0.0

    def memory_ratio(self) -> float:
        """Our peak over that of torch eager."""
        theirs = self.engines["torch"].run_memory
        return self.engines["irc"].run_memory / theirs if theirs else float("nan")


def race(name: str, threads: int, rounds: int, seconds: float, engines: Sequence[str]) -> Race:
    """Rounds of turns of about `seconds` on one network."""
    module = "irc.tools.bench.training"
    request = {"model": name, "inputs": "", "threads": threads, "first": ""}
    built = _built_before(module, request)
    runners = {engine: Runner(engine, module) for engine in engines}
    found = Race(name, threads, {})
    times: dict[str, list[float]] = {}
    try:
        for engine, runner in runners.items():
            answer = runner.ask("load", **request)
            answer.pop("load_memory", None)
            found.engines[engine] = Figures(**answer)
        found.engines["irc"].load_seconds = built
        times = {n: [] for n, f in found.engines.items() if not f.error}
        for k in range(rounds):
            order = list(times)
            for engine in order[k % len(order) :] + order[: k % len(order)]:
                answer = runners[engine].ask("run", seconds=seconds)
                times[engine] += [ns * 1e-9 for ns in answer.get("ns", ())]
                figures = found.engines[engine]
                used = [ns * 1e-6 for ns in answer.get("cpu_ns", ())]
                figures.cpu = min([figures.cpu or 1e9, *used])
        for engine, kept in times.items():
            found.engines[engine].times = Times.of(kept)
            found.engines[engine].run_memory = runners[engine].ask("memory").get("run_memory", 0)
    finally:
        for runner in runners.values():
            runner.close()
    return found


def _built_before(module: str, request: dict[str, Any]) -> float:
    """Seconds that our step takes to build and run thrice; it then lies compiled on disk.

    The race so measures what running costs, not what compiling left behind.
    """
    runner = Runner("irc", module)
    try:
        return float(runner.ask("load", **request).get("load_seconds", 0.0))
    finally:
        runner.close()


def row(found: Race) -> dict[str, Any]:
    """A race as plain values."""
    return {
        "network": found.name,
        "threads": found.threads,
        "speedup": round(found.speedup(), 3),
        "speedup_of_least": round(found.speedup("min"), 3),
        "over_fused": round(found.speedup("median", ["torch.fused"]), 3),
        "memory_ratio": round(found.memory_ratio(), 3),
        **{
            engine: {
                "median_ms": f.times and round(f.times.median, 3),
                "min_ms": f.times and round(f.times.min, 3),
                "cpu_ms": round(f.cpu, 3),
                "memory_mib": round(f.run_memory / 2**20, 1),
                "build_seconds": round(f.load_seconds, 2),
                "losses": [round(x, 5) for x in f.losses],
                **({"error": f.error} if f.error else {}),
            }
            for engine, f in found.engines.items()
        },
    }


@click.command()
@click.argument("names", nargs=-1)
@click.option("--threads", type=int, multiple=True, default=(1, 2), help="Thread counts.")
@click.option("--rounds", type=int, default=5, help="Turns of each engine.")
@click.option("--seconds", type=float, default=1.0, help="Of a turn.")
@click.option("--without", multiple=True, help="An engine to leave out.")
def command(
    names: tuple[str, ...],
    threads: tuple[int, ...],
    rounds: int,
    seconds: float,
    without: tuple[str, ...],
) -> None:
    """Train steps of NAMES (all) beside torch; prints JSON."""
    engines = [e for e in ENGINES if e not in without]
    rows = []
    for count in threads:
        for name in names or tuple(NETS):
            found = race(name, count, rounds, seconds, engines)
            rows.append(row(found))
            click.echo(f"{name}, {count} threads: {found.speedup():.2f}x", err=True)
    mean = geometric_mean([r["speedup"] for r in rows if r["speedup"]])
    show_json({"speedup": round(mean, 3), "rows": rows})


if __name__ == "__main__":
    main(TrainWorker)
