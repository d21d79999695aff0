"""Whole models: the seeded against onnx's reference evaluator, real ones against their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from irc.frontends.onnx import load
from irc.ir.interpret import run
from irc.ir.verify import verify
from irc.tools.bench.models import MODELS, control, mlp

SHAPES = {"silero_vad_16k": {"input": (1, 576), "state": (2, 1, 128)}}
REAL = {
    "mnist": 1e-3, "dense_big": 1e-3, "silero_vad_16k": 1e-3, "ultraface_rfb320": 1e-3,
    "fastestdet": 1e-3, "squeezenet_fp16": 1e-2, "magika_v3_3": 1e-3,
}  # fmt: skip
"""Model and relative tolerance; the reference of the half-precision one computes in f32."""


@pytest.mark.parametrize("name", MODELS)
def test_seeded_models(name: str) -> None:
    model = MODELS[name]()
    assert model.SerializeToString() == MODELS[name]().SerializeToString()
    assert model.SerializeToString() != MODELS[name](seed=1).SerializeToString()
    module = load(model)
    verify(module)
    reference = ReferenceEvaluator(model)
    random = np.random.default_rng(2)
    for sign in (1, -1):  # both branches of the model with an If
        shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
        x = (sign * np.abs(random.standard_normal(shape))).astype(np.float32)
        (want,) = reference.run(None, {"x": x})
        (got,) = run(module, {"x": x})
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_control_flow_of_the_seeded_network() -> None:
    names = [op.name for op in load(control()).main.body]
    assert "if" in names
    assert "while" in names


def test_a_symbolic_batch() -> None:
    model = mlp(batch="N")
    module = load(model)
    x = np.random.default_rng(3).standard_normal((5, 784)).astype(np.float32)
    want = ReferenceEvaluator(model).run(None, {"x": x})[0]
    assert str(module.main.returned[0].type) == "f32[N, 10]"
    np.testing.assert_allclose(run(module, [x])[0], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REAL)
def test_real_models(name: str, shared_model: Callable[[str], Path]) -> None:
    path = shared_model(name)
    module = load(path, shapes=SHAPES.get(name))
    verify(module)
    stored: Any = np.load(path.with_suffix(".npz"))
    results = run(module, {n: stored[f"0/in/{n}"] for n in module.main.inputs})
    for output, got in zip(module.main.outputs, results, strict=True):
        want = stored[f"0/out/{output}"]
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=REAL[name], atol=1e-4)


def test_silero_keeps_no_shape_arithmetic(shared_model: Callable[[str], Path]) -> None:
    module = load(shared_model("silero_vad_16k"), shapes=SHAPES["silero_vad_16k"])
    names = [op.name for op in module.main.walk()]
    assert names.count("lstm") == 1
    assert not {"if", "dim_value", "eq", "iota", "gather"} & set(names)
