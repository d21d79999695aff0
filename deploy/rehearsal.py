"""What a packaged train step must compute: its programs run by their ops' own semantics.

May import: ir, its siblings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..ir.core import Array
from ..ir.interpret import run
from ..ir.ops.core import Module
from .programs import Entry

if TYPE_CHECKING:
    from .train_step import StepPrograms

TOLERANCES = {8: "1e-9", 4: "1e-4", 2: "3e-2"}
"""Error that the self-test allows, by bytes of the narrowest float: C sums in another order."""


@dataclass(frozen=True)
class Rehearsal:
    """Loss and outputs in evaluation mode at the beginning, then losses and rates of the steps.

    Not the outputs behind the steps: where a gradient is zero in exact numbers (a bias before a
    normalization), optimizers that divide by its size make steps of the rounding errors.
    """

    losses: tuple[float, ...]
    rates: tuple[float, ...]
    eval_loss: float | None
    outputs: tuple[Array, ...]
    tolerance: str


def rehearse(programs: StepPrograms, copies: Mapping[str, str]) -> Rehearsal:
    """Train on the batch, evaluate it and run the network, from the first values on.

    `copies` name the states that begin as copies of others.
    """
    state = dict(programs.first)
    if programs.seeds and programs.key in state:
        state[programs.key] = seed_key(programs.seed)
    if programs.drawn is not None:
        state |= drawn_values(programs.drawn, programs.seed)
        state |= {name: state[source] for name, source in copies.items()}
    entries = {e.name: e for e in programs.entries}
    eval_loss, outputs = None, []
    if "eval_step" in entries:
        eval_loss = float(step(entries["eval_step"], state, programs.batch)["loss"])
    if "infer" in entries:
        outputs = list(step(entries["infer"], state, programs.inputs).values())
    losses, rates = [], []
    for _ in range(programs.test_steps):
        found = step(entries["train_step"], state, programs.batch)
        losses.append(float(found["loss"]))
        rates.append(float(found["lr"]))
    return Rehearsal(tuple(losses), tuple(rates), eval_loss, tuple(outputs), _tolerance(programs))


def step(entry: Entry, state: dict[str, Array], given: Sequence[Array]) -> dict[str, Array]:
    """Run an entry; the state takes its next values, the results come by name."""
    found = run(entry.module, [*[state[n] for n in entry.states], *given])
    main = entry.module.main
    for k, r in main.state:
        state[entry.states[k]] = np.asarray(found[r])
    replaced = {r for _, r in main.state}
    return {n: np.asarray(found[k]) for k, n in enumerate(main.outputs) if k not in replaced}


def seed_key(seed: int) -> Array:
    """The random key of a seed."""
    return np.asarray([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF], np.uint32)


def drawn_values(drawn: Module, seed: int) -> Mapping[str, Array]:
    """What the device draws from a seed."""
    return dict(zip(drawn.main.outputs, run(drawn, [seed_key(seed)]), strict=True))


def _tolerance(programs: StepPrograms) -> str:
    widths = [
        v.tensor.dtype.np.itemsize
        for op in programs.entries[0].module.main.walk()
        for v in op.results
        if v.tensor.dtype.is_float
    ]
    return TOLERANCES.get(min(widths, default=4), "3e-2")


__all__ = ["Rehearsal", "drawn_values", "rehearse", "seed_key"]
