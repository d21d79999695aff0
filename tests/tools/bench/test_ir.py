"""The IR bench: it measures what it says, and the IR keeps within reach of plain Python."""

from __future__ import annotations

import json
import time

import pytest
from click.testing import CliRunner

from irc.ir.text import print_op
from irc.tools.bench.__main__ import main
from irc.tools.bench.ir import BARS, Figure, bytes_per_op, chain, measure


class Plain:
    """What the cheapest op could be: an object with eight slots."""

    __slots__ = ("a", "b", "c", "d", "e", "f", "g", "h")

    def __init__(self, a: object) -> None:
        self.a = self.b = self.c = self.d = self.e = self.f = self.g = self.h = a


def plain_us(n: int = 20_000) -> float:
    """Making one plain object and putting it in a dict, in microseconds."""
    times = []
    for _ in range(5):
        start = time.process_time()
        kept = {}
        for k in range(n):
            kept[k] = Plain(k)
        times.append(time.process_time() - start)
    return min(times) / n * 1e6


def test_the_chain_is_what_it_says() -> None:
    module = chain(5)
    assert print_op(module).count("add(") == 5
    assert len(module.main.body) == 6


def test_all_figures_are_there_and_in_reach() -> None:
    """Bars are for a quiet machine; here each is held against plain Python in the same run."""
    rows = {row.what: row for row in measure(5000, rounds=3)}
    assert set(rows) == {*BARS, "memory"}
    unit = plain_us()
    for what, bar in BARS.items():
        assert 0 < rows[what].figure < 10 * bar * unit, (what, rows[what].figure, unit)


def test_memory_per_op() -> None:
    assert 200 < bytes_per_op(3000) < 600


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_the_command(flags: list[str]) -> None:
    found = CliRunner().invoke(main, ["ir", "--ops", "300", *flags])
    assert found.exit_code in (0, 1)
    if flags:
        rows = json.loads(found.output)
        assert {row["what"] for row in rows} == {*BARS, "memory"}
        assert found.exit_code == (0 if all(row["passed"] for row in rows) else 1)
    else:
        assert "bytes/op" in found.output
    assert CliRunner().invoke(main, ["nothing"]).exit_code == 2


def test_a_bar_can_fail() -> None:
    assert not Figure("x", 2.0, 1.0, "us/op").passed
