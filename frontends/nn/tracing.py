"""Traces: a Python function run once on tensors without values, which leaves a program.

Parameters and buffers that it uses become named state inputs, each once; a buffer that it assigns
becomes a state output.  Nothing is ever specialised silently: what needs a value fails (E0617).
May import: ir, passes.autodiff, its siblings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...ir.core import Block, Builder, Op, Value
from ...ir.dims import Dim
from ...ir.errors import Error
from ...ir.ops.autodiff import StopGradient
from ...ir.ops.core import Const
from ...ir.ops.shape import DimValue
from ...ir.types import DType, TensorType, Type
from ...passes.autodiff.pullback import expanded, pullback
from .dispatch import STATE, Base, escaped, here, traced

if TYPE_CHECKING:
    from .tensor import Tensor

Table = dict[str, Any]


class Frame:
    """An open region: its block and, where it is isolated, what it took from outside."""

    def __init__(self, block: Block, isolated: bool) -> None:
        self.block = block
        self.isolated = isolated
        self.captured: dict[Value, Value] = {}


class Change:
    """A state of a table (a buffer, a counter) that a region assigned: before and after."""

    def __init__(self, table: Table, name: str, before: Any, after: Any) -> None:
        self.table, self.name, self.before, self.after = table, name, before, after


class Trace:
    """The program so far.  `names` says, by identity, where modules hold tensors."""

    def __init__(self, names: Mapping[int, Any]) -> None:
        self.names = names
        self.block = Block()
        self.frames = [Frame(self.block, False)]
        self.b = Builder(self.block)
        self.states: dict[int, tuple[Base, Value]] = {}
        self.consts: dict[int, tuple[Any, Value]] = {}
        self.renamed: dict[Value, Value] = {}
        self.assigned: Table = {}
        self.noted: dict[tuple[int, str], tuple[Table, str, Any]] = {}

    # Taking ops ----------------------------------------------------------------------------------

    def takes(self, given: Sequence[Base | None], attrs: Mapping[str, Any]) -> bool:
        """Whether the op belongs in the trace: something in it has no value yet."""
        for x in given:
            if x is not None and (x.value is not None or x.is_state):
                return True
        return any([_symbolic(v) for v in attrs.values()])

    def emit(self, cls: type[Op], given: Sequence[Base | None], attrs: Mapping[str, Any]) -> Any:
        """Append the op; its results as traced tensors."""
        operands = [None if x is None else self.value(x) for x in given]
        self.b.loc = here()
        op = self.b.insert(cls(*operands, loc=self.b.loc, **attrs))  # type: ignore[arg-type]
        found = tuple([traced(self._cut(r), self) for r in op.results])
        return found[0] if len(found) == 1 else found

    def _cut(self, value: Value) -> Value:
        """Under `no_grad` no cotangent passes."""
        floats = isinstance(value.type, TensorType) and value.type.dtype.is_float
        if STATE.recording or not floats or isinstance(value.op, StopGradient):
            return value
        return self.b.emit(StopGradient, value)  # type: ignore[no-any-return]

    def dim(self, dim: Dim, dtype: DType) -> Tensor:
        """The value of a symbolic extent."""
        return traced(self.b.emit(DimValue, dim=dim, dtype=dtype), self)

    def value(self, x: Base) -> Value:
        """What stands for a tensor here: its value, a state input, or a constant."""
        if x.value is not None:
            if x.trace is not self:
                raise escaped(x)
            return self.inside(self.current(x.value))
        if x.is_state:
            now = self.assigned.get(str(id(x))) if self.assigned else None
            if now is not None and now is not x:
                return self.value(now)
            return self.inside(self.state(x))
        return self.constant(x)

    def assign(self, x: Base, new: Base) -> None:
        """Give a parameter or buffer its next value: it is that from here on, a state output."""
        key = str(id(x))
        self.assigned.setdefault(key, x)
        self.note(self.assigned, key)
        self.assigned[key] = new

    def current(self, value: Value) -> Value:
        """The value that has taken the place of one whose op was decomposed."""
        while value in self.renamed:
            value = self.renamed[value]
        return value

    def state(self, x: Base) -> Value:
        """The state input of a parameter or buffer."""
        known = self.states.get(id(x))
        if known is None:
            value = self.block.add_arg(x.type)
            self.states[id(x)] = known = (x, value)
        return known[1]

    def constant(self, x: Base) -> Value:
        """An eager tensor as a constant: at the top, for every region, or in an isolated one."""
        if any([f.isolated for f in self.frames]):
            return self.b.insert(Const(x.array)).result
        known = self.consts.get(id(x.array))
        if known is None:
            value = Builder(self.block, None, self.b.loc).insert(Const(x.array)).result
            self.consts[id(x.array)] = known = (x.array, value)
        return known[1]

    def fresh(self, x: Base) -> Value:
        """An eager tensor as a constant that is nobody else's."""
        return self.b.insert(Const(x.array)).result

    def inside(self, value: Value) -> Value:
        """The value as the innermost region sees it: isolated ones get it as an argument."""
        home = value.owner if isinstance(value.owner, Block) else value.owner.block
        depth = next((k for k, f in enumerate(self.frames) if f.block is home), len(self.frames))
        for frame in self.frames[depth + 1 :]:
            if frame.isolated:
                inner = frame.captured.get(value)
                if inner is None:
                    inner = frame.captured[value] = frame.block.add_arg(value.type)
                value = inner
        return value

    # Regions and state ---------------------------------------------------------------------------

    @contextmanager
    def region(self, types: Sequence[Type], isolated: bool = False) -> Iterator[Frame]:
        """Ops go to a new block with arguments of these types, until the end."""
        frame = Frame(Block(types), isolated)
        outer = self.b
        self.frames.append(frame)
        self.b = Builder(frame.block, None, outer.loc)
        try:
            yield frame
        finally:
            self.frames.pop()
            self.b = outer

    def tensor(self, value: Value) -> Tensor:
        """The tensor that stands for a value."""
        return traced(value, self)

    def note(self, table: Table, name: str) -> None:
        """Say that an entry of a table is about to be assigned."""
        self.noted.setdefault((id(table), name), (table, name, table.get(name)))

    @contextmanager
    def scoped(self) -> Iterator[list[Change]]:
        """What is assigned inside is undone at the end and listed."""
        before = {key: table[name] for key, (table, name, _) in self.noted.items()}
        changes: list[Change] = []
        try:
            yield changes
        finally:
            for key, (table, name, original) in self.noted.items():
                was = before.get(key, original)
                if table[name] is not was:
                    changes.append(Change(table, name, was, table[name]))
                    table[name] = was

    def restore(self) -> list[Change]:
        """Give all tables their values of before the trace; what had changed."""
        changes: list[Change] = []
        for table, name, original in self.noted.values():
            if table[name] is not original:
                changes.append(Change(table, name, original, table[name]))
                table[name] = original
        return changes

    def gradients(
        self, outputs: Sequence[Base], cotangents: Sequence[Base | None], wrt: Sequence[Base]
    ) -> list[Any]:
        """The cotangents of `wrt`, as ops of the trace; None for no path."""
        self.b.loc = here()
        outs = [self.value(t) for t in outputs]
        sources = [self.value(t) for t in wrt]
        given = [None if t is None else self.value(t) for t in cotangents]
        _, _, renamed = expanded(self.b.block, outs, sources)
        self.renamed.update(renamed)
        found = pullback(
            self.b, [self.current(v) for v in outs], given, [self.current(v) for v in sources]
        )
        return [None if v is None else traced(v, self) for v in found]


def _symbolic(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any([_symbolic(v) for v in value])
    return isinstance(value, Dim)


@contextmanager
def tracing(trace: Trace) -> Iterator[Trace]:
    """Ops go to the trace until the end; one trace at a time."""
    outer = STATE.trace
    if outer is not None:
        raise Error(
            "E0622", "a trace inside a trace", where=here(), hint="call the function itself"
        )
    recording = STATE.recording
    STATE.trace, STATE.recording = trace, True
    try:
        yield trace
    finally:
        STATE.trace, STATE.recording = None, recording


__all__ = ["Change", "Frame", "Trace", "tracing"]
