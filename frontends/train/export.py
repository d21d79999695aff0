"""Export of a train step: its programs with fixed batches, frozen parameters as constants.

Three programs leave: the step itself, the loss and metrics in evaluation mode, and the network.
What is done with them (C text, state block, files) is deploy's.  May import: ir, passes, backends,
deploy, frontends/nn, its siblings.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ...deploy.folder import check_goal
from ...deploy.programs import Entry
from ...deploy.train_step import StepPrograms, package_train_step
from ...ir.core import Array
from ...ir.errors import Error, UnsupportedError
from ...ir.ops.core import Module
from ...ir.spelling import suggestion
from ...ir.types import from_numpy
from ...passes.training.accumulate import micro_rows
from .. import nn
from ..nn.draws import draw_program
from ..nn.saving import in_mode
from ..nn.specs import Spec
from ..nn.traced import Traced, trace
from . import distributed
from .assemble import KEY, Forward, step_program
from .batches import as_batch, dense, type_of
from .state import fresh_counters, fresh_slots, unique
from .step import TrainStep

BEGINNINGS = ("parameters", "seed", "state")
Patterns = str | Sequence[str]


@dataclass(frozen=True)
class Choices:
    """The options of an export; see `export_step`."""

    name: str | None = None
    example: Any = None
    batch: int | None = None
    infer_batch: int | None = None
    frozen: Patterns = ()
    trainable: Patterns | None = None
    init: str = "parameters"
    infer: bool = True
    test_steps: int = 10


def export_step(
    step: TrainStep, path: str | os.PathLike[str], target: str = "c", **options: Any
) -> Path:
    """Write a package that trains on a device; gives its folder.

    `name` begins all C names (default: the folder's).  `example` is a batch (x, y) of the types to
    compile for (default: like the last batch the step saw), `batch` the rows of train_step and
    eval_step, `infer_batch` those of infer.  `frozen` and `trainable` are patterns of parameter
    names ("conv*"): what is frozen, or not among the trainable, becomes constant and is not
    differentiated by.  `init`: "parameters" begins with today's parameters and a fresh optimizer,
    "seed" draws on the device what nn drew when the network was made, "state" goes on exactly here.
    `infer=False` leaves `infer` out.  `test_steps` is the length of the self-test.
    Errors: E0801 target or option, E0802 patterns, E0803 name, E0804 and E0805 the folder, E0806
    ops that C has not, E0807 no batch is known.
    """
    if target != "c":
        raise UnsupportedError(
            "E0801", f"a train step is not packaged for '{target}'", hint='target="c"'
        )
    unknown = [n for n in options if n not in Choices.__dataclass_fields__]
    if unknown:
        raise Error(
            "E0801",
            f"export_step has no option '{unknown[0]}'",
            details=(f"options: {', '.join(Choices.__dataclass_fields__)}",),
            hint=suggestion(unknown[0], Choices.__dataclass_fields__),
        )
    chosen = Choices(**options)
    if chosen.init not in BEGINNINGS:
        raise Error(
            "E0801",
            f"there is no beginning '{chosen.init}'",
            hint=f"one of {', '.join(BEGINNINGS)}",
        )
    check_goal(Path(path).resolve())
    now = step.arrays()  # of several processes: put together by all

    def work() -> None:
        with distributed.alone():
            programs = programs_of(step, now, chosen)
            package_train_step(programs, Path(path), chosen.name, _version())

    distributed.by_root(work)
    return Path(path)


def programs_of(step: TrainStep, now: Mapping[str, Array], chosen: Choices) -> StepPrograms:
    """The programs of a step whose state is `now`, and where they begin."""
    batch, inputs = _batches(step, chosen)
    arrays = step.given(batch)
    names = _input_names(step, batch)
    train, forward = _train_entry(step, chosen, arrays, names)
    entries = [train, _eval_entry(step, arrays, names)]
    given: list[Array] = []
    if chosen.infer:
        given = [dense(a, step.dtype) for a in nn.trees.flatten(inputs)[0]]
        entries.append(_infer_entry(step, inputs, given, names))
    used = dict.fromkeys([n for e in entries for n in e.states])
    updated = {train.states[k] for k, _ in train.module.main.state}
    held = ("params/", "buffers/", "frozen/")
    constant = [n for n in used if n.startswith(held) and n not in updated]
    first = _first(step, now, chosen, forward, list(used))
    model = [n for n in used if n.startswith(held) and n not in constant]
    drawn = None
    if chosen.init == "seed":
        drawn = _drawn(step, model)
    key = now[KEY]
    return StepPrograms(
        tuple(entries),
        first,
        tuple(model),
        tuple([n for n in used if n not in model and n not in constant]),
        tuple(constant),
        KEY,
        int(key[0]) | int(key[1]) << 32,
        tuple(arrays),
        tuple(given),
        drawn,
        chosen.init != "state",
        chosen.test_steps,
        _facts(step, chosen, forward),
    )


def _version() -> str:
    """The version of the package, if it is installed."""
    try:
        return metadata.version("tensor-irc")
    except metadata.PackageNotFoundError:
        return "unknown"


def _drawn(step: TrainStep, model: Sequence[str]) -> Module | None:
    """The program that draws what was drawn when the network was made."""
    draws = {n: d for n in model if (d := step.state.origins.get(n)) is not None}
    dtypes = {n: p.dtype for n, p in _parameters(step).items() if n in draws}
    return draw_program(draws, dtypes) if draws else None


# ------------------------------------------------------------ batches


def _batches(step: TrainStep, chosen: Choices) -> tuple[tuple[Any, ...], Any]:
    """The batch of train_step, and the inputs of infer, with the rows asked for."""
    example, rows = chosen.example, chosen.batch
    if example is None:
        example, seen = step.seen
        rows = rows or seen
    if example is None:
        raise Error(
            "E0807", "the types of a batch are not known yet", hint="example=(x, y), or train first"
        )
    parts = as_batch(example)
    batch = tuple([_resized(p, rows) for p in parts])
    return batch, _resized(batch[0], chosen.infer_batch)


def _resized(part: Any, rows: int | None) -> Any:
    """Arrays with so many rows: cut, or repeated from the beginning."""
    leaves, tree = nn.trees.flatten(part)
    arrays = [np.asarray(a) for a in leaves]
    if rows is not None:
        if rows < 1 or any([a.ndim == 0 or not len(a) for a in arrays]):
            raise Error("E0807", f"no batch of {rows} rows can be made of the example")
        arrays = [a[np.arange(rows) % len(a)] for a in arrays]
    return nn.trees.unflatten(tree, arrays)


def _input_names(step: TrainStep, batch: Sequence[Any]) -> list[str]:
    """x and y, with numbers where there are several; batch0 ... for an objective."""
    found: list[str] = []
    for k, part in enumerate(batch):
        stem = f"batch{k}" if step.objective is not None else ("x", "y")[min(k, 1)]
        count = len(nn.trees.flatten(part)[0])
        found += [stem] if count == 1 else [f"{stem}{j}" for j in range(count)]
    return found


def _specs(arrays: Sequence[Array], names: Sequence[str], rows: int | None = None) -> list[Spec]:
    shapes = [a.shape if rows is None else (rows, *a.shape[1:]) for a in arrays]
    return [Spec(s, from_numpy(a.dtype), n) for s, a, n in zip(shapes, arrays, names, strict=True)]


# ------------------------------------------------------------ entries


def _train_entry(
    step: TrainStep, chosen: Choices, arrays: Sequence[Array], names: Sequence[str]
) -> tuple[Entry, Forward]:
    """The step, differentiated by what is trained."""
    rows = int(micro_rows(len(arrays[0]), step.settings.accumulate))
    forward, partials = step.forward(_specs(arrays, names, rows))
    known = [forward.names[k].removeprefix("params/") for k in forward.trained]
    kept = trained_of(known, chosen.frozen, chosen.trainable, list(_parameters(step)))
    trained = tuple([k for k, name in zip(forward.trained, known, strict=True) if name in kept])
    forward = replace(forward, trained=trained)
    slots = {n: type_of(a) for n, a in _slots(step, forward).items()}
    program = step_program(forward, step.settings, slots)
    main = program.module.main
    updates, logs = len(main.state), list(program.logs)
    results = [*main.outputs[:updates], *logs, *_metric_names(step, partials)]
    main.set_attr("outputs", tuple(results))
    main.set_attr("inputs", (*program.states, *names))
    notes = LOGS | _metric_notes(step, partials)
    about = "One step of training on a batch; changes the state."
    return Entry("train_step", program.module, program.states, about, notes), forward


def _eval_entry(step: TrainStep, arrays: Sequence[Array], names: Sequence[str]) -> Entry:
    """Loss and metrics in evaluation mode."""
    traced, partials = step.traced(_specs(arrays, names), False)
    made = _unchanging(traced, drop=1)
    made.main.set_attr("outputs", ("loss", *_metric_names(step, partials)))
    notes = LOGS | _metric_notes(step, partials)
    about = "Loss and metrics of a batch in evaluation mode; the state stays."
    return _named(step, traced, made, Entry("eval_step", made, (), about, notes))


def _infer_entry(step: TrainStep, inputs: Any, arrays: Sequence[Array], names: Sequence[str]
                 ) -> Entry:  # fmt: skip
    """The network in evaluation mode."""
    specs = _specs(arrays, names[: len(arrays)])
    given = nn.trees.unflatten(nn.trees.flatten(inputs)[1], specs)
    with in_mode(step.net):
        traced = trace(step.net, *(given if isinstance(given, tuple) else (given,)))
    made = _unchanging(traced)
    about = "The network's outputs in evaluation mode; the state stays."
    return _named(step, traced, made, Entry("infer", made, (), about, collected=False))


def _named(step: TrainStep, traced: Traced, made: Module, entry: Entry) -> Entry:
    """The entry, its states called as the step calls them."""
    states = tuple([step.state.name_of(s) for s in traced.states])
    made.main.set_attr("inputs", (*states, *traced.inputs))
    return replace(entry, states=states)


def _unchanging(traced: Traced, drop: int = 0) -> Module:
    """The program without the next values of its states, and without its first results."""
    made = traced.module.clone()
    gone = len(traced.buffers) + drop
    last = made.main.body.last
    assert last is not None
    last.set_operands(last.operands[gone:])
    made.main.set_attr("outputs", made.main.outputs[gone:])
    made.main.set_attr("state", ())
    return made


LOGS = {
    "loss": "of the batch",
    "lr": "the rate of this step",
    "grad_norm": "of all gradients, before clipping",
    "loss_scale": "of this step",
}


def _metric_names(step: TrainStep, partials: Sequence[Sequence[str]]) -> list[str]:
    return [f"{m.name}_{n}" for m, row in zip(step.metrics, partials, strict=True) for n in row]


def _metric_notes(step: TrainStep, partials: Sequence[Sequence[str]]) -> dict[str, str]:
    return {
        f"{m.name}_{n}": "one per row" if m.gathers else "to be added over batches"
        for m, row in zip(step.metrics, partials, strict=True)
        for n in row
    }


# ------------------------------------------------------------ what is trained


def trained_of(
    known: Sequence[str], frozen: Patterns, trainable: Patterns | None, every: Sequence[str]
) -> set[str]:
    """The names among `known` to be trained.  E0802 for a pattern that names no parameter, and
    where nothing is left.
    """
    kept = set(known)
    if trainable is not None:
        kept &= _matching(trainable, every)
    kept -= _matching(frozen, every)
    if not kept:
        raise Error(
            "E0802",
            "no parameter is left to be trained",
            details=(f"frozen: {_said(frozen)}", f"trainable: {_said(trainable or '*')}"),
        )
    return kept


def _matching(patterns: Patterns, every: Sequence[str]) -> set[str]:
    found: set[str] = set()
    names = [n.removeprefix("params/") for n in every]
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        mine = fnmatch.filter(names, pattern)
        if not mine:
            raise Error(
                "E0802",
                f"no parameter is called '{pattern}'",
                details=(f"parameters: {', '.join(names[:12])}{', ...' * (len(names) > 12)}",),
                hint=suggestion(pattern, names, least=0.3),
            )
        found.update(mine)
    return found


def _said(patterns: Patterns) -> str:
    return patterns if isinstance(patterns, str) else ", ".join(patterns) or "none"


def _parameters(step: TrainStep) -> dict[str, Any]:
    """The network's parameters under the names of the state."""
    return {f"params/{n}": p for n, p in unique(step.net.named_parameters()).items()}


def _slots(step: TrainStep, forward: Forward) -> dict[str, Array]:
    """Fresh slots of the trained parameters."""
    names = [forward.names[k] for k in forward.trained]
    params = {n.removeprefix("params/"): p for n, p in _parameters(step).items() if n in names}
    return fresh_slots(step.settings, params)


def _first(
    step: TrainStep,
    now: Mapping[str, Array],
    chosen: Choices,
    forward: Forward,
    used: Sequence[str],
) -> dict[str, Array]:
    """The first value of every state."""
    found = {n: np.array(now[n] if n in now else step.state.array(n)) for n in used}
    if chosen.init != "state":
        fresh = _slots(step, forward) | fresh_counters(step.settings)
        found |= {n: np.array(x) for n, x in fresh.items() if n in found}
    return found


def _facts(step: TrainStep, chosen: Choices, forward: Forward) -> Mapping[str, Any]:
    """What the manifest says beside sizes and names."""
    settings = step.settings
    return {
        "optimizer": type(settings.optimizer).__name__,
        "precision": settings.precision,
        "accumulate": settings.accumulate,
        "init": chosen.init,
        "trained": [forward.names[k].removeprefix("params/") for k in forward.trained],
    }


__all__ = ["BEGINNINGS", "Choices", "export_step", "programs_of", "trained_of"]
