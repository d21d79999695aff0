"""Several programs as one C text: their plans, kernels and constants, each once.

Every program is `main(states..., inputs...) -> (next states..., results...)`; the states are
arguments of its plan, written in place.  May import: ir, passes, backends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..backends.c.build import constants, refuse_host_steps
from ..backends.c.printer import CModule
from ..backends.c.types import identifier, memory_type
from ..backends.compiler import lower
from ..backends.targets import choose
from ..ir.blobs import Blob
from ..ir.core import Op, Value
from ..ir.errors import Error, UnsupportedError
from ..ir.ops.core import Func, Module
from ..ir.ops.loop import Call, View
from ..ir.text import print_op
from ..ir.types import TensorType
from ..passes.places import bytes_of
from ..passes.plan import Planned

_ALIGN = 64

AnyOp = TypeVar("AnyOp", bound=Op)


@dataclass(frozen=True)
class Entry:
    """A program that becomes a function of the package: `states` name its first arguments.

    `about` describes it, `notes` its inputs and results by name.  With `collected` the results are
    members of one struct, else an argument each.
    """

    name: str
    module: Module
    states: tuple[str, ...]
    about: str = ""
    notes: Mapping[str, str] | None = None
    collected: bool = True

    @property
    def inputs(self) -> list[tuple[str, TensorType]]:
        """Name and type of each input behind the states."""
        main = self.module.main
        rest = list(zip(main.inputs, main.args, strict=True))[len(self.states) :]
        return [(n, v.tensor) for n, v in rest]

    @property
    def results(self) -> list[tuple[str, TensorType]]:
        """Name and type of each result that is no next state."""
        main = self.module.main
        replaced = {r for _, r in main.state}
        pairs = zip(main.outputs, main.returned, strict=True)
        return [(n, v.tensor) for k, (n, v) in enumerate(pairs) if k not in replaced]


@dataclass(frozen=True)
class Argument:
    """An argument of a C function: `type` of an element; `const` where it is only read."""

    name: str
    c_name: str
    type: str
    const: bool
    tensor: TensorType

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return element_count(self.tensor)


@dataclass(frozen=True)
class Function:
    """An entry as a plan in C: `plan(0, states..., inputs..., results..., arena, weights)`."""

    entry: Entry
    plan: str
    states: tuple[Argument, ...]
    inputs: tuple[Argument, ...]
    results: tuple[Argument, ...]
    arena_bytes: int
    lower_bound: int


@dataclass(frozen=True)
class Linked:
    """The C text of all entries; `weight_bytes` of constants lie in `data`, if any."""

    functions: tuple[Function, ...]
    plans: str
    data: str
    weight_bytes: int
    kernels: int

    @property
    def arena_bytes(self) -> int:
        """What the hungriest entry needs."""
        return max([f.arena_bytes for f in self.functions])


def element_count(type: TensorType) -> int:
    """Elements of a static tensor type."""
    size = type.size
    assert isinstance(size, int)
    return size


def stored_size(type: TensorType) -> int:
    """Bytes of a static tensor."""
    size = bytes_of(type)
    assert isinstance(size, int)
    return size


def link(name: str, entries: Sequence[Entry]) -> Linked:
    """Compile the entries for C and put them in one text, names beginning with `name`.

    E0806 names every op, with its entry, that only a host could run, and shapes unknown before.
    """
    planned = [(entry, _planned(entry)) for entry in entries]
    shared = _Shared(name)
    plans = [shared.add(entry, found) for entry, found in planned]
    module = CModule([*shared.kernels.values(), *plans], [])
    module.overwriting = frozenset(shared.overwriting)
    text = module.text()
    functions = [
        _function(entry, found, plan, module.written(plan.sym))
        for (entry, found), plan in zip(planned, plans, strict=True)
    ]
    size = shared.weight_bytes
    data = constants(name, shared.weights, size) if size else ""
    return Linked(tuple(functions), text, data, size, len(shared.kernels))


def _planned(entry: Entry) -> Planned:
    try:
        compiled = lower(entry.module.clone(), choose("c", 1))
        assert compiled.planned is not None
        refuse_host_steps(compiled.planned)
    except UnsupportedError as refusal:
        raise _refused(entry, refusal) from None
    except Error as refusal:
        if refusal.code != "E0440":
            raise
        raise _refused(entry, refusal) from None
    if not isinstance(compiled.planned.arena_bytes, int):
        raise Error("E0806", f"'{entry.name}' has symbolic extents", hint="fix the batch size")
    return compiled.planned


def _refused(entry: Entry, refusal: Error) -> Error:
    return UnsupportedError(
        "E0806",
        f"'{entry.name}' cannot be a C function: {refusal.message}",
        where=refusal.where,
        details=refusal.details,
        hint=refusal.hint or "a package has no host: compute this before the step, on its inputs",
    )


class _Shared:
    """What the plans of one text have in common: kernels by content, constants by content."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kernels: dict[str, Func] = {}
        self.overwriting: set[str] = set()
        self.weights: list[tuple[int, Blob]] = []
        self.weight_bytes = 0
        self._alike: dict[tuple[str, int], list[tuple[Blob, int]]] = {}

    def add(self, entry: Entry, planned: Planned) -> Func:
        """The plan of an entry, calling the shared kernels."""
        renamed = {f.sym: self._kernel(f) for f in planned.kernels}
        self.overwriting |= {renamed[n] for n in planned.overwriting}
        moved = {offset: self._constant(blob) for offset, blob in planned.weights}
        plan = planned.func.copy()
        plan.set_attr("sym", f"{self.name}_{entry.name}_plan")
        weights = plan.args[-1]
        for op in plan.walk():
            if isinstance(op, Call):
                op.set_attr("callee", renamed.get(op.callee, op.callee))
            elif isinstance(op, View) and op.base is weights:
                op.set_attr("offset", moved[op.offset])
        return plan

    def _kernel(self, kernel: Func) -> str:
        plain = without_locations(kernel)
        plain.set_attr("sym", "kernel")
        key = print_op(plain)
        if key not in self.kernels:
            stem = kernel.sym.partition("_")[2] or "kernel"
            plain.set_attr("sym", f"k{len(self.kernels)}_{stem}")
            self.kernels[key] = plain
        found: str = self.kernels[key].sym
        return found

    def _constant(self, blob: Blob) -> int:
        alike = self._alike.setdefault((blob.type.text, blob.nbytes), [])
        for other, offset in alike:
            if other == blob:
                return offset
        offset = self.weight_bytes
        alike.append((blob, offset))
        self.weights.append((offset, blob))
        self.weight_bytes += -(-stored_size(blob.type) // _ALIGN) * _ALIGN
        return offset


def _function(entry: Entry, planned: Planned, plan: Func, written: frozenset[int]) -> Function:
    """What C must know to call a plan."""
    values = plan.args[:-2]
    names = [n for n, _ in planned.inputs]
    replaced = {r for _, r in planned.state}
    names += [n for k, (n, _) in enumerate(planned.results) if k not in replaced]
    taken = {"ctx", "out", "status"}
    made = [
        Argument(n, identifier(n, taken), memory_type(v.buffer.dtype), k not in written, _dense(v))
        for k, (n, v) in enumerate(zip(names, values, strict=True))
    ]
    first, last = len(entry.states), len(planned.inputs)
    arena, least = planned.arena_bytes, planned.lower_bound
    assert isinstance(arena, int)
    return Function(
        entry, plan.sym, tuple(made[:first]), tuple(made[first:last]), tuple(made[last:]), arena,
        least,
    )  # fmt: skip


def _dense(value: Value) -> TensorType:
    return TensorType(value.buffer.dtype, value.buffer.shape)


def without_locations(op: AnyOp) -> AnyOp:
    """A copy that says nothing of where it came from, for comparing and hashing."""
    made = op.copy()
    made.loc = None
    for inner in made.walk():
        inner.loc = None
    return made


__all__ = [
    "Argument", "Entry", "Function", "Linked", "element_count", "link", "stored_size",
    "without_locations",
]  # fmt: skip
