"""Recurrent layers: `lstm` (ONNX LSTM, layout 0), a composite of one big product and a scan.

Hochreiter and Schmidhuber 1997, with the peepholes of Gers 2000.  Imports: the core, types, dims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import OPS, Array, Builder, Float, Int, Op, Value, attr, operand, optional, sample
from ..dims import DimLike
from ..types import DType, Shape, TensorType, f32
from .constraints import require, same
from .contract import as_type
from .control import Scan
from .core import Const
from .elementwise import constant

DIRECTIONS = ("forward", "reverse", "bidirectional")
ACTIVATIONS = ("sigmoid", "tanh", "relu", "softplus", "silu", "elu")
OPERANDS = ("x", "w", "r", "bias", "h0", "c0", "peephole", "lengths")


class Lstm(Op):
    """(y, y_h, y_c) of an LSTM over x [T, B, I], gates in the order input, output, forget, cell.

    With D directions and H hidden units: w [D, 4H, I], r [D, 4H, H], bias [D, 8H] (of w, then of
    r), h0 and c0 [D, B, H] (zeros), peephole [D, 3H] (input, output, forget), lengths [B] (T); y is
    [T, D, B, H], y_h and y_c the last states [D, B, H].  Steps at or behind a sequence's length
    leave its state and give zeros; the reverse direction starts at the length.  f8, f16 and bf16
    compute in f32. `activations` are f, g, h of each direction (sigmoid, tanh, tanh); `clip` bounds
    what enters them, 0 does not.  `input_forget` couples the forget gate to the input gate, as 1 -
    input.

    C1: one element type.  C2: the shapes above fit together.  C3: known direction and activations.
    """

    x = operand(Float)
    w = operand(Float)
    r = operand(Float)
    bias = optional(Float)
    h0 = optional(Float)
    c0 = optional(Float)
    peephole = optional(Float)
    lengths = optional(Int)
    direction = attr(str, "forward")
    activations = attr(tuple, ())
    clip = attr(float, 0.0)
    input_forget = attr(bool, False)

    @staticmethod
    def infer(
        *types: TensorType | None,
        direction: str,
        activations: tuple[str, ...],
        clip: float,
        input_forget: bool,
    ) -> tuple[TensorType, ...]:
        given = dict(zip(OPERANDS, types))
        x, w, r = given["x"], given["w"], given["r"]
        assert x is not None and w is not None and r is not None
        for name, found in given.items():
            ok = found is None or name == "lengths" or found.dtype is x.dtype
            require(
                ok,
                "E0303",
                "lstm (C1): operands must have one element type",
                f"x : {x}   {name} : {found}",
            )
        known = direction in DIRECTIONS and all([a in ACTIVATIONS for a in activations])
        directions = 2 if direction == "bidirectional" else 1
        require(
            known and len(activations) in (0, 3 * directions),
            "E0341",
            "lstm (C3): unknown direction or activations",
            f"found {direction}, {activations}",
            hint=f"{', '.join(DIRECTIONS)}; three of {', '.join(ACTIVATIONS)} per direction",
        )
        require(
            x.rank == 3 and w.rank == 3 and r.rank == 3,
            "E0341",
            "lstm (C2): x, w and r must have rank 3",
            f"x : {x}   w : {w}   r : {r}",
        )
        time, batch, inputs = x.shape
        hidden = r.shape[2]
        want: dict[str, Shape] = {
            "w": (directions, 4 * hidden, inputs),
            "r": (directions, 4 * hidden, hidden),
            "bias": (directions, 8 * hidden),
            "h0": (directions, batch, hidden),
            "c0": (directions, batch, hidden),
            "peephole": (directions, 3 * hidden),
            "lengths": (batch,),
        }
        for name, shape in want.items():
            found = given.get(name)
            if found is not None:
                fits = found.rank == len(shape) and all(
                    [same(a, e) is not False for a, e in zip(found.shape, shape)]
                )
                require(
                    fits,
                    "E0341",
                    f"lstm (C2): {name} does not fit",
                    f"found {found}",
                    f"expected {TensorType(found.dtype, shape)}",
                )
        state = TensorType(x.dtype, (directions, batch, hidden))
        return TensorType(x.dtype, (time, *state.shape)), state, state

    @staticmethod
    def evaluate(*arrays: Array | None, **attrs: Any) -> tuple[Array, ...]:
        given = dict(zip(OPERANDS, arrays))
        x = given["x"]
        assert x is not None
        wide = np.float64 if x.dtype == np.float64 else np.float32
        cast = {
            n: None if a is None or n == "lengths" else a.astype(wide) for n, a in given.items()
        }
        runs = []
        for at, direction in enumerate(_directions(attrs["direction"])):
            part = {n: None if a is None or n == "x" else a[at] for n, a in cast.items()}
            names = attrs["activations"][3 * at : 3 * at + 3] or ("sigmoid", "tanh", "tanh")
            cell = _NumpyCell(
                part, [OPS[n].evaluate for n in names], attrs["clip"], attrs["input_forget"]
            )
            runs.append(cell.run(cast["x"], given.get("lengths"), direction == "reverse"))  # type: ignore[arg-type]
        return tuple(
            [
                np.stack([run[k] for run in runs], axis).astype(x.dtype)
                for k, axis in ((0, 1), (1, 0), (2, 0))
            ]
        )

    def decompose(self, b: Builder) -> tuple[Value, ...]:
        """Per direction: one product of all steps with w, then a scan of the recurrent part."""
        x = self.x
        dtype = x.tensor.dtype
        wide = f32 if dtype.bits < 32 else dtype
        given = dict(zip(OPERANDS, self.operands))
        cast = {
            n: v if v is None or n == "lengths" else as_type(b, v, wide) for n, v in given.items()
        }
        runs = []
        for at, direction in enumerate(_directions(self.direction)):
            part = {
                n: v if v is None or n in ("x", "lengths") else _row(b, v, at)
                for n, v in cast.items()
            }
            names = self.activations[3 * at : 3 * at + 3] or ("sigmoid", "tanh", "tanh")
            direction_ = _Direction(self, b, part, names, direction == "reverse")
            runs.append(direction_.run())
        out = []
        for k, axis in ((0, 1), (1, 0), (2, 0)):
            lifted = [_lift(b, run[k], axis) for run in runs]
            joined = lifted[0] if len(lifted) == 1 else b.concat(*lifted, axis=axis)
            out.append(as_type(b, joined, dtype))
        return tuple(out)

    samples: ClassVar[Any] = (
        sample((5, 2, 3), (1, 16, 3), (1, 16, 4)),
        sample((1, 1, 3), (1, 8, 3), (1, 8, 2), (1, 16)),
        sample(
            (3, 2, 3),
            (2, 8, 3),
            (2, 8, 2),
            (2, 16),
            (2, 2, 2),
            (2, 2, 2),
            direction="bidirectional",
        ),
        sample((4, 1, 2), (1, 12, 2), (1, 12, 3), None, None, None, (1, 9), direction="reverse"),
        sample(
            (5, 3, 2),
            (2, 8, 2),
            (2, 8, 2),
            None,
            (2, 3, 2),
            None,
            None,
            (3,),
            dtypes=("f32", "f32", "f32", "", "f32", "", "", "i32"),
            ranges=((-2, 2),) * 7 + ((0, 5),),
            direction="bidirectional",
        ),
        sample(
            (3, 2, 3),
            (1, 8, 3),
            (1, 8, 2),
            (1, 16),
            activations=("sigmoid", "relu", "tanh"),
            clip=0.5,
        ),
        sample((3, 2, 3), (1, 8, 3), (1, 8, 2), input_forget=True, dtypes=("f64",) * 3),
        sample((3, 2, 3), (1, 8, 3), (1, 8, 2), dtypes=("f16",) * 3),
        sample((0, 2, 3), (1, 8, 3), (1, 8, 2)),
    )
    rejects: ClassVar[Any] = (
        ("C1", sample((5, 2, 3), (1, 16, 3), (1, 16, 4), dtypes=("f32", "f64", "f32"))),
        ("C2", sample((5, 2, 3), (1, 16, 2), (1, 16, 4))),
        ("C2", sample((5, 2, 3), (1, 16, 3), (1, 16, 4), (1, 16))),
        ("C2", sample((5, 2), (1, 16, 3), (1, 16, 4))),
        ("C2", sample((5, 2, 3), (1, 16, 3), (1, 16, 4), direction="bidirectional")),
        ("C3", sample((5, 2, 3), (1, 16, 3), (1, 16, 4), direction="backward")),
        ("C3", sample((5, 2, 3), (1, 16, 3), (1, 16, 4), activations=("sigmoid",))),
    )


def _directions(direction: str) -> tuple[str, ...]:
    return ("forward", "reverse") if direction == "bidirectional" else (direction,)


@dataclass(frozen=True, slots=True)
class _NumpyCell:
    """One direction in numpy: `given` are its parameters by operand name."""

    given: Mapping[str, Array | None]
    functions: Sequence[Any]
    clip: float
    input_forget: bool

    def run(self, x: Array, lengths: Array | None, reverse: bool) -> tuple[Array, Array, Array]:
        """(y, last h, last c)."""
        w, r, bias = self.given["w"], self.given["r"], self.given.get("bias")
        assert w is not None and r is not None
        hidden = r.shape[1]
        entering = x @ w.T
        if bias is not None:
            entering = entering + (bias[: 4 * hidden] + bias[4 * hidden :])
        h, c = [self._start(name, (x.shape[1], hidden), x.dtype) for name in ("h0", "c0")]
        y = np.zeros((x.shape[0], *h.shape), x.dtype)
        for t in reversed(range(len(x))) if reverse else range(len(x)):
            new_h, new_c = self.step(entering[t] + h @ r.T, c)
            active = True if lengths is None else (t < lengths)[:, None]
            h, c = np.where(active, new_h, h), np.where(active, new_c, c)
            y[t] = np.where(active, new_h, 0)
        return y, h, c

    def _start(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        found = self.given.get(name)
        return np.zeros(shape, dtype) if found is None else found

    def step(self, gates: Array, c: Array) -> tuple[Array, Array]:
        """The next h and c."""
        f, g, last = self.functions
        i, o, forget, cell = np.split(gates, 4, axis=-1)
        peephole = self.given.get("peephole")
        p = None if peephole is None else np.split(peephole, 3)
        if p is not None:
            i, forget = i + p[0] * c, forget + p[2] * c
        i = f(self._clipped(i))
        forget = 1 - i if self.input_forget else f(self._clipped(forget))
        c = forget * c + i * g(self._clipped(cell))
        o = f(self._clipped(o if p is None else o + p[1] * c))
        return o * last(c), c

    def _clipped(self, x: Array) -> Array:
        return np.clip(x, -self.clip, self.clip) if self.clip else x


@dataclass(frozen=True, slots=True)
class _Direction:
    """One direction as IR; `given` are its parameters, without the direction axis."""

    op: Lstm
    b: Builder
    given: Mapping[str, Value | None]
    functions: Sequence[str]
    reverse: bool

    def run(self) -> tuple[Value, Value, Value]:
        """(y, last h, last c)."""
        b = self.b
        x, w, r = [_known(self.given[n]) for n in ("x", "w", "r")]
        time, batch = x.tensor.shape[:2]
        hidden = r.tensor.shape[1]
        entering = b.contract(x, w, equation="tbi,gi->tbg")
        bias = self.given.get("bias")
        if bias is not None:
            halves = [b.slice(bias, starts=(k * 4 * hidden,), sizes=(4 * hidden,)) for k in (0, 1)]
            entering = b.add(entering, b.add(*halves))
        starts = [self.start(name, (batch, hidden), x.tensor.dtype) for name in ("h0", "c0")]
        lengths = self.given.get("lengths")
        if type(time) is int and time == 1:
            only = b.reshape(entering, shape=(batch, 4 * hidden))
            first = None if lengths is None else constant(b, lengths, 0)
            h, c, y = self.step(b, starts[0], starts[1], only, first)
            return b.reshape(y, shape=(1, batch, hidden)), h, c
        scanned = [entering]
        if lengths is not None:
            scanned.append(b.iota(shape=(time,), dtype=lengths.tensor.dtype))

        def body(
            b: Builder, h: Value, c: Value, gates: Value, at: Value | None = None
        ) -> tuple[Value, ...]:
            return self.step(b, h, c, gates, at)

        h, c, y = b.insert(
            Scan.make(starts, scanned, body, reverse=self.reverse, loc=b.loc)
        ).results
        return y, h, c

    def start(self, name: str, shape: Shape, dtype: DType) -> Value:
        """The initial state."""
        found = self.given.get(name)
        if found is not None:
            return found
        zero = self.b.insert(Const(np.zeros((), dtype.np))).result
        return self.b.broadcast_to(zero, shape=shape)  # type: ignore[no-any-return]

    def step(
        self, b: Builder, h: Value, c: Value, entering: Value, at: Value | None
    ) -> tuple[Value, Value, Value]:
        """The next h and c, and y; `at` is the step's number where sequences have lengths."""
        r = _known(self.given["r"])
        gates = b.add(entering, b.contract(h, r, equation="bh,gh->bg"))
        new_h, new_c = self.cell(b, gates, c)
        if at is None:
            return new_h, new_c, new_h
        lengths = _known(self.given["lengths"])
        active = b.reshape(b.lt(at, lengths), shape=(*lengths.tensor.shape, 1))
        zero = constant(b, new_h, 0.0)
        return b.where(active, new_h, h), b.where(active, new_c, c), b.where(active, new_h, zero)

    def cell(self, b: Builder, gates: Value, c: Value) -> tuple[Value, Value]:
        """The next h and c from the sums that enter the gates."""
        batch, hidden = c.tensor.shape
        i, o, forget, cell = [
            b.slice(gates, starts=(0, k * hidden), sizes=(batch, hidden)) for k in range(4)
        ]
        peephole = self.given.get("peephole")
        p: list[Value] = []
        if peephole is not None:
            p = [b.slice(peephole, starts=(k * hidden,), sizes=(hidden,)) for k in range(3)]
            i, forget = b.add(i, b.mul(p[0], c)), b.add(forget, b.mul(p[2], c))
        i = self.activate(b, 0, i)
        if self.op.input_forget:
            forget = b.sub(constant(b, i, 1.0), i)
        else:
            forget = self.activate(b, 0, forget)
        c = b.add(b.mul(forget, c), b.mul(i, self.activate(b, 1, cell)))
        o = self.activate(b, 0, b.add(o, b.mul(p[1], c)) if p else o)
        return b.mul(o, getattr(b, self.functions[2])(c)), c

    def activate(self, b: Builder, which: int, x: Value) -> Value:
        """Activation number `which` of the clipped x."""
        if self.op.clip:
            x = b.max(b.min(x, constant(b, x, self.op.clip)), constant(b, x, -self.op.clip))
        return getattr(b, self.functions[which])(x)  # type: ignore[no-any-return]


def _known(value: Value | None) -> Value:
    assert value is not None
    return value


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


__all__ = ["ACTIVATIONS", "DIRECTIONS", "Lstm"]
