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

from .dims import Dim
from .ops.core import Func
from .ops.loop import Bind, For, IndexValue, Load, Store, While
from .types import BufferType


def _collect(value: object, into: set[str]) -> None:
    """Add the symbols of every expression inside an attribute value."""
    if type(value) is Dim:
        into |= value.symbols
    elif type(value) is tuple:
        for part in value:
            _collect(part, into)
    elif isinstance(value, BufferType):
        _collect(value.shape, into)
        _collect(value.strides, into)


def dim_parameters(func: Func) -> tuple[str, ...]:
    """The names of the i64 parameters of a kernel or plan, in their order."""
    found: set[str] = set()
    bound: set[str] = set()
    seen: set[object] = set()
    for arg in func.args:
        _collect(arg.type, found)
    for op in func.body.walk():
        for value in op.attrs:
            if (type(value) is tuple or type(value) is Dim) and value not in seen:
                seen.add(value)
                _collect(value, found)
        for result in op.results:
            if isinstance(result.type, BufferType):
                _collect(result.type, found)
        if isinstance(op, (For, While)):
            bound.add(op.var)
        elif isinstance(op, Bind):
            bound.add(op.symbol)
        elif isinstance(op, (Load, Store, IndexValue)) and op.lane:
            bound.add(op.lane)
    return tuple(sorted(found - bound))


__all__ = ["dim_parameters"]
