"""The figures of the report against those of the modules they come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irc.backends import compiler
from irc.backends.targets import choose
from irc.ir.errors import Error
from irc.ir.ops.core import Fused
from irc.passes.cost import ASSUMED, work
from irc.passes.pipeline import PHASES, Options
from irc.tools import driver
from irc.tools.cmd_explain import schedules
from irc.tools.cmd_inspect import of_module
from irc.tools.report.collect import Settings, collect

Data = dict[str, Any]
Files = Callable[[str], Path]


def nodes(graph: Data) -> list[Data]:
    """All nodes, those inside others too."""
    return [n for m in graph["nodes"] for n in (m, *[i for g in m["graphs"] for i in nodes(g)])]


def test_the_summary_says_what_the_modules_say(demo: Data, model_file: Files) -> None:
    module, choice = driver.load(model_file("demo_cnn")), choose("cpu", 1)
    compiled, found = compiler.lower(module, choice), demo["summary"]
    assert compiled.planned is not None
    assert found["parameter_bytes"] == of_module(module)["parameter_bytes"]
    assert found["op_counts"] == of_module(module)["ops"]
    assert found["inputs"] == [{"name": "x", "type": "f32[1, 3, 32, 32]"}]
    assert found["kernels"] == len(compiled.planned.kernels)
    memory = demo["memory"]
    assert memory["arena"] == compiled.planned.arena_bytes
    assert memory["lower_bound"] == compiled.planned.lower_bound == max(memory["live"])
    assert memory["weights"] == compiled.planned.weight_bytes
    assert [p["name"] for p in demo["phases"]] == ["load", *PHASES[1:], "machine code"]


def test_kernels_have_the_work_of_their_regions(demo: Data, model_file: Files) -> None:
    module, choice = driver.load(model_file("demo_cnn")), choose("cpu", 1)
    fused = compiler.lower(module, choice, Options(to_phase="fused")).module.main
    costs = [work(op) for op in fused.walk() if isinstance(op, Fused)]
    rows = demo["kernels"]
    assert [(k["flops"], k["bytes"]) for k in rows] == [(c.flops, c.bytes) for c in costs]
    conv = next(k for k in rows if k["ops"].startswith("conv"))
    products = 2 * 16 * 16 * 16 * 3 * 9  # the first layer: 16x16 places, 16 of 3 channels, 3x3
    assert conv["flops"] == products + 2 * 16 * 16 * 16
    assert demo["summary"]["flops"] == sum(k["flops"] for k in rows)


def test_times_are_consistent(demo: Data) -> None:
    rows, peaks = demo["kernels"], demo["peaks"]
    assert sum(k["share"] for k in rows) == pytest.approx(1)
    for k in rows:
        assert k["calls"] == 1 and k["seconds"] > 0
        assert k["gflops"] == pytest.approx(k["flops"] / k["seconds"] / 1e9)
        assert k["gbs"] == pytest.approx(k["bytes"] / k["seconds"] / 1e9)
        assert k["of_peak"] == pytest.approx(k["gflops"] / peaks["gflops"])
        assert k["of_bandwidth"] == pytest.approx(k["gbs"] / peaks["gbs"])


def test_schedules_are_those_of_explain(demo: Data, model_file: Files) -> None:
    module = driver.load(model_file("demo_cnn"))
    wanted = {k["name"]: k["steps"] for k in schedules(module, choose("cpu", 1), {})}
    assert {k["name"]: k["steps"] for k in demo["kernels"]} == wanted
    assert all(wanted.values())


def test_every_refusal_has_its_reason(demo: Data, model_file: Files) -> None:
    compiled = compiler.lower(driver.load(model_file("demo_cnn")), choose("cpu", 1))
    found = demo["fusion"]["refusals"]
    assert sum(r["times"] for r in found) == len(compiled.refusals) > 0
    assert {(r["producer"], r["consumer"], r["why"]) for r in found} == set(compiled.refusals)


def test_the_graph_joins_inputs_to_outputs(demo: Data) -> None:
    graph = demo["graph"]
    kinds = {n["id"]: n["kind"] for n in graph["nodes"]}
    assert list(kinds.values()).count("input") == list(kinds.values()).count("output") == 1
    read, written = {u for u, _, _ in graph["edges"]}, {v for _, v, _ in graph["edges"]}
    for id_, kind in kinds.items():
        assert (id_ in read) == (kind != "output") and (id_ in written) == (kind != "input")
    assert {n["kernel"] for n in nodes(graph) if n["ops"]} == {k["name"] for k in demo["kernels"]}


def test_ops_keep_types_attributes_and_places(demo: Data) -> None:
    region = next(n for n in nodes(demo["graph"]) if n["ops"] and n["ops"][0]["name"] == "conv")
    conv = region["ops"][0]
    assert conv["attributes"]["strides"] == "[2, 2]"
    assert conv["result"] == "f32[1, 1, 16, 16, 16]"
    assert "in demo_cnn.onnx" in conv["place"] and region["place"]
    assert conv["reads"][1].startswith("parameter")


def test_buffers_are_those_of_the_plan(demo: Data, model_file: Files) -> None:
    compiled = compiler.lower(driver.load(model_file("demo_cnn")), choose("cpu", 1))
    assert compiled.planned is not None
    layout = compiled.planned.layout
    wanted = {
        (i.name, i.size, at, i.first, i.last)
        for i, at in zip(layout.items, layout.offsets, strict=True)
    }
    found = demo["memory"]["buffers"]
    assert {(b["name"], b["bytes"], b["offset"], b["first"], b["last"]) for b in found} == wanted
    steps = demo["memory"]["steps"]
    assert steps[:-1] == [n["kernel"] for n in nodes(demo["graph"]) if n["ops"]]
    assert all(0 <= b["begin"] <= b["end"] < len(steps) for b in found)


def test_control_flow_is_drawn_inside_its_op(control: Data) -> None:
    outer = {n["title"]: n for n in control["graph"]["nodes"] if n["kind"] == "control"}
    assert [g["name"] for g in outer["if"]["graphs"]] == ["then", "otherwise"]
    assert [g["name"] for g in outer["while"]["graphs"]] == ["before", "body"]
    read = {u for u, v, _ in control["graph"]["edges"] if v == outer["if"]["id"]}
    x = next(n for n in control["graph"]["nodes"] if n["title"] == "x")
    assert x["id"] in read, "what a branch reads from outside, the op reads"
    body = outer["while"]["graphs"][1]
    assert any(n["kernel"] for n in body["nodes"])
    ids = [n["id"] for n in nodes(control["graph"])]
    assert len(set(ids)) == len(ids)
    assert control["summary"]["latency"] is None and control["peaks"] is None
    assert all(k["seconds"] is None and k["of_peak"] is None for k in control["kernels"])


def test_loops_multiply_the_work(model_file: Files) -> None:
    found = collect(Settings(str(model_file("lstm2")), choose("cpu", 1)))
    timed = {k["name"]: (k["calls"], k["flops"], k["bytes"]) for k in found["kernels"]}
    plain = collect(Settings(str(model_file("lstm2")), choose("cpu", 1), profile=False))
    assert timed == {k["name"]: (k["calls"], k["flops"], k["bytes"]) for k in plain["kernels"]}
    assert max(calls for calls, _, _ in timed.values()) >= 16, "rounds of the recurrence"


def test_symbolic_extents_are_assumed(text_file: Path) -> None:
    found = collect(Settings(str(text_file), choose("cpu", 1)))
    assert found["summary"]["assumed"] == {"N": ASSUMED}
    assert found["kernels"][0]["bytes"] == 2 * 4 * 4 * ASSUMED
    settled = collect(Settings(str(text_file), choose("cpu", 1), {"x": (3, 4)}, profile=False))
    assert settled["summary"]["assumed"] == {}
    assert settled["kernels"][0]["bytes"] == 2 * 4 * 4 * 3


@pytest.mark.parametrize("target", ["c", "reference", "aarch64-linux"])
def test_only_what_runs_here_is_timed(target: str, text_file: Path) -> None:
    choice = choose(target, 1)
    with pytest.raises(Error) as caught:
        collect(Settings(str(text_file), choice))
    assert caught.value.code == "E0470"
    found = collect(Settings(str(text_file), choice, profile=False))
    assert found["kernels"] and found["target"]["name"] == target
