"""Loops and scans: which IR op they become, and what they compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from irc.frontends.onnx import load
from irc.ir.errors import UnsupportedError
from irc.ir.interpret import run

node = helper.make_node
F32 = np.float32


def info(name: str, shape: list[int], dtype: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def doubling(stack: bool = False, test: bool = False) -> Any:
    """Body: v -> 2 v; stacks v; goes on while the sum is below 100, or as it was told."""
    nodes = [node("Add", ["v", "v"], ["twice"])]
    condition = "go"
    if test:
        nodes.append(node("ReduceSum", ["twice"], ["total"], keepdims=0))
        nodes.append(node("Less", ["total", "hundred"], ["again"]))
        condition = "again"
    nodes.append(node("Identity", [condition], ["go_on"]))
    nodes.append(node("Identity", ["v"], ["seen"]))
    outputs = [info("go_on", [], TensorProto.BOOL), info("twice", [2])]
    inputs = [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("v", [2])]
    hundred = numpy_helper.from_array(np.array(100, F32), "hundred")
    return helper.make_graph(
        nodes, "body", inputs, [*outputs, *([info("seen", [2])] if stack else [])], [hundred]
    )


def names(module: Any) -> list[str]:
    return [op.name for op in module.main.body]


def test_a_counted_loop_is_a_for(make: Any) -> None:
    model = make([node("Loop", ["m", "", "x"], ["y"], body=doubling())], {"x": (F32, [2])}, ["y"],
                 {"m": np.array(3)})  # fmt: skip
    module = load(model)
    assert "for" in names(module)
    assert run(module, [np.ones(2, F32)])[0].tolist() == [8, 8]


def test_the_count_may_be_data(make: Any) -> None:
    model = make([node("Loop", ["m", "", "x"], ["y"], body=doubling())],
                 {"m": (np.int64, []), "x": (F32, [2])}, ["y"])  # fmt: skip
    module = load(model)
    assert "for" in names(module)
    for count, want in ((4, 16), (0, 1), (-3, 1)):
        assert run(module, [np.array(count), np.ones(2, F32)])[0].tolist() == [want, want]


def test_stacked_results_are_a_scan(make: Any) -> None:
    model = make([node("Loop", ["m", "", "x"], ["y", "all"], body=doubling(stack=True))],
                 {"x": (F32, [2])}, ["y", "all"], {"m": np.array(3)})  # fmt: skip
    module = load(model)
    assert "scan" in names(module)
    last, stacked = run(module, [np.ones(2, F32)])
    assert last.tolist() == [8, 8]
    assert stacked.tolist() == [[1, 1], [2, 2], [4, 4]]


@pytest.mark.parametrize(("limit", "want"), [(99, 64), (3, 8)])
def test_a_tested_loop_is_a_while(limit: int, want: int, make: Any) -> None:
    model = make([node("Loop", ["m", "c", "x"], ["y"], body=doubling(test=True))],
                 {"x": (F32, [2])}, ["y"], {"m": np.array(limit), "c": np.array(True)})  # fmt: skip
    module = load(model)
    assert "while" in names(module)
    assert run(module, [np.ones(2, F32)])[0].tolist() == [want, want]


def test_a_loop_told_to_stop_does_not_start(make: Any) -> None:
    model = make([node("Loop", ["", "c", "x"], ["y"], body=doubling(test=True))],
                 {"c": (np.bool_, []), "x": (F32, [2])}, ["y"])  # fmt: skip
    module = load(model)
    assert run(module, [np.array(False), np.ones(2, F32)])[0].tolist() == [1, 1]
    assert run(module, [np.array(True), np.ones(2, F32)])[0].tolist() == [64, 64]


def test_stacking_an_unknown_number_of_steps_is_refused(make: Any) -> None:
    model = make([node("Loop", ["", "c", "x"], ["y", "all"], body=doubling(stack=True, test=True))],
                 {"c": (np.bool_, []), "x": (F32, [2])}, ["y", "all"])  # fmt: skip
    with pytest.raises(UnsupportedError, match="known number of steps"):
        load(model)


def test_scan_axes_and_directions(make: Any) -> None:
    """Sums from the right along axis 1, written along axis 1 from the right."""
    body = helper.make_graph(
        [node("Add", ["s", "v"], ["t"]), node("Identity", ["t"], ["u"])], "body",
        [info("s", [2]), info("v", [2])], [info("t", [2]), info("u", [2])],
    )  # fmt: skip
    scan = node("Scan", ["zero", "x"], ["last", "all"], body=body, num_scan_inputs=1,
                scan_input_axes=[1], scan_input_directions=[1], scan_output_axes=[-1],
                scan_output_directions=[1])  # fmt: skip
    model = make([scan], {"x": (F32, [2, 3])}, ["last", "all"], {"zero": np.zeros(2, F32)})
    x = np.arange(6, dtype=F32).reshape(2, 3)
    last, every = run(load(model), [x])
    np.testing.assert_array_equal(last, x.sum(1))
    np.testing.assert_array_equal(every, x[:, ::-1].cumsum(1)[:, ::-1])


def test_a_growing_carried_value_is_refused(make: Any) -> None:
    body = helper.make_graph(
        [node("Concat", ["v", "v"], ["w"], axis=0), node("Identity", ["go"], ["go_on"])], "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("v", [2])],
        [info("go_on", [], TensorProto.BOOL), info("w", [4])],
    )  # fmt: skip
    model = make([node("Loop", ["m", "", "x"], ["y"], body=body)], {"x": (F32, [2])}, ["y"],
                 {"m": np.array(3)})  # fmt: skip
    with pytest.raises(UnsupportedError, match="changes its type"):
        load(model)


def test_index_and_condition_may_be_vectors_of_one(make: Any) -> None:
    """Sums the indices while they are below 3."""
    body = helper.make_graph(
        [
            node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            node("Add", ["v", "f"], ["w"]),
            node("Less", ["f", "three"], ["go_on"]),
        ],
        "body",
        [info("i", [1], TensorProto.INT64), info("go", [1], TensorProto.BOOL), info("v", [1])],
        [info("go_on", [1], TensorProto.BOOL), info("w", [1])],
        [numpy_helper.from_array(np.array([3], F32), "three")],
    )
    model = make([node("Loop", ["m", "", "x"], ["y"], body=body)], {"x": (F32, [1])}, ["y"],
                 {"m": np.array([9])})  # fmt: skip
    assert run(load(model), [np.zeros(1, F32)])[0].tolist() == [6]
