"""`grad` from function to function: names, states, outputs, orders, what cannot be asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from irc.ir.core import Builder, Value
from irc.ir.errors import Error
from irc.ir.interpret import run
from irc.ir.ops.autodiff import CustomGradient
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.types import parse_type
from irc.ir.verify import verify
from irc.passes.autodiff.grad import Grad, differentiate
from irc.passes.pipeline import parse_pipeline

Function = Callable[..., Func]


def const(b: Builder, value: Any) -> Value:
    return b.insert(Const(np.asarray(value))).result


def total(b: Builder, x: Value) -> Value:
    return b.reduce_sum(x, axes=tuple(range(x.tensor.rank)))


def named(types: dict[str, str], build: Callable[..., Any], outputs: tuple[str, ...]) -> Func:
    func = Func.make("f", [parse_type(t) for t in types.values()], list(types), outputs=outputs)
    b = Builder(func.body)
    b.emit(Return, *build(b, *func.args))
    verify(func)
    return func


@pytest.fixture
def model() -> Func:
    """loss = sum(w x^2), aux = w x, count = n."""

    def build(b: Builder, w: Value, x: Value, n: Value) -> list[Value]:
        y = b.mul(w, x)
        return [total(b, b.mul(y, x)), y, b.add(n, n)]

    types = {"w": "f64[3]", "x": "f64[3]", "n": "i64[]"}
    return named(types, build, ("loss", "aux", "count"))


W, X, N = np.array([1.0, 2, 3]), np.array([2.0, -1, 0.5]), np.asarray(4)


def test_results_stay_and_gradients_follow_by_name(model: Func) -> None:
    grown = differentiate(model)
    assert grown.outputs == ("loss", "aux", "count", "grad.w", "grad.x")
    loss, aux, count, gw, gx = run(grown, [W, X, N])
    assert loss == (W * X * X).sum() and count == 8
    np.testing.assert_array_equal(aux, W * X)
    np.testing.assert_allclose(gw, X * X)
    np.testing.assert_allclose(gx, 2 * W * X)
    assert len(model.returned) == 3, "the function given stays as it is"


def test_chosen_by_name_or_number(model: Func) -> None:
    for wrt in (["x"], [1], ["1"], [-2]):
        grown = differentiate(model, wrt, keep=False)
        assert grown.outputs == ("grad.x",)
        np.testing.assert_allclose(run(grown, [W, X, N])[0], 2 * W * X)


def test_cotangents_are_inputs(model: Func) -> None:
    grown = differentiate(model, ["w"], ["loss", "aux"], cotangents=True, keep=False)
    assert grown.inputs == ("w", "x", "n", "d_loss", "d_aux")
    seed = np.array([1.0, 10, 100])
    found = run(grown, [W, X, N, np.asarray(2.0), seed])[0]
    np.testing.assert_allclose(found, 2 * X * X + seed * X)


def test_several_scalars_are_summed() -> None:
    build = lambda b, x: [total(b, x), total(b, b.mul(x, x))]  # noqa: E731
    func = named({"x": "f64[3]"}, build, ("a", "b"))
    found = run(differentiate(func, outputs=["a", "b"], keep=False), [X])[0]
    np.testing.assert_allclose(found, 1 + 2 * X)


@pytest.mark.parametrize(
    ("wrt", "outputs", "code", "said"),
    [
        (["n"], None, "E0604", "no float"),
        (["ww"], None, "E0604", "no input 'ww'"),
        ([7], None, "E0604", "no input '7'"),
        (None, ["aux"], "E0605", "no scalar"),
        (None, ["count"], "E0604", "no float"),
        (None, ["los"], "E0604", "no output 'los'"),
    ],
)
def test_what_cannot_be_asked(model: Func, wrt: Any, outputs: Any, code: str, said: str) -> None:
    with pytest.raises(Error) as caught:
        differentiate(model, wrt, outputs)
    assert caught.value.code == code and said in caught.value.message


def test_states_stay_paired() -> None:
    build = lambda b, s, x: [b.add(s, x), b.mul(s, x)]  # noqa: E731
    func = named({"s": "f64[]", "x": "f64[]"}, build, ("s", "l"))
    func.set_attr("state", ((0, 0),))
    grown = differentiate(func, ["x"], ["l"])
    assert grown.state == ((0, 0),) and len(grown.returned) == 3
    assert differentiate(func, ["x"], ["l"], keep=False).state == ()


def test_the_pass_differentiates_the_function_named(model: Func) -> None:
    module = Module.make([model.copy(), named({"x": "f64[]"}, lambda b, x: [b.mul(x, x)], ("y",))])
    module.funcs[1].set_attr("sym", "main")
    (step,) = parse_pipeline("grad{func=f wrt=w+x}")
    assert step == Grad(func="f", wrt=("w", "x"))
    step.run(module)
    assert [len(f.returned) for f in module.funcs] == [5, 1]


def test_third_order() -> None:
    """x^5 + x^3 y, by differentiating again what was differentiated."""

    def build(b: Builder, x: Value, y: Value) -> list[Value]:
        cube = b.mul(b.mul(x, x), x)
        return [b.add(b.mul(cube, b.mul(x, x)), b.mul(cube, y))]

    func = named({"x": "f64[]", "y": "f64[]"}, build, ("z",))
    x, y = np.asarray(1.3), np.asarray(0.7)
    want = {
        "x": 5 * x**4 + 3 * x**2 * y,
        "xx": 20 * x**3 + 6 * x * y,
        "xxx": 60 * x**2 + 6 * y,
        "xy": 3 * x**2,
        "xxy": 6 * x,
        "yy": 0.0,
    }
    for path, value in want.items():
        grown = func
        for name in path:
            grown = differentiate(grown, [name], keep=False)
            verify(grown)
        np.testing.assert_allclose(run(grown, [x, y])[0], value, rtol=1e-12)


def test_a_gradient_of_ones_own_is_taken_and_differentiated(function: Function) -> None:
    """A rectifier whose gradient leaks a tenth, and what is no float beside it."""

    def build(b: Builder, x: Value, n: Value) -> Value:
        def forward(b: Builder, x: Value, n: Value) -> list[Value]:
            return [b.max(x, const(b, 0.0)), b.add(n, n)]

        def backward(b: Builder, x: Value, n: Value, *rest: Value) -> list[Value]:
            _, _, g, _ = rest
            slope = b.where(b.gt(x, const(b, 0.0)), b.mul(x, x), const(b, 0.1))
            return [b.mul(g, slope), n]

        made = b.insert(CustomGradient.make([x, n], forward, backward))
        return total(b, made.results[0])

    func = function(["f64[3]", "i64[]"], build)
    first = differentiate(func, [0], keep=False)
    np.testing.assert_allclose(run(first, [X, N])[0], np.where(X > 0, X * X, 0.1))
    second = differentiate(first, [0], cotangents=True, keep=False)
    np.testing.assert_allclose(run(second, [X, N, np.ones(3)])[0], np.where(X > 0, 2 * X, 0))


@pytest.mark.parametrize("narrow", ["f16", "bf16"])
def test_several_cotangents_are_added_in_f32(function: Function, narrow: str) -> None:
    """One large contribution and many small ones, each of which alone would be rounded away."""

    def build(b: Builder, x: Value, scale: Value) -> Value:
        y = x
        for _ in range(255):
            y = b.add(y, x)
        return b.add(y, b.mul(x, scale))  # the large one comes first on the way back

    grown = differentiate(function([f"{narrow}[]", f"{narrow}[]"], build), [0], keep=False)
    dtype = grown.args[0].tensor.dtype.np
    found = run(grown, [np.ones((), dtype), np.asarray(2048, dtype)])[0]
    assert found == np.asarray(2048 + 256, dtype)
