"""Fused regions to scheduled kernels: lower, schedule, expand, hoist, and launch in their place.

Regions that say the same become one kernel.  A schedule that a kernel refuses is dropped with its
reason: plain loops are always right.  May import: ir, passes.schedule, passes.options, the lowering
beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...ir.core import Op, Value
from ...ir.dims import DimLike, sym
from ...ir.errors import Error
from ...ir.kernel_abi import dim_parameters
from ...ir.ops.core import Func, Fused, Module
from ...ir.ops.plan import Launch
from ...ir.target import Target
from ...ir.text import print_op
from ...ir.types import BufferType
from ..options import Pass, hidden
from ..schedule.steps import Applied, apply_steps
from .finish import finish
from .loops import lower_fused
from .scratch import hoist_scratch

REFUSALS = ("E0410", "E0411")
"""Errors of schedule steps and of writing loops out: a reason to do without the schedule."""


@dataclass(frozen=True)
class _Made:
    """What a launch needs to know of a kernel."""

    name: str
    scratch: tuple[BufferType, ...]
    dims: tuple[DimLike, ...]


@dataclass(frozen=True)
class LowerKernels(Pass):
    """Make every `fused` a kernel function and a `launch` of it; `schedule=false` leaves plain
    loops.
    """

    schedule: bool = True
    target: Target = hidden(Target("plain"))
    refused: list[tuple[str, str]] = field(
        default_factory=list, init=False, compare=False, repr=False
    )

    def run(self, module: Module) -> Module:
        self.refused.clear()
        made: dict[str, _Made] = {}
        for func in module.funcs:
            if func.kind != "func":
                continue
            for fused in [op for op in func.walk() if isinstance(op, Fused)]:
                key = content(fused)
                if key not in made:
                    kernel, scratch = self.kernel(fused, kernel_name(fused, len(made)))
                    module.body.append(kernel)
                    dims = tuple([sym(name) for name in dim_parameters(kernel)])
                    made[key] = _Made(kernel.sym, scratch, dims)
                _launch(fused, made[key])
        return module

    def kernel(self, fused: Fused, name: str) -> tuple[Func, tuple[BufferType, ...]]:
        """The finished kernel of a region and the types of its scratch buffers."""
        plain = lower_fused(fused, name)
        kernel = self.scheduled(plain) if self.schedule else None
        if kernel is None:
            kernel = plain
            finish(kernel, self.target)
        scratch = hoist_scratch(kernel)
        added = [a.name or "scratch" for a in kernel.args[len(kernel.inputs) :]]
        kernel.set_attr("inputs", (*kernel.inputs, *added))
        return kernel, scratch

    def scheduled(self, plain: Func) -> Func | None:
        """The kernel after the schedule, finished; None where a step or the target refuses."""
        try:
            steps = self.target.schedule(plain, self.target)
            kernel = steps.kernel if isinstance(steps, Applied) else apply_steps(plain, steps)
            finish(kernel, self.target)
        except Error as refusal:
            if refusal.code not in REFUSALS:
                raise
            self.refused.append((plain.sym, refusal.message))
            return None
        return kernel


def content(fused: Fused) -> str:
    """What a region computes, without names and locations: equal texts can share a kernel."""
    func = Func.make("_", [v.type for v in fused.operands])
    env: dict[Value, Value] = dict(zip(fused.body.args, func.args, strict=True))
    for op in fused.body:
        func.body.append(op.copy(env))
    for arg in func.args:
        arg.name = None
    for inner in func.body.walk():
        _strip(inner)
    return print_op(func)


def _strip(op: Op) -> None:
    op.loc = None
    values: Sequence[Value] = op.results
    for value in (*values, *[a for block in op.regions for a in block.args]):
        value.name = None


def kernel_name(fused: Fused, number: int) -> str:
    """`k3_conv_add_relu`."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", fused.label).strip("_")
    return f"k{number}_{words}"[:48].rstrip("_") if words else f"k{number}"


def _launch(fused: Fused, made: _Made) -> None:
    """Put a launch in the place of a region."""
    types = [r.type for r in fused.results]
    launch = Launch.make(made.name, fused.operands, types, made.scratch, made.dims)
    launch.loc = fused.loc
    assert fused.block is not None
    fused.block.insert_before(launch, fused)
    for old, new in zip(fused.results, launch.results, strict=True):
        new.name = old.name
    fused.replace_by(launch.results)


__all__ = ["LowerKernels", "content", "kernel_name"]
