"""Temporaries of a kernel that live in planned memory: taken out of the kernel, passed in by the
caller.

May import: ir.
"""

from __future__ import annotations

from ...ir.core import Op
from ...ir.ops.core import Func
from ...ir.ops.loop import Alloc
from ...ir.types import BufferType


def hoist_scratch(kernel: Func) -> tuple[BufferType, ...]:
    """Turn heap allocs at the top of a kernel into buffer arguments after its outputs; gives their
    types.

    Allocs inside loops stay: each iteration (each thread) owns one.  An alloc that nobody uses
    goes.
    """
    hoisted: list[BufferType] = []
    for op in list(kernel.body):
        if not isinstance(op, Alloc) or op.type.space != "heap":
            continue
        if op.result.users:
            arg = kernel.body.add_arg(
                op.type, op.label or op.result.name or f"scratch{len(hoisted)}"
            )
            op.result.replace_by(arg)
            hoisted.append(op.type)
        op.erase()
    names = tuple([arg.name or f"scratch{k}" for k, arg in enumerate(kernel.args)])
    kernel.set_attr("inputs", names)
    return tuple(hoisted)


def remaining_allocs(kernel: Func) -> list[Op]:
    """Heap allocs that `hoist_scratch` left: those inside loops, which no CPU printer accepts."""
    return [op for op in kernel.body.walk() if isinstance(op, Alloc) and op.type.space == "heap"]


__all__ = ["hoist_scratch", "remaining_allocs"]
