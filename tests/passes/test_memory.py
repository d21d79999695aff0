"""Offsets in the arena: never overlapping, close to the lower bound, symbolic sizes, the verifier
of layouts.
"""

from __future__ import annotations

import random

import pytest

from irc.ir.dims import evaluate, sym
from irc.ir.errors import Error
from irc.passes.alias import verify_layout
from irc.passes.memory import ALIGN, Item, assign, peak


def chain(seed: int, count: int) -> list[Item]:
    """Buffers as a network has them: most die soon, some are kept for long."""
    rng = random.Random(seed)
    sizes = [64, 200, 1000, 4096, 100_000]
    return [
        Item(
            f"b{k}",
            rng.choice([*sizes, rng.randrange(1, 200_000)]),
            k,
            k + rng.choice([1, 1, 1, 2, 3, 12, 40]),
        )
        for k in range(count)
    ]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("count", [1, 7, 40, 150])
def test_random_programs_fit_within_five_percent(seed: int, count: int) -> None:
    layout = assign(chain(seed, count))
    rows = [
        (i.name, o, i.size, i.first, i.last)
        for i, o in zip(layout.items, layout.offsets, strict=True)
    ]
    verify_layout(rows)
    assert all(o % ALIGN == 0 for o in layout.offsets)
    assert (
        max(o + i.size for i, o in zip(layout.items, layout.offsets, strict=True)) <= layout.arena
    )
    assert layout.lower_bound() <= layout.arena <= 1.05 * layout.lower_bound()


def test_the_same_items_give_the_same_layout() -> None:
    assert assign(chain(3, 150)) == assign(chain(3, 150))


def test_nothing_needs_nothing() -> None:
    assert assign([]).arena == 0 and assign([]).lower_bound() == 0


def test_the_lower_bound_is_the_largest_live_set() -> None:
    items = [Item("a", 100, 0, 2), Item("b", 60, 2, 3), Item("c", 64, 3, 9)]
    assert peak([128, 64, 64], items) == 192
    assert assign(items).lower_bound() == 192


@pytest.mark.parametrize("size", [1, 3, 16, 17, 1000])
def test_symbolic_sizes_hold_for_every_extent(size: int) -> None:
    n, t = sym("N"), sym("T")
    items = [
        Item("a", n * 256, 0, 1),
        Item("b", n * 512, 1, 2),
        Item("c", n * 256, 2, 3),
        Item("d", n * t * 4, 0, 3),
        Item("e", n * 4 + 4, 1, 3),
        Item("f", 12, 0, 3),
        Item("g", n * 1028, 3, 4),
    ]
    layout = assign(items)
    verify_layout(
        [(i.name, o, i.size, i.first, i.last) for i, o in zip(items, layout.offsets, strict=True)]
    )
    dims = {"N": size, "T": 7}
    for item, offset in zip(items, layout.offsets, strict=True):
        at = evaluate(offset, dims)
        assert at % ALIGN == 0 and at + evaluate(item.size, dims) <= evaluate(layout.arena, dims)


def test_one_symbol_costs_no_more_than_static_sizes() -> None:
    items = chain(5, 60)
    scaled = [
        Item(i.name, sym("N") * (-(-i.size // ALIGN) * ALIGN), i.first, i.last) for i in items
    ]
    assert evaluate(assign(scaled).arena, {"N": 3}) == 3 * assign(items).arena


def test_a_planted_overlap_is_found() -> None:
    rows = [("a", 0, 100, 0, 5), ("b", 64, 100, 5, 6)]
    with pytest.raises(Error, match="E0435"):
        verify_layout(rows)
    verify_layout([("a", 0, 100, 0, 4), ("b", 64, 100, 5, 6)])
    verify_layout([("a", 0, 100, 0, 5), ("b", 128, 100, 5, 6)])


def test_an_overlap_at_some_extent_is_found() -> None:
    n = sym("N")
    with pytest.raises(Error, match="E0435"):
        verify_layout([("a", 0, n * 64, 0, 5), ("b", 128, 64, 5, 6)])
    verify_layout([("a", 0, n * 64, 0, 5), ("b", n * 64, 64, 5, 6)])


def densely_connected(layers: tuple[int, ...], growth: int = 32) -> list[Item]:
    """Blocks in which each layer keeps a slice until all of them are needed at once."""
    items: list[Item] = []
    now, channels, side = 10, 64, 56
    for count in layers:
        area, end = 4 * side * side, now + 11 * count
        items.append(Item(f"first{side}", channels * area, now - 1, end))
        for t in range(now, end, 11):
            if t > now:
                items.append(Item(f"gathered{t}", channels * area, t, t + 8))
            items.append(Item(f"narrow{t}", 128 * area, t + 8, t + 10))
            items.append(Item(f"padded{t}", 128 * 4 * (side + 2) ** 2, t + 10, t + 10))
            items.append(Item(f"slice{t}", growth * area, t + 10, end))
            channels += growth
        items.append(Item(f"joined{side}", channels * area, end, end + 8))
        channels, side, now = channels // 2, side // 2, end + 11
        items.append(Item(f"half{side}", channels * area, end + 8, end + 9))
    return items


def test_what_is_alive_at_the_fullest_time_lies_without_a_gap() -> None:
    layout = assign(densely_connected((6, 12, 24)))
    assert layout.arena == layout.lower_bound()
