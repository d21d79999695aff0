"""Bad models: each is refused with a number, a place and the right exit code, never a traceback."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from irc.frontends.onnx import load, register_onnx_op
from irc.ir.errors import Error, InvalidModelError, UnsupportedError
from irc.ir.interpret import run
from irc.tools.bench.models import control, demo_cnn

node = helper.make_node
F32 = np.float32


def refused(model: Any, code: str, **options: Any) -> Error:
    """The error of loading a model, which must have this number."""
    with pytest.raises(Error) as caught:
        load(model, **options)
    assert caught.value.code == code, caught.value.render()
    return caught.value


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 zip", b"not a model at all", b"\xff" * 64])
def test_what_is_no_model(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    error = refused(path, "E0103")
    assert error.exit_code == 4
    assert "bad.onnx" in error.render()


def test_a_truncated_file(tmp_path: Path) -> None:
    whole = demo_cnn().SerializeToString()
    for part in (0.1, 0.5, 0.99):
        error = refused(whole[: int(len(whole) * part)], "E0103")
        assert isinstance(error, InvalidModelError)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        assert refused(path, "E0100").exit_code == 1


def test_every_unsupported_node_is_named_at_once(make: Any) -> None:
    inner = helper.make_graph(
        [node("Sorcery", ["x"], ["o"], "in the branch", domain="arcane")], "b", [],
        [helper.make_empty_tensor_value_info("o")],
    )  # fmt: skip
    nodes = [
        node("Frobnicate", ["x"], ["a"], "first"),
        node("Relu", ["a"], ["b"], "known"),
        node("If", ["c"], ["d"], "choice", then_branch=inner, else_branch=inner),
    ]
    model = make(nodes, {"x": (F32, [2]), "c": (np.bool_, [])}, ["d"])
    error = refused(model, "E0101")
    assert isinstance(error, UnsupportedError)
    assert error.exit_code == 3
    text = error.render()
    assert "Frobnicate (opset 17) at node 'first'" in text
    assert "arcane.Sorcery (opset not imported) at node 'in the branch'" in text
    assert "known" not in text


def test_an_op_newer_than_the_opset_is_unsupported(make: Any) -> None:
    model = make([node("Gelu", ["x"], ["y"])], {"x": (F32, [2])}, ["y"], opset=17)
    assert "Gelu (opset 17)" in refused(model, "E0101").render()
    model = make([node("Gelu", ["x"], ["y"])], {"x": (F32, [2])}, ["y"], opset=20)
    assert len(load(model).main.body) == 2


def test_shapes_that_do_not_match(make: Any, tmp_path: Path) -> None:
    """The example of the design document."""
    model = make([node("MatMul", ["x", "w"], ["y"], "fc1")], {"x": (F32, [1, 8])}, ["y"],
                 {"w": np.zeros((7, 8), F32)})  # fmt: skip
    path = tmp_path / "bad_shape.onnx"
    path.write_bytes(model.SerializeToString())
    error = refused(path, "E0312")
    assert error.exit_code == 4
    first, place, *rest = error.render().splitlines()
    assert first == "error[E0312]: MatMul shapes do not match"
    assert place == f"  node 'fc1' (MatMul, opset 17) in {path}"
    text = "\n".join(rest)
    assert "A  x : f32[1, 8]   (graph input)" in text
    assert "B  w : f32[7, 8]   (initializer)" in text
    assert "8" in text
    assert "!= 7" in text
    assert text.splitlines()[-1].startswith("  hint: w looks transposed")


BAD = {
    "element types": ([node("Add", ["x", "i"], ["y"])], "E0303"),
    "broadcast": ([node("Add", ["x", "z"], ["y"])], "E0310"),
    "missing attribute": ([node("Concat", ["x", "x"], ["y"])], "E0111"),
    "attribute kind": ([node("Concat", ["x", "x"], ["y"], axis="one")], "E0111"),
    "missing operand": ([node("Gemm", ["x"], ["y"])], "E0110"),
    "axis": ([node("Concat", ["x", "x"], ["y"], axis=3)], "E0330"),
    "no such value": ([node("Relu", ["q"], ["y"])], "E0112"),
    "cycle": ([node("Relu", ["b"], ["a"]), node("Relu", ["a"], ["b"])], "E0112"),
    "unsorted": ([node("Relu", ["a"], ["y"]), node("Relu", ["x"], ["a"])], "E0112"),
    "twice": ([node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])], "E0113"),
    "shadowed input": ([node("Relu", ["x"], ["x"])], "E0113"),
    "no output": ([node("Relu", ["x"], ["w"])], "E0112"),
    "reshape": ([node("Reshape", ["x", "five"], ["y"])], "E0317"),
    "rank": ([node("Conv", ["x", "x"], ["y"])], "E0314"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_invalid_graphs(name: str, make: Any) -> None:
    nodes, code = BAD[name]
    inputs = {"x": (F32, [2, 3]), "i": (np.int64, [2, 3]), "z": (F32, [4])}
    model = make(nodes, inputs, ["y"], {"five": np.array([5], np.int64)})
    error = refused(model, code)
    assert error.exit_code == 4
    assert error.where


@pytest.mark.parametrize(("opset", "code", "exit_code"), [(0, "E0104", 4), (99, "E0104", 3)])
def test_opsets_that_do_not_exist(opset: int, code: str, exit_code: int, make: Any) -> None:
    model = make([node("Relu", ["x"], ["y"])], {"x": (F32, [2])}, ["y"], opset=opset)
    assert refused(model, code).exit_code == exit_code


def test_no_opset_at_all(make: Any) -> None:
    model = make([node("Relu", ["x"], ["y"])], {"x": (F32, [2])}, ["y"])
    del model.opset_import[:]
    refused(model, "E0104")


def test_inputs_that_are_no_tensors_or_have_no_rank(make: Any) -> None:
    model = make([node("Relu", ["x"], ["y"])], {"x": (F32, [2])}, ["y"])
    model.graph.input[0].type.tensor_type.ClearField("shape")
    refused(model, "E0105")
    assert str(load(model, shapes={"x": (2, 3)}).main.args[0].type) == "f32[2, 3]"
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1
    refused(model, "E0105")


def damage(change: Callable[[Any], None]) -> ModelProto:
    """The demo network with its first initializer changed."""
    model = demo_cnn()
    change(model.graph.initializer[0])
    return model


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.dims.append(7),
        lambda t: t.dims.__setitem__(0, -1),
        lambda t: t.dims.extend([1 << 40] * 3),
        lambda t: t.dims.extend([1] * 100),
        lambda t: setattr(t, "raw_data", t.raw_data[:-1]),
        lambda t: setattr(t, "data_type", TensorProto.INT64),
    ],
)
def test_damaged_weights(change: Callable[[Any], None]) -> None:
    assert refused(damage(change), "E0106").exit_code == 4


def test_deeply_nested_graphs(make: Any) -> None:
    """Protobuf itself stops near 33 graphs inside each other."""
    out = [helper.make_empty_tensor_value_info("o")]
    leaf = helper.make_graph([node("Relu", ["x"], ["o"])], "leaf", [], out)
    graph = leaf
    for _ in range(25):
        inner = node("If", ["c"], ["o"], then_branch=graph, else_branch=leaf)
        graph = helper.make_graph([inner], "g", [], out)
    model = make([], {"x": (F32, [2]), "c": (np.bool_, [])}, ["o"])
    model.graph.node.extend(graph.node)
    module = load(model)
    assert sum(op.name == "if" for op in module.walk()) == 25
    assert run(module, [np.array([-1, 1], F32), np.array(True)])[0].tolist() == [0, 1]


def test_functions_that_double_again_and_again() -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for k in range(40):
        inner = {"domain": "own"} if k else {}
        op = f"F{k - 1}" if k else "Relu"
        body = [node(op, ["a"], ["t"], **inner), node(op, ["t"], ["b"], **inner)]
        functions.append(helper.make_function("own", f"F{k}", ["a"], ["b"], body, imports))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_empty_tensor_value_info("y")
    graph = helper.make_graph([node("F39", ["x"], ["y"], domain="own")], "g", [x], [y])
    model = helper.make_model(graph, functions=functions, opset_imports=imports)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("irc.frontends.onnx.graph.MAX_STEPS", 500)
        assert "more than 500 nodes" in refused(model, "E0114").render()


def test_a_function_that_calls_itself() -> None:
    function = helper.make_function(
        "own", "Loopy", ["a"], ["b"], [node("Loopy", ["a"], ["b"], domain="own")],
        [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
    )  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_empty_tensor_value_info("y")
    graph = helper.make_graph([node("Loopy", ["x"], ["y"], domain="own")], "g", [x], [y])
    model = helper.make_model(
        graph, functions=[function],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
    )  # fmt: skip
    assert refused(model, "E0114").exit_code == 4


def test_a_model_function_is_imported_in_place() -> None:
    body = [node("Constant", [], ["c"], value_float=2.0), node("Mul", ["a", "c"], ["b"])]
    function = helper.make_function("own", "Twice", ["a"], ["b"], body,
                                    [helper.make_opsetid("", 17)])  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_empty_tensor_value_info("y")
    graph = helper.make_graph([node("Twice", ["x"], ["y"], "t", domain="own")], "g", [x], [y])
    model = helper.make_model(
        graph, functions=[function],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
    )  # fmt: skip
    module = load(model)
    assert run(module, [np.array([1, 3], F32)])[0].tolist() == [2, 6]
    assert any(op.loc is not None and op.loc.name == "t/Mul" for op in module.main.body)


def test_a_registered_op_is_imported(make: Any) -> None:
    scaled = node("Scaled", ["x"], ["y"], domain="test.rows", by=3.0)
    model = make([scaled], {"x": (F32, [2])}, ["y"])
    model.opset_import.append(helper.make_opsetid("test.rows", 2))
    refused(model, "E0101")
    register_onnx_op(
        "test.rows", "Scaled", 2, lambda n: n.b.mul(n.x(0), n.like(n.x(0), n.attr("by", 1.0)))
    )
    assert run(load(model), [np.array([1, 2], F32)])[0].tolist() == [3, 6]
    model.opset_import[-1].version = 1
    refused(model, "E0101")


def test_random_damage_never_shows_a_traceback() -> None:
    """A thousand mutations: each loads or raises an Error that renders."""
    chance = random.Random(7)
    whole = control().SerializeToString()
    refused_count = 0
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 2, 5])):
            at = chance.randrange(len(data))
            data[at] = chance.choice([chance.randrange(256), data[at] ^ 1, 0, 255])
        try:
            load(bytes(data))
        except Error as error:
            assert error.render().startswith("error[E0")
            assert error.exit_code in (1, 3, 4)
            refused_count += 1
    assert refused_count > 300
