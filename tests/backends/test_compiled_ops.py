"""Every op through the whole compiler: the matrix of its samples, compiled for this processor.

All samples of a class, in all element types that kernels have, become one function with many
results, compiled once; each result is compared with `evaluate`.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc.backends.c.build import CExecutable, sources
from irc.backends.c.target import c_target
from irc.backends.cpu.build import build, texts
from irc.backends.cpu.host import codegen_target
from irc.backends.cpu.target import cpu_target
from irc.ir.core import OPS, Builder, Op
from irc.ir.errors import Error, UnsupportedError
from irc.ir.interpret import run
from irc.ir.ops.core import Func, Module, Return
from irc.ir.target import Target
from irc.ir.types import DType, TensorType
from irc.passes.pipeline import Options, compile_module

_spec = importlib.util.spec_from_file_location(
    "op_matrix", Path(__file__).parents[1] / "ir" / "ops" / "test_ops.py"
)
assert _spec is not None and _spec.loader is not None
matrix: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(matrix)

WITHOUT_KERNELS = frozenset(["f8e4m3fn", "f8e5m2", "c64", "string"])
"""Element types on which kernels do not compute: refused, or evaluated by the host."""


@cache
def samples() -> dict[type[Op], list[tuple[Any, list[str]]]]:
    """(sample, element types of its operands) of every class."""
    found: dict[type[Op], list[tuple[Any, list[str]]]] = {}
    for case in matrix.cases():
        cls, sample, name = case.values
        found.setdefault(cls, []).append((sample, matrix.operand_dtypes(cls, sample, name)))
    return found


def touches(cls: type[Op], sample: Any, dtypes: list[str]) -> set[str]:
    """The element types of a call, of its operands and of its results."""
    _, op = matrix.call(cls, sample, dtypes)
    given = {n for n, s in zip(dtypes, sample.shapes, strict=True) if s is not None}
    attrs = {v.name for v in op.attrs if isinstance(v, DType)}
    return given | attrs | {r.tensor.dtype.name for r in op.results}


def module_of(
    cls: type[Op], chosen: list[tuple[Any, list[str]]]
) -> tuple[Module, list[Any], list[float]]:
    """One function that returns the results of many calls; its inputs; a magnitude per result."""
    func = Func.make("main", [])
    b = Builder(func.body)
    inputs: list[Any] = []
    outs, scales = [], []
    for seed, (sample, dtypes) in enumerate(chosen):
        values = matrix.operand_values(sample, dtypes, seed)
        operands = []
        for value, name in zip(values, dtypes, strict=True):
            if value is None:
                operands.append(None)
                continue
            type_ = TensorType(DType(name), value.shape)
            operands.append(func.body.add_arg(type_, f"x{len(inputs)}"))
            inputs.append(value)
        op = b.insert(cls(*operands, **sample.attrs))
        outs += op.results
        scales += [matrix.magnitude(values)] * len(op.results)
    func.set_attr("inputs", tuple([f"x{k}" for k in range(len(inputs))]))
    b.emit(Return, *outs)
    return Module.make([func]), inputs, scales


def supported(cls: type[Op], mask: str | None = None) -> list[tuple[Any, list[str]]]:
    without = WITHOUT_KERNELS | ({"f16"} if mask == "sse4.2" else set())
    return [c for c in samples()[cls] if not touches(cls, *c) & without]


CLASSES = [pytest.param(cls, id=cls.name) for cls in samples() if supported(cls)]


def check(cls: type[Op], mask: str | None, target: Target | None = None) -> None:
    """Compile all supported samples of a class, for this processor or as C, and compare."""
    module, inputs, scales = module_of(cls, supported(cls, mask))
    wanted = run(module, inputs)
    target = target or cpu_target(1, mask)
    compiled = compile_module(module, target, Options(verify_each=True))
    assert compiled.planned is not None
    assert not compiled.planned.host_steps or getattr(cls, "host", False)
    exe: Any
    if target.name == "c":
        exe = CExecutable(compiled.planned)
    else:
        exe = build(compiled.planned, target, codegen=codegen_target(mask))
    for value, got, want, scale in zip(
        module.main.returned, exe.run(inputs), wanted, scales, strict=True
    ):
        size = max(scale, matrix.magnitude([want]))
        matrix.close(got, np.asarray(want), value.tensor.dtype, size)


@pytest.mark.parametrize("cls", CLASSES)
def test_compiled_op(cls: type[Op]) -> None:
    check(cls, None)


@pytest.mark.long
@pytest.mark.parametrize("mask", ["avx2", "sse4.2"])
@pytest.mark.parametrize("cls", CLASSES)
def test_compiled_op_on_narrower_machines(cls: type[Op], mask: str) -> None:
    check(cls, mask)


@pytest.mark.parametrize("name", ["iota", "cum_sum", "det", "relu"])
def test_compiled_op_in_c(name: str) -> None:
    """Empty constants, packed accumulators, loops of no steps, comparisons that cannot hold."""
    check(OPS[name], None, c_target())


@pytest.mark.long
@pytest.mark.parametrize("cls", CLASSES)
def test_every_compiled_op_in_c(cls: type[Op]) -> None:
    if getattr(cls, "host", False):
        with pytest.raises(Error, match=f"E0440(.|\n)*{cls.name}"):
            check(cls, None, c_target())
        return
    check(cls, None, c_target())


def test_f16_needs_a_processor_that_converts_it() -> None:
    func = Func.make("main", [TensorType(DType("f16"), (3, 5))], ["x"])
    b = Builder(func.body)
    b.emit(Return, b.add(func.args[0], func.args[0]))
    target = cpu_target(1, "sse4.2")
    planned = compile_module(Module.make([func]), target).planned
    assert planned is not None
    with pytest.raises(UnsupportedError, match="E0425"):
        build(planned, target, codegen=codegen_target("sse4.2"))


def check_softmax_rows(name: str, axes_of: Any) -> None:
    """One special element, in every lane of a row in turn, decides the whole row."""
    nan, inf = np.nan, np.inf
    rows = np.linspace(-3, 3, 4 * 70 * 70, dtype=np.float32).reshape(4, 70, 70)
    for k, special in enumerate((nan, inf, -inf)):
        rows[k][np.arange(70), np.arange(70)] = special
    rows[3] = -inf
    func = Func.make("main", [TensorType(DType("f32"), rows.shape)], ["x"])
    b = Builder(func.body)
    b.emit(Return, b.emit(OPS[name], func.args[0], **axes_of))
    module, target = Module.make([func]), cpu_target(1, None)
    (want,) = run(module, [rows])
    planned = compile_module(module, target, Options()).planned
    assert planned is not None
    (got,) = build(planned, target, codegen=codegen_target(None)).run([rows])
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "reduce_log_sum_exp"])
def test_special_elements_of_a_row(name: str) -> None:
    """NaN and infinities in softmax and its kin, whose greatest element overlooks NaN."""
    axes = {"axes": (2,)} if name.startswith("reduce") else {"axis": 2}
    check_softmax_rows(name, axes)


def test_types_without_kernels_are_refused() -> None:
    """f8 and complex: compiled, or refused as unsupported, for LLVM and for C; never a crash."""
    refused, seen = 0, set()
    for cls, cases in samples().items():
        for case in cases:
            found = touches(cls, *case)
            key = (cls, *sorted(found))
            host = getattr(cls, "host", False)
            if not found & WITHOUT_KERNELS or "string" in found or key in seen or host:
                continue
            seen.add(key)
            module, _, _ = module_of(cls, [case])
            target = (cpu_target(1), c_target())[len(seen) % 2]
            try:
                planned = compile_module(module, target).planned
                assert planned is not None
                sources(planned, "m") if target.name == "c" else texts(planned, 512)
            except UnsupportedError:
                refused += 1
    assert refused > 100
