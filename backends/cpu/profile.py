"""Time per kernel of one plan: the same kernels under a plan that looks at the clock after every
call.

May import: ir, passes, the files beside it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...ir.ops.core import Module
from ...ir.ops.loop import Call, HostCall
from ...ir.target import Target
from ...passes.plan import Planned
from ..arrays import weight_image
from ..executable import HOST_CALL, Executable, host_functions
from .build import compile_plan, context_of
from .engine import Engine


@dataclass(frozen=True)
class KernelTime:
    """The mean over the runs: `seconds` of all calls of one kernel in a run, clock reading
    included.
    """

    kernel: str
    calls: int
    seconds: float


def profile(
    planned: Planned,
    inputs: Mapping[str, Any] | Sequence[Any],
    target: Target,
    *,
    threads: int | None = None,
    runs: int = 20,
) -> list[KernelTime]:
    """The kernels in order of their first call, with their times; about a microsecond is the
    clock's.
    """
    timed = dataclasses.replace(planned, module=_with_ticks(planned))
    count = threads or target.threads
    built = compile_plan(timed, threads=count, bits=target.vector_bits)
    engine = Engine(built.objects)
    spent: dict[str, list[float]] = {}
    clock = [0.0]

    def tick(ctx: int, name: bytes, args: int, dims: int) -> int:
        now = time.perf_counter()
        key = name.decode()
        if key.startswith(_TICK):
            spent.setdefault(key[len(_TICK) :], []).append(now - clock[0])
            status = 0
        else:
            status = exe._host_call(ctx, name, args, dims)
        clock[0] = time.perf_counter()
        return status

    callback = HOST_CALL(tick)
    context = list(context_of(engine, count))
    context[1] = ctypes.cast(callback, ctypes.c_void_p).value or 0
    weights = weight_image(planned.weights, planned.weight_bytes)
    exe = Executable(
        built.program,
        engine.address(built.entry),
        weights,
        keep=(engine, callback),
        context=context,
        host=host_functions(planned.host_steps),
    )
    exe.run(inputs)
    spent.clear()
    for _ in range(runs):
        clock[0] = time.perf_counter()
        exe.run(inputs)
    return [KernelTime(k, len(t) // runs, sum(t) / runs) for k, t in spent.items()]


_TICK = "irc.tick."


def _with_ticks(planned: Planned) -> Module:
    """The module with a host call after each kernel call."""
    module = planned.module.clone()
    plan = next(f for f in module.funcs if f.kind == "plan")
    for op in list(plan.walk()):
        if isinstance(op, Call) and op.block is not None:
            op.block.insert_before(HostCall(callee=_TICK + op.callee), op.next)
    return module


__all__ = ["KernelTime", "profile"]
