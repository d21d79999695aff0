"""Which ops there are and what becomes of them: read off the op classes and the import table.

Imports: ir, passes; frontends/onnx for what ONNX has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..frontends.onnx.listing import OnnxOp
from ..ir import ops
from ..ir.core import OPS, Op
from ..passes.fuse_kinds import VIEWS

assert ops
TARGETS = {"cpu": True, "c": False, "reference": True}
"""Backend to whether it has a host beside the kernels."""
ORDER = ("no", "host", "control", "view", "kernel")
"""What a target does with an op, the least first."""
STRUCTURE = frozenset({"module", "func", "return", "yield", "fused", "generic", "launch", "const"})


@dataclass(frozen=True)
class Listed:
    """An op of the tensor level: its meaning, element types, what ONNX makes of it, targets."""

    name: str
    meaning: str
    elements: tuple[str, ...]
    onnx: tuple[str, ...] = ()
    targets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ListedOnnx:
    """An ONNX op: imported opsets, the IR ops (or ONNX ops) it becomes, targets."""

    name: str
    opsets: tuple[int, ...]
    how: str
    becomes: tuple[str, ...]
    targets: Mapping[str, str] = field(default_factory=dict)


def ir_ops(onnx: Sequence[OnnxOp]) -> list[Listed]:
    """Every op of the tensor level, by name."""
    users: dict[str, list[str]] = {}
    for op in onnx:
        for name in op.builds:
            users.setdefault(name, []).append(op.name)
    return [
        Listed(
            name,
            meaning_of(cls),
            elements_of(cls),
            tuple(sorted(users.get(name, ()), key=lambda t: (not _named_like(t, name), t))),
            {target: support(cls, host) for target, host in TARGETS.items()}
            | {"reference": "host"},
        )
        for name, cls in sorted(OPS.items())
        if name not in STRUCTURE and "." not in name
    ]


def _named_like(type_: str, name: str) -> bool:
    return type_.lower() == name.replace("_", "")


def meaning_of(cls: type[Op]) -> str:
    """The first sentence of the class's docstring."""
    text = " ".join((cls.__doc__ or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\.) ", text, maxsplit=1)[0]


def elements_of(cls: type[Op]) -> tuple[str, ...]:
    """The kinds of elements that the widest operand takes."""
    if not cls.spec.operands:
        return ()
    widest = max([d.kind for d in cls.spec.operands], key=lambda kind: len(kind.kinds))
    order = ("float", "int", "uint", "bool", "complex", "string", "other")
    return tuple([kind for kind in order if kind in widest.kinds])


def support(cls: type[Op], host: bool) -> str:
    """kernel, view (no copy where it can be), control, host or no."""
    if cls.spec.regions:
        return "control"
    if issubclass(cls, VIEWS):
        return "view"
    if any(hasattr(cls, rule) for rule in ("generic", "loops", "decompose")):
        return "kernel"
    return "host" if host and hasattr(cls, "evaluate") else "no"


def onnx_table(onnx: Sequence[OnnxOp]) -> list[ListedOnnx]:
    """Every ONNX op, by name; a target does with it what it does with the hardest op it becomes."""
    by_name = {op.name: op for op in onnx}
    return [
        ListedOnnx(
            op.name, op.versions, op.how, op.builds or op.body,
            {
                target: least(op, by_name, host, frozenset()) if target != "reference" else
                ("no" if op.how == "no" else "host")
                for target, host in TARGETS.items()
            },
        )
        for op in onnx
    ]  # fmt: skip


def least(op: OnnxOp, known: Mapping[str, OnnxOp], host: bool, above: frozenset[str]) -> str:
    """The least that a target does with any of the ops it becomes."""
    if op.how == "no":
        return "no"
    found = [support(OPS[name], host) for name in op.builds]
    for name in op.body:
        if name in known and name not in above:
            found.append(least(known[name], known, host, above | {name}))
    computing = [f for f in found if f not in ("view", "control")]
    return min(computing or found or ["view"], key=ORDER.index)


__all__ = ["TARGETS", "Listed", "ListedOnnx", "elements_of", "ir_ops", "onnx_table", "support"]
