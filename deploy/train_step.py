"""A train step as a C package: init, train_step, eval_step, infer, save, restore; one state block.

The programs come traced and differentiated; here they are compiled for C, joined, given a state
block, a face, test vectors and a manifest.  May import: ir, passes, backends, its siblings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.c.printer import emit_blob
from ..backends.c.types import identifier
from ..ir.blobs import Blob
from ..ir.core import Array
from ..ir.ops.core import Module
from ..ir.types import TensorType
from .folder import MANIFEST, SCHEMA, check_goal, json_text, package_name, render, write_package
from .programs import Argument, Entry, Function, Linked, link, stored_size, without_locations
from .rehearsal import Rehearsal, rehearse
from .state import HEAD_BYTES, Layout, Start, fingerprint, layout, starts, type_of

ABI_VERSION = 1
SAVE_HEAD = 32
DRAW = "draw"

CODES = (
    ("OK", "no error"),
    ("ERROR_INDEX", "a label or index is out of range"),
    ("ERROR_SHAPE", "a shape contradicts the model"),
    ("ERROR_NULL", "a pointer is NULL"),
    ("ERROR_ALIGN", "state or arena does not lie at a multiple of the alignment"),
    ("ERROR_ARENA", "the arena is too short"),
    ("ERROR_STATE", "the state block is too short"),
    ("ERROR_UNSET", "the state block was not filled by init"),
    ("ERROR_BUFFER", "the buffer is too short"),
    ("ERROR_FOREIGN", "saved by another model"),
    ("ERROR_DAMAGED", "damaged or cut off"),
    ("ERROR_PART", "no such part of the state"),
)
"""What calls can answer; the first three are those of kernels (ir/ops/loop.py)."""


@dataclass(frozen=True)
class StepPrograms:
    """What a package is made of.

    `entries` are train_step and, where wanted, eval_step and infer.  `first` holds the first value
    of every state; those in `constant` never change and become constants, those in `model` are what
    the network is, the rest belongs to training.  `drawn(key)` computes the cells it is named for
    from the seed; `key` names the cell that holds the seed.  `batch` and `inputs` are arrays for
    the test: of train_step and of infer.  `facts` go into the manifest.
    """

    entries: tuple[Entry, ...]
    first: Mapping[str, Array]
    model: tuple[str, ...]
    training: tuple[str, ...]
    constant: tuple[str, ...]
    key: str
    seed: int
    batch: tuple[Array, ...]
    inputs: tuple[Array, ...] = ()
    drawn: Module | None = None
    seeds: bool = True
    test_steps: int = 10
    facts: Mapping[str, Any] = field(default_factory=dict)


def package_train_step(
    programs: StepPrograms, path: Path, name: str | None = None, version: str = ""
) -> Path:
    """Write the package; gives its folder.  Errors: E0803 to E0806."""
    name = package_name(path, name)
    check_goal(path.resolve())
    write_package(path, files_of(programs, name, version))
    return path


def files_of(programs: StepPrograms, name: str, version: str = "") -> dict[str, str]:
    """The texts of the package by relative path."""
    entries = [*programs.entries]
    if programs.drawn is not None:
        entries.append(Entry(DRAW, programs.drawn, (), collected=False))
    made = _Package(programs, name, version, link(name, entries))
    return made.files()


class _Package:
    """Everything that the templates ask for."""

    def __init__(self, programs: StepPrograms, name: str, version: str, linked: Linked) -> None:
        self.programs, self.name, self.version, self.linked = programs, name, version, linked
        first = programs.first
        self.layout = layout(
            [(n, type_of(first[n])) for n in programs.model],
            [(n, type_of(first[n])) for n in programs.training],
        )
        taken: set[str] = set()
        self.constants = {n: f"{name}_const_{identifier(n, taken)}" for n in programs.constant}
        cells = programs.drawn.main.outputs if programs.drawn is not None else ()
        self.drawn = frozenset(cells)
        key = programs.key if programs.seeds else ""
        self.starts, self.tables = starts(name, self.layout, first, self.drawn, key)
        network = next((e for e in programs.entries if e.name == "infer"), programs.entries[0])
        text = str(without_locations(network.module))
        held = {n: first[n] for n in programs.constant}
        self.fingerprint = fingerprint(self.layout, text, held)
        names = {c.c_name: c.name for c in self.layout.cells}
        copies = {s.cell.name: names[s.text] for s in self.starts if s.kind == "copy"}
        self.rehearsal = rehearse(programs, copies)

    # ------------------------------------------------------------ files

    def files(self) -> dict[str, str]:
        """All texts."""
        name, context = self.name, self.context()
        made = {
            f"include/{name}.h": render("train_step/header.h.j2", **context),
            f"src/{name}.c": render("train_step/face.c.j2", **context),
            f"src/{name}_plans.h": self.linked.plans,
            f"src/{name}_data.h": self.data(),
            "examples/main.c": render("train_step/main.c.j2", **context),
            "testdata/selftest.c": render("train_step/selftest.c.j2", **context),
            f"testdata/{name}_testdata.h": self.testdata(),
            f"python/{name}.py": render("train_step/loader.py.j2", **context),
            "Makefile": render("train_step/Makefile.j2", **context),
            "CMakeLists.txt": render("train_step/CMakeLists.txt.j2", **context),
            "README.md": render("train_step/README.md.j2", **context),
        }
        return made | {MANIFEST: json_text(self.manifest(sorted(made)))}

    def data(self) -> str:
        """Constants of the programs, what is constant of the network, and first values."""
        first = self.programs.first
        arrays = [emit_blob(c, Blob(first[n])) for n, c in self.constants.items()]
        text = "\n".join([self.linked.data, *arrays, *self.tables])
        head = "/* Constants and first values. */\n"
        special = "INFINITY" in text or "NAN" in text
        return head + ("#include <math.h>\n\n" if special else "") + text

    def testdata(self) -> str:
        """The batch and what is expected of it."""
        found, programs = self.rehearsal, self.programs
        named = {n: x for (n, _), x in zip(programs.entries[0].inputs, programs.batch)}
        infer = self.function("infer")
        if infer is not None:
            named |= self.separate(infer, programs.inputs)
        expected = []
        for r, x in zip(infer.results if infer else (), found.outputs):
            if plain(r):
                expected.append(emit_blob(f"test_infer_{r.c_name}", Blob(x)))
        return render(
            "train_step/testdata.h.j2",
            P=self.name.upper(),
            seed=self.programs.seed,
            losses=[repr(float(v)) for v in found.losses],
            rates=[repr(float(v)) for v in found.rates],
            eval_loss=None if found.eval_loss is None else repr(float(found.eval_loss)),
            tolerance=found.tolerance,
            batch_tables=[emit_blob(f"test_{n}", Blob(x)) for n, x in named.items()],
            expected_tables=expected,
        )

    def separate(self, infer: Function, inputs: Sequence[Array]) -> dict[str, Array]:
        """The inputs of `infer` that are not those of the train step."""
        known = {n: x for (n, _), x in zip(self.programs.entries[0].inputs, self.programs.batch)}
        pairs = zip(infer.inputs, inputs, strict=True)
        return {
            f"infer_{a.name}": x for a, x in pairs
            if a.name not in known or not np.array_equal(known[a.name], x)
        }  # fmt: skip

    # ------------------------------------------------------------ what templates see

    def function(self, name: str) -> Function | None:
        """The C function of an entry."""
        return next((f for f in self.linked.functions if f.entry.name == name), None)

    def context(self) -> dict[str, Any]:
        """The values of the templates."""
        shown = [self.shown(f) for f in self.linked.functions if f.entry.name != DRAW]
        key = self.programs.key if self.programs.key in self.layout else None
        seeds = self.programs.seeds
        infer = self.function("infer")
        return {
            "p": self.name, "P": self.name.upper(), "version": self.version, "abi": ABI_VERSION,
            "state": self.layout, "head": HEAD_BYTES, "arena_bytes": self.linked.arena_bytes,
            "lower_bound": max([f.lower_bound for f in self.linked.functions]),
            "flash_bytes": self.flash_bytes,
            "codes": CODES, "save_all": SAVE_HEAD + self.layout.bytes - HEAD_BYTES,
            "save_model": SAVE_HEAD + self.layout.model_end - HEAD_BYTES,
            "batch": len(self.programs.batch[0]), "functions": shown, "train": shown[0],
            "constants": [{"name": n, "type": type_of(self.programs.first[n])}
                          for n in self.programs.constant],
            "init_about": self.init_about(), "starts": self.starts, "draw": self.draw_call(),
            "uses_status": self.programs.drawn is not None,
            "uses_seed": self.programs.drawn is not None or (seeds and key is not None),
            "key": self.layout[key].c_name if seeds and key is not None else None,
            "hash_low": f"0x{self.fingerprint[8:16]}", "hash_high": f"0x{self.fingerprint[:8]}",
            "info": c_string(json.dumps(self.info())),
            "train_args": self.test_args("train_step"), "eval_args": self.test_args("eval_step"),
            "infer_args": self.test_args("infer") and [
                *self.test_args("infer"), *[r.c_name for r in infer.results if infer]
            ] if infer else [],
            "infer_results": [
                {"c_name": r.c_name, "type": r.type, "elements": max(1, r.elements),
                 "plain": plain(r)} for r in (infer.results if infer else ())
            ],
        }  # fmt: skip

    def shown(self, f: Function) -> dict[str, Any]:
        """A public function for the templates."""
        notes = f.entry.notes or {}
        params = [f"const {self.name}_ctx *ctx"]
        params += [f"const {a.type} *{a.c_name}" for a in f.inputs]
        results = [a.c_name for a in f.results]
        if f.entry.collected:
            params.append(f"{self.name}_{f.entry.name}_out *out")
            results = [f"{'' if a.tensor.shape else '&'}out->{a.c_name}" for a in f.results]
        else:
            params += [f"{a.type} *{a.c_name}" for a in f.results]
        pointers = [a.c_name for a in f.inputs]
        pointers += ["out"] if f.entry.collected else [a.c_name for a in f.results]
        states = [self.state_pointer(a, "ctx->state") for a in f.states]
        passed = ["0", *states, *[a.c_name for a in f.inputs], *results, *self.tail("ctx->arena")]
        return {
            "name": f.entry.name, "about": f.entry.about, "collected": f.entry.collected,
            "inputs": [noted(a, notes) for a in f.inputs],
            "results": [noted(a, notes) for a in f.results],
            "prototype": f"int32_t {self.name}_{f.entry.name}({', '.join(params)})",
            "nulls": [f"!{n}" for n in pointers], "plan": f.plan, "passed": passed,
        }  # fmt: skip

    def state_pointer(self, a: Argument, block: str) -> str:
        """Where a state lies, as a C expression."""
        if a.name in self.constants:
            return self.constants[a.name]
        macro = f"{self.name.upper()}_AT_{self.layout[a.name].c_name.upper()}"
        const = "const " if a.const else ""
        return f"({const}{a.type} *)({const}void *)({block} + {macro})"

    def tail(self, arena: str) -> list[str]:
        """The last arguments of every plan."""
        constants = f"&{self.name}_weights" if self.linked.weight_bytes else "0"
        return [arena, f"(const uint8_t *)(const void *){constants}"]

    def draw_call(self) -> str:
        """The call that draws first values, or nothing."""
        f = self.function(DRAW)
        if f is None:
            return ""
        cells = [self.state_pointer(a, "at") for a in f.results]
        return f"{f.plan}(0, key, {', '.join([*cells, *self.tail('(uint8_t *)arena')])})"

    def test_args(self, name: str) -> list[str]:
        """The arrays of testdata that an entry takes."""
        f = self.function(name)
        if f is None:
            return []
        own = self.separate(f, self.programs.inputs) if name == "infer" else {}
        return [
            f"test_infer_{a.name}" if f"infer_{a.name}" in own else f"test_{a.name}"
            for a in f.inputs
        ]

    def init_about(self) -> str:
        """What the header says of the first values."""
        said = "Parameters begin as they were in Python"
        if self.programs.drawn is not None:
            count = len(self.drawn)
            said = f"{count} arrays are drawn from the seed, others begin as they were in Python"
        if not self.programs.seeds:
            return said + "; all goes on where Python stopped (the seed does not count)."
        return said + "; the seed decides what training draws."

    @property
    def flash_bytes(self) -> int:
        """Bytes of constants and tables."""
        tables = sum([s.cell.bytes for s in self.starts if s.kind == "table"])
        held = [stored_size(type_of(self.programs.first[n])) for n in self.programs.constant]
        return self.linked.weight_bytes + tables + sum(held)

    # ------------------------------------------------------------ description

    def info(self) -> dict[str, Any]:
        """What the library says of itself."""
        found: dict[str, Any] = {
            "name": self.name, "kind": "train_step", "abi": ABI_VERSION, "irc": self.version,
            "fingerprint": self.fingerprint, "state_bytes": self.layout.bytes,
            "arena_bytes": self.linked.arena_bytes, "batch": len(self.programs.batch[0]),
        }  # fmt: skip
        signature = {
            f.entry.name: {"inputs": [f"{a.name}: {a.tensor}" for a in f.inputs],
                           "results": [f"{a.name}: {a.tensor}" for a in f.results]}
            for f in self.linked.functions if f.entry.name != DRAW
        }  # fmt: skip
        whole = found | {"entries": signature}
        return whole if len(json.dumps(whole)) < 3500 else found  # C99 takes strings of 4095

    def manifest(self, files: Sequence[str]) -> dict[str, Any]:
        """manifest.json."""
        starts = {s.cell.name: s.kind for s in self.starts}
        cells = [
            {
                "name": c.name, "type": c.type.dtype.name, "shape": list(c.type.shape),
                "offset": c.offset, "bytes": c.bytes, "part": c.part,
                "first": "drawn" if c.name in self.drawn else starts.get(c.name, "zero"),
            }
            for c in self.layout.cells
        ]  # fmt: skip
        return {
            "schema": SCHEMA, "name": self.name, "kind": "train_step", "target": "c",
            "irc": self.version, "abi": ABI_VERSION, "fingerprint": self.fingerprint,
            "batch": len(self.programs.batch[0]), "arena_bytes": self.linked.arena_bytes,
            "lower_bound": max([f.lower_bound for f in self.linked.functions]),
            "constant_bytes": self.flash_bytes, "kernels": self.linked.kernels,
            **self.programs.facts,
            "entries": {
                f.entry.name: {
                    "struct": f.entry.collected, "arena_bytes": f.arena_bytes,
                    "inputs": [described(a) for a in f.inputs],
                    "results": [described(a) for a in f.results],
                }
                for f in self.linked.functions if f.entry.name != DRAW
            },
            "state": {
                "bytes": self.layout.bytes, "alignment": 64,
                "save_bytes": [SAVE_HEAD + end - HEAD_BYTES
                               for end in (self.layout.bytes, self.layout.model_end)],
                "cells": cells,
            },
            "constants": [
                {"name": n, "type": (t := type_of(self.programs.first[n])).dtype.name,
                 "shape": list(t.shape)} for n in self.programs.constant
            ],
            "files": list(files),
        }  # fmt: skip


def plain(a: Argument) -> bool:
    """Whether a C compiler reads its elements as numbers."""
    return a.type != "uint16_t" or not a.tensor.dtype.is_float


def noted(a: Argument, notes: Mapping[str, str]) -> dict[str, Any]:
    """An argument with what is to be said of it."""
    return {
        "c_name": a.c_name, "type": a.type, "tensor": a.tensor, "elements": max(1, a.elements),
        "note": notes.get(a.name, ""),
    }  # fmt: skip


def described(a: Argument) -> dict[str, Any]:
    """An argument in the manifest."""
    return {
        "name": a.name, "c_name": a.c_name, "type": a.tensor.dtype.name,
        "shape": list(a.tensor.shape),
    }  # fmt: skip


def c_string(text: str) -> str:
    """A C string literal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


__all__ = [
    "ABI_VERSION", "Layout", "Rehearsal", "Start", "StepPrograms", "TensorType", "files_of",
    "package_train_step",
]  # fmt: skip
