"""A Python function or nn.Module as compiled code: traced and compiled once per kind of inputs.

A kind is the arrangement of the arguments, their shapes and element types, the values of bools,
strings and None among them, and the modes (train or eval) of the modules that the function uses.
Where parameters have changed their types it is traced anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

from ..frontends.nn.dispatch import STATE
from ..frontends.nn.module import Module
from ..frontends.nn.specs import type_of
from ..frontends.nn.traced import Traced, modules_of, trace
from ..frontends.nn.trees import Tree, flatten
from ..ir.ops.core import Module as Program

Build = Callable[[Program], Any]

MOST_KINDS = 64
"""Programs that one function keeps; the oldest goes."""


class CompiledFunction:
    """The function, compiled on the first call with each kind of inputs; called as the function is.

    Parameters and buffers of modules are state: a call uses their present values, and buffers that
    the function assigns get their new ones.  Results are tensors without a history.  In a trace it
    is the function itself.
    """

    def __init__(self, function: Callable[..., Any], build: Build) -> None:
        if not isinstance(function, Module):
            functools.update_wrapper(self, function, updated=())
        self.function = self.traces = function
        self.build = build
        self.programs: dict[Hashable, tuple[Traced, Any]] = {}
        self._modules = [m for _, m in modules_of(function)]
        self._arguments: dict[Tree, list[Module]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if STATE.trace is not None:
            return self.function(*args, **kwargs)
        given = (args, kwargs) if kwargs else args
        leaves, tree = flatten(given)
        traced, program = self._program(given, leaves, tree, bool(kwargs))
        return traced.finish(program.run(traced.given(leaves)))

    def program(self, *args: Any, **kwargs: Any) -> tuple[Traced, Any]:
        """What a call with such arguments runs: the traced function and its executable."""
        given = (args, kwargs) if kwargs else args
        return self._program(given, *flatten(given), bool(kwargs))

    def _program(
        self, given: tuple[Any, ...], leaves: list[Any], tree: Tree, named: bool
    ) -> tuple[Traced, Any]:
        key = (tree, tuple([type_of(x) for x in leaves]), self._modes(given, tree), named)
        known = self.programs.get(key)
        if known is None or not known[0].current():
            if len(self.programs) >= MOST_KINDS:
                del self.programs[next(iter(self.programs))]
                self._arguments.clear()
            traced = trace(self._plain if named else self.function, *given)
            known = self.programs[key] = (traced, self.build(traced.module))
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


__all__ = ["CompiledFunction"]
