"""`irc.load`, `irc.compile`, `irc.open`: every kind of source, targets, threads, errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import irc
from irc.backends.targets import ROWS, choose, thread_count
from irc.ir.text import print_op

X = np.random.default_rng(0).standard_normal((1, 8)).astype(np.float32)


def test_every_kind_of_source_gives_the_same_module(onnx_files: dict[str, Path]) -> None:
    path = onnx_files["small_cnn"]
    model = onnx.load(path)
    sources = [path, str(path), path.read_bytes(), model]
    texts = {print_op(irc.load(source)).split(" @", 1)[0][:200] for source in sources}
    assert len(texts) == 1
    module = irc.load(path)
    assert isinstance(module, irc.Module)
    assert irc.load(module) is module


def test_text_and_archive(text_file: Path, archive: Path, tmp_path: Path) -> None:
    assert len(irc.load(text_file).main.body) == 4
    disguised = tmp_path / "model.bin"
    disguised.write_bytes(archive.read_bytes())
    assert print_op(irc.load(disguised)) == print_op(irc.load(archive))


def test_compiled_equals_reference_and_survives_a_file(archive: Path, tmp_path: Path) -> None:
    expected = irc.compile(archive, target="reference")(X)
    exe = irc.compile(archive, threads=1)
    np.testing.assert_allclose(exe(X), expected, rtol=1e-5, atol=1e-5)
    plan = tmp_path / "layers.ircx"
    exe.save(plan)
    again = irc.open(plan)
    assert again.run({"x": X})[0].tobytes() == exe(X).tobytes()


@pytest.mark.parametrize("target", [name for name in ROWS if name not in ("cpu", "reference")])
def test_named_targets_run_or_say_what_is_lacking(target: str, archive: Path) -> None:
    choice = choose(target, 1)
    expected = irc.compile(archive, target="reference")(X)
    if choice.lacking():
        with pytest.raises(irc.UnsupportedError) as caught:
            irc.compile(archive, target=target)
        assert caught.value.code == "E0402"
    else:
        found = irc.compile(archive, target=target, threads=1)(X)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_levels_differ() -> None:
    widths = [choose(f"x86_64-linux{level}", 1).target.vector_bits for level in ("", "-v3", "-v4")]
    assert widths == [128, 256, 512]
    assert not choose("x86_64-linux", 1).target.fma
    assert choose("x86_64-linux-v3", 1).target.fma
    assert choose("aarch64-linux", 1).lacking() or choose("cpu", 1).target.arch == "aarch64"


def test_shapes_specialise(text_file: Path) -> None:
    exe = irc.compile(text_file, shapes={"x": (3, 4)}, threads=1)
    assert exe.outputs[0][1].shape == (3, 4)
    symbolic = irc.compile(text_file, threads=1)
    for n in (1, 5):
        x = np.full((n, 4), -1.5, np.float32)
        x[0, 0] = 2.0
        assert symbolic(x)[0, 0] == 4.0
        assert symbolic(x).sum() == 4.0


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRC_NUM_THREADS", "3")
    assert thread_count() == 3
    assert thread_count(2) == 2
    assert choose("cpu").target.threads == 3
    for wrong in ("0", "two", "-1", "99999"):
        monkeypatch.setenv("IRC_NUM_THREADS", wrong)
        with pytest.raises(irc.Error) as caught:
            thread_count()
        assert caught.value.code == "E0403"
    monkeypatch.delenv("IRC_NUM_THREADS")
    assert thread_count() >= 1


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda folder: irc.load(folder / "none.onnx"), "E0101"),
        (lambda folder: irc.load(folder), "E0101"),
        (lambda folder: irc.load(3), "E0102"),
        (lambda folder: irc.load(folder / "plan.ircx"), "E0102"),
        (lambda folder: irc.compile(folder / "small.ir", target="nonsense"), "E0401"),
        (lambda folder: irc.compile(folder / "small.ir", precision="f8"), "E0404"),
        (lambda folder: irc.compile(folder / "small.ir", precision="bf16"), "E0405"),
        (lambda folder: irc.compile(folder / "small.ir", shapes={"y": (1, 4)}), "E0320"),
        (lambda folder: irc.open(folder / "small.ir"), "E0508"),
    ],
)  # fmt: skip
def test_errors(call, code: str, text_file: Path) -> None:  # type: ignore[no-untyped-def]
    (text_file.parent / "plan.ircx").write_bytes(b"PK")
    with pytest.raises(irc.Error) as caught:
        call(text_file.parent)
    assert caught.value.code == code


def test_text_needs_neither_onnx_nor_llvmlite(text_file: Path) -> None:
    code = f"import irc, sys; irc.load({str(text_file)!r}); print(*sys.modules)"
    shell = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    loaded = set(shell.stdout.split())
    assert "irc.ir.parse" in loaded
    assert not loaded & {"onnx", "llvmlite", "rich"}


def test_shapes_that_depend_on_data_run_beside_the_host(tmp_path: Path) -> None:
    """relu in a kernel, then non_zero on the host; there is no plan to save."""
    from irc.ir.core import Builder
    from irc.ir.ops.core import Func, Module, Return
    from irc.ir.types import TensorType, f32

    func = Func.make("main", [TensorType(f32, (6,))], ["x"])
    b = Builder(func.body)
    b.emit(Return, b.non_zero(b.relu(func.args[0])))
    exe = irc.compile(Module.make([func]))
    x = np.array([3, -1, 0, 2, -2, 5], np.float32)
    assert exe(x).tolist() == [[0, 3, 5]]
    assert exe.coverage()["kernels"] == 1
    with pytest.raises(irc.Error, match=r"E0510.*depend on data"):
        exe.save(str(tmp_path / "m.ircx"))
    assert not list(tmp_path.iterdir())


def test_a_model_compiled_again_is_copied(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irc.tools import cmd_compile

    monkeypatch.setenv("IRC_CACHE_DIR", str(tmp_path))
    said = []
    for k in range(2):
        found = CliRunner().invoke(
            cmd_compile.command,
            [str(archive), "-o", str(tmp_path / f"{k}.ircx"), "--threads", "1", "--json"],
        )
        assert found.exit_code == 0, found.output
        said.append(json.loads(found.stdout))
        monkeypatch.setattr(cmd_compile.compiler, "lower", None)
    assert (tmp_path / "0.ircx").read_bytes() == (tmp_path / "1.ircx").read_bytes()
    for facts in said:
        del facts["files"], facts["seconds"]
    assert said[0] == said[1]


MISTAKES = {
    "a name with a null character": (lambda m: irc.load("a\0b"), "E0101"),
    "no path of a plan": (lambda m: irc.open(3), "E0102"),
    "a file where a module belongs": (lambda m: irc.export_onnx(m, "x.onnx"), "E0102"),
    "a target that is no name": (lambda m: irc.compile(m, target=None), "E0401"),
    "shapes without names": (lambda m: irc.compile(m, shapes=[1, 2]), "E0320"),
    "a number for a shape": (lambda m: irc.compile(m, shapes={"x": 5}), "E0320"),
    "extents that are no numbers": (lambda m: irc.load(m, shapes={"x": ("a", 8)}), "E0320"),
    "nothing to run on": (lambda m: irc.compile(m).run(None), "E0501"),
    "an array where a list belongs": (lambda m: irc.compile(m).run(X), "E0501"),
    "the same on numpy": (lambda m: irc.compile(m, target="reference").run(X), "E0501"),
    "text for an array": (lambda m: irc.compile(m, target="reference")("x"), "E0503"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_in_python_is_an_error_of_ours(
    what: str, onnx_files: dict[str, Path]
) -> None:
    call, code = MISTAKES[what]
    with pytest.raises(irc.Error) as caught:
        call(onnx_files["mlp"])
    assert caught.value.code == code


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_program_from_c_says_what_ships(onnx_files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(irc.Error, match="sources"):
        irc.compile(onnx_files["mlp"], target="c").save(str(tmp_path / "m.ircx"))
