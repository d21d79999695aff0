"""What fusion asks about an op: which kind of loop nest it is, and which views it can read through.

Kinds: "pointwise" (each result element from a few operand elements), "view" (moves elements,
computes nothing), "reduction", "contraction", "pool", "concat", "loops" (writes its own loops); ""
is what no kernel holds. May import: ir.
"""

from __future__ import annotations

import math

from ..ir.core import Block, Builder, Op, Value
from ..ir.ops.contract import Contract, Matmul
from ..ir.ops.conv import Conv
from ..ir.ops.core import Const, Fused, Generic
from ..ir.ops.elementwise import _Elementwise
from ..ir.ops.index import Iota
from ..ir.ops.layout import Pack, Unpack
from ..ir.ops.pad import Pad
from ..ir.ops.pool import AvgPool, MaxPool
from ..ir.ops.shape import BroadcastTo, Concat, DimValue, Reshape, Slice, Transpose
from ..ir.types import TensorType

AFFINE_VIEWS = (Transpose, Slice, BroadcastTo, Pad)
"""Views with an affine index map: a contraction can read through them."""
VIEWS = (*AFFINE_VIEWS, Reshape, Pack, Unpack)
SOURCES = (Iota, DimValue)
"""Ops without operands, made again wherever they are read."""
COSTLY = frozenset(
    {
        "exp",
        "expm1",
        "log",
        "log1p",
        "tanh",
        "sigmoid",
        "erf",
        "sin",
        "cos",
        "pow",
        "softplus",
        "elu",
        "gelu",
        "silu",
        "div",
        "sqrt",
        "rsqrt",
        "mod",
        "rem",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "asinh",
        "acosh",
        "atanh",
        "mish",
        "selu",
        "celu",
        "softsign",
    }
)
"""Ops too dear to be computed twice."""


def kind_of(op: Op) -> str:
    """The kind of an op (see the file's docstring)."""
    if (
        op.regions
        or op.terminator
        or not op.pure
        or isinstance(op, (Const, Fused))
        or not _dense(op)
    ):
        return ""
    if isinstance(op, VIEWS):
        return "view"
    if isinstance(op, (_Elementwise, *SOURCES)):
        return "pointwise"
    if isinstance(op, (Matmul, Contract, Conv)):
        return "contraction"
    if isinstance(op, (MaxPool, AvgPool)):
        return "pool"
    if isinstance(op, Concat):
        return "concat"
    if hasattr(op, "generic"):
        return _by_generic(op)
    return "loops" if hasattr(op, "loops") else ""


def _dense(op: Op) -> bool:
    """Results and operands are tensors of numbers with known rank."""
    for value in (*op.results, *op.operands):
        type_ = value.type if value is not None else None
        if type_ is None:
            continue
        if not isinstance(type_, TensorType) or type_.shape is None or type_.dtype.kind == "string":
            return False
    return bool(op.results)


def _by_generic(op: Op) -> str:
    """The kind told by the op's generic form, built aside."""
    block = Block([v.type for v in op.operands if v is not None])
    args = iter(block.args)
    given = [None if v is None else next(args) for v in op.operands]
    op.generic(Builder(block), *given)  # type: ignore[attr-defined]
    made = [g for g in block if isinstance(g, Generic)]
    reduces = [g for g in made if g.reduction]
    if not reduces:
        return "pointwise"
    return "contraction" if len(reduces[0].operands) > 1 else "reduction"


def single(value: Value) -> bool:
    """A constant of one element: it stands inside regions."""
    op = value.op
    return (
        isinstance(op, Const)
        and isinstance(value.type, TensorType)
        and math.prod(value.type.shape) == 1
    )


def reduced_axes(op: Op) -> tuple[int, ...]:
    """The axes over which a reduction runs."""
    given = op.attributes
    axes = given["axes"] if "axes" in given else given.get("axis")
    rank = op.operands[0].tensor.rank
    if axes is None:
        return tuple(range(rank))
    return tuple(sorted([a % rank for a in (axes if isinstance(axes, tuple) else (axes,))]))


def reads_through(kind: str, view: Op) -> bool:
    """Can an op of this kind read an operand through this view, as an index map?"""
    if kind in ("pointwise", "reduction", "concat", "view"):
        return True
    if kind in ("contraction", "pool"):
        constant = not isinstance(view, Pad) or view.attributes["mode"] == "constant"
        return isinstance(view, AFFINE_VIEWS) and constant
    return False


def once(view: Op) -> bool:
    """A view that reads no element of its operand twice."""
    affine = reads_through("contraction", view) and not isinstance(view, BroadcastTo)
    return affine or isinstance(view, (Pack, Unpack))


def drops_filling(op: Op) -> bool:
    """An unpack of the last axis, whose last block is not full: read through by many it would be
    slow, as the end of what computes its operand it costs nothing.
    """
    if not isinstance(op, Unpack) or op.attributes["order"] or not op.results[0].users:
        return False
    axes, shape = op.attributes["axes"], op.results[0].tensor.shape
    made = op.operands[0].op
    return axes == (len(shape) - 1,) and made is not None and not isinstance(made, Const)


def windows_apart(op: Op) -> bool:
    """A pool no two of whose windows share an element: its operand is computed once."""
    given = op.attributes
    kernel = given["kernel"]
    strides = given["strides"] or (1,) * len(kernel)
    dilated = any([d != 1 for d in given["dilations"]])
    return not dilated and all([s >= k for s, k in zip(strides, kernel, strict=True)])


__all__ = [
    "AFFINE_VIEWS",
    "COSTLY",
    "SOURCES",
    "VIEWS",
    "drops_filling",
    "kind_of",
    "once",
    "reads_through",
    "reduced_axes",
    "single",
    "windows_apart",
]
