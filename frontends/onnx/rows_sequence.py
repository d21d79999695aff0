"""Import rows of recurrent layers: LSTM.  Imports: node, ir."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.core import Value
from .node import Node, Result, Row

ACTIVATIONS = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu", "Softplus": "softplus",
               "Elu": "elu"}  # fmt: skip


def lstm(n: Node) -> Result:
    """The IR's `lstm`; with layout 1 batch comes first, so operands and results are transposed."""
    direction = n.attr("direction", "forward")
    names = n.attr("activations", [])
    unknown = [a for a in names if a.capitalize() not in ACTIVATIONS]
    if unknown or "activation_alpha" in n.attributes or "activation_beta" in n.attributes:
        raise n.unsupported("LSTM: these activations are not supported", ", ".join(names))
    x, w, r = n.x(0), n.x(1), n.x(2)
    bias, lengths, h0, c0, peephole = [n.opt(k) for k in range(3, 8)]
    batch_first = bool(n.attr("layout", 0))
    if batch_first:
        x = n.transpose(x, (1, 0, 2))
        h0, c0 = [v if v is None else n.transpose(v, (1, 0, 2)) for v in (h0, c0)]
    y, h, c = n.b.lstm(
        x, w, r, bias, h0, c0, peephole, lengths, direction=direction,
        activations=[ACTIVATIONS[a.capitalize()] for a in names], clip=n.attr("clip", 0.0),
        input_forget=bool(n.attr("input_forget", 0)),
    )  # fmt: skip
    if batch_first:
        y = n.transpose(y, (2, 0, 1, 3))
        h, c = [n.transpose(v, (1, 0, 2)) for v in (h, c)]
    out: tuple[Value, ...] = (y, h, c)
    return out


ROWS: Sequence[tuple[str, int, Row]] = (("LSTM", 1, lstm),)
