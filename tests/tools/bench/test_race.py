"""Engines in processes of their own: they answer, take turns, and fail alone."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from irc.tools.bench.chart import chart
from irc.tools.bench.compiling import compile_apart
from irc.tools.bench.models import mlp
from irc.tools.bench.race import Figures, Race, Runner, race
from irc.tools.bench.zoo import Subject
from irc.tools.timing import Times

LINUX = sys.platform == "linux"


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    file = tmp_path / "mlp.onnx"
    file.write_bytes(mlp().SerializeToString())
    x = np.random.default_rng(0).standard_normal((1, 784), np.float32)
    return Subject("mlp", "seeded", file, {"x": x})


def test_a_race(subject: Subject, tmp_path: Path) -> None:
    """irc from its plan, a peer from the file, and an engine whose file is missing."""
    pytest.importorskip("onnxruntime", reason="the extra `bench` is not installed")
    plan = tmp_path / "mlp.ircx"
    compiled = compile_apart(subject, plan, 1, tmp_path / "cache")
    assert not compiled.error
    assert compiled.facts["weight_bytes"] > 2_000_000
    models = {"irc": str(plan), "onnxruntime": str(subject.file), "openvino": "missing.onnx"}
    found = race(subject, models, 1, rounds=2, seconds=0.01)
    ours, theirs = found.engines["irc"], found.engines["onnxruntime"]
    assert ours.times and theirs.times and not ours.error
    assert found.engines["openvino"].error
    assert found.best_peer() == "onnxruntime"
    assert found.ratio() == ours.times.median / theirs.times.median
    assert found.peak > 0
    if LINUX:  # the weights are 2.7 MB, whoever holds them
        assert 1 << 20 < ours.run_memory < 64 << 20
        assert ours.run_memory <= ours.load_memory + (1 << 20)


def test_a_failed_compilation_is_a_row(subject: Subject, tmp_path: Path) -> None:
    subject.file.write_bytes(b"no model")
    compiled = compile_apart(subject, tmp_path / "plan.ircx", 1, tmp_path / "cache")
    assert "error[E" in compiled.error


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_whoever_has_no_turn_is_stopped() -> None:
    runner = Runner("peak")
    try:
        assert "gflops" in runner.ask("peak", threads=1)
        status = Path(f"/proc/{runner.process.pid}/stat")
        deadline = time.monotonic() + 5
        while (state := status.read_text().rpartition(")")[2].split()[0]) != "T":
            assert time.monotonic() < deadline, state
    finally:
        runner.close()


def test_an_engine_that_ends_is_an_error() -> None:
    runner = Runner("peak")
    runner.process.kill()
    runner.process.wait()
    assert "error" in runner.ask("peak", threads=1)
    runner.close()


def example(name: str, ours: float | None, theirs: float) -> Race:
    def figures(ms: float) -> Figures:
        return Figures(Times(ms, ms, ms, 1))

    engines = {"irc": figures(ours) if ours else Figures(error="no"), "peer": figures(theirs)}
    return Race(name, 1, engines, 100.0)


def test_ratios() -> None:
    assert example("a", 3.0, 2.0).ratio() == 1.5
    assert example("b", None, 2.0).ratio() == math.inf
    assert math.isnan(Race("c", 1, {"irc": Figures()}).ratio())


def test_the_chart_is_a_picture() -> None:
    made = chart([example("a<b", 3.0, 2.0), example("c", None, 2.0), example("d", 90.0, 1.0)])
    root = ElementTree.fromstring(made)
    said = [e.text for e in root.iter() if e.text and e.text.strip()]
    assert "a<b, 1 thread" in said
    assert "irc: failed" in said
    width = float(root.attrib["viewBox"].split()[2])
    for bar in root.iter("{http://www.w3.org/2000/svg}rect"):
        if "%" not in bar.attrib["width"]:
            assert float(bar.attrib.get("x", 0)) + float(bar.attrib["width"]) <= width
