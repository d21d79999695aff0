"""Small kernels of plain loops, made from ops, for the tests of schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import irc.ir.ops  # noqa: F401  # registers every op
from irc.ir.core import Block, Builder, Value
from irc.ir.interpret_loops import run_kernel
from irc.ir.ops.core import Func, Fused, Yield
from irc.ir.types import TensorType, f32
from irc.passes.decompose import is_composite
from irc.passes.lower.loops import lower_fused

Shape = tuple[int, ...]


def kernel(shapes: Sequence[Shape], build: Callable[..., Value]) -> Func:
    """The plain kernel of a region that `build(b, *args)` makes on f32 tensors of these shapes."""
    types = [TensorType(f32, shape) for shape in shapes]
    block = Block(types)
    b = Builder(block)
    b.emit(Yield, build(b, *block.args))
    waiting = True
    while waiting:
        waiting = False
        for op in list(block):
            if is_composite(type(op)) and not op.terminator:
                made = op.decompose(Builder(block, op))  # type: ignore[attr-defined]
                op.replace_by(made if isinstance(made, (tuple, list)) else (made,))
                waiting = True
    for op in list(block):
        if hasattr(op, "generic"):
            made = op.generic(Builder(block, op), *op.operands)
            op.replace_by(made if isinstance(made, (tuple, list)) else (made,))
    outer = Block(types)
    return lower_fused(Fused(*outer.args, regions=[block]), "k")


def inputs(func: Func, count: int, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """Random inputs for the first `count` arguments."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, a.buffer.shape).astype(np.float32) for a in func.args[:count]]


def interpret(func: Func, given: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """Run a kernel in the loop interpreter; gives what it wrote to its other arguments."""
    rest = [np.full(a.buffer.shape, np.nan, a.buffer.dtype.np) for a in func.args[len(given) :]]
    status = run_kernel(func, [*[x.copy() for x in given], *rest])
    assert status == 0
    return rest


MATMUL = lambda b, x, y: b.matmul(x, y)  # noqa: E731
PROGRAMS: dict[str, tuple[list[Shape], Callable[..., Value]]] = {
    "matmul": ([(13, 7), (7, 21)], MATMUL),
    "matmul_row": ([(1, 9), (9, 33)], MATMUL),
    "matmul_column": ([(17, 5), (5, 1)], MATMUL),
    "matmul_batch": ([(2, 3, 4), (2, 4, 18)], MATMUL),
    "matmul_transposed": ([(6, 5), (19, 5)],
                          lambda b, x, y: b.contract(x, y, equation="mk,nk->mn")),
    "matmul_tails": ([(60, 20), (20, 49)], MATMUL),
    "matmul_panels": ([(7, 6), (3, 6, 8), (3, 8), (7, 21)], lambda b, x, w, c, y: b.add(
        b.unpack(b.add(b.contract(x, w, equation="ak,jkn->ajn"), c),
                 axes=(1,), blocks=(8,), shape=(7, 21)), y)),
    "matmul_dots": ([(2, 45), (19, 45)], lambda b, x, y: b.contract(x, y, equation="mk,nk->mn")),
    "matmul_bias_relu": ([(5, 6), (6, 17), (17,)],
                         lambda b, x, y, z: b.relu(b.add(b.matmul(x, y), z))),
    "conv": ([(1, 3, 6, 7), (5, 3, 3, 3)], lambda b, x, w: b.conv(x, w, pads=(1, 1, 1, 1))),
    "conv_strided": ([(2, 2, 7, 8), (3, 2, 3, 2)],
                     lambda b, x, w: b.conv(x, w, strides=(2, 3), pads=(1, 0, 2, 1))),
    "conv_grouped": ([(1, 4, 5, 5), (6, 2, 3, 3)], lambda b, x, w: b.conv(x, w, groups=2)),
    "conv_grouped_padded": (
        [(1, 12, 5, 19), (12, 4, 3, 3)],
        lambda b, x, w: b.conv(x, w, groups=3, pads=(1, 1, 1, 1)),
    ),
    "conv_grouped_strided": (
        [(2, 8, 6, 37), (8, 2, 3, 3)],
        lambda b, x, w: b.conv(x, w, groups=4, pads=(1, 1, 1, 1), strides=(2, 2)),
    ),
    "conv_grouped_tall": (
        [(1, 12, 6, 19), (12, 4, 5, 1)],
        lambda b, x, w: b.conv(x, w, groups=3, pads=(2, 0, 2, 0)),
    ),
    "conv_few_outputs": (
        [(1, 6, 5, 33), (2, 6, 5, 5)],
        lambda b, x, w: b.conv(x, w, pads=(2, 2, 2, 2)),
    ),
    "conv_blocked": ([(1, 2, 5, 6, 4), (2, 2, 3, 3, 4, 8)],
                     lambda b, x, w: b.conv(x, w, pads=(1, 1, 1, 1), channel_block=4, out_block=8)),
    "depthwise": ([(1, 2, 6, 6, 4), (2, 3, 3, 4)],
                  lambda b, x, w: b.conv(x, w, pads=(1, 1, 1, 1), channel_block=4, groups=8)),
    "max_pool": ([(1, 2, 7, 6)],
                 lambda b, x: b.max_pool(x, kernel=(3, 2), strides=(2, 2), pads=(1, 0, 1, 0))),
    "softmax": ([(5, 37)], lambda b, x: b.softmax(x, axis=-1)),
    "softmax_middle": ([(2, 9, 19)], lambda b, x: b.softmax(x, axis=1)),
    "layer_norm": ([(3, 70), (70,), (70,)], lambda b, x, g, c: b.layer_norm(x, g, c)),
    "sum_rows": ([(7, 130)], lambda b, x: b.reduce_sum(x, axes=(1,))),
    "sum_columns": ([(9, 21)], lambda b, x: b.reduce_sum(x, axes=(0,))),
    "sum_all": ([(3, 41)], lambda b, x: b.reduce_sum(x, axes=(0, 1))),
    "max_rows": ([(4, 67)], lambda b, x: b.reduce_max(x, axes=(1,), keepdims=True)),
    "max_numbers": ([(4, 67)], lambda b, x: b.reduce_max(x, axes=(1,), of_numbers=True)),
    "elementwise": ([(5, 1, 33), (4, 1)], lambda b, x, y: b.mul(b.add(x, y), b.sub(x, y))),
    "transpose": ([(11, 18)], lambda b, x: b.transpose(x, perm=(1, 0))),
    "one": ([(1, 1)], lambda b, x: b.mul(x, x)),
    "empty": ([(0, 3), (3,)], lambda b, x, y: b.add(x, y)),
}  # fmt: skip
