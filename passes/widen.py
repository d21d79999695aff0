"""Narrow floats become f32 for targets that have no arithmetic in them.

Each op on f16 or bf16 runs on f32 operands, and its result is rounded to the narrow type and back,
which is what its `evaluate` says (compute in f32, round once).  Values that are already rounded
(maxima, moved elements) are not rounded again, so what stays of the narrow type is two conversions
per rounded vector; weights are converted here, once.  May import: ir, passes.options, passes.rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..ir.core import Block, Builder, Op, Value
from ..ir.ops.core import Const, Module
from ..ir.types import DType, TensorType, bf16, f16, f32
from .options import Pass
from .rules.values import constant, make_constant

NARROW = frozenset({f16, bf16})
"""Types whose every value is one of f32."""
EXACT = frozenset(
    "max min larger relu neg abs where identity floor ceil trunc round_even sign "
    "max_pool reduce_max reduce_min".split()
)
"""Ops that give a narrow value for narrow operands, whatever they compute in."""
MOVES = frozenset("reshape transpose slice broadcast_to concat gather pack unpack".split())
"""Ops that only move elements: left alone where nothing has been computed before them."""


@dataclass(frozen=True)
class Widen(Pass):
    """Compute f16 and bf16 as f32 that is rounded wherever the narrow type would be."""

    wide: dict[Value, Value] = field(default_factory=dict, init=False, compare=False, repr=False)
    """A narrow value's f32 form."""

    def run(self, module: Module) -> Module:
        self.wide.clear()
        for func in module.funcs:
            if func.kind == "func":
                self.block(func.body)
        self.wide.clear()
        return module

    def block(self, block: Block) -> None:
        """Widen one block, and the regions of its ops."""
        for op in list(block):
            for region in op.regions:
                self.block(region)
            if not op.regions and self._widens(op):
                self._replace(op)

    def _widens(self, op: Op) -> bool:
        """Does this op compute in a narrow type, and can it do so in f32?"""
        values = [v for v in (*op.operands, *op.results) if v is not None]
        if not op.pure or op.terminator or isinstance(op, Const) or op.name in ("cast", "bitcast"):
            return False
        if not any([_narrow(v) for v in values]):
            return False
        if op.name in MOVES and not any([v in self.wide for v in op.operands if v is not None]):
            return False
        return all([not isinstance(v, DType) for k, v in op.attributes.items() if k != "out"])

    def _replace(self, op: Op) -> None:
        """Put the op on f32 and the rounding of its results in its place."""
        given = [self._form(v) if v is not None and _narrow(v) else v for v in op.operands]
        attributes = dict(op.attributes)
        if attributes.get("out") in NARROW:
            attributes["out"] = None
        assert op.block is not None
        b = Builder(op.block, op, op.loc)
        made = b.emit(type(op), *given, **attributes)
        found = list(made) if isinstance(made, (tuple, list)) else [made]
        results: list[Value] = []
        for old, new in zip(op.results, found, strict=True):
            new.name = old.name
            if not _narrow(old):
                results.append(new)
                continue
            rounded = b.cast(new, to=old.tensor.dtype)
            self.wide[rounded] = new if _exact(op) else b.cast(rounded, to=f32)
            results.append(rounded)
        op.replace_by(results)

    def _form(self, value: Value) -> Value:
        """The f32 form of a narrow value, made where the value is."""
        known = self.wide.get(value)
        if known is not None:
            return known
        made = value.op
        if made is not None and made.block is not None:
            b = Builder(made.block, made.next, made.loc)
        else:
            home = value.owner
            assert isinstance(home, Block)
            b = Builder(home, home.first)
        array = constant(value)
        if array is not None:
            wide = make_constant(b, array.astype(f32.np), TensorType(f32, value.tensor.shape))
        else:
            wide = b.cast(value, to=f32)
        self.wide[value] = wide
        return wide


def _narrow(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype in NARROW


def _exact(op: Op) -> bool:
    """Are the results of the op on narrow values narrow themselves?"""
    return op.name in EXACT or op.name in MOVES


__all__ = ["Widen"]
