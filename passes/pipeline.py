"""The whole compiler, top to bottom: named phases, each a list of passes, and what may be watched
on the way.

    import     the module as it came, specialised to the shapes given
    canonical  what only gradients care for is inlined; simplified, constants folded, normalisations
               in the weights, invariants out of loops
    layout     explicit packs and unpacks where the target wants blocked channels
    fused      `main` is fused regions, constants, control flow and reshapes
    generic    inside the regions only generics and ops with loops of their own
    loops      each region a scheduled kernel; `launch` in its place
    planned    `main` is a plan: calls, offsets in one arena, loops

The passes of training (`grad`, `rematerialise`, `mixed-precision`, `order-updates`) are of no
phase: who makes a train step runs them before.

May import: ir, the passes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..ir.archive import save
from ..ir.errors import Error
from ..ir.ops.core import Module
from ..ir.target import Target
from ..ir.text import print_op
from ..ir.verify import verify
from .autodiff.grad import Grad
from .autodiff.remat import Rematerialise
from .canonicalize import Canonicalize, Dce, Fold
from .cse import Cse
from .decompose import Decompose
from .fold_weights import FoldWeights
from .fuse import Fuse, Refusal
from .hoist import Hoist
from .layout import Layout
from .lower.generic import LowerGeneric
from .lower.kernels import LowerKernels
from .options import PASSES, Pass, parse_pipeline, pipeline_text
from .plan import Planned, plan
from .specialise import specialise
from .training.donated import OrderUpdates
from .training.precision import MixedPrecision
from .widen import Widen

_BEFORE_LAYOUT = ("batch_norm_train", "conv_input_grad", "conv_transpose", "resize")
"""Composites whose parts take part in the choice of layouts."""

PHASES = ("import", "canonical", "layout", "fused", "generic", "loops", "planned")


def passes_of(phase: str, target: Target) -> list[Pass]:
    """The passes of a phase for a target (none for `import` and `planned`, which are functions)."""
    match phase:
        case "canonical":
            inline = Decompose(only=("stop_gradient", "custom_gradient", "remat"))
            return [inline, Canonicalize(), Cse(), Hoist(), FoldWeights(), Canonicalize(), Cse()]
        case "layout":
            panel = 2 * target.lanes(32) if target.layout_block else 0
            layout = Layout(block=target.layout_block, panel=panel, target=target)
            blocked = Decompose(only=_BEFORE_LAYOUT)
            widened = [Widen()] if target.widen else []
            return [*widened, blocked, Canonicalize(), layout, Canonicalize(), Cse()]
        case "fused":
            return [
                Decompose(),
                Canonicalize(),
                FoldWeights(),
                Canonicalize(),
                Cse(),
                Hoist(),
                Fuse(),
            ]
        case "generic":
            return [LowerGeneric()]
        case "loops":
            return [LowerKernels(target=target)]
    return []


@dataclass(frozen=True)
class Options:
    """What to watch and where to begin and end.

    `from_phase` says which phase the module given has been through; `dump_dir` gets one file per
    phase; `crash_dir` the reproducer of an internal error.
    """

    verify_each: bool = False
    dump_dir: str | None = None
    from_phase: str = "import"
    to_phase: str = "planned"
    shapes: Mapping[str, Sequence[int]] | None = None
    crash_dir: str | None = None
    on_pass: Callable[[Pass, Module, float], None] | None = None


@dataclass
class Compiled:
    """What the pipeline gives: the module as far as it went, the plan at its end, and what was
    noted.
    """

    module: Module
    planned: Planned | None = None
    refusals: list[Refusal] = field(default_factory=list)
    """Fusions that were refused."""
    schedule_refusals: list[tuple[str, str]] = field(default_factory=list)
    """(kernel, reason) where a schedule could not be applied."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time per pass, summed over its runs."""


def compile_module(module: Module, target: Target, options: Options | None = None) -> Compiled:
    """Take a copy of `module` through the phases; E0221 for an unknown phase."""
    options = options or Options()
    first, last = phase_index(options.from_phase), phase_index(options.to_phase)
    result = Compiled(module)
    with quiet_collector():
        made = specialise(module, options.shapes) if options.shapes else module.clone()
        _dump(options, "import", made, first == 0)
        for phase in PHASES[first + 1 : last + 1]:
            if phase == "planned":
                result.planned = _planned(made, options, result)
                made = result.planned.module
            else:
                made = run_passes(made, passes_of(phase, target), options, result)
            _dump(options, phase, made)
    result.module = made
    return result


def phase_index(name: str) -> int:
    """Where a phase stands; E0221 if there is none of that name."""
    if name not in PHASES:
        raise Error(
            "E0221", f"there is no phase '{name}'", details=("phases: " + ", ".join(PHASES),)
        )
    return PHASES.index(name)


def run_passes(
    module: Module,
    passes: Sequence[Pass],
    options: Options | None = None,
    result: Compiled | None = None,
) -> Module:
    """Run passes in order, in place where they work so; an internal error leaves a reproducer."""
    options = options or Options()
    result = result or Compiled(module)
    for step in passes:
        before = module.clone() if options.crash_dir is not None else None
        start = time.perf_counter()
        with reproducer(before or module, str(step), options.crash_dir):
            module = step.run(module)
            if options.verify_each:
                verify(module)
        seconds = time.perf_counter() - start
        result.seconds[step.name] = result.seconds.get(step.name, 0.0) + seconds
        if isinstance(step, Fuse):
            result.refusals.extend(step.reasons)
        elif isinstance(step, LowerKernels):
            result.schedule_refusals.extend(step.refused)
        if options.on_pass is not None:
            options.on_pass(step, module, seconds)
    return module


def _planned(module: Module, options: Options, result: Compiled) -> Planned:
    start = time.perf_counter()
    with reproducer(module, "plan", options.crash_dir):
        planned = plan(module, consume=True)
        if options.verify_each:
            verify(planned.module)
    result.seconds["plan"] = time.perf_counter() - start
    return planned


def _dump(options: Options, phase: str, module: Module, wanted: bool = True) -> None:
    if options.dump_dir is not None and wanted:
        goal = Path(options.dump_dir) / f"{PHASES.index(phase)}_{phase}.ir"
        try:
            goal.parent.mkdir(parents=True, exist_ok=True)
            goal.write_text(print_op(module) + "\n", encoding="utf-8")
        except OSError as error:
            raise Error("E0264", f"cannot write {goal}: {error.strerror or error}") from None


@contextlib.contextmanager
def quiet_collector() -> Iterator[None]:
    """Collect garbage seldom: IR is one big graph that stays alive, so that each collection is
    wasted.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(200_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


@contextlib.contextmanager
def reproducer(module: Module, passes: str, folder: str | None) -> Iterator[None]:
    """On an internal error write the module, the passes, a command and the traceback;
    `error.reproducer` says where.

    A user's error (`Error`) passes through.  Where the pass works in place the module saved is as
    the pass left it, unless `crash_dir` asked for a copy to be kept.
    """
    try:
        yield
    except (Error, KeyboardInterrupt):
        raise
    except Exception as error:
        with contextlib.suppress(Exception):
            error.reproducer = write_reproducer(module, passes, folder, error)  # type: ignore[attr-defined]
        raise


def write_reproducer(module: Module, passes: str, folder: str | None, error: Exception) -> str:
    """The folder that holds module.irc and command.txt."""
    home = Path(
        folder or Path(os.environ.get("IRC_CACHE_DIR") or tempfile.gettempdir()) / "irc-crashes"
    )
    home.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="crash-", dir=home))
    save(module, place / "module.irc")
    command = f"irc opt {place / 'module.irc'} --passes '{passes}'"
    text = "".join(traceback.format_exception(error))
    (place / "command.txt").write_text(f"{command}\n\n{text}", encoding="utf-8")
    return str(place)


__all__ = [
    "PASSES",
    "PHASES",
    "Compiled",
    "Dce",
    "Fold",
    "Grad",
    "MixedPrecision",
    "Options",
    "OrderUpdates",
    "Pass",
    "Rematerialise",
    "compile_module",
    "parse_pipeline",
    "passes_of",
    "phase_index",
    "pipeline_text",
    "quiet_collector",
    "reproducer",
    "run_passes",
    "specialise",
]
