"""`apply`: one op on arrays by every way there is - evaluate, generic or decomposition, own
loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import irc.ir.ops  # noqa: F401  registers every op
from irc.ir.core import OPS, Array, Builder, Op
from irc.ir.interpret import run
from irc.ir.interpret_loops import run_kernel
from irc.ir.ops.convert import widen
from irc.ir.ops.core import Func, Return
from irc.ir.types import BufferType, TensorType, from_numpy, parse_type

TOLERANCE = {2: 2e-2, 1: 0.13}


def call(
    name: str, arrays: Sequence[Array | None], types: Sequence[str] | None, attrs: Any
) -> tuple[Func, Op]:
    """A function of the arrays (with these types, which may hold symbols) that returns the op's
    results.
    """
    given = [a for a in arrays if a is not None]
    found = [TensorType(from_numpy(a.dtype), a.shape) for a in given]
    func = Func.make("main", [parse_type(t) for t in types] if types else found)
    args = iter(func.args)
    b = Builder(func.body)
    op = b.insert(OPS[name](*[None if a is None else next(args) for a in arrays], **attrs))
    b.emit(Return, *op.results)
    return func, op


def close(got: Array, want: Array) -> None:
    """Equal; floats within a few roundings of their type."""
    assert got.dtype == want.dtype and got.shape == want.shape
    bound = TOLERANCE.get(want.dtype.itemsize, 1e-5)
    if from_numpy(want.dtype).is_float:
        got, want = widen(got).astype(np.float64), widen(want).astype(np.float64)
        np.testing.assert_allclose(got, want, rtol=bound, atol=bound)
    else:
        np.testing.assert_array_equal(got, want)


def by_loops(op: Op, arrays: Sequence[Array], results: Sequence[Array]) -> list[Array]:
    """The results of the op's own loops, checked access by access."""
    shapes = [*arrays, *results]
    types = [BufferType(from_numpy(a.dtype), a.shape, "heap") for a in shapes]
    kernel = Func.make("k", types, kind="kernel", outputs=[f"y{k}" for k in range(len(results))])
    args = kernel.args
    b = Builder(kernel.body)
    op.loops(b, args[: len(arrays)], args[len(arrays) :])  # type: ignore[attr-defined]
    b.emit(Return)
    outs = [np.zeros_like(r) for r in results]
    assert run_kernel(kernel, [*arrays, *outs], check=True) == 0
    return outs


@pytest.fixture
def apply() -> Callable[..., Any]:
    """`apply("matmul", x, y, types=["f32[N, 3]", ...], attr=...)` gives the result(s) of
    evaluate.
    """

    def apply_op(
        name: str, *arrays: Array | None, types: Sequence[str] | None = None, **attrs: Any
    ) -> Any:
        inputs = [a for a in arrays if a is not None]
        func, op = call(name, arrays, types, attrs)
        want = run(func, inputs)
        b = Builder(func.body, before=op)
        if hasattr(op, "loops") and types is None:
            for g, w in zip(by_loops(op, inputs, want), want, strict=True):
                close(g, w)
        for how in ("generic", "decompose"):
            if hasattr(op, how):
                made = op.generic(b, *op.operands) if how == "generic" else op.decompose(b)
                op.replace_by(made if isinstance(made, tuple) else (made,))
                for g, w in zip(run(func, inputs), want, strict=True):
                    close(np.asarray(g), w)
                break
        return want[0] if len(want) == 1 else want

    return apply_op


@pytest.fixture
def gradients() -> Callable[..., Any]:
    """`gradients("conv", [x, w], [g], strides=...)` runs the op's `vjp` for cotangents of its
    results: one array or None per operand.  Only float operands are asked for.
    """

    def pull(
        name: str,
        arrays: Sequence[Array],
        cotangents: Sequence[Array],
        types: Sequence[str] | None = None,
        **attrs: Any,
    ) -> list[Array | None]:
        given = [*arrays, *cotangents]
        found = [TensorType(from_numpy(a.dtype), a.shape) for a in given]
        func = Func.make("main", [parse_type(t) for t in types] if types else found)
        b = Builder(func.body)
        op = b.insert(OPS[name](*func.args[: len(arrays)], **attrs))
        made = op.vjp(b, *func.args[len(arrays) :])  # type: ignore[attr-defined]
        b.emit(Return, *[v for v in made if v is not None])
        values = iter(run(func, given))
        return [None if v is None else next(values) for v in made]

    return pull
