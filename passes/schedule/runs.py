"""Runs of vector lanes within which an access moves by a fixed step.

An access across blocks of channels, `x[(l + 2) // 16, (l + 2) % 16]`, has two: lanes 0 to 13 and
14 to 15.  May import: ir, the scheduler beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim, DimLike, coefficient, simplify, substitute, sym
from ...ir.ops.loop import Load, Store
from ...ir.symbols import ranges_around
from .scheduler import address, stride

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
    if isinstance(access, Load) and not access.where and _near(access, var, lanes):
        return True
    # Where the lanes jump depends on loops that will be written out; how often hardly does.
    others = {s: 0 for e in access.index if isinstance(e, Dim) for s in e.symbols if s != var}
    return bool(runs_of(tuple([substitute(e, others) for e in access.index]), var, lanes))


def _near(access: Load, var: str, lanes: int) -> bool:
    """Do the lanes of every vector lie in one pattern, whose ends are not far apart?"""
    first = address(access)
    places = [substitute(first, {var: lanes * sym(var) + k}) for k in range(lanes)]
    steps = [simplify(place - places[0], ranges_around(access)) for place in places]
    numbers = [step for step in steps if isinstance(step, int)]
    return len(numbers) == lanes and max(numbers) - min(numbers) < MOST_STRIDE * lanes


def bends(access: Load | Store, var: str, extent: int) -> list[int]:
    """The iterations of a loop at which an access that is affine piece by piece takes other steps.

    None where there would be more than `MOST_RUNS` pieces.
    """
    others = {n: 0 for e in access.index if isinstance(e, Dim) for n in e.symbols if n != var}
    index = tuple([substitute(e, others) for e in access.index])
    places = [tuple([substitute(e, {var: k}) for e in index]) for k in range(extent)]
    steps = [tuple([b - a for a, b in zip(p, q)]) for p, q in zip(places, places[1:])]
    along = (*(0,) * (len(index) - 1), 1)
    # Where two pieces meet in an element, the dense one has it.
    cuts = {k + (steps[k - 1] == along) for k in range(1, len(steps)) if steps[k] != steps[k - 1]}
    return sorted(cuts) if len(cuts) < MOST_RUNS else []


__all__ = ["Run", "bends", "jumps", "moves_in_lanes", "runs_of"]
