"""Coordinates of a layered drawing: no two boxes overlap, and long edges run straight.

Horizontal places after Brandes and Koepf (2001): blocks of aligned items in four directions, the
median of the four.  Rows are as high as their highest box.  The unit is the CSS pixel, y grows
downwards.  Imports: layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf
from statistics import median

from .layers import Edges, Layered, layered

GAP_X = 22.0
GAP_LINE = 9.0
"""Beside a line that passes by."""
GAP_Y = 30.0
SWEEPS = 12
"""Rounds of drawing near what is joined."""
PORTS = 16.0
"""Between two edges that enter one box, where there is room."""

Point = tuple[float, float]
Pairs = set[tuple[int, int]]


@dataclass(frozen=True)
class Layout:
    """Left upper corners of the boxes, the way of each edge, the lower end of each row."""

    width: float
    height: float
    corners: tuple[Point, ...]
    rows: tuple[int, ...]
    bottoms: tuple[float, ...]
    routes: dict[tuple[int, int], tuple[Point, ...]]


def arrange(sizes: Sequence[tuple[float, float]], edges: Edges) -> Layout:
    """Lay out boxes (width, height) such that every edge (from, to) leads down.

    Edges that are given twice count once.  Raises ValueError where the edges have a cycle.
    """
    if not sizes:
        return Layout(0.0, 0.0, (), (), (), {})
    graph = layered(len(sizes), edges)
    widths = [w for w, _ in sizes] + [0.0] * (len(graph.ranks) - len(sizes))
    centers = _centers(graph, widths)
    left = min([c - w / 2 for c, w in zip(centers, widths, strict=True)])
    centers = [round(c - left, 1) for c in centers]
    tops, bottoms = _rows(graph, sizes, centers)
    corners = []
    for v, (w, h) in enumerate(sizes):
        r = graph.ranks[v]
        corners.append((centers[v] - w / 2, tops[r] + (bottoms[r] - tops[r] - h) / 2))
    routes = _routes(graph, sizes, centers, corners, tops, bottoms)
    width = max([c + w / 2 for c, w in zip(centers, widths, strict=True)])
    rows = tuple(graph.ranks[: len(sizes)])
    return Layout(width, bottoms[-1], tuple(corners), rows, tuple(bottoms), routes)


def _rows(
    graph: Layered, sizes: Sequence[tuple[float, float]], centers: list[float]
) -> tuple[list[float], list[float]]:
    """Upper and lower end of each row; where edges run far sideways, rows stand farther apart."""
    tops, bottoms, y = [], [], 0.0
    for layer in graph.layers:
        tops.append(y)
        y += max([sizes[v][1] for v in layer if v < graph.count], default=0.0)
        bottoms.append(y)
        far = max([abs(centers[v] - centers[w]) for v in layer for w in graph.below[v]], default=0)
        y += GAP_Y + min(60.0, far * 0.06)
    return tops, bottoms


def _routes(
    graph: Layered,
    sizes: Sequence[tuple[float, float]],
    centers: list[float],
    corners: list[Point],
    tops: list[float],
    bottoms: list[float],
) -> dict[tuple[int, int], tuple[Point, ...]]:
    """Down from the lower side, straight through each row on the way, into the upper side."""
    ports = _ports(graph, sizes, centers)
    routes = {}
    for (u, v), path in graph.routes.items():
        row = graph.ranks[u]
        points = [(centers[u], corners[u][1] + sizes[u][1]), (centers[u], bottoms[row] + 1)]
        for dummy in path[1:-1]:
            row = graph.ranks[dummy]
            points += [(centers[dummy], tops[row]), (centers[dummy], bottoms[row] + 1)]
        x = ports[u, v]
        points += [(x, tops[graph.ranks[v]]), (x, corners[v][1])]
        routes[u, v] = tuple([(round(a, 1), round(b, 1)) for a, b in points])
    return routes


def _ports(
    graph: Layered, sizes: Sequence[tuple[float, float]], centers: list[float]
) -> dict[tuple[int, int], float]:
    """Where each edge enters its goal: beside each other, in the order they come from."""
    entering: dict[int, list[tuple[float, int]]] = {}
    for (u, v), path in graph.routes.items():
        entering.setdefault(v, []).append((centers[path[-2]], u))
    found = {}
    for v, comers in entering.items():
        step = min(PORTS, sizes[v][0] / (len(comers) + 1))
        for k, (_, u) in enumerate(sorted(comers)):
            found[u, v] = centers[v] + step * (k - (len(comers) - 1) / 2)
    return found


# Horizontal coordinates ---------------------------------------------------------------------------


def _centers(graph: Layered, widths: list[float]) -> list[float]:
    """The center of each item: the mean of the middle two of four compact alignments."""
    conflicts = _conflicts(graph)
    found = []
    for upwards in (False, True):
        layers = graph.layers[::-1] if upwards else graph.layers
        near = graph.below if upwards else graph.above
        for mirrored in (False, True):
            rows = [layer[::-1] for layer in layers] if mirrored else layers
            roots = _aligned(rows, near, conflicts)
            places = _compact(graph, rows, roots, widths)
            found.append([-x for x in places] if mirrored else places)
    centers = _balanced(found, widths)
    for sweep in range(SWEEPS):
        _draw_near(graph, widths, centers, rightwards=sweep % 2 == 0)
    return centers


def _balanced(found: list[list[float]], widths: list[float]) -> list[float]:
    """Bring the four to the sides of the narrowest, then take medians."""
    ends = []
    for places in found:
        low = min([x - w / 2 for x, w in zip(places, widths, strict=True)])
        high = max([x + w / 2 for x, w in zip(places, widths, strict=True)])
        ends.append((low, high))
    low, high = min(ends, key=lambda e: e[1] - e[0])
    moved = []
    for k, places in enumerate(found):
        shift = high - ends[k][1] if k % 2 else low - ends[k][0]
        moved.append([x + shift for x in places])
    centers = []
    for four in zip(*moved, strict=True):
        _, a, b, _ = sorted(four)
        centers.append((a + b) / 2)
    return centers


def _draw_near(
    graph: Layered, widths: list[float], centers: list[float], rightwards: bool
) -> None:
    """Move each straight piece half the way to the median of what it is joined to, in its room."""
    pieces = _pieces(graph, centers)
    home = {v: k for k, piece in enumerate(pieces) for v in piece}
    at = graph.positions()
    turn = 1 if rightwards else -1
    for k in sorted(range(len(pieces)), key=lambda k: (turn * centers[pieces[k][0]], k)):
        goals, low, high = [], -inf, inf
        for v in pieces[k]:
            joined = [*graph.above[v], *graph.below[v]]
            goals += [centers[u] for u in joined if home[u] != k]
            row = graph.layers[graph.ranks[v]]
            if at[v] > 0:
                left = row[at[v] - 1]
                low = max(low, centers[left] + _room(graph, widths, left, v))
            if at[v] < len(row) - 1:
                right = row[at[v] + 1]
                high = min(high, centers[right] - _room(graph, widths, v, right))
        if goals:
            x = centers[pieces[k][0]]
            x = max(low, min(high, (x + median(goals)) / 2))
            for v in pieces[k]:
                centers[v] = x


def _pieces(graph: Layered, centers: list[float]) -> list[list[int]]:
    """Items that edges join straight downwards, each in one piece."""
    home: dict[int, list[int]] = {}
    found: list[list[int]] = []
    for layer in graph.layers:
        for v in layer:
            near = [u for u in graph.above[v] if abs(centers[u] - centers[v]) < 0.5]
            if near:
                home[v] = home[near[0]]
            else:
                home[v] = []
                found.append(home[v])
            home[v].append(v)
    return found


def _room(graph: Layered, widths: list[float], left: int, right: int) -> float:
    """The least distance between the centers of two neighbours in a row."""
    gaps = [GAP_X if v < graph.count else GAP_LINE for v in (left, right)]
    return (widths[left] + widths[right] + sum(gaps)) / 2


def _conflicts(graph: Layered) -> Pairs:
    """Edges (upper, lower) that cross a piece of a long edge, which is to stay straight."""
    at = graph.positions()
    found: Pairs = set()
    for layer, lower in zip(graph.layers, graph.layers[1:]):
        left, begin = 0, 0
        for k, v in enumerate(lower):
            inner = next((u for u in graph.above[v] if v >= graph.count <= u), None)
            if inner is None and k < len(lower) - 1:
                continue
            right = at[inner] if inner is not None else len(layer)
            for w in lower[begin : k + 1]:
                for u in graph.above[w]:
                    straight = u >= graph.count <= w
                    if not straight and not left <= at[u] <= right:
                        found.add((u, w))
            left, begin = right, k + 1
    return found


def _aligned(rows: list[list[int]], near: list[list[int]], conflicts: Pairs) -> list[int]:
    """The topmost item of the block that each item belongs to."""
    at = [0] * len(near)
    for row in rows:
        for k, v in enumerate(row):
            at[v] = k
    root = list(range(len(near)))
    taken = [False] * len(near)
    for row in rows[1:]:
        last = -1
        for v in row:
            others = sorted(near[v], key=lambda u: at[u])
            middle = (len(others) - 1) / 2
            for k in range(floor(middle), ceil(middle) + 1) if others else ():
                u = others[k]
                barred = (u, v) in conflicts or (v, u) in conflicts
                if root[v] == v and not taken[u] and last < at[u] and not barred:
                    root[v], taken[u], last = root[u], True, at[u]
    return root


def _compact(
    graph: Layered, rows: list[list[int]], root: list[int], widths: list[float]
) -> list[float]:
    """Blocks as far left as their neighbours let them be."""
    after: dict[int, dict[int, float]] = {r: {} for r in root}
    left = dict.fromkeys(after, 0)
    for row in rows:
        for v, w in zip(row, row[1:]):
            room = _room(graph, widths, v, w)
            a, b = root[v], root[w]
            if b not in after[a]:
                left[b] += 1
            after[a][b] = max(room, after[a].get(b, 0.0))
    order = [r for r, n in left.items() if n == 0]
    x = dict.fromkeys(after, 0.0)
    for r in order:  # grows on the way
        for s, room in after[r].items():
            x[s] = max(x[s], x[r] + room)
            left[s] -= 1
            if left[s] == 0:
                order.append(s)
    assert len(order) == len(after), "blocks that stand left of themselves"
    return [x[r] for r in root]


__all__ = ["Layout", "Point", "arrange"]
