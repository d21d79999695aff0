"""docs/from_scratch.md: the core rebuilt on one page runs, keeps its budget, names real files."""

from __future__ import annotations

import re
import shutil
from typing import Any

import numpy as np
import pytest
from doc_pages import ROOT, run_page

PAGE = ROOT / "docs" / "from_scratch.md"
BUDGET = 500


@pytest.fixture(scope="module")
def core() -> dict[str, Any]:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    namespace["lines"] = run_page("from_scratch.md", PAGE.read_text(), namespace)
    return namespace


def schedule(core: dict[str, Any], steps: list[tuple[Any, ...]]) -> Any:
    """The page's kernel after steps, each given as the name of its class and the arguments."""
    made = tuple(core[name](*arguments) for name, *arguments in steps)
    return core["apply_steps"](core["kernel"], made)


def agree(core: dict[str, Any], kernel: Any, native: Any, shape: tuple[int, int, int]) -> None:
    """The interpreted kernel, its machine code and numpy have the same result for (M, K, N)."""
    m, k, n = shape
    rng = np.random.default_rng(m)
    x, w = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    interpreted, compiled = np.zeros((2, m, n), np.float32)
    core["interpret"](kernel, x, w, interpreted)
    native(x, w, compiled)
    assert np.array_equal(interpreted, compiled)
    assert np.allclose(compiled, np.maximum(x @ w, 0), atol=1e-5)


def test_the_budget_holds(core: dict[str, Any]) -> None:
    """Every line of its Python counts but the blank ones."""
    assert core["lines"] < BUDGET


def test_every_file_it_names_exists() -> None:
    named = set(re.findall(r"`((?:ir|passes|backends)/[\w/.*]*)`", PAGE.read_text()))
    assert len(named) > 10
    assert not [name for name in named if not any(ROOT.glob(name.rstrip("/")))]


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 3, 32), (9, 7, 65)])
def test_its_kernels_agree_with_numpy(core: dict[str, Any], shape: tuple[int, int, int]) -> None:
    agree(core, core["scheduled"], core["native"], shape)


def test_its_schedule_is_faster(core: dict[str, Any]) -> None:
    assert core["fast"] < core["slow"]


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([("Mark", "s0_k", "vector")], "iterations of s0_k depend on each other"),
        ([("Mark", "s9_k", "vector")], "no for called s9_k"),
        ([("Reorder", ("s0_i", "s1_i1"))], "not one perfect nest"),
        ([("Reorder", ("s0_i", "s0_k"))], "not one perfect nest"),
        ([("Tile", "s1_i1", 4), ("Reorder", ("s1_i1_i", "s1_i1_o"))], "needs a loop that would be"),
        ([("ComputeAt", "t0", "s0_i")], "not read by one load inside"),
        ([("Tile", "s1_i1", 4), ("ComputeAt", "t0", "s1_i0")], "is not a box"),
    ],
)
def test_its_steps_refuse(core: dict[str, Any], steps: list[tuple[Any, ...]], reason: str) -> None:
    with pytest.raises(core["Error"], match=reason):
        schedule(core, steps)


@pytest.mark.parametrize(
    "steps",
    [
        [("Reorder", ("s0_j", "s0_k", "s0_i"))],
        [("ComputeAt", "t0", "s1_i1")],
        [("ComputeAt", "t0", "s1_i0"), ("Tile", "s1_i0", 4), ("Tile", "s0_k", 2)],
    ],
)
def test_its_steps_keep_the_meaning(core: dict[str, Any], steps: list[tuple[Any, ...]]) -> None:
    """Also where a loop that the extents of a buffer name is tiled afterwards."""
    scheduled = schedule(core, steps)
    agree(core, scheduled, core["compile_kernel"](scheduled), (7, 5, 9))


def test_its_constraints_are_checked(core: dict[str, Any]) -> None:
    with pytest.raises(core["Error"], match="C1"):
        core["Matmul"](*core["Block"]([core["Tensor"]((2, 3))] * 2, ["x", "w"]).args)
