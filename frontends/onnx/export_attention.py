"""Export rows of attention and rotary embedding.  Imports: the graph being written, ir."""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.dims import equal
from .export_dims import vector
from .export_graph import Place, Row


def attention(p: Place) -> str | None:
    """Attention from opset 23 on; windows, lengths and moved queries are decomposed.

    onnxruntime wants the mask's last two extents as those of the scores.
    """
    given = p.attrs
    moved = given["causal"] and equal(given["offset"], 0) is not True
    if moved or given["left"] >= 0 or given["right"] >= 0 or p.x(4):
        return None
    p.need(23, "attention")
    names = list(p.all())
    if p.x(3):
        extents = (p.type(0).shape[2], p.type(1).shape[2])
        held = (1, *p.type(3).shape)[-2:]
        if not all([equal(a, b) is True for a, b in zip(held, extents)]):
            told = vector(p.graph, (1, 1, *extents))
            names[3] = p.node("Expand", names[3], told)
    return p.node("Attention", *names, scale=given["scale"] or None,
                  is_causal=1 if given["causal"] else None,
                  softcap=given["softcap"] or None)  # fmt: skip


def rotary_embedding(p: Place) -> str:
    """The tables get the batch's extent."""
    p.need(23, "rotary_embedding")
    x, cos = p.type(0), p.type(1)
    tables = [p.x(1), p.x(2)]
    if equal(cos.shape[0], x.shape[0]) is not True:
        told = vector(p.graph, (x.shape[0], 1, 1))
        tables = [p.node("Expand", name, told) for name in tables]
    width = 2 * cos.shape[2]
    part = None if equal(width, x.shape[3]) is True else width
    return p.node("RotaryEmbedding", p.x(0), *tables, rotary_embedding_dim=part,
                  interleaved=1 if p.attrs["interleaved"] else None)  # fmt: skip


ROWS: Mapping[str, Row] = {"attention": attention, "rotary_embedding": rotary_embedding}
