"""Runs a probe's kernel everywhere it can run: the loop interpreter, LLVM, and C."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from irc.backends.llvm.emit import emit_module
from irc.ir import interpret
from irc.ir.core import Block, Builder
from irc.ir.interpret_loops import bind_symbols, run_kernel
from irc.ir.interpret_memory import argument, packed
from irc.ir.kernel_abi import dim_parameters
from irc.ir.ops.core import Const, Func, Fused, Return, Yield
from irc.ir.types import DType
from irc.passes.lower.loops import lower_fused
from irc.passes.lower.math import expand_math

Array = np.ndarray[Any, Any]
Check = Callable[..., list[Array]]


def _native(func: Func, arrays: Sequence[Array]) -> int:
    """Compile one kernel with LLVM in process, and call it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine(cpu=llvm.get_host_cpu_name(), opt=1)
    module = llvm.parse_assembly(emit_module([func]))
    module.verify()
    engine = llvm.create_mcjit_compiler(module, target)
    engine.finalize_object()
    bound = bind_symbols(func, arrays, {})
    dims = [bound[name] for name in dim_parameters(func)]
    types = [ctypes.c_void_p] * (1 + len(arrays)) + [ctypes.c_int64] * len(dims)
    call = ctypes.CFUNCTYPE(ctypes.c_int32, *types)(engine.get_function_address(func.sym))
    held = [_bytes(a, v.buffer.dtype) for a, v in zip(arrays, func.args, strict=True)]
    return int(call(None, *[a.ctypes.data for a in held], *dims))


def _bytes(array: Array, dtype: DType) -> Array:
    """What the calling convention passes: packed bytes for elements of less than a byte."""
    return argument(array, dtype, array.shape, None, "", True).memory.bytes if packed(dtype) else array


@pytest.fixture
def check() -> Check:
    """`check(func, inputs, wants, ...)` runs the kernel and compares its results with `wants`."""

    def run(func: Func, inputs: Sequence[Array], wants: Sequence[Array], *, rtol: float = 1e-5, atol: float = 1e-5,
            native: bool = True, seeds: int = 2) -> list[Array]:  # fmt: skip
        expand_math(func)  # the same arithmetic everywhere, so native results are the same to the bit
        outs: list[Array] = []
        for seed in range(seeds):
            outs = [np.empty_like(w) for w in wants]
            assert run_kernel(func, [*inputs, *outs], seed=seed) == 0
            for out, want in zip(outs, wants, strict=True):
                np.testing.assert_allclose(out, want, rtol=rtol, atol=atol)
        if native:
            again = [np.full_like(w, 77) for w in wants]
            assert _native(func, [*inputs, *again]) == 0
            for out, first in zip(again, outs, strict=True):
                np.testing.assert_array_equal(out, first)
        return outs

    return run


@pytest.fixture
def check_func() -> Check:
    """`check_func(func, inputs, wants)`: a function of generics, by the interpreter and as loops."""

    def run(func: Func, inputs: Sequence[Array], wants: Sequence[Array], *, rtol: float = 1e-5,
            atol: float = 1e-5) -> None:  # fmt: skip
        for got, want in zip(interpret.run(func, inputs), wants, strict=True):
            np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)
        constants = [op for op in func.body if isinstance(op, Const)]  # operands of a region
        values = [*func.args, *[op.result for op in constants]]
        region = Block([v.type for v in values])
        env = dict(zip(values, region.args, strict=True))
        for op in func.body:
            if not isinstance(op, (Return, Const)):
                region.append(op.copy(env))
        Builder(region).emit(Yield, *[env[v] for v in func.returned])
        outer = Func.make("outer", [v.type for v in values])
        fused = Builder(outer.body).insert(Fused(*outer.args, regions=[region]))
        kernel = lower_fused(fused, "probe")
        given = [*inputs, *[op.value.array for op in constants]]
        written = range(len(given), len(given) + len(wants))
        outs = [np.empty_like(w) for w in wants]
        assert run_kernel(kernel, [*given, *outs], written=written) == 0
        for out, want in zip(outs, wants, strict=True):
            np.testing.assert_allclose(out, want, rtol=rtol, atol=atol)

    return run
