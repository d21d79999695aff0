"""What the importer has: for each op of the standard its opsets, and the IR ops it becomes.

The IR ops are read off the rows themselves: the builder calls in a row's code and in the functions
of this package that it calls.  A row may build fewer of them for a given node.  Imports: onnx, ir.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import CodeType, FunctionType
from typing import Any

from onnx import defs

from ...ir import ops  # registers them
from ...ir.core import OPS, Op
from .functions import schema_of
from .node import Node
from .table import MAX_OPSET, has_row, lookup, rows_of

assert ops
STRUCTURE = frozenset({"const", "func", "module", "return", "yield"})


@dataclass(frozen=True)
class OnnxOp:
    """An op type of the standard or of another domain that has rows.

    `versions` are the opsets in which the standard changed it and that are imported; `how` is
    "row", "definition" (by the body of ops that the standard gives) or "no"; `builds` the IR ops
    of its rows, `body` the op types of its definition.
    """

    type: str
    domain: str
    versions: tuple[int, ...]
    how: str
    builds: tuple[str, ...] = ()
    body: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The type, with its domain where that is not the default."""
        return f"{self.domain}.{self.type}" if self.domain else self.type


def onnx_ops() -> list[OnnxOp]:
    """Every op of the default domain up to the newest opset known, and whatever else has rows."""
    versions: dict[tuple[str, str], set[int]] = {}
    for schema in defs.get_all_schemas_with_history():
        if not schema.domain and schema.since_version <= MAX_OPSET and not schema.deprecated:
            versions.setdefault(("", schema.name), set()).add(schema.since_version)
    for domain, type_, since in rows_of():
        if (domain, type_) not in versions or domain:
            versions.setdefault((domain, type_), set()).add(since)
    return [_listed(domain, type_, v) for (domain, type_), v in sorted(versions.items())]


def _listed(domain: str, type_: str, versions: set[int]) -> OnnxOp:
    able = tuple([v for v in sorted(versions) if _imported(domain, type_, v)])
    rows = {row for v in able if (row := lookup(domain, type_, v)) is not None}
    if rows:
        built = {name for row in rows for name in built_by(row)}
        return OnnxOp(type_, domain, able, "row", tuple(sorted(built)))
    if not able:
        return OnnxOp(type_, domain, (), "no")
    return OnnxOp(type_, domain, able, "definition", body=_body(domain, type_, able[-1]))


def _imported(domain: str, type_: str, version: int) -> bool:
    """Is there a row, or a definition (which may depend on types) of ops that have rows?"""
    schema = schema_of(domain, type_, version)
    defined = schema is not None and (
        schema.has_function or schema.has_context_dependent_function
    )
    return (lookup(domain, type_, version) is not None) or (
        defined and has_row(domain, type_, version)
    )


def _body(domain: str, type_: str, version: int) -> tuple[str, ...]:
    """The op types of a definition that does not depend on types."""
    schema = schema_of(domain, type_, version)
    if schema is None or not schema.has_function:
        return ()
    return tuple(sorted({n.op_type for n in schema.function_body.node}))


@cache
def built_by(row: Any) -> frozenset[str]:
    """Names of the IR ops that a row's code builds."""
    found: set[str] = set()
    seen: set[Any] = set()
    todo = [row]
    while todo:
        function = todo.pop()
        if not isinstance(function, FunctionType) or function in seen:
            continue
        seen.add(function)
        for cell in function.__closure__ or ():
            if isinstance(cell.cell_contents, str):
                found |= {cell.cell_contents} & OPS.keys()
            else:
                todo.append(cell.cell_contents)
        for code in _codes(function.__code__):
            names, called = _read(code, function.__globals__)
            found |= names
            todo += called
    return frozenset(found - STRUCTURE)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _read(code: CodeType, names: dict[str, Any]) -> tuple[set[str], list[Any]]:
    """Ops named by builder calls (`n.b.relu`) and by classes; functions of this package called."""
    found: set[str] = set()
    called: list[Any] = []
    before: Any = None
    arguments = False  # in a statement that calls a function of this package
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_GLOBAL":
            known = names.get(step.argval)
            if isinstance(known, type) and issubclass(known, Op):
                found.add(known.name)
            elif getattr(known, "__module__", "").startswith(__package__ or ""):
                called.append(known)
                arguments = True
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            owner = before.argval if before is not None else ""
            if owner == "b" and step.argval in OPS:
                found.add(step.argval)
            elif owner in ("n", "node", "self"):
                called.append(getattr(Node, step.argval, None))
        elif step.opname == "LOAD_CONST" and isinstance(step.argval, str) and arguments:
            if before is not None and before.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                found |= {step.argval} & OPS.keys()
        elif step.opname.startswith(("STORE", "POP_", "RETURN")):
            arguments = False
        if step.opname not in ("CACHE", "PRECALL", "PUSH_NULL"):
            before = step
    return found, called


__all__ = ["OnnxOp", "built_by", "onnx_ops"]
