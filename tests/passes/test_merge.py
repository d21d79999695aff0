"""Merging generics: index maps compose, guards survive, nothing costly is done twice."""

import numpy as np
import pytest

from irc.ir.core import Builder, Value
from irc.ir.interpret import run
from irc.ir.ops.core import Const, Func, Fused, Generic, Module, Return
from irc.ir.types import TensorType, f32, i64
from irc.ir.verify import verify
from irc.passes.fuse import Fuse
from irc.passes.lower.generic import LowerGeneric


def generics(fill: object, *shapes: tuple[int, ...]) -> list[Generic]:
    """The generics of the program, whose result is compared with the one before."""
    func = Func.make("main", [TensorType(f32, s) for s in shapes])
    b = Builder(func.body)
    b.emit(Return, fill(b, *func.args))  # type: ignore[operator]
    module = Module.make([func])
    rng = np.random.default_rng(0)
    feeds = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    wanted = run(module, feeds)[0]
    module = LowerGeneric().run(Fuse().run(module))
    verify(module)
    np.testing.assert_allclose(run(module, feeds)[0], wanted, rtol=1e-5, atol=1e-6)
    return [
        op for op in module.walk() if isinstance(op, Generic) and isinstance(op.parent_op, Fused)
    ]


def test_a_chain_becomes_one() -> None:
    def fill(b: Builder, x: Value, y: Value) -> Value:
        half = b.insert(Const(np.float32(0.5).reshape(()))).result
        return b.exp(b.mul(b.add(b.transpose(x, perm=(1, 0)), y), half))

    (only,) = generics(fill, (4, 3), (3, 4))
    assert [[str(e) for e in m] for m in only.maps] == [["i1", "i0"], ["i0", "i1"]]
    assert [op.name for op in only.body] == ["const", "add", "mul", "exp", "yield"]


def test_a_pad_is_a_guard_of_a_convolution() -> None:
    """Both fills are zero: positions in the pad or beyond it read zero."""

    def fill(b: Builder, x: Value) -> Value:
        w = b.insert(Const(np.ones((1, 1, 2, 2), np.float32))).result
        return b.conv(b.pad(x, low=(0, 0, 1, 0), high=(0, 0, 0, 2)), w, pads=(1, 1, 1, 1))

    (only,) = generics(fill, (1, 1, 3, 3))
    assert only.fills[0] == 0


def test_another_fill_is_no_such_guard() -> None:
    def fill(b: Builder, x: Value) -> Value:
        w = b.insert(Const(np.ones((1, 1, 2, 2), np.float32))).result
        return b.conv(
            b.pad(x, low=(0, 0, 1, 0), high=(0, 0, 0, 2), value=3.0), w, pads=(1, 1, 1, 1)
        )

    assert len(generics(fill, (1, 1, 3, 3))) == 2


def test_a_pad_after_a_slice_keeps_the_bounds_of_the_slice() -> None:
    """What the slice left out must not come back through the pad."""

    def fill(b: Builder, x: Value) -> Value:
        middle = b.slice(x, starts=(2,), sizes=(3,))
        return b.neg(b.pad(middle, low=(1,), high=(1,), value=7.0))

    (only,) = generics(fill, (8,))
    assert only.where and only.fills == (7.0,)


def test_the_index_of_a_gather_stays_an_operand() -> None:
    def fill(b: Builder, x: Value) -> Value:
        at = b.insert(Const(np.array([[2], [0]]))).result
        two = b.insert(Const(np.array([[1], [1]]))).result
        assert at.type is TensorType(i64, (2, 1))
        return b.exp(b.take(b.transpose(x, perm=(1, 0)), b.add(at, two), axis=0))

    made = generics(fill, (5, 4))
    assert len(made) == 2 and made[-1].body.last is not None


def test_a_softmax_keeps_its_exponentials() -> None:
    def fill(b: Builder, x: Value) -> Value:
        e = b.exp(b.sub(x, b.reduce_max(x, axes=(1,), keepdims=True)))
        return b.div(e, b.reduce_sum(e, axes=(1,), keepdims=True))

    assert len(generics(fill, (3, 5))) == 4


@pytest.mark.parametrize("merge", [True, False])
def test_merging_can_be_switched_off(merge: bool) -> None:
    func = Func.make("main", [TensorType(f32, (4,))])
    b = Builder(func.body)
    b.emit(Return, b.neg(b.exp(func.args[0])))
    module = LowerGeneric(merge=merge).run(Fuse().run(Module.make([func])))
    count = sum([isinstance(op, Generic) for op in module.walk()])
    assert count == (1 if merge else 2)


@pytest.mark.parametrize("kept", [True, False])
def test_a_gathered_dimension_keeps_its_extent(kept: bool) -> None:
    """The index is checked against the extent: of a padded dimension it is another one."""

    def fill(b: Builder, x: Value, k: Value) -> Value:
        at = b.cast(b.abs(k), to=i64)
        pads = (0, 1) if kept else (1, 0)
        return b.take(b.pad(x, low=pads, high=pads), at, axis=0)

    made = generics(fill, (3, 3), (2,))
    reads = [op for op in made if any(["_v0" in str(m) for m in op.maps])]
    assert [str(e) for e in reads[0].maps[1]][0] == "_v0"
