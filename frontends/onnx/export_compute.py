"""Export rows of products, windows, quantization and recurrent layers.

Imports: the graph being written, ir.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...ir.core import Op
from ...ir.dims import DimLike
from ...ir.types import bf16, f32, f64, i8, i32, u8
from .export_dims import vector
from .export_graph import Place, Row

# ---- products


def _narrow(p: Place) -> bool:
    """Both operands have 8 bits: the integer products that ONNX has."""
    return all([v.tensor.dtype in (i8, u8) for v in p.op.operands[:2]])


def _product(p: Place, plain: str, narrow: str, **attrs: Any) -> str:
    """A product of equal types, or of integers of 8 bits in i32; rounded to `out` behind it."""
    x = p.type(0).dtype
    names = p.x(0), p.x(1)
    if x.is_float and p.out.dtype.bits > x.bits:
        names, x = tuple([p.cast(n, p.out.dtype) for n in names]), p.out.dtype  # type: ignore[assignment]
    if x.is_float or (x.bits >= 32 and plain == "MatMul"):
        made, have = p.node(plain, *names, **attrs), x
    elif _narrow(p):
        made, have = p.node(narrow, *names, **attrs), i32
    elif plain == "Conv":  # exact while the sums stay below 2**53
        made, have = p.node(plain, *[p.cast(n, f64) for n in names], **attrs), f64
    else:
        made = p.node(plain, *[p.cast(n, i32) for n in names], **attrs)
        have = i32
    return made if p.out.dtype is have else p.cast(made, p.out.dtype)


def matmul(p: Place) -> str:
    return _product(p, "MatMul", "MatMulInteger")


def contract(p: Place) -> str:
    """An Einsum, in i32 where the operands are narrower integers, in f32 for bf16."""
    x = p.type(0).dtype
    wide = i32 if x.is_integer and x.bits < 32 else f32 if x is bf16 else x
    names = p.all() if wide is x else [p.cast(n, wide) for n in p.all()]
    made = p.node("Einsum", *names, equation=p.attrs["equation"])
    return made if p.out.dtype is wide else p.cast(made, p.out.dtype)


def window_attrs(op: Op, kernel: Sequence[int]) -> dict[str, Any]:
    """Kernel, strides, pads and dilations; those that are the default are left out."""
    given = op.attributes
    plain = {"strides": 1, "dilations": 1, "pads": 0}
    found: dict[str, Any] = {"kernel_shape": list(kernel)}
    for name, usual in plain.items():
        value = list(given.get(name) or ())
        found[name] = value if any([v != usual for v in value]) else None
    return found


def conv_attrs(op: Op) -> dict[str, Any]:
    """The attributes of a Conv; blocked layouts are none of ONNX's."""
    found = window_attrs(op, op.operands[1].tensor.shape[2:])  # type: ignore[arg-type]
    return found | {"group": op.attributes["groups"] if op.attributes["groups"] != 1 else None}


def _plain_layout(p: Place) -> None:
    if p.attrs["channel_block"]:
        raise p.refuse("its channels are packed in blocks; export before the phase 'layout'")


def conv(p: Place) -> str:
    _plain_layout(p)
    return _product(p, "Conv", "ConvInteger", **conv_attrs(p.op))


def conv_transpose(p: Place) -> str | None:
    """Negative pads and integers are said by the convolution that it is made of."""
    if any([e < 0 for e in p.attrs["pads"]]) or not p.type().dtype.is_float:
        return None
    return p.node("ConvTranspose", *p.all(), **transpose_attrs(p.op))


def transpose_attrs(op: Op) -> dict[str, Any]:
    """The attributes of a ConvTranspose."""
    extra = list(op.attributes["extra"])
    return conv_attrs(op) | {"output_padding": extra if any(extra) else None}


# ---- windows


def pool_attrs(op: Op) -> dict[str, Any]:
    """The attributes of a pool."""
    given = op.attributes
    attrs = window_attrs(op, given["kernel"])
    for ours, theirs in (("count_include_pad",) * 2, ("ceil_mode",) * 2,
                         ("column_major", "storage_order")):  # fmt: skip
        if given.get(ours):
            attrs[theirs] = 1
    return attrs | ({"p": given["p"]} if "p" in given else {})


def pool(type: str) -> Row:
    """MaxPool, AveragePool and LpPool."""

    def row(p: Place) -> str:
        _plain_layout(p)
        attrs = pool_attrs(p.op)
        if type == "AveragePool" and attrs["dilations"]:
            p.need(19, "dilations of AveragePool")
        if type == "LpPool" and (attrs["dilations"] or attrs.get("ceil_mode")):
            p.need(18, "dilations of LpPool")
        return p.node(type, p.x(), **attrs)

    return row


def max_pool_indices(p: Place) -> str:
    _plain_layout(p)
    return p.nodes("MaxPool", 2, p.x(), **pool_attrs(p.op))[1]


def resize(p: Place) -> str | None:
    """The extents where they are known and the scales are their ratios, else the scales."""
    given, x = p.attrs, p.type()
    if any([isinstance(e, int) and e == 0 for e in p.out.shape]):
        nothing = np.zeros(1, x.dtype.np)
        return p.node("ConstantOfShape", vector(p.graph, p.out.shape), value=nothing)
    axes = [a % x.rank for a in given["axes"]]
    at = dict(zip(axes, given["sizes"]))
    factors = dict(zip(axes, given["scales"]))
    if all([_ratio(x.shape[a], factors[a], at[a]) for a in factors]):
        factors = {}
    if any([not _follows(x.shape[a], factors[a], at[a]) for a in factors]):
        return None
    roi = ""
    if given["roi"]:
        ends = dict(zip(axes, zip(given["roi"], given["roi"][len(axes) :])))
        told = [ends.get(k, (0.0, 1.0))[side] for side in (0, 1) for k in range(x.rank)]
        roi = p.const(np.array(told, np.float32))
    scales = [factors.get(k, 1.0) for k in range(x.rank)] if factors else []
    sizes = [at.get(k, e) for k, e in enumerate(x.shape)]
    told_by = [p.const(np.array(scales, np.float32))] if scales else ["", vector(p.graph, sizes)]
    cropped = given["coordinates"] == "tf_crop_and_resize"
    if given["antialias"]:
        p.need(18, "antialias of Resize")
    if given["coordinates"] == "half_pixel_symmetric":
        p.need(19, "half_pixel_symmetric")
    return p.node(
        "Resize", p.x(), roi, *told_by, mode=given["mode"],
        coordinate_transformation_mode=given["coordinates"],
        nearest_mode=given["rounding"] if given["mode"] == "nearest" else None,
        cubic_coeff_a=given["cubic"] if given["mode"] == "cubic" else None,
        antialias=int(given["antialias"]) or None,
        exclude_outside=int(given["exclude_outside"]) or None,
        extrapolation_value=given["extrapolation"] if cropped else None,
    )  # fmt: skip


def _ratio(extent: DimLike, scale: float, size: DimLike) -> bool:
    """The scale is size over extent, as a float of ONNX."""
    known = isinstance(extent, int) and isinstance(size, int) and extent > 0
    return known and bool(np.float32(size / extent) == np.float32(scale))


def _follows(extent: DimLike, scale: float, size: DimLike) -> bool:
    """ONNX computes this size from the scale, which it holds as a 32-bit float."""
    if isinstance(extent, int):
        return isinstance(size, int) and math.floor(extent * float(np.float32(scale))) == size
    return True


# ---- quantization


def quantize(p: Place) -> str:
    """A zero point of zeros says the type where none is given."""
    to, scale = p.attrs["to"], p.type(1)
    if to.bits != 8 or p.attrs["group"]:
        p.need(21, f"quantize to {to}" if not p.attrs["group"] else "quantize by groups")
    zero = p.x(2)
    if not zero and to is not u8:
        if not scale.is_static:
            raise p.refuse("a zero point of unknown extent")
        zero = p.const(np.zeros(scale.shape, np.int8), to)  # type: ignore[arg-type]
    return p.node("QuantizeLinear", p.x(0), p.x(1), zero, **_lies(p))


def dequantize(p: Place) -> str:
    if p.type().dtype.bits not in (8, 32) or p.attrs["group"]:
        p.need(21, "dequantize by groups or of this element type")
    return p.node("DequantizeLinear", *p.all(), **_lies(p))


def _lies(p: Place) -> dict[str, Any]:
    """Axis and block size, where the parameters have axes."""
    if not p.type(1).rank:
        return {}
    return {"axis": p.attrs["axis"], "block_size": p.attrs["group"] or None}


# ---- recurrent layers

_ACTIVATIONS = {
    "sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "softplus": "Softplus", "elu": "Elu",
    "leaky_relu": "LeakyRelu", "hard_sigmoid": "HardSigmoid", "softsign": "Softsign",
    "affine": "Affine", "scaled_tanh": "ScaledTanh", "thresholded_relu": "ThresholdedRelu",
}  # fmt: skip
_USUAL = {"elu": (1.0,), "leaky_relu": (0.01,), "hard_sigmoid": (0.2, 0.5)}


def recurrent(type: str, order: Sequence[str], **more: str) -> Row:
    """LSTM, GRU and RNN: operands in ONNX's order, attributes in its names."""

    def row(p: Place) -> Any:
        given = dict(zip([o.name for o in p.op.spec.operands], p.op.operands))
        names = []
        for operand in order:
            value = given.get(operand)
            name = "" if value is None else p.graph.of(value)
            narrow = value is not None and operand == "lengths" and value.tensor.dtype is not i32
            names.append(p.cast(name, i32) if narrow else name)
        activations = _activations(p)
        if activations is None:
            return None
        direction = p.attrs["direction"]
        attrs = {theirs: int(p.attrs[ours]) or None for theirs, ours in more.items()}
        return p.nodes(type, len(p.op.results), *names, **activations, **attrs,
                       direction=direction if direction != "forward" else None,
                       clip=p.attrs["clip"] or None, hidden_size=p.type(2).shape[2])  # fmt: skip

    return row


def _activations(p: Place) -> dict[str, Any] | None:
    """The attributes that say the activations; None where ONNX lacks one of them."""
    names, alphas, betas = [], [], []
    for named in p.attrs["activations"]:
        name, *given = (named,) if isinstance(named, str) else named
        if name not in _ACTIVATIONS:
            return None
        names.append(_ACTIVATIONS[name])
        for kept, value in zip((alphas, betas), given or _USUAL.get(name, ())):
            kept.append(value)
    found: dict[str, Any] = {"activations": names or None}
    return found | {"activation_alpha": alphas or None, "activation_beta": betas or None}


_COMMON = ("x", "w", "r", "bias", "lengths", "h0")

ROWS: Mapping[str, Row] = {
    "matmul": matmul,
    "contract": contract,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "max_pool": pool("MaxPool"),
    "avg_pool": pool("AveragePool"),
    "resize": resize,
    "lp_pool": pool("LpPool"),
    "max_pool_indices": max_pool_indices,
    "quantize": quantize,
    "dequantize": dequantize,
    "lstm": recurrent("LSTM", (*_COMMON, "c0", "peephole"), input_forget="input_forget"),
    "gru": recurrent("GRU", _COMMON, linear_before_reset="linear_before_reset"),
    "rnn": recurrent("RNN", _COMMON),
}

__all__ = ["ROWS", "conv_attrs", "pool_attrs", "transpose_attrs", "window_attrs"]
