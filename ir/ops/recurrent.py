"""What the recurrent layers share: operands, directions, activations, the scan over the steps.

A class names its gates and its states (h first), gives one step on numpy arrays (`step`) and the
same as IR (`cell`).  `decompose` takes the product of all steps with w out of the scan, which is
left with the recurrent part.  Imports: the core, types, dims, control, contract.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import OPS, Array, Builder, Float, Op, Value, attr, operand, optional
from ..dims import DimLike
from ..types import DType, Shape, TensorType, f32
from .constraints import require, same
from .contract import as_type
from .control import Scan
from .core import zeros
from .elementwise import constant

DIRECTIONS = ("forward", "reverse", "bidirectional")
ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "sigmoid": (), "tanh": (), "relu": (), "softplus": (), "silu": (), "elu": ("alpha",),
    "leaky_relu": ("alpha",), "hard_sigmoid": ("alpha", "beta"), "softsign": (),
    "affine": ("alpha", "beta"), "scaled_tanh": ("alpha", "beta"), "thresholded_relu": ("alpha",),
}  # fmt: skip
"""The parameters of each activation; those that are no op of their own are in `_COMPOSED`."""

Call = Callable[..., Any]

_COMPOSED: Mapping[str, Callable[..., Any]] = {
    "affine": lambda do, x, one, alpha, beta: do("add", do("mul", x, one(alpha)), one(beta)),
    "scaled_tanh": lambda do, x, one, alpha, beta: do(
        "mul", do("tanh", do("mul", x, one(beta))), one(alpha)
    ),
}


def activate(do: Call, one: Callable[[float], Any], named: Any, x: Any) -> Any:
    """The activation `named` (a name, or name and parameters) of x.

    `do(op, *operands, **attrs)` computes an op, `one(value)` makes a constant like x.
    """
    name, *given = (named,) if isinstance(named, str) else named
    if name in _COMPOSED:
        return _COMPOSED[name](do, x, one, *given)
    return do(name, x, **dict(zip(ACTIVATIONS[name], given)))


def is_activation(named: Any) -> bool:
    """A known name, or a tuple of one and of all its parameters."""
    name, *given = (named,) if isinstance(named, str) else named
    if name not in ACTIVATIONS:
        return False
    needed = len(ACTIVATIONS[name])
    return len(given) == needed or (not given and name not in _COMPOSED)


class _Recurrent(Op):
    """Base: x [T, B, I]; with D directions, G gates and H hidden units w [D, GH, I], r [D, GH, H],
    bias [D, 2GH] (of w, then of r), h0 [D, B, H] (zeros), lengths [B] (T).

    Steps at or behind a sequence's length leave its state and give zeros; the reverse direction
    starts at the length.  f8, f16 and bf16 compute in f32.  `activations` are those of each
    direction, a name or (name, parameters...); `clip` bounds what enters them, 0 does not.
    """

    gates: ClassVar[int]
    states: ClassVar[tuple[str, ...]] = ("h0",)
    """The operands that say where the states begin."""
    usual: ClassVar[tuple[str, ...]]
    """The activations where none are given."""
    step: ClassVar[Callable[..., list[Array]]]
    """`step(direction, entering, states)`: the next states (h first), in numpy, from the product
    with w, to which no bias is added yet, and the states."""
    cell: ClassVar[Callable[..., list[Value]]]
    """`cell(self, direction, b, entering, states)`: the same as IR; the bias is added already, as
    `outside` says."""

    x = operand(Float)
    w = operand(Float)
    r = operand(Float)
    bias = optional(Float)
    h0 = optional(Float)
    direction = attr(str, "forward")
    activations = attr(tuple, ())
    clip = attr(float, 0.0)

    @classmethod
    def parameters(cls, d: int, hidden: DimLike, batch: DimLike, inputs: DimLike) -> dict[str, Any]:
        """The shape of each operand behind x for d directions."""
        wide = cls.gates * hidden
        shapes: dict[str, Any] = {"w": (d, wide, inputs), "r": (d, wide, hidden)}
        shapes["bias"] = (d, 2 * wide)
        shapes |= dict.fromkeys(cls.states, (d, batch, hidden))
        shapes["lengths"] = (batch,)
        return shapes

    @classmethod
    def infer(cls, *types: TensorType | None, **attrs: Any) -> tuple[TensorType, ...]:
        given = dict(zip([o.name for o in cls.spec.operands], types))
        x, w, r = given["x"], given["w"], given["r"]
        assert x is not None and w is not None and r is not None
        for name, found in given.items():
            ok = found is None or name == "lengths" or found.dtype is x.dtype
            require(
                ok, "E0303", f"{cls.name} (C1): operands must have one element type",
                f"x : {x}   {name} : {found}",
            )  # fmt: skip
        direction, named = attrs["direction"], attrs["activations"]
        count = 2 if direction == "bidirectional" else 1
        known = direction in DIRECTIONS and all([is_activation(a) for a in named])
        require(
            known and len(named) in (0, len(cls.usual) * count),
            "E0341",
            f"{cls.name} (C3): unknown direction or activations",
            f"found {direction}, {named}",
            hint=f"{', '.join(DIRECTIONS)}; {len(cls.usual)} of {', '.join(ACTIVATIONS)} "
            "per direction",
        )
        require(
            x.rank == 3 and w.rank == 3 and r.rank == 3,
            "E0341",
            f"{cls.name} (C2): x, w and r must have rank 3",
            f"x : {x}   w : {w}   r : {r}",
        )
        time, batch, inputs = x.shape
        hidden = r.shape[2]
        for name, shape in cls.parameters(count, hidden, batch, inputs).items():
            _must_have(cls.name, name, given.get(name), shape)
        state = TensorType(x.dtype, (count, batch, hidden))
        return TensorType(x.dtype, (time, *state.shape)), *[state] * len(cls.states)

    def outside(self, b: Builder, bias: Value, hidden: DimLike) -> Value:
        """The part of the bias [2GH] that is added to all steps at once: [GH]."""
        wide = self.gates * hidden
        return b.add(*[b.slice(bias, starts=(k * wide,), sizes=(wide,)) for k in (0, 1)])  # type: ignore[no-any-return]

    @classmethod
    def evaluate(cls, *arrays: Array | None, **attrs: Any) -> tuple[Array, ...]:
        given = dict(zip([o.name for o in cls.spec.operands], arrays))
        x = given["x"]
        assert x is not None
        wide = np.float64 if x.dtype == np.float64 else np.float32
        cast = {
            n: None if a is None or n == "lengths" else a.astype(wide) for n, a in given.items()
        }
        runs = []
        for at, (reverse, named) in enumerate(cls.directions(attrs)):
            part = {n: None if a is None or n == "x" else a[at] for n, a in cast.items()}
            direction = NumpyDirection(cls, part, named, attrs)
            runs.append(direction.run(cast["x"], given.get("lengths"), reverse))  # type: ignore[arg-type]
        axes = (1, *[0] * len(cls.states))
        return tuple(
            [
                np.stack([run[k] for run in runs], axis).astype(x.dtype)
                for k, axis in enumerate(axes)
            ]
        )

    @classmethod
    def directions(cls, attrs: Mapping[str, Any]) -> list[tuple[bool, Sequence[Any]]]:
        """(runs backwards, activations) of each direction."""
        names = ("forward", "reverse") if attrs["direction"] == "bidirectional" else (
            attrs["direction"],)  # fmt: skip
        each = len(cls.usual)
        given = attrs["activations"]
        return [
            (name == "reverse", given[each * at : each * at + each] or cls.usual)
            for at, name in enumerate(names)
        ]

    def decompose(self, b: Builder) -> tuple[Value, ...]:
        """Per direction: one product of all steps with w, then a scan of the recurrent part."""
        dtype = self.x.tensor.dtype
        wide = f32 if dtype.bits < 32 else dtype
        given = dict(zip([o.name for o in self.spec.operands], self.operands))
        cast = {
            n: v if v is None or n == "lengths" else as_type(b, v, wide) for n, v in given.items()
        }
        runs = []
        for at, (reverse, named) in enumerate(self.directions(self.attributes)):
            part = {
                n: v if v is None or n in ("x", "lengths") else _row(b, v, at)
                for n, v in cast.items()
            }
            runs.append(Direction(self, part, named, reverse, b).run(b))
        out = []
        for k in range(1 + len(self.states)):
            lifted = [_lift(b, run[k], 0 if k else 1) for run in runs]
            joined = lifted[0] if len(lifted) == 1 else b.concat(*lifted, axis=0 if k else 1)
            out.append(as_type(b, joined, dtype))
        return tuple(out)


def _must_have(op: str, name: str, found: TensorType | None, shape: Shape) -> None:
    if found is None:
        return
    fits = found.rank == len(shape) and all(
        [same(a, e) is not False for a, e in zip(found.shape, shape)]
    )
    require(
        fits, "E0341", f"{op} (C2): {name} does not fit",
        f"found {found}", f"expected {TensorType(found.dtype, shape)}",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class NumpyDirection:
    """One direction in numpy: `given` are its parameters by operand name."""

    op: type[_Recurrent]
    given: Mapping[str, Array | None]
    named: Sequence[Any]
    attrs: Mapping[str, Any]

    def __getitem__(self, name: str) -> Array:
        found = self.given[name]
        assert found is not None
        return found

    def run(self, x: Array, lengths: Array | None, reverse: bool) -> list[Array]:
        """[y, the last states...]."""
        states = [
            np.zeros((x.shape[1], self["r"].shape[1]), x.dtype) if found is None else found
            for found in [self.given.get(name) for name in self.op.states]
        ]
        entering = x @ self["w"].T
        y = np.zeros((x.shape[0], *states[0].shape), x.dtype)
        for t in reversed(range(len(x))) if reverse else range(len(x)):
            new = self.op.step(self, entering[t], states)
            active = True if lengths is None else (t < lengths)[:, None]
            states = [np.where(active, n, old) for n, old in zip(new, states)]
            y[t] = np.where(active, new[0], 0)
        return [y, *states]

    def biases(self) -> tuple[Array, Array]:
        """The bias [GH] of w and that of r."""
        found = self.given.get("bias")
        if found is None:
            found = np.zeros(2 * self["r"].shape[0], self["r"].dtype)
        first, second = np.split(found, 2)
        return first, second

    def activate(self, which: int, x: Array, clipped: bool = True) -> Array:
        """Activation number `which` of x, clipped where asked for."""
        clip = self.attrs["clip"] if clipped else 0
        x = np.clip(x, -clip, clip) if clip else x

        def do(op: str, *xs: Any, **attrs: Any) -> Any:
            return OPS[op].evaluate(*xs, **attrs)

        return activate(do, lambda v: np.asarray(v, x.dtype), self.named[which], x)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction as IR; `given` are its parameters, without the direction axis.  `before` puts
    what no step changes in front of the scan.
    """

    op: _Recurrent
    given: Mapping[str, Value | None]
    named: Sequence[Any]
    reverse: bool
    before: Builder

    def __getitem__(self, name: str) -> Value:
        found = self.given[name]
        assert found is not None
        return found

    def run(self, b: Builder) -> list[Value]:
        """[y, the last states...]."""
        x = self["x"]
        time, batch = x.tensor.shape[:2]
        hidden = self["r"].tensor.shape[1]
        entering = b.contract(x, self["w"], equation="tbi,gi->tbg")
        if self.given.get("bias") is not None:
            entering = b.add(entering, self.op.outside(b, self["bias"], hidden))
        starts = [self.start(b, name, (batch, hidden), x.tensor.dtype) for name in self.op.states]
        lengths = self.given.get("lengths")
        if type(time) is int and time == 1:
            only = b.reshape(entering, shape=(batch, self.op.gates * hidden))
            first = None if lengths is None else constant(b, lengths, 0)
            *states, y = self.step(b, starts, only, first)
            return [b.reshape(y, shape=(1, batch, hidden)), *states]
        scanned = [entering]
        if lengths is not None:
            scanned.append(b.iota(shape=(time,), dtype=lengths.tensor.dtype))

        def body(b: Builder, *args: Value) -> Sequence[Value]:
            count = len(starts)
            at = args[count + 1] if len(args) > count + 1 else None
            return self.step(b, args[:count], args[count], at)

        scan = Scan.make(starts, scanned, body, reverse=self.reverse, loc=b.loc)
        *states, y = b.insert(scan).results
        return [y, *states]

    def start(self, b: Builder, name: str, shape: Shape, dtype: DType) -> Value:
        """The initial state."""
        found = self.given.get(name)
        if found is not None:
            return found
        return zeros(b, TensorType(dtype, shape))

    def step(
        self, b: Builder, states: Sequence[Value], entering: Value, at: Value | None
    ) -> list[Value]:
        """The next states, and y; `at` is the step's number where sequences have lengths."""
        new = self.op.cell(self, b, entering, states)
        if at is None:
            return [*new, new[0]]
        lengths = self["lengths"]
        active = b.reshape(b.lt(at, lengths), shape=(*lengths.tensor.shape, 1))
        zero = constant(b, new[0], 0.0)
        kept = [b.where(active, n, old) for n, old in zip(new, states)]
        return [*kept, b.where(active, new[0], zero)]

    def recurrent(self, b: Builder, h: Value) -> Value:
        """The product of h with r: [B, GH]."""
        return b.contract(h, self["r"], equation="bh,gh->bg")  # type: ignore[no-any-return]

    def gate(self, b: Builder, x: Value, at: int, count: int = 1) -> Value:
        """Gate number `at`, or `count` gates from there on, of x [B, GH]."""
        hidden = self["r"].tensor.shape[1]
        sizes = (x.tensor.shape[0], count * hidden)
        return b.slice(x, starts=(0, at * hidden), sizes=sizes)  # type: ignore[no-any-return]

    def rows(self, name: str, at: int, count: int = 1) -> Value:
        """`count` times H rows of the parameter `name`, from gate `at` on."""
        b = self.before
        x = self[name]
        hidden = self["r"].tensor.shape[1]
        rest = x.tensor.shape[1:]
        starts = (at * hidden, *[0] * len(rest))
        return b.slice(x, starts=starts, sizes=(count * hidden, *rest))  # type: ignore[no-any-return]

    def activate(self, b: Builder, which: int, x: Value, clipped: bool = True) -> Value:
        """Activation number `which` of x, clipped where asked for."""
        clip = self.op.clip if clipped else 0
        if clip:
            x = b.max(b.min(x, constant(b, x, clip)), constant(b, x, -clip))

        def do(op: str, *xs: Value, **attrs: Any) -> Any:
            return getattr(b, op)(*xs, **attrs)

        return activate(do, lambda v: constant(b, x, v), self.named[which], x)  # type: ignore[no-any-return]


def _row(b: Builder, x: Value, at: int) -> Value:
    """x[at], along axis 0."""
    shape = x.tensor.shape
    if type(shape[0]) is not int or shape[0] != 1:
        x = b.slice(x, starts=(at, *[0] * (len(shape) - 1)), sizes=(1, *shape[1:]))
    return b.reshape(x, shape=shape[1:])  # type: ignore[no-any-return]


def _lift(b: Builder, x: Value, axis: int) -> Value:
    """x with a new axis of extent 1."""
    shape: list[DimLike] = list(x.tensor.shape)
    shape.insert(axis, 1)
    return b.reshape(x, shape=shape)  # type: ignore[no-any-return]


__all__ = ["ACTIVATIONS", "DIRECTIONS", "Direction", "NumpyDirection"]
