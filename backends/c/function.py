"""The state of one C function while it is printed: names, pending values, lines.

Imports: ir, the files of this folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...ir.core import Block, Op, Value
from ...ir.dims import DimLike, Range
from ...ir.errors import UnsupportedError
from ...ir.ops import loop
from ...ir.ops.core import Const
from ...ir.types import DType, VectorType, bf16, boolean, element, f16
from .expressions import (
    ADD,
    RELATION,
    Expr,
    Expressions,
    call,
)
from .types import identifier, memory_type, packed_bits, register_type

if TYPE_CHECKING:
    from .printer import CModule


def root(value: Value) -> Value:
    """The buffer that a chain of views looks at."""
    while isinstance(value.op, loop.View):
        value = value.op.base
    return value


class Printer(Expressions):
    """One C function being printed.  HLS C++ overrides what differs."""

    def __init__(self, module: CModule) -> None:
        super().__init__()
        self.module = module
        self.used = module.used
        self.lines: list[str] = []
        self.depth = 1
        self.names: dict[Value, str] = {}
        self.pending: dict[Value, Expr] = {}
        self.fragile: set[Value] = set()
        """Pending values that read memory."""
        self.taken: set[str] = {"ctx", "status"}
        self.written: set[Value] = set()
        self.reading = False
        """The op being printed has taken in an expression that reads memory."""

    # Text --------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """One indented line."""
        self.lines.append("    " * self.depth + text)

    def open(self, text: str) -> None:
        """A line that begins a block."""
        self.line(text + " {")
        self.depth += 1

    def close(self, tail: str = "") -> None:
        """End a block."""
        self.depth -= 1
        self.line("}" + tail)

    def name_of(self, value: Value) -> str:
        """The C name of a buffer or of a stored scalar."""
        name = self.names[value]
        self.mentions.add(name)
        return name

    def new_name(self, wish: str) -> str:
        """A C name that nothing in this function has."""
        return identifier(wish, self.taken)

    def element_type(self, dtype: DType) -> str:
        """The type of array elements."""
        return memory_type(dtype)

    def value_type(self, dtype: DType) -> str:
        """The type of local scalars."""
        return register_type(dtype)

    # Values ------------------------------------------------------------------------------------

    def expr(self, value: Value) -> Expr:
        """The expression for an operand; a pending one moves into its use."""
        pending = self.pending.pop(value, None)
        if pending is not None:
            if value in self.fragile:
                self.fragile.discard(value)
                self.reading = True
            return pending
        op = value.op
        if isinstance(op, Const):
            return self.constant(op.value, op.type)
        return Expr(self.name_of(value))

    def simple(self, x: Expr, dtype: DType) -> Expr:
        """x as a name or number, so that it may be written twice."""
        if x.text.replace(".", "").isalnum() or x.text.isidentifier():
            return x
        name = self.new_name("v")
        self.line(f"const {self.value_type(dtype)} {name} = {x.text};")
        return Expr(name)

    def define(self, value: Value, made: Expr) -> None:
        """Remember the value for its only use, or give it a variable now."""
        users = value.users
        once = len(users) == 1 and sum(v is value for v in users[0].operands) == 1
        if once and users[0].block is value.owner.block:
            self.pending[value] = made
            if self.reading:
                self.fragile.add(value)
        elif users:
            self.store_value(value, made)

    def store_value(self, value: Value, made: Expr) -> None:
        """A constant local variable."""
        dtype = element(value.type)
        name = self.new_name(value.name or "v")
        self.line(f"const {self.value_type(dtype)} {name} = {made.text};")
        self.names[value] = name

    def flush(self, everything: bool = False) -> None:
        """Give variables to pending values that a coming effect could change (or to all)."""
        for value in [v for v in self.pending if everything or v in self.fragile]:
            made = self.pending.pop(value)
            self.fragile.discard(value)
            self.store_value(value, made)

    def place(self, buffer: Value, index: Sequence[DimLike]) -> Expr:
        """The element of a buffer, as an lvalue."""
        type_ = buffer.buffer
        name = self.name_of(buffer)
        if type_.space != "heap" and type_.strides is None and not isinstance(buffer.op, loop.View):
            return Expr(name + "".join([f"[{self.dim(i).text}]" for i in index]))
        return Expr(f"{name}[{self.flat(index, type_.shape, type_.strides).text}]")

    def read(self, buffer: Value, index: Sequence[DimLike]) -> Expr:
        """The register value of an element."""
        dtype = element(buffer.type)
        bits = packed_bits(dtype)
        if bits:
            getter = self.need(f"irc_get_{'u' if dtype.kind == 'uint' else 'i'}{bits}")
            at = self.flat(index, buffer.buffer.shape, buffer.buffer.strides)
            return call(getter, Expr(self.name_of(buffer)), at)
        made = self.place(buffer, index)
        if dtype in (f16, bf16) and self.element_type(dtype) == "uint16_t":
            return call(self.need(f"irc_{dtype.name}_load"), made)
        return Expr(f"{made.text} != 0", RELATION - 1) if dtype is boolean else made

    def write(self, buffer: Value, index: Sequence[DimLike], value: Expr) -> None:
        """Store a register value."""
        dtype = element(buffer.type)
        bits = packed_bits(dtype)
        if bits:
            at = self.flat(index, buffer.buffer.shape, buffer.buffer.strides)
            self.line(
                call(self.need(f"irc_put_{bits}"), Expr(self.name_of(buffer)), at, value).text + ";"
            )
            return
        if dtype in (f16, bf16) and self.element_type(dtype) == "uint16_t":
            value = call(self.need(f"irc_{dtype.name}_bits"), value)
        target = self.place(buffer, index)
        for operator in ("+", "-", "*"):
            head = f"{target.text} {operator} "
            if value.level in (ADD, ADD + 1) and value.text.startswith(head) and dtype.is_float:
                rest = value.text.removeprefix(head)
                if not any(c in rest for c in "+-*/?<>=&|^% "):
                    self.line(f"{target.text} {operator}= {rest};")
                    return
        self.line(f"{target.text} = {value.text};")

    # Blocks ------------------------------------------------------------------------------------

    def run(self, block: Block) -> None:
        """Print every op of a block; what is left pending at its end was for nobody."""
        rows = self.module.rows
        for op in block:
            row = rows.get(op.name)
            if row is None or any(isinstance(r.type, VectorType) for r in op.results):
                raise UnsupportedError(
                    "E0431",
                    f"the {self.module.language} printer has no row for {op.name}",
                    where=Op.where(op),
                    details=tuple(f"gives {r.type}" for r in op.results),
                    hint="vectors stay loops here; functions of mathematics are expanded before",
                )
            self.reading = False
            row(self, op)

    def body(self, block: Block) -> None:
        """A block of its own between braces that are already open."""
        names, taken = dict(self.names), set(self.taken)
        self.run(block)
        self.flush_unused()
        self.names, self.taken = names, taken

    def flush_unused(self) -> None:
        """Forget pending values of a finished block."""
        self.pending.clear()
        self.fragile.clear()

    def bind(self, symbol: str, range: Range) -> str:
        """A C name for a symbol."""
        name = self.new_name(symbol)
        self.symbols[symbol] = Expr(name)
        self.ranges[symbol] = range
        return name


__all__ = ["Printer", "root"]
