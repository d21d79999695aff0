"""Random tensor programs, interpreted before and after each pass.

A program is made from a seed: inputs (some with a symbolic batch), then ops drawn from many
families, with values kept bounded so that results can be compared.  Where a pass may change
rounding (weights, layouts, approximated functions), results are compared within a tolerance,
elsewhere to the bit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import irc
from irc.ir.core import Builder, Value
from irc.ir.dims import sym
from irc.ir.errors import Error
from irc.ir.interpret import run
from irc.ir.ops.control import ForLoop, If, Scan, While
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.target import Target
from irc.ir.text import check_round_trip, print_op
from irc.ir.types import TensorType, boolean, f32, i64
from irc.ir.verify import verify
from irc.passes import cse, fuse_build, layout
from irc.passes.lower import merge
from irc.passes.pipeline import Options, compile_module, parse_pipeline

BATCH = 3
"""The value of the symbolic dim N."""
TARGET = Target("test", vector_bits=128, registers=16, layout_block=4)


class Maker:
    """Builds one program; `values` are the float tensors so far."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.data = np.random.default_rng(seed)
        batch = sym("N") if self.rng.random() < 0.4 else BATCH
        shapes = self.rng.choice(
            [
                [(batch, 6, 5, 7)],
                [(batch, 8, 6, 6)],
                [(batch, 12)],
                [(batch, 4, 10)],
                [(batch, 12), (12, 8)],
                [(batch, 3, 8, 8), (batch, 12)],
                [(2, 16, 5, 5)],
                [(7, 9), (9,), ()],
                [(batch, 5, 1, 4)],
            ]
        )
        types = [TensorType(f32, s) for s in shapes] + [TensorType(i64, ())]
        self.func = Func.make("main", types, [f"x{k}" for k in range(len(shapes))] + ["k"])
        self.b = Builder(self.func.body)
        self.values = list(self.func.args[:-1])
        self.k = self.func.args[-1]
        self.feeds: list[Any] = [
            self.data.standard_normal([BATCH if not isinstance(e, int) else e for e in s]).astype(
                np.float32
            )
            for s in shapes
        ] + [np.asarray(self.rng.randrange(4))]
        for _ in range(self.rng.randrange(4, 14)):
            self.step()
        outs = self.rng.sample(self.values, min(len(self.values), self.rng.randrange(1, 4)))
        if self.values[-1] not in outs:
            outs.append(self.values[-1])
        self.b.emit(Return, *outs)
        self.module = Module.make([self.func])

    def const(self, *shape: int, low: float = -1.0) -> Value:
        array = self.data.uniform(low, 1.0, shape).astype(np.float32)
        if self.rng.random() < 0.15:
            array = np.full(shape, self.rng.choice([0.0, 1.0, -0.0, 2.0, 0.5]), np.float32)
        return self.b.insert(Const(array)).result

    def pick(self, rank: int | None = None) -> Value | None:
        fit = [v for v in self.values[-8:] if rank is None or v.tensor.rank == rank]
        return self.rng.choice(fit) if fit else None

    def step(self) -> None:
        """Append one op of a random family, if some value suits it."""
        family = self.rng.choice(FAMILIES)
        made = family(self, self.b)
        if made is not None and 0 < made.tensor.rank <= 5 and _size(made) < 6000:
            self.values.append(made)


def _size(v: Value) -> int:
    return int(np.prod([e if isinstance(e, int) else BATCH for e in v.tensor.shape]))


Family = Callable[[Maker, Builder], "Value | None"]


def unary(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    name = m.rng.choice(
        "relu neg abs tanh sigmoid gelu identity leaky_relu erf silu hard_sigmoid sin".split()
    )
    return getattr(b, name)(x)


def exact_unary(m: Maker, b: Builder) -> Value | None:
    return getattr(b, m.rng.choice(["relu", "neg", "abs", "identity", "abs"]))(m.pick())


def binary(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    assert x is not None
    name = m.rng.choice(["add", "sub", "mul", "max", "min"])
    alike = [v for v in m.values if v.type is x.type]
    if m.rng.random() < 0.5:
        return getattr(b, name)(x, m.rng.choice(alike))
    shape = [e if isinstance(e, int) and m.rng.random() < 0.6 else 1 for e in x.tensor.shape]
    shape = shape[m.rng.randrange(len(shape)) if shape and m.rng.random() < 0.3 else 0 :]
    y = m.const(*shape)
    return getattr(b, name)(*((x, y) if m.rng.random() < 0.7 else (y, x)))


def divide(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    c = m.b.insert(Const(np.float32(m.rng.choice([2.0, 4.0, 3.0, 1.0])).reshape(()))).result
    return b.div(x, c)


def transpose(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    assert x is not None
    perm = list(range(x.tensor.rank))
    m.rng.shuffle(perm)
    return b.transpose(x, perm=perm)


def reshape(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    assert x is not None
    shape = list(x.tensor.shape)
    if len(shape) >= 2 and m.rng.random() < 0.7:
        k = m.rng.randrange(len(shape) - 1)
        shape[k : k + 2] = [shape[k] * shape[k + 1]]
    else:
        shape.insert(m.rng.randrange(len(shape) + 1), 1)
    for k, e in enumerate(shape):
        if isinstance(e, int) and e % 2 == 0 and e > 2 and m.rng.random() < 0.5:
            shape[k : k + 1] = [2, e // 2]
            break
    return b.reshape(x, shape=shape)


def slice_(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    assert x is not None
    starts, sizes, steps = [], [], []
    for e in x.tensor.shape:
        if not isinstance(e, int) or e < 3 or m.rng.random() < 0.5:
            starts, sizes, steps = [*starts, 0], [*sizes, e], [*steps, 1]
            continue
        step = m.rng.choice([1, 1, 2])
        start = m.rng.randrange(2)
        starts, steps = [*starts, start], [*steps, step]
        sizes.append((e - start - 1) // step + 1 - m.rng.randrange(2))
    if any([s == 0 for s in sizes]):
        return None
    return b.slice(x, starts=starts, sizes=sizes, steps=steps)


def pad(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    assert x is not None
    counts = [
        [m.rng.randrange(3) if isinstance(e, int) and e > 2 else 0 for e in x.tensor.shape]
        for _ in range(2)
    ]
    mode = m.rng.choice(["constant", "constant", "edge", "reflect"])
    return b.pad(
        x,
        low=counts[0],
        high=counts[1],
        mode=mode,
        value=m.rng.choice([0.0, 0.0, 1.5]) if mode == "constant" else 0,
    )


def concat(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    assert x is not None
    axis = m.rng.randrange(x.tensor.rank) if x.tensor.rank else 0
    if not x.tensor.rank:
        return None
    parts = [v for v in m.values if v.type is x.type]
    return b.concat(*[m.rng.choice(parts) for _ in range(m.rng.randrange(1, 4))], axis=axis)


def matmul(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    if x is None or x.tensor.rank < 2 or not isinstance(x.tensor.shape[-1], int):
        return None
    k = x.tensor.shape[-1]
    if m.rng.random() < 0.3:
        w = b.transpose(m.const(8, k), perm=(1, 0))
    else:
        w = m.const(k, m.rng.choice([3, 8, 16]))
    y = b.matmul(x, w)
    if m.rng.random() < 0.5:
        y = b.add(y, m.const(y.tensor.shape[-1]))
    if m.rng.random() < 0.3:
        y = b.mul(y, m.const(y.tensor.shape[-1], low=0.1))
    return b.tanh(y) if m.rng.random() < 0.3 else y


def contract(m: Maker, b: Builder) -> Value | None:
    x = m.pick(3)
    if x is None:
        return None
    return b.contract(x, x, equation=m.rng.choice(["bik,bjk->bij", "bki,bkj->bij", "bik,bjk->bji"]))


def conv(m: Maker, b: Builder) -> Value | None:
    x = m.pick(4)
    if x is None or not all([isinstance(e, int) and e >= 3 for e in x.tensor.shape[2:]]):
        return None
    c = x.tensor.shape[1]
    if not isinstance(c, int):
        return None
    k = m.rng.choice([1, 3])
    p = m.rng.randrange(2) if k == 3 else 0
    if m.rng.random() < 0.25:
        y = b.conv(x, m.const(c, 1, k, k), pads=(p,) * 4, groups=c)
    else:
        y = b.conv(
            x,
            m.const(m.rng.choice([4, 6, 8]), c, k, k),
            pads=(p,) * 4,
            strides=m.rng.choice([(1, 1), (2, 2)]),
        )
    o = y.tensor.shape[1]
    for _ in range(m.rng.randrange(3)):
        y = m.rng.choice([b.add, b.mul, b.sub])(y, m.const(1, o, 1, 1))
    return b.relu(y) if m.rng.random() < 0.6 else y


def pool(m: Maker, b: Builder) -> Value | None:
    x = m.pick(4)
    if x is None or not all([isinstance(e, int) and e >= 3 for e in x.tensor.shape[2:]]):
        return None
    stride = m.rng.choice([1, 2])
    build = m.rng.choice([b.max_pool, b.avg_pool])
    return build(x, kernel=(2, 2), strides=(stride, stride), pads=m.rng.choice([(), (1, 0, 0, 1)]))


def reduce_(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    assert x is not None
    if not x.tensor.rank:
        return None
    axes = m.rng.sample(range(x.tensor.rank), m.rng.randrange(1, x.tensor.rank + 1))
    build = m.rng.choice([b.reduce_sum, b.reduce_mean, b.reduce_max, b.reduce_min])
    return build(x, axes=tuple(axes), keepdims=m.rng.random() < 0.6)


def normalize(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    if x is None or not x.tensor.rank:
        return None
    axis = m.rng.randrange(x.tensor.rank)
    if m.rng.random() < 0.6 or not isinstance(x.tensor.shape[-1], int):
        return m.rng.choice([b.softmax, b.log_softmax])(x, axis=axis)
    c = x.tensor.shape[-1]
    return b.layer_norm(x, m.const(c), m.const(c), axis=-1, epsilon=1e-2)


def chosen(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    if x is None or not x.tensor.rank:
        return None
    n = x.tensor.shape[-1]
    at = b.iota(shape=(n,), dtype=i64)
    mask = m.rng.choice([b.lt, b.ge, b.eq])(at, m.k)
    return b.where(mask, x, m.const())


def take(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    if x is None or not x.tensor.rank:
        return None
    axis = m.rng.randrange(x.tensor.rank)
    n = x.tensor.shape[axis]
    if not isinstance(n, int):
        return None
    index = m.b.insert(Const(m.data.integers(-n, n, m.rng.choice([(), (3,), (2, 2)])))).result
    return b.gather(x, index, axis=axis)


def sized(m: Maker, b: Builder) -> Value | None:
    """Shape arithmetic that meets data."""
    x = m.pick()
    if x is None or not x.tensor.rank:
        return None
    n = b.dim_value(dim=x.tensor.shape[0])
    two = m.b.insert(Const(np.asarray(2))).result
    n = m.rng.choice([b.add, b.mul, b.sub, b.div])(n, two)
    return b.mul(x, b.cast(n, to=f32))


def branch(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    if x is None:
        return None
    if m.rng.random() < 0.4:
        test = b.insert(Const(np.asarray(m.rng.random() < 0.5))).result
    else:
        test = b.gt(m.k, b.insert(Const(np.asarray(1))).result)
    assert test.type is TensorType(boolean, ())
    return b.insert(If.make(test, lambda b: [b.relu(x)], lambda b: [b.neg(b.abs(x))])).results[0]


def loop(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    if x is None:
        return None
    w = b.transpose(m.const(2, 2), perm=(1, 0))

    def body(b: Builder, at: Value, y: Value, z: Value) -> Sequence[Value]:
        scale = b.reduce_sum(b.transpose(w, perm=(1, 0)))
        return [b.tanh(b.add(b.mul(y, scale), z)), z]

    trip: Any = m.rng.choice([0, 1, 3, m.k])
    return b.insert(ForLoop.make(trip, [x, x], body)).results[0]


def scan(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    if x is None or x.tensor.rank < 2:
        return None
    y = x if x.tensor.rank == 2 else b.reduce_max(x, axes=tuple(range(2, x.tensor.rank)))
    if not isinstance(y.tensor.shape[1], int):
        return None
    start = m.const(y.tensor.shape[1])

    def body(b: Builder, h: Value, s: Value) -> Sequence[Value]:
        new = b.tanh(b.add(h, s))
        return [new, b.mul(new, s)]

    made = b.insert(Scan.make([start], [y], body, reverse=m.rng.random() < 0.3))
    m.values.append(made.results[1])
    return made.results[0]


def counted(m: Maker, b: Builder) -> Value | None:
    x = m.pick()
    if x is None:
        return None
    zero = b.insert(Const(np.asarray(0))).result

    def before(b: Builder, k: Value, y: Value) -> Sequence[Value]:
        return [b.lt(k, m.k)]

    def body(b: Builder, k: Value, y: Value) -> Sequence[Value]:
        return [b.add(k, b.insert(Const(np.asarray(1))).result), b.neg(b.relu(b.neg(y)))]

    return b.insert(While.make([zero, x], before, body, max_trip=5)).results[1]


FAMILIES: list[Family] = [
    unary,
    exact_unary,
    binary,
    binary,
    divide,
    transpose,
    reshape,
    slice_,
    pad,
    concat,
    matmul,
    contract,
    conv,
    conv,
    pool,
    reduce_,
    normalize,
    chosen,
    take,
    sized,
    branch,
    loop,
    scan,
    counted,
]

PIPELINE = (
    "canonicalize,cse,hoist,fold-weights,canonicalize,layout{block=4 panel=4 always},canonicalize,"
    "cse,decompose,canonicalize,hoist,fuse,lower-generic"
)
EXACT = {"cse", "hoist", "dce", "fuse"}
CLOSE = {"canonicalize"}
"""Exact but for the order in which numpy sums a product whose operand was stored the other way
round.
"""


def difference(found: Sequence[Any], wanted: Sequence[Any], scale: float) -> float:
    """The greatest difference, as a part of the greatest value; 9 where NaNs or shapes differ."""
    worst = 0.0
    for a, c in zip(found, wanted, strict=True):
        if a.shape != c.shape or a.dtype != c.dtype or not np.array_equal(np.isnan(a), np.isnan(c)):
            return 9.0
        if c.size and not np.array_equal(a, c, equal_nan=True):
            with np.errstate(all="ignore"):
                gap = np.nan_to_num(np.abs(a.astype(np.float64) - c.astype(np.float64)))
            worst = max(worst, float(gap.max()) / scale)
    return worst


def magnitude(m: Maker) -> float:
    """The greatest value anywhere in the program: what rounding errors are measured against."""
    seen = [1.0]

    def observe(value: Value, array: Any) -> None:
        if array.dtype == np.float32 and array.size:
            with np.errstate(all="ignore"):
                seen.append(float(np.nan_to_num(np.abs(array), posinf=0.0).max()))

    run(m.module, m.feeds, observe)
    return max(seen)


def check(seed: int) -> None:
    """One program through every pass of the pipeline."""
    made = Maker(seed)
    module = made.module.clone()
    verify(module)
    before = run(module, made.feeds)
    scale = magnitude(made)
    for step in parse_pipeline(PIPELINE):
        text = print_op(module)
        module = step.run(module)
        verify(module)
        after = run(module, made.feeds)
        gap = difference(after, before, scale)
        allowed = 0.0 if step.name in EXACT else 1e-6 if step.name in CLOSE else 3e-4
        assert gap <= allowed, (
            f"seed {seed}, {step}: {gap}\nbefore:\n{text}\nafter:\n{print_op(module)}"
        )
        before = after
    check_round_trip(module)


@pytest.mark.parametrize("first", range(0, 240, 20))
def test_every_pass_keeps_the_meaning(first: int) -> None:
    for seed in range(first, first + 20):
        check(seed)


@pytest.mark.parametrize("first", range(1000, 1024, 6))
def test_kernels_and_plans_keep_the_meaning(first: int) -> None:
    for seed in range(first, first + 6):
        made = Maker(seed)
        wanted = run(made.module, made.feeds)
        result = compile_module(made.module, TARGET, Options(to_phase="loops", verify_each=True))
        gap = difference(run(result.module, made.feeds), wanted, magnitude(made))
        assert gap <= 3e-4, f"seed {seed}: {gap}\n{print_op(result.module)}"


@pytest.mark.parametrize("first", range(2000, 2040, 10))
def test_compiled_programs_keep_the_meaning(first: int) -> None:
    """Through this machine's schedules, LLVM and the plan."""
    for seed in range(first, first + 10):
        made = Maker(seed)
        wanted = run(made.module, made.feeds)
        found = irc.compile(made.module, target="cpu", threads=1).run(list(made.feeds))
        gap = difference(found, wanted, magnitude(made))
        assert gap <= 3e-4, f"seed {seed}: {gap}\n{print_op(made.module)}"


def test_programs_are_not_trivial() -> None:
    ops = [len(list(Maker(seed).module.walk())) for seed in range(50)]
    names = {op.name for seed in range(120) for op in Maker(seed).module.walk()}
    assert np.median(ops) > 10 and len(names) > 45


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        (merge, "_guard", lambda *given: ()),
        (cse, "_key", lambda value: 0),
        (fuse_build, "_copied", lambda *given: True),
        (layout, "_moves_nothing", lambda *given: True),
    ],
)
def test_a_planted_fault_is_seen(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, fault: Any
) -> None:
    monkeypatch.setattr(where, name, fault)
    with pytest.raises((AssertionError, Error, KeyError)):
        for seed in range(200):
            check(seed)
