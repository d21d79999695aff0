"""Import rows of recurrent layers: LSTM, GRU, RNN.  Imports: node, ir."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...ir.core import Value
from .node import Node, Result, Row

ACTIVATIONS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "sigmoid": ("sigmoid", ()),
    "tanh": ("tanh", ()),
    "relu": ("relu", ()),
    "softplus": ("softplus", ()),
    "softsign": ("softsign", ()),
    "elu": ("elu", (1.0,)),
    "leakyrelu": ("leaky_relu", (0.01,)),
    "thresholdedrelu": ("thresholded_relu", (1.0,)),
    "hardsigmoid": ("hard_sigmoid", (0.2, 0.5)),
    "affine": ("affine", (1.0, 0.0)),
    "scaledtanh": ("scaled_tanh", (1.0, 1.0)),
}
"""Our name and the default alpha and beta of each activation."""


def activations(n: Node) -> list[Any]:
    """The activations; alpha and beta are listed in the order of those that have them."""
    alphas, betas = list(n.attr("activation_alpha", [])), list(n.attr("activation_beta", []))
    out: list[Any] = []
    for said in n.attr("activations", []):
        if said.lower() not in ACTIVATIONS:
            raise n.unsupported(f"{n.op}: the activation {said} is not supported")
        name, usual = ACTIVATIONS[said.lower()]
        queues = (alphas, betas)[: len(usual)]
        given = [q.pop(0) if q else value for q, value in zip(queues, usual)]
        out.append((name, *given) if given else name)
    return out


def recurrent(
    n: Node,
    op: str,
    operands: Sequence[int],
    states: int,
    weights: tuple[Value, Value] | None = None,
    **more: Any,
) -> Result:
    """One of the IR's recurrent layers; with layout 1 batch comes first, and is moved.

    `operands` are the places of the optional ones in the IR's order, the initial states first
    behind the bias; `weights` stand for the node's own.
    """
    x, (w, r) = n.x(0), weights or (n.x(1), n.x(2))
    rest = [n.opt(k) for k in operands]
    batch_first = bool(n.attr("layout", 0))
    if batch_first:
        x = n.transpose(x, (1, 0, 2))
        for k in range(1, 1 + states):
            given = rest[k]
            rest[k] = given if given is None else n.transpose(given, (1, 0, 2))
    y, *last = getattr(n.b, op)(
        x, w, r, *rest, direction=n.attr("direction", "forward"), activations=activations(n),
        clip=n.attr("clip", 0.0), **more,
    )  # fmt: skip
    if batch_first:
        y = n.transpose(y, (2, 0, 1, 3))
        last = [n.transpose(v, (1, 0, 2)) for v in last]
    out: list[Value] = [y, *last]
    return out


def lstm(n: Node, weights: tuple[Value, Value] | None = None) -> Result:
    """The IR's `lstm`."""
    coupled = bool(n.attr("input_forget", 0))
    return recurrent(n, "lstm", (3, 5, 6, 7, 4), 2, weights, input_forget=coupled)


def gru(n: Node) -> Result:
    """The IR's `gru`."""
    before = bool(n.attr("linear_before_reset", 0))
    return recurrent(n, "gru", (3, 5, 4), 1, linear_before_reset=before)


def rnn(n: Node) -> Result:
    """The IR's `rnn`."""
    return recurrent(n, "rnn", (3, 5, 4), 1)


ROWS: Sequence[tuple[str, int, Row]] = (("LSTM", 1, lstm), ("GRU", 1, gru), ("RNN", 1, rnn))
