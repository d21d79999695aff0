"""Straight lines: write out `unroll` loops, contract multiply-adds.

These run after the schedule, for targets that want them (the C printer prints such loops as loops).
May import: ir.
"""

from __future__ import annotations

from ...ir.core import OPS, Op, Value
from ...ir.dims import symbols_of
from ...ir.ops.core import Func
from ...ir.ops.loop import Alloc, Bind, For
from ...ir.symbols import map_dims_in, rename_bind, rename_loop
from ...ir.types import DType, TensorType, VectorType


def unroll(kernel: Func) -> None:
    """Write out every loop of kind `unroll`, innermost first."""
    for loop in [op for op in kernel.walk() if isinstance(op, For) and op.kind == "unroll"][::-1]:
        _unroll(loop)


def _unroll(loop: For) -> None:
    extent = loop.extent
    if not isinstance(extent, int):
        loop.set_attr("kind", "serial")
        return
    block = loop.block
    assert block is not None
    for k in range(extent):
        env: dict[Value, Value] = {}
        for op in list(loop.body):
            if k == extent - 1:
                loop.body.remove(op)
                made = op
            else:
                made = op.copy(env)
            block.insert_before(made, loop)
            map_dims_in(made, {loop.var: loop.lo + k})
            if made.regions or isinstance(made, (Alloc, Bind)):
                _rename(made, f".{k}")
    loop.erase()


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
