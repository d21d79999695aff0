"""The graph and the memory timeline as SVG text: valid XML, whose looks are left to the page's CSS.

A node is `<g class="node ..." id="n7">` at its corner; its ops stand under its head, hidden until
the page opens it.  A drawing is nested as graphs are: `<g class="graph">` inside a node has its own
rows, whose lower ends (`data-bottoms`) tell the page what moves when a node grows.  Imports:
layout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any
from xml.sax.saxutils import escape

from .layout import Layout, Point, arrange

Row = Mapping[str, Any]

HEAD = 44.0
PILL = 26.0
OP_ROW = 17.0
LEAST, MOST = 104.0, 280.0
"""Width of a node."""
TITLE_CHAR, TYPE_CHAR = 8.0, 6.4
"""Advance of a character in the two sizes of type, as wide as fonts commonly have them."""
PART = 54.0
"""Room for a share of the time."""
INSET = 14.0
MARGIN = 24.0
PILLS = ("input", "output", "view", "constant")


class Drawing:
    """A graph and everything inside it, laid out: sizes of nodes by id, and the layout."""

    def __init__(self, graph: Row, shares: Mapping[str, float]) -> None:
        """`shares` gives each kernel's share of the time of a run, per call."""
        self.graph = graph
        self.shares = shares
        self.inner = {n["id"]: [Drawing(g, shares) for g in n["graphs"]] for n in graph["nodes"]}
        nodes = graph["nodes"]
        self.at = {n["id"]: k for k, n in enumerate(nodes)}
        self.sizes = [self.size(n) for n in nodes]
        edges = [(self.at[u], self.at[v]) for u, v, _ in graph["edges"]]
        self.layout: Layout = arrange(self.sizes, edges)

    @property
    def width(self) -> float:
        return self.layout.width

    @property
    def height(self) -> float:
        return self.layout.height

    def size(self, node: Row) -> tuple[float, float]:
        """Width and height of a node while it is closed."""
        if node["graphs"]:
            inner = self.inner[node["id"]]
            width = sum([d.width for d in inner]) + INSET * (len(inner) + 1)
            return max(width, LEAST), HEAD + max([d.height for d in inner]) + 2 * INSET + 16
        if node["kind"] in PILLS:
            chars = len(node["title"]) * TITLE_CHAR + len(short(node["result"])) * TYPE_CHAR + 34
            return min(max(chars, 64.0), MOST), PILL
        title = len(node["title"]) * TITLE_CHAR + PART * (node["kernel"] in self.shares)
        rows = [(len(o["name"]) + len(short(o["result"])) + 3) * TYPE_CHAR for o in node["ops"]]
        widest = max([title, len(short(node["result"])) * TYPE_CHAR, *rows])
        return min(max(widest + 30, LEAST), MOST), HEAD

    def lines(self) -> list[str]:
        """The SVG of the drawing, in its own coordinates."""
        bottoms = " ".join([f"{b:.1f}" for b in self.layout.bottoms])
        out = [f'<g class="graph" data-bottoms="{bottoms}">']
        types: dict[tuple[int, int], str] = {}
        for u, v, kind in self.graph["edges"]:
            types.setdefault((u, v), kind)
        for (u, v), kind in types.items():
            d = path(self.layout.routes[self.at[u], self.at[v]])
            said = f"<title>{escape(short(kind))}</title>"
            out.append(f'<path class="edge" data-from="{u}" data-to="{v}" d="{d}">{said}</path>')
        for k, node in enumerate(self.graph["nodes"]):
            out += self.node(node, self.layout.corners[k], self.sizes[k], self.layout.rows[k])
        return [*out, "</g>"]

    def node(self, node: Row, corner: Point, size: tuple[float, float], row: int) -> list[str]:
        """One node: frame, head, and its ops or graphs."""
        x, y, width, height = round(corner[0], 1), round(corner[1], 1), *size
        opened = height
        if node["ops"]:
            opened += len(node["ops"]) * OP_ROW + 8
        words = f'class="node {node["kind"]}" id="n{node["id"]}" tabindex="0"'
        places = f'data-x="{x}" data-y="{y}" data-row="{row}" data-h="{height:.1f}"'
        out = [f'<g {words} {places} data-open="{opened:.1f}" transform="translate({x} {y})">']
        said = [text for text in (node["title"], node["kernel"], node["place"]) if text]
        out.append(f"<title>{escape(chr(10).join(said))}</title>")
        if node["kind"] in PILLS:
            return [*out, *_pill(node, width), "</g>"]
        out.append(f'<rect class="box" width="{width:.1f}" height="{height:.1f}" rx="8"/>')
        out.append(f'<rect class="mark" x="0" y="8" width="4" height="{HEAD - 16:.0f}" rx="2"/>')
        out += self.head(node, width)
        for k, op in enumerate(node["ops"]):
            out += _op(op, width, HEAD + 12 + k * OP_ROW)
        left = INSET
        for graph, drawing in zip(node["graphs"], self.inner[node["id"]], strict=True):
            out.append(_text("region", left, HEAD + 10, graph["name"]))
            out.append(f'<g transform="translate({left:.1f} {HEAD + 16 + INSET:.1f})">')
            out += [*drawing.lines(), "</g>"]
            left += drawing.width + INSET
        return [*out, "</g>"]

    def head(self, node: Row, width: float) -> list[str]:
        """Title, type, and where times are known the share of the run."""
        share = self.shares.get(node["kernel"])
        room = width - 24 - (PART if share is not None else 0)
        out = [_text("title", 13, 19, fit(node["title"], room, TITLE_CHAR))]
        out.append(_text("type", 13, 34, fit(short(node["result"]), width - 24, TYPE_CHAR)))
        if share is not None:
            out.append(_text("part", width - 10, 19, f"{share:.1%}"))
            most = max(self.shares.values())
            long = (width - 16) * share / most if most else 0.0
            place = f'x="8" y="{HEAD - 4:.0f}" width="{long:.1f}" height="2"'
            out.append(f'<rect class="heat" {place}/>')
        return out


def _pill(node: Row, width: float) -> list[str]:
    kind = short(node["result"])
    most = max(0.6 * width, width - 30 - len(kind) * TYPE_CHAR)
    title = fit(node["title"], most, TITLE_CHAR)
    after = 12 + len(title) * TITLE_CHAR
    return [
        f'<rect class="box" width="{width:.1f}" height="{PILL:.0f}" rx="{PILL / 2:.0f}"/>',
        _text("title", 13, 17, title),
        _text("type", after + 8, 17, fit(kind, width - after - 16, TYPE_CHAR)),
    ]


def _op(op: Row, width: float, y: float) -> list[str]:
    """One line of an opened node: the op, and the type of its result."""
    name = _text("op", 13, y, op["name"])
    room = width - 36 - len(op["name"]) * TYPE_CHAR
    return [name, _text("op result", width - 10, y, fit(short(op["result"]), room, TYPE_CHAR))]


def _text(words: str, x: float, y: float, text: str) -> str:
    return f'<text class="{words}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def path(points: Sequence[Point]) -> str:
    """Straight through the rows, curves between them; M, L and C with absolute places only."""
    (x, y), *rest = points
    parts = [f"M{x:g} {y:g}"]
    for k, (to_x, to_y) in enumerate(rest):
        if (to_x, to_y) == (x, y):
            continue
        if to_x == x or k % 2 == 0:
            parts.append(f"L{to_x:g} {to_y:g}")
        else:
            half = round((y + to_y) / 2, 1)
            parts.append(f"C{x:g} {half:g} {to_x:g} {half:g} {to_x:g} {to_y:g}")
        x, y = to_x, to_y
    return "".join(parts)


def short(types: str) -> str:
    """`f32[1, 64, 56, 56]` as f32 1x64x56x56, with a real multiplication sign."""
    return _TYPE.sub(_short, types)


_TYPE = re.compile(r"(\w+)\[([^\[\]]*)\]")


_COMMA = re.compile(r", (?![^(]*\))")
"""A comma between extents, not one between the arguments of min() or max()."""


def _short(found: re.Match[str]) -> str:
    return f"{found[1]} {_COMMA.sub(chr(0xD7), found[2])}".rstrip()


def fit(text: str, room: float, char: float) -> str:
    """As much of the text as the room holds."""
    count = max(1, int(room / char))
    return text if len(text) <= count else text[: count - 1] + "\N{HORIZONTAL ELLIPSIS}"


def graph_svg(graph: Row, kernels: Sequence[Row]) -> str:
    """The whole graph as one SVG document; nodes are hot by their kernels' time per call."""
    shares = {k["name"]: k["share"] / max(1, k["calls"]) for k in kernels if k["share"] is not None}
    drawing = Drawing(graph, shares)
    width, height = drawing.width + 2 * MARGIN, drawing.height + 2 * MARGIN
    head = '<svg xmlns="http://www.w3.org/2000/svg" id="graph-svg" role="img"'
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" data-width="{width:.0f}"'
    arrow = '<path class="arrow" d="M0 0L8 4L0 8Z"/>'
    marker = 'orient="auto" markerUnits="userSpaceOnUse" viewBox="0 0 8 8" refX="7" refY="4"'
    markers = [
        f'<marker id="{name}" {marker} markerWidth="9" markerHeight="9">{arrow}</marker>'
        for name in ("tip", "lit-tip")
    ]
    return "\n".join(
        [
            f'{head} {size} data-height="{height:.0f}" aria-label="graph of the model">',
            f"<defs>{''.join(markers)}</defs>",
            f'<g id="all" transform="translate({MARGIN:g} {MARGIN:g})">',
            *drawing.lines(),
            "</g></svg>",
        ]
    )


# The memory timeline ------------------------------------------------------------------------------

PLOT = 1000.0, 340.0
LEFT, TOP, BELOW, RIGHT = 74.0, 26.0, 40.0, 12.0
HUES = 12


def memory_svg(memory: Row) -> str:
    """Buffers as rectangles: steps of the plan to the right, bytes of the arena upwards."""
    width, height = PLOT
    steps = max(1, len(memory["steps"]))
    top = max(1, memory["arena"], memory["lower_bound"])

    def x(step: float) -> float:
        return LEFT + step * width / steps

    def y(at: float) -> float:
        return TOP + height * (1 - at / top)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" id="memory-svg" role="img" aria-label="arena" '
        f'viewBox="0 0 {LEFT + width + RIGHT:.0f} {TOP + height + BELOW:.0f}">'
    ]
    for at in ticks(top):
        out.append(f'<path class="grid" d="M{LEFT:.0f} {y(at):.1f}H{LEFT + width:.0f}"/>')
        out.append(_text("axis bytes", LEFT - 8, y(at) + 4, size_text(at)))
    for step in ticks(steps - 1):
        out.append(_text("axis step", x(step + 0.5), TOP + height + 16, f"{step:g}"))
    out.append(_text("axis name", LEFT + width / 2, TOP + height + 34, "step of the plan"))
    for k, b in enumerate(memory["buffers"]):
        corners = x(b["begin"]), y(b["offset"] + b["bytes"]), x(b["end"] + 1), y(b["offset"])
        out += _buffer(b, corners, f"buffer h{k % HUES}", memory["steps"])
    return "\n".join([*out, *_lines(memory, x, y), "</svg>"])


def _buffer(b: Row, box: tuple[float, float, float, float], words: str, steps: Any) -> list[str]:
    """One buffer; its name where there is room."""
    left, upper, right, lower = box
    span = f"steps {b['begin']} ({steps[b['begin']]}) to {b['end']} ({steps[b['end']]})"
    tip = f"{b['name']}: {b['bytes']} bytes at {b['offset']}, {span}"
    place = f'x="{left:.2f}" y="{upper:.2f}" width="{right - left:.2f}" '
    place += f'height="{max(0.5, lower - upper):.2f}"'
    out = [f'<rect class="{words}" {place}><title>{escape(tip)}</title></rect>']
    if right - left > 9 + len(b["name"]) * TYPE_CHAR and lower - upper > 13:
        out.append(_text("label", left + 4, min(lower - 4, upper + 12), b["name"]))
    return out


def _lines(memory: Row, x: Any, y: Any) -> list[str]:
    """What is alive at each step, its peak, and the top of the arena beside the lower bound."""
    live, bound, arena = memory["live"], memory["lower_bound"], memory["arena"]
    if not arena:
        return [_text("axis name", LEFT + PLOT[0] / 2, TOP + PLOT[1] / 2, "no arena is needed")]
    stairs = [f"M{x(0):.1f} {y(live[0]):.1f}"]
    for step, now in enumerate(live):
        stairs.append(f"V{y(now):.1f}H{x(step + 1):.1f}")
    at = live.index(max(live))
    peak_x, right = x(at + 0.5), LEFT + PLOT[0]
    early = peak_x < LEFT + PLOT[0] / 2  # the other words stand on the other side
    side, start = (right - 4, "line end") if early else (LEFT + 4, "line")
    out = [f'<path class="live" d="{"".join(stairs)}"><title>bytes alive</title></path>']
    out.append(f'<path class="arena" d="M{LEFT:.0f} {y(arena):.1f}H{right:.0f}"/>')
    said = f"arena {size_text(arena)}"
    if arena == bound:
        said += " = lower bound"
    else:
        out.append(f'<path class="bound" d="M{LEFT:.0f} {y(bound):.1f}H{right:.0f}"/>')
        out.append(_text(start, side, y(bound) + 15, f"lower bound {size_text(bound)}"))
    out.append(_text(start, side, y(arena) - 7, said))
    out.append(f'<circle class="peak" cx="{peak_x:.1f}" cy="{y(live[at]):.1f}" r="4.5"/>')
    said = fit(f"peak at step {at}: {memory['steps'][at]}", PLOT[0] / 2, TITLE_CHAR)
    words, beside = ("line", 9) if early else ("line end", -9)
    out.append(_text(words, peak_x + beside, y(live[at]) - 7, said))
    return out


def ticks(top: float, count: int = 6) -> list[int]:
    """Round whole numbers from 0 up to `top`, at most `count` steps apart."""
    step, factors = 1, cycle((2.0, 2.5, 2.0))  # 1, 2, 5, 10, 20, 50 ...
    while top / step > count:
        step = int(step * next(factors))
    return list(range(0, int(top) + 1, step))


def size_text(count: float) -> str:
    """Bytes in the unit that keeps the number short: 1.5 kB is 1500 bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"


__all__ = ["Drawing", "fit", "graph_svg", "memory_svg", "path", "short", "size_text", "ticks"]
