"""The text: what files cannot show, structural equality, damage of every kind."""

from __future__ import annotations

import gc
import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irc.ir.blobs import Blob
from irc.ir.core import Block, Builder, Loc, Op, attr, operand
from irc.ir.dims import sym
from irc.ir.errors import Error, InvalidModelError, VerifyError
from irc.ir.literals import attribute_text
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.ops.elementwise import Add
from irc.ir.parse import MAX_DEPTH, parse
from irc.ir.text import blobs_of, check_round_trip, difference, equal, print_op
from irc.ir.types import DType, TensorType, VectorType, f32
from irc.ir.verify import verify

TEXTS = Path(__file__).parent.parent / "text"
V4 = TensorType(f32, (4,))


class Labelled(Op, name="test.labelled"):
    """An op of these tests: an attribute of any kind, and one that changed in format 1."""

    x = operand()
    value = attr(object, None)
    scale = attr(float, 1.0)
    upgrades = {1: lambda given: {"scale": given.pop("factor", 1.0), **given}}

    @staticmethod
    def infer(x: Any, value: Any, scale: float) -> Any:
        return x


def one_op(value: Any, scale: float = 1.0) -> Module:
    func = Func.make("main", [V4], ["x"])
    b = Builder(func.body)
    b.emit(Return, b.emit(Labelled, func.args[0], value=value, scale=scale))
    return Module.make([func])


def cases() -> list[str]:
    """The texts of all round-trip files."""
    files = [f for f in sorted(TEXTS.rglob("*.ir")) if "reject" not in f.stem]
    return [case for f in files for case in re.split(r"^// -----.*\n", f.read_text(), flags=re.M)]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -1,
        10**18,
        0.0,
        -0.0,
        0.1,
        1e300,
        5e-324,
        math.inf,
        -math.inf,
        math.nan,
        "",
        'a"b\\',
        "\u00e9\x00\U0001f600",
        "none",
        (),
        (1,),
        (1, (2.0, ("x", None))),
        sym("N"),
        sym("N") * 3 - 1,
        sym("none"),
        sym("inf"),
        (sym("i") // 3 % 4,),
        f32,
        (f32, VectorType(f32, 4)),
        1j,
        complex(-0.0, math.inf),
        Blob(np.arange(16, dtype=np.int8)),
        (Blob(np.arange(17.0)), Blob(np.zeros(()))),
    ],
    ids=str,
)
def test_attribute_values_come_back(value: Any) -> None:
    module = one_op(value)
    check_round_trip(module)
    again = parse(print_op(module), blobs_of(module))
    found = again.main.body.first.value
    assert type(found) is type(value)
    assert str(found) == str(value) or isinstance(value, (Blob, tuple))


@given(st.floats() | st.complex_numbers() | st.integers() | st.text() | st.booleans())
def test_any_scalar_comes_back(value: Any) -> None:
    check_round_trip(one_op((value,)))


@given(st.lists(st.floats(width=32), max_size=16))
def test_any_float_constant_comes_back(elements: list[float]) -> None:
    module = one_op(Blob(np.array(elements, np.float32)))
    check_round_trip(module)
    assert "@blob" not in print_op(module)


@pytest.mark.parametrize(
    "name", ["f16", "bf16", "f8e4m3fn", "f8e5m2", "f8e4m3fnuz", "f8e5m2fnuz", "f4e2m1"]
)
def test_every_small_float_comes_back(name: str) -> None:
    dtype = DType(name)
    bits = np.arange(1 << min(dtype.bits, 8), dtype=np.uint8)
    if dtype.bits == 16:
        bits = np.random.default_rng(0).integers(0, 256, 512, np.uint8)
    for part in np.array_split(
        bits.view(dtype.np), max(1, bits.size // (16 * max(1, dtype.bits // 8)))
    ):
        check_round_trip(one_op(Blob(part)))


@pytest.mark.damaged
def test_an_attribute_without_text_is_refused() -> None:
    with pytest.raises(Error, match="E0241"):
        print_op(one_op(object()))


def test_names_are_kept_when_legal_and_free() -> None:
    func = Func.make("main", [V4, V4, V4, V4], ["x", "x", "3", "a b"])
    Builder(func.body).emit(Return, *func.args)
    assert "return %x, %0, %1, %2" in print_op(func)
    check_round_trip(func)


def test_a_value_from_outside_prints() -> None:
    func = Func.make("main", [V4], ["x"])
    op = Add(func.args[0], func.args[0])
    assert print_op(op) == "%0 = add(%x, %x) : f32[4]"


def test_large_constants_lie_beside_the_text() -> None:
    module = one_op(Blob(np.arange(17)))
    (prefix,) = blobs_of(module)
    assert f"@blob:{prefix}" in print_op(module)
    with pytest.raises(InvalidModelError, match="E0228"):
        parse(print_op(module))


def test_difference_sees_everything() -> None:
    text = """func @main(%x: f32[4], %y: f32[4]) -> f32[4] {
  %0 = test.labelled(%x) {value = [1, 0.0], scale = 2.0} : f32[4] @"a" "b":1
  %1 = add(%0, %y) : f32[4]
  return %1
}"""
    base = parse(text)
    assert equal(base, parse(text)) and equal(base, base.clone())
    assert equal(base, parse(text.replace("%0", "%other")))
    for old, new in [
        ("[1,", "[1.0,"),
        ("[1,", "[true,"),
        ("0.0]", "-0.0]"),
        ("2.0", "3.0"),
        ('"b":1', '"b":2'),
        ('@"a"', '@"c"'),
        ("(%0, %y)", "(%y, %0)"),
        ("return %1", "return %0"),
        ("@main", "@other"),
        ("f32[4]", "f32[5]"),
        ("add(", "mul("),
        (' @"a" "b":1', ""),
    ]:
        assert old in text
        found = difference(base, parse(text.replace(old, new)))
        assert found is not None, (old, new)


@pytest.mark.damaged
def test_the_round_trip_check_can_fail() -> None:
    func = Func.make("main", [V4], ["x"])
    made = Builder(func.body).emit(Add, func.args[0], func.args[0])
    Builder(func.body).emit(Return, made)
    check_round_trip(func)
    foreign = Func.make("other", [V4])
    func.body.last.set_operands([foreign.args[0]])
    with pytest.raises(Error):
        check_round_trip(func)
    func.body.last.set_operands([made])
    func.set_attr("kind", "no\nkind")
    check_round_trip(func)
    func.body.first.loc = Loc("n", "f", -1)
    with pytest.raises(Error):
        check_round_trip(func)


def test_older_formats_are_upgraded() -> None:
    text = "func @main(%x: f32[4]) {\n %0 = test.labelled(%x) {factor = 2.5} : f32[4]\n return\n}"
    assert parse(text, version=0).main.body.first.scale == 2.5
    with pytest.raises(InvalidModelError, match="E0210"):
        parse(text)


def test_comments_and_free_form() -> None:
    text = 'func@main(%x:f32[4])->f32[4]// c\n{%0=add(%x,%x):f32[4]@"n" // d\nreturn%0}'
    assert print_op(parse(text)) == print_op(parse(print_op(parse(text))))
    assert parse(text).main.body.first.loc == Loc("n")


def nested(depth: int) -> str:
    return "kernel @k() {" + 'loop.process {label = "p"} {' * depth + "}" * depth + "}"


def test_deep_nesting_is_an_error() -> None:
    assert len(list(parse(nested(MAX_DEPTH - 1)).walk())) == MAX_DEPTH + 1
    for text in [
        nested(MAX_DEPTH),
        nested(10**5),
        one_attribute("[" * 10**5),
        one_attribute("(" * 10**5 + "N" + ")" * 10**5),
        "func @f(%x: " + "seq<" * 10**5,
        "func @f(%x: " + "seq<" * 50 + "f32" + ">" * 50 + ") {",
        "func @f(%x: f32[" + "(" * 10**4 + "N" + ")" * 10**4 + "]) { return }",
        "func @f(%x: f32[" + "9" * 10**4 + "]) { return }",
        one_attribute("9" * 10**5),
    ]:
        with pytest.raises(InvalidModelError):
            module = parse(text)
            verify(module)
            raise AssertionError(text[:100])


def one_attribute(value: str) -> str:
    return (
        f"func @main(%x: f32[4]) {{ %0 = test.labelled(%x) {{value = {value}}} : f32[4]\nreturn }}"
    )


def damaged(text: str, rng: random.Random) -> str:
    """`text` with some characters or words cut, doubled, swapped or replaced."""
    words = re.findall(r"\w+|\s+|[^\w\s]", text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(words))
        kind = rng.randrange(6)
        if kind == 0:
            del words[at : at + rng.choice([1, 1, 2, 20])]
        elif kind == 1:
            words.insert(at, rng.choice(words))
        elif kind == 2:
            other = rng.randrange(len(words))
            words[at], words[other] = words[other], words[at]
        elif kind == 3:
            words[at] = "".join([chr(rng.randrange(1, 0x250)) for _ in range(rng.randint(1, 5))])
        elif kind == 4:
            words[at] = rng.choice(
                [
                    "0",
                    "-1",
                    "99999999999999999999",
                    "1e999",
                    "%",
                    "{",
                    "}",
                    "[",
                    "(",
                    '"',
                    "<",
                    "none",
                    "N",
                    "f32",
                    "token",
                    "//",
                    "@",
                    "dense<",
                    "!",
                    "=",
                    "_",
                ]
            )
        else:
            del words[at:]
        if not words:
            break
    return "".join(words)


def survives(text: str) -> bool:
    """Parsing and checking end well or in an `Error`; what is accepted prints and comes back."""
    try:
        module = parse(text)
        verify(module)
    except Error as error:
        assert error.code.startswith("E0"), error
        assert error.render()
        return False
    check_round_trip(module)
    return True


def fuzz(seed: int, rounds: int) -> int:
    rng = random.Random(seed)
    texts = cases()
    return sum([survives(damaged(rng.choice(texts), rng)) for _ in range(rounds)])


def test_damaged_texts_never_crash() -> None:
    assert 10 < fuzz(1, 1500) < 1490


@pytest.mark.long
def test_damaged_texts_never_crash_long() -> None:
    for seed in range(2, 22):
        fuzz(seed, 2000)


@given(st.text(alphabet=st.characters(), max_size=60))
def test_random_texts_never_crash(text: str) -> None:
    survives(text)


def test_printing_and_parsing_are_linear() -> None:
    """Ten times the ops take about ten times as long: no step looks at the whole program."""
    import time

    def seconds(n: int) -> float:
        func = Func.make("main", [V4], ["x"])
        b = Builder(func.body, loc=Loc("n"))
        value = func.args[0]
        for k in range(n):
            value = b.emit(Labelled, value, value=k)
        b.emit(Return, value)
        times = []
        for _ in range(3):
            gc.collect()
            start = time.process_time()
            parse(print_op(func))
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(5000) < 40 * seconds(500)


def test_an_empty_module() -> None:
    assert print_op(Module.make()) == ""
    assert len(parse("").body) == 0
    assert len(parse("// nothing\n").body) == 0


def test_kinds_of_text() -> None:
    assert attribute_text(f32, DType) == "f32"
    assert attribute_text(f32) == "!f32"
    block = Block([V4])
    assert print_op(Const(np.zeros(4, np.float32))).endswith(": f32[4]")
    assert print_op(Labelled(block.args[0])) == "%1 = test.labelled(%0) : f32[4]"


def test_verify_error_is_an_error() -> None:
    assert issubclass(VerifyError, Error)


@pytest.mark.parametrize(
    "text, name, held",
    [
        ("concat(%x, %x) {axis = -1} : f32[3, 8]", "axis", 1),
        ("argmax(%x) {axis = -1} : i64[3]", "axis", 1),
        ("reduce_sum(%x) {axes = [-1]} : f32[3]", "axes", (1,)),
        ("reduce_sum(%x) : f32[]", "axes", (0, 1)),
        ("softmax(%x) : f32[3, 4]", "axis", 1),
        ("layer_norm(%x) : f32[3, 4]", "axis", 1),
    ],
)
def test_typed_ops_hold_canonical_axes(text: str, name: str, held: Any) -> None:
    """As those do that the builder makes: passes count axes from the front."""
    module = parse(f"func @f(%x: f32[3, 4]) {{\n  %0 = {text}\n  return\n}}")
    op = module.func("f").body.first
    assert op is not None
    assert op.attributes[name] == held


def test_typed_ops_that_cannot_be_built_are_for_the_verifier() -> None:
    text = "func @f(%x: f32[3]) {\n  %0 = concat(%x) {axis = 1} : f32[3]\n  return\n}"
    with pytest.raises(VerifyError):
        verify(parse(text))
