"""The state of one LLVM function and of one module while they are written.

Imports: ir, emit_index, emit_types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ...ir.core import Block, Op, Value
from ...ir.dims import Dim, DimLike
from ...ir.errors import UnsupportedError
from .emit_index import Indexer, Memory, Scope
from .emit_types import type_text


@dataclass(slots=True)
class ModuleText:
    """What the functions of one module share: finished texts, declarations, constants."""

    rows: Mapping[str, Row]
    noalias: bool = True
    texts: list[str] = field(default_factory=list)
    declared: dict[str, None] = field(default_factory=dict)
    defined: set[str] = field(default_factory=set)
    called: dict[str, str] = field(default_factory=dict)
    needs_parallel: bool = False
    nodes: int = 1
    """Numbers of metadata taken; 0 marks stores that pass the caches by."""

    def loop_note(self, what: str) -> str:
        """The note on the branch back of a loop: what LLVM is to do with it."""
        first, self.nodes = self.nodes, self.nodes + 2
        self.declared[f"!{first} = distinct !{{!{first}, !{first + 1}}}"] = None
        self.declared[f"!{first + 1} = !{{{what}}}"] = None
        return f", !llvm.loop !{first}"


class Writer(Indexer):
    """One LLVM function being written.

    `parent` is the function whose parallel loop this one outlines: what it needs of the parent
    becomes a parameter.
    """

    def __init__(self, module: ModuleText, name: str, parent: Writer | None = None) -> None:
        super().__init__()
        self.module = module
        self.function = name
        self.parent = parent
        self.declared = module.declared
        self.values: dict[Value, str] = {}
        self.allocas: list[str] = []
        self.tail: list[str] = []
        self.fails: dict[int, str] = {}
        self.captured: list[tuple[str, str, str]] = []
        """(type, name here, operand in the parent), in order of first use."""
        self.pointers: dict[str, str] = {}
        self.outlined = 0
        self.tiles: dict[Value, int] = {}
        """Numbers of AMX tiles, which are configured at the entry and released at the end."""
        if parent is not None:
            self.ranges.update(parent.ranges)

    # What values, symbols and buffers are called -------------------------------------------------

    def capture(self, type: str, operand: str) -> str:
        """A parameter that holds the parent's `operand`."""
        name = f"%in{len(self.captured)}"
        self.captured.append((type, name, operand))
        return name

    def symbol(self, name: str) -> tuple[str, int]:
        known = self.symbols.get(name)
        if known is None:
            if self.parent is None:
                raise UnsupportedError("E0421", f"symbol {name} is not bound in {self.function}")
            known = self.symbols[name] = self.capture("i64", self.parent.symbol(name)[0]), 0
        return known

    def text(self, value: Value) -> str:
        """The operand that holds a scalar or vector value."""
        known = self.values.get(value)
        if known is None:
            assert self.parent is not None, f"{value} is used before it is defined"
            known = self.parent.text(value)
            if known[0] == "%":
                known = self.capture(type_text(value.type), known)
            self.values[value] = known
        return known

    def memory(self, value: Value) -> Memory:
        """Where a buffer value lies."""
        known = self.buffers.get(value)
        if known is None:
            assert self.parent is not None, f"{value} is used before it is defined"
            outer = self.parent.memory(value)
            base = self.pointers.get(outer.base)
            if base is None:
                base = self.pointers[outer.base] = self.capture("ptr", outer.base)
            known = self.buffers[value] = Memory(base, 0, outer.offset, outer.type)
        return known

    # Control flow ------------------------------------------------------------------------------

    def label(self, prefix: str) -> str:
        """A new block label."""
        self.count += 1
        return f"{prefix}{self.count}"

    def start(self, label: str) -> None:
        """Begin a basic block in the innermost scope."""
        self.scope.lines.append(f"{label}:")
        self.scope.label = label

    def branch(self, condition: str, then: str, otherwise: str, note: str = "") -> None:
        """End the current block by a conditional branch."""
        self.line(f"br i1 {condition}, label %{then}, label %{otherwise}{note}")

    def enter(self, label: str) -> Scope:
        """A new innermost scope that begins in block `label`."""
        made = Scope(label)
        self.scopes.append(made)
        return made

    def leave(self, *jump: str) -> None:
        """End the innermost scope: the enclosing one goes on with `jump` (its terminator) and the
        inner lines.
        """
        inner = self.pop()
        self.scope.lines += [*jump, *inner.lines]
        self.scope.label = inner.label
        self.scope.added += inner.added
        self.scope.loops |= inner.loops

    def fail_label(self, status: int) -> str:
        """The block that ends the function with this status."""
        known = self.fails.get(status)
        if known is None:
            known = self.fails[status] = f"fail{status}"
            self.tail += [f"{known}:", f"  ret i32 {status}"]
        return known

    def check_status(self, status: str) -> None:
        """End the function with `status` unless it is ok."""
        failed, fail, ok = (
            self.emit(f"icmp ne i32 {status}, 0"),
            self.label("failed"),
            self.label("ok"),
        )
        self.branch(failed, fail, ok)
        self.tail += [f"{fail}:", f"  ret i32 {status}"]
        self.start(ok)

    def holds(self, e: DimLike) -> str:
        """The i1 operand that says e >= 0."""
        if not isinstance(e, Dim):
            return "true" if e >= 0 else "false"
        level = self.level(e.symbols)
        memo = self.scopes[level].memo
        known = memo.get(("holds", e))
        if known is None:
            operand = self.dim(e)
            known = memo["holds", e] = self.emit_at(level, f"icmp sge i64 {operand}, 0")
        return known

    def all_hold(self, where: Sequence[DimLike]) -> str:
        """The i1 operand that says every expression is at least zero ("true" for none)."""
        known = ""
        for e in where:
            one = self.holds(e)
            if one != "true":
                known = self.emit(f"and i1 {known}, {one}") if known else one
        return known or "true"

    # Statements --------------------------------------------------------------------------------

    def run(self, block: Block) -> None:
        """Print every op of a block."""
        rows = self.module.rows
        for op in block:
            row = rows.get(op.name)
            if row is None:
                raise UnsupportedError(
                    "E0422",
                    f"the LLVM printer has no row for {op.name}",
                    where=Op.where(op),
                    hint="functions of mathematics and composites are expanded before printing",
                )
            row(self, op)

    def finished(self, header: str) -> str:
        """The function's text."""
        release = ["  call void @llvm.x86.tilerelease()"] if self.tiles else []
        return "\n".join(
            [
                f"{header} {{",
                "entry:",
                *self.allocas,
                *self.scopes[0].lines,
                *release,
                "  ret i32 0",
                *self.tail,
                "}\n",
            ]
        )


Row = Callable[[Writer, Op], None]

__all__ = ["ModuleText", "Row", "Writer"]
