"""Export rows of normalisations.  Imports: the graph being written, ir."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...ir.core import Value
from ...ir.types import f32, f64
from .export_dims import keeps_zero, numbers, reshape_target
from .export_graph import Place, Row


def softmax(type: str) -> Row:
    """Softmax and LogSoftmax."""
    return lambda p: p.node(type, p.x(), axis=p.attrs["axis"])


def layer_norm(p: Place) -> str | None:
    """LayerNormalization where scale and bias have the normalised axes' own shape."""
    axis, x = p.attrs["axis"], p.type()
    own = x.shape[axis:]
    given: list[Value] = [v for v in p.op.operands[1:] if v is not None]
    known = all([isinstance(e, int) for e in own])
    if any([v.tensor.shape != own for v in given]) or not (known or p.x(1)):
        return None
    one = p.x(1) or p.node("ConstantOfShape", numbers(p.graph, own), value=np.ones(1, x.dtype.np))
    return p.node("LayerNormalization", p.x(), one, p.x(2), axis=axis, epsilon=p.attrs["epsilon"])


def rms_norm(p: Place) -> str | None:
    """RMSNormalization from opset 23 on; before it the expression that runtimes fuse."""
    x, axis = p.type(), p.attrs["axis"]
    scale = p.op.operands[1] if len(p.op.operands) > 1 else None
    if p.opset >= 23 and scale is not None and scale.tensor.shape == x.shape[axis:]:
        return p.node("RMSNormalization", p.x(), p.x(1), axis=axis, epsilon=p.attrs["epsilon"])
    if x.dtype not in (f32, f64):
        return None
    square = p.node("Pow", p.x(), p.like(2.0))
    axes = list(range(axis, x.rank))
    told = {"axes": axes} if p.opset < 18 else {}
    mean = p.node("ReduceMean", square, *([] if told else [numbers(p.graph, axes)]), **told)
    root = p.node("Sqrt", p.node("Add", mean, p.like(p.attrs["epsilon"])))
    out = p.node("Div", p.x(), root)
    return p.node("Mul", out, p.x(1)) if scale is not None else out


def group_norm(p: Place) -> str | None:
    """InstanceNormalization where every channel is a group; GroupNormalization from opset 21 on.

    Before it the groups are laid out as channels, and the channels scaled behind.
    """
    x, groups = p.type(), p.attrs["groups"]
    channels = x.shape[1]
    if not isinstance(channels, int) or x.rank < 3:
        return None
    wide = _defaults(p, channels)
    epsilon = p.attrs["epsilon"]
    if groups == channels:
        return p.node("InstanceNormalization", p.x(), *wide, epsilon=epsilon)
    if p.opset >= 21:
        return p.node("GroupNormalization", p.x(), *wide, num_groups=groups, epsilon=epsilon)
    flat = p.node("Reshape", p.x(), numbers(p.graph, [0, groups, -1]))
    plain = [p.const(np.full(groups, v), x.dtype) for v in (1, 0)]
    made = p.node("InstanceNormalization", flat, *plain, epsilon=epsilon)
    told = reshape_target(p, (x.shape[0],), x.shape)
    made = p.node("Reshape", made, told, allowzero=keeps_zero(x.shape))
    lies = numbers(p.graph, [channels, *[1] * (x.rank - 2)])
    for k, type in ((1, "Mul"), (2, "Add")):
        if p.x(k):
            made = p.node(type, made, p.node("Reshape", p.x(k), lies))
    return made


def _defaults(p: Place, channels: int) -> list[str]:
    """Scale and bias, ones and zeros where they are absent."""
    dtype = p.type().dtype
    return [p.x(k) or p.const(np.full(channels, v), dtype) for k, v in ((1, 1), (2, 0))]


def lp_norm(p: Place) -> str:
    """LpNormalization."""
    return p.node("LpNormalization", p.x(), axis=p.attrs["axis"], p=p.attrs["p"])


def mean_variance_norm(p: Place) -> str | None:
    """ONNX has one epsilon."""
    if p.attrs["epsilon"] != 1e-9:
        return None
    axes = p.attrs["axes"]
    axes = range(p.type().rank) if axes is None else axes
    return p.node("MeanVarianceNormalization", p.x(), axes=list(axes))


def local_response_norm(p: Place) -> str:
    """LRN."""
    given: dict[str, Any] = {k: p.attrs[k] for k in ("size", "alpha", "beta", "bias")}
    if p.attrs.get("channel_block"):
        raise p.refuse("its channels are packed in blocks; export before the phase 'layout'")
    return p.node("LRN", p.x(), **given)


ROWS: Mapping[str, Row] = {
    "softmax": softmax("Softmax"),
    "log_softmax": softmax("LogSoftmax"),
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "lp_norm": lp_norm,
    "mean_variance_norm": mean_variance_norm,
    "local_response_norm": local_response_norm,
}
