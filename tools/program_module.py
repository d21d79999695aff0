"""An IR module as a program that can be made smaller.

A place of the kinds `inputs`, `constants`, `bypass` and `end` is an op of `main` that is no
constant; of `weights` a constant of several elements that are not all equal; of `extents` a pair
(extent, smaller one); of `inline` a region of a fused op or a branch of an if.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.blobs import Blob
from ..ir.core import Op, Value
from ..ir.errors import Error
from ..ir.interpret import run
from ..ir.ops.control import If
from ..ir.ops.core import Const, Fused, Module
from ..ir.types import TensorType
from ..ir.verify import verify
from .resize import resized
from .slices import ends, sliced

Feeds = Callable[[Any], Mapping[str, Any]]


class ModuleProgram:
    """A module; `feeds` gives inputs for fields (name, type), whose values may become constants."""

    def __init__(self, module: Module, feeds: Feeds) -> None:
        self.module = module
        self.feeds = feeds
        self._edits: dict[str, Callable[[Sequence[int]], Module | None]] = {
            "outputs": self._fewer_outputs,
            "weights": self._plain_weights,
            "inline": self._inlined,
            "end": self._ended,
            "inputs": self._cut,
            "bypass": self._bypassed,
            "constants": self._computed,
            "extents": self._smaller,
        }

    @cached_property
    def ops(self) -> list[Op]:
        """The ops of `main` that are no constants."""
        body = self.module.main.body
        return [op for op in body if not (op.terminator or isinstance(op, Const))]

    @cached_property
    def weights(self) -> list[Const]:
        """Constants whose elements differ."""
        return [op for op in self.module.main.body if isinstance(op, Const) and _differs(op)]

    @cached_property
    def extents(self) -> list[tuple[int, int]]:
        """(extent, smaller extent) to try, for all that inputs and constants have."""
        values = [*self.module.main.args]
        values += [op.result for op in self.module.main.body if isinstance(op, Const)]
        found = {
            extent for v in values if isinstance(v.type, TensorType) and v.type.shape is not None
            for extent in v.type.shape if isinstance(extent, int) and extent > 1
        }  # fmt: skip
        return [(e, less) for e in sorted(found, reverse=True) for less in _less(e)]

    @cached_property
    def regions(self) -> list[tuple[int, int]]:
        """(place of an op, region) of what can be inlined."""
        return [
            (place, k) for place, op in enumerate(self.ops) if isinstance(op, (Fused, If))
            for k in range(len(op.regions))
        ]  # fmt: skip

    @property
    def size(self) -> int:
        """Ops of `main`, constants not counted."""
        return len(self.ops)

    def atoms(self, kind: str) -> int:
        """Places for an edit of a kind."""
        if kind == "outputs":
            return len(self.module.main.returned)
        if kind == "weights":
            return len(self.weights)
        if kind == "inline":
            return len(self.regions)
        return len(self.extents) if kind == "extents" else len(self.ops)

    def edited(self, kind: str, chosen: Sequence[int]) -> ModuleProgram | None:
        """A new program with the edits; None where they are impossible."""
        try:
            made = self._edits[kind](chosen)
            if made is None:
                return None
            verify(made)
        except Error:
            return None
        return ModuleProgram(made, self.feeds)

    def save(self, path: Path) -> None:
        """Write `.irc`, or `.ir` with its weights beside it."""
        self.module.save(str(path))

    # ---- edits

    def _fewer_outputs(self, chosen: Sequence[int]) -> Module | None:
        main = self.module.main
        kept = [k for k in range(len(main.returned)) if k not in set(chosen)]
        if not kept:
            return None
        names = [main.outputs[k] for k in kept if k < len(main.outputs)]
        return sliced(self.module, [main.returned[k] for k in kept], names=names)

    def _ended(self, chosen: Sequence[int]) -> Module | None:
        (k,) = chosen
        op = self.ops[k]
        if not ends(op) or set(op.results) == set(self.module.main.returned):
            return None
        return sliced(self.module, op.results)

    def _inlined(self, chosen: Sequence[int]) -> Module | None:
        (c,) = chosen
        place, k = self.regions[c]
        made = self.module.clone()
        op = ModuleProgram(made, self.feeds).ops[place]
        assert op.block is not None
        region = op.regions[k]
        env = dict(zip(region.args, op.operands, strict=False))
        for inner in region:
            if inner.terminator:
                op.replace_by([env.get(v, v) for v in inner.operands])
            else:
                op.block.insert_before(inner.copy(env), op)
        return ModuleProgram(made, self.feeds)._same_outputs()

    def _cut(self, chosen: Sequence[int]) -> Module | None:
        taken = set(self.module.main.inputs)
        cut: dict[Value, str] = {}
        for value in self._cut_values(chosen):
            name = f"cut{len(taken)}"
            while name in taken:
                name += "_"
            taken.add(name)
            cut[value] = name
        return self._same_outputs(cut=cut) if cut else None

    def _cut_values(self, chosen: Sequence[int]) -> list[Value]:
        """What others read of the chosen ops; empty where that is no plain tensor or an output."""
        ops = {self.ops[k] for k in chosen}
        values = [r for op in ops for r in op.results if r.uses]
        if set(values) & set(self.module.main.returned):
            return []
        if not all([isinstance(v.type, TensorType) and v.type.shape is not None for v in values]):
            return []
        place = {op: k for k, op in enumerate(self.ops)}
        outside = [v for v in values if not set(v.users) <= ops]
        return sorted(outside, key=lambda v: (place[v.owner], v.index))

    def _computed(self, chosen: Sequence[int]) -> Module | None:
        wanted = dict.fromkeys(self._cut_values(chosen))
        if not wanted or any([not v.tensor.is_static for v in wanted]):
            return None
        part = sliced(self.module, list(wanted))
        try:
            arrays = run(part.main, _only(self._inputs, part.main.inputs))
        except Exception:
            return None
        env = {v: Const(x, v.tensor) for v, x in zip(wanted, arrays, strict=True)}
        return self._same_outputs(constants=env)

    def _bypassed(self, chosen: Sequence[int]) -> Module | None:
        made = self.module.clone()
        own = ModuleProgram(made, self.feeds).ops
        for op in [own[k] for k in chosen]:
            if len(op.results) != 1:
                return None
            like = [v for v in op.operands if v is not None and v.type is op.result.type]
            if not like:
                return None
            op.replace_by([like[0]])
        return ModuleProgram(made, self.feeds)._same_outputs()

    def _plain_weights(self, chosen: Sequence[int]) -> Module | None:
        made = self.module.clone()
        own = ModuleProgram(made, self.feeds).weights
        for op in [own[k] for k in chosen]:
            array = op.value.array
            op.set_attr("value", Blob(np.full_like(array, array.flat[0]), op.value.type))
        return made

    def _smaller(self, chosen: Sequence[int]) -> Module | None:
        (k,) = chosen
        return resized(self.module, *self.extents[k])

    # ---- parts

    @cached_property
    def _inputs(self) -> Mapping[str, Any]:
        main = self.module.main
        return self.feeds([(n, v.type) for n, v in zip(main.inputs, main.args, strict=True)])

    def _same_outputs(
        self,
        cut: Mapping[Value, str] | None = None,
        constants: Mapping[Value, Const] | None = None,
    ) -> Module:
        """What the outputs need, with values cut or computed."""
        main = self.module.main
        env = {v: op.result for v, op in (constants or {}).items()}
        cut = dict(cut or {}) | dict.fromkeys(env, "")
        made = sliced(self.module, main.returned, cut, main.outputs, env)
        first = made.main.body.first
        for op in (constants or {}).values():
            made.main.body.insert_before(op, first)
        return made


def _less(extent: int) -> list[int]:
    return sorted({1, 2, extent // 2} & set(range(1, extent)))


def _differs(op: Const) -> bool:
    value = op.value
    if not isinstance(value, Blob) or value.array.size < 2:
        return False
    return bool((value.array != value.array.flat[0]).any())


def _only(inputs: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {n: inputs[n] for n in names}


__all__ = ["ModuleProgram"]
