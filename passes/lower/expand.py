"""Straight lines: write out `unroll` loops, contract multiply-adds.

These run after the schedule, for targets that want them (the C printer prints such loops as loops).
May import: ir.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.core import OPS, Op, Value
from ...ir.dims import DimLike, sym, symbols_of
from ...ir.ops.core import Func
from ...ir.ops.loop import Alloc, Bind, For
from ...ir.symbols import map_dims_in, rename_bind, rename_loop
from ...ir.types import DType, TensorType, VectorType

MOST_OPS = 24_000
"""Ops of a kernel that is written out: a compiler takes some seconds for as many."""


def unroll(kernel: Func) -> None:
    """Write out every loop of kind `unroll`, innermost first.

    Where that would give more than `MOST_OPS` ops, the loops that give most stay loops: reductions
    first, for the others' indices are meant to become constants.
    """
    for loop in _too_long(kernel):
        loop.set_attr("kind", "serial")
    for loop in [op for op in kernel.walk() if isinstance(op, For) and op.kind == "unroll"][::-1]:
        _unroll(loop)


def _too_long(kernel: Func) -> list[For]:
    """The loops not to write out, so that the kernel stays within `MOST_OPS` ops."""
    kept: list[For] = []
    while True:
        sizes: dict[For, int] = {}
        if _expanded(kernel, sizes, kept) <= MOST_OPS or not sizes:
            return kept
        kept.append(max(sizes, key=lambda loop: (loop.reduction, sizes[loop])))


def _expanded(op: Op, sizes: dict[For, int], kept: Sequence[For]) -> int:
    """How many ops there are of `op` when it is written out; `sizes` gets that of each loop."""
    inside = sum([_expanded(inner, sizes, kept) for block in op.regions for inner in block])
    if not isinstance(op, For) or op.kind != "unroll" or op in kept:
        return inside + 1
    rounds = op.extent if isinstance(op.extent, int) else 1
    if rounds > 1:
        sizes[op] = inside * rounds
    return inside * rounds


def _unroll(loop: For) -> None:
    extent = loop.extent
    if not isinstance(extent, int):
        loop.set_attr("kind", "serial")
        return
    block = loop.block
    assert block is not None
    for k in range(extent):
        env: dict[Value, Value] = {}
        copies: list[Op] = []
        for op in list(loop.body):
            if k == extent - 1:
                loop.body.remove(op)
                made = op
            else:
                made = op.copy(env)
            block.insert_before(made, loop)
            map_dims_in(made, {loop.var: loop.lo + k})
            copies.append(made)
        _rename_copies(copies, f".{k}")
    loop.erase()


def _rename_copies(copies: Sequence[Op], suffix: str) -> None:
    """New names in the copies of a loop's body; what they bind reaches to the last of them."""
    bound: dict[str, DimLike] = {}
    for made in copies:
        if bound:
            map_dims_in(made, bound)
        if isinstance(made, Bind):
            bound[made.symbol] = sym(made.symbol + suffix)
            made.set_attr("symbol", made.symbol + suffix)
        elif made.regions or isinstance(made, Alloc):
            _rename(made, suffix)


def _rename(op: Op, suffix: str) -> None:
    """Names inside a copy must differ from the original's."""
    for inner in op.walk():
        if isinstance(inner, For):
            rename_loop(inner, inner.var + suffix)
        elif isinstance(inner, Alloc):
            inner.set_attr("label", inner.label + suffix)
        elif isinstance(inner, Bind):
            rename_bind(inner, inner.symbol + suffix)


def lanes_outward(kernel: Func) -> None:
    """Move vector loops out of the unrolled loops around them.

    Where lanes stay a loop, that is one loop over a whole tile instead of one per row.
    """
    for loop in [op for op in kernel.walk() if isinstance(op, For) and op.kind == "vector"]:
        inner, outer = loop, loop.parent_op
        while isinstance(outer, For) and outer.kind == "unroll" and outer.body.size == 1:
            if outer.var in symbols_of(inner.extent):
                break
            inner.attrs, outer.attrs = outer.attrs, inner.attrs
            inner, outer = outer, outer.parent_op


def contract_fma(kernel: Func) -> None:
    """Make `add(mul(x, y), z)` one fused multiply-add where the product has no other use.

    Not in 16 bits: no processor here fuses those.
    """
    for op in list(kernel.walk()):
        if op.name != "add" or not _fuses(op):
            continue
        for side in (1, 0):
            product = op.operands[side].op
            if product is not None and product.name == "mul" and len(op.operands[side].users) == 1:
                other = op.operands[1 - side]
                if other is op.operands[side]:
                    break
                _make_fma(op, product, other)
                break


def _fuses(op: Op) -> bool:
    type_ = op.results[0].type
    dtype = type_.dtype if isinstance(type_, (TensorType, VectorType)) else type_
    return isinstance(dtype, DType) and dtype.kind == "float" and dtype.bits >= 32


def _make_fma(add: Op, product: Op, other: Value) -> None:
    made = OPS["fma"].raw([*product.operands, other], (), [add.results[0].type], loc=add.loc)
    assert add.block is not None
    add.block.insert_before(made, add)
    add.replace_by(made.results)
    product.erase()


__all__ = ["contract_fma", "lanes_outward", "unroll"]
