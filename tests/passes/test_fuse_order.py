"""Where fused regions stand: as early as memory wants, and updates of state behind all readers."""

from __future__ import annotations

from typing import Any

import irc.ir.ops  # noqa: F401  # registers every op
from irc.ir.core import Builder, Op
from irc.ir.ops.core import Func, Module, Return
from irc.ir.target import Target
from irc.ir.types import TensorType, f32
from irc.passes.fuse import Fuse
from irc.passes.pipeline import compile_module

SQUARE = TensorType(f32, (32, 32))


def layers(count: int, late: bool) -> Module:
    """Products with weights that are state, each replaced after the last product, or behind it;
    a weight is read once more on the way back.
    """
    func = Func.make("main", [SQUARE] * (count + 1), state=[(k, k) for k in range(count)])
    b = Builder(func.body)
    *weights, x = func.args
    inputs = []
    for w in weights:
        inputs.append(x)
        x = b.matmul(x, w)
    g, updates, new = x, [], {}
    for k in reversed(range(count)):
        updates.append((k, inputs[k], g))
        if not late:
            new[k] = b.sub(weights[k], b.matmul(b.transpose(inputs[k], perm=(1, 0)), g))
        g = b.matmul(g, b.transpose(weights[k], perm=(1, 0)))
    if late:
        for k, given, cotangent in updates:
            new[k] = b.sub(weights[k], b.matmul(b.transpose(given, perm=(1, 0)), cotangent))
    b.emit(Return, *[new[k] for k in range(count)], g)
    return Module.make([func])


def test_updates_written_at_the_end_do_not_keep_what_they_need() -> None:
    sizes: dict[bool, Any] = {}
    for late in (False, True):
        planned = compile_module(layers(6, late), Target("plain")).planned
        assert planned is not None and planned.copies == ()
        sizes[late] = planned.arena_bytes
    assert sizes[True] == sizes[False] <= 9 * 4 * 32 * 32


def test_a_state_is_replaced_behind_its_readers() -> None:
    main = Fuse().run(layers(3, False)).main
    ops = list(main.body)
    replaced = main.returned[:3]
    for arg, value in zip(main.args, replaced, strict=False):
        made = value.op
        assert made is not None
        assert all(ops.index(u) <= ops.index(made) for u in arg.users)


def test_a_reader_that_needs_the_next_value_comes_after_it() -> None:
    func = Func.make("main", [SQUARE, SQUARE], state=[(0, 0)])
    b = Builder(func.body)
    w, x = func.args
    new = b.matmul(w, x)
    b.emit(Return, new, b.matmul(new, w))
    ops = [op for op in Fuse().run(Module.make([func])).main.body if not op.terminator]
    assert [_reads(op, new_of) for op, new_of in zip(ops, ops[:1] * 2, strict=True)] == [
        False,
        True,
    ]


def _reads(op: Op, maker: Op) -> bool:
    return any(v.op is maker for v in op.operands if v is not None)


def test_a_value_of_two_ends_does_not_wait_for_the_later_one() -> None:
    """An activation and its slope are one region; what nothing needs yet does not go before it."""
    func = Func.make("main", [SQUARE, SQUARE])
    b = Builder(func.body)
    x, w = func.args
    y = b.matmul(x, w)
    a = b.tanh(y)
    z = b.matmul(a, w)
    big = b.matmul(b.exp(z), b.exp(z))
    slope = b.mul(y, a)
    b.emit(Return, b.matmul(big, slope))
    made = Fuse().run(Module.make([func])).main
    labels = [op.attributes["label"] for op in made.body if op.name == "fused"]
    assert labels[0] == "matmul+tanh+mul"
