"""The acceptance harness: each outcome of a line is told apart, kept, and counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from irc.tools import accept
from irc.tools.acceptance import Line, Measured, Skipped, spine


def _fails() -> Measured:
    raise ValueError("broken [bench]")


def _skips() -> Measured:
    raise Skipped("no such processor")


GOOD = Line("good", "at most 2", lambda: Measured("1", True, {"n": 1}))
BAD = Line("bad", "at most 2", lambda: Measured("3", False))
BROKEN = Line("broken", "at most 2", _fails)
SKIPPED = Line("skipped", "at most 2", _skips)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setattr(accept, "OUTPUT", tmp_path / ".accept")
    return monkeypatch


@pytest.mark.parametrize(
    ("line", "verdict", "figure"),
    [
        (GOOD, "pass", "1"),
        (BAD, "fail", "3"),
        (BROKEN, "error", "ValueError: broken [bench]"),
        (SKIPPED, "skip", "no such processor"),
    ],
)
def test_each_outcome(line: Line, verdict: str, figure: str) -> None:
    found = accept.measure(line)
    assert (found.line, found.bar, found.verdict, found.figure) == (
        line.name, line.bar, verdict, figure,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("table", "code"), [((GOOD, SKIPPED), 0), ((GOOD, BAD), 1), ((BROKEN,), 1)]
)
def test_exit_code_table_and_json(
    lines: pytest.MonkeyPatch, tmp_path: Path, table: tuple[Line, ...], code: int
) -> None:
    lines.setattr(spine, "LINES", table)
    result = CliRunner().invoke(accept.main, ["spine"])
    assert result.exit_code == code
    assert all(line.name in result.stdout for line in table)
    rows = json.loads((tmp_path / ".accept" / "spine.json").read_text())
    assert [row["line"] for row in rows] == [line.name for line in table]
    assert {"bar", "figure", "verdict", "seconds", "details"} <= rows[0].keys()


def test_a_single_line_replaces_only_itself(lines: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines.setattr(spine, "LINES", (GOOD, BAD))
    CliRunner().invoke(accept.main, ["spine"])
    lines.setattr(spine, "LINES", (GOOD, Line("bad", "at most 2", GOOD.measure)))
    assert CliRunner().invoke(accept.main, ["spine", "bad"]).exit_code == 0
    rows = json.loads((tmp_path / ".accept" / "spine.json").read_text())
    assert [(row["line"], row["verdict"]) for row in rows] == [("good", "pass"), ("bad", "pass")]


@pytest.mark.parametrize("args", [["spine", "no-such-line"], ["no-such-topic"], []])
def test_an_unknown_line_or_topic_is_usage(lines: pytest.MonkeyPatch, args: list[str]) -> None:
    assert CliRunner().invoke(accept.main, args).exit_code == 2


def test_every_topic_has_distinct_lines() -> None:
    for topic in accept.TOPICS:
        names = [line.name for line in accept.chosen_lines(topic, ())]
        assert names
        assert len(names) == len(set(names))
