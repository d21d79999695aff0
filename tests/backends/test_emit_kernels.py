"""Hand-built kernels through the LLVM emitter and through the C printer, compared with numpy."""

from __future__ import annotations

import ctypes
import dataclasses
import mmap
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from emit_cases import (
    CASES,
    CFLAGS,
    Array,
    Case,
    N,
    buf,
    call,
    case,
    check,
    floats,
    gemm_tile,
    i,
    k,
    kernel,
    lane,
    load_c,
    load_llvm,
    loop_over,
    num,
    packed,
    rng,
)

from irc.backends.c.printer import emit_blob
from irc.backends.c.printer import emit_module as emit_c
from irc.backends.cpu.host import codegen_target, present_features
from irc.backends.llvm.compile import CodegenTarget, assembly
from irc.backends.llvm.emit import emit_module
from irc.ir.blobs import Blob
from irc.ir.core import Builder
from irc.ir.dims import evaluate
from irc.ir.errors import UnsupportedError
from irc.ir.kernel_abi import dim_parameters
from irc.ir.ops import compare, convert, elementwise, loop  # noqa: F401
from irc.ir.ops.core import Func
from irc.ir.types import (
    bf16,
    f32,
    i8,
    i32,
    u8,
)


def dot(lanes: int) -> Case:
    """u8 times i8, four at a time, against the same sum in numpy."""
    f, b, (x, w, y) = kernel("dot", buf(u8, 3, 4), buf(i8, 3, lanes, 4), buf(i32, lanes))
    with loop_over(b, "k", 3) as b1:
        b1.emit(
            loop.CallInstr,
            y,
            x,
            w,
            instr=f"x86.dpbusd.{32 * lanes}",
            index=((0,), (k, 0), (k, 0, 0)),
        )
    a = rng.integers(0, 256, (3, 4)).astype(np.uint8)
    c = rng.integers(-128, 128, (3, lanes, 4)).astype(np.int8)
    want = 5 + (a[:, None].astype(np.int32) * c).sum((0, 2))
    return Case([f], [a, c, np.full(lanes, 5, np.int32)], [a, c, want.astype(np.int32)])


def tile_gemm() -> Func:
    """One AMX tile: 16 x 128 times 128 x 16 (B packed by fours), int8 into int32."""
    f, b, (x, w, y) = kernel("amx", buf(i8, 16, 128), buf(i8, 32, 64), buf(i32, 16, 16))
    shapes = [(i32, 16), (i8, 64), (i8, 64)]
    acc, p, q = [b.emit(loop.Alloc, label="t", type=buf(t, 16, c, space="tile")) for t, c in shapes]
    b.emit(loop.CallInstr, acc, instr="x86.tilezero", index=((),))
    with loop_over(b, "k", 2) as b1:
        b1.emit(loop.CallInstr, x, p, instr="x86.tileloadd.i8", index=((0, k * 64), ()))
        b1.emit(loop.CallInstr, w, q, instr="x86.tileloadd.i8", index=((k * 16, 0), ()))
        b1.emit(loop.CallInstr, acc, p, q, instr="x86.tdpbssd", index=((),) * 3)
    b.emit(loop.CallInstr, acc, y, instr="x86.tilestored", index=((), (0, 0)))
    return f


@case
def amx_tile() -> Case:
    """Through C by its meaning; LLVM's text needs the machine, see test_amx_assembles."""
    a, c = (
        rng.integers(-128, 128, (16, 128)).astype(np.int8),
        rng.integers(-128, 128, (128, 16)).astype(np.int8),
    )
    packed = np.ascontiguousarray(c.reshape(32, 4, 16).transpose(0, 2, 1)).reshape(32, 64)
    want = a.astype(np.int32) @ c.astype(np.int32)
    return Case(
        [tile_gemm()], [a, packed, np.zeros((16, 16), np.int32)], [a, packed, want], targets="c"
    )


@case
def values_outlive_stores() -> Case:
    """What was read before a store keeps its value, alone and inside an expression."""
    f, b, (x, y) = kernel("swap", buf(f32, 3), buf(f32, 3))
    first, second = b.emit(loop.Load, x, index=(0,)), b.emit(loop.Load, x, index=(1,))
    total = b.add(second, num(b, 1.0))
    b.emit(loop.Store, num(b, 7.0), x, index=(0,))
    b.emit(loop.Store, num(b, 8.0), x, index=(1,))
    b.emit(loop.Store, first, y, index=(0,))
    b.emit(loop.Store, total, y, index=(1,))
    b.emit(loop.Store, b.emit(loop.Load, x, index=(1,)), y, index=(2,))
    a = np.float32([1, 2, 3])
    return Case([f], [a, np.zeros(3, np.float32)], [np.float32([7, 8, 3]), np.float32([1, 3, 8])])


@case
def constant_masks() -> Case:
    """Guards that only the lane decides."""
    f, b, (x, y) = kernel("some", buf(f32, 8), buf(f32, 8))
    v = b.emit(loop.Load, x, index=(lane,), where=(lane * 2 - 3,), fill=9.0, lane="lane", lanes=8)
    b.emit(loop.Store, v, y, index=(lane,), where=(13 - lane * 2,), lane="lane")
    a = floats(8)
    want = np.r_[np.float32([9, 9]), a[2:7], np.float32(0)]
    return Case([f], [a, np.zeros(8, np.float32)], [a, want], targets="llvm")


@case
def plan_stops_on_failure() -> Case:
    f, b, (x,) = kernel("fails", buf(f32, 1))
    b.emit(loop.Fail, status=loop.STATUS_ARENA)
    p, b, (x,) = kernel("net", buf(f32, 1), kind="plan")
    b.emit(loop.Call, x, callee="fails")
    b.emit(loop.Call, x, callee="fails")
    return Case(
        [f, p], [np.zeros(1, np.float32)], [np.zeros(1, np.float32)], status=loop.STATUS_ARENA
    )


@pytest.mark.parametrize("name", list(CASES))
def test_llvm(name: str) -> None:
    check(CASES[name](), "llvm")


@pytest.mark.parametrize("name", [n for n, make in CASES.items() if "c" in make().targets.split()])
def test_c(name: str) -> None:
    check(CASES[name](), "c")


@pytest.mark.parametrize(
    ("triple", "features"),
    [
        ("aarch64-linux-gnu", "+neon"),
        ("thumbv7em-none-eabihf", "+vfp4d16sp"),
        ("riscv64-linux-gnu", "+f,+d"),
        ("x86_64-linux-gnu", "+avx2,+fma,+f16c"),
        ("x86_64-linux-gnu", ""),
    ],
)
def test_other_machines(triple: str, features: str) -> None:
    """The same text assembles for machines without these vectors."""
    funcs = []
    for name, make in CASES.items():
        made = make()
        if len(made.funcs) == 1 and "llvm" in made.targets.split():
            made.funcs[0].set_attr("sym", f"case_{name}")
            funcs += made.funcs
    target = CodegenTarget(triple, features=features, abi="lp64d" if "riscv" in triple else "")
    text = assembly(emit_module(funcs), target)
    assert all(f"case_{name}:" in text for name in ("copy", "gemm_naive", "masked_tail"))


def test_amx_assembles() -> None:
    """The tile kernel becomes the instructions it names, configured once and released."""
    target = dataclasses.replace(
        codegen_target(), cpu="sapphirerapids", features="+amx-tile,+amx-int8"
    )
    text = assembly(emit_module([tile_gemm()]), target)
    for name, times in (
        ("ldtilecfg", 1),
        ("tilezero", 1),
        ("tileloadd", 4),
        ("tdpbssd", 2),
        ("tilestored", 1),
        ("tilerelease", 1),
    ):
        assert text.count(f"\t{name}") == times, name  # the loop of two, unrolled


@pytest.mark.skipif(
    "avx512vnni" not in present_features(codegen_target()), reason="this CPU has no AVX-512 VNNI"
)
@pytest.mark.parametrize("lanes", [8, 16])
def test_vnni(lanes: int) -> None:
    """The instruction and its meaning give the same sums, and it is that instruction."""
    check(dot(lanes), "llvm")
    check(dot(lanes), "c")
    text = assembly(emit_module(dot(lanes).funcs, vector_bits=512), codegen_target())
    assert text.count("vpdpbusd\t") == 3  # the loop of three, unrolled


class _Context(ctypes.Structure):
    _fields_ = [("parallel_for", ctypes.c_void_p), ("host_call", ctypes.c_void_p)]


def test_parallel_loops_ask_the_context() -> None:
    """The hook gets the iterations, may run them in any order, and its status is the kernel's."""
    made = CASES["parallel_loop"]()
    address = load_llvm(made.funcs)("par")
    body_type = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64)
    hook_type = ctypes.CFUNCTYPE(
        ctypes.c_int32, ctypes.c_void_p, body_type, ctypes.c_void_p, ctypes.c_int64
    )
    asked = []

    def hook(ctx: int, body: Any, arg: int, n: int) -> int:
        asked.append(n)
        return sum(body(arg, index) for index in reversed(range(n)))

    held = hook_type(hook)
    context = _Context(ctypes.cast(held, ctypes.c_void_p), None)
    assert call(address, made.arrays, [9], ctypes.addressof(context)) == 0
    assert asked == [8, 8]
    np.testing.assert_array_equal(made.arrays[2], made.want[2])
    failing = hook_type(lambda *_: loop.STATUS_ARENA)
    context.parallel_for = ctypes.cast(failing, ctypes.c_void_p)
    assert call(address, made.arrays, [9], ctypes.addressof(context)) == loop.STATUS_ARENA
    context.parallel_for = None
    made = CASES["parallel_loop"]()
    assert call(address, made.arrays, [9], ctypes.addressof(context)) == 0
    np.testing.assert_array_equal(made.arrays[2], made.want[2])


def test_parallel_bodies_take_scalars_and_vectors() -> None:
    """Captures of every size, and a status from inside."""
    f, b, (x, y) = kernel("par", buf(f32, 16), buf(f32, 4, 16))
    v = b.emit(loop.Load, x, index=(lane,), lane="lane", lanes=16)
    flag = b.gt(b.emit(loop.Load, x, index=(0,)), num(b, 0.0))
    small = b.cast(b.emit(loop.Load, x, index=(1,)), to=i8)
    with loop_over(b, "i", 4, kind="parallel") as b1:
        scale = b1.emit(loop.Splat, b1.where(flag, b1.cast(small, to=f32), num(b1, 0.0)), lanes=16)
        b1.emit(loop.Store, b1.mul(v, scale), y, index=(i, lane), lane="lane")
        when = b1.insert(
            loop.When(
                b1.lt(b1.cast(small, to=f32), num(b1, 0.0)),
                regions=[type(f.body)(), type(f.body)()],
            )
        )
        Builder(when.then).emit(loop.Fail, status=loop.STATUS_SHAPE)
    address = load_llvm([f])("par")
    for second, status in ((3.0, 0), (-3.0, loop.STATUS_SHAPE)):
        a, out = floats(16), np.zeros((4, 16), np.float32)
        a[:2] = 1.0, second
        assert call(address, [a, out]) == status
        rows = 4 if not status else 1
        np.testing.assert_array_equal(
            out[:rows], np.broadcast_to(a * np.float32(second), (rows, 16))
        )
        assert not out[rows:].any()


def test_entry_takes_arrays() -> None:
    """`NAME.entry` (`NAME_entry` in C) is the plan with its arguments in arrays."""
    for load in (load_llvm, load_c):
        made = CASES["plan_with_views"]()
        pointers = (ctypes.c_void_p * 4)(*[a.ctypes.data for a in made.arrays])
        dims = (ctypes.c_int64 * 1)(3)
        entry = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        assert entry(load(made.funcs)("net.entry"))(None, pointers, dims) == 0
        np.testing.assert_array_equal(made.arrays[1], made.want[1])


def test_host_call_asks_the_context() -> None:
    """The second hook gets name, pointers and dims; without it the plan fails."""
    p, b, (x, y) = kernel("net", buf(f32, N), buf(f32, N), kind="plan")
    b.emit(loop.HostCall, x, y, callee="unique", dims=(N, N * 2))
    address = load_llvm([p])("net")
    a, out = floats(3), np.zeros(3, np.float32)
    assert call(address, [a, out], [3]) == loop.STATUS_SHAPE
    seen = []
    hook_type = ctypes.CFUNCTYPE(
        ctypes.c_int32,
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.POINTER(ctypes.c_int64),
    )

    def hook(ctx: int, name: bytes, args: Any, dims: Any) -> int:
        seen.append((name, args[0], args[1], dims[0], dims[1]))
        return 0

    held = hook_type(hook)
    context = _Context(None, ctypes.cast(held, ctypes.c_void_p))
    assert call(address, [a, out], [3], ctypes.addressof(context)) == 0
    assert seen == [(b"unique", a.ctypes.data, out.ctypes.data, 3, 6)]
    with pytest.raises(UnsupportedError, match="E0434"):
        emit_c([p])


def test_refusals_name_the_op() -> None:
    f, b, (x, y) = kernel("exps", buf(f32, 16), buf(f32, 16))
    b.emit(loop.Store, b.exp(b.emit(loop.Load, x, index=(0,))), y, index=(0,))
    for emit, number in ((emit_module, "E0422"), (emit_c, "E0431")):
        with pytest.raises(UnsupportedError, match=number) as caught:
            emit([f])
        assert "exp" in str(caught.value)
    f, b, (x, y) = kernel("wide", buf(f32, 16), buf(f32, 16))
    b.emit(
        loop.Store,
        b.emit(loop.Load, x, index=(lane,), lane="lane", lanes=16),
        y,
        index=(lane,),
        lane="lane",
    )
    with pytest.raises(UnsupportedError, match="E0431"):
        emit_c([f])
    f, b, (x,) = kernel("shares", buf(f32, N))
    b.emit(loop.Alloc, label="s", type=buf(f32, N, space="shared"))
    for emit, number in ((emit_module, "E0424"), (emit_c, "E0433")):
        with pytest.raises(UnsupportedError, match=number):
            emit([f])


def test_index_arithmetic_is_hoisted_and_shared() -> None:
    """The inner loop of the tile holds a few steps of its own variable and no more."""
    text = emit_module([gemm_tile(4, 2, 4, 64)])
    inner = text[text.index("%k.") :]
    inner = inner[: inner.index("br i1")]
    assert inner.count("fma.v16f32") == 4 * 2 * 4
    assert inner.count("mul nsw") <= 2
    assert inner.count("getelementptr") <= 2 + 4 * 4 + 2 * 4


def test_c_reads_like_c() -> None:
    """Names of arguments, nested indices, values in their only use."""
    made = CASES["gemm_naive"]()
    text = emit_c(made.funcs)
    assert "acc = irc_fmaf(a0[i * K + k], a1[k * N + j], acc);" in text
    assert "for (ptrdiff_t k = 0; k < K; ++k) {" in text
    assert "a2[i * N + j] = acc;" in text


@pytest.mark.parametrize(
    "name", ["gather_negative", "floor_and_mod", "guarded_scalar", "plan_with_views", "packed_i4"]
)
def test_c_is_sane(name: str) -> None:
    """Nothing undefined: the sanitizers end the process, so it is another one."""
    made = CASES[name]()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "k.c")
        func = made.funcs[-1]
        dims = [str(made.dims[n]) for n in dim_parameters(func)]
        buffers = [
            f"static uint64_t b{n}[{-(-a.nbytes // 8)}] = {{{', '.join(words(a))}}};"
            for n, a in enumerate(made.arrays)
        ]
        args = [f"(void *)b{n}" for n in range(len(made.arrays))]
        given = ", ".join(["NULL", *args, *dims])
        main = f"int main(void) {{ return {func.sym}({given}) != {made.status}; }}"
        source.write_text("\n".join([emit_c(made.funcs), *buffers, main]))
        flags = [
            "-std=c99",
            "-O1",
            "-g",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
        ]
        subprocess.run(["cc", *flags, "-o", f"{folder}/k", source], check=True)
        done = subprocess.run([f"{folder}/k"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def words(a: Array) -> list[str]:
    """An array's bytes as C literals of eight bytes."""
    raw = np.frombuffer(a.tobytes().ljust(-(-a.nbytes // 8) * 8, b"\0"), np.uint64)
    return [f"{v}u" for v in raw]


def test_blobs_read_back() -> None:
    """Constant arrays, packed and not, from C."""
    for array in (
        floats(5),
        floats(5).astype(np.float16),
        np.array([-8, 7, -1, 3, 5]).astype(ml_dtypes.int4),
        np.array([True, False, True]),
        np.array([-(1 << 63), 5]),
        np.zeros((0, 3), np.float32),
    ):
        blob = Blob(array)
        text = (
            "#include <stdint.h>\n#include <math.h>\n"
            + emit_blob("w", blob)
            + "const void *get(void) { return w; }\n"
        )
        with tempfile.TemporaryDirectory() as folder:
            source, library = Path(folder, "w.c"), Path(folder, "w.so")
            source.write_text(text)
            subprocess.run(
                [
                    "cc",
                    *CFLAGS[:-2],
                    "-Wno-missing-prototypes",
                    "-shared",
                    "-fPIC",
                    "-o",
                    library,
                    source,
                ],
                check=True,
            )
            get = ctypes.CDLL(str(library)).get
            get.restype = ctypes.c_void_p
            want = (
                packed(np.r_[array.astype(np.int8), 0], 4)
                if array.dtype == ml_dtypes.int4
                else array
            )
            assert ctypes.string_at(get(), want.nbytes) == want.tobytes()


@pytest.mark.parametrize("lanes", [4, 16])
@pytest.mark.parametrize(
    "index",
    [lane * 2, lane * 3 + 1, lane * 4, 63 - lane, 60 - lane * 3, lane // 2, (lane * 5) % 7 + 2],
)
def test_lanes_a_few_elements_apart_are_picked_from_vectors(index: Any, lanes: int) -> None:
    """No gather, and nothing read in front of the first or behind the last of them."""
    f, b, (x, y) = kernel("picked", buf(f32, 64), buf(f32, lanes))
    v = b.emit(loop.Load, x, index=(index,), lane="lane", lanes=lanes)
    b.emit(loop.Store, v, y, index=(lane,), lane="lane")
    text = emit_module([f], vector_bits=512)
    assert "shufflevector" in text and "gather" not in text
    page = mmap.mmap(-1, 3 * mmap.PAGESIZE)
    places = [evaluate(index, {"lane": at}) for at in range(lanes)]
    whole = np.frombuffer(page, np.float32)
    ends = {0: mmap.PAGESIZE // 4 - min(places), 1: mmap.PAGESIZE // 2 - 1 - max(places)}
    libc = ctypes.CDLL(None)
    base = whole.ctypes.data
    for edge, start in ends.items():
        whole[mmap.PAGESIZE // 4 : mmap.PAGESIZE // 2] = floats(mmap.PAGESIZE // 4)
        given, out = whole[start : start + 64], np.zeros(lanes, np.float32)
        forbidden = base if edge == 0 else base + 2 * mmap.PAGESIZE
        assert libc.mprotect(ctypes.c_void_p(forbidden), mmap.PAGESIZE, 0) == 0
        assert call(load_llvm([f])("picked"), [given, out]) == 0
        np.testing.assert_array_equal(out, given[places])
        assert libc.mprotect(ctypes.c_void_p(forbidden), mmap.PAGESIZE, 3) == 0


@pytest.mark.parametrize(("lanes", "only"), [(16, 0), (16, 15), (4, 0)])
def test_a_mask_of_one_lane_writes_one_narrow_element(lanes: int, only: int) -> None:
    """Lanes cut from wider ones: LLVM's own lowering of such a store writes two elements."""
    f, b, (x, y) = kernel("one", buf(f32, lanes), buf(bf16, lanes + 2))
    v = b.cast(b.emit(loop.Load, x, index=(lane,), lane="lane", lanes=lanes), to=bf16)
    where = (only - lane,) if only == 0 else (lane - only,)
    b.emit(loop.Store, v, y, index=(lane,), lane="lane", where=where)
    given, out = floats(lanes), np.full(lanes + 2, 7, ml_dtypes.bfloat16)
    assert call(load_llvm([f])("one"), [given, out]) == 0
    want = np.full(lanes + 2, 7, ml_dtypes.bfloat16)
    want[only] = given[only].astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(out, want)
