"""Vectors transposed: a network of shuffles of two vectors each.

Processors shuffle cheaply within 128 bits (unpack, zip) and whole pieces of 128 bits.  So elements
of two rows are interleaved within each piece, in groups of 1, 2, 4 ... elements, and what is left
of the rows then trades pieces.  Each round halves how many registers a column is spread over.
Imports: ir, emit_writer, emit_types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.core import Op
from ...ir.ops import loop
from ...ir.types import VectorType
from .emit_types import scalar_text
from .emit_writer import Row, Writer

PIECE_BITS = 128
"""Within pieces of so many bits every processor here interleaves two vectors in one step."""

Place = tuple[int, int] | None
"""The row and lane an element came from."""


@dataclass(frozen=True)
class Register:
    """A vector of the network: its operand text, and where each lane came from."""

    text: str
    places: tuple[Place, ...]


def rounds(rows: int, lanes: int, piece: int) -> list[tuple[list[int], list[int]]]:
    """The lane orders of the two results of each round, lanes of the second operand from `lanes`
    on.
    """
    found = []
    for k in range(rows.bit_length() - 1):
        low, high = [], []
        group = 1 << k
        if group < piece:  # interleave the lower (upper) halves of each piece, group by group
            for lane in range(lanes):
                at, within = lane - lane % piece, lane % piece
                source = at + within // (2 * group) * group + within % group
                source += lanes if within // group % 2 else 0
                low.append(source)
                high.append(source + piece // 2)
        else:  # the even (odd) pieces of both
            for lane in range(lanes):
                number, within = divmod(lane, piece)
                number = 2 * number
                source = number % (lanes // piece) * piece + within
                source += lanes if number >= lanes // piece else 0
                low.append(source)
                high.append(source + piece)
        found.append((low, high))
    return found


def _shuffle(w: Writer, vector: str, a: Register, b: Register | None, order: Sequence[int]) -> str:
    picks = ", ".join([f"i32 {k}" for k in order])
    second = b.text if b is not None else "poison"
    return w.emit(
        f"shufflevector {vector} {a.text}, {vector} {second}, <{len(order)} x i32> <{picks}>"
    )


def _transpose_lanes(w: Writer, op: Op) -> None:
    assert isinstance(op, loop.TransposeLanes)
    type_ = op.rows[0].type
    assert isinstance(type_, VectorType)
    count, scalar = len(op.rows), scalar_text(type_.dtype)
    piece = max(2, PIECE_BITS // type_.dtype.bits)
    lanes = max(type_.lanes, count, piece)
    vector = f"<{lanes} x {scalar}>"
    registers = [_widened(w, w.text(row), k, type_, lanes) for k, row in enumerate(op.rows)]
    for bit, orders in enumerate(rounds(count, lanes, min(piece, lanes))):
        made = list(registers)
        for k, a in enumerate(registers):
            if k >> bit & 1:
                continue
            b = registers[k | 1 << bit]
            both = (*a.places, *b.places)
            for at, order in zip((k, k | 1 << bit), orders, strict=True):
                places = tuple([both[o] for o in order])
                made[at] = Register(_shuffle(w, vector, a, b, order), places)
        registers = made
    for column, result in enumerate(op.results):
        w.values[result] = _column(w, registers, column, count, vector)


def _widened(w: Writer, text: str, row: int, type_: VectorType, lanes: int) -> Register:
    """A row with so many lanes; what is added is never read."""
    own: list[Place] = [(row, lane) for lane in range(type_.lanes)]
    missing = lanes - type_.lanes
    if missing:
        vector = f"<{type_.lanes} x {scalar_text(type_.dtype)}>"
        picks = ", ".join([f"i32 {k}" for k in range(type_.lanes)] + ["i32 poison"] * missing)
        text = w.emit(f"shufflevector {vector} {text}, {vector} poison, <{lanes} x i32> <{picks}>")
    return Register(text, (*own, *[None] * missing))


def _column(w: Writer, registers: Sequence[Register], column: int, count: int, vector: str) -> str:
    """Lane `column` of every row, from the one register that holds them all."""
    held = next(r for r in registers if (0, column) in r.places)
    order = [held.places.index((row, column)) for row in range(count)]
    if order == list(range(len(held.places))):
        return held.text
    return _shuffle(w, vector, held, None, order)


LANE_ROWS: dict[str, Row] = {"loop.transpose_lanes": _transpose_lanes}

__all__ = ["LANE_ROWS", "rounds"]
