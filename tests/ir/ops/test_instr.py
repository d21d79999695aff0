"""Instructions: a call, its meaning written out, and what a call may not do."""

from __future__ import annotations

import ml_dtypes  # noqa: F401  # numpy learns bf16
import numpy as np
import pytest

from irc.backends.instr import meaning
from irc.ir.dims import sym
from irc.ir.errors import Error
from irc.ir.interpret_loops import run_kernel
from irc.ir.kernel_builder import KernelBuilder
from irc.ir.ops.core import Func
from irc.ir.ops.instr import FRAGMENTS, Instr, instr, instructions
from irc.ir.ops.loop import Alloc, CallInstr
from irc.ir.types import BufferType


def held(type_: BufferType) -> bool:
    return type_.space.split(".")[0] in ("tile", "fragment")


def caller(one: Instr) -> Func:
    """A kernel that fills the operands from buffers twice as deep, calls, and copies them out."""
    shapes = [t.shape for _, t in one.operands]
    ins = [BufferType(t.dtype, (2, *s)) for (_, t), s in zip(one.operands, shapes, strict=True)]
    outs = [BufferType(t.dtype, s) for (_, t), s in zip(one.operands, shapes, strict=True)]
    k = KernelBuilder("caller", *ins, *outs, outputs=len(outs))
    calls, count = [], len(ins)
    for n, (_, t) in enumerate(one.operands):
        index = [sym(f"f{n}.{axis}") for axis in range(t.rank)]
        if not held(t):
            calls.append((k.args[n], (1, *[0] * t.rank)))
            continue
        where = k.emit(Alloc, type=t)
        nest(
            k,
            t,
            f"f{n}",
            lambda n=n, index=index, where=where: k.store(
                k.load(k.args[n], 1, *index), where, *index
            ),
        )
        calls.append((where, ()))
    k.instr(one.name, *calls)
    for n, (_, t) in enumerate(one.operands):
        index = [sym(f"g{n}.{axis}") for axis in range(t.rank)]
        where, at = calls[n][0], ((1, *index) if not held(t) else index)
        nest(
            k,
            t,
            f"g{n}",
            lambda where=where, at=at, n=n, index=index: k.store(
                k.load(where, *at), k.args[count + n], *index
            ),
        )
    return k.func


def nest(k: KernelBuilder, t: BufferType, prefix: str, body: object) -> None:
    """Loops over a window's shape around what `body` emits."""
    with k.loop(f"{prefix}.0", t.shape[0]):
        if t.rank == 1:
            body()  # type: ignore[operator]
            return
        with k.loop(f"{prefix}.1", t.shape[1]):
            body()  # type: ignore[operator]


@pytest.mark.parametrize("name", list(instructions()))
def test_a_call_equals_its_meaning_written_out(name: str) -> None:
    one = instr(name)
    func, written_out = caller(one), caller(one)
    for op in list(written_out.walk()):
        if isinstance(op, CallInstr):
            for made in meaning(op):
                op.block.insert_before(made, op)
            op.erase()
    rng = np.random.default_rng(0)
    inputs = [rng.integers(-9, 9, (2, *t.shape)).astype(t.dtype.np) for _, t in one.operands]
    results = []
    for which in (func, written_out):
        outs = [np.empty(t.shape, t.dtype.np) for _, t in one.operands]
        assert run_kernel(which, [*[x.copy() for x in inputs], *outs], check=False) == 0
        results.append(outs)
    for got, want, (_, t) in zip(*results, one.operands, strict=True):
        np.testing.assert_array_equal(got, want)
        assert t.dtype.np == got.dtype
    assert not all(np.array_equal(out, x[1]) for out, x in zip(results[0], inputs, strict=True))


def test_dpbusd_and_mma_against_numpy() -> None:
    rng = np.random.default_rng(0)
    k = KernelBuilder("one", "u8[4]", "i8[16, 4]", "i32[16]")
    k.instr("x86.dpbusd.512", (k.args[2], ()), (k.args[0], ()), (k.args[1], ()))
    a, w = rng.integers(0, 256, 4, np.uint8), rng.integers(-128, 128, (16, 4), np.int8)
    acc = rng.integers(-9, 9, 16).astype(np.int32)
    want = acc + w.astype(np.int32) @ a.astype(np.int32)
    run_kernel(k.func, [a, w, acc], written=())
    np.testing.assert_array_equal(acc, want)


def test_windows_are_checked() -> None:
    k = KernelBuilder("one", "u8[4]", "i8[15, 4]", "i32[16]")
    k.instr("x86.dpbusd.512", (k.args[2], ()), (k.args[0], ()), (k.args[1], ()))
    args = [np.zeros(4, np.uint8), np.zeros((15, 4), np.int8), np.zeros(16, np.int32)]
    with pytest.raises(Error, match=r"E0510.*\[15, 3\]"):
        run_kernel(k.func, args, written=())
    with pytest.raises(Error, match="E0406"):
        instr("x86.none")


def test_a_warp_instruction_inside_a_lane_is_refused() -> None:
    k = KernelBuilder("one", "f32[1]")
    with k.loop("b", 1, "gpu.block"), k.loop("t", 32, "gpu.thread"):
        c, a, b = (
            k.alloc(f"{d}[{n}, {m}]", f"fragment.m16n8k16.{x}")
            for x, d, n, m in (("c", "f32", 16, 8), ("a", "f16", 16, 16), ("b", "f16", 16, 8))
        )
        k.instr("nv.mma.m16n8k16.f16", (c, ()), (a, ()), (b, ()))
    with pytest.raises(Error, match="E0514.*whole warp"):
        run_kernel(k.func, [np.zeros(1, np.float32)], written=())


@pytest.mark.parametrize("name", list(FRAGMENTS))
def test_fragments_own_every_element_once(name: str) -> None:
    fragment = FRAGMENTS[name]
    owners = fragment.owners()
    assert sorted(owners) == [
        (i, j) for i in range(fragment.shape[0]) for j in range(fragment.shape[1])
    ]
    assert len(owners) == 32 * fragment.slots
