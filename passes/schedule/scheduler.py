"""A kernel while its schedule is being chosen: each step is applied at once and recorded.

Choosing needs to see what earlier steps made, so a chooser works on a copy; what comes out is data,
the recorded steps, which `apply_steps` would repeat on the original, and that copy.  May import:
ir, the steps beside it.
"""

from __future__ import annotations

from ...ir.core import Op, Value
from ...ir.dims import DimLike, coefficient
from ...ir.ops.core import Func
from ...ir.ops.loop import Alloc, For, Load, Store
from ...ir.target import Target
from .nests import Refused
from .steps import Mark, Step


class Scheduler:
    """The working copy of a kernel, and the steps so far."""

    def __init__(self, kernel: Func, target: Target) -> None:
        self.kernel = kernel.copy({})
        self.target = target
        self.steps: list[Step] = []
        self.refusals: list[tuple[Step, str]] = []
        self.settled: set[str] = set()
        """Loops whose lanes are decided: a nest that two results need is met twice."""

    def do(self, step: Step) -> None:
        """Apply a step; `Refused` passes through."""
        step.apply(self.kernel)
        self.steps.append(step)

    def attempt(self, step: Step) -> bool:
        """Apply a step if it is legal; a refusal is kept with its reason."""
        try:
            self.do(step)
        except Refused as refused:
            self.refusals.append((step, refused.message))
            return False
        return True

    def give_up(self, kernel: Func, count: int, why: Refused) -> None:
        """Go back to the kernel as it was after `count` steps."""
        if len(self.steps) > count:
            self.refusals.append((self.steps[-1], f"given up: {why.message}"))
        del self.steps[count:]
        self.kernel = kernel

    def may(self, step: Mark) -> bool:
        """Whether a loop may be marked so; a refusal is kept with its reason."""
        try:
            step.check(self.kernel)
        except Refused as refused:
            self.refusals.append((step, refused.message))
            return False
        return True

    def allocs(self) -> list[Alloc]:
        """The allocs of the kernel, in order."""
        return [op for op in self.kernel.walk() if isinstance(op, Alloc)]


def address(access: Load | Store) -> DimLike:
    """The flat element offset of an access."""
    buffer: Value = access.operands[-1]
    total: DimLike = 0
    for e, stride in zip(access.index, buffer.buffer.element_strides, strict=True):
        total = total + e * stride
    return total


def stride(access: Load | Store, var: str) -> DimLike | None:
    """How far, in elements, an access moves per step of a loop; None if that is not constant."""
    parts = coefficient(address(access), var)
    return None if parts is None else parts[0]


def depends(access: Load | Store, var: str) -> bool:
    """Does the address change with this loop?"""
    moved = address(access)
    return not isinstance(moved, int) and var in moved.symbols


def static(extent: DimLike, otherwise: int = 1 << 30) -> int:
    """An extent as a number: a large one where it is known only at run time."""
    return extent if isinstance(extent, int) else otherwise


def only_loops(op: Op) -> list[For]:
    """The loops of a nest, outermost first."""
    return [inner for inner in op.walk() if isinstance(inner, For)]


__all__ = ["Scheduler", "address", "depends", "static", "stride"]
