"""Output types that a model declares are held against those it really has."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import irc
from irc.ir.errors import InvalidModelError
from irc.tools.main import run


def model(code: int, shape: list[int | str | None] | None) -> onnx.ModelProto:
    """exp of x [N, 3], whose result is declared so."""
    graph = helper.make_graph(
        [helper.make_node("Exp", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", code, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("shape", [None, ["N", 3], ["M", 3], [None, None], [2, 3]])
def test_types_that_may_be_right(shape: list[int | str | None] | None) -> None:
    """An extent that is not known when the model is read may be what is declared."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        irc.load(model(TensorProto.FLOAT, shape))


@pytest.mark.parametrize("shape", [["N", 4], [3], [], [1, 2, 3]])
def test_another_shape_is_a_warning(shape: list[int | str | None]) -> None:
    with pytest.warns(UserWarning, match=r"output 'y' is declared with shape .*, it has f32\[N, 3"):
        irc.load(model(TensorProto.FLOAT, shape))


def test_another_element_type_is_an_error() -> None:
    with pytest.raises(InvalidModelError, match="E0125") as error:
        irc.load(model(TensorProto.INT64, ["N", 3]))
    assert error.value.details == ("declared i64", "found f32[N, 3]")


def test_the_command_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from irc.tools.main import show_warning

    onnx.save(model(TensorProto.FLOAT, ["N", 4]), str(tmp_path / "m.onnx"))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", show_warning)
        assert run(["run", str(tmp_path / "m.onnx")]) == 0
    said = capsys.readouterr().err.splitlines()
    assert "warning: output 'y' is declared with shape [?, 4], it has f32[N, 3]" in said
