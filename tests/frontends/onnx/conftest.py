"""What the importer's tests share: models of one or a few nodes, run through the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from irc.frontends.onnx import load
from irc.ir.interpret import run
from irc.ir.verify import verify


def graph_model(
    nodes: Sequence[Any],
    inputs: Mapping[str, tuple[Any, Sequence[int | str | None]]],
    outputs: Sequence[str],
    constants: Mapping[str, Any] | None = None,
    opset: int = 17,
    **more: Any,
) -> ModelProto:
    """A model whose inputs are {name: (numpy dtype, shape)}; outputs are left untyped."""
    given = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(d)), list(s))
        for n, (d, s) in inputs.items()
    ]
    results = [helper.make_empty_tensor_value_info(n) for n in outputs]
    initial = [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "g", given, results, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **more)
    model.ir_version = 8
    return model


def import_and_run(model: ModelProto, arrays: Sequence[Any], **options: Any) -> list[Any]:
    """The results of the imported and verified model."""
    module = load(model, **options)
    verify(module)
    return run(module, list(arrays))


@pytest.fixture(scope="session")
def make() -> Callable[..., ModelProto]:
    """`graph_model`."""
    return graph_model


@pytest.fixture(scope="session")
def imported() -> Callable[..., list[Any]]:
    """`import_and_run`."""
    return import_and_run
