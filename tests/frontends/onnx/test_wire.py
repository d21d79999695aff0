"""Weights that stay in the model's file: found in the wire format, mapped, equal to those read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from irc.frontends.onnx import load
from irc.frontends.onnx.reader import SMALL_FILE
from irc.frontends.onnx.tensors import FEW_BYTES, Slice, open_file
from irc.frontends.onnx.wire import LARGE, without_weights
from irc.ir.errors import Error
from irc.ir.types import DType, TensorType

BIG = SMALL_FILE // 4 + 3


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "w": rng.standard_normal((7, BIG // 7)).astype(np.float32),
        "tiny": rng.standard_normal(3).astype(np.float32),
        "flags": rng.integers(0, 2, LARGE + 1).astype(bool),
        "half": rng.standard_normal(LARGE).astype(np.float16),
        "long": rng.integers(-9, 9, (BIG // 8,)),
    }


def model() -> onnx.ModelProto:
    given = arrays()
    made = [numpy_helper.from_array(a, n) for n, a in given.items()]
    listed = helper.make_tensor("listed", TensorProto.FLOAT, [2000], np.arange(2000.0))
    nodes = [helper.make_node("Identity", [n], [f"{n}_out"]) for n in (*given, "listed")]
    graph = helper.make_graph(
        nodes, "g", [], [helper.make_empty_tensor_value_info(f"{n}_out") for n in given],
        [*made[:2], listed, *made[2:]],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_what_is_left_is_the_model_without_its_data() -> None:
    whole = model()
    data = whole.SerializeToString()
    found = without_weights(memoryview(data))
    assert found is not None
    rest, spans = found
    small = onnx.ModelProto.FromString(rest)
    assert len(rest) < 20_000
    assert sorted(spans) == [0, 3, 4, 5]
    for k, (offset, length) in spans.items():
        assert not small.graph.initializer[k].HasField("raw_data")
        small.graph.initializer[k].raw_data = data[offset : offset + length]
    assert small == whole


def test_the_last_of_several_counts() -> None:
    """Protobuf merges repeated messages: graphs, and the data of one tensor."""
    one, other = np.zeros(2000, np.float32), np.ones(2000, np.float32)
    tensor = numpy_helper.from_array(one, "w")
    raw = b"\x4a" + b"\xc0\x3e" + other.tobytes()  # field 9, 8000 bytes
    body = tensor.SerializeToString() + raw
    graph = b"\x2a" + bytes([len(body) & 127 | 128, len(body) >> 7 & 127 | 128, len(body) >> 14])
    graph += body
    head = bytes([len(graph) & 127 | 128, len(graph) >> 7 & 127 | 128, len(graph) >> 14])
    data = (b"\x3a" + head + graph) * 2
    found = without_weights(memoryview(data))
    assert found is not None
    assert len(onnx.ModelProto.FromString(data).graph.initializer) == 2
    assert len(onnx.ModelProto.FromString(found[0]).graph.initializer) == 2
    for offset, length in found[1].values():
        assert data[offset : offset + length] == other.tobytes()


def test_constants_are_mapped_and_right(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model().SerializeToString())
    module = load(path)
    consts = {n: v.op.value for n, v in zip(arrays(), module.main.returned, strict=True)}
    assert consts["w"]._array is None
    for name, want in arrays().items():
        np.testing.assert_array_equal(consts[name].array, want)
        assert not consts[name].array.flags.writeable


@pytest.mark.parametrize("cut", [1, LARGE, 3 * BIG])
def test_a_cut_file_is_an_error(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model().SerializeToString()[:-cut])
    with pytest.raises(Error) as caught:
        load(path)
    assert caught.value.code == "E0103"


@pytest.mark.parametrize("data", [b"\xff" * 30, b"\x3a\xff", b"\x3b\x00", b"\x3d\x00"])
def test_other_bytes_are_left_to_protobuf(data: bytes) -> None:
    assert without_weights(memoryview(data)) is None


@pytest.mark.parametrize("hold", [False, True])
def test_a_file_that_changed_is_not_read(hold: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(bytes(range(8)))
    blob = Slice(open_file(path, hold), 2, 4).blob(TensorType(DType("u8"), (4,)))
    assert blob.array.tolist() == [2, 3, 4, 5]
    blob.release()
    assert blob._array is None
    path.write_bytes(b"")
    with pytest.raises(Error) as caught:
        _ = blob.array
    assert caught.value.code == "E0109"


def test_a_held_file_may_be_replaced(tmp_path: Path) -> None:
    path, other = tmp_path / "w.bin", tmp_path / "other.bin"
    path.write_bytes(bytes(range(8)))
    other.write_bytes(bytes(8))
    held, plain = [
        Slice(open_file(path, hold), 2, 4).blob(TensorType(DType("u8"), (4,)))
        for hold in (True, False)
    ]
    other.replace(path)
    assert held.array.tolist() == [2, 3, 4, 5]
    with pytest.raises(Error):
        _ = plain.array
    path.unlink()
    held.release()
    assert held.array.tolist() == [2, 3, 4, 5]


def test_many_files_take_few_descriptors(tmp_path: Path) -> None:
    blobs = []
    for k, size in enumerate([4, FEW_BYTES] * 20):
        path = tmp_path / f"w{k}.bin"
        path.write_bytes(bytes([k]) * size)
        blobs.append(Slice(open_file(path), 0, size).blob(TensorType(DType("u8"), (size,))))
    before = len(list(Path("/proc/self/fd").iterdir()))
    total = 0
    for blob in blobs:
        total += int(blob.array[-1])
        if blob.nbytes >= FEW_BYTES:
            blob.release()
    assert total == sum(range(40))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
