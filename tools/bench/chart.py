"""A bar chart of a race as SVG text: per network one bar an engine, as a multiple of the best peer.

No library and no script in it; it is written next to a report or put into a page as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .race import Race

BAR, GAP, LEFT, WIDTH, TOP = 9, 12, 190, 760, 46
COLOURS = ("#2563eb", "#9ca3af", "#d1a054", "#8b5cf6")
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


def chart(races: Sequence[Race]) -> str:
    """SVG of all networks; 1 is the quicker peer; bars end where the axis ends."""
    engines = list(dict.fromkeys([name for race in races for name in race.engines]))
    longest = max([1.0, *(bar for race in races for bar in _bars(race).values())])
    limit = next((scale for scale in SCALES if longest <= scale), SCALES[-1])
    unit = (WIDTH - LEFT - 70) / limit
    parts = []
    y = TOP
    for race in races:
        height = len(engines) * BAR
        label = f"{race.name}, {race.threads} thread{'s' if race.threads > 1 else ''}"
        parts.append(_text(LEFT - 8, y + height / 2 + 4, label, "end"))
        for k, engine in enumerate(engines):
            parts += _bar(race, engine, y + k * BAR, unit, limit, COLOURS[k % len(COLOURS)])
        y += height + GAP
    one = LEFT + unit
    parts.append(f'<line x1="{one:.1f}" y1="{TOP - 6}" x2="{one:.1f}" y2="{y}" stroke="#111"/>')
    parts.append(_text(one, TOP - 10, "the quicker peer = 1", "middle"))
    legend = _legend(engines)
    style = "font-family: system-ui, sans-serif; font-size: 11px"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 8}" style="{style}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *legend, *parts,
                      "</svg>\n"])  # fmt: skip


def _bars(race: Race) -> dict[str, float]:
    """The multiple of each engine that ran."""
    peer = race.best_peer()
    found = {name: f.times.median for name, f in race.engines.items() if f.times}
    base = found.get(peer) or min(found.values(), default=1.0)
    return {name: median / base for name, median in found.items()}


def _bar(race: Race, engine: str, y: float, unit: float, limit: float, colour: str) -> list[str]:
    multiple = _bars(race).get(engine)
    times = race.engines[engine].times if engine in race.engines else None
    if multiple is None or times is None:
        return [_text(LEFT + 4, y + BAR - 1, f"{engine}: failed", "start", 9)]
    width = min(multiple, limit) * unit
    said = f"{times.median:.3g} ms"
    return [
        f'<rect x="{LEFT}" y="{y:.1f}" width="{width:.1f}" height="{BAR - 1}" fill="{colour}">'
        f"<title>{escape(engine)}: {said}, {multiple:.2f}</title></rect>",
        _text(LEFT + width + 4, y + BAR - 1, said, "start", 9),
    ]


def _legend(engines: Sequence[str]) -> list[str]:
    parts = []
    for k, engine in enumerate(engines):
        x = LEFT + 110 * k
        colour = COLOURS[k % len(COLOURS)]
        parts.append(f'<rect x="{x}" y="10" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(x + 15, 19, engine, "start"))
    return parts


def _text(x: float, y: float, said: str, anchor: str, size: int = 11) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(said)}</text>"
    )


__all__ = ["chart"]
