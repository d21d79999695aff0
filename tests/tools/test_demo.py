"""The demo: it trains, each stage gives the same answers, the tables and the page say so."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc.tools import demo

Capture = pytest.CaptureFixture[str]
ROWS = ("builder, op by op", "ONNX file, op by op", "this CPU, LLVM", "C99, system's compiler")


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made images, few epochs, a step that is not compiled, in a folder of its own."""
    monkeypatch.setattr(demo, "OUTPUT", tmp_path)
    whole = demo.trained
    monkeypatch.setattr(demo, "trained", lambda i, e: whole(i, 7, target="reference"))
    monkeypatch.setattr(demo, "digits", lambda: demo.divided("made", *demo.made_digits(320)))
    measured = demo.measured
    monkeypatch.setattr(demo, "measured", lambda s, i, _: measured(s, i, 0.05))
    return tmp_path


def test_every_stage_has_its_row_and_the_same_answers(quick: Path, capsys: Capture) -> None:
    assert demo.main() == 0
    said = capsys.readouterr().out
    assert "7 epochs" in said and "64 held out" in said
    rows = [line.split("│") for line in said.splitlines() if line.startswith("│")]
    stages = {r[1].strip(): [c.strip() for c in r[2:-1]] for r in rows if "%" in r[2]}
    assert [*stages][:4] == [*ROWS]
    right = {row[0] for row in stages.values()}
    assert len(right) == 1 and float(right.pop().rstrip("%")) > 40
    for name in ROWS[2:]:
        size, arena = stages[name][2].split()[0], stages[name][3]
        assert int(size) > 50_000 and 5_000 < int(arena) < 30_000
    assert "conv+add+relu+max_pool" in said and "every output and region agrees" in said
    assert "Net.forward" in said  # the lines are those of the network
    written = {p.name for p in quick.iterdir()}
    assert written == {"model.onnx", "model.ircx", "model.c", "model.h", "report.html"}
    assert "graph-svg" in (quick / "report.html").read_text(encoding="utf-8")


def test_without_scikit_learn_the_images_are_made_and_named_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = builtins.__import__

    def lacking(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return load(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", lacking)
    images = demo.digits()
    assert "scikit-learn is not installed" in images.name
    assert images.x.shape == (1438, 1, 8, 8) and images.held_x.shape == (359, 1, 8, 8)
    assert images.x.dtype == np.float32 and 0 <= images.x.min() and images.x.max() <= 1
    assert {*images.y.tolist()} == {*range(10)}


def test_a_stage_that_differs_is_said_and_fails(
    quick: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    whole = demo.verification.compare
    monkeypatch.setattr(
        demo.verification, "compare", lambda m, c, x: whole(m, c, x, noise=0.02, regions=False)
    )
    monkeypatch.setattr(demo, "page", lambda model: model)
    monkeypatch.setattr(demo, "trained", lambda images, epochs: (demo.Net().eval(), ""))
    assert demo.main() == 5
    assert "results differ" in capsys.readouterr().out
