"""Sums of products over the rounds of a scan: what becomes one product, what stays carried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from irc.ir.core import Builder, Value
from irc.ir.interpret import run
from irc.ir.ops.control import Scan
from irc.ir.ops.core import Func, Return
from irc.ir.types import parse_type
from irc.ir.verify import verify
from irc.passes.autodiff.grad import differentiate

STEPS, BATCH, WIDE = 5, 2, 4


def reversed_scan(body: Any, weights: str, dtype: str = "f64", batch: int = BATCH) -> Func:
    """The gradient of a scan that carries h [batch, 4] over x by `body(b, h, x, w)`."""
    types = [
        f"{dtype}[{STEPS}, {batch}, {WIDE}]",
        f"{dtype}[{weights}]",
        f"{dtype}[{batch}, {WIDE}]",
    ]
    func = Func.make("main", [parse_type(t) for t in types])
    b = Builder(func.body)
    x, w, start = func.args

    def step(b: Builder, h: Value, given: Value) -> Sequence[Value]:
        new = body(b, h, given, w)
        return new, new

    b.emit(Return, b.insert(Scan.make([start], [x], step)).results[1])
    made = differentiate(func, [0, 1, 2], cotangents=True, keep=False)
    verify(made)
    return made


def scans(func: Func) -> list[Scan]:
    return [op for op in func.body if isinstance(op, Scan)]


def cell(b: Builder, h: Value, x: Value, w: Value) -> Any:
    return b.tanh(b.add(x, b.contract(h, w, equation="bh,gh->bg")))


def twice(b: Builder, h: Value, x: Value, w: Value) -> Any:
    """The matrix stands in two products."""
    inner = b.contract(h, w, equation="bh,gh->bg")
    return b.tanh(b.add(inner, b.contract(b.sin(x), w, equation="bh,gh->bg")))


def scaled(b: Builder, h: Value, x: Value, w: Value) -> Any:
    return b.tanh(b.add(b.mul(h, w), x))


@pytest.mark.parametrize(
    ("body", "weights", "carried"), [(cell, "4, 4", 1), (twice, "4, 4", 1), (scaled, "4", 2)]
)
def test_what_is_carried(body: Any, weights: str, carried: int) -> None:
    """Sums of products leave the scan, others stay; all are the slopes."""
    func = reversed_scan(body, weights)
    assert [s.carried for s in scans(func)] == [1, carried]
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(-1, 1, [int(e) for e in a.tensor.shape]) for a in func.args]
    grads = run(func, arrays)
    along = [rng.uniform(-1, 1, a.shape) for a in arrays[:3]]

    def value(sign: float) -> float:
        x, w, h = [a + sign * 1e-6 * d for a, d in zip(arrays[:3], along, strict=True)]
        total = 0.0
        for given, weight in zip(x, arrays[3], strict=True):
            if body is scaled:
                h = np.tanh(h * w + given)
            elif body is twice:
                h = np.tanh(h @ w.T + np.sin(given) @ w.T)
            else:
                h = np.tanh(given + h @ w.T)
            total += float(np.sum(h * weight))
        return total

    want = (value(1) - value(-1)) / 2e-6
    got = sum([float(np.sum(g * d)) for g, d in zip(grads, along, strict=True)])
    np.testing.assert_allclose(got, want, rtol=1e-7)


def test_a_stack_larger_than_the_total_is_not_made() -> None:
    """64 rows times 4 by 4: the factors outweigh the matrix, and it stays carried."""

    def body(b: Builder, h: Value, x: Value, w: Value) -> Any:
        product = b.contract(b.sin(h), w, equation="bh,gh->bg")
        return b.add(b.mul(h, h), b.contract(b.sin(product), w, equation="bh,gh->bg"))

    assert [s.carried for s in scans(reversed_scan(body, "4, 4", batch=64))] == [1, 2]


def test_narrow_sums_are_wide() -> None:
    """bf16 factors are summed in f32."""
    func = reversed_scan(cell, "4, 4", "bf16")
    assert [s.carried for s in scans(func)] == [1, 1]
    products = [op for op in func.body if op.name == "contract"]
    assert [op.result.tensor.dtype.name for op in products] == ["f32"]
