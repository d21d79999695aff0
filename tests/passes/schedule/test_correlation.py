"""The schedule of filter gradients: sums in registers, in parts, without what padding adds."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irc.ir.ops.core import Func
from irc.ir.ops.loop import Alloc, For, Load
from irc.ir.target import Target
from irc.ir.verify import verify
from irc.passes.lower.finish import finish
from irc.passes.lower.scratch import hoist_scratch
from irc.passes.schedule.choose import choose
from irc.passes.schedule.nests import Refused
from irc.passes.schedule.steps import Reorder, Tile, apply_steps
from irc.passes.schedule.sums import Loosen, SumApart, Trim

_spec = importlib.util.spec_from_file_location(
    "schedule_kernels", Path(__file__).with_name("kernels.py")
)
kernels = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
_spec.loader.exec_module(kernels)  # type: ignore[union-attr]

WIDE = Target("t", vector_bits=512, registers=32, fma=True, expand=True, threads=2)
NARROW = Target("t", vector_bits=128, registers=16, fma=True, expand=True)
PADDED = {"kernel": (3, 3), "pads": (1, 1, 1, 1)}
CASES: dict[str, tuple[list[tuple[int, ...]], dict[str, Any], int]] = {
    "padded": ([(2, 1, 4, 3), (2, 2, 4, 3)], PADDED, 8),
    "strided": (
        [(1, 1, 5, 4), (1, 1, 3, 2)],
        {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)},
        16,
    ),
    "uneven pads": (
        [(2, 1, 4, 5), (2, 2, 3, 7)],
        {"kernel": (4, 2), "pads": (0, 3, 2, 0), "dilations": (1, 1)},
        4,
    ),
    "dilated": (
        [(1, 2, 6, 5), (1, 1, 4, 5)],
        {"kernel": (2, 3), "pads": (0, 4, 1, 0), "dilations": (3, 2)},
        4,
    ),
    "one tap": ([(3, 1, 3, 4), (3, 2, 3, 4)], {"kernel": (1, 1)}, 16),
    "one column": ([(5, 1, 2, 1), (5, 1, 2, 1)], PADDED, 4),
    "groups": ([(1, 4, 3, 3), (1, 2, 3, 3)], {**PADDED, "groups": 2}, 4),
    "a line": ([(2, 2, 9), (2, 1, 9)], {"kernel": (3,), "pads": (1, 1)}, 4),
}


def plain(case: str) -> Func:
    (x, g), attrs, block = CASES[case]

    def build(b: Any, x: Any, g: Any) -> Any:
        return b.conv_filter_grad(x, g, channel_block=block, **attrs)

    made: Func = kernels.kernel([(*x, block), (*g, block)], build)
    return made


def scheduled(kernel: Func, target: Target) -> Func:
    """The chosen kernel, checked against the plain one in the loop interpreter."""
    chosen = choose(kernel, target).kernel
    made = chosen.copy({})
    finish(made, target)
    hoist_scratch(made)
    verify(made)
    given = kernels.inputs(kernel, 2)
    want, got = (kernels.interpret(k, given)[0] for k in (kernel, made))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    return chosen


def in_registers(kernel: Func) -> bool:
    return any(isinstance(op, Alloc) and op.type.space == "register" for op in kernel.walk())


@pytest.mark.parametrize("l1", [32 << 10, 256])
@pytest.mark.parametrize("target", [WIDE, NARROW])
@pytest.mark.parametrize("case", CASES)
def test_it_computes_the_same(case: str, target: Target, l1: int) -> None:
    """A small cache cuts the sum into parts."""
    chosen = scheduled(plain(case), replace(target, l1=l1))
    assert in_registers(chosen)


def test_padding_is_left_out() -> None:
    """No guard is left, and the loops of the sum begin and end where both operands are."""
    chosen = choose(plain("padded"), WIDE).kernel
    assert not any(isinstance(op, Load) and op.where for op in chosen.walk())
    sums = [op for op in chosen.walk() if isinstance(op, For) and op.reduction]
    assert {op.var for op in sums if op.lo != 0} == {"s0.s0", "s0.s1"}


def test_a_long_sum_is_cut() -> None:
    whole = choose(plain("padded"), WIDE).steps
    parts = choose(plain("padded"), replace(WIDE, l1=256)).steps
    assert not any(isinstance(step, SumApart) for step in whole)
    assert any(isinstance(step, SumApart) for step in parts)


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ((SumApart("s0.acc0", "s0.s1"),), "not a reduction around one nest"),
        ((Loosen("s0.acc0"), Loosen("s0.acc0")), "do not have the same guards"),
        ((SumApart("s0.acc0", "s0.o"),), "not a reduction"),
        ((Trim("s0.o"),), "not a reduction"),
        ((Trim("s0.n"),), "no guard mentions"),
    ],
)
def test_refusals(steps: Any, why: str) -> None:
    with pytest.raises(Refused, match=why):
        apply_steps(plain("padded"), steps)


def test_only_common_guards_are_trimmed() -> None:
    """A convolution reads its weights without guards: zero times an infinite weight counts."""
    kernel = kernels.kernel(
        [(1, 2, 5, 5), (3, 2, 3, 3)], lambda b, x, w: b.conv(x, w, pads=(1, 1, 1, 1))
    )
    with pytest.raises(Refused, match="a factor has other guards"):
        apply_steps(kernel, (Trim("s0.k0"),))


def test_a_guard_that_needs_an_inner_loop_stays() -> None:
    kernel = apply_steps(plain("padded"), (Tile("s0.s0", 2),))
    with pytest.raises(Refused, match="needs a loop inside"):
        apply_steps(kernel, (Trim("s0.s0.o"),))


def test_taps_are_the_rows_of_few_channels() -> None:
    """The image is padded, and the tile takes every tap of it."""
    kernel = kernels.kernel(
        [(2, 1, 5, 6, 1), (2, 2, 5, 6, 8)],
        lambda b, x, g: b.conv_filter_grad(x, g, channel_block=8, in_block=1, **PADDED),
    )
    chosen = scheduled(kernel, WIDE)
    tiles = [op for op in chosen.walk() if isinstance(op, Alloc) and op.type.space == "register"]
    assert tiles and tiles[0].type.shape[2:4] == (3, 3)
    assert any(isinstance(op, Alloc) and ".pad" in op.label for op in chosen.walk())


@pytest.mark.parametrize("around", [(), ("s0.i",), ("s0.i", "s0.k1")])
def test_parts_of_a_sum(around: tuple[str, ...]) -> None:
    """Loops of results may stand around the parts."""
    kernel = plain("uneven pads")
    order = [*around, "s0.n", "s0.s0"]
    rest = [op.var for op in kernel.walk() if isinstance(op, For) and op.var not in order]
    order += [v for v in rest if v in ("s0.o", "s0.i", "s0.k0", "s0.k1", "s0.ib", "s0.s1", "s0.ob")]
    order = [v for v in order if any(isinstance(o, For) and o.var == v for o in kernel.walk())]
    made = apply_steps(kernel, (Reorder(tuple(order)), SumApart("s0.acc0", "s0.s0")))
    given = kernels.inputs(kernel, 2)
    want, got = (kernels.interpret(k, given)[0] for k in (kernel, made))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_threads_share_a_loop_around_the_parts() -> None:
    """One fork for the whole sum, not one for each part."""
    chosen = choose(plain("one tap"), replace(WIDE, l1=256)).kernel
    loops = [op for op in chosen.walk() if isinstance(op, For)]
    assert not any(op.kind == "parallel" for op in loops)  # one block of x: nothing to share
    wide = kernels.kernel(
        [(3, 2, 3, 4, 8), (3, 1, 3, 4, 8)],
        lambda b, x, g: b.conv_filter_grad(x, g, kernel=(1, 1), channel_block=8),
    )
    chosen = scheduled(wide, replace(WIDE, l1=256))
    shared = [op for op in chosen.walk() if isinstance(op, For) and op.kind == "parallel"]
    assert [op.var for op in shared] == ["s0.i"] and shared[0].block is chosen.body
