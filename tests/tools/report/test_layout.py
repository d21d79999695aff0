"""Properties of the layered drawing, on random graphs and on shapes that real models have."""

from __future__ import annotations

import random
import time

import pytest

from irc.tools.report.layers import crossings, layered, rank
from irc.tools.report.layout import Layout, arrange

Sizes = list[tuple[float, float]]
Edges = list[tuple[int, int]]


def random_graph(count: int, seed: int) -> tuple[Sizes, Edges]:
    """A graph like a network's: mostly chains, some far edges, boxes of several sizes."""
    rng = random.Random(seed)
    reach = [1, 1, 1, 1, 2, 3, 6, 20]
    edges = [
        (max(0, k - rng.choice(reach)), k)
        for k in range(1, count)
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3]))
    ]
    sizes = [(rng.randint(40, 260), rng.choice([26, 44, 44, 44, 300])) for _ in range(count)]
    return [(float(w), float(h)) for w, h in sizes], edges


def dense_block(count: int) -> tuple[Sizes, Edges]:
    """Each node reads all before it."""
    edges = [(u, v) for v in range(count) for u in range(v)]
    return [(120.0, 44.0)] * count, edges


def boxes(layout: Layout, sizes: Sizes) -> list[tuple[float, float, float, float]]:
    """Left, upper, right, lower of each node."""
    return [(x, y, x + w, y + h) for (x, y), (w, h) in zip(layout.corners, sizes, strict=True)]


def overlapping(layout: Layout, sizes: Sizes) -> list[tuple[int, int]]:
    """Pairs of nodes whose boxes meet."""
    found, order = [], sorted(enumerate(boxes(layout, sizes)), key=lambda item: item[1][1])
    for k, (v, (left, _, right, lower)) in enumerate(order):
        for w, (other_left, other_upper, other_right, _) in order[k + 1 :]:
            if other_upper >= lower:
                break
            if other_left < right and left < other_right:
                found.append((v, w))
    return found


GRAPHS = {f"random {n} {seed}": random_graph(n, seed) for n in (2, 9, 60, 300) for seed in (1, 2)}
GRAPHS |= {"dense": dense_block(14), "nothing": ([], []), "lone": ([(50.0, 20.0)] * 3, [])}


@pytest.mark.parametrize("name", GRAPHS)
def test_boxes_do_not_overlap_and_lie_inside(name: str) -> None:
    sizes, edges = GRAPHS[name]
    layout = arrange(sizes, edges)
    assert not overlapping(layout, sizes)
    for left, upper, right, lower in boxes(layout, sizes):
        assert left >= -0.1 and upper >= 0
        assert right <= layout.width + 0.1 and lower <= layout.height


@pytest.mark.parametrize("name", GRAPHS)
def test_edges_lead_down_from_box_to_box(name: str) -> None:
    sizes, edges = GRAPHS[name]
    layout = arrange(sizes, edges)
    assert set(layout.routes) == set(edges)
    places = boxes(layout, sizes)
    for (u, v), points in layout.routes.items():
        heights = [y for _, y in points]
        assert heights == sorted(heights) and layout.rows[u] < layout.rows[v]
        assert heights[0] == pytest.approx(places[u][3], abs=0.1)
        assert heights[-1] == pytest.approx(places[v][1], abs=0.1)
        assert places[v][0] <= points[-1][0] <= places[v][2]
        assert places[u][0] <= points[0][0] <= places[u][2]


@pytest.mark.parametrize("name", GRAPHS)
def test_long_edges_pass_beside_the_boxes(name: str) -> None:
    sizes, edges = GRAPHS[name]
    layout = arrange(sizes, edges)
    rows: dict[int, list[tuple[float, float]]] = {}
    for v, (left, _, right, _) in enumerate(boxes(layout, sizes)):
        rows.setdefault(layout.rows[v], []).append((left, right))
    for (u, v), points in layout.routes.items():
        passed = range(layout.rows[u] + 1, layout.rows[v])
        for k, row in enumerate(passed):
            (x, _), (again, _) = points[2 + 2 * k], points[3 + 2 * k]
            assert x == again, "straight through a row"
            assert not [1 for left, right in rows[row] if left < x < right], (u, v)


def test_the_same_graph_is_drawn_the_same() -> None:
    sizes, edges = random_graph(200, 5)
    first = arrange(sizes, edges)
    assert arrange(sizes, edges) == first
    assert arrange(sizes, edges[::-1] + edges) == first, "the order of edges says nothing"


def test_a_thousand_nodes_take_less_than_two_seconds() -> None:
    sizes, edges = random_graph(1000, 3)
    start = time.process_time()
    layout = arrange(sizes, edges)
    assert time.process_time() - start < 2
    assert not overlapping(layout, sizes)


def test_ranks_are_tight() -> None:
    """A late operand stands right above its reader, not at the top, and all that it is made of."""
    chain = [(k, k + 1) for k in range(5)]
    assert rank(7, [*chain, (6, 5)]) == [0, 1, 2, 3, 4, 5, 4]
    assert rank(9, [*chain, (6, 7), (8, 7), (7, 5)]) == [0, 1, 2, 3, 4, 5, 3, 4, 3]


def test_crossings_that_need_not_be_are_gone() -> None:
    """Two towers whose upper halves are exchanged, and a ladder in a bad order."""
    twisted = [(0, 3), (1, 2), (2, 4), (3, 5), (0, 6), (1, 6)]
    assert crossings(layered(7, twisted)) == 0
    rng = random.Random(4)
    names = list(range(40))
    rng.shuffle(names)
    ladder = [(names[k], names[k + 2]) for k in range(38)]
    assert crossings(layered(40, ladder)) == 0
    for n in (4, 6):  # a grid is planar, and read by depth it starts tangled
        at = names[: n * n]
        grid = [(at[i], at[i + 1]) for i in range(n * n) if (i + 1) % n]
        grid += [(at[i], at[i + n]) for i in range(n * n - n)]
        assert crossings(layered(40, grid)) == 0


def test_crossings_are_counted() -> None:
    graph = layered(4, [(0, 2), (1, 3)])
    assert crossings(graph) == 0
    graph.layers[1].reverse()
    assert crossings(graph) == 1
    for k, seed in enumerate((1, 2, 3)):
        _, edges = random_graph(30 + k, seed)
        drawn = layered(30 + k, edges)
        at = drawn.positions()
        slow = 0
        for layer in drawn.layers:
            pairs = [(at[v], at[w]) for v in layer for w in drawn.below[v]]
            slow += sum(a < c and b > d for a, b in pairs for c, d in pairs)
        assert crossings(drawn) == slow


def test_a_skip_over_many_rows_is_one_line() -> None:
    """Readers of one value share the way: U-Net's skips and masks are a line with branches."""
    edges = [(k, k + 1) for k in range(12)] + [(0, 6), (0, 9), (0, 12)]
    layout = arrange([(100.0, 44.0)] * 13, edges)
    longest = layout.routes[0, 12]
    for goal in (6, 9):
        shared = layout.routes[0, goal][:-2]
        assert longest[: len(shared)] == shared
    assert len({x for x, _ in longest[2:-2]}) == 1, "straight"


def test_branches_stand_close_beside_a_far_line() -> None:
    """Four branches around their trunk; an operand of the last node does not pull them apart."""
    trunk = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (2, 5), (3, 5), (4, 5), (5, 6), (6, 7)]
    layout = arrange([(100.0, 44.0)] * 9, [*trunk, (0, 8), (8, 7)])
    left = [layout.corners[v][0] for v in range(1, 5)]
    assert max(left) - min(left) < 4 * 140
    middle = layout.corners[0][0]
    assert min(left) < middle < max(left)
    assert abs(layout.corners[5][0] - middle) < 60


def test_a_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match="cycle"):
        arrange([(10.0, 10.0)] * 3, [(0, 1), (1, 2), (2, 0)])
