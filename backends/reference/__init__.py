"""The numpy interpreter as a backend: the definition of correct, with the face of an executable.

May import: ir.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...ir.core import Value
from ...ir.errors import Error
from ...ir.interpret import input_names, run
from ...ir.ops.core import Module
from ...ir.types import Type

Array = np.ndarray[Any, Any]


class ReferenceExecutable:
    """Runs `main` op by op, with the face of an executable and the speed of numpy."""

    arena_bytes = 0
    lower_bound = 0

    def __init__(self, module: Module) -> None:
        self.module = module

    def __call__(self, *inputs: Any) -> Any:
        """One array per input in order; gives the result, or a tuple of several."""
        results = self.run(inputs)
        return results[0] if len(results) == 1 else tuple(results)

    def run(
        self,
        inputs: Mapping[str, Any] | Sequence[Any],
        observe: Callable[[Value, Any], None] | None = None,
    ) -> list[Any]:
        """Run on a dict by name or a sequence in order; `observe` sees every value computed."""
        return run(self.module.main, inputs, observe)

    @property
    def inputs(self) -> tuple[tuple[str, Type], ...]:
        """(name, type) of each input."""
        main = self.module.main
        return tuple([(n, v.type) for n, v in zip(input_names(main), main.args, strict=True)])

    @property
    def outputs(self) -> tuple[tuple[str, Type], ...]:
        """(name, type) of each result."""
        main = self.module.main
        names = [
            *main.outputs,
            *[f"out{k}" for k in range(len(main.returned))][len(main.outputs) :],
        ]
        return tuple([(n, v.type) for n, v in zip(names, main.returned, strict=True)])

    def coverage(self) -> dict[str, Any]:
        """Every op runs on the host."""
        ops = sum([not op.terminator for op in self.module.main.walk()]) - 1
        return {"kernels": 0, "calls": 0, "copies": [], "host_steps": ops}

    def save(self, path: str) -> None:
        """There is no compiled code to keep: E0510."""
        raise Error("E0510", "the reference backend has nothing to save", hint="save the module")


__all__ = ["ReferenceExecutable"]
