"""Einsum of one to four terms against numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from irc.ir.errors import Error

EXTENTS = {"b": 2, "h": 3, "i": 4, "j": 5, "k": 6, "d": 7}


@pytest.mark.parametrize(
    "equation",
    [
        "ij->ji", "ii->i", "ij->", "ij,jk->ik", "bhid,bhjd->bhij", "bhij,bhjd->bihd", "i,j->ij",
        "ij,ij->", "ij,jk,kd->id", "b,bij,bjk->bik", "ij,jk,kd,di->", "i,i,i->i", "ij,k->ij",
        "ij,jk,k", "bii,bij->bj", "...ij,...jk->...ik", "bij,bjk,bi->k",
    ],
)  # fmt: skip
def test_against_numpy(equation: str, make: Any, imported: Any) -> None:
    rng = np.random.default_rng(0)
    terms = equation.partition("->")[0].split(",")
    shapes = [[EXTENTS[c] for c in t.replace("...", "bh")] for t in terms]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    names = [f"x{k}" for k in range(len(arrays))]
    node = helper.make_node("Einsum", names, ["y"], equation=equation)
    given = {name: (np.float32, a.shape) for name, a in zip(names, arrays, strict=True)}
    (got,) = imported(make([node], given, ["y"]), arrays)
    want = np.einsum(equation, *[a.astype(np.float64) for a in arrays])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_extents_of_one_broadcast(make: Any, imported: Any) -> None:
    x, y = np.ones((1, 3), np.float32), np.arange(8, dtype=np.float32).reshape(4, 2)
    node = helper.make_node("Einsum", ["x", "y"], ["z"], equation="ij,ik->ijk")
    model = make([node], {"x": (np.float32, (1, 3)), "y": (np.float32, (4, 2))}, ["z"])
    (got,) = imported(model, [x, y])
    np.testing.assert_array_equal(got, x[..., None] * y[:, None])


@pytest.mark.parametrize("equation", ["ij,jk->ii", "ij->i", "ijk,jk->i"])
def test_what_does_not_fit(equation: str, make: Any, imported: Any) -> None:
    x = np.ones((3, 3), np.float32)
    node = helper.make_node("Einsum", ["x", "y"], ["z"], equation=equation)
    model = make([node], dict.fromkeys("xy", (np.float32, (3, 3))), ["z"])
    with pytest.raises(Error) as caught:
        imported(model, [x, x])
    assert caught.value.code == "E0313"
