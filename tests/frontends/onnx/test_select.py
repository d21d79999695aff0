"""NonZero, Compress and Unique: static where the data is known, else with extents of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from irc.frontends.onnx import load
from irc.ir.ops.core import Const

MASK = np.array([True, False, True, True])


def test_known_data_gives_known_extents(make: Any, imported: Any) -> None:
    """Positions of a constant mask pick rows: one gather, nothing that depends on data."""
    nodes = [
        helper.make_node("NonZero", ["mask"], ["at"]),
        helper.make_node("Compress", ["x", "mask"], ["rows"], axis=0),
        helper.make_node("Unique", ["codes"], ["values", "", "inverse"]),
    ]
    constants = {"mask": MASK, "codes": np.array([3, 1, 3], np.int64)}
    outputs = ["at", "rows", "values", "inverse"]
    model = make(nodes, {"x": (np.float32, (4, 2))}, outputs, constants)
    main = load(model).main
    assert {op.name for op in main.body} <= {Const.name, "gather", "slice", "return"}
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    at, rows, values, inverse = imported(model, [x])
    np.testing.assert_array_equal(at, [[0, 2, 3]])
    np.testing.assert_array_equal(rows, x[MASK])
    assert values.tolist() == [1, 3] and inverse.tolist() == [1, 0, 1]


def test_unknown_data_gives_fresh_symbols(make: Any, imported: Any) -> None:
    nodes = [
        helper.make_node("Compress", ["x", "mask"], ["some"]),
        helper.make_node("NonZero", ["some"], ["at"]),
    ]
    given = {"x": (np.float32, (4,)), "mask": (np.bool_, (4,))}
    model = make(nodes, given, ["some", "at"])
    some, at = load(model).main.returned
    assert not some.tensor.is_static and at.tensor.shape[0] == 1
    x = np.array([0, 1, 0, 2], np.float32)
    some, at = imported(model, [x, MASK])
    np.testing.assert_array_equal(some, [0, 0, 2])
    np.testing.assert_array_equal(at, [[2]])
