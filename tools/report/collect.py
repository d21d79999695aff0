"""Everything the report shows, from one compilation: plain data that JSON can hold.

The pipeline runs phase by phase, so that each is timed and the graph behind fusion can be kept; the
schedule of each kernel is noted when the pipeline asks for it.  Symbols of dims count as
`passes.cost.ASSUMED`, in estimates and in the run that is timed.  Imports: ir, passes, backends,
the driver.
"""

from __future__ import annotations

import dataclasses
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ... import __version__
from ...backends import compiler
from ...backends.targets import Choice
from ...ir.core import Op
from ...ir.dims import evaluate, symbols_of
from ...ir.errors import UnsupportedError
from ...ir.ops.core import Func, Fused, Module
from ...ir.ops.loop import Call, For
from ...ir.ops.plan import Launch
from ...ir.target import Target
from ...passes.cost import ASSUMED, Cost, trips, work
from ...passes.lifetimes import Lifetimes
from ...passes.memory import ALIGN
from ...passes.pipeline import PHASES, Compiled, Options, compile_module
from ...passes.plan import COPY, Planned
from ...passes.schedule.choose import choose as choose_schedule
from ...passes.schedule.choose import schedule as chosen_schedule
from .. import driver
from ..cmd_explain import said
from ..cmd_inspect import of_module
from ..feeds import random_inputs
from .graph import Graph, graph_of

Say = Callable[[str], object]


@dataclass(frozen=True)
class Settings:
    """What to make a report of: the model, the target, the extents, and whether to run it."""

    model: str
    choice: Choice
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    profile: bool = True
    title: str = ""


@dataclass
class Phases:
    """What the pipeline gave on its way, with the seconds of each step."""

    fused: Module
    loops: Module
    compiled: Compiled
    refusals: list[Any]
    schedule_refusals: list[tuple[str, str]]
    steps: dict[str, dict[str, list[str]]]
    seconds: dict[str, float]

    @property
    def planned(self) -> Planned:
        """The plan at the end."""
        assert self.compiled.planned is not None
        return self.compiled.planned


def collect(settings: Settings, say: Say = str) -> dict[str, Any]:
    """Compile the model and, where asked, run it: the data of the report, ready for JSON.

    `say` is told what is being done.  Errors: those of loading and compiling; E0470 where a profile
    is asked of a target that has none here.
    """
    if settings.profile:
        check_profile(settings.choice)
    say("load")
    start = time.perf_counter()
    module = driver.load(settings.model, settings.shapes or None)
    loaded = time.perf_counter() - start
    phases = run_phases(module, settings, say)
    phases.seconds = {"load": loaded} | phases.seconds
    launched = launches(phases)
    dims = dims_of(phases.planned)
    measured = measure(phases, settings, say) if settings.profile else {}
    kernels = kernel_rows(phases, launched, measured)
    counted = of_module(module)
    main = graph_of(phases.fused.main, {fused: launch.callee for fused, launch in launched})
    return {
        "title": settings.title or Path(str(settings.model)).name,
        "version": __version__,
        "target": target_facts(settings.choice),
        "summary": summary(phases, settings, counted, kernels, measured, dims),
        "phases": [{"name": n, "seconds": s} for n, s in phases.seconds.items()],
        "graph": dataclasses.asdict(main),
        "kernels": kernels,
        "memory": memory(phases, dims),
        "fusion": fusion(phases, main),
        "copies": list(phases.planned.copies),
        "host": host_steps(phases.planned),
        "peaks": measured.get("peaks"),
    }


def can_profile(choice: Choice) -> bool:
    """Whether kernels of this target can be timed on this machine."""
    return choice.backend == "cpu" and not choice.lacking()


def check_profile(choice: Choice) -> None:
    """Refuse to time what does not run here, or has no clock between its kernels; E0470."""
    if not can_profile(choice):
        raise UnsupportedError(
            "E0470",
            f"kernels of target {choice.name} cannot be timed on this machine",
            hint="--no-profile writes the report without times",
        )


# Compiling ----------------------------------------------------------------------------------------


def run_phases(module: Module, settings: Settings, say: Say = str) -> Phases:
    """Take the module through the phases one by one."""
    steps: dict[str, dict[str, list[str]]] = {}
    target = replace(settings.choice.target, schedule=noting(settings.choice.target, steps))
    kept: dict[str, Compiled] = {}
    seconds: dict[str, float] = {}
    made, shapes = module, settings.shapes or None
    for before, phase in zip(PHASES, PHASES[1:]):
        say(phase)
        options = Options(from_phase=before, to_phase=phase, shapes=shapes)
        start = time.perf_counter()
        kept[phase] = compile_module(made, target, options)
        seconds[phase] = time.perf_counter() - start
        made, shapes = kept[phase].module, None
    return Phases(
        fused=kept["fused"].module,
        loops=kept["loops"].module,
        compiled=kept["planned"],
        refusals=[r for c in kept.values() for r in c.refusals],
        schedule_refusals=[r for c in kept.values() for r in c.schedule_refusals],
        steps=steps,
        seconds=seconds,
    )


def noting(target: Target, steps: dict[str, dict[str, list[str]]]) -> Any:
    """The target's schedule, which also notes what it chose and what was refused, by kernel."""

    def schedule(kernel: Func, asked: Target) -> Sequence[Any]:
        if target.schedule is not chosen_schedule:
            chosen, refused = list(target.schedule(kernel, asked)), []
        else:
            made = choose_schedule(kernel, asked)
            chosen = list(made.steps)
            refused = [f"{said(step)}: {why}" for step, why in made.refusals]
        steps[kernel.sym] = {"steps": [said(step) for step in chosen], "refused": refused}
        return chosen

    return schedule


def launches(phases: Phases) -> list[tuple[Fused, Launch]]:
    """Each fused region with the launch that stands in its place."""
    regions = [op for op in phases.fused.main.walk() if isinstance(op, Fused)]
    calls = [op for op in phases.loops.main.walk() if isinstance(op, Launch)]
    return list(zip(regions, calls, strict=True))


def dims_of(planned: Planned) -> dict[str, int]:
    """`ASSUMED` for every symbol of the inputs, and of the arena."""
    extents = [e for _, t in planned.inputs for e in t.shape]
    sizes = [planned.layout.arena, *[i.size for i in planned.layout.items]]
    found = set().union(*[symbols_of(e) for e in (*extents, *sizes)])
    return dict.fromkeys(sorted(found), ASSUMED)


# Running ------------------------------------------------------------------------------------------


def measure(phases: Phases, settings: Settings, say: Say = str) -> dict[str, Any]:
    """Compile to machine code and run: latency, time of each kernel, peaks of the machine."""
    from ...backends.cpu.profile import profile
    from ..bench.peak import measure_copy_bandwidth, measure_fma_peak
    from ..timing import Times

    choice, planned = settings.choice, phases.planned
    say("machine code")
    start = time.perf_counter()
    exe = compiler.build(phases.compiled, choice)
    phases.seconds["machine code"] = time.perf_counter() - start
    say("run")
    dims = dims_of(planned)
    shapes = {n: [evaluate(e, dims) for e in t.shape] for n, t in planned.inputs}
    inputs = random_inputs(exe.program.inputs, 0, shapes)
    once = _seconds(exe, inputs, 2)[-1]
    runs = max(3, min(50, int(0.5 / max(once, 1e-6))))
    times = Times.of(_seconds(exe, inputs, runs))
    threads = choice.target.threads
    kernels = profile(planned, inputs, choice.target, threads=threads, runs=runs)
    flops = measure_fma_peak(repeats=6).best * threads
    copied = measure_copy_bandwidth(threads=threads, repeats=3).best
    return {
        "latency": dataclasses.asdict(times),
        "kernels": {k.kernel: k for k in kernels},
        "peaks": {"gflops": flops, "gbs": copied, "threads": threads},
    }


def _seconds(exe: Any, inputs: Mapping[str, Any], runs: int) -> list[float]:
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        exe.run(inputs)
        found.append(time.perf_counter() - start)
    return found


# Rows ---------------------------------------------------------------------------------------------


def kernel_rows(
    phases: Phases, launched: Sequence[tuple[Fused, Launch]], measured: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row per kernel: flops, bytes and seconds are those of all its calls in a run."""
    regions: dict[str, list[Fused]] = {}
    for fused, launch in launched:
        regions.setdefault(launch.callee, []).append(fused)
    timed = measured.get("kernels", {})
    total = sum([k.seconds for k in timed.values()])
    rows = []
    for kernel in phases.planned.kernels:
        name = kernel.sym
        mine, took = regions.get(name, []), timed.get(name)
        calls, cost = copied(phases.planned) if name == COPY else called(mine)
        if took is not None and calls:  # loops whose length only the data says
            share = took.calls / calls
            calls, cost = took.calls, Cost(int(cost.flops * share), int(cost.bytes * share))
        noted = phases.steps.get(name, {})
        row = {
            "name": name,
            "ops": contents(mine[0]) if mine else "copy",
            "from": [str(op.loc) for op in mine if op.loc],
            "calls": calls,
            "flops": cost.flops,
            "bytes": cost.bytes,
            **rates(cost, took.seconds if took is not None else None, total, measured),
            "steps": noted.get("steps", []),
            "refused": noted.get("refused", []),
            "dropped": [why for dropped, why in phases.schedule_refusals if dropped == name],
        }
        rows.append(row)
    return rows


def called(regions: Sequence[Fused]) -> tuple[int, Cost]:
    """Calls in a run of the kernel of these regions, and what they all do."""
    calls = sum([times_run(op) for op in regions])
    one = work(regions[0])
    return calls, Cost(one.flops * calls, one.bytes * calls)


def rates(
    cost: Cost, seconds: float | None, total: float, measured: Mapping[str, Any]
) -> dict[str, float | None]:
    """Seconds, share of the run, GFLOP/s and GB/s, and these over the peaks; None where not timed.

    A share of the bandwidth may exceed 1: the yardstick is the memory's, data may lie in caches.
    """
    if not seconds:
        names = ("seconds", "share", "gflops", "gbs", "of_peak", "of_bandwidth")
        return dict.fromkeys(names)
    peaks = measured["peaks"]
    gflops, gbs = cost.flops / seconds / 1e9, cost.bytes / seconds / 1e9
    return {
        "seconds": seconds,
        "share": seconds / total,
        "gflops": gflops,
        "gbs": gbs,
        "of_peak": gflops / peaks["gflops"],
        "of_bandwidth": gbs / peaks["gbs"],
    }


def times_run(op: Op) -> int:
    """How often an op runs in one run of the model, as far as the loops around it say."""
    count, around = 1, op.parent_op
    while around is not None and not isinstance(around, Func):
        count *= trips(around)
        around = around.parent_op
    return count


def contents(fused: Fused) -> str:
    """`conv, 2 add, relu`: the ops of a region."""
    names = Counter([op.name for op in fused.body if not op.terminator and op.name != "const"])
    return ", ".join([f"{n} {name}" if n > 1 else name for name, n in names.items()])


def copied(planned: Planned) -> tuple[int, Cost]:
    """Calls of the copy kernel in a run, and the bytes that they read and write."""
    dims, calls, moved = dims_of(planned), 0, 0
    for op in planned.func.walk():
        if isinstance(op, Call) and op.callee == COPY:
            count, around = 1, op.parent_op
            while around is not None:
                count *= evaluate(around.extent, dims) if isinstance(around, For) else 1
                around = around.parent_op
            calls += count
            moved += count * 2 * evaluate(op.dims[0], dims)
    return calls, Cost(0, moved)


def memory(phases: Phases, dims: Mapping[str, int]) -> dict[str, Any]:
    """The arena: its buffers over the steps of the plan, what each step is, bytes alive at each.

    `first` and `last` are times of the planner; `begin` and `end` are numbers of steps, which leave
    out the times at which nothing is done.
    """
    layout = phases.planned.layout
    times, steps = timeline(phases.loops.main)
    buffers: list[dict[str, Any]] = []
    for item, offset in zip(layout.items, layout.offsets, strict=True):
        row = {"name": item.name, "offset": evaluate(offset, dims)}
        row |= {"bytes": evaluate(item.size, dims), "first": item.first, "last": item.last}
        begin = min(bisect_left(times, item.first), len(times) - 1)
        row |= {"begin": begin, "end": max(begin, bisect_right(times, item.last) - 1)}
        buffers.append(row)
    live = [0] * len(steps)
    for row in buffers:
        for step in range(row["begin"], row["end"] + 1):
            live[step] += -(-row["bytes"] // ALIGN) * ALIGN
    return {
        "arena": evaluate(layout.arena, dims),
        "lower_bound": layout.lower_bound(dims),
        "weights": phases.planned.weight_bytes,
        "buffers": sorted(buffers, key=lambda b: (b["first"], b["offset"])),
        "steps": steps,
        "live": live,
    }


def timeline(main: Func) -> tuple[list[int], list[str]]:
    """The planner's times at which something is done, and what; the last is the return."""
    lives = Lifetimes(main)
    done = {lives.end: "return"}
    for op, start in lives.start.items():
        if op.name in ("const", "reshape") or op.terminator:
            continue
        done[start] = op.callee if isinstance(op, Launch) else op.name
        if lives.stop[op] != start:
            done[lives.stop[op]] = f"end of {op.name}"
    times = sorted(done)
    return times, [done[t] for t in times]


def fusion(phases: Phases, main: Graph) -> dict[str, Any]:
    """Regions of more than one op with their ops, and every refusal, equal ones counted."""
    regions = [
        {"node": n.id, "kernel": n.kernel, "place": n.place, "ops": [op.name for op in n.ops]}
        for n in main.walk()
        if n.ops
    ]
    told = Counter([(r.producer, r.consumer, r.why) for r in phases.refusals])
    refusals = [
        {"producer": p, "consumer": c, "why": why, "times": n} for (p, c, why), n in told.items()
    ]
    return {"regions": regions, "refusals": refusals}


def host_steps(planned: Planned) -> list[dict[str, str]]:
    """The ops that no kernel runs, with their places."""
    return [
        {"name": name, "op": op.name, "place": str(op.loc or "")}
        for name, op in planned.host_steps.items()
    ]


def summary(
    phases: Phases,
    settings: Settings,
    counted: Mapping[str, Any],
    kernels: Sequence[Mapping[str, Any]],
    measured: Mapping[str, Any],
    dims: Mapping[str, int],
) -> dict[str, Any]:
    """The figures at the top."""
    planned = phases.planned
    inputs = {s for _, t in planned.inputs for e in t.shape for s in symbols_of(e)}
    ops = sum([n for name, n in counted["ops"].items() if name != "func"])
    return {
        "inputs": [{"name": n, "type": str(t)} for n, t in planned.inputs],
        "outputs": [{"name": n, "type": str(t)} for n, t in planned.results],
        "assumed": {s: n for s, n in dims.items() if s in inputs},
        "ops": ops,
        "op_counts": counted["ops"],
        "parameter_bytes": counted["parameter_bytes"],
        "flops": sum([k["flops"] for k in kernels]),
        "bytes": sum([k["bytes"] for k in kernels]),
        "regions": sum([isinstance(op, Fused) for op in phases.fused.main.walk()]),
        "kernels": len(kernels),
        "host_steps": len(planned.host_steps),
        "copies": len(planned.copies),
        "compile_seconds": sum(phases.seconds.values()),
        "latency": measured.get("latency"),
        "threads": settings.choice.target.threads,
    }


def target_facts(choice: Choice) -> dict[str, Any]:
    """The target and, where it is this machine, its processor."""
    from ...backends.cpu.host import host

    facts: dict[str, Any] = {"name": choice.name, "processor": ""}
    if choice.name == "cpu":
        facts["processor"] = host().cpu
    return facts


__all__ = ["Settings", "can_profile", "check_profile", "collect"]
