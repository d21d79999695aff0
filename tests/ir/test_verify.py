"""The verifier on damage that no text can say; tests/text/core/reject_verify.ir holds the rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from irc.ir.core import Block, Builder, Loc, Op
from irc.ir.errors import EXIT_VERIFICATION, VerifyError
from irc.ir.ops.core import Func, Fused, Module, Return, Yield
from irc.ir.ops.elementwise import Add
from irc.ir.types import TensorType, f32
from irc.ir.verify import verify

V4 = TensorType(f32, (4,))


def program() -> Func:
    """Two adds, one in a fused region."""
    func = Func.make("main", [V4, V4], ["x", "y"])
    b = Builder(func.body, loc=Loc("here", "net.py", 3))
    s = b.emit(Add, *func.args)
    inner = Block([V4])
    c = Builder(inner)
    c.emit(Yield, c.emit(Add, inner.args[0], inner.args[0]))
    fused = b.insert(Fused(s, regions=[inner]))
    b.emit(Return, fused.result)
    return func


def add(func: Func) -> Op:
    op = func.body.first
    assert isinstance(op, Add)
    return op


def test_a_sound_program_passes() -> None:
    func = program()
    verify(func)
    verify(Module.make([func]))
    verify(add(func))


def forget_use(func: Func) -> None:
    func.args[0].uses = None


def invent_use(func: Func) -> None:
    add(func).results[0].add_user(add(func))


def keep_erased_user(func: Func) -> None:
    other = Add(*add(func).operands)
    func.args[0].drop_user(other)
    add(func).results[0].uses = {add(func).next: None, other: None}


def change_type(func: Func) -> None:
    add(func).results[0].type = TensorType(f32, (5,))


def swap_order(func: Func) -> None:
    op = add(func)
    func.body.remove(op)
    func.body.insert_before(op, func.body.last)


def lose_link(func: Func) -> None:
    add(func).next.prev = None  # type: ignore[union-attr]


def miscount(func: Func) -> None:
    func.body.size += 1


def cut_tail(func: Func) -> None:
    func.body.last = func.body.first


def lose_parent(func: Func) -> None:
    add(func).next.regions[0].parent = None  # type: ignore[union-attr]


def lose_block(func: Func) -> None:
    add(func).block = None


def steal_result(func: Func) -> None:
    add(func).results[0].owner = func


def drop_attribute(func: Func) -> None:
    fused = add(func).next
    assert fused is not None
    fused.attrs = ()


def drop_region(func: Func) -> None:
    fused = add(func).next
    assert fused is not None
    fused.regions = ()


def repeat_region(func: Func) -> None:
    fused = add(func).next
    assert fused is not None
    fused.regions = fused.regions * 2


def use_inner_value(func: Func) -> None:
    fused = add(func).next
    assert fused is not None
    func.body.last.set_operands(fused.regions[0].first.results)  # type: ignore[union-attr]


def use_foreign_value(func: Func) -> None:
    add(func).set_operands([func.args[0], program().args[1]])


@pytest.mark.damaged
@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (forget_use, "E0231"),
        (invent_use, "E0231"),
        (keep_erased_user, "E0231"),
        (change_type, "E0237"),
        (swap_order, "E0233"),
        (lose_link, "E0230"),
        (miscount, "E0230"),
        (cut_tail, "E0234"),
        (lose_parent, "E0230"),
        (lose_block, "E0230"),
        (steal_result, "E0231"),
        (drop_attribute, "E0232"),
        (drop_region, "E0236"),
        (repeat_region, "E0236"),
        (use_inner_value, "E0233"),
        (use_foreign_value, "E0233"),
    ],
)
def test_damage_is_found(damage: Callable[[Func], None], code: str) -> None:
    func = program()
    damage(func)
    with pytest.raises(VerifyError) as caught:
        verify(Module.make([func]))
    assert caught.value.code == code, caught.value
    assert caught.value.exit_code == EXIT_VERIFICATION


@pytest.mark.damaged
def test_the_error_names_op_place_and_source() -> None:
    func = program()
    change_type(func)
    with pytest.raises(VerifyError) as caught:
        verify(func)
    text = caught.value.render()
    assert "add: its result types" in text and "here in net.py:3" in text
    assert "in: %0 = add(" in text or "in: %2 = add(" in text
    assert "found f32[5]" in text and "inferred f32[4]" in text
