"""Several ops that one ONNX op says: a bias, a linear layer, one scale and one shift per channel.

A pattern looks at the last op of its kind and gives a `Fusion`: the ops that need no node of their
own, and the row that writes them all.  Runtimes recognise these ops and are quick at them.
Imports: the graph being written, ir.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.blobs import Blob
from ...ir.core import Block, Op, Value
from ...ir.dims import equal
from ...ir.ops.core import Const, Func
from ...ir.types import TensorType, f32
from .export_compute import conv_attrs, pool_attrs, transpose_attrs
from .export_dims import numbers
from .export_graph import Array, Place, Row
from .export_integer import dynamic_range, integer_product

VECTOR_LIMIT = 1 << 16
"""Elements of the longest vector that is made from one number."""


@dataclass(frozen=True)
class Fusion:
    """`absorbed` ops are written by `write`, the row of the last of them."""

    absorbed: tuple[Op, ...]
    write: Row


Pattern = Callable[[Op], Fusion | None]


def fusions(func: Func) -> tuple[dict[Op, Fusion], set[Op]]:
    """What stands for several ops in a function, by its last op; and all ops absorbed."""
    found: dict[Op, Fusion] = {}
    gone: set[Op] = set()
    for op in reversed(list(func.walk())):
        if op in gone:
            continue
        for pattern in PATTERNS.get(op.name, ()):
            fusion = pattern(op)
            if fusion is not None and gone.isdisjoint(fusion.absorbed):
                if not any([a in found for a in fusion.absorbed]):
                    found[op] = fusion
                    gone.update(fusion.absorbed)
                    break
    return found, gone


# ---- what a value is


def used_once(value: Value) -> bool:
    """One op uses the value, once."""
    users = value.users
    return len(users) == 1 and sum([v is value for v in users[0].operands]) == 1


def made_by(value: Value, name: str) -> Op | None:
    """The op that makes a value for its only user, if it is called `name`."""
    op = value.op
    return op if op is not None and op.name == name and used_once(value) else None


def constant(value: Value) -> Array | None:
    """The elements of a constant, or of one number repeated; None for any other value."""
    op = value.op
    if isinstance(op, Const) and isinstance(op.value, Blob):
        return op.value.array
    if op is None or op.name != "broadcast_to" or not value.tensor.is_static:
        return None
    inner = constant(op.operands[0])
    if inner is None or inner.size != 1 or value.tensor.size > VECTOR_LIMIT:  # type: ignore[operator]
        return None
    return np.broadcast_to(inner, value.tensor.shape)  # type: ignore[arg-type]


def per_channel(value: Value, like: TensorType) -> Array | None:
    """One number per channel (axis 1) of a constant that varies along no other axis."""
    channels = like.shape[1]
    found = constant(value)
    if found is None or not isinstance(channels, int) or found.ndim > like.rank:
        return None
    shape = (1,) * (like.rank - found.ndim) + found.shape
    if any([e != 1 for k, e in enumerate(shape) if k != 1]) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(found.reshape(-1), (channels,)).copy()


def _both_ways(op: Op) -> Sequence[tuple[Value, Value]]:
    x, y = op.operands
    return ((x, y), (y, x))


# ---- patterns


def convolution_bias(op: Op) -> Fusion | None:
    """conv(x, w) + b, b one number per channel: the third operand of Conv."""
    for y, bias in _both_ways(op):
        inner = made_by(y, "conv") or made_by(y, "conv_transpose")
        if inner is None or y.type is not op.results[0].type or not y.tensor.dtype.is_float:
            continue
        blocked = inner.attributes.get("channel_block") or inner.attributes.get("out") is not None
        if blocked or any([e < 0 for e in inner.attributes["pads"]]):
            continue
        found = _channel_vector(bias, y.tensor)
        if found is not None:
            vector, absorbed = found
            return Fusion((inner, *absorbed), _with_bias(inner, vector))
    return None


def _with_bias(inner: Op, bias: Value | Array) -> Row:
    plain = inner.name == "conv"

    def write(p: Place) -> str:
        attrs = conv_attrs(inner) if plain else transpose_attrs(inner)
        x, w = [p.graph.of(v) for v in inner.operands]
        dtype = inner.results[0].tensor.dtype
        b = p.graph.of(bias) if isinstance(bias, Value) else p.repeated(bias, dtype)
        return Place(p.graph, inner).node("Conv" if plain else "ConvTranspose", x, w, b, **attrs)

    return write


def _channel_vector(value: Value, like: TensorType) -> tuple[Value | Array, tuple[Op, ...]] | None:
    """A vector over the channels: a constant, or what a reshape lays along axis 1."""
    found = per_channel(value, like)
    if found is not None:
        return found, ()
    op = value.op
    if op is None or op.name != "reshape" or op.operands[0].tensor.rank != 1:
        return None
    vector = op.operands[0]
    want = (vector.tensor.shape[0], *[1] * (like.rank - 2))
    shape = value.tensor.shape
    if shape not in (want, (1, *want)) or equal(want[0], like.shape[1]) is not True:
        return None
    return vector, (op,) if used_once(value) else ()


def linear(op: Op) -> Fusion | None:
    """x @ w + b of matrices and a vector: Gemm."""
    for y, bias in _both_ways(op):
        inner = made_by(y, "matmul")
        if inner is None or y.type is not op.results[0].type or not y.tensor.dtype.is_float:
            continue
        if y.tensor.rank != 2 or bias.tensor.rank > 1 or inner.attributes["out"] is not None:
            continue

        if inner.operands[0].tensor.rank == inner.operands[1].tensor.rank == 2:
            turned = _turned(inner.operands[1])
            return Fusion((inner, *turned), _gemm(inner, bias, turned))
    return None


def _turned(w: Value) -> tuple[Op, ...]:
    """The transpose that makes a matrix."""
    op = w.op
    return (op,) if op is not None and op.name == "transpose" and used_once(w) else ()


def _gemm(inner: Op, bias: Value, turned: Sequence[Op]) -> Row:
    def write(p: Place) -> str:
        x, w = inner.operands
        names = [p.graph.of(v) for v in (x, turned[0].operands[0] if turned else w, bias)]
        return Place(p.graph, inner).node("Gemm", *names, transB=1 if turned else None)

    return write


def scale_and_shift(op: Op) -> Fusion | None:
    """x * s + t, each one number per channel: BatchNormalization of mean 0 and variance 1."""
    for y, shift in _both_ways(op):
        inner = made_by(y, "mul")
        if inner is None or y.type is not op.results[0].type or y.tensor.dtype is not f32:
            continue
        for x, scale in _both_ways(inner):
            if x.tensor.rank < 3 or x.type is not y.type:
                continue
            s, t = [per_channel(v, x.tensor) for v in (scale, shift)]
            if s is not None and t is not None:
                return Fusion((inner,), _normalization(x, s, t))
    return None


def _normalization(x: Value, scale: Array, shift: Array) -> Row:
    def write(p: Place) -> str:
        zero, one = [np.full(scale.shape, v, np.float32) for v in (0, 1)]
        names = [p.repeated(v, f32) for v in (scale, shift, zero, one)]
        return p.node("BatchNormalization", p.graph.of(x), *names, epsilon=0.0)

    return write


def picked(op: Op) -> Fusion | None:
    """One place of an axis, and the axis gone: Gather with a scalar index."""
    inner = made_by(op.operands[0], "slice")
    if inner is None or any([s != 1 for s in inner.attributes["steps"]]):
        return None
    x = inner.operands[0].tensor
    starts, sizes = inner.attributes["starts"], inner.attributes["sizes"]
    cut = [k for k in range(x.rank) if starts[k] != 0 or equal(sizes[k], x.shape[k]) is not True]
    if len(cut) != 1 or sizes[cut[0]] != 1 or not isinstance(starts[cut[0]], int):
        return None
    (axis,) = cut
    if op.results[0].tensor.shape != (*sizes[:axis], *sizes[axis + 1 :]):
        return None

    def write(p: Place) -> str:
        index = p.const(np.array(starts[axis], np.int64))
        return p.node("Gather", p.graph.of(inner.operands[0]), index, axis=axis)

    return Fusion((inner,), write)


def parts(op: Op) -> Fusion | None:
    """Slices that share out an axis: Split, written where the first of them stands."""
    found = _cut(op)
    if found is None:
        return None
    axis, _ = found
    x = op.operands[0]
    group: dict[int, Op] = {}
    for user in x.users:
        cut = _cut(user) if user.name == "slice" and user.block is op.block else None
        if cut is not None and cut[0] == axis:
            group.setdefault(cut[1], user)
    order = [group[start] for start in sorted(group)]
    sizes = [o.attributes["sizes"][axis] for o in order]
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    if len(order) < 2 or sorted(group) != starts or sum(sizes) != x.tensor.shape[axis]:
        return None
    if any([other is not op and not _before(op, other) for other in order]):
        return None

    def write(p: Place) -> str:
        told = numbers(p.graph, sizes)
        names = p.nodes("Split", len(order), p.graph.of(x), told, axis=axis)
        for other, name in zip(order, names):
            p.graph.give(other.results[0], name)
        return names[order.index(op)]

    return Fusion(tuple([o for o in order if o is not op]), write)


def _cut(op: Op) -> tuple[int, int] | None:
    """(axis, start) of a slice of static extent along one axis in steps of 1."""
    given = op.attributes
    x = op.operands[0].tensor
    if any([s != 1 for s in given["steps"]]):
        return None
    axes = [k for k in range(x.rank) if equal(given["sizes"][k], x.shape[k]) is not True]
    if len(axes) != 1:
        return None
    (axis,) = axes
    known = (x.shape[axis], given["starts"][axis], given["sizes"][axis])
    return (axis, known[1]) if all([isinstance(e, int) for e in known]) else None


def _before(first: Op, other: Op) -> bool:
    """`first` stands before `other` in their block."""
    block: Block | None = first.block
    assert block is not None
    op = first.next
    while op is not None:
        if op is other:
            return True
        op = op.next
    return False


def positions(op: Op) -> Fusion | None:
    """The greatest elements of windows and where they lie: one MaxPool of two results."""
    names = ("max_pool", "max_pool_indices")
    other_name = names[op.name == names[0]]
    own = _shared(op)
    for other in op.operands[0].users:
        if other.name == other_name and other.block is op.block and _shared(other) == own:
            if not _before(op, other):
                return None
            break
    else:
        return None

    def write(p: Place) -> str:
        found = p.nodes("MaxPool", 2, p.x(), **pool_attrs(other if op.name == names[0] else op))
        first = op.name != names[0]
        p.graph.give(other.results[0], found[not first])
        return found[first]

    return Fusion((other,), write)


def _shared(op: Op) -> dict[str, object]:
    return {k: v for k, v in op.attributes.items() if k != "column_major"}


def integers(op: Op) -> Fusion | None:
    """A product of operands of 8 bits less their zero points; what widened them may be dead."""
    row = integer_product(op)
    return None if row is None else Fusion((), row)


def dynamic(op: Op) -> Fusion | None:
    """DynamicQuantizeLinear, where nothing reads scale or zero point before it."""
    chain = dynamic_range(op)
    if chain is None:
        return None
    scale, point = chain[-2], chain[-1]
    readers = [u for o in chain for u in o.results[0].users if u not in chain and u is not op]
    outer = {u for o in chain[:-2] for u in o.results[0].users} - {*chain}
    if outer or any([u.block is op.block and not _before(op, u) for u in readers]):
        return None

    def write(p: Place) -> str:
        name, *rest = p.nodes("DynamicQuantizeLinear", 3, p.x())
        for maker, told in zip((scale, point), rest):
            p.graph.give(maker.results[0], told)
        return name

    return Fusion(chain, write)


PATTERNS: Mapping[str, Sequence[Pattern]] = {
    "add": (convolution_bias, linear, scale_and_shift),
    "reshape": (picked,),
    "slice": (parts,),
    "quantize": (dynamic,),
    "matmul": (integers,),
    "conv": (integers,),
    "max_pool": (positions,),
    "max_pool_indices": (positions,),
}

__all__ = ["PATTERNS", "Fusion", "fusions"]
