"""A Python function or nn.Module as compiled code: traced and compiled once per kind of inputs.

A kind is the arrangement of the arguments, their shapes and element types, the values of bools,
strings and None among them, the modes (train or eval) of the modules that the function uses, and
the types of their parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

from ..frontends.nn.dispatch import STATE
from ..frontends.nn.module import Module
from ..frontends.nn.specs import type_of
from ..frontends.nn.traced import Traced, modules_of, trace
from ..frontends.nn.trees import flatten
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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if STATE.trace is not None:
            return self.function(*args, **kwargs)
        traced, program = self.program(*args, **kwargs)
        return traced.finish(program.run(traced.arrays(self._given(args, kwargs))))

    def program(self, *args: Any, **kwargs: Any) -> tuple[Traced, Any]:
        """What a call with such arguments runs: the traced function and its executable."""
        given = self._given(args, kwargs)
        leaves, tree = flatten(given)
        key = (tree, tuple([type_of(x) for x in leaves]), self._modes(given), bool(kwargs))
        known = self.programs.get(key)
        if known is None:
            if len(self.programs) >= MOST_KINDS:
                del self.programs[next(iter(self.programs))]
            traced = trace(self._plain if kwargs else self.function, *given)
            known = self.programs[key] = (traced, self.build(traced.module))
        return known

    @staticmethod
    def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        return (args, kwargs) if kwargs else args

    def _plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.function(*args, **kwargs)

    def _modes(self, given: tuple[Any, ...]) -> tuple[Hashable, ...]:
        """What the state of the modules is like, those among the arguments included."""
        found: list[Hashable] = []
        for root in (*self._modules, *[m for _, m in modules_of(None, given)]):
            for module in root.modules():
                found.append(module.training)
                for table in (module._parameters, module._buffers):
                    found += [None if t is None else (name, t.type) for name, t in table.items()]
        return tuple(found)

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"<compiled {name}: {len(self.programs)} programs>"


__all__ = ["CompiledFunction"]
