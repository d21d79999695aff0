"""`verify --bisect`: a fault planted in each part of the compiler is found there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from irc.backends import compiler
from irc.backends.llvm import emit_ops
from irc.backends.targets import choose
from irc.ir.core import OPS, Builder, Loc, Op, Value
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.types import TensorType, f32
from irc.passes.cse import Cse
from irc.passes.lower import kernels, loops
from irc.tools import bisection
from irc.tools.bisection import Found, bisect, first_wrong
from irc.tools.feeds import random_inputs
from irc.tools.main import run

Patch = pytest.MonkeyPatch


def network(wide: int = 24) -> Module:
    """x [2, 8]: matmul, tanh, a fork (exp and neg), add, matmul, erf; each op has a name."""
    rng = np.random.default_rng(5)
    func = Func.make("main", [TensorType(f32, (2, 8))], ["x"], outputs=["y"])
    b = Builder(func.body)

    def weight(*shape: int):  # type: ignore[no-untyped-def]
        return b.insert(Const((rng.standard_normal(shape) / 3).astype("f4"))).result

    def named(name: str, value):  # type: ignore[no-untyped-def]
        value.op.loc = Loc(name, "net.onnx")
        return value

    t = named("hidden", b.tanh(named("first", b.matmul(func.args[0], weight(8, wide)))))
    s = named("join", b.add(named("left", b.exp(t)), named("right", b.neg(t))))
    b.emit(Return, named("last", b.erf(named("second", b.matmul(s, weight(wide, 3))))))
    return Module.make([func])


def found_in(module: Module, **more: object) -> Found | None:
    inputs = random_inputs(compiler.reference(module).inputs)
    return bisect(module, choose("cpu", 1), inputs, say=lambda text: None, **more)  # type: ignore[arg-type]


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert found_in(network()) is None


def _skip(op_name: str) -> Callable[[Cse, Module], Module]:
    """Cse, with a fault: it takes a unary op away."""
    right = Cse.run

    def broken(self: Cse, module: Module) -> Module:
        for op in list(module.main.walk()):
            if op.name == op_name:
                op.replace_by([op.operands[0]])
        return right(self, module)

    return broken


@pytest.mark.parametrize(("op", "where"), [("tanh", "hidden"), ("neg", "right"), ("erf", "last")])
def test_a_pass(op: str, where: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(Cse, "run", _skip(op))
    found = found_in(network())
    assert found is not None
    assert (found.phase, found.step) == ("canonical", "cse")
    assert (found.op, found.where) == (op, f"{where} in net.onnx")
    assert found.error > found.tolerance


def test_of_several_outputs_the_wrong_one_is_followed(monkeypatch: Patch) -> None:
    """The last op of the program belongs to an output that is right."""
    func = Func.make("main", [TensorType(f32, (4,))], ["x"], outputs=["bad", "good"])
    b = Builder(func.body)
    bad = b.exp(b.neg(func.args[0]))
    b.emit(Return, bad, b.tanh(func.args[0]))
    monkeypatch.setattr(Cse, "run", _skip("neg"))
    found = found_in(Module.make([func]))
    assert found is not None
    assert (found.op, found.position, found.count) == ("neg", 1, 3)


def test_what_is_wrong_only_as_a_whole(monkeypatch: Patch) -> None:
    right = Cse.run

    def broken(self: Cse, module: Module) -> Module:
        if any(op.name == "neg" for op in module.main.walk()) and len(module.main.returned) > 1:
            for op in list(module.main.walk()):
                if op.name == "neg":
                    op.replace_by([op.operands[0]])
        return right(self, module)

    func = Func.make("main", [TensorType(f32, (4,))], ["x"])
    b = Builder(func.body)
    b.emit(Return, b.neg(func.args[0]), b.tanh(func.args[0]))
    monkeypatch.setattr(Cse, "run", broken)
    found = found_in(Module.make([func]))
    assert found is not None
    assert (found.phase, found.op, found.error > 1) == ("canonical", "tanh", True)


def test_a_rule_of_an_op(monkeypatch: Patch) -> None:
    right = OPS["abs"].generic

    def broken(self: Op, b: Builder, x: Value) -> Value:
        return right(OPS["abs"](x), b, x)  # type: ignore[attr-defined, no-any-return]

    monkeypatch.setattr(OPS["neg"], "generic", broken)
    found = found_in(network())
    assert found is not None
    assert (found.phase, found.step, found.op) == ("generic", "lower-generic", "neg")
    assert found.types == ("f32[2, 24]",)


def test_loops(monkeypatch: Patch) -> None:
    """Constants of kernels are off; the generics they come from are right."""
    right = loops.lower_fused

    def broken(fused: Op, name: str) -> Func:
        kernel = right(fused, name)  # type: ignore[arg-type]
        for op in kernel.walk():
            if op.name == "neg":
                op.replace_by([op.operands[0]])
        return kernel

    monkeypatch.setattr(kernels, "lower_fused", broken)
    found = found_in(network())
    assert found is not None
    assert (found.phase, found.step, found.op) == ("loops", "lower-kernels", "neg")
    assert found.where == "right in net.onnx"


def test_machine_code(monkeypatch: Patch) -> None:
    monkeypatch.setitem(emit_ops.RULES, "neg", emit_ops.RULES["abs"])
    found = found_in(network())
    assert found is not None
    assert (found.phase, found.step, found.op) == ("emitted", "machine code", "neg")


def test_the_plan(monkeypatch: Patch) -> None:
    """Whatever has several kernels is off; each region alone is right."""
    right = compiler.build

    def broken(compiled, choice):  # type: ignore[no-untyped-def]
        exe = right(compiled, choice)
        whole = exe.run

        def run_wrong(inputs):  # type: ignore[no-untyped-def]
            many = len(compiled.planned.kernels) > 1
            return [y + 1.0 if many else y for y in whole(inputs)]

        exe.run = run_wrong  # type: ignore[method-assign]
        return exe

    monkeypatch.setattr(compiler, "build", broken)
    found = found_in(network())
    assert found is not None
    assert (found.phase, found.step) == ("planned", "plan")


def test_noise_shows_at_the_first_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "net.irc"
    network().save(str(model))
    flags = ["--noise", "0.02", "--bisect", "--threads", "1", "--shape", "x:2x8"]
    line = ["verify", str(model), *flags]
    assert run(line) == 5
    shown = capsys.readouterr()
    assert "first wrong after phase fused, noise" in shown.out
    assert "op      matmul from first in net.onnx (op 1 of 7)" in shown.out
    assert f"next: irc reduce {model} -o small.irc --check mismatch --threads 1 --shape x:2x8" in (
        shown.err
    )
    assert run([*line, "--json", "-q"]) == 5
    facts = json.loads(capsys.readouterr().out)
    assert facts["first_wrong"]["op"] == "matmul"
    assert {s["step"] for s in facts["first_wrong"]["stages"]} >= {"noise", "lower-generic"}


def test_bisect_of_what_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "net.irc"
    network().save(str(model))
    assert run(["verify", str(model), "--bisect"]) == 0
    assert "first wrong" not in capsys.readouterr().out
    assert run(["compile", str(model), "-o", str(tmp_path / "m.ircx")]) == 0
    assert run(["verify", str(tmp_path / "m.ircx"), "--bisect"]) == 2


def test_large_kernels_are_not_interpreted(monkeypatch: Patch) -> None:
    monkeypatch.setitem(emit_ops.RULES, "neg", emit_ops.RULES["abs"])
    monkeypatch.setattr(bisection, "LOOPS_AT_MOST", 0)
    said: list[str] = []
    module = network()
    inputs = random_inputs(compiler.reference(module).inputs)
    found = bisect(module, choose("cpu", 1), inputs, say=said.append)
    assert found is not None and found.phase == "emitted"
    assert "too much to interpret its loops" in said


@pytest.mark.parametrize("hides", [False, True])
def test_the_search_is_not_misled_by_another_branch(hides: bool) -> None:
    """Halving meets the right branch first; what the faulty op reads is asked in the end."""
    module = network()
    ops = [op for op in module.main.body if not op.terminator]
    by = {str(op.loc).partition(" ")[0]: op for op in ops if op.loc}
    wrong = {by["left"], by["join"], by["second"], by["last"]} - ({by["join"]} if hides else set())
    expected = by["second"] if hides else by["left"]
    assert first_wrong(ops, wrong.__contains__) in (expected, by["left"])
    assert first_wrong(ops, set().__contains__) is None
