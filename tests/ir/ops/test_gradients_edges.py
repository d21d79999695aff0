"""Gradients where definitions end: zeros in products, NaN on the side not taken, repeated indices,
extents that a run decides, long sums in narrow types; and what the gradients are made of.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from irc.ir.core import Array, Builder, Value
from irc.ir.dims import sym
from irc.ir.interpret import run
from irc.ir.ops.control import Scan
from irc.ir.ops.core import Const, Func, Return
from irc.ir.types import TensorType, from_numpy, parse_type
from irc.ir.verify import verify
from irc.passes.autodiff.pullback import pullback

_spec = importlib.util.spec_from_file_location(
    "gradient_cases", Path(__file__).with_name("gradient_cases.py")
)
assert _spec is not None and _spec.loader is not None
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)

Build = Callable[..., Any]
NAN, INF = float("nan"), float("inf")


def made(build: Build, arrays: Sequence[Array], types: Sequence[str] | None = None) -> Func:
    """A function of the arrays (with these types) that returns what `build(b, *args)` gives."""
    found = [TensorType(from_numpy(a.dtype), a.shape) for a in arrays]
    func = Func.make("main", [parse_type(t) for t in types] if types else found)
    b = Builder(func.body)
    b.emit(Return, build(b, *func.args))
    verify(func)
    return func


def gradients(build: Build, *arrays: Any, dtype: str = "f64") -> list[Array]:
    """Those of the sum of the result."""
    given = [np.asarray(a) for a in arrays]
    func = made(build, given)
    ones = np.ones(func.returned[0].tensor.shape, func.returned[0].tensor.dtype.np)
    return run(cases.pulled(func, dtype), [*given, ones])


def const(b: Builder, value: Any, dtype: Any = np.float64) -> Value:
    return b.insert(Const(np.asarray(value, dtype))).result


def test_untaken_side() -> None:
    """What `where` does not take has a zero, whatever stands there."""
    x, y = np.array([1.0, -2.0, 3.0]), np.array([-1.0, 2.0, NAN])
    taken = np.array([True, False, True])
    of_x, of_y = gradients(lambda b, c, x, y: b.where(c, x, b.log(y)), taken, x, y)
    np.testing.assert_array_equal(of_x, [1, 0, 1])
    np.testing.assert_array_equal(of_y[:2], [0, 0.5])
    (grad,) = gradients(lambda b, x: b.where(b.gt(x, const(b, 0)), x, const(b, NAN)), x)
    np.testing.assert_array_equal(grad, [1, 0, 1])


def test_masked_logarithm() -> None:
    """log(0) behind a mask that also guards its operand gives no NaN, to the second order."""

    def build(b: Builder, x: Value) -> Value:
        zero, one = const(b, 0.0), const(b, 1.0)
        inside = b.gt(x, zero)
        return b.where(inside, b.log(b.where(inside, x, one)), zero)  # type: ignore[no-any-return]

    x = np.array([0.0, 2.0, -1.0])
    first = cases.pulled(made(build, [x]))
    grads = run(cases.pulled(first), [x, np.ones(3), np.ones(3)])
    np.testing.assert_allclose(grads[0], [0, -0.25, 0])
    np.testing.assert_allclose(grads[1], [0, 0.5, 0])


@pytest.mark.parametrize("y", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_power_of_zero(y: float) -> None:
    """0**y: nothing but a true pole is infinite, in the exponent's gradient too."""
    of_x, of_y = gradients(lambda b, x, y: b.pow(x, y), [0.0], [y])
    np.testing.assert_array_equal(of_x, [{0.0: 0.0, 0.5: INF, 1.0: 1.0}.get(y, 0.0)])
    np.testing.assert_array_equal(of_y, [0.0])
    (constant,) = gradients(lambda b, x: b.pow(x, const(b, y)), [0.0])
    np.testing.assert_array_equal(constant, of_x)
    func = made(lambda b, x, y: b.pow(x, y), [np.zeros(1), np.zeros(1)])
    if y in (0.0, 2.0, 3.0):
        second = cases.pulled(cases.pulled(func))
        assert np.isfinite(run(second, [[0.0], [y], [1.0], [1.0], [1.0]])).all()


def test_norm_at_zero() -> None:
    """The norm of zeros has gradient 0, and a second order without NaN; sqrt(0) has infinity."""
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    func = made(lambda b, x: b.reduce_l2(x, axes=(1,)), [x])
    first = cases.pulled(func)
    np.testing.assert_allclose(run(first, [x, np.ones(2)])[0], [[0, 0], [0.6, 0.8]])
    assert np.isfinite(run(cases.pulled(first), [x, np.ones(2), np.ones((2, 2))])[0]).all()
    assert gradients(lambda b, x: b.sqrt(x), [0.0])[0] == INF


def test_log_sum_exp_of_nothing() -> None:
    """Rows of minus infinity (all masked) have no gradient; the others' elements at minus infinity
    none either.
    """
    x = np.array([[-INF, -INF], [0.0, -INF]])
    np.testing.assert_array_equal(
        gradients(lambda b, x: b.reduce_log_sum_exp(x, axes=(1,)), x)[0], [[0, 0], [1, 0]]
    )


def test_nan_extreme() -> None:
    """No element equals a NaN; the other rows do not feel it."""
    (grad,) = gradients(lambda b, x: b.reduce_max(x, axes=(1,)), [[NAN, 1.0], [2.0, 2.0]])
    np.testing.assert_array_equal(grad, [[0, 0], [0.5, 0.5]])


PRODUCTS: list[tuple[str, dict[str, Any]]] = [
    ("reduce_prod", {"axes": (1,)}),
    ("reduce_prod", {}),
    ("reduce_prod", {"axes": (0,), "keepdims": True}),
    *[("cum_prod", {"axis": axis, "exclusive": exclusive, "reverse": reverse})
      for axis in (0, 1) for exclusive in (False, True) for reverse in (False, True)],
]  # fmt: skip


@pytest.mark.parametrize(("name", "attrs"), PRODUCTS)
def test_zeros_in_products(name: str, attrs: dict[str, Any]) -> None:
    """Products with no, one and two zeros, of the first and the second order."""
    x = np.array([[1.5, -2.0, 0.5], [2.0, 0.0, 3.0], [0.0, 1.5, 0.0]])
    func = made(lambda b, x: getattr(b, name)(x, **attrs), [x])
    first = cases.slope_holds(func, [x])
    assert first is not None
    assert cases.slope_holds(first, [x, *cases.cotangents(func)]) is not None


def test_singular_determinant() -> None:
    """The cofactors, where there is no inverse; a 1 by 1 matrix has one cofactor, 1."""
    (grad,) = gradients(lambda b, x: b.det(x), [[[1.0, 2.0], [2.0, 4.0]]])
    np.testing.assert_allclose(grad, [[[4, -2], [-2, 1]]])
    np.testing.assert_array_equal(gradients(lambda b, x: b.det(x), [[0.0]])[0], [[1]])


def test_last_update_wins() -> None:
    """Of equal indices the update that stays has the cotangent, and what it replaced none."""
    x, updates, index = np.arange(3.0), np.arange(4.0), np.array([1, -3, 1, 0])
    of_x, of_u = gradients(lambda b, x, i, u: b.scatter_elements(x, i, u), x, index, updates)
    np.testing.assert_array_equal(of_x, [0, 0, 1])
    np.testing.assert_array_equal(of_u, [0, 0, 1, 1])
    of_x, of_u = gradients(
        lambda b, x, i, u: b.scatter_nd(x, i, u), np.ones((2, 2)), [[1], [1]], np.ones((2, 2))
    )
    np.testing.assert_array_equal(of_x, [[1, 1], [0, 0]])
    np.testing.assert_array_equal(of_u, [[0, 0], [1, 1]])


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_compress(axis: int | None) -> None:
    """Back to the elements or slices that were chosen."""
    x, keep = np.arange(6.0).reshape(2, 3), np.array([False, True])
    func = made(lambda b, x, c: b.mul(y := b.compress(x, c, axis=axis), y), [x, keep])
    found = run(func, [x, keep])[0]
    (grad,) = run(cases.pulled(func), [x, keep, np.ones_like(found)])
    want = np.zeros_like(x)
    want[{None: (0, 1), 0: (1,), 1: (slice(None), 1)}[axis]] = 1
    np.testing.assert_array_equal(grad, 2 * x * want)


def test_unique() -> None:
    """The element found first has the cotangent of its value."""
    x = np.array([3.0, 1.0, 3.0, 2.0])
    func = made(lambda b, x: b.mul(v := b.unique(x)[0], v), [x])
    (grad,) = run(cases.pulled(func), [x, np.ones(3)])
    np.testing.assert_array_equal(grad, [6, 2, 0, 4])


SYMBOLIC: list[tuple[str, Build]] = [
    ("matmul", lambda b, n, x, w: b.matmul(x, w)),
    ("mean", lambda b, n, x, w: b.reduce_mean(x, axes=(0,))),
    ("max", lambda b, n, x, w: b.reduce_max(x, axes=(0,), keepdims=True)),
    ("prod", lambda b, n, x, w: b.reduce_prod(x)),
    ("cum_prod", lambda b, n, x, w: b.cum_prod(x)),
    ("norm", lambda b, n, x, w: b.reduce_l2(x)),
    ("bias", lambda b, n, x, w: b.add(x, b.reduce_sum(w, axes=(1,)))),
    ("turned", lambda b, n, x, w: b.transpose(b.reshape(x, shape=(3, n)), perm=(1, 0))),
    ("slice", lambda b, n, x, w: b.slice(x, starts=(n - 1, 2), sizes=(n, 2), steps=(-1, -2))),
    ("concat", lambda b, n, x, w: b.concat(x, w, x, axis=0)),
    ("edge", lambda b, n, x, w: b.pad(x, low=(2, 0), high=(n, 1), mode="edge")),
    ("reflect", lambda b, n, x, w: b.pad(x, low=(3, 0), high=(1, 2), mode="reflect")),
    ("wrap", lambda b, n, x, w: b.pad(x, low=(-1, 1), high=(n, 0), mode="wrap")),
    ("take", lambda b, n, x, w: b.take(x, const(b, [0, 0], np.int64), axis=0)),
    ("top", lambda b, n, x, w: b.top_k(x, k=2, axis=1)[0]),
    ("pack", lambda b, n, x, w: b.pack(x, axes=(0,), blocks=(4,))),
]


@pytest.mark.parametrize(("name", "build"), SYMBOLIC, ids=[n for n, _ in SYMBOLIC])
def test_symbolic(name: str, build: Build) -> None:
    """Extents known to the run alone: one program for each batch."""
    rng = np.random.default_rng(2)
    for batch in (1, 2, 5):
        arrays = [rng.standard_normal((batch, 3)), rng.standard_normal((3, 3))]
        func = made(partial(given, build, sym("N")), arrays, ["f64[N, 3]", "f64[3, 3]"])
        weights = [rng.standard_normal(np.shape(v)) for v in run(func, arrays)]
        fixed = made(partial(given, build, batch), arrays)
        found, want = [run(cases.pulled(f), [*arrays, *weights]) for f in (func, fixed)]
        for g, w in zip(found, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-12)
        assert cases.slope_holds(fixed, arrays) is not None


def given(build: Build, extent: Any, b: Builder, *args: Value) -> Any:
    """What `build` makes with that number of rows."""
    return build(b, extent, *args)


BF16 = ml_dtypes.bfloat16


@pytest.mark.parametrize("dtype", [BF16, np.float16])
def test_narrow_sums(dtype: Any) -> None:
    """Long sums of narrow cotangents are rounded once: 1 + 1 + ... does not stall."""
    name, count = from_numpy(np.dtype(dtype)).name, 3000
    one = np.ones(1, dtype)
    (grad,) = gradients(lambda b, x: b.broadcast_to(x, shape=(count,)), one, dtype=name)
    assert grad == dtype(count)
    index = np.zeros(count, np.int64)
    (grad,) = gradients(lambda b, x, i: b.take(x, i), one, index, dtype=name)
    assert grad == dtype(count)
    (grad,) = gradients(lambda b, x, i: b.gather_elements(x, i), one, index, dtype=name)
    assert grad == dtype(count)
    row = np.ones((count, 1), dtype)
    _, grad = gradients(lambda b, x, w: b.matmul(x, w), row, np.ones((1, 1), dtype), dtype=name)
    assert grad == dtype(count)

    def often(b: Builder, x: Value) -> Value:
        return b.concat(*[x] * 600, axis=0)  # type: ignore[no-any-return]

    assert gradients(often, one, dtype=name)[0] == dtype(600)


def test_mean_of_many() -> None:
    """The count of a mean is no f16 beyond 65504."""
    (grad,) = gradients(lambda b, x: b.reduce_mean(x), np.ones(70000, np.float16), dtype="f16")
    np.testing.assert_allclose(grad.astype(np.float64), 1 / 70000, rtol=0.02)


SHAPE = {"reshape", "transpose", "broadcast_to", "const"}
PARTS: list[tuple[str, Build, list[tuple[int, ...]], dict[str, int]]] = [
    ("slice", lambda b, x: b.slice(x, starts=(1, 0), sizes=(2, 3)), [(4, 3)], {"pad": 1}),
    ("pad", lambda b, x: b.pad(x, low=(1, 0), high=(0, 2)), [(4, 3)], {"pad": 1}),
    ("concat", lambda b, x, y: b.concat(x, y, axis=0), [(4, 3), (2, 3)], {"slice": 2}),
    ("take", lambda b, x: b.take(x, const(b, [2, 2, 0], np.int64)), [(4, 3)], {"scatter_nd": 1}),
    ("cum_sum", lambda b, x: b.cum_sum(x), [(4, 3)], {"cum_sum": 1}),
    ("top_k", lambda b, x: b.top_k(x, k=2)[0], [(4, 3)], {"scatter_elements": 1}),
    ("matmul", lambda b, x, w: b.matmul(x, w), [(2, 4, 3), (3, 5)], {"contract": 2}),
    ("rows", lambda b, x, w: b.matmul(x, w), [(4, 3), (2, 3, 5)], {"contract": 2}),
    ("spread", lambda b, x, w: b.matmul(x, w), [(2, 1, 4, 3), (1, 5, 3, 2)], {"contract": 2}),
    ("relu", lambda b, x: b.relu(x), [(4, 3)], {"le": 1, "where": 1}),
    ("tanh", lambda b, x: b.tanh(x), [(4, 3)], {"mul": 2, "sub": 1}),
    ("sum", lambda b, x: b.reduce_sum(x, axes=(1,)), [(4, 3)], {}),
    ("square", lambda b, x: b.reduce_sum_square(x, axes=(1,)), [(4, 3)], {"add": 1, "mul": 1}),
    ("cast", lambda b, x: b.cast(x, to=parse_type("f32[]").dtype), [(4, 3)], {"cast": 1}),
]


@pytest.mark.parametrize(("name", "build", "shapes", "want"), PARTS, ids=[p[0] for p in PARTS])
def test_made_of(name: str, build: Build, shapes: Any, want: dict[str, int]) -> None:
    """The reverse of an op is as few ops as can be, index maps and constants aside."""
    func = made(build, [np.ones(s) for s in shapes])
    (result,) = func.returned
    assert func.body.last is not None
    func.body.last.erase()
    forward = len(func.body)
    pullback(Builder(func.body), [result], [func.body.add_arg(result.type)], func.args)
    counts = Counter(op.name for op in list(func.body)[forward:] if op.name not in SHAPE)
    assert counts == want


def test_cumulative_product_is_linear() -> None:
    """One pass over the elements, not a matrix of them."""
    func = made(lambda b, x: b.cum_prod(x), [np.ones(5)])
    grown = cases.pulled(func)
    assert sum(isinstance(op, Scan) for op in grown.body) == 1
