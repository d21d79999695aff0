"""The gradients of every op, made from its class's samples.

Of the first and the second order against central differences in f64; in narrow types against those
in f64; as text and (long) compiled; and that every op of a tensor program says how, or why not, a
cotangent goes through it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc.backends.cpu.build import build
from irc.backends.cpu.host import codegen_target
from irc.backends.cpu.target import cpu_target
from irc.ir.core import Array, Op, Sample
from irc.ir.errors import Error
from irc.ir.interpret import run
from irc.ir.ops.convert import widen
from irc.ir.ops.core import Func, Module
from irc.ir.text import check_round_trip
from irc.ir.verify import verify
from irc.passes.pipeline import Options, compile_module

_spec = importlib.util.spec_from_file_location(
    "gradient_cases", Path(__file__).with_name("gradient_cases.py")
)
assert _spec is not None and _spec.loader is not None
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)

BLOCKED = {"conv", "conv_filter_grad", "conv_input_grad", "max_pool", "max_pool_grad"}
"""Ops that layouts turn into a blocked form, which nothing differentiates any more."""
BY_HAND = {"compress", "unique"}
"""Ops without samples: their results' extents are known to a run alone."""
CUT = {"ceil", "dist.all_reduce_wait", "dist.gather_parts", "dist.part",
       "dist.reduce_scatter_wait", "floor", "quantize", "roi_align_places", "round_even", "sign",
       "stop_gradient", "trunc"}  # fmt: skip
"""All that read a float, give a float, and pass no cotangent on."""
UNIT = {"f16": 2.0**-11, "bf16": 2.0**-8}


def every() -> list[Any]:
    return [pytest.param(c, s, id=f"{c.name}-{at}") for c, at, s in cases.samples()]


def refused(cls: type[Op], error: Error) -> bool:
    """Is it the answer of a blocked form?"""
    return cls.name in BLOCKED and "blocked form" in str(error)


@pytest.mark.parametrize(("cls", "sample"), every())
def test_slope(cls: type[Op], sample: Sample) -> None:
    """The gradients are the slopes, and theirs are again; both are sound programs, and texts."""
    made = cases.case(cls, sample)
    if made is None:
        return
    func, arrays = made
    fixed = cases.FIXED.get(cls.name, ())
    try:
        first = cases.slope_holds(func, arrays, fixed)
        if first is None:
            return
        second = cases.slope_holds(first, [*arrays, *cases.cotangents(func)], fixed)
    except Error as error:
        if refused(cls, error):
            return
        raise
    for grown in (first, second):
        verify(grown)
        check_round_trip(grown)


@pytest.mark.parametrize("cls", cases.tensor_ops(), ids=lambda c: c.name)
def test_rule(cls: type[Op]) -> None:
    """Every op has exactly one answer, and those with a gradient a sample that shows it."""
    kinds = [bool(cls.no_gradient), hasattr(cls, "vjp"), cases.rule_of(cls) == "control"]
    assert sum(kinds) <= 1
    rule = cases.rule_of(cls)
    assert rule, f"{cls.name} has neither a gradient nor a reason"
    if rule in ("vjp", "decompose") and cls.name not in BY_HAND:
        found = [cases.case(cls, sample) for sample in cls.samples]
        assert any([c is not None and np.isfinite(_size(*c)) for c in found])


def _size(func: Func, arrays: list[Array]) -> float:
    with np.errstate(all="ignore"):
        return float(cases.total(func, arrays, cases.cotangents(func))[1])


def test_ops_without_a_gradient() -> None:
    """The list of them with their reasons (`-s` shows it), and those that cut a way for floats."""
    without = {c.name: c.no_gradient for c in cases.tensor_ops() if c.no_gradient}
    print("\nops without a gradient:")
    for name, reason in without.items():
        print(f"  {name:24s} {reason}")
    assert {name for name in without if _from_float_to_float(cases.OPS[name])} == CUT


def _from_float_to_float(cls: type[Op]) -> bool:
    """Whether some sample has a float operand and a float result."""
    for sample in cls.samples:
        dtypes = cases.matrix.operand_dtypes(cls, sample, "f32")
        func, op = cases.matrix.call(cls, sample, dtypes)
        both = [[v.tensor.dtype.is_float for v in vs] for vs in (func.args, op.results)]
        if all(any(floats) for floats in both):
            return True
    return False


def narrow() -> Iterator[Any]:
    seen: dict[str, int] = {}
    for cls, at, sample in cases.samples():
        if seen.get(cls.name, 0) < 2 and cases.case(cls, sample) is not None:
            seen[cls.name] = seen.get(cls.name, 0) + 1
            for dtype in UNIT:
                yield pytest.param(cls, sample, dtype, id=f"{cls.name}-{at}-{dtype}")


@pytest.mark.parametrize(("cls", "sample", "dtype"), list(narrow()))
def test_narrow(cls: type[Op], sample: Sample, dtype: str) -> None:
    """Gradients in f16 and bf16 are those in f64 of the same numbers, but for some roundings."""
    made, wide = cases.case(cls, sample, dtype), cases.case(cls, sample)
    if made is None or not cases.inputs_of(made[0], dtype):
        return
    func, arrays = made
    weights = cases.cotangents(func)
    try:
        got = run(cases.pulled(func, dtype), [*arrays, *weights])
        args = [
            np.asarray(widen(a), v.tensor.dtype.np) if v.tensor.dtype.is_float else a
            for a, v in zip([*arrays, *weights], cases.pulled(wide[0]).args, strict=True)
        ]
        want = run(cases.pulled(wide[0]), args)
    except Error as error:
        if refused(cls, error):
            return
        raise
    for g, w in zip(got, want, strict=True):
        if not np.isfinite(w).all():
            continue
        scale = max(float(np.max(np.abs(w), initial=0.0)), 2.0**-14)
        np.testing.assert_allclose(widen(g), w, rtol=0, atol=12 * UNIT[dtype] * scale)


def single() -> Iterator[Any]:
    """One f32 sample of every op that has one."""
    seen = set()
    for cls, at, sample in cases.samples():
        made = cases.case(cls, sample, "f32")
        if cls.name in seen or made is None or not np.isfinite(_size(*made)) or not made[1][0].size:
            continue
        seen.add(cls.name)
        yield pytest.param(cls, sample, id=f"{cls.name}-{at}")


@pytest.mark.long
@pytest.mark.parametrize(("cls", "sample"), list(single()))
def test_compiled(cls: type[Op], sample: Sample) -> None:
    """The gradients in f32, compiled for this processor, are those of the reference."""
    func, arrays = cases.case(cls, sample, "f32")
    grown = cases.pulled(func, "f32")
    feeds = [*arrays, *cases.cotangents(func)]
    want = run(grown, feeds)
    target = cpu_target(1)
    planned = compile_module(Module.make([grown]), target, Options(verify_each=True)).planned
    assert planned is not None
    found = build(planned, target, codegen=codegen_target(None)).run(feeds)
    for g, w in zip(found, want, strict=True):
        scale = max(1.0, float(np.max(np.abs(w), initial=0.0)))
        np.testing.assert_allclose(g, w, rtol=3e-5, atol=3e-5 * scale)
