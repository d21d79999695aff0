"""`irc optimize`: what it folds, what it keeps, what it prints, and the passes behind it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irc
from irc.frontends.onnx import census, export_onnx, load
from irc.ir.core import Builder, Value
from irc.ir.interpret import run as interpret
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.types import TensorType, f32
from irc.ir.verify import verify
from irc.passes.half import held
from irc.passes.optimize import optimized
from irc.tools.bench.models import demo_cnn, lstm2
from irc.tools.main import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net with batch norms behind its convolutions."""
    path = tmp_path_factory.mktemp("optimize") / "cnn.onnx"
    path.write_bytes(demo_cnn(batch="N").SerializeToString())
    return path


def ops(module: Module) -> dict[str, int]:
    names = [op.name for op in module.main.body if op.name not in ("const", "return")]
    return {name: names.count(name) for name in sorted(set(names))}


def made(build: Any, *shape: int) -> Module:
    func = Func.make("main", [TensorType(f32, shape)], ["x"], outputs=["y"])
    b = Builder(func.body)
    b.emit(Return, build(b, *func.args))
    return Module.make([func])


def const(b: Builder, array: Any) -> Value:
    return b.insert(Const(np.asarray(array, np.float32))).result


def same(module: Module, made: Module, x: Any, rtol: float = 1e-5) -> None:
    verify(made)
    for a, c in zip(interpret(module.main, [x]), interpret(made.main, [x]), strict=True):
        np.testing.assert_allclose(c, a, rtol=rtol, atol=rtol)


# ---- the command


def test_a_network_to_onnx(cnn: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out.onnx"
    assert run(["optimize", str(cnn), "-o", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["before"]["ops"]["BatchNormalization"] == 3
    assert "BatchNormalization" not in facts["after"]["ops"]
    assert facts["after"]["nodes"] < facts["before"]["nodes"] and facts["after"]["opset"] == 17
    assert facts["after"]["bytes"] == out.stat().st_size
    before, after = load(cnn), load(out)
    assert after.main.inputs == before.main.inputs and after.main.outputs == before.main.outputs
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    same(before, after, x)


def test_the_table(cnn: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run(["optimize", str(cnn), "-o", str(tmp_path / "out.onnx"), "--opset", "20"]) == 0
    said = capsys.readouterr()
    rows = {line.split()[0]: line.split()[1:] for line in said.out.splitlines() if line.strip()}
    assert rows["BatchNormalization"] == ["3", "0", "-3"]
    assert rows["opset"] == ["17", "20"] and rows["nodes"][2].startswith("-")
    assert "written to" in said.err


def test_archives_in_and_out(cnn: Path, tmp_path: Path, capsys: Capture) -> None:
    first, second = tmp_path / "a.irc", tmp_path / "b.onnx"
    assert run(["optimize", str(cnn), "-o", str(first), "--shape", "x:1x3x32x32"]) == 0
    assert run(["optimize", str(first), "-o", str(second), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))
    assert facts["before"]["ops"]["conv"] == facts["after"]["ops"]["Conv"] == 4
    assert irc.load(str(second)).main.args[0].type is TensorType(f32, (1, 3, 32, 32))


def test_half_precision(cnn: Path, tmp_path: Path) -> None:
    out = tmp_path / "half.onnx"
    assert run(["-q", "optimize", str(cnn), "-o", str(out), "--f16"]) == 0
    assert out.stat().st_size < 0.6 * cnn.stat().st_size
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    same(load(cnn), load(out), x, rtol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-o", "out.txt"], 2),
        (["-o", "out.irc", "--opset", "18"], 2),
        (["-o", "out.onnx", "--opset", "3"], 1),
        ([], 2),
    ],
)
def test_mistakes(arguments: list[str], code: int, cnn: Path, tmp_path: Path,
                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(["optimize", str(cnn), *arguments]) == code
    assert not list(tmp_path.iterdir())


# ---- the passes


def test_weights_of_one_number_stay_one_number(tmp_path: Path) -> None:
    def build(b: Builder, x: Value) -> Value:
        w = b.broadcast_to(const(b, 0.5), shape=(64, 32, 3, 3))
        y = b.mul(b.conv(x, w), const(b, np.full((64, 1, 1), 2.0)))
        return b.conv(y, b.transpose(b.reshape(w, shape=(64, 32, 9, 1)), perm=(1, 0, 2, 3)))

    module = made(build, 1, 32, 12, 12)
    found = optimized(module)
    same(module, found, np.random.default_rng(0).random((1, 32, 12, 12), np.float32))
    assert ops(found) == {"broadcast_to": 2, "conv": 2}
    path = tmp_path / "m.onnx"
    export_onnx(found, path)
    assert path.stat().st_size < 2000
    found.save(str(tmp_path / "m.irc"))
    assert (tmp_path / "m.irc").stat().st_size < 4000


def test_a_bias_of_one_number_stays_one_number(tmp_path: Path) -> None:
    def build(b: Builder, x: Value) -> Value:
        w = b.broadcast_to(const(b, 0.5), shape=(4096, 2, 1, 1))
        return b.add(b.conv(x, w), const(b, np.full((4096, 1, 1), 2.0)))

    module = made(build, 1, 2, 2, 2)
    path = tmp_path / "m.onnx"
    export_onnx(optimized(module), path)
    assert census(path).ops == {"ConstantOfShape": 2, "Conv": 1} and census(path).bytes < 1000
    same(module, load(path), np.random.default_rng(0).random((1, 2, 2, 2), np.float32))


def test_factors_that_differ_do_not_multiply_one_number() -> None:
    def build(b: Builder, x: Value) -> Value:
        w = b.broadcast_to(const(b, 0.5), shape=(64, 32, 3, 3))
        return b.mul(b.conv(x, w), const(b, np.arange(64).reshape(64, 1, 1)))

    module = made(build, 1, 32, 12, 12)
    found = optimized(module)
    same(module, found, np.random.default_rng(0).random((1, 32, 12, 12), np.float32))
    assert ops(found) == {"broadcast_to": 1, "conv": 1, "mul": 1}


def test_a_large_weight_that_is_shared_is_not_copied() -> None:
    w = np.random.default_rng(0).standard_normal((200, 200)).astype(np.float32)

    def build(b: Builder, x: Value) -> Value:
        shared = const(b, w)
        return b.matmul(b.matmul(x, shared), b.transpose(shared, perm=(1, 0)))

    module = made(build, 2, 200)
    found = optimized(module)
    assert ops(found) == {"matmul": 2, "transpose": 1}
    same(module, found, np.ones((2, 200), np.float32), rtol=1e-4)


def test_scales_and_shifts_of_channels_become_one() -> None:
    def build(b: Builder, x: Value) -> Value:
        numbers = np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype(np.float32)
        for k in range(0, 4, 2):
            x = b.add(b.mul(x, const(b, numbers[k])), const(b, numbers[k + 1]))
        return x

    module = made(build, 2, 3, 4, 4)
    found = optimized(module)
    same(module, found, np.random.default_rng(1).random((2, 3, 4, 4), np.float32))
    assert ops(found) == {"add": 1, "mul": 1}


def test_forms_that_runtimes_know_stay() -> None:
    def build(b: Builder, x: Value) -> Value:
        square = b.pow(x, const(b, 2.0))
        return b.gelu(b.div(b.layer_norm(square), const(b, 8.0)))

    found = optimized(made(build, 2, 8))
    assert ops(found) == {"div": 1, "gelu": 1, "layer_norm": 1, "pow": 1}


def test_the_module_given_stays_as_it_is() -> None:
    module = made(lambda b, x: b.add(b.neg(b.neg(x)), const(b, 1.0)), 3)
    before = str(module)
    assert ops(optimized(module)) == {"add": 1}
    assert str(module) == before


def test_half_holds_what_f16_cannot() -> None:
    given = np.array([1e9, -1e9, 1e-12, -1e-12, 0.0, np.inf, np.nan, 0.1], np.float32)
    found = held(given)
    assert found.dtype == np.float16
    assert found[:2].tolist() == [65504.0, -65504.0]
    assert found[2] > 0 > found[3] and found[4] == 0 and np.isinf(found[5]) and np.isnan(found[6])


def test_recurrent_layers_in_half_precision() -> None:
    module = irc.load(lstm2().SerializeToString())
    found = optimized(module, f16=True)
    x = np.random.default_rng(0).standard_normal((16, 1, 32)).astype(np.float32)
    same(module, found, x, rtol=2e-2)


# ---- beside a runtime


@pytest.mark.bench
def test_onnxruntime_agrees(cnn: Path, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    out = tmp_path / "out.onnx"
    assert run(["-q", "optimize", str(cnn), "-o", str(out)]) == 0
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    want, got = [
        ort.InferenceSession(str(p), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for p in (cnn, out)
    ]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["ultraface_rfb320", "mnist"])
def test_real_models(name: str, shared_model: Callable[[str], Path], tmp_path: Path) -> None:
    source, out = shared_model(name), tmp_path / "out.onnx"
    assert run(["-q", "optimize", str(source), "-o", str(out)]) == 0
    assert census(out).bytes <= census(source).bytes
    assert sum(census(out).ops.values()) < sum(census(source).ops.values())
