"""The text of a program: one uniform syntax for every op, printed here and read back by parse.py.

`parse(print_op(m), blobs_of(m))` equals m structurally: locations included, constants by hash.

    func @main(%x: f32[N, 784]) -> f32[N, 10] {
      %w = const {value = @blob:5f2a91c03b77d0e4} : f32[784, 10]
      %0 = matmul(%x, %w) : f32[N, 10]
      %1 = softmax(%0) {axis = 1} : f32[N, 10] @"/fc/Softmax" "model.onnx":7
      return %1
    }

An op is `results = name(operands) {attributes} (arguments) { region } : types @"location"`, each
part only where there is one; terminators write their operands bare.  Attributes equal to their
default and those implied by the result types are left out.  `_` stands for an absent operand.
Imports: the core, blobs, literals, compare, parse.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .blobs import Blob
from .compare import difference, equal, same
from .core import Block, Loc, Op, Value, attr
from .errors import VerifyError
from .literals import attribute_text, is_small, quoted
from .ops.core import Func, Module
from .parse import FUNC_KINDS, parse
from .types import Type

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
INDENT = "  "


def print_op(op: Op) -> str:
    """The text of a module, a function or any op, without a final newline."""
    printer = _Printer()
    if isinstance(op, Module):
        printer.module(op)
    else:
        printer.op(op, "")
    return "\n".join(printer.lines)


def blobs_of(op: Op) -> dict[str, Blob]:
    """The constants that the text of `op` refers to by hash: first 16 hex digits to blob."""
    found: dict[str, Blob] = {}
    for inner in op.walk():
        for value in inner.attrs:
            _collect(value, found)
    return found


def check_round_trip(op: Op) -> None:
    """Raise VerifyError E0240 unless the text of `op` parses to its equal and prints the same."""
    module = op if isinstance(op, Module) else Module.make([op.copy()])  # type: ignore[list-item]
    text = print_op(module)
    again = parse(text, blobs_of(module), "<round trip>")
    found = difference(module, again)
    if found is None and print_op(again) != text:
        found = "the text differs the second time"
    if found is not None:
        raise VerifyError(
            "E0240", "the program does not survive printing and parsing", details=(found,)
        )


def _collect(value: Any, found: dict[str, Blob]) -> None:
    if isinstance(value, Blob):
        if not is_small(value):
            found[value.digest[:16]] = value
    elif type(value) is tuple:
        for part in value:
            _collect(part, found)


class _Names(dict[Value, str]):
    """Value to printed name: its own where legal and free, else the next number."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.count = 0

    def __missing__(self, value: Value) -> str:
        own = value.name
        if own is None or own in self.taken or not NAME.match(own):
            text = f"%{self.count}"
            self.count += 1
        else:
            self.taken.add(own)
            text = "%" + own
        self[value] = text
        return text


class _Printer:
    """Collects lines; `names` holds the values of the function being printed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names = _Names()

    def module(self, module: Module) -> None:
        """A header unless all of it is default, then the ops."""
        if module.sym != "module" or module.loc is not None:
            self.lines.append(f"module {_symbol(module.sym)}{_loc(module.loc)}")
        for index, op in enumerate(module.body):
            if index:
                self.lines.append("")
            self.op(op, "")

    def op(self, op: Op, pad: str) -> None:
        """One op with its regions."""
        if type(op) is Func:
            self.func(op, pad)
            return
        names = self.names
        operands = op.operands
        text = op.name
        if operands:
            listed = ", ".join(["_" if v is None else names[v] for v in operands])
            text = f"{text} {listed}" if op.terminator else f"{text}({listed})"
        results = op.results
        if op.attrs:
            shown = [
                (a, v) for a, v in zip(op.spec.attrs, op.attrs, strict=True) if not _left_out(a, v)
            ]
            text += _attributes(shown, results[0].type if len(results) == 1 else None)
        if results:
            left = (
                names[results[0]] if len(results) == 1 else ", ".join([names[v] for v in results])
            )
            text = f"{pad}{left} = {text}"
        else:
            text = pad + text
        for block in op.regions:
            text = self.region(block, text + _arguments(block, names), pad)
        if results:
            types = (
                results[0].type.text
                if len(results) == 1
                else ", ".join([v.type.text for v in results])
            )
            text = f"{text} : {types}"
        self.lines.append(text if op.loc is None else text + _loc(op.loc))

    def region(self, block: Block, head: str, pad: str) -> str:
        """The lines of a region but its last, which is returned."""
        self.lines.append(head + " {")
        self.block(block, pad + INDENT)
        return pad + "}"

    def block(self, block: Block, pad: str) -> None:
        """Every op of a block; the plain ones (no attributes, regions or location) at once."""
        names, lines = self.names, self.lines
        op = block.first
        while op is not None:
            results = op.results
            if len(results) != 1 or op.attrs or op.regions or op.loc is not None:
                self.op(op, pad)
            else:
                listed = ", ".join(["_" if v is None else names[v] for v in op.operands])
                (result,) = results
                call = f"({listed})" if listed else ""
                lines.append(f"{pad}{names[result]} = {op.name}{call} : {result.type.text}")
            op = op.next

    def func(self, func: Func, pad: str) -> None:
        """A function: names of values start anew."""
        self.names = names = _Names()
        kind = func.kind if func.kind in FUNC_KINDS else "func"
        head = f"{pad}{kind} {_symbol(func.sym)}({_listed(func.body, names)})"
        returned = [v.type.text for v in func.returned if v is not None]
        if returned:
            head += " -> " + (returned[0] if len(returned) == 1 else f"({', '.join(returned)})")
        said = {"sym": func.sym, "kind": kind, "inputs": _inputs(func.body, names)}
        fields = zip(func.spec.attrs, func.attrs, strict=True)
        shown = [(a, v) for a, v in fields if not same(v, said.get(a.name, a.default))]
        head += _attributes(shown)
        self.lines.append(self.region(func.body, head, pad) + _loc(func.loc))


def _inputs(body: Block, names: _Names) -> tuple[str, ...]:
    """The input names that the header says: the arguments', if each has a name of its own."""
    listed = tuple([names[v][1:] for v in body.args])
    return listed if all([not name[0].isdigit() for name in listed]) else ()


def _listed(block: Block, names: _Names) -> str:
    return ", ".join([f"{names[v]}: {v.type.text}" for v in block.args])


def _arguments(block: Block, names: _Names) -> str:
    return f" ({_listed(block, names)})" if block.args else ""


def _left_out(field: attr, value: Any) -> bool:
    return field.implied or value is field.default or same(value, field.default)


def _attributes(shown: Sequence[tuple[attr, Any]], result: Type | None = None) -> str:
    """` {name = value, ...}`; empty where nothing is shown."""
    if not shown:
        return ""
    return (
        f" {{{', '.join([f'{a.name} = {attribute_text(v, a.type, result)}' for a, v in shown])}}}"
    )


def _symbol(name: str) -> str:
    return "@" + (name if NAME.match(name) else quoted(name))


def _loc(loc: Loc | None) -> str:
    if loc is None:
        return ""
    return f" @{quoted(loc.name)}" + (
        f" {quoted(loc.file)}:{loc.line}" if loc.file or loc.line else ""
    )


__all__ = ["blobs_of", "check_round_trip", "difference", "equal", "parse", "print_op"]
