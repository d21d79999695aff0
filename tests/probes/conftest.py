"""Runs a probe's kernel everywhere it can run: the loop interpreter, LLVM, C, HLS C++."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from irc.backends.c.printer import emit_module as emit_c
from irc.backends.hls.printer import SHIM
from irc.backends.hls.printer import emit_module as emit_hls
from irc.backends.llvm.emit import emit_module as emit_llvm
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


def _llvm(func: Func) -> Any:
    """The address of the kernel, compiled with LLVM in process."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu = llvm.get_host_cpu_name()
    target = llvm.Target.from_default_triple().create_target_machine(cpu=cpu, opt=1)
    module = llvm.parse_assembly(emit_llvm([func]))
    module.verify()
    engine = llvm.create_mcjit_compiler(module, target)
    engine.finalize_object()
    _alive.append(engine)
    return engine.get_function_address(func.sym)


def _built(command: Sequence[str], name: str, text: str, sym: str) -> Any:
    """The address of a function in a source text, through the system's compiler."""
    with tempfile.TemporaryDirectory(prefix="irc-probe-") as folder:
        source, library = Path(folder, name), Path(folder, "kernel.so")
        source.write_text(text)
        done = subprocess.run(
            [*command, "-shared", "-fPIC", str(source), "-o", str(library), "-lm"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr + text
        loaded = ctypes.CDLL(str(library))
    _alive.append(loaded)
    return ctypes.cast(loaded[sym], ctypes.c_void_p).value


def _c(func: Func) -> Any:
    """The address of the kernel, printed as C and compiled with the system's compiler."""
    flags = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "-ffp-contract=off"]
    return _built(["cc", *flags], "kernel.c", emit_c([func]), func.sym)


def _hls(func: Func) -> Any:
    """The address of the kernel, printed for HLS, compiled for simulation."""
    flags = ["-std=c++14", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    return _built(["c++", *flags, "-I", str(SHIM)], "kernel.cpp", emit_hls([func]), func.sym)


_alive: list[Any] = []


def _call(address: Any, func: Func, arrays: Sequence[Array], context: bool) -> int:
    """Call a kernel by the convention of ir/kernel_abi.py (HLS has no context)."""
    bound = bind_symbols(func, arrays, {})
    dims = [bound[name] for name in dim_parameters(func)]
    types = [ctypes.c_void_p] * (context + len(arrays)) + [ctypes.c_int64] * len(dims)
    held = [_bytes(a, v.buffer.dtype) for a, v in zip(arrays, func.args, strict=True)]
    call = ctypes.CFUNCTYPE(ctypes.c_int32, *types)(address)
    return int(call(*[None] * context, *[a.ctypes.data for a in held], *dims))


_TARGETS = {"llvm": (_llvm, True), "c": (_c, True), "hls": (_hls, False)}


def _bytes(array: Array, dtype: DType) -> Array:
    """What the calling convention passes: packed bytes for elements of less than a byte."""
    return (
        argument(array, dtype, array.shape, None, "", True).memory.bytes if packed(dtype) else array
    )


@pytest.fixture
def check() -> Check:
    """`check(func, inputs, wants, ...)` runs the kernel and compares its results with `wants`."""

    def run(
        func: Func,
        inputs: Sequence[Array],
        wants: Sequence[Array],
        *,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        targets: Sequence[str] = ("llvm", "c"),
        seeds: int = 2,
    ) -> list[Array]:
        expand_math(
            func
        )  # the same arithmetic everywhere, so native results are the same to the bit
        outs: list[Array] = []
        for seed in range(seeds):
            outs = [np.empty_like(w) for w in wants]
            assert run_kernel(func, [*inputs, *outs], seed=seed) == 0
            for out, want in zip(outs, wants, strict=True):
                np.testing.assert_allclose(out, want, rtol=rtol, atol=atol)
        for target in targets:
            compiled, context = _TARGETS[target]
            again = [np.full_like(w, 77) for w in wants]
            assert _call(compiled(func), func, [*inputs, *again], context) == 0
            for out, first in zip(again, outs, strict=True):
                np.testing.assert_array_equal(out, first, err_msg=target)
        return outs

    return run


@pytest.fixture
def check_func() -> Check:
    """`check_func(func, inputs, wants)`: generics, by the interpreter and as loops."""

    def run(
        func: Func,
        inputs: Sequence[Array],
        wants: Sequence[Array],
        *,
        rtol: float = 1e-5,
        atol: float = 1e-5,
    ) -> None:
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
