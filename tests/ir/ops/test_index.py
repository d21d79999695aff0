"""Gathers with negative and wrong indices, one-hot, top-k with ties and NaN by its own loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irc.ir.core import OPS
from irc.ir.dims import sym
from irc.ir.errors import Error
from irc.ir.ops.core import Func
from irc.ir.ops.index import Gather
from irc.ir.types import parse_type


def test_gather_counts_negative_indices_from_the_end(apply: Any) -> None:
    x = np.arange(12.0).reshape(4, 3)
    index = np.array([[0, -1], [-4, 3]], np.int32)
    np.testing.assert_array_equal(apply("gather", x, index), x[index])
    np.testing.assert_array_equal(apply("gather", x, index % 3, axis=1), x[:, index % 3])
    got = apply("gather", x, index, types=["f64[N, 3]", "i32[2, 2]"])
    np.testing.assert_array_equal(got, x[index])


@pytest.mark.parametrize("bad", [4, -5])
def test_gather_out_of_range(apply: Any, bad: int) -> None:
    with pytest.raises(Error, match=f"gather: index {bad} is out of range") as caught:
        apply("gather", np.zeros((4, 3)), np.array([0, bad]))
    assert caught.value.code == "E0503" and "4 elements" in caught.value.render()


def test_take_refuses_negative_indices(apply: Any) -> None:
    with pytest.raises(Error, match="index -1 is out of range"):
        apply("take", np.zeros((4, 3)), np.array([-1]))
    assert (
        str(Gather.infer(parse_type("f32[N, M]"), parse_type("i64[K, 2]"), axis=1))
        == "f32[N, K, 2]"
    )


def test_gather_elements_like_numpy(apply: Any) -> None:
    x = np.random.default_rng(0).standard_normal((4, 5))
    index = np.random.default_rng(1).integers(-5, 5, (4, 7))
    got = apply("gather_elements", x, index, axis=1)
    np.testing.assert_array_equal(got, np.take_along_axis(x, index, 1))


def test_one_hot_depth_beyond_the_index_type(apply: Any) -> None:
    index = np.array([0, 200, 255], np.uint8)
    got = apply("one_hot", index, depth=300)
    assert got.shape == (3, 300) and got.sum() == 3 and got[1, 200]
    got = apply("one_hot", np.array([-1, 5, 2]), types=["i64[K]"], depth=sym("K"), axis=0)
    np.testing.assert_array_equal(got, [[0, 0, 0], [0, 0, 0], [1, 0, 1]])


def test_iota_with_symbolic_extents(apply: Any) -> None:
    x = np.zeros((5, 2), np.float32)
    got = apply("add", x, x, types=["f32[N, 2]"] * 2)  # binds N for the interpreter
    assert got.shape == (5, 2)
    np.testing.assert_array_equal(apply("iota", shape=(2, 3), axis=1), [[0, 1, 2]] * 2)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_top_k_is_stable(apply: Any, largest: bool, k: int) -> None:
    x = np.random.default_rng(2).integers(0, 4, (5, 8)).astype(np.int16)
    values, indices = apply("top_k", x, k=k, largest=largest)
    for row, found, at in zip(x, values, indices):
        order = sorted(range(8), key=lambda j: (-row[j] if largest else row[j], j))[:k]
        assert list(at) == order and list(found) == list(row[order])


def test_top_k_counts_nan_as_the_greatest(apply: Any) -> None:
    x = np.array([[1, np.nan, 3, np.nan, -np.inf]], np.float32)
    assert apply("top_k", x, k=4)[1].tolist() == [[1, 3, 2, 0]]
    assert apply("top_k", x, k=4, largest=False)[1].tolist() == [[4, 0, 2, 1]]


def test_top_k_along_an_outer_axis(apply: Any) -> None:
    x = np.random.default_rng(3).standard_normal((6, 2, 3)).astype(np.float32)
    values, indices = apply("top_k", x, k=2, axis=0)
    np.testing.assert_array_equal(values, -np.sort(-x, axis=0)[:2])
    np.testing.assert_array_equal(np.take_along_axis(x, indices, 0), values)


def test_axes_are_held_counted_from_the_front() -> None:
    x = Func.make("f", [parse_type("f32[2, 3, 4]"), parse_type("i64[2]")]).args
    made = [
        OPS["concat"](x[0], x[0], axis=-1),
        OPS["gather"](*x, axis=-2),
        OPS["one_hot"](x[1], depth=3),
        OPS["iota"](shape=(2, 3), axis=-1),
        OPS["top_k"](x[0], k=1),
    ]
    assert [op.attributes["axis"] for op in made] == [2, 1, 1, 1, 2]
