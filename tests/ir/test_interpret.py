"""The reference interpreter: dims, types, regions, `generic` by brute force, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irc.ir import interpret_generic
from irc.ir.core import Builder, Op, attr, operand, region
from irc.ir.dims import DimLike, evaluate, max_, min_, sym
from irc.ir.dims_grid import evaluate_grid
from irc.ir.errors import Error
from irc.ir.interpret import Interpreter, input_names, run
from irc.ir.ops.core import Func, Module
from irc.ir.parse import parse
from irc.ir.text import check_round_trip
from irc.ir.types import Type
from irc.ir.verify import verify


class Repeat(Op, name="test.repeat"):
    """Runs its region `times` times on x, with outer values visible."""

    x = operand()
    times = attr(object)
    body = region()

    def result_types(self) -> tuple[Type, ...]:
        return (self.x.type,)

    def interpret(self, interp: Interpreter, x: Any) -> Any:
        for _ in range(interp.attributes(self)["times"]):
            (x,) = interp.block(self.body, [x])
        return x


class Keep(Op, name="test.keep"):
    """The positive elements of a vector: an extent that only the data know."""

    memoise = False
    x = operand()
    type = attr(Type, implied=True)

    def result_types(self) -> tuple[Type, ...]:
        return (self.type,)

    @staticmethod
    def evaluate(x: Any, type: Type) -> Any:
        return x[x > 0]


def program(text: str) -> Module:
    module = parse(text)
    verify(module)
    check_round_trip(module)
    return module


SUMS = """func @main(%x: f32[N, 4], %y: f32[4]) -> (f32[N, 4], f32[N, 4]) {
  %0 = add(%x, %y) : f32[N, 4] @"first"
  %1 = mul(%0, %x) : f32[N, 4]
  return %0, %1
}"""
X = np.arange(12, dtype=np.float32).reshape(3, 4)
Y = np.ones(4, np.float32)


def test_inputs_by_position_and_by_name() -> None:
    module = program(SUMS)
    for inputs in ([X, Y], {"y": Y, "x": X}, [X.tolist(), [1, 1, 1, 1]]):
        a, b = run(module, inputs)
        np.testing.assert_array_equal(a, X + 1)
        np.testing.assert_array_equal(b, (X + 1) * X)
        assert a.dtype == np.float32
    assert run(module.main, [X, Y])[0][0, 0] == 1


def test_observe_sees_every_value() -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []
    run(program(SUMS), [X, Y], lambda value, array: seen.append((str(value.op.loc), array.shape)))  # type: ignore[union-attr]
    assert seen == [("first", (3, 4)), ("None", (3, 4))]


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ([X], "E0501"), ({"x": X}, "E0501"), ({"x": X, "y": Y, "z": Y}, "E0501"),
        ([X, Y.astype(np.float64)], "E0503"), ([X[0], Y], "E0503"), ([X[:, :3], Y], "E0502"),
    ],
)  # fmt: skip
def test_wrong_inputs(inputs: Any, code: str) -> None:
    with pytest.raises(Error) as caught:
        run(program(SUMS), inputs)
    assert caught.value.code == code


def test_dims_bind_once_and_contradict_later() -> None:
    module = program("func @main(%x: f32[N], %y: f32[N]) { return }")
    run(module, [Y, Y])
    with pytest.raises(Error, match="E0502"):
        run(module, [Y, Y[:2]])


def test_linear_dims_are_solved() -> None:
    func = program("func @main(%x: f32[2*N + 1]) { return }").main
    for size, fits in [(7, True), (6, False), (1, True), (0, False)]:
        try:
            run(func, [np.zeros(size, np.float32)])
            assert fits
        except Error as error:
            assert not fits and error.code in ("E0502", "E0323")


def test_unequal_extents_of_unknown_dims_are_found_at_run_time() -> None:
    module = program("func @main(%x: f32[N], %y: f32[M]) {\n %0 = add(%x, %y)\n return %0\n}")
    assert run(module, [Y, Y])[0].shape == (4,)
    with pytest.raises((Error, ValueError)):
        run(module, [Y, Y[:3]])
    with pytest.raises(Error, match="E0502"):
        run(module, [Y[:1], Y[:3]])  # numpy would broadcast; the type says f32[N]


def test_extents_from_data() -> None:
    module = program(
        "func @main(%x: f32[N]) -> f32[K] {\n %0 = test.keep(%x) : f32[K]\n"
        " %1 = add(%0, %0) : f32[K]\n return %1\n}"
    )
    np.testing.assert_array_equal(run(module, [np.array([-1, 2, 3], np.float32)])[0], [4, 6])


def test_regions_see_outer_values_and_dims() -> None:
    module = program("""func @main(%x: f32[N], %y: f32[N]) -> f32[N] {
  %0 = test.repeat(%x) {times = N + 1} (%a: f32[N]) {
    %1 = add(%a, %y) : f32[N]
    yield %1
  } : f32[N]
  %2 = add(%0, %y) : f32[N]
  return %2
}""")
    np.testing.assert_array_equal(run(module, [Y * 0, Y])[0], [6] * 4)


def test_memory_of_dead_values_goes() -> None:
    module = program(SUMS)
    interpreter = Interpreter(module)
    interpreter.func(module.main, [X, Y])
    assert module.main.args[0] not in interpreter.env
    assert module.main.returned[1] in interpreter.env


def test_fused_is_transparent() -> None:
    module = program("""func @main(%x: f32[N], %y: f32[N]) -> (f32[N], f32[N]) {
  %0, %1 = fused(%x, %y) (%a: f32[N], %b: f32[N]) {
    %2 = add(%a, %b) : f32[N]
    yield %2, %a
  } : f32[N], f32[N]
  return %1, %0
}""")
    a, b = run(module, [X[0], Y])
    np.testing.assert_array_equal(a, X[0])
    np.testing.assert_array_equal(b, X[0] + 1)


def test_a_kernel_op_has_no_value() -> None:
    module = parse("func @main() {\n %0 = loop.alloc : buffer<f32[4], heap>\n return\n}")
    with pytest.raises(Error, match="E0504"):
        run(module, [])


MATMUL = """func @main(%x: f32[M, K], %w: f32[K, N]) -> f32[M, N] {
  %0 = generic(%x, %w) {iterators = [["m", M, "parallel"], ["n", N, "parallel"], ["k", K,
  "reduction"]], maps = [[m, k], [k, n]], out_maps = [[m, n]], init = [0.5], acc_types = [!f32]}
  (%a: f32, %b: f32) {
    %p = mul(%a, %b) : f32
    yield %p
  } (%s: f32, %t: f32) {
    %q = add(COMBINE) : f32
    yield %q
  } (%r: f32) {
    yield %r
  } : f32[M, N]
  return %0
}"""


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 1, 1), (2, 0, 3), (0, 3, 2), (2, 70, 3)])
@pytest.mark.parametrize("order", ["%s, %t", "%t, %s"])
def test_a_reduction_runs_in_order(
    shape: tuple[int, int, int], order: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpret_generic, "CHUNK", chunk)
    m, k, n = shape
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((m, k)).astype("f"), rng.standard_normal((k, n)).astype("f")
    expected = np.full((m, n), 0.5, np.float32)
    for step in range(k):
        expected = expected + x[:, step : step + 1] * w[step]
    (found,) = run(program(MATMUL.replace("COMBINE", order)), [x, w])
    np.testing.assert_array_equal(found, expected)


def generic(
    attributes: str, body: str, operands: str = "%x", types: str = "%a: f32", result: str = "f32[M]"
) -> Module:
    return program(
        f"func @main(%x: f32[N], %i: i64[M]) -> {result} {{\n"
        f"  %0 = generic({operands}) {{{attributes}}} ({types}) {{ {body} }} : {result}\n"
        "  return %0\n}"
    )


def test_guards_and_fills() -> None:
    """A window over both ends: indices out of bounds and negative guards give the fill."""
    module = generic(
        'iterators = [["o", M, "parallel"]], maps = [[2*o - 1]], out_maps = [[o]], '
        "fills = [-1.0], where = [[2 - o]]",
        "yield %a",
    )
    x = np.arange(10, dtype=np.float32)
    (found,) = run(module, [x[:4], np.zeros(5, np.int64)])
    np.testing.assert_array_equal(found, [-1, 1, 3, -1, -1])
    (empty,) = run(module, [x[:0], np.zeros(2, np.int64)])
    np.testing.assert_array_equal(empty, [-1, -1])


def test_outside_without_fill_is_an_error() -> None:
    module = generic(
        'iterators = [["o", M, "parallel"]], maps = [[o + 1]], out_maps = [[o]]', "yield %a"
    )
    assert run(module, [Y, np.zeros(3, np.int64)])[0].shape == (3,)
    with pytest.raises(Error, match="E0505"):
        run(module, [Y, np.zeros(4, np.int64)])


def test_gather_through_data() -> None:
    module = generic(
        'iterators = [["o", M, "parallel"]], maps = [[o], [_v0 // 2]], out_maps = [[M - 1 - o]]',
        "yield %b", "%i, %x", "%a: i64, %b: f32",
    )  # fmt: skip
    x = np.arange(4, dtype=np.float32) * 10
    (found,) = run(module, [x, np.array([0, 7, 3])])
    np.testing.assert_array_equal(found, [10, 30, 0])
    for bad in ([8], [-1]):
        with pytest.raises(Error, match="E0505"):
            run(module, [x, np.array(bad)])


def test_unwritten_elements_are_poisoned() -> None:
    module = generic(
        'iterators = [["o", M, "parallel"]], maps = [[o]], out_maps = [[2*o]]',
        "yield %a",
        result="f32[2*M]",
    )
    (found,) = run(module, [Y, np.zeros(2, np.int64)])
    assert found[::2].tolist() == [1, 1] and np.isnan(found[1::2]).all()
    outside = generic(
        'iterators = [["o", M, "parallel"]], maps = [[o]], out_maps = [[2*o]]', "yield %a"
    )
    with pytest.raises(Error, match="E0505"):
        run(outside, [Y, np.zeros(2, np.int64)])


def test_argmax_by_a_tuple_of_accumulators() -> None:
    module = program("""func @main(%x: f32[N, K]) -> (f32[N], i64[N]) {
  %v, %i = generic(%x) {iterators = [["n", N, "parallel"], ["k", K, "reduction"]], maps = [[n, k]],
  out_maps = [[n], [n]], init = [-inf, 0], acc_types = [!f32, !i64]} (%a: f32) {
    %k = loop.index {value = k} : i64
    yield %a, %k
  } (%m: f32, %at: i64, %c: f32, %k: i64) {
    %better = gt(%c, %m) : bool
    %m1 = where(%better, %c, %m) : f32
    %at1 = where(%better, %k, %at) : i64
    yield %m1, %at1
  } (%m: f32, %at: i64) {
    yield %m, %at
  } : f32[N], i64[N]
  return %v, %i
}""")
    x = np.array([[1, 5, 5, 2], [-3, -4, -1, -9]], np.float32)
    value, index = run(module, [x])
    np.testing.assert_array_equal(value, [5, -1])
    np.testing.assert_array_equal(index, [1, 2])


def test_a_scalar_result() -> None:
    module = program("""func @main(%x: f32[N]) -> f32[] {
  %0 = generic(%x) {iterators = [["k", N, "reduction"]], maps = [[k]], out_maps = [[]], init =
  [0.0], acc_types = [!f32]} (%a: f32) {
    yield %a
  } (%s: f32, %t: f32) {
    %q = add(%s, %t) : f32
    yield %q
  } (%r: f32) {
    yield %r
  } : f32[]
  return %0
}""")
    (found,) = run(module, [np.arange(5, dtype=np.float32)])
    assert found.shape == () and found == 10


def test_input_names() -> None:
    assert input_names(parse("func @main(%x: f32[], %0: f32[]) { return }").main) == ("x", "arg1")
    assert input_names(parse('func @main(%x: f32[]) {inputs = ["a b"]} { return }').main) == (
        "a b",
    )
    assert input_names(Func.make("f", [])) == ()


def test_a_builder_made_generic() -> None:
    from irc.ir.ops.elementwise import Add
    from irc.ir.types import TensorType, f32

    func = Func.make("main", [TensorType(f32, (2, 3)), TensorType(f32, (3,))])
    b = Builder(func.body)
    op = func.body.append(Add(*func.args))
    made = op.generic(b, *func.args)
    b.return_(op.result, made)
    verify(func)
    a, c = run(func, [X[:2, :3], Y[:3]])
    np.testing.assert_array_equal(a, c)


I, J = sym("i"), sym("j")
EXPRESSIONS: list[DimLike] = [
    7, I, I + J, 3 * I - 2 * J + 1, I // 3, (I - 4) // 3 % 5, I * J, max_(I, J, 2),
    min_(I - J, 0) + (I + J) % 4,
]  # fmt: skip


@given(st.sampled_from(EXPRESSIONS), st.lists(st.integers(-50, 50), min_size=1), st.integers(-9, 9))
def test_grids_are_elementwise(e: DimLike, values: list[int], j: int) -> None:
    found = np.broadcast_to(evaluate_grid(e, {"i": np.array(values), "j": j}), len(values))
    assert found.tolist() == [evaluate(e, {"i": v, "j": j}) for v in values]


def test_a_grid_symbol_without_value() -> None:
    with pytest.raises(Error, match="E0323"):
        evaluate_grid(I, {})
