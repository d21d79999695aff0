"""The page: collected data and drawings put into the template, as one file that needs no other.

Style and script are read from the files beside this one and written into the page.  Imports: svg,
jinja2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ...ir.archive import replacing
from ..tables import finite
from .svg import graph_svg, memory_svg, short, size_text

COLUMNS = (
    ("name", "kernel", ""),
    ("ops", "ops in it", ""),
    ("calls", "calls", "calls in one run"),
    ("flops", "work", "arithmetic operations of all calls, padding included"),
    ("bytes", "traffic", "operands and results of all calls, each once"),
    ("seconds", "time", "mean of all calls in one run"),
    ("share", "share", "of the time of all kernels"),
    ("gflops", "GFLOP/s", ""),
    ("gbs", "GB/s", ""),
    ("of_peak", "% of peak", "GFLOP/s over the measured FMA peak of the threads"),
    ("of_bandwidth", "% of copy", "GB/s over the measured copy bandwidth; caches can exceed it"),
)
"""Key of a kernel row, head of its column, what the head explains."""

UNITS = {
    "flops": (("GFLOP", 1e9), ("MFLOP", 1e6), ("kFLOP", 1e3)),
    "bytes": (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)),
    "seconds": (("ms", 1e-3), ("\N{MICRO SIGN}s", 1e-6)),
}
"""Units of a column, the largest first: the first that the sum fills ten times over is taken."""


def render(data: Mapping[str, Any]) -> str:
    """The page as text."""
    here = resources.files(__package__)
    names = ("page.html", "page.css", "page.js")
    parts = {name: (here / name).read_text(encoding="utf-8") for name in names}
    env = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    env.undefined = jinja2.StrictUndefined
    env.filters |= {
        "bytes": size_text,
        "flops": flops,
        "number": number,
        "seconds": seconds,
        "short": short,
    }
    units = {key: unit(key, [k[key] for k in data["kernels"]]) for key in UNITS}
    env.filters["cell"] = partial(cell, units=units)
    page = env.from_string(parts["page.html"])
    return page.render(
        d=data,
        columns=COLUMNS,
        units=units,
        css=Markup(parts["page.css"]),
        js=Markup(parts["page.js"]),
        graph=Markup(graph_svg(data["graph"], data["kernels"])),
        timeline=Markup(memory_svg(data["memory"])),
        reasons=by_reason(data["fusion"]["refusals"]),
        data=Markup(in_script({"graph": data["graph"], "kernels": data["kernels"]})),
    )


def write(data: Mapping[str, Any], output: Path) -> None:
    """Write the page; an old file stays until the new one is whole.  Errors: E0264."""
    text = render(data)
    with replacing(output) as file:
        file.write(text.encode(errors="replace"))  # names of files may be no text


def in_script(data: Any) -> str:
    """JSON that may stand inside a script element whatever it says."""
    text = json.dumps(finite(data), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def by_reason(refusals: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Refusals under their reasons, the most frequent first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for refusal in refusals:
        groups.setdefault(refusal["why"], []).append(refusal)
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))


def unit(key: str, values: Sequence[float | None]) -> tuple[str, float]:
    """The name and size of the unit for a column."""
    total = sum([v or 0 for v in values])
    fitting = [u for u in UNITS[key] if total >= 10 * u[1]]
    return fitting[0] if fitting else UNITS[key][-1]


def cell(value: Any, key: str, units: Mapping[str, tuple[str, float]]) -> str:
    """The text of a cell of the kernel table, in the unit of its column; a dash for no value."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, str):
        return value
    if key in ("share", "of_peak", "of_bandwidth"):
        return f"{value * 100:.1f}"
    return number(value / units[key][1] if key in units else value)


def number(value: float) -> str:
    """Three significant digits, but at most three decimals; whole thousands grouped."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    if value < 1e-3:
        return "<0.001"
    return f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def quantity(value: float, units: Sequence[tuple[str, float]]) -> str:
    """A figure in the largest unit that it fills."""
    name, size = next((u for u in units if value >= u[1]), units[-1])
    return f"{number(value / size)}\N{NO-BREAK SPACE}{name}"


def seconds(value: float) -> str:
    """A time in the unit that keeps it short."""
    return quantity(value, (("s", 1.0), ("ms", 1e-3), ("\N{MICRO SIGN}s", 1e-6)))


def flops(value: float) -> str:
    """A number of operations in the unit that keeps it short."""
    return quantity(value, UNITS["flops"])


__all__ = [
    "COLUMNS",
    "UNITS",
    "by_reason",
    "cell",
    "flops",
    "in_script",
    "number",
    "render",
    "seconds",
    "unit",
    "write",
]
