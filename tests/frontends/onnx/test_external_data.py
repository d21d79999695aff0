"""Weights beside the model: mapped when read, and never read from outside the model's folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from irc.frontends.onnx import load
from irc.ir.errors import Error
from irc.ir.interpret import run

W = np.arange(6, dtype=np.float32).reshape(2, 3)


def model_with(location: str, make: Any, **entries: str) -> Any:
    """x @ w with w stored at `location`."""
    model = make(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (np.float32, [1, 2])}, ["y"]
    )
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[2, 3])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return model


def write(folder: Path, model: Any) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("offset", [0, 1, 4096])
def test_weights_are_mapped(offset: int, tmp_path: Path, make: Any) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/w.bin").write_bytes(b"\0" * offset + W.tobytes())
    model = model_with("data/w.bin", make, offset=str(offset), length="24")
    module = load(write(tmp_path, model))
    blob = next(op for op in module.main.body if op.name == "const").value
    assert blob._array is None  # nothing is read before it is used
    assert blob.key[1:] == (offset, 24)
    assert not blob.array.flags.writeable
    x = np.array([[1, 2]], np.float32)
    np.testing.assert_array_equal(run(module, [x])[0], x @ W)


@pytest.mark.parametrize(
    "location",
    ["../w.bin", "/etc/hostname", "a/../../w.bin", "", "link.bin", "linked/w.bin", "none.bin",
     "..\\w.bin", "w.bin\0", "."],
)  # fmt: skip
def test_places_outside_are_refused(location: str, tmp_path: Path, make: Any) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    os.symlink(tmp_path / "w.bin", folder / "link.bin")
    os.symlink(tmp_path, folder / "linked")
    with pytest.raises(Error) as caught:
        load(write(folder, model_with(location, make)))
    assert caught.value.code == "E0107"
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "entries",
    [{"offset": "4"}, {"offset": "-4"}, {"length": "20"}, {"offset": "x"}, {"length": "99"}],
)
def test_slices_outside_the_file_are_refused(
    entries: dict[str, str], tmp_path: Path, make: Any
) -> None:
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    with pytest.raises(Error) as caught:
        load(write(tmp_path, model_with("w.bin", make, **entries)))
    assert caught.value.code == "E0106"


def test_bytes_have_no_folder(make: Any) -> None:
    with pytest.raises(Error) as caught:
        load(model_with("w.bin", make).SerializeToString())
    assert caught.value.code == "E0107"
    assert "path" in (caught.value.hint or "")
