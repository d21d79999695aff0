"""`irc ops`: what it says of an op agrees with the importer and with what the compiler does."""

from __future__ import annotations

import json

import pytest
from onnx import TensorProto, helper

import irc
from irc.frontends.onnx.listing import built_by, onnx_ops
from irc.frontends.onnx.table import lookup, supported
from irc.ir.core import OPS
from irc.tools.main import run
from irc.tools.op_table import ORDER, STRUCTURE, ir_ops, onnx_table
from irc.tools.tables import markdown_table, plain_table

Capture = pytest.CaptureFixture[str]
KNOWN = onnx_ops()
BY_NAME = {op.name: op for op in KNOWN}
OURS = {n for n, cls in OPS.items() if "." not in n and cls.__module__.startswith("irc.")}
"""Other tests make ops of their own."""
IR = {op.name: op for op in ir_ops(KNOWN) if op.name in OURS}
ONNX = {op.name: op for op in onnx_table(KNOWN)}


def test_every_row_and_every_op_is_listed() -> None:
    assert set(supported()) <= set(BY_NAME)
    assert all(BY_NAME[name].how == "row" for name in supported())
    assert set(IR) == OURS - STRUCTURE
    assert all(op.meaning.endswith(".") and op.meaning.count(". ") == 0 for op in IR.values())
    assert {v for op in IR.values() for v in op.targets.values()} <= set(ORDER)


@pytest.mark.parametrize(
    ("type_", "builds"),
    [
        ("Relu", {"relu"}),  # a closure over the name
        ("MaxPool", {"max_pool", "max_pool_indices"}),  # a name among arguments
        ("LSTM", {"lstm", "transpose"}),
        ("Split", {"slice"}),  # a method of the node
        ("If", {"if", "cast", "reshape"}),  # a class
        ("Clip", {"clip", "reshape"}),  # n.attr("min") is no builder call
    ],
)
def test_what_a_row_builds(type_: str, builds: set[str]) -> None:
    row = lookup("", type_, 22)
    assert row is not None
    assert built_by(row) == builds


def non_zero() -> bytes:
    """Relu, then NonZero: how many there are depends on data."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("NonZero", ["r"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, None)],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return bytes(made.SerializeToString())


@pytest.mark.parametrize("type_", ["Exp", "Softmax", "MatMul", "Mean", "GatherElements", "TopK"])
def test_nodes_become_what_is_listed(type_: str) -> None:
    """Import one node and look."""
    inputs = {"MatMul": ["x", "x"], "Mean": ["x", "x"], "GatherElements": ["x", "i"],
              "TopK": ["x", "k"]}.get(type_, ["x"])  # fmt: skip
    outputs = ["y", "j"] if type_ == "TopK" else ["y"]
    graph = helper.make_graph(
        [helper.make_node(type_, inputs, outputs)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 3]),
         helper.make_tensor_value_info("i", TensorProto.INT64, [3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("k", TensorProto.INT64, [1], [2])],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    module = irc.load(made.SerializeToString())
    built = {op.name for op in module.main.body} - STRUCTURE
    assert built
    assert built <= set(BY_NAME[type_].builds)


@pytest.mark.parametrize(
    ("name", "cpu", "c"),
    [
        ("conv", "kernel", "kernel"),
        ("transpose", "view", "view"),
        ("if", "control", "control"),
        ("unique", "host", "no"),
        ("softmax", "kernel", "kernel"),
    ],
)
def test_targets(name: str, cpu: str, c: str) -> None:
    assert (IR[name].targets["cpu"], IR[name].targets["c"]) == (cpu, c)


def test_the_host_is_where_the_table_says() -> None:
    """`non_zero` is listed as the host's, and a program with it has a host step."""
    assert ONNX["NonZero"].targets == {"cpu": "host", "c": "no", "reference": "host"}
    exe = irc.compile(non_zero())
    assert exe.coverage()["host_steps"] == ["non_zero at NonZero:y"]
    assert exe.coverage()["kernels"] == 1
    with pytest.raises(irc.UnsupportedError, match="E0431"):
        irc.compile(non_zero(), target="c")


def test_definitions_and_missing_ones() -> None:
    assert ONNX["SwiGLU"].how == "definition"
    assert ONNX["SwiGLU"].becomes == ("Mul", "Swish")
    missing = [op for op in ONNX.values() if op.how == "no"]
    assert all(set(op.targets.values()) == {"no"} and not op.opsets for op in missing)


def test_opsets_begin_with_the_first_that_is_imported() -> None:
    assert BY_NAME["Softmax"].versions[0] == 1
    assert BY_NAME["GroupNormalization"].versions == tuple(
        [v for v in BY_NAME["GroupNormalization"].versions if v >= 18]
    )


# The command -------------------------------------------------------------------------------------


def test_json_text_and_markdown(capsys: Capture) -> None:
    assert run(["ops", "softmax", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == "softmax" and "Softmax" in row["onnx"]
    assert run(["ops", "softmax"]) == 0
    assert "exp(x) along" in capsys.readouterr().out
    assert run(["ops", "--onnx", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "| --- | --- | --- | --- | --- |"
    assert len(lines) == 2 + len(onnx_ops())


def test_names_are_found_in_part_and_by_their_onnx_name(capsys: Capture) -> None:
    assert run(["ops", "reduce", "--json"]) == 0
    found = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert "reduce_sum" in found and "conv" not in found
    assert run(["ops", "LayerNormalization", "--json"]) == 0
    assert "layer_norm" in [row["name"] for row in json.loads(capsys.readouterr().out)]


def test_an_unknown_name(capsys: Capture) -> None:
    assert run(["ops", "sofmax"]) == 1
    assert "E0537" in (said := capsys.readouterr().err) and "softmax" in said


def test_tables() -> None:
    rows = [["a", 1], ["bcd", 20]]
    assert plain_table(["n", "figure"], rows, right=[1]) == "n    figure\na         1\nbcd      20"
    assert markdown_table(["a|b"], [[1]]) == "| a\\|b |\n| --- |\n| 1 |"


def test_a_terminal_gets_a_drawn_table(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    assert run(["ops", "softmax"]) == 0
    shown = capsys.readouterr().out
    assert "─" in shown and "softmax" in shown


