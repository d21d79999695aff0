"""Ops with loops of their own on symbolic extents: compiled once, right for the extents given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from irc.backends.c.build import CExecutable
from irc.backends.c.target import c_target
from irc.backends.cpu.build import build
from irc.backends.cpu.target import cpu_target
from irc.ir.core import OPS, Array, Builder
from irc.ir.dims import sym
from irc.ir.interpret import run
from irc.ir.ops.core import Func, Module, Return
from irc.ir.types import parse_type
from irc.passes.pipeline import Options, compile_module

RNG = np.random.default_rng(0)


def floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def indices(low: int, high: int, *shape: int) -> Array:
    return RNG.integers(low, high, shape)


CACHE = ("f32[B, H, N, 8]", "f32[B, H, S, 8]", "i64[B]")
CASES: list[tuple[str, Sequence[str], Sequence[Array], dict[str, Any]]] = [
    ("cum_sum", ["f32[N, M]"], [floats(5, 7)], {"axis": 1}),
    ("cum_prod", ["f32[N, M, K]"], [floats(5, 7, 3)], {"axis": 1, "reverse": True}),
    ("scatter_elements", ["f32[N, M]", "i64[K, M]", "f32[K, M]"],
     [floats(5, 7), indices(-5, 5, 4, 7), floats(4, 7)], {"axis": 0, "reduction": "add"}),
    ("scatter_nd", ["f32[N, M]", "i64[K, 1]", "f32[K, M]"],
     [floats(5, 7), indices(-5, 5, 4, 1), floats(4, 7)], {}),
    ("gather_nd", ["f32[B, N, M]", "i64[B, K, 1]"], [floats(2, 5, 7), indices(-5, 5, 2, 4, 1)],
     {"batch": 1}),
    ("tensor_scatter", CACHE, [floats(2, 3, 9, 8), floats(2, 3, 2, 8), indices(0, 7, 2)],
     {"axis": 2}),
    ("tensor_scatter", CACHE, [floats(2, 3, 9, 8), floats(2, 3, 2, 8), indices(0, 9, 2)],
     {"axis": 2, "circular": True}),
    ("reverse_sequence", ["f32[N, B, 4]", "i64[B]"], [floats(6, 3, 4), indices(0, 7, 3)], {}),
    ("det", ["f32[B, N, N]"], [floats(3, 4, 4)], {}),
    ("top_k", ["f32[B, N]"], [floats(3, 400)], {"k": 100}),
    ("top_k", ["f32[B, 300]"], [floats(3, 300)], {"k": 100}),
    ("top_k", ["f32[B, N]"], [floats(3, 40)], {"k": sym("N")}),
    ("argmax", ["f32[B, N]"], [floats(3, 40)], {"axis": 1}),
    ("prelu", ["f32[B, N, 4]", "f32[N, 1]"], [floats(3, 4, 4), floats(4, 1)], {}),
]  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2, None], ids=["one thread", "two threads", "C"])
@pytest.mark.parametrize("name", sorted({case[0] for case in CASES}))
def test_symbolic_extents(name: str, threads: int | None) -> None:
    for op, types, arrays, attrs in CASES:
        if op != name:
            continue
        func = Func.make("main", [parse_type(t) for t in types])
        func.set_attr("inputs", tuple([f"x{k}" for k in range(len(types))]))
        b = Builder(func.body)
        made = b.insert(OPS[op](*func.args, **attrs))
        b.emit(Return, *made.results)
        module = Module.make([func])
        want = run(module, list(arrays))
        target = cpu_target(threads) if threads else c_target()
        planned = compile_module(module, target, Options(verify_each=True)).planned
        assert planned is not None and not planned.host_steps
        exe = build(planned, target) if threads else CExecutable(planned)
        for got, expected in zip(exe.run(list(arrays)), want, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
