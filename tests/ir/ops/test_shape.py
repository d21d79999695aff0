"""Reshape maps, slices, pads and concatenation against numpy; packing; symbolic dims."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest

from irc.ir.core import Block, Builder
from irc.ir.dims import evaluate, sym
from irc.ir.errors import Error
from irc.ir.interpret_loops import run_kernel
from irc.ir.ops.core import Fused, Yield
from irc.ir.ops.layout import Pack, Unpack
from irc.ir.ops.shape import Concat, Reshape, Slice, reshape_map
from irc.ir.types import parse_type
from irc.passes.lower.loops import lower_fused


def factored(rng: random.Random, size: int) -> tuple[int, ...]:
    """A random shape of this many elements, with ones in it."""
    shape: list[int] = []
    while size > 1:
        factor = rng.choice([d for d in range(2, size + 1) if size % d == 0])
        shape.append(factor)
        size //= factor
    for _ in range(rng.randrange(3)):
        shape.insert(rng.randrange(len(shape) + 1), 1)
    return tuple(shape)


def test_reshape_maps_of_random_shapes(apply: Any) -> None:
    rng = random.Random(0)
    for _ in range(60):
        size = rng.choice([1, 6, 12, 24, 36, 30])
        source, target = factored(rng, size), factored(rng, size)
        x = np.arange(size, dtype=np.int32).reshape(source)
        np.testing.assert_array_equal(apply("reshape", x, shape=target), x.reshape(target))


@pytest.mark.parametrize(
    ("source", "target", "wanted"),
    [
        ((2, 3, 4), (6, 4), ["i0 // 3", "i0 % 3", "i1"]),
        ((6, 4), (2, 3, 4), ["3*i0 + i1", "i2"]),
        ((5, 1, 7), (5, 7), ["i0", "0", "i1"]),
        ((4, 6), (4, 2, 3), ["i0", "3*i1 + i2"]),
        ((4, 6), (8, 3), ["i0 // 2", "3*(i0 % 2) + i1"]),
    ],
)  # fmt: skip
def test_reshape_maps_are_as_simple_as_can_be(source: Any, target: Any, wanted: list[str]) -> None:
    found = reshape_map(source, target, [sym(f"i{k}") for k in range(len(target))])
    for got, want in zip(found, wanted):
        if str(got) != want:
            assert len(str(got)) <= len(want), (str(got), want)
    for point in itertools.product(*[range(e) for e in target]):
        env = {f"i{k}": v for k, v in enumerate(point)}
        flat = np.ravel_multi_index([evaluate(e, env) for e in found], source)
        assert flat == np.ravel_multi_index(point, target)


def test_reshape_of_symbolic_shapes(apply: Any) -> None:
    n = sym("N")
    found = reshape_map((n, 4, 8), (n * 4, 8), [sym("a"), sym("b")])
    assert [str(e) for e in found] == ["a // 4", "a % 4", "b"]
    found = reshape_map((n, 12, 8), (n, 3, 4, 8), [sym(c) for c in "abcd"])
    assert [str(e) for e in found] == ["a", "4*b + c", "d"]
    x = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    got = apply("reshape", x, types=["f32[N, 2, M]"], shape=(n * 2, sym("M")))
    np.testing.assert_array_equal(got, x.reshape(6, 4))
    with pytest.raises(Error, match=r"reshape \(C1\)"):
        Reshape.infer(parse_type("f32[N, 2]"), (n * 2 + 1,))


def test_slices_like_numpy(apply: Any) -> None:
    x = np.arange(35).reshape(5, 7)
    got = apply("slice", x, starts=(4, 6), sizes=(3, 4), steps=(-2, -2))
    np.testing.assert_array_equal(got, x[4::-2, 6::-2])
    n = sym("N")
    got = apply("slice", x, types=["i64[N, 7]"], starts=(1, 0), sizes=(n - 1, 7))
    np.testing.assert_array_equal(got, x[1:])
    got = apply("slice", x, types=["i64[N, 7]"], starts=(n - 1, 0), sizes=(n, 7), steps=(-1, 1))
    np.testing.assert_array_equal(got, x[::-1])
    with pytest.raises(Error, match=r"slice \(C2\)"):
        Slice.infer(parse_type("f32[N]"), (0,), (n + 1,), ())


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize(("low", "high"), [((0, 2), (1, 0)), ((3, 0), (2, 3)), ((5, 1), (7, 9))])
def test_pads_like_numpy(apply: Any, mode: str, low: Any, high: Any) -> None:
    x = np.arange(12.0).reshape(3, 4)
    got = apply("pad", x, low=low, high=high, mode=mode)
    np.testing.assert_array_equal(got, np.pad(x, list(zip(low, high)), mode=mode))
    got = apply("pad", x, types=["f64[N, M]"], low=low, high=high, mode=mode)
    np.testing.assert_array_equal(got, np.pad(x, list(zip(low, high)), mode=mode))


def test_negative_pads_crop(apply: Any) -> None:
    x = np.arange(20).reshape(4, 5)
    got = apply("pad", x, low=(-1, 2), high=(1, -3), value=9)
    np.testing.assert_array_equal(got, np.pad(x[1:, :2], ((0, 1), (2, 0)), constant_values=9))
    got = apply("pad", x, low=(-3, -2), high=(1, -1), mode="reflect")
    assert got.shape == (2, 2) and got[0, 0] == x[3, 2]
    assert got[1, 0] == x[2, 2]  # the mirror shows what was cropped


def test_concat_by_its_loops(apply: Any) -> None:
    parts = [np.random.default_rng(k).standard_normal((2, k, 3)) for k in (1, 0, 4)]
    np.testing.assert_array_equal(apply("concat", *parts, axis=-2), np.concatenate(parts, 1))
    types = [parse_type("f32[N, 3]"), parse_type("f32[M, 3]"), parse_type("f32[2, 3]")]
    assert str(Concat.infer(*types, axis=0)) == "f32[M + N + 2, 3]"
    assert str(Concat.infer(types[0], parse_type("f32[4, 3]"), axis=1)) == "f32[4, 6]"


def test_broadcast_and_dims(apply: Any) -> None:
    x = np.arange(3.0, dtype=np.float32).reshape(3, 1)
    got = apply("broadcast_to", x, types=["f32[N, 1]"], shape=(2, sym("N"), 4))
    np.testing.assert_array_equal(got, np.broadcast_to(x, (2, 3, 4)))
    with pytest.raises(Error, match=r"broadcast_to \(C1\)"):
        apply("broadcast_to", np.zeros((3, 2), np.float32), shape=(3, 4))


@pytest.mark.parametrize("order", [(), (1, 0, 3, 2), (3, 2, 0, 1)])
def test_pack_and_back(apply: Any, order: Any) -> None:
    x = np.random.default_rng(1).standard_normal((13, 10))
    packed = apply("pack", x, axes=(1, 0), blocks=(4, 8), order=order)
    assert packed.size == 16 * 12 and math.isclose(packed.sum(), x.sum())
    plain = packed.transpose(np.argsort(order)) if order else packed
    for i, j in itertools.product(range(16), range(12)):
        want = x[i, j] if i < 13 and j < 10 else 0
        assert plain[i // 8, j // 4, j % 4, i % 8] == want
    back = apply("unpack", packed, axes=(1, 0), blocks=(4, 8), shape=(13, 10), order=order)
    np.testing.assert_array_equal(back, x)


def test_packing_symbolic_extents(apply: Any) -> None:
    found = Pack.infer(parse_type("f32[N, C]"), (1,), (16,), ())
    assert str(found) == "f32[N, (C + 15) // 16, 16]"
    back = Unpack.infer(found, (1,), (16,), (sym("N"), sym("C")), ())
    assert str(back) == "f32[N, C]"
    x = np.arange(14, dtype=np.int8).reshape(2, 7)
    got = apply("pack", x, types=["i8[N, C]"], axes=(1,), blocks=(4,))
    np.testing.assert_array_equal(got, np.pad(x, ((0, 0), (0, 1))).reshape(2, 2, 4))


def test_flattening_symbolic_extents_in_loops() -> None:
    """Divisors that are products: x of shape [N, 6, M] read at i // (6*M), (i // M) % 6, i % M."""
    x = np.arange(120, dtype=np.float32).reshape(4, 6, 5)
    block = Block([parse_type("f32[N, 6, M]")])
    b = Builder(block)
    b.emit(Yield, b.reshape(block.args[0], shape=(sym("N") * 6 * sym("M"),)))
    op = block.first
    op.replace_by((op.generic(Builder(block, before=op), *op.operands),))  # type: ignore[union-attr]
    outer = Block([parse_type("f32[N, 6, M]")])
    kernel = lower_fused(Fused(*outer.args, regions=[block]), "k")
    out = np.zeros(120, np.float32)
    assert run_kernel(kernel, [x, out], check=True) == 0
    np.testing.assert_array_equal(out, x.reshape(-1))
