"""Export rows of ops that move elements: reshape, slice, broadcast, pad, gathers, one-hot, top-k.

Imports: the graph being written, shape arithmetic, ir.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...ir.blobs import Blob
from ...ir.core import Value
from ...ir.dims import Dim, DimLike, equal, nonneg
from ...ir.ops.core import Const
from ...ir.types import boolean, i32, i64
from .export_dims import INT64, element, keeps_zero, numbers, reshape_target, scalar, vector
from .export_elementwise import lifted
from .export_graph import Graph, Place, Row


def single(value: Value | None) -> object:
    """The only element of a constant as an array of one; None for anything else."""
    op = value.op if value is not None else None
    if isinstance(op, Const) and isinstance(op.value, Blob) and op.value.type.size == 1:
        return op.value.array.reshape(1)
    return None


def reshape(p: Place) -> str:
    target = p.attrs["shape"]
    told = reshape_target(p, p.type().shape, target)
    return p.node("Reshape", p.x(), told, allowzero=keeps_zero(target))


def transpose(p: Place) -> str:
    return p.node("Transpose", p.x(), perm=list(p.attrs["perm"])) if p.type().rank else p.x()


def broadcast_to(p: Place) -> str:
    """One number repeated is a ConstantOfShape: it stays small in the file."""
    shape = p.attrs["shape"]
    element_ = single(p.value())
    if element_ is not None and p.out.dtype.kind not in ("string", "complex"):
        if p.out.dtype.bits >= 8 and (p.out.dtype.name in _FILLS or p.opset >= 21):
            return p.node("ConstantOfShape", vector(p.graph, shape), value=element_)
    have = p.type().shape
    skip = len(shape) - len(have)
    told: list[DimLike] = [
        1 if k >= skip and equal(have[k - skip], e) is True else e for k, e in enumerate(shape)
    ]
    if all([isinstance(e, int) and e == 1 for e in told]) and not skip:
        return p.x()
    return p.node("Expand", p.x(), vector(p.graph, told))


_FILLS = frozenset({"f16", "f32", "f64", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64",
                    "bool"})  # fmt: skip


def concat(p: Place) -> str:
    return p.node("Concat", *p.all(), axis=p.attrs["axis"])


def slice_(p: Place) -> str:
    """Only the axes that are cut; an end before the first element is the least integer.

    One place of an axis is a Gather, whose result has that extent whatever the operand's is.
    """
    rank = p.type().rank
    starts, sizes = p.attrs["starts"], p.attrs["sizes"]
    steps = p.attrs["steps"] or (1,) * rank
    cut = []
    for axis, (start, size, step) in enumerate(zip(starts, sizes, steps)):
        if step != 1 or start != 0 or equal(size, p.type().shape[axis]) is not True:
            cut.append((axis, start, _end(p.graph, start, size, step, p.type().shape[axis]), step))
    if not cut:
        return p.x()
    axes, begin, ends, by = zip(*cut)
    begin = tuple([_from_end(at, p.type().shape[k]) for at, k in zip(begin, axes)])
    place, size = begin[0], sizes[axes[0]]
    if len(axes) == 1 and size == 1 and isinstance(place, int) and not p.type().is_static:
        return p.node("Gather", p.x(), numbers(p.graph, [place]), axis=axes[0])
    more = [numbers(p.graph, by)] if any([s != 1 for s in by]) else []
    return p.node("Slice", p.x(), vector(p.graph, begin), _ends(p.graph, ends),
                  numbers(p.graph, axes), *more)  # fmt: skip


def _from_end(at: DimLike, extent: DimLike) -> DimLike:
    """A place a known way before the end, counted from there: no arithmetic, and no doubt."""
    back = at - extent
    return back if isinstance(at, Dim) and isinstance(back, int) and back < 0 else at


def _end(graph: Graph, start: DimLike, size: DimLike, step: int, extent: DimLike) -> DimLike | str:
    """Where a slice stops: a dim, or the name of a vector of one element."""
    end = start + size * step
    if isinstance(size, int) and size == 0:
        return start
    if step > 0:
        whole = equal(end, extent) is True and isinstance(end, Dim)
        return int(INT64.max) if whole else _from_end(end, extent)
    if nonneg(end) is True:
        return end
    if nonneg(-end - 1) is True or equal(size, extent) is True:
        return int(INT64.min) + 1
    told = element(graph, end)
    zero, far = numbers(graph, [0]), numbers(graph, [1 << 40])
    below = graph.add("Mul", [graph.add("Min", [told, zero], "end")[0], far], "end")[0]
    return graph.add("Add", [told, below], "end")[0]


def _ends(graph: Graph, ends: Sequence[DimLike | str]) -> str:
    named = [e for e in ends if isinstance(e, str)]
    if not named:
        return vector(graph, ends)  # type: ignore[arg-type]
    parts = [e if isinstance(e, str) else element(graph, e) for e in ends]
    return parts[0] if len(parts) == 1 else graph.add("Concat", parts, "ends", 1, {"axis": 0})[0]


def pad(p: Place) -> str:
    """Wrap is a mode from opset 19 on; a mirror image wider than the axis is refused."""
    mode, low, high = p.attrs["mode"], p.attrs["low"], p.attrs["high"]
    if mode == "wrap":
        p.need(19, "pad in mode wrap")
    extents = p.type().shape
    far = [(e, c) for e, a, b in zip(extents, low, high) for c in (a, b) if c > 0]
    if mode == "reflect" and any([nonneg(e - 1 - c) is not True for e, c in far]):
        raise p.refuse("a mirror image wider than what it mirrors")
    told = vector(p.graph, (*low, *high))
    if mode != "constant":
        return p.node("Pad", p.x(), told, mode=mode)
    value = p.attrs["value"]
    value = bool(value) if p.type().dtype is boolean else value
    fill = p.const(value, p.type().dtype) if value != 0 else ""
    return p.node("Pad", p.x(), told, fill)


def iota(p: Place) -> str:
    """A Range, laid along its axis and repeated over the others."""
    shape, axis, dtype = p.attrs["shape"], p.attrs["axis"], p.attrs["dtype"]
    zero, one = [p.const(k, i64) for k in (0, 1)]
    made = p.node("Range", zero, scalar(p.graph, shape[axis]), one)
    made = made if dtype is i64 else p.cast(made, dtype)
    made = lifted(p, made, len(shape), axis)
    if all([k == axis or e == 1 for k, e in enumerate(shape)]):
        return made
    return p.node("Expand", made, vector(p.graph, shape))


def gather(type: str) -> Row:
    """Gather and GatherElements take i32 and i64."""

    def row(p: Place) -> str:
        index = p.x(1) if p.type(1).dtype.name in ("i32", "i64") else p.to_i64(1)
        return p.node(type, p.x(0), index, axis=p.attrs["axis"])

    return row


def one_hot(p: Place) -> str | None:
    """OneHot's values are numbers in every runtime, so that they are cast behind it."""
    if not p.type().rank:
        return None
    depth = scalar(p.graph, p.attrs["depth"])
    values = p.const(np.array([0, 1], np.float32))
    hot = p.node("OneHot", p.to_i64(0), depth, values, axis=p.attrs["axis"])
    return p.cast(hot, boolean)


def top_k(p: Place) -> Sequence[str]:
    k = element(p.graph, p.attrs["k"])
    largest = None if p.attrs["largest"] else 0
    return p.nodes("TopK", 2, p.x(), k, axis=p.attrs["axis"], largest=largest)


def gather_nd(p: Place) -> str:
    return p.node("GatherND", p.x(0), p.to_i64(1), batch_dims=p.attrs["batch"] or None)


def reverse_sequence(p: Place) -> str:
    axes = {k: p.attrs[k] for k in ("batch_axis", "time_axis")}
    lengths = p.to_i64(1)
    return p.in_f32(lambda x: p.node("ReverseSequence", x, lengths, **axes))


def scatter(type: str) -> Row:
    """ScatterElements and ScatterND."""

    def row(p: Place) -> str:
        how = p.attrs["reduction"]
        if how in ("max", "min"):
            p.need(18, f"{type} with the reduction {how}")
        return p.node(type, p.x(0), p.to_i64(1), p.x(2), axis=p.attrs.get("axis"),
                      reduction=None if how == "none" else how)  # fmt: skip

    return row


def tensor_scatter(p: Place) -> str:
    p.need(24, "tensor_scatter")
    mode = "circular" if p.attrs["circular"] else None
    return p.node("TensorScatter", p.x(0), p.x(1), p.to_i64(2), axis=p.attrs["axis"], mode=mode)


def cumulative(type: str, since: int) -> Row:
    """CumSum and CumProd."""

    def row(p: Place) -> str:
        p.need(since, type)
        flags = {k: int(p.attrs[k]) or None for k in ("exclusive", "reverse")}
        axis, dtype = p.const(p.attrs["axis"], i64), p.type().dtype
        if not dtype.is_integer or dtype.bits >= 32:
            return p.node(type, p.x(), axis, **flags)
        return p.cast(p.node(type, p.cast(p.x(), i32), axis, **flags), dtype)

    return row


def position(type: str) -> Row:
    """ArgMax and ArgMin."""
    return lambda p: p.node(
        type, p.x(), axis=p.attrs["axis"], keepdims=int(p.attrs["keepdims"]),
        select_last_index=1 if p.attrs["select_last"] else None,
    )  # fmt: skip


def reduction(type: str, wide: str = "", since: int = 18) -> Row:
    """Axes are an operand from opset 18 on (13 for sums); over all spatial axes, `wide`."""

    def row(p: Place) -> str:
        axes, keep, rank = p.attrs["axes"], p.attrs["keepdims"], p.type().rank
        axes = tuple(range(rank)) if axes is None else axes
        spatial = rank >= 3 and axes == tuple(range(2, rank)) and keep
        if wide and spatial and p.type().dtype.is_float:
            return p.node(wide, p.x())
        if not axes:
            return _over_none(p)
        keepdims = None if keep else 0
        if p.opset >= since:
            return p.node(type, p.x(), numbers(p.graph, axes), keepdims=keepdims)
        return p.node(type, p.x(), axes=list(axes), keepdims=keepdims)

    def _over_none(p: Place) -> str:
        name = numbers(p.graph, [])
        if p.opset >= since:
            return p.node(type, p.x(), name, noop_with_empty_axes=1)
        lifted_ = p.node("Unsqueeze", p.x(), numbers(p.graph, [0]))
        return p.node(type, lifted_, axes=[0], keepdims=0)

    return row


_REDUCE = {"sum": "ReduceSum", "mean": "ReduceMean", "prod": "ReduceProd", "max": "ReduceMax",
           "min": "ReduceMin", "l1": "ReduceL1", "l2": "ReduceL2", "log_sum": "ReduceLogSum",
           "sum_square": "ReduceSumSquare", "log_sum_exp": "ReduceLogSumExp"}  # fmt: skip
_GLOBAL = {"mean": "GlobalAveragePool", "max": "GlobalMaxPool"}

ROWS: Mapping[str, Row] = {
    "reshape": reshape,
    "transpose": transpose,
    "broadcast_to": broadcast_to,
    "concat": concat,
    "slice": slice_,
    "pad": pad,
    "iota": iota,
    "take": gather("Gather"),
    "gather": gather("Gather"),
    "take_along": gather("GatherElements"),
    "gather_elements": gather("GatherElements"),
    "gather_nd": gather_nd,
    "take_nd": gather_nd,
    "reverse_sequence": reverse_sequence,
    "scatter_elements": scatter("ScatterElements"),
    "scatter_nd": scatter("ScatterND"),
    "tensor_scatter": tensor_scatter,
    "cum_sum": cumulative("CumSum", 14),
    "cum_prod": cumulative("CumProd", 26),
    "one_hot": one_hot,
    "top_k": top_k,
    "argmax": position("ArgMax"),
    "argmin": position("ArgMin"),
    **{
        f"reduce_{ours}": reduction(theirs, _GLOBAL.get(ours, ""), 13 if ours == "sum" else 18)
        for ours, theirs in _REDUCE.items()
    },
}

__all__ = ["ROWS", "single"]
