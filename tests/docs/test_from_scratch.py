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


def test_the_budget_holds(core: dict[str, Any]) -> None:
    assert core["lines"] < BUDGET


def test_every_file_it_names_exists() -> None:
    named = set(re.findall(r"`((?:ir|passes|backends)/[\w/.*]*)`", PAGE.read_text()))
    assert len(named) > 10
    assert not [name for name in named if not any(ROOT.glob(name.rstrip("/")))]


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 3, 32), (9, 7, 65)])
def test_its_kernels_agree_with_numpy(core: dict[str, Any], shape: tuple[int, ...]) -> None:
    m, k, n = shape
    rng = np.random.default_rng(m)
    x, w = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    interpreted, compiled = np.zeros((2, m, n), np.float32)
    core["interpret"](core["scheduled"], x, w, interpreted)
    core["native"](x, w, compiled)
    assert np.array_equal(interpreted, compiled)
    assert np.allclose(compiled, np.maximum(x @ w, 0), atol=1e-5)


def test_its_schedule_is_faster(core: dict[str, Any]) -> None:
    assert core["fast"] < core["slow"]


@pytest.mark.parametrize(
    ("step", "arguments", "reason"),
    [
        ("Mark", ("s0_k", "vector"), "depend on each other"),
        ("Mark", ("s9_k", "vector"), "no for called s9_k"),
        ("Reorder", (("s0_i", "s1_i1"),), "not one perfect nest"),
        ("ComputeAt", ("t0", "s0_i"), "not read by one load inside"),
        ("ComputeAt", ("t0", "s1_i0"), "no constant bound"),
    ],
)
def test_its_steps_refuse(
    core: dict[str, Any], step: str, arguments: tuple[Any, ...], reason: str
) -> None:
    with pytest.raises(core["Error"], match=reason):
        core["apply_steps"](core["kernel"], (core[step](*arguments),))


def test_its_constraints_are_checked(core: dict[str, Any]) -> None:
    with pytest.raises(core["Error"], match="C1"):
        core["Matmul"](*core["Block"]([core["Tensor"]((2, 3))] * 2, ["x", "w"]).args)
