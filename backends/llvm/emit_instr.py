"""`loop.call_instr` as LLVM text: the instruction's own template with its operands filled in.

Imports: ir, backends/instr.py, emit_writer.
"""

from __future__ import annotations

import re

from ...ir.core import Op, Value
from ...ir.errors import UnsupportedError
from ...ir.ops import loop
from ...ir.ops.instr import instr
from ..instr import call_index, meaning
from .emit_types import memory_bits
from .emit_writer import Row, Writer

_SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
_TILES = 8


def _call_instr(w: Writer, op: Op) -> None:
    """The template line by line; without one for LLVM, the meaning."""
    assert isinstance(op, loop.CallInstr)
    found = instr(op.instr)
    template = dict(found.emit).get("llvm")
    if template is None:
        w.run(meaning(op))
        return
    places = {name: k for k, (name, _) in enumerate(found.operands)}
    prefix = w.name("x")[1:] + "."
    slots: dict[tuple[str, str], str] = {("t", ""): prefix}
    for name, part in _SLOT.findall(template):
        if (name, part) not in slots:
            slots[name, part] = _operand(w, op, places[name], part)
    for line in template.splitlines():
        text = _SLOT.sub(lambda m: slots[m[1], m[2] or ""], line)
        if text.startswith("declare"):
            w.declare(text)
        elif text:
            w.line(text)


def _operand(w: Writer, op: loop.CallInstr, k: int, part: str) -> str:
    """The address of operand k, the bytes between its rows, or its tile number."""
    buffer = op.args[k]
    if part == "tile":
        return str(_tile_number(w, buffer))
    memory = w.memory(buffer)
    if part == "stride":
        return w.dim(memory.type.element_strides[-2] * (memory_bits(memory.type.dtype) // 8))
    return w.address(memory, w.byte_offset(memory, w.element_offset(memory, call_index(op, k))))


def _tile_number(w: Writer, buffer: Value) -> int:
    """Tiles are numbered in the order of their allocation."""
    number = w.tiles.get(buffer)
    if number is None or number >= _TILES:
        raise UnsupportedError(
            "E0428", f"a function has {_TILES} tiles, one more is asked for", hint="tile less"
        )
    return number


INSTR_ROWS: dict[str, Row] = {"loop.call_instr": _call_instr}

__all__ = ["INSTR_ROWS"]
