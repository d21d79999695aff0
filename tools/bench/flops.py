"""Floating-point operations of a network: those of its convolutions, products and recurrent cells.

Two per multiply-add, as papers count them; what is elementwise is left out.  Symbolic extents count
as passes/cost.py assumes them.
"""

from __future__ import annotations

from ...ir.core import Op
from ...ir.ops.core import Module
from ...passes.cost import cost_of, elements, extent

RECURRENT = ("lstm", "gru", "rnn")


def flops(module: Module) -> int:
    """Of one run of the imported module; bodies of control flow count once."""
    return sum([_of(op) for op in module.main.walk()])


def _of(op: Op) -> int:
    if op.name in ("conv", "matmul", "contract"):
        return cost_of(op).flops
    if op.name == "conv_transpose":
        x, w = op.operands[0].tensor, op.operands[1].tensor
        return 2 * elements(x) * elements(w) // extent(w.shape[0])
    if op.name in RECURRENT:
        x, w, r = (v.tensor for v in op.operands[:3])
        return 2 * elements(x) // extent(x.shape[-1]) * (elements(w) + elements(r))
    return 0


__all__ = ["flops"]
