"""Lanes a few elements apart: read as whole vectors, and picked out of them.

Imports: ir, emit_guards, emit_index, emit_writer, emit_types.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim, DimLike, ceildiv, coefficient, floordiv, substitute, sym
from ...ir.ops import loop
from .emit_guards import guards_of, memory_intrinsic, suffix_of
from .emit_index import Memory
from .emit_types import memory_bits, memory_text
from .emit_writer import Writer

MOST_WINDOW = 4
"""Whole vectors up to which reading all between the lanes is faster than a gather."""


def lane_steps(e: DimLike, lane: str, lanes: int) -> list[int]:
    """How far, in elements, each lane is from lane 0; none where that is not known."""
    start = substitute(e, {lane: 0})
    steps = [substitute(e, {lane: k}) - start for k in range(lanes)]
    return [s for s in steps if isinstance(s, int)] if all_numbers(steps) else []


def all_numbers(values: list[DimLike]) -> bool:
    """Whether no symbol is among them."""
    return all([isinstance(v, int) for v in values])


def window_guards(op: loop.Load, steps: list[int]) -> tuple[DimLike, ...] | None:
    """The guards over lanes, as guards over the elements from the first lane on; None if unknown.

    Lanes must be a positive number of elements apart: lane l is element `step * l`.
    """
    step = steps[1] if len(steps) > 1 else 0
    if step < 1 or steps != [step * k for k in range(len(steps))]:
        return None
    found: list[DimLike] = []
    for e in op.where:
        form = coefficient(e, op.lane)
        if isinstance(e, Dim) and op.lane in e.symbols:
            if form is None or not isinstance(form[0], int):
                return None
            slope, rest = form
            if slope > 0:
                found.append(sym(op.lane) - step * ceildiv(-rest, slope))
            else:
                found.append(step * floordiv(rest, -slope) - sym(op.lane))
    return tuple(found)


@dataclass(frozen=True)
class Reader:
    """Reads whole vectors from the element `first` on, where the guards over elements allow it."""

    w: Writer
    memory: Memory
    first: DimLike
    lane: str
    guards: tuple[DimLike, ...]
    fill: str
    """What stands for elements that are not read: the same in all lanes."""

    def vector(self, start: int, width: int) -> str:
        """`width` elements, the first of them `start` elements away."""
        w, text = self.w, memory_text(self.memory.type.dtype)
        align, vector = memory_bits(self.memory.type.dtype) // 8, f"<{width} x {text}>"
        pointer = w.address(self.memory, w.byte_offset(self.memory, self.first + start))
        moved = tuple([substitute(g, {self.lane: sym(self.lane) + start}) for g in self.guards])
        _, mask = guards_of(w, moved, self.lane, width)
        if not mask or mask == all_on(width):
            return w.emit(f"load {vector}, ptr {pointer}, align {align}")
        on, overload = f"<{width} x i1>", f"{suffix_of(text, width)}.p0"
        name = memory_intrinsic(w, "masked.load", vector, overload, f"ptr, i32, {on}, {vector}")
        given = f"ptr {pointer}, i32 {align}, {on} {mask}, {vector} {self.fill}"
        return w.emit(f"call {vector} {name}({given})")


def all_on(lanes: int) -> str:
    """The mask of all lanes."""
    return "<" + ", ".join(["i1 true"] * lanes) + ">"


def read_window(read: Reader, steps: list[int]) -> str:
    """Lanes picked out of the few whole vectors that lie between the first and the last of them.

    `steps` are elements from `first`.  Nothing outside their range is read: the last vector ends at
    the last lane.
    """
    text, lanes = memory_text(read.memory.type.dtype), len(steps)
    low = min(steps)
    span = max(steps) - low + 1
    width = min(span, lanes)
    starts = [min(k * lanes, span - width) for k in range(-(-span // lanes))]
    made = ""
    for start, beyond in zip(starts, [*starts[1:], span]):
        part = read.vector(low + start, width)
        places = [s - low - start if start <= s - low < beyond else None for s in steps]
        if made:
            pair = f"<{lanes} x {text}> {made}, <{lanes} x {text}> {part}"
            order = [str(k if p is None else lanes + p) for k, p in enumerate(places)]
        else:
            pair = f"<{width} x {text}> {part}, <{width} x {text}> poison"
            order = ["poison" if p is None else str(p) for p in places]
        picks = ", ".join([f"i32 {k}" for k in order])
        made = read.w.emit(f"shufflevector {pair}, <{lanes} x i32> <{picks}>")
    return made


__all__ = ["MOST_WINDOW", "Reader", "all_numbers", "lane_steps", "read_window", "window_guards"]
