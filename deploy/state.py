"""The state block of a package: which array lies where, what it is at first, and its fingerprint.

The block begins with 16 bytes that say whose it is.  Then come the arrays of the model (parameters,
statistics), then those of training (slots, random stream, counters), so that each part is one run.
Arrays of a kilobyte or more begin at a multiple of 64 bytes, smaller ones at a multiple of 8.
May import: ir, backends, its siblings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..backends.c.printer import emit_blob
from ..backends.c.types import identifier, literal, memory_type
from ..ir.blobs import Blob
from ..ir.core import Array
from ..ir.types import TensorType, from_numpy
from .programs import element_count, stored_size

HEAD_BYTES = 16
LARGE_BYTES, LINE, WORD = 1024, 64, 8
MODEL, TRAINING = "model", "training"


@dataclass(frozen=True)
class Cell:
    """An array of the state block: `part` is model or training, `offset` in bytes."""

    name: str
    type: TensorType
    part: str
    offset: int
    c_name: str

    @property
    def bytes(self) -> int:
        """Its size."""
        return stored_size(self.type)

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return element_count(self.type)

    @property
    def c_type(self) -> str:
        """The C type of an element."""
        return memory_type(self.type.dtype)


@dataclass(frozen=True)
class Layout:
    """All cells; the model's part is the bytes from HEAD_BYTES to `model_end`."""

    cells: tuple[Cell, ...]
    model_end: int
    bytes: int

    def __getitem__(self, name: str) -> Cell:
        return next(c for c in self.cells if c.name == name)

    def __contains__(self, name: object) -> bool:
        return any([c.name == name for c in self.cells])


def layout(model: Sequence[tuple[str, TensorType]],
           training: Sequence[tuple[str, TensorType]]) -> Layout:  # fmt: skip
    """Places for these arrays, in their order."""
    cells: list[Cell] = []
    taken: set[str] = set()
    at = HEAD_BYTES
    ends = []
    for part, fields in ((MODEL, model), (TRAINING, training)):
        for name, type in fields:
            at = _up(at, LINE if stored_size(type) >= LARGE_BYTES else WORD)
            cells.append(Cell(name, type, part, at, identifier(name.lower(), taken)))
            at += stored_size(type)
        at = _up(at, WORD)
        ends.append(at)
    return Layout(tuple(cells), ends[0], _up(ends[1], LINE))


def _up(at: int, multiple: int) -> int:
    return -(-at // multiple) * multiple


def type_of(array: Array) -> TensorType:
    """The tensor type of an array."""
    return TensorType(from_numpy(array.dtype), array.shape)


def fingerprint(found: Layout, program: str, constants: Mapping[str, Array]) -> str:
    """32 hex digits that two packages share whose saved states fit each other.

    `program` is the text of the network; learning rates and the like do not count.
    """
    digest = hashlib.sha256(b"irc train state 1\n")
    for c in found.cells:
        digest.update(f"{c.name} {c.type} {c.offset}\n".encode())
    digest.update(program.encode())
    for name in sorted(constants):
        digest.update(name.encode() + np.ascontiguousarray(constants[name]).tobytes())
    return digest.hexdigest()[:32]


@dataclass(frozen=True)
class Start:
    """How `init` fills one cell behind the zeros: `kind` is fill, copy or table.

    `text` is the number, the C name of the cell to copy, or of the table.
    """

    cell: Cell
    kind: str
    text: str


def starts(
    name: str, found: Layout, initial: Mapping[str, Array], drawn: Collection[str], key: str
) -> tuple[list[Start], list[str]]:
    """What `init` does for every cell that does not begin as zeros, and the tables it needs.

    A cell in `drawn` is drawn, one equal to it in Python (an average) is copied afterwards.  The
    cell `key` takes the seed.
    """
    made: list[Start] = []
    tables: list[str] = []
    known: dict[tuple[str, bytes], Cell] = {}
    for cell in found.cells:
        array = np.ascontiguousarray(initial[cell.name])
        raw = array.tobytes()
        same = known.get((cell.type.text, raw))
        if cell.name in drawn:
            known[cell.type.text, raw] = cell
        elif cell.name == key or not any(raw):
            continue
        elif raw == array.reshape(-1)[:1].tobytes() * array.size:
            made.append(Start(cell, "fill", scalar(array.reshape(-1)[0])))
        elif same is not None:
            made.append(Start(cell, "copy", same.c_name))
        else:
            table = f"{name}_first_{cell.c_name}"
            tables.append(emit_blob(table, Blob(array)))
            made.append(Start(cell, "table", table))
            known[cell.type.text, raw] = cell
    return made, tables


def scalar(value: np.generic) -> str:
    """A number as C text, of the type it has in memory."""
    dtype = from_numpy(value.dtype)
    if memory_type(dtype) == "uint16_t" and dtype.is_float:
        return f"{int(np.asarray(value).view(np.uint16))}u"
    return literal(value, dtype)


__all__ = [
    "HEAD_BYTES", "MODEL", "TRAINING", "Cell", "Layout", "Start", "fingerprint", "layout",
    "scalar", "starts", "type_of",
]  # fmt: skip
