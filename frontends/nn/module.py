"""Modules: what has parameters, buffers and submodules, named as torch names them.

May import: ir, its siblings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from ...ir.core import Array
from ...ir.errors import Error
from ...ir.types import DType
from .dispatch import STATE, Base, as_array, as_tensor, here, leaf
from .dtypes import as_dtype
from .saving import save
from .specs import described
from .tensor import Holder, Parameter, Tensor, as_buffer

_TABLES = ("_parameters", "_buffers", "_modules")


class Module(Holder):
    """Base of layers and networks.  Write `__init__` (calling super's first) and `forward`.

    Parameters, modules and, after `register_buffer`, buffers are found where they are attributes;
    calling the module runs `forward`.
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _transient: set[str]
    _example: tuple[Any, ...] | None

    def __init__(self) -> None:
        for name in _TABLES:
            object.__setattr__(self, name, {})
        object.__setattr__(self, "_transient", set())
        object.__setattr__(self, "training", True)
        object.__setattr__(self, "_example", None)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; subclasses write it."""
        raise Error(
            "E0620", f"{type(self).__name__} has no forward method", where=here(),
            hint="def forward(self, x): ...",
        )  # fmt: skip

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if "_parameters" not in self.__dict__:
            raise self._unprepared()
        for x in (*args, *kwargs.values()):
            if _foreign(x):
                args = tuple([_taken(a) for a in args])
                kwargs = {name: _taken(a) for name, a in kwargs.items()}
            elif isinstance(x, Base) and x.symbolic:
                return x.called(self, args, kwargs)  # type: ignore[attr-defined]
        if self._example is None and not kwargs:
            object.__setattr__(self, "_example", described(args))
        return self.entered(args, kwargs)

    def entered(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """`forward`, with this module among those that run now."""
        calls = STATE.calls
        calls.append(self)
        try:
            return self.forward(*args, **kwargs)
        finally:
            calls.pop()

    def path(self) -> str:
        """The dotted name in the network that runs now; empty for the outermost, or outside."""
        if not STATE.calls:
            return ""
        return next((name for name, m in STATE.calls[0].named_modules() if m is self), "")

    # Attributes ----------------------------------------------------------------------------------

    def _unprepared(self) -> Error:
        name = type(self).__name__
        return Error(
            "E0620", f"{name}.__init__ has not called super().__init__()", where=here(),
            hint="call it before the first layer or parameter is assigned",
        )  # fmt: skip

    def __setattr__(self, name: str, value: Any) -> None:
        tables = self.__dict__
        if "_parameters" not in tables:
            if isinstance(value, (Parameter, Module)):
                raise self._unprepared()
            object.__setattr__(self, name, value)
        elif isinstance(value, Parameter):
            self._place("_parameters", name, value)
        elif isinstance(value, Module):
            self._place("_modules", name, value)
        elif name in tables["_buffers"]:
            self._set_buffer(name, value)
        elif name in tables["_parameters"]:
            self._set_parameter(name, value)
        elif name in tables["_modules"] and value is None:
            tables["_modules"][name] = None
        else:
            if name in tables["_modules"]:
                del tables["_modules"][name]
            object.__setattr__(self, name, value)

    def _place(self, table: str, name: str, value: Any) -> None:
        for other in _TABLES:
            if other != table:
                self.__dict__[other].pop(name, None)
        self.__dict__.pop(name, None)
        self.__dict__[table][name] = value

    def _set_parameter(self, name: str, value: Any) -> None:
        if value is None:
            self._parameters[name] = None
            return
        raise Error(
            "E0620", f"'{name}' of {type(self).__name__} is a parameter, and a "
            f"{type(value).__name__} is none", where=here(),
            hint="nn.Parameter(data) replaces it, .assign(data) gives it new values",
        )  # fmt: skip

    def _set_buffer(self, name: str, value: Any) -> None:
        """A new value of a buffer; in a trace it becomes a state output."""
        if STATE.trace is not None:
            STATE.trace.note(self._buffers, name)
        self._buffers[name] = None if value is None else as_buffer(value)

    def __getattr__(self, name: str) -> Any:
        tables = self.__dict__
        if "_parameters" not in tables:
            if name.startswith("__"):
                raise AttributeError(name)
            raise self._unprepared()
        for table in _TABLES:
            if name in tables[table]:
                return tables[table][name]
        known = [n for table in _TABLES for n in tables[table]]
        raise AttributeError(
            f"{type(self).__name__} has no attribute '{name}'"
            + (f" (it has {', '.join(known)})" if known else "")
        )

    def __delattr__(self, name: str) -> None:
        for table in _TABLES:
            if name in self.__dict__.get(table, ()):
                del self.__dict__[table][name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *[n for t in _TABLES for n in self.__dict__.get(t, ())]})

    def register_buffer(self, name: str, value: Any, persistent: bool = True) -> None:
        """State that is no parameter; it is in the state dict unless `persistent` is false."""
        if "_parameters" not in self.__dict__:
            raise self._unprepared()
        self._buffers[name] = None if value is None else as_buffer(value)
        (self._transient.discard if persistent else self._transient.add)(name)

    def register_parameter(self, name: str, value: Parameter | None) -> None:
        """A parameter, or the place of one that is absent."""
        if "_parameters" not in self.__dict__:
            raise self._unprepared()
        self._parameters[name] = value

    def add_module(self, name: str, module: Module | None) -> None:
        """A submodule under a name that need be no identifier."""
        if "_parameters" not in self.__dict__:
            raise self._unprepared()
        self._modules[name] = module

    # What it holds -------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct submodules."""
        return iter([(n, m) for n, m in self._modules.items() if m is not None])

    def children(self) -> Iterator[Module]:
        """The direct submodules."""
        return iter([m for _, m in self.named_children()])

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once, by dotted names."""
        yield from self._walk(prefix, set())

    def _walk(self, prefix: str, seen: set[int] | None) -> Iterator[tuple[str, Module]]:
        if seen is not None:
            if id(self) in seen:
                return
            seen.add(id(self))
        yield prefix, self
        for name, module in self.named_children():
            yield from module._walk(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return iter([m for _, m in self.named_modules()])

    def get_submodule(self, path: str) -> Module:
        """The module of a dotted name."""
        module: Module = self
        for part in path.split(".") if path else ():
            found = module._modules.get(part)
            if found is None:
                raise AttributeError(f"{type(module).__name__} has no module '{part}'")
            module = found
        return module

    def _named(self, table: str, prefix: str, seen: set[int] | None) -> Iterator[tuple[str, Any]]:
        """Tensors of a table in all modules; each once where `seen` is a set."""
        for path, module in self._walk(prefix, None if seen is None else set()):
            for name, t in module.__dict__[table].items():
                if t is None or (seen is not None and id(t) in seen):
                    continue
                if seen is not None:
                    seen.add(id(t))
                yield (f"{path}.{name}" if path else name), t

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """The parameters by dotted names, one that is tied under its first name alone."""
        return self._named("_parameters", prefix, set())

    def parameters(self) -> Iterator[Parameter]:
        """The parameters, each once."""
        return iter([p for _, p in self.named_parameters()])

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """The buffers by dotted names, each once."""
        return self._named("_buffers", prefix, set())

    def buffers(self) -> Iterator[Tensor]:
        """The buffers, each once."""
        return iter([b for _, b in self.named_buffers()])

    # State ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """Copies of parameters and persistent buffers by torch's names (tied ones under each)."""
        return {name: np.array(t.array) for name, t in self._state()}

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        for path, module in self._walk("", None):
            for table in ("_parameters", "_buffers"):
                for name, t in module.__dict__[table].items():
                    if t is not None and name not in (
                        module._transient if table == "_buffers" else ()
                    ):
                        yield (f"{path}.{name}" if path else name), t

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Take the values of arrays or torch tensors by name; nothing changes where it fails.

        E0621 lists names that are missing or unexpected (unless not `strict`) and shapes that
        differ.
        """
        mine = dict(self._state())
        given = {name: as_array(value) for name, value in state.items()}
        missing = [f"missing: {n}" for n in mine if n not in given] if strict else []
        unknown = [f"unexpected: {n}" for n in given if n not in mine] if strict else []
        unequal = [
            f"{n}: expected {list(mine[n].array.shape)}, found {list(a.shape)}"
            for n, a in given.items()
            if n in mine and mine[n].array.shape != a.shape
        ]
        wrong = [*missing, *unknown, *unequal]
        if wrong:
            more = [f"and {len(wrong) - 20} more"] if len(wrong) > 20 else []
            raise Error(
                "E0621",
                f"the state does not fit {type(self).__name__}",
                details=[*wrong[:20], *more],
                hint="strict=False takes what fits by name",
            )
        for name, array in given.items():
            if name in mine:
                t = mine[name]
                t.array = np.array(array, t.array.dtype)

    def train(self, mode: bool = True) -> Self:
        """Training mode (dropout drops, statistics run) for this module and all below."""
        for module in self.modules():
            object.__setattr__(module, "training", mode)
        return self

    def eval(self) -> Self:
        """Evaluation mode for this module and all below."""
        return self.train(False)

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call the function with every module, children first."""
        for module in self.children():
            module.apply(function)
        function(self)
        return self

    def requires_grad_(self, on: bool = True) -> Self:
        """Whether gradients reach the parameters."""
        for p in self.parameters():
            p.requires_grad = on
        return self

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.parameters():
            p.grad = None

    def to(self, dtype: Any) -> Self:
        """Floating parameters and buffers in another element type."""
        want: DType = as_dtype(dtype)
        for _, t in [*self.named_parameters(), *self.named_buffers()]:
            if t.type.dtype.is_float and t.type.dtype is not want:
                made = leaf(t.array.astype(want.np))
                t.array, t.type, t.grad = made.array, made.type, None
        return self

    def double(self) -> Self:
        """Floating parameters and buffers as f64."""
        return self.to("f64")

    @property
    def example(self) -> tuple[Any, ...] | None:
        """Descriptions of the inputs of the first call; None before it."""
        return self._example

    def save(self, path: str | os.PathLike[str], example: Any = None) -> None:
        """Write the program in evaluation mode (.irc, .ir) or the weights alone (.safetensors).

        `example` is one input or a tuple of several; without it those of the first call serve, with
        an open batch where the network allows it.  Errors: E0622, E0626, E0264.
        """
        save(self, path, example)

    # Text ----------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What the module's line says beside its class."""
        return ""

    def __repr__(self) -> str:
        name = type(self).__name__
        lines = [
            f"  ({key}): " + repr(module).replace("\n", "\n  ")
            for key, module in self.__dict__.get("_modules", {}).items()
        ]
        if not lines:
            return f"{name}({self.extra_repr()})"
        head = [f"  {self.extra_repr()}"] if self.extra_repr() else []
        return "\n".join([f"{name}(", *head, *lines, ")"])


def _taken(x: Any) -> Any:
    """An argument, arrays (of other libraries too) as tensors."""
    return as_tensor(np.asarray(x)) if _foreign(x) else x


def _foreign(x: Any) -> bool:
    """Whether it is an array, of numpy or of another library."""
    if isinstance(x, (Base, np.generic)):
        return False
    return isinstance(x, np.ndarray) or (hasattr(x, "__array__") and hasattr(x, "shape"))


__all__ = ["Module"]
