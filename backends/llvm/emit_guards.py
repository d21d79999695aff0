"""Which lanes an access touches: masks, guarded code, and the small vectors both are made of.

A guard free of the lane becomes a branch, one over the lanes a mask.  Imports: ir, emit_writer,
emit_types.
"""

from __future__ import annotations

import functools
from typing import Any

from ...ir.dims import (
    Dim,
    DimLike,
    ceildiv,
    coefficient,
    floordiv,
    max_,
    min_,
    substitute,
)
from ...ir.types import DType
from .emit_types import memory_text
from .emit_writer import Writer


def splat(w: Writer, type: str, lanes: int, text: str) -> str:
    """A vector with `text` in every lane."""
    if text[0] != "%":
        return f"splat ({type} {text})"
    return _splat_at(w, -1, type, lanes, text)


def _splat_at(w: Writer, level: int, type: str, lanes: int, text: str) -> str:
    """The same at the end of a scope (-1: the innermost)."""
    vector = f"<{lanes} x {type}>"
    one = w.emit_at(level, f"insertelement {vector} poison, {type} {text}, i64 0")
    return w.emit_at(
        level, f"shufflevector {vector} {one}, {vector} poison, <{lanes} x i32> zeroinitializer"
    )


def iota(lanes: int, step: int = 1, type: str = "i32") -> str:
    """The constant vector 0, step, 2 * step ..."""
    return "<" + ", ".join([f"{type} {k * step}" for k in range(lanes)]) + ">"


def _mask(w: Writer, e: Dim, lane: str, lanes: int) -> str:
    """The lanes in which e >= 0, as an operand of type <lanes x i1>."""
    rest = {s for s in e.symbols if s != lane}
    level = w.level(frozenset(rest))
    memo = w.scopes[level].memo
    known = memo.get(("mask", e, lane, lanes))
    if known is None:
        known = memo["mask", e, lane, lanes] = _new_mask(w, e, lane, lanes, level)
    return known


def _new_mask(w: Writer, e: Dim, lane: str, lanes: int, level: int) -> str:
    form = coefficient(e, lane)
    if form is None or not isinstance(form[0], int):
        bits = [w.holds(substitute(e, {lane: k})) for k in range(lanes)]
        known = "poison"
        for k, bit in enumerate(bits):
            known = w.emit_at(level, f"insertelement <{lanes} x i1> {known}, i1 {bit}, i64 {k}")
        return known
    slope, rest = form
    if slope > 0:
        limit, relation = min_(max_(ceildiv(-rest, slope), 0), lanes), "sge"
    else:
        limit, relation = min_(max_(floordiv(rest, -slope), -1), lanes - 1), "sle"
    if isinstance(limit, int):
        on = [k >= limit if relation == "sge" else k <= limit for k in range(lanes)]
        return "<" + ", ".join([f"i1 {'true' if b else 'false'}" for b in on]) + ">"
    narrow = w.emit_at(level, f"trunc i64 {w.dim(limit)} to i32")
    return w.emit_at(
        level,
        f"icmp {relation} <{lanes} x i32> {iota(lanes)}, "
        f"{_splat_at(w, level, 'i32', lanes, narrow)}",
    )


def guards_of(w: Writer, where: tuple[DimLike, ...], lane: str, lanes: int) -> tuple[str, str]:
    """(i1 operand for the guards free of the lane, mask operand or "" for the rest)."""
    fixed = [e for e in where if not (isinstance(e, Dim) and lane in e.symbols)]
    mask = ""
    for e in where:
        if isinstance(e, Dim) and lane in e.symbols:
            one = _mask(w, e, lane, lanes)
            mask = w.emit(f"and <{lanes} x i1> {mask}, {one}") if mask else one
    return w.all_hold(fixed), mask


def guarded_value(w: Writer, condition: str, type: str, fill: str, make: Any) -> str:
    """`make()` where the condition holds, else `fill`; operands must be computed before."""
    if condition == "true":
        return make()  # type: ignore[no-any-return]
    if condition == "false":
        return fill
    then, join = w.label("load"), w.label("join")
    before = w.scope.label
    w.branch(condition, then, join)
    w.start(then)
    made = make()
    after = w.scope.label
    w.line(f"br label %{join}")
    w.start(join)
    return w.emit(f"phi {type} [ {made}, %{after} ], [ {fill}, %{before} ]")


def guarded(w: Writer, condition: str, make: Any) -> None:
    """`make()` where the condition holds; operands must be computed before."""
    if condition == "true":
        make()
    elif condition != "false":
        then, join = w.label("store"), w.label("join")
        w.branch(condition, then, join)
        w.start(then)
        make()
        w.line(f"br label %{join}")
        w.start(join)


@functools.cache
def vector_text(dtype: DType, lanes: int) -> str:
    """The type of a vector in memory."""
    return f"<{lanes} x {memory_text(dtype)}>"


def suffix_of(text: str, lanes: int) -> str:
    """The overload suffix of a vector of memory type `text`."""
    return f"v{lanes}" + {"float": "f32", "double": "f64", "half": "f16"}.get(text, text)


def memory_intrinsic(w: Writer, name: str, result: str, overload: str, params: str) -> str:
    """The name of an intrinsic, declared."""
    w.declare(f"declare {result} @llvm.{name}.{overload}({params})")
    return f"@llvm.{name}.{overload}"


__all__ = [
    "guarded",
    "guarded_value",
    "guards_of",
    "iota",
    "memory_intrinsic",
    "splat",
    "suffix_of",
    "vector_text",
]
