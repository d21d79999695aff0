"""Loops to straight lines: write out `unroll` loops, turn `vector` loops into vector ops, contract fma.

These run after the schedule, for targets that want them (the C printer prints such loops as loops).
May import: ir, passes.schedule.simplify.
"""

from __future__ import annotations

from ...ir.core import Block, Op, Value
from ...ir.dims import bounds, sym, symbols_of
from ...ir.errors import Error
from ...ir.ops.core import Const, Func
from ...ir.ops.loop import Alloc, Bind, For, IndexValue, Load, Splat, Store
from ...ir.symbols import dims_in, map_dims_in, ranges_around, rename_bind, rename_loop
from ...ir.types import DType, VectorType, like


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


def vectorize(kernel: Func) -> None:
    """Turn every loop of kind `vector` into vector ops; its body must be straight-line."""
    for loop in [op for op in kernel.walk() if isinstance(op, For) and op.kind == "vector"]:
        _vectorize(loop)


def _lanes(loop: For) -> tuple[int, bool]:
    """Lanes, and whether some of them are masked in the last round."""
    if isinstance(loop.extent, int):
        return loop.extent, False
    _, top = bounds(loop.extent, ranges_around(loop))
    if top is None:
        raise Error("E0411", f"the vector loop {loop.var} has no static bound", where=loop.loc)
    return top, True


def _vectorize(loop: For) -> None:
    lanes, masked = _lanes(loop)
    block, var = loop.block, loop.var
    assert block is not None and loop.lo == 0
    tail = (loop.extent - 1 - sym(var),) if masked else ()
    if masked and not _masks_separately(loop, tail):
        tail = (*tail,)
    wide: dict[Value, Value] = {}
    for op in list(loop.body):
        loop.body.remove(op)
        varies = any([var in symbols_of(e) for value in op.attrs for e in dims_in(value)])
        if isinstance(op, (Load, IndexValue)) and varies:
            made = _with_lane(op, var, lanes, tail)
        elif isinstance(op, Store):
            made = _vector_store(op, wide, block, loop, lanes, tail, varies)
        elif any([v in wide for v in op.operands]):
            made = _vector_op(op, wide, block, loop, lanes)
        else:
            if op.regions or not (op.pure or isinstance(op, Bind)):
                raise Error("E0411", f"'{op.name}' cannot run in vector lanes", where=op.loc)
            block.insert_before(op, loop)
            continue
        block.insert_before(made, loop)
        for old, new in zip(op.results, made.results, strict=True):
            wide[old] = new
    for old in wide:
        old.owner.set_operands(())
    loop.erase()


def _masks_separately(loop: For, tail: tuple[object, ...]) -> bool:
    return bool(tail) and loop.lo == 0


def _with_lane(op: Load | IndexValue, var: str, lanes: int, tail: tuple[object, ...]) -> Op:
    if isinstance(op, IndexValue):
        return IndexValue(value=op.value, lane=var, lanes=lanes, dtype=op.dtype, loc=op.loc)
    return Load(op.source, index=op.index, where=(*op.where, *tail), fill=op.fill, lane=var, lanes=lanes, loc=op.loc)


def _splat(value: Value, wide: dict[Value, Value], block: Block, before: Op, lanes: int) -> Value:
    """The vector form of an operand."""
    if value in wide:
        return wide[value]
    return block.insert_before(Splat(value, lanes=lanes), before).result


def _vector_store(op: Store, wide: dict[Value, Value], block: Block, loop: For, lanes: int, tail: tuple[object, ...],
                  varies: bool) -> Op:  # fmt: skip
    if not varies:
        raise Error("E0411", "lanes store to one address: factor the reduction first", where=op.loc)
    value = _splat(op.value, wide, block, loop, lanes)
    made = Store(value, op.target, index=op.index, where=(*op.where, *tail), lane=loop.var, loc=op.loc)
    op.set_operands(())
    return made


def _vector_op(op: Op, wide: dict[Value, Value], block: Block, loop: For, lanes: int) -> Op:
    operands = [_splat(v, wide, block, loop, lanes) for v in op.operands]
    types = [VectorType(like(r.type, r.type), lanes) for r in op.results if isinstance(r.type, DType)]  # type: ignore[arg-type]
    return type(op).raw(operands, op.attrs, types, op.regions, op.loc)


def contract_fma(kernel: Func) -> None:
    """Make `add(mul(x, y), z)` one fused multiply-add where the product has no other use."""
    for op in list(kernel.walk()):
        if op.name != "add" or not _is_float(op):
            continue
        for side in (1, 0):
            product = op.operands[side].op
            if product is not None and product.name == "mul" and len(op.operands[side].users) == 1:
                other = op.operands[1 - side]
                if other is op.operands[side]:
                    break
                _make_fma(op, product, other)
                break


def _is_float(op: Op) -> bool:
    type_ = op.results[0].type
    return getattr(type_, "dtype", type_).kind == "float"  # type: ignore[union-attr]


def _make_fma(add: Op, product: Op, other: Value) -> None:
    from ...ir.core import OPS  # looked up by name: the family module is not a dependency of this pass

    made = OPS["fma"].raw([*product.operands, other], (), [add.results[0].type], loc=add.loc)
    assert add.block is not None
    add.block.insert_before(made, add)
    add.replace_by(made.results)
    product.erase()


__all__ = ["Const", "contract_fma", "unroll", "vectorize"]
