"""Symbols in attributes: substitute, rename and collect the names that index expressions use.

Loop variables and bound symbols are names inside attributes, so changing one is a substitution in
every op of its scope.  Imports: the core, dims, the kernel-level ops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .core import Op
from .dims import Dim, DimLike, Range, substitute, sym
from .ops.core import Func
from .ops.loop import Bind, For, While


def map_dims(op: Op, env: Mapping[str, DimLike]) -> None:
    """Substitute symbols in every attribute of one op (not of nested ops)."""
    for value in op.attrs:
        kind = type(value)
        if kind is Dim or kind is tuple:
            op.attrs = tuple([_substitute_in(v, env) for v in op.attrs])
            return


def map_dims_in(op: Op, env: Mapping[str, DimLike]) -> None:
    """Substitute in an op and everything nested in it."""
    for inner in op.walk():
        map_dims(inner, env)


def _substitute_in(value: Any, env: Mapping[str, DimLike]) -> Any:
    kind = type(value)
    if kind is Dim:
        return substitute(value, env)
    if kind is tuple and value:
        return tuple([_substitute_in(v, env) for v in value])
    return value


def dims_in(value: Any) -> Iterator[Dim]:
    """Every expression inside an attribute value."""
    if type(value) is Dim:
        yield value
    elif type(value) is tuple:
        for part in value:
            yield from dims_in(part)


def free_symbols(op: Op) -> set[str]:
    """The symbols that an op's own attributes and result types mention."""
    found: set[str] = set()
    for value in op.attrs:
        for e in dims_in(value):
            found |= e.symbols
    for result in op.results:
        for e in dims_in(getattr(result.type, "shape", None)):
            found |= e.symbols
    return found


def rename_loop(loop: For, new: str) -> None:
    """Give a loop another variable name."""
    old = loop.var
    loop.set_attr("var", new)
    for op in loop.body.walk():
        map_dims(op, {old: sym(new)})


def rename_bind(bind: Bind, new: str) -> None:
    """Give a bound symbol another name, to the end of its block."""
    env = {bind.symbol: sym(new)}
    bind.set_attr("symbol", new)
    op = bind.next
    while op is not None:
        map_dims_in(op, env)
        op = op.next


def loops_around(op: Op) -> list[For]:
    """The loops that hold an op, outermost first."""
    found: list[For] = []
    parent = op.parent_op
    while parent is not None:
        if isinstance(parent, For):
            found.append(parent)
        parent = parent.parent_op
    return found[::-1]


def loop_range(loop: For) -> Range:
    """The inclusive range of a loop's variable."""
    return loop.lo, loop.lo + loop.extent - 1


def ranges_around(op: Op, inclusive: bool = False) -> dict[str, Range]:
    """Ranges of the loop variables and bound symbols visible at an op (with its own, if
    `inclusive`).
    """
    ranges = {loop.var: loop_range(loop) for loop in loops_around(op)}
    if inclusive and isinstance(op, For):
        ranges[op.var] = loop_range(op)
    ranges.update(bind_ranges(op))
    return ranges


def bind_ranges(op: Op) -> dict[str, Range]:
    """Ranges of the symbols bound anywhere in the function that holds `op`."""
    top: Op = op
    while top.parent_op is not None and not isinstance(top, Func):
        top = top.parent_op
    found: dict[str, Range] = {}
    blocks = list(top.regions)
    while blocks:  # `walk` without its order: this is asked for every access of a schedule
        inner = blocks.pop().first
        while inner is not None:
            if inner.regions:
                blocks.extend(inner.regions)
                if isinstance(inner, While):
                    found[inner.var] = (0, None)
            elif isinstance(inner, Bind):
                found[inner.symbol] = (0, inner.extent - 1)
            inner = inner.next
    return found


def loop_names(func: Op) -> set[str]:
    """All loop variables of a function."""
    return {op.var for op in func.walk() if isinstance(op, For)}
