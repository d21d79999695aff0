"""From a Python function and example inputs to a module of IR: `trace`.

The program is `main(state..., inputs...) -> (state'..., outputs...)`.  May import: ir, its
siblings.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...ir.core import Array, Block, Builder, Loc, Value
from ...ir.errors import Error
from ...ir.interpret import run
from ...ir.ops.core import Const, Func, Return, zeros
from ...ir.ops.core import Module as Program
from ...ir.verify import verify
from ...passes.autodiff.activity import differentiable
from ...passes.autodiff.pullback import pullback
from .dispatch import PACKAGE, Base, as_tensor, here, leaf, line_of
from .random import default as default_stream
from .specs import Spec, is_input, type_of
from .tensor import Holder, Parameter, Tensor, as_buffer
from .tracing import Trace, tracing
from .trees import Tree, flatten, paths, unflatten

if TYPE_CHECKING:
    from .module import Module


@dataclass(frozen=True)
class Place:
    """Where a module or generator holds a tensor, and its name."""

    name: str
    table: Any = None
    key: str = ""


@dataclass(frozen=True)
class State:
    """A state input: the tensor whose values it takes is the one at `table[key]`.

    `result` is the index of the result that becomes its next value (-1: none).  `first` is the
    tensor that was there when traced, which serves where no module holds it.
    """

    name: str
    first: Tensor
    table: Any = None
    key: str = ""
    result: int = -1

    @property
    def tensor(self) -> Tensor:
        """The parameter or buffer as it is now."""
        return self.first if self.table is None else self.table[self.key]

    def array(self) -> Array:
        """Its values; a copy where the program puts the next ones in their place."""
        return np.array(self.tensor.array) if self.result >= 0 else self.tensor.array

    def assign(self, array: Array) -> None:
        """Take the next value."""
        if self.table is None or isinstance(self.first, Parameter):
            self.tensor.array = array
            return
        made = as_buffer(leaf(array))
        made.label = getattr(self.table[self.key], "label", "")
        self.table[self.key] = made


@dataclass(frozen=True)
class Traced:
    """A traced function: the program, what its state inputs are, how arguments are arranged."""

    module: Program
    states: tuple[State, ...]
    inputs: tuple[str, ...]
    arguments: Tree
    results: Tree

    @property
    def parameters(self) -> list[str]:
        """The names of the state inputs that are parameters."""
        return [s.name for s in self.states if isinstance(s.first, Parameter)]

    @property
    def buffers(self) -> list[str]:
        """The names of the state inputs that the function assigns."""
        return [s.name for s in self.states if s.result >= 0]

    def arrays(self, args: Sequence[Any]) -> list[Array]:
        """The arguments of the program: state, then inputs.  E0622 where containers differ."""
        leaves, tree = flatten(tuple(args))
        if tree != self.arguments:
            raise Error(
                "E0622", "the arguments are arranged otherwise than when traced", where=here()
            )
        return self.given(leaves)

    def given(self, leaves: Sequence[Any]) -> list[Array]:
        """The arguments of the program for inputs in order."""
        state = [s.array() for s in self.states]
        return state + [x if type(x) is np.ndarray else as_tensor(x).array for x in leaves]

    def current(self) -> bool:
        """Whether the state still has the types that the program was made for."""
        types = [v.type for v in self.module.main.args[: len(self.states)]]
        return all(
            [s.tensor is not None and s.tensor.type is t for s, t in zip(self.states, types)]
        )

    @property
    def updated(self) -> int:
        """How many of the program's results, the first ones, are next values of state."""
        return sum([s.result >= 0 for s in self.states])

    def finish(self, found: Sequence[Array]) -> Any:
        """The function's result from those of the program; buffers take their new values."""
        return unflatten(self.results, self.taken(found))

    def taken(self, found: Sequence[Array]) -> list[Tensor]:
        """The program's results that are the function's, in order; buffers take theirs."""
        for state in self.states:
            if state.result >= 0:
                state.assign(np.asarray(found[state.result]))
        return [leaf(np.asarray(x)) for x in found[self.updated :]]

    def __call__(self, *args: Any) -> Any:
        """Run by the reference interpreter."""
        return self.finish(run(self.module, self.arrays(args)))

    def frozen(self) -> Program:
        """The program with its state as constants, and without state results."""
        made = self.module.clone()
        func = made.main
        b = Builder(func.body, func.body.first)
        count = len(self.states)
        for value, state in zip(func.args[:count], self.states, strict=True):
            array = np.array(state.tensor.array)
            value.replace_by(b.insert(Const(array, loc=Loc(state.name))).result)
        func.body.args = func.args[count:]
        for index, value in enumerate(func.args):
            value.index = index
        last = func.body.last
        assert last is not None
        gone = self.updated
        last.set_operands(last.operands[gone:])
        func.set_attr("inputs", self.inputs)
        func.set_attr("outputs", func.outputs[gone:])
        func.set_attr("state", ())
        return made


def trace(function: Callable[..., Any], *examples: Any, name: str = "") -> Traced:
    """The program that a function (or module) is on inputs like the examples.

    Examples are tensors, arrays, numbers or `nn.Spec(("N", 784))`; tuples, lists and dicts of them.
    Bools, strings and None are part of the program.  Errors: E0617 where a value is needed, E0622.
    """
    leaves, arguments = flatten(tuple(examples), is_input)
    asked = _input_names(function, examples, leaves)
    trace = Trace(state_places(function, examples))
    with tracing(trace):
        values = [trace.block.add_arg(type_of(x)) for x in leaves]
        try:
            given = unflatten(arguments, [trace.tensor(v) for v in values])
            found = function(*given)
            outputs, results = flatten(found)
            returned = [trace.value(as_tensor(x)) for x in outputs]
        except TypeError as error:
            if "Dim" not in str(error):
                raise
            raise _of_extent(error) from error
        finally:
            changes = trace.restore()
        states, replaced = _states(trace, changes)
    used = {s.name for s in states}
    names = [_free(n, used) for n in asked]
    func = _function(trace, states, values, names, [*replaced, *returned], paths(found, "output"))
    module = Program.make([func], name or getattr(function, "__name__", type(function).__name__))
    verify(module)
    return Traced(module, tuple(states), tuple(names), arguments, results)


def _of_extent(error: TypeError) -> Error:
    """E0618 for Python that wants a number where an extent is symbolic."""
    return Error(
        "E0618",
        "a number is needed where an extent of an input is symbolic",
        where=line_of(error),
        details=(str(error),),
        hint="nn.scan runs over an axis; or trace with a number for that extent",
    )


def backward_of(program: Program, wrt: Sequence[int], skip: int = 0) -> Program:
    """The program that gives the gradients of the arguments `wrt`: it takes those of `program` and
    cotangents of the floating results (the first `skip` aside), and computes all once more.
    """
    made = program.clone()
    func = made.main
    last = func.body.last
    assert last is not None
    results = [v for v in last.operands[skip:] if differentiable(v)]
    last.erase()
    sources = [func.args[k] for k in wrt]
    count = len(func.args)
    given = [func.body.add_arg(v.type, f"cotangent.{k}") for k, v in enumerate(results)]
    b = Builder(func.body)
    found = pullback(b, results, given, sources)
    pairs = zip(found, sources, strict=True)
    b.emit(Return, *[zeros(b, v.tensor) if g is None else g for g, v in pairs])
    func.set_attr("inputs", (*func.inputs[:count], *[v.name or "" for v in given]))
    func.set_attr("outputs", tuple([f"gradient.{k}" for k in wrt]))
    func.set_attr("state", ())
    verify(made)
    return made


def _states(trace: Trace, changes: Sequence[Any]) -> tuple[list[State], list[Value]]:
    """The state inputs in the modules' order, and the values that replace some."""
    replaced: list[Value] = []
    places: dict[int, Any] = {}
    for change in changes:
        if change.before is None or not change.before.is_state:
            raise Error("E0622", f"the state '{change.name}' has no value before the trace")
        trace.state(change.before)
        if change.after is not None and change.after.type is not change.before.type:
            raise Error(
                "E0622", f"the buffer '{change.name}' changes its type in the trace",
                details=(f"from {change.before.type}", f"to {change.after.type}"),
            )  # fmt: skip
        places[id(change.before)] = change
    order = {key: k for k, key in enumerate(trace.names)}
    held = sorted([t for t, _ in trace.states.values()], key=lambda t: order.get(id(t), len(order)))
    found: list[State] = []
    used: set[str] = set()
    for t in held:
        place = trace.names.get(id(t)) or Place(getattr(t, "label", "") or "parameter")
        change = places.get(id(t))
        result = -1
        if change is not None:
            if change.table is not trace.assigned:
                place = replace(place, table=change.table, key=change.name)
            result = len(replaced)
            replaced.append(trace.value(change.after))
        found.append(State(_free(place.name, used), t, place.table, place.key, result))  # type: ignore[arg-type]
    return found, replaced


def _free(name: str, used: set[str]) -> str:
    """The name, with a number where it is taken."""
    found, count = name, 1
    while found in used:
        found, count = f"{name}_{count}", count + 1
    used.add(found)
    return found


def _function(
    trace: Trace,
    states: Sequence[State],
    inputs: Sequence[Value],
    names: Sequence[str],
    returned: Sequence[Value],
    labels: Sequence[str],
) -> Func:
    """The block as a function, its arguments in order."""
    held = [trace.states[id(s.first)][1] for s in states]
    block: Block = trace.block
    block.args = (*held, *inputs)
    for index, value in enumerate(block.args):
        value.index = index
    taken = [*[s.name for s in states], *names]
    for value, label in zip(block.args, taken, strict=True):
        value.name = label
    Builder(block).emit(Return, *[trace.current(v) for v in returned])
    updated = [s for s in states if s.result >= 0]
    used = set(taken)
    outputs = [f"{s.name}.next" for s in updated] + [_free(label, used) for label in labels]
    pairs = [(k, s.result) for k, s in enumerate(states) if s.result >= 0]
    return Func(
        sym="main", inputs=tuple(taken), outputs=tuple(outputs), state=tuple(pairs), regions=[block]
    )


def _input_names(function: Any, examples: Sequence[Any], leaves: Sequence[Any]) -> list[str]:
    """Names of the inputs: those given, else of the parameters, with keys behind."""
    known = _parameter_names(function)
    found: list[str] = []
    for k, example in enumerate(examples):
        found += paths(example, known[k] if k < len(known) else f"x{k}", is_input)
    return [x.name if isinstance(x, Spec) and x.name else n for x, n in zip(leaves, found)]


def _parameter_names(function: Any) -> list[str]:
    """The positional parameters of a function, or of a module's `forward`."""
    bound = isinstance(function, (Holder, types.MethodType))
    if isinstance(function, Holder):
        function = getattr(type(function), "forward", None)
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    known = list(code.co_varnames[: code.co_argcount]) if code is not None else []
    return known[1:] if bound else known


# Which modules a function uses --------------------------------------------------------------------


def state_places(function: Any, args: Sequence[Any] = ()) -> dict[int, Place]:
    """Where the parameters and buffers are that a call refers to, by identity; and the random
    stream's.

    One module alone gives its own names, of several each has its name in front.
    """
    found: dict[int, Place] = {}
    held = list(_held(function, args))
    modules = [(name, cast("Module", x)) for name, x in held if isinstance(x, Holder)]
    for kind in ("_parameters", "_buffers"):
        for prefix, root in modules:
            for path, module in root.named_modules("" if len(modules) == 1 else prefix):
                table = module.__dict__[kind]
                for key, t in table.items():
                    name = f"{path}.{key}" if path else key
                    found.setdefault(id(t), Place(name, table, key))
    for key, t in default_stream.table.items():
        found.setdefault(id(t), Place(f"{default_stream.name}.{key}", default_stream.table, key))
    for name, x in held:
        if isinstance(x, Base):
            found.setdefault(id(x), Place(name))
    return found


def modules_of(function: Any, args: Sequence[Any] = ()) -> Iterator[tuple[str, Module]]:
    """The modules that a call refers to: the function itself, its object, closure and globals, and
    those among the arguments.
    """
    return iter([(n, cast("Module", x)) for n, x in _held(function, args) if isinstance(x, Holder)])


def _held(function: Any, args: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Modules, and parameters and buffers that are in none of them."""
    seen: set[int] = set()
    found: set[int] = set()
    names = _parameter_names(function)
    pending: list[tuple[str, Any]] = [
        (names[k] if k < len(names) else f"x{k}", a) for k, a in enumerate(args)
    ]
    pending = [("", function), *pending][::-1]
    while pending:
        name, x = pending.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, Holder):
            if id(x) not in found:
                found.update([id(m) for m in cast("Module", x).modules()])
                yield name, x
        elif isinstance(x, Base):
            yield name, x
        else:
            pending += reversed(_references(name, x))


def _references(name: str, x: Any) -> list[tuple[str, Any]]:
    """What a callable or container refers to."""
    if isinstance(x, functools.partial):
        return [(name, x.func), *[(name, a) for a in x.args], *x.keywords.items()]
    if isinstance(x, types.MethodType):
        return [(name, x.__self__), (name, x.__func__)]
    if isinstance(x, (list, tuple)):
        return [(f"{name}{k}", e) for k, e in enumerate(x) if _refers(e)]
    if isinstance(x, dict):
        return [(f"{name}.{k}", e) for k, e in x.items() if _refers(e)]
    if isinstance(x, types.FunctionType):
        return _of_function(x)
    if isinstance(x, type) or type(x).__module__ == "builtins":
        return []
    return [(key, e) for key, e in getattr(x, "__dict__", {}).items() if _refers(e)]


def _refers(x: Any) -> bool:
    """Whether it may lead to a module."""
    return callable(x) or isinstance(x, (list, tuple, dict)) or getattr(x, "is_state", False)


def _of_function(x: types.FunctionType) -> list[tuple[str, Any]]:
    """Closure, defaults and, of the user's functions, globals."""
    code = x.__code__
    found: list[tuple[str, Any]] = []
    for free, cell in zip(code.co_freevars, x.__closure__ or ()):
        try:
            found.append((free, cell.cell_contents))
        except ValueError:  # not bound yet
            continue
    found += [("default", d) for d in x.__defaults__ or ()]
    if not code.co_filename.startswith(PACKAGE) or "/tests/" in code.co_filename:
        for name in _global_names(code):
            if name in x.__globals__:
                found.append((name, x.__globals__[name]))
    return [(n, v) for n, v in found if _refers(v)]


def _global_names(code: types.CodeType) -> list[str]:
    """Names that the code, or a function defined in it, may look up."""
    found = list(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            found += _global_names(const)
    return found


__all__ = ["Place", "State", "Traced", "backward_of", "modules_of", "trace"]
