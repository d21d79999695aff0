"""Networks as plans: numbered values and steps that make them, run again on each call.

Both `Model` (connected by hand) and `from_ir` (imported) are such networks.  A plan refers to
modules and parameters by name, so copies and replaced layers work as anywhere.
May import: ir, its siblings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...ir.core import Loc, Op
from ...ir.dims import Dim, substitute
from ...ir.errors import Error
from ...ir.types import TensorType
from .dispatch import Base, apply, as_tensor, here
from .module import Module
from .trees import Tree, flatten, is_leaf, unflatten


@dataclass(frozen=True)
class Slot:
    """The value of number `index` in a run."""

    index: int


@dataclass(frozen=True)
class Held:
    """A parameter or buffer of the network, by name."""

    name: str


@dataclass(frozen=True)
class Entry:
    """A step: `call` is the name of a module or an op class; `operands` are slots, held tensors and
    constants, arranged as `tree` says where a module takes them; the results take the slots from
    `first` on.  `binds` are the symbols that results decide, as (result, axis, name); nothing reads
    the slots `dead` afterwards."""

    call: str | type[Op]
    operands: tuple[Any, ...]
    tree: Tree
    attrs: Mapping[str, Any]
    first: int
    count: int
    loc: Loc | None = None
    binds: tuple[tuple[int, int, str], ...] = ()
    dead: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What the step is called where it came from."""
        return self.loc.name if self.loc is not None else ""


class Network(Module):
    """A module that runs a plan: `types` and `labels` of its inputs, which are the first slots."""

    def plan(
        self, types: Sequence[TensorType], labels: Sequence[str], entries: Sequence[Entry],
        wanted: Sequence[int], results: Tree,
    ) -> None:  # fmt: skip
        """Take the plan; steps that nothing needs fall away."""
        self._types, self._labels = list(types), list(labels)
        self._wanted, self._results = list(wanted), results
        self._entries = _needed(entries, wanted)

    def forward(self, *inputs: Any) -> Any:
        """The outputs for inputs in order, or in containers of them."""
        given = [as_tensor(x) for x in flatten(inputs, is_leaf)[0]]
        dims = self._bound(given)
        values: dict[int, Any] = dict(enumerate(given))
        for entry in self._entries:
            found = self._run(entry, values, dims)
            values.update({entry.first + k: x for k, x in enumerate(found)})
            for result, axis, name in entry.binds:
                dims[name] = found[result].type.shape[axis]
            for k in entry.dead:
                values.pop(k, None)
        return unflatten(self._results, [values[k] for k in self._wanted])

    def _run(self, entry: Entry, values: Mapping[int, Any], dims: Mapping[str, Any]) -> list[Any]:
        """The results of one step."""
        operands = [self._value(x, values) for x in entry.operands]
        if isinstance(entry.call, str):
            args, kwargs = unflatten(entry.tree, operands)
            module = self._modules[entry.call]
            assert module is not None
            return flatten(module(*args, **kwargs), _is_tensor)[0]
        found = apply(entry.call, *operands, **{k: _at(v, dims) for k, v in entry.attrs.items()})
        return list(found) if isinstance(found, tuple) else [found]

    def _value(self, x: Any, values: Mapping[int, Any]) -> Any:
        if isinstance(x, Slot):
            return values[x.index]
        return self._held(x.name) if isinstance(x, Held) else x

    def _held(self, name: str) -> Any:
        found = self._parameters.get(name)
        return self._buffers[name] if found is None else found

    def _bound(self, given: Sequence[Any]) -> dict[str, Any]:
        """The extents that symbols of shapes have in these inputs; E0645 where they do not fit."""
        if len(given) != len(self._types):
            raise Error("E0645", f"the network takes {len(self._types)} inputs, {len(given)} given",
                        where=here(), details=[f"inputs: {', '.join(self._labels)}"])  # fmt: skip
        dims: dict[str, Any] = {}
        for x, type, label in zip(given, self._types, self._labels, strict=True):
            shape = x.type.shape
            fits = len(shape) == len(type.shape) and x.type.dtype is type.dtype
            for want, have in zip(type.shape, shape):
                if isinstance(want, Dim) and str(want) in want.symbols:
                    want = dims.setdefault(str(want), have)
                known = isinstance(want, int) and isinstance(have, int)
                fits = fits and not (known and want != have)
            if not fits:
                raise Error("E0645", f"{label} does not fit the network", where=here(),
                            details=(f"expected {type}", f"found {x.type}"))  # fmt: skip
        return dims


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Base)


def _at(value: Any, dims: Mapping[str, Any]) -> Any:
    """An attribute with the extents of a run in place of symbols."""
    if isinstance(value, Dim):
        return substitute(value, dims)
    return tuple([_at(v, dims) for v in value]) if isinstance(value, tuple) else value


def _needed(entries: Sequence[Entry], wanted: Sequence[int]) -> list[Entry]:
    """The entries that the outputs need, each with the slots that nothing reads behind it."""
    seen = set(wanted)
    made: list[Entry] = []
    for e in reversed(entries):
        if not any([e.first <= k < e.first + e.count for k in seen]):
            continue
        read = [x.index for x in e.operands if isinstance(x, Slot) and x.index not in seen]
        dead = tuple(dict.fromkeys(read))
        seen.update(dead)
        made.append(replace(e, dead=dead))
    return made[::-1]


__all__ = ["Entry", "Held", "Network", "Slot"]
