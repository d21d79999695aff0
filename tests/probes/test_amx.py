"""AMX: an int8 GEMM on 16 x 16 tiles with the requantization fused into it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np
import pytest

from irc.backends.llvm.emit import emit_module
from irc.ir.dims import ceildiv, sym
from irc.ir.kernel_builder import KernelBuilder
from irc.ir.ops.core import Func
from irc.ir.ops.instr import instr, instructions
from irc.ir.types import i8, i64


def gemm() -> Func:
    """y = clip(round(x @ w * multiplier / 2^shift) + zero); w in rows of 16 groups of 4."""
    k = KernelBuilder("amx", "i8[M, K]", "i8[JT, KT, 16, 64]", "i32[N]", "i8[M, N]")
    x, w, multiplier, y = k.args
    m, n, depth = sym("M"), sym("N"), sym("K")
    with k.loop("it", ceildiv(m, 16), "parallel") as it, k.loop("jt", ceildiv(n, 16)) as jt:
        c, a, b = (
            k.alloc("i32[16, 16]", "tile"),
            k.alloc("i8[16, 64]", "tile"),
            k.alloc("i8[16, 64]", "tile"),
        )
        stage, acc = k.alloc("i8[16, 64]", "stack", "stage"), k.alloc("i32[16, 16]", "stack", "acc")
        k.instr("x86.tilezero", (c, ()))
        with k.loop("kt", ceildiv(depth, 64), reduction=True) as kt:
            with k.loop("r", 16) as r, k.loop("q", 64) as q:
                row, column = it * 16 + r, kt * 64 + q
                inside = (m - 1 - row, depth - 1 - column)
                k.store(k.load(x, row, column, where=inside, fill=0), stage, r, q)
            k.instr("x86.tileloadd.i8", (stage, (0, 0)), (a, ()))
            k.instr("x86.tileloadd.i8", (w, (jt, kt, 0, 0)), (b, ()))
            k.instr("x86.tdpbssd", (c, ()), (a, ()), (b, ()))
        k.instr("x86.tilestored", (c, ()), (acc, (0, 0)))
        with k.loop("i", 16) as i, k.loop("j", 16) as j:
            row, column = it * 16 + i, jt * 16 + j
            with k.guard(m - 1 - row, n - 1 - column):
                wide = k.mul(
                    k.cast(k.load(acc, i, j), to=i64), k.cast(k.load(multiplier, column), to=i64)
                )
                scaled = k.shift_right(k.add(wide, k.const(1 << 19, i64)), k.const(20, i64))
                low, high = k.const(-128, i64), k.const(127, i64)
                k.store(k.cast(k.min(k.max(scaled, low), high), to=i8), y, row, column)
    return k.func


@pytest.mark.parametrize(("m", "n", "depth"), [(16, 16, 64), (19, 21, 70)])
def test_gemm_with_fused_requantize(m: int, n: int, depth: int, check: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    x, w = (
        rng.integers(-128, 128, (m, depth), np.int8),
        rng.integers(-128, 128, (depth, n), np.int8),
    )
    multiplier = rng.integers(100, 900, n).astype(np.int32)
    jt, kt = -(-n // 16), -(-depth // 64)
    padded = np.zeros((kt * 64, jt * 16), np.int8)
    padded[:depth, :n] = w
    packed = padded.reshape(kt, 16, 4, jt, 16).transpose(3, 0, 1, 4, 2).reshape(jt, kt, 16, 64)
    wide = x.astype(np.int64) @ w.astype(np.int64) * multiplier
    want = np.clip((wide + (1 << 19)) >> 20, -128, 127).astype(np.int8)
    targets = ("c", "llvm") if has_amx() else ("c",)
    check(gemm(), [x, np.ascontiguousarray(packed), multiplier], [want], targets=targets, seeds=1)


def has_amx() -> bool:
    """This CPU has AMX, and Linux lets this process use it (arch_prctl ARCH_REQ_XCOMP_PERM)."""
    present = llvm.get_host_cpu_features().get("amx-int8", False)
    return bool(present) and ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0


def assembly(text: str) -> str:
    """LLVM text as assembly of a processor that has AMX."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple("x86_64-linux-gnu")
    machine = target.create_target_machine(cpu="sapphirerapids", opt=2)
    return str(machine.emit_assembly(llvm.parse_assembly(text)))


def test_the_kernel_assembles_to_tile_instructions() -> None:
    text = assembly(emit_module([gemm()]))
    for mnemonic, count in (("tilezero", 1), ("tileloadd", 2), ("tdpbssd", 1), ("tilestored", 1)):
        assert len(re.findall(rf"^\s*{mnemonic}\b", text, re.M)) == count, mnemonic


@pytest.mark.parametrize("name", [n for n in instructions() if n.startswith("x86")])
def test_emission_is_one_instruction(name: str) -> None:
    """Each x86 template, between nothing but loads and stores, becomes the instruction it names."""
    one = instr(name)
    values = {
        k: v
        for n, (operand, _) in enumerate(one.operands)
        for k, v in (
            (operand, f"%{operand}"),
            (f"{operand}.stride", "64"),
            (f"{operand}.tile", str(n)),
        )
    }
    lines = re.sub(
        r"\{([\w.]+)\}", lambda found: values.get(found[1], "v."), one.emit["llvm"]
    ).splitlines()
    declared = "\n".join([line for line in lines if line.startswith("declare")])
    body = "\n".join([line for line in lines if not line.startswith("declare")])
    pointers = ", ".join([f"ptr %{operand}" for operand, _ in one.operands])
    text = assembly(f"{declared}\ndefine void @f({pointers}) {{\n{body}\nret void\n}}")
    mnemonic = {"x86.dpbusd.512": "vpdpbusd", "x86.dpbusd.256": "vpdpbusd"}.get(
        name, name.split(".")[1]
    )
    assert len(re.findall(rf"^\s*(?:{{vex}}\s+)?{mnemonic}\b", text, re.M)) == 1, text
