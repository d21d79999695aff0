"""Translates a kernel or plan from loop IR into Python source, one statement or a few per op.

The source is compiled once and run on windows of memory (interpret_memory.py); in checking mode
every access carries its bounds check, its look at the shadow and, inside loops whose iterations
run at the same time, its race check.  This file holds the translator; interpret_rules.py holds the
rules of sequential ops, interpret_async.py those of threads, processes, streams and copies.

Race checks use stamps, numbers that only grow.  A concurrent loop remembers the stamp at its start
(`base`), each iteration takes a new one (`me`); since the iterations run one after another, an
element whose stamp lies in [base, me) was touched by another iteration of the same loop.
Imports: the core, dims, types, the kernel-level ops, memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .core import Block, Op, Value
from .dims import Dim, DimLike
from .dims_expr import DIV, MOD, SYM, Atom
from .errors import Error
from .interpret_memory import packed
from .ops import loop
from .ops.core import Func
from .ops.instr import FRAGMENTS
from .types import BufferType

NEST = 16
"""Python allows 20 nested loops; deeper ones move into an inner function."""


@dataclass(frozen=True)
class Level:
    """A concurrent loop around the point of translation, by the names of its Python variables.

    `kind` is "loop" (iterations run whole, one after another) or "thread" (they alternate at
    barriers; `group` then names the object that knows which stamp belongs to which thread).
    """

    kind: str
    base: str
    me: str
    thread: str = ""
    group: str = ""


@dataclass(frozen=True)
class Place:
    """A buffer during translation: the suffix of its variables, how many levels enclose it."""

    type: BufferType
    name: str
    shape: tuple[str, ...]
    strides: tuple[str, ...]
    depth: int
    packed: bool


Rule = Callable[["Translator", Any], None]


class Translator:
    """State of one translation: source lines, names of values and symbols, enclosing levels.

    `rules[Op]` serves the classes that have no rule of their own.
    """

    def __init__(
        self,
        func: Func,
        rules: Mapping[type[Op], Rule],
        check: bool,
        outer: int,
    ) -> None:
        self.func, self.rules, self.check = func, rules, check
        self.lines: list[str] = []
        self.globals: dict[str, Any] = {"np": np}
        self.depth = 1
        self.nest = 0
        self.count = 0
        self.names: dict[Value, str] = {}
        self.places: dict[Value, Place] = {}
        self.symbols: dict[str, str] = {}
        self.levels = [Level("loop", f"b_{k}", f"m_{k}") for k in range(outer)]
        self.races = check and (outer > 0 or any(_concurrent(op) for op in func.walk()))
        self.coroutine = False
        self.group = "group"

    # Writing source ----------------------------------------------------------------------------

    def emit(self, line: str) -> None:
        """Append one line at the current indentation."""
        self.lines.append(" " * self.depth + line)

    def fresh(self, prefix: str) -> str:
        """A Python name that is used nowhere else."""
        self.count += 1
        return f"{prefix}{self.count}"

    def constant(self, value: Any) -> str:
        """The name under which the source sees a Python object."""
        name = self.fresh("C")
        self.globals[name] = value
        return name

    def define(self, value: Value) -> str:
        """The Python variable of a new value."""
        name = self.names[value] = self.fresh("x")
        return name

    def read(self, value: Value) -> str:
        """The Python variable of a value."""
        return self.names[value]

    def define_symbol(self, symbol: str) -> str:
        """The Python variable of a symbol from here on."""
        name = self.symbols[symbol] = self.fresh("v_") + re.sub(r"\W", "_", symbol)
        return name

    def block(self, block: Block) -> None:
        """Translate the ops of a block, indented one step."""
        self.depth += 1
        start = len(self.lines)
        self.ops(block)
        if len(self.lines) == start:
            self.emit("pass")
        self.depth -= 1

    def ops(self, block: Block) -> None:
        """Translate the ops of a block in place."""
        for op in block:
            self.rules.get(type(op), self.rules[Op])(self, op)
        for op in block:
            if isinstance(op, loop.Alloc) and op.type.space == "stream":
                self.emit(f"rt.drained({self.places[op.result].name}, {self.constant(op)})")

    def nested_loop(self, header: str, block: Block) -> None:
        """`header` and the block below it, in a function of its own where Python's nesting ends."""
        outline = self.nest >= NEST and not self.coroutine
        if outline:
            name = self.fresh("inner")
            self.emit(f"def {name}():")
            self.depth += 1
        saved, self.nest = self.nest, 1 if outline else self.nest + 1
        self.emit(header)
        self.block(block)
        self.nest = saved
        if outline:
            self.depth -= 1
            self.emit(f"{name}()")

    # Expressions -------------------------------------------------------------------------------

    def expr(self, e: DimLike, lane: str = "") -> str:
        """An index expression as Python; with `lane`, an expression on arrays of lanes."""
        if not isinstance(e, Dim):
            return str(e)
        parts = []
        for monomial, factor in e.terms:
            text = "*".join([self.atom(f, lane) for f in monomial.factors])
            parts.append(text if factor == 1 else f"{factor}*{text}")
        if e.const:
            parts.append(str(e.const))
        return parts[0] if len(parts) == 1 else "(" + " + ".join(parts) + ")"

    def atom(self, atom: Atom, lane: str) -> str:
        """One symbol, floor division, modulo, minimum or maximum."""
        if atom.kind == SYM:
            name = self.symbols.get(atom.args[0])
            if name is None:
                raise Error(
                    "E0323",
                    f"symbol {atom.args[0]} has no value here",
                    where=f"kernel @{self.func.sym}",
                )
            return name
        args = [self.expr(a, lane) for a in atom.args]
        if atom.kind in (DIV, MOD):
            return f"({args[0]} {atom.kind} ({args[1]}))"
        if lane in atom.symbols:
            out = args[0]
            for other in args[1:]:
                out = f"np.{atom.kind}imum({out}, {other})"
            return out
        return f"{atom.kind}({', '.join(args)})"

    def exprs(self, many: Sequence[DimLike], lane: str = "") -> str:
        """A tuple of expressions."""
        return "(" + "".join([self.expr(e, lane) + ", " for e in many]) + ")"

    def guard(self, where: Sequence[DimLike]) -> str:
        """The condition that every expression is at least zero."""
        return " and ".join([f"{self.expr(e)} >= 0" for e in where])

    # Buffers -----------------------------------------------------------------------------------

    def bind(self, value: Value, window: str) -> Place:
        """Unpack the window that the Python expression `window` gives into variables of `value`."""
        type_ = value.buffer
        name = self.fresh("")
        self.emit(f"W{name} = {window}")
        self.emit(f"d{name} = W{name}.data")
        if self.check:
            self.emit(f"s{name}, p{name} = W{name}.shadow()")
        if self.races:
            self.emit(f"w{name}, q{name}, r{name} = W{name}.stamps()")
        texts: list[tuple[str, ...]] = []
        for letter, dims in (("n", type_.shape), ("k", type_.element_strides)):
            names = [
                str(d) if isinstance(d, int) else f"{letter}{name}_{axis}"
                for axis, d in enumerate(dims)
            ]
            for text, d in zip(names, dims, strict=True):
                if not isinstance(d, int):
                    self.emit(f"{text} = {self.expr(d)}")
            texts.append(tuple(names))
        place = Place(type_, name, texts[0], texts[1], len(self.levels), packed(type_.dtype))
        self.places[value] = place
        self.names[value] = f"W{name}"
        return place

    def place(self, op: Op, value: Value) -> Place:
        """The place of a buffer operand; E0521 where the operand is none."""
        place = self.places.get(value)
        if place is None or place.type.space == "stream":
            raise Error(
                "E0521",
                f"{op.name} wants a buffer with addresses",
                where=Op.where(op),
                details=(f"found {value.type}",),
            )
        return place

    def address(self, op: Op, place: Place, index: Sequence[DimLike]) -> None:
        """Set `o` to the flat element number of `index` (and `h` to its place in the shadow)."""
        if len(index) != len(place.shape):
            raise Error(
                "E0521",
                f"{op.name}: {len(index)} indices for a buffer of rank {len(place.shape)}",
                where=Op.where(op),
                details=(f"buffer {place.type}",),
            )
        parts, tests, names = [], [], []
        for axis, e in enumerate(index):
            text = self.expr(e)
            if isinstance(e, Dim) and not text.isidentifier():
                self.emit(f"i{axis} = {text}")
                text = f"i{axis}"
            names.append(text)
            tests.append(f"0 <= {text} < {place.shape[axis]}")
            if text != "0":
                parts.append(
                    text if place.strides[axis] == "1" else f"{text}*{place.strides[axis]}"
                )
        if self.check and tests:
            site = self.constant(op)
            self.emit(
                f"if not ({' and '.join(tests)}): "
                f"rt.outside({site}, ({', '.join(names)},), W{place.name})"
            )
        if self.check and place.type.space.startswith("fragment.") and names:
            self.owned(op, place, names)
        self.emit(f"o = {' + '.join(parts) or '0'}")
        self.emit("h = o" if not place.packed else f"h = o * {place.type.dtype.bits} // 8")

    def owned(self, op: Op, place: Place, names: Sequence[str]) -> None:
        """Check that a lane touches only its own elements of a fragment (whole warps touch all)."""
        thread = self.levels[-1].thread if self.levels else ""
        if thread:
            owners = self.constant(FRAGMENTS[place.type.space.split(".", 1)[1]].owners())
            text = f"lane {{{thread} % 32}} does not hold this element of '{{W{place.name}.label}}'"
            test = f"{thread} >= 0 and {owners}[({', '.join(names)},)] != {thread} % 32"
            self.emit(f"if {test}: rt.misplaced({self.constant(op)}, f{text!r})")

    def look(self, op: Op, place: Place) -> None:
        """Check that element `o` is defined, and that no other iteration wrote it."""
        if not self.check:
            return
        n = place.name
        self.emit(f"if s{n}[h] != p{n}: rt.undefined({self.constant(op)}, h, W{n})")
        levels = self.levels_of(place)
        if levels:
            self.emit(f"t = w{n}[h]")
            self.emit(f"if {self.conflict(levels, ('t',))}: rt.race({self.constant(op)}, h, W{n})")
            me = self.levels[-1].me
            self.emit(f"if q{n}[h] != {me}: r{n}[h] = q{n}[h]; q{n}[h] = {me}")

    def touch(self, op: Op, place: Place) -> None:
        """Mark element `o` as written, after checking that no other iteration touched it."""
        if not self.check:
            return
        n = place.name
        self.emit(f"s{n}[h] = p{n}")
        levels = self.levels_of(place)
        if levels:
            self.emit(f"t = w{n}[h]; t1 = q{n}[h]; t2 = r{n}[h]")
            self.emit(
                f"if {self.conflict(levels, ('t', 't1', 't2'))}: "
                f"rt.race({self.constant(op)}, h, W{n})"
            )
            self.emit(f"w{n}[h] = {self.levels[-1].me}")

    def levels_of(self, place: Place) -> list[Level]:
        """The concurrent loops that share the place; of thread loops only the innermost."""
        if not self.races:
            return []
        inside = self.levels[place.depth :]
        last = inside[-1] if inside else None
        return [level for level in inside if level.kind == "loop" or level is last]

    def conflict(self, levels: Sequence[Level], stamps: Sequence[str]) -> str:
        """The condition that one of the stamps belongs to another iteration."""
        tests = []
        for level in levels:
            for t in stamps:
                if level.kind == "loop":
                    tests.append(f"{level.base} <= {t} < {level.me}")
                else:
                    tests.append(
                        f"{t} >= {level.base} and {t} != {level.me} and "
                        f"{level.group}.conflict({t}, {level.thread})"
                    )
        return " or ".join(tests)

    def shared_levels(self, place: Place) -> str:
        """The levels as the runtime's vector checks take them; "()" where there are none."""
        parts = []
        for level in self.levels_of(place):
            thread = f"{level.group}, {level.thread}" if level.kind == "thread" else "None, 0"
            parts.append(f"({level.base}, {level.me}, {thread}), ")
        return "(" + "".join(parts) + ")"

    def outer_levels(self) -> str:
        """The enclosing levels as a callee takes them."""
        return "(" + "".join([f"({level.base}, {level.me}), " for level in self.levels]) + ")"


def _concurrent(op: Op) -> bool:
    return isinstance(op, loop.Process) or (
        isinstance(op, loop.For) and (op.kind == "parallel" or op.kind[:3] == "gpu")
    )
