"""The official ONNX backend suite, node cases: what we import of them agrees.

A case is *supported* when every op in it has a row (or a body in the standard); then it matches, or
is refused for one of the reasons below, which are counted.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from irc.backends.cpu.build import build
from irc.backends.cpu.host import codegen_target
from irc.backends.cpu.target import cpu_target
from irc.frontends.onnx import load
from irc.frontends.onnx.table import has_row
from irc.ir.errors import Error, UnsupportedError
from irc.ir.interpret import run
from irc.ir.verify import verify
from irc.passes.pipeline import compile_module

REFUSED = {
    "Dropout in training mode is not supported",
    "Loop: stacked results need a known number of steps",
    "element type FLOAT8E8M0 is not supported",
    "a sequence of tensors cannot be used here",
    "only tensors can be inputs",
}


@cache
def cases() -> dict[str, Any]:
    """All node cases of the installed onnx package, by name."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in load_model_tests(kind="node")}


def ops_of(graph: Any) -> Iterator[tuple[str, str]]:
    """Domain and type of each node, those of inner graphs included."""
    for node in graph.node:
        yield node.domain, node.op_type
        for attribute in node.attribute:
            yield from ops_of(attribute.g)


def is_supported(case: Any) -> bool:
    """Every op of the case has a row (or is a function of the model)."""
    opsets = {o.domain: o.version for o in case.model.opset_import}
    own = {(f.domain, f.name) for f in case.model.functions}
    return all(
        (domain, op) in own or has_row(domain, op, opsets.get(domain, 0))
        for domain, op in ops_of(case.model.graph)
    )


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "pass", "unsupported" (said so), or "fail"."""

    kind: str
    reason: str = ""


def outcome(case: Any, compiled: bool = False) -> Outcome:
    """Import and run all data sets of a case and compare.

    Where an input decides a shape (axes, a target shape), it is frozen to the case's value first.
    """
    execute = _compile_and_run if compiled else _import_and_run
    try:
        try:
            execute(case, case.model, frozenset())
        except UnsupportedError as error:
            if "must be known" not in error.message:
                raise
            execute(case, *frozen(case))
    except UnsupportedError as error:
        return Outcome("unsupported", error.message)
    except Error as error:
        return Outcome("fail", error.render())
    except AssertionError as error:
        return Outcome("fail", str(error))
    return Outcome("pass")


def _import_and_run(case: Any, model: Any, without: frozenset[int]) -> None:
    module = load(model)
    verify(module)
    for given, expected in case.data_sets:
        compare(case, module, [x for k, x in enumerate(given) if k not in without], list(expected))


def frozen(case: Any) -> tuple[Any, frozenset[int]]:
    """The model with its small inputs of rank 0 or 1 behind the first as initializers; which."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    ((given, _),) = case.data_sets
    chosen = {
        k: as_array(x) for k, x in enumerate(given)
        if np.ndim(as_array(x)) <= 1 and (k or len(given) == 1 or np.ndim(as_array(x)) == 0)
    }  # fmt: skip
    for k, array in chosen.items():
        name = case.model.graph.input[k].name
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model, frozenset(chosen)


def as_array(value: Any) -> Any:
    """A case's value as an array of our element types."""
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    return np.asarray(value)


def _compile_and_run(case: Any, model: Any, without: frozenset[int]) -> None:
    target = cpu_target(1)
    planned = compile_module(load(model), target).planned
    assert planned is not None
    steps = sorted({op.name for op in planned.host_steps.values()})
    assert not steps, f"host steps {steps}"
    exe = build(planned, target, codegen=codegen_target(None))
    for given, expected in case.data_sets:
        arrays = [as_array(x) for k, x in enumerate(given) if k not in without]
        agree(case, exe.run(arrays), list(expected))


def compare(case: Any, module: Any, given: list[Any], expected: list[Any]) -> None:
    """Run one data set; AssertionError where a result differs."""
    agree(case, run(module, [as_array(x) for x in given]), expected)


def agree(case: Any, results: list[Any], expected: list[Any]) -> None:
    """AssertionError where a result of one data set differs."""
    assert len(results) == len(expected), "number of results"
    for got, want in zip(results, expected, strict=True):
        want = as_array(want)
        assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
        assert got.dtype == want.dtype, f"type {got.dtype}, expected {want.dtype}"
        if "bernoulli" in case.name:  # draws of another generator
            assert set(np.unique(got)) <= {0, 1}
            continue
        if want.dtype == object or want.dtype.kind in "US":
            assert got.tolist() == want.tolist()
            continue
        wide = np.complex128 if want.dtype.kind == "c" else np.float64
        narrow = want.dtype.itemsize < 4 and want.dtype.kind not in "iub"
        rtol = max(case.rtol, 1e-2 if narrow else case.rtol)
        atol = max(case.atol, 1e-3 if narrow else 1e-6)
        np.testing.assert_allclose(got.astype(wide), want.astype(wide), rtol=rtol, atol=atol)


def test_every_supported_case(capsys: pytest.CaptureFixture[str]) -> None:
    count: Counter[str] = Counter()
    failed = {}
    for name, case in cases().items():
        found = outcome(case) if is_supported(case) else Outcome("no row")
        if found.kind == "fail":
            failed[name] = found.reason
        count[found.reason if found.kind == "unsupported" else found.kind] += 1
    with capsys.disabled():
        print("\nONNX node cases:", dict(count.most_common()))
    assert not failed, "\n".join(f"{name}: {reason}" for name, reason in failed.items())
    assert set(count) <= {"pass", "no row", *REFUSED}
    supported = len(cases()) - count["no row"]
    assert count["pass"] >= 0.97 * supported > 1000


NOT_COMPILED = ("no arithmetic on", "depend on data", "have no memory in a plan")
"""Element types of 8 bits and less that only move, data-dependent shapes, strings."""


@pytest.mark.long
def test_every_supported_case_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    """What the reference passes, native code passes too, without host steps."""
    count: Counter[str] = Counter()
    failed = {}
    for name, case in cases().items():
        if not is_supported(case) or outcome(case).kind != "pass":
            continue
        found = outcome(case, compiled=True)
        known = next((r for r in NOT_COMPILED if r in found.reason), None)
        count[known or found.kind] += 1
        if known is None and found.kind != "pass":
            failed[name] = found.reason
    with capsys.disabled():
        print("\nONNX node cases compiled:", dict(count.most_common()))
    assert not failed, "\n".join(f"{name}: {reason}" for name, reason in failed.items())
    assert count["pass"] > 1500


def test_a_wrong_result_is_seen() -> None:
    case = cases()["test_relu"]
    ((given, expected),) = case.data_sets
    wrong = type(case)(**{**vars(case), "data_sets": [(given, [expected[0] + 0.01])]})
    assert outcome(case).kind == "pass"
    assert outcome(wrong).kind == "fail"
