"""What the tests of gradients share: every op's samples as functions in f64, and slopes of them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import irc.ir.ops  # noqa: F401  registers every op
from irc.ir.core import OPS, Array, Op, Sample
from irc.ir.errors import Error
from irc.ir.interpret import run
from irc.ir.ops.convert import convert, widen
from irc.ir.ops.core import Func
from irc.ir.types import DType
from irc.passes.autodiff.control import CONTROL
from irc.passes.autodiff.grad import differentiate
from irc.passes.autodiff.loops import AS_SCAN

EPS, RTOL = 1e-6, 1e-6
STRUCTURE = {"const", "func", "fused", "generic", "launch", "module", "return", "yield"}
"""What holds a program together, and what fusion makes of one that was differentiated before."""


KINKS = {("lp_norm", 2)}
"""Samples on a kink: the norm of zeros."""


FIXED = {"max_roi_pool": (1,), "roi_align": (1,), "roi_align_grad": (1,)}
"""Operands that carry no cotangent by convention, not by calculus: the corners of regions."""


def beside(name: str) -> Any:
    """A module of this folder."""
    known = sys.modules.get(f"gradients_{name}")
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(
        f"gradients_{name}", Path(__file__).with_name(f"{name}.py")
    )
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


matrix = beside("test_ops")


def tensor_ops() -> list[type[Op]]:
    """The ops of tensor programs, by name."""
    own = [c for c in OPS.values() if c.__module__.startswith("irc.ir.ops.")]
    found = [c for c in own if not c.name.startswith("loop.") and c.name not in STRUCTURE]
    return sorted(found, key=lambda c: c.name)


def rule_of(cls: type[Op]) -> str:
    """How a cotangent goes through: "vjp", "control", "decompose" or "none"; "" if nothing says."""
    if cls.no_gradient:
        return "none"
    if hasattr(cls, "vjp"):
        return "vjp"
    if cls in CONTROL or cls in AS_SCAN:
        return "control"
    return "decompose" if hasattr(cls, "decompose") else ""


def case(cls: type[Op], sample: Sample, dtype: str = "f64") -> tuple[Func, list[Array]] | None:
    """The call as a function, its floats of type `dtype`, with seeded arguments.

    Narrow floats that the op demands stay as they are; None for a call without floats to go from
    or to, or that is no call in this type.
    """
    names = [
        n if s is not None else "f32"
        for s, n in zip(sample.shapes, matrix.operand_dtypes(cls, sample, dtype), strict=True)
    ]
    attrs = {
        k: DType(dtype) if isinstance(v, DType) and v.is_float else v
        for k, v in sample.attrs.items()
    }
    for bits in (0, 16):
        chosen = [dtype if DType(n).is_float and DType(n).bits >= bits else n for n in names]
        try:
            func, _ = matrix.call(cls, replace(sample, attrs=attrs), chosen)
        except Error:
            continue
        values = [v for v in matrix.operand_values(sample, chosen) if v is not None]
        return (func, values) if inputs_of(func, dtype) and outputs_of(func) else None
    return None


def inputs_of(func: Func, dtype: str = "f64") -> list[int]:
    """The parameters of this type: those that are moved."""
    return [k for k, v in enumerate(func.args) if v.tensor.dtype.name == dtype]


def outputs_of(func: Func) -> list[int]:
    """The float results."""
    return [k for k, v in enumerate(func.returned) if v.tensor.dtype.is_float]


def pulled(func: Func, dtype: str = "f64") -> Func:
    """The function of the arguments and a cotangent per float result that gives the gradients."""
    wrt, outputs = inputs_of(func, dtype), outputs_of(func)
    return differentiate(func, wrt, outputs, cotangents=True, keep=False)


def cotangents(func: Func, seed: int = 3) -> list[Array]:
    """Random ones, in the types of the float results."""
    rng = np.random.default_rng(seed)
    return [
        convert(rng.standard_normal([int(str(e)) for e in v.tensor.shape]), v.tensor.dtype)
        for v in [func.returned[k] for k in outputs_of(func)]
    ]


def total(func: Func, arrays: list[Array], weights: list[Array]) -> tuple[float, float]:
    """The sum of the float results times weights, and of the magnitudes of its terms."""
    found = run(func, arrays)
    terms = [widen(found[k]) * w for k, w in zip(outputs_of(func), weights, strict=True)]
    return sum(float(np.sum(t)) for t in terms), sum(float(np.sum(np.abs(t))) for t in terms)


def slope_holds(func: Func, arrays: list[Array], fixed: tuple[int, ...] = ()) -> Func | None:
    """Hold the gradients against the central difference along a random direction of everything but
    the parameters that are `fixed`.

    Gives the function of gradients, for the next order; None where a result is not finite.
    """
    weights = cotangents(func)
    with np.errstate(all="ignore"):
        if not np.isfinite(total(func, arrays, weights)[0]):
            return None
    rng = np.random.default_rng(17)
    moved = inputs_of(func)
    steps = {k: rng.standard_normal(arrays[k].shape) * (k not in fixed) for k in moved}
    made = pulled(func)
    grads = run(made, [*arrays, *weights])
    for k, grad in zip(moved, grads, strict=True):
        assert grad.shape == arrays[k].shape and grad.dtype == arrays[k].dtype
    given = sum(float(np.sum(g * steps[k])) for k, g in zip(moved, grads, strict=True))
    ends, sizes = [], []
    for sign in (1, -1):
        at = [a + sign * EPS * steps[k] if k in steps else a for k, a in enumerate(arrays)]
        value, size = total(func, at, weights)
        ends.append(value)
        sizes.append(size)
    want = (ends[0] - ends[1]) / (2 * EPS)
    largest = max([1.0, *[float(np.max(np.abs(arrays[k]), initial=0.0)) for k in moved]])
    rounding = (max(sizes) * largest + 0.01) * 2.0**-52 / EPS * 8
    bound = RTOL * max(abs(given), abs(want)) + rounding + 100 * EPS**2
    assert abs(given - want) <= bound, (given, want)
    return made


def samples() -> Iterator[tuple[type[Op], int, Sample]]:
    """Every sample of the ops that have a gradient."""
    for cls in tensor_ops():
        if rule_of(cls) in ("vjp", "decompose"):
            for at, sample in enumerate(cls.samples):
                if (cls.name, at) not in KINKS:
                    yield cls, at, sample
