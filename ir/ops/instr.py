"""Hardware instructions that `loop.call_instr` names: meaning, operands, scope, and emission.

An `Instr` is one instruction.  Its operands are windows of buffers: operand k begins at `index[k]`
of buffer k and spans the last dimensions of that buffer, as many and as wide as the window's type
says. Its meaning is a kernel over those windows, which the loop interpreter runs in place of the
instruction.  `emit` maps an emitter ("llvm", "c") to a template in which `{a}` is the address of
operand a, `{a.stride}` the bytes from one of its rows to the next, `{a.tile}` the number of the
tile that holds it, and `{t}` a prefix that keeps local names apart.

Fragments are registers shared by the lanes of a warp: a buffer in space `fragment.NAME` has the
shape of the matrix it holds, and `FRAGMENTS[NAME]` says which lane owns which element.
Imports: the core, dims, types, the loop ops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from ..core import Builder, Value
from ..dims import DimLike, evaluate, sym
from ..errors import UnsupportedError
from ..types import BufferType, DType, Shape, bf16, f16, f32, i8, i32, u8
from .core import Const, Func
from .loop import For, Load, Store


@dataclass(frozen=True)
class Instr:
    """One hardware instruction; `features` are the target features it needs.

    `scope` is "thread", or "warp" where the lanes of a warp execute it together.
    """

    name: str
    operands: tuple[tuple[str, BufferType], ...]
    body: Func
    features: tuple[str, ...] = ()
    scope: str = "thread"
    emit: Mapping[str, str] = ()  # type: ignore[assignment]


@dataclass(frozen=True)
class Fragment:
    """Which lane owns which element: slot `s` of lane `l` holds element (row, column)."""

    shape: tuple[int, int]
    slots: int
    row: DimLike
    column: DimLike

    def owners(self) -> dict[tuple[int, int], int]:
        """The lane of every element."""
        pairs = [{"l": lane, "s": slot} for lane in range(32) for slot in range(self.slots)]
        return {(evaluate(self.row, at), evaluate(self.column, at)): at["l"] for at in pairs}


_l, _s = sym("l"), sym("s")
FRAGMENTS: dict[str, Fragment] = {
    # PTX ISA, "Matrix Fragments for mma.m16n8k16" (.f16 and .bf16; .f32 accumulators).
    "m16n8k16.a": Fragment(
        (16, 16), 8, _l // 4 + 8 * (_s // 2 % 2), _l % 4 * 2 + _s % 2 + 8 * (_s // 4)
    ),
    "m16n8k16.b": Fragment((16, 8), 4, _l % 4 * 2 + _s % 2 + 8 * (_s // 2), _l // 4),
    "m16n8k16.c": Fragment((16, 8), 4, _l // 4 + 8 * (_s // 2), _l % 4 * 2 + _s % 2),
}


def instr(name: str) -> Instr:
    """The instruction called `name`; E0406 if there is none."""
    found = instructions().get(name)
    if found is None:
        known = ", ".join(instructions())
        raise UnsupportedError(
            "E0406", f"no instruction is called '{name}'", details=(f"known: {known}",)
        )
    return found


@cache
def instructions() -> dict[str, Instr]:
    """All instructions, by name."""
    made = [_dpbusd(16), _dpbusd(8), _tile_zero(), _tile_load(i8), _tile_load(u8), _tile_store()]
    made += [_tdp(a, b) for a in (i8, u8) for b in (i8, u8)]
    made += [_ldmatrix(dtype, part) for dtype in (f16, bf16) for part in "ab"]
    made += [_mma(dtype) for dtype in (f16, bf16)]
    return {one.name: one for one in made}


Body = Callable[..., None]


def define(
    name: str,
    operands: Sequence[tuple[str, DType, Shape, str]],
    body: Body,
    *,
    features: Sequence[str] = (),
    scope: str = "thread",
    emit: Mapping[str, str] | None = None,
) -> Instr:
    """An instruction from (name, element type, shape, space) per operand and a body builder."""
    types = [BufferType(dtype, shape, space) for _, dtype, shape, space in operands]
    names = [n for n, _, _, _ in operands]
    func = Func.make(name, types, names, kind="kernel")
    body(Builder(func.body), *func.args)
    pairs = tuple(zip(names, types, strict=True))
    return Instr(name, pairs, func, tuple(features), scope, emit or {})


def _nest(b: Builder, **extents: int) -> Builder:
    for name, extent in extents.items():
        b = b.at(b.insert(For.make(name, extent)).body)
    return b


def _load(b: Builder, buffer: Value, *index: DimLike) -> Value:
    value: Value = b.emit(Load, buffer, index=index)
    return value


def _multiply_add(b: Builder, c: Value, at: tuple[DimLike, ...], x: Value, y: Value) -> None:
    """c[at] += x * y in the type of c."""
    to = c.buffer.dtype
    x, y = (v if v.type is to else b.cast(v, to=to) for v in (x, y))
    b.emit(Store, b.add(_load(b, c, *at), b.mul(x, y)), c, index=at)


def _dpbusd(lanes: int) -> Instr:
    """AVX512-VNNI: each i32 lane adds four products of a broadcast group of u8 with its own i8."""

    def body(b: Builder, acc: Value, a: Value, w: Value) -> None:
        b = _nest(b, lane=lanes, group=4)
        at = sym("lane"), sym("group")
        _multiply_add(b, acc, at[:1], _load(b, a, at[1]), _load(b, w, *at))

    bits = 32 * lanes
    vector, raw = f"<{lanes} x i32>", f"<{4 * lanes} x i8>"
    name = f"llvm.x86.avx512.vpdpbusd.{bits}"
    llvm = (
        f"declare {vector} @{name}({vector}, {raw}, {raw})\n"
        f"%{{t}}c = load {vector}, ptr {{acc}}, align 4\n"
        f"%{{t}}g = load i32, ptr {{a}}, align 1\n"
        f"%{{t}}h = insertelement {vector} poison, i32 %{{t}}g, i32 0\n"
        f"%{{t}}i = shufflevector {vector} %{{t}}h, {vector} poison, {vector} zeroinitializer\n"
        f"%{{t}}a = bitcast {vector} %{{t}}i to {raw}\n"
        f"%{{t}}w = load {raw}, ptr {{w}}, align 1\n"
        f"%{{t}}d = call {vector} @{name}({vector} %{{t}}c, {raw} %{{t}}a, {raw} %{{t}}w)\n"
        f"store {vector} %{{t}}d, ptr {{acc}}, align 4\n"
    )
    operands = [
        ("acc", i32, (lanes,), "register"),
        ("a", u8, (4,), "heap"),
        ("w", i8, (lanes, 4), "heap"),
    ]
    features = ("avx512vnni",) if lanes == 16 else ("avx512vnni", "avx512vl")
    return define(f"x86.dpbusd.{bits}", operands, body, features=features, emit={"llvm": llvm})


def _tile_zero() -> Instr:
    def body(b: Builder, c: Value) -> None:
        b = _nest(b, i=16, j=16)
        b.emit(Store, b.insert(Const(0, i32)).result, c, index=(sym("i"), sym("j")))

    llvm = "declare void @llvm.x86.tilezero(i8)\ncall void @llvm.x86.tilezero(i8 {c.tile})\n"
    return define(
        "x86.tilezero",
        [("c", i32, (16, 16), "tile")],
        body,
        features=("amx-tile",),
        emit={"llvm": llvm},
    )


def _copy(b: Builder, source: Value, target: Value) -> None:
    rows, columns = target.buffer.shape
    b = _nest(b, i=int(str(rows)), j=int(str(columns)))
    at = sym("i"), sym("j")
    b.emit(Store, _load(b, source, *at), target, index=at)


def _tile_load(dtype: DType) -> Instr:
    """AMX: 16 rows of 64 bytes into a tile."""
    llvm = (
        "declare void @llvm.x86.tileloadd64(i8, ptr, i64)\n"
        "call void @llvm.x86.tileloadd64(i8 {tile.tile}, ptr {source}, i64 {source.stride})\n"
    )
    operands = [("source", dtype, (16, 64), "heap"), ("tile", dtype, (16, 64), "tile")]
    return define(
        f"x86.tileloadd.{dtype.name}", operands, _copy, features=("amx-tile",), emit={"llvm": llvm}
    )


def _tile_store() -> Instr:
    llvm = (
        "declare void @llvm.x86.tilestored64(i8, ptr, i64)\n"
        "call void @llvm.x86.tilestored64(i8 {tile.tile}, ptr {target}, i64 {target.stride})\n"
    )
    operands = [("tile", i32, (16, 16), "tile"), ("target", i32, (16, 16), "heap")]
    return define("x86.tilestored", operands, _copy, features=("amx-tile",), emit={"llvm": llvm})


def _tdp(a_type: DType, b_type: DType) -> Instr:
    """AMX: c[i, j] += sum over k of a[i, k] * b[k // 4, 4 * j + k % 4], 16 x 16 x 64."""

    def body(b: Builder, c: Value, x: Value, w: Value) -> None:
        b = _nest(b, i=16, j=16, k=64)
        i, j, k = sym("i"), sym("j"), sym("k")
        _multiply_add(b, c, (i, j), _load(b, x, i, k), _load(b, w, k // 4, j * 4 + k % 4))

    name = f"tdpb{a_type.name[0].replace('i', 's')}{b_type.name[0].replace('i', 's')}d"
    llvm = (
        f"declare void @llvm.x86.{name}(i8, i8, i8)\n"
        f"call void @llvm.x86.{name}(i8 {{c.tile}}, i8 {{a.tile}}, i8 {{b.tile}})\n"
    )
    operands = [
        ("c", i32, (16, 16), "tile"),
        ("a", a_type, (16, 64), "tile"),
        ("b", b_type, (16, 64), "tile"),
    ]
    return define(f"x86.{name}", operands, body, features=("amx-int8",), emit={"llvm": llvm})


def _ldmatrix(dtype: DType, part: str) -> Instr:
    """ldmatrix: a 16 x 16 (x4) or 16 x 8 (x2.trans) block of shared memory into a fragment."""
    shape = (16, 16) if part == "a" else (16, 8)
    operands = [
        ("source", dtype, shape, "shared"),
        (part, dtype, shape, f"fragment.m16n8k16.{part}"),
    ]
    return define(
        f"nv.ldmatrix.{part}.{dtype.name}", operands, _copy, features=("sm_75",), scope="warp"
    )


def _mma(dtype: DType) -> Instr:
    """mma.sync.m16n8k16 with f32 accumulators: d = a @ b + c, in place."""

    def body(b: Builder, c: Value, x: Value, w: Value) -> None:
        b = _nest(b, i=16, j=8, k=16)
        i, j, k = sym("i"), sym("j"), sym("k")
        _multiply_add(b, c, (i, j), _load(b, x, i, k), _load(b, w, k, j))

    operands = [
        ("c", f32, (16, 8), "fragment.m16n8k16.c"),
        ("a", dtype, (16, 16), "fragment.m16n8k16.a"),
        ("b", dtype, (16, 8), "fragment.m16n8k16.b"),
    ]
    return define(
        f"nv.mma.m16n8k16.{dtype.name}", operands, body, features=("sm_80",), scope="warp"
    )


__all__ = ["FRAGMENTS", "Fragment", "Instr", "define", "instr", "instructions"]
