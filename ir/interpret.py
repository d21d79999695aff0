"""The reference interpreter: runs tensor-level programs by the ops' `evaluate`; it defines correct.

Symbols of dims get their values from the argument shapes and are substituted in attributes before
an op is evaluated.  Every result is held against its type, which is also the run-time check of
extents that could not be compared when the program was built.
Imports: the core, dims, errors, types, ops/core, interpret_generic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .core import Block, Op, Value
from .dims import Dim, DimLike, coefficient, evaluate, symbols_of
from .errors import Error
from .interpret_generic import run_generic
from .ops.core import Func, Fused, Generic, Module
from .types import DType, Shape, TensorType, Type

Observer = Callable[[Value, Any], None]


def run(
    program: Module | Func,
    inputs: Sequence[Any] | Mapping[str, Any],
    observe: Observer | None = None,
) -> list[Any]:
    """The results of a function (or a module's `main`) on inputs in order or by name.

    `observe` sees every value that an op computes.  Arrays are never written to.  Raises E0501 for
    a missing or unknown input, E0502 where shapes contradict each other, E0503 for a wrong element
    type or rank.
    """
    module = program if isinstance(program, Module) else program.parent_op
    func = program.main if isinstance(program, Module) else program
    interpreter = Interpreter(module if isinstance(module, Module) else None, observe)
    with np.errstate(all="ignore"):
        return interpreter.func(func, order_inputs(func, inputs))


def input_names(func: Func) -> tuple[str, ...]:
    """The names of the parameters: declared, else those of the values, else arg0, arg1 ..."""
    given = func.inputs
    return tuple(
        [given[k] if k < len(given) else v.name or f"arg{k}" for k, v in enumerate(func.args)]
    )


def order_inputs(func: Func, inputs: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
    """The inputs in order of the parameters; E0501 where one is missing or unknown."""
    names = input_names(func)
    if isinstance(inputs, Mapping):
        missing = [n for n in names if n not in inputs]
        unknown = [n for n in inputs if n not in names]
        if missing or unknown:
            said = [f"missing: {', '.join(missing)}"] * bool(missing) + [
                f"unknown: {', '.join(unknown)}"
            ] * bool(unknown)
            raise Error(
                "E0501", f"@{func.sym} takes the inputs {', '.join(names) or 'none'}", details=said
            )
        inputs = [inputs[n] for n in names]
    elif not isinstance(inputs, Sequence) or isinstance(inputs, (str, bytes)):
        raise unordered(inputs, names)
    if len(inputs) != len(names):
        raise Error(
            "E0501",
            f"@{func.sym} takes {len(names)} inputs, {len(inputs)} given",
            details=(f"inputs: {', '.join(names)}",),
        )
    return [as_input(x, v.type, n) for x, v, n in zip(inputs, func.args, names, strict=True)]


def unordered(inputs: object, names: Sequence[str]) -> Error:
    """E0501 for inputs that are neither named nor in order."""
    return Error(
        "E0501",
        f"inputs are a dict by name or a list in order, found {type(inputs).__name__}",
        details=(f"inputs: {', '.join(names) or 'none'}",),
        hint="one array alone: run([x]), or call the executable with it",
    )


def as_input(x: Any, type: Type, name: str) -> Any:
    """`x` as an array of the type's element type; E0503 for an array of another one."""
    if not isinstance(type, (TensorType, DType)):
        return x
    dtype = type if isinstance(type, DType) else type.dtype
    if not isinstance(x, (np.ndarray, np.generic)):
        try:
            return np.asarray(x, dtype.np)
        except (TypeError, ValueError, OverflowError) as error:
            raise Error(
                "E0503", f"input '{name}' is no array of {dtype}", details=(str(error),)
            ) from None
    x = np.asarray(x)
    if x.dtype != dtype.np:
        if dtype.kind == "string" and x.dtype.kind in "US":
            return x.astype(object)
        raise Error(
            "E0503",
            f"input '{name}' has the wrong element type",
            details=(f"expected {type}", f"found {x.dtype}{list(x.shape)}"),
        )
    return x


class Interpreter:
    """Values of one run: `env` holds arrays, `dims` the extents bound so far."""

    def __init__(self, module: Module | None = None, observe: Observer | None = None) -> None:
        self.module = module
        self.observe = observe
        self.env: dict[Value, Any] = {}
        self.dims: dict[str, int] = {}
        self.dying: dict[Block, dict[Op, list[Value]]] = {}

    def func(self, func: Func, arrays: Sequence[Any]) -> list[Any]:
        """Run a function; its dims are its own."""
        outer, self.dims = self.dims, {}
        for name, value, array in zip(input_names(func), func.args, arrays, strict=True):
            self.bind(value.type, array, f"input '{name}'")
        for value, array in zip(func.args, arrays, strict=True):
            self.check(value.type, array, f"input of @{func.sym}")
        results = self.block(func.body, arrays)
        self.dims = outer
        return results

    def call(self, sym: str, arrays: Sequence[Any]) -> list[Any]:
        """Run another function of the module."""
        if self.module is None:
            raise Error("E0211", f"there is no module to look @{sym} up in")
        return self.func(self.module.func(sym), arrays)

    def block(self, block: Block, args: Sequence[Any]) -> list[Any]:
        """Run a region on these arguments, outer values being visible; gives what it yields."""
        env = self.env
        for value, array in zip(block.args, args, strict=True):
            env[value] = array
        dying = self.dying.get(block)
        if dying is None:
            dying = self.dying[block] = _last_uses(block)
        for op in block:
            if op.terminator:
                return [env[v] for v in op.operands]
            self.op(op)
            for value in dying.get(op, ()):
                del env[value]
        return []

    def op(self, op: Op) -> None:
        """Run one op, and hold its results against their types."""
        env = self.env
        results = self.results(op, [env[v] if v is not None else None for v in op.operands])
        for value, array in zip(op.results, results, strict=True):
            if isinstance(value.type, (TensorType, DType)):
                array = np.asarray(array)
            self.bind(value.type, array, op)
            self.check(value.type, array, op)
            env[value] = array
            if self.observe is not None:
                self.observe(value, array)

    def results(self, op: Op, arrays: Sequence[Any]) -> Sequence[Any]:
        """The results of one op on these arrays."""
        if isinstance(op, Fused):
            return self.block(op.body, arrays)
        if isinstance(op, Generic):
            return run_generic(op, arrays, self.dims)
        hook = getattr(op, "interpret", None)
        if hook is not None:
            found = hook(self, *arrays)
        else:
            evaluate = getattr(type(op), "evaluate", None)
            if evaluate is None:
                raise Error("E0504", f"{op.name} has no value at the tensor level", where=op.loc)
            try:
                found = evaluate(*arrays, **self.attributes(op))
            except Error as error:
                error.where = error.where or op.place()
                raise
        return found if isinstance(found, (tuple, list)) and len(op.results) != 1 else (found,)

    def attributes(self, op: Op) -> dict[str, Any]:
        """The attributes by name, with dims replaced by their values."""
        found = op.attributes
        return {name: bound(value, self.dims) for name, value in found.items()} if found else found

    def bind(self, type: Type, array: Any, what: object) -> None:
        """Learn the symbols that the type's shape and the array's decide."""
        if not isinstance(type, TensorType) or type.shape is None or type.is_static:
            return
        if len(type.shape) != array.ndim:
            self.check(type, array, what)
        for extent, found in zip(type.shape, array.shape, strict=True):
            if isinstance(extent, Dim):
                self.solve(extent, found)

    def solve(self, extent: Dim, found: int) -> None:
        """Learn the only unknown symbol of `extent`, where that is a linear equation."""
        unknown = [s for s in extent.symbols if s not in self.dims]
        if len(unknown) != 1:
            return
        parts = coefficient(extent, unknown[0])
        if parts is None:
            return
        slope, rest = [evaluate(e, self.dims) for e in parts]
        if slope and (found - rest) % slope == 0 and (found - rest) // slope >= 0:
            self.dims[unknown[0]] = (found - rest) // slope

    def check(self, type: Type, array: Any, what: object) -> None:
        """Raise E0502 or E0503 unless the array has this type under the dims."""
        if not isinstance(type, (DType, TensorType)):
            return
        dtype = type if isinstance(type, DType) else type.dtype
        shape: Shape = () if isinstance(type, DType) else type.shape
        if array.dtype != dtype.np or (shape is not None and len(shape) != array.ndim):
            raise Error(
                "E0503",
                "an array does not have its type",
                where=_place(what),
                details=(f"expected {type}", f"found {array.dtype}{list(array.shape)}"),
            )
        for extent, found in zip(shape or (), array.shape):
            if extent is not found and self.extent(extent) != found:
                bound_to = ", ".join(
                    [f"{s} = {self.dims[s]}" for s in sorted(symbols_of(extent)) if s in self.dims]
                )
                raise Error(
                    "E0502",
                    "a shape contradicts the program",
                    where=_place(what),
                    details=(
                        f"expected {type}" + (f" where {bound_to}" if bound_to else ""),
                        f"found {list(array.shape)}",
                    ),
                )

    def extent(self, extent: DimLike) -> int:
        """The value of a dim; E0323 for a symbol without one."""
        return extent if type(extent) is int else evaluate(extent, self.dims)


def bound(value: Any, dims: Mapping[str, int]) -> Any:
    """An attribute value with dims replaced by ints (those with all symbols known)."""
    if isinstance(value, Dim):
        return evaluate(value, dims) if all([s in dims for s in value.symbols]) else value
    if type(value) is tuple:
        return tuple([bound(v, dims) for v in value])
    return value


def _place(what: object) -> object:
    return what.place() if isinstance(what, Op) else what


def _used_inside(op: Op) -> Iterator[Value]:
    for inner in op.walk():
        for value in inner.operands:
            if value is not None:
                yield value


def _last_uses(block: Block) -> dict[Op, list[Value]]:
    """The block's own values that nothing needs after each op, so that their memory can go."""
    seen: set[Value] = set()
    dying: dict[Op, list[Value]] = {}
    op = block.last
    while op is not None:
        used = _used_inside(op) if op.regions else iter([v for v in op.operands if v is not None])
        for value in (*op.results, *used):
            if value in seen:
                continue
            seen.add(value)
            home = value.owner if isinstance(value.owner, Block) else value.owner.block
            if home is block and not op.terminator:
                dying.setdefault(op, []).append(value)
        op = op.prev
    return dying


__all__ = ["Interpreter", "Observer", "bound", "input_names", "run", "unordered"]
