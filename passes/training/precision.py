"""Mixed precision: products in a narrow float, everything that sums or divides in f32.

The function keeps its signature: parameters stay f32 (the master weights) and are rounded where a
product reads them, so that their cotangents come back as f32.  A pass on the forward function,
before differentiation.  May import: ir, passes.options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.core import Builder, Op, Value
from ...ir.errors import Error
from ...ir.ops.core import Const, Func, Module
from ...ir.rewrite import rebuild
from ...ir.types import DType, TensorType, bf16, f16, f32
from ..options import Pass

PRODUCTS = frozenset("matmul contract conv conv_transpose attention".split())
"""Ops that compute in the narrow type: their sums are in f32 by their own semantics."""
FOLLOW = frozenset(
    "reshape transpose slice broadcast_to concat pad gather max_pool avg_pool relu leaky_relu neg "
    "abs add sub mul max min where clip identity dropout gelu silu sigmoid tanh stop_gradient".split()
)
"""Ops that stay narrow where what they read is narrow already; f32 activations make them f32."""


@dataclass(frozen=True)
class MixedPrecision(Pass):
    """Products of f32 tensors computed in `dtype` (bf16 or f16).  E0602 for another type."""

    dtype: str = "bf16"

    def run(self, module: Module) -> Module:
        funcs = [mixed(f, self.dtype) if f.kind == "func" else f.copy() for f in module.funcs]
        return Module.make(funcs, module.sym)


def mixed(func: Func, dtype: str = "bf16") -> Func:
    """A function of the same signature whose products are computed in `dtype`."""
    narrow = {"bf16": bf16, "f16": f16}.get(dtype)
    if narrow is None:
        raise Error("E0605", f"mixed precision computes in bf16 or f16, not in {dtype}")
    return rebuild(func, {Op: [_Precision(narrow).rule]})


class _Precision:
    """The state of one rewrite: each value's narrow form, made once."""

    def __init__(self, narrow: DType) -> None:
        self.narrow = narrow
        self.forms: dict[tuple[Value, DType], Value] = {}

    def rule(self, b: Builder, op: Op, operands: Sequence[Value]) -> Sequence[Value] | None:
        """The op on operands of the type that it computes in."""
        if isinstance(op, Const):
            return None
        if op.name in PRODUCTS and any(_is(v, f32) for v in op.operands):
            return self._emit(b, op, operands, self.narrow)
        if not any(_is(v, self.narrow) for v in operands):
            return None
        follows = op.name in FOLLOW and all(self._joins(v) for v in operands)
        return self._emit(b, op, operands, self.narrow if follows else f32)

    def _joins(self, value: Value | None) -> bool:
        """Narrow already, no float, or a parameter or constant, which may be rounded."""
        if value is None or not _is(value, f32):
            return True
        return value.op is None or isinstance(value.op, Const)

    def _emit(self, b: Builder, op: Op, operands: Sequence[Value], dtype: DType) -> Sequence[Value]:
        """The op in `dtype`; ops with regions, and functions' ends, get their own types back."""
        given = [self._form(b, v, dtype, old) for v, old in zip(operands, op.operands)]
        attributes = op.attributes
        if op.terminator or op.regions:
            made = type(op).raw(
                given, op.attrs, [r.type for r in op.results], [r.copy() for r in op.regions]
            )
            return b.insert(made).results
        found = b.emit(type(op), *given, **attributes)
        return found if isinstance(found, tuple) else (found,)

    def _form(self, b: Builder, value: Value, dtype: DType, old: Value) -> Value:
        """`value` as `dtype`, where it was f32 or is narrow."""
        if value is None or not (_is(value, f32) or _is(value, self.narrow)):
            return value
        if not _is(old, f32) or _is(value, dtype):
            return value
        key = (value, dtype)
        if key not in self.forms:
            self.forms[key] = b.cast(value, to=dtype)
        return self.forms[key]


def _is(value: Value | None, dtype: DType) -> bool:
    return value is not None and isinstance(value.type, TensorType) and value.type.dtype is dtype


__all__ = ["FOLLOW", "PRODUCTS", "MixedPrecision", "mixed"]
