"""A user's mistake: one sentence with a number, the right exit code, no traceback, no partial file.

Each row is a command line over files that `folder` makes; every failure is checked the same way.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import irc
from irc.tools.bench.models import mlp
from irc.tools.main import run

TEXT = "func @main(%x: f32[N, 4]) -> f32[N, 4] {\n  %0 = relu(%x) : f32[N, 4]\n  return %0\n}\n"


def model(node: onnx.NodeProto) -> bytes:
    """A model of one node from x [1, 8] and w [7, 8] to y."""
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("w", TensorProto.FLOAT, [7, 8], [0.5] * 56)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return bytes(made.SerializeToString())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bad")
    good = mlp().SerializeToString()
    files = {
        "good.onnx": good,
        "cut.onnx": good[: len(good) // 2],
        "empty.onnx": b"",
        "noise.onnx": np.random.default_rng(0).bytes(4096),
        "text.onnx": b"hello, this is no model\n" * 20,
        "unknown.onnx": model(helper.make_node("Frobnicate", ["x"], ["y"], "frob")),
        "shapes.onnx": model(helper.make_node("MatMul", ["x", "w"], ["y"], "fc1")),
        "small.ir": TEXT.encode(),
        "syntax.ir": TEXT.replace("relu(", "relu(((").encode(),
        "op.ir": TEXT.replace("relu", "rellu").encode(),
        "types.ir": TEXT.replace(": f32[N, 4]\n", ": f32[N, 5]\n").encode(),
        "huge.ir": TEXT.replace("N, 4]", f"{1 << 70}, 4]").encode(),
        "negative.ir": TEXT.replace("N, 4]", "-1, 4]").encode(),
        "binary.ir": b"\xff\xfe\x00\x01",
        "cut.irc": b"PK\x03\x04" + bytes(40),
        "cut.ircx": b"PK\x03\x04" + bytes(40),
        "cut.npz": b"PK\x03\x04" + bytes(40),
    }
    for name, body in files.items():
        (made / name).write_bytes(body)
    for name, save in (("tail.irc", irc.load(good).save), ("tail.ircx", irc.compile(good).save)):
        save(str(made / name))
        (made / name).write_bytes((made / name).read_bytes()[100:])
    x = np.zeros((1, 784), np.float32)
    np.save(made / "plain.npy", x)
    np.savez(made / "wrong_name.npz", z=x)
    np.savez(made / "wrong_shape.npz", x=x[:, :700])
    np.savez(made / "wrong_rank.npz", x=x[0])
    np.savez(made / "wrong_type.npz", x=x.astype(np.float64))
    return made


ROWS = [
    ("compile none.onnx", 1, "E0101"),
    ("compile cut.onnx", 4, "E01"),
    ("compile empty.onnx", 4, "E01"),
    ("compile noise.onnx", 4, "E01"),
    ("compile text.onnx", 4, "E01"),
    ("compile unknown.onnx", 3, "Frobnicate"),
    ("compile shapes.onnx", None, "fc1"),
    ("compile syntax.ir", 4, "E02"),
    ("compile op.ir", 4, "relu"),
    ("compile types.ir", None, "E0"),
    ("compile binary.ir", 4, "E0260"),
    ("run negative.ir", 4, "E0203"),
    ("compile cut.irc", 4, "E0260"),
    ("compile cut.ircx", 1, "compiled plan"),
    ("run cut.ircx", 4, "E0508"),
    ("run none.ircx", 1, "E0509"),
    ("compile good.onnx --target nonsense", 3, "E0401"),
    ("compile good.onnx --target x86_64-linux-nosuchcpu", 3, "E0492"),
    ("compile good.onnx --emit c", 3, "E0407"),
    ("compile good.onnx --precision f8", 1, "E0404"),
    ("compile good.onnx --nonsense", 2, "--nonsense"),
    ("compile good.onnx --emit nonsense", 2, "nonsense"),
    ("compile good.onnx --shape x", 2, "x:1x3x224x224"),
    ("compile good.onnx --shape x:2x784", None, "E0"),
    ("compile good.onnx --shape q:1x784", None, "q"),
    ("compile good.onnx --threads 0", 1, "E0403"),
    ("compile good.onnx --to nowhere", 1, "E0221"),
    ("compile good.onnx --from loops --to fused", 1, "E0221"),
    ("compile good.onnx --to fused", 1, "E0408"),
    ("compile small.ir --from planned", 1, "E0408"),
    ("compile good.onnx -o none/old.ircx", 1, "E0264"),
    ("compile good.onnx -o .", 1, "E0264"),
    ("run good.onnx --input none.npz", 1, "E0525"),
    ("run good.onnx --input cut.npz", 4, "E0525"),
    ("run good.onnx --input wrong_name.npz", 1, "missing input: x"),
    ("run good.onnx --input wrong_shape.npz", 1, "E0502"),
    ("run good.onnx --input wrong_rank.npz", 1, "E0503"),
    ("run good.onnx --input wrong_type.npz", 1, "E0503"),
    ("run good.onnx --input plain.npy", 4, "np.savez"),
    ("run good.onnx --seed -1", 2, "--seed"),
    ("bench good.onnx --seconds -1", 2, "--seconds"),
    ("verify good.onnx --tolerance -1", 2, "--tolerance"),
    ("verify good.onnx --tolerance nan", 2, "not a finite number"),
    ("verify good.onnx --noise inf", 2, "not a finite number"),
    ("run tail.ircx", 4, "E0508"),
    ("inspect tail.irc", 4, "E0260"),
    ("run huge.ir --target reference", 1, "out of memory"),
    ("run good.onnx -o none/out.npz", 1, "E0264"),
    ("run good.onnx --target aarch64-linux", 3, "E0402"),
    ("run .", 1, "E0101"),
    ("bench small.ir --against onnxruntime", 1, "E0530"),
    ("verify good.onnx --noise 0.02", 5, "E0527"),
    ("opt small.ir --passes nonsense", 1, "E0220"),
    ("opt small.ir --passes cse{q=1}", 1, "E0220"),
    ("explain good.onnx k99", 1, "E0409"),
    ("inspect none.irc", 1, "E0101"),
    ("nonsense", 2, "No such command"),
]


@pytest.mark.parametrize(("line", "code", "says"), ROWS, ids=[row[0] for row in ROWS])
def test_mistake(
    line: str,
    code: int | None,
    says: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    args = line.split()
    if args[0] == "compile" and "-o" not in args:
        args += ["-o", "old.ircx"]
        (folder / "old.ircx").write_bytes(b"old")
        before["old.ircx"] = b"old"
    found = run(args)
    captured = capsys.readouterr()
    assert found in ((1, 3, 4) if code is None else (code,)), captured.err
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert "internal error" not in captured.err
    if code != 2:
        assert re.match(r"(random inputs.*\n)?error\[E0\d{3}\]: \S", captured.err)
    assert not captured.out or args[0] == "verify"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_device_stays_a_device(folder: Path, tmp_path: Path) -> None:
    """It is written to; a file in its place would break the machine of a user with such rights."""
    pipe, got = tmp_path / "pipe.ircx", tmp_path / "got"
    os.mkfifo(pipe)
    with got.open("wb") as file, subprocess.Popen(["cat", str(pipe)], stdout=file):
        assert run(["compile", str(folder / "good.onnx"), "-o", str(pipe), "-q"]) == 0
    assert pipe.is_fifo()
    assert irc.open(str(got)).inputs[0][0] == "x"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["got", "pipe.ircx"]


def test_behind_a_link_the_file_is_replaced(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "old.ircx").write_bytes(b"old")
    link = tmp_path / "link.ircx"
    link.symlink_to("old.ircx")
    assert run(["compile", str(folder / "good.onnx"), "-o", str(link), "-q"]) == 0
    assert link.is_symlink() and (tmp_path / "old.ircx").stat().st_size > 3


def test_files_that_belong_together_are_written_together(folder: Path, tmp_path: Path) -> None:
    """The header cannot be written, so the source stays as it was."""
    (tmp_path / "m.c").write_bytes(b"old")
    (tmp_path / "m.h").mkdir()
    line = ["compile", str(folder / "good.onnx"), "--target", "c", "-o", str(tmp_path / "m.c")]
    assert run(line) == 1
    assert (tmp_path / "m.c").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.c", "m.h"]


def test_a_compiler_that_is_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "/none/cc -m32")
    assert run(["run", str(folder / "good.onnx"), "--target", "c"]) == 7
    assert "error[E0445]: there is no C compiler '/none/cc -m32'" in capsys.readouterr().err


def test_refusals_of_the_system_have_a_number(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = str(folder / "small.ir")
    assert run(["opt", taken, "--passes", "cse", "-o", "/dev/full"]) == 1
    assert "error[E0264]: cannot write /dev/full: No space left" in capsys.readouterr().err
    assert run(["compile", taken, "--dump-ir", taken, "--emit", "ir"]) == 1
    assert f"error[E0264]: cannot write {taken}" in capsys.readouterr().err
