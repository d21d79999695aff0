"""Copies that cross go through registers, tile by tile, and compute what they did."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from irc.ir.core import Builder, Value
from irc.ir.dims import sym
from irc.ir.interpret import run
from irc.ir.interpret_loops import run_kernel
from irc.ir.ops.core import Func, Fused, Module, Return
from irc.ir.ops.loop import Alloc, For, Load, Store, TransposeLanes
from irc.ir.target import Target
from irc.ir.types import BufferType, TensorType, boolean, f32, f64, u8
from irc.ir.verify import verify
from irc.passes.decompose import Decompose
from irc.passes.fuse import Fuse
from irc.passes.lower.finish import finish
from irc.passes.lower.generic import LowerGeneric
from irc.passes.lower.loops import lower_fused
from irc.passes.lower.transposes import transpose_tiles
from irc.passes.schedule import transpose
from irc.passes.schedule.choose import choose

Fill = Callable[..., Value]


def crossed(fill: Fill, *types: TensorType, bits: int = 512) -> tuple[Module, Func]:
    """A module, and its only kernel as the printer gets it."""
    target = Target("t", vector_bits=bits, registers=32, fma=True, expand=True)
    func = Func.make("main", list(types))
    b = Builder(func.body)
    b.emit(Return, fill(b, *func.args))
    module = Module.make([func])
    made = LowerGeneric().run(Fuse().run(Decompose().run(module)))
    (fused,) = [op for op in made.main.walk() if isinstance(op, Fused)]
    kernel = choose(lower_fused(fused, "k"), target).kernel
    finish(kernel, target)
    verify(kernel)
    return module, kernel


def turned(kernel: Func) -> list[tuple[int, int]]:
    """Rows and results of every transpose of a kernel."""
    return [
        (len(op.rows), len(op.results)) for op in kernel.walk() if isinstance(op, TransposeLanes)
    ]


def check(module: Module, kernel: Func, *types: TensorType) -> None:
    rng = np.random.default_rng(3)
    given = [rng.integers(0, 100, t.shape).astype(t.dtype.np) for t in types]
    (want,) = run(module, given)
    out = np.zeros_like(want)
    assert run_kernel(kernel, [*given, out], check=True) == 0
    np.testing.assert_array_equal(out, want)


def swap(b: Builder, x: Value) -> Value:
    return b.transpose(x, perm=(1, 0))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("shape", "bits", "tiles"),
    [
        ((32, 48), 512, [(16, 16)]),
        ((37, 24), 512, [(16, 16), (16, 8), (8, 16), (8, 8)]),
        ((16, 37), 512, [(16, 16), (16, 8)]),
        ((17, 16), 512, [(16, 16)]),
        ((8, 12), 128, [(4, 4)]),
    ],
)
def test_tiles_and_their_tails(
    shape: tuple[int, int], bits: int, tiles: list[tuple[int, int]]
) -> None:
    type_ = TensorType(f32, shape)
    module, kernel = crossed(swap, type_, bits=bits)
    assert turned(kernel) == tiles
    check(module, kernel, type_)


@pytest.mark.parametrize(("dtype", "side"), [(f64, 8), (u8, 16)])
def test_the_side_of_a_tile_is_what_registers_hold(dtype: object, side: int) -> None:
    type_ = TensorType(dtype, (32, 32))  # type: ignore[arg-type]
    module, kernel = crossed(swap, type_)
    assert turned(kernel) == [(side, side)]
    check(module, kernel, type_)


def test_blocks_of_channels_come_apart_in_tiles() -> None:
    fill: Fill = lambda b, x: b.unpack(x, axes=(1,), blocks=(16,), shape=(2, 32, 5, 20))  # noqa: E731
    type_ = TensorType(f32, (2, 2, 5, 20, 16))
    module, kernel = crossed(fill, type_)
    assert turned(kernel) == [(16, 16), (4, 16)]
    check(module, kernel, type_)


def test_what_is_computed_on_the_way_stays_in_lanes() -> None:
    """The second operand lies as the result does; a cast comes after the turn."""

    def fill(b: Builder, x: Value, y: Value) -> Value:
        return b.add(b.cast(swap(b, x), to=f32), y)  # type: ignore[no-any-return]

    types = TensorType(u8, (32, 16)), TensorType(f32, (16, 32))
    module, kernel = crossed(fill, *types)
    assert turned(kernel) == [(16, 16)]
    check(module, kernel, *types)


@pytest.mark.parametrize(
    "type_",
    [TensorType(f32, (3, 64)), TensorType(f32, (64, 3)), TensorType(boolean, (32, 32))],
)
def test_few_rows_and_bools_are_left_alone(type_: TensorType) -> None:
    module, kernel = crossed(swap, type_)
    assert turned(kernel) == []
    check(module, kernel, type_)


def test_a_refusal_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> For:
        raise transpose.Refused("no tile")

    monkeypatch.setattr(transpose, "_copy_of", refuse)
    type_ = TensorType(f32, (32, 48))
    module, kernel = crossed(swap, type_)
    loops = [op.var for op in kernel.walk() if isinstance(op, For)]
    assert not any(".o" in v for v in loops)
    check(module, kernel, type_)


@pytest.mark.parametrize("early", [True, False])
def test_a_tile_read_otherwise_stays_a_buffer(early: bool) -> None:
    """A column that is read before all rows are written; a row that is read back."""
    func = Func.make("k", [BufferType(f32, (8, 8)), BufferType(f32, (8, 8))], kind="kernel")
    b = Builder(func.body)
    (x, y), lane = func.args, sym("l")
    tile = b.insert(Alloc(label="t", type=BufferType(f32, (2, 8), "register"))).result

    def write(k: int) -> None:
        row = b.emit(Load, x, index=(k, lane), lane="l", lanes=8)
        b.emit(Store, row, tile, index=(k, lane), lane="l")

    def read(lanes: int, *index: object) -> None:
        b.emit(Store, b.emit(Load, tile, index=index, lane="l", lanes=lanes), y,
               index=(0, lane), lane="l")  # fmt: skip

    write(0)
    if early:
        read(2, lane, 3)
    write(1)
    if not early:
        read(2, lane, 3)
        read(8, 1, lane)
    b.emit(Return)
    verify(func)
    transpose_tiles(func)
    assert turned(func) == []


@pytest.mark.parametrize("size", [3, 5])
def test_an_operand_read_by_coarser_steps_is_turned_piece_by_piece(size: int) -> None:
    """Each element of a plain cotangent serves several positions of a pool's gradient in blocks:
    it is copied with the lanes side by side, and the nest runs in vectors.
    """

    def fill(b: Builder, x: Value, g: Value) -> Value:
        packed = b.pack(g, axes=(1,), blocks=(8,))
        attrs = {"kernel": (2, 2), "strides": (2, 2), "channel_block": 8}
        return b.max_pool_grad(x, packed, **attrs)

    types = TensorType(f32, (2, 1, 2 * size, 4, 8)), TensorType(f32, (2, 8, size, 2))
    module, kernel = crossed(fill, *types, bits=256)
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(t.shape, np.float32) for t in types]
    out = np.zeros(types[0].shape, np.float32)
    assert run_kernel(kernel, [*given, out]) == 0
    np.testing.assert_array_equal(out, run(module.main, given)[0])
    pieces = [op for op in kernel.walk() if isinstance(op, Alloc)]
    assert [p.type.shape[-1] for p in pieces] == [8]
    loads = [op for op in kernel.walk() if isinstance(op, Load) and op.lanes == 8]
    assert len([op for op in loads if op.source is kernel.args[0]]) == 4
