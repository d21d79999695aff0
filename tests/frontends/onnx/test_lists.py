"""Lists of tensors are taken apart at import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from irc.ir.errors import Error

X = np.arange(30, dtype=np.float32).reshape(5, 6)
CONSTANTS = {
    "two": np.array(2),
    "last": np.array(-1),
    "some": np.array([1, 4]),
    "far": np.array(7),
    "flat": np.array([-1]),
    "shape": np.array([3, 10, 15, 2]),
}


def node(op: str, inputs: str, outputs: str, **attrs: Any) -> Any:
    return helper.make_node(op, inputs.split(), outputs.split(), **attrs)


def model(make: Callable[..., Any], nodes: list[Any]) -> Any:
    made = make(nodes, {"x": (np.float32, X.shape)}, ["y"])
    for name, value in CONSTANTS.items():
        made.graph.initializer.append(numpy_helper.from_array(value, name))
    return made


CASES: list[tuple[list[Any], Any]] = [
    ([node("SplitToSequence", "x two", "s"), node("SequenceAt", "s last", "y")], X[4:]),
    ([node("SplitToSequence", "x some", "s"), node("SequenceAt", "s last", "y")], X[1:]),
    ([node("SplitToSequence", "x two", "s", axis=-1, keepdims=0),
      node("ConcatFromSequence", "s", "y", axis=0, new_axis=0)],
     np.concatenate([X[:, :2], X[:, 2:4], X[:, 4:]])),
    ([node("SplitToSequence", "x", "s", axis=1, keepdims=0),
      node("ConcatFromSequence", "s", "y", axis=-1, new_axis=1)], X),
    ([node("SplitToSequence", "x", "s"), node("SequenceErase", "s", "t"),
      node("SequenceLength", "t", "y")], np.array(4)),
    ([node("SequenceEmpty", "", "s"), node("SequenceInsert", "s x", "t"), node("Neg", "x", "n"),
      node("SequenceInsert", "t n last", "u"), node("ConcatFromSequence", "u", "y", axis=0)],
     np.concatenate([-X, X])),
    ([node("Neg", "x", "n"), node("SequenceConstruct", "x n x", "s"),
      node("SequenceErase", "s last", "t"), node("SequenceAt", "t last", "y")], -X),
    ([node("SplitToSequence", "shape two", "s"), node("SequenceAt", "s last", "d"),
      node("Reshape", "x d", "y")], X.reshape(15, 2)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[str(k) for k in range(len(CASES))])
def test_lists(make: Callable[..., Any], imported: Callable[..., Any], case: Any) -> None:
    nodes, want = case
    (got,) = imported(model(make, nodes), [X])
    assert got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    "nodes, code",
    [
        ([node("SplitToSequence", "x two", "s"), node("Neg", "s", "y")], "E0102"),
        ([node("SplitToSequence", "x two", "y")], "E0102"),
        ([node("SplitToSequence", "x two", "s"), node("SequenceAt", "s far", "y")], "E0330"),
        ([node("SequenceAt", "x two", "y")], "E0102"),
        ([node("SequenceEmpty", "", "s"), node("ConcatFromSequence", "s", "y", axis=0)], "E0316"),
    ],
)
def test_what_is_refused(
    make: Callable[..., Any], imported: Callable[..., Any], nodes: list[Any], code: str
) -> None:
    with pytest.raises(Error, match=code):
        imported(model(make, nodes), [X])
