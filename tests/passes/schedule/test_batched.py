"""Convolutions of small images in batches: what padding adds is left out."""

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
from irc.passes.schedule.batched import Copy, match_batched, work_left
from irc.passes.schedule.choose import choose
from irc.passes.schedule.contraction import match_contraction
from irc.passes.schedule.nests import Refused
from irc.passes.schedule.steps import apply_steps
from irc.passes.schedule.sums import Trim

_spec = importlib.util.spec_from_file_location(
    "schedule_kernels", Path(__file__).with_name("kernels.py")
)
kernels = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
_spec.loader.exec_module(kernels)  # type: ignore[union-attr]

WIDE = Target("t", vector_bits=256, registers=32, fma=True, expand=True, threads=2)
NARROW = Target("t", vector_bits=128, registers=16, fma=True, expand=True)
PADDED = {"pads": (1, 1, 1, 1)}
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "small": ((17, 1, 2, 2), (2, 1, 3, 3), PADDED),
    "strided": ((9, 1, 4, 3), (1, 1, 3, 3), {**PADDED, "strides": (2, 2)}),
    "uneven": ((11, 1, 2, 4), (1, 1, 2, 3), {"pads": (0, 2, 1, 0)}),
    "dilated": ((8, 1, 4, 2), (1, 1, 3, 1), {"pads": (2, 0, 2, 0), "dilations": (2, 1)}),
    "two columns": ((9, 2, 1, 2), (2, 2, 3, 3), PADDED),
    "a line": ((13, 1, 3), (1, 1, 3), {"pads": (1, 1)}),
}


def plain(case: str, lanes: int, epilogue: bool = False) -> Func:
    x, w, attrs = CASES[case]

    def build(b: Any, x: Any, w: Any, *rest: Any) -> Any:
        y = b.conv(x, w, channel_block=lanes, **attrs)
        return b.relu(b.add(y, rest[0])) if rest else y

    shapes: list[tuple[int, ...]] = [(*x, lanes), (*w, lanes, lanes)]
    if epilogue:
        shapes.append((1, w[0], *[1] * (len(x) - 2), lanes))
    made: Func = kernels.kernel(shapes, build)
    return made


def scheduled(kernel: Func, count: int, target: Target) -> Func:
    """The chosen kernel, checked against the plain one in the loop interpreter."""
    chosen = choose(kernel, target).kernel
    made = chosen.copy({})
    finish(made, target)
    hoist_scratch(made)
    verify(made)
    given = kernels.inputs(kernel, count)
    want, got = (kernels.interpret(k, given)[0] for k in (kernel, made))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    return chosen


def trimmed(kernel: Func) -> bool:
    return any(isinstance(op, For) and op.reduction and op.lo != 0 for op in kernel.walk())


@pytest.mark.parametrize(("target", "lanes"), [(WIDE, 8), (NARROW, 4)])
@pytest.mark.parametrize("case", CASES)
def test_it_computes_the_same(case: str, target: Target, lanes: int) -> None:
    epilogue = case == "strided"
    chosen = scheduled(plain(case, lanes, epilogue), 2 + epilogue, target)
    assert trimmed(chosen)
    assert not any(isinstance(op, Load) and op.where for op in chosen.walk())
    assert any(isinstance(op, Alloc) and op.type.space == "register" for op in chosen.walk())


def test_few_images_and_large_ones_run_as_before() -> None:
    """One image has no rows to offer, and padding is little of a large one."""
    for shape in ((1, 1, 3, 3, 8), (9, 1, 16, 17, 8)):
        kernel = kernels.kernel(
            [shape, (1, 1, 3, 3, 8, 8)], lambda b, x, w: b.conv(x, w, channel_block=8, **PADDED)
        )
        assert not trimmed(choose(kernel, WIDE).kernel)


def test_the_share_that_is_left() -> None:
    """3 taps on 4 positions with a pad on both sides: 10 of 12 lie inside."""
    kernel = kernels.kernel(
        [(8, 1, 4, 4, 8), (1, 1, 3, 3, 8, 8)],
        lambda b, x, w: b.conv(x, w, channel_block=8, **PADDED),
    )
    found = match_batched(match_contraction(next(o for o in kernel.body if isinstance(o, Alloc))))
    assert found is not None and work_left(found) == pytest.approx((10 / 12) ** 2)


def test_no_images_to_trim_for_a_scalar_machine() -> None:
    chosen = scheduled(plain("small", 4), 2, replace(NARROW, vector_bits=0))
    assert not trimmed(chosen)


def test_refusals() -> None:
    kernel = plain("small", 8)
    with pytest.raises(Refused, match="under a guard"):
        apply_steps(kernel, (Copy("in0", "c", (0, 1, 2, 3, 4)),))
    with pytest.raises(Refused, match="not an operand"):
        apply_steps(kernel, (Copy("out0", "c", (0, 1, 2, 3, 4)),))
    with pytest.raises(Refused, match="a factor has other guards"):
        apply_steps(kernel, (Trim("s0.k0"),))
