"""Translates a kernel or plan from loop IR into Python source, one statement or a few per op.

The source is compiled once and run on windows of memory (interpret_memory.py); in checking mode every
access carries its bounds check, its look at the shadow and, inside loops whose iterations run at the
same time, its race check.  This file holds the translator and the rules of sequential ops;
interpret_async.py holds the rules of threads, processes, streams and asynchronous copies.

Race checks use stamps, numbers that only grow.  A concurrent loop remembers the stamp at its start
(`base`), each iteration takes a new one (`me`); since the iterations run one after another, an element
whose stamp lies in [base, me) was touched by another iteration of the same loop.
Imports: the core, dims, types, the kernel-level ops, memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .blobs import Blob
from .core import Block, Op, Value
from .dims import Dim, DimLike, coefficient, substitute
from .dims_expr import DIV, MOD, SYM, Atom
from .errors import Error
from .interpret_memory import elements_of, packed
from .ops import loop
from .ops.core import Const, Func, Module, Return, Yield
from .ops.instr import FRAGMENTS
from .types import BufferType, DType, VectorType, element

NEST = 16
"""Python allows 20 nested loops; deeper ones move into an inner function."""
_SPEED = {"add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}"}
"""Elementwise ops on scalars for which numpy's operators are `evaluate`, only quicker."""


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
    """A buffer during translation: the suffix of its Python variables, and how many levels enclose it."""

    type: BufferType
    name: str
    shape: tuple[str, ...]
    strides: tuple[str, ...]
    depth: int
    packed: bool


Rule = Callable[["Translator", Any], None]


class Translator:
    """State of one translation: source lines, names of values and symbols, enclosing levels."""

    def __init__(
        self,
        func: Func,
        rules: Mapping[type[Op], Rule],
        check: bool,
        outer: int,
        module: Module | None,
    ) -> None:
        self.func, self.rules, self.check, self.module = func, rules, check, module
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
            rule = self.rules.get(type(op), _elementwise)
            rule(self, op)
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
            return f"({args[0]} {atom.kind} {args[1]})"
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
            raise Error("E0521", f"{op.name}: {len(index)} indices for a buffer of rank {len(place.shape)}",
                        where=Op.where(op), details=(f"buffer {place.type}",))  # fmt: skip
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
                f"if not ({' and '.join(tests)}): rt.outside({site}, ({', '.join(names)},), W{place.name})"
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
                f"if {self.conflict(levels, ('t', 't1', 't2'))}: rt.race({self.constant(op)}, h, W{n})"
            )
            self.emit(f"w{n}[h] = {self.levels[-1].me}")

    def levels_of(self, place: Place) -> list[Level]:
        """The concurrent loops that share the place; of nested thread loops only the innermost counts."""
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
                    tests.append(f"{t} >= {level.base} and {t} != {level.me} and "
                                 f"{level.group}.conflict({t}, {level.thread})")  # fmt: skip
        return " or ".join(tests)

    def shared_levels(self, place: Place) -> str:
        """The levels as a tuple that the runtime's vector checks take; "()" where there are none."""
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


# Rules ---------------------------------------------------------------------------------------------


def _elementwise(t: Translator, op: Op) -> None:
    """A scalar or vector op: its class's `evaluate`."""
    evaluate = getattr(type(op), "evaluate", None)
    if evaluate is None or op.regions:
        raise Error("E0521", f"'{op.name}' is no op of the kernel level", where=Op.where(op))
    args = [t.read(v) for v in op.operands]
    quick = _SPEED.get(op.name)
    if quick is not None and element(op.result.type).np.kind in "fiu":
        t.emit(f"{t.define(op.result)} = {quick.format(*args)}")
        return
    attributes = op.attributes
    call = t.constant(partial(evaluate, **attributes) if attributes else evaluate)
    t.emit(f"{''.join([t.define(r) + ', ' for r in op.results])[:-2]} = {call}({', '.join(args)})")


def _const(t: Translator, op: Const) -> None:
    type_ = op.result.type
    if isinstance(type_, BufferType):
        assert isinstance(op.value, Blob)
        t.bind(op.result, f"rt.table({t.constant(op)})")
        return
    value = np.asarray(op.value, element(type_).np)
    t.names[op.result] = t.constant(
        np.full(type_.lanes, value) if isinstance(type_, VectorType) else value[()]
    )


def _for(t: Translator, op: loop.For) -> None:
    var = t.define_symbol(op.var)
    lo, extent = t.expr(op.lo), t.expr(op.extent)
    if op.kind != "parallel":
        t.nested_loop(f"for {var} in range({lo}, {lo} + {extent}):", op.body)
        return
    level = Level("loop", t.fresh("b"), t.fresh("m"))
    t.emit(f"{level.base} = rt.stamp + 1")
    t.nest += 1
    t.emit(f"for {var} in rt.order({lo}, {extent}):")
    t.emit(f" {level.me} = rt.stamp = rt.stamp + 1")
    t.levels.append(level)
    t.block(op.body)
    t.levels.pop()
    t.nest -= 1


def _if(t: Translator, op: loop.If) -> None:
    t.emit(f"if {t.guard(op.where) or 'True'}:")
    t.block(op.body)


def _when(t: Translator, op: loop.When) -> None:
    t.emit(f"if {t.read(op.condition)}:")
    t.block(op.then)
    t.emit("else:")
    t.block(op.otherwise)


def _while(t: Translator, op: loop.While) -> None:
    var = t.define_symbol(op.var)
    t.emit(f"{var} = -1")
    t.emit("while True:")
    t.depth += 1
    t.emit(f"{var} += 1")
    t.ops(op.before)
    last = op.before.last
    assert isinstance(last, Yield)
    t.emit(f"if not {t.read(last.operands[0])}: break")
    t.ops(op.body)
    t.depth -= 1


def _alloc(t: Translator, op: loop.Alloc) -> None:
    type_ = op.type
    site = t.constant(op)
    if type_.space == "stream":
        name = t.fresh("S")
        t.emit(f"{name} = rt.stream()")
        shape = (t.expr(type_.size),)
        t.places[op.result] = Place(type_, name, shape, (), len(t.levels), False)
        t.names[op.result] = name
        return
    t.bind(op.result, f"rt.alloc({site}, {t.exprs(type_.shape)}, {t.exprs(type_.element_strides)})")


def _view(t: Translator, op: loop.View) -> None:
    base, type_ = t.place(op, op.base), op.type
    window = f"rt.view({t.constant(op)}, W{base.name}, {t.expr(op.offset)}, {t.exprs(type_.shape)}, {t.exprs(type_.element_strides)})"
    t.bind(op.result, window)
    made = t.places[op.result]
    t.places[op.result] = Place(
        made.type, made.name, made.shape, made.strides, base.depth, made.packed
    )


def _load(t: Translator, op: loop.Load) -> None:
    place = t.place(op, op.source)
    dtype = place.type.dtype
    out = t.define(op.result)
    fill = t.constant(np.asarray(0 if op.fill is None else op.fill, dtype.np)[()])
    if op.lane:
        _vector_access(t, op, place, out, fill)
        return
    if op.where:
        t.emit(f"if {t.guard(op.where)}:")
        t.depth += 1
    t.address(op, place, op.index)
    t.look(op, place)
    if place.packed:
        table, mask = t.constant(elements_of(dtype)), (1 << dtype.bits) - 1
        t.emit(f"{out} = {table}[(int(d{place.name}[h]) >> (o * {dtype.bits} % 8)) & {mask}]")
    else:
        t.emit(f"{out} = d{place.name}[o]")
    if op.where:
        t.depth -= 1
        t.emit(f"else: {out} = {fill}")


def _store(t: Translator, op: loop.Store) -> None:
    place = t.place(op, op.target)
    dtype = place.type.dtype
    if element(op.value.type) is not dtype:
        raise Error(
            "E0521", f"a {op.value.type} is stored in a buffer of {dtype}", where=Op.where(op)
        )
    value = t.read(op.value)
    if op.lane:
        _vector_access(t, op, place, value, "")
        return
    if op.where:
        t.emit(f"if {t.guard(op.where)}:")
        t.depth += 1
    t.address(op, place, op.index)
    t.touch(op, place)
    if place.packed:
        t.emit(
            f"rt.put_code(d{place.name}, o, int(rt.code_of({value}, {t.constant(dtype)})), {dtype.bits})"
        )
    else:
        t.emit(f"d{place.name}[o] = {value}")
    if op.where:
        t.depth -= 1


def _vector_access(
    t: Translator, op: loop.Load | loop.Store, place: Place, value: str, fill: str
) -> None:
    """A vector load or store: a slice where lanes step evenly and no lane is masked, else lane by lane."""
    lanes = op.lanes if isinstance(op, loop.Load) else op.value.type.lanes  # type: ignore[attr-defined]
    step = _lane_step(place, op.index, op.lane)
    ends = [
        [substitute(e, {op.lane: lane}) for lane in (0, lanes - 1)] for e in (*op.where, *op.index)
    ]
    even = all(_steps_evenly(e, op.lane) for e in op.where)
    quick = step is not None and even and not place.packed
    if quick and op.where:
        t.emit(f"if {t.guard([e for pair in ends[: len(op.where)] for e in pair])}:")
    elif quick:
        t.emit("if True:")
    if quick:
        t.depth += 1
        _slice_access(t, op, place, value, lanes, step or 0)
        t.depth -= 1
    if not quick or op.where:
        t.emit("else:" if quick else "if True:")
        t.depth += 1
        _lane_access(t, op, place, value, fill, lanes)
        t.depth -= 1


def _slice_access(
    t: Translator, op: loop.Load | loop.Store, place: Place, value: str, lanes: int, step: int
) -> None:
    last = [substitute(e, {op.lane: lanes - 1}) for e in op.index]
    if t.check:
        tests = [f"0 <= {t.expr(e)} < {n}" for e, n in zip(last, place.shape, strict=True)]
        t.emit(
            f"if not ({' and '.join(tests)}): rt.outside({t.constant(op)}, {t.exprs(last)}, W{place.name})"
        )
    t.address(op, place, [substitute(e, {op.lane: 0}) for e in op.index])
    n, cut = place.name, f"[o:o + {step * (lanes - 1) + 1}:{step}]"
    load = isinstance(op, loop.Load)
    if t.check:
        if load:
            t.emit(
                f"if (s{n}{cut} != p{n}).any(): rt.undefined({t.constant(op)}, np.arange({lanes}) * {step} + o, W{n})"
            )
        else:
            t.emit(f"s{n}{cut} = p{n}")
        levels = t.shared_levels(place)
        if levels != "()":
            t.emit(
                f"rt.lanes({t.constant(op)}, W{n}, np.arange({lanes}) * {step} + o, {levels}, {t.levels[-1].me}, {not load})"
            )
    t.emit(f"{value} = d{n}{cut}.copy()" if load else f"d{n}{cut} = {value}")


def _lane_access(
    t: Translator, op: loop.Load | loop.Store, place: Place, value: str, fill: str, lanes: int
) -> None:
    saved = t.symbols.get(op.lane)
    t.symbols[op.lane] = t.constant(np.arange(lanes))
    index, where = t.exprs(op.index, op.lane), t.exprs(op.where, op.lane)
    if saved is None:
        del t.symbols[op.lane]
    else:
        t.symbols[op.lane] = saved
    levels = t.shared_levels(place)
    me = t.levels[-1].me if levels != "()" else "0"
    site, n = t.constant(op), place.name
    if isinstance(op, loop.Load):
        t.emit(
            f"{value} = rt.gather({site}, W{n}, {index}, {where}, {fill}, {lanes}, {levels}, {me})"
        )
    else:
        t.emit(f"rt.scatter({site}, W{n}, {index}, {where}, {value}, {lanes}, {levels}, {me})")


def _steps_evenly(e: DimLike, lane: str) -> bool:
    found = coefficient(e, lane)
    return found is not None and isinstance(found[0], int)


def _lane_step(place: Place, index: Sequence[DimLike], lane: str) -> int | None:
    """Elements from one lane to the next, where that is a known positive number."""
    total = 0
    for e, stride in zip(index, place.strides, strict=True):
        found = coefficient(e, lane)
        if found is None or not isinstance(found[0], int):
            return None
        if found[0]:
            if not stride.isdigit():
                return None
            total += found[0] * int(stride)
    return total if total > 0 else None


def _index_value(t: Translator, op: loop.IndexValue) -> None:
    out = t.define(op.result)
    kind = t.constant(op.dtype.np.type)
    if not op.lane:
        t.emit(f"{out} = {kind}({t.expr(op.value)})")
        return
    saved = t.symbols.get(op.lane)
    t.symbols[op.lane] = t.constant(np.arange(op.lanes))
    t.emit(f"{out} = np.full({op.lanes}, {t.expr(op.value, op.lane)}, {kind})")
    t.symbols.pop(op.lane)
    if saved is not None:
        t.symbols[op.lane] = saved


def _bind(t: Translator, op: loop.Bind) -> None:
    value = t.read(op.value)
    name = t.define_symbol(op.symbol)
    t.emit(f"{name} = int({value})")
    t.emit(f"if not 0 <= {name} < {t.expr(op.extent)}: rt.fail({loop.STATUS_INDEX})")


def _splat(t: Translator, op: loop.Splat) -> None:
    dtype = t.constant(element(op.result.type).np)
    t.emit(f"{t.define(op.result)} = np.full({op.lanes}, {t.read(op.x)}, {dtype})")


def _reduce_lanes(t: Translator, op: loop.ReduceLanes) -> None:
    t.emit(f"{t.define(op.result)} = rt.reduce_lanes({t.read(op.x)}, {op.combiner!r})")


def _call(t: Translator, op: loop.Call | loop.HostCall) -> None:
    args = "[" + ", ".join([t.read(v) for v in op.args]) + "]"
    if isinstance(op, loop.HostCall):
        t.emit(f"rt.host_call({t.constant(op)}, {args}, {t.exprs(op.dims)})")
    else:
        t.emit(f"rt.call({t.constant(op)}, {args}, {t.exprs(op.dims)}, {t.outer_levels()})")


def _nothing(t: Translator, op: Op) -> None:
    """Terminators: what they yield is read by the op that holds them."""


PLAIN: dict[type[Op], Rule] = {
    Const: _const, loop.For: _for, loop.If: _if, loop.When: _when, loop.While: _while, loop.Alloc: _alloc,
    loop.View: _view, loop.Load: _load, loop.Store: _store, loop.IndexValue: _index_value, loop.Bind: _bind,
    loop.Fail: lambda t, op: t.emit(f"rt.fail({op.status})"), loop.Splat: _splat, loop.ReduceLanes: _reduce_lanes,
    loop.Call: _call, loop.HostCall: _call, Return: _nothing, Yield: _nothing,
}  # fmt: skip


def translate(func: Func, rules: Mapping[type[Op], Rule], symbols: Sequence[str], check: bool, outer: int,
              module: Module | None) -> Callable[..., None]:  # fmt: skip
    """The Python function `(rt, windows, dims, levels)` that does what `func` says."""
    t = Translator(func, rules, check, outer, module)
    for symbol in symbols:
        t.emit(f"{t.define_symbol(symbol)} = dims[{symbol!r}]")
    for k, level in enumerate(t.levels):
        t.emit(f"{level.base}, {level.me} = levels[{k}]")
    for k, value in enumerate(func.args):
        t.bind(value, f"windows[{k}]")
        place = t.places[value]
        t.places[value] = Place(place.type, place.name, place.shape, place.strides, 0, place.packed)
    t.emit("group = rt.group()")
    t.ops(func.body)
    source = "def kernel(rt, windows, dims, levels):\n" + "\n".join(t.lines) + "\n"
    exec(compile(source, f"<kernel @{func.sym}>", "exec"), t.globals)
    kernel: Callable[..., None] = t.globals["kernel"]
    kernel.__doc__ = source
    return kernel
