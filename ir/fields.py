"""What an op class declares: operands with their kinds, attributes, regions, samples.

Each is a descriptor that reads its part of an op's tuples; `Spec` gathers those of one class.
Imports: types, dims, errors (the core imports this module).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from .errors import Error
from .types import BufferType, DType, Shape, TensorType, Type, element

if TYPE_CHECKING:
    from .core import Block, Op, Value


@dataclass(frozen=True, slots=True)
class Kind:
    """A set of element types that an operand accepts."""

    name: str
    kinds: frozenset[str]

    def accepts(self, type: Type | None) -> bool:
        if isinstance(type, (TensorType, BufferType, DType)) or hasattr(type, "dtype"):
            return element(type).kind in self.kinds  # type: ignore[arg-type]
        return "other" in self.kinds


Float = Kind("float", frozenset({"float"}))
Int = Kind("integer", frozenset({"int", "uint"}))
Bool = Kind("bool", frozenset({"bool"}))
Real = Kind("float or integer", frozenset({"float", "int", "uint"}))
Number = Kind("number", frozenset({"float", "int", "uint", "complex"}))
Plain = Kind("number or bool", frozenset({"float", "int", "uint", "complex", "bool"}))
Any_ = Kind("any type", frozenset({"float", "int", "uint", "complex", "bool", "string", "other"}))


class operand:
    """Declares one required operand of the given kind."""

    optional = variadic = False

    def __init__(self, kind: Kind = Any_, doc: str = "") -> None:
        self.kind, self.doc, self.index = kind, doc, -1
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, op: None, owner: type) -> Self: ...
    @overload
    def __get__(self, op: Op, owner: type) -> Value: ...
    def __get__(self, op: Op | None, owner: type) -> Any:
        return self if op is None else op.operands[self.index]


class optional(operand):
    """Declares an operand that may be absent (None)."""

    optional = True

    def __get__(self, op: Op | None, owner: type) -> Any:
        if op is None:
            return self
        return op.operands[self.index] if self.index < len(op.operands) else None


class variadic(operand):
    """Declares the last operand as any number of values; reading it gives a tuple."""

    variadic = True

    def __get__(self, op: Op | None, owner: type) -> Any:
        return self if op is None else op.operands[self.index :]


_REQUIRED = object()


class attr:
    """Declares an attribute: a frozen Python value of type `type` (lists become tuples).

    An `implied` attribute is the type of the result (or the tuple of all result types), so the text
    prints it only there.
    """

    def __init__(
        self, type: Any, default: Any = _REQUIRED, doc: str = "", implied: bool = False
    ) -> None:
        self.type, self.default, self.doc, self.index = type, default, doc, -1
        self.implied = implied
        self.name = ""

    @property
    def required(self) -> bool:
        return self.default is _REQUIRED

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, op: Op | None, owner: type) -> Any:
        return self if op is None else op.attrs[self.index]


class region:
    """Declares a region: one block; the op's docstring states its arguments and what it yields."""

    def __init__(self, doc: str = "") -> None:
        self.doc, self.index = doc, -1
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, op: None, owner: type) -> Self: ...
    @overload
    def __get__(self, op: Op, owner: type) -> Block: ...
    def __get__(self, op: Op | None, owner: type) -> Any:
        return self if op is None else op.regions[self.index]


@dataclass(frozen=True, slots=True)
class Sample:
    """Operand shapes, element types and value ranges from which an op's tests are made."""

    shapes: tuple[Shape | None, ...]
    dtypes: tuple[str, ...] = ()
    ranges: tuple[tuple[float, float], ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)


def sample(
    *shapes: Shape | None,
    dtypes: Sequence[str] = (),
    ranges: Sequence[tuple[float, float]] = (),
    **attrs: Any,
) -> Sample:
    """A `Sample`: one shape, dtype (default f32) and range (default -2 to 2) per operand."""
    return Sample(shapes, tuple(dtypes), tuple(ranges), attrs)


def freeze(value: Any) -> Any:
    """Lists to tuples, numpy scalars to Python ones, so that attributes hash and compare."""
    if isinstance(value, (list, tuple)):
        return tuple([freeze(v) for v in value])
    if isinstance(value, np.generic):
        return value.item()
    return value


@dataclass(frozen=True, slots=True)
class Spec:
    """What a class declared: its operands, attributes and regions, in order."""

    operands: tuple[operand, ...]
    attrs: tuple[attr, ...]
    regions: tuple[region, ...]
    attr_index: Mapping[str, int]
    defaults: tuple[Any, ...]
    needs: bool
    """Some attribute has no default."""

    def bind(self, name: str, given: Mapping[str, Any]) -> tuple[Any, ...]:
        """The attribute tuple for keyword arguments; E0210 for an unknown or missing one."""
        values = list(self.defaults)
        for key, value in given.items():
            at = self.attr_index.get(key)
            if at is None:
                known = ", ".join(self.attr_index) or "none"
                raise Error(
                    "E0210", f"{name} has no attribute '{key}'", details=(f"attributes: {known}",)
                )
            kind = type(value)
            values[at] = value if kind is int or kind is str else freeze(value)
        for declared, value in zip(self.attrs, values, strict=True):
            if value is _REQUIRED:
                raise Error("E0210", f"{name} needs the attribute '{declared.name}'")
        return tuple(values)


__all__ = [
    "Any_", "Bool", "Float", "Int", "Kind", "Number", "Plain", "Real", "Sample", "Spec", "attr",
    "freeze", "operand", "optional", "region", "sample", "variadic",
]  # fmt: skip
