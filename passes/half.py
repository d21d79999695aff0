"""Models in half precision: every f32 becomes f16, the inputs and outputs of main stay as they are.

Constants are held inside the range of f16: the greatest finite number for what is larger (masks),
the least positive one for what would vanish (epsilons).  May import: ir, passes.options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.blobs import Blob
from ..ir.core import Array, Builder, Op, Value
from ..ir.ops.core import Const, Func, Module
from ..ir.types import DType, OptionalType, SequenceType, TensorType, Type, f16, f32
from ..ir.verify import verify
from .options import Pass


@dataclass(frozen=True)
class Half(Pass):
    """f32 becomes f16, with casts at the inputs and outputs of main."""

    def run(self, module: Module) -> Module:
        for func in module.funcs:
            if func.kind == "func":
                _function(func)
        verify(module)
        return module


def _function(func: Func) -> None:
    wanted = [v.type for v in func.returned]
    for op in func.body.walk():
        _narrow(op)
    b = Builder(func.body, func.body.first)
    for arg in func.args:
        if isinstance(arg.type, TensorType) and arg.type.dtype is f32 and arg.uses is not None:
            _behind(arg, b)
    last = func.body.last
    assert last is not None
    b = Builder(func.body, last)
    results = [
        v if v.type is t else b.cast(v, to=t.dtype)  # type: ignore[attr-defined]
        for v, t in zip(last.operands, wanted)
    ]
    last.set_operands(results)


def _behind(arg: Value, b: Builder) -> None:
    """A cast that all users of a parameter use instead."""
    users = arg.users
    cast: Value = b.cast(arg, to=f16)
    for user in users:
        user.set_operands([cast if v is arg else v for v in user.operands])


def _narrow(op: Op) -> None:
    """Types and attributes of an op, and of the arguments of its regions, in f16."""
    if isinstance(op, Const) and isinstance(op.value, Blob) and op.value.dtype is f32:
        blob = Blob(held(op.value.array))
        op.attrs = (blob, blob.type)
    op.attrs = tuple([_attribute(v) for v in op.attrs])
    for value in (*op.results, *[a for region in op.regions for a in region.args]):
        value.type = _typed(value.type)


def held(array: Array) -> Array:
    """f32 numbers as f16: finite ones stay finite, and what is not 0 stays so."""
    least, most = np.float32(2.0**-24), np.float32(np.finfo(np.float16).max)
    if array.size > 1 and not any([s for s, e in zip(array.strides, array.shape) if e > 1]):
        return np.broadcast_to(held(array[(slice(0, 1),) * array.ndim]), array.shape)
    size = np.abs(array)
    kept = np.where((size > most) & np.isfinite(array), np.copysign(most, array), array)
    kept = np.where((size < least) & (size > 0), np.copysign(least, array), kept)
    return np.asarray(kept.astype(np.float16))


def _attribute(value: Any) -> Any:
    if isinstance(value, Type):
        return _typed(value)
    if type(value) is tuple:
        return tuple([_attribute(v) for v in value])
    return value


def _typed(type: Type) -> Type:
    if isinstance(type, DType):
        return f16 if type is f32 else type
    if isinstance(type, TensorType):
        return TensorType(f16, type.shape) if type.dtype is f32 else type
    if isinstance(type, (SequenceType, OptionalType)):
        return type.__class__(_typed(type.element))
    return type


__all__ = ["Half", "held"]
