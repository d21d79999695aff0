"""What the tests of the plan share: modules lowered op by op, and plans run by the loop
interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from irc.ir.core import Block, Builder
from irc.ir.dims import evaluate, sym
from irc.ir.interpret_loops import bind_symbols, run_kernel
from irc.ir.kernel_abi import dim_parameters
from irc.ir.ops.core import Const, Func, Fused, Module, Yield
from irc.ir.ops.plan import Launch
from irc.passes.lower.loops import lower_fused
from irc.passes.lower.scratch import hoist_scratch
from irc.passes.places import bytes_of
from irc.passes.plan import Planned


def _launch(op: Any, kernels: list[Func]) -> None:
    region = Block([v.type for v in op.operands])
    b = Builder(region)
    made = op.generic(b, *region.args)
    b.emit(Yield, *(made if isinstance(made, tuple) else (made,)))
    fused = Fused(*op.operands, regions=[region])
    kernel = lower_fused(fused, f"k{len(kernels)}")
    scratch = hoist_scratch(kernel)
    kernels.append(kernel)
    dims = [sym(s) for s in dim_parameters(kernel)]
    types = [r.type for r in op.results]
    launch = Launch.make(kernel.sym, op.operands, types, scratch, dims)
    fused.set_operands(())
    op.block.insert_before(launch, op)
    op.replace_by(launch.results)


def _lower(block: Block, kernels: list[Func]) -> None:
    for op in list(block):
        for region in op.regions:
            _lower(region, kernels)
        left = isinstance(op, (Const, Launch)) or op.terminator or op.regions
        if not left and op.name != "reshape" and hasattr(op, "generic"):
            _launch(op, kernels)


@pytest.fixture
def kernelized() -> Callable[[Module], Module]:
    """A copy of a module in which every op with a `generic` form is a launch of a kernel of its
    own.
    """

    def lower(module: Module) -> Module:
        made = module.clone()
        kernels: list[Func] = []
        _lower(made.main.body, kernels)
        for kernel in kernels:
            made.body.append(kernel)
        return made

    return lower


@pytest.fixture
def run_plan() -> Callable[..., list[Any]]:
    """The results of a plan by the strict loop interpreter: poisoned arena, every read checked."""

    def run(planned: Planned, inputs: Sequence[Any], seed: int = 0) -> list[Any]:
        func = planned.func
        inputs = [x.copy() for x in inputs]
        symbols: dict[str, int] = {}
        for value, x in zip(func.args, inputs):
            for e, n in zip(value.buffer.shape, x.shape):
                if not isinstance(e, int) and str(e) in e.symbols:
                    symbols[str(e)] = n
        replaced = {r for _, r in planned.state}
        outs = {
            k: np.zeros([evaluate(e, symbols) for e in t.shape], t.dtype.np)
            for k, (_, t) in enumerate(planned.results)
            if k not in replaced
        }
        arena = np.zeros(evaluate(planned.arena_bytes, symbols), np.uint8)
        weights = np.zeros(planned.weight_bytes, np.uint8)
        for offset, blob in planned.weights:
            raw = np.frombuffer(blob.array.tobytes(), np.uint8)
            assert raw.size == evaluate(bytes_of(blob.type), {})
            weights[offset : offset + raw.size] = raw
        args = [*inputs, *outs.values(), arena, weights]
        assert bind_symbols(func, args, {}) == symbols
        hosts = {name: _host(op, len(op.operands)) for name, op in planned.host_steps.items()}
        status = run_kernel(func, args, module=planned.module, seed=seed, host=hosts)
        assert status == 0, f"status {status}"
        results = dict(outs)
        results.update({r: inputs[p] for p, r in planned.state})
        return [results[k] for k in range(len(results))]

    return run


def _host(op: Any, count: int) -> Callable[[Sequence[Any], Sequence[int]], None]:
    def step(arrays: Sequence[Any], dims: Sequence[int]) -> None:
        made = type(op).evaluate(*arrays[:count], **op.attributes)
        for target, value in zip(arrays[count:], made if isinstance(made, tuple) else (made,)):
            target[...] = value

    return step
