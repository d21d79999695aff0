"""Random distributions: their moments, types, and the streams of nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

N = 20_000


def draw(make: Any, imported: Any, op: str, x: Any = None, **attrs: Any) -> Any:
    """The result of one node, at opset 22."""
    node = helper.make_node(op, [] if x is None else ["x"], ["y"], name="draw", **attrs)
    given = {} if x is None else {"x": (x.dtype, x.shape)}
    return imported(make([node], given, ["y"], opset=22), [] if x is None else [x])[0]


def test_uniform(make: Any, imported: Any) -> None:
    got = draw(make, imported, "RandomUniform", shape=[N], low=-1.0, high=3.0, seed=2.0)
    assert got.dtype == np.float32 and got.min() >= -1 and got.max() < 3
    assert abs(got.mean() - 1) < 0.05 and abs(got.std() - 4 / 12**0.5) < 0.05
    like = draw(make, imported, "RandomUniformLike", np.zeros((3, 5), np.float64))
    assert like.dtype == np.float64 and like.shape == (3, 5) and np.unique(like).size == 15


def test_normal(make: Any, imported: Any) -> None:
    got = draw(make, imported, "RandomNormal", shape=[N], mean=2.0, scale=0.5)
    assert abs(got.mean() - 2) < 0.02 and abs(got.std() - 0.5) < 0.02
    assert abs(np.mean(np.abs(got - 2) < 0.5) - 0.6827) < 0.02
    wanted = {"dtype": TensorProto.DOUBLE}
    like = draw(make, imported, "RandomNormalLike", np.zeros(7, np.float32), **wanted)
    assert like.dtype == np.float64 and like.shape == (7,)


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_bernoulli(make: Any, imported: Any, chance: float) -> None:
    x = np.full(N, chance, np.float32)
    got = draw(make, imported, "Bernoulli", x, dtype=TensorProto.INT32)
    assert got.dtype == np.int32 and set(np.unique(got)) <= {0, 1}
    assert abs(got.mean() - chance) < 0.02


def test_multinomial(make: Any, imported: Any) -> None:
    chances = np.array([[0.1, 0.2, 0.7], [1.0, 0.0, 0.0]])
    with np.errstate(divide="ignore"):
        x = (np.log(chances) + 5).astype(np.float32)
    got = draw(make, imported, "Multinomial", x, sample_size=N)
    assert got.dtype == np.int32 and got.shape == (2, N)
    for row, chance in zip(got, chances, strict=True):
        np.testing.assert_allclose(np.bincount(row, minlength=3) / N, chance, atol=0.02)


def test_a_seed_decides_the_numbers(make: Any, imported: Any) -> None:
    first, again, other = [
        draw(make, imported, "RandomNormal", shape=[9], seed=seed) for seed in (1.0, 1.0, 2.0)
    ]
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_nodes_without_a_seed_differ(make: Any, imported: Any) -> None:
    nodes = [helper.make_node("RandomUniform", [], [n], name=n, shape=[9]) for n in ("a", "b")]
    model = make(nodes, {}, ["a", "b"], opset=22)
    first, second = imported(model, [])
    assert (first != second).all()
    np.testing.assert_array_equal(imported(model, [])[0], first)
