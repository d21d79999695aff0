"""Mixed precision: products in a narrow float, everything that sums or divides in f32.

The function keeps its signature: parameters stay f32 (the master weights) and are rounded where a
product reads them, so that their cotangents come back as f32.  A pass on the forward function,
before differentiation.  May import: ir, passes.options.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.core import Block, Builder, Op, Value
from ...ir.errors import Error
from ...ir.ops.core import Const, Func, Module
from ...ir.types import DType, TensorType, bf16, f16, f32
from ..options import Pass

PRODUCTS = frozenset("matmul contract conv conv_transpose attention".split())
"""Ops that compute in the narrow type: their sums are in f32 by their own semantics."""
FOLLOW = frozenset(
    "reshape transpose slice broadcast_to concat pad gather max_pool avg_pool relu leaky_relu neg "
    "abs add sub mul max min where clip identity dropout gelu silu sigmoid tanh".split()
)
"""Ops that stay narrow where what they read is narrow already; f32 activations make them f32."""


@dataclass(frozen=True)
class MixedPrecision(Pass):
    """Products of f32 tensors computed in `dtype` (bf16 or f16).  E0608 for another type."""

    dtype: str = "bf16"

    def run(self, module: Module) -> Module:
        funcs = [mixed(f, self.dtype) if f.kind == "func" else f.copy() for f in module.funcs]
        return Module.make(funcs, module.sym)


def mixed(func: Func, dtype: str = "bf16") -> Func:
    """A function of the same signature whose products are computed in `dtype`."""
    narrow = {"bf16": bf16, "f16": f16}.get(dtype)
    if narrow is None:
        raise Error("E0608", f"mixed precision computes in bf16 or f16, not in {dtype}")
    return _Precision(narrow).func(func)


class _Precision:
    """One sweep over a function: `env` holds the new values, `forms` each one's casts, once."""

    def __init__(self, narrow: DType) -> None:
        self.narrow = narrow
        self.env: dict[Value, Value] = {}
        self.forms: dict[tuple[Value, DType], Value] = {}

    def func(self, func: Func) -> Func:
        """The function op by op; arguments and results keep their types."""
        body = Block([a.type for a in func.args], [a.name for a in func.args])
        self.env.update(zip(func.args, body.args, strict=True))
        b = Builder(body)
        for op in func.body:
            b.loc = op.loc
            dtype = self._dtype(op)
            if dtype is None:
                made = self._unchanged(b, op)
            else:
                operands = [self._form(b, v, dtype) for v in op.operands]
                made = type(op)(*operands, loc=op.loc, **op.attributes)  # type: ignore[arg-type]
            b.insert(made)
            for old, new in zip(op.results, made.results, strict=True):
                self.env[old] = new
                new.name = old.name
        return Func.raw((), func.attrs, (), (body,), func.loc)

    def _dtype(self, op: Op) -> DType | None:
        """The type to compute in; None: the types that the op has."""
        if op.regions or op.terminator or isinstance(op, Const):
            return None
        if op.name in PRODUCTS and any(_is(v, f32) for v in op.operands):
            return self.narrow
        changed = [v for v in op.operands if v is not None and self.env[v].type is not v.type]
        if changed and op.name in FOLLOW and all(self._joins(v) for v in op.operands):
            return self.narrow
        return None

    def _unchanged(self, b: Builder, op: Op) -> Op:
        """A copy on operands, and values that its regions take from outside, of their old types."""
        inside = {v for inner in op.walk() for v in inner.operands if v is not None}
        own = {
            v: self._form(b, v, v.tensor.dtype) if isinstance(v.type, TensorType) else self.env[v]
            for v in inside
            if v in self.env
        }
        return op.copy({v: w for v, w in own.items() if w is not None})

    def _joins(self, value: Value | None) -> bool:
        """Narrow now, no f32, or a parameter or constant, which may be rounded."""
        if value is None or not _is(value, f32) or _is(self.env[value], self.narrow):
            return True
        return value.op is None or isinstance(value.op, Const)

    def _form(self, b: Builder, value: Value | None, dtype: DType) -> Value | None:
        """What stands for `value` now, cast to `dtype` if it was f32 at first."""
        if value is None:
            return None
        now = self.env[value]
        if not _is(value, f32) or _is(now, dtype):
            return now
        key = (value, dtype)
        if key not in self.forms:
            self.forms[key] = b.cast(now, to=dtype)
        return self.forms[key]


def _is(value: Value | None, dtype: DType) -> bool:
    return value is not None and isinstance(value.type, TensorType) and value.type.dtype is dtype


__all__ = ["FOLLOW", "PRODUCTS", "MixedPrecision", "mixed"]
