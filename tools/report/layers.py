"""Ranks and orders of a layered drawing: who stands in which row, and where in it.

After Sugiyama, Tagawa and Toda (1981) as Gansner et al. tell it (1993): ranks by longest path and
then tightened, edges over several ranks led through dummies, crossings reduced by barycenters and
swaps.  All long edges that leave one node share their dummies, so that a value read far below is
one line with branches.  Everything is deterministic.  Imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Edges = Sequence[tuple[int, int]]

SWEEPS = 24
PATIENCE = 5
"""Sweeps without a gain after which the best order stands."""


@dataclass
class Layered:
    """Nodes and dummies in rows: `layers[r]` are items from left to right, nodes are below `count`.

    `above` and `below` are the neighbours in the next rows; `routes` are, for each edge, the items
    that it touches, from its source to its goal.
    """

    count: int
    ranks: list[int]
    layers: list[list[int]]
    above: list[list[int]]
    below: list[list[int]]
    routes: dict[tuple[int, int], list[int]]

    def positions(self) -> list[int]:
        """The place of each item in its row."""
        at = [0] * len(self.ranks)
        for layer in self.layers:
            for k, item in enumerate(layer):
                at[item] = k
        return at


def rank(count: int, edges: Edges) -> list[int]:
    """A row for each node: every edge leads down, and edges are short.

    Raises ValueError where the edges have a cycle.
    """
    ins: list[list[int]] = [[] for _ in range(count)]
    outs: list[list[int]] = [[] for _ in range(count)]
    for u, v in edges:
        outs[u].append(v)
        ins[v].append(u)
    order = _topological(ins, outs)
    ranks = [0] * count
    for v in order:
        ranks[v] = max([ranks[u] + 1 for u in ins[v]], default=0)
    loose: list[bool] = [False] * count
    for v in order:  # nothing above it leads elsewhere: all of that can come down with it
        loose[v] = all([loose[u] and len(outs[u]) == 1 for u in ins[v]])
    for _ in range(4):
        moved = False
        for v in reversed(order):
            goal = _tighter(v, ranks, ins, outs, loose[v])
            moved = moved or goal != ranks[v]
            ranks[v] = goal
        if not moved:
            break
    used = {r: k for k, r in enumerate(sorted(set(ranks)))}
    return [used[r] for r in ranks]


def _tighter(
    v: int, ranks: list[int], ins: list[list[int]], outs: list[list[int]], loose: bool
) -> int:
    """The rank of `v` that shortens its edges: down to its readers, unless more come in than go."""
    low = max([ranks[u] + 1 for u in ins[v]], default=0)
    if not outs[v]:
        return low if ins[v] else ranks[v]
    high = min([ranks[w] - 1 for w in outs[v]])
    if loose or len(outs[v]) > len(ins[v]):
        return high
    return low if len(ins[v]) > 1 else min(ranks[v], high)


def _topological(ins: list[list[int]], outs: list[list[int]]) -> list[int]:
    left = [len(sources) for sources in ins]
    ready = [v for v, n in enumerate(left) if n == 0]
    for v in ready:  # grows on the way
        for w in outs[v]:
            left[w] -= 1
            if left[w] == 0:
                ready.append(w)
    if len(ready) < len(left):
        raise ValueError("the edges have a cycle")
    return ready


def layered(count: int, edges: Edges) -> Layered:
    """Rows with dummies, ordered so that few edges cross."""
    kept = sorted({(u, v) for u, v in edges if u != v})
    ranks = rank(count, kept)
    graph = _with_dummies(count, kept, ranks)
    _first_order(graph)
    _untangle(graph)
    return graph


def _with_dummies(count: int, edges: Edges, ranks: list[int]) -> Layered:
    """Lead each edge from row to row; edges of one source share what they can."""
    ranks = list(ranks)
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    routes: dict[tuple[int, int], list[int]] = {}
    chains: dict[int, list[int]] = {}

    def join(upper: int, lower: int) -> None:
        below[upper].append(lower)
        above[lower].append(upper)

    for u, v in edges:
        chain = chains.setdefault(u, [u])
        while len(chain) < ranks[v] - ranks[u]:
            ranks.append(ranks[u] + len(chain))
            above.append([])
            below.append([])
            join(chain[-1], len(ranks) - 1)
            chain.append(len(ranks) - 1)
        path = chain[: ranks[v] - ranks[u]]
        join(path[-1], v)
        routes[u, v] = [*path, v]
    layers: list[list[int]] = [[] for _ in range(max(ranks, default=-1) + 1)]
    return Layered(count, ranks, layers, above, below, routes)


def _first_order(graph: Layered) -> None:
    """Depth first from the top, so that what belongs together starts together."""
    seen = [False] * len(graph.ranks)
    roots = sorted(range(graph.count), key=lambda v: (graph.ranks[v], v))
    for root in roots:
        todo = [root]
        while todo:
            v = todo.pop()
            if seen[v]:
                continue
            seen[v] = True
            graph.layers[graph.ranks[v]].append(v)
            todo.extend(reversed(graph.below[v]))


# Crossings ----------------------------------------------------------------------------------------


def crossings(graph: Layered) -> int:
    """How many pairs of edges between neighbouring rows cross."""
    at = graph.positions()
    return sum([_between(layer, graph.below, at) for layer in graph.layers])


def _between(layer: Sequence[int], below: list[list[int]], at: list[int]) -> int:
    """Crossings under a row: inversions, counted with a binary indexed tree."""
    ends = [p for v in layer for p in sorted([at[w] for w in below[v]])]
    if len(ends) < 2:
        return 0
    tree = [0] * (max(ends) + 2)
    total = 0
    for seen, end in enumerate(ends):
        k, smaller = end + 1, 0
        while k:
            smaller += tree[k]
            k &= k - 1
        total += seen - smaller
        k = end + 1
        while k < len(tree):
            tree[k] += 1
            k += k & -k
    return total


def _untangle(graph: Layered) -> None:
    """Sweeps of barycenters down and up, each followed by swaps; the best order is kept."""
    best, least = [list(layer) for layer in graph.layers], crossings(graph)
    idle = 0
    for sweep in range(SWEEPS):
        if least == 0 or idle >= PATIENCE:
            break
        _sweep(graph, down=sweep % 2 == 0, rightmost=sweep % 4 >= 2)
        _swap(graph)
        now = crossings(graph)
        idle += 1
        if now < least:
            best, least, idle = [list(layer) for layer in graph.layers], now, 0
    graph.layers[:] = best


def _sweep(graph: Layered, down: bool, rightmost: bool) -> None:
    """Order each row by the means of its neighbours in the row before; the free ones stay."""
    at = graph.positions()
    layers = graph.layers[1:] if down else graph.layers[-2::-1]
    near = graph.above if down else graph.below
    for layer in layers:
        means = {v: sum([at[u] for u in near[v]]) / len(near[v]) for v in layer if near[v]}
        turn = -1 if rightmost else 1
        bound = sorted(means, key=lambda v: (means[v], turn * at[v]))
        places = iter(bound)
        layer[:] = [next(places) if v in means else v for v in layer]
        for k, v in enumerate(layer):
            at[v] = k


def _swap(graph: Layered) -> None:
    """Exchange neighbours in a row while that removes crossings."""
    at = graph.positions()
    for _ in range(3):
        gained = False
        for layer in graph.layers:
            for k in range(len(layer) - 1):
                v, w = layer[k], layer[k + 1]
                before = _pair(graph, v, w, at)
                if before and _pair(graph, w, v, at) < before:
                    layer[k], layer[k + 1] = w, v
                    at[w], at[v] = k, k + 1
                    gained = True
        if not gained:
            return


def _pair(graph: Layered, left: int, right: int, at: list[int]) -> int:
    """Crossings between the edges of two neighbours in a row, standing in this order."""
    total = 0
    for near in (graph.above, graph.below):
        others = [at[u] for u in near[right]]
        total += sum([at[u] > other for u in near[left] for other in others])
    return total


__all__ = ["Edges", "Layered", "crossings", "layered", "rank"]
