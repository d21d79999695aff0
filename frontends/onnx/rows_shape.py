"""Import rows of ops that ask for shapes or move elements: reshape, slice, concat, pad, tile ...

Imports: node, ir.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...ir.core import Value
from ...ir.dims import Dim, DimLike, ceildiv, equal, floordiv, max_, min_, nonneg
from ...ir.ops.elementwise import broadcast
from ...ir.types import DType, TensorType, boolean, f32, i64
from .item import KNOWN_LIMIT
from .node import Known, Node, Result, Row
from .tensors import dtype_of

Shape = tuple[DimLike, ...]


def product(dims: Sequence[DimLike]) -> DimLike:
    """The number of elements of a shape."""
    return math.prod(dims)


def at_least_zero(extent: DimLike) -> DimLike:
    """max(0, extent), without the max where it cannot matter."""
    return extent if nonneg(extent) is True else max_(0, extent)


def dims_array(dims: Sequence[DimLike]) -> np.ndarray:
    """Dims as the elements of a vector."""
    out = np.empty(len(dims), object)
    out[:] = dims
    return out


def shape(n: Node) -> Result:
    """All extents, or from opset 15 those from `start` to `end`."""
    dims = n.shape(0)
    start, end = n.attr("start", 0), n.attr("end", len(dims))
    return Known(dims_array(dims[slice(start, end)]), i64)


def size(n: Node) -> Result:
    """The number of elements."""
    out = np.empty((), object)
    out[()] = product(n.shape(0))
    return Known(out, i64)


def reshape(n: Node) -> Result:
    """0 keeps an extent (unless allowzero), one -1 takes what is left."""
    target = n.ints("shape") if n.version < 5 else n.dims(1, "shape")
    if target is None:
        raise n.invalid("E0111", "Reshape needs a shape")
    return n.reshape(n.x(0), resolved(n, n.shape(0), target, bool(n.attr("allowzero", 0))))


def resolved(n: Node, source: Shape, target: Sequence[DimLike], allow_zero: bool) -> Shape:
    """The shape that a Reshape target means for an operand of shape `source`."""
    out: list[DimLike] = []
    for k, extent in enumerate(target):
        if type(extent) is int and extent == 0 and not allow_zero:
            if k >= len(source):
                raise n.invalid("E0317", f"Reshape: 0 at axis {k}, which the operand does not have")
            extent = source[k]
        out.append(extent)
    free = [k for k, e in enumerate(out) if type(e) is int and e < 0]
    if len(free) > 1 or any(out[k] != -1 for k in free):
        raise n.invalid("E0317", f"Reshape: {list(target)} leaves more than one extent open")
    if free:
        out[free[0]] = _left(n, source, [e for k, e in enumerate(out) if k != free[0]])
    return tuple(out)


def _left(n: Node, source: Shape, others: Sequence[DimLike]) -> DimLike:
    """The extent that -1 stands for: what common factors leave."""
    rest = list(others)
    have = [e for e in source if not _cancel(rest, e)]
    total, known = product(have), product(rest)
    if type(known) is int and known == 0:
        raise n.invalid("E0317", "Reshape: -1 beside an extent of 0 means nothing")
    if type(total) is int and type(known) is int and total % known:
        raise n.invalid("E0317", f"Reshape: {product(source)} elements do not fill "
                        f"{[str(e) for e in others]} and -1")  # fmt: skip
    return total if known == 1 else floordiv(total, known)


def _cancel(rest: list[DimLike], extent: DimLike) -> bool:
    for k, other in enumerate(rest):
        if other != 0 and equal(other, extent) is True:
            del rest[k]
            return True
    return False


def flatten(n: Node) -> Result:
    """A matrix: axes before `axis`, axes from it on."""
    dims = n.shape(0)
    axis = n.attr("axis", 1)
    if not -len(dims) <= axis <= len(dims):
        raise n.invalid("E0330", f"Flatten: axis {axis} is outside rank {len(dims)}")
    axis = axis + len(dims) if axis < 0 else axis
    return n.reshape(n.x(0), (product(dims[:axis]), product(dims[axis:])))


def squeeze(n: Node) -> Result:
    """Drops the named axes, or all of extent 1."""
    dims = n.shape(0)
    axes = n.axes(1)
    if axes is None:
        gone = {k for k, e in enumerate(dims) if type(e) is int and e == 1}
        if any(isinstance(e, Dim) for e in dims):
            raise n.unsupported("Squeeze without axes needs known extents", f"found {n.type(0)}",
                                hint="give the extents with shapes=")  # fmt: skip
    else:
        gone = {n.axis(a, len(dims)) for a in axes}
    for k in gone:
        if equal(dims[k], 1) is False:
            raise n.invalid("E0317", f"Squeeze: axis {k} has the extent {dims[k]}, not 1")
    return n.reshape(n.x(0), [e for k, e in enumerate(dims) if k not in gone])


def unsqueeze(n: Node) -> Result:
    """New axes of extent 1."""
    axes = n.axes(1)
    if axes is None:
        raise n.invalid("E0111", "Unsqueeze needs axes")
    rank = n.rank(0) + len(axes)
    places = {n.axis(a, rank) for a in axes}
    if len(places) != len(axes):
        raise n.invalid("E0330", "Unsqueeze: an axis is named twice", f"axes {axes}")
    rest = iter(n.shape(0))
    return n.reshape(n.x(0), [1 if k in places else next(rest) for k in range(rank)])


def transpose(n: Node) -> Result:
    """Axes permuted, by default reversed."""
    rank = n.rank(0)
    perm = n.ints("perm")
    perm = tuple(reversed(range(rank))) if perm is None else tuple([n.axis(p, rank) for p in perm])
    if len(perm) != rank or len(set(perm)) != rank:
        raise n.invalid("E0318", f"Transpose: {perm} is no permutation of {rank} axes")
    return n.transpose(n.x(0), perm)


def expand(n: Node) -> Result:
    """Both ways: an extent of 1 in the target keeps the operand's."""
    target = n.dims(1, "shape")
    return n.b.broadcast_to(n.x(0), shape=broadcast(n.shape(0), target))


def tile(n: Node) -> Result:
    """[a, b] -> [1, a, 1, b] -> [r, a, s, b] -> [r a, s b]."""
    x, dims = n.x(0), n.shape(0)
    if n.version < 6:
        times, axis = n.dims(1, "tiles"), n.numbers(2, "axis")[0]
        repeats: list[DimLike] = [1] * len(dims)
        repeats[n.axis(axis, len(dims))] = times[0]
    else:
        repeats = list(n.dims(1, "repeats"))
    if len(repeats) != len(dims):
        raise n.invalid("E0317", f"Tile: {len(repeats)} repeats for {len(dims)} axes")
    if all(type(r) is int and r == 1 for r in repeats):
        return x
    lifted: list[DimLike] = []
    spread: list[DimLike] = []
    for extent, times_ in zip(dims, repeats):
        if not (type(times_) is int and times_ == 1):
            lifted.append(1)
            spread.append(times_)
        lifted.append(extent)
        spread.append(extent)
    wide = n.b.broadcast_to(n.reshape(x, lifted), shape=spread)
    return n.reshape(wide, [e * r for e, r in zip(dims, repeats)])


def concat(n: Node) -> Result:
    """Operands one after the other."""
    axis = n.attr("axis", 1) if n.version < 4 else n.required("axis")
    xs = n.all()
    return n.b.concat(*xs, axis=axis) if len(xs) > 1 else n.x(0)


def split(n: Node) -> Result:
    """Sizes are an operand, an attribute, or as even as can be over the results."""
    dims = n.shape(0)
    axis = n.axis(n.attr("axis", 0), len(dims))
    sizes: Sequence[DimLike] | None = n.dims(1, "split") if n.has(1) else n.ints("split")
    if sizes is None:
        parts = n.attr("num_outputs") or len(n.proto.output)
        if parts != len(n.proto.output):
            raise n.invalid("E0111", f"Split: num_outputs is not {len(n.proto.output)}")
        each = ceildiv(dims[axis], parts)
        sizes = [each] * (parts - 1) + [dims[axis] - each * (parts - 1)]
    if equal(sum(sizes), dims[axis]) is False:
        raise n.invalid("E0317", f"Split: {sizes} do not sum to the extent {dims[axis]}")
    start: DimLike = 0
    out = []
    for extent in sizes:
        out.append(n.take_range(n.x(0), axis, start, extent))
        start = start + extent
    return out


def slice_(n: Node) -> Result:
    """Starts, ends and axes are attributes before opset 10; steps came with the operands."""
    dims = n.shape(0)
    rank = len(dims)
    if n.version < 10:
        starts: Sequence[DimLike] = n.required("starts")
        ends: Sequence[DimLike] = n.required("ends")
        axes, steps = n.ints("axes"), None
    else:
        starts, ends = n.dims(1, "starts"), n.dims(2, "ends")
        axes = n.numbers(3, "axes") if n.has(3) else None
        steps = n.numbers(4, "steps") if n.has(4) else None
    axes = axes if axes is not None else tuple(range(len(starts)))
    steps = steps if steps is not None else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise n.invalid("E0319", "Slice: one start, end and step (not 0) per axis")
    low: list[DimLike] = [0] * rank
    sizes = list(dims)
    by = [1] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps):
        k = n.axis(axis, rank)
        low[k], sizes[k] = bounds_of(n, start, end, step, dims[k])
        by[k] = step
    if sizes == list(dims) and by == [1] * rank:
        return n.x(0)
    return n.b.slice(n.x(0), starts=low, sizes=sizes, steps=by)


def bounds_of(
    n: Node, start: DimLike, end: DimLike, step: int, extent: DimLike
) -> tuple[DimLike, DimLike]:
    """(first index, number of elements) of start:end:step, clamped as numpy does."""
    forward = step > 0
    first = _clamped(n, start, extent, 0 if forward else -1, extent if forward else extent - 1, 0)
    last = _clamped(n, end, extent, 0 if forward else -1, extent if forward else extent - 1, 1)
    span = last - first if forward else first - last
    count = at_least_zero(ceildiv(span, abs(step)))
    if type(count) is int and count == 0:
        first = 0
    return first, count


def _clamped(
    n: Node, at: DimLike, extent: DimLike, low: DimLike, high: DimLike, is_end: int
) -> DimLike:
    if nonneg(at) is None:
        raise n.unsupported("Slice: the sign of a bound is not known", f"found {at}",
                            hint="give the extents with shapes=")  # fmt: skip
    if nonneg(at) is False:
        at = at + extent
    if type(at) is int and type(extent) is int:
        return min(max(at, low), high)
    if type(at) is int and abs(at) >= 1 << 31:
        return high if at > 0 else low
    if nonneg(at - low) is not True:
        at = max_(at, low)
    return at if nonneg(high - at) is True else min_(at, high)


def pad(n: Node) -> Result:
    """Pads are an attribute before opset 11 (named `paddings` before 2); negative ones crop."""
    x, rank = n.x(0), n.rank(0)
    axes = tuple(range(rank))
    fill = n.attr("value", 0.0)
    if n.version < 11:
        pads: Sequence[DimLike] | None = n.ints("pads") or n.ints("paddings")
    else:
        pads = n.dims(1, "pads")
        fill = _fill(n)
        if n.has(3):
            axes = tuple([n.axis(a, rank) for a in n.numbers(3, "axes")])
    if pads is None or len(pads) != 2 * len(axes):
        raise n.invalid("E0319", f"Pad: a pad before and after each of {len(axes)} axes")
    low: list[DimLike] = [0] * rank
    high: list[DimLike] = [0] * rank
    for k, axis in enumerate(axes):
        low[axis], high[axis] = pads[k], pads[k + len(axes)]
    if all(type(p) is int and p == 0 for p in (*low, *high)):
        return x
    mode = n.attr("mode", "constant")
    if fill is None:
        return _filled_by(n, x, low, high)
    if not x.tensor.dtype.is_float:
        fill = int(fill)
    return n.b.pad(x, low=low, high=high, mode=mode, value=fill)


def _filled_by(n: Node, x: Value, low: Sequence[DimLike], high: Sequence[DimLike]) -> Value:
    """A constant pad whose fill is computed: chosen where a mask, padded alike, is false."""
    inside = n.b.broadcast_to(n.const(True, boolean), shape=x.tensor.shape)
    mask = n.b.pad(inside, low=low, high=high, value=0)
    out = n.b.pad(x, low=low, high=high, value=0)
    return n.b.where(mask, out, n.reshape(n.x(2), ()))


def _fill(n: Node) -> float | int | None:
    """The fill value; None where it is not known."""
    known = n.known(2)
    if not n.has(2):
        return 0
    if known is None:
        return None
    value: float | int = known.reshape(-1)[0].item() if known.size else 0
    return value


def constant_of_shape(n: Node) -> Result:
    """One value, by default a float 0."""
    dims = n.dims(0, "shape")
    value = n.attr("value")
    value = np.zeros(1, np.float32) if value is None else value.reshape(-1)
    dtype = f32 if "value" not in n.attributes else dtype_of(n.attributes["value"].t.data_type)
    return filled(n, value[0], dtype, dims)


def filled(n: Node, value: object, dtype: DType, dims: Sequence[DimLike]) -> Value | Known:
    """A tensor of one value: known while small, else a broadcast."""
    total = product(dims)
    if any(type(e) is int and e < 0 for e in dims):
        raise n.invalid("E0317", f"{n.op}: negative extent in {list(dims)}")
    if type(total) is int and total <= KNOWN_LIMIT:
        return Known(np.full(dims, value, dtype.np), dtype)
    return n.b.broadcast_to(n.const(value, dtype), shape=tuple(dims))


def range_(n: Node) -> Result:
    """start + step * index; the number of elements must follow from known bounds."""
    dtype = n.type(0).dtype
    known = [n.known(k) for k in range(3)]
    if any(k is None for k in known):
        raise n.unsupported("Range: its bounds must be known when the model is imported")
    start, limit, step = [k.reshape(-1)[0] for k in known]  # type: ignore[union-attr]
    if isinstance(step, Dim) or step == 0:
        raise n.invalid("E0317", "Range: the step must be a number other than 0", f"found {step}")
    if dtype.is_float:
        count: DimLike = max(0, math.ceil((float(limit) - float(start)) / float(step)))
    else:
        start, limit = [e if isinstance(e, Dim) else int(e) for e in (start, limit)]
        step = int(step)
        span = limit - start if step > 0 else start - limit
        count = at_least_zero(ceildiv(span, abs(step)))
    at = n.b.iota(shape=(count,), dtype=dtype)
    if step != 1:
        at = n.b.mul(at, n.const(step, dtype))
    if isinstance(start, Dim):
        return n.b.add(at, n.b.dim_value(dim=start, dtype=dtype))
    return at if start == 0 else n.b.add(at, n.const(start, dtype))


def depth_to_space(n: Node) -> Result:
    """Channels to blocks of pixels."""
    size, mode = n.required("blocksize"), n.attr("mode", "DCR")
    batch, channels, height, width = image(n)
    less = channels // (size * size)
    if mode == "DCR":
        split_, perm = (batch, size, size, less, height, width), (0, 3, 4, 1, 5, 2)
    else:
        split_, perm = (batch, less, size, size, height, width), (0, 1, 4, 2, 5, 3)
    moved = n.transpose(n.reshape(n.x(0), split_), perm)
    return n.reshape(moved, (batch, less, height * size, width * size))


def space_to_depth(n: Node) -> Result:
    """Blocks of pixels to channels: place in the block before the channel (DCR) or after."""
    size = n.required("blocksize")
    batch, channels, height, width = image(n)
    split_ = (batch, channels, height // size, size, width // size, size)
    perm = (0, 3, 5, 1, 2, 4) if n.attr("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    moved = n.transpose(n.reshape(n.x(0), split_), perm)
    return n.reshape(moved, (batch, channels * size * size, height // size, width // size))


def image(n: Node) -> Shape:
    """The four extents of an image batch."""
    if n.rank(0) != 4:
        raise n.invalid("E0317", f"{n.op} takes [N, C, H, W]")
    return n.shape(0)


def trilu(n: Node) -> Result:
    """The upper or lower triangle, the rest zero; `k` is the diagonal."""
    x = n.x(0)
    k = n.numbers(1, "k")[0] if n.has(1) else 0
    rows, columns = x.tensor.shape[-2:]
    i = n.b.iota(shape=(rows, columns), axis=0)
    j = n.b.iota(shape=(rows, columns), axis=1)
    edge = n.b.add(i, n.like(i, k))
    keep = n.b.ge(j, edge) if n.attr("upper", 1) else n.b.le(j, edge)
    return n.b.where(keep, x, n.like(x, 0))


def eye_like(n: Node) -> Result:
    """Ones on the diagonal `k`."""
    x: TensorType = n.type(0)
    code = n.attr("dtype")
    dtype = x.dtype if code is None else dtype_of(code, n.place())
    i = n.b.iota(shape=x.shape, axis=0)
    j = n.b.iota(shape=x.shape, axis=1)
    return n.cast(n.b.eq(j, n.b.add(i, n.like(i, n.attr("k", 0)))), dtype)


ROWS: Sequence[tuple[str, int, Row]] = (
    ("Shape", 1, shape),
    ("Size", 1, size),
    ("Reshape", 1, reshape),
    ("Flatten", 1, flatten),
    ("Squeeze", 1, squeeze),
    ("Unsqueeze", 1, unsqueeze),
    ("Transpose", 1, transpose),
    ("Expand", 8, expand),
    ("Tile", 1, tile),
    ("Concat", 1, concat),
    ("Split", 1, split),
    ("Slice", 1, slice_),
    ("Pad", 1, pad),
    ("ConstantOfShape", 9, constant_of_shape),
    ("Range", 11, range_),
    ("DepthToSpace", 1, depth_to_space),
    ("SpaceToDepth", 1, space_to_depth),
    ("Trilu", 14, trilu),
    ("EyeLike", 9, eye_like),
)
