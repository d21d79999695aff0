"""`launch`: a tensor-level op that runs a kernel; what remains of a fused region once it has been
lowered.

Imports: the core, dims, the structure and loop ops; the loop interpreter where a launch is
interpreted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core import Any_, Array, Op, Value, attr, variadic
from ..dims import DimLike, evaluate
from ..errors import Error
from ..types import BufferType, Type
from .core import Module
from .loop import STATUS_INDEX, STATUS_OK


class Launch(Op):
    """Runs kernel `callee` on the inputs.

    `scratch` are the buffers that the kernel takes after its outputs; their content means nothing
    before and after.  `dims` are values for the kernel's dim parameters, in order.
    """

    inputs = variadic(Any_)
    callee = attr(str)
    scratch = attr(tuple, ())
    dims = attr(tuple, ())
    types = attr(tuple, implied=True)

    @classmethod
    def make(
        cls,
        callee: str,
        inputs: Sequence[Value],
        types: Sequence[Type],
        scratch: Sequence[BufferType] = (),
        dims: Sequence[DimLike] = (),
    ) -> Launch:
        """A launch with these results."""
        return cls(
            *inputs, callee=callee, scratch=tuple(scratch), dims=tuple(dims), types=tuple(types)
        )

    def result_types(self) -> tuple[Type, ...]:
        return self.types  # type: ignore[no-any-return]

    def interpret(self, interpreter: Any, *arrays: Array) -> tuple[Array, ...] | Array:
        """The results by the loop interpreter; E0506 where an index is out of range."""
        from ..interpret_loops import run_kernel  # it imports the op classes

        module = self.parent_op
        while module is not None and not isinstance(module, Module):
            module = module.parent_op
        if module is None:
            raise Error("E0211", f"there is no module to look @{self.callee} up in")
        kernel = module.func(self.callee)
        from ..kernel_abi import dim_parameters  # it imports the op classes

        names = dim_parameters(kernel)
        dims = {n: evaluate(e, interpreter.dims) for n, e in zip(names, self.dims, strict=True)}
        made = [_empty(t, interpreter.dims) for t in (*self.types, *self.scratch)]
        count = len(arrays)
        status = run_kernel(
            kernel,
            [*arrays, *made],
            dims,
            module=module,
            check=False,
            written=range(count, count + len(self.types)),
        )
        if status == STATUS_INDEX:
            raise Error(
                "E0506", "an index is out of range", where=self.loc or f"kernel {self.callee}"
            )
        if status != STATUS_OK:
            raise Error(
                "E0507", f"kernel {self.callee} failed with status {status}", where=self.loc
            )
        results = tuple(made[: len(self.types)])
        return results[0] if len(results) == 1 else results


def _empty(type: Any, dims: dict[str, int]) -> Array:
    shape = [evaluate(d, dims) for d in type.shape]
    return np.zeros(math.prod(shape), type.dtype.np).reshape(shape)


__all__ = ["Launch"]
