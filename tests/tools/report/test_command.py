"""`irc report` from the command line: what it writes and prints, and what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from irc.tools import demo
from irc.tools.main import run

Capture = pytest.CaptureFixture[str]


def test_a_page_is_written(text_file: Path, tmp_path: Path, capsys: Capture) -> None:
    goal = tmp_path / "page.html"
    assert run(["report", str(text_file), "--threads", "1", "-o", str(goal)]) == 0
    shown = capsys.readouterr()
    assert shown.out == "" and str(goal) in shown.err
    page = goal.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and "GFLOP/s" in page and "not run" not in page


def test_a_model_whose_name_is_no_text(text_file: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"bad\xff.ir")
    odd.write_bytes(text_file.read_bytes())
    assert run(["report", str(odd), "--no-profile", "-o", str(tmp_path / "r.html")]) == 0
    assert "bad?.ir" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_the_default_name(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["report", str(text_file), "--no-profile"]) == 0
    assert "not run" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_json_writes_no_page_unless_asked(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["report", str(text_file), "--no-profile", "--json", "--shape", "x:3x4"]
    assert run(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["summary"]["inputs"] == [{"name": "x", "type": "f32[3, 4]"}]
    assert not (tmp_path / "report.html").exists()
    assert run([*args, "-o", "r.html"]) == 0
    assert json.loads(capsys.readouterr().out) and (tmp_path / "r.html").exists()


def test_a_target_that_does_not_run_here_has_a_page_without_times(
    text_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    goal = str(tmp_path / "r.html")
    assert run(["report", str(text_file), "--target", "c", "-o", goal]) == 0
    assert run(["report", str(text_file), "--target", "c", "--profile", "-o", goal]) == 3
    assert "E0470" in capsys.readouterr().err


def test_the_demo_leaves_its_page(
    model_file: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irc.tools.demo.OUTPUT", tmp_path)
    page = demo.page(model_file("demo_cnn"))
    assert page == tmp_path / "report.html"
    assert "graph-svg" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("args", "code", "number"),
    [
        (["nowhere.onnx"], 1, "E0101"),
        (["small.ir", "-o", "nowhere/r.html"], 1, "E0264"),
        (["small.ir", "-o", "."], 1, "E0264"),
        (["small.ir", "--target", "cpuu"], 3, "E0401"),
        (["small.ir", "--threads", "0"], 1, "E0403"),
        (["small.ircx"], 1, "E0102"),
        (["noise.onnx"], 4, "E0103"),
    ],
)
def test_bad_input(
    args: list[str], code: int, number: str, text_file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: Capture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("small.ircx").write_bytes(b"x")
    Path("noise.onnx").write_bytes(b"noise")
    before = set(tmp_path.iterdir())
    assert run(["report", *args]) == code
    shown = capsys.readouterr().err
    assert f"error[{number}]" in shown and "Traceback" not in shown
    assert set(tmp_path.iterdir()) == before
