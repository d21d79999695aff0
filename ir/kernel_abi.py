"""The calling convention that kernels, plans, printers and loaders share.

`i32 NAME(ptr ctx, ptr arg0, ..., i64 dim0, ...)`: one pointer per buffer argument, then one i64
per free symbol of the function, sorted by name.  The result is a status (`loop.STATUS_*`).  `ctx`
may be null; its first field is `i32 (*parallel_for)(ptr ctx, i32 (*fn)(ptr arg, i64 index), ptr
arg, i64 n)`, its second `i32 (*host_call)(ptr ctx, ptr name, ptr args, ptr dims)` with arrays of
pointers and of i64; either may be null (then loops are serial, and a host call fails with
`STATUS_SHAPE`).
Imports: the core, types, the loop ops.
"""

from __future__ import annotations

from .core import Value
from .ops.core import Func
from .ops.loop import Bind, For, IndexValue, Load, Store, While
from .symbols import dims_in, free_symbols
from .types import BufferType, Type


def _type_symbols(type: Type) -> set[str]:
    found: set[str] = set()
    if isinstance(type, BufferType):
        for e in (*dims_in(type.shape), *dims_in(type.strides)):
            found |= e.symbols
    return found


def dim_parameters(func: Func) -> tuple[str, ...]:
    """The names of the i64 parameters of a kernel or plan, in their order."""
    found: set[str] = set()
    bound: set[str] = set()
    values: list[Value] = list(func.args)
    for op in func.body.walk():
        found |= free_symbols(op)
        values.extend(op.results)
        if isinstance(op, (For, While)):
            bound.add(op.var)
        elif isinstance(op, Bind):
            bound.add(op.symbol)
        elif isinstance(op, (Load, Store, IndexValue)) and op.lane:
            bound.add(op.lane)
    for value in values:
        found |= _type_symbols(value.type)
    return tuple(sorted(found - bound))


__all__ = ["dim_parameters"]
