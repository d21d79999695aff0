"""stop_gradient, recompute, remat and custom_gradient: values, types that do not fit, text, going
away.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import irc
from irc.ir.core import Block, Builder, Value
from irc.ir.errors import Error, VerifyError
from irc.ir.interpret import run
from irc.ir.ops.autodiff import CustomGradient, Remat
from irc.ir.ops.control import block_of
from irc.ir.ops.core import Func, Module, Return
from irc.ir.target import Target
from irc.ir.text import check_round_trip
from irc.ir.types import TensorType, f32, i64
from irc.ir.verify import verify
from irc.passes.pipeline import compile_module, parse_pipeline

V3 = TensorType(f32, (3,))


def square(b: Builder, x: Value) -> list[Value]:
    return [b.mul(x, x)]


def doubled(b: Builder, x: Value, y: Value, g: Value) -> list[Value]:
    return [b.mul(g, b.add(x, x))]


def function(build: Callable[[Builder, Value], Value]) -> Func:
    func = Func.make("main", [V3], ["x"])
    b = Builder(func.body)
    b.emit(Return, build(b, func.args[0]))
    verify(func)
    check_round_trip(func)
    return func


BUILDS = {
    "stop_gradient": lambda b, x: b.mul(b.stop_gradient(x), x),
    "recompute": lambda b, x: b.mul(b.recompute(x, b.exp(x)), x),
    "remat": lambda b, x: b.insert(Remat.make([x], square)).result,
    "custom_gradient": lambda b, x: b.insert(CustomGradient.make([x], square, doubled)).result,
}


@pytest.mark.parametrize("name", BUILDS)
def test_values_and_what_is_left_when_compiled(name: str) -> None:
    func = function(BUILDS[name])
    x = np.array([1, -2, 3], np.float32)
    np.testing.assert_array_equal(run(func, [x])[0], x * x)
    compiled = compile_module(Module.make([func.copy()]), Target("plain")).module
    assert not [op for op in compiled.walk() if op.name == name]
    for target in ("cpu", "c"):
        exe = irc.compile(Module.make([func.copy()]), target=target)
        np.testing.assert_array_equal(exe.run([x])[0], x * x)


@pytest.mark.parametrize("name", BUILDS)
def test_canonical_passes_leave_them_for_differentiation(name: str) -> None:
    module = Module.make([function(BUILDS[name])])
    for step in parse_pipeline("canonicalize,cse,hoist,canonicalize"):
        module = step.run(module)
    verify(module)
    assert [op for op in module.walk() if op.name == name]


def test_copies_with_other_labels_are_not_merged() -> None:
    def build(b: Builder, x: Value) -> Value:
        y = b.exp(x)
        first, second = b.recompute(x, y), b.recompute(x, y)
        third = b.recompute(x, y, label="copies")
        return b.add(b.add(b.exp(first), b.exp(second)), b.add(b.exp(third), y))

    module = Module.make([function(build)])
    for step in parse_pipeline("canonicalize,cse"):
        module = step.run(module)
    assert len([op for op in module.walk() if op.name == "exp"]) == 3


def test_regions_must_fit() -> None:
    (x,) = Block([V3]).args
    other = TensorType(i64, ())
    good, back = block_of([V3], square), block_of([V3, V3, V3], doubled)
    cases: list[tuple[str, Callable[[], object]]] = [
        ("remat (C1)", lambda: Remat(x, regions=[block_of([other], lambda b, y: [y])])),
        ("(C1)", lambda: CustomGradient(x, regions=[block_of([], lambda b: []), back])),
        ("(C2)", lambda: CustomGradient(x, regions=[good, block_of([V3], square)])),
        (
            "(C3)",
            lambda: CustomGradient(
                x, regions=[good, block_of([V3, V3, V3], lambda b, x, y, g: [b.cast(x, to=i64)])]
            ),
        ),
    ]
    for constraint, make in cases:
        with pytest.raises(Error) as caught:
            make()
        assert caught.value.code == "E0340" and constraint in caught.value.message


def test_a_custom_gradient_reads_its_inputs_alone() -> None:
    func = Func.make("main", [V3], ["x"])
    b = Builder(func.body)
    outer = b.exp(func.args[0])
    made = CustomGradient.make([func.args[0]], lambda b, x: [b.mul(x, outer)], doubled)
    b.emit(Return, b.insert(made).result)
    with pytest.raises(VerifyError, match="not visible"):
        verify(func)


def test_equal_ops_outside_do_not_enter_a_custom_gradient() -> None:
    def build(b: Builder, x: Value) -> Value:
        one = b.iota(shape=(3,), dtype=f32)
        inner = lambda b, x: [b.mul(x, b.iota(shape=(3,), dtype=f32))]  # noqa: E731
        return b.add(one, b.insert(CustomGradient.make([x], inner, doubled)).result)

    module = Module.make([function(build)])
    for step in parse_pipeline("cse"):
        module = step.run(module)
    verify(module)
