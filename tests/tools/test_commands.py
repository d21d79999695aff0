"""Each subcommand end to end, in process: what it prints, what it writes, its exit code."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import irc
from irc.backends.targets import ROWS
from irc.passes.pipeline import PASSES, PHASES
from irc.tools import artifacts
from irc.tools.cmd_compile import EMIT
from irc.tools.cmd_opt import PASS_MODULES
from irc.tools.main import run
from irc.tools.timing import alternate

Capture = pytest.CaptureFixture[str]


def json_of(capsys: Capture, *args: str) -> dict[str, object]:
    """Run a command line with --json and parse its stdout."""
    assert run([*args, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


# compile ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("emit", "target", "mark"),
    [
        ("ir", "cpu", "fused("),
        ("loops", "cpu", "loop.for"),
        ("llvm", "cpu", "define i32 @"),
        ("asm", "x86_64-linux-v3", "vfmadd"),
        ("asm", "aarch64-linux", "fmla"),
        ("c", "c", "int32_t layers_run("),
    ],
)
def test_text_goes_to_stdout(
    emit: str, target: str, mark: str, archive: Path, capsys: Capture
) -> None:
    assert run(["compile", str(archive), "--emit", emit, "--target", target]) == 0
    assert mark in capsys.readouterr().out


def test_text_in_a_document(archive: Path, capsys: Capture) -> None:
    facts = json_of(capsys, "compile", str(archive), "--emit", "ir")
    assert facts["emit"] == "ir" and "fused(" in str(facts["text"])


def test_a_plan_is_written_and_runs_the_same(
    archive: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    facts = json_of(capsys, "compile", str(archive), "--threads", "1")
    assert facts["files"] == ["layers.ircx"]
    assert facts["kernels"] == 2
    assert facts["arena_bytes"] == facts["lower_bound"]
    for model in ("layers.ircx", str(archive)):
        assert run(["run", model, "--threads", "1", "-o", f"{model}.npz"]) == 0
    results = [np.load(f"{model}.npz")["y"] for model in ("layers.ircx", str(archive))]
    assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_c_files_compile(archive: Path, tmp_path: Path) -> None:
    goal = tmp_path / "Model-1.c"
    assert run(["compile", str(archive), "--target", "c", "-o", str(goal)]) == 0
    assert (tmp_path / "model_1.h").exists()
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-c"]
    subprocess.run(["cc", *flags, goal.name, "-o", "m.o"], cwd=tmp_path, check=True)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no linker")
def test_the_objects_are_a_library(archive: Path, tmp_path: Path) -> None:
    goal = tmp_path / "libm.a"
    assert run(["compile", str(archive), "--emit", "obj", "-o", str(goal)]) == 0
    main = '#include "m.h"\n'
    main += "int main(void) { return m_run == 0 || M_ARENA_BYTES > 1 << 20; }\n"
    (tmp_path / "main.c").write_text(main)
    command = ["cc", "main.c", "libm.a", "-pthread", "-lm", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run([str(tmp_path / "main")]).returncode == 0


def test_watching_the_pipeline(archive: Path, tmp_path: Path, capsys: Capture) -> None:
    dumps = tmp_path / "dumps"
    goal = str(tmp_path / "x.ircx")
    flags = ["--dump-ir", str(dumps), "--verify-each", "--time-passes", "-o", goal]
    assert run(["compile", str(archive), *flags]) == 0
    shown = capsys.readouterr().err
    assert re.search(r"lower-kernels +\d+\.\d+ ms", shown)
    assert sorted(p.stem.partition("_")[2] for p in dumps.iterdir()) == sorted(PHASES)
    fused = str(next(dumps.glob("*_fused.ir")))
    blobs = tmp_path / "fused.irc"
    assert run(["compile", str(archive), "--emit", "ir", "-o", str(blobs)]) == 0
    assert run(["compile", str(blobs), "--from", "fused", "-o", goal]) == 0
    assert "fused(" in Path(fused).read_text()
    assert run(["run", goal]) == 0


def test_every_kind_of_output_is_offered() -> None:
    assert set(EMIT) == set(artifacts.KINDS)


def test_a_failure_leaves_the_old_file(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name, args in {"m.ircx": [], "m.c": ["--target", "c"], "m.ll": ["--emit", "llvm"]}.items():
        goal = tmp_path / name
        goal.write_bytes(b"old")

        def full(source: str, target: str) -> None:
            raise OSError(28, "No space left on device", str(target))

        with monkeypatch.context() as patch:
            patch.setattr("os.replace", full)
            assert run(["compile", str(archive), *args, "-o", str(goal)]) == 1
        assert "No space left" in capsys.readouterr().err
        assert goal.read_bytes() == b"old"
        assert {p.name for p in tmp_path.iterdir()} <= {"m.ircx", "m.c", "m.ll", "layers.irc"}


# opt ----------------------------------------------------------------------------------------------


def test_opt_from_stdin(text_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text_file.read_text()))
    assert run(["opt", "-", "--passes", "cse"]) == 0
    assert capsys.readouterr().out.count("relu") == 1


def test_opt_reads_its_own_output(text_file: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out.ir"
    assert run(["opt", str(text_file), "-o", str(out)]) == 0
    assert run(["opt", str(out)]) == 0
    first = capsys.readouterr().out
    assert run(["opt", str(text_file)]) == 0
    assert capsys.readouterr().out == first


def test_opt_phases(text_file: Path, capsys: Capture) -> None:
    assert run(["opt", str(text_file), "--to", "loops", "--target", "cpu"]) == 0
    assert "launch(" in capsys.readouterr().out
    assert run(["opt", str(text_file), "--to", "loops", "--passes", "cse"]) == 2


def test_the_table_of_passes_is_right(capsys: Capture) -> None:
    for name, module in PASS_MODULES.items():
        assert PASSES[name].__module__ == f"irc.passes.{module}"
    assert run(["opt", "--list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in PASSES)


def test_opt_as_json(text_file: Path, tmp_path: Path, capsys: Capture) -> None:
    facts = json_of(capsys, "opt", str(text_file), "--passes", "cse")
    assert (facts["ops_before"], facts["ops_after"]) == (3, 2)
    assert set(facts["milliseconds"]) == {"cse"}  # type: ignore[call-overload]
    assert str(facts["text"]).count("relu") == 1
    goal = tmp_path / "o.irc"
    facts = json_of(capsys, "opt", str(text_file), "--to", "fused", "-o", str(goal))
    assert facts["file"] == str(goal) and goal.exists()
    facts = json_of(capsys, "opt", "--list")
    assert set(facts["passes"]) == set(PASSES)  # type: ignore[call-overload]
    assert facts["phases"] == list(PHASES)


def test_a_few_passes_start_without_the_compiler(text_file: Path) -> None:
    code = f"from irc.tools.main import run; run(['opt', {str(text_file)!r}, '--passes', 'cse'])"
    code += "; import sys; print('\\nLOADED', *sys.modules)"
    shell = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    loaded = set(shell.stdout.rpartition("LOADED")[2].split())
    assert "irc.passes.cse" in loaded
    assert not loaded & {"irc.passes.pipeline", "llvmlite", "onnx", "rich"}


def test_a_pass_that_breaks_leaves_a_reproducer(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def broken(self: object, module: irc.Module) -> irc.Module:
        raise KeyError("x")

    monkeypatch.setenv("IRC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(PASSES["cse"], "run", broken)
    assert run(["opt", str(text_file), "--passes", "cse"]) == 70
    place = re.search(r"reproducer: (.*)", capsys.readouterr().err)
    assert place is not None
    folder = Path(place[1])
    assert (folder / "module.irc").exists()
    assert "--passes 'cse'" in (folder / "command.txt").read_text()


# run, verify, inspect, explain, bench, targets ----------------------------------------------------


def test_run_on_a_file_of_inputs(archive: Path, tmp_path: Path, capsys: Capture) -> None:
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 8)
    np.savez(tmp_path / "in.npz", x=x)
    facts = json_of(capsys, "run", str(archive), "--input", str(tmp_path / "in.npz"))
    expected = irc.compile(archive, target="reference")(x)
    assert facts["y"]["max"] == pytest.approx(expected.max(), rel=1e-5)  # type: ignore[index]
    assert facts["y"]["shape"] == [1, 3]  # type: ignore[index]


def test_seeds_differ_and_repeat(archive: Path, capsys: Capture) -> None:
    a, b, c = [json_of(capsys, "run", str(archive), "--seed", s) for s in "112"]
    assert a == b != c


def test_check_finite(text_file: Path, tmp_path: Path) -> None:
    for value, code in ((1.0, 0), (np.inf, 5)):
        np.savez(tmp_path / "in.npz", x=np.full((2, 4), value, np.float32))
        args = ["--input", str(tmp_path / "in.npz"), "--check-finite"]
        assert run(["run", str(text_file), *args]) == code


def test_json_has_no_infinities(text_file: Path, tmp_path: Path, capsys: Capture) -> None:
    np.savez(tmp_path / "in.npz", x=np.array([[np.inf, np.nan, 1, 2]], np.float32))
    assert run(["run", str(text_file), "--input", str(tmp_path / "in.npz"), "--json"]) == 0
    said = capsys.readouterr().out
    assert "NaN" not in said and "Infinity" not in said
    (facts,) = json.loads(said).values()
    assert facts["max"] is None


def test_verify(onnx_files: dict[str, Path], capsys: Capture) -> None:
    model = str(onnx_files["small_cnn"])
    facts = json_of(capsys, "verify", model, "--threads", "1")
    assert facts["passed"] is True
    assert facts["host_steps"] == 0
    assert run(["verify", model, "--noise", "0.02"]) == 5
    shown = capsys.readouterr()
    assert "first: region 0" in shown.err
    assert "FAIL" in shown.out


def test_verify_a_plan(archive: Path, tmp_path: Path) -> None:
    plan = tmp_path / "m.ircx"
    assert run(["compile", str(archive), "-o", str(plan)]) == 0
    assert run(["verify", str(plan)]) == 0
    body = bytearray(plan.read_bytes())
    body[200] ^= 255  # among the weights
    plan.write_bytes(body)
    assert run(["verify", str(plan)]) == 4


def test_inspect_model_and_plan_agree(archive: Path, tmp_path: Path, capsys: Capture) -> None:
    plan = tmp_path / "m.ircx"
    assert run(["compile", str(archive), "-o", str(plan)]) == 0
    capsys.readouterr()
    model, compiled = [json_of(capsys, "inspect", str(p)) for p in (archive, plan)]
    assert model["ops"] == {"matmul": 2, "relu": 1}
    assert model["parameter_bytes"] == (8 * 16 + 16 * 3) * 4
    for key in ("inputs", "outputs", "kernels", "arena_bytes", "weight_bytes", "buffers"):
        assert model[key] == compiled[key]
    assert run(["inspect", str(plan), "--memory"]) == 0
    assert "arena_bytes" in capsys.readouterr().out


def test_explain(onnx_files: dict[str, Path], capsys: Capture) -> None:
    model = str(onnx_files["mlp"])
    facts = json_of(capsys, "explain", model)
    kernels = facts["kernels"]
    assert len(kernels) == 3  # type: ignore[arg-type]
    assert all(kernel["steps"] for kernel in kernels)  # type: ignore[union-attr]
    assert any("one anchor" in line for line in facts["fusion"])  # type: ignore[union-attr]
    assert run(["explain", model, "@k1"]) == 0
    shown = capsys.readouterr().out
    assert "@k1_" in shown
    assert "@k0_" not in shown
    assert run(["explain", model, "k99"]) == 1


def test_bench(onnx_files: dict[str, Path], capsys: Capture) -> None:
    pytest.importorskip("onnxruntime")
    args = ["--against", "onnxruntime", "--seconds", "0.1", "--threads", "1"]
    facts = json_of(capsys, "bench", str(onnx_files["mlp"]), *args)
    assert 0 < facts["min"] <= facts["median"] <= facts["p90"]  # type: ignore[operator]
    theirs = facts["onnxruntime"]["median"]  # type: ignore[index]
    assert facts["ratio"] == pytest.approx(facts["median"] / theirs)  # type: ignore[operator]
    assert facts["peak_memory_bytes"] > 1 << 20  # type: ignore[operator]


def test_bench_profile(onnx_files: dict[str, Path], capsys: Capture) -> None:
    model = str(onnx_files["small_cnn"])
    line = ["bench", model, "--profile", "--seconds", "0.02", "--threads", "1"]
    rows = json_of(capsys, *line)["kernels"]
    assert [r["seconds"] for r in rows] == sorted([r["seconds"] for r in rows], reverse=True)  # type: ignore[attr-defined, index]
    assert sum([r["share"] for r in rows]) == pytest.approx(1)  # type: ignore[attr-defined]
    by = {r["ops"]: r for r in rows}  # type: ignore[attr-defined]
    first = by["matmul, add"]
    assert first["flops"] == pytest.approx(2 * 1568 * 10, rel=0.01)
    assert first["gflops"] == pytest.approx(first["flops"] / first["seconds"] / 1e9)
    assert first["from"] == ["gemm7 in small_cnn.onnx"]
    assert run(line) == 0
    shown = capsys.readouterr().out
    assert "GFLOP/s" in shown and "matmul, add" in shown
    assert run(["bench", "m.ircx", "--profile"]) == 2
    capsys.readouterr()
    assert run([*line, "--target", "c"]) == 3
    assert "error[E0470]" in capsys.readouterr().err


def test_times_take_turns() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    times = alternate(calls, seconds=0.0, least=3)  # type: ignore[arg-type]
    turns = "".join(name for k, name in enumerate(order) if k == 0 or order[k - 1] != name)
    assert turns == "abababab"  # one for the length of a turn, then three rounds
    assert times["a"].min <= times["a"].median <= times["a"].p90


def test_targets(capsys: Capture) -> None:
    assert run(["targets", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(ROWS)
    assert rows["cpu"]["runs"] and rows["c"]["runs"]
    assert all(row["runs"] == (not row["lacking"]) for row in rows.values())
