"""Index arithmetic: dim expressions and addresses as LLVM text, each part computed once, where it
is bound.

A function under emission is a stack of scopes (entry, loop bodies, conditional bodies).  While an
inner scope is being written, the end of an outer scope's lines is the place just before it, so
an expression is put at the end of the outermost scope in which all its symbols are bound, and
remembered there.  Invariant: whatever a scope remembers dominates everything written to it
later.  Index arithmetic has no effect and never traps, so it may run although the access that
wants it does not.
Imports: ir dims and core.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...ir.core import Value
from ...ir.dims import Dim, DimLike, Range, nonneg
from ...ir.dims_expr import DIV, MIN, MOD, SYM, Atom, Mono, dim
from ...ir.types import BufferType
from .emit_types import memory_bits


@dataclass(slots=True)
class Scope:
    """Lines that run together under one set of bound symbols; `label` is the basic block at their
    end.
    """

    label: str
    lines: list[str] = field(default_factory=list)
    memo: dict[Any, str] = field(default_factory=dict)
    bound: list[str] = field(default_factory=list)
    added: int = 0
    """Lines that unrolling of inner loops adds to those here."""
    loops: bool = False
    """Whether a loop stays in it."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a buffer lies: `offset` bytes from `base`, a pointer defined in scope `level`."""

    base: str
    level: int
    offset: DimLike
    type: BufferType


class Indexer:
    """Scopes, symbols, and the text of index expressions and addresses."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = [Scope("entry")]
        self.symbols: dict[str, tuple[str, int]] = {}
        self.ranges: dict[str, Range] = {}
        self.buffers: dict[Value, Memory] = {}
        self.declared: dict[str, None] = {}
        self.offsets: dict[tuple[BufferType, tuple[DimLike, ...]], DimLike] = {}
        self.count = 0

    # Scopes ------------------------------------------------------------------------------------

    @property
    def scope(self) -> Scope:
        """The innermost scope."""
        return self.scopes[-1]

    def name(self, prefix: str = "v") -> str:
        """A new local name."""
        self.count += 1
        return f"%{prefix}{self.count}"

    def line(self, text: str) -> None:
        """Append one instruction to the innermost scope."""
        self.scopes[-1].lines.append("  " + text)

    def emit(self, text: str) -> str:
        """Append an instruction with a result; gives its name."""
        self.count += 1
        name = f"%v{self.count}"
        self.scopes[-1].lines.append(f"  {name} = {text}")
        return name

    def emit_at(self, level: int, text: str) -> str:
        """The same at the end of scope `level`."""
        self.count += 1
        name = f"%v{self.count}"
        self.scopes[level].lines.append(f"  {name} = {text}")
        return name

    def bind(self, symbol: str, text: str, range: Range) -> None:
        """From here to the end of the innermost scope, `symbol` is `text`."""
        self.symbols[symbol] = text, len(self.scopes) - 1
        self.ranges[symbol] = range
        self.scope.bound.append(symbol)

    def pop(self) -> Scope:
        """Leave the innermost scope; its symbols end."""
        scope = self.scopes.pop()
        for symbol in scope.bound:
            del self.symbols[symbol], self.ranges[symbol]
        return scope

    def declare(self, declaration: str) -> None:
        """Remember `declare ...`, once."""
        self.declared[declaration] = None

    def symbol(self, name: str) -> tuple[str, int]:
        """Text and level of a symbol."""
        return self.symbols[name]

    def level(self, symbols: frozenset[str]) -> int:
        """The scope in which the last of these symbols is bound."""
        level = 0
        for name in symbols:
            at = self.symbol(name)[1]
            if at > level:
                level = at
        return level

    # Dims --------------------------------------------------------------------------------------

    def dim(self, e: DimLike) -> str:
        """The i64 operand that holds e."""
        if not isinstance(e, Dim):
            return str(e)
        level = self.level(e.symbols)
        memo = self.scopes[level].memo
        known = memo.get(e)
        if known is None:
            known = memo[e] = self._sum(e, level)
        return known

    def _sum(self, e: Dim, level: int) -> str:
        """Terms bound further out first, as one shared sum, then those of this level, then the
        constant.
        """
        outer = tuple([t for t in e.terms if self.level(t[0].symbols) < level])
        inner = [t for t in e.terms if self.level(t[0].symbols) == level]
        total = self.dim(dim(outer, 0)) if outer else ""
        for m, c in inner:
            if c == -1 and total:
                total = self.emit_at(level, f"sub nsw i64 {total}, {self._mono(m)}")
                continue
            part = self._term(m, c)
            total = self.emit_at(level, f"add nsw i64 {total}, {part}") if total else part
        return self.emit_at(level, f"add nsw i64 {total}, {e.const}") if e.const else total

    def _term(self, m: Mono, c: int) -> str:
        if c == 1:
            return self._mono(m)
        level = self.level(m.symbols)
        memo = self.scopes[level].memo
        known = memo.get((m, c))
        if known is None:
            known = memo[m, c] = self.emit_at(level, f"mul nsw i64 {self._mono(m)}, {c}")
        return known

    def _mono(self, m: Mono) -> str:
        if len(m.factors) == 1:
            return self._atom(m.factors[0])
        level = self.level(m.symbols)
        memo = self.scopes[level].memo
        known = memo.get(m)
        if known is None:
            factors = sorted(m.factors, key=lambda f: self.level(f.symbols))
            known = self._atom(factors[0])
            for f in factors[1:]:
                known = self.emit_at(level, f"mul nsw i64 {known}, {self._atom(f)}")
            memo[m] = known
        return known

    def _atom(self, a: Atom) -> str:
        if a.kind == SYM:
            return self.symbol(a.args[0])[0]
        level = self.level(a.symbols)
        memo = self.scopes[level].memo
        known = memo.get(a)
        if known is None:
            if a.kind in (DIV, MOD):
                known = self._divide(a, level)
            else:
                known = self._extremum(a, level)
            memo[a] = known
        return known

    def _extremum(self, a: Atom, level: int) -> str:
        which = "smin" if a.kind == MIN else "smax"
        self.declare(f"declare i64 @llvm.{which}.i64(i64, i64)")
        known = self.dim(a.args[0])
        for arm in a.args[1:]:
            known = self.emit_at(
                level, f"call i64 @llvm.{which}.i64(i64 {known}, i64 {self.dim(arm)})"
            )
        return known

    def _divide(self, a: Atom, level: int) -> str:
        """Floor division and modulo: shifts for powers of two, unsigned where the numerator is
        proved >= 0.
        """
        x, b = a.args
        n = self.dim(x)
        if isinstance(b, int) and b & (b - 1) == 0:
            if a.kind == DIV:
                return self.emit_at(level, f"ashr i64 {n}, {b.bit_length() - 1}")
            return self.emit_at(level, f"and i64 {n}, {b - 1}")
        d = self.dim(b)
        if not isinstance(b, int) and nonneg(b - 1, self.ranges) is not True:
            # A divisor of 0 belongs to a loop that does not run; its hoisted index must not trap.
            self.declare("declare i64 @llvm.smax.i64(i64, i64)")
            d = self.emit_at(level, f"call i64 @llvm.smax.i64(i64 {d}, i64 1)")
        if nonneg(x, self.ranges):
            return self.emit_at(level, f"{'udiv' if a.kind == DIV else 'urem'} i64 {n}, {d}")
        rest = self.emit_at(level, f"srem i64 {n}, {d}")
        sign = self.emit_at(level, f"ashr i64 {rest}, 63")
        if a.kind == DIV:
            return self.emit_at(
                level, f"add nsw i64 {self.emit_at(level, f'sdiv i64 {n}, {d}')}, {sign}"
            )
        return self.emit_at(
            level, f"add nsw i64 {rest}, {self.emit_at(level, f'and i64 {sign}, {d}')}"
        )

    # Addresses ---------------------------------------------------------------------------------

    def element_offset(self, memory: Memory, index: tuple[DimLike, ...]) -> DimLike:
        """The flat position of an element in its buffer, in elements; remembered."""
        key = memory.type, index
        known = self.offsets.get(key)
        if known is None:
            known = 0
            for i, stride in zip(index, memory.type.element_strides, strict=True):
                known = known + (i * stride if stride != 1 else i)
            self.offsets[key] = known
        return known

    def byte_offset(self, memory: Memory, elements: DimLike) -> DimLike:
        """Bytes from the base to the byte that holds element `elements`."""
        bits = memory_bits(memory.type.dtype)
        return memory.offset + (elements * (bits // 8) if bits >= 8 else elements // (8 // bits))

    def address(self, memory: Memory, offset: DimLike) -> str:
        """The pointer `offset` bytes after the base; constants go into a last, foldable step."""
        if not isinstance(offset, Dim):
            return self._shifted(memory.base, offset, memory.level)
        pointer, level = self._pointer(memory, dim(offset.terms, 0))
        return self._shifted(pointer, offset.const, level)

    def _shifted(self, pointer: str, const: int, level: int) -> str:
        if const == 0:
            return pointer
        memo = self.scopes[level].memo
        known = memo.get((pointer, const))
        if known is None:
            known = memo[pointer, const] = self.emit_at(
                level, f"getelementptr i8, ptr {pointer}, i64 {const}"
            )
        return known

    def _pointer(self, memory: Memory, e: DimLike) -> tuple[str, int]:
        """The pointer base + e (no constant in e) and its level, extended level by level from the
        base.
        """
        if not isinstance(e, Dim):
            return memory.base, memory.level
        level = max(memory.level, self.level(e.symbols))
        memo = self.scopes[level].memo
        known = memo.get((memory.base, e))
        if known is None:
            outer = tuple([t for t in e.terms if self.level(t[0].symbols) < level])
            inner = tuple([t for t in e.terms if self.level(t[0].symbols) == level])
            if not inner:
                outer, inner = (), outer
            start, _ = self._pointer(memory, dim(outer, 0))
            step = self.dim(dim(inner, 0))
            known = self.emit_at(level, f"getelementptr i8, ptr {start}, i64 {step}")
            memo[memory.base, e] = known
        return known, level


__all__ = ["Indexer", "Memory", "Scope"]
