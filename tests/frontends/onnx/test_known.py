"""Shape arithmetic disappears at import: dims stay symbolic, conditions on them fold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from irc.frontends.onnx import load
from irc.ir.dims import parse_dim
from irc.ir.errors import Error, UnsupportedError
from irc.ir.interpret import run
from irc.ir.ops.core import Module

node = helper.make_node
F32 = np.float32


def ops(module: Module) -> list[str]:
    return [op.name for op in module.main.body]


def types(module: Module) -> list[str]:
    return [str(v.type) for v in module.main.returned]


def ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def test_named_dims_stay_named(make: Any) -> None:
    model = make([node("Relu", ["x"], ["y"])], {"x": (F32, ["batch size", 3, None])}, ["y"])
    module = load(model)
    assert types(module) == ["f32[batch_size, 3, x_2]"]
    assert module.main.inputs == ("x",)
    assert module.main.outputs == ("y",)


@pytest.mark.parametrize(("name", "expected"), [("n", "N"), ("i0", "I0"), ("N", "N"), ("7", "_7")])
def test_dim_names_never_meet_loop_variables(name: str, expected: str, make: Any) -> None:
    module = load(make([node("Relu", ["x"], ["y"])], {"x": (F32, [name, 2])}, ["y"]))
    assert types(module) == [f"f32[{expected}, 2]"]


def test_two_names_that_sanitise_alike_stay_two(make: Any) -> None:
    inputs = {"x": (F32, ["a b"]), "z": (F32, ["a.b"])}
    model = make([node("Relu", ["x"], ["y"]), node("Relu", ["z"], ["w"])], inputs, ["y", "w"])
    assert types(load(model)) == ["f32[a_b]", "f32[a_b_]"]


def test_shapes_fix_a_name_everywhere(make: Any) -> None:
    inputs = {"x": (F32, ["batch", 3]), "z": (F32, ["batch", 1])}
    model = make([node("Add", ["x", "z"], ["y"])], inputs, ["y"])
    assert types(load(model, shapes={"x": (5, 3)})) == ["f32[5, 3]"]
    assert types(load(model, shapes={"z": ("rows", None)})) == ["f32[rows, 3]"]


def test_shapes_that_cannot_be_are_refused(make: Any) -> None:
    model = make([node("Relu", ["x"], ["y"])], {"x": (F32, ["batch", 3])}, ["y"])
    for shapes in ({"x": (5, 4)}, {"x": (5,)}, {"q": (5, 3)}, {"x": (-1, 3)}):
        with pytest.raises(Error) as caught:
            load(model, shapes=shapes)
        assert caught.value.code == "E0116"
        assert caught.value.exit_code == 1


def test_reshape_to_a_computed_shape(make: Any) -> None:
    """x [N, 3, 4] -> [N, 12] through Shape, Gather, Unsqueeze, Mul and Concat."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Gather", ["s", "one"], ["c"]),
        node("Gather", ["s", "two"], ["h"]),
        node("Mul", ["c", "h"], ["ch"]),
        node("Unsqueeze", ["n", "axis"], ["n1"]),
        node("Unsqueeze", ["ch", "axis"], ["ch1"]),
        node("Concat", ["n1", "ch1"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.array(0), "one": np.array(1), "two": np.array(2), "axis": ints(0)}
    module = load(make(nodes, {"x": (F32, ["N", 3, 4])}, ["y"], constants))
    assert ops(module) == ["reshape", "return"]
    assert types(module) == ["f32[N, 12]"]


def test_minus_one_and_zero_in_a_symbolic_reshape(make: Any) -> None:
    nodes = [node("Reshape", ["x", "a"], ["y"]), node("Reshape", ["x", "b"], ["z"])]
    constants = {"a": ints(0, -1), "b": ints(-1, 2, 6)}
    module = load(make(nodes, {"x": (F32, ["N", 3, 4])}, ["y", "z"], constants))
    assert types(module) == ["f32[N, 12]", "f32[N, 2, 6]"]


def test_slices_of_symbolic_extents(make: Any) -> None:
    nodes = [
        node("Slice", ["x", "zero", "last", "axis"], ["y"]),
        node("Slice", ["x", "zero", "end", "axis"], ["z"]),
        node("Slice", ["x", "last", "far", "axis", "back"], ["w"]),
    ]
    constants = {"zero": ints(0), "last": ints(-1), "end": ints(1 << 62), "axis": ints(1),
                 "far": ints(-(1 << 62)), "back": ints(-1)}  # fmt: skip
    module = load(make(nodes, {"x": (F32, [2, "N"])}, ["y", "z", "w"], constants))
    x = np.arange(10, dtype=F32).reshape(2, 5)
    y, z, w = run(module, [x])
    np.testing.assert_array_equal(y, x[:, :-1])
    np.testing.assert_array_equal(z, x)
    np.testing.assert_array_equal(w, x[:, ::-1])
    assert types(module)[1] == "f32[2, N]"


def test_a_dim_used_as_data(make: Any) -> None:
    """x / N, where N is an extent: one `dim_value` stays."""
    nodes = [
        node("Shape", ["x"], ["s"], end=1),
        node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
        node("Div", ["x", "f"], ["y"]),
    ]
    module = load(make(nodes, {"x": (F32, ["N"])}, ["y"]))
    assert "dim_value" in ops(module)
    np.testing.assert_allclose(run(module, [np.ones(4, F32)])[0], np.full(4, 0.25))


def test_range_expand_and_fill_of_symbolic_extents(make: Any) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Squeeze", ["s"], ["n"]),
        node("Range", ["zero", "n", "one"], ["r"]),
        node("ConstantOfShape", ["s"], ["c"]),
        node("Expand", ["scalar", "s"], ["e"]),
    ]
    constants = {"zero": np.array(0), "one": np.array(1), "scalar": np.ones(1, F32)}
    module = load(make(nodes, {"x": (F32, ["N"])}, ["r", "c", "e"], constants))
    assert types(module) == ["i64[N]", "f32[N]", "f32[N]"]
    r, c, e = run(module, [np.zeros(3, F32)])
    assert (r.tolist(), c.tolist(), e.tolist()) == ([0, 1, 2], [0, 0, 0], [1, 1, 1])


def branch(name: str, op: str) -> Any:
    out = helper.make_empty_tensor_value_info(name)
    return helper.make_graph([node(op, ["x"], [name])], name, [], [out])


def if_on_extent(make: Any) -> Any:
    """Relu where x has one row, else Neg."""
    yes, no = branch("a", "Relu"), branch("b", "Neg")
    nodes = [
        node("Shape", ["x"], ["s"], end=1),
        node("Equal", ["s", "one"], ["is_one"]),
        node("If", ["is_one"], ["y"], then_branch=yes, else_branch=no),
    ]  # fmt: skip
    return make(nodes, {"x": (F32, ["N", 2])}, ["y"], {"one": ints(1)})


def test_a_known_condition_imports_one_branch(make: Any) -> None:
    model = if_on_extent(make)
    assert ops(load(model, shapes={"x": (1, 2)})) == ["relu", "return"]
    assert ops(load(model, shapes={"x": (3, 2)})) == ["neg", "return"]
    assert "if" in ops(load(model))


def test_unused_initializers_leave_no_constant(make: Any) -> None:
    model = make([node("Relu", ["x"], ["y"])], {"x": (F32, [2])}, ["y"], {"unused": ints(1)})
    assert ops(load(model)) == ["relu", "return"]


def test_a_shape_from_data_is_refused_with_the_node(make: Any) -> None:
    inputs = {"x": (F32, [4]), "s": (np.int64, [2])}
    model = make([node("Reshape", ["x", "s"], ["y"], "there")], inputs, ["y"])
    with pytest.raises(UnsupportedError, match="'there'.*Reshape"):
        load(model)


def test_constants_are_shared_with_inner_graphs_and_named(make: Any) -> None:
    body = helper.make_graph(
        [node("Mul", ["x", "w"], ["out"])], "b", [], [helper.make_empty_tensor_value_info("out")]
    )
    other = branch("neg", "Neg")
    branches = {"then_branch": body, "else_branch": other}
    inputs = {"c": (np.bool_, []), "x": (F32, [2])}
    weight = {"w": np.array([2, 3], F32)}
    model = make([node("If", ["c"], ["y"], **branches)], inputs, ["y"], weight)
    module = load(model)
    const = next(op for op in module.main.body if op.name == "const")
    assert const.loc is not None
    assert const.loc.name == "w"
    x = np.array([1, 2], F32)
    assert run(module, [np.array(True), x])[0].tolist() == [2, 6]
    assert run(module, [np.array(False), x])[0].tolist() == [-1, -2]


def test_locations_name_nodes_and_file(make: Any, tmp_path: Any) -> None:
    path = tmp_path / "net.onnx"
    model = make([node("Relu", ["x"], ["y"], "act")], {"x": (F32, [2])}, ["y"])
    path.write_bytes(model.SerializeToString())
    op = load(path).main.body.first
    assert op is not None
    assert str(op.loc) == "act in net.onnx"


@pytest.mark.parametrize(
    ("op", "other", "expected"),
    [
        ("Add", 3, "N + 3"), ("Sub", 1, "N - 1"), ("Mul", 2, "2*N"), ("Div", 2, "N//2"),
        ("Mod", 3, "N % 3"), ("Max", 4, "max(N, 4)"), ("Min", 4, "min(N, 4)"),
    ],
)  # fmt: skip
def test_arithmetic_of_extents(op: str, other: int, expected: str, make: Any) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node(op, ["s", "k"], ["t"]),
        node("ConstantOfShape", ["t"], ["y"]),
    ]
    module = load(make(nodes, {"x": (F32, ["N"])}, ["y"], {"k": ints(other)}))
    assert module.main.returned[0].tensor.shape == (parse_dim(expected),)


@pytest.mark.parametrize(
    ("op", "other", "expected"),
    [
        ("Less", 0, 9), ("Less", -1, 9), ("GreaterOrEqual", 0, 7), ("Equal", -1, 9),
        ("Greater", -1, 7), ("LessOrEqual", -1, 9),
    ],
)  # fmt: skip
def test_comparisons_of_extents(op: str, other: int, expected: int, make: Any) -> None:
    """An extent is at least 0: where that decides, the choice is made at import."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node(op, ["s", "k"], ["c"]),
        node("Where", ["c", "seven", "nine"], ["t"]),
        node("ConstantOfShape", ["t"], ["y"]),
    ]
    constants = {"k": ints(other), "seven": ints(7), "nine": ints(9)}
    module = load(make(nodes, {"x": (F32, ["N"])}, ["y"], constants))
    assert module.main.returned[0].tensor.shape == (expected,)


def test_products_and_sums_of_all_extents(make: Any) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("ReduceProd", ["s"], ["p"]),
        node("ReduceSum", ["s"], ["t"]),
        node("Concat", ["p", "t"], ["both"], axis=0),
        node("ConstantOfShape", ["both"], ["y"]),
    ]
    module = load(make(nodes, {"x": (F32, ["N", 3])}, ["y"]))
    assert module.main.returned[0].tensor.shape == (parse_dim("3*N"), parse_dim("N + 3"))


def test_an_extent_squared_again_and_again_stays_bounded(make: Any) -> None:
    nodes = [node("Shape", ["x"], ["s0"])]
    nodes += [node("Mul", [f"s{k}", f"s{k}"], [f"s{k + 1}"]) for k in range(60)]
    module = load(make(nodes, {"x": (F32, ["N"])}, ["s60"]))
    assert run(module, [np.ones(1, F32)])[0].tolist() == [1]


def test_known_indices_are_slices(make: Any) -> None:
    nodes = [node("Gather", ["x", k], [f"y{k}"], axis=1) for k in ("one", "last", "back", "odd")]
    constants = {"one": np.array(1), "last": ints(-1), "back": ints(4, 2, 0), "odd": ints(0, 3, 1)}
    outputs = ["yone", "ylast", "yback", "yodd"]
    module = load(make(nodes, {"x": (F32, [2, 5])}, outputs, constants))
    assert ops(module).count("gather") == 1
    x = np.arange(10, dtype=F32).reshape(2, 5)
    for got, at in zip(run(module, [x]), (1, [-1], [4, 2, 0], [0, 3, 1]), strict=True):
        np.testing.assert_array_equal(got, x[:, at])


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER"])
def test_same_pads_of_stride_one_need_no_extent(auto: str, make: Any, imported: Any) -> None:
    """A kernel of 4 adds 3 in total; the odd one goes behind, or before."""
    conv = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad=auto)
    w = np.array([[[1, 2, 4, 8]]], np.float32)
    x = np.arange(1, 6, dtype=np.float32).reshape(1, 1, 5)
    (y,) = imported(make([conv], {"x": (np.float32, ["B", 1, "L"])}, ["y"], {"w": w}), [x])
    before = 1 if auto == "SAME_UPPER" else 2
    padded = np.pad(x[0, 0], (before, 3 - before))
    assert np.array_equal(y[0, 0], [padded[k : k + 4] @ w[0, 0] for k in range(5)])


def test_same_pads_of_other_strides_name_what_is_missing(make: Any) -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2])
    w = np.ones((1, 1, 3), np.float32)
    with pytest.raises(UnsupportedError, match="auto_pad with stride 2 needs known extents"):
        load(make([conv], {"x": (np.float32, [1, 1, "L"])}, ["y"], {"w": w}))
