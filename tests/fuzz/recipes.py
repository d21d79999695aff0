"""Random programs of the shapes that models have: chains of convolutions, products, rows, loops.

A recipe draws its sizes from a seed and builds one function whose batch may be the symbol N.
Lengths are chosen to leave tails: 1, 3, 17, 33, 100.  Where results jump (comparisons, argmax,
integer division), operands come straight from the inputs, so that rounding cannot decide.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irc.ir.core import Array, Builder, Value
from irc.ir.dims import DimLike, evaluate, sym
from irc.ir.ops.control import ForLoop, If, Scan, While
from irc.ir.ops.core import Const, Func, Module, Return
from irc.ir.types import DType, TensorType, boolean, f32, i8, i32, i64, u8

LENGTHS = (1, 3, 17, 33, 100)
ARITHMETIC = "add sub mul div rem mod min max bitwise_and bitwise_xor".split()
ONE = "relu neg abs sqrt floor ceil sign exp log tanh sigmoid erf".split()
TWO = "add mul min max div lt eq ne ge".split()
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, 3e38)


class Program:
    """A function under construction; `feeds(n)` are its inputs where N is n."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed
        self.rng = random.Random(f"{name} {seed}")
        self.data = np.random.default_rng(self.rng.randrange(1 << 30))
        self.func = Func.make("main", [], [])
        self.b = Builder(self.func.body)
        self.makers: list[tuple[TensorType, float, float, bool]] = []
        self.batch: DimLike = sym("N") if self.rng.random() < 0.6 else self.rng.choice((1, 2, 3))
        outs = RECIPES[name](self, self.b)
        self.func.set_attr("inputs", tuple([f"x{k}" for k in range(len(self.makers))]))
        self.b.emit(Return, *(outs if isinstance(outs, (tuple, list)) else (outs,)))
        self.module = Module.make([self.func])

    @property
    def symbolic(self) -> bool:
        """Whether some input's shape holds N."""
        return any([not t.is_static for t, *_ in self.makers])

    def arg(
        self,
        *shape: DimLike,
        dtype: DType = f32,
        low: float = -2,
        high: float = 2,
        wild: bool = False,
    ) -> Value:
        """A new input; `wild` mixes in NaN, infinities and denormals."""
        type_ = TensorType(dtype, shape)
        self.makers.append((type_, low, high, wild))
        return self.func.body.add_arg(type_, f"x{len(self.makers) - 1}")

    def const(self, *shape: int, scale: float = 1.0) -> Value:
        """A weight."""
        array = self.data.uniform(-scale, scale, shape).astype(np.float32)
        return self.b.insert(Const(array)).result

    def number(self, value: Any, dtype: Any = np.int64) -> Value:
        """A constant of rank 0, or the array given."""
        return self.b.insert(Const(np.asarray(value, dtype))).result

    def choice(self, *things: Any) -> Any:
        return self.rng.choice(things)

    def chance(self, part: float = 0.5) -> bool:
        return self.rng.random() < part

    def feeds(self, n: int) -> list[Array]:
        """Seeded inputs for N = n."""
        rng = np.random.default_rng(self.seed + 31 * n)
        found = []
        for type_, low, high, wild in self.makers:
            shape = [evaluate(e, {"N": n}) for e in type_.shape]
            if type_.dtype is boolean:
                found.append(np.asarray(rng.integers(0, 2, shape)).astype(np.bool_))
            elif type_.dtype.is_integer:
                made = rng.integers(int(low), int(high), shape, endpoint=True)
                found.append(np.asarray(made).astype(type_.dtype.np))
            else:
                array = np.asarray(rng.uniform(low, high, shape)).astype(type_.dtype.np)
                if wild:
                    odd = rng.random(shape) < 0.3
                    array = np.where(odd, rng.choice(SPECIAL, shape), array).astype(array.dtype)
                found.append(array)
        return found


Made = Value | Sequence[Value]
Recipe = Callable[[Program, Builder], Made]


def convolutions(p: Program, b: Builder) -> Made:
    """Convolutions with bias, activation, residual and pooling, in one or two dimensions."""
    rank = p.choice(1, 2, 2, 2)
    size = [p.rng.randrange(5, 20) for _ in range(rank)]
    x = p.arg(p.batch, p.choice(1, 2, 3, 4, 8, 16, 17), *size)
    for _ in range(p.rng.randrange(1, 4)):
        x = _convolution(p, b, x, rank)
        if p.chance(0.4):
            x = _pooled(p, b, x, rank)
    if p.chance(0.3):
        x = b.reduce_mean(x, axes=tuple(range(2, 2 + rank)))
    return x


def _convolution(p: Program, b: Builder, x: Value, rank: int) -> Value:
    channels, size = x.tensor.shape[1], x.tensor.shape[2:]
    assert isinstance(channels, int)
    groups = p.choice(1, 1, 1, channels, 2 if channels % 2 == 0 else 1)
    out = groups * p.choice(1, 2, 3, 8) if groups > 1 else p.choice(1, 3, 5, 8, 16, 17, 32)
    kernel = [p.choice(1, 2, 3, 3, 5) for _ in range(rank)]
    dilations = [p.choice(1, 1, 1, 2) for _ in range(rank)]
    pads = [p.rng.randrange(3) for _ in range(2 * rank)]
    for k, e in enumerate(size):
        reach = dilations[k] * (kernel[k] - 1) + 1
        if e + pads[k] + pads[k + rank] < reach:
            kernel[k] = dilations[k] = 1
    strides = [p.choice(1, 1, 2, 3) for _ in range(rank)]
    w = p.const(out, channels // groups, *kernel, scale=0.5)
    y = b.conv(x, w, strides=strides, pads=pads, dilations=dilations, groups=groups)
    if p.chance(0.7):
        y = b.add(y, p.const(out, *[1] * rank))
    if p.chance(0.3) and y.type is x.type:
        y = b.add(y, x)
    return getattr(b, p.choice("relu", "relu", "sigmoid", "leaky_relu", "silu", "identity"))(y)


def _pooled(p: Program, b: Builder, x: Value, rank: int) -> Value:
    size = x.tensor.shape[2:]
    kernel = [min(p.choice(2, 3), e) for e in size if isinstance(e, int)]
    strides = [p.choice(1, 2, 3) for _ in range(rank)]
    pads = [p.rng.randrange(k) for k in kernel * 2] if p.chance(0.3) else ()
    if p.chance(0.6):
        return b.max_pool(x, kernel=kernel, strides=strides, pads=pads, ceil_mode=p.chance(0.2))
    return b.avg_pool(x, kernel=kernel, strides=strides, pads=pads, count_include_pad=p.chance())


def products(p: Program, b: Builder) -> Made:
    """Linear layers in awkward sizes, with epilogues, a weight now and then transposed."""
    x = p.arg(p.choice(p.batch, p.batch, *LENGTHS), k := p.choice(*LENGTHS))
    seen = []
    for _ in range(p.rng.randrange(1, 4)):
        n = p.choice(*LENGTHS)
        w = p.const(k, n, scale=k**-0.5)
        if p.chance(0.3):
            w = b.transpose(p.const(n, k, scale=k**-0.5), perm=(1, 0))
        x = b.matmul(x, w)
        if p.chance(0.6):
            x = b.add(x, p.const(n))
        x = getattr(b, p.choice("relu", "tanh", "gelu", "identity", "sigmoid"))(x)
        seen.append(x)
        k = n
    if p.chance(0.3):
        x = p.choice(b.softmax, b.log_softmax)(x, axis=-1)
    return [x, seen[0]] if p.chance(0.3) else x


def batched(p: Program, b: Builder) -> Made:
    """Batched products of two inputs, with broadcast leading dims; sometimes attention."""
    m, k, n = [p.choice(1, 3, 8, 17, 33) for _ in range(3)]
    heads = p.choice(1, 2, 3)
    x = p.arg(p.batch, heads, m, k)
    if p.chance(0.4):
        keys, values = p.arg(p.batch, heads, n, k), p.arg(p.batch, heads, n, k)
        scores = b.matmul(x, b.transpose(keys, perm=(0, 1, 3, 2)))
        scores = b.mul(scores, p.number(k**-0.5, np.float32))
        if p.chance():
            scores = b.where(p.arg(m, n, dtype=boolean), scores, p.number(-1e4, np.float32))
        y = b.matmul(b.softmax(scores, axis=-1), values)
        return b.reshape(b.transpose(y, perm=(0, 2, 1, 3)), shape=(p.batch, m, heads * k))
    shape = p.choice((p.batch, heads, k, n), (heads, k, n), (1, k, n), (k, n), (p.batch, 1, k, n))
    y = b.matmul(x, p.arg(*shape))
    return b.add(y, p.const(n)) if p.chance() else y


def equations(p: Program, b: Builder) -> Made:
    """Contractions with operands and result stored in any order."""
    sizes = {c: p.choice(1, 2, 3, 5, 17) for c in "bmnkl"}
    groups = {"m": "x.", "n": ".y", "k": "xy", "b": "b", "l": "xy"}
    letters = [c for c in "mnkbl" if c in "mnk" or p.chance(0.3)]
    left = [c for c in letters if groups[c] in ("x.", "xy", "b")]
    right = [c for c in letters if groups[c] in (".y", "xy", "b")]
    out = [c for c in letters if groups[c] != "xy"]
    for part in (left, right, out):
        p.rng.shuffle(part)
    equation = f"{''.join(left)},{''.join(right)}->{''.join(out)}"
    x, y = p.arg(*[sizes[c] for c in left]), p.arg(*[sizes[c] for c in right])
    made = b.contract(x, y, equation=equation)
    return b.relu(made) if p.chance() else made


def rows(p: Program, b: Builder) -> Made:
    """Softmax, norms and reductions of every kind along any axes."""
    rank = p.rng.randrange(1, 5)
    x = p.arg(*[p.choice(1, 2, 3, 7, 17, 40) for _ in range(rank - 1)], p.choice(*LENGTHS, p.batch))
    y = getattr(b, p.choice("identity", "exp", "tanh"))(x)
    outs = []
    for _ in range(p.rng.randrange(1, 3)):
        axes = tuple(p.rng.sample(range(rank), p.rng.randrange(1, rank + 1)))
        kind = p.choice("softmax", "log_softmax", "norm", *REDUCTIONS)
        if kind == "norm":
            c = y.tensor.shape[-1]
            weights = [p.const(c), p.const(c)] if isinstance(c, int) and p.chance() else []
            outs.append(b.layer_norm(y, *weights, axis=-1, epsilon=1e-2))
        elif kind in REDUCTIONS:
            z = (
                b.add(b.abs(y), p.number(0.5, np.float32))
                if "log" in kind or kind.endswith("prod")
                else y
            )
            made = getattr(b, kind)(z, axes=axes, keepdims=(keep := p.chance()))
            outs.append(b.sub(y, made) if keep and p.chance() else made)
        else:
            outs.append(getattr(b, kind)(y, axis=axes[0]))
    if p.chance(0.3):
        outs.append(
            p.choice(b.argmax, b.argmin)(x, axis=p.rng.randrange(rank), keepdims=p.chance())
        )
    return outs


REDUCTIONS = tuple(
    f"reduce_{name}"
    for name in "sum mean max min prod l1 l2 sum_square log_sum log_sum_exp".split()
)


def moves(p: Program, b: Builder) -> Made:
    """Slices with steps, pads, concatenations, gathers, transposes, reshapes."""
    x = p.arg(p.batch, p.choice(3, 6, 17), p.choice(4, 9, 33))
    for _ in range(p.rng.randrange(2, 6)):
        c, n = x.tensor.shape[1:]
        assert isinstance(c, int) and isinstance(n, int)
        match p.rng.randrange(7):
            case 0:
                step = p.choice(1, 2, 3, -1, -2)
                start = (
                    p.rng.randrange(min(3, n)) if step > 0 else n - 1 - p.rng.randrange(min(3, n))
                )
                room = n - 1 - start if step > 0 else start
                size = room // abs(step) + 1
                x = b.slice(x, starts=(0, 0, start), sizes=(p.batch, c, size), steps=(1, 1, step))
            case 1:
                low, high = [(0, p.rng.randrange(2), p.rng.randrange(min(n, 4))) for _ in range(2)]
                mode = p.choice("constant", "edge", "reflect") if c > 1 else "constant"
                value = p.choice(0, 1.5) if mode == "constant" else 0
                x = b.pad(x, low=low, high=high, mode=mode, value=value)
            case 2:
                x = b.concat(x, b.neg(x), *[x] * p.rng.randrange(2), axis=p.choice(1, 2))
            case 3:
                axis = p.choice(1, 2)
                most = x.tensor.shape[axis]
                at = p.arg(p.choice(1, 5, 17), dtype=i64, low=-most, high=most - 1)
                x = b.gather(x, at, axis=axis)
            case 4:
                x = b.transpose(x, perm=(0, 2, 1))
            case 5:
                x = b.reshape(x, shape=(p.batch, n, c))
            case _:
                x = b.mul(x, p.const(1, n))
        if x.tensor.shape[1] * x.tensor.shape[2] > 3000:  # type: ignore[operator]
            x = b.reduce_max(x, axes=(1,), keepdims=True)
    return x


def integers(p: Program, b: Builder) -> Made:
    """Integer and bool arithmetic, casts, `where`, integer products and reductions."""
    dtype = p.choice(i64, i32, i8, u8, DType("i16"), DType("u32"))
    shape = (p.batch, p.choice(1, 7, 33))
    low = -9 if dtype.kind == "int" else 0
    values = [p.arg(*shape, dtype=dtype, low=low, high=9) for _ in range(3)]
    flags = [p.arg(*shape, dtype=boolean)]
    for _ in range(p.rng.randrange(3, 9)):
        x, y = p.rng.choice(values), p.rng.choice(values)
        match p.rng.randrange(6):
            case 0 | 1:
                values.append(getattr(b, p.choice(*ARITHMETIC))(x, y))
            case 2:
                flags.append(getattr(b, p.choice("lt", "le", "eq", "ne", "gt", "ge"))(x, y))
            case 3:
                values.append(b.where(p.rng.choice(flags), x, y))
            case 4:
                logic = getattr(b, p.choice("logical_and", "logical_or", "logical_xor"))
                flags.append(logic(p.rng.choice(flags), b.logical_not(p.rng.choice(flags))))
            case _:
                values.append(b.cast(b.cast(x, to=p.choice(i64, f32, u8, i8, i32)), to=dtype))
    reduction = p.choice("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")
    total = getattr(b, reduction)(values[-1], axes=(p.choice(0, 1),))
    return [values[-1], flags[-1], total, b.argmax(values[-1], axis=1)]


def wild(p: Program, b: Builder) -> Made:
    """NaN, infinities and denormals through ops that define them."""
    x, y = p.arg(p.batch, 33, wild=True), p.arg(p.batch, 33, wild=True)
    outs = []
    for _ in range(4):
        name = p.choice(*ONE, *TWO)
        outs.append(getattr(b, name)(*((x, y) if name in TWO else (x,))))
    outs.append(b.where(b.is_nan(x), y, x))
    outs.append(p.choice(b.reduce_max, b.reduce_min)(x, axes=(p.choice(0, 1),)))
    ends = p.number(-1, np.float32), p.number(1, np.float32)
    outs += [b.clip(x, *ends), b.cast(x, to=p.choice(i32, u8, i64, boolean))]
    return outs


def decisions(p: Program, b: Builder) -> Made:
    """`if`, `for`, `while` and `scan` whose course depends on data, nested now and then."""
    c = p.choice(1, 3, 17)
    x, k = p.arg(p.batch, c), p.arg(dtype=i64, low=0, high=4)
    w = p.const(c, c, scale=c**-0.5)

    def step(b: Builder, y: Value) -> Value:
        return b.tanh(b.add(b.matmul(y, w), x)) if p.chance() else b.tanh(b.add(y, y))

    def branch(b: Builder, y: Value) -> Value:
        test = p.choice(b.gt, b.eq)(k, b.insert(Const(np.asarray(2))).result)
        return b.insert(If.make(test, lambda b: [step(b, y)], lambda b: [y])).results[0]

    def counted(b: Builder, y: Value) -> Value:
        def body(b: Builder, at: Value, z: Value) -> Sequence[Value]:
            return [branch(b, z) if p.chance(0.4) else step(b, b.mul(z, b.cast(at, to=f32)))]

        return b.insert(ForLoop.make(p.choice(k, 3), [y], body)).results[0]

    def until(b: Builder, y: Value) -> Value:
        half = b.insert(Const(np.asarray(0.5, np.float32))).result
        large = b.insert(Const(np.asarray(1e-3, np.float32))).result

        def before(b: Builder, z: Value, n: Value) -> Sequence[Value]:
            return [b.gt(b.reduce_max(n, axes=(0, 1)), large)]

        def body(b: Builder, z: Value, n: Value) -> Sequence[Value]:
            return [step(b, z), b.mul(n, half)]

        return b.insert(While.make([y, b.abs(x)], before, body)).results[0]

    def scanned(b: Builder, y: Value) -> Value:
        def body(b: Builder, h: Value, s: Value) -> Sequence[Value]:
            new = b.tanh(b.add(h, s))
            return [new, b.mul(new, s)]

        start = b.reduce_max(y, axes=(0,))
        made = b.insert(Scan.make([start], [y], body, reverse=p.chance()))
        return b.add(made.results[1], made.results[0])

    y = x
    for _ in range(p.rng.randrange(1, 4)):
        y = p.choice(branch, counted, until, scanned)(b, y)
    return [y, b.reduce_sum(y, axes=(0,))] if p.chance() else y


def recurrent(p: Program, b: Builder) -> Made:
    """LSTM in every direction, with and without states and lengths."""
    steps, inside, hidden = p.choice(1, 2, 5), p.choice(1, 3, 17), p.choice(1, 4, 9, 16)
    direction = p.choice("forward", "reverse", "bidirectional")
    d = 2 if direction == "bidirectional" else 1
    x = p.arg(steps, p.batch, inside)
    w, r = p.const(d, 4 * hidden, inside, scale=0.5), p.const(d, 4 * hidden, hidden, scale=0.5)
    bias = p.const(d, 8 * hidden) if p.chance(0.7) else None
    state = [p.arg(d, p.batch, hidden), p.arg(d, p.batch, hidden)] if p.chance() else [None, None]
    peephole = p.const(d, 3 * hidden) if p.chance(0.3) else None
    lengths = p.arg(p.batch, dtype=i32, low=0, high=steps) if p.chance(0.4) else None
    y, h, c = b.lstm(x, w, r, bias, *state, peephole, lengths, direction=direction)
    return p.choice([y], [y, h, c], [h], [b.relu(y), c])


def empty(p: Program, b: Builder) -> Made:
    """Dims of extent 0 and values of rank 0."""
    x, s = p.arg(p.choice(0, p.batch), p.choice(0, 3), 4), p.arg()
    y = b.add(b.mul(x, s), p.const(4))
    outs = [y, b.relu(s), b.sub(b.reduce_sum(y, axes=(0, 1, 2)), s)]
    outs.append(b.matmul(y, p.const(4, 5)))
    outs.append(b.concat(y, p.arg(x.tensor.shape[0], p.choice(0, 2), 4), axis=1))
    outs.append(b.reduce_prod(y, axes=(1,)))
    outs.append(b.softmax(y, axis=2))
    outs.append(b.transpose(y, perm=(2, 0, 1)))
    return p.rng.sample(outs, 3)


RECIPES: dict[str, Recipe] = {
    f.__name__: f
    for f in (convolutions, products, batched, equations, rows, moves, integers, wild, decisions,
              recurrent, empty)
}  # fmt: skip
