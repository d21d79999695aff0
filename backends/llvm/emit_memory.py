"""Loads, stores and lanes as LLVM text.

A vector access is contiguous when its flattened index moves one element per lane, a broadcast
when it does not move, a few vectors where the lanes are near each other (emit_window.py), else a
gather or scatter.  Guards: emit_guards.py.
Imports: ir, emit_guards, emit_window, emit_index, emit_writer, emit_types.
"""

from __future__ import annotations

from ...ir.core import Op, Value
from ...ir.dims import (
    Dim,
    DimLike,
    coefficient,
    equal,
    mod,
    substitute,
)
from ...ir.errors import UnsupportedError
from ...ir.ops import loop
from ...ir.types import DType, boolean
from .emit_guards import (
    guarded,
    guarded_value,
    guards_of,
    memory_intrinsic,
    splat,
    suffix_of,
    vector_text,
)
from .emit_index import Memory
from .emit_types import constant, literal, memory_bits, memory_text, scalar_text, type_text
from .emit_window import (
    MOST_WINDOW,
    Reader,
    all_numbers,
    lane_steps,
    read_window,
    window_guards,
)
from .emit_writer import Row, Writer


def from_memory(w: Writer, text: str, dtype: DType, lanes: int = 0) -> str:
    """The register value of loaded memory bits."""
    memory, register = memory_text(dtype), scalar_text(dtype)
    if memory == register:
        return text
    type_ = f"<{lanes} x {memory}>" if lanes else memory
    if dtype is boolean:
        return w.emit(f"icmp ne {type_} {text}, {'zeroinitializer' if lanes else 0}")
    return w.emit(f"trunc {type_} {text} to {f'<{lanes} x {register}>' if lanes else register}")


def to_memory(w: Writer, text: str, dtype: DType, lanes: int = 0) -> str:
    """The memory bits of a register value."""
    memory, register = memory_text(dtype), scalar_text(dtype)
    if memory == register:
        return text
    into, from_ = (
        (f"<{lanes} x {memory}>", f"<{lanes} x {register}>") if lanes else (memory, register)
    )
    return w.emit(f"{'sext' if dtype.kind == 'int' else 'zext'} {from_} {text} to {into}")


# Scalar accesses ---------------------------------------------------------------------------------


def _prefetch(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.Prefetch)
    memory = w.memory(op.source)
    pointer = w.address(memory, w.byte_offset(memory, w.element_offset(memory, op.index)))
    w.declared["declare void @llvm.prefetch.p0(ptr, i32, i32, i32)"] = None
    w.line(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 {int(op.write)}, i32 3, i32 1)")


def _aligned(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.Aligned)
    memory = w.memory(op.source)
    address = w.emit(f"ptrtoint ptr {w.address(memory, memory.offset)} to i64")
    low = w.emit(f"and i64 {address}, {op.bytes - 1}")
    w.values[op.result] = w.emit(f"icmp eq i64 {low}, 0")


def _fence(w: Writer, op: Op) -> None:
    w.line("fence seq_cst")


def _load(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.Load)
    memory = w.memory(op.source)
    if op.lane:
        w.values[op.result] = _load_vector(w, op, memory)
        return
    e = w.element_offset(memory, op.index)
    fill = literal(op.fill or 0, memory.type.dtype)
    w.values[op.result] = _load_scalar(w, memory, e, w.all_hold(op.where), fill)


def _load_scalar(w: Writer, memory: Memory, e: DimLike, condition: str, fill: str) -> str:
    dtype = memory.type.dtype
    pointer = w.address(memory, w.byte_offset(memory, e))
    text, bits = memory_text(dtype), memory_bits(dtype)
    shift = w.dim(mod(e, 8 // bits) * bits) if bits < 8 else ""

    def make() -> str:
        raw = w.emit(f"load {text}, ptr {pointer}, align {max(1, bits // 8)}")
        if shift and shift != "0":
            narrow = shift if shift[0] != "%" else w.emit(f"trunc i64 {shift} to i8")
            raw = w.emit(f"lshr i8 {raw}, {narrow}")
        return from_memory(w, raw, dtype)

    return guarded_value(w, condition, scalar_text(dtype), fill, make)


def _store(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.Store)
    memory = w.memory(op.target)
    if op.lane:
        _store_vector(w, op, memory)
        return
    e = w.element_offset(memory, op.index)
    _store_scalar(w, memory, e, w.all_hold(op.where), w.text(op.value))


def _store_scalar(w: Writer, memory: Memory, e: DimLike, condition: str, value: str) -> None:
    dtype = memory.type.dtype
    pointer = w.address(memory, w.byte_offset(memory, e))
    text, bits = memory_text(dtype), memory_bits(dtype)
    shift = w.dim(mod(e, 8 // bits) * bits) if bits < 8 else ""
    raw = to_memory(w, value, dtype)

    def make() -> None:
        stored = _merged(w, raw, pointer, shift, bits) if bits < 8 else raw
        w.line(f"store {text} {stored}, ptr {pointer}, align {max(1, bits // 8)}")

    guarded(w, condition, make)


def _merged(w: Writer, raw: str, pointer: str, shift: str, bits: int) -> str:
    """The byte at `pointer` with the `bits` bits at `shift` replaced."""
    by = shift if shift[0] != "%" else w.emit(f"trunc i64 {shift} to i8")
    keep = w.emit(f"shl i8 {(1 << bits) - 1}, {by}")
    old = w.emit(
        f"and i8 {w.emit(f'load i8, ptr {pointer}, align 1')}, {w.emit(f'xor i8 {keep}, -1')}"
    )
    new = w.emit(f"and i8 {w.emit(f'shl i8 {raw}, {by}')}, {keep}")
    return w.emit(f"or i8 {old}, {new}")


# Vector accesses ---------------------------------------------------------------------------------


def lanes_of(e: DimLike, lane: str) -> tuple[DimLike | None, DimLike]:
    """(elements per lane, element of lane 0); (None, e) where the step is not one number."""
    form = coefficient(e, lane)
    return form if form is not None else (None, e)


def _contiguous(w: Writer, buffer: Value, index: tuple[DimLike, ...], lane: str) -> str:
    """The address of lane 0 where the lanes are consecutive whole-byte elements, else "";
    remembered.
    """
    memo = w.scopes[-1].memo
    key = buffer, index, lane
    known = memo.get(key)
    if known is None:
        memory = w.memory(buffer)
        step, first = lanes_of(w.element_offset(memory, index), lane)
        whole = step == 1 and memory_bits(memory.type.dtype) >= 8
        known = memo[key] = w.address(memory, w.byte_offset(memory, first)) if whole else ""
    return known


def _load_vector(w: Writer, op: loop.Load, memory: Memory) -> str:
    dtype, lanes, type_ = memory.type.dtype, op.lanes, op.result.type
    pointer = _contiguous(w, op.source, op.index, op.lane)
    if pointer and not op.where:
        made = w.emit(
            f"load {vector_text(dtype, lanes)}, ptr {pointer}, align {memory_bits(dtype) // 8}"
        )
        return from_memory(w, made, dtype, lanes)
    e = w.element_offset(memory, op.index)
    step, first = lanes_of(e, op.lane)
    fill = constant(op.fill or 0, type_)
    if memory_bits(dtype) < 8:
        return _load_packed(w, op, memory, e, step, first)
    condition, mask = guards_of(w, op.where, op.lane, lanes)
    text = memory_text(dtype)
    vector, align = f"<{lanes} x {text}>", memory_bits(dtype) // 8
    if step == 0:
        return _load_splat(w, op, memory, first, condition, mask)
    pass_ = fill if text == scalar_text(dtype) else f"splat ({text} {int(op.fill or 0)})"
    line = f"load {vector}, ptr {pointer}, align {align}"
    steps = [] if pointer else lane_steps(e, op.lane, lanes)
    guards = window_guards(op, steps) if mask else ()
    if steps and guards is not None and max(steps) - min(steps) < MOST_WINDOW * lanes:
        first = substitute(e, {op.lane: 0})
        read = Reader(w, memory, first, op.lane, guards, pass_)
        make = lambda: from_memory(w, read_window(read, steps), dtype, lanes)  # noqa: E731
        return guarded_value(w, condition, type_text(type_), fill, make)
    if not pointer:
        pointers = _lane_pointers(w, memory, e, op.lane, lanes)
        many, on = f"<{lanes} x ptr>", f"<{lanes} x i1>"
        overload = f"{suffix_of(text, lanes)}.v{lanes}p0"
        name = memory_intrinsic(
            w, "masked.gather", vector, overload, f"{many}, i32, {on}, {vector}"
        )
        given = (
            f"{many} {pointers}, i32 {align}, {on} {mask or 'splat (i1 true)'}, {vector} {pass_}"
        )
        line = f"call {vector} {name}({given})"
    elif mask:
        on, overload = f"<{lanes} x i1>", f"{suffix_of(text, lanes)}.p0"
        name = memory_intrinsic(w, "masked.load", vector, overload, f"ptr, i32, {on}, {vector}")
        line = f"call {vector} {name}(ptr {pointer}, i32 {align}, {on} {mask}, {vector} {pass_})"
    return guarded_value(
        w, condition, type_text(type_), fill, lambda: from_memory(w, w.emit(line), dtype, lanes)
    )


def _load_splat(
    w: Writer, op: loop.Load, memory: Memory, first: DimLike, condition: str, mask: str
) -> str:
    """One element in every lane; with a mask it is read only if some lane wants it."""
    dtype, lanes = memory.type.dtype, op.lanes
    fill = literal(op.fill or 0, dtype)
    if mask:
        name = memory_intrinsic(w, "vector.reduce.or", "i1", f"v{lanes}i1", f"<{lanes} x i1>")
        some = w.emit(f"call i1 {name}(<{lanes} x i1> {mask})")
        condition = some if condition == "true" else w.emit(f"and i1 {some}, {condition}")
    value = splat(w, scalar_text(dtype), lanes, _load_scalar(w, memory, first, condition, fill))
    if not mask:
        return value
    vector = type_text(op.result.type)
    return w.emit(
        f"select <{lanes} x i1> {mask}, {vector} {value}, "
        f"{vector} {constant(op.fill or 0, op.result.type)}"
    )


def _lane_pointers(w: Writer, memory: Memory, e: DimLike, lane: str, lanes: int) -> str:
    """A vector of the lanes' addresses."""
    size = memory_bits(memory.type.dtype) // 8
    base = w.address(memory, w.byte_offset(memory, substitute(e, {lane: 0})))
    start = substitute(e, {lane: 0})
    steps = [substitute(e, {lane: k}) - start for k in range(lanes)]
    if all_numbers(steps):
        offsets = ", ".join([f"i32 {s}" for s in steps])
        scale = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}[size]
        return w.emit(f"getelementptr {scale}, ptr {base}, <{lanes} x i32> <{offsets}>")
    known = "poison"
    for k, step in enumerate(steps):
        known = w.emit(f"insertelement <{lanes} x i64> {known}, i64 {w.dim(step * size)}, i64 {k}")
    return w.emit(f"getelementptr i8, ptr {base}, <{lanes} x i64> {known}")


def _store_vector(w: Writer, op: loop.Store, memory: Memory) -> None:
    dtype, lanes = memory.type.dtype, op.value.type.lanes  # type: ignore[attr-defined]
    pointer = _contiguous(w, op.target, op.index, op.lane)
    if pointer and not op.where:
        value = to_memory(w, w.text(op.value), dtype, lanes)
        how = f"align {memory_bits(dtype) // 8}"
        if op.stream:
            w.declared["!0 = !{i32 1}"] = None
            how = f"align {memory_bits(dtype) * lanes // 8}, !nontemporal !0"
        w.line(f"store {vector_text(dtype, lanes)} {value}, ptr {pointer}, {how}")
        return
    e = w.element_offset(memory, op.index)
    step, first = lanes_of(e, op.lane)
    if memory_bits(dtype) < 8:
        _store_packed(w, op, memory, e, step, first)
        return
    condition, mask = guards_of(w, op.where, op.lane, lanes)
    value = to_memory(w, w.text(op.value), dtype, lanes)
    text, align = memory_text(dtype), memory_bits(dtype) // 8
    vector = f"<{lanes} x {text}>"
    if pointer:
        line = f"store {vector} {value}, ptr {pointer}, align {align}"
        only = _only_lane(mask)
        if only is not None:
            value = w.emit(f"extractelement {vector} {value}, i64 {only}")
            pointer = w.emit(f"getelementptr {text}, ptr {pointer}, i64 {only}")
            line = f"store {text} {value}, ptr {pointer}, align {align}"
        elif mask:
            name = memory_intrinsic(
                w,
                "masked.store",
                "void",
                f"{suffix_of(text, lanes)}.p0",
                f"{vector}, ptr, i32, <{lanes} x i1>",
            )
            where = f"ptr {pointer}, i32 {align}, <{lanes} x i1> {mask}"
            line = f"call void {name}({vector} {value}, {where})"
    elif step == 0:
        raise UnsupportedError("E0426", "a vector is stored to one element", where=Op.where(op))
    else:
        pointers = _lane_pointers(w, memory, e, op.lane, lanes)
        name = memory_intrinsic(
            w,
            "masked.scatter",
            "void",
            f"{suffix_of(text, lanes)}.v{lanes}p0",
            f"{vector}, <{lanes} x ptr>, i32, <{lanes} x i1>",
        )
        line = (
            f"call void {name}({vector} {value}, <{lanes} x ptr> {pointers}, i32 {align}, "
            f"<{lanes} x i1> {mask or 'splat (i1 true)'})"
        )
    guarded(w, condition, lambda: w.line(line))


def _only_lane(mask: str) -> int | None:
    """The lane that a constant mask of one lane selects.

    LLVM 22 makes of a masked store of one truncated lane a store of the lane before truncation.
    """
    lanes = mask.removeprefix("<").removesuffix(">").split(", ")
    on = [k for k, lane in enumerate(lanes) if lane == "i1 true"]
    return on[0] if len(on) == 1 and mask.count("i1") == len(lanes) else None


# Packed integers ---------------------------------------------------------------------------------


def _whole_bytes(
    op: loop.Load | loop.Store, memory: Memory, step: DimLike | None, first: DimLike, lanes: int
) -> bool:
    """The lanes are consecutive, begin at a byte, fill whole bytes, and no guard cuts them."""
    per_byte = 8 // memory_bits(memory.type.dtype)
    lane_free = all(not isinstance(e, Dim) or op.lane not in e.symbols for e in op.where)
    return (
        step == 1 and lane_free and lanes % per_byte == 0 and equal(mod(first, per_byte), 0) is True
    )


def _load_packed(
    w: Writer, op: loop.Load, memory: Memory, e: DimLike, step: DimLike | None, first: DimLike
) -> str:
    """Bytes spread over the lanes, shifted and cut; lane by lane where they do not fill whole
    bytes.
    """
    dtype, lanes, bits = memory.type.dtype, op.lanes, memory_bits(memory.type.dtype)
    register = type_text(op.result.type)
    if not _whole_bytes(op, memory, step, first, lanes):
        known = "poison"
        for k in range(lanes):
            env = {op.lane: k}
            where = [substitute(g, env) for g in op.where]
            one = _load_scalar(
                w, memory, substitute(e, env), w.all_hold(where), literal(op.fill or 0, dtype)
            )
            known = w.emit(f"insertelement {register} {known}, {scalar_text(dtype)} {one}, i64 {k}")
        return known
    per_byte = 8 // bits
    count = lanes // per_byte
    pointer = w.address(memory, w.byte_offset(memory, first))

    def make() -> str:
        raw = w.emit(f"load <{count} x i8>, ptr {pointer}, align 1")
        order = ", ".join([f"i32 {k // per_byte}" for k in range(lanes)])
        wide = w.emit(
            f"shufflevector <{count} x i8> {raw}, <{count} x i8> poison, <{lanes} x i32> <{order}>"
        )
        shifts = ", ".join([f"i8 {k % per_byte * bits}" for k in range(lanes)])
        low = w.emit(f"lshr <{lanes} x i8> {wide}, <{shifts}>")
        return w.emit(f"trunc <{lanes} x i8> {low} to {register}")

    condition = w.all_hold(op.where)
    return guarded_value(w, condition, register, constant(op.fill or 0, op.result.type), make)


def _store_packed(
    w: Writer, op: loop.Store, memory: Memory, e: DimLike, step: DimLike | None, first: DimLike
) -> None:
    _dtype, bits = memory.type.dtype, memory_bits(memory.type.dtype)
    lanes = op.value.type.lanes  # type: ignore[attr-defined]
    register, value = type_text(op.value.type), w.text(op.value)
    if not _whole_bytes(op, memory, step, first, lanes):
        for k in range(lanes):
            env = {op.lane: k}
            where = [substitute(g, env) for g in op.where]
            one = w.emit(f"extractelement {register} {value}, i64 {k}")
            _store_scalar(w, memory, substitute(e, env), w.all_hold(where), one)
        return
    per_byte = 8 // bits
    count = lanes // per_byte
    pointer = w.address(memory, w.byte_offset(memory, first))
    wide = w.emit(f"zext {register} {value} to <{lanes} x i8>")
    total = ""
    for part in range(per_byte):
        order = ", ".join([f"i32 {k * per_byte + part}" for k in range(count)])
        one = w.emit(
            f"shufflevector <{lanes} x i8> {wide}, <{lanes} x i8> poison, <{count} x i32> <{order}>"
        )
        if part:
            one = w.emit(f"shl <{count} x i8> {one}, splat (i8 {part * bits})")
        total = w.emit(f"or <{count} x i8> {total}, {one}") if total else one
    condition = w.all_hold(op.where)
    guarded(w, condition, lambda: w.line(f"store <{count} x i8> {total}, ptr {pointer}, align 1"))


MEMORY_ROWS: dict[str, Row] = {
    "loop.load": _load,
    "loop.store": _store,
    "loop.prefetch": _prefetch,
    "loop.aligned": _aligned,
    "loop.fence": _fence,
}

__all__ = ["MEMORY_ROWS", "from_memory", "lanes_of", "to_memory"]
