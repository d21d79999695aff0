"""The comparison with the reference goes red where it should, and names the region at fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import irc
from irc.backends import compiler
from irc.backends.llvm import emit_ops
from irc.backends.targets import choose
from irc.ir.core import Op
from irc.ir.ops.core import Const
from irc.ir.text import parse
from irc.passes.pipeline import Options
from irc.tools import verification
from irc.tools.bench.models import control, lstm2
from irc.tools.feeds import random_inputs
from irc.tools.verification import TOLERANCE, relative_error

CPU = choose("cpu", 1)


def inputs_of(module: irc.Module) -> dict[str, np.ndarray]:
    return random_inputs(compiler.reference(module).inputs, 0)


@pytest.mark.parametrize("target", ["cpu", "c"])
def test_a_network_agrees_and_noise_does_not(target: str, onnx_files: dict[str, Path]) -> None:
    module = irc.load(onnx_files["small_cnn"])
    inputs, choice = inputs_of(module), choose(target, 1)
    report = verification.compare(module, choice, inputs)
    assert report.passed
    assert report.first is None
    assert len(report.regions) >= 3
    assert report.worst < 1e-5
    noisy = verification.compare(module, choice, inputs, noise=0.02)
    assert not noisy.passed
    assert noisy.first is not None
    assert noisy.first.what.startswith("region 0")


@pytest.mark.parametrize("made", [control, lstm2], ids=["control", "lstm"])
def test_regions_inside_control_flow_are_compared(made) -> None:  # type: ignore[no-untyped-def]
    module = irc.load(made())
    inputs = inputs_of(module)
    lowered = compiler.lower(module, CPU, Options(to_phase="fused")).module
    seen = verification.record(lowered, inputs)
    inner = [op for op in seen if op.block is not lowered.main.body]
    assert inner
    assert verification.compare(module, CPU, inputs).passed
    assert not verification.compare(module, CPU, inputs, noise=0.02).passed


def test_a_result_in_f32_of_values_in_f16_has_their_bar() -> None:
    text = (
        "func @main(%x: f32[4]) -> f32[4] {\n  %0 = cast(%x) {to = f16} : f16[4]\n"
        "  %1 = exp(%0) : f16[4]\n  %2 = cast(%1) {to = f32} : f32[4]\n  return %2\n}\n"
    )
    module = parse(text)
    inputs = {"x": np.linspace(0, 1, 4, dtype=np.float32)}
    report = verification.compare(module, CPU, inputs)
    assert {r.tolerance for r in (*report.outputs, *report.regions)} == {TOLERANCE["f16"]}
    strict = verification.compare(module, CPU, inputs, tolerance=1e-5)
    assert {r.tolerance for r in (*strict.outputs, *strict.regions)} == {1e-5}
    plain = parse(text.replace("f16", "f32"))
    assert verification.compare(plain, CPU, inputs).outputs[0].tolerance == TOLERANCE["f32"]


def test_the_region_at_fault_is_named(
    onnx_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the last weights are off: regions before them agree, the output does not."""
    module = irc.load(onnx_files["mlp"])
    weights: list[Op] = []

    def only_last(op: Const) -> bool:
        weights.append(op)
        return op.value.type.shape == (512, 10)

    monkeypatch.setattr(verification, "_is_weight", only_last)
    report = verification.compare(module, CPU, inputs_of(module), noise=0.02)
    assert weights
    assert [row.passed for row in report.regions] == [True, True, False]
    assert not report.outputs[0].passed
    assert report.first is report.regions[2]


@pytest.mark.parametrize(
    ("y", "ref", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.1], [1.0, 2.0], 0.05),
        ([1.0, float("nan")], [1.0, float("nan")], 0.0),
        ([1.0, float("nan")], [1.0, 2.0], float("inf")),
        ([1.0, 2.0], [1.0, float("inf")], float("inf")),
        ([1.0, float("inf")], [1.0, float("inf")], 0.0),
        ([0.25], [0.0], 0.25),
        ([1.0], [1.0, 1.0], float("inf")),
    ],
)
def test_relative_error(y: list[float], ref: list[float], error: float) -> None:
    assert relative_error(np.array(y), np.array(ref)) == pytest.approx(error)


def test_integers_must_be_equal() -> None:
    a = np.array([1, 2, 3])
    assert verification.row("r", a, a, None).passed
    assert not verification.row("r", a + 1, a, 1.0).passed


def test_a_fault_in_the_emitter_is_seen_in_its_region(
    onnx_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """max, which relu is made of, gives its first operand; only the last region has none."""
    monkeypatch.setitem(emit_ops.RULES, "max", lambda w, type, xs: xs[0])
    module = irc.load(onnx_files["mlp"])
    report = verification.compare(module, CPU, inputs_of(module))
    assert [row.passed for row in report.regions] == [False, False, True]
    assert not report.outputs[0].passed and not report.passed
