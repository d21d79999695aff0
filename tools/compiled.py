"""A Python function or nn.Module as compiled code: traced and compiled once per kind of inputs.

A kind is the arrangement of the arguments, their shapes and element types, the values of bools,
strings and None among them, and the modes (train or eval) of the modules that the function uses.
Where parameters have changed their types it is traced anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from ..frontends.nn.creation import zeros_like
from ..frontends.nn.custom import recorded
from ..frontends.nn.dispatch import STATE, as_tensor, leaf
from ..frontends.nn.module import Module
from ..frontends.nn.specs import type_of
from ..frontends.nn.tensor import Tensor
from ..frontends.nn.traced import Traced, backward_of, modules_of, trace
from ..frontends.nn.trees import Tree, flatten, unflatten
from ..ir.core import Array
from ..ir.ops.core import Module as Program

Build = Callable[[Program], Any]

MOST_KINDS = 64
"""Programs that one function keeps; the oldest goes."""


class CompiledFunction:
    """The function, compiled on the first call with each kind of inputs; called as the function is.

    Parameters and buffers of modules are state: a call uses their present values, and buffers that
    the function assigns get their new ones.  In a trace it is the function itself.

    `backward` goes through it by a program of its own, compiled when it is first needed, which
    computes the function once more: to train, compile `irc.value_and_grad` or the whole step.
    """

    def __init__(self, function: Callable[..., Any], build: Build) -> None:
        if not isinstance(function, Module):
            functools.update_wrapper(self, function, updated=())
        self.function = self.traces = function
        self.build = build
        self.programs: dict[Hashable, tuple[Traced, Stage]] = {}
        self._modules = [m for _, m in modules_of(function)]
        self._arguments: dict[Tree, list[Module]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if STATE.trace is not None:
            return self.function(*args, **kwargs)
        given = (args, kwargs) if kwargs else args
        leaves, tree = flatten(given)
        traced, stage = self._program(given, leaves, tree, bool(kwargs))
        operands = [*[s.tensor for s in traced.states], *[as_tensor(x) for x in leaves]]
        arrays = [t.array for t in operands]  # as they are before buffers change
        found = traced.taken(stage.run(traced.given(leaves)))
        return unflatten(traced.results, stage.recorded(operands, arrays, found))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """As a method: the object is the first argument."""
        return self if instance is None else functools.partial(self, instance)

    def program(self, *args: Any, **kwargs: Any) -> tuple[Traced, Any]:
        """What a call with such arguments runs: the traced function and its executable."""
        given = (args, kwargs) if kwargs else args
        traced, stage = self._program(given, *flatten(given), bool(kwargs))
        return traced, stage.executable

    def _program(
        self, given: tuple[Any, ...], leaves: list[Any], tree: Tree, named: bool
    ) -> tuple[Traced, Stage]:
        key = (tree, tuple([type_of(x) for x in leaves]), self._modes(given, tree), named)
        known = self.programs.get(key)
        if known is None or not known[0].current():
            if len(self.programs) >= MOST_KINDS:
                del self.programs[next(iter(self.programs))]
                self._arguments.clear()
            traced = trace(self._plain if named else self.function, *given)
            stage = Stage(traced.module, self.build, traced.updated)
            known = self.programs[key] = (traced, stage)
        return known

    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.function(*args, **kwargs)

    def _modes(self, given: tuple[Any, ...], tree: Tree) -> tuple[bool, ...]:
        """The modes of the modules, those among the arguments included."""
        others = self._arguments.get(tree)
        if others is None:
            others = self._arguments[tree] = [m for _, m in modules_of(None, given)]
        found: list[bool] = []
        pending = [*self._modules, *others]
        for module in pending:
            found.append(module.training)
            pending += [m for m in module._modules.values() if m is not None]
        return tuple(found)

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"<compiled {name}: {len(self.programs)} programs>"


class Stage:
    """A program, its executable, and the programs of its gradients, each made when needed.

    Its first `skip` results are state.
    """

    def __init__(self, module: Program, build: Build, skip: int = 0) -> None:
        self.module, self.build, self.skip = module, build, skip
        self.executable = build(module)
        self.back: dict[tuple[int, ...], Stage] = {}

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """The program's results."""
        return self.executable.run(arrays)  # type: ignore[no-any-return]

    def recorded(
        self, operands: Sequence[Tensor], arrays: Sequence[Array], results: list[Tensor]
    ) -> list[Tensor]:
        """The results (not those that are state), with a history where one is asked for."""
        wrt = tuple([k for k, t in enumerate(operands) if t.requires_grad])
        if not wrt or not STATE.recording:
            return results
        return recorded(Through(self, operands, arrays, wrt), operands, arrays, results)

    def gradients(self, wrt: tuple[int, ...]) -> Stage:
        """The program of the gradients by some of the arguments."""
        if wrt not in self.back:
            self.back[wrt] = Stage(backward_of(self.module, wrt, self.skip), self.build)
        return self.back[wrt]


class Through:
    """One call of a program, to go back through."""

    def __init__(
        self, stage: Stage, operands: Sequence[Tensor], arrays: Sequence[Array],
        wrt: tuple[int, ...],
    ) -> None:  # fmt: skip
        self.stage, self.wrt = stage, wrt
        self.operands, self.arrays = operands, arrays

    def back(self, cotangents: Sequence[Tensor]) -> Sequence[Tensor]:
        """The gradients, by a program that computes the values again."""
        stage = self.stage.gradients(self.wrt)
        given = [t if t.array is a else leaf(a) for t, a in zip(self.operands, self.arrays)]
        given += [g for g in cotangents if g.type.dtype.is_float]
        arrays = [t.array for t in given]
        found = [leaf(np.asarray(x)) for x in stage.run(arrays)]
        reached = dict(zip(self.wrt, stage.recorded(given, arrays, found), strict=True))
        return [
            reached[k] if k in reached else zeros_like(t) for k, t in enumerate(self.operands)
        ]


__all__ = ["CompiledFunction"]
