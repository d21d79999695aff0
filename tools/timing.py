"""Times of calls that take turns, so that all see the same machine."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Call = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Milliseconds of one kind of call: median, least, 90th percentile, and how many there were."""

    median: float
    min: float
    p90: float
    runs: int

    @classmethod
    def of(cls, seconds: list[float]) -> Times:
        """From the single times."""
        ordered = sorted(seconds)
        p90 = ordered[min(len(ordered) - 1, len(ordered) * 9 // 10)]
        return cls(statistics.median(ordered) * 1e3, ordered[0] * 1e3, p90 * 1e3, len(ordered))


def alternate(calls: Mapping[str, Call], seconds: float = 2.0, least: int = 5) -> dict[str, Times]:
    """Time each call in turns of about 5 ms for `seconds` in all, at least `least` turns each.

    Each turn begins with one call that is not counted: the other has just had the caches.
    """
    turn = {name: _turn(call) for name, call in calls.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    gc.disable()
    try:
        end, rounds = time.perf_counter() + seconds, 0
        while rounds < least or time.perf_counter() < end:
            for name, call in calls.items():
                call()
                found[name] += _timed(call, turn[name])
            rounds += 1
    finally:
        if collecting:
            gc.enable()
    return {name: Times.of(kept) for name, kept in found.items()}


def _turn(call: Call) -> int:
    """How many calls take about 5 ms."""
    call()
    (once,) = _timed(call, 1)
    return max(1, min(1000, int(5e-3 / max(once, 1e-7))))


def _timed(call: Call, count: int) -> list[float]:
    clock = time.perf_counter
    found = []
    for _ in range(count):
        start = clock()
        call()
        found.append(clock() - start)
    return found


__all__ = ["Call", "Times", "alternate"]
