"""Modules that hold others: Sequential, lists and dicts of modules and of parameters.

May import: ir, its siblings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from ...ir.errors import Error
from .dispatch import here
from .module import Module
from .tensor import Parameter


class _Listed(Module):
    """A list whose items are called "0", "1", ... ; `_table` says which of the module's tables."""

    _table = "_modules"

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__()
        self.extend(items)

    @property
    def _items(self) -> dict[str, Any]:
        return self.__dict__[self._table]  # type: ignore[no-any-return]

    def append(self, item: Any) -> Self:
        """One more at the end."""
        setattr(self, str(len(self._items)), item)
        return self

    def extend(self, items: Iterable[Any]) -> Self:
        """More at the end."""
        for item in items:
            self.append(item)
        return self

    def insert(self, index: int, item: Any) -> None:
        """One more before that place."""
        kept = list(self._items.values())
        kept.insert(index, item)
        self._items.clear()
        self.extend(kept)

    def _at(self, index: int) -> str:
        count = len(self._items)
        if not -count <= index < count:
            raise IndexError(f"item {index} of {count}")
        return str(index % count)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self._items.values())[index])
        return self._items[self._at(index)]

    def __setitem__(self, index: int, item: Any) -> None:
        setattr(self, self._at(index), item)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._items.values()))

    def __bool__(self) -> bool:
        return True


class ModuleList(_Listed):
    """A list of modules."""


class ParameterList(_Listed):
    """A list of parameters; arrays and tensors become parameters."""

    _table = "_parameters"

    def append(self, item: Any) -> Self:
        """One more at the end."""
        return super().append(item if isinstance(item, Parameter) else Parameter(item))


class Sequential(_Listed):
    """Modules one after the other: `Sequential(a, b)`, a list, or a dict of named ones."""

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, module)
        elif len(modules) == 1 and isinstance(modules[0], (list, tuple)):
            self.extend(modules[0])
        else:
            self.extend(modules)

    def append(self, item: Any) -> Self:
        """One more at the end; a function that is no module is called as it is."""
        if not callable(item) or isinstance(item, type):
            name = item.__name__ if isinstance(item, type) else None
            raise Error(
                "E0620", f"Sequential: part {len(self)} is no module: {item!r}"[:200], where=here(),
                hint=None if name is None else f"nn.{name}(...), an object",
            )  # fmt: skip
        return super().append(item if isinstance(item, Module) else Lambda(item))

    def _at(self, index: int) -> str:
        names = list(self._items)
        if not -len(names) <= index < len(names):
            raise IndexError(f"item {index} of {len(names)}")
        return names[index]

    def forward(self, x: Any) -> Any:
        """Each module on what the one before gave."""
        for module in self:
            x = module(x)
        return x


class Lambda(Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        """What the function gives."""
        return self.function(*args)

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


class ModuleDict(Module):
    """A dict of modules."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def update(self, modules: Mapping[str, Module]) -> None:
        """More modules by name."""
        for name, module in modules.items():
            self[name] = module

    def __getitem__(self, name: str) -> Any:
        return self._modules[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self._place("_modules", name, module)

    def __delitem__(self, name: str) -> None:
        del self._modules[name]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._modules))

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def keys(self) -> Iterable[str]:
        """The names."""
        return list(self._modules)

    def values(self) -> Iterable[Any]:
        """The modules."""
        return list(self._modules.values())

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names with modules."""
        return list(self._modules.items())


__all__ = ["Lambda", "ModuleDict", "ModuleList", "ParameterList", "Sequential"]
