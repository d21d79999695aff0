"""Acceptance: the lines an issue promises, measured by `make accept TOPIC=t`.

One module per topic, with a table `LINES` at its end.  To add a line, write a function of no
arguments that measures and returns `Measured`, raise `Skipped(reason)` where the machine cannot
tell, and add one row `Line("name", "the bar in words", function)`.  A new topic is a new module and
one row of `TOPICS` in tools/accept.py.  A function that raises anything else is reported as an
error, which counts as a failure.  Times are judged as ratios of the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

FAILING = ("fail", "error")


@dataclass(frozen=True)
class Measured:
    """What a line found: the figure in words, whether it meets the bar, numbers for the JSON."""

    figure: str
    passed: bool
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """One promise: a short name, the bar in words, and the function that measures it."""

    name: str
    bar: str
    measure: Callable[[], Measured]


@dataclass(frozen=True)
class Verdict:
    """A line measured: `verdict` is pass, fail, skip or error; `seconds` is what measuring took."""

    line: str
    bar: str
    figure: str
    verdict: str
    seconds: float
    details: Mapping[str, object]


class Skipped(Exception):
    """This machine cannot tell: the reason."""
