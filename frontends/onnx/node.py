"""What a row of the import table sees of an ONNX node: operands, attributes, errors that name it.

A row is `row(n: Node) -> Value | Known | tuple of them`; it reads operands with `n.x(0)` (an IR
value), `n.type(0)`, `n.known(0)` (elements, if they are known), and builds with `n.b`.
Imports: ir, onnx (attributes only).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ...ir.core import Builder, Value
from ...ir.dims import Dim, DimLike
from ...ir.errors import Error, InvalidModelError, UnsupportedError
from ...ir.ops.core import Const
from ...ir.ops.elementwise import constant
from ...ir.types import DType, TensorType
from .item import Array, Item
from .tensors import array_of, sparse_of

if TYPE_CHECKING:
    from .graph import Graph

TEXT_KEPT = 200


@dataclass(frozen=True, slots=True)
class Known:
    """A result whose elements are known: numbers or dim expressions."""

    elements: Array
    dtype: DType


Result = Value | Known | Sequence[Value | Known | None]
Row = Callable[["Node"], Result]


class Node:
    """One node at import: `version` is the opset of its domain, `b` builds at its place."""

    def __init__(
        self, proto: Any, graph: Graph, inputs: Sequence[Item | None], version: int
    ) -> None:
        self.proto = proto
        self.graph = graph
        self.inputs = inputs
        self.version = version
        self.b: Builder = graph.b
        self.op: str = proto.op_type
        self.attributes = graph.attributes_of(proto)
        self.args: Sequence[Value | None] | None = None
        """Stand-ins for the operands while the node is folded."""

    # ---- operands

    def __len__(self) -> int:
        return len(self.inputs)

    def has(self, index: int) -> bool:
        """Operand `index` is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def item(self, index: int) -> Item:
        """Operand `index`; an invalid model where it is missing."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise self.invalid("E0110", f"{self.op} needs {index + 1} inputs or more")
        return found

    def x(self, index: int = 0) -> Value:
        """Operand `index` as an IR value."""
        item = self.item(index)
        if self.args is not None:
            stand_in = self.args[index]
            assert stand_in is not None
            return stand_in
        return item.value

    def opt(self, index: int) -> Value | None:
        """Operand `index`, or None where it is not given."""
        return self.x(index) if self.has(index) else None

    def all(self) -> list[Value]:
        """Every operand, each required."""
        return [self.x(k) for k in range(len(self.inputs))]

    def type(self, index: int = 0) -> TensorType:
        return self.item(index).type

    def shape(self, index: int = 0) -> tuple[DimLike, ...]:
        return self.item(index).type.shape

    def rank(self, index: int = 0) -> int:
        return self.item(index).type.rank

    def known(self, index: int) -> Array | None:
        """The elements of operand `index`, if they are known."""
        return self.item(index).known if self.has(index) else None

    def dims(self, index: int, what: str) -> tuple[DimLike, ...]:
        """The elements of operand `index`, which must be known: they decide the result's shape."""
        known = self.known(index)
        if known is None:
            raise self.unsupported(
                f"the {what} of {self.op} must be known when the model is imported",
                f"{what} : {self.type(index)}, computed from data",
            )
        return tuple([e if isinstance(e, Dim) else int(e) for e in known.reshape(-1)])

    def numbers(self, index: int, what: str) -> tuple[int, ...]:
        """As `dims`, all of them plain numbers."""
        found = self.dims(index, what)
        if any(isinstance(e, Dim) for e in found):
            raise self.unsupported(
                f"the {what} of {self.op} must be numbers", f"found {', '.join(map(str, found))}",
                hint="give the extents with shapes=",
            )  # fmt: skip
        return tuple([int(e) for e in found])  # type: ignore[arg-type]

    # ---- attributes

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as Python says it: int, float, str, list, array or GraphProto."""
        proto = self.attributes.get(name)
        return default if proto is None else self._read(proto)

    def required(self, name: str) -> Any:
        """An attribute that must be there."""
        if name not in self.attributes:
            raise self.invalid("E0111", f"{self.op} needs the attribute '{name}'")
        return self.attr(name)

    def ints(self, name: str) -> tuple[int, ...] | None:
        """A list of integers, or None."""
        found = self.attr(name)
        return None if found is None else tuple(found)

    def axes(self, index: int, name: str = "axes") -> tuple[int, ...] | None:
        """Axes: operand `index` (newer opsets) or an attribute; None where neither is given."""
        if self.has(index):
            return self.numbers(index, name)
        return self.ints(name)

    def axis(self, value: int, rank: int) -> int:
        """`value` counted from the front."""
        if not -rank <= value < max(rank, 1):
            raise self.invalid("E0330", f"{self.op}: axis {value} is outside rank {rank}")
        return value % rank if rank else 0

    def _read(self, proto: Any) -> Any:
        kind = proto.type
        P = type(proto)
        if kind == P.INT:
            return proto.i
        if kind == P.FLOAT:
            return proto.f
        if kind == P.STRING:
            return proto.s.decode(errors="replace")
        if kind == P.INTS:
            return list(proto.ints)
        if kind == P.FLOATS:
            return list(proto.floats)
        if kind == P.STRINGS:
            return [s.decode(errors="replace") for s in proto.strings]
        if kind == P.TENSOR:
            return array_of(proto.t, self.graph.model.folder, self.place())
        if kind == P.SPARSE_TENSOR:
            return sparse_of(proto.sparse_tensor, self.place())
        if kind == P.GRAPH:
            return proto.g
        raise self.unsupported(f"attribute '{proto.name}' of {self.op} has a kind unknown here")

    # ---- building

    def const(self, array: Any, dtype: DType | None = None) -> Value:
        """A constant tensor."""
        array = np.asarray(array)
        return self.b.insert(Const(array if dtype is None else array.astype(dtype.np))).result

    def like(self, x: Value, value: float | int | bool) -> Value:
        """`value` as a rank-0 constant of x's element type."""
        return constant(self.b, x, value)

    def cast(self, x: Value, to: DType) -> Value:
        """x in element type `to`."""
        return x if x.tensor.dtype is to else self.b.cast(x, to=to)

    def reshape(self, x: Value, shape: Sequence[DimLike]) -> Value:
        """x in another shape, itself where it has it."""
        shape = tuple(shape)
        return x if x.tensor.shape == shape else self.b.reshape(x, shape=shape)

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        """x with permuted axes, itself where nothing moves."""
        perm = tuple(perm)
        return x if perm == tuple(range(len(perm))) else self.b.transpose(x, perm=perm)

    def take_range(
        self, x: Value, axis: int, start: DimLike, size: DimLike, step: int = 1
    ) -> Value:
        """x[start, start + step, ...] along one axis, `size` elements."""
        shape = list(x.tensor.shape)
        if start == 0 and step == 1 and shape[axis] == size:
            return x
        starts: list[DimLike] = [0] * len(shape)
        steps = [1] * len(shape)
        starts[axis], shape[axis], steps[axis] = start, size, step
        return self.b.slice(x, starts=starts, sizes=shape, steps=steps)

    # ---- errors

    @property
    def name(self) -> str:
        """The node's name, else its first result's, else its op."""
        return str(self.proto.name or next(iter(self.proto.output), "") or self.op)

    def place(self) -> str:
        """`node 'fc1' (MatMul, opset 17) in model.onnx`."""
        return self.graph.place(self.proto, self.version)

    def operands(self) -> list[str]:
        """One line for each operand: name and type."""
        lines = []
        for k, item in enumerate(self.inputs):
            if item is not None:
                origin = f"   ({item.origin})" if item.origin else ""
                lines.append(f"{chr(65 + k % 26)}  {self.proto.input[k]} : {item.type}{origin}")
        return lines[:16]

    def invalid(self, code: str, message: str, *details: str, hint: str | None = None) -> Error:
        """An error of the model, to raise."""
        return InvalidModelError(code, message, where=self.place(), hint=hint,
                                 details=(*self.operands(), *details))  # fmt: skip

    def unsupported(self, message: str, *details: str, hint: str | None = None) -> Error:
        """Something that this importer does not have, to raise."""
        return UnsupportedError("E0102", message, where=self.place(), hint=hint,
                                details=(*self.operands(), *details))  # fmt: skip

    def reject(self, error: Error) -> NoReturn:
        """Tell a constraint that an op's `infer` found broken in terms of this node."""
        said = _SAID.get(error.code)
        message = f"{self.op} {said}" if said else f"{self.op}: {error.message}"
        details = error.details
        if said:
            _, _, reason = error.message.partition(": ")
            seen = set(map(str, (i.type for i in self.inputs if i is not None)))
            kept = [d for d in details if not any(t in d for t in seen)]
            details = ("-> " + "; ".join([reason or error.message, *kept]),)
        raise InvalidModelError(
            error.code, message, where=self.place(), hint=self.hint(error.code) or error.hint,
            details=(*self.operands(), *details)) from None  # fmt: skip

    def hint(self, code: str) -> str | None:
        """What would fit instead, for the common mistake of a transposed weight."""
        if code != "E0312" or len(self) < 2 or self.op not in ("MatMul", "Gemm"):
            return None
        x, w = self.type(0), self.type(1)
        if x.rank < 1 or w.rank != 2 or x.shape[-1] != w.shape[1]:
            return None
        name = self.proto.input[1]
        fits = f"[{w.shape[0]}, {x.shape[-1]}]"
        return f"{name} looks transposed; Gemm with transB=1 would need {fits}"


_SAID = {
    "E0310": "shapes do not broadcast",
    "E0312": "shapes do not match",
    "E0303": "element types differ",
    "E0317": "changes the number of elements",
}

__all__ = ["Known", "Node", "Result", "Row"]
