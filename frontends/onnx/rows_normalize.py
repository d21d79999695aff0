"""Import rows of softmax and of the normalisations.  Imports: node, ir."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.core import Value
from ...ir.dims import DimLike
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
    """A group norm of as many groups as channels."""
    x = n.x(0)
    if x.tensor.rank < 3:
        raise n.invalid("E0310", "InstanceNormalization takes [N, C, ...]")
    return n.b.group_norm(x, n.x(1), n.x(2), groups=x.tensor.shape[1],
                          epsilon=n.attr("epsilon", 1e-5))  # fmt: skip


def group_norm(n: Node) -> Result:
    """Scale and bias are per group in opset 18, per channel from 21 on."""
    x, groups, epsilon = n.x(0), n.required("num_groups"), n.attr("epsilon", 1e-5)
    scale, bias = n.x(1), n.x(2)
    if n.version < 21:
        each = x.tensor.shape[1] // groups
        scale, bias = [_repeated(n, v, each) for v in (scale, bias)]
    return n.b.group_norm(x, scale, bias, groups=groups, epsilon=epsilon)


def _repeated(n: Node, v: Value, each: DimLike) -> Value:
    """A vector with every element `each` times."""
    count = v.tensor.shape[0]
    wide = n.b.broadcast_to(n.reshape(v, (count, 1)), shape=(count, each))
    return n.reshape(wide, (count * each,))


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
    """The IR's `rms_norm`; the element type of the scale is that of the result."""
    x, scale = n.x(0), n.x(1)
    dtype = scale.tensor.dtype
    axis = n.axis(n.attr("axis", -1), x.tensor.rank)
    epsilon = n.attr("epsilon", 1e-5)
    if x.tensor.dtype is dtype:
        return n.b.rms_norm(x, scale, axis=axis, epsilon=epsilon)
    plain = n.b.rms_norm(n.cast(x, dtype_of(n.attr("stash_type", 1), n.place())), axis=axis,
                         epsilon=epsilon)  # fmt: skip
    return n.b.mul(n.cast(plain, dtype), scale)


def lp_norm(n: Node) -> Result:
    """The IR's `lp_norm`."""
    return n.b.lp_norm(n.x(0), axis=n.attr("axis", -1), p=n.attr("p", 2))


def mean_variance_norm(n: Node) -> Result:
    """The IR's `mean_variance_norm`."""
    return n.b.mean_variance_norm(n.x(0), axes=n.ints("axes") or (0, 2, 3))


def local_response(n: Node) -> Result:
    """x / (bias + alpha / size * sum of squares over neighbouring channels) ** beta."""
    x, size = n.x(0), n.required("size")
    if not 1 <= size <= 4096:
        raise n.invalid("E0111", f"LRN: the size {size} is impossible")
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
