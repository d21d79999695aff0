"""Streamed results: the same values, aligned or not, and only where every vector is aligned."""

from __future__ import annotations

import ctypes
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from irc.backends.cpu.engine import Engine
from irc.backends.cpu.host import codegen_target
from irc.backends.cpu.target import cpu_target
from irc.backends.llvm.compile import compile_text
from irc.backends.llvm.emit import emit_func
from irc.ir.ops.core import Func
from irc.ir.target import Target
from irc.passes.lower.finish import finish
from irc.passes.lower.scratch import hoist_scratch
from irc.passes.schedule.choose import choose
from irc.passes.schedule.nests import Refused
from irc.passes.schedule.streaming import Stream

_spec = importlib.util.spec_from_file_location(
    "schedule_kernels", Path(__file__).with_name("kernels.py")
)
kernels = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
_spec.loader.exec_module(kernels)  # type: ignore[union-attr]

LARGE = Target("t", vector_bits=512, registers=32, fma=True, expand=True, stream_bytes=64)
PROGRAMS = {
    "elementwise": ([(7, 64), (64,)], lambda b, x, y: b.mul(b.add(x, y), y)),
    "rows": ([(6, 256)], lambda b, x: b.softmax(x, axis=-1)),
}


def streamed(name: str, target: Target) -> tuple[Func, Func, int]:
    shapes, build = PROGRAMS[name]
    plain = kernels.kernel(shapes, build)
    made = choose(plain, target).kernel
    finish(made, target)
    hoist_scratch(made)
    return plain, made, len(shapes)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", PROGRAMS)
def test_streaming_keeps_the_result(name: str, threads: int) -> None:
    plain, made, count = streamed(name, replace(LARGE, threads=threads))
    assert any(op.attributes.get("stream") for op in made.walk() if op.name == "loop.store")
    given = kernels.inputs(plain, count)
    want, got = kernels.interpret(plain, given)[0], kernels.interpret(made, given)[0]
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("offset", [0, 4])
def test_native_code_runs_aligned_and_misaligned(offset: int) -> None:
    target = replace(cpu_target(1), stream_bytes=64)
    if target.vector_bits < 256:
        pytest.skip("this processor has no wide vectors")
    plain, made, _ = streamed("elementwise", target)
    text = emit_func(made, vector_bits=target.vector_bits)
    assert "!nontemporal" in text
    x, y = kernels.inputs(plain, 2)
    raw = np.zeros(x.nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    out = raw[start : start + x.nbytes].view(np.float32).reshape(x.shape)
    with Engine({"k": compile_text(text, codegen_target())}) as engine:
        run = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4)(engine.address(made.sym))
        assert run(None, x.ctypes.data, y.ctypes.data, out.ctypes.data) == 0
    np.testing.assert_allclose(out, (x + y) * y, rtol=1e-6)


def test_rows_that_are_no_whole_vectors_are_not_streamed() -> None:
    plain = kernels.kernel([(5, 33)], lambda b, x: b.mul(x, x))
    made = choose(plain, LARGE).kernel
    assert not any(op.attributes.get("stream") for op in made.walk() if op.name == "loop.store")
    before = str(made)
    with pytest.raises(Refused, match="aligned vectors"):
        Stream("out0", "s0.i0").apply(made)
    assert str(made) == before
