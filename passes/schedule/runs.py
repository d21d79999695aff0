"""Runs of vector lanes within which an access moves by a fixed step.

An access across blocks of channels, `x[(l + 2) // 16, (l + 2) % 16]`, has two: lanes 0 to 13 and
14 to 15.  May import: ir, the scheduler beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim, DimLike, coefficient, substitute, sym
from ...ir.ops.loop import Load, Store
from .scheduler import stride

MOST_RUNS = 3
"""Accesses up to which the split is faster than one access per lane."""


MOST_STRIDE = 4
"""Elements between lanes up to which reading whole vectors and picking is faster than a gather."""


@dataclass(frozen=True)
class Run:
    """Lanes low .. high - 1, in which every index moves by a fixed step per lane."""

    low: int
    high: int
    index: tuple[DimLike, ...]

    def guard(self, lane: str) -> tuple[DimLike, ...]:
        """What is >= 0 in these lanes only."""
        return (sym(lane) - self.low, self.high - 1 - sym(lane))


def runs_of(index: tuple[DimLike, ...], lane: str, lanes: int) -> list[Run]:
    """The dense runs of lanes in order; none where there would be too many, or one that is not."""
    places = [tuple([substitute(e, {lane: k}) for e in index]) for k in range(lanes)]
    steps = [tuple([b - a for a, b in zip(p, q)]) for p, q in zip(places, places[1:])]
    still = (0,) * len(index)
    along = (*still[:-1], 1)
    runs, low = [], 0
    while low < lanes:
        high = low + 1
        step = steps[low] if low < len(steps) and steps[low] in (still, along) else still
        while high < lanes and steps[high - 1] == step:
            high += 1
        moved = [p + s * (sym(lane) - low) for p, s in zip(places[low], step)]
        runs.append(Run(low, high, tuple(moved)))
        if len(runs) > MOST_RUNS:
            return []
        low = high
    return runs


def jumps(access: Load | Store, lane: str) -> bool:
    """Is some index no affine function of the lane?"""
    return any([isinstance(e, Dim) and coefficient(e, lane) is None for e in access.index])


def moves_in_lanes(access: Load | Store, var: str, lanes: int) -> bool:
    """Does the access move by one element or none per step of the loop, but for a few jumps?

    A load may also move by a few elements.
    """
    step = stride(access, var)
    if step in (0, 1):
        return True
    if isinstance(access, Load) and isinstance(step, int) and (step > 1 or not access.where):
        return -1 <= step <= MOST_STRIDE
    if not jumps(access, var):
        return False
    # Where the lanes jump depends on loops that will be written out; how often hardly does.
    others = {s: 0 for e in access.index if isinstance(e, Dim) for s in e.symbols if s != var}
    return bool(runs_of(tuple([substitute(e, others) for e in access.index]), var, lanes))


__all__ = ["Run", "jumps", "moves_in_lanes", "runs_of"]
