"""Random programs through the whole compiler, run on this processor and as C.

The recipes draw what models are made of; the general programs of test_random_programs.py join them.
A program with a symbolic batch is compiled once and run with several.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc.backends.c.build import CExecutable
from irc.backends.c.target import c_target
from irc.backends.cpu.build import build
from irc.backends.cpu.host import codegen_target
from irc.backends.cpu.target import cpu_target
from irc.backends.executable import Executable
from irc.ir.core import Array, Value
from irc.ir.interpret import run
from irc.ir.ops.core import Module
from irc.ir.text import print_op
from irc.passes.lower import vectorize
from irc.passes.pipeline import Options, compile_module


def _beside(name: str) -> Any:
    """A module of this folder."""
    spec = importlib.util.spec_from_file_location(
        f"fuzz_{name}", Path(__file__).with_name(f"{name}.py")
    )
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


recipes, general = _beside("recipes"), _beside("test_random_programs")

BATCHES = (3, 1, 2, 7, 16)
TOLERANCE = 3e-5
"""Of the greatest value met on the way."""


def executable(module: Module, how: str) -> Executable:
    """Compiled for `how`: "cpu", "avx2" (masked), "threads" (two of them) or "c"."""
    if how == "c":
        planned = compile_module(module, c_target(), Options(verify_each=True)).planned
        assert planned is not None
        return CExecutable(planned)
    mask = "avx2" if how == "avx2" else None
    target = cpu_target(2 if how == "threads" else 1, mask)
    planned = compile_module(module, target, Options(verify_each=True)).planned
    assert planned is not None and not planned.host_steps
    return build(planned, target, codegen=codegen_target(mask))


def interpreted(module: Module, feeds: list[Array]) -> tuple[list[Array], float]:
    """The results, and the greatest finite value that any op made."""
    seen = [1.0]

    def observe(value: Value, array: Any) -> None:
        if array.dtype.kind == "f" and array.size:
            seen.append(float(np.abs(array[np.isfinite(array)]).max(initial=0.0)))

    return [np.asarray(v) for v in run(module, feeds, observe)], max(seen)


def assert_close(got: Array, want: Array, scale: float, said: str) -> None:
    """Integers equal; floats within the tolerance, NaN and infinities in the same places."""
    assert (got.shape, got.dtype) == (want.shape, want.dtype), said
    if got.dtype.kind == "f":
        np.testing.assert_allclose(got, want, TOLERANCE, TOLERANCE * scale, err_msg=said)
    else:
        np.testing.assert_array_equal(got, want, err_msg=said)


def check_recipe(name: str, seed: int, how: str) -> None:
    """One program of a recipe, with every batch."""
    program = recipes.Program(name, seed)
    exe = executable(program.module, how)
    for n in BATCHES if program.symbolic else BATCHES[:1]:
        feeds = program.feeds(n)
        wanted, scale = interpreted(program.module, feeds)
        said = f"{name} {seed} {how} N={n}\n{print_op(program.module)}"
        # Where infinities and huge values are fed in, each element is judged by itself.
        scale = 1.0 if name == "wild" else scale
        for got, want in zip(exe.run(feeds), wanted, strict=True):
            assert_close(got, want, scale, said)


def check_general(seed: int, how: str) -> None:
    """One program of the general generator, which knows no other batch than its own."""
    made = general.Maker(seed)
    wanted, scale = interpreted(made.module, made.feeds)
    for got, want in zip(executable(made.module, how).run(made.feeds), wanted, strict=True):
        assert_close(got, want, 10 * scale, f"seed {seed} {how}\n{print_op(made.module)}")


FOUND: Mapping[str, tuple[int, ...]] = {"rows": (10,), "moves": (0,), "recurrent": (22,)}
"""Seeds that once failed."""


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_recipes(name: str) -> None:
    for seed in (*FOUND.get(name, ()), 100, 101, 102):
        check_recipe(name, seed, "cpu")


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_recipes_elsewhere(name: str) -> None:
    """A narrower machine, and two threads."""
    check_recipe(name, 110, "avx2")
    check_recipe(name, 111, "threads")


@pytest.mark.parametrize("name", ["convolutions", "rows", "decisions", "recurrent"])
def test_recipes_as_c(name: str) -> None:
    check_recipe(name, 120, "c")


def test_general_programs() -> None:
    for seed in range(3000, 3012):
        check_general(seed, "cpu")


def test_a_planted_fault_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes beyond the end of a row count as one instead of zero."""
    monkeypatch.setitem(vectorize.IDENTITY, "add", lambda dtype: 1)
    with pytest.raises(AssertionError):
        for seed in range(20):
            check_recipe("rows", seed, "cpu")


@pytest.mark.long
@pytest.mark.parametrize("how", ["cpu", "avx2", "threads"])
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_many_recipes(name: str, how: str) -> None:
    for seed in range(1000, 1030):
        check_recipe(name, seed, how)


@pytest.mark.long
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_many_recipes_as_c(name: str) -> None:
    for seed in range(2000, 2004):
        check_recipe(name, seed, "c")


@pytest.mark.long
@pytest.mark.parametrize("how", ["cpu", "avx2", "threads"])
def test_many_general_programs(how: str) -> None:
    for seed in range(4000, 4150):
        check_general(seed, how)
