"""Networks by connection: symbols stand for inputs, layers called on symbols give symbols.

    x = nn.Input((784,))
    net = nn.Model(x, nn.Linear(784, 10)(nn.relu(nn.Linear(784, 784)(x))))

A symbol has a type and remembers the step that makes it; a `Model` is the list of steps between its
inputs and outputs, run
again on each call (network.py).  May import: ir, its siblings.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from ...ir.core import Op, Value
from ...ir.errors import Error
from ...ir.types import TensorType
from .dispatch import here
from .module import Module
from .network import Entry, Held, Network, Slot
from .random import default as default_stream
from .specs import Spec
from .tensor import Parameter, Tensor
from .trees import Tree, flatten, is_leaf, unflatten


class Symbol(Tensor):
    """A tensor that has a type alone; `step` makes it, None for an input."""

    __slots__ = ("name", "step")
    symbolic: ClassVar[bool] = True
    step: Step | None
    name: str

    def applied(self, cls: type[Op], given: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        """The result of an op, noted."""
        stand_ins = [None if x is None else Value(x.type, None, 0) for x in given]
        op = cls(*stand_ins, loc=here(), **attrs)  # type: ignore[arg-type]
        types = [r.tensor for r in op.results]
        if _STATE.watch is not None:
            _STATE.watch.applied(op)
            made = tuple([symbol(t) for t in types])
        else:
            made = Step(cls, list(given), Tree(), dict(op.attributes)).symbols(types)
        return made[0] if len(made) == 1 else made

    def called(self, module: Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of a module on symbols, noted as one step."""
        if _STATE.watch is not None:
            return _STATE.watch.called(module, args, kwargs)
        with watching(Watch(), module):
            found = module.entered(args, kwargs)
        operands, tree = flatten((tuple(args), dict(kwargs)), is_leaf)
        results, shape = flatten(found, _is_symbol)
        made = Step(module, operands, tree, {}).symbols([r.type for r in results])
        return unflatten(shape, made)

    def __repr__(self) -> str:
        return f"Symbol({self.name + ': ' if self.name else ''}{self.type})"


def symbol(type: TensorType, step: Step | None = None, index: int = 0, name: str = "") -> Symbol:
    """A symbol of this type."""
    made = Symbol.__new__(Symbol)
    made.type, made.value = type, Value(type, None, 0)
    made.trace = made.node = made.grad = None
    made.index, made.requires_grad = index, False
    made.step, made.name = step, name
    return made


def _is_symbol(x: Any) -> bool:
    return isinstance(x, Symbol)


class Step:
    """A module or an op on operands: symbols, tensors, numbers."""

    def __init__(
        self, call: Module | type[Op], operands: list[Any], tree: Tree, attrs: dict[str, Any]
    ) -> None:
        self.call, self.operands, self.tree, self.attrs = call, operands, tree, attrs
        self.made: tuple[Symbol, ...] = ()

    def symbols(self, types: Sequence[TensorType]) -> tuple[Symbol, ...]:
        """What it makes."""
        self.made = tuple([symbol(t, self, k) for k, t in enumerate(types)])
        return self.made


# ------------------------------------------------------------ looking at modules without values


class Watch:
    """Sees what modules do with symbols while only types are wanted."""

    def applied(self, op: Op) -> None:
        """An op."""

    def called(self, module: Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A module; gives what it gives."""
        return module.entered(args, kwargs)


class _State(threading.local):
    """What this thread does with symbols: notes steps (None), or only watches."""

    watch: Watch | None = None


_STATE = _State()


@contextmanager
def watching(watch: Watch, module: Module) -> Iterator[None]:
    """Inside, `module` runs on symbols for their types alone: in evaluation mode, and it leaves
    buffers and the random stream as they were."""
    outer, _STATE.watch = _STATE.watch, watch
    modules = list(module.modules())
    modes = [m.training for m in modules]
    held = [dict(m._buffers) for m in modules]
    stream = default_stream.state()
    try:
        for m in modules:
            m.training = False
        yield
    finally:
        _STATE.watch = outer
        default_stream.set_state(stream)
        for m, mode, buffers in zip(modules, modes, held, strict=True):
            m.training = mode
            m._buffers.update(buffers)


# ------------------------------------------------------------ inputs and networks


def Input(
    shape: Sequence[Any] = (), batch: Any = "N", dtype: Any = "f32", name: str = ""
) -> Symbol:
    """A symbol for an input [batch, *shape]; `batch` None is none, extents may be names."""
    full = tuple(shape) if batch is None else (batch, *shape)
    return symbol(Spec(full, dtype).type, name=name)


class Model(Network):
    """The network from input symbols to output symbols (one, or any containers of them).

    Modules on the way become submodules, called `linear`, `linear_1`, ... after their classes, or
    as `names` says; one that is called twice is shared.  Errors: E0645 where an output needs a
    symbol that is not among the inputs, or a call has other inputs.
    """

    def __init__(
        self, inputs: Any, outputs: Any, names: Mapping[str, Module] | None = None
    ) -> None:
        super().__init__()
        given, _ = flatten(inputs, is_leaf)
        wanted, results = flatten(outputs, is_leaf)
        for x in (*given, *wanted):
            if not isinstance(x, Symbol):
                raise Error("E0645", f"a {type(x).__name__} is no network symbol", where=here(),
                            hint="nn.Input(shape), and what layers make of it")  # fmt: skip
        self._called: dict[int, str] = {}
        for name, module in (names or {}).items():
            self.add_module(name, module)
            self._called[id(module)] = name
        slots = {id(x): k for k, x in enumerate(given)}
        entries = [self._entry(step, slots) for step in _in_order(wanted, given)]
        labels = [x.name or f"input {k}" for k, x in enumerate(given)]
        self.plan([x.type for x in given], labels, entries, [slots[id(x)] for x in wanted], results)
        specs = tuple([Spec(x.type.shape, x.type.dtype) for x in given])
        object.__setattr__(self, "_example", specs)

    def _entry(self, step: Step, slots: dict[int, int]) -> Entry:
        """A step by slots and names; its results get the next slots."""
        operands = tuple([self._operand(x, slots) for x in step.operands])
        first = len(slots)
        for k, x in enumerate(step.made):
            slots[id(x)] = first + k
        call = self._name(step.call) if isinstance(step.call, Module) else step.call
        return Entry(call, operands, step.tree, step.attrs, first, len(step.made))

    def _operand(self, x: Any, slots: dict[int, int]) -> Any:
        if isinstance(x, Symbol):
            return Slot(slots[id(x)])
        if isinstance(x, Parameter):
            name = self._called.get(id(x)) or f"parameter_{len(self._parameters)}"
            self._called[id(x)] = name
            self.register_parameter(name, x)
            return Held(name)
        return x

    def _name(self, module: Module) -> str:
        """The name of a submodule, from its class where it has none yet."""
        known = self._called.get(id(module))
        if known is None:
            base = known = type(module).__name__.lower()
            count = 0
            while known in self._modules or hasattr(type(self), known):
                count += 1
                known = f"{base}_{count}"
            self.add_module(known, module)
            self._called[id(module)] = known
        return known


def _in_order(wanted: Sequence[Symbol], given: Sequence[Symbol]) -> list[Step]:
    """The steps from the inputs to the outputs, each behind what it needs."""
    inputs = {id(x) for x in given}
    found: list[Step] = []
    done: set[int] = set()
    pending: list[tuple[Symbol, bool]] = [(x, False) for x in reversed(wanted)]
    while pending:
        x, ready = pending.pop()
        if id(x) in inputs or id(x.step) in done:
            continue
        if x.step is None:
            raise Error("E0645", "an output needs an input that the network is not given",
                        where=here(), details=(f"missing: {x!r}",))  # fmt: skip
        if ready:
            done.add(id(x.step))
            found.append(x.step)
            continue
        pending.append((x, True))
        pending += [(o, False) for o in reversed(x.step.operands) if isinstance(o, Symbol)]
    return found


__all__ = ["Input", "Model", "Symbol"]
