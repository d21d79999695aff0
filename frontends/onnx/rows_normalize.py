"""Import rows of softmax and of the normalisations.  Imports: node, ir."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.core import Value
from ...ir.types import DType
from .node import Node, Result, Row
from .rows_linear import per_channel
from .rows_shape import product
from .tensors import dtype_of


def softmax(op: str) -> Row:
    """Along one axis; before opset 13 over all axes from `axis` on, laid flat."""

    def row(n: Node) -> Result:
        x = n.x(0)
        if n.version >= 13:
            return getattr(n.b, op)(x, axis=n.attr("axis", -1))
        dims = x.tensor.shape
        axis = n.axis(n.attr("axis", 1), len(dims))
        if all(type(e) is int and e == 1 for e in dims[axis + 1 :]) and dims:
            return getattr(n.b, op)(x, axis=axis)
        flat = n.reshape(x, (product(dims[:axis]), product(dims[axis:])))
        return n.reshape(getattr(n.b, op)(flat, axis=1), dims)

    return row


def hardmax(n: Node) -> Result:
    """1 at the first greatest element, else 0."""
    x = n.x(0)
    dims = x.tensor.shape
    axis = n.axis(n.attr("axis", 1 if n.version < 13 else -1), len(dims))
    if n.version < 13:
        x, axis = n.reshape(x, (product(dims[:axis]), product(dims[axis:]))), 1
    best = n.b.argmax(x, axis=axis, keepdims=True)
    at = n.b.iota(shape=x.tensor.shape, axis=axis)
    return n.reshape(n.cast(n.b.eq(at, best), x.tensor.dtype), dims)


def batch_norm(n: Node) -> Result:
    """(x - mean) * scale / sqrt(var + epsilon) + bias, as one product and one sum per channel."""
    if n.version < 7 and not n.attr("is_test", 0) and len(n.proto.output) > 1:
        raise n.unsupported("BatchNormalization in training mode is not supported before opset 7")
    if n.version >= 14 and n.attr("training_mode", 0):
        return _batch_norm_training(n)
    return _scaled(n, n.x(3), n.x(4))


def _batch_norm_training(n: Node) -> Result:
    """Normalised by the batch's own statistics; the running ones are results."""
    x, momentum = n.x(0), n.attr("momentum", 0.9)
    axes = tuple([k for k in range(x.tensor.rank) if k != 1])
    stored = n.type(3).dtype
    wide = n.cast(x, stored)
    mean = n.b.reduce_mean(wide, axes=axes)
    centred = n.b.sub(wide, per_channel(n, mean, wide))
    var = n.b.reduce_mean(n.b.mul(centred, centred), axes=axes)
    running = []
    for old, new in ((n.x(3), mean), (n.x(4), var)):
        kept = n.b.mul(old, n.like(old, momentum))
        running.append(n.b.add(kept, n.b.mul(new, n.like(new, 1 - momentum))))
    return (_scaled(n, mean, var), *running)


def _scaled(n: Node, mean: Value, var: Value) -> Value:
    x, scale, bias = n.x(0), n.x(1), n.x(2)
    dtype = var.tensor.dtype
    root = n.b.sqrt(n.b.add(var, n.like(var, n.attr("epsilon", 1e-5))))
    factor = n.b.div(n.cast(scale, dtype), root)
    offset = n.b.sub(n.cast(bias, dtype), n.b.mul(mean, factor))
    if x.tensor.rank < 2:
        raise n.invalid("E0310", "BatchNormalization takes [N, C, ...]")
    factor, offset = [per_channel(n, n.cast(v, x.tensor.dtype), x) for v in (factor, offset)]
    return n.b.add(n.b.mul(x, factor), offset)


def instance_norm(n: Node) -> Result:
    """Each channel of each sample to mean 0 and variance 1, scaled."""
    x = n.x(0)
    rest = (*x.tensor.shape[:2], product(x.tensor.shape[2:]))
    plain = n.b.layer_norm(n.reshape(x, rest), axis=2, epsilon=n.attr("epsilon", 1e-5))
    out = n.reshape(plain, x.tensor.shape)
    scale, bias = [per_channel(n, n.x(k), x) for k in (1, 2)]
    return n.b.add(n.b.mul(out, scale), bias)


def group_norm(n: Node) -> Result:
    """Scale and bias are per group in opset 18, per channel from 21 on."""
    x, groups = n.x(0), n.required("num_groups")
    dims = x.tensor.shape
    flat = n.reshape(x, (dims[0], groups, product((dims[1] // groups, *dims[2:]))))
    plain = n.b.layer_norm(flat, axis=2, epsilon=n.attr("epsilon", 1e-5))
    scale, bias = n.x(1), n.x(2)
    if n.version < 21:
        plain = n.b.mul(plain, n.reshape(scale, (groups, 1)))
        return n.reshape(n.b.add(plain, n.reshape(bias, (groups, 1))), dims)
    out = n.reshape(plain, dims)
    return n.b.add(n.b.mul(out, per_channel(n, scale, x)), per_channel(n, bias, x))


def layer_norm(n: Node) -> Result:
    """Over the axes from `axis` on; mean and inverse deviation are further results."""
    x = n.x(0)
    axis = n.axis(n.attr("axis", -1), x.tensor.rank)
    epsilon = n.attr("epsilon", 1e-5)
    scale, bias = n.opt(1), n.opt(2)
    out = n.b.layer_norm(x, scale, bias, axis=axis, epsilon=epsilon)
    if len([o for o in n.proto.output if o]) < 2:
        return out
    stash = dtype_of(n.attr("stash_type", 1), n.place())
    wide = n.cast(x, stash)
    axes = tuple(range(axis, x.tensor.rank))
    mean = n.b.reduce_mean(wide, axes=axes, keepdims=True)
    centred = n.b.sub(wide, mean)
    variance = n.b.reduce_mean(n.b.mul(centred, centred), axes=axes, keepdims=True)
    return out, mean, n.b.rsqrt(n.b.add(variance, n.like(variance, epsilon)))


def rms_norm(n: Node) -> Result:
    """x / sqrt(mean(x^2) + epsilon) * scale, over the axes from `axis` on (Zhang 2019)."""
    x = n.x(0)
    axes = tuple(range(n.axis(n.attr("axis", -1), x.tensor.rank), x.tensor.rank))
    stash: DType = dtype_of(n.attr("stash_type", 1), n.place())
    wide = n.cast(x, stash)
    mean = n.b.reduce_mean(n.b.mul(wide, wide), axes=axes, keepdims=True)
    root = n.b.sqrt(n.b.add(mean, n.like(mean, n.attr("epsilon", 1e-5))))
    out = n.cast(n.b.div(wide, root), n.type(1).dtype)
    return n.b.mul(out, n.x(1))


def lp_norm(n: Node) -> Result:
    """x over its 1- or 2-norm along one axis; 0 where that is 0."""
    x, p = n.x(0), n.attr("p", 2)
    axis = n.axis(n.attr("axis", -1), x.tensor.rank)
    norm = (n.b.reduce_l1 if p == 1 else n.b.reduce_l2)(x, axes=(axis,), keepdims=True)
    zero = n.like(norm, 0)
    return n.b.where(n.b.eq(norm, zero), zero, n.b.div(x, norm))


def mean_variance_norm(n: Node) -> Result:
    """(x - mean) / deviation over the axes."""
    x = n.x(0)
    axes = n.ints("axes") or (0, 2, 3)
    mean = n.b.reduce_mean(x, axes=axes, keepdims=True)
    centred = n.b.sub(x, mean)
    variance = n.b.reduce_mean(n.b.mul(centred, centred), axes=axes, keepdims=True)
    return n.b.div(centred, n.b.add(n.b.sqrt(variance), n.like(x, 1e-9)))


def local_response(n: Node) -> Result:
    """x / (bias + alpha / size * sum of squares over neighbouring channels) ** beta."""
    x, size = n.x(0), n.required("size")
    if not 1 <= size <= 4096:
        raise n.invalid("E0111", f"LRN: the size {size} is impossible")
    low, high = (size - 1) // 2, size // 2
    return n.b.local_response_norm(  # type: ignore[no-any-return]
        x,
        size=size,
        alpha=n.attr("alpha", 1e-4),
        beta=n.attr("beta", 0.75),
        bias=n.attr("bias", 1.0),
    )


ROWS: Sequence[tuple[str, int, Row]] = (
    ("Softmax", 1, softmax("softmax")),
    ("LogSoftmax", 1, softmax("log_softmax")),
    ("Hardmax", 1, hardmax),
    ("BatchNormalization", 1, batch_norm),
    ("InstanceNormalization", 1, instance_norm),
    ("GroupNormalization", 18, group_norm),
    ("LayerNormalization", 1, layer_norm),
    ("RMSNormalization", 23, rms_norm),
    ("LpNormalization", 1, lp_norm),
    ("MeanVarianceNormalization", 9, mean_variance_norm),
    ("LRN", 1, local_response),
)
