"""What the tests of differentiation share: functions from builders, gradients checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from irc.ir.core import Builder, Value
from irc.ir.interpret import run
from irc.ir.ops.core import Func, Module, Return
from irc.ir.text import check_round_trip
from irc.ir.types import parse_type
from irc.ir.verify import verify
from irc.passes.autodiff.grad import differentiate
from irc.passes.pipeline import parse_pipeline, run_passes

Build = Callable[..., Any]
EPS = 1e-6


def made(types: Sequence[str], build: Build) -> Func:
    """A function of parameters x0, x1 ... that returns what `build(b, *parameters)` gives."""
    func = Func.make("main", [parse_type(t) for t in types], [f"x{k}" for k in range(len(types))])
    b = Builder(func.body)
    given = build(b, *func.args)
    b.emit(Return, *([given] if isinstance(given, Value) else given))
    verify(func)
    return func


def against_differences(func: Func, wrt: Sequence[int], arrays: Sequence[Any]) -> Func:
    """The differentiated function, its gradients held against central differences along a random
    direction, before and after the canonical passes.
    """
    grown = differentiate(func, wrt)
    verify(grown)
    check_round_trip(grown)
    found = run(grown, arrays)
    np.testing.assert_allclose(found[0], run(func, arrays)[0], rtol=1e-12)
    rng = np.random.default_rng(3)
    for k, gradient in zip(wrt, found[len(func.returned) :], strict=True):
        assert gradient.shape == arrays[k].shape and gradient.dtype == arrays[k].dtype
        direction = rng.standard_normal(arrays[k].shape)
        ends = [[*arrays], [*arrays]]
        for sign, end in zip((1, -1), ends, strict=True):
            end[k] = arrays[k] + sign * EPS * direction
        slope = (run(func, ends[0])[0] - run(func, ends[1])[0]) / (2 * EPS)
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-8)
    module = Module.make([grown.copy()])
    for got, want in zip(run(simplified(module), arrays), found, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)
    return grown


def simplified(module: Module) -> Module:
    """After the passes that every compilation begins with."""
    found = run_passes(module, parse_pipeline("canonicalize,cse,hoist,canonicalize,cse"))
    verify(found)
    return found


@pytest.fixture
def function() -> Callable[[Sequence[str], Build], Func]:
    """`function(types, build)`: see `made`."""
    return made


@pytest.fixture
def checked() -> Callable[..., Func]:
    """`checked(types, build, wrt, arrays)`: the function differentiated, gradients checked."""

    def check(
        types: Sequence[str], build: Build, wrt: Sequence[int], arrays: Sequence[Any]
    ) -> Func:
        return against_differences(made(types, build), wrt, arrays)

    return check


@pytest.fixture
def passed() -> Callable[[Module], Module]:
    """`passed(module)`: see `simplified`."""
    return simplified
