"""Hand-built kernels, what they must compute, and how to load them through LLVM and through C."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from irc.backends.c.printer import emit_module as emit_c
from irc.backends.cpu.engine import Engine
from irc.backends.cpu.host import codegen_target
from irc.backends.llvm.compile import compile_text
from irc.backends.llvm.emit import emit_module
from irc.ir.core import Builder, Value
from irc.ir.dims import DimLike, max_, min_, sym
from irc.ir.kernel_abi import dim_parameters
from irc.ir.ops import compare, convert, elementwise, loop  # noqa: F401
from irc.ir.ops.core import Const, Func, Return, Yield
from irc.ir.types import (
    BufferType,
    DType,
    f32,
    i32,
    i64,
    u8,
)

Array = np.ndarray[Any, Any]
M, N, K = sym("M"), sym("N"), sym("K")
i, j, k, lane = sym("i"), sym("j"), sym("k"), sym("lane")


# Building ----------------------------------------------------------------------------------------


def kernel(
    name: str, *types: BufferType, kind: str = "kernel"
) -> tuple[Func, Builder, Sequence[Value]]:
    """An empty kernel, a builder inside it, and its buffers."""
    func = Func.make(name, types, [f"a{n}" for n in range(len(types))], kind=kind)
    return func, Builder(func.body), func.args


def buf(dtype: DType, *shape: DimLike, space: str = "heap", strides: Any = None) -> BufferType:
    return BufferType(dtype, shape, space, strides)


@contextmanager
def loop_over(b: Builder, var: str, extent: DimLike, **how: Any) -> Iterator[Builder]:
    made = b.insert(loop.For.make(var, extent, **how))
    yield Builder(made.body)


def num(b: Builder, value: Any, type: Any = f32) -> Value:
    return b.insert(Const(value, type)).result


# Running -----------------------------------------------------------------------------------------


alive: list[Any] = []


def load_llvm(funcs: Sequence[Func], features_mask: str | None = None) -> Callable[[str], int]:
    """Compile and load; gives the address of a symbol."""
    text = emit_module(funcs, vector_bits=512)
    engine = Engine({"kernels": compile_text(text, codegen_target(features_mask))})
    alive.append(engine)
    return engine.address


def call(address: int, arrays: Sequence[Array], dims: Sequence[int] = (), ctx: Any = None) -> int:
    """Call a kernel by the convention of ir/kernel_abi.py."""
    types = [ctypes.c_void_p] * (1 + len(arrays)) + [ctypes.c_int64] * len(dims)
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *types)(address)
    return function(ctx, *[a.ctypes.data for a in arrays], *dims)


CFLAGS = [
    "-std=c99",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-pedantic",
    "-Wconversion",
    "-shared",
    "-fPIC",
]


def load_c(funcs: Sequence[Func], *flags: str) -> Callable[[str], int]:
    """The same through the C printer and cc."""
    folder = Path(tempfile.mkdtemp(prefix="irc-test-"))
    source, library = folder / "k.c", folder / "k.so"
    source.write_text(emit_c(funcs))
    done = subprocess.run(
        ["cc", *CFLAGS, *flags, "-o", library, source], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + source.read_text()
    loaded = ctypes.CDLL(str(library))
    alive.append(loaded)
    shutil.rmtree(folder)
    return lambda name: (
        ctypes.cast(getattr(loaded, name.replace(".", "_")), ctypes.c_void_p).value or 0
    )


# Cases -------------------------------------------------------------------------------------------


@dataclass
class Case:
    """Kernels, arguments, and what they must hold afterwards."""

    funcs: list[Func]
    arrays: list[Array]
    want: list[Array]
    dims: dict[str, int] = field(default_factory=dict)
    status: int = 0
    tolerance: float = 0.0
    targets: str = "llvm c"


CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


rng = np.random.default_rng(7)


def floats(*shape: int, dtype: Any = np.float32) -> Array:
    return rng.uniform(-2, 2, shape).astype(dtype)


@case
def copy() -> Case:
    f, b, (x, y) = kernel("copy", buf(f32, 3, 5), buf(f32, 3, 5))
    with loop_over(b, "i", 3) as b1, loop_over(b1, "j", 5) as b2:
        b2.emit(loop.Store, b2.emit(loop.Load, x, index=(i, j)), y, index=(i, j))
    a = floats(3, 5)
    return Case([f], [a, np.zeros_like(a)], [a, a])


@case
def saxpy() -> Case:
    f, b, (s, x, y) = kernel("saxpy", buf(f32), buf(f32, N), buf(f32, N))
    scale = b.emit(loop.Load, s, index=())
    with loop_over(b, "i", N) as b1:
        v = b1.add(
            b1.mul(scale, b1.emit(loop.Load, x, index=(i,))), b1.emit(loop.Load, y, index=(i,))
        )
        b1.emit(loop.Store, v, y, index=(i,))
    s_, a, c = np.array(1.5, np.float32), floats(17), floats(17)
    return Case([f], [s_, a, c.copy()], [s_, a, s_ * a + c], {"N": 17})


@case
def empty_extent() -> Case:
    f, b, (y,) = kernel("empty", buf(f32, N))
    with loop_over(b, "i", N) as b1:
        b1.emit(loop.Store, num(b1, 1.0), y, index=(sym("i") // N,))
    return Case([f], [np.zeros(1, np.float32)], [np.zeros(1, np.float32)], {"N": 0})


@case
def gemm_naive() -> Case:
    f, b, (x, w, y) = kernel("gemm", buf(f32, M, K), buf(f32, K, N), buf(f32, M, N))
    with loop_over(b, "i", M) as b1, loop_over(b1, "j", N) as b2:
        acc = b2.emit(loop.Alloc, label="acc", type=buf(f32, space="register"))
        b2.emit(loop.Store, num(b2, 0.0), acc, index=())
        with loop_over(b2, "k", K, reduction=True) as b3:
            p, q = b3.emit(loop.Load, x, index=(i, k)), b3.emit(loop.Load, w, index=(k, j))
            b3.emit(loop.Store, b3.fma(p, q, b3.emit(loop.Load, acc, index=())), acc, index=())
        b2.emit(loop.Store, b2.emit(loop.Load, acc, index=()), y, index=(i, j))
    a, c = floats(5, 7), floats(7, 3)
    return Case(
        [f],
        [a, c, np.zeros((5, 3), np.float32)],
        [a, c, a @ c],
        {"M": 5, "N": 3, "K": 7},
        tolerance=1e-5,
    )


def gemm_tile(mr: int = 4, nr: int = 2, unroll: int = 2, depth: DimLike = K) -> Func:
    """A register tile of mr rows by nr vectors, the depth loop unrolled."""
    f, b, (x, w, y) = kernel(
        "tile", buf(f32, M, depth), buf(f32, depth, nr * 16), buf(f32, M, nr * 16)
    )
    with loop_over(b, "i", M // mr) as b1:
        acc = b1.emit(loop.Alloc, label="acc", type=buf(f32, mr, nr, 16, space="register"))
        for r in range(mr):
            for v in range(nr):
                zero = b1.emit(loop.Splat, num(b1, 0.0), lanes=16)
                b1.emit(loop.Store, zero, acc, index=(r, v, lane), lane="lane")
        with loop_over(b1, "k", depth // unroll) as b2:
            for u in range(unroll):
                at = k * unroll + u
                row = [
                    b2.emit(loop.Load, w, index=(at, v * 16 + lane), lane="lane", lanes=16)
                    for v in range(nr)
                ]
                for r in range(mr):
                    p = b2.emit(loop.Load, x, index=(i * mr + r, at), lane="lane", lanes=16)
                    for v in range(nr):
                        old = b2.emit(loop.Load, acc, index=(r, v, lane), lane="lane", lanes=16)
                        b2.emit(
                            loop.Store, b2.fma(p, row[v], old), acc, index=(r, v, lane), lane="lane"
                        )
        for r in range(mr):
            for v in range(nr):
                got = b1.emit(loop.Load, acc, index=(r, v, lane), lane="lane", lanes=16)
                b1.emit(loop.Store, got, y, index=(i * mr + r, v * 16 + lane), lane="lane")
    return f


@case
def gemm_vector() -> Case:
    a, c = floats(8, 6), floats(6, 32)
    return Case(
        [gemm_tile()],
        [a, c, np.zeros((8, 32), np.float32)],
        [a, c, a @ c],
        {"M": 8, "K": 6},
        tolerance=1e-5,
        targets="llvm",
    )


@case
def masked_tail() -> Case:
    f, b, (x, y) = kernel("tail", buf(f32, N), buf(f32, N))
    guard = (N - 1 - i * 16 - lane,)
    with loop_over(b, "i", (N + 15) // 16) as b1:
        v = b1.emit(
            loop.Load, x, index=(i * 16 + lane,), where=guard, fill=3.0, lane="lane", lanes=16
        )
        b1.emit(loop.Store, b1.add(v, v), y, index=(i * 16 + lane,), where=guard, lane="lane")
    a = floats(37)
    return Case(
        [f],
        [a, np.zeros(40, np.float32)],
        [a, np.r_[a + a, np.zeros(3, np.float32)]],
        {"N": 37},
        targets="llvm",
    )


@case
def masked_both_ends() -> Case:
    """Fill shows through at both ends."""
    f, b, (x, y) = kernel("window", buf(f32, 20), buf(f32, 3, 8))
    at = i * 8 + lane * 2 - 3
    with loop_over(b, "i", 3) as b1:
        v = b1.emit(loop.Load, x, index=(at,), where=(at, 19 - at), fill=-1.0, lane="lane", lanes=8)
        b1.emit(loop.Store, v, y, index=(i, lane), lane="lane")
    a = floats(20)
    index = np.arange(3)[:, None] * 8 + np.arange(8) * 2 - 3
    want = np.where((index >= 0) & (index < 20), a[np.clip(index, 0, 19)], np.float32(-1))
    return Case([f], [a, np.zeros((3, 8), np.float32)], [a, want], targets="llvm")


@case
def strided_lanes() -> Case:
    """Gather and scatter: a transpose by columns; and lanes that step backwards."""
    f, b, (x, y, z) = kernel("lanes", buf(f32, 8, 5), buf(f32, 5, 8), buf(f32, 8))
    with loop_over(b, "i", 5) as b1:
        v = b1.emit(loop.Load, x, index=(lane, i), lane="lane", lanes=8)
        b1.emit(loop.Store, v, y, index=(i, lane), lane="lane")
        b1.emit(loop.Store, v, x, index=(lane, i), lane="lane")
        b1.emit(loop.Store, v, z, index=(7 - lane,), lane="lane")
    a = floats(8, 5)
    return Case(
        [f],
        [a, np.zeros((5, 8), np.float32), np.zeros(8, np.float32)],
        [a, a.T, a[::-1, 4]],
        targets="llvm",
    )


@case
def nonlinear_lanes() -> Case:
    """Lanes whose index is a division or a modulo, loaded and masked lane by lane."""
    f, b, (x, y) = kernel("nonlinear", buf(f32, 4, 4), buf(f32, 2, 8))
    flat = i * 8 + lane
    with loop_over(b, "i", 2) as b1:
        v = b1.emit(
            loop.Load, x, index=(flat % 4, flat // 4), where=(2 - flat % 4,), lane="lane", lanes=8
        )
        b1.emit(loop.Store, v, y, index=(i, lane), lane="lane")
    a = floats(4, 4)
    want = a.copy()
    want[3] = 0
    return Case([f], [a, np.zeros((2, 8), np.float32)], [a, want.T.reshape(2, 8)], targets="llvm")


@case
def guarded_scalar() -> Case:
    f, b, (x, y) = kernel("guard", buf(f32, N), buf(f32, N + 2))
    with loop_over(b, "i", N + 2) as b1:
        v = b1.emit(loop.Load, x, index=(i - 1,), where=(i - 1, N - i), fill=9.0)
        b1.emit(loop.Store, v, y, index=(i,), where=(i - 1,))
    a = floats(6)
    return Case(
        [f], [a, np.zeros(8, np.float32)], [a, np.r_[np.float32(0), a, np.float32(9)]], {"N": 6}
    )


@case
def reduce_lanes() -> Case:
    f, b, (x, y) = kernel("lanes", buf(f32, 16), buf(f32, 3))
    v = b.emit(loop.Load, x, index=(lane,), lane="lane", lanes=16)
    for at, combiner in enumerate(("add", "max", "min")):
        b.emit(loop.Store, b.emit(loop.ReduceLanes, v, combiner=combiner), y, index=(at,))
    a = floats(16)
    halves = a
    while len(halves) > 1:
        halves = halves[: len(halves) // 2] + halves[len(halves) // 2 :]
    return Case(
        [f],
        [a, np.zeros(3, np.float32)],
        [a, np.float32([halves[0], a.max(), a.min()])],
        targets="llvm",
    )


@case
def floor_and_mod() -> Case:
    """Index expressions with negative numerators, constant and symbolic divisors, min and max."""
    f, b, (y,) = kernel("floors", buf(i64, 9, 7))
    e = i - 4
    parts = (e // 3, e % 3, e // 4, e % 4, e // N, e % N, min_(e, N) * max_(e, -2) + i * N)
    with loop_over(b, "i", 9) as b1:
        for at, part in enumerate(parts):
            b1.emit(loop.Store, b1.emit(loop.IndexValue, value=part), y, index=(i, at))
    e_ = np.arange(9) - 4
    n = 5
    columns = [
        e_ // 3,
        e_ % 3,
        e_ // 4,
        e_ % 4,
        e_ // n,
        e_ % n,
        np.minimum(e_, n) * np.maximum(e_, -2) + np.arange(9) * n,
    ]
    return Case([f], [np.zeros((9, 7), np.int64)], [np.stack(columns, 1)], {"N": n})


@case
def index_vector() -> Case:
    f, b, (y, z) = kernel("iota", buf(i32, 3, 8), buf(f32, 3, 8))
    with loop_over(b, "i", 3) as b1:
        v = b1.emit(loop.IndexValue, value=i * 8 + lane * 3 - 5, lane="lane", lanes=8, dtype=i32)
        b1.emit(loop.Store, v, y, index=(i, lane), lane="lane")
        v = b1.emit(loop.IndexValue, value=(i * 8 + lane) // 3, lane="lane", lanes=8, dtype=f32)
        b1.emit(loop.Store, v, z, index=(i, lane), lane="lane")
    at = np.arange(3)[:, None] * 8
    return Case(
        [f],
        [np.zeros((3, 8), np.int32), np.zeros((3, 8), np.float32)],
        [
            (at + np.arange(8) * 3 - 5).astype(np.int32),
            ((at + np.arange(8)) // 3).astype(np.float32),
        ],
        targets="llvm",
    )


def _gather(index: Sequence[int], status: int) -> Case:
    f, b, (x, at, y) = kernel("take", buf(f32, 5), buf(i32, 4), buf(f32, 4))
    with loop_over(b, "i", 4) as b1:
        b1.emit(loop.Bind, b1.emit(loop.Load, at, index=(i,)), symbol="n", extent=5)
        b1.emit(loop.Store, b1.emit(loop.Load, x, index=(sym("n"),)), y, index=(i,))
    a, ix = floats(5), np.array(index, np.int32)
    good = 4 if not status else next(n for n, v in enumerate(index) if not 0 <= v < 5)
    want = np.zeros(4, np.float32)
    want[:good] = a[ix[:good]]
    return Case([f], [a, ix, np.zeros(4, np.float32)], [a, ix, want], status=status)


@case
def gather_in_range() -> Case:
    return _gather([3, 0, 4, 4], loop.STATUS_OK)


@case
def gather_too_large() -> Case:
    return _gather([3, 5, 0, 0], loop.STATUS_INDEX)


@case
def gather_negative() -> Case:
    return _gather([3, 0, -1, 0], loop.STATUS_INDEX)


@case
def strided_buffer() -> Case:
    f, b, (x, y) = kernel("rows", buf(f32, 3, 4, strides=(10, 2)), buf(f32, 4, 3))
    with loop_over(b, "i", 3) as b1, loop_over(b1, "j", 4) as b2:
        b2.emit(loop.Store, b2.emit(loop.Load, x, index=(i, j)), y, index=(j, i))
    a = floats(3, 10)
    return Case([f], [a, np.zeros((4, 3), np.float32)], [a, np.ascontiguousarray(a[:, :8:2].T)])


@case
def conditions() -> Case:
    """If on index expressions, When on data, While with a counter, Fail."""
    f, b, (x, y) = kernel("branches", buf(f32, 6), buf(f32, 6))
    with loop_over(b, "i", 6) as b1:
        inner = b1.insert(loop.If(where=(i - 1, 4 - i), regions=[type(f.body)()]))
        b2 = Builder(inner.body)
        v = b2.emit(loop.Load, x, index=(i - 1,))
        when = b2.insert(
            loop.When(b2.gt(v, num(b2, 0.0)), regions=[type(f.body)(), type(f.body)()])
        )
        b3 = Builder(when.then)
        b3.emit(loop.Store, b3.add(v, v), y, index=(i * 2 - i,))
        b3 = Builder(when.otherwise)
        b3.emit(loop.Store, b3.neg(v), y, index=(i,))
    a = np.float32([1, -2, 3, -4, 5, 6])
    return Case([f], [a, np.zeros(6, np.float32)], [a, np.float32([0, 2, 2, 6, 4, 0])])


@case
def while_counts() -> Case:
    f, b, (x, y) = kernel("collatz", buf(i64, 1), buf(i64, 1))
    loop_ = b.insert(loop.While(var="t", regions=[type(f.body)(), type(f.body)()]))
    b1 = Builder(loop_.before)
    v = b1.emit(loop.Load, x, index=(0,))
    b1.emit(Yield, b1.ne(v, num(b1, 1, i64)))
    b2 = Builder(loop_.body)
    v = b2.emit(loop.Load, x, index=(0,))
    odd = b2.eq(b2.rem(v, num(b2, 2, i64)), num(b2, 1, i64))
    up = b2.add(b2.mul(v, num(b2, 3, i64)), num(b2, 1, i64))
    b2.emit(loop.Store, b2.where(odd, up, b2.div(v, num(b2, 2, i64))), x, index=(0,))
    b2.emit(loop.Store, b2.emit(loop.IndexValue, value=sym("t") + 1), y, index=(0,))
    return Case([f], [np.array([27]), np.zeros(1, np.int64)], [np.array([1]), np.array([111])])


@case
def fail_status() -> Case:
    f, b, (x,) = kernel("fails", buf(f32, 4))
    with loop_over(b, "i", 4) as b1:
        when = b1.insert(
            loop.When(
                b1.lt(b1.emit(loop.Load, x, index=(i,)), num(b1, 0.0)),
                regions=[type(f.body)(), type(f.body)()],
            )
        )
        Builder(when.then).emit(loop.Fail, status=loop.STATUS_SHAPE)
        b1.emit(loop.Store, num(b1, 7.0), x, index=(i,))
    return Case(
        [f], [np.float32([1, 1, -1, 1])], [np.float32([7, 7, -1, 1])], status=loop.STATUS_SHAPE
    )


@case
def parallel_loop() -> Case:
    """Captures: buffers, a dim, a scalar, and a symbol of an enclosing loop."""
    f, b, (s, x, y) = kernel("par", buf(f32), buf(f32, 2, N), buf(f32, 2, N))
    scale = b.emit(loop.Load, s, index=())
    with loop_over(b, "j", 2) as b1, loop_over(b1, "i", N - 1, kind="parallel", lo=1) as b2:
        v = b2.mul(b2.emit(loop.Load, x, index=(j, i)), scale)
        b2.emit(loop.Store, v, y, index=(j, N - i))
    a, s_ = floats(2, 9), np.array(3, np.float32)
    want = np.zeros_like(a)
    want[:, 1:] = a[:, :0:-1] * 3
    return Case([f], [s_, a, np.zeros_like(a)], [s_, a, want], {"N": 9})


@case
def plan_with_views() -> Case:
    """A plan calls two kernels on pieces of an arena, and one more for each row in a loop."""
    f, b, (x, y) = kernel("double_", buf(f32, N), buf(f32, N))
    with loop_over(b, "i", N) as b1:
        v = b1.emit(loop.Load, x, index=(i,))
        b1.emit(loop.Store, b1.add(v, v), y, index=(i,))
    g, b, (x, z, y) = kernel("shift", buf(f32, 4), buf(f32, 1), buf(f32, 4))
    with loop_over(b, "i", 4) as b1:
        v = b1.emit(loop.Load, x, index=(i,))
        b1.emit(loop.Store, b1.add(v, b1.emit(loop.Load, z, index=(0,))), y, index=(i,))
    p, b, (x, y, arena, weights) = kernel(
        "net", buf(f32, N, 4), buf(f32, N, 4), buf(u8, N * 16 + 64), buf(u8, 8), kind="plan"
    )
    middle = b.emit(loop.View, arena, offset=64, type=buf(f32, N * 4))
    b.emit(
        loop.Call,
        b.emit(loop.View, x, type=buf(f32, N * 4)),
        middle,
        callee="double_",
        dims=(N * 4,),
    )
    bias = b.emit(loop.View, weights, offset=4, type=buf(f32, 1))
    with loop_over(b, "i", N) as b1:
        row = b1.emit(loop.View, arena, offset=64 + i * 16, type=buf(f32, 4))
        out = b1.emit(loop.View, y, offset=i * 16, type=buf(f32, 4))
        b1.emit(loop.Call, row, bias, out, callee="shift", dims=())
    b.emit(Return)
    a = floats(3, 4)
    packed, arena_ = np.float32([0, 5]).view(np.uint8), np.zeros(3 * 16 + 64, np.uint8)
    full = arena_.copy()
    full[64:] = (a + a).view(np.uint8).reshape(-1)
    return Case(
        [f, g, p], [a, np.zeros_like(a), arena_, packed], [a, a + a + 5, full, packed], {"N": 3}
    )


def packed(values: Array, bits: int) -> Array:
    """Small integers packed little end first."""
    per = 8 // bits
    raw = (values.astype(np.int8).view(np.uint8) & ((1 << bits) - 1)).reshape(-1, per)
    return (raw << (np.arange(per) * bits).astype(np.uint8)).sum(1).astype(np.uint8)


def _sub_byte(name: str, lanes: bool) -> Case:
    dtype = DType(name)
    f, b, (x, y, z) = kernel("unpack", buf(dtype, 4, 16), buf(i32, 4, 16), buf(dtype, 4, 16))
    at = {"lane": "lane", "lanes": 16} if lanes else {}
    with loop_over(b, "i", 4) as b1, loop_over(b1, "j", 1 if lanes else 16) as b2:
        v = b2.emit(loop.Load, x, index=(i, lane if lanes else j), **at)
        index = (i, lane) if lanes else (i, j)
        b2.emit(loop.Store, b2.cast(v, to=i32), y, index=index, lane="lane" if lanes else "")
        b2.emit(
            loop.Store, b2.add(v, v), z, index=(3 - i, *index[1:]), lane="lane" if lanes else ""
        )
    low = -(1 << dtype.bits - 1) if dtype.kind == "int" else 0
    values = rng.integers(low, low + (1 << dtype.bits), (4, 16))
    a = packed(values, dtype.bits)
    return Case(
        [f],
        [a, np.zeros((4, 16), np.int32), np.zeros_like(a)],
        [a, values.astype(np.int32), packed((values + values)[::-1], dtype.bits)],
        targets="llvm" if lanes else "llvm c",
    )


for _name in ("i4", "u4", "i2", "u2"):
    for _lanes in (False, True):
        CASES[f"packed_{_name}{'_lanes' * _lanes}"] = functools.partial(_sub_byte, _name, _lanes)


@case
def packed_off_byte() -> Case:
    """Lanes that begin in the middle of a byte."""
    f, b, (x, y) = kernel("odd", buf(DType("u4"), 17), buf(DType("u4"), 17))
    v = b.emit(loop.Load, x, index=(lane + 1,), lane="lane", lanes=8)
    b.emit(loop.Store, v, y, index=(lane + 3,), where=(6 - lane,), lane="lane")
    values = rng.integers(1, 16, 18)
    want = np.zeros(18, np.int64)
    want[3:10] = values[1:8]
    a = packed(values, 4)
    return Case([f], [a, np.zeros_like(a)], [a, packed(want, 4)], targets="llvm")


def check(made: Case, target: str) -> None:
    """Run a case and compare every buffer."""
    if target not in made.targets:
        return
    name = made.funcs[-1].sym
    dims = [made.dims[n] for n in dim_parameters(made.funcs[-1])]
    address = (load_llvm if target == "llvm" else load_c)(made.funcs)(name)
    assert call(address, made.arrays, dims) == made.status
    for got, want in zip(made.arrays, made.want, strict=True):
        np.testing.assert_allclose(
            got.astype(want.dtype), want, rtol=made.tolerance, atol=made.tolerance
        )
