"""The rewriting tools: rebuild, worklist, captures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from irc.ir.core import Block, Builder, Loc, Op, Value
from irc.ir.errors import Error
from irc.ir.interpret import run
from irc.ir.ops.core import Const, Func, Fused, Return, Yield
from irc.ir.ops.elementwise import Add, Mul
from irc.ir.rewrite import erase_all, rebuild, uses_outside, worklist
from irc.ir.text import check_round_trip, equal, print_op
from irc.ir.types import TensorType, f32, f64
from irc.ir.verify import verify

V4 = TensorType(f32, (4,))


def chain(n: int, fused: bool = False) -> Func:
    """x, y = y, x + y, n times; with `fused`, the first is repeated in a fused region."""
    func = Func.make("main", [V4, V4], ["x", "y"])
    b = Builder(func.body)
    x, y = func.args
    for k in range(n):
        b.loc = Loc(f"add{k}")
        x, y = y, b.emit(Add, x, y)
    if fused:
        inner = Block([V4])
        c = Builder(inner, loc=Loc("inner"))
        c.emit(Yield, c.emit(Add, inner.args[0], inner.args[0]))
        y = b.insert(Fused(y, regions=[inner])).result
    b.emit(Return, x, y)
    return func


def names(func: Func) -> list[str]:
    return [op.name for op in func.body.walk()]


def to_mul(op: Op, b: Builder) -> Value:
    found: Value = b.emit(Mul, *op.operands)
    return found


def build_mul(b: Builder, op: Op, xs: Sequence[Value]) -> Value:
    found: Value = b.emit(Mul, *xs)
    return found


def test_rebuild_without_rules_copies() -> None:
    func = chain(5, fused=True)
    before = print_op(func)
    copied = rebuild(func, {})
    assert equal(func, copied) and print_op(func) == before
    assert not set(func.body.walk()) & set(copied.body.walk())
    check_round_trip(copied)


def test_rebuild_applies_rules_in_regions_and_passes_locations_on() -> None:
    func = chain(3, fused=True)
    made = rebuild(func, {Add: [lambda b, op, xs: None, build_mul]})
    verify(made)
    assert names(made) == ["mul", "mul", "mul", "fused", "mul", "yield", "return"]
    assert [op.loc for op in made.body.walk()] == [op.loc for op in func.body.walk()]
    assert "mul" not in names(func)


def test_rebuild_catch_all_rule() -> None:
    seen: list[str] = []

    def note(b: Builder, op: Op, xs: Sequence[Value]) -> None:
        seen.append(op.name)

    rebuild(chain(2), {Op: [note]})
    assert seen == ["add", "add", "return"]


def test_rebuild_infers_types_anew() -> None:
    made = rebuild(chain(3, fused=False), {}, types=[TensorType(f64, (4,))] * 2)
    verify(made)
    assert {v.type for v in made.returned} == {TensorType(f64, (4,))}


def test_worklist_without_change() -> None:
    func = chain(4, fused=True)
    before = print_op(func)
    assert worklist(func, {}) == 0
    assert worklist(func, {Mul: [to_mul], Add: [lambda op, b: None]}) == 0
    assert print_op(func) == before


def test_worklist_replaces_in_place() -> None:
    func = chain(4, fused=True)
    locs = [op.loc for op in func.body.walk()]
    assert worklist(func, {Add: [lambda op, b: None, to_mul]}) == 5
    verify(func)
    assert names(func) == ["mul"] * 4 + ["fused", "mul", "yield", "return"]
    assert [op.loc for op in func.body.walk()] == locs
    x, y = np.full(4, 2, np.float32), np.full(4, 3, np.float32)
    assert run(func, [x, y])[0][0] == 2**2 * 3**3


def test_worklist_removes_dead_ops_backwards() -> None:
    func = chain(50, fused=True)
    func.body.last.set_operands(func.args)  # type: ignore[union-attr]
    assert worklist(func, {}) == 51
    assert names(func) == ["return"]
    assert all(a.users == (func.body.last,) for a in func.args)


def test_worklist_keeps_what_has_effects() -> None:
    func = Func.make("main", [V4])
    Builder(func.body).emit(Return)
    assert worklist(func, {}) == 0 and names(func) == ["return"]


def test_new_ops_and_users_are_looked_at_again() -> None:
    """1 + 1 + ... folds all the way, though each step needs the one before."""
    func = Func.make("main", [])
    b = Builder(func.body)
    one = b.insert(Const(np.ones(4, np.float32))).result
    total = one
    for _ in range(20):
        total = b.emit(Add, total, one)
    b.emit(Return, total)

    def fold(op: Op, b: Builder) -> Value | None:
        made = [v.op for v in op.operands]
        if not all(isinstance(m, Const) for m in made):
            return None
        return b.insert(Const(made[0].value.array + made[1].value.array)).result  # type: ignore[union-attr]

    worklist(func, {Add: [fold]})
    verify(func)
    assert names(func) == ["const", "return"]
    assert run(func, [])[0].tolist() == [21.0] * 4


def test_replacing_by_an_operand() -> None:
    func = chain(3)
    assert worklist(func, {Add: [lambda op, b: op.operands[0]]}) == 3
    verify(func)
    assert func.returned == (func.args[0], func.args[0]) or names(func) == ["return"]


def test_rules_that_never_end_are_an_error() -> None:
    func = chain(3)
    with pytest.raises(Error, match="E0245"):
        worklist(func, {Add: [to_mul], Mul: [lambda op, b: b.emit(Add, *op.operands)]})


def test_captures() -> None:
    func = chain(2)
    block = Block([V4])
    b = Builder(block)
    b.emit(Yield, b.emit(Add, block.args[0], func.args[1]), func.args[0])
    assert uses_outside(block) == [func.args[1], func.args[0]]


def test_erase_all() -> None:
    func = chain(3)
    ops = list(func.body)
    func.body.last.set_operands([])  # type: ignore[union-attr]
    erase_all(ops[:-1])
    assert names(func) == ["return"] and not func.args[0].users
