"""Recurrent layers, as ONNX has them: lstm, gru, rnn.

Imports: the core, types, and what they share (recurrent.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..core import Array, Builder, Float, Int, Value, attr, optional, sample
from ..dims import DimLike
from .elementwise import constant
from .recurrent import Direction, NumpyDirection, _Recurrent


class Lstm(_Recurrent):
    """(y, y_h, y_c) of an LSTM over x [T, B, I], gates in the order input, output, forget, cell
    (Hochreiter 1997).

    With D directions and H hidden units: w [D, 4H, I], r [D, 4H, H], bias [D, 8H] (of w, then of
    r), h0 and c0 [D, B, H] (zeros), peephole [D, 3H] (input, output, forget), lengths [B] (T); y is
    [T, D, B, H], y_h and y_c the last states [D, B, H].  Steps at or behind a sequence's length
    leave its state and give zeros; the reverse direction starts at the length.  f8, f16 and bf16
    compute in f32. `activations` are f, g, h of each direction (sigmoid, tanh, tanh), a name or
    (name, parameters...); `clip` bounds what enters them, 0 does not.  `input_forget` couples the
    forget gate to the input gate, as 1 - input.

    C1: one element type.  C2: the shapes above fit together.  C3: known direction and activations.
    """

    gates = 4
    states = ("h0", "c0")
    usual = ("sigmoid", "tanh", "tanh")

    c0 = optional(Float)
    peephole = optional(Float)
    lengths = optional(Int)
    input_forget = attr(bool, False)

    @classmethod
    def parameters(cls, d: int, hidden: DimLike, batch: DimLike, inputs: DimLike) -> dict[str, Any]:
        return super().parameters(d, hidden, batch, inputs) | {"peephole": (d, 3 * hidden)}

    @classmethod
    def step(cls, d: NumpyDirection, entering: Array, states: Sequence[Array]) -> list[Array]:
        h, c = states
        bias = d.biases()
        gates = entering + (bias[0] + bias[1]) + h @ d["r"].T
        i, o, forget, cell = np.split(gates, 4, axis=-1)
        peephole = d.given.get("peephole")
        p = None if peephole is None else np.split(peephole, 3)
        if p is not None:
            i, forget = i + p[0] * c, forget + p[2] * c
        i = d.activate(0, i)
        forget = 1 - i if d.attrs["input_forget"] else d.activate(0, forget)
        c = forget * c + i * d.activate(1, cell)
        o = d.activate(0, o if p is None else o + p[1] * c)
        return [o * d.activate(2, c, clipped=False), c]

    def cell(
        self, d: Direction, b: Builder, entering: Value, states: Sequence[Value]
    ) -> list[Value]:
        h, c = states
        gates = b.add(entering, d.recurrent(b, h))
        i, o, forget, cell = [d.gate(b, gates, k) for k in range(4)]
        p: list[Value] = []
        if d.given.get("peephole") is not None:
            p = [d.rows("peephole", k) for k in range(3)]
            i, forget = b.add(i, b.mul(p[0], c)), b.add(forget, b.mul(p[2], c))
        i = d.activate(b, 0, i)
        if self.input_forget:
            forget = b.sub(constant(b, i, 1.0), i)
        else:
            forget = d.activate(b, 0, forget)
        c = b.add(b.mul(forget, c), b.mul(i, d.activate(b, 1, cell)))
        o = d.activate(b, 0, b.add(o, b.mul(p[1], c)) if p else o)
        return [b.mul(o, d.activate(b, 2, c, clipped=False)), c]

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


class Gru(_Recurrent):
    """(y, y_h) of a GRU over x [T, B, I], gates in the order update z, reset r, hidden (Cho 2014).

    h' = (1 - z) * g(hidden) + z * h, with z = f(...) and r = f(...).  The hidden gate takes the
    product of r * h with its rows of r or, with `linear_before_reset`, r times (the product of h
    with them, plus its bias).  Operands as for lstm, with 3H for 4H: w [D, 3H, I], r [D, 3H, H],
    bias [D, 6H], h0 [D, B, H], lengths [B]; `activations` are f, g of each direction (sigmoid,
    tanh).

    C1: one element type.  C2: the shapes above fit together.  C3: known direction and activations.
    """

    gates = 3
    usual = ("sigmoid", "tanh")

    lengths = optional(Int)
    linear_before_reset = attr(bool, False)

    @classmethod
    def step(cls, d: NumpyDirection, entering: Array, states: Sequence[Array]) -> list[Array]:
        (h,) = states
        of_w, of_r = [np.split(bias, 3) for bias in d.biases()]
        r = np.split(d["r"], 3)
        xz, xr, xh = np.split(entering, 3, axis=-1)
        z = d.activate(0, xz + of_w[0] + h @ r[0].T + of_r[0])
        reset = d.activate(0, xr + of_w[1] + h @ r[1].T + of_r[1])
        if d.attrs["linear_before_reset"]:
            inner = reset * (h @ r[2].T + of_r[2])
        else:
            inner = (reset * h) @ r[2].T + of_r[2]
        new = d.activate(1, xh + of_w[2] + inner)
        return [(1 - z) * new + z * h]

    def outside(self, b: Builder, bias: Value, hidden: DimLike) -> Value:
        """Both biases, but for that of r's hidden gate where it is scaled by the reset gate."""
        if not self.linear_before_reset:
            return super().outside(b, bias, hidden)
        parts = [b.slice(bias, starts=(k * hidden,), sizes=(2 * hidden,)) for k in (0, 3)]
        last = b.slice(bias, starts=(2 * hidden,), sizes=(hidden,))
        return b.concat(b.add(*parts), last, axis=0)  # type: ignore[no-any-return]

    def cell(
        self, d: Direction, b: Builder, entering: Value, states: Sequence[Value]
    ) -> list[Value]:
        (h,) = states
        if self.linear_before_reset:
            inner = d.recurrent(b, h)
            both = b.add(d.gate(b, entering, 0, 2), d.gate(b, inner, 0, 2))
        else:
            product = b.contract(h, d.rows("r", 0, 2), equation="bh,gh->bg")
            both = b.add(d.gate(b, entering, 0, 2), product)
        z, reset = [d.activate(b, 0, d.gate(b, both, k)) for k in (0, 1)]
        if self.linear_before_reset:
            last = d.gate(b, inner, 2)
            last = b.add(last, d.rows("bias", 5)) if d.given.get("bias") is not None else last
            last = b.mul(reset, last)
        else:
            last = b.contract(b.mul(reset, h), d.rows("r", 2), equation="bh,gh->bg")
        new = d.activate(b, 1, b.add(d.gate(b, entering, 2), last))
        kept = b.mul(z, h)
        return [b.add(b.mul(b.sub(constant(b, z, 1.0), z), new), kept)]

    samples: ClassVar[Any] = (
        sample((5, 2, 3), (1, 12, 3), (1, 12, 4)),
        sample((4, 2, 3), (1, 12, 3), (1, 12, 4), (1, 24), linear_before_reset=True),
        sample((1, 1, 3), (1, 6, 3), (1, 6, 2), (1, 12)),
        sample((3, 2, 3), (2, 6, 3), (2, 6, 2), (2, 12), (2, 2, 2), direction="bidirectional"),
        sample((3, 2, 3), (1, 6, 3), (1, 6, 2), linear_before_reset=True, direction="reverse"),
        sample(
            (5, 3, 2), (2, 6, 2), (2, 6, 2), (2, 12), (2, 3, 2), (3,),
            dtypes=("f32", "f32", "f32", "f32", "f32", "i32"),
            ranges=((-2, 2),) * 5 + ((0, 5),), direction="bidirectional",
        ),
        sample(
            (3, 2, 3), (1, 6, 3), (1, 6, 2), (1, 12),
            activations=(("hard_sigmoid", 0.3, 0.4), ("affine", 0.5, 0.1)), clip=0.5,
        ),
        sample((3, 2, 3), (1, 6, 3), (1, 6, 2), dtypes=("f64",) * 3),
        sample((3, 2, 3), (1, 6, 3), (1, 6, 2), dtypes=("f16",) * 3),
        sample((0, 2, 3), (1, 6, 3), (1, 6, 2)),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((5, 2, 3), (1, 12, 3), (1, 12, 4), dtypes=("f32", "f64", "f32"))),
        ("C2", sample((5, 2, 3), (1, 16, 3), (1, 16, 4))),
        ("C2", sample((5, 2, 3), (1, 12, 3), (1, 12, 4), (1, 12))),
        ("C3", sample((5, 2, 3), (1, 12, 3), (1, 12, 4), direction="backward")),
        ("C3", sample((5, 2, 3), (1, 12, 3), (1, 12, 4), activations=("sigmoid", "affine"))),
    )


class Rnn(_Recurrent):
    """(y, y_h) of a plain recurrent layer over x [T, B, I]: h' = f(x w + h r + biases) (Elman
    1990).

    Operands as for lstm, with H for 4H: w [D, H, I], r [D, H, H], bias [D, 2H], h0 [D, B, H],
    lengths [B]; `activations` are f of each direction (tanh).

    C1: one element type.  C2: the shapes above fit together.  C3: known direction and activations.
    """

    gates = 1
    usual = ("tanh",)

    lengths = optional(Int)

    @classmethod
    def step(cls, d: NumpyDirection, entering: Array, states: Sequence[Array]) -> list[Array]:
        bias = d.biases()
        return [d.activate(0, entering + (bias[0] + bias[1]) + states[0] @ d["r"].T)]

    def cell(
        self, d: Direction, b: Builder, entering: Value, states: Sequence[Value]
    ) -> list[Value]:
        return [d.activate(b, 0, b.add(entering, d.recurrent(b, states[0])))]

    samples: ClassVar[Any] = (
        sample((5, 2, 3), (1, 4, 3), (1, 4, 4)),
        sample((1, 1, 3), (1, 2, 3), (1, 2, 2), (1, 4)),
        sample((3, 2, 3), (2, 2, 3), (2, 2, 2), (2, 4), (2, 2, 2), direction="bidirectional"),
        sample((3, 2, 3), (1, 2, 3), (1, 2, 2), direction="reverse", activations=("relu",)),
        sample((3, 1, 3), (1, 2, 3), (1, 2, 2), activations=(("scaled_tanh", 0.5, 1.5),)),
        sample((3, 1, 3), (1, 2, 3), (1, 2, 2), activations=(("thresholded_relu", 0.3),)),
        sample((3, 1, 3), (1, 2, 3), (1, 2, 2), activations=("softsign",)),
        sample((3, 2, 3), (1, 2, 3), (1, 2, 2), activations=(("leaky_relu", 0.3),), clip=0.7),
        sample(
            (4, 3, 2), (1, 2, 2), (1, 2, 2), None, None, (3,),
            dtypes=("f32", "f32", "f32", "", "", "i64"),
            ranges=((-2, 2),) * 5 + ((0, 4),), direction="reverse",
        ),
        sample((3, 2, 3), (1, 2, 3), (1, 2, 2), dtypes=("f64",) * 3),
        sample((3, 2, 3), (1, 2, 3), (1, 2, 2), dtypes=("bf16",) * 3),
        sample((0, 2, 3), (1, 2, 3), (1, 2, 2)),
    )  # fmt: skip
    rejects: ClassVar[Any] = (
        ("C1", sample((5, 2, 3), (1, 4, 3), (1, 4, 4), dtypes=("f32", "f64", "f32"))),
        ("C2", sample((5, 2, 3), (1, 4, 3), (1, 4, 3))),
        ("C3", sample((5, 2, 3), (1, 4, 3), (1, 4, 4), activations=("tanh", "tanh"))),
    )


__all__ = ["Gru", "Lstm", "Rnn"]
