"""Recurrent layers and cells with torch's arguments, parameter names and gate orders.

A whole direction pair is one op of the IR (lstm, gru, rnn); gates are brought into its order on the
way in.  May import: ir, its siblings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from ...ir.errors import Error
from ...ir.ops.sequence import Gru, Lstm, Rnn
from .activation import relu, sigmoid
from .creation import zeros as zeros_tensor
from .dense import linear
from .dispatch import apply, as_tensor
from .dropout import dropout
from .functions import tanh
from .init import uniform
from .layers import Layer
from .shaping import concatenate, reshape, split, stack, transpose
from .tensor import Parameter, Tensor


def _in_order(w: Tensor, order: Sequence[int]) -> Tensor:
    """The blocks of rows of w in another order."""
    if list(order) == sorted(order):
        return w
    rows = split(w, len(order), 0)
    return concatenate([rows[k] for k in order], 0)


class _Recurrent(Layer):
    """What LSTM, GRU and RNN share.

    Parameters, per layer k and direction (suffix `_reverse`): `weight_ih_lK` [G*H, in],
    `weight_hh_lK` [G*H, H], `bias_ih_lK` and `bias_hh_lK` [G*H].
    """

    order: ClassVar[tuple[int, ...]]
    """Our gates as positions in torch's."""
    states: ClassVar[int] = 1

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
        proj_size: int = 0, dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__()
        if proj_size:
            raise Error("E0642", f"{type(self).__name__} does not offer proj_size",
                        details=(f"found proj_size {proj_size}",),
                        hint="a Linear layer behind it")  # fmt: skip
        if num_layers < 1 or hidden_size < 1 or not 0 <= dropout <= 1:
            raise Error(
                "E0641",
                f"{type(self).__name__}: at least one layer and one hidden unit, "
                "dropout between 0 and 1",
                details=(f"layers {num_layers}, hidden {hidden_size}, dropout {dropout}",),
            )
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.has_bias, self.batch_first = bias, batch_first
        self.dropout, self.bidirectional = dropout, bidirectional
        self.directions = 2 if bidirectional else 1
        bound, rows = 1 / math.sqrt(hidden_size), len(self.order) * hidden_size
        for layer, suffix in self._places():
            inputs = input_size if layer == 0 else hidden_size * self.directions
            shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs)}
            shapes["weight_hh"] = (rows, hidden_size)
            if bias:
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
            for name, shape in shapes.items():
                drawn = Parameter(uniform(shape, -bound, bound, dtype))
                setattr(self, f"{name}_l{layer}{suffix}", drawn)

    def _places(self) -> Iterator[tuple[int, str]]:
        for layer in range(self.num_layers):
            for suffix in ("", "_reverse")[: self.directions]:
                yield layer, suffix

    def describe(self) -> str:
        more = f" x{self.num_layers}" if self.num_layers > 1 else ""
        return f"{type(self).__name__} {self.input_size}->{self.hidden_size}{more}"

    def stacked(self, layer: int, name: str) -> Tensor:
        """A parameter of one layer, its gates in our order, [directions, ...]."""
        both = [getattr(self, f"{name}_l{layer}{s}") for s in ("", "_reverse")[: self.directions]]
        return stack([_in_order(w, self.order) for w in both], 0)

    def cell(self, x: Tensor, w: Tensor, r: Tensor, bias: Any, states: Any, lengths: Any,
             direction: str) -> Any:  # fmt: skip
        """One layer by the IR's op: (y [T, D, B, H], last states...)."""
        raise Error("E0620", f"{type(self).__name__} has no cell")

    def forward(self, x: Tensor, hx: Any = None, lengths: Any = None) -> tuple[Tensor, Any]:
        """(results, last states): x [T, N, in], [N, T, in] with batch_first, or [T, in].

        `hx` are the first states, [layers * directions, N, H] each (a pair for an LSTM); `lengths`
        [N] say where each sequence ends.
        """
        self.expect_rank(x, (2, 3), "[T, N, in], [N, T, in] with batch_first, or [T, in]")
        self.expect_axis(x, -1, self.input_size, "features")
        self.expect_type(x, self.weight_ih_l0)
        alone = x.ndim == 2
        if alone:
            x = x[:, None]
        elif self.batch_first:
            x = x.swapaxes(0, 1)
        first = self._first(hx, x, alone)
        last: list[list[Tensor]] = []
        for layer in range(self.num_layers):
            x, states = self._layer(layer, x, first, lengths)
            last.append(states)
            if self.dropout and self.training and layer + 1 < self.num_layers:
                x = dropout(x, self.dropout)
        ends = [concatenate([s[k] for s in last], 0) for k in range(self.states)]
        if alone:
            x, ends = x[:, 0], [e[:, 0] for e in ends]
        elif self.batch_first:
            x = x.swapaxes(0, 1)
        return x, ends[0] if self.states == 1 else tuple(ends)

    def _first(self, hx: Any, x: Tensor, alone: bool) -> list[Tensor] | None:
        """The first states checked, [layers * directions, N, H]; None for zeros."""
        if hx is None:
            return None
        given = [as_tensor(h) for h in (hx if self.states > 1 else (hx,))]
        if len(given) != self.states:
            raise self.wrong("wrong number of first states", str(self.states), len(given))
        given = [h[:, None] if alone and h.ndim == 2 else h for h in given]
        for h in given:
            self.expect_rank(h, (3,), "[layers * directions, N, H]")
            wanted = (self.num_layers * self.directions, x.type.shape[1], self.hidden_size)
            for axis, extent in enumerate(wanted):
                self.expect_axis(h, axis, extent, "elements in the first state")
        return given

    def _layer(
        self, layer: int, x: Tensor, first: list[Tensor] | None, lengths: Any
    ) -> tuple[Tensor, list[Tensor]]:
        w, r = self.stacked(layer, "weight_ih"), self.stacked(layer, "weight_hh")
        bias = None
        if self.has_bias:
            bias = concatenate([self.stacked(layer, "bias_ih"), self.stacked(layer, "bias_hh")], 1)
        d = self.directions
        states = [None] * self.states if first is None else [
            h[layer * d : (layer + 1) * d] for h in first
        ]  # fmt: skip
        direction = "bidirectional" if d == 2 else "forward"
        y, *ends = self.cell(x, w, r, bias, states, lengths, direction)
        t, _, n, _ = y.type.shape
        return reshape(transpose(y, (0, 2, 1, 3)), (t, n, d * self.hidden_size)), ends


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter 1997), gates in torch's order i, f, g, o."""

    order = (0, 3, 1, 2)
    states = 2

    def cell(self, x: Tensor, w: Tensor, r: Tensor, bias: Any, states: Any, lengths: Any,
             direction: str) -> Any:  # fmt: skip
        return apply(Lstm, x, w, r, bias, *states, None, lengths, direction=direction)


class GRU(_Recurrent):
    """Gated recurrent unit (Cho 2014), gates in torch's order r, z, n."""

    order = (1, 0, 2)

    def cell(self, x: Tensor, w: Tensor, r: Tensor, bias: Any, states: Any, lengths: Any,
             direction: str) -> Any:  # fmt: skip
        return apply(Gru, x, w, r, bias, *states, lengths, direction=direction,
                     linear_before_reset=True)  # fmt: skip


class RNN(_Recurrent):
    """A plain recurrent layer (Elman 1990); `nonlinearity` is "tanh" or "relu"."""

    order = (0,)

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
        bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, dtype=dtype)  # fmt: skip
        self.nonlinearity = _known(nonlinearity)

    def cell(self, x: Tensor, w: Tensor, r: Tensor, bias: Any, states: Any, lengths: Any,
             direction: str) -> Any:  # fmt: skip
        return apply(Rnn, x, w, r, bias, *states, lengths, direction=direction,
                     activations=(self.nonlinearity,) * self.directions)  # fmt: skip


def _known(nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise Error("E0641", f"no nonlinearity '{nonlinearity}'", hint="tanh or relu")
    return nonlinearity


# ------------------------------------------------------------ cells


class _Cell(Layer):
    """One step: `weight_ih` [G*H, in], `weight_hh` [G*H, H], `bias_ih`, `bias_hh` [G*H]."""

    gates: ClassVar[int]

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, dtype: Any = "f32"
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        bound, rows = 1 / math.sqrt(hidden_size), self.gates * hidden_size

        def drawn(*shape: int) -> Parameter:
            return Parameter(uniform(shape, -bound, bound, dtype))

        self.weight_ih, self.weight_hh = drawn(rows, input_size), drawn(rows, hidden_size)
        self.bias_ih = drawn(rows) if bias else None
        self.bias_hh = drawn(rows) if bias else None

    def describe(self) -> str:
        return f"{type(self).__name__} {self.input_size}->{self.hidden_size}"

    def products(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the gates from the input and from the state."""
        return linear(x, self.weight_ih, self.bias_ih), linear(h, self.weight_hh, self.bias_hh)

    def ready(self, x: Tensor, h: Any) -> Tensor:
        """x checked, and the state or zeros."""
        self.expect_rank(x, (1, 2), "[N, in] or [in]")
        self.expect_axis(x, -1, self.input_size, "features")
        self.expect_type(x, self.weight_ih)
        if h is None:
            return zeros_tensor((*x.type.shape[:-1], self.hidden_size), dtype=x.dtype)
        given = as_tensor(h)
        self.expect_axis(given, -1, self.hidden_size, "hidden units")
        return given


class LSTMCell(_Cell):
    """One step of an LSTM: (h, c) of x and (h, c)."""

    gates = 4

    def forward(self, x: Tensor, hx: Any = None) -> tuple[Tensor, Tensor]:
        h, c = [self.ready(x, s) for s in (hx if hx is not None else (None, None))]
        a, b = self.products(x, h)
        i, f, g, o = split(a + b, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c


class GRUCell(_Cell):
    """One step of a GRU: h of x and h."""

    gates = 3

    def forward(self, x: Tensor, hx: Any = None) -> Tensor:
        h = self.ready(x, hx)
        a, b = self.products(x, h)
        (ar, az, an), (br, bz, bn) = split(a, 3, -1), split(b, 3, -1)
        z = sigmoid(az + bz)
        new = tanh(an + sigmoid(ar + br) * bn)
        return new + z * (h - new)


class RNNCell(_Cell):
    """One step of a plain recurrent layer: h of x and h."""

    gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
        dtype: Any = "f32",
    ) -> None:  # fmt: skip
        super().__init__(input_size, hidden_size, bias, dtype)
        self.nonlinearity = _known(nonlinearity)

    def forward(self, x: Tensor, hx: Any = None) -> Tensor:
        a, b = self.products(x, self.ready(x, hx))
        return tanh(a + b) if self.nonlinearity == "tanh" else relu(a + b)


__all__ = ["GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNCell"]
