"""Rules about ops that only move elements: views of views, moves that move nothing.

May import: ir, the values beside it.
"""

from __future__ import annotations

import numpy as np

from ...ir.core import OPS, Array, Builder, Op, Value
from ...ir.dims import DimLike, equal, nonneg
from ...ir.ops.elementwise import _Elementwise
from .values import RuleTable, classes, constant, is_constant, is_tensor, repeated, table


def _same_shape(a: Value, b: Value) -> bool:
    """Extents are provably equal, axis by axis."""
    return _equal_dims(a.tensor.shape, b.tensor.shape)


def _equal_dims(a: tuple[DimLike, ...], b: tuple[DimLike, ...]) -> bool:
    return len(a) == len(b) and all([equal(x, y) is True for x, y in zip(a, b, strict=True)])


def to_same_shape(op: Op, b: Builder) -> Value | None:
    """A reshape or broadcast to the shape that x has."""
    x = op.operands[0]
    return x if x.type is op.results[0].type else None


def reshape_of_reshape(op: Op, b: Builder) -> Value | None:
    """Of two reshapes the last says it all."""
    inner = op.operands[0].op
    if inner is None or inner.name != "reshape":
        return None
    return b.reshape(inner.operands[0], shape=op.attributes["shape"])  # type: ignore[no-any-return]


def broadcast_of_broadcast(op: Op, b: Builder) -> Value | None:
    """Of two broadcasts the last says it all."""
    inner = op.operands[0].op
    if inner is None or inner.name != "broadcast_to":
        return None
    return b.broadcast_to(inner.operands[0], shape=op.attributes["shape"])  # type: ignore[no-any-return]


def broadcast_is_reshape(op: Op, b: Builder) -> Value | None:
    """A broadcast that only adds axes of extent 1."""
    x, shape = op.operands[0], op.attributes["shape"]
    skip = len(shape) - x.tensor.rank
    if (
        skip == 0
        or any([e != 1 for e in shape[:skip]])
        or not _equal_dims(x.tensor.shape, shape[skip:])
    ):
        return None
    return b.reshape(x, shape=shape)  # type: ignore[no-any-return]


def transpose_of_transpose(op: Op, b: Builder) -> Value | None:
    """Two transposes are one, or none."""
    (x,), perm = op.operands, op.attributes["perm"]
    if perm == tuple(range(len(perm))):
        return x
    inner = x.op
    if inner is None or inner.name != "transpose":
        return None
    first = inner.attributes["perm"]
    return b.transpose(inner.operands[0], perm=[first[p] for p in perm])  # type: ignore[no-any-return]


def transpose_is_reshape(op: Op, b: Builder) -> Value | None:
    """A transpose that keeps the order of all axes longer than 1."""
    (x,), perm = op.operands, op.attributes["perm"]
    shape = x.tensor.shape
    moved = [p for p in perm if shape[p] != 1]
    if moved != sorted(moved) or perm == tuple(range(len(perm))):
        return None
    return b.reshape(x, shape=op.results[0].tensor.shape)  # type: ignore[no-any-return]


def whole_slice(op: Op, b: Builder) -> Value | None:
    """A slice of everything."""
    (x,) = op.operands
    steps = op.attributes["steps"]
    starts = op.attributes["starts"]
    if any([s != 0 for s in starts]) or any([s != 1 for s in steps]):
        return None
    return x if _same_shape(x, op.results[0]) and x.type is op.results[0].type else None


def slice_of_slice(op: Op, b: Builder) -> Value | None:
    """Two slices are one."""
    inner = op.operands[0].op
    if inner is None or inner.name != "slice":
        return None
    rank = op.operands[0].tensor.rank
    first, then = inner.attributes, op.attributes
    ones = (1,) * rank
    steps = list(zip(first["steps"] or ones, then["steps"] or ones, strict=True))
    starts = [
        a + s * step for a, s, (step, _) in zip(first["starts"], then["starts"], steps, strict=True)
    ]
    both = [p * q for p, q in steps]
    x = inner.operands[0]
    return b.slice(x, starts=starts, sizes=then["sizes"], steps=both)  # type: ignore[no-any-return]


def slice_of_concat(op: Op, b: Builder) -> Value | None:
    """A slice that lies within one operand of a concat reads that operand."""
    inner = op.operands[0].op
    if inner is None or inner.name != "concat" or any([s < 1 for s in op.attributes["steps"]]):
        return None
    rank = op.operands[0].tensor.rank
    axis = inner.attributes["axis"] % rank
    starts, sizes = op.attributes["starts"], op.attributes["sizes"]
    step = (op.attributes["steps"] or (1,) * rank)[axis]
    last = starts[axis] + (sizes[axis] - 1) * step
    offset: DimLike = 0
    for part in inner.operands:
        end = offset + part.tensor.shape[axis]
        if (
            nonneg(starts[axis] - offset) is True
            and nonneg(end - 1 - last) is True
            and nonneg(sizes[axis] - 1) is True
        ):
            moved = [s - offset if k == axis else s for k, s in enumerate(starts)]
            return b.slice(part, starts=moved, sizes=sizes, steps=op.attributes["steps"])  # type: ignore[no-any-return]
        offset = end
    return None


def concat_parts(op: Op, b: Builder) -> Value | None:
    """A concat of one operand; empty operands go; a concat inside a concat opens."""
    parts = list(op.operands)
    axis = op.attributes["axis"] % parts[0].tensor.rank
    kept: list[Value] = []
    for part in parts:
        inner = part.op
        if part.tensor.shape[axis] == 0 and part.tensor.is_static:
            continue
        if (
            inner is not None
            and inner.name == "concat"
            and inner.attributes["axis"] % part.tensor.rank == axis
        ):
            kept.extend(inner.operands)
        else:
            kept.append(part)
    if len(kept) == 1 and kept[0].type is op.results[0].type:
        return kept[0]
    return b.concat(*kept, axis=axis) if kept and kept != parts else None


def taken_slice(op: Op, b: Builder) -> Value | None:
    """A take (or gather) at constant indices that are evenly spaced is a slice."""
    x, index = op.operands
    places = constant(index)
    axis = op.attributes["axis"] % x.tensor.rank
    extent = x.tensor.shape[axis]
    if places is None or places.size == 0 or not isinstance(extent, int):
        return None
    at = [int(k) for k in places.reshape(-1)]
    if any([not -extent <= k < extent for k in at]) or (op.name == "take" and min(at) < 0):
        return None  # the run that meets it reports it
    at = [k % extent for k in at]
    step = at[1] - at[0] if len(at) > 1 else 1
    if step == 0 or any([q - p != step for p, q in zip(at, at[1:])]):
        return None
    starts = [at[0] if k == axis else 0 for k in range(x.tensor.rank)]
    sizes = [len(at) if k == axis else e for k, e in enumerate(x.tensor.shape)]
    steps = [step if k == axis else 1 for k in range(x.tensor.rank)]
    part = b.slice(x, starts=starts, sizes=sizes, steps=steps)
    return b.reshape(part, shape=op.results[0].tensor.shape)  # type: ignore[no-any-return]


def reduced_ones(op: Op, b: Builder) -> Value | None:
    """A reduction over axes of extent 1 only is its operand."""
    x = op.operands[0]
    axes = op.attributes["axes"]
    axes = range(x.tensor.rank) if axes is None else axes
    if any([x.tensor.shape[a] != 1 for a in axes]) or x.tensor.dtype.kind == "complex":
        return None
    return b.reshape(x, shape=op.results[0].tensor.shape)  # type: ignore[no-any-return]


def no_pad(op: Op, b: Builder) -> Value | None:
    """A pad by nothing."""
    given = op.attributes
    return op.operands[0] if all([p == 0 for p in (*given["low"], *given["high"])]) else None


def pad_of_pad(op: Op, b: Builder) -> Value | None:
    """Two pads with the same value are one, if neither takes elements away."""
    inner = op.operands[0].op
    if inner is None or inner.name != "pad":
        return None
    first, then = inner.attributes, op.attributes
    counts = (*first["low"], *first["high"], *then["low"], *then["high"])
    if (
        first["mode"] != "constant"
        or then["mode"] != "constant"
        or any([nonneg(c) is not True for c in counts])
    ):
        return None
    if first["value"] != then["value"]:
        return None
    low = [p + q for p, q in zip(first["low"], then["low"], strict=True)]
    high = [p + q for p, q in zip(first["high"], then["high"], strict=True)]
    return b.pad(inner.operands[0], low=low, high=high, value=then["value"])  # type: ignore[no-any-return]


def pack_of_unpack(op: Op, b: Builder) -> Value | None:
    """pack(unpack(x)) of one layout is x, where the padding is zero or absent."""
    inner = op.operands[0].op
    if inner is None or inner.name != "unpack":
        return None
    given, had = op.attributes, inner.attributes
    if any([given[k] != had[k] for k in ("axes", "blocks", "order")]):
        return None
    if inner.operands[0].type is not op.results[0].type:
        return None
    shape = had["shape"]
    whole = all(
        [
            equal(shape[a] % c, 0) is True
            for a, c in zip(given["axes"], given["blocks"], strict=True)
        ]
    )
    if whole:
        return inner.operands[0]
    one = (
        len(given["axes"]) == 1 and not given["order"] and isinstance(shape[given["axes"][0]], int)
    )
    return (
        inner.operands[0]
        if one and zero_lanes(inner.operands[0], given["axes"][0], shape[given["axes"][0]])
        else None
    )


def unpack_of_pack(op: Op, b: Builder) -> Value | None:
    """unpack(pack(x)) of one layout is x."""
    inner = op.operands[0].op
    if inner is None or inner.name != "pack":
        return None
    given, had = op.attributes, inner.attributes
    alike = all([given[k] == had[k] for k in ("axes", "blocks", "order")])
    return inner.operands[0] if alike and inner.operands[0].type is op.results[0].type else None


_KEEP_ZERO = {
    "relu",
    "resample",
    "leaky_relu",
    "max_pool",
    "avg_pool",
    "neg",
    "abs",
    "tanh",
    "erf",
    "silu",
    "gelu",
    "hard_swish",
    "sqrt",
    "elu",
    "identity",
    "cast",
    "sign",
    "floor",
    "ceil",
    "trunc",
    "round_even",
    "sin",
    "expm1",
}
_ZERO_OF_ZEROS = {"add", "sub", "mul", "max", "min"}


def zero_lanes(value: Value, axis: int, extent: int, depth: int = 32) -> bool:
    """What pads a value packed along `axis` (of logical `extent`) is known to be zero."""
    op = value.op
    if op is None or depth == 0:
        return False
    array = constant(value)
    if array is not None:
        return _constant_lanes(array, axis, extent)
    if op.name == "pack" or (op.name == "conv" and op.attributes["channel_block"]):
        return True
    if op.name in _KEEP_ZERO:
        return zero_lanes(op.operands[0], axis, extent, depth - 1)
    if op.name == "clip":
        return _spans_zero(op) and zero_lanes(op.operands[0], axis, extent, depth - 1)
    if op.name in _ZERO_OF_ZEROS:
        return all([zero_lanes(v, axis, extent, depth - 1) for v in op.operands])
    return False


def _spans_zero(clip: Op) -> bool:
    """Does this clip leave zero as it is?"""
    low, high = (None if v is None else repeated(v) for v in clip.operands[1:])
    fine = [v is None or c is not None for v, c in zip(clip.operands[1:], (low, high))]
    return all(fine) and (low is None or bool(low <= 0)) and (high is None or bool(high >= 0))


def _constant_lanes(array: Array, axis: int, extent: int) -> bool:
    """The same for a constant: all zero, or packed too."""
    if not array.any():
        return True
    if (
        array.ndim <= axis + 1
        or array.shape[axis] * array.shape[-1] < extent
        or array.shape[-1] == 1
    ):
        return False
    last = np.take(array, -1, axis)
    kept = extent - (array.shape[axis] - 1) * array.shape[-1]
    return not last[..., kept:].any()


def sunk_transpose(op: Op, b: Builder) -> Value | None:
    """A unary elementwise op between two transposes moves before the first, so that they meet."""
    inner = op.operands[0].op
    if (
        inner is None
        or len(inner.operands) != 1
        or inner.name not in _UNARY
        or not is_tensor(inner.operands[0])
    ):
        return None
    first = inner.operands[0].op
    if first is None or first.name != "transpose" or len(op.operands[0].users) != 1:
        return None
    moved = b.emit(type(inner), first.operands[0], **inner.attributes)
    perm = [first.attributes["perm"][p] for p in op.attributes["perm"]]
    return b.transpose(moved, perm=perm)  # type: ignore[no-any-return]


_UNARY = {
    "relu",
    "neg",
    "abs",
    "exp",
    "tanh",
    "sigmoid",
    "sqrt",
    "gelu",
    "silu",
    "leaky_relu",
    "cast",
    "erf",
    "log",
}


def later_reshape(op: Op, b: Builder) -> Value | None:
    """f(reshape(x), c) is reshape(f(x, c)): elementwise ops meet what computes x and fuse."""
    result = op.results[0]
    if not is_tensor(result):
        return None
    sources = [s for s in [_reshaped(v) for v in op.operands] if s is not None]
    if not sources or any([s.tensor.shape != sources[0].tensor.shape for s in sources]):
        return None
    source, shape = sources[0], result.tensor.shape
    if source.op is None or not all([_moves_with(v, source, shape) for v in op.operands]):
        return None
    operands = [_before_reshape(v, source, shape, b) for v in op.operands]
    return b.reshape(b.emit(type(op), *operands, **op.attributes), shape=shape)  # type: ignore[no-any-return]


def _reshaped(value: Value) -> Value | None:
    """What a reshape that computes nothing else was given."""
    op = value.op
    return op.operands[0] if op is not None and op.name == "reshape" else None


def _trailing(a: tuple[DimLike, ...], b: tuple[DimLike, ...]) -> int:
    """How many of the last extents are equal."""
    count = 0
    for x, y in zip(reversed(a), reversed(b)):
        if equal(x, y) is not True:
            break
        count += 1
    return count


def _moves_with(value: Value, source: Value, shape: tuple[DimLike, ...]) -> bool:
    """May the operand stand before the reshape: whole, or varying along unchanged last axes?"""
    given = value.tensor.shape
    if _equal_dims(given, shape):
        return _reshaped(value) is not None or is_constant(value)
    varying = next((len(given) - k for k, e in enumerate(given) if e != 1), 0)
    return varying <= _trailing(source.tensor.shape, shape) and _reshaped(value) is None


def _before_reshape(value: Value, source: Value, shape: tuple[DimLike, ...], b: Builder) -> Value:
    given = value.tensor.shape
    if _equal_dims(given, shape):
        made = _reshaped(value)
        return made if made is not None else b.reshape(value, shape=source.tensor.shape)
    varying = next((len(given) - k for k, e in enumerate(given) if e != 1), 0)
    return b.reshape(value, shape=given[len(given) - varying :]) if len(given) != varying else value


_REDUCTIONS = ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod")


def shape_rules() -> RuleTable:
    """The table of this file."""
    elementwise = [cls for cls in OPS.values() if issubclass(cls, _Elementwise)]
    return table(
        (classes("reshape"), [to_same_shape, reshape_of_reshape]),
        (classes("broadcast_to"), [to_same_shape, broadcast_of_broadcast, broadcast_is_reshape]),
        (classes("transpose"), [transpose_of_transpose, transpose_is_reshape, sunk_transpose]),
        (classes("slice"), [whole_slice, slice_of_slice, slice_of_concat]),
        (classes("concat"), [concat_parts]),
        (classes("take", "gather"), [taken_slice]),
        (classes(*_REDUCTIONS), [reduced_ones]),
        (classes("pad"), [no_pad, pad_of_pad]),
        (classes("pack"), [pack_of_unpack]),
        (classes("unpack"), [unpack_of_pack]),
        (elementwise, [later_reshape]),
    )


__all__ = ["shape_rules", "zero_lanes"]
