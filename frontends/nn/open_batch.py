"""Programs of one example made programs of a batch: the first extent of 1 becomes a symbol.

Exporters often fix the batch at 1, and training wants more.  Each op is made again on the opened
types; where the batch does not stay outermost, or an op works along it, that is an error.
May import: ir.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...ir.core import Builder, Op, Value
from ...ir.dims import Dim, equal, sym
from ...ir.errors import Error
from ...ir.ops.core import Const, Func, Return
from ...ir.types import TensorType

_SHAPED = {"reshape": "shape", "broadcast_to": "shape", "slice": "sizes"}
"""Ops that say extents of their result in an attribute."""


def opened(func: Func, name: str) -> Func:
    """The function with inputs [1, ...] as [name, ...].  E0646 where that cannot be."""
    batch = sym(name)
    made = Func.make(func.sym, [_opened(v.tensor, batch, func) for v in func.args], func.inputs,
                     outputs=func.outputs)  # fmt: skip
    b = Builder(made.body)
    env = dict(zip(func.args, made.args, strict=True))
    for old, new in env.items():
        new.name = old.name
    for op in func.body:
        b.loc = op.loc
        operands = [None if v is None else env[v] for v in op.operands]
        if isinstance(op, Return):
            b.emit(Return, *operands)
            continue
        new_op = b.insert(_again(op, operands, batch))
        env.update(zip(op.results, new_op.results, strict=True))
    return made


def _opened(type: TensorType, batch: Dim, func: Func) -> TensorType:
    """An input's type with the batch in front."""
    if not type.shape or type.shape[0] != 1:
        raise Error("E0646", "an input has no batch of 1 to open", where=func.sym,
                    details=(f"found {type}",))  # fmt: skip
    return TensorType(type.dtype, (batch, *type.shape[1:]))


def _again(op: Op, operands: Sequence[Value | None], batch: Dim) -> Op:
    """The op on opened operands, held against what it gave before."""
    flowing = [v for v in operands if v is not None and _flows(v, batch)]
    if isinstance(op, Const) or not flowing:
        return op.copy({v: n for v, n in zip(op.operands, operands) if n is not None})
    if op.regions:
        raise _refused(op, "it has regions")
    if op.attributes.get("axis") == 0 and operands[0] in flowing:
        raise _refused(op, "it works along the batch")
    attrs: dict[str, Any] = dict(op.attributes)
    said = _SHAPED.get(op.name)
    if said is not None:
        attrs[said] = (attrs[said][0] * batch, *attrs[said][1:])
    try:
        made = type(op)(*operands, loc=op.loc, **attrs)  # type: ignore[arg-type]
    except Error as error:
        raise _refused(op, error.message) from None
    for old, new in zip(op.results, made.results, strict=True):
        if not _only_opened(old.tensor, new.tensor, batch):
            raise _refused(op, f"{old.type} would become {new.type}")
    return made


def _flows(value: Value, batch: Dim) -> bool:
    """Whether a value has the batch among its extents."""
    return any([isinstance(e, Dim) and not e.symbols.isdisjoint(batch.symbols)
                for e in value.tensor.shape])  # fmt: skip


def _only_opened(old: TensorType, new: TensorType, batch: Dim) -> bool:
    """Whether the new type is the old one with its first extent times the batch."""
    if len(old.shape) != len(new.shape) or not old.shape:
        return False
    want = (old.shape[0] * batch, *old.shape[1:])
    return all([equal(a, e) is True for a, e in zip(want, new.shape)])


def _refused(op: Op, why: str) -> Error:
    return Error("E0646", f"the batch cannot be opened at '{op.name}': {why}", where=op.loc,
                 hint="export the model with a dynamic batch")  # fmt: skip


__all__ = ["opened"]
