"""Where a compiled program goes wrong: the first phase and pass, and the first op.

The results behind each pass are compared with the reference by interpreting the program there.
Where they are wrong behind some pass, the op is found by ending the program early: at which op does
it first go wrong under the same passes?  Where every interpreted stage is right, the regions are
compiled alone and the one at fault is ended early; where each region alone is right, it is the plan
that puts them together.

The search halves, which an error that later ops hide would mislead; so it goes on to the op that is
wrong while all that it reads is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backends import compiler
from ..backends.targets import Choice
from ..ir.core import Block, Builder, Op
from ..ir.interpret import input_names, run
from ..ir.ops.core import Const, Fused, Module, Yield
from ..passes.cost import cost_of
from ..passes.pipeline import PHASES, Options, passes_of, run_passes
from ..passes.specialise import specialise
from .slices import ends, needed, read_by, sliced
from .verification import Array, Compared, Noted, apart, noisy, record, roundings, row

LOOPS_AT_MOST = 3_000_000
"""Operations up to which kernels are interpreted loop by loop, in Python."""


@dataclass(frozen=True)
class Stage:
    """A point of the pipeline: behind a pass of a phase.  `error` is None where nothing was run."""

    phase: str
    step: str
    error: float | None = None


@dataclass(frozen=True)
class Found:
    """The first thing that goes wrong: behind which phase and pass, at which op, and how much."""

    phase: str
    step: str
    op: str
    where: str
    types: tuple[str, ...]
    position: int
    count: int
    error: float
    tolerance: float
    region: str = ""
    stages: tuple[Stage, ...] = ()


@dataclass
class Case:
    """What is compared: a module on inputs, compiled for a target, perhaps with noise."""

    module: Module
    choice: Choice
    inputs: Mapping[str, Array]
    noise: float = 0.0
    tolerance: float | None = None
    say: Callable[[str], None] = print
    stages: dict[int, Stage] = field(default_factory=dict)

    def worst(self, found: Sequence[Array], expected: Sequence[Array]) -> Compared:
        """The worst of several results."""
        rounds = roundings(self.module.main)
        rows = [
            row("", y, ref, self.tolerance, rounds=rounds)
            for y, ref in zip(found, expected, strict=True)
        ]
        return max(rows, key=lambda r: (not r.passed, r.error))

    def given(self, module: Module) -> dict[str, Array]:
        """The inputs that a part of the program takes, as copies: state is updated in place."""
        return {n: np.array(self.inputs[n]) for n in input_names(module.main)}


def bisect(
    module: Module,
    choice: Choice,
    inputs: Mapping[str, Array],
    *,
    noise: float = 0.0,
    tolerance: float | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    say: Callable[[str], None] = print,
) -> Found | None:
    """The first thing that goes wrong; None where nothing does.  `say` gets lines of progress."""
    module = specialise(module, shapes) if shapes else module
    case = Case(module, choice, inputs, noise, tolerance, say)
    steps = steps_of(case)
    last = wrong_after(case, module, len(steps) - 1)
    if last is not None:
        return in_a_pass(case, steps)
    if wrong_compiled(case, module) is None:
        return None
    return in_a_region(case, steps) or in_the_plan(case)


# Behind a pass -----------------------------------------------------------------------------------


def steps_of(case: Case) -> list[tuple[str, str]]:
    """(phase, pass) up to the generics, all of which the interpreter understands."""
    found = []
    for phase in PHASES[1 : PHASES.index("generic") + 1]:
        found += [(phase, step.name) for step in passes_of(phase, case.choice.target)]
        if phase == "fused" and case.noise:
            found.append((phase, "noise"))
    return found


def behind(case: Case, module: Module, count: int) -> Module:
    """The module behind the first `count` + 1 passes."""
    module, done = module.clone(), 0
    for phase in PHASES[1 : PHASES.index("generic") + 1]:
        for step in passes_of(phase, case.choice.target):
            if done > count:
                return module
            module, done = run_passes(module, [step]), done + 1
        if phase == "fused" and case.noise and done <= count:
            module, done = noisy(module, case.noise), done + 1
    return module


def wrong_after(case: Case, module: Module, count: int) -> Compared | None:
    """The worst result behind so many passes, where it is wrong."""
    made = behind(case, module, count)
    inputs = case.given(module)
    worst = case.worst(run(made.main, inputs), run(module.main, inputs))
    if module is case.module:
        phase, step = steps_of(case)[count]
        case.stages[count] = Stage(phase, step, worst.error)
        case.say(f"behind {phase}, {step}: {worst.error:.1e}")
    return None if worst.passed else worst


def in_a_pass(case: Case, steps: list[tuple[str, str]]) -> Found:
    """The first pass behind which the results are wrong, and the op that it makes wrong."""
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high) // 2
        if wrong_after(case, case.module, middle) is not None:
            high = middle
        else:
            low = middle + 1
    phase, step = steps[high]
    return in_the_program(case, phase, step, lambda part: wrong_after(case, part, high))


def in_the_program(
    case: Case, phase: str, step: str, wrong: Callable[[Module], Compared | None]
) -> Found:
    """The op of `main` at which the program first goes wrong."""
    main = case.module.main
    known: dict[Op, Compared | None] = {}

    def test(op: Op) -> bool:
        if op not in known:
            part = sliced(case.module, op.results, names=[f"y{k}" for k in range(len(op.results))])
            known[op] = tried(lambda: wrong(part))
            case.say(f"ended at {op.place()}: {'wrong' if known[op] else 'right'}")
        return known[op] is not None

    every = [op for op in needed(main.body, main.returned, {}) if ends(op)]
    for output in main.returned:
        ops = [op for op in needed(main.body, [output], {}) if ends(op)]
        faulty = first_wrong(ops, test)
        if faulty is not None:
            return report(case, phase, step, faulty, every, known[faulty])
    case.say("each output is right alone: wrong only as a whole")
    return report(case, phase, step, every[-1], every, wrong(case.module))


def tried(wrong: Callable[[], Compared | None]) -> Compared | None:
    """What `wrong` says; a part that cannot be compiled on its own is not at fault."""
    try:
        return wrong()
    except Exception:
        return None


def first_wrong(ops: Sequence[Op], wrong: Callable[[Op], bool]) -> Op | None:
    """An op that is wrong while everything it reads is right; None where the last one is right."""
    place = {op: k for k, op in enumerate(ops)}
    live = _on_inputs(ops)
    if not ops or not wrong(ops[-1]):
        return None
    faulty = ops[-1]
    while True:
        above = [op for op in _above(faulty, place) if op in live]
        low, high = 0, len(above)
        while low < high:  # above[high] is wrong, or `faulty` stands there
            middle = (low + high) // 2
            if wrong(above[middle]):
                high = middle
            else:
                low = middle + 1
        if low < len(above):
            faulty = above[low]
            continue
        reads = [v.op for v in read_by(faulty) if v.op in place and not isinstance(v.op, Const)]
        earlier = next((op for op in reads if op is not None and wrong(op)), None)
        if earlier is None:
            return faulty
        faulty = earlier


def _above(op: Op, place: Mapping[Op, int]) -> list[Op]:
    """The ops of `place` that this one depends on, in order."""
    found: set[Op] = set()
    todo = [op]
    while todo:
        for value in read_by(todo.pop()):
            made = value.op
            if made is not None and made in place and made not in found:
                found.add(made)
                todo.append(made)
    return sorted(found, key=lambda o: place[o])


def _on_inputs(ops: Sequence[Op]) -> set[Op]:
    """The ops that depend on an input: halving over what weights alone decide would say nothing."""
    found: set[Op] = set()
    for op in ops:
        if any([v.op is None or v.op in found for v in read_by(op)]):
            found.add(op)
    return found


def report(
    case: Case, phase: str, step: str, op: Op, ops: Sequence[Op], worst: Compared | None,
    region: str = "",
) -> Found:  # fmt: skip
    """The finding as it is shown."""
    counted = [o for o in ops if not isinstance(o, Const)]
    return Found(
        phase=phase,
        step=step,
        op=op.name,
        where=str(op.loc) if op.loc else "",
        types=tuple([str(r.type) for r in op.results]),
        position=counted.index(op) + 1 if op in counted else len(counted),
        count=len(counted),
        error=worst.error if worst is not None else 0.0,
        tolerance=worst.tolerance if worst is not None else 0.0,
        region=region,
        stages=tuple([case.stages[k] for k in sorted(case.stages)]),
    )


# In a kernel -------------------------------------------------------------------------------------


def wrong_compiled(case: Case, module: Module, from_phase: str = "import") -> Compared | None:
    """The worst result of the machine code, where it is wrong."""
    expected = run(module.main, case.given(module))
    found = executable(case, module, from_phase).run(case.given(module))
    worst = case.worst(found, expected)
    return None if worst.passed else worst


def executable(case: Case, module: Module, from_phase: str = "import") -> Any:
    """The module compiled."""
    return compiler.compiled_now(module, case.choice, Options(from_phase=from_phase))


def in_a_region(case: Case, steps: list[tuple[str, str]]) -> Found | None:
    """The first region that is wrong alone, and the op in it; None where all are right."""
    fused = behind(case, case.module, max(k for k, s in enumerate(steps) if s[0] == "fused"))
    seen = record(fused, case.given(fused))
    for number, (op, arrays) in enumerate(seen.items()):
        worst = region_wrong(case, op, arrays)
        case.say(f"region {number} {op.attributes['label']}: {'wrong' if worst else 'right'}")
        if worst is None:
            continue
        phase = region_phase(case, op, arrays)
        return in_the_region(case, phase, number, op, arrays, worst)
    return None


def region_wrong(case: Case, op: Op, arrays: Noted) -> Compared | None:
    """The worst result of one region, compiled alone on the reference's own inputs."""
    module, feeds = apart([op], [arrays[0]])
    return tried(lambda: _run_apart(case, module, feeds))


def _run_apart(case: Case, module: Module, feeds: Sequence[Array]) -> Compared | None:
    worst = case.worst(
        executable(case, module, "fused").run(list(feeds)), run(module.main, list(feeds))
    )
    return None if worst.passed else worst


def region_phase(case: Case, op: Op, arrays: Noted) -> str:
    """`loops` where the kernel is wrong under the interpreter too, else `emitted`."""
    module, feeds = apart([op], [arrays[0]])
    if sum([cost_of(inner).flops for inner in op.regions[0]]) > LOOPS_AT_MOST:
        case.say("too much to interpret its loops")
        return "emitted"
    lowered = compiler.lower(module, case.choice, Options(from_phase="fused", to_phase="loops"))
    worst = case.worst(run(lowered.module.main, feeds), run(module.main, feeds))
    return "emitted" if worst.passed else "loops"


def in_the_region(
    case: Case, phase: str, number: int, op: Op, arrays: Noted, whole: Compared
) -> Found:
    """The op of a region at which its kernel first goes wrong."""
    ops = [o for o in op.regions[0] if not o.terminator and ends(o)]
    known: dict[Op, Compared | None] = {}

    def test(last: Op) -> bool:
        if last not in known:
            part = ended(op, last)
            known[last] = region_wrong(case, part, arrays)
            part.erase()
            case.say(f"ended at {last.place()}: {'wrong' if known[last] else 'right'}")
        return known[last] is not None

    faulty = first_wrong(ops, test)
    worst = whole if faulty is None else known[faulty]
    region = f"{number} {op.attributes['label']}".strip()
    step = "lower-kernels" if phase == "loops" else "machine code"
    return report(case, phase, step, faulty or ops[-1], ops, worst, region)


def ended(region: Op, last: Op) -> Fused:
    """A region of the same operands that yields the results of one of its ops."""
    source = region.regions[0]
    block = Block([a.type for a in source.args])
    env = dict(zip(source.args, block.args, strict=True))
    for op in needed(source, last.results, {}):
        block.append(op.copy(env))
    Builder(block).emit(Yield, *[env[r] for r in last.results])
    return Fused(*region.operands, regions=[block], label="")


# In the plan -------------------------------------------------------------------------------------


def in_the_plan(case: Case) -> Found:
    """Each region alone is right: what is wrong is how the plan puts them together."""
    return in_the_program(case, "planned", "plan", lambda part: wrong_compiled(case, part))


__all__ = ["Found", "Stage", "bisect", "first_wrong"]
