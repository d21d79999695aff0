"""The command that measures whole networks: its table, its JSON, its picture, its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from irc.ir.errors import Error
from irc.tools import driver
from irc.tools.bench import cpu, zoo
from irc.tools.bench.flops import flops


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    pytest.importorskip("onnxruntime", reason="the extra `bench` is not installed")
    picture = tmp_path_factory.mktemp("bench") / "chart.svg"
    words = "--models squeezenet --threads 1 --engines irc,onnxruntime --quick --json --chart"
    ran = CliRunner().invoke(cpu.command, [*words.split(), str(picture)])
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout), picture


def test_json(said: tuple[dict, Path]) -> None:
    (row,) = said[0]["rows"]
    times = {name: f["times"] for name, f in row["race"]["engines"].items()}
    assert row["ratio"] == times["irc"]["median"] / times["onnxruntime"]["median"]
    assert said[0]["geometric_mean"]["1"]["median"] == pytest.approx(row["ratio"])
    assert 0 < times["irc"]["min"] <= times["irc"]["median"] <= times["irc"]["p90"]
    assert 0 < row["share"] < 1.2
    assert row["cold"]["seconds"] > 0 and row["cold"]["facts"]["kernels"] > 10
    assert row["arena_ratio"] >= 1


def test_picture(said: tuple[dict, Path]) -> None:
    assert "squeezenet, 1 thread" in said[1].read_text()


def test_unknown_networks_and_engines() -> None:
    for words in ("--models nobody", "--engines nobody"):
        ran = CliRunner().invoke(cpu.command, words.split())
        assert ran.exit_code == 2
        assert "nobody; known: " in ran.output
    with pytest.raises(Error, match="E0536"):
        zoo.subject("nobody")


def test_operations_are_those_of_the_papers() -> None:
    """squeezenet 1.1: 0.35 G multiply-adds."""
    module = driver.load(str(zoo.light_file("squeezenet")))
    assert flops(module) == pytest.approx(0.7e9, rel=0.02)


def test_a_group_stands_for_its_networks() -> None:
    known = zoo.names() + zoo.names("shared")
    assert cpu._split("light,mnist", known, groups=True) == [*zoo.names("light"), "mnist"]
    with pytest.raises(Exception, match="light; known"):
        cpu._split("light", known)
