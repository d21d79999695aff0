"""VNNI: a u8 x i8 GEMM whose inner step is one dot-product instruction; run on this CPU where it
has it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np
import pytest

from irc.ir.dims import sym
from irc.ir.kernel_builder import KernelBuilder
from irc.ir.ops.core import Func
from irc.ir.ops.instr import instr
from irc.ir.types import i32
from irc.passes.schedule.tensorize import Tensorize


def gemm(by_hand: bool) -> Func:
    """y[M, 16 J] = x[M, 4 Q] @ w, with w packed as [J, Q, 16, 4]; the instruction written by hand,
    or found by the schedule step in the nest that it stands for.
    """
    k = KernelBuilder("vnni", "u8[M, 4*Q]", "i8[J, Q, 16, 4]", "i32[M, 16*J]")
    x, w, y = k.args
    with k.loop("i", sym("M"), "parallel") as i, k.loop("j", sym("J")) as j:
        acc = k.alloc("i32[16]", "register")
        with k.loop("z", 16) as z:
            k.store(k.const(0, i32), acc, z)
        with k.loop("q", sym("Q"), reduction=True) as q:
            if by_hand:
                k.instr("x86.dpbusd.512", (acc, (0,)), (x, (i, 4 * q)), (w, (j, q, 0, 0)))
            else:
                with k.loop("l", 16) as lane, k.loop("g", 4, reduction=True) as g:
                    one, two = k.load(x, i, 4 * q + g), k.load(w, j, q, lane, g)
                    k.accumulate(k.mul(k.cast(one, to=i32), k.cast(two, to=i32)), acc, lane)
        with k.loop("s", 16) as s:
            k.store(k.load(acc, s), y, i, 16 * j + s)
    if not by_hand:
        Tensorize("l", "x86.dpbusd.512").apply(k.func)
    return k.func


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize(("m", "n", "depth"), [(1, 16, 4), (5, 48, 28)])
def test_gemm(m: int, n: int, depth: int, by_hand: bool, check: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (m, depth), np.uint8), rng.integers(-128, 128, (depth, n), np.int8)
    packed = w.reshape(depth // 4, 4, n // 16, 16).transpose(2, 0, 3, 1)
    want = x.astype(np.int32) @ w.astype(np.int32)
    check(gemm(by_hand), [x, np.ascontiguousarray(packed)], [want], targets=("llvm", "c"))


def test_the_step_makes_what_was_written_by_hand() -> None:
    assert str(gemm(False)) == str(gemm(True))


@pytest.mark.skipif(
    not llvm.get_host_cpu_features().get("avx512vnni"), reason="this CPU has no AVX512-VNNI"
)
def test_meaning_and_emission_agree() -> None:
    """The instruction's template, run on this CPU, gives what its meaning gives."""
    values = {"acc": "%acc", "a": "%a", "w": "%w", "t": "v."}
    lines = instr("x86.dpbusd.512").emit["llvm"].format(**values).splitlines()
    text = (
        lines[0]
        + "\ndefine void @f(ptr %acc, ptr %a, ptr %w) {\n"
        + "\n".join(lines[1:])
        + "\nret void\n}"
    )
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=llvm.get_host_cpu_name())
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
    engine.finalize_object()
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(engine.get_function_address("f"))
    rng = np.random.default_rng(0)
    acc = rng.integers(-1000, 1000, 16).astype(np.int32)
    a, w = rng.integers(0, 256, 4, np.uint8), rng.integers(-128, 128, (16, 4), np.int8)
    want = acc + w.astype(np.int32) @ a.astype(np.int32)
    call(acc.ctypes.data, a.ctypes.data, w.ctypes.data)
    np.testing.assert_array_equal(acc, want)
