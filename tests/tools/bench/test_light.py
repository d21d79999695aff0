"""The light models with weights: complete, seeded, and with activations of a sane size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from irc.tools.bench import light
from irc.tools.bench.witness import reference

SMALL = ("squeezenet", "shufflenet", "densenet121")


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_is_an_initializer(name: str) -> None:
    model = light.light(name)
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == list(light.inputs(name))
    assert not [n for n in model.graph.node if n.op_type == "ConstantOfShape"]
    read = {x for n in model.graph.node for x in n.input}
    assert {t.name for t in model.graph.initializer} <= read


def test_the_same_seed_gives_the_same_bytes() -> None:
    once = light.light("squeezenet").SerializeToString()
    assert once == light.light("squeezenet").SerializeToString()
    assert once != light.light("squeezenet", seed=1).SerializeToString()


def test_batch_norms_have_plausible_statistics() -> None:
    model = light.light("shufflenet")
    values = {t.name: t for t in model.graph.initializer}
    norms = [n for n in model.graph.node if n.op_type == "BatchNormalization"]
    assert norms
    for node in norms:
        scale, _, _, variance = (numpy_helper.to_array(values[name]) for name in node.input[1:])
        assert 0.5 <= variance.min() and variance.max() <= 1.5
        assert 0.8 <= scale.min() and scale.max() <= 1.2


def spread(model: ModelProto, inputs: Mapping[str, Any]) -> list[float]:
    """Standard deviation of what each layer gives, the softmax left out."""
    layers = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm", "Sum", "Concat")]
    del model.graph.output[:]
    model.graph.output.extend([onnx.ValueInfoProto(name=n.output[0]) for n in layers])
    found = reference(model.SerializeToString(), inputs)
    return [float(y.std()) if np.isfinite(y).all() else float("inf") for y in found.values()]


@pytest.mark.parametrize("name", SMALL)
def test_activations_keep_their_size(name: str) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `bench` is not installed")
    found = spread(light.light(name), light.inputs(name))
    assert 0.05 < min(found) and max(found) < 20


def test_without_scaling_they_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `bench` is not installed")
    monkeypatch.setattr(light, "RESIDUAL_GAIN", 1.5)
    assert max(spread(light.light("shufflenet"), light.inputs("shufflenet"))) > 20
